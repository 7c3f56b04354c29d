"""Classes of videos from the clips that AVACA finds most anomalous. The paper scores anomaly alone."""

import torch
import torch.nn.functional as F
from torch import Tensor


def video_class_logits(
    class_logits: Tensor, logits: Tensor, clip_mask: Tensor | None = None, alpha: int = 4
) -> Tensor:
    """Class logits of videos: the mean over the clips that decide the DMIL loss, which have the highest scores.

    Args:
        class_logits (`torch.Tensor` of shape `(B, T, num_labels)`): Scores of the classes of clips.
        logits (`torch.Tensor` of shape `(B, T)`): Clip scores before the sigmoid; they choose, and get no gradients.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
        alpha: A video of t clips is called by ``max(1, t // alpha)`` of them.

    Returns:
        `torch.Tensor` of shape `(B, num_labels)`; zeros for a video that is all padding.
    """
    valid = torch.ones_like(logits, dtype=torch.bool) if clip_mask is None else clip_mask.bool()
    lengths = valid.sum(dim=1, keepdim=True)
    counts = (lengths // alpha).clamp_min(1).minimum(lengths)
    order = logits.detach().masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranked = class_logits.gather(1, order.unsqueeze(-1).expand_as(class_logits))
    chosen = torch.arange(logits.shape[1], device=logits.device) < counts
    return ranked.masked_fill(~chosen.unsqueeze(-1), 0.0).sum(dim=1) / counts.clamp_min(1)


def class_loss(
    class_logits: Tensor, class_labels: Tensor, logits: Tensor, clip_mask: Tensor | None = None, alpha: int = 4
) -> Tensor:
    """Cross-entropy of the videos' classes, averaged over videos; other arguments as of `video_class_logits`.

    Args:
        class_logits: Scores of the classes of clips.
        class_labels (`torch.Tensor` of shape `(B,)`): Class numbers.
        logits: Clip scores before the sigmoid.
        clip_mask: False for padding.
        alpha: Which part of a video's clips calls it.

    Raises:
        ValueError: For numbers of no class.
    """
    num_labels = class_logits.shape[-1]
    if not torch.compiler.is_compiling() and not ((class_labels >= 0) & (class_labels < num_labels)).all():
        raise ValueError(
            f"class_labels must be class numbers from 0 to {num_labels - 1}, got {class_labels.unique().tolist()}."
        )
    return F.cross_entropy(video_class_logits(class_logits, logits, clip_mask, alpha), class_labels.long())


__all__ = ["class_loss", "video_class_logits"]
