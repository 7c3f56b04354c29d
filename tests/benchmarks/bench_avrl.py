"""Memory and seconds of one training step of the published AVRL, with and without gradient checkpointing.

python tests/benchmarks/bench_avrl.py

One video of 50 frames of 240 x 240 pixels with 5 s of sound (498 log-mel frames), float32, random weights and random
video: forward, backward and a step of SGD with momentum, on the CPU. Each case runs in a process of its own, since the
peak of a process's memory never falls; what was held before the step is torch, the model and the video. One frozen
part is the 3D ResNet's stem, whose maps are by far the largest.
"""

import json
import resource
import subprocess
import sys
import time

FRAMES, SIZE, LOG_MEL_FRAMES = 50, 240, 498


def peak() -> float:
    """The most memory that this process has held so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def step(checkpointing: bool, frozen: int) -> dict[str, float]:
    """One step of training, the first one of the process."""
    import torch
    import transformers

    from avad_hf import AvrlConfig, AvrlForVideoClassification

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = AvrlForVideoClassification(AvrlConfig(frozen_video_stages=frozen)).train()
    if checkpointing:
        model.activation_checkpointing_enable()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=1e-2, momentum=0.9, weight_decay=1e-3
    )
    frames = torch.randn(1, FRAMES, 3, SIZE, SIZE)
    log_mel = torch.randn(1, LOG_MEL_FRAMES, 64)
    before, begin = peak(), time.perf_counter()
    loss = model(frames, log_mel, labels=torch.tensor([0])).loss
    forward = time.perf_counter()
    loss.backward()
    backward = time.perf_counter()
    optimizer.step()
    end = time.perf_counter()
    return {
        "threads": torch.get_num_threads(),
        "loss": loss.item(),
        "before": before,
        "after": peak(),
        "forward": forward - begin,
        "backward": backward - forward,
        "step": end - begin,
    }


def main() -> None:
    import torch

    print(f"torch {torch.__version__}, one video of {FRAMES} x {SIZE} x {SIZE}, {LOG_MEL_FRAMES} log-mel frames")
    print(
        "| checkpointing | frozen parts | GiB before | at the peak | of the step | forward | backward | step | loss |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, frozen in (("without", 0), ("with", 0), ("without", 1), ("with", 1)):
        run = subprocess.run(
            [sys.executable, __file__, name, str(frozen)], stdout=subprocess.PIPE, text=True, check=True
        )
        found = json.loads(run.stdout.splitlines()[-1])
        memory = [found["before"], found["after"], found["after"] - found["before"]]
        seconds = [found["forward"], found["backward"], found["step"]]
        cells = [name, f"{frozen}", *(f"{x:.2f}" for x in memory), *(f"{x:.1f} s" for x in seconds)]
        print(f"| {' | '.join(cells)} | {found['loss']:.4f} |", flush=True)
    print(f"{found['threads']} threads")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(step(sys.argv[1] == "with", int(sys.argv[2]))))
    else:
        main()
