"""The pipeline as users call it, on real clips and on wrong input."""

import io
import json
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoProcessor, BertConfig, BertModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from avad_hf import AvacaForAnomalyDetection, AvacaProcessor, MediaError, SlowFastConfig, SlowFastModel

from . import warm
from .media_files import frame_times, remux, sound, with_rotation, write_media
from .short_clips import beginning

TASK = "audio-visual-anomaly"


@pytest.fixture(scope="module")
def bunny34(bunny, tmp_path_factory) -> str:
    """The first 34 frames of `bunny`: two clips."""
    return beginning(bunny, tmp_path_factory.mktemp("beginning") / "bunny.mp4", 34)


@pytest.fixture(scope="module")
def bikes66(bikes, tmp_path_factory) -> str:
    """The first 66 frames of `bikes`: three clips."""
    return beginning(bikes, tmp_path_factory.mktemp("beginning") / "bikes.mp4", 66)


def scores(result):
    return [clip["score"] for clip in result["clips"]]


def test_result_of_a_real_clip(tiny_pipe, bunny):
    result = tiny_pipe(bunny)
    assert json.loads(json.dumps(result)) == result
    assert list(result) == [
        *("score", "label", "events", "clips", "threshold", "duration", "fps", "has_audio", "read_until", "warnings"),
        "read",
    ]
    assert (result["duration"], result["fps"], result["has_audio"], result["threshold"]) == (5.28, 25.0, True, 0.5)
    assert [(clip["start"], clip["end"]) for clip in result["clips"]] == [
        *((0.0, 1.28), (1.28, 2.56), (2.56, 3.84), (3.84, 5.12), (5.12, 5.28))
    ]
    assert result["score"] == max(scores(result)) and all(0 <= s <= 1 for s in scores(result))
    assert len(set(scores(result))) == 5
    assert [warning for warning in result["warnings"] if "Untrained detector" in warning]


def test_base_checkpoint_on_a_real_clip(base, bunny, tmp_path):
    """The published architecture, from file to score."""
    pipe = pipeline(TASK, model=base)
    assert pipe.processor.video_encoder.config.hidden_size == 2304
    result = pipe(beginning(bunny, tmp_path / "bunny.mp4", 32))
    assert (len(result["clips"]), result["has_audio"]) == (1, True)
    assert np.isfinite(scores(result)).all()


def test_lists_and_batches_equal_single_videos(tmp_path, tiny_pipe, bunny34, bikes66):
    short = write_media(tmp_path / "short.mp4", frame_times(25, 0.4), sound(0, 0.4, 48000), audio_codec="aac")
    videos = [bunny34, bikes66, short]
    singles = [tiny_pipe(video) for video in videos]
    for batch_size in (1, 3):
        for found, expected in zip(tiny_pipe(videos, batch_size=batch_size), singles, strict=True):
            assert scores(found) == pytest.approx(scores(expected), abs=1e-5)
            assert found["has_audio"] == expected["has_audio"]
    assert [r["duration"] for r in tiny_pipe(tuple(videos))] == [r["duration"] for r in singles]
    assert [r["duration"] for r in tiny_pipe(v for v in videos)] == [r["duration"] for r in singles]
    assert tiny_pipe([]) == []


class Listed(torch.utils.data.Dataset):
    """A map of torch, which has no ``__iter__``."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


class Streamed(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two short videos, each in the folder of its class, as `datasets` reads videofolder."""
    folder = tmp_path_factory.mktemp("videofolder")
    for name, seconds in (("fire", 0.4), ("normal", 0.8)):
        (folder / name).mkdir()
        write_media(folder / name / "a.mp4", frame_times(25, seconds), sound(0, seconds, 16000), audio_codec="aac")
    return folder


@pytest.fixture(scope="module")
def rows(folder, tmp_path_factory) -> datasets.Dataset:
    cache = tmp_path_factory.mktemp("cache")
    rows = datasets.load_dataset("videofolder", data_dir=folder, split="train", cache_dir=str(cache))
    return rows.cast_column("video", datasets.Video(decode=False))


def streamed(folder: Path) -> datasets.IterableDataset:
    rows = datasets.load_dataset("videofolder", data_dir=str(folder), split="train", streaming=True)
    return rows.cast_column("video", datasets.Video(decode=False))


