"""UR-DMU's trunk, which other detectors build on: a convolution and transformer layers of two branches.

One branch is attention as usual; the other sees near clips more than far ones, by weights that are not learnt.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.clip_vectors import clip_vectors
from avad_hf.models.forwarding import network_forward
from avad_hf.models.rtfm.modeling_rtfm import to_segments

from .configuration_urdmu import TrunkConfig

# Clips that are farther away weigh exp(-64 / e) = 6e-11 at most, which float32 does not see beside 1. So this branch
# needs no matrix of the square of a video's length.
REACH = 64


@dataclass
class TrunkOutput(ModelOutput):
    """Features of the clips that know of the whole video.

    Args:
        clip_states (`torch.Tensor` of shape `(B, T, hidden_size)`):
            Features of each clip, zero for padding; in training of each segment, `(B, num_segments, hidden_size)`.
        clip_mask (`torch.Tensor` of shape `(B, T)`):
            False for padding, if a mask was given; in training of shape `(B, num_segments)`.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: the averaged features, of shape `(B, T, input_size)`, what the convolution makes of them, and
            the output of each layer, of shape `(B, T, hidden_size)`.
    """

    clip_states: Tensor | None = None
    clip_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class TrunkConvolution(CheckpointedModule):
    """Convolution of kernel 3 over time and ReLU; it keeps the length, and padding is zero after it."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        return self.computed(self._forward, x, clip_mask)

    def _forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        x = F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return x if clip_mask is None else x.masked_fill(~clip_mask.unsqueeze(2), 0.0)


def near_sums(x: Tensor, clip_mask: Tensor | None) -> Tensor:
    """Sums of the clips of a video, weighted by ``exp(-|i - j| / e)``.

    As in the published code, what clip j gives to all clips is divided by the sum of its own weights. The weights that
    a clip receives add up to 1 but near a video's ends.

    Args:
        x (`torch.Tensor` of shape `(B, T, C)`): What is summed.
        clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding, which counts for nothing.
    """
    channels = x.shape[2]
    distances = torch.arange(-REACH, REACH + 1, device=x.device).abs()
    kernel = torch.exp(-distances / math.e).to(x.dtype).view(1, 1, -1)
    real = x.new_ones(x.shape[:2]) if clip_mask is None else clip_mask.to(x.dtype)
    # A real clip's weights add up to 1 at least, its own; padding is not divided by 0.
    shares = real / F.conv1d(real.unsqueeze(1), kernel, padding=REACH).squeeze(1).clamp_min(1)
    x = (x * shares.unsqueeze(2)).transpose(1, 2)
    return F.conv1d(x, kernel.expand(channels, 1, -1), padding=REACH, groups=channels).transpose(1, 2)


class TrunkAttention(nn.Module):
    """The two branches of a layer, side by side in each head, and the linear layer that joins them."""

    def __init__(self, config: TrunkConfig):
        super().__init__()
        self.num_heads = config.num_heads
        width = config.num_heads * config.head_size
        self.projection = nn.Linear(config.hidden_size, 4 * width, bias=False)
        self.output = nn.Linear(2 * width, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        queries, keys, values, near = self.projection(x).chunk(4, dim=2)
        heads = (self.num_heads, -1)
        queries, keys, values = (part.unflatten(2, heads).transpose(1, 2) for part in (queries, keys, values))
        # A video of padding alone attends to it: its results count for nothing, but must be numbers.
        seen = None if clip_mask is None else (clip_mask | ~clip_mask.any(dim=1, keepdim=True))[:, None, None]
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen).transpose(1, 2)
        joined = torch.cat([attended, near_sums(near, clip_mask).unflatten(2, heads)], dim=3)
        return self.dropout(self.output(joined.flatten(2)))


class TrunkLayer(CheckpointedModule):
    """Transformer layer, normalised before each part."""

    def __init__(self, config: TrunkConfig):
        super().__init__()
        width, inner = config.hidden_size, config.feedforward_size
        self.attention_norm = nn.LayerNorm(width)
        self.attention = TrunkAttention(config)
        self.feedforward_norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.Linear(width, inner),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(inner, width),
            nn.Dropout(config.dropout),
        )

    def forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        return self.computed(self._forward, x, clip_mask)

    def _forward(self, x: Tensor, clip_mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), clip_mask)
        x = x + self.feedforward(self.feedforward_norm(x))
        return x if clip_mask is None else x.masked_fill(~clip_mask.unsqueeze(2), 0.0)


class TrunkPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by bodies and detectors."""

    main_input_name = "visual_features"
    input_modalities = ("video", "audio")
    supports_gradient_checkpointing = True
    unread_inputs: ClassVar[tuple[str, ...]] = ("clip_times", "has_audio")

    def _init_weights(self, module: nn.Module):
        """As torch does by itself, which is what was published; transformers would draw linear layers otherwise."""
        super()._init_weights(module)
        if isinstance(module, (nn.Conv1d, nn.Linear)):
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)


class TrunkModel(TrunkPreTrainedModel):
    """Body of the detectors: each clip's features with what happens in the whole video.

    ```text
    features, averaged -> convolution -> num_layers x [ attention  ] -> (B, T, hidden_size)
    (B, T, D)                                         [ near clips ]
    ```

    In training each video is resampled to `num_segments` first, as published; otherwise it keeps its length.
    """

    def __init__(self, config: TrunkConfig):
        super().__init__(config)
        self.convolution = TrunkConvolution(config.input_size, config.hidden_size)
        self.layers = nn.ModuleList(TrunkLayer(config) for _ in range(config.num_layers))
        self.post_init()

    @network_forward
    def forward(
        self,
        visual_features: Tensor | None = None,
        audio_features: Tensor | None = None,
        clip_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> TrunkOutput:
        """Let the clips of each video see each other.

        Padding never changes what is real: it is zero before the convolution, as is what lies beyond a video's ends;
        both branches of each layer leave it out.

        Args:
            visual_features (`torch.Tensor` of shape `(B, T, visual_size, h, w)`):
                Feature maps of the video encoder. Not read with ``inputs="audio"``.
            audio_features (`torch.Tensor` of shape `(B, T, S, audio_size)`):
                Embeddings of the sound; zeros where a video has none. Not read with ``inputs="visual"``.
            clip_mask (`torch.Tensor` of shape `(B, T)`): False for padding; all clips are real if not given.
            output_hidden_states: Return the averaged features and the output of each layer as well.

        Returns:
            [`TrunkOutput`].

        Raises:
            ValueError: For missing features, other shapes, or values that are not finite.
        """
        x, clip_mask = clip_vectors(self.config, visual_features, audio_features, clip_mask, self.dtype)
        if self.training:
            real = x.new_ones(x.shape[:2], dtype=torch.bool) if clip_mask is None else clip_mask
            segments = self.config.num_segments
            x = to_segments(x, real, segments)
            # Segments of a video are all real, unless the whole video is padding.
            clip_mask = None if clip_mask is None else clip_mask.any(dim=1, keepdim=True).expand(-1, segments)
        states = [x, self.convolution(x, clip_mask)]
        for layer in self.layers:
            states.append(layer(states[-1], clip_mask))
        return TrunkOutput(
            clip_states=states[-1], clip_mask=clip_mask, hidden_states=tuple(states) if output_hidden_states else None
        )


__all__ = ["TrunkModel", "TrunkOutput", "TrunkPreTrainedModel", "near_sums"]
