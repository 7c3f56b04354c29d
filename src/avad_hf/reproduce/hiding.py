"""Parts of a video's picture that are hidden: black frames, and black patches on every frame (AVRL, V-C)."""

import numpy as np
from torch import Tensor

# Cells of a black patch on either side of a frame.
GRID = 12


def temporal_patch(frames: Tensor, ratio: float, rng: np.random.Generator) -> Tensor:
    """Blacken a share of the frames, chosen at random (V-C).

    Args:
        frames: Frames of shape `(F, 3, H, W)`, uint8.
        ratio: Share, between 0 and 1.
        rng: Chooses them.
    """
    hidden = rng.permutation(len(frames))[: round(ratio * len(frames))]
    frames = frames.clone()
    frames[hidden] = 0
    return frames


def spatial_patch(frames: Tensor, ratio: float, rng: np.random.Generator) -> Tensor:
    """Blacken a share of each frame, in patches at random places that differ from frame to frame (V-C).

    Args:
        frames: Frames of shape `(F, 3, H, W)`, uint8.
        ratio: Share, between 0 and 1.
        rng: Chooses the patches among the cells of a grid of 12 x 12: the paper gives no size, and cells that do not
            overlap hide exactly what is asked for.
    """
    frames = frames.clone()
    rows, columns = (np.linspace(0, side, GRID + 1).round().astype(int) for side in frames.shape[2:])
    for frame in frames:
        for cell in rng.permutation(GRID * GRID)[: round(ratio * GRID * GRID)]:
            row, column = divmod(int(cell), GRID)
            frame[:, rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = 0
    return frames


PATCHES = {"temporal": temporal_patch, "spatial": spatial_patch}
# What pictures call them.
PATCH_TITLES = {"temporal": "black frames", "spatial": "black patches"}

__all__ = ["GRID", "PATCHES", "PATCH_TITLES", "spatial_patch", "temporal_patch"]
