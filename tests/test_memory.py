"""Memory does not grow with the length of a video."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest

from avad_hf.untrained import init_avrl

from .media_files import remux

# With AVAD_HF_LONG=1 a minute against ten, which take ten minutes to decode.
SHORT_S, LONG_S = (60, 600) if os.environ.get("AVAD_HF_LONG") == "1" else (12, 48)

CODE = r"""
import re, resource, sys
from pathlib import Path
from avad_hf.cli import app
app(sys.argv[1:], standalone_mode=False)
# Not ru_maxrss where it can be helped: on Linux it begins with the size of the process that started this one.
status = Path("/proc/self/status")
linux = status.exists() and re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
print(linux[1] if linux else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(model: str, video: str, *options: str) -> tuple[int, int]:
    """Clips and peak memory (KiB) of `avad-hf detect` in a process of its own."""
    arguments = ["detect", video, "--model", model, "--json", f"{video}.json", *options]
    done = subprocess.run([sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True)
    (result,) = json.loads(Path(f"{video}.json").read_text()).values()
    return len(result["clips"]), int(done.stdout.split()[-1])


def test_ten_minutes_take_no_more_than_one(tmp_path, tiny, bunny):
    """720p with sound, a real clip looped, by packets: 12 and 114 turns of 5.3 s."""
    minute = remux(bunny, tmp_path / "1.mp4", times=12)
    ten = remux(bunny, tmp_path / "10.mp4", times=114)
    clips_one, memory_one = peak(tiny, minute, "--plot", str(tmp_path / "1.png"))
    clips_ten, memory_ten = peak(tiny, ten, "--plot", str(tmp_path / "10.png"))
    assert clips_one == pytest.approx(12 * 132 / 32, abs=1) and clips_ten == pytest.approx(114 * 132 / 32, abs=1)
    print(f"peak memory: {memory_one / 1024:.0f} MiB for one minute, {memory_ten / 1024:.0f} MiB for ten")
    assert memory_ten < 1.10 * memory_one


def test_ten_minutes_of_windows_take_no_more_than_one(tmp_path, bunny):
    """The same with AVRL, which keeps 50 frames of a window."""
    init_avrl(tmp_path / "avrl", size="tiny")
    minute = remux(bunny, tmp_path / "1.mp4", times=12)
    ten = remux(bunny, tmp_path / "10.mp4", times=114)
    windows_one, memory_one = peak(str(tmp_path / "avrl"), minute)
    windows_ten, memory_ten = peak(str(tmp_path / "avrl"), ten)
    assert (windows_one, windows_ten) == (4, 31)
    print(f"peak memory: {memory_one / 1024:.0f} MiB for one minute, {memory_ten / 1024:.0f} MiB for ten")
    assert memory_ten < 1.10 * memory_one


def full_hd_at_60(source: str, target: Path) -> str:
    """Four seconds of a real clip, there and back, scaled to 1920 x 1080 and played at 60 frames a second."""
    with av.open(source) as container:
        pictures = list(container.decode(video=0))[:120]
    with av.open(str(target), "w") as out:
        video = out.add_stream("libx264", rate=60, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        for index, picture in enumerate([*pictures, *pictures[::-1]]):
            frame = picture.reformat(1920, 1080, "yuv420p")
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, 60), 0
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return str(target)


def test_large_pictures_and_many_of_them_take_no_more_when_there_are_more(tmp_path, tiny, bunny):
    """1080p at 60 frames a second: 12 seconds against 48; with AVAD_HF_LONG=1 a minute against ten."""
    turn = full_hd_at_60(bunny, tmp_path / "turn.mp4")
    found = []
    for seconds in (SHORT_S, LONG_S):
        video = remux(turn, tmp_path / f"{seconds}.mp4", times=seconds // 4)
        clips, memory = peak(tiny, video)
        assert clips == pytest.approx(seconds * 60 / 32, abs=1)
        found.append(memory)
    short, long = found
    print(f"peak memory: {short / 1024:.0f} MiB for {SHORT_S} s of 1080p60, {long / 1024:.0f} MiB for {LONG_S} s")
    assert long < 1.10 * short
