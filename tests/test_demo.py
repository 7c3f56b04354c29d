"""The demonstration model and what the demo makes with it."""

import csv
import importlib.util
import json
import shutil
import sys
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from transformers import pipeline
from typer.testing import CliRunner

import avad_hf
from avad_hf import AvacaForAnomalyDetection, AvacaProcessor
from avad_hf.cli import app
from avad_hf.demo import SCENES, TRAINING_WORLD, UNSEEN_WORLD
from avad_hf.detection.pipeline import DEMO_MODEL, NOT_JUDGED
from avad_hf.media.sources import open_media
from avad_hf.synthetic import world
from avad_hf.synthetic.world import plan_world, render_clip

from .short_clips import beginning
from .warm import short_videos

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_shipped_model_is_small_and_says_what_it_is():
    files = [path for path in DEMO_MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    model = AvacaForAnomalyDetection.from_pretrained(DEMO_MODEL)
    assert "trained on synthetic" in model.config.notice
    assert "equal error rate" in model.config.threshold_origin
    # Its own processor made what it was trained on.
    from avad_hf.features.store import recipe_sha256

    assert model.config.recipe_sha256 == recipe_sha256(AvacaProcessor.from_pretrained(DEMO_MODEL).recipe())
    assert "synthetic" in (DEMO_MODEL / "README.md").read_text()


@pytest.fixture(scope="module")
def real(bikes, tmp_path_factory) -> str:
    """The beginning of a real clip: two clips."""
    return beginning(bikes, tmp_path_factory.mktemp("real") / "bikes.mp4", 34)


def test_pipeline_uses_it_where_no_model_is_named_and_judges_no_real_video(real):
    result = pipeline("audio-visual-anomaly")(real)
    model = AvacaForAnomalyDetection.from_pretrained(DEMO_MODEL)
    assert result["warnings"][:2] == [model.config.notice, NOT_JUDGED]
    assert (result["label"], result["events"]) == (None, [])
    assert result["threshold"] == model.config.threshold
    assert 0 <= result["score"] == result["clips"][0]["score"] <= 1 and result["clips"][1]["partial"]
    named = pipeline("audio-visual-anomaly", model=str(DEMO_MODEL))
    assert named(real) == named([real, real], streams=2)[1] == result
    # Whatever the threshold, and whichever part of it.
    assert (everything := named(real, threshold=0.0))["events"] == [] and everything["label"] is None
    assert named({"video": real, "end": 1.0})["label"] is None


def test_it_judges_videos_that_this_library_has_drawn(drawn):
    detect = pipeline("audio-visual-anomaly")
    video = drawn(8, 11)[0]["video"]
    for source in (video, {"video": video, "start": 0.0, "end": 1.0}):
        result = detect(source, threshold=0.0)
        assert result["label"] == "anomaly" and len(result["events"]) == 1 and NOT_JUDGED not in result["warnings"]
    with open_media(video) as media:
        assert media.info.is_synthetic
        frames = np.stack([frame.pixels.permute(1, 2, 0).numpy() for frame in media.frames(None)][:32])
    # Arrays do not say where they come from.
    assert detect({"frames": frames, "fps": 25})["label"] is None


def test_copies_of_it_judge_no_real_video_and_other_detectors_do(real, tmp_path, tiny_pipe):
    shutil.copytree(DEMO_MODEL, tmp_path / "copy")
    assert pipeline("audio-visual-anomaly", model=str(tmp_path / "copy"))(real)["label"] is None
    assert tiny_pipe(real)["label"] is not None


def test_what_is_not_judged_is_not_shown_as_judged(real, tmp_path):
    options = ("--threshold", "0", "--json", "r.json", "--csv", "r.csv", "--plot", "r.svg", "--overlay", "r.mp4")
    paths = [str(tmp_path / part) if "." in part else part for part in options]
    done = CliRunner().invoke(app, ["detect", real, "--model", str(DEMO_MODEL), *paths])
    assert done.exit_code == 0, done.output
    assert f"{real}: not judged, score 0." in done.stdout and "2 clips, 1.36 s, no sound" in done.stdout
    first, second, *_ = done.stderr[done.stderr.index("  Note: ") :].splitlines()
    assert first.startswith("  Note: Demonstration model, trained on synthetic") and second == f"  Note: {NOT_JUDGED}"
    (result,) = json.loads((tmp_path / "r.json").read_text()).values()
    assert (result["label"], result["events"]) == (None, [])
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["anomalous"] for row in rows] == ["", ""] and all(float(row["score"]) for row in rows)
    picture = (tmp_path / "r.svg").read_text()
    assert "<!-- score of each clip -->" in picture and "<!-- threshold -->" not in picture
    with open_media(tmp_path / "r.mp4") as media:
        pixels = next(media.frames(None)).pixels.float()
        assert not media.info.is_synthetic
    assert pixels[0, :100, 0].mean() < pixels[1, :100, 0].mean() + 60  # no red frame, as around what is anomalous


