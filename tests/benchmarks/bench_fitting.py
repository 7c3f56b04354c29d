"""Time and memory of fitting a detector to a day of normal features, and of a score beside that of an encoder.

    python tests/benchmarks/bench_fitting.py [--visual 1024] [--audio 1024] [--grid 2 4] [--hours 24] [METHOD ...]

The features are random numbers around a few moving means, 1.28 s a clip: 67,500 clips a day. Each method is fitted in
a process of its own; its peak memory is that of the whole process, torch included.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLIP_S, CLIPS_A_VIDEO = 1.28, 540


def write_day(directory: Path, num_clips: int, visual: int, audio: int, grid: tuple[int, int]) -> None:
    """Write a store of so many clips, in videos of about 11 minutes."""
    import torch
    from safetensors.torch import save

    from avad_hf.features.store import FACTS, INDEX, RECIPE, feature_file, json_line, write_file

    rng = torch.Generator().manual_seed(0)
    means = torch.rand(8, visual, 1, 1, generator=rng)
    lines = []
    for number, first in enumerate(range(0, num_clips, CLIPS_A_VIDEO)):
        count = min(CLIPS_A_VIDEO, num_clips - first)
        maps = means[torch.arange(count) // 60 % 8] + 0.3 * torch.randn(count, visual, *grid, generator=rng)
        row = {"id": f"day/{number:04d}", "label": None, "anomaly": None, "scene": None, "split": None}
        row |= {"num_clips": count, "has_audio": True, "duration": count * CLIP_S, "fps": 25, "warnings": []}
        row["file"] = feature_file(row["id"])
        starts = torch.arange(count, dtype=torch.float64) * CLIP_S
        tensors = {
            "visual_features": maps.half(),
            "audio_features": torch.randn(count, 1, audio, generator=rng),
            "clip_times": torch.stack([starts, starts + CLIP_S], 1),
        }
        write_file(directory / row["file"], save(tensors, {FACTS: json_line({"id": row["id"]})}))
        lines.append(json_line(row) + "\n")
    write_file(directory / RECIPE, json_line({"processor": {}, "visual_dtype": "float16"}).encode())
    write_file(directory / INDEX, "".join(lines).encode())


def fit_one(store: str, method: str, output: str) -> None:
    """Fit, and print what it took."""
    import torch
    from transformers import AutoModelForVideoClassification

    from avad_hf import fit

    begun = time.monotonic()
    result = fit(store, output, method)
    took = time.monotonic() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{method}: {result.num_clips} clips in {took:.0f} s, peak {peak:.0f} MiB, keeps {result.num_kept}", flush=True
    )
    model = AutoModelForVideoClassification.from_pretrained(output).eval()
    config = model.config
    clip = {
        "visual_features": torch.rand(1, 1, config.visual_size, *config.feature_grid),
        "audio_features": torch.rand(1, 1, 32, config.audio_size),
    }
    times = []
    with torch.no_grad():
        for _ in range(30):
            begun = time.perf_counter()
            model(**clip)
            times.append(time.perf_counter() - begun)
    print(f"{method}: a clip's score takes {1000 * sorted(times)[len(times) // 2]:.2f} ms (median of 30)", flush=True)


def main() -> None:
    """Write the day, and fit each method in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["knn", "gaussian", "mulde"])
    parser.add_argument("--visual", type=int, default=1024)
    parser.add_argument("--audio", type=int, default=1024)
    parser.add_argument("--grid", type=int, nargs=2, default=(2, 4))
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--store", help="fit this store, in this process (for the processes that are measured)")
    parser.add_argument("--output")
    settings = parser.parse_args()
    if settings.store:
        fit_one(settings.store, settings.methods[0], settings.output)
        return
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        write_day(store, round(settings.hours * 3600 / CLIP_S), settings.visual, settings.audio, tuple(settings.grid))
        for method in settings.methods:
            command = [sys.executable, __file__, method, "--store", str(store), "--output", f"{folder}/{method}"]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
