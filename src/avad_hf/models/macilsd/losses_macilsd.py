"""MACIL-SD's losses, as pure functions. None has a shape that depends on labels or on scores."""

import torch
import torch.nn.functional as F
from torch import Tensor

from avad_hf.models.weak_labels import mean_of

# A video of t clips is judged by t // 16 + 1 of them (the paper's K, section 3.3).
CLIPS_PER_CHOSEN = 16


def chosen_clips(logits: Tensor, clip_mask: Tensor, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The clips of highest, or lowest, score of each video: t // 16 + 1 of t clips.

    Args:
        logits (`torch.Tensor` of shape `(B, T)`): Scores before the sigmoid.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        largest: Whether the highest are wanted.

    Returns:
        Numbers of the clips, and which of them count, of shape `(B, T // 16 + 1)` both.
    """
    most = logits.shape[1] // CLIPS_PER_CHOSEN + 1
    ranked = logits.detach().masked_fill(~clip_mask, -torch.inf if largest else torch.inf)
    chosen = ranked.topk(min(most, logits.shape[1]), dim=1, largest=largest).indices
    lengths = clip_mask.sum(dim=1, keepdim=True)
    counts = (lengths // CLIPS_PER_CHOSEN + 1).minimum(lengths)
    return chosen, torch.arange(chosen.shape[1], device=logits.device) < counts


def video_logits(logits: Tensor, clip_mask: Tensor) -> Tensor:
    """Mean logit of each video's highest clips, of shape `(B,)`; 0 for a video of padding alone."""
    chosen, counts = chosen_clips(logits, clip_mask)
    return mean_of(logits.gather(1, chosen), counts)


def video_loss(logits: Tensor, labels: Tensor, clip_mask: Tensor) -> Tensor:
    """Binary cross-entropy of each video's score with its label; the mean over videos that have clips.

    Args:
        logits (`torch.Tensor` of shape `(B, T)`): Scores of clips, before the sigmoid.
        labels (`torch.Tensor` of shape `(B,)`): 1 for anomalous videos, 0 for normal ones.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
    """
    entropy = F.binary_cross_entropy_with_logits(
        video_logits(logits, clip_mask), labels.to(logits.dtype), reduction="none"
    )
    has_clips = clip_mask.any(dim=1)
    return (entropy * has_clips).sum() / has_clips.sum().clamp_min(1)


def info_nce(queries: Tensor, positives: Tensor, negatives: Tensor, counts: Tensor, temperature: float) -> Tensor:
    """Contrastive loss of each query: its positive shall be more like it than the negatives of the whole batch.

    Args:
        queries (`torch.Tensor` of shape `(B, C)`): One a video.
        positives (`torch.Tensor` of shape `(B, C)`): What each should be like.
        negatives (`torch.Tensor` of shape `(N, C)`): What none should be like.
        counts (`torch.Tensor` of shape `(N,)`): False for negatives that do not count.
        temperature: What cosines are divided by.

    Returns:
        `torch.Tensor` of shape `(B,)`.
    """
    queries, positives, negatives = (F.normalize(x, dim=-1) for x in (queries, positives, negatives))
    positive = (queries * positives).sum(dim=1, keepdim=True)
    others = (queries @ negatives.T).masked_fill(~counts, -torch.inf)
    similar = torch.cat([positive, others], dim=1) / temperature
    return similar.logsumexp(dim=1) - similar[:, 0]


def contrast_loss(
    logits: Tensor,
    audio_logits: Tensor,
    visual_logits: Tensor,
    audio_states: Tensor,
    visual_states: Tensor,
    clip_mask: Tensor,
    temperature: float,
) -> Tensor:
    """Sum of the four contrastive losses between the senses, over videos that the detector now calls anomalous.

    Of each such video, the mean of its highest clips by sound is a query, and the same by sight is what it should be
    like; and the other way round. Negatives are, of the other sense, the lowest clips of all videos, and the highest
    clips of videos that it calls normal (the paper's section 3.3). Each video counts once; the published code counts
    it once for each of its chosen clips.

    Args:
        logits (`torch.Tensor` of shape `(B, T)`): Scores of clips, before the sigmoid.
        audio_logits (`torch.Tensor` of shape `(B, T)`): What sound adds to them.
        visual_logits (`torch.Tensor` of shape `(B, T)`): What sight adds to them.
        audio_states (`torch.Tensor` of shape `(B, T, C)`): Sound of the clips.
        visual_states (`torch.Tensor` of shape `(B, T, C)`): Sight of the clips.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        temperature: What cosines are divided by.

    Returns:
        `torch.Tensor` of shape `()`; 0 where all videos are called the same.
    """
    has_clips = clip_mask.any(dim=1)
    is_anomalous = (video_logits(logits.detach(), clip_mask) > 0) & has_clips
    is_normal = ~is_anomalous & has_clips

    def picked(values: Tensor, states: Tensor, largest: bool) -> tuple[Tensor, Tensor]:
        chosen, counts = chosen_clips(values, clip_mask, largest)
        return states.gather(1, chosen.unsqueeze(2).expand(-1, -1, states.shape[2])), counts

    senses = {"audio": (audio_logits, audio_states), "visual": (visual_logits, visual_states)}
    high = {name: picked(*values, largest=True) for name, values in senses.items()}
    low = {name: picked(*values, largest=False) for name, values in senses.items()}
    means = {name: mean_of(states.transpose(1, 2), counts.unsqueeze(1)) for name, (states, counts) in high.items()}
    per_video = 0.0
    for query, other in (("audio", "visual"), ("visual", "audio")):
        lowest, highest = low[other], high[other]
        for states, counts in (lowest, (highest[0], highest[1] & is_normal.unsqueeze(1))):
            per_video = per_video + info_nce(
                means[query], means[other], states.flatten(0, 1), counts.flatten(), temperature
            )
    asked = is_anomalous & is_normal.any()
    return (per_video * asked).sum() / asked.sum().clamp_min(1)


__all__ = ["chosen_clips", "contrast_loss", "info_nce", "video_logits", "video_loss"]
