"""Training on stored features of the published shape: seconds, where they go, and the peak of memory.

python tests/benchmarks/bench_training.py [number of videos] [epochs] [no|bf16]

Writes random features of 2304 x 2 x 9 and 32 x 128, four clips a video, to a temporary folder (about 90 MB a hundred
videos), divides them 60/20/20 as the paper does, and trains with the profile `paper`.
"""

import cProfile
import pstats
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.feature_stores import plant

from avad_hf import FeatureDataset, TrainingConfig, train


def main(num_videos: str = "764", epochs: str = "100", precision: str = "no") -> None:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.monotonic()
        store = plant(
            Path(folder) / "store", int(num_videos), shape=(2304, 2, 9), steps=32, audio_size=128, clips=(4, 4)
        )
        size = sum(path.stat().st_size for path in store.rglob("*.safetensors"))
        print(f"{num_videos} videos, {size / 1e6:.0f} MB, written in {time.monotonic() - begin:.0f} s")
        data = FeatureDataset(store, "train")
        begin = time.monotonic()
        for index in range(len(data)):
            data[index]
        print(f"one pass over the {len(data)} training videos' files: {time.monotonic() - begin:.2f} s")
        config = TrainingConfig.from_profile(
            "paper", data=str(store), output_dir=f"{folder}/run", epochs=int(epochs), mixed_precision=precision
        )
        profile = cProfile.Profile()
        begin = time.monotonic()
        profile.enable()
        result = train(config, progress=False)
        profile.disable()
        seconds = time.monotonic() - begin
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{result.epochs} epochs, {precision} mixed precision: {seconds:.0f} s, {seconds / result.epochs:.2f} s "
            f"an epoch; peak of memory {memory:.2f} GiB"
        )
        stats = pstats.Stats(profile)
        times = {}
        for (file, _, function), (*_, cumulative, _) in stats.stats.items():
            name = f"{Path(file).name}:{function}"
            times[name] = max(times.get(name, 0.0), cumulative)
        for part, name in (
            ("forward", "modeling_avaca.py:forward"),
            ("backward", "accelerator.py:backward"),
            ("optimiser", "optimizer.py:step"),
            ("reading features", "features.py:__getitem__"),
            ("validation", "loop.py:_validate"),
            ("writing states", "run.py:save_state"),
        ):
            print(f"  {part}: {times.get(name, 0.0):.1f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
