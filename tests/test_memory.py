"""Memory does not grow with the length of a video."""

import subprocess
import sys

import pytest

from .media_files import remux

CODE = """
import resource, sys
import avad_hf, transformers
pipe = transformers.pipeline("audio-visual-anomaly", model=sys.argv[1], device="cpu")
result = pipe(sys.argv[2])
print(len(result["clips"]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(model: str, video: str) -> tuple[int, int]:
    """Clips and peak memory (KiB) of a process that scores the video."""
    done = subprocess.run([sys.executable, "-c", CODE, model, video], capture_output=True, text=True, check=True)
    clips, memory = done.stdout.split()[-2:]
    return int(clips), int(memory)


def test_ten_minutes_take_no_more_than_one(tmp_path, tiny, bunny):
    """720p with sound, a real clip looped, by packets: 12 and 114 turns of 5.3 s."""
    minute = remux(bunny, tmp_path / "1.mp4", times=12)
    ten = remux(bunny, tmp_path / "10.mp4", times=114)
    clips_one, memory_one = peak(tiny, minute)
    clips_ten, memory_ten = peak(tiny, ten)
    assert clips_one == pytest.approx(12 * 132 / 32, abs=1) and clips_ten == pytest.approx(114 * 132 / 32, abs=1)
    assert memory_ten < 1.10 * memory_one
