"""AvrlProcessor: what it computes against a naive path, sound of any length, mirroring, windows, saving, loading."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from avad_hf import AvacaProcessor, AvrlConfig, AvrlProcessor, MediaError, VggishFeatureExtractor
from avad_hf.media.audio import resample
from avad_hf.media.sources import open_media
from avad_hf.models.avrl import processing_avrl

from .media_files import frame_times, sound, tone, write_media

RATE = 16000
SILENCE = np.float32(np.log(0.01))
KINETICS = {"rescale_factor": 1 / 255, "image_mean": (0.4345, 0.4051, 0.3775), "image_std": (0.2768, 0.2713, 0.2737)}
# Pixels from 0 to 255, from which the mean of ActivityNet is subtracted alone.
BYTES = {"rescale_factor": 1.0, "image_mean": (114.7748, 107.7354, 99.4750), "image_std": (1.0, 1.0, 1.0)}


@pytest.fixture(scope="module")
def processor():
    return AvrlProcessor(VggishFeatureExtractor())


@pytest.fixture(scope="module")
def small():
    """8 frames of the size that write_media writes, so that nothing is scaled, and windows of 2 s."""
    return AvrlProcessor(VggishFeatureExtractor(), num_frames=8, size=(48, 64), window_s=2.0)


def picture(index: int, width: int, height: int) -> np.ndarray:
    """Unlike its neighbours, its mirror image, and itself upside down, in colours that differ."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[:] = (30 + index * 37 % 199, 200 - index * 23 % 180, 90)
    picture[: height // 2, : width // 2] = (250, 240, 10)
    return picture


def video(path, count: int, samples=None, **kwargs) -> str:
    return write_media(path, frame_times(25, count / 25), samples, RATE, pictures=picture, **kwargs)


def arrays(count: int, samples: np.ndarray | None = None) -> dict:
    frames = np.stack([picture(index, 64, 48) for index in range(count)])
    return {"frames": frames, "fps": 25.0} | ({} if samples is None else {"waveform": samples, "sampling_rate": RATE})


def pictures_of(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def naive_pixels(pictures: list[np.ndarray], num_frames: int, rescale_factor, image_mean, image_std) -> torch.Tensor:
    """In float64, one picture and one channel after the other."""
    step = max(1, len(pictures) // num_frames)
    frames = []
    for index in range(num_frames):
        chosen = pictures[index * step % len(pictures)].astype(np.float64)
        channels = [(chosen[..., c] * rescale_factor - image_mean[c]) / image_std[c] for c in range(3)]
        frames.append(np.stack(channels))
    return torch.from_numpy(np.stack(frames).astype(np.float32))


def whole_sound(path) -> torch.Tensor:
    with open_media(path) as media:
        return media.sound(RATE).read()


def log_mel_of(waveform) -> torch.Tensor:
    return VggishFeatureExtractor()(waveform)["input_features"][0]


# Frames and sound of real clips


def test_a_real_clip_with_sound_and_one_without(processor, bunny, bikes):
    """132 frames give a step of 2, 250 one of 5; the sound's spectrogram is that of all of it."""
    batch = processor([bunny, bikes])
    assert list(batch) == processor.model_input_names
    expected = log_mel_of(whole_sound(bunny))
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "pixel_values_videos": ((2, 50, 3, 240, 240), torch.float32),
        "input_features": ((2, len(expected), 64), torch.float32),
        "audio_frame_mask": ((2, len(expected)), torch.bool),
        "clip_times": ((2, 1, 2), torch.float64),
        "has_audio": ((2,), torch.bool),
    }
    assert torch.equal(batch["input_features"][0], expected) and len(expected) > 500
    assert (batch["input_features"][1] == SILENCE).all()
    assert batch["audio_frame_mask"][0].all() and not batch["audio_frame_mask"][1].any()
    assert batch["has_audio"].tolist() == [True, False]
    np.testing.assert_allclose(batch["clip_times"], [[[0.0, 5.28]], [[0.0, 10.0]]])
    for path, found in ((bunny, batch["pixel_values_videos"][0]), (bikes, batch["pixel_values_videos"][1])):
        with av.open(path) as container:
            pictures = [
                frame.reformat(width=240, height=240, format="rgb24", interpolation="AREA").to_ndarray()
                for frame in container.decode(video=0)
            ]
        torch.testing.assert_close(found, naive_pixels(pictures, 50, **KINETICS), rtol=1e-5, atol=1e-5)


def test_the_sound_is_that_of_an_independent_path(processor, bunny):
    """Channels averaged and everything resampled at once."""
    with av.open(bunny) as container:
        wave = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=1).mean(axis=0)
    expected = log_mel_of(resample(wave, 48000, RATE))
    found = processor(bunny)["input_features"][0]
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("settings", [KINETICS, BYTES], ids=["kinetics", "bytes"])
@pytest.mark.parametrize("count", [1, 5, 8, 15, 16, 40])
def test_frames_are_normalised_as_the_weights_want_them(tmp_path, settings, count):
    processor = AvrlProcessor(VggishFeatureExtractor(), num_frames=8, size=(48, 64), **settings)
    path = video(tmp_path / "v.mp4", count)
    found = processor(path)["pixel_values_videos"][0]
    expected = naive_pixels(pictures_of(path), 8, **settings)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # The two ways of scaling are far apart, and neither is what the file holds.
    assert (found.abs().max() > 50) == (settings is BYTES) and found.min() < 0


def test_a_batch_equals_its_videos(tmp_path, small, bunny, bikes):
    short = write_media(tmp_path / "s.mov", frame_times(25, 0.4), sound(0, 0.8, RATE), RATE)
    videos = [bikes, bunny, short, arrays(3)]
    batch = small(videos)
    assert batch["has_audio"].tolist() == [False, True, True, False]
    lengths = batch["audio_frame_mask"].sum(dim=1).tolist()
    assert lengths == [0, batch["input_features"].shape[1], 78, 0]
    for index, source in enumerate(videos):
        single = small(source)
        assert single["input_features"].shape == (1, lengths[index], 64)
        assert torch.equal(batch["pixel_values_videos"][index], single["pixel_values_videos"][0])
        assert torch.equal(batch["input_features"][index, : lengths[index]], single["input_features"][0])
        assert (batch["input_features"][index, lengths[index] :] == SILENCE).all()
        assert batch["audio_frame_mask"][index].tolist() == [
            number < lengths[index] for number in range(batch["input_features"].shape[1])
        ]
        for name in ("clip_times", "has_audio"):
            assert torch.equal(batch[name][index], single[name][0])


def test_videos_of_any_shape_fit_one_batch(tmp_path, small):
    shapes = [(64, 48), (48, 64), (160, 40), (40, 160)]
    paths = [write_media(tmp_path / f"{w}x{h}.mp4", frame_times(25, 0.4), size=(w, h)) for w, h in shapes]
    assert small(paths)["pixel_values_videos"].shape == (4, 8, 3, 48, 64)
    assert small(tuple(paths[:2]))["pixel_values_videos"].shape == (2, 8, 3, 48, 64)


# Sound of any length


@pytest.mark.parametrize(
    ("samples", "frames"), [(100, 16), (1600, 16), (2799, 16), (2800, 16), (2959, 16), (2960, 17), (16000, 98)]
)
def test_short_sound_is_followed_by_silence(small, samples, frames):
    """Less than 0.175 s of it, which are 16 frames; the last samples that fill no frame count for nothing."""
    wave = tone(np.arange(samples) / RATE).astype(np.float32)
    features = small(arrays(8, wave))
    assert features["input_features"].shape == (1, frames, 64) and features["audio_frame_mask"].all()
    assert features["audio_frame_mask"].shape == (1, frames) and features["has_audio"].tolist() == [True]
    padded = np.concatenate([wave, np.zeros(max(0, 2800 - samples), dtype=np.float32)])
    assert torch.equal(features["input_features"][0], log_mel_of(padded))
    assert (features["input_features"][0] > -4.5).any()  # and not silence alone


@pytest.mark.parametrize("block", [1, 7, 100, 297, 298, 299, 300, 6000])
def test_long_sound_is_computed_in_blocks(small, monkeypatch, block):
    """299 frames: more than a block, some blocks, exactly one, less than one."""
    wave = np.random.default_rng(0).uniform(-1, 1, 3 * RATE + 100).astype(np.float32)
    original, lengths = VggishFeatureExtractor.log_mel, []
    monkeypatch.setattr(processing_avrl, "FRAMES_AT_ONCE", block)
    monkeypatch.setattr(
        VggishFeatureExtractor, "log_mel", lambda self, sound: lengths.append(len(sound)) or original(self, sound)
    )
    found = small(arrays(8, wave))["input_features"][0]
    assert max(lengths) <= (block - 1) * 160 + 400 and len(lengths) == -(-299 // block)
    monkeypatch.setattr(VggishFeatureExtractor, "log_mel", original)
    assert found.shape == (299, 64)
    # Sums of float64 in another order, at the most.
    torch.testing.assert_close(found, log_mel_of(wave), rtol=0, atol=1e-6)


def test_no_sound_is_one_line_in_the_log(tmp_path, processor, bikes, caplog):
    silent = Path(video(tmp_path / "a.avi", 10, sound(0, 0.4, RATE)))
    data = bytearray(silent.read_bytes())
    place = data.index(b"strf", data.index(b"auds")) + 8
    data[place : place + 2] = b"\x77\x77"  # nobody's format
    silent.write_bytes(data)
    with caplog.at_level("INFO", logger="avad_hf"):
        features = [processor(source) for source in (bikes, str(silent))]
    assert [record.getMessage() for record in caplog.records if record.name.startswith("avad_hf")] == [
        f"{bikes}: it has no sound; its sound features are zero.",
        f"{silent}: its sound cannot be decoded; its sound features are zero.",
    ]
    for found in features:
        assert found["input_features"].shape == (1, 0, 64) and found["audio_frame_mask"].shape == (1, 0)
        assert found["has_audio"].tolist() == [False]


def test_silence_is_heard_and_no_sound_is_not(small):
    features = small([arrays(8, np.zeros(RATE, dtype=np.float32)), arrays(8)])
    assert features["has_audio"].tolist() == [True, False]
    assert features["audio_frame_mask"].sum(dim=1).tolist() == [98, 0]
    torch.testing.assert_close(features["input_features"], torch.full((2, 98, 64), float(SILENCE)), rtol=0, atol=1e-6)


# Mirroring


def test_mirroring_is_left_to_chance(small):
    """Whole videos, left and right exchanged and nothing else; the same numbers give the same again."""
    sources = [arrays(8)] * 12
    (plain,) = small(sources[0])["pixel_values_videos"]
    mirrored = torch.from_numpy(plain.numpy()[..., ::-1].copy())
    assert not torch.equal(plain, mirrored)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        videos = small(sources, random_flip=True)["pixel_values_videos"]
        assert all(torch.equal(found, plain) or torch.equal(found, mirrored) for found in videos)
        drawn.append([torch.equal(found, mirrored) for found in videos])
    assert drawn[0] == drawn[1] and 2 <= sum(drawn[0]) <= 10
    again = [torch.equal(found, mirrored) for found in small(sources, random_flip=True)["pixel_values_videos"]]
    assert again != drawn[0]


def test_nothing_is_mirrored_unless_it_is_asked_for(small):
    sources = [arrays(8)] * 12
    state = torch.get_rng_state()
    videos = small(sources)["pixel_values_videos"]
    assert all(torch.equal(found, small(arrays(8))["pixel_values_videos"][0]) for found in videos)
    torch.testing.assert_close(videos[0], naive_pixels([picture(i, 64, 48) for i in range(8)], 8, **KINETICS))
    assert torch.equal(torch.get_rng_state(), state)
    for chunk in small.stream(arrays(200)):
        assert (chunk["pixel_values_videos"][0, 0, 2, 5, 5] != chunk["pixel_values_videos"][0, 0, 2, 5, -5]).all()


# Windows


@pytest.mark.parametrize("clips_per_batch", [1, 2, 3, 8])
@pytest.mark.parametrize("with_sound", [True, False])
def test_streaming_a_long_video(tmp_path, small, clips_per_batch, with_sound):
    """151 frames, every sixth one: windows of 48 frames at 0, 48 and 96, and one more that ends with the video."""
    path = video(tmp_path / "v.mov", 151, sound(0, 151 / 25, RATE) if with_sound else None)
    chunks = list(small.stream(path, clips_per_batch))
    sizes = [len(chunk["pixel_values_videos"]) for chunk in chunks]
    assert sizes == [min(clips_per_batch, 4 - begin) for begin in range(0, 4, clips_per_batch)]
    pictures = pictures_of(path)
    firsts = [0, 48, 96, 108]
    expected = torch.stack([naive_pixels(pictures[f : f + 43 : 6], 8, **KINETICS) for f in firsts])
    found = torch.cat([chunk["pixel_values_videos"] for chunk in chunks])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    times = [(f / 25, (f + 48 if f < 96 else 144 if f == 96 else 151) / 25) for f in firsts]
    assert all(chunk["clip_times"].shape == (1, size, 2) for chunk, size in zip(chunks, sizes, strict=True))
    np.testing.assert_allclose(torch.cat([chunk["clip_times"] for chunk in chunks], dim=1)[0], times, atol=1e-9)
    assert all(chunk["has_audio"].tolist() == [with_sound] for chunk in chunks)
    assert all(list(chunk) == small.model_input_names for chunk in chunks)
    wave = whole_sound(path)
    row = 0
    for chunk in chunks:
        for log_mel, mask in zip(chunk["input_features"], chunk["audio_frame_mask"], strict=True):
            if with_sound:
                begin, end = (round(time * RATE) for time in times[row])
                torch.testing.assert_close(log_mel[mask], log_mel_of(wave[begin:end]), rtol=0, atol=1e-5)
                assert mask.sum() == 1 + (end - begin - 400) // 160
            assert with_sound or (log_mel.shape == (0, 64) and mask.shape == (0,))
            assert (log_mel[~mask] == SILENCE).all()
            row += 1


@pytest.mark.parametrize("source", ["short", "bikes", "row"])
def test_streaming_a_short_video_equals_reading_it(tmp_path, processor, bikes, source):
    path = video(tmp_path / "v.mov", 30, sound(0, 1.5, RATE))
    given = {"short": path, "bikes": bikes, "row": {"video": path, "start": 0.2, "end": 0.9}}[source]
    (chunk,) = processor.stream(given)
    whole = processor(given)
    assert set(chunk) == set(whole)
    for name, value in whole.items():
        assert torch.equal(chunk[name], value), name
    with open_media(given) as media:
        (again,) = processor.stream(media)
    assert torch.equal(again["pixel_values_videos"], whole["pixel_values_videos"])


def test_the_length_of_windows_is_a_setting(tmp_path, small):
    path = video(tmp_path / "v.mp4", 130)
    counts = {}
    for seconds in (0.5, 2.0, 5.1, 5.3, 20.0):
        processor = AvrlProcessor(small.feature_extractor, num_frames=8, size=(16, 16), window_s=seconds)
        counts[seconds] = len(list(processor.stream(path)))
    # Of 16, 48 and 128 frames each, the multiple of 8 picks that is nearest; 5.2 s are no longer than 5.3 s.
    assert counts == {0.5: 9, 2.0: 3, 5.1: 2, 5.3: 1, 20.0: 1}


# Rows of manifests


def test_a_stretch_with_its_own_sound(tmp_path, small):
    path = video(tmp_path / "v.mov", 100, sound(0, 4.0, RATE))
    features = small({"video": path, "start": 1.0, "end": 2.28, "label": "fight"})
    expected = naive_pixels(pictures_of(path)[25:57], 8, **KINETICS)
    torch.testing.assert_close(features["pixel_values_videos"][0], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(features["clip_times"], [[[1.0, 2.28]]])
    wave = np.rint(sound(0, 4.0, RATE)[0] * 32767)[RATE : round(2.28 * RATE)] / 32768
    torch.testing.assert_close(features["input_features"][0], log_mel_of(wave.astype(np.float32)), rtol=0, atol=1e-5)


def test_sound_from_a_file_beside_the_video(tmp_path, small):
    """Heard in place of the video's own, and as long as it lasts; of a stretch what is heard during it."""
    path = video(tmp_path / "v.mov", 50, sound(7.0, 2.0, RATE))
    beside = write_media(tmp_path / "v.wav", samples=sound(0, 3.0, RATE), rate=RATE)
    silent = video(tmp_path / "s.mp4", 50)
    written = (np.rint(sound(0, 3.0, RATE)[0] * 32767) / 32768).astype(np.float32)
    for name in (path, silent):
        whole = small({"video": name, "audio": beside, "start": None, "end": None})
        stretch = small({"video": name, "audio": beside, "start": 0.4, "end": 1.2})
        assert whole["has_audio"].tolist() == stretch["has_audio"].tolist() == [True]
        torch.testing.assert_close(whole["input_features"][0], log_mel_of(written), rtol=0, atol=1e-5)
        expected = log_mel_of(written[round(0.4 * RATE) : round(1.2 * RATE)])
        torch.testing.assert_close(stretch["input_features"][0], expected, rtol=0, atol=1e-5)


def test_broken_files_are_named(tmp_path, small):
    good, bad = video(tmp_path / "good.mp4", 8), tmp_path / "bad.mp4"
    bad.write_text("<html>")
    for source in (bad, str(bad), [good, bad], {"video": str(bad)}):
        with pytest.raises(MediaError, match=r"bad.mp4 cannot be opened as video"):
            small(source)
    with pytest.raises(MediaError, match=r"bad.mp4 cannot be opened as video"):
        next(small.stream(bad))
    with pytest.raises(MediaError, match=r"none.mp4: no such file"):
        small(tmp_path / "none.mp4")
    with pytest.raises(MediaError, match=r"good.mp4: from 3 s to its end is no stretch"):
        small({"video": good, "start": 3.0})


# Saving and loading


def test_one_object_saves_and_loads(tmp_path, bunny):
    settings = {"num_frames": 6, "size": [24, 40], "window_s": 3.5, **BYTES}
    processor = AvrlProcessor(VggishFeatureExtractor(low_hz=60.0), **settings)
    processor.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["processor_config.json"]
    stored = json.loads((tmp_path / "processor_config.json").read_text())
    assert stored["processor_class"] == "AvrlProcessor" and stored["size"] == [24, 40]
    AvrlConfig(
        video_config={"stem_width": 8, "depths": (1, 1, 1, 1)},
        audio_config={"hidden_sizes": (8, 16, 32, 64), "intermediate_size": 16, "embedding_size": 8},
    ).save_pretrained(tmp_path)
    expected = processor(bunny)
    for loaded in (AvrlProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is AvrlProcessor and loaded.size == (24, 40)
        assert loaded.to_dict() == processor.to_dict() and loaded.recipe() == processor.recipe()
        for name, value in loaded(bunny).items():
            assert torch.equal(value, expected[name]), name
    assert loaded.feature_extractor.low_hz == 60.0 and "AvrlProcessor" in repr(loaded)
    changed = AvrlProcessor.from_pretrained(tmp_path, num_frames=9, window_s=1.0)
    assert (changed.num_frames, changed.window_s, changed.size) == (9, 1.0, (24, 40))


def test_what_stored_videos_depend_on(processor):
    """All settings but the length of windows, which stored videos do not have."""
    recipe = processor.recipe()
    assert set(processor.to_dict()) - set(recipe["processor"]) == {"window_s"}
    assert recipe["visual_dtype"] == "uint8" and recipe["notices"] == processor.notices == []
    assert recipe["versions"]["ffmpeg"] == av.ffmpeg_version_info
    longer = AvrlProcessor(processor.feature_extractor, window_s=60.0)
    assert longer.recipe() == recipe and longer.to_dict() != processor.to_dict()
    assert AvrlProcessor(processor.feature_extractor, size=(112, 112)).recipe() != recipe


def test_it_can_be_moved_and_stays_where_it_is(processor, bikes):
    assert processor.to("cpu", torch.float16) is processor
    assert processor(bikes)["pixel_values_videos"].dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 0}, "num_frames must be 1 or more, got 0"),
        ({"num_frames": 2.5}, "num_frames must be 1 or more, got 2.5"),
        ({"size": 240}, "size must be height and width in pixels, 1 or more each, got 240"),
        ({"size": (240,)}, r"size must be height and width .* got \(240,\)"),
        ({"size": (240, 0)}, r"size must be height and width .* got \(240, 0\)"),
        ({"window_s": 0}, "window_s must be a number of seconds above 0, got 0"),
        ({"window_s": -1.5}, "window_s must be a number of seconds above 0, got -1.5"),
        ({"window_s": float("nan")}, "window_s must be a number of seconds above 0, got nan"),
        ({"image_mean": (0.5, 0.5)}, r"image_mean must be three numbers, one a channel, got \(0.5, 0.5\)"),
        ({"image_mean": 0.5}, "image_mean must be three numbers, one a channel, got 0.5"),
        ({"image_std": [1, 1, 1, 1]}, r"image_std must be three numbers, one a channel, got \[1, 1, 1, 1\]"),
        ({"image_std": (1, 1, 0)}, r"rescale_factor and image_std must be above 0, got 0.0039\d* and \(1, 1, 0\)"),
        ({"rescale_factor": 0}, r"rescale_factor and image_std must be above 0, got 0 and \(0.2768, "),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AvrlProcessor(VggishFeatureExtractor(), **settings)


def test_refusals(tmp_path, processor, tiny):
    with pytest.raises(ValueError, match="No video was given"):
        processor([])
    with pytest.raises(ValueError, match="clips_per_batch must be 1 or more, got 0"):
        next(processor.stream("any.mp4", 0))
    with pytest.raises(TypeError, match="Received a AvrlConfig for argument feature_extractor"):
        AvrlProcessor(AvrlConfig())
    with pytest.raises(TypeError, match=r"Cannot read a int as video"):
        processor([3])
    with pytest.raises(
        ValueError, match=r"holds a processor of class AvacaProcessor, but AvrlProcessor reads its own alone"
    ):
        AvrlProcessor.from_pretrained(tiny)
    # The other way round, too.
    processor.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="holds a processor of class AvrlProcessor, but AvacaProcessor reads its own alone"
    ):
        AvacaProcessor.from_pretrained(tmp_path)
