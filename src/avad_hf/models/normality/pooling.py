"""What a clip is compared by: a few numbers made of its feature map, and of its sound."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pooled_picture(maps: Tensor, parts: Sequence[str]) -> Tensor:
    """What clips' pictures are compared by.

    Args:
        maps (`torch.Tensor` of shape `(B, T, C, h, w)`): Feature maps of clips that follow each other.
        parts: Those of `NormalityConfig.visual_parts`.

    Returns:
        `torch.Tensor` of shape `(B, T, C * len(parts))`.
    """
    made = []
    for part in parts:
        if part == "mean":
            made.append(maps.mean((3, 4)))
        elif part == "spread":
            made.append((maps - maps.mean((3, 4), keepdim=True)).square().mean((3, 4)).sqrt())
        else:
            made.append(_change(maps))
    return torch.cat(made, dim=2)


def _change(maps: Tensor) -> Tensor:
    """Mean difference of each cell to the clip before; of the first clip to the one after, and 0 of a single one."""
    if maps.shape[1] == 1:
        return torch.zeros_like(maps[..., 0, 0])
    change = (maps[:, 1:] - maps[:, :-1]).abs().mean((3, 4))
    return torch.cat([change[:, :1], change], dim=1)


def pooled_sound(steps: Tensor) -> Tensor:
    """The mean over the steps of a clip: `(B, T, S, A)` -> `(B, T, A)`."""
    return steps.mean(2)


__all__ = ["pooled_picture", "pooled_sound"]