def test_the_demo_writes_everything(tmp_path, monkeypatch):
    monkeypatch.setattr("avad_hf.synthetic.world.plan_world", plan_world)  # and is put back
    monkeypatch.setattr("avad_hf.corpora.synthetic.gallery", lambda plans, path: None)
    short_videos(2.2)
    monkeypatch.setattr("avad_hf.demo.NUM_NORMAL", 4)
    monkeypatch.setattr("avad_hf.models.normality.fitting_normality.FEWEST_CLIPS", 3)
    place = tmp_path / "demo"
    done = CliRunner().invoke(app, ["demo", "-o", str(place), "--num-videos", "4"])
    assert done.exit_code == 0, done.output
    figures = json.loads((place / "metrics.json").read_text())
    assert figures["num_videos"] == 8 and set(figures["scenes"]) == set(SCENES)
    assert f"with sound: {figures['video']['roc_auc']:.3f}" in done.output
    assert "with its sound set to zero: " in done.output
    assert "Demonstration model, trained on synthetic" in done.output

    timelines = sorted(path for path in place.glob("*.png"))
    assert len(timelines) == 4
    for path in timelines:
        assert np.asarray(Image.open(path)).std() > 5
    (overlay,) = place.glob("*-overlay.mp4")
    with av.open(str(overlay)) as container:
        assert container.streams.video[0].frames > 50 and container.streams.audio
    page = (place / "report.html").read_text()
    assert "Demonstration model, trained on synthetic" in page
    # What the pipeline says of a video is what the evaluation of its features says.
    scores = [json.loads(line) for line in (place / "scores.jsonl").read_text().splitlines()]
    by_id = {video["id"]: video["score"] for video in scores}
    results = json.loads((place / "results.json").read_text())
    (fitted,) = (results.pop(name) for name in list(results) if name.endswith(", by normal videos alone"))
    assert fitted["threshold"] == pytest.approx(2 / 3) and (place / "fitted" / "config.json").is_file()
    for event in fitted["events"]:
        assert {"sight", "sound", "nearest"} <= event["why"].keys()
        assert f"{event['start']:.2f} s to {event['end']:.2f} s, score {event['score']:.3f}: " in done.output
    assert len(list(place.glob("*-why.mp4"))) == 1
    assert len(results) == 3 and None not in {result["label"] for result in results.values()}
    for path, result in results.items():
        assert result["score"] == pytest.approx(by_id[Path(path).stem], abs=2e-3)


def test_worlds_are_kept_apart():
    """What the model was trained on is in no table, test or demo."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import synthetic_moments
        import train_demo_model
    finally:
        sys.path.remove(str(EXAMPLES))
    trained = {synthetic_moments.WORLD, train_demo_model.WORLD}
    assert len(trained | {UNSEEN_WORLD, TRAINING_WORLD, *range(8)}) == 2 + 2 + 8


def test_the_training_script_runs(tmp_path, monkeypatch):
    """On twelve videos and one epoch: the whole way, not the quality."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("train_demo_model", EXAMPLES / "train_demo_model.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    monkeypatch.setattr("avad_hf.synthetic.world.plan_world", plan_world)  # and is put back
    short_videos(2.0)
    plans = world.plan_world("crossing", 20, seed=0)
    plans = [[plan for plan in plans if (plan.label == "normal") == is_normal][:2] for is_normal in (True, False)]
    plans = [*plans[0], *plans[1]]

    def small_world(path, scene, data_dir, num_videos, world_seed):
        (data_dir / "videos").mkdir(parents=True, exist_ok=True)
        for plan in plans:
            if not (path := data_dir / "videos" / f"{plan.stem}.mp4").exists():
                render_clip(plan, path)
        masks = [[int((p.event_start_s or 99) <= i / p.fps) for i in range(p.num_frames)] for p in plans]
        rows = [
            {"id": f"{scene}/{plan.stem}", "video": str(data_dir / "videos" / f"{plan.stem}.mp4"), "fps": plan.fps}
            | {"label": int(plan.label != "normal"), "anomaly": int(plan.label != "normal"), "scene": scene}
            | {"frame_mask": mask, "split": None}
            for plan, mask in zip(plans, masks, strict=True)
        ]
        normal, anomalous = ([row for row in rows if row["anomaly"] == kind] for kind in (0, 1))
        parts = {"train": normal[:1] + anomalous[:1], "validation": normal[1:] + anomalous[1:]}
        return {name: [row | {"split": name} for row in part] for name, part in parts.items()}

    monkeypatch.setattr(avad_hf, "load_dataset", small_world)
    encoders = sys.modules["synthetic_encoders"]
    fit = encoders.fit

    def fit_a_little(model, name, known, held_out, *others):
        fit(model, name, tuple(part[:4] for part in known), held_out, 2, 1, 1e-3)

    monkeypatch.setattr(encoders, "fit", fit_a_little)
    monkeypatch.setattr(script, "TrainingConfig", partial(avad_hf.TrainingConfig, epochs=1))
    script.main(tmp_path / "work", tmp_path / "model")
    made = AvacaForAnomalyDetection.from_pretrained(tmp_path / "model")
    shipped = AvacaForAnomalyDetection.from_pretrained(DEMO_MODEL)
    assert {name: value.shape for name, value in made.state_dict().items()} == {
        name: value.shape for name, value in shipped.state_dict().items()
    }
    assert made.config.notice == shipped.config.notice
    assert made.config.threshold_origin.endswith("each judged by its highest clip")
