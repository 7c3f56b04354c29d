"""AvacaProcessor: what it computes against a naive path, streaming, batches, saving and loading."""

import copy
import gc
import json
import pickle
import shutil
import threading
import weakref
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoProcessor

from avad_hf import (
    AvacaProcessor,
    FeatureDataset,
    SlowFastConfig,
    SlowFastModel,
    VggishConfig,
    VggishFeatureExtractor,
    VggishModel,
    extract_features,
)
from avad_hf.features.store import FACTS, read_features
from avad_hf.media.sources import open_media
from avad_hf.models.avaca.end_to_end_avaca import maps_on_grid
from avad_hf.models.avaca.patches_avaca import cut_patches
from avad_hf.models.log_mel import LogMelEncoder
from avad_hf.untrained import init_avaca

from .media_files import frame_times, sound, write_media
from .short_clips import beginning


@pytest.fixture(scope="module")
def processor(tiny):
    return AvacaProcessor.from_pretrained(tiny)


@pytest.fixture(scope="module")
def bunny70(bunny, tmp_path_factory) -> str:
    """The first 70 frames of `bunny`: three clips."""
    return beginning(bunny, tmp_path_factory.mktemp("beginning") / "bunny.mp4", 70)


@pytest.fixture(scope="module")
def bikes34(bikes, tmp_path_factory) -> str:
    """The first 34 frames of `bikes`: two clips."""
    return beginning(bikes, tmp_path_factory.mktemp("beginning") / "bikes.mp4", 34)


@pytest.fixture(scope="module")
def bunny70_features(processor, bunny70):
    """Its features, all at once."""
    return processor(bunny70)


def small_video(tmp_path, count, **kwargs):
    return write_media(tmp_path / f"{count}.mp4", frame_times(25, count / 25), **kwargs)


