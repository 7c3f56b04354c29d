"""Every example runs, and stays short."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) <= 80 for path in EXAMPLES.glob("*.py"))
