"""YAMNet audio encoder and classifier: MobileNet v1 on log-mel spectrograms.

Layers have the names of the TensorFlow original: ``layers.0`` is its ``layer1``, and so on.
"""

import math
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
from avad_hf.models.shared_windows import compute_rows

from .configuration_yamnet import YamnetConfig
from .feature_extraction_yamnet import YamnetFeatureExtractor

# The original's, not torch's 1e-5: where a channel hardly varies it decides what comes out.
NORM_EPS = 1e-4
# Layers that windows which overlap can share, nearly half of the time; after them the edges are much of a window.
STAGES = 4


# What its classifier can learn, by the names of transformers.
PROBLEM_TYPES = ("multi_label_classification", "single_label_classification")


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
        hidden_states (`tuple` of `torch.Tensor`): On request: maps after each convolution.
    """

    feature_map: Tensor | None = None
    pooler_output: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class YamnetClassifierOutput(ModelOutput):
    """Class scores of sounds.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): With labels, as the config's ``problem_type`` says.
        logits (`torch.Tensor` of shape `(B, num_labels)`):
            Scores before the sigmoid, whose sigmoid is the mean of the windows' probabilities; before the softmax, and
            the mean of the windows' scores, with ``problem_type="single_label_classification"``.
        hidden_states (`tuple` of `torch.Tensor`): On request: maps of all windows after each convolution.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Zeros that TensorFlow's ``SAME`` puts before and after an axis, of which ``ceil(size / stride)`` are left."""
    zeros = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return zeros // 2, zeros - zeros // 2


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding ``SAME``."""

    def forward(self, x: Tensor, pads_time: bool = True) -> Tensor:
        """Convolve `x` of shape `(N, C, H, W)` to `(N, C', ceil(H / stride), ceil(W / stride))`.

        Without `pads_time` the first of these axes has no padding.
        """
        rows, columns = map(same_padding, x.shape[2:], self.kernel_size, self.stride)
        rows = rows if pads_time else (0, 0)
        if rows[0] == rows[1] and columns[0] == columns[1]:  # by the convolution itself, without a copy
            return F.conv2d(x, self.weight, self.bias, self.stride, (rows[0], columns[0]), groups=self.groups)
        return F.conv2d(F.pad(x, (*columns, *rows)), self.weight, self.bias, self.stride, groups=self.groups)


class YamnetConv(CheckpointedModule):
    """Convolution, batch norm without gamma, and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = SameConv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.bn.register_parameter("weight", None)

    def forward(self, x: Tensor, pads_time: bool = True) -> Tensor:
        return self.computed(self._forward, x, pads_time)

    def _forward(self, x: Tensor, pads_time: bool) -> Tensor:
        return F.relu(self.bn(self.conv(x, pads_time)), inplace=True)


