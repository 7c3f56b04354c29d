"""Batch norm over the batch of all processes, on processors of every kind (torch's own runs on GPUs alone)."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _SumOfProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes. What each computes from it counts, so gradients are summed as well."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class SyncedBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance are those of all processes' samples, however many each has."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Normalise channels, dimension 1, as `torch.nn.BatchNorm1d` and its kin do."""
        if not self.training:
            return super().forward(x)
        axes, shape = [0, *range(2, x.dim())], (1, -1, *[1] * (x.dim() - 2))
        samples = x.float()
        total = torch.cat([samples.sum(axes), samples.new_full((1,), samples.numel() / samples.shape[1])])
        total = _SumOfProcesses.apply(total)
        count = total[-1].detach()
        mean = total[:-1] / count
        # In two passes: a difference of large squares would lose digits.
        variance = _SumOfProcesses.apply((samples - mean.view(shape)).square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
        scaled = (samples - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        return (scaled * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


def sync_batch_norms(module: nn.Module) -> nn.Module:
    """Replace all batch norms within a module by synchronised ones, with the same parameters and buffers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
            synced = SyncedBatchNorm(child.num_features, child.eps, child.momentum)
            synced.weight, synced.bias = child.weight, child.bias
            for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                setattr(synced, buffer, getattr(child, buffer))
            setattr(module, name, synced.train(child.training))
        else:
            sync_batch_norms(child)
    return module


__all__ = ["SyncedBatchNorm", "sync_batch_norms"]
