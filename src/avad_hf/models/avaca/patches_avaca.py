"""Patches of frames: which grids may be asked for, and how frames are cut."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from avad_hf.media.scaling import asked_size
from avad_hf.models.settings import MOST_ITEMS

# Rows or columns of a grid. Each patch costs as much as the whole frame, and those of finer grids show nothing.
MOST_CUTS = 16


def patch_grids(patches: Any) -> tuple[tuple[int, int], ...]:
    """Grids as pairs of rows and columns; raises ``ValueError`` for what is none."""
    grids = () if patches is None else patches
    is_list = isinstance(grids, (list, tuple)) and len(grids) <= MOST_ITEMS
    if not is_list or not all(_is_grid(grid) for grid in grids):
        raise ValueError(
            f"patches must be grids of rows and columns, within 1 and {MOST_CUTS} each, such as ((2, 3), (3, 5)); got "
            f"{str(patches)[:80]}."
        )
    return tuple((rows, columns) for rows, columns in grids)


def _is_grid(grid: Any) -> bool:
    return (
        isinstance(grid, (list, tuple))
        and len(grid) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= MOST_CUTS for n in grid)
    )


def cut_patches(pixels: Tensor, grids: Sequence[tuple[int, int]], size: int | tuple[int, int]) -> Iterator[Tensor]:
    """Cut frames into patches that do not overlap, and scale each as whole frames are scaled.

    Args:
        pixels: Frames of shape `(F, 3, H, W)` from 0 to 255.
        grids: Rows and columns. Portrait frames are cut into columns and rows, and their patches turned over the
            diagonal, as feature maps are.
        size: Short side of a patch, in pixels, which keeps the proportion; or height and width.

    Yields:
        Patches of one place in all frames, of shape `(F, 3, h, w)` and the type of `pixels`: grid after grid, row
        after row.

    Raises:
        ValueError: For frames of fewer pixels than a grid has rows or columns.
    """
    height, width = pixels.shape[-2:]
    for rows, columns in grids:
        is_turned = height > width and rows < columns
        cuts = (columns, rows) if is_turned else (rows, columns)
        if height < cuts[0] or width < cuts[1]:
            raise ValueError(
                f"Frames of {width} x {height} pixels cannot be cut into {cuts[0]} rows and {cuts[1]} columns. Give "
                "the processor a larger size, or fewer patches."
            )
        tops = [height * number // cuts[0] for number in range(cuts[0] + 1)]
        lefts = [width * number // cuts[1] for number in range(cuts[1] + 1)]
        for row in range(rows):
            for column in range(columns):
                down, right = (column, row) if is_turned else (row, column)
                patch = pixels[..., tops[down] : tops[down + 1], lefts[right] : lefts[right + 1]]
                yield _scaled(patch, size)


def _scaled(patch: Tensor, size: int | tuple[int, int]) -> Tensor:
    width, height = asked_size(patch.shape[-1], patch.shape[-2], size)
    # Patches are enlarged: nothing need be filtered before.
    scaled = F.interpolate(patch.float(), size=(height, width), mode="bilinear", align_corners=False)
    return scaled if patch.is_floating_point() else scaled.round().to(torch.uint8)


__all__ = ["MOST_CUTS", "cut_patches", "patch_grids"]
