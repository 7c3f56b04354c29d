"""One command from a folder of videos to a detector: fitted or trained, resumed, refused."""

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoConfig, AutoModelForVideoClassification, AutoProcessor, pipeline
from typer.testing import CliRunner

from avad_hf import FeatureDataset
from avad_hf.cli import app
from avad_hf.corpora.manifest import read_manifest, write_manifest
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.folders import steps
from avad_hf.folders.fitting import fit_folder
from avad_hf.folders.steps import FEATURES, Job, divide, get_processor, list_rows, trainable
from avad_hf.models.avaca.features_avaca import ClipFeatures
from avad_hf.models.detector import spec_of
from avad_hf.registration import architectures

from .feature_stores import plant
from .test_report_page import Page

pytestmark = pytest.mark.usefixtures("one_thread")
runner = CliRunner()


def run(*arguments, code=0):
    done = runner.invoke(app, ["fit", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done


def said(done) -> str:
    return " ".join(done.output.split())


@pytest.fixture(scope="module")
def videos(drawn):
    return drawn(24, 13, first=10)


@pytest.fixture(scope="module")
def flat(videos, tmp_path_factory) -> Path:
    """Normal videos in no class folder, and a file that is no video."""
    folder = tmp_path_factory.mktemp("flat") / "yard"
    folder.mkdir()
    for row in videos:
        if row["label"] == "normal":
            shutil.copy(row["video"], folder)
    (folder / "broken.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def classes(videos, tmp_path_factory) -> Path:
    """Normal and odd videos in class folders."""
    folder = tmp_path_factory.mktemp("classes") / "street"
    for row in videos:
        place = folder / ("quiet" if row["label"] == "normal" else "odd")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(row["video"], place)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The demonstration model with clips that overlap, so that short videos have many."""
    folder = tmp_path_factory.mktemp("model") / "dense"
    shutil.copytree(DEMO_MODEL, folder)
    settings = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(settings | {"clip_stride": 4}))
    return folder


@pytest.fixture(scope="module")
def options(model):
    return ("--model", model, "--dtype", "float32")


@pytest.fixture(scope="module")
def fitted(flat, options, tmp_path_factory):
    output = tmp_path_factory.mktemp("fitted") / "out"
    done = run(flat, "-o", output, *options, "--json", "-", code=1)
    return done, json.loads(done.stdout), output


def test_a_flat_folder_becomes_a_detector(fitted, flat, videos):
    done, document, output = fitted
    rows = read_manifest(output / "manifest.csv")
    assert len(rows) == 5 and {row["anomaly"] for row in rows} == {None}
    assert len(FeatureDataset(output / FEATURES)) == 5
    assert list(document["steps"]) == list(steps.STEPS)
    for number, step in enumerate(steps.STEPS, 1):
        assert f"... step {number} of 6, {step}: " in done.stderr
    detector = AutoModelForVideoClassification.from_pretrained(output / "model")
    assert spec_of(detector).objective == "normality" and document["alarms"] is None and document["video"] is None
    assert document["threshold"] == detector.config.threshold
    assert {path.name for path in output.iterdir()} == {
        *("manifest.csv", "features", "model", "report.html", "settings.toml"),
    }
    (note,) = (one for one in document["notes"] if "promises no rate" in one)
    assert "1 alarm a day takes 72 hours of normal footage that the detector does not know" in note
    assert "so 72 hours are missing" in note
    assert document["failed"][0]["id"] == "broken.mp4" and "1 videos cannot be read and were left out." in done.stderr


def test_detect_takes_it_at_once(fitted, videos):
    _, document, output = fitted
    odd = next(row for row in videos if row["label"] == "bicycle")
    usual = next(row for row in videos if row["label"] == "normal")
    detect = pipeline("audio-visual-anomaly", model=str(output / "model"), dtype="float32")
    found = {row["label"]: detect(row["video"]) for row in (odd, usual)}
    assert (
        found["bicycle"]["score"] > found["normal"]["score"] and found["bicycle"]["threshold"] == document["threshold"]
    )
    assert found["bicycle"]["label"] is not None


def test_the_report_shows_what_a_person_should_look_at(fitted):
    _, _, output = fitted
    page = Page(output / "report.html")
    assert list(page.sections) == ["What was done", "Look at these", "What is not known"]
    assert "wrote manifest.csv: 5 videos" in page.text and "promises no rate of alarms" in page.text
    assert 1 <= len(re.findall("data:image/jpeg;base64", page.source)) <= 8 and "<script" not in page.source


def test_the_same_command_skips_what_is_done(fitted, flat, monkeypatch, options):
    _, _, output = fitted
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}

    def again(*_, **__):
        raise AssertionError("done a second time")

    monkeypatch.setattr(ClipFeatures, "stored", again)
    monkeypatch.setattr(steps, "fit", again)
    done = run(flat, "-o", output, *options)
    for words in ("manifest.csv is there, with 5 videos", "model is there", "report.html is there", "0 of them new"):
        assert words in said(done)
    after = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= {output / FEATURES / "index.jsonl"}
    # What came since is named, and not taken in silently; a file that could not be read is no news in the end.
    assert "1 videos of" in said(done) and "are not in manifest.csv, first broken.mp4" in said(done)


def test_other_settings_are_named(fitted, flat, tmp_path, options, undrawn):
    _, _, output = fitted
    done = run(flat, "-o", output, *options, "--alarms-per-day", 3, "--contamination", 0.1, code=2)
    for words in (
        "holds results of other settings:",
        "alarms_per_day: 1.0 before, 3.0 now",
        "contamination: 0.0 before, 0.1 now",
        "delete settings.toml, model and report.html in it",
    ):
        assert words in said(done)
    # Which helps.
    shutil.copytree(output, tmp_path / "copy")
    (tmp_path / "copy" / "settings.toml").unlink()
    (tmp_path / "copy" / "report.html").unlink()
    shutil.rmtree(tmp_path / "copy" / "model")
    done = run(flat, "-o", tmp_path / "copy", *options, "--contamination", 0.1)
    assert "5 videos, 0 of them new" in said(done)
    assert AutoConfig.from_pretrained(tmp_path / "copy" / "model").contamination == 0.1


PLAIN = ("--model", DEMO_MODEL, "--dtype", "float32")


@pytest.fixture(scope="module")
def trained(classes, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "out"
    done = run(classes, "-o", output, *PLAIN, "--normal", "quiet", "--json", output.parent / "r.json")
    return done, json.loads((output.parent / "r.json").read_text()), output


def test_with_labels_a_detector_is_trained_and_evaluated(trained):
    done, document, output = trained
    detector = AutoModelForVideoClassification.from_pretrained(output / "model")
    assert spec_of(detector).objective == "clips" and "equal error rate" in detector.config.threshold_origin
    assert "trained on labels, epoch" in document["steps"]["model"]
    assert document["video"]["confusion"] and "Test videos: AUC " in done.stdout
    assert json.loads((output / "metrics.json").read_text())["num_videos"] == 2
    page = Page(output / "report.html")
    assert "At the threshold" in page.sections and "The threshold promises no rate of alarms" in page.text
    assert f"Detector: avad-hf detect VIDEO --model {output / 'model'}" in done.stdout.replace("\n", " ")


def test_training_is_not_done_again(trained, classes, undrawn):
    _, _, output = trained
    weights = (output / "model" / "model.safetensors").stat().st_mtime_ns
    run(classes, "-o", output, *PLAIN, "--normal", "quiet")
    assert (output / "model" / "model.safetensors").stat().st_mtime_ns == weights


def test_a_method_fits_to_the_normal_training_videos(trained, classes, tmp_path, monkeypatch, undrawn):
    _, document, output = trained
    shutil.copytree(output / FEATURES, tmp_path / "out" / FEATURES)
    method, chosen = next(iter(architectures("fit"))), {}

    def fit(features, directory, **options):
        chosen.update(options, features=features)
        shutil.copytree(output / "model", directory)
        return SimpleNamespace(num_kept=9, num_clips=9, hours=0.1, notes=["fitted"])

    monkeypatch.setattr(steps, "fit", fit)
    found = fit_folder(
        classes, tmp_path / "out", method=method, model=DEMO_MODEL, normal=["quiet"], by="scene", dtype="float32"
    )
    assert {(row["split"], row["anomaly"]) for row in chosen["features"].rows} == {("train", 0), ("train", 1)}
    assert (chosen["method"], chosen["by"], chosen["processor"]) == (method, "scene", str(DEMO_MODEL))
    assert found.steps["features"] == "10 videos, 0 of them new" and "fitted" in found.notes
    assert found.video == document["video"]
    # Without test videos nothing is evaluated.
    shutil.copytree(output / FEATURES, tmp_path / "untested" / FEATURES)
    rows = read_manifest(output / "manifest.csv")
    rows = [
        {name: value for name, value in row.items() if not name.startswith("split_")} | {"split": part}
        for row, part in zip(rows, ["train", "validation"] * 5, strict=True)
    ]
    write_manifest(rows, tmp_path / "untested" / "manifest.csv")
    found = fit_folder(classes, tmp_path / "untested", method=method, model=DEMO_MODEL, dtype="float32")
    assert found.video is None and found.notes[-1].startswith("There are no test videos")
    assert "Look at these" in Page(found.report).sections


def test_the_rate_is_promised_where_footage_supports_it(tmp_path, monkeypatch, options):
    """Then the threshold is found on footage that the detector does not know."""
    plant(tmp_path / FEATURES, num_videos=20, share=0)
    features, job = FeatureDataset(tmp_path / FEATURES), Job(tmp_path, print, None)
    everything, none = divide(job, features, 1.0)
    assert len(everything) == 20 and none is None and "are missing" in job.notes[0]
    for row in features.rows:
        row["duration"] = 18 * 3600
    training, rest = divide(job, features, 1.0)
    assert len(training) == 12 and len(rest) == 8 and len(job.notes) == 1
    assert not {row["id"] for row in training.rows} & {row["id"] for row in rest.rows}
    config = SimpleNamespace(alarms=None, threshold=0.75, threshold_origin="as fitted")
    calibrated, saved = SimpleNamespace(alarms={"hours": 144.0}, threshold=0.9, threshold_origin="1 a day"), []

    def found(detector, data, alarms_per_day, on_progress):
        assert (len(data), alarms_per_day) == (8, 1.0)
        return SimpleNamespace(save=saved.append, notes=["look at this"])

    monkeypatch.setattr(steps, "calibrate", found)
    monkeypatch.setattr(steps.AutoConfig, "from_pretrained", lambda *_, **__: calibrated)
    detector = SimpleNamespace(config=config)
    assert steps.set_threshold(job, detector, rest, 1.0) and saved == [tmp_path / "model"]
    assert job.notes[-1] == "look at this"
    assert job.steps["threshold"] == "0.9000, 1 a day" and detector.config is calibrated
    assert not steps.set_threshold(job, detector, rest, 1.0) and len(saved) == 1

    def refuse(*_, **__):
        raise ValueError("too few events")

    monkeypatch.setattr(steps, "calibrate", refuse)
    assert not steps.set_threshold(job, SimpleNamespace(config=config), rest, 1.0)
    assert job.notes[-1] == "The threshold promises no rate of alarms: too few events"


def test_with_labels_the_threshold_is_found_on_normal_validation_videos(tmp_path):
    features = FeatureDataset(plant(tmp_path, num_videos=20))
    training, rest = divide(Job(tmp_path, print, None), features, 1.0)
    assert {row["split"] for row in training.rows} == {"train"} and len(training) == 12
    assert {(row["split"], row["anomaly"]) for row in rest.rows} == {("validation", 0)}


def test_folders_that_are_no_classes_must_be_called_so(flat, tmp_path):
    for name, place in zip(
        sorted(os.listdir(flat)), ("gate/2026-01", "gate/2026-02", "yard/x", "yard/y"), strict=False
    ):
        (tmp_path / "nvr" / place).mkdir(parents=True)
        shutil.copy(flat / name, tmp_path / "nvr" / place)
    said_now = said(run(tmp_path / "nvr", "-o", tmp_path / "out", *PLAIN, code=2))
    assert "Unknown classes: 2026-01, 2026-02, x, y" in said_now and "--all-normal" in said_now
    job = Job(tmp_path / "job", print, None)
    rows = list_rows(job, tmp_path / "nvr", None, True, "scene", None)
    assert [(row["scene"], row["label"], row["anomaly"]) for row in rows] == [
        (scene, "normal", 0) for scene in ("gate", "yard", "yard")
    ]
    assert job.failed[0]["id"] == "gate/2026-01/broken.mp4"


def test_encoders_are_kept_beside_the_results(tiny, tmp_path, undrawn):
    job, encoders = Job(tmp_path, print, None), (f"{tiny}/video_encoder", f"{tiny}/audio_encoder")
    first = get_processor(job, None, *encoders, learns=False)
    assert not (tmp_path / "encoders" / "config.json").exists()
    again = get_processor(job, None, "gone", "gone", learns=False)
    assert first.recipe() == again.recipe() == AutoProcessor.from_pretrained(tmp_path / "encoders").recipe()
    learning = Job(tmp_path / "learning", print, None)
    get_processor(learning, None, *encoders, learns=True)
    assert AutoConfig.from_pretrained(tmp_path / "learning" / "encoders").model_type == trainable()[0]


def test_bad_input_is_refused(tmp_path, classes, fitted, flat):
    (tmp_path / "empty").mkdir()
    assert "empty holds no video (.mp4," in said(run(tmp_path / "empty", "-o", tmp_path / "out", *PLAIN, code=2))
    (tmp_path / "empty" / "a.mp4").write_text("")
    assert "None of the 1 videos in" in said(run(tmp_path / "empty", "-o", tmp_path / "out", *PLAIN, code=2))
    assert "Unknown classes: odd, quiet" in said(run(classes, "-o", tmp_path / "out", *PLAIN, code=2))
    assert not (tmp_path / "out").exists()
    store = fitted[2] / FEATURES
    for option, value in (("--alarms-per-day", 2), ("--normal", "x"), ("--device", "cpu"), ("--batch-size", 2)):
        refused = said(run(store, "-o", tmp_path / "out", option, value, code=2))
        assert f"{option} is for a folder of videos, and STORE is none" in refused
    assert "--scene is for a feature store" in said(run(flat, "-o", tmp_path / "out", "--scene", "x", code=2))
    with pytest.raises(ValueError, match="Say which classes are normal, or that all videos are, not both"):
        fit_folder(classes, tmp_path / "out", normal=["quiet"], all_normal=True)
    with pytest.raises(ValueError, match="alarms_per_day must be a finite number above 0, got 0"):
        fit_folder(classes, tmp_path / "out", alarms_per_day=0)
    with pytest.raises(ValueError, match="Give a model, whose encoders are taken, or encoders, not both"):
        fit_folder(classes, tmp_path / "out", model=DEMO_MODEL, video_encoder="i3d")
    with pytest.raises(ValueError, match=r"which does not learn from them here\. Give one of type avaca"):
        fit_folder(classes, tmp_path / "out", model=fitted[2] / "model", normal=["quiet"])


def test_too_few_labels_say_what_to_do(classes, tmp_path, undrawn):
    for name in ("quiet", "odd"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for video in sorted((classes / name).iterdir())[:2]:
            shutil.copy(video, tmp_path / "few" / name)
    shutil.copy(next((classes / "odd").iterdir()), tmp_path / "few" / "quiet" / "more.mp4")
    done = said(run(tmp_path / "few", "-o", tmp_path / "out", *PLAIN, "--normal", "quiet", code=2))
    assert "Here the videos of each set are those of the columns split or split_0" in done
    assert "name a method (--method), to fit a detector to the normal videos alone" in done


def test_a_folder_without_normal_videos_is_refused_before_features_are_computed(classes, tmp_path):
    for name in ("fight", "normal"):
        (tmp_path / "only" / name).mkdir(parents=True)
    shutil.copy(next((classes / "odd").iterdir()), tmp_path / "only" / "fight")
    done = said(run(tmp_path / "only", "-o", tmp_path / "out", *PLAIN, code=2))
    assert "are anomalous by their labels, and a detector needs normal ones" in done
    assert not (tmp_path / "out" / FEATURES).exists()
