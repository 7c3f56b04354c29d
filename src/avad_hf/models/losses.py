"""Losses of weakly supervised detection, as pure functions of clip logits (AVACA, section IV-E).

Both come from AR-Net (Wan et al., ICME 2020). The defaults follow the AVACA paper's equations; the arguments give
what AR-Net's published code computes instead.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def _valid(logits: Tensor, labels: Tensor, clip_mask: Tensor | None) -> Tensor:
    if logits.dim() != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"Losses need logits of shape (B, T) and one label a video, got {tuple(logits.shape)} and "
            f"{tuple(labels.shape)}."
        )
    if clip_mask is None:
        return torch.ones_like(logits, dtype=torch.bool)
    if clip_mask.shape != logits.shape:
        raise ValueError(f"clip_mask must be of shape {tuple(logits.shape)}, got {tuple(clip_mask.shape)}.")
    return clip_mask.bool()


def dmil_loss(
    logits: Tensor,
    labels: Tensor,
    clip_mask: Tensor | None = None,
    alpha: int = 4,
    rounding: Literal["floor", "ceil"] = "floor",
    reduction: Literal["video", "clip"] = "video",
) -> Tensor:
    """Dynamic multiple-instance learning loss: cross-entropy of each video's k highest clips with its label.

    Equation (1) of the AVACA paper, with the sign of binary cross-entropy: as printed, it has no lower bound for
    normal videos.

    Args:
        logits (`torch.Tensor` of shape `(B, T)`): Clip scores before the sigmoid.
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
        alpha: A video of t clips is judged by about ``t / alpha`` of them.
        rounding: ``"floor"`` gives ``k = max(1, floor(t / alpha))`` as in the paper, ``"ceil"`` AR-Net's choice.
        reduction: ``"video"`` averages within each video first, as printed; ``"clip"`` averages over all chosen clips
            of the batch, as AR-Net does, so that long videos weigh more.

    Returns:
        `torch.Tensor` of shape `()`.

    Raises:
        ValueError: For other shapes, or an `alpha` below 1.
    """
    valid = _valid(logits, labels, clip_mask)
    if alpha < 1:
        raise ValueError(f"alpha must be 1 or more, got {alpha}: a video of t clips is judged by t / alpha of them.")
    lengths = valid.sum(dim=1)
    counts = lengths // alpha if rounding == "floor" else -(-lengths // alpha)
    # A video that is all padding keeps no clip and counts for nothing.
    counts = counts.clamp_min(1).minimum(lengths)
    ranked = logits.masked_fill(~valid, -torch.inf).sort(dim=1, descending=True).values
    chosen = torch.arange(logits.shape[1], device=logits.device) < counts.unsqueeze(1)
    ranked = ranked.masked_fill(~chosen, 0.0)
    targets = labels.to(ranked.dtype).unsqueeze(1).expand_as(ranked)
    losses = F.binary_cross_entropy_with_logits(ranked, targets, reduction="none") * chosen
    if reduction == "clip":
        return losses.sum() / counts.sum().clamp_min(1)
    per_video = losses.sum(dim=1) / counts.clamp_min(1)
    return per_video.sum() / (counts > 0).sum().clamp_min(1)


def center_loss(logits: Tensor, labels: Tensor, clip_mask: Tensor | None = None, unbiased: bool = False) -> Tensor:
    """Center loss: the variance of the scores within each normal video, averaged over the normal videos.

    Equation (2) of the AVACA paper. The average is over normal videos only, as in AR-Net's code, so that the share of
    anomalous videos in a batch does not change its weight.

    Args:
        logits (`torch.Tensor` of shape `(B, T)`): Clip scores before the sigmoid.
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given. AR-Net's
            code takes the variance over the padding too: give no mask for that.
        unbiased: Divide by t - 1 as AR-Net does, not by t as printed.

    Returns:
        `torch.Tensor` of shape `()`; 0 where the batch has no normal video, and for videos of one clip.
    """
    valid = _valid(logits, labels, clip_mask)
    # Filled before the sigmoid: padding may hold NaN, which times 0 is NaN, in the gradient as well.
    scores = torch.sigmoid(logits.masked_fill(~valid, 0.0)) * valid
    lengths = valid.sum(dim=1)
    means = scores.sum(dim=1) / lengths.clamp_min(1)
    deviations = (scores - means.unsqueeze(1)) * valid
    variances = deviations.square().sum(dim=1) / (lengths - int(unbiased)).clamp_min(1)
    normal = (labels == 0) & (lengths > 0)
    return (variances * normal).sum() / normal.sum().clamp_min(1)


__all__ = ["center_loss", "dmil_loss"]