class YamnetSeparableConv(nn.Module):
    """A convolution of each channel by itself, and one of 1 x 1 over all channels."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.depthwise_conv = YamnetConv(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise_conv = YamnetConv(in_channels, out_channels, 1)

    def forward(self, x: Tensor, pads_time: bool = True) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x, pads_time))


class YamnetModel(CheckpointModel):
    """YAMNet with its classifier (AudioSet's 521 classes in the published weights)."""

    config_class = YamnetConfig
    base_model_prefix = "yamnet"
    main_input_name = "input_features"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    unread_inputs = ("audio_frame_mask",)

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

    @network_forward
    def forward(
        self, input_features: Tensor, output_hidden_states: bool | None = None, rows: Sequence[Tensor] | None = None
    ) -> YamnetModelOutput:
        """Encode and classify log-mel spectrograms.

        Args:
            input_features (`torch.Tensor` of shape `(N, frames, num_mel_bins)`):
                Log-mel frames of [`YamnetFeatureExtractor`]; the weights were trained on ``num_frames`` of them.
            output_hidden_states: Return the maps after each convolution.
            rows: For windows that overlap, as `compute_rows` takes them with blocks for the first layers.

        Returns:
            [`YamnetModelOutput`].

        Raises:
            ValueError: For another shape, or no frames.
        """
        if rows is not None:
            return compute_rows(self, input_features, rows)
        bins = self.config.num_mel_bins
        if input_features.dim() != 3 or input_features.shape[2] != bins or input_features.shape[1] < 1:
            raise ValueError(
                f"YAMNet needs input_features of shape (N, frames, {bins}) with 1 or more frames, got "
                f"{tuple(input_features.shape)}. YamnetFeatureExtractor makes them from a waveform at 16 kHz."
            )
        feature_map, states = input_features.to(self.dtype).unsqueeze(1), []
        for layer in self.layers:
            feature_map = layer(feature_map)
            if output_hidden_states:
                states.append(feature_map)
        return self._embed(feature_map, tuple(states) if output_hidden_states else None)

    def stage(self, number: int, blocks: Tensor) -> Tensor:
        """Compute one of the first layers, as of `avad_hf.models.shared_windows.StagedNetwork`."""
        return self.layers[number](blocks.to(self.dtype), pads_time=False)

    def after_stages(self, maps: Tensor) -> YamnetModelOutput:
        """Compute the outputs from the map of the last stage."""
        return self._embed(self.layers[STAGES:](maps), None)

    def _embed(self, feature_map: Tensor, hidden_states: tuple[Tensor, ...] | None) -> YamnetModelOutput:
        embeddings = feature_map.mean(dim=(2, 3))
        return YamnetModelOutput(
            feature_map=feature_map,
            pooler_output=embeddings,
            logits=self.classifier(embeddings),
            hidden_states=hidden_states,
        )


class YamnetForAudioClassification(YamnetModel):
    """YAMNet to train or to use as a classifier of sounds of any length; the same weights as [`YamnetModel`].

    A sound is heard in windows of ``num_frames`` that begin every half of that, as in the original. A shorter one is
    followed by silence.
    """

    unread_inputs = ()

    def __init__(self, config: YamnetConfig):
        super().__init__(config)
        if config.problem_type is None:  # AudioSet's sounds have several classes at once
            config.problem_type = "multi_label_classification"
        if config.problem_type not in PROBLEM_TYPES:
            raise ValueError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}, got '{config.problem_type}'.")

    @network_forward
    def forward(
        self,
        input_features: Tensor,
        audio_frame_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
    ) -> YamnetClassifierOutput:
        """Classify whole sounds.

        Args:
            input_features (`torch.Tensor` of shape `(B, frames, num_mel_bins)`): As for [`YamnetModel`].
            audio_frame_mask (`torch.Tensor` of shape `(B, frames)`):
                True for sound, which comes first, false for padding; all is sound if not given.
            labels (`torch.Tensor`, *optional*):
                Shape `(B, num_labels)`, 1 for each class that is heard and 0 for the others; with
                ``problem_type="single_label_classification"`` class numbers of shape `(B,)`.
            output_hidden_states: As for [`YamnetModel`].

        Returns:
            [`YamnetClassifierOutput`].

        Raises:
            ValueError: As [`YamnetModel`], and for labels that do not fit ``problem_type``.
        """
        if input_features.dim() != 3 or 0 in input_features.shape:
            raise ValueError(
                f"YAMNet needs input_features of shape (B, frames, {self.config.num_mel_bins}) with 1 or more frames, "
                f"got {tuple(input_features.shape)}. YamnetFeatureExtractor makes them from a waveform at 16 kHz."
            )
        size, hop = self.config.num_frames, max(1, self.config.num_frames // 2)
        batch, frames = input_features.shape[:2]
        missing = max(0, size - frames)
        silence = math.log(YamnetFeatureExtractor.log_offset)
        if audio_frame_mask is not None:  # what is padding sounds like silence, whatever it holds
            input_features = input_features.masked_fill(~audio_frame_mask.bool().unsqueeze(2), silence)
        windows = F.pad(input_features, (0, 0, 0, missing), value=silence)
        windows = windows.unfold(1, size, hop).transpose(2, 3)
        count = windows.shape[1]
        outputs = super().forward(windows.flatten(0, 1), output_hidden_states=output_hidden_states, return_dict=True)
        if audio_frame_mask is None:
            lengths = torch.full((batch,), frames, device=input_features.device)
        else:
            lengths = audio_frame_mask.sum(dim=1)
        number = torch.arange(count, device=input_features.device)
        is_heard = (number == 0) | (number * hop + size <= lengths.unsqueeze(1))
        weights = (is_heard / is_heard.sum(dim=1, keepdim=True)).unsqueeze(2)
        scores = outputs.logits.float().unflatten(0, (batch, count))
        if self.config.problem_type == "single_label_classification":
            logits = (scores * weights).sum(dim=1)
        else:  # in logarithms, which do not end at 1
            heard, unheard = (F.logsigmoid(sign * scores) + weights.log() for sign in (1, -1))
            logits = heard.logsumexp(dim=1) - unheard.logsumexp(dim=1)
        loss = None if labels is None else self._loss(logits, labels)
        return YamnetClassifierOutput(loss=loss, logits=logits, hidden_states=outputs.hidden_states)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        is_single = self.config.problem_type == "single_label_classification"
        needed = logits.shape[:1] if is_single else logits.shape
        if labels.shape != needed:
            raise ValueError(
                f"labels must be of shape {tuple(needed)} with problem_type '{self.config.problem_type}', got "
                f"{tuple(labels.shape)}. For one class a sound set "
                "config.problem_type = 'single_label_classification', for several 'multi_label_classification'."
            )
        return (
            F.cross_entropy(logits, labels)
            if is_single
            else F.binary_cross_entropy_with_logits(logits, labels.float())
        )


__all__ = ["STAGES", "YamnetForAudioClassification", "YamnetModel", "same_padding"]
