"""Layers of AVACA: convolutions that leave padding out, and cross-attention between what is seen and heard."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.normalisation import batch_norm, masked_batch_norm

from .configuration_avaca import AvacaConfig


class AvacaConvLayer(CheckpointedModule):
    """Convolution, batch norm if there is one, and ReLU over one or two dimensions, keeping the size."""

    def __init__(self, config: AvacaConfig, in_channels: int, out_channels: int, dims: int):
        super().__init__()
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if dims == 1 else (nn.Conv2d, nn.BatchNorm2d)
        self.conv = conv(in_channels, out_channels, config.kernel_size, padding=config.kernel_size // 2)
        self.norm = norm(out_channels) if config.normalisation == "batch" else None

    def forward(self, x: Tensor, is_real: Tensor | None = None) -> Tensor:
        """Convolve `x` of shape `(N, C, ...)`; rows where `is_real` is false are padding."""
        return self.computed(self._forward, x, is_real)

    def _forward(self, x: Tensor, is_real: Tensor | None) -> Tensor:
        x = self.conv(x)
        if self.norm is not None:
            x = batch_norm(self.norm, x) if is_real is None else self._norm_of_real(x, is_real)
        return F.relu(x)

    def _norm_of_real(self, x: Tensor, is_real: Tensor) -> Tensor:
        """Batch norm of `x` of shape `(N, C, ...)` whose rows are clips, some of them padding."""
        flat = x.flatten(2)
        return masked_batch_norm(self.norm, flat, is_real[:, None].expand(-1, flat.shape[2])).view_as(x)


def through(stage: nn.Sequential, x: Tensor, is_real: Tensor | None) -> Tensor:
    """What the convolutions of a stage make of `x`; `is_real` is false for clips that are padding."""
    for layer in stage:
        x = layer(x, is_real)
    return x


def eager_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Attention written out: the only form that gives its weights.

    Args:
        module: The layer.
        query: Queries, of shape `(N, heads, Q, head_size)`.
        key: Keys, of shape `(N, heads, K, head_size)`.
        value: Values, of shape `(N, heads, K, head_size)`.
        attention_mask: None: all steps of a clip are real.
        kwargs: What other forms take.

    Returns:
        What is attended, of shape `(N, Q, heads, head_size)`, and the weights, of shape `(N, heads, Q, K)`.
    """
    weights = torch.softmax((query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1), dim=-1)
    return (weights @ value).transpose(1, 2), weights


class AvacaAttention(nn.Module):
    """Multi-head attention of one stream to another; only the output projection has a bias."""

    def __init__(self, config: AvacaConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.is_causal = False  # which the attention functions of transformers ask for
        self.q = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.kv = nn.Linear(config.hidden_size, 2 * config.hidden_size, bias=False)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, keys: Tensor, queries: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        """Attend from queries of shape `(N, Q, hidden_size)` to keys of shape `(N, K, hidden_size)`."""
        q = self.q(queries).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.kv(keys).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attention: Callable[..., tuple[Tensor, Tensor | None]] = eager_attention
        if not output_attentions:
            attention = AttentionInterface().get_interface(self.config._attn_implementation, eager_attention)
        attended, weights = attention(self, q, k, v, None, is_causal=False)
        return self.proj(attended.flatten(2)), weights if output_attentions else None


class AvacaMlp(nn.Module):
    """The two linear layers of a transformer block."""

    def __init__(self, config: AvacaConfig):
        super().__init__()
        inner = int(config.hidden_size * config.mlp_ratio)
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.fc2 = nn.Linear(inner, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape `(N, steps, hidden_size)`."""
        return self.fc2(F.gelu(self.fc1(x)))


class AvacaAttentionBlock(CheckpointedModule):
    """Pre-norm cross-attention and MLP. As in Chumachenko et al., there is no sum around the attention itself."""

    def __init__(self, config: AvacaConfig):
        super().__init__()
        self.norm1_q = nn.LayerNorm(config.hidden_size)
        self.norm1_k = nn.LayerNorm(config.hidden_size)
        self.attn = AvacaAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size)
        self.mlp = AvacaMlp(config)

    def forward(self, keys: Tensor, queries: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        """What the queries attend to, of their shape, and the weights if they are asked for."""
        return self.computed(self._forward, keys, queries, output_attentions)

    def _forward(self, keys: Tensor, queries: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        attended, weights = self.attn(self.norm1_k(keys), self.norm1_q(queries), output_attentions)
        return attended + self.mlp(self.norm2(attended)), weights


class AvacaAttentionMap(CheckpointedModule):
    """Attention of which the map alone counts: it weighs the steps of its keys (intermediate attention fusion).

    The code of Chumachenko et al. also projects values and outputs, which it then never reads: those weights get no
    gradients, and are left out.
    """

    def __init__(self, config: AvacaConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, keys: Tensor, queries: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        """Weigh keys of shape `(N, K, hidden_size)` by how much queries `(N, Q, hidden_size)` ask for each.

        Returns:
            The weighted keys, and the map of shape `(N, heads, Q, K)` if it is asked for.
        """
        return self.computed(self._forward, keys, queries, output_attentions)

    def _forward(self, keys: Tensor, queries: Tensor, output_attentions: bool) -> tuple[Tensor, Tensor | None]:
        q, k = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer, x in ((self.q, queries), (self.k, keys))
        )
        weights = torch.softmax((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1), dim=-1)
        # The mean of the heads, and the sum of the queries, as there: weights of all keys sum to the queries' number.
        return keys * weights.mean(dim=1).sum(dim=1).unsqueeze(-1), weights if output_attentions else None


__all__ = [
    *("AvacaAttention", "AvacaAttentionBlock", "AvacaAttentionMap", "AvacaConvLayer", "AvacaMlp", "eager_attention"),
    "through",
]
