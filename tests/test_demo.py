"""The demonstration model and what the demo makes with it."""

import importlib.util
import json
import sys
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
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.synthetic import world
from avad_hf.synthetic.world import plan_world, render_clip

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


def test_pipeline_and_detect_use_it_where_no_model_is_named(bikes):
    result = pipeline("audio-visual-anomaly")(bikes)
    model = AvacaForAnomalyDetection.from_pretrained(DEMO_MODEL)
    assert model.config.notice in result["warnings"]
    assert result["threshold"] == model.config.threshold
    named = pipeline("audio-visual-anomaly", model=str(DEMO_MODEL))(bikes)
    assert named == result
    done = CliRunner().invoke(app, ["detect", bikes])
    assert done.exit_code == 0
    assert "Demonstration model, trained on synthetic" in done.output
    assert f"score {result['score']:.3f}" in done.output


def test_the_demo_writes_everything(tmp_path, monkeypatch):
    monkeypatch.setattr("avad_hf.synthetic.world.plan_world", plan_world)  # and is put back
    short_videos(3.8)
    place = tmp_path / "demo"
    done = CliRunner().invoke(app, ["demo", "-o", str(place), "--num-videos", "4"])
    assert done.exit_code == 0, done.output
    figures = json.loads((place / "metrics.json").read_text())
    assert figures["num_videos"] == 8 and set(figures["scenes"]) == set(SCENES)
    assert f"with sound: {figures['video']['roc_auc']:.3f}" in done.output
    assert "with its sound set to zero: " in done.output
    assert "Demonstration model, trained on synthetic" in done.output

    timelines = sorted(path for path in place.glob("*.png"))
    assert len(timelines) == 3
    for path in timelines:
        assert np.asarray(Image.open(path)).std() > 5
    (overlay,) = place.glob("*-overlay.mp4")
    with av.open(str(overlay)) as container:
        assert container.streams.video[0].frames > 90 and container.streams.audio
    page = (place / "report.html").read_text()
    assert "Demonstration model, trained on synthetic" in page
    # What the pipeline says of a video is what the evaluation of its features says.
    scores = [json.loads(line) for line in (place / "scores.jsonl").read_text().splitlines()]
    by_id = {video["id"]: video["score"] for video in scores}
    results = json.loads((place / "results.json").read_text())
    assert len(results) == 3
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
    short_videos(3.0)
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
    monkeypatch.setattr(encoders, "fit", lambda *some: fit(*some[:4], 2, 1, 1e-3))
    script.main(tmp_path / "work", tmp_path / "model")
    made = AvacaForAnomalyDetection.from_pretrained(tmp_path / "model")
    shipped = AvacaForAnomalyDetection.from_pretrained(DEMO_MODEL)
    assert {name: value.shape for name, value in made.state_dict().items()} == {
        name: value.shape for name, value in shipped.state_dict().items()
    }
    assert made.config.notice == shipped.config.notice
    assert made.config.threshold_origin.endswith("each judged by its highest clip")
