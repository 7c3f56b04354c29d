"""Every example runs, and stays short."""

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


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) <= 80 for path in EXAMPLES.glob("*.py"))
