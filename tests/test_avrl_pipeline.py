"""The same doors for AVRL as for AVACA: pipeline, init, extract, train, evaluate and detect."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline
from typer.testing import CliRunner

from avad_hf import AvrlForVideoClassification, AvrlProcessor, ResNet3dConfig, ResNet3dModel, VggishConfig, VggishModel
from avad_hf.cli import app
from avad_hf.detection.events import ScoredClip, detect_events, merge_events
from avad_hf.media.sources import open_media
from avad_hf.untrained import init_avrl

from .short_clips import beginning

TASK = "audio-visual-anomaly"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> str:
    """Untrained; windows of two seconds, so that the real clips are long."""
    folder = tmp_path_factory.mktemp("avrl") / "tiny"
    init_avrl(folder, size="tiny")
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"window_s": 2.0}))
    return str(folder)


@pytest.fixture(scope="module")
def pipe(checkpoint):
    return pipeline(TASK, model=checkpoint, dtype="float32")


def command(*arguments, code=0) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


# The pipeline


def test_the_class_of_a_short_video_is_that_of_the_model(checkpoint, bunny):
    processor, model = (
        AvrlProcessor.from_pretrained(checkpoint),
        AvrlForVideoClassification.from_pretrained(checkpoint, dtype="float32"),
    )
    processor.window_s = 20.0
    result = pipeline(TASK, model=model, processor=processor)(bunny)
    with torch.no_grad():
        likelihood = model(**processor(bunny)).logits.softmax(1)[0]
    names = model.config.id2label
    expected = {names[number]: value for number, value in enumerate(likelihood.tolist())}
    (clip,) = result["clips"]
    assert clip["probabilities"] == pytest.approx(expected, abs=1e-6)
    assert result["label"] == clip["label"] == max(expected, key=expected.get)
    assert result["score"] == pytest.approx(1 - expected["normal1"] - expected["normal2"], abs=1e-6)
    assert (clip["start"], clip["end"], result["has_audio"]) == (0.0, 5.28, True)
    assert json.loads(json.dumps(result)) == result


def test_a_long_video_is_cut_into_windows(pipe, checkpoint, bunny):
    result = pipe(bunny)
    assert [(clip["start"], clip["end"]) for clip in result["clips"]] == [(0.0, 2.0), (2.0, 4.0), (3.28, 5.28)]
    assert (result["duration"], result["read_until"], result["fps"]) == (5.28, 5.28, 25.0)
    # Each is what the model makes of that stretch of the file.
    processor, model = (
        AvrlProcessor.from_pretrained(checkpoint),
        AvrlForVideoClassification.from_pretrained(checkpoint),
    )
    for clip in result["clips"]:
        batch = processor({"video": bunny, "start": clip["start"], "end": clip["end"]})
        with torch.no_grad():
            score = model(**batch).anomaly_logits.sigmoid().item()
        assert clip["score"] == pytest.approx(score, abs=1e-5)
    assert [clip["score"] for clip in pipe(bunny, batch_size=3)["clips"]] == pytest.approx(
        [clip["score"] for clip in result["clips"]], abs=1e-5
    )
    best = max(result["clips"], key=lambda clip: clip["score"])
    assert (result["score"], result["label"]) == (best["score"], best["label"])


def test_events_are_named_by_the_anomalous_classes(pipe, bunny):
    everything = pipe(bunny, threshold=0.0)
    assert everything["events"] and pipe(bunny, threshold=1.0)["events"] == []
    for event in everything["events"]:
        clip = next(clip for clip in everything["clips"] if clip["start"] == event["start"])
        anomalous = {name: p for name, p in clip["probabilities"].items() if not name.startswith("normal")}
        assert event["label"] == max(anomalous, key=anomalous.get)


def test_a_video_without_sound_says_so(pipe, checkpoint, bikes, tmp_path):
    result = pipe(bikes)
    assert not result["has_audio"] and len(result["clips"]) == 5
    assert "The video has no sound that can be decoded, and the detector hears zeros." in result["warnings"]
    assert any("Untrained" in warning for warning in result["warnings"])
    init_avrl(tmp_path / "audio", size="tiny", modality="audio")
    assert "hears only: this result means nothing" in str(pipeline(TASK, model=str(tmp_path / "audio"))(bikes))
    init_avrl(tmp_path / "visual", size="tiny", modality="visual")
    assert "sound" not in str(pipeline(TASK, model=str(tmp_path / "visual"))(bikes)["warnings"])


def test_options_of_the_other_detector_are_refused(pipe, bunny):
    with pytest.raises(ValueError, match=r"audio_path is an option of detectors that .* of type 'avrl', has none"):
        pipe(bunny, audio_path="zeroed")
    with pytest.raises(ValueError, match="threshold must be between 0 and 1"):
        pipe(bunny, threshold=1.5)


def test_a_saved_pipeline_comes_back(pipe, bunny, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    again = pipeline(TASK, model=str(tmp_path / "saved"), dtype="float32")
    assert again(bunny) == pipe(bunny)
    assert isinstance(AutoModelForVideoClassification.from_pretrained(tmp_path / "saved"), AvrlForVideoClassification)
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "saved"), AvrlProcessor)


# Events


def clip(start, score, **probabilities):
    label = max(probabilities, key=probabilities.get)
    return ScoredClip(start, start + 2, score, label, probabilities)


def test_neighbouring_windows_of_one_class_are_one_event():
    clips = [
        clip(0, 0.9, fight=0.6, run=0.3, normal=0.1),
        clip(2, 0.8, fight=0.5, run=0.3, normal=0.2),
        clip(4, 0.7, run=0.6, fight=0.1, normal=0.3),
        clip(6, 0.1, run=0.1, fight=0.0, normal=0.9),
        # Most probable is the normal class, but all others together are more so.
        clip(8, 0.6, run=0.35, fight=0.25, normal=0.4),
    ]
    events = merge_events(clips, 0.5, ["normal"])
    assert [(e.start, e.end, e.label, e.score, e.peak) for e in events] == [
        (0, 4, "fight", 0.9, 1.0),
        (4, 6, "run", 0.7, 5.0),
        (8, 10, "run", 0.6, 9.0),
    ]
    found = detect_events(clips, 0.5, 10.0, 25.0, True, normal_labels=["normal"]).to_dict()
    assert (found["score"], found["label"]) == (0.9, "fight")
    calm = detect_events([clip(0, 0.2, run=0.2, normal=0.8)], 0.5, 2.0, 25.0, True, normal_labels=["normal"])
    assert (calm.label, calm.events) == ("normal", [])


def test_scores_without_classes_have_no_class_keys():
    result = detect_events([ScoredClip(0, 1, 0.7)], 0.5, 1.0, 25.0, True).to_dict()
    assert result["clips"] == [{"start": 0, "end": 1, "score": 0.7}]
    assert result["events"][0]["label"] == result["label"] == "anomaly"


# New checkpoints


def test_init_begins_with_trained_encoders(tmp_path):
    torch.manual_seed(5)
    wants = {"rescale_factor": 1.0, "image_mean": (114.7748, 107.7354, 99.475), "image_std": (1.0, 1.0, 1.0)}
    video = ResNet3dModel(ResNet3dConfig(stem_width=8, depths=(1, 1, 1, 1), shortcut_type="A", **wants))
    audio = VggishModel(VggishConfig(hidden_sizes=(8, 16, 32, 64), intermediate_size=8, embedding_size=8))
    video.save_pretrained(tmp_path / "video")
    audio.save_pretrained(tmp_path / "audio")
    said = command(
        *("init", "avrl", tmp_path / "new", "--size", "tiny", "--fusion", "low_level"),
        *("--video-encoder", tmp_path / "video", "--audio-encoder", tmp_path / "audio"),
        *("--classes", "fire, normal"),
    )
    assert "Untrained classifier (random weights, seed 0)" in said
    model = AvrlForVideoClassification.from_pretrained(tmp_path / "new")
    assert model.config.id2label == {0: "fire", 1: "normal"} and list(model.config.normal_labels) == ["normal"]
    kernel = model.avrl.visual.conv1.weight
    assert torch.equal(kernel[:, :3], video.conv1.weight) and not kernel[:, 3].any()
    assert torch.equal(model.avrl.audio.features[0].weight, audio.features[0].weight)
    processor = AvrlProcessor.from_pretrained(tmp_path / "new")
    # Normalised as the encoder wants it, and of the published size.
    assert (processor.rescale_factor, processor.image_std, processor.size) == (1.0, (1.0, 1.0, 1.0), (240, 240))
    assert processor.image_mean == (114.7748, 107.7354, 99.475)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "huge"}, "size must be one of base, tiny"),
        ({"fusion": "sum"}, "fusion must be one of concat, concat_norm"),
        ({"modality": "smell"}, "modality must be one of audio_visual, visual, audio"),
        ({"classes": ["fire", "flood"]}, "normal_labels must name some of the classes"),
        ({"classes": ["normal"]}, "normal_labels must name some of the classes"),
        ({"classes": ["run", "run", "normal"]}, "Class names must differ, got run, run, normal"),
        ({"normal_classes": ["calm"]}, "normal_labels must name some of the classes"),
    ],
)
def test_what_cannot_be_begun_is_refused(tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        init_avrl(tmp_path / "new", **{"size": "tiny"} | options)
    assert not (tmp_path / "new").exists()


def test_normal_classes_may_be_called_otherwise(tmp_path):
    command("init", "avrl", tmp_path / "new", "--size", "tiny", "--classes", "walking, fight", "--normal", "walking")
    config = AvrlForVideoClassification.from_pretrained(tmp_path / "new").config
    assert config.normal_ids == [0] and list(config.normal_labels) == ["walking"]
    said = command("init", "avrl", tmp_path / "other", "--video-encoder", tmp_path / "nothing", code=2)
    assert "--video-encoder" in said and "no such folder" in said.replace("\n", " ")


def test_cards_say_what_a_checkpoint_is(tmp_path):
    init_avrl(tmp_path / "heard", size="tiny", modality="audio")
    assert "It hears only: VGGish's convolutions with 64" in (tmp_path / "heard" / "README.md").read_text()
    init_avrl(tmp_path / "both", size="tiny", fusion="add")
    card = (tmp_path / "both" / "README.md").read_text()
    assert "3D ResNet-10 of 64 features (shortcuts of type B)" in card and "fusion `add`" in card


def test_the_notice_of_an_untrained_encoder_stays(tmp_path):
    video = ResNet3dModel(ResNet3dConfig(stem_width=8, depths=(1, 1, 1, 1), notice="Untrained video encoder."))
    video.save_pretrained(tmp_path / "video")
    model = init_avrl(tmp_path / "new", size="tiny", video_encoder=tmp_path / "video")
    assert model.config.notice.endswith("Untrained video encoder.")


@pytest.mark.parametrize(
    ("fps", "seconds", "window_s", "windows"),
    [(29.97, 19.9, 20.0, 1), (24, 19.0, 20.0, 1), (25, 21.0, 20.0, 2), (4.9, 12.0, 12.0, 1), (1, 49.0, 20.0, 1)],
)
def test_videos_up_to_the_windows_length_are_one_clip(checkpoint, fps, seconds, window_s, windows):
    processor = AvrlProcessor.from_pretrained(checkpoint)
    processor.num_frames, processor.window_s = 50, window_s
    frames = np.zeros((int(fps * seconds), 2, 2, 3), dtype=np.uint8)
    assert len(list(processor.stream({"frames": frames, "fps": fps}))) == windows


def test_init_never_overwrites(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    assert "is not an empty directory" in command("init", "avrl", tmp_path, "--size", "tiny", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_the_base_size_is_the_published_network(tmp_path):
    """3D-ResNet-34 without its classifier, VGGish's convolutions, and Table I."""
    with torch.device("meta"):
        from avad_hf import AvrlConfig

        model = AvrlForVideoClassification(AvrlConfig())
    table_i = 1024 * 512 + 512 + 512 * 256 + 256 + 256 * 9 + 9
    assert sum(p.numel() for p in model.parameters()) == 63_513_536 + 4_499_712 + table_i


