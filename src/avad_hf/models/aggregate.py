"""RTFM's network over a sequence as S3R and SSRL have it: neighbours at three distances, and all members at once.

```text
                +-> convolution, dilation 1 ------------------+
x               |-> convolution, dilation 2 ------------------|
(B, C, N) ------|-> convolution, dilation 4 ------------------+-> convolution -> (+) -> (B, C, N)
                |-> 1x1 convolution -> ReLU -> attention -----+                   |
                +-----------------------------------------------------------------+
```
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .checkpointing import CheckpointedModule
from .checkpoints import CheckpointModel
from .normalisation import masked_batch_norm

Norm = Literal["batch", "group"]
# Distances of the convolutions' taps, and how much narrower each branch is than the input.
DILATIONS = (1, 2, 4)
REDUCTION = len(DILATIONS) + 1
# Groups of a group norm, as published; fewer where the width is no multiple of it.
NUM_GROUPS = 8


def masked_group_norm(norm: nn.GroupNorm, x: Tensor, mask: Tensor | None) -> Tensor:
    """Normalise what is real of each sequence alone; padding becomes zero.

    Args:
        norm: A group norm.
        x: Features of shape `(B, C, N)`.
        mask: False for padding, of shape `(B, N)`; all is real if not given.
    """
    if mask is None:
        return norm(x)
    real = mask[:, None, None]
    groups = x.unflatten(1, (norm.num_groups, -1)).float().masked_fill(~real, 0.0)
    count = (mask.sum(dim=1) * groups.shape[2]).clamp_min(1)[:, None, None, None]
    centred = (groups - groups.sum(dim=(2, 3), keepdim=True) / count).masked_fill(~real, 0.0)
    variance = centred.square().sum(dim=(2, 3), keepdim=True) / count
    normal = (centred * torch.rsqrt(variance + norm.eps)).flatten(1, 2).to(x.dtype)
    return (normal * norm.weight[:, None] + norm.bias[:, None]).masked_fill(~mask.unsqueeze(1), 0.0)


class AggregateLayer(CheckpointedModule):
    """Convolution of kernel 3 over a sequence: group norm and then ReLU (S3R), or ReLU and then batch norm (SSRL)."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, dilation: int = 1, bias: bool = True):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=bias)
        groups = math.gcd(NUM_GROUPS, out_channels)
        self.norm = nn.BatchNorm1d(out_channels) if norm == "batch" else nn.GroupNorm(groups, out_channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.computed(self._forward, x, mask)

    def _forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if isinstance(self.norm, nn.GroupNorm):
            return F.relu(masked_group_norm(self.norm, self.conv(x), mask))
        return masked_batch_norm(self.norm, F.relu(self.conv(x)), mask)


class AggregateZeroNorm(nn.BatchNorm1d):
    """Batch norm that gives zeros at first. transformers initialises only what has weights, and by its class."""


class AggregateAttention(CheckpointedModule):
    """Narrower features, and non-local attention among them (Wang et al., CVPR 2018, section 3.2, dot product).

    At first the attention adds nothing, since its batch norm gives zeros (their section 4.1).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        inner = max(1, out_channels // 2)
        self.projection = nn.Conv1d(in_channels, out_channels, 1, bias=False)
        self.theta = nn.Conv1d(out_channels, inner, 1)
        self.phi = nn.Conv1d(out_channels, inner, 1)
        self.g = nn.Conv1d(out_channels, inner, 1)
        self.output = nn.Conv1d(inner, out_channels, 1)
        self.norm = AggregateZeroNorm(out_channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.computed(self._forward, x, mask)

    def _forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = F.relu(self.projection(x))
        queries, keys, values = self.theta(x), self.phi(x), self.g(x)
        # Divided before the sum, which in half precision has no room for long sequences.
        if mask is None:
            values = values / x.shape[2]
        else:
            lengths = mask.sum(dim=1).clamp_min(1)
            values = values.masked_fill(~mask.unsqueeze(1), 0.0) / lengths.to(x.dtype)[:, None, None]
        # Without a softmax the product of keys and values can come first: memory does not grow with the square of N.
        attended = (values @ keys.transpose(1, 2)) @ queries
        return x + masked_batch_norm(self.norm, self.output(attended), mask)


class Aggregate(nn.Module):
    """The whole network; it keeps the shape.

    Args:
        width: Channels of its input.
        norm: Which one its convolutions have.
    """

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        inner = max(1, width // REDUCTION)
        # These have biases, the fusing convolution and the projection of the attention have none: as published.
        self.dilated = nn.ModuleList(AggregateLayer(width, inner, norm, dilation) for dilation in DILATIONS)
        self.attention = AggregateAttention(width, inner)
        self.fusion = AggregateLayer(REDUCTION * inner, width, norm, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Let the members of each sequence see each other.

        Args:
            x (`torch.Tensor` of shape `(B, C, N)`): Features, zero for padding.
            mask (`torch.Tensor` of shape `(B, N)`): False for padding; all is real if not given.
        """
        branches = [layer(x, mask) for layer in (*self.dilated, self.attention)]
        return x + self.fusion(torch.cat(branches, dim=1), mask)


class AggregatePreTrainedModel(CheckpointModel):
    """Initialisation and inputs of the detectors that are made of it."""

    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs = ("clip_times", "has_audio")

    def _init_weights(self, module: nn.Module):
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)
            if isinstance(module, AggregateZeroNorm):
                init.zeros_(module.weight)


__all__ = ["Aggregate", "AggregatePreTrainedModel", "masked_group_norm"]
