"""UR-DMU's losses, as pure functions.

Each is a mean over videos or pairs of videos; 0 where there are none.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from avad_hf.models.weak_labels import mean_of, pairs

# Cross-entropy of a probability that is 0 or 1 in float32 would have no gradient that is finite.
SMALLEST = 1e-6


def num_judging(clip_mask: Tensor) -> Tensor:
    """By how many clips a video of t clips is judged, ``t // 16 + 1``, of shape `(B, 1)`."""
    return clip_mask.sum(dim=1, keepdim=True) // 16 + 1


def video_loss(logits: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
    """Binary cross-entropy of each video's score, the mean score of its chosen clips, with its label.

    Computed from logits: scores are rounded to 0 and 1, where the loss has no gradient.

    Args:
        logits (`torch.Tensor` of shape `(B, T)`): Scores of the clips, before the sigmoid.
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        chosen (`torch.Tensor` of shape `(B, T)`): Which clips a video is judged by; none for one that does not count.
    """
    signs = torch.where(labels == 1, 1.0, -1.0).unsqueeze(1)
    # Numbers, not infinity, where nothing is chosen: such a video has a loss and gradients, times 0.
    log_scores = F.logsigmoid(logits.masked_fill(~chosen, 0.0) * signs).masked_fill(~chosen, -1e9)
    counts = chosen.sum(dim=1)
    return mean_of(counts.clamp_min(1).log() - log_scores.logsumexp(dim=1), counts > 0)


def cross_entropy(probabilities: Tensor, target: int) -> Tensor:
    """Binary cross-entropy of each probability with 0 or 1."""
    probabilities = probabilities if target else 1 - probabilities
    return -probabilities.clamp_min(SMALLEST).log()


def memory_loss(
    abnormal: Tensor, normal: Tensor, clip_mask: Tensor, tops: dict[str, Tensor], videos: dict[str, Tensor]
) -> Tensor:
    """Sum of four cross-entropies: what each memory should make of the clips of each class.

    Args:
        abnormal (`torch.Tensor` of shape `(B, T)`): How much the abnormal memory knows each clip, within 0 and 1.
        normal (`torch.Tensor` of shape `(B, T)`): How much the normal memory knows each clip, within 0 and 1.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        tops: Which clips, of shape `(B, T)`, each video is judged by: ``"abnormal"`` those that the abnormal memory
            knows best, ``"unusual"`` those that the normal memory knows least.
        videos: Which videos, of shape `(B,)`, are ``"normal"`` and ``"anomalous"``.
    """
    of_videos = {
        # In an anomalous video the abnormal memory knows some clips, and the normal one some clips not.
        "anomalous": cross_entropy(mean_of(abnormal, tops["abnormal"]), 1)
        + cross_entropy(mean_of(normal, tops["unusual"]), 0),
        # Every clip of a normal video is known to the normal memory, and to the abnormal one none.
        "normal": mean_of(cross_entropy(normal, 1) + cross_entropy(abnormal, 0), clip_mask),
    }
    return sum(mean_of(of_videos[name], videos[name]) for name in of_videos)


def triplet_loss(vectors: dict[str, Tensor], normal: Tensor, anomalous: Tensor) -> Tensor:
    """Pull usual clips of anomalous videos to those of normal ones, and push abnormal clips away, by a margin of 1.

    Args:
        vectors: Features of each video, of shape `(B, C)`: ``"usual"``, those of the clips that the normal memory
            knows best, and ``"abnormal"``, those of the clips that the abnormal memory knows best.
        normal (`torch.Tensor` of shape `(B,)`): Which videos are normal.
        anomalous (`torch.Tensor` of shape `(B,)`): Which videos are anomalous.
    """
    usual, abnormal = (F.normalize(vectors[name], dim=1) for name in ("usual", "abnormal"))
    normal_videos, anomalous_videos, is_pair = pairs(normal, anomalous)
    losses = F.triplet_margin_loss(
        usual[normal_videos], usual[anomalous_videos], abnormal[anomalous_videos], reduction="none"
    )
    return mean_of(losses, is_pair)


def distance_loss(norms: Tensor, normal: Tensor, anomalous: Tensor, margin: float) -> Tensor:
    """Make what the memories give long for anomalous videos and short for normal ones.

    Args:
        norms (`torch.Tensor` of shape `(B, 2)`): Norms of what the abnormal and the normal memory give for a video.
        normal (`torch.Tensor` of shape `(B,)`): Which videos are normal.
        anomalous (`torch.Tensor` of shape `(B,)`): Which videos are anomalous.
        margin: By how much they should differ.
    """
    normal_videos, anomalous_videos, is_pair = pairs(normal, anomalous)
    return mean_of(F.relu(margin - norms[anomalous_videos, 0] + norms[normal_videos, 1]), is_pair)


__all__ = ["cross_entropy", "distance_loss", "memory_loss", "num_judging", "triplet_loss", "video_loss"]