# From the command line: a corpus, its store, a detector, its figures, and a video


def test_the_way_from_a_corpus_to_events(tmp_path, checkpoint, bunny, bikes):
    bunny, bikes = (beginning(path, tmp_path / Path(path).name, 66) for path in (bunny, bikes))
    manifest = tmp_path / "manifest.csv"
    rows = [["id", "video", "label", "start", "end", "split"]]
    for index in range(9):
        video, label = ((bunny, "fight"), (bikes, "normal1"), (bunny, "run"))[index % 3]
        split = ("train", "validation", "test")[index // 3]
        rows.append([f"v{index}", video, label, 0.1 * index, 0.1 * index + 1, split])
    with open(manifest, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    store, trained = tmp_path / "store", tmp_path / "trained"
    assert "9 videos, 9 of them new" in command("extract", manifest, "--model", checkpoint, "-o", store)
    assert "largest difference 0.00e+00" in command(
        "extract", manifest, "--model", checkpoint, "-o", store, "--verify"
    )
    options = ("--model", checkpoint, "--epochs", 1, "--learning-rate", 1e-3)
    said = command("train", "avrl", store, "-o", trained, *options, "--fusion", "add")
    assert "epoch 1 of 1, validation top-1 accuracy" in said
    assert json.loads((trained / "config.json").read_text())["fusion"] == "add"
    said = command("evaluate", trained, store, "-o", tmp_path / "report", "--device", "cpu")
    assert "Event classes: top-1 accuracy" in said and "fight" in said and "of 1 videos" in said
    assert "Event classes" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    outputs = ("--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--plot", tmp_path / "r.png")
    said = command("detect", bunny, "--model", trained, *outputs, "--overlay", tmp_path / "r.mp4")
    result = json.loads((tmp_path / "r.json").read_text())[bunny]
    assert f"{bunny}: {result['label']}, score" in said
    with open(tmp_path / "r.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["label"] for line in lines] == [clip["label"] for clip in result["clips"]]
    assert (tmp_path / "r.png").stat().st_size > 10_000
    with open_media(str(tmp_path / "r.mp4")) as media:
        assert media.num_frames() == 66


def test_detectors_and_stores_are_told_apart(tmp_path, checkpoint, tiny, bunny):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"id,video,label,end\na,{bunny},fight,1\n")
    command("extract", manifest, "--model", checkpoint, "-o", tmp_path / "videos")
    command("extract", manifest, "--model", tiny, "-o", tmp_path / "features")
    said = command("train", "avaca", tmp_path / "videos", "-o", tmp_path / "run", code=2)
    assert "AVACA is a detector that reads features of frozen encoders, but videos holds frames and sound" in said
    said = command("train", "avrl", tmp_path / "features", "-o", tmp_path / "run", code=2)
    assert "AVRL is a detector that reads frames and sound, but features holds features of frozen encoders" in said
    said = command("evaluate", checkpoint, tmp_path / "features", "-o", tmp_path / "report", "--split", "all", code=2)
    assert "type 'avrl' cannot read this store" in said
    # Neither does one detector's processor read the other's checkpoint.
    with pytest.raises(ValueError, match="holds a processor of class AvacaProcessor, but AvrlProcessor reads"):
        AvrlProcessor.from_pretrained(tiny)
    with pytest.raises(ValueError, match="This checkpoint holds a model of type 'avaca'"):
        AvrlForVideoClassification.from_pretrained(tiny)


def test_a_dark_frame_is_a_dark_number(checkpoint):
    """Pixels are normalised as the checkpoint says, seen from arrays of one colour."""
    processor = AvrlProcessor.from_pretrained(checkpoint)
    frames = np.full((3, 8, 8, 3), 51, dtype=np.uint8)
    values = processor({"frames": frames, "fps": 25})["pixel_values_videos"]
    expected = (51 / 255 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    assert torch.allclose(values.mean(dim=(0, 1, 3, 4)), expected, atol=1e-6)
