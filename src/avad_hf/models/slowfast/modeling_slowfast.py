"""SlowFast video encoder and classifier.

Attribute names are those of pytorchvideo's ``create_slowfast``, so that its checkpoints convert by a prefix rule:
``blocks.6.proj`` is ``proj``, every other ``blocks`` is ``slowfast.blocks`` (or ``blocks`` in the bare encoder).
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

from .configuration_slowfast import SlowFastConfig

# Temporal kernel of the first convolution of a bottleneck, by stage; the fast pathway has 3 in every stage.
SLOW_TEMPORAL_KERNELS = (1, 1, 3, 3)


@dataclass
class SlowFastModelOutput(ModelOutput):
    """What the encoder makes of a clip.

    Args:
        feature_map (`torch.Tensor` of shape `(B, hidden_size, h, w)`):
            Output of pytorchvideo's ``blocks.5`` with time squeezed; 2 x 9 cells for frames of 256 x 455 pixels.
        pooler_output (`torch.Tensor` of shape `(B, hidden_size)`):
            Mean of the feature map over its cells.
        hidden_states (`tuple` of `torch.Tensor`):
            On request: maps of the slow pathway after the stem and after each stage, what it got from the fast one
            included.
    """

    feature_map: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class SlowFastClassifierOutput(ModelOutput):
    """Class scores of a clip.

    Args:
        loss (`torch.Tensor` of shape `()`): Cross-entropy, where labels were given.
        logits (`torch.Tensor` of shape `(B, num_labels)`): Scores before softmax.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`SlowFastModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class SlowFastStem(CheckpointedModule):
    """Convolution, batch norm, ReLU and max pooling over space."""

    def __init__(self, in_channels: int, out_channels: int, temporal_kernel: int):
        super().__init__()
        self.conv = nn.Conv3d(
            in_channels,
            out_channels,
            kernel_size=(temporal_kernel, 7, 7),
            stride=(1, 2, 2),
            padding=(temporal_kernel // 2, 3, 3),
            bias=False,
        )
        self.norm = nn.BatchNorm3d(out_channels)
        self.pool = nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        return self.pool(F.relu(self.norm(self.conv(x)), inplace=True))


class SlowFastBottleneck(nn.Module):
    """The three convolutions of a residual block."""

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int, temporal_kernel: int, stride: int):
        super().__init__()
        self.conv_a = nn.Conv3d(
            in_channels,
            inner_channels,
            kernel_size=(temporal_kernel, 1, 1),
            padding=(temporal_kernel // 2, 0, 0),
            bias=False,
        )
        self.norm_a = nn.BatchNorm3d(inner_channels)
        self.conv_b = nn.Conv3d(
            inner_channels,
            inner_channels,
            kernel_size=(1, 3, 3),
            stride=(1, stride, stride),
            padding=(0, 1, 1),
            bias=False,
        )
        self.norm_b = nn.BatchNorm3d(inner_channels)
        self.conv_c = nn.Conv3d(inner_channels, out_channels, kernel_size=1, bias=False)
        self.norm_c = nn.BatchNorm3d(out_channels)
        self.norm_c.starts_at_zero = True

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm_a(self.conv_a(x)), inplace=True)
        x = F.relu(self.norm_b(self.conv_b(x)), inplace=True)
        return self.norm_c(self.conv_c(x))


class SlowFastResBlock(CheckpointedModule):
    """A bottleneck and its shortcut, which is a convolution in the first block of a stage."""

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        temporal_kernel: int,
        stride: int,
        is_first: bool,
    ):
        super().__init__()
        self.branch1_conv = self.branch1_norm = None
        if is_first:
            self.branch1_conv = nn.Conv3d(
                in_channels, out_channels, kernel_size=1, stride=(1, stride, stride), bias=False
            )
            self.branch1_norm = nn.BatchNorm3d(out_channels)
        self.branch2 = SlowFastBottleneck(in_channels, inner_channels, out_channels, temporal_kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.branch1_conv is None else self.branch1_norm(self.branch1_conv(x))
        return F.relu(shortcut + self.branch2(x), inplace=True)


class SlowFastResStage(nn.Module):
    """The residual blocks of one stage of one pathway."""

    def __init__(
        self,
        depth: int,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        temporal_kernel: int,
        stride: int,
    ):
        super().__init__()
        self.res_blocks = nn.ModuleList(
            SlowFastResBlock(
                in_channels if index == 0 else out_channels,
                inner_channels,
                out_channels,
                temporal_kernel,
                stride if index == 0 else 1,
                is_first=index == 0,
            )
            for index in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.res_blocks:
            x = block(x)
        return x


class SlowFastFusion(nn.Module):
    """Carries the fast pathway over to the slow one: a strided convolution, then concatenation on channels."""

    def __init__(self, config: SlowFastConfig, fast_channels: int):
        super().__init__()
        kernel = config.fusion_kernel_size
        self.conv_fast_to_slow = nn.Conv3d(
            fast_channels,
            2 * fast_channels,
            kernel_size=(kernel, 1, 1),
            stride=(config.slow_ratio, 1, 1),
            padding=(kernel // 2, 0, 0),
            bias=False,
        )
        self.norm = nn.BatchNorm3d(2 * fast_channels)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return torch.cat([slow, F.relu(self.norm(self.conv_fast_to_slow(fast)), inplace=True)], dim=1)


class SlowFastBlock(nn.Module):
    """One step of both pathways: the stem, or one stage, then the fusion (absent after the last stage)."""

    def __init__(self, slow: nn.Module, fast: nn.Module, fusion: SlowFastFusion | None):
        super().__init__()
        self.multipathway_blocks = nn.ModuleList([slow, fast])
        self.multipathway_fusion = fusion

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        slow, fast = self.multipathway_blocks[0](slow), self.multipathway_blocks[1](fast)
        return (slow if self.multipathway_fusion is None else self.multipathway_fusion(slow, fast)), fast


class SlowFastPreTrainedModel(VideoNetwork):
    """Initialisation and loading shared by encoder and classifier."""

    config_class = SlowFastConfig
    base_model_prefix = "slowfast"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ("SlowFastResBlock",)

    def _init_weights(self, module: nn.Module):
        # As pytorchvideo does: He initialisation, and residual branches that start as zero.
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.01)
            init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d):
            super()._init_weights(module)
            # transformers calls this for modules with parameters of their own only, so not for the bottleneck.
            if getattr(module, "starts_at_zero", False):
                init.zeros_(module.weight)


class SlowFastModel(SlowFastPreTrainedModel):
    """SlowFast without its classifier (pytorchvideo's ``slowfast_r50`` up to ``blocks.5``)."""

    def __init__(self, config: SlowFastConfig):
        super().__init__(config)
        slow, fast = config.stem_width, config.stem_width // config.fast_ratio
        blocks = [
            SlowFastBlock(
                SlowFastStem(config.num_channels, slow, temporal_kernel=1),
                SlowFastStem(config.num_channels, fast, temporal_kernel=5),
                SlowFastFusion(config, fast),
            )
        ]
        slow_in, fast_in = slow + 2 * fast, fast
        for stage, depth in enumerate(config.depths):
            slow_inner = config.stem_width * 2**stage
            fast_inner = slow_inner // config.fast_ratio
            slow_out, fast_out = 4 * slow_inner, 4 * fast_inner
            stride = 1 if stage == 0 else 2
            blocks.append(
                SlowFastBlock(
                    SlowFastResStage(depth, slow_in, slow_inner, slow_out, SLOW_TEMPORAL_KERNELS[stage], stride),
                    SlowFastResStage(depth, fast_in, fast_inner, fast_out, 3, stride),
                    SlowFastFusion(config, fast_out) if stage < 3 else None,
                )
            )
            slow_in, fast_in = slow_out + 2 * fast_out, fast_out
        self.blocks = nn.ModuleList(blocks)
        # Numbers, not an operation: other runtimes round linspace otherwise, and would see other frames.
        if config.slow_sampling == "stride":
            self.slow_frames = list(range(0, config.num_frames, config.slow_ratio))
        else:
            picked = torch.linspace(0, config.num_frames - 1, config.num_slow_frames, device="cpu")
            self.slow_frames = picked.long().tolist()
        self.post_init()

    def _make_form(self, dtype: torch.dtype) -> VideoNetwork:
        from .inference_slowfast import inference_form  # which imports this

        return inference_form(self, dtype)

    @network_forward
    def forward(self, pixel_values_videos: Tensor, output_hidden_states: bool | None = None) -> SlowFastModelOutput:
        """Encode clips of normalised frames.

        The slow pathway's frames are picked here, as the config's `slow_sampling` says.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, num_frames, num_channels, H, W)`):
                RGB frames, ``(x / 255 - 0.45) / 0.225``.
            output_hidden_states: Return the slow pathway's maps after the stem and after each stage.

        Returns:
            [`SlowFastModelOutput`].

        Raises:
            ValueError: For another shape, another number of frames, or frames too small for the pooling window.
        """
        config = self.config
        needed = f"(B, {config.num_frames}, {config.num_channels}, H, W)"
        if pixel_values_videos.dim() != 5 or pixel_values_videos.shape[1:3] != (
            config.num_frames,
            config.num_channels,
        ):
            raise ValueError(
                f"SlowFast needs pixel_values_videos of shape {needed}, got {tuple(pixel_values_videos.shape)}. "
                "AvacaProcessor cuts a video into such clips."
            )
        fast = pixel_values_videos.to(self.dtype).transpose(1, 2)
        slow = fast[:, :, self.slow_frames]
        states = []
        for block in self.blocks:
            slow, fast = block(slow, fast)
            if output_hidden_states:
                states.append(slow)
        if min(slow.shape[-2:]) < config.pool_size:
            smallest = 32 * (config.pool_size - 1) + 1
            raise ValueError(
                f"Frames of {pixel_values_videos.shape[-2]} x {pixel_values_videos.shape[-1]} pixels leave a map of "
                f"{slow.shape[-2]} x {slow.shape[-1]} cells, smaller than the pooling window of {config.pool_size}. "
                f"Scale frames so that the short side has at least {smallest} pixels."
            )
        # A mean over time and a 2-D pooling equal pytorchvideo's AvgPool3d, which has no bfloat16 kernel on CPU.
        pooled = [F.avg_pool2d(pathway.mean(dim=2), config.pool_size, stride=1) for pathway in (slow, fast)]
        feature_map = torch.cat(pooled, dim=1)
        return SlowFastModelOutput(
            feature_map=feature_map,
            pooler_output=feature_map.mean(dim=(-2, -1)),
            hidden_states=tuple(states) if output_hidden_states else None,
        )


class SlowFastForVideoClassification(SlowFastPreTrainedModel):
    """SlowFast with its linear classifier (Kinetics-400 in the published weights)."""

    def __init__(self, config: SlowFastConfig):
        super().__init__(config)
        self.slowfast = SlowFastModel(config)
        self.dropout = nn.Dropout(config.dropout)
        self.proj = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @network_forward
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> SlowFastClassifierOutput:
        """Classify clips of normalised frames.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, num_frames, num_channels, H, W)`):
                RGB frames, as for [`SlowFastModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): Class indices, for the loss.
            output_hidden_states: As for [`SlowFastModel`].

        Returns:
            [`SlowFastClassifierOutput`].
        """
        # pytorchvideo projects every cell and averages then; the projection is linear, so averaging first is equal.
        body = self.slowfast(pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.proj(self.dropout(body.pooler_output))
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return SlowFastClassifierOutput(loss=loss, logits=logits, hidden_states=body.hidden_states)


__all__ = ["SlowFastForVideoClassification", "SlowFastModel", "SlowFastPreTrainedModel"]
