"""Batch norm that takes a single value a channel (one clip of one cell), and that leaves padding out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def batch_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise `x` of shape `(N, C, ...)`; one value a channel has no variance, and goes by the running statistics.

    torch refuses such a batch in training.
    """
    if norm.training and x.numel() == x.shape[1] and type(norm).forward is nn.modules.batchnorm._BatchNorm.forward:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
    return norm(x)


def masked_batch_norm(norm: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """Normalise what is real alone; padding becomes zero.

    Args:
        norm: A batch norm.
        x: Features of shape `(B, C, T)`.
        mask: False for padding, of shape `(B, T)`; all is real if not given.

    Returns:
        `torch.Tensor` of shape `(B, C, T)`.
    """
    if mask is None:
        return batch_norm(norm, x)
    if not norm.training:
        return batch_norm(norm, x).masked_fill(~mask.unsqueeze(1), 0.0)
    if torch.compiler.is_compiling():
        return _weighted_batch_norm(norm, x, mask.unsqueeze(1))
    steps = x.transpose(1, 2)
    real = batch_norm(norm, steps[mask])
    return real.new_zeros(steps.shape).masked_scatter(mask.unsqueeze(2), real).transpose(1, 2)


def _weighted_batch_norm(norm: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    """The same in training without picking rows, whose number a compiled graph cannot know."""
    x = torch.where(mask, x, 0.0)
    dims = [dim for dim in range(x.dim()) if dim != 1]
    count = mask.sum().clamp_min(1)
    mean = x.sum(dims, keepdim=True) / count
    variance = torch.where(mask, (x - mean) ** 2, 0.0).sum(dims, keepdim=True) / count
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean.flatten().to(norm.running_mean.dtype), norm.momentum)
        unbiased = variance.flatten() * (count / (count - 1).clamp_min(1))
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
    shape = (1, -1, *(1 for _ in dims[1:]))
    normal = (x - mean) * torch.rsqrt(variance + norm.eps) * norm.weight.view(shape) + norm.bias.view(shape)
    return torch.where(mask, normal, 0.0)


__all__ = ["batch_norm", "masked_batch_norm"]
