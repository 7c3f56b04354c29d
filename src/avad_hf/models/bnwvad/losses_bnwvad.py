"""BN-WVAD's losses, as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from avad_hf.models.weak_labels import highest, mean_of


def normal_loss(scores: Tensor, clip_mask: Tensor, normal: Tensor) -> Tensor:
    """Mean over normal videos of the L2 norm of a video's scores over time; 0 without any.

    Args:
        scores (`torch.Tensor` of shape `(B, T)`): Scores of the classifier, within 0 and 1.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        normal (`torch.Tensor` of shape `(B,)`): Which videos are normal.
    """
    return mean_of(torch.linalg.vector_norm(scores * clip_mask, dim=1), normal)


def anomalous_clips(
    distances: Tensor, clip_mask: Tensor, anomalous: Tensor, sample_ratio: float, batch_ratio: float
) -> Tensor:
    """Which clips of anomalous videos are taken for anomalous: those farthest from the mean.

    They are a share of each video's clips, one at least, and a share of the clips of all of them together: a video
    with much that is anomalous has more of them.

    Args:
        distances (`torch.Tensor` of shape `(B, T)`): Distances of the clips from the mean.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        anomalous (`torch.Tensor` of shape `(B,)`): Which videos are anomalous.
        sample_ratio: Share of each video.
        batch_ratio: Share of all.
    """
    real = clip_mask & anomalous.unsqueeze(1)
    of_samples = highest(distances, real, (sample_ratio * real.sum(dim=1, keepdim=True)).ceil().clamp_min(1))
    of_batch = highest(distances.view(1, -1), real.view(1, -1), (batch_ratio * real.sum()).floor())
    return of_samples | of_batch.view_as(of_samples)


def triplet_loss(distances: Tensor, chosen: Tensor, clip_mask: Tensor, normal: Tensor, margin: float) -> Tensor:
    """Push anomalous clips away from the mean, and pull normal ones to it, by a margin; 0 where a class is missing.

    The triplets are the mean, a normal clip and an anomalous one. As many normal clips as anomalous ones are taken, in
    equal shares of all normal videos, those farthest from the mean. The farthest of them is paired with the farthest
    anomalous one, and so on, so that the order of the videos does not matter.

    Args:
        distances (`torch.Tensor` of shape `(B, T)`): Distances of the clips from the mean.
        chosen (`torch.Tensor` of shape `(B, T)`): Which clips are taken for anomalous.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        normal (`torch.Tensor` of shape `(B,)`): Which videos are normal.
        margin: By how much an anomalous clip should be farther away.
    """
    num_anomalous = chosen.sum()
    share = -(-num_anomalous // normal.sum().clamp_min(1))
    compared = highest(distances, clip_mask & normal.unsqueeze(1), share)
    far, near = (
        distances.masked_fill(~members, -torch.inf).flatten().sort(descending=True).values
        for members in (chosen, compared)
    )
    rank = torch.arange(len(far), device=far.device)
    # Where short videos have fewer normal clips than there are anomalous ones, they come again.
    near = near[rank % compared.sum().clamp_min(1)]
    is_pair = (rank < num_anomalous) & compared.any()
    return mean_of(F.relu(margin + (near - far).masked_fill(~is_pair, 0.0)), is_pair)


__all__ = ["anomalous_clips", "normal_loss", "triplet_loss"]
