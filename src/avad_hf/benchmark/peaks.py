"""How fast the machine can multiply at all, and how much the video encoder has to."""

import copy
import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from avad_hf.models.encoder import Encoder

# Rows of the square matrices, and channels, frames and rows of what is convolved: large enough that nothing but
# arithmetic counts. A GPU needs more.
SIZES = {
    "cpu": {"matmul_side": 3072, "channels": 128, "frames": 8, "rows": 64},
    "cuda": {"matmul_side": 8192, "channels": 256, "frames": 32, "rows": 128},
}
TORCH_PRECISIONS = ("float32", "bfloat16")


@torch.no_grad()
def measured_peaks(device: str, precision: str, seconds: float = 1.5, size: dict[str, int] | None = None) -> dict:
    """Time a large product of matrices, and a large 3-D convolution with its channels last.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        precision: ``"float32"`` or ``"bfloat16"``.
        seconds: How long to go on with each of the two.
        size: As in `SIZES`.

    Returns:
        ``matmul_gflops`` and ``convolution_gflops``: 10^9 floating point operations a second, of the fastest run.
    """
    size, dtype = size or SIZES[device], getattr(torch, precision)
    side, channels, frames, rows = (size[name] for name in ("matmul_side", "channels", "frames", "rows"))
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    layout = torch.channels_last_3d
    convolution = torch.nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    convolution = convolution.to(device=device, dtype=dtype, memory_format=layout)
    maps = torch.randn(1, channels, frames, rows, rows).to(device=device, dtype=dtype, memory_format=layout)
    return {
        "matmul_gflops": 2 * side**3 / 1e9 / _fastest(lambda: left @ right, device, seconds),
        "convolution_gflops": 2 * 27 * channels**2 * frames * rows**2 / 1e9
        / _fastest(lambda: convolution(maps), device, seconds),
    }  # fmt: skip


def _fastest(act: Any, device: str, seconds: float) -> float:
    """Shortest of the runs that fit into some seconds, after one to warm up."""
    act()
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        begin = now(device)
        act()
        best = min(best, now(device) - begin)
    return best


def now(device: str) -> float:
    """Seconds on a clock, when all that a device was given is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.no_grad()
def encoder_gflop(encoder: Encoder, height: int, width: int) -> float:
    """Count what the video encoder computes for one clip, in 10^9 operations; nothing is computed.

    Args:
        encoder: Video encoder, in torch.
        height: Height of its frames, in pixels.
        width: Width of its frames, in pixels.
    """
    # On the device meta tensors have shapes and no values.
    shell = copy.deepcopy(encoder).to("meta", torch.float32)
    clip = torch.empty(1, encoder.spec.num_frames, 3, height, width, dtype=torch.uint8, device="meta")
    with FlopCounterMode(display=False) as counter:
        shell.encode(clip)
    return counter.get_total_flops() / 1e9


__all__ = ["TORCH_PRECISIONS", "encoder_gflop", "measured_peaks", "now"]