SEVERAL = {
    "a generator": lambda rows, folder, paths: (path for path in paths),
    "an iterator": lambda rows, folder, paths: map(str, paths),
    "a data set": lambda rows, folder, paths: rows,
    "a column": lambda rows, folder, paths: rows["video"],
    "an array of text": lambda rows, folder, paths: np.array(paths),
    "an array of paths": lambda rows, folder, paths: np.array([Path(path) for path in paths]),
    "a Series": lambda rows, folder, paths: pd.Series(paths),
    "a Series of objects": lambda rows, folder, paths: pd.DataFrame({"video": paths}, dtype=object)["video"],
    "KeyDataset": lambda rows, folder, paths: KeyDataset(rows, "video"),
    "a stream": lambda rows, folder, paths: streamed(folder),
    "a column of a stream": lambda rows, folder, paths: streamed(folder)["video"],
    "rows made when they are read": lambda rows, folder, paths: datasets.IterableDataset.from_generator(
        lambda: ({"video": path} for path in paths)
    ),
    "a map of torch": lambda rows, folder, paths: Listed(paths),
    "a stream of torch": lambda rows, folder, paths: Streamed(paths),
}


@pytest.mark.parametrize("several", SEVERAL.values(), ids=SEVERAL)
def test_whatever_gives_videos(tiny_pipe, rows, folder, several):
    paths = [str(folder / name / "a.mp4") for name in ("fire", "normal")]
    found = tiny_pipe(several(rows, folder, paths))
    assert not isinstance(found, (list, dict))
    assert [result["duration"] for result in found] == [0.4, 0.8]


def test_an_iterable_is_read_as_results_are_asked_for(tiny_pipe, folder):
    path, taken = str(folder / "fire" / "a.mp4"), []

    def videos():
        for number in range(9):
            taken.append(number)
            yield path

    found = iter(tiny_pipe(videos()))
    assert next(found)["duration"] == 0.4 and len(taken) <= 2


def test_one_that_fails_does_not_lose_the_others(tiny_pipe, folder):
    """`interleave` goes on, whatever gives the videos; an iterator ends there."""
    paths = [str(folder / "fire" / "a.mp4"), str(folder / "missing.mp4"), str(folder / "normal" / "a.mp4")]
    table = datasets.Dataset.from_dict({"video": paths})
    for videos in (table, table.to_iterable_dataset(), KeyDataset(table, "video"), (path for path in paths)):
        found = dict(tiny_pipe.interleave(videos, streams=2))
        assert found[0]["duration"] == 0.4 and found[2]["duration"] == 0.8
        assert isinstance(found[1], MediaError) and "missing.mp4" in str(found[1])
    results = iter(tiny_pipe(table))
    assert next(results)["duration"] == 0.4
    with pytest.raises(MediaError, match=r"missing\.mp4: no such file"):
        next(results)


def test_several_at_the_same_time_need_a_list(tiny_pipe, rows):
    for videos in (rows, KeyDataset(rows, "video"), iter(rows)):
        with pytest.raises(ValueError, match=f"streams=2 needs a list of videos, got a {type(videos).__name__}"):
            tiny_pipe(videos, streams=2)
    assert [result["duration"] for result in tiny_pipe(list(rows), streams=2)] == [0.4, 0.8]


def test_arrays_and_the_like_are_one_video_that_cannot_be_read(tiny_pipe):
    for source in (
        np.zeros((2, 8, 8, 3), np.uint8),
        np.zeros(4),
        pd.Series([1.5]),
        np.array(None),
        torch.zeros(2, 8, 8, 3),
        bytearray(b"x"),
        3,
    ):
        with pytest.raises(TypeError, match=f"Cannot read a {type(source).__name__} as video"):
            tiny_pipe(source)


def test_streaming_equals_the_model_on_all_features(tiny, tiny_pipe, bunny):
    features = AutoProcessor.from_pretrained(tiny)(bunny)
    with torch.no_grad():
        whole = AvacaForAnomalyDetection.from_pretrained(tiny)(**features).logits.sigmoid()[0].tolist()
    assert scores(tiny_pipe(bunny)) == pytest.approx(whole, abs=1e-5)


def test_sources(tiny_pipe, bunny34):
    expected = scores(tiny_pipe(bunny34))
    data = Path(bunny34).read_bytes()
    for source in (Path(bunny34), data, io.BytesIO(data), {"path": bunny34, "bytes": None}):
        assert scores(tiny_pipe(source)) == expected


def test_threshold(tiny_pipe, bunny34):
    everything, nothing = tiny_pipe(bunny34, threshold=0.0), tiny_pipe(bunny34, threshold=1.0)
    assert [(e["start"], e["end"]) for e in everything["events"]] == [(0.0, 1.36)]
    assert everything["label"] == "anomaly" and everything["threshold"] == 0.0
    assert nothing["events"] == [] and nothing["label"] == "normal"
    assert scores(everything) == scores(nothing)


