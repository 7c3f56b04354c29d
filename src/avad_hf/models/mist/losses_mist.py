"""MIST's losses of parts of videos, as pure functions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from avad_hf.models.weak_labels import mean_of, pairs


def part_scores(
    scores: Tensor, clip_mask: Tensor, num_parts: int, part_length: int, at_random: bool = False
) -> Tensor:
    """Scores of parts of each video: means of clips in a row, from as many equal stretches of the video.

    A part begins with its stretch. A part of a short video begins earlier where it would end beyond the video, and a
    video of fewer clips than a part has repeats its last one.

    Args:
        scores (`torch.Tensor` of shape `(B, T)`): Scores of the clips, finite for padding as well.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding.
        num_parts: How many parts (P).
        part_length: Clips of each (L).
        at_random: Begin anywhere within the stretch, as far as the part fits in: over the epochs all clips are seen.

    Returns:
        `torch.Tensor` of shape `(B, P)`.
    """
    lengths = clip_mask.sum(dim=1, keepdim=True)
    bounds = torch.arange(num_parts + 1, device=scores.device) * lengths // num_parts
    starts, ends = bounds[:, :-1], bounds[:, 1:]
    if at_random:
        room = (ends - starts - part_length + 1).clamp_min(1)
        starts = starts + (torch.rand(starts.shape, device=scores.device) * room).long().minimum(room - 1)
    starts = starts.minimum((lengths - part_length).clamp_min(0))
    clips = starts.unsqueeze(2) + torch.arange(part_length, device=scores.device)
    clips = clips.minimum((lengths - 1).clamp_min(0).unsqueeze(2)).flatten(1)
    where = (~clip_mask).int().argsort(dim=1, stable=True)  # the real clips first
    return scores.gather(1, where.gather(1, clips)).unflatten(1, (num_parts, part_length)).mean(dim=2)


def ranking_loss(video_scores: Tensor, normal: Tensor, anomalous: Tensor, margin: float) -> Tensor:
    """Mean over pairs of videos of ``max(0, margin - anomalous + normal)``; 0 where a class is missing.

    Args:
        video_scores (`torch.Tensor` of shape `(B,)`): Scores of the videos.
        normal (`torch.Tensor` of shape `(B,)`): Which videos are normal.
        anomalous (`torch.Tensor` of shape `(B,)`): Which videos are anomalous.
        margin: By how much the score of the anomalous video of a pair should exceed the normal one's.
    """
    normal_videos, anomalous_videos, is_pair = pairs(normal, anomalous)
    return mean_of(F.relu(margin - video_scores[anomalous_videos] + video_scores[normal_videos]), is_pair)


__all__ = ["part_scores", "ranking_loss"]
