"""X3D video encoder and classifier.

Attribute names are those of pytorchvideo's ``create_x3d``, so that its checkpoints convert by a prefix rule:
``blocks.5.proj`` is ``proj``, everything else is ``x3d.blocks`` (or ``blocks`` in the bare encoder).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.encoder import VideoNetwork
from avad_hf.models.forwarding import network_forward

from .configuration_x3d import X3dConfig


@dataclass
class X3dModelOutput(ModelOutput):
    """What the encoder makes of a clip.

    Args:
        feature_map (`torch.Tensor` of shape `(B, hidden_size, h, w)`):
            Output of pytorchvideo's ``blocks.5.pool`` with time squeezed, 0 or more; 2 x 9 cells for frames of
            256 x 455 pixels and the window of X3D-M.
        pooler_output (`torch.Tensor` of shape `(B, hidden_size)`):
            Mean of the feature map over its cells.
        hidden_states (`tuple` of `torch.Tensor`): On request: maps after the stem and after each stage.
    """

    feature_map: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class X3dClassifierOutput(ModelOutput):
    """Class scores of a clip.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Cross-entropy, where labels were given.
        logits (`torch.Tensor` of shape `(B, num_labels)`): Scores before softmax.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`X3dModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class X3dStemConv(nn.Module):
    """A convolution over space, then one over time in each channel alone.

    pytorchvideo calls the first ``conv_t`` and the second ``conv_xy``.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv_t = nn.Conv3d(
            in_channels, out_channels, kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False
        )
        self.conv_xy = nn.Conv3d(
            out_channels, out_channels, kernel_size=(5, 1, 1), padding=(2, 0, 0), groups=out_channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_xy(self.conv_t(x))


class X3dStem(CheckpointedModule):
    """Both convolutions, batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = X3dStemConv(in_channels, out_channels)
        self.norm = nn.BatchNorm3d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)), inplace=True)


class X3dSqueezeExcitation(nn.Module):
    """Weighs each channel between 0 and 1 by the means of all."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv3d(channels, squeezed, kernel_size=1),
            nn.ReLU(),
            nn.Conv3d(squeezed, channels, kernel_size=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.block(x.mean(dim=(2, 3, 4), keepdim=True))


class X3dBottleneck(nn.Module):
    """The three convolutions of a residual block; the middle one sees each channel alone.

    Args:
        in_channels: Channels of the input.
        inner_channels: Channels of the middle convolution.
        out_channels: Channels of the output.
        stride: Stride of the middle convolution over space.
        squeezed: Channels within the squeeze and excitation; ``None`` for a block without one.
    """

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int, stride: int, squeezed: int | None):
        super().__init__()
        self.conv_a = nn.Conv3d(in_channels, inner_channels, kernel_size=1, bias=False)
        self.norm_a = nn.BatchNorm3d(inner_channels)
        self.conv_b = nn.Conv3d(
            inner_channels,
            inner_channels,
            kernel_size=3,
            stride=(1, stride, stride),
            padding=1,
            groups=inner_channels,
            bias=False,
        )
        weighing = nn.Identity() if squeezed is None else X3dSqueezeExcitation(inner_channels, squeezed)
        self.norm_b = nn.Sequential(nn.BatchNorm3d(inner_channels), weighing)
        self.conv_c = nn.Conv3d(inner_channels, out_channels, kernel_size=1, bias=False)
        self.norm_c = nn.BatchNorm3d(out_channels)
        self.norm_c.starts_at_zero = True

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_a(self.conv_a(x)), inplace=True)
        x = F.silu(self.norm_b(self.conv_b(x)), inplace=True)
        return self.norm_c(self.conv_c(x))


class X3dResBlock(CheckpointedModule):
    """A bottleneck and its shortcut, which is a convolution where the size changes.

    Where the number of channels stays, as in the first stage, no batch norm follows it.
    """

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int, stride: int, squeezed: int | None):
        super().__init__()
        self.branch1_conv = self.branch1_norm = None
        if stride != 1 or in_channels != out_channels:
            self.branch1_conv = nn.Conv3d(
                in_channels, out_channels, kernel_size=1, stride=(1, stride, stride), bias=False
            )
        if in_channels != out_channels:
            self.branch1_norm = nn.BatchNorm3d(out_channels)
        self.branch2 = X3dBottleneck(in_channels, inner_channels, out_channels, stride, squeezed)

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.branch1_conv is None else self.branch1_conv(x)
        if self.branch1_norm is not None:
            shortcut = self.branch1_norm(shortcut)
        return F.relu(shortcut + self.branch2(x), inplace=True)


class X3dResStage(nn.Module):
    """The residual blocks of one stage; the first halves height and width."""

    def __init__(self, config: X3dConfig, stage: int):
        super().__init__()
        before, width, inner = config.widths[max(stage - 1, 0)], config.widths[stage], config.inner_widths[stage]
        squeezed = config.squeezed(inner)
        self.res_blocks = nn.ModuleList(
            X3dResBlock(
                before if index == 0 else width,
                inner,
                width,
                stride=2 if index == 0 else 1,
                squeezed=squeezed if index % 2 == 0 else None,
            )
            for index in range(config.depths[stage])
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.res_blocks:
            x = block(x)
        return x


class X3dProjectedPool(nn.Module):
    """More channels, the mean over time and over windows, and more channels again."""

    def __init__(self, config: X3dConfig):
        super().__init__()
        inner = config.inner_widths[-1]
        self.pre_conv = nn.Conv3d(config.widths[-1], inner, kernel_size=1, bias=False)
        self.pre_norm = nn.BatchNorm3d(inner)
        self.pool_size = config.pool_size
        self.post_conv = nn.Conv3d(inner, config.hidden_size, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.pre_norm(self.pre_conv(x)), inplace=True)
        # A mean over time and a 2-D pooling equal pytorchvideo's AvgPool3d, which has no bfloat16 kernel on CPU.
        x = F.avg_pool2d(x.mean(dim=2), self.pool_size, stride=1)
        return F.relu(self.post_conv(x.unsqueeze(2)), inplace=True).squeeze(2)


class X3dHead(nn.Module):
    """pytorchvideo's last block without its classifier."""

    def __init__(self, config: X3dConfig):
        super().__init__()
        self.pool = X3dProjectedPool(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


class X3dPreTrainedModel(VideoNetwork):
    """Initialisation and loading shared by encoder and classifier."""

    config_class = X3dConfig
    base_model_prefix = "x3d"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ("X3dResBlock",)

    def _init_weights(self, module: nn.Module):
        # As pytorchvideo does: He initialisation, and residual branches that start as zero.
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.01)
            init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d):
            super()._init_weights(module)
            # transformers calls this for modules with parameters of their own only, so not for the bottleneck.
            if getattr(module, "starts_at_zero", False):
                init.zeros_(module.weight)


class X3dModel(X3dPreTrainedModel):
    """X3D without its classifier (pytorchvideo's ``x3d_m`` up to ``blocks.5.pool``)."""

    def __init__(self, config: X3dConfig):
        super().__init__(config)
        self.blocks = nn.ModuleList(
            [
                X3dStem(config.num_channels, config.widths[0]),
                *(X3dResStage(config, stage) for stage in range(4)),
                X3dHead(config),
            ]
        )
        self.post_init()

    def _make_form(self, dtype: torch.dtype) -> VideoNetwork:
        from .inference_x3d import inference_form  # which imports this

        return inference_form(self, dtype)

    @network_forward
    def forward(self, pixel_values_videos: Tensor, output_hidden_states: bool | None = None) -> X3dModelOutput:
        """Encode clips of normalised frames.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, num_frames, num_channels, H, W)`):
                RGB frames, ``(x / 255 - 0.45) / 0.225``.
            output_hidden_states: Return the maps after the stem and after each stage.

        Returns:
            [`X3dModelOutput`].

        Raises:
            ValueError: For another shape, another number of frames, or frames too small for the pooling window.
        """
        config, shape = self.config, tuple(pixel_values_videos.shape)
        if len(shape) != 5 or shape[1:3] != (config.num_frames, config.num_channels):
            raise ValueError(
                f"X3D needs pixel_values_videos of shape (B, {config.num_frames}, {config.num_channels}, H, W), got "
                f"{shape}. AvacaProcessor cuts a video into such clips."
            )
        if min(shape[-2:]) < config.smallest_side:
            raise ValueError(
                f"Frames of {shape[-2]} x {shape[-1]} pixels leave a map that is smaller than the pooling window of "
                f"{config.pool_size} cells. Scale frames so that the short side has at least {config.smallest_side} "
                "pixels."
            )
        x = pixel_values_videos.to(self.dtype).transpose(1, 2)
        *stages, head = self.blocks
        states = []
        for stage in stages:
            x = stage(x)
            if output_hidden_states:
                states.append(x)
        feature_map = head(x)
        return X3dModelOutput(
            feature_map=feature_map,
            pooler_output=feature_map.mean(dim=(-2, -1)),
            hidden_states=tuple(states) if output_hidden_states else None,
        )


class X3dForVideoClassification(X3dPreTrainedModel):
    """X3D with its linear classifier (Kinetics-400 in the published weights)."""

    def __init__(self, config: X3dConfig):
        super().__init__(config)
        self.x3d = X3dModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.proj = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @network_forward
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> X3dClassifierOutput:
        """Classify clips of normalised frames.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, num_frames, num_channels, H, W)`):
                RGB frames, as for [`X3dModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): Class indices, for the loss.
            output_hidden_states: As for [`X3dModel`].

        Returns:
            [`X3dClassifierOutput`].
        """
        # pytorchvideo projects every cell, and averages what softmax makes of each. These are scores before softmax,
        # and the projection is linear, so the mean comes first. Of frames with one cell both give the same classes.
        body = self.x3d(pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.proj(self.dropout(body.pooler_output))
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return X3dClassifierOutput(loss=loss, logits=logits, hidden_states=body.hidden_states)


__all__ = ["X3dForVideoClassification", "X3dModel", "X3dPreTrainedModel"]