def test_audio_path(tiny, tiny_pipe, bunny34, bikes66):
    found = {path: scores(tiny_pipe(bunny34, audio_path=path)) for path in ("focused", "plain", "zeroed")}
    assert found["focused"] == scores(tiny_pipe(bunny34))
    assert found["focused"] != found["plain"] != found["zeroed"]
    # A video without sound is what the zeroed path makes of every video.
    assert scores(tiny_pipe(bikes66)) == scores(tiny_pipe(bikes66, audio_path="zeroed"))
    options = {"audio_path": "zeroed", "threshold": 0.25, "batch_size": 2}
    configured = pipeline(TASK, model=tiny, dtype="float32", **options)(bunny34)
    assert scores(configured) == pytest.approx(found["zeroed"], abs=1e-6) and configured["threshold"] == 0.25


def test_progress(tiny_pipe, bunny):
    seen = []
    tiny_pipe(bunny, batch_size=2, on_progress=lambda seconds, total: seen.append((seconds, total)))
    assert [(pytest.approx(s), t) for s, t in seen] == [(2.56, 5.28), (5.12, 5.28), (5.28, 5.28)]


def test_saves_everything_that_loading_needs(tmp_path, tiny, bunny34):
    pipe = pipeline(TASK, model=tiny)
    pipe.save_pretrained(tmp_path / "copy")
    stored = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert "custom_pipelines" not in stored
    again = pipeline(TASK, model=str(tmp_path / "copy"))
    assert scores(again(bunny34)) == pytest.approx(scores(pipe(bunny34)), abs=1e-6)


def test_import_alone_makes_the_task_known(tiny, bikes66):
    code = (
        "import avad_hf; from transformers import pipeline; "
        f"print(len(pipeline({TASK!r}, model={tiny!r})({bikes66!r})['clips']))"
    )
    assert warm.run(code=code, fresh=True).stdout.strip() == "3"


def test_bfloat16(tiny, tiny_pipe, bunny34):
    expected = tiny_pipe(bunny34)
    found = pipeline(TASK, model=tiny, dtype=torch.bfloat16)
    assert found.processor.dtype == found.model.dtype == torch.bfloat16
    assert scores(found(bunny34)) == pytest.approx(scores(expected), abs=0.05)


def test_without_a_processor_given_it_says_what_to_do(tiny):
    model = AvacaForAnomalyDetection.from_pretrained(tiny)
    assert pipeline(TASK, model=model, processor=AvacaProcessor.from_pretrained(tiny)).model is model
    with pytest.raises(ValueError, match="Pass processor=AutoProcessor"):
        pipeline(TASK, model=model)


def test_foreign_checkpoints_are_refused_by_name(tmp_path):
    SlowFastModel(SlowFastConfig(stem_width=8, depths=(1, 1, 1, 1))).save_pretrained(tmp_path / "slowfast")
    BertModel(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=20)
    ).save_pretrained(tmp_path / "bert")
    (tmp_path / "avrl").mkdir()
    (tmp_path / "avrl" / "config.json").write_text('{"model_type": "avrl", "architectures": ["AvrlModel"]}')
    for name in ("slowfast", "bert", "avrl"):
        with pytest.raises(ValueError, match=rf"(?i){name}"):
            pipeline(TASK, model=str(tmp_path / name))


def test_corrupt_checkpoints(tmp_path, tiny):
    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(tiny, folder)
        change(folder)
        return str(folder)

    def cut(path):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    cases = {
        "weights": (lambda f: cut(f / "model.safetensors"), "weights file is cut or damaged"),
        "no weights": (lambda f: (f / "model.safetensors").unlink(), "no file named model.safetensors"),
        "config": (lambda f: cut(f / "config.json"), "not a valid JSON"),
        "no processor": (
            lambda f: (f / "processor_config.json").unlink(),
            "holds no processor: it was trained on stored features",
        ),
        "encoder": (lambda f: cut(f / "video_encoder" / "model.safetensors"), "processor of .* cannot be loaded"),
        "no encoder": (
            lambda f: shutil.rmtree(f / "audio_encoder"),
            "processor of .* cannot be loaded.*audio_encoder",
        ),
    }
    for name, (change, message) in cases.items():
        with pytest.raises(Exception, match=message):
            pipeline(TASK, model=broken(name, change))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"threshold": 1.5}, ValueError, "threshold must be between 0 and 1, got 1.5"),
        ({"audio_path": "loud"}, ValueError, "one of focused, plain, zeroed, got 'loud'"),
        ({"batch_size": 0}, ValueError, "^batch_size must be 1 or more, got 0"),
        ({"treshold": 0.5}, TypeError, "takes no option 'treshold'. It takes threshold, .* Did you mean threshold?"),
        ({"stream": 2}, TypeError, "calls also take streams. Did you mean streams?"),
        ({"colour": 2}, TypeError, "takes no option 'colour'.*streams.$"),
        ({"num_workers": 1}, ValueError, "num_workers must be 0, got 1"),
    ],
)
def test_refuses_parameters(tiny_pipe, bikes, parameters, error, message):
    with pytest.raises(error, match=message):
        tiny_pipe(bikes, **parameters)


