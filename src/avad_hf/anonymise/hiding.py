"""Makes parts of a picture unrecognisable: Gaussian blur, mosaic or one colour, with soft edges."""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from .extra import needs_extra

Method = Literal["blur", "mosaic", "solid"]
METHODS: tuple[str, ...] = get_args(Method)
# Deviation of the blur as a share of the part's shorter side. With half as much, the detector still found 9 of 714
# blurred faces (seeds 0 to 9 of tests/benchmarks/bench_anonymise.py), and with this none.
SIGMA_SHARE = 0.5
# Tiles of a mosaic along the part's shorter side.
TILES = 4
# How far the edge goes over into the picture, outside of the part, as a share of its shorter side.
SOFT_SHARE = 0.1
# The blur is computed where its deviation is about this many pixels: a larger one costs more, and looks the same.
BLUR_PIXELS = 4.0


def hide(
    picture: np.ndarray, boxes: np.ndarray, method: Method = "blur", mask: np.ndarray | None = None
) -> np.ndarray:
    """A picture whose parts are hidden.

    Args:
        picture: RGB of shape `(H, W, 3)`, uint8; it stays as it is.
        boxes: Left, top, right and bottom of each part in pixels, of shape `(N, 4)`.
        method: ``"blur"`` (Gaussian), ``"mosaic"`` or ``"solid"``.
        mask: True where the picture is hidden too, of shape `(H, W)`.

    Raises:
        ValueError: For an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    height, width = picture.shape[:2]
    hidden = picture.copy()
    for left, top, right, bottom in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
        soft = SOFT_SHARE * min(right - left, bottom - top)
        x0, y0 = max(0, int(left - soft)), max(0, int(top - soft))
        x1, y1 = min(width, int(np.ceil(right + soft))), min(height, int(np.ceil(bottom + soft)))
        if x1 <= x0 or y1 <= y0:
            continue
        # What one box hid is hidden again by the next, never brought back.
        part = hidden[y0:y1, x0:x1]
        opaque = _edge(x0, x1, left, right, soft)[None, :] * _edge(y0, y1, top, bottom, soft)[:, None]
        part[:] = _blended(part, _unrecognisable(part, method), opaque)
    if mask is not None and mask.any():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        part = hidden[box]
        part[:] = np.where(mask[box][..., None], _unrecognisable(part, method), part)
    return hidden


def _edge(begin: int, end: int, low: float, high: float, soft: float) -> np.ndarray:
    """How opaque the pixels from `begin` to `end` are: 1 from `low` to `high`, and falling to 0 in the soft edge."""
    centers = np.arange(begin, end) + 0.5
    outside = np.maximum(low - centers, centers - high).clip(min=0)
    return (1 - outside / max(soft, 1e-6)).clip(0, 1).astype(np.float32)


def _blended(part: np.ndarray, over: np.ndarray, opaque: np.ndarray) -> np.ndarray:
    return np.rint(part + (over.astype(np.float32) - part) * opaque[..., None]).astype(np.uint8)


def _unrecognisable(part: np.ndarray, method: Method) -> np.ndarray:
    with needs_extra():
        import cv2
    height, width = part.shape[:2]
    shorter = min(height, width)
    if method == "solid":
        return np.broadcast_to(np.rint(part.mean(axis=(0, 1))).astype(np.uint8), part.shape)
    if method == "mosaic":
        tile = max(1.0, shorter / TILES)
        tiles = max(1, round(width / tile)), max(1, round(height / tile))
        return cv2.resize(
            cv2.resize(part, tiles, interpolation=cv2.INTER_AREA), (width, height), interpolation=cv2.INTER_NEAREST
        )
    sigma = SIGMA_SHARE * shorter
    less = max(1.0, sigma / BLUR_PIXELS)
    size = max(1, round(width / less)), max(1, round(height / less))
    small = cv2.GaussianBlur(
        cv2.resize(part, size, interpolation=cv2.INTER_AREA),
        (0, 0),
        max(sigma / less, 0.5),
        borderType=cv2.BORDER_REPLICATE,
    )
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def polygons_mask(polygons: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Which pixels lie in polygons.

    Args:
        polygons: Corners of each, of shape `(corners, 2)`, as shares of the picture's width and height.
        size: Width and height of the picture.

    Returns:
        Array of shape `(H, W)`, bool.
    """
    from PIL import Image, ImageDraw

    mask = Image.new("1", size)
    for polygon in polygons:
        ImageDraw.Draw(mask).polygon([tuple(corner) for corner in polygon * np.array(size)], fill=1, outline=1)
    return np.asarray(mask)


__all__ = ["METHODS", "Method", "hide", "polygons_mask"]
