"""3D ResNet of basic blocks: video encoder and classifier.

Attribute names are those of kenshohara/3D-ResNets-PyTorch, so that its checkpoints convert by a prefix rule.
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

from .configuration_resnet3d import ResNet3dConfig


@dataclass
class ResNet3dModelOutput(ModelOutput):
    """What the encoder makes of a video.

    Args:
        feature_map (`torch.Tensor` of shape `(B, hidden_size, t, h, w)`):
            Output of the last stage; 4 x 8 x 8 cells for 50 frames of 240 x 240 pixels.
        pooler_output (`torch.Tensor` of shape `(B, hidden_size)`):
            Mean of the feature map over its cells.
        hidden_states (`tuple` of `torch.Tensor`): On request: maps after the stem and after each stage.
    """

    feature_map: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class ResNet3dClassifierOutput(ModelOutput):
    """Class scores of a video.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): Cross-entropy, with labels.
        logits (`torch.Tensor` of shape `(B, num_labels)`): Scores before the softmax.
        hidden_states (`tuple` of `torch.Tensor`): On request: as of [`ResNet3dModelOutput`].
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class ResNet3dBasicBlock(CheckpointedModule):
    """Two convolutions and a shortcut around them."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, shortcut_type: str):
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(out_channels)
        self.conv2 = nn.Conv3d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(out_channels)
        self.stride, self.new_channels = stride, out_channels - in_channels
        self.downsample = None
        if (stride != 1 or self.new_channels) and shortcut_type == "B":
            self.downsample = nn.Sequential(
                nn.Conv3d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm3d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.computed(self._forward, x)

    def _forward(self, x: Tensor) -> Tensor:
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        residual = self.bn2(self.conv2(residual))
        return F.relu(self._shortcut(x) + residual, inplace=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            return self.downsample(x)
        # Type A. The original cuts the gradient off here (it concatenates `out.data`), by which the stages below a
        # change of size learn through the convolutions alone. What is computed is the same; the gradient goes through.
        if self.stride != 1:
            x = x[..., :: self.stride, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.new_channels)) if self.new_channels else x


class ResNet3dPreTrainedModel(VideoNetwork):
    """Initialisation and loading shared by encoder and classifier."""

    config_class = ResNet3dConfig
    base_model_prefix = "resnet3d"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ("ResNet3dBasicBlock",)

    def _init_weights(self, module: nn.Module):
        if isinstance(module, nn.Conv3d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=0.01)
            init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm3d):
            super()._init_weights(module)


class ResNet3dModel(CheckpointedModule, ResNet3dPreTrainedModel):
    """3D ResNet without its classifier, for videos of any length and size."""

    def __init__(self, config: ResNet3dConfig):
        super().__init__(config)
        width = config.stem_width
        self.conv1 = nn.Conv3d(config.num_channels, width, kernel_size=7, stride=(1, 2, 2), padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.maxpool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)
        channels = width
        for stage, depth in enumerate(config.depths):
            out_channels, blocks = width * 2**stage, []
            for index in range(depth):
                stride = 2 if index == 0 and stage > 0 else 1
                blocks.append(ResNet3dBasicBlock(channels, out_channels, stride, config.shortcut_type))
                channels = out_channels
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.post_init()

    def _make_form(self, dtype: torch.dtype) -> VideoNetwork:
        from .inference_resnet3d import inference_form  # which imports this

        return inference_form(self, dtype)

    @property
    def stages(self) -> list[list[nn.Module]]:
        """The stem and the four stages, from the input on: what can be frozen one by one."""
        return [[self.conv1, self.bn1], *([getattr(self, f"layer{stage}")] for stage in range(1, 5))]

    @network_forward
    def forward(self, pixel_values_videos: Tensor, output_hidden_states: bool | None = None) -> ResNet3dModelOutput:
        """Encode normalised videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, F, num_channels, H, W)`):
                RGB frames, normalised as the config says. Any number of frames and pixels, 1 or more.
            output_hidden_states: Return the maps after the stem and after each stage.

        Returns:
            [`ResNet3dModelOutput`].

        Raises:
            ValueError: For another shape.
        """
        shape, channels = tuple(pixel_values_videos.shape), self.config.num_channels
        if len(shape) != 5 or shape[2] != channels or 0 in shape:
            raise ValueError(
                f"The 3D ResNet needs pixel_values_videos of shape (B, F, {channels}, H, W), got {shape}. "
                "AvrlProcessor makes them from videos."
            )
        x = self.computed(self._stem, pixel_values_videos.to(self.dtype).transpose(1, 2))
        states = [x] if output_hidden_states else []  # otherwise its memory is free for what follows
        for stage in self.stages[1:]:
            x = stage[0](x)
            if output_hidden_states:
                states.append(x)
        return ResNet3dModelOutput(
            feature_map=x,
            pooler_output=x.mean(dim=(2, 3, 4)),
            hidden_states=tuple(states) if output_hidden_states else None,
        )

    def _stem(self, x: Tensor) -> Tensor:
        return self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))


class ResNet3dForVideoClassification(ResNet3dPreTrainedModel):
    """3D ResNet with its linear classifier (Kinetics in the published weights)."""

    def __init__(self, config: ResNet3dConfig):
        super().__init__(config)
        self.resnet3d = ResNet3dModel(config)
        self.fc = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @network_forward
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> ResNet3dClassifierOutput:
        """Classify normalised videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, F, num_channels, H, W)`): As for [`ResNet3dModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): Class indices, for the loss.
            output_hidden_states: As for [`ResNet3dModel`].

        Returns:
            [`ResNet3dClassifierOutput`].
        """
        body = self.resnet3d(pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.fc(body.pooler_output)
        loss = None if labels is None else F.cross_entropy(logits.float(), labels)
        return ResNet3dClassifierOutput(loss=loss, logits=logits, hidden_states=body.hidden_states)


__all__ = ["ResNet3dForVideoClassification", "ResNet3dModel", "ResNet3dPreTrainedModel"]
