"""YAMNet audio encoder and classifier: MobileNet v1 on log-mel spectrograms.

Layers have the names of the TensorFlow original: ``layers.0`` is its ``layer1``, and so on.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpoints import CheckpointModel

from .configuration_yamnet import YamnetConfig

# The original's, not torch's 1e-5: where a channel hardly varies it decides what comes out.
NORM_EPS = 1e-4


@dataclass
class YamnetModelOutput(ModelOutput):
    """What the network makes of a log-mel spectrogram.

    Args:
        feature_map (`torch.Tensor` of shape `(N, hidden_sizes[-1], time, bands)`):
            Output of the convolutions, 0 or more; 3 x 2 cells for the published network's 96 frames of 64 bands.
        pooler_output (`torch.Tensor` of shape `(N, hidden_sizes[-1])`):
            Embeddings: means of the feature map.
        logits (`torch.Tensor` of shape `(N, num_labels)`):
            Scores before the sigmoid. Several events may be heard at once.
    """

    feature_map: Tensor | None = None
    pooler_output: Tensor | None = None
    logits: Tensor | None = None


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros that TensorFlow's ``SAME`` puts before and after an axis, of which ``ceil(size / stride)`` are left."""
    zeros = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return zeros // 2, zeros - zeros // 2


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding ``SAME``."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` of shape `(N, C, H, W)` to `(N, C', ceil(H / stride), ceil(W / stride))`."""
        rows, columns = map(same_padding, x.shape[2:], self.kernel_size, self.stride)
        if rows[0] == rows[1] and columns[0] == columns[1]:  # by the convolution itself, without a copy
            return F.conv2d(x, self.weight, self.bias, self.stride, (rows[0], columns[0]), groups=self.groups)
        return F.conv2d(F.pad(x, (*columns, *rows)), self.weight, self.bias, self.stride, groups=self.groups)


class YamnetConv(nn.Module):
    """Convolution, batch norm without gamma, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = SameConv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.bn.register_parameter("weight", None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class YamnetSeparableConv(nn.Module):
    """A convolution of each channel by itself, and one of 1 x 1 over all channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.depthwise_conv = YamnetConv(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise_conv = YamnetConv(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class YamnetModel(CheckpointModel):
    """YAMNet with its classifier (AudioSet's 521 classes in the published weights)."""

    config_class = YamnetConfig
    base_model_prefix = "yamnet"
    main_input_name = "input_features"
    input_modalities = ("audio",)

    def __init__(self, config: YamnetConfig):
        super().__init__(config)
        widths, strides = config.hidden_sizes, config.strides
        self.layers = nn.Sequential(
            YamnetConv(1, widths[0], 3, strides[0]),
            *(YamnetSeparableConv(*sizes) for sizes in zip(widths[:-1], widths[1:], strides[1:], strict=True)),
        )
        self.classifier = nn.Linear(widths[-1], config.num_labels)
        self.post_init()

    def _make_form(self, dtype: torch.dtype) -> CheckpointModel:
        from .inference_yamnet import inference_form  # which imports this

        return inference_form(self, dtype)

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.01)
            init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def forward(self, input_features: Tensor, **kwargs) -> YamnetModelOutput:
        """Encode and classify log-mel spectrograms.

        Args:
            input_features (`torch.Tensor` of shape `(N, frames, num_mel_bins)`):
                Log-mel frames of [`YamnetFeatureExtractor`]; the weights were trained on ``num_frames`` of them.
            kwargs: Ignored.

        Returns:
            [`YamnetModelOutput`] with ``feature_map``, ``pooler_output`` and ``logits``.

        Raises:
            ValueError: For another shape, or no frames.
        """
        bins = self.config.num_mel_bins
        if input_features.dim() != 3 or input_features.shape[2] != bins or input_features.shape[1] < 1:
            raise ValueError(
                f"YAMNet needs input_features of shape (N, frames, {bins}) with 1 or more frames, got "
                f"{tuple(input_features.shape)}. YamnetFeatureExtractor makes them from a waveform at 16 kHz."
            )
        feature_map = self.layers(input_features.to(self.dtype).unsqueeze(1))
        embeddings = feature_map.mean(dim=(2, 3))
        return YamnetModelOutput(feature_map, embeddings, self.classifier(embeddings))


__all__ = ["YamnetModel"]
