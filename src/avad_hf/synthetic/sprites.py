"""Pastes cutouts into pictures, and knows where they are then."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from .faces import Cutout


@dataclass(frozen=True)
class Truth:
    """One face or plate in one frame.

    Args:
        track: Number of the face or plate; the same in every frame.
        kind: face or plate.
        box: x1, y1, x2, y2 in pixels, cut at the edges of the picture; blur does not widen it.
        size: Height of a face or width of a plate in pixels, before it is turned.
        angle: Turn in the plane, in degrees, counter-clockwise.
        light: 1 in full light; 0 would be black.
        focus_px: Deviation of the blur of what is out of focus, in pixels.
        motion_px: How far it moves while the shutter is open, in pixels.
        visible: Share of it that is within the picture and behind nothing.
    """

    track: int
    kind: str
    box: tuple[float, float, float, float]
    size: float
    angle: float
    light: float
    focus_px: float = 0.0
    motion_px: float = 0.0
    visible: float = 1.0


@dataclass(frozen=True)
class Sprite:
    """A cutout as it is in one frame.

    Args:
        layers: RGBA of shape `(rows, columns, 4)`, premultiplied; alpha within 0 and 1, colours up to 255.
        rows: Rows of the picture that it takes.
        columns: Columns of the picture that it takes.
        truth: What is known of it; `visible` counts the edges of the picture alone.
    """

    layers: np.ndarray
    rows: slice
    columns: slice
    truth: Truth


def blurred(
    cutout: Cutout, matrix: np.ndarray, focus_px: float = 0.0, motion_px: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Scale, turn, shear and blur a cutout.

    Args:
        cutout: Its box's middle becomes the middle of the result.
        matrix: Takes offsets in pixels of the cutout to offsets in pixels of the picture; of shape `(2, 2)`.
        focus_px: Deviation of a Gaussian blur, in pixels of the picture.
        motion_px: Movement while the shutter is open, x and y.

    Returns:
        RGBA of shape `(2 * reach, 2 * reach, 4)`, float32, premultiplied, within 0 and 1.
    """
    height, width = cutout.pixels.shape[:2]
    small = [max(1, round(length * scale)) for length, scale in zip((width, height), np.hypot(*matrix), strict=True)]
    # RGBa is RGBA premultiplied: transparent pixels give no colour to their neighbours.
    picture = Image.fromarray(cutout.pixels).convert("RGBa").resize(tuple(small), Image.Resampling.LANCZOS)
    shrunk = np.divide(small, (width, height))
    turn = matrix / shrunk
    x1, y1, x2, y2 = cutout.box
    middle = np.array([x1 + x2, y1 + y2]) / 2 * shrunk
    corners = np.array([(x, y) for x in (0, small[0]) for y in (0, small[1])]) - middle
    reach = int(np.ceil(np.abs(corners @ turn.T).max() + 3 * focus_px + np.hypot(*motion_px) / 2 + 1))
    back = np.linalg.inv(turn)
    offset = middle - back @ (reach, reach)
    picture = picture.transform(
        (2 * reach, 2 * reach),
        Image.Transform.AFFINE,
        (*back[0], offset[0], *back[1], offset[1]),
        Image.Resampling.BILINEAR,
    )
    if focus_px > 0:
        picture = Image.merge("RGBa", [band.filter(ImageFilter.GaussianBlur(focus_px)) for band in picture.split()])
    layers = np.asarray(picture, dtype=np.float32) / 255
    steps = int(np.ceil(np.abs(motion_px).max())) + 1
    if steps > 2:  # less than a pixel is no blur
        shifts = np.outer(np.linspace(-0.5, 0.5, steps), motion_px).round().astype(int)
        layers = np.mean([np.roll(layers, (dy, dx), axis=(0, 1)) for dx, dy in shifts], axis=0, dtype=np.float32)
    return layers


def sprite(
    cutout: Cutout,
    truth: Truth,
    matrix: np.ndarray,
    at: tuple[float, float],
    size: tuple[int, int],
    motion_px: tuple[float, float] = (0.0, 0.0),
) -> Sprite | None:
    """Place a cutout in a picture.

    Args:
        cutout: What is placed.
        truth: What is known of it; `box`, `motion_px` and `visible` are filled in.
        matrix: See `blurred`.
        at: Where the middle of its box comes to lie, x and y; rounded to whole pixels.
        size: Width and height of the picture.
        motion_px: See `blurred`.

    Returns:
        The sprite; ``None`` if its box lies outside the picture.
    """
    x1, y1, x2, y2 = cutout.box
    middle = np.round(at)
    # A face fills an ellipse of its box, and a plate the whole of it.
    sides = np.abs(matrix) * ((x2 - x1) / 2, (y2 - y1) / 2)
    half = np.hypot(*sides.T) if truth.kind == "face" else sides.sum(axis=1)
    left, top, right, bottom = (float(v) for v in np.clip((*(middle - half), *(middle + half)), 0, size * 2))
    if left >= right or top >= bottom:
        return None
    layers = blurred(cutout, matrix, truth.focus_px, motion_px)
    whole, reach = float(layers[..., 3].sum()), len(layers) // 2
    columns, rows = (
        slice(max(0, -first), min(2 * reach, limit - first))
        for first, limit in zip((middle - reach).astype(int), size, strict=True)
    )
    layers = layers[rows, columns] * np.array([255 * truth.light] * 3 + [1], dtype=np.float32)
    rows, columns = (
        slice(part.start + first, part.stop + first)
        for part, first in zip((rows, columns), (middle[::-1] - reach).astype(int), strict=True)
    )
    seen = min(1.0, float(layers[..., 3].sum()) / whole) if whole else 0.0
    known = replace(truth, box=(left, top, right, bottom), motion_px=float(np.hypot(*motion_px)), visible=seen)
    return Sprite(layers, rows, columns, known)


def paste(
    canvas: np.ndarray, sprites: Sequence[Sprite], screens: Sequence[tuple[slice, slice, float]] = ()
) -> list[Truth]:
    """Paste sprites into a picture, each over those before it, and screens over all.

    Args:
        canvas: RGB of shape `(H, W, 3)`, float32, 0 to 255; changed.
        sprites: From the back to the front.
        screens: Rows, columns and grey of what stands before everything.

    Returns:
        What is known of each sprite, in their order.
    """
    for one in sprites:
        area = canvas[one.rows, one.columns]
        area *= 1 - one.layers[..., 3:]
        area += one.layers[..., :3]
    # From the front to the back: what is free is left to those behind.
    free = np.ones((*canvas.shape[:2], 1), dtype=np.float32)
    for rows, columns, grey in screens:
        canvas[rows, columns], free[rows, columns] = grey, 0
    truths = []
    for one in reversed(sprites):
        alpha, area = one.layers[..., 3:], free[one.rows, one.columns]
        whole = float(alpha.sum())
        seen = min(1.0, float((alpha * area).sum()) / whole) if whole else 0.0
        truths.append(replace(one.truth, visible=one.truth.visible * seen))
        area *= 1 - alpha
    return truths[::-1]
