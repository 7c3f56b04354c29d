"""VGGish audio encoder, with torchvggish's attribute names (``features.N``, ``embeddings.N``)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.shared_windows import TimeStage, compute_rows

from .configuration_vggish import VggishConfig

# Convolutions in each of the four groups; a pooling by two ends each group.
GROUPS = (1, 1, 2, 2)
# What windows that overlap can share: a convolution and the pooling after it, twice, and the two convolutions of the
# third group. Its pooling joins other rows in every second window, and after it the edges are most of a window.
TIME_STAGES = (TimeStage(4, 2, 1, 1), TimeStage(4, 2, 1, 1), TimeStage(3, 1, 1, 1), TimeStage(3, 1, 1, 1))
STAGE_CONVOLUTIONS = (0, 3, 6, 8)


@dataclass
class VggishModelOutput(ModelOutput):
    """What the encoder makes of a log-mel spectrogram.

    Args:
        feature_map (`torch.Tensor` of shape `(N, hidden_sizes[-1], frames // 16, num_mel_bins // 16)`):
            Output of the convolutions, for input of any length.
        pooler_output (`torch.Tensor` of shape `(N, embedding_size)`):
            Embeddings; only for input of exactly ``num_frames`` frames, else ``None``.
        quantized_embeddings (`torch.Tensor` of shape `(N, embedding_size)`, *optional*):
            Embeddings after PCA, in 256 levels from 0 to 255 as floats, as AudioSet's features are; with ``has_pca``.
        hidden_states (`tuple` of `torch.Tensor`): On request: maps after each of the four groups of convolutions.
    """

    feature_map: Tensor | None = None
    pooler_output: Tensor | None = None
    quantized_embeddings: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def vggish_convolutions(config: VggishConfig) -> nn.Sequential:
    """The convolutional part, for log-mel spectrograms of shape `(N, 1, frames, num_mel_bins)` of any length."""
    layers: list[nn.Module] = []
    channels = 1
    for width, depth in zip(config.hidden_sizes, GROUPS, strict=True):
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
    return nn.Sequential(*layers)


class VggishPostprocessor(nn.Module):
    """PCA, clipping to -2 and 2, and 256 levels. Levels are rounded, as in torchvggish; TensorFlow's cuts them off."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("pca_eigen_vectors", torch.eye(size))
        self.register_buffer("pca_means", torch.zeros(size))

    def forward(self, embeddings: Tensor) -> Tensor:
        rotated = (embeddings - self.pca_means) @ self.pca_eigen_vectors.T
        return ((rotated.clamp(-2, 2) + 2) * (255 / 4)).round()


class VggishModel(CheckpointedModule, CheckpointModel):
    """VGGish: six convolutions over log-mel frames, then three linear layers."""

    config_class = VggishConfig
    base_model_prefix = "vggish"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    unread_inputs = ("audio_frame_mask",)
    supports_gradient_checkpointing = True

    def __init__(self, config: VggishConfig):
        super().__init__(config)
        self.features = vggish_convolutions(config)
        flat = config.hidden_sizes[-1] * (config.num_frames // 16) * (config.num_mel_bins // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(flat, config.intermediate_size),
            nn.ReLU(inplace=True),
            nn.Linear(config.intermediate_size, config.intermediate_size),
            nn.ReLU(inplace=True),
            nn.Linear(config.intermediate_size, config.embedding_size),
            *([nn.ReLU(inplace=True)] if config.activate_embeddings else []),
        )
        # Named as in torchvggish.
        self.pproc = VggishPostprocessor(config.embedding_size) if config.has_pca else None
        self.post_init()

    def _make_form(self, dtype: torch.dtype) -> CheckpointModel:
        from .inference_vggish import inference_form  # which imports this

        return inference_form(self, dtype)

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)

    @network_forward
    def forward(
        self, input_features: Tensor, output_hidden_states: bool | None = None, rows: Sequence[Tensor] | None = None
    ) -> VggishModelOutput:
        """Encode log-mel spectrograms.

        Args:
            input_features (`torch.Tensor` of shape `(N, frames, num_mel_bins)`):
                Log-mel frames of [`VggishFeatureExtractor`], 16 or more.
            output_hidden_states: Return the maps after each group of convolutions.
            rows: For windows that overlap, as `compute_rows` takes them with blocks of `TIME_STAGES` for spectrograms.

        Returns:
            [`VggishModelOutput`] with ``feature_map`` and, for ``num_frames`` frames, ``pooler_output``.

        Raises:
            ValueError: For another shape or fewer than 16 frames.
        """
        if rows is not None:
            return compute_rows(self, input_features, rows)
        bins, example = self.config.num_mel_bins, self.config.num_frames
        if input_features.dim() != 3 or input_features.shape[2] != bins or input_features.shape[1] < 16:
            raise ValueError(
                f"VGGish needs input_features of shape (N, frames, {bins}) with 16 or more frames, got "
                f"{tuple(input_features.shape)}. VggishFeatureExtractor makes them from a waveform at 16 kHz."
            )
        feature_map, states, begin = input_features.to(self.dtype).unsqueeze(1), [], 0
        for depth in GROUPS:  # convolutions with their ReLU, and a pooling
            end = begin + 2 * depth + 1
            feature_map, begin = self.computed(self.features[begin:end], feature_map), end
            if output_hidden_states:  # otherwise their memory is free for what follows
                states.append(feature_map)
        hidden_states = tuple(states) if output_hidden_states else None
        if input_features.shape[1] != example:
            return VggishModelOutput(feature_map=feature_map, hidden_states=hidden_states)
        return self._embed(feature_map, hidden_states)

    def stage(self, number: int, blocks: Tensor) -> Tensor:
        """Compute one of `TIME_STAGES`, as of `avad_hf.models.shared_windows.StagedNetwork`."""
        convolution = self.features[STAGE_CONVOLUTIONS[number]]
        maps = F.conv2d(blocks.to(self.dtype), convolution.weight, convolution.bias, padding=(0, 1)).relu_()
        # After the last stage the third pooling: over the bands here, over time in `after_stages`.
        return maps if number == 2 else F.max_pool2d(maps, (1, 2) if number == 3 else 2)

    def after_stages(self, maps: Tensor) -> VggishModelOutput:
        """Compute the outputs from the third pooling over time on."""
        return self._embed(self.features[STAGE_CONVOLUTIONS[-1] + 3 :](F.max_pool2d(maps, (2, 1))), None)

    def _embed(self, feature_map: Tensor, hidden_states: tuple[Tensor, ...] | None) -> VggishModelOutput:
        # Flattened as (time, mel, channel), the order of the TensorFlow original.
        flat = feature_map.permute(0, 2, 3, 1).flatten(1)
        embeddings = self.embeddings(flat)
        levels = None if self.pproc is None else self.pproc(embeddings)
        return VggishModelOutput(
            feature_map=feature_map,
            pooler_output=embeddings,
            quantized_embeddings=levels,
            hidden_states=hidden_states,
        )


__all__ = ["TIME_STAGES", "VggishModel", "vggish_convolutions"]
