"""What losses from labels of whole videos share: the clips that a video is judged by, and pairs of videos.

No shape depends on labels or on the videos' lengths, so that a network compiles together with its loss.
"""

import torch
from torch import Tensor


def videos_of_classes(labels: Tensor, clip_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Which videos are normal, and which are anomalous, of shape `(B,)`; a video of padding alone is neither.

    Args:
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
    """
    has_clips = clip_mask.any(dim=1)
    return (labels == 0) & has_clips, (labels == 1) & has_clips


def highest(values: Tensor, mask: Tensor, counts: Tensor | int) -> Tensor:
    """Which values are among the highest of their row; all real ones of a row that has fewer.

    Args:
        values (`torch.Tensor` of shape `(B, T)`): What is compared. No gradient goes through the choice.
        mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        counts: How many of each row: a number, or a `torch.Tensor` of shape `(B, 1)`.
    """
    # Not by a stable sort, which torch cannot write as ONNX.
    ranked = values.detach().masked_fill(~mask, -torch.inf).argsort(dim=1, descending=True)
    return (ranked.argsort(dim=1) < counts) & mask


def mean_of(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values along the last dimension; 0 where none is chosen."""
    return values.masked_fill(~chosen, 0.0).sum(dim=-1) / chosen.sum(dim=-1).clamp_min(1)


def pairs(normal: Tensor, anomalous: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pair the first normal video of a batch with the first anomalous one, and so on.

    Where the classes differ in size, videos of the smaller one come again. Where one is missing, there is no pair.

    Args:
        normal (`torch.Tensor` of shape `(B,)`): Which videos are normal.
        anomalous (`torch.Tensor` of shape `(B,)`): Which videos are anomalous.

    Returns:
        Numbers of the normal videos, those of the anomalous ones, and whether each pair is one, of shape `(B,)` each.
    """
    rank = torch.arange(len(normal), device=normal.device)
    sides = [
        (~members).int().argsort(stable=True)[rank % members.sum().clamp_min(1)] for members in (normal, anomalous)
    ]
    num_normal, num_anomalous = normal.sum(), anomalous.sum()
    is_pair = (rank < torch.maximum(num_normal, num_anomalous)) & (num_normal > 0) & (num_anomalous > 0)
    return sides[0], sides[1], is_pair


__all__ = ["highest", "mean_of", "pairs", "videos_of_classes"]
