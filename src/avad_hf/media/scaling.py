"""Decoded pictures, scaled and turned upright."""

import math

import av
import torch
import torch.nn.functional as F
from av.video.reformatter import VideoReformatter
from torch import Tensor

from .limits import check_limit


def scaled_size(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Width and height with the given short side; the long side is rounded down, as in pytorchvideo."""
    if width <= height:
        return short_side, math.floor(height / width * short_side)
    return math.floor(width / height * short_side), short_side


def asked_size(width: int, height: int, size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Width and height of scaled frames.

    Args:
        width: Width of the picture as shown, in pixels.
        height: Height of the picture as shown, in pixels.
        size: Short side, which keeps the proportion; or height and width, which may not; or ``None`` for no scaling.

    Raises:
        MediaError: If a picture that is enlarged gets too large.
    """
    if size is None:
        return width, height
    if isinstance(size, tuple):
        return size[1], size[0]
    scaled = scaled_size(width, height, size)
    if scaled[0] * scaled[1] > width * height:
        what = f"A picture of {width} x {height} pixels gets {scaled[0]} x {scaled[1]} with a short side of {size}"
        check_limit("MAX_SCALED_PIXELS", scaled[0] * scaled[1], what)
    return scaled


def quarter_turns(frame: av.VideoFrame) -> int:
    """Quarter turns, counter-clockwise, that the rotation tag asks for."""
    return round(frame.rotation / 90) % 4


def scaled_pixels(frame: av.VideoFrame, reformatter: VideoReformatter, size: tuple[int, int], resize: str) -> Tensor:
    """Scale a decoded frame to a width and height, and turn it upright; RGB of shape `(3, H, W)`."""
    width, height = size
    if resize == "area":
        # FFmpeg's AREA only averages; enlarging, be it one side, needs interpolation.
        method = "AREA" if width <= frame.width and height <= frame.height else "BILINEAR"
        scaled = reformatter.reformat(frame, width=width, height=height, format="rgb24", interpolation=method)
        pixels = torch.from_numpy(scaled.to_ndarray()).permute(2, 0, 1)
    else:
        full = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1).float()
        pixels = F.interpolate(full.unsqueeze(0), size=(height, width), mode="bilinear").squeeze(0)
    turns = quarter_turns(frame)
    return torch.rot90(pixels, turns, dims=(1, 2)) if turns else pixels


__all__ = ["asked_size", "quarter_turns", "scaled_pixels", "scaled_size"]
