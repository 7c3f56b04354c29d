"""Memory does not grow with the length of a video."""

import json
import math
import os
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import pytest

from avad_hf.untrained import init_avrl

from . import warm
from .media_files import remux

# With AVAD_HF_LONG=1 a minute against ten, which take a quarter of an hour to decode.
FULL = os.environ.get("AVAD_HF_LONG") == "1"
SHORT_S, LONG_S = (60, 600) if FULL else (2, 4)
# Turns of the clip of 5.28 s: by then everything that is needed has been allocated once, AVRL's second window too.
# Had the pictures of the other turns been kept, they would take more than half as much again.
TURNS = dict.fromkeys(("avaca", "avrl"), (12, 114)) if FULL else {"avaca": (1, 2), "avrl": (4, 6)}
TURN_S = 132 / 25

CODE = r"""
import re, resource
from pathlib import Path
from avad_hf.cli import app
app(ARGUMENTS, standalone_mode=False)
# Not ru_maxrss where it can be helped: on Linux it begins with the size of the process that started this one.
status = Path("/proc/self/status")
linux = status.exists() and re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
print(linux[1] if linux else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(model: str, video: str, *options: str) -> tuple[int, int]:
    """Clips and peak memory (KiB) of `avad-hf detect` in a process of its own."""
    arguments = ["detect", video, "--model", model, "--json", f"{video}.json", *options]
    done = warm.run(code=CODE.replace("ARGUMENTS", repr(arguments)))
    (result,) = json.loads(Path(f"{video}.json").read_text()).values()
    return len(result["clips"]), int(done.stdout.split()[-1])


@pytest.mark.parametrize("kind", list(TURNS))
def test_long_videos_take_no_more_than_short_ones(tmp_path, tiny, bunny, kind):
    """720p with sound, a real clip looped, by packets. AVRL keeps 50 frames of each window of 20 s."""
    model, clip_s = tiny, 32 / 25
    if kind == "avrl":
        model, clip_s = str(tmp_path / "avrl"), 20.0
        init_avrl(model, size="tiny")
    found = []
    for turns in TURNS[kind]:
        video = remux(bunny, tmp_path / f"{turns}.mp4", times=turns)
        clips, memory = peak(model, video, "--plot", str(tmp_path / f"{turns}.png"))
        assert clips == pytest.approx(math.ceil(turns * TURN_S / clip_s), abs=1)
        found.append(memory)
    compare(*found, *(turns * TURN_S for turns in TURNS[kind]))


def compare(short: int, long: int, short_s: float, long_s: float) -> None:
    print(f"peak memory: {short / 1024:.0f} MiB for {short_s:.0f} s, {long / 1024:.0f} MiB for {long_s:.0f} s")
    assert long < 1.10 * short


def full_hd_at_60(source: str, target: Path) -> str:
    """Two seconds of a real clip, there and back, scaled to 1920 x 1080 and played at 60 frames a second."""
    with av.open(source) as container:
        pictures = list(islice(container.decode(video=0), 60))
    with av.open(str(target), "w") as out:
        video = out.add_stream("libx264", rate=60, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 1920, 1080, "yuv420p"
        for index, picture in enumerate([*pictures, *pictures[::-1]]):
            frame = picture.reformat(1920, 1080, "yuv420p")
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, 60), 0
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return str(target)


def test_large_pictures_and_many_of_them_take_no_more_when_there_are_more(tmp_path, tiny, bunny):
    """1080p at 60 frames a second: 2 seconds against 4; with AVAD_HF_LONG=1 a minute against ten."""
    turn = full_hd_at_60(bunny, tmp_path / "turn.mp4")
    found = []
    for seconds in (SHORT_S, LONG_S):
        video = remux(turn, tmp_path / f"{seconds}.mp4", times=seconds // 2)
        clips, memory = peak(tiny, video)
        assert clips == pytest.approx(seconds * 60 / 32, abs=1)
        found.append(memory)
    compare(*found, SHORT_S, LONG_S)
