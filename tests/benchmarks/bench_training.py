"""Training on stored features of the published shape: seconds, where they go, and the peak of memory.

python tests/benchmarks/bench_training.py [number of videos] [epochs] [no|bf16] [profile]
python tests/benchmarks/bench_training.py compile

Writes random features of 2304 x 2 x 9 and 32 x 128, four clips a video, to a temporary folder (about 90 MB a hundred
videos), divides them 60/20/20 as the paper does, and trains with a profile:
`paper` for AVACA, `rtfm` for RTFM. The second form takes steps of AVACA in turn with the same by `torch.compile`.
"""

import cProfile
import pstats
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.feature_stores import plant

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, FeatureDataset, TrainingConfig, train


def main(num_videos: str = "764", epochs: str = "100", precision: str = "no", profile: str = "paper") -> None:
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
            profile, data=str(store), output_dir=f"{folder}/run", epochs=int(epochs), mixed_precision=precision
        )
        profiler = cProfile.Profile()
        begin = time.monotonic()
        profiler.enable()
        result = train(config, progress=False)
        profiler.disable()
        seconds = time.monotonic() - begin
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{result.epochs} epochs, {precision} mixed precision: {seconds:.0f} s, {seconds / result.epochs:.2f} s "
            f"an epoch; peak of memory {memory:.2f} GiB"
        )
        stats = pstats.Stats(profiler)
        times = {}
        for (file, _, function), (*_, cumulative, _) in stats.stats.items():
            name = f"{Path(file).name}:{function}"
            times[name] = max(times.get(name, 0.0), cumulative)
        for part, name in (
            ("forward", max((name for name in times if name.endswith(":forward")), key=times.get)),
            ("backward", "accelerator.py:backward"),
            ("optimiser", "optimizer.py:step"),
            ("reading features", "features.py:__getitem__"),
            ("validation", "loop.py:_validate"),
            ("writing states", "run.py:save_state"),
        ):
            print(f"  {part}: {times.get(name, 0.0):.1f} s")


def compiled(steps: int = 6, rounds: int = 3) -> None:
    """Seconds of a step of 16 videos, eager and compiled, in turn."""
    torch.manual_seed(0)
    model = AvacaForAnomalyDetection(AvacaConfig()).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    batch = {
        "visual_features": torch.rand(16, 4, 2304, 2, 9),
        "audio_features": torch.rand(16, 4, 32, 128),
        "clip_mask": torch.ones(16, 4, dtype=torch.bool),
        "labels": torch.tensor([0.0, 1.0] * 8),
    }

    def seconds_a_step(network, count: int) -> float:
        begin = time.monotonic()
        for _ in range(count):
            optimizer.zero_grad()
            network(**batch).loss.backward()
            optimizer.step()
        return (time.monotonic() - begin) / count

    fast = torch.compile(model)
    print(f"first step, compiled: {seconds_a_step(fast, 1):.0f} s")
    seconds_a_step(model, 2)
    for _ in range(rounds):
        eager, quick = seconds_a_step(model, steps), seconds_a_step(fast, steps)
        print(f"a step: eager {eager:.3f} s, compiled {quick:.3f} s, ratio {quick / eager:.2f}")


if __name__ == "__main__":
    compiled() if sys.argv[1:] == ["compile"] else main(*sys.argv[1:])
