"""Kills extract, train, detect and export at many moments (SIGKILL), and compares what they leave after a next run.

python tests/benchmarks/kills.py [--kills 100] [--seed 0] [--verbs extract train detect export]

Each round kills a command one to three times, runs it to its end, and compares its files byte for byte with those of
an undisturbed run; what such a run does not leave in the output folder, beside it or among temporary files is stray.
Half of the moments are spread over the time of a run, half over the operations on files that it does. `export real`
traces its network each time, which takes a few seconds; the other exports read what was traced before.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import warm
from tests.feature_stores import plant
from tests.killing import Found, Victim
from tests.media_files import frame_times, sound, write_media

from avad_hf.corpora.manifest import COLUMNS, write_manifest
from avad_hf.untrained import init_avaca, init_avrl

# What a run of export imports late, and the parent of all runs early.
warm.MODULES += " openvino nncf nncf.torch transformers.exporters setuptools pydantic avad_hf.export.engines"
# `export real` takes longer: it gets one kill for so many of the others'.
REAL_SHARE = 10
TRACED = """
import sys
sys.path.insert(0, {root!r})
from functools import partialmethod
from pathlib import Path
from transformers.exporters import OpenVINOExporter
from tests.fixtures import _again
OpenVINOExporter.export_program = partialmethod(_again, Path({engine!r}))
"""
HEADS = ("kills", "before", "while", "after", "rounds", "equal", "stray", "failed", "s")


def victims(root: Path, verbs: list[str]):
    """Each command with its share of the kills."""
    clips = [write_media(root / f"{index}.mp4", frame_times(25, 1.5), *heard(index)) for index in range(4)]
    model, store = root / "avaca", root / "store"
    init_avaca(model, size="tiny")
    if "extract" in verbs:
        rows = [dict.fromkeys(COLUMNS) | {"video": clip, "label": "normal", "scene": "s"} for clip in clips]
        write_manifest(rows, root / "manifest.csv")
        yield (
            "extract",
            1,
            Victim(
                root / "extract", ["extract", str(root / "manifest.csv"), "--model", str(model), "-o", "{work}/out"]
            ),
        )
    if "train" in verbs:
        plant(store, num_videos=20)
        settings = ["--set", "hidden_size=4", "--set", "intermediate_size=4", "--epochs", "6", "--batch-size", "4"]
        yield (
            "train",
            1,
            Victim(
                root / "train",
                ["train", str(store), "-o", "{work}/out", "--architecture", "avaca", *settings, "--resume"],
            ),
        )
    if "detect" in verbs:
        outputs = ["--json", "{work}/out.json", "--csv", "{work}/out.csv"]
        yield "detect", 1, Victim(root / "detect", ["detect", *clips[:2], "--model", str(model), *outputs])
    if "export" in verbs:
        model = root / "avrl"
        init_avrl(model, size="tiny", modality="visual")
        arguments = ["export", str(model), "{work}/out", "--calibrate", clips[0]]
        real = Victim(root / "real", arguments, may_refuse=True)
        yield "export real", 1 / REAL_SHARE, real
        engine = root / "engine"
        real.clear()
        real.finish()
        real.work.joinpath("out").rename(engine)
        code = TRACED.format(root=str(Path(__file__).parents[2]), engine=str(engine))
        yield "export", 1 - 1 / REAL_SHARE, Victim(root / "export", arguments, code, may_refuse=True)


def heard(seed: int) -> tuple:
    """Sound of a clip, as `write_media` takes it."""
    return sound(seed, 1.5, 16000), 16000


def attack(victim: Victim, kills: int, seed: int) -> tuple[Found, int]:
    """Kill a command so many times, in rounds; returns what was found and the number of rounds."""
    found, rounds, rng = Found(), 0, random.Random(seed)
    while found.kills < kills:
        moments = victim.moments(kills - found.kills, seed + rounds)
        while moments and found.kills < kills:
            number = rng.choice((1, 1, 2, 3))
            victim.round(moments[:number], found)
            moments = moments[number:]
            rounds += 1
    return found, rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", default=["extract", "train", "detect", "export"])
    options = parser.parse_args()
    print(f"{'':12}" + "".join(f"{head:>8}" for head in HEADS))
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        for name, share, victim in victims(Path(folder), options.verbs):
            begin = time.monotonic()
            found, rounds = attack(victim, max(1, round(options.kills * share)), options.seed)
            cells = [found.kills, *found.phases.values(), rounds, rounds - len(found.different)]
            cells += [len(found.stray), len(found.failed), round(time.monotonic() - begin)]
            print(f"{name:12}" + "".join(f"{cell:>8}" for cell in cells), flush=True)
            for what in ("different", "stray", "failed"):
                for item in getattr(found, what)[:5]:
                    print(f"    {what}: {item}")


if __name__ == "__main__":
    main()
