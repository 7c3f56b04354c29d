"""Where clips are encoded: how many at once, and how they get there."""

from functools import cache

import torch
from torch import Tensor

from avad_hf.media.decode import MediaInfo
from avad_hf.media.scaling import asked_size

# A GPU is full with this many clips of 32 frames; more only take memory.
MOST_CLIPS = 16
# Peak of SlowFast's memory in float32, for each pixel of each frame, in bytes: 620 MB for a clip of 32 x 256 x 455
# (tests/benchmarks/bench_encoders.py). A half of what is free is left to others.
BYTES_PER_PIXEL = 170


def clips_at_once(device: torch.device, clip_length: int, info: MediaInfo, size: int | tuple[int, int]) -> int:
    """Clips of a video that go through the video encoder together: one on a CPU, what fits into memory on a GPU.

    Args:
        device: Device of the encoder.
        clip_length: Frames of a clip.
        info: What the video says of itself.
        size: Short side of the scaled frames, in pixels, or their height and width.
    """
    if device.type != "cuda":
        return 1
    width, height = asked_size(info.width, info.height, size)
    # What torch keeps for itself without using it is free too.
    free = torch.cuda.mem_get_info(device)[0]
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, min(MOST_CLIPS, free // 2 // (clip_length * width * height * BYTES_PER_PIXEL)))


def to_device(pixels: Tensor, device: torch.device) -> Tensor:
    """Copy a batch to a GPU from the thread that decodes, while the encoders compute; elsewhere leave it."""
    if device.type != "cuda":
        return pixels.to(device)
    # On another stream, from pinned memory: the copy waits for nothing, and nothing but this thread waits for it.
    stream = _copy_stream(device)
    with torch.cuda.stream(stream):
        copied = pixels.pin_memory().to(device, non_blocking=True)
    stream.synchronize()
    return copied


@cache
def _copy_stream(device: torch.device) -> "torch.cuda.Stream":
    """One for each GPU: torch keeps memory for every stream that it has seen."""
    return torch.cuda.Stream(device)


__all__ = ["clips_at_once", "to_device"]