def test_broken_weights_give_an_error_not_a_score(tiny, bikes):
    pipe = pipeline(TASK, model=tiny)
    with torch.no_grad():
        pipe.processor.video_encoder.blocks[0].multipathway_blocks[0].conv.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="visual_features holds NaN"):
        pipe(bikes)


class TestUnusualVideos:
    """What can be read is scored; what cannot is refused with the file's name."""

    def test_refusals(self, tmp_path, tiny_pipe, bunny):
        (tmp_path / "text.mp4").write_text("no video")
        (tmp_path / "empty.mp4").touch()
        (tmp_path / "head.mp4").write_bytes(Path(bunny).read_bytes()[:5000])
        write_media(tmp_path / "sound.mp4", samples=sound(0, 1.0, 48000), audio_codec="aac")
        for name in ("absent.mp4", "text.mp4", "empty.mp4", "head.mp4", "sound.mp4"):
            with pytest.raises(MediaError, match=name):
                tiny_pipe(str(tmp_path / name))
        with pytest.raises(MediaError, match="is a directory"):
            tiny_pipe(str(tmp_path))
        with pytest.raises(TypeError, match="A video is one of"):
            tiny_pipe(3)

    @pytest.mark.parametrize(("count", "clips"), [(1, 1), (31, 1), (33, 2)])
    def test_few_frames(self, tmp_path, tiny_pipe, count, clips):
        path = write_media(
            tmp_path / "a.mp4", frame_times(25, count / 25), sound(0, count / 25, 48000), audio_codec="aac"
        )
        result = tiny_pipe(path)
        assert len(result["clips"]) == clips and result["has_audio"]
        assert result["duration"] == pytest.approx(count / 25, abs=2e-3) == result["read_until"]

    def test_portrait_with_rotation_tag(self, tmp_path, tiny_pipe):
        stored = write_media(tmp_path / "a.mp4", frame_times(25, 0.4), size=(96, 64))
        result = tiny_pipe(with_rotation(stored, tmp_path / "b.mp4", 1))
        assert len(result["clips"]) == 1 and np.isfinite(result["score"])

    @pytest.mark.parametrize("size", [(65, 49), (33, 200), (16, 16)])
    def test_odd_sizes(self, tmp_path, tiny_pipe, size):
        assert np.isfinite(tiny_pipe(write_media(tmp_path / "a.mkv", frame_times(25, 0.4), size=size))["score"])

    @pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
    def test_tail_cut_is_scored_up_to_where_it_ends(self, tmp_path, tiny_pipe, bunny, keep):
        data = Path(remux(bunny, tmp_path / "s.mp4", movflags="faststart")).read_bytes()
        path = tmp_path / "cut.mp4"
        path.write_bytes(data[: round(len(data) * keep)])
        result = tiny_pipe(str(path))
        assert 0.2 < result["read_until"] < 5.28 == result["duration"]
        assert result["read_until"] == result["clips"][-1]["end"]
        said = [w for w in result["warnings"] if f"Only the first {result['read_until']:.2f} s of 5.28 s" in w]
        assert len(said) == 1

    def test_picture_only(self, tmp_path, tiny_pipe):
        assert not tiny_pipe(write_media(tmp_path / "a.mp4", frame_times(25, 0.4)))["has_audio"]

    def test_joined_recordings_are_scored_to_their_end(self, tmp_path, tiny_pipe):
        part = write_media(tmp_path / "a.ts", frame_times(25, 2.0), sound(0, 2.0, 48000), audio_codec="mp2")
        result = tiny_pipe(Path(part).read_bytes() * 2)
        assert len(result["clips"]) == 4 and result["read_until"] == pytest.approx(4.0, abs=0.1)
        assert any("the clock of the picture starts anew, first at 2." in w for w in result["warnings"])

    def test_variable_frame_rate_has_the_times_of_its_frames(self, tmp_path, tiny_pipe):
        times = [0.02 * i for i in range(32)] + [0.64 + 0.1 * i for i in range(32)]
        result = tiny_pipe(write_media(tmp_path / "a.mov", times))
        assert result["clips"][0]["end"] == result["clips"][1]["start"] == pytest.approx(0.64, abs=1e-4)
        assert result["clips"][1]["end"] == pytest.approx(3.8, abs=0.11)
