"""RTFM's losses, as pure functions.

Each is a mean over videos, so that the loss of a batch is the mean of its parts' losses: it depends neither on the
size of the batch nor on how many processes share it.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class RtfmLossConfig(Protocol):
    """What the config of a detector with these losses has."""

    num_selected: int
    dropout: float
    margin: float
    magnitude_weight: float
    sparsity_weight: float
    smoothness_weight: float


def choose_clips(
    magnitudes: Tensor, clip_mask: Tensor, num_selected: int, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The clips of largest magnitude of each video, by which it is judged.

    Args:
        magnitudes (`torch.Tensor` of shape `(B, T)`): Norms of the clips' features.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        num_selected: How many clips of each video (k); all clips of a shorter one.
        dropout: Probability with which a clip is passed over, in training, as long as there are others.

    Returns:
        Numbers of the clips, and whether each is real, of shape `(B, min(k, T))` both.
    """
    seen = F.dropout(torch.ones_like(magnitudes), dropout)
    ranked = (magnitudes.detach() * seen).masked_fill(~clip_mask, -torch.inf)
    chosen = ranked.topk(min(num_selected, magnitudes.shape[1]), dim=1).indices
    return chosen, clip_mask.gather(1, chosen)


def video_loss(logits: Tensor, labels: Tensor, chosen_mask: Tensor) -> Tensor:
    """Binary cross-entropy of each video's score, the mean score of its chosen clips, with its label.

    Computed from logits: scores are rounded to 0 and 1, where the loss has no gradient, and cannot be used in 16 bits.

    Args:
        logits (`torch.Tensor` of shape `(B, k)`): Scores of the chosen clips, before the sigmoid.
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        chosen_mask (`torch.Tensor` of shape `(B, k)`): False for padding; each video has a real clip.
    """
    count = chosen_mask.sum(dim=1).log()

    def log_mean(log_scores: Tensor) -> Tensor:
        return log_scores.masked_fill(~chosen_mask, -torch.inf).logsumexp(dim=1) - count

    log_anomalous, log_normal = log_mean(F.logsigmoid(logits)), log_mean(F.logsigmoid(-logits))
    return _mean(-torch.where(labels == 1, log_anomalous, log_normal))


def magnitude_loss(magnitudes: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Pull the magnitudes of anomalous videos to the margin and those of normal ones to 0, as pairs.

    The first anomalous video of a batch is paired with the first normal one, and so on. Where the classes differ in
    size, videos of the smaller one come again; where one is missing, the other one's part is left.

    Args:
        magnitudes (`torch.Tensor` of shape `(B,)`): Magnitudes of the videos.
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        margin: What anomalous videos should reach.
    """
    too_small, too_large = (margin - magnitudes[labels == 1]).abs(), magnitudes[labels == 0]
    if len(too_small) and len(too_large):
        pair = torch.arange(max(len(too_small), len(too_large)), device=magnitudes.device)
        too_small, too_large = too_small[pair % len(too_small)], too_large[pair % len(too_large)]
        return _mean((too_small + too_large).square())
    return _mean(torch.cat([too_small, too_large]).square())


def sparsity_loss(scores: Tensor, clip_mask: Tensor) -> Tensor:
    """Mean over videos of the L2 norm of a video's scores over time: few clips of an anomalous video are anomalous.

    Args:
        scores (`torch.Tensor` of shape `(B, T)`): Scores of the clips of anomalous videos, within 0 and 1.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
    """
    return _mean(torch.linalg.vector_norm(scores * clip_mask, dim=1))


def smoothness_loss(scores: Tensor, clip_mask: Tensor) -> Tensor:
    """Mean over videos of the sum of squared differences of a video's neighbouring scores.

    Args:
        scores (`torch.Tensor` of shape `(B, T)`): Scores of the clips of anomalous videos, within 0 and 1.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
    """
    are_real = clip_mask[:, 1:] & clip_mask[:, :-1]
    return _mean((scores.diff(dim=1).square() * are_real).sum(dim=1))


def rtfm_losses(
    config: RtfmLossConfig, logits: Tensor, magnitudes: Tensor, labels: Tensor, mask: Tensor | None, training: bool
) -> dict[str, Tensor]:
    """All of them; what RTFM is trained with, and detectors that were made after it.

    Args:
        config: The weights, by their names, and how clips are chosen.
        logits (`torch.Tensor` of shape `(B, T)`): Scores of clips, before the sigmoid.
        magnitudes (`torch.Tensor` of shape `(B, T)`): Norms of the clips' features.
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
        training: Whether clips are passed over at random.

    Returns:
        ``loss``, ``video_loss``, ``magnitude_loss``, ``sparsity_loss`` and ``smoothness_loss``.
    """
    logits, magnitudes = logits.float(), magnitudes.float()
    mask = torch.ones_like(logits, dtype=torch.bool) if mask is None else mask.bool()
    has_clips = mask.any(dim=1)
    logits, magnitudes, labels, mask = (value[has_clips] for value in (logits, magnitudes, labels, mask))

    chosen, are_real = choose_clips(magnitudes, mask, config.num_selected, config.dropout if training else 0.0)
    of_videos = (magnitudes.gather(1, chosen) * are_real).sum(dim=1) / are_real.sum(dim=1)
    anomalous = labels == 1
    scores, score_mask = logits[anomalous].sigmoid(), mask[anomalous]
    parts = {
        "video_loss": video_loss(logits.gather(1, chosen), labels, are_real),
        "magnitude_loss": magnitude_loss(of_videos, labels, config.margin),
        "sparsity_loss": sparsity_loss(scores, score_mask),
        "smoothness_loss": smoothness_loss(scores, score_mask),
    }
    total = (
        parts["video_loss"]
        + config.magnitude_weight * parts["magnitude_loss"]
        + config.sparsity_weight * parts["sparsity_loss"]
        + config.smoothness_weight * parts["smoothness_loss"]
    )
    return {"loss": total, **parts}


def _mean(losses: Tensor) -> Tensor:
    """The mean; 0 of nothing."""
    return losses.sum() / max(1, len(losses))


__all__ = ["choose_clips", "magnitude_loss", "rtfm_losses", "smoothness_loss", "sparsity_loss", "video_loss"]