@torch.no_grad()
def test_equals_a_naive_path(bunny70, tiny):
    """All frames, whole pictures, reference resize, windows by hand, encoders one clip and one frame at a time."""
    import resampy

    processor = AvacaProcessor.from_pretrained(tiny, resize="torch")
    with av.open(bunny70) as container:
        pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    with av.open(bunny70) as container:
        wave = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1).mean(axis=0)
    wave = np.concatenate([np.zeros(16000), resampy.resample(wave.astype(np.float64), 48000, 16000), np.zeros(16000)])
    extractor = VggishFeatureExtractor()
    features = processor(bunny70)
    assert features["visual_features"].shape == (1, 3, 320, 1, 3)
    assert features["audio_features"].shape == (1, 3, 32, 32)
    for clip in range(3):
        indices = [min(i, 69) for i in range(clip * 32, clip * 32 + 32)]
        frames = []
        for i in indices:
            frame = (torch.from_numpy(pictures[i]).permute(2, 0, 1)[None].float() / 255 - 0.45) / 0.225
            frames.append(F.interpolate(frame, size=(64, 113), mode="bilinear", align_corners=False))
        expected = processor.video_encoder(torch.cat(frames).unsqueeze(0)).feature_map
        torch.testing.assert_close(features["visual_features"][:, clip], expected, rtol=1e-4, atol=1e-5)
        for step, index in enumerate(indices):
            stop = 16000 + index * 640
            log_mel = extractor(wave[stop - 16000 : stop]).input_features[:, :96]
            expected = processor.audio_encoder(log_mel).pooler_output[0]
            torch.testing.assert_close(features["audio_features"][0, clip, step], expected, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(features["clip_times"][0, :, 0], torch.arange(3, dtype=torch.float64) * 1.28)
    assert features["clip_times"][0, -1, 1].item() == pytest.approx(2.8)


@pytest.mark.parametrize(("count", "clips"), [(1, 1), (31, 1), (32, 1), (33, 2), (65, 3)])
def test_number_of_clips(tmp_path, processor, count, clips):
    features = processor(small_video(tmp_path, count))
    assert features["clip_mask"].shape == (1, clips) and features["clip_mask"].all()
    assert features["clip_times"][0, -1, 1].item() == pytest.approx(count / 25, abs=1e-4)


def test_batch_pads_and_masks(tmp_path, processor, bunny70, bikes34):
    batch = processor([bunny70, bikes34, small_video(tmp_path, 10)])
    assert batch["clip_mask"].sum(dim=1).tolist() == [3, 2, 1]
    assert batch["has_audio"].tolist() == [True, False, False]
    assert (batch["audio_features"][1:] == 0).all()
    assert (batch["visual_features"][~batch["clip_mask"]] == 0).all()
    for index, video in enumerate((bunny70, bikes34)):
        single = processor(video)
        length = single["clip_mask"].shape[1]
        for key in ("visual_features", "audio_features", "clip_times"):
            torch.testing.assert_close(batch[key][index, :length], single[key][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clips_per_batch", [1, 2, 3, 8])
def test_streaming_equals_all_at_once(processor, bunny70, bunny70_features, clips_per_batch):
    whole = bunny70_features
    chunks = list(processor.stream(bunny70, clips_per_batch))
    assert [chunk["clip_mask"].shape[1] for chunk in chunks] == [
        min(clips_per_batch, 3 - i) for i in range(0, 3, clips_per_batch)
    ]
    for key in ("visual_features", "audio_features", "clip_times"):
        joined = torch.cat([chunk[key] for chunk in chunks], dim=1)
        torch.testing.assert_close(joined, whole[key], rtol=1e-5, atol=1e-5)


def test_overlapping_clips(tiny, bunny70, bunny70_features):
    half, whole = AvacaProcessor.from_pretrained(tiny, clip_stride=16)(bunny70), bunny70_features
    assert half["clip_times"][0, :, 0].tolist() == pytest.approx([0.64 * i for i in range(4)])
    for key in ("visual_features", "audio_features"):
        torch.testing.assert_close(half[key][0, 0:4:2], whole[key][0, :2], rtol=1e-5, atol=1e-6)


def test_videos_of_any_shape_fit_one_batch(tmp_path, processor):
    shapes = [(64, 48), (48, 64), (160, 40), (40, 160)]
    paths = [write_media(tmp_path / f"{w}x{h}.mp4", frame_times(25, 0.4), size=(w, h)) for w, h in shapes]
    assert processor(paths)["visual_features"].shape == (4, 1, 320, 1, 3)


def test_missing_sound_is_one_line_in_the_log(processor, bikes34, caplog):
    with caplog.at_level("INFO", logger="avad_hf"):
        processor(bikes34)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("avad_hf")] == [
        f"{bikes34}: it has no sound; its sound features are zero."
    ]


def test_silence_is_heard_and_no_sound_is_not(tmp_path, processor):
    silent = write_media(tmp_path / "s.mp4", frame_times(25, 0.4), np.zeros((1, 19200)), audio_codec="aac")
    features = processor([silent, small_video(tmp_path, 10)])
    assert features["has_audio"].tolist() == [True, False]
    assert features["audio_features"][0].abs().sum() > 0 and features["audio_features"][1].abs().sum() == 0


def test_arrays_equal_the_file_they_come_from(processor, bunny70, bunny70_features):
    with av.open(bunny70) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    with av.open(bunny70) as container:
        wave = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1)
    found = processor({"frames": frames, "fps": 25, "waveform": wave, "sampling_rate": 48000})
    expected = bunny70_features
    torch.testing.assert_close(found["audio_features"], expected["audio_features"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["clip_times"], expected["clip_times"])
    difference = (found["visual_features"] - expected["visual_features"]).norm() / expected["visual_features"].norm()
    assert difference < 0.02  # scaled from RGB here, from YUV there


def test_encoders_stay_frozen(tiny, bikes34):
    """Whatever train() does to a model around them: no dropout, no batch statistics, no gradients."""
    processor = AvacaProcessor.from_pretrained(tiny)
    before = processor(bikes34)["visual_features"]
    statistics = {name: value.clone() for name, value in processor.video_encoder.state_dict().items()}
    around = torch.nn.ModuleList([processor.video_encoder, processor.audio_encoder])
    around.train()
    after = processor(bikes34)["visual_features"]
    assert torch.equal(before, after) and not after.requires_grad
    assert all(torch.equal(value, statistics[name]) for name, value in processor.video_encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in around.parameters())


def test_bfloat16_features_are_close_and_float32(tiny, bunny70, bunny70_features):
    found = AvacaProcessor.from_pretrained(tiny, dtype=torch.bfloat16)(bunny70)
    for key in ("visual_features", "audio_features"):
        assert found[key].dtype == torch.float32
        assert (found[key] - bunny70_features[key]).norm() / bunny70_features[key].norm() < 0.03


def test_one_object_saves_and_loads(tmp_path, processor, bikes34):
    processor.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audio_encoder", "processor_config.json", "video_encoder"]
    stored = json.loads((tmp_path / "processor_config.json").read_text())
    assert stored["video_encoder"] == "./video_encoder" and stored["feature_grid"] == [1, 3]
    assert str(tmp_path.parent) not in json.dumps(stored)
    for loaded in (AvacaProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, AvacaProcessor) and loaded.to_dict() == processor.to_dict()
        torch.testing.assert_close(loaded(bikes34)["visual_features"], processor(bikes34)["visual_features"])
    assert "AvacaProcessor" in repr(processor)


def test_pushing_uploads_the_encoders_too(tmp_path, processor, monkeypatch):
    pushed = []
    monkeypatch.setattr(
        AvacaProcessor, "push_to_hub", lambda self, repo_id, **kwargs: pushed.append((repo_id, kwargs))
    )
    processor.save_pretrained(tmp_path / "mine", push_to_hub=True, private=True)
    assert pushed == [("mine", {"private": True})]
    assert processor.model_input_names[:2] == ["visual_features", "audio_features"]


def test_a_moved_checkpoint_still_loads(tmp_path, tiny):
    shutil.copytree(tiny, tmp_path / "elsewhere")
    AvacaProcessor.from_pretrained(tmp_path / "elsewhere")


def test_encoders_from_folders_are_saved_inside(tmp_path, processor):
    video, audio = tmp_path / "slowfast", tmp_path / "vggish"
    processor.video_encoder.save_pretrained(video)
    processor.audio_encoder.save_pretrained(audio)
    size = {"size": 64, "feature_grid": (1, 3)}
    from_folders = AvacaProcessor(VggishFeatureExtractor(), video, str(audio), **size)
    from_folders.save_pretrained(tmp_path / "a")
    assert (tmp_path / "a" / "video_encoder" / "model.safetensors").exists()


def test_arguments_replace_what_is_stored(tiny):
    encoder = SlowFastModel(SlowFastConfig(stem_width=8, fast_ratio=4, depths=(1, 1, 1, 1), pool_size=1))
    loaded = AvacaProcessor.from_pretrained(tiny, video_encoder=encoder, size=96)
    assert loaded.video_encoder is encoder and loaded.size == 96


def test_saving_over_its_own_folder_keeps_the_weights(tmp_path, tiny):
    shutil.copytree(tiny, tmp_path / "own")
    loaded = AvacaProcessor.from_pretrained(tmp_path / "own")
    loaded.save_pretrained(tmp_path / "own")
    again = AvacaProcessor.from_pretrained(tmp_path / "own").video_encoder.state_dict()
    for name, value in AvacaProcessor.from_pretrained(tiny).video_encoder.state_dict().items():
        assert torch.equal(again[name], value)


def test_refusals(tmp_path, tiny, processor):
    slowfast, vggish = SlowFastModel(SlowFastConfig(stem_width=8, depths=(1, 1, 1, 1))), processor.audio_encoder
    with pytest.raises(
        TypeError, match=r"video_encoder must read pictures, .* type 'vggish', reads sound\. Give it as audio_enc"
    ):
        AvacaProcessor(VggishFeatureExtractor(), vggish, slowfast)
    with pytest.raises(ValueError, match="resize must be 'area' or 'torch', got 'cubic'"):
        AvacaProcessor(VggishFeatureExtractor(), slowfast, vggish, resize="cubic")
    with pytest.raises(ValueError, match=r"clip_stride must be between 1 and the 32 frames of a clip .* got 33"):
        AvacaProcessor(VggishFeatureExtractor(), slowfast, vggish, clip_stride=33)
    for fields, message in (({"size": 0}, "size must be"), ({"feature_grid": (2,)}, "rows and columns")):
        with pytest.raises(ValueError, match=message):
            AvacaProcessor(VggishFeatureExtractor(), slowfast, vggish, **fields)
    with pytest.raises(ValueError, match="No video was given"):
        processor([])
    with pytest.raises(ValueError, match="clips_per_batch must be 1 or more"):
        next(processor.stream("any.mp4", 0))
    VggishModel(VggishConfig(hidden_sizes=(4, 4, 4, 4), intermediate_size=8)).save_pretrained(tmp_path / "v")
    with pytest.raises(TypeError, match=r"video_encoder must read pictures, .* type 'vggish', reads sound"):
        AvacaProcessor(VggishFeatureExtractor(), tmp_path / "v", vggish)
    folder = tmp_path / "nameless"
    shutil.copytree(tiny, folder)
    stored = json.loads((folder / "processor_config.json").read_text())
    stored.pop("video_encoder")
    (folder / "processor_config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="names no video_encoder"):
        AvacaProcessor.from_pretrained(folder)
    weights = Path(folder) / "video_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    (folder / "processor_config.json").write_text(json.dumps(stored | {"video_encoder": "./video_encoder"}))
    with pytest.raises(ValueError, match=r"its video_encoder cannot be loaded from video_encoder: .*cut or damaged"):
        AvacaProcessor.from_pretrained(folder)


def test_encoders_that_change_are_heeded(tiny, bikes34):
    """The inference form of the video encoder is made anew when its weights are written to, moved or replaced."""
    processor = AvacaProcessor.from_pretrained(tiny)
    maps = [processor(bikes34)["visual_features"]]
    for change in (
        lambda: [tensor.mul_(1.1) for tensor in processor.video_encoder.parameters()],
        lambda: processor.to(dtype=torch.bfloat16),
        lambda: setattr(
            processor.to(dtype="float32"), "video_encoder", AvacaProcessor.from_pretrained(tiny).video_encoder
        ),
    ):
        change()
        maps.append(processor(bikes34)["visual_features"])
    assert not any(torch.equal(first, second) for first, second in pairwise(maps))
    assert torch.equal(maps[0], maps[-1])


# Sound that several clips hear


@pytest.fixture
def heard(monkeypatch) -> list[int]:
    """Windows that audio encoders hear, call by call."""
    counts = []
    outputs_of = LogMelEncoder.outputs_of

    def counting(self, batch, starts=None):
        counts.append(len(batch))
        return outputs_of(self, batch, starts)

    monkeypatch.setattr(LogMelEncoder, "outputs_of", counting)
    return counts


def sounding(tmp_path, frames, fps=25):
    """A small video whose sound is another one at every moment."""
    seconds = frames / fps
    path, times = tmp_path / f"{frames}-{fps}.mp4", frame_times(fps, seconds)
    return write_media(path, times, sound(0, seconds, 16000), 16000, audio_codec="aac")


def clip_by_clip(processor, video):
    """Features of each clip by itself, of frames that nothing else holds."""
    with open_media(video) as media:
        clips = [replace(clip, frames=tuple(map(replace, clip.frames))) for clip in processor.clips(media)]
    features = [processor.encode([clip]) for clip in clips]
    return {key: torch.cat([item[key] for item in features], dim=1) for key in features[0] if key != "has_audio"}


@pytest.mark.parametrize(
    ("frames", "fps", "stride", "clips"),
    [(70, 25, 8, 6), (64, 25, 8, 5), (40, 25, 1, 9), (33, 60, 31, 2), (70, 30, 32, 3), (3, 25, 8, 1)],
)
def test_each_frame_is_heard_once(tmp_path, tiny, heard, frames, fps, stride, clips):
    """However many clips hold it, in one batch or several, and where the last one is repeated to fill the clip."""
    processor = AvacaProcessor.from_pretrained(tiny, clip_stride=stride)
    video = sounding(tmp_path, frames, fps)
    expected = clip_by_clip(processor, video)
    assert heard == [32] * clips
    for clips_per_batch in (None, 1, 3, 100):
        heard.clear()
        found = list(processor.stream(video, clips_per_batch))
        assert sum(heard) == frames and len(heard) <= len(found)
        assert sum(chunk["clip_mask"].shape[1] for chunk in found) == clips
        for key, values in expected.items():
            joined = torch.cat([chunk[key] for chunk in found], dim=1)
            torch.testing.assert_close(joined, values, rtol=1e-5, atol=1e-5)
        audio = torch.cat([chunk["audio_features"] for chunk in found], dim=1)[0]
        assert not frames > 32 or not torch.equal(audio[0], audio[-1])
        if frames == 3:  # the last frame stands in for all that are missing
            assert torch.equal(audio[0, 2:], audio[0, 2].expand(30, -1)) and not torch.equal(audio[0, 1], audio[0, 2])


def test_a_real_clip_is_heard_once_a_frame(tiny, bunny70, heard):
    processor = AvacaProcessor.from_pretrained(tiny, clip_stride=8)
    found = processor(bunny70)
    assert sum(heard) == 70 and found["audio_features"].shape == (1, 6, 32, 32)
    for key, values in clip_by_clip(processor, bunny70).items():
        torch.testing.assert_close(found[key], values, rtol=1e-5, atol=1e-5)
    heard.clear()
    processor(bunny70)  # other frames, if of the same video
    assert sum(heard) == 70


@torch.no_grad()
def test_another_audio_encoder_hears_anew(tmp_path, tiny, heard):
    """What was computed by other weights, in another precision, or by another network is not taken."""
    processor = AvacaProcessor.from_pretrained(tiny)
    with open_media(sounding(tmp_path, 8)) as media:
        clips = list(processor.clips(media))
    init_avaca(tmp_path / "other", size="tiny", seed=1)
    features = [processor.encode(clips)["audio_features"]]
    changes = (
        lambda: [weight.mul_(1.1) for weight in processor.audio_encoder.embeddings.parameters()],
        lambda: processor.audio_encoder.features[0].bias.add_(0.5),
        lambda: processor.to(dtype="bfloat16"),
        lambda: processor.to(dtype=torch.float16),
        lambda: setattr(processor, "audio_encoder", AvacaProcessor.from_pretrained(tmp_path / "other").audio_encoder),
        lambda: setattr(
            processor.to(dtype="float32"), "audio_encoder", AvacaProcessor.from_pretrained(tiny).audio_encoder
        ),
    )
    for number, change in enumerate(changes):
        assert heard == [8] * (number + 1)
        again = processor.encode(clips)["audio_features"]  # nothing has changed
        assert heard == [8] * (number + 1) and torch.equal(again, features[-1])
        change()
        features.append(processor.encode(clips)["audio_features"])
    assert heard == [8] * 7
    assert not any(torch.equal(first, second) for first, second in pairwise(features))
    assert torch.equal(features[0], features[-1])


def test_clips_of_several_videos_are_seen_together(tmp_path, tiny, bunny70, bikes34, monkeypatch):
    """Those of one size, in one call; sounds of equal times are of different videos."""
    processor = AvacaProcessor.from_pretrained(tiny)
    paths, batches = [bunny70, sounding(tmp_path, 70), bikes34, sounding(tmp_path, 64)], []
    for path in paths:
        with open_media(path) as media:
            batches.append(list(processor.clips(media)))
    expected = [processor.encode(batch) for batch in batches]
    sizes, see = [], AvacaProcessor.see

    def noting(self, pixels):
        sizes.append(len(pixels) // 32)
        return see(self, pixels)

    monkeypatch.setattr(AvacaProcessor, "see", noting)
    # Frames that were not heard before.
    fresh = [[replace(clip, frames=tuple(map(replace, clip.frames))) for clip in batch] for batch in batches]
    found = [features for features, _ in processor.encode_together(fresh)]
    shapes = {tuple(batch[0].frames[0].pixels.shape) for batch in batches}
    assert sum(sizes) == sum(map(len, batches)) and len(sizes) == len(shapes) < len(paths)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name, values in other.items():
            torch.testing.assert_close(one[name], values, rtol=1e-5, atol=1e-5)
    assert [bool(one["has_audio"]) for one in found] == [True, True, False, True]


def test_embeddings_live_no_longer_than_their_frames(tmp_path, tiny):
    processor = AvacaProcessor.from_pretrained(tiny, clip_stride=8)
    clips = 0
    for batch in processor.stream(sounding(tmp_path, 120)):
        clips += batch["clip_mask"].shape[1]
        # Three batches wait or are made, one is here; each brings 8 frames, and the next clips hold 32.
        assert len(processor._heard) <= 32 + 8 * 4
    assert clips == 12
    gc.collect()
    assert len(processor._heard) == 0
    with open_media(sounding(tmp_path, 10)) as media:
        clips = list(processor.clips(media))
    processor.encode(clips)
    frames = [weakref.ref(frame) for frame in clips[0].frames]
    assert len(processor._heard) == 10 and all(frame() for frame in frames)
    del clips
    gc.collect()
    assert len(processor._heard) == 0 and not any(frame() for frame in frames)


def test_a_stream_that_is_broken_off_keeps_nothing(tmp_path, tiny):
    processor = AvacaProcessor.from_pretrained(tiny, clip_stride=8)
    stream = processor.stream(sounding(tmp_path, 120))
    next(stream)
    assert len(processor._heard)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read_ahead"]
    gc.collect()
    assert len(processor._heard) == 0


def test_copies_compute_the_same(tmp_path, tiny):
    """By pickle, as workers of a DataLoader and other processes get a processor, and by copy."""
    processor = AvacaProcessor.from_pretrained(tiny)
    video = sounding(tmp_path, 40)
    expected = processor(video)
    for again in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert again.to_dict() == processor.to_dict()
        for key in ("visual_features", "audio_features"):
            torch.testing.assert_close(again(video)[key], expected[key])


def test_maps_of_portrait_videos_are_turned_and_not_squeezed(processor):
    """Columns and rows change places, so that no cell is averaged away."""
    rows, columns = processor.feature_grid
    maps = torch.arange(rows * columns, dtype=torch.float32).view(1, 1, columns, rows)
    assert torch.equal(maps_on_grid(maps, processor.feature_grid), maps.transpose(-2, -1))
    landscape = maps.transpose(-2, -1).contiguous()
    assert torch.equal(maps_on_grid(landscape, processor.feature_grid), landscape)


def test_a_step_between_the_frames_that_are_seen(tiny, bikes, tmp_path):
    """Of every second frame of a clip of 64 the encoder sees what it sees of a video of these frames."""
    bikes = beginning(bikes, tmp_path / "bikes.mp4", 75)
    loaded = AvacaProcessor.from_pretrained(tiny, frame_step=2, clip_stride=64)
    assert (loaded.clip_length, loaded.num_pictures, loaded.to_dict()["frame_step"]) == (64, 32, 2)
    with open_media(bikes) as media:
        frames = [frame.pixels for frame in media.frames(loaded.size)]
    stepped = loaded(bikes)
    count = -(-len(frames) // 64)
    assert stepped["visual_features"].shape[1] == count
    # Without scaling again: a clip of every second frame, by the encoder itself.
    seen = torch.stack([*frames[:64:2]]).unsqueeze(0)
    maps = maps_on_grid(loaded.encoders["video_encoder"].encode(seen), loaded.feature_grid)
    torch.testing.assert_close(stepped["visual_features"][0, 0], maps[0])
    last = frames[64 * (count - 1) :: 2]
    seen = torch.stack(last + [last[-1]] * (32 - len(last))).unsqueeze(0)
    maps = maps_on_grid(loaded.encoders["video_encoder"].encode(seen), loaded.feature_grid)
    torch.testing.assert_close(stepped["visual_features"][0, -1], maps[0])
    with pytest.raises(ValueError, match="clip_stride must be a multiple of frame_step 2"):
        AvacaProcessor.from_pretrained(tiny, frame_step=2, clip_stride=33)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_std": 0}, "image_std divides pixels and must be above 0, got 0"),
        ({"image_mean": float("nan")}, "image_mean must be a number"),
        ({"clip_stride": 16.0}, r"a whole number, got 16\.0"),
        ({"feature_grid": (1, 2.5)}, "feature_grid must be rows and columns"),
        ({"frame_step": 0}, "frame_step must be a whole number"),
        ({"size": (64, 64, 3)}, "size must be the short side"),
    ],
)
def test_impossible_settings_are_refused_at_once(tiny, settings, words):
    with pytest.raises(ValueError, match=words):
        AvacaProcessor.from_pretrained(tiny, **settings)


# Patches


PATCHES = ((1, 2), (2, 3))


@pytest.fixture(scope="module")
def cutting(tiny):
    return AvacaProcessor.from_pretrained(tiny, patches=PATCHES)


@torch.no_grad()
def test_patches_equal_the_encoder_on_parts_of_the_frames(cutting, processor, bunny70):
    with open_media(bunny70) as media:
        batches = list(cutting.decode(media, 2))
    pixels = torch.cat([batch.pixels for batch in batches])  # 64 x 113
    features = cutting(bunny70)
    assert cutting.num_patches == 8 and features["patch_features"].shape == (1, 3, 8, 320)
    assert {name: cutting.widths[name] for name in ("visual_features", "patch_features")} == {
        "visual_features": 320,
        "patch_features": 320,
    }
    places = [(0, 64, 0, 56), (0, 64, 56, 113)]
    places += [(top, top + 32, left, right) for top in (0, 32) for left, right in ((0, 37), (37, 75), (75, 113))]
    for number, (top, bottom, left, right) in enumerate(places):
        part = pixels[:, :, top:bottom, left:right].float()
        scale = 64 / min(bottom - top, right - left)
        size = [int(side * scale + 1e-6) for side in (bottom - top, right - left)]
        part = F.interpolate(part, size=size, mode="bilinear", align_corners=False).round().to(torch.uint8)
        maps = cutting.encoders["video_encoder"].encode(part.unflatten(0, (3, 32)))
        expected = maps.flatten(2).mean(2)
        torch.testing.assert_close(features["patch_features"][0, :, number], expected, rtol=1e-4, atol=1e-5)
    # Everything else is as it is without them, where there are none.
    without = processor(bunny70)
    assert "patch_features" not in without and "patch_features" not in processor.model_input_names
    for name in without:
        torch.testing.assert_close(features[name], without[name])


def test_patches_of_portrait_frames_are_turned():
    """As feature maps are: each patch shows what it would show of the frame that is turned over the diagonal."""
    pixels = torch.randint(0, 256, (2, 3, 60, 40), dtype=torch.uint8)
    upright = list(cut_patches(pixels, [(2, 3), (1, 1)], 20))
    lying = list(cut_patches(pixels.transpose(2, 3), [(2, 3), (1, 1)], 20))
    assert len(upright) == len(lying) == 7
    for one, other in zip(upright, lying, strict=True):
        assert one.dtype == torch.uint8
        torch.testing.assert_close(one, other.transpose(2, 3), atol=1, rtol=0)
    # Networks that take one size alone get that.
    assert {patch.shape for patch in cut_patches(pixels.float(), [(2, 3)], (24, 32))} == {(2, 3, 24, 32)}
    with pytest.raises(ValueError, match="Frames of 5 x 2 pixels cannot be cut into 3 rows and 5 columns"):
        list(cut_patches(torch.zeros(1, 3, 2, 5), [(3, 5)], 8))


def test_patches_are_saved_and_named_in_the_recipe(cutting, processor, tmp_path):
    cutting.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.patches == PATCHES and again.recipe() == cutting.recipe()
    assert cutting.recipe()["processor"]["patches"] == [[1, 2], [2, 3]]
    assert "patches" not in processor.recipe()["processor"] and processor.patches == ()


@pytest.mark.parametrize("patches", [3, ((2, 3), 4), ((0, 3),), ((2, 3, 4),), ((2, 17),), ((True, 2),), "23"])
def test_other_patches_are_refused(tiny, patches):
    with pytest.raises(ValueError, match="patches must be grids of rows and columns, within 1 and 16 each"):
        AvacaProcessor.from_pretrained(tiny, patches=patches)


def test_patches_are_stored(cutting, bunny70, bikes34, tmp_path):
    videos = [{"id": "bunny", "video": bunny70, "anomaly": 1}, {"id": "bikes", "video": bikes34, "anomaly": 0}]
    extract_features(videos, cutting, tmp_path / "store", visual_dtype="float32")
    data = FeatureDataset(tmp_path / "store")
    assert data.shapes["patch_features"] == (8, 320)
    batch = data.collate([data[0], data[1]])
    expected = cutting([bikes34, bunny70])
    torch.testing.assert_close(batch["patch_features"], expected["patch_features"])
    assert batch["patch_features"].shape == (2, 3, 8, 320) and (batch["patch_features"][0, 2] == 0).all()
    path = tmp_path / "store" / data.rows[0]["file"]
    facts, tensors = read_features(path)
    save_file({k: v for k, v in tensors.items() if k != "patch_features"}, path, {FACTS: json.dumps(facts)})
    with pytest.raises(ValueError, match=r"is damaged: it has no patch_features\. Delete it, and run the extraction"):
        data[0]
