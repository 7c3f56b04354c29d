"""Every example runs, and stays short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from avad_hf import AvacaForAnomalyDetection, AvrlForVideoClassification, FeatureDataset, evaluate

from .feature_stores import plant

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_detect_video(tiny, bunny):
    script = EXAMPLES / "detect_video.py"
    done = subprocess.run([sys.executable, script, bunny, tiny], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and lines[0].startswith("   0.00 s to    1.28 s")
    assert "most attention to the sound between frames" in lines[-1]


def test_features_of_a_corpus(tiny, tmp_path):
    script = EXAMPLES / "features_of_a_corpus.py"
    done = subprocess.run(
        [sys.executable, script, tiny, tmp_path / "store", "6"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    lines = done.stdout.splitlines()
    assert "6 videos stored, 6 of them new, 0 failed" in lines
    assert lines[-1].startswith("loss of an untrained model on 4 synthetic videos")


def test_events_in_a_crowd(tmp_path):
    done = subprocess.run(
        [sys.executable, EXAMPLES / "events_in_a_crowd.py", tmp_path / "run", "36", "1"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    first, *recalls, last = done.stdout.splitlines()
    assert first.startswith("validation top-1 accuracy") and len(recalls) == 9
    detector = AvrlForVideoClassification.from_pretrained(tmp_path / "run" / "trained")
    assert last.split(": ")[1].split(",")[0] in detector.config.id2label.values()


def test_train_with_trainer(tmp_path):
    store = plant(tmp_path / "store", num_videos=40)
    script = EXAMPLES / "train_with_trainer.py"
    done = subprocess.run(
        [sys.executable, script, store, tmp_path / "trained", "8"], capture_output=True, text=True, check=True
    )
    last = done.stdout.splitlines()[-1]
    best = float(last.removeprefix("best validation AUC: ").split(",")[0])
    # What Trainer saved is what it said, and it has learnt something.
    model = AvacaForAnomalyDetection.from_pretrained(tmp_path / "trained")
    found = evaluate(model, FeatureDataset(store, "validation"), num_resamples=0)
    assert found.figures["video"]["roc_auc"] == pytest.approx(best, abs=5e-4)
    assert best > 0.7


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) <= 80 for path in EXAMPLES.glob("*.py"))
