"""How long `avad-hf detect` takes to start: to its help, its imports, the loaded networks, the first score, its end.

python tests/benchmarks/bench_start.py [--video VIDEO] [--turns 7] [--against SRC]

With the demonstration model; a video of four seconds is drawn where none is given. Each turn starts three processes:
`--help`, `detect`, and `detect` with a clock around the pipeline. SRC is the folder `src` of another checkout, which
takes its turns between. Seconds are medians: on the clock from the start of the process, and of the processor, which
other work on the machine disturbs less. The package is copied and compiled first, as an installed one is; installed
packages are taken as they are.
"""

import argparse
import compileall
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from statistics import median

# The command with a clock around its pipeline. CLOCK_MONOTONIC is the same in all processes.
TIMED = """
import json, sys, time
begun = float(sys.argv.pop(1))
def mark(name):
    if name not in marks:
        marks[name] = time.monotonic() - begun, time.process_time()
marks = {}
from avad_hf.cli import app
detect = sys.modules["avad_hf.cli.detect"]
load = detect.load_pipeline
def timed_load(*arguments):
    mark("libraries imported")
    pipe = load(*arguments)
    mark("networks loaded")
    forward = pipe._forward
    def timed_forward(*arguments, **options):
        outputs = forward(*arguments, **options)
        mark("first score")
        return outputs
    pipe._forward = timed_forward
    return pipe
detect.load_pipeline = timed_load
try:
    app()
finally:
    print(json.dumps(marks))
"""
COMMAND = "from avad_hf.cli import app; app()"


def run(arguments: list[str], source: Path) -> tuple[float, float, str]:
    """Seconds of a process on the clock and of the processor, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(source), "HF_HUB_OFFLINE": "1"}
    begun = time.monotonic()
    arguments = [argument.replace("BEGUN", str(begun)) for argument in arguments]
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-c", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - begun, used, done.stdout


def turn(source: Path, video: str) -> dict[str, tuple[float, float]]:
    """Seconds of each step, on the clock and of the processor."""
    words = ["detect", video, "--model", str(source / "avad_hf" / "demo_model")]
    found = {"help, to its end": run([COMMAND, "--help"], source)[:2]}
    found |= json.loads(run([TIMED, "BEGUN", *words], source)[2].splitlines()[-1])
    return found | {"detect, to its end": run([COMMAND, *words], source)[:2]}


def draw(folder: Path) -> str:
    """A short drawn video."""
    from avad_hf.synthetic import world

    world.render_clip(world.plan_world("crossing", 1, 903)[0], path := folder / "drawn.mp4")
    return str(path)


def compiled(package: Path, folder: Path) -> Path:
    """A folder with a compiled copy of the package."""
    shutil.copytree(package, folder / "avad_hf", ignore=shutil.ignore_patterns("__pycache__"))
    compileall.compile_dir(folder, quiet=2)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--against", type=Path, help="src of another checkout")
    settings = parser.parse_args()
    packages = {"this": Path(find_spec("avad_hf").submodule_search_locations[0])}
    if settings.against is not None:
        packages["other"] = settings.against / "avad_hf"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {which: compiled(package, folder / which) for which, package in packages.items()}
        video = settings.video or draw(folder)
        for source in sources.values():  # files that nobody read for long come from the disk once
            turn(source, video)
        found = defaultdict(list)
        for _ in range(settings.turns):
            for which, source in sources.items():
                for step, seconds in turn(source, video).items():
                    found[step, which].append(seconds)
    print(f"{settings.turns} turns; medians of seconds on the clock (least) and of the processor (least)")
    for (step, which), rows in sorted(found.items(), key=lambda item: list(found).index((item[0][0], "this"))):
        clock, used = zip(*rows, strict=True)
        print(f"{step:20} {which:5} {median(clock):6.2f} ({min(clock):.2f}) {median(used):6.2f} ({min(used):.2f})")


if __name__ == "__main__":
    main()
