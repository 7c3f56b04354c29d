"""What is seen and heard in words: against a naive loop, beside a detector, and in every output."""

import csv
import json
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from transformers import pipeline

import avad_hf
from avad_hf import AvacaProcessor, MediaError, ResNet3dConfig, ResNet3dModel
from avad_hf.detection.describe import NUM_NAMES, Describer, Description
from avad_hf.detection.events import write_csv, write_json
from avad_hf.media.sources import open_media
from avad_hf.models.resnet3d.encoder_resnet3d import ResNet3dEncoder
from avad_hf.models.vggish.encoder_vggish import VggishEncoder
from avad_hf.report.overlay import render_overlay
from avad_hf.report.timeline import MOST_LANES, OTHER, name_lanes, plot_timeline

from .media_files import frame_times, gray, remux, sound, write_media
from .named_encoders import SIGHTS, SOUNDS, ears, eyes, naming_processor
from .own_detector import OwnConfig, OwnDetector

TASK = "audio-visual-anomaly"
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def processor():
    return naming_processor()


@pytest.fixture(scope="module")
def describer(processor):
    return Describer(processor)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Four clips of 16 frames, the last of them of 7."""
    path = tmp_path_factory.mktemp("videos") / "loud.mp4"

    def picture(index, width, height):
        return np.roll(gray(3 * index, width, height), index, axis=1)

    return write_media(path, frame_times(25, 2.2), sound(3, 2.2, 16000), 16000, audio_codec="aac", pictures=picture)


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    return write_media(tmp_path_factory.mktemp("videos") / "silent.mp4", frame_times(25, 1.28))


@pytest.fixture(scope="module")
def result(describer, video):
    return describer(video)


def detector(processor, neighbours=0):
    torch.manual_seed(0)
    width = processor.widths["visual_features"]
    model = OwnDetector(OwnConfig(visual_size=width, neighbours=neighbours))
    return pipeline(TASK, model=model, processor=processor)


def naive(processor, source) -> list[dict[str, dict[str, float]]]:
    """Every probability of each clip, picture by picture and window by window."""
    found = []
    seeing, hearing = processor.encoders["video_encoder"], processor.encoders["audio_encoder"]
    with open_media(source) as media, torch.no_grad():
        for clip in processor.clips(media):
            pixels = torch.stack([frame.pixels for frame in clip.frames])[None]
            seen = seeing.probabilities(seeing.outputs_of(pixels))[0].tolist()
            heard = np.zeros(len(SOUNDS))
            for frame in clip.frames:
                heard += hearing.probabilities(hearing.outputs_of(frame.sound[None]))[0].numpy() / len(clip.frames)
            names = {"seen": dict(zip(SIGHTS, seen, strict=True)), "heard": dict(zip(SOUNDS, heard, strict=True))}
            found.append({"start": clip.start, "end": clip.end, **names})
    return found


def first_five(scores: dict[str, float]) -> tuple[list[str], list]:
    best = sorted(scores, key=lambda name: -scores[name])[:NUM_NAMES]
    return best, [pytest.approx(scores[name], abs=2e-5) for name in best]


@pytest.mark.parametrize("stride", [16, 4])
def test_names_and_scores_are_those_of_a_naive_loop(video, stride):
    """Also where clips share frames, whose sound is heard once."""
    processor = naming_processor(clip_stride=stride)
    found, expected = Describer(processor)(video), naive(processor, video)
    assert len(found["clips"]) == len(expected) > 3
    for clip, one in zip(found["clips"], expected, strict=True):
        assert (clip["start"], clip["end"]) == (pytest.approx(one["start"]), pytest.approx(one["end"]))
        for sense in ("seen", "heard"):
            labels, scores = first_five(one[sense])
            assert [name["label"] for name in clip[sense]] == labels
            assert [name["score"] for name in clip[sense]] == scores
    for sense, names in (("seen", SIGHTS), ("heard", SOUNDS)):
        means = {name: float(np.mean([one[sense][name] for one in expected])) for name in names}
        labels, scores = first_five(means)
        assert ([n["label"] for n in found[sense]], [n["score"] for n in found[sense]]) == (labels, scores)
    assert len({clip["seen"][0]["label"] for clip in found["clips"]}) > 1  # or order would prove little


def test_the_result_is_ready_for_json(result, video, tmp_path):
    assert list(result) == [
        *("seen", "heard", "clips", "duration", "fps", "has_audio", "read_until", "warnings", "read"),
    ]
    assert (result["duration"], result["fps"], result["has_audio"]) == (2.2, 25.0, True)
    assert result["read_until"] == result["clips"][-1]["end"] == 2.2 and result["warnings"] == []
    assert result["read"]["picture"]["seconds"] == pytest.approx(2.2)
    write_json({video: result}, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())[video] == json.loads(json.dumps(result)) == result


def test_real_clips(describer, bunny):
    found = describer(bunny)
    assert found["duration"] == 5.28 and len(found["clips"]) == 9
    for names in [found, *found["clips"]]:
        for sense in ("seen", "heard"):
            scores = [name["score"] for name in names[sense]]
            assert scores == sorted(scores, reverse=True) and len(scores) == NUM_NAMES and np.isfinite(scores).all()


def test_a_video_without_sound_has_nothing_heard(describer, silent):
    found = describer(silent)
    assert found["heard"] == [] and [clip["heard"] for clip in found["clips"]] == [[], []]
    assert not found["has_audio"] and len(found["seen"]) == NUM_NAMES


def test_several_videos(describer, video, silent, result, tmp_path):
    (tmp_path / "broken.mp4").write_text("no video")
    assert describer([video, silent], streams=2, batch_size=1) == [result, describer(silent)]
    assert describer([]) == []
    seen = []
    found = dict(describer.interleave([silent, tmp_path / "broken.mp4", video], on_progress=lambda *x: seen.append(x)))
    assert found[2] == result and isinstance(found[1], MediaError)
    assert (2, pytest.approx(2.2), 2.2) in seen
    with pytest.raises(MediaError, match=r"broken.mp4 cannot be opened as video"):
        describer(tmp_path / "broken.mp4")
    for options in ({"streams": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be 1 or more, got 0"):
            describer.interleave([video], **options)


def test_what_is_cut_off_is_said(describer, bunny, tmp_path):
    data = Path(remux(bunny, tmp_path / "s.mp4", movflags="faststart")).read_bytes()
    found = describer(data[: len(data) // 3])
    (warning,) = found["warnings"]
    assert f"Only the first {found['read_until']:.2f} s of 5.28 s could be read" in warning


def test_probabilities_that_are_no_numbers():
    description = Description({"seen": SIGHTS})
    words = r"video encoder gives probabilities that are no numbers, in the clips from 1.28 s"
    with pytest.raises(ValueError, match=words):
        description.add([(1.28, 2.56)], {"seen": torch.full((1, len(SIGHTS)), float("nan"))})


# Encoders without classes


def test_encoders_without_classes_are_refused_before_anything_is_read(tiny_pipe):
    with pytest.raises(ValueError, match=r"Nothing can be described: .*\(slowfast\) and .*\(vggish\) cannot name"):
        Describer(tiny_pipe.processor)
    for act in (
        lambda: tiny_pipe("absent.mp4", describe=True),
        lambda: tiny_pipe.interleave(["absent.mp4"], describe=True),
    ):
        with pytest.raises(ValueError, match=r"Nothing can be described.*avad_hf.describe\(video\) brings such"):
            act()


@pytest.mark.parametrize("left", ["seen", "heard"])
def test_a_sense_without_classes_is_left_out_with_a_warning(video, result, left):
    kinds = {"video": ResNet3dEncoder} if left == "seen" else {"audio": VggishEncoder}
    processor = naming_processor(**kinds)
    encoder, other = ("video", "heard") if left == "seen" else ("audio", "seen")
    words = f"What is {left} is not described: the {encoder} encoder has no classes with names."
    for found in (Describer(processor)(video), detector(processor)(video, describe=True)):
        assert words in found["warnings"]
        assert found[left] == [] and found["clips"][0][left] == [] and found[other] == result[other]


def test_names_without_a_classifier_are_no_classes(video):
    """A network may name its classes in its config, and be saved without its classifier."""
    named = ResNet3dModel(ResNet3dConfig(stem_width=4, depths=(1, 1, 1, 1), id2label={0: "a", 1: "b"}))
    processor = AvacaProcessor(video_encoder=named, audio_encoder=ears(VggishEncoder), size=32)
    with pytest.raises(
        ValueError,
        match=r"Nothing can be described: ResNet3dModel \(resnet3d\) and VggishModel \(vggish\) cannot name",
    ):
        avad_hf.describe(video, named, processor.audio_encoder)


# By a name, a folder or an object


def test_describe_takes_encoders_and_names(video, result, monkeypatch):
    from avad_hf import describing

    asked = []

    def place(role, encoder, on_stage):
        asked.append(encoder)
        return {"i3d": eyes(), "yamnet": ears()}.get(encoder, encoder)

    monkeypatch.setattr(describing, "encoder_place", place)
    monkeypatch.setattr(describing, "feature_processor", lambda: partial(AvacaProcessor, size=32))
    assert avad_hf.describe(video, dtype="float32", device="cpu") == result
    assert avad_hf.describe([video], eyes(), "yamnet", dtype="float32") == [result]
    assert asked[:2] == ["i3d", "yamnet"] and asked[3] == "yamnet"


def test_what_is_no_encoder_is_refused(tmp_path):
    from avad_hf.describing import load_describer

    with pytest.raises(TypeError, match="video_encoder cannot be used"):
        load_describer(3, ears())
    with pytest.raises(TypeError, match="Give it as audio_encoder"):
        load_describer(ears(), ears())


# Beside a detector


@pytest.mark.parametrize("neighbours", [0, 1, -1])
def test_a_detector_describes_as_describe_does_by_one_pass(video, result, neighbours):
    """Whatever it must see at once."""
    processor = naming_processor()
    pipe, encoders = detector(processor, neighbours), processor.encoders.values()
    plain = pipe(video, threshold=0.0)
    calls = [encoder.calls for encoder in encoders]
    found = pipe(video, threshold=0.0, describe=True)
    assert [encoder.calls for encoder in encoders] == [2 * count for count in calls]
    assert (found["seen"], found["heard"]) == (result["seen"], result["heard"])
    named = [{key: clip[key] for key in ("start", "end", "seen", "heard")} for clip in found["clips"]]
    assert named == result["clips"]
    assert found["clips"][0]["score"] == plain["clips"][0]["score"] and "seen" not in plain
    (event,) = found["events"]
    best = max(found["clips"], key=lambda clip: clip["score"])
    assert (event["seen"], event["heard"]) == (best["seen"], best["heard"])
    assert json.loads(json.dumps(found)) == found
    assert pipe([video, video], streams=2, threshold=0.0, describe=True) == [found, found]
    without = {key: value for key, value in found.items() if key not in ("seen", "heard")}
    assert [clip["score"] for clip in without["clips"]] == [clip["score"] for clip in plain["clips"]]
    assert all(plain[key] == without[key] for key in plain.keys() - {"clips", "events"})


def test_describing_may_be_a_property_of_the_pipeline(processor, silent):
    model = OwnDetector(OwnConfig(visual_size=processor.widths["visual_features"]))
    pipe = pipeline(TASK, model=model, processor=processor, describe=True)
    assert pipe(silent)["heard"] == [] and pipe(silent)["seen"] and "seen" not in pipe(silent, describe=False)


def test_names_are_kept_with_the_sound_that_was_encoded_before(video):
    """Whoever asks for the features first, and for the names then."""
    processor = naming_processor()
    with open_media(video) as media:
        clips = list(processor.clips(media))[:1]
    features = processor.encode(clips)
    again, probabilities = processor.encode_and_name(clips)
    assert torch.equal(features["audio_features"], again["audio_features"])
    assert {sense: tuple(values.shape) for sense, values in probabilities.items()} == {
        "seen": (1, len(SIGHTS)),
        "heard": (1, len(SOUNDS)),
    }
    assert processor.encoders["audio_encoder"].calls == 1


# Tables and pictures


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_have_a_row_a_clip(describer, video, silent, result, tmp_path):
    results = {"=evil.mp4": result, silent: describer(silent)}
    write_csv(results, tmp_path / "r.csv")
    rows = rows_of(tmp_path / "r.csv")
    assert [row["video"] for row in rows] == ["'=evil.mp4"] * 4 + [silent] * 2
    assert "score" not in rows[0] and len(rows[0]) == 4 + 2 * 2 * NUM_NAMES
    for row, clip in zip(rows, result["clips"], strict=False):
        for rank, name in enumerate(clip["heard"], 1):
            assert row[f"heard_{rank}"] == name["label"].replace("\x1b", r"\x1b")
            assert float(row[f"heard_{rank}_score"]) == name["score"]
        labels = [row[f"seen_{rank}"] for rank in range(1, 6)]
        assert labels == [name["label"].replace("=1+1", "'=1+1") for name in clip["seen"]]
    assert rows[-1]["heard_1"] == rows[-1]["heard_5_score"] == ""


def test_tables_of_a_detector_have_names_behind_what_they_had(processor, video, tmp_path):
    found = detector(processor)(video, describe=True, threshold=0.0)
    write_csv({"a.mp4": found}, tmp_path / "r.csv")
    rows = rows_of(tmp_path / "r.csv")
    assert list(rows[0])[:9] == [
        *("video", "start", "end", "score", "anomalous", "label", "warnings", "seen_1", "seen_1_score"),
    ]
    assert [row["seen_1"].removeprefix("'") for row in rows] == [c["seen"][0]["label"] for c in found["clips"]]


def clips_named(*names, length=1.0):
    return [
        {"start": i * length, "end": (i + 1) * length, "seen": [] if name is None else [{"label": name, "score": 0.5}]}
        for i, name in enumerate(names)
    ]


def test_lanes_are_merged_while_the_name_stays():
    clips = clips_named("a", "b", "b", None, "b", "a", "b")
    clips[1]["seen"][0]["score"] = 0.9
    lanes = name_lanes(clips, "seen")
    assert list(lanes) == ["b", "a"] and lanes["a"] == [(0.0, 1.0, 0.5), (5.0, 1.0, 0.5)]
    assert lanes["b"] == [(1.0, 2.0, pytest.approx(0.7)), (4.0, 1.0, 0.5), (6.0, 1.0, 0.5)]
    many = [name for number in range(12) for name in [f"n{number}"] * (12 - number)]
    lanes = name_lanes(clips_named(*many), "seen")
    assert list(lanes) == [*(f"n{number}" for number in range(MOST_LANES)), OTHER]
    assert lanes[OTHER] == [(float(sum(12 - number for number in range(MOST_LANES))), 15.0, 0.5)]
    overlapping = [clip | {"end": clip["end"] + 1} for clip in clips_named("a", "b")]
    assert name_lanes(overlapping, "seen") == {"a": [(0.0, 1.0, 0.5)], "b": [(1.0, 2.0, 0.5)]}
    assert name_lanes(clips_named(None, None), "seen") == {}


@pytest.mark.parametrize("beside", ["describe", "detector", "silent"])
def test_timelines_are_drawn(describer, processor, video, silent, tmp_path, beside):
    source = silent if beside == "silent" else video
    found = detector(processor)(source, describe=True) if beside == "detector" else describer(source)
    plot_timeline(found, source, tmp_path / "r.svg")
    plot_timeline(found, source, tmp_path / "r.png")
    text = (tmp_path / "r.svg").read_text()
    # matplotlib draws letters as curves, and keeps the text as comments.
    drawn = {clip[sense][0]["label"] for clip in found["clips"] for sense in ("seen", "heard") if clip[sense]}
    assert all(f"<!-- {name} -->" in text for name in drawn if name.replace(" ", "").isalpha())
    assert ("<!-- heard -->" in text) == (beside != "silent")
    assert ("<!-- anomaly score -->" in text) == (beside == "detector")


def test_names_stand_below_the_picture(describer, result, video, tmp_path):
    render_overlay(result, video, tmp_path / "o.mp4")
    with av.open(video) as container:
        height = container.streams.video[0].height
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 55
    shown = 8 * height  # of 48 rows: enlarged until words can be read
    band = [frame[shown:].astype(int) for frame in frames]
    assert 30 < band[0].shape[0] < shown / 2 and frames[0].shape[0] % 2 == 0
    # The bar of the first name is as long as its probability, and changes with the clip.
    for number, clip in ((5, 0), (50, 3)):
        row = band[number][8 : band[number].shape[0] // 3 - 6, : band[number].shape[1] // 2]
        blue = (row[..., 2] > row[..., 0] + 40).any(axis=0)
        width = np.flatnonzero(blue).max() - np.flatnonzero(blue).min()
        room = row.shape[1] - np.flatnonzero(blue).min() - 8
        assert width / room == pytest.approx(result["clips"][clip]["seen"][0]["score"], abs=0.05)
    with open_media(tmp_path / "o.mp4") as media:
        kept = next(media.frames(None)).pixels
    with open_media(video) as media:
        before = next(media.frames(None)).pixels
    # Nothing of the picture is hidden.
    assert (kept[:, 4:shown:8, 4::8].float() - before.float()).abs().mean() < 6


def test_names_that_are_too_long_are_cut(result, video, tmp_path):
    long = json.loads(json.dumps(result))
    for clip in long["clips"]:
        clip["seen"][0]["label"] = "a name \n that no line of any picture could hold " * 5
    render_overlay(long, video, tmp_path / "o.mp4")
    evil = [clip | {"heard": []} for clip in clips_named("$x_^$", "<script>")]
    plot_timeline(long | {"clips": evil}, video, tmp_path / "o.svg")
    assert (tmp_path / "o.mp4").stat().st_size > 1000 and "<script>" not in (tmp_path / "o.svg").read_text()
