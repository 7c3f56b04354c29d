"""SHADE's references: event classes of crowd videos from frames alone."""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput

from avad_hf.models.avrl.modeling_avrl import AvrlForVideoClassification, AvrlOutput
from avad_hf.models.checkpointing import CheckpointedModule
from avad_hf.models.checkpoints import CheckpointModel
from avad_hf.models.detector import DetectorModel
from avad_hf.models.forwarding import network_forward
from avad_hf.models.normalisation import batch_norm
from avad_hf.models.resnet3d.modeling_resnet3d import ResNet3dModel
from avad_hf.models.tracing import Network

from .configuration_shaderef import ShaderefConfig


@dataclass
class ShaderefModelOutput(ModelOutput):
    """What the body makes of videos.

    Args:
        features (`torch.Tensor` of shape `(B, config.hidden_size)`): What the classifier gets.
        hidden_states (`tuple` of `torch.Tensor`): On request: what each layer gives, of shapes `(B, width)`,
            `(B, F, width)` or, of convolutions, `(B, C, F, h, w)`.
    """

    features: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class ShaderefMlp(CheckpointedModule):
    """The pixels of all frames, each scaled down to a grid, through two hidden layers."""

    def __init__(self, config: ShaderefConfig):
        super().__init__()
        first, second = config.hidden_sizes
        self.num_frames, self.grid_size = config.num_frames, tuple(config.grid_size)
        self.fc1 = nn.Linear(config.num_frames * 3 * math.prod(self.grid_size), first)
        self.fc2 = nn.Linear(first, second)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """What both layers give for frames of shape `(B, F, 3, H, W)`, of shape `(B, width)` each."""
        if frames.shape[1] != self.num_frames:
            raise ValueError(
                f"This MLP needs {self.num_frames} frames of each video, got {frames.shape[1]}. Set num_frames of its "
                "processor to that number, or train an MLP on these videos."
            )
        return self.computed(self._forward, frames)

    def _forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.fc1(on_grid(frames, self.grid_size).flatten(1)))
        return x, F.relu(self.fc2(x))


class ShaderefGrid(nn.Module):
    """The pixels of a frame, scaled down to a grid."""

    def __init__(self, config: ShaderefConfig):
        super().__init__()
        self.grid_size = tuple(config.grid_size)
        self.width = 3 * math.prod(self.grid_size)

    def forward(self, frames: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Vectors of frames of shape `(B, F, 3, H, W)`, of shape `(B, F, width)`, and no maps."""
        return on_grid(frames, self.grid_size), ()


class ShaderefCnn(CheckpointedModule):
    """A small 2-D network that sees one frame: convolutions of 3 x 3, each with batch norm and a max pool of 2.

    LRCN has CaffeNet, with weights trained on ImageNet, up to its layer fc6. This one begins without weights, so it is
    smaller, and has the mean of its map in place of the map. Strides and padding let it see frames of any size.
    """

    def __init__(self, config: ShaderefConfig):
        super().__init__()
        sizes = (3, *config.cnn_sizes)
        self.convs = nn.ModuleList(
            # Half the rows and columns from the first one on: everything after it costs a quarter.
            nn.Conv2d(before, after, kernel_size=3, stride=2 if index == 0 else 1, padding=1, bias=False)
            for index, (before, after) in enumerate(pairwise(sizes))
        )
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, config.cnn_sizes))
        self.width = config.cnn_sizes[-1]

    def forward(self, frames: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Vectors of frames of shape `(B, F, 3, H, W)`, of shape `(B, F, width)`, and the maps after each layer."""
        return self.computed(self._forward, frames)

    def _forward(self, frames: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        by_video, maps = frames, []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(batch_norm(norm, conv(by_video.flatten(0, 1))))
            x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1).unflatten(0, frames.shape[:2])
            maps.append(x.transpose(1, 2))
            by_video = maps[-1].transpose(1, 2)  # so that gradients go through what is returned
        return by_video.mean(dim=(3, 4)), tuple(maps)


class ShaderefRecurrent(CheckpointedModule):
    """A vector of each frame, one layer, and an LSTM over the frames, whose outputs are averaged.

    LRCN averages what it predicts at each frame; with a linear classifier that is the prediction of the average.
    """

    def __init__(self, config: ShaderefConfig):
        super().__init__()
        width, memory = config.hidden_sizes
        self.frame = ShaderefCnn(config) if config.kind == "lrcn" else ShaderefGrid(config)
        self.fc = nn.Linear(self.frame.width, width)
        # Step by step, since torch.compile takes no nn.LSTM.
        self.cell = nn.LSTMCell(width, memory)

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """What each layer gives for frames of shape `(B, F, 3, H, W)`; last the mean, of shape `(B, width)`."""
        vectors, maps = self.frame(frames)
        return *maps, *self.computed(self._over_frames, vectors)

    def _over_frames(self, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        vectors = F.relu(self.fc(vectors))
        memory = vectors.new_zeros(vectors.shape[0], self.cell.hidden_size)
        state, outputs = (memory, memory), []
        for vector in vectors.unbind(dim=1):
            state = self.cell(vector, state)
            outputs.append(state[0])
        outputs = torch.stack(outputs, dim=1)
        return vectors, outputs, outputs.mean(dim=1)


def on_grid(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames of shape `(B, F, 3, H, W)` scaled down by averaging, as vectors of shape `(B, F, 3 * rows * columns)`."""
    scaled = F.adaptive_avg_pool2d(frames.flatten(0, 1), size)
    return scaled.flatten(1).unflatten(0, frames.shape[:2])


class ShaderefPreTrainedModel(CheckpointModel):
    """Initialisation and loading shared by body and classifier."""

    config_class = ShaderefConfig
    base_model_prefix = "shaderef"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    # They see alone.
    unread_inputs = ("input_features", "audio_frame_mask", "clip_times", "has_audio")
    _no_split_modules = ("ResNet3dBasicBlock",)

    def _init_weights(self, module: nn.Module):
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            # torch's own, as of AVRL's classifier.
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            init.zeros_(module.bias)
        elif isinstance(module, nn.LSTMCell):
            bound = 1 / math.sqrt(module.hidden_size)  # torch's own
            for weight in module.parameters(recurse=False):
                init.uniform_(weight, -bound, bound)
        elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            super()._init_weights(module)


class ShaderefModel(ShaderefPreTrainedModel):
    """Body of a reference: what the frames of a video are before they are given a class.

    ```text
    mlp:      frames --> grid, all joined --------------> 512 --> 256
    lstm:     frames --> grid of each ----------> 512 --> LSTM 256 --> mean over frames
    lrcn:     frames --> 2-D convolutions of each --> 512 --> LSTM 256 --> mean over frames
    resnet3d: frames --> 3D ResNet --> mean over all --> 512
    ```
    """

    def __init__(self, config: ShaderefConfig):
        super().__init__(config)
        if config.kind == "resnet3d":
            self.network = ResNet3dModel(config.video_config)
        else:
            self.network = (ShaderefMlp if config.kind == "mlp" else ShaderefRecurrent)(config)
        self.post_init()

    @network_forward
    def forward(self, pixel_values_videos: Tensor, output_hidden_states: bool | None = None) -> ShaderefModelOutput:
        """Encode whole videos.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, F, 3, H, W)`):
                Normalised RGB frames; 50 of 240 x 240 pixels in the paper.
            output_hidden_states: Return what each layer gives.

        Returns:
            [`ShaderefModelOutput`].

        Raises:
            ValueError: For other shapes, another number of frames than an MLP reads, or values that are not finite.
        """
        shape = tuple(pixel_values_videos.shape)
        if len(shape) != 5 or shape[2] != 3 or 0 in shape:
            raise ValueError(
                f"A reference needs pixel_values_videos of shape (B, F, 3, H, W), got {shape}. AvrlProcessor makes "
                "them from videos."
            )
        # Tracing for export has no values to look at.
        if not torch.compiler.is_compiling() and not torch.isfinite(pixel_values_videos).all():
            raise ValueError(
                "pixel_values_videos holds NaN or infinite values. Read that video again, or leave it out."
            )
        frames = pixel_values_videos.to(self.dtype)
        if self.config.kind == "resnet3d":
            seen = self.network(frames, output_hidden_states=output_hidden_states, return_dict=True)
            return ShaderefModelOutput(features=seen.pooler_output, hidden_states=seen.hidden_states)
        states = self.network(frames)
        return ShaderefModelOutput(features=states[-1], hidden_states=states if output_hidden_states else None)


class ShaderefForVideoClassification(ShaderefPreTrainedModel, DetectorModel):
    """A reference with its single linear classifier, and the loss of AVRL (equation 4)."""

    def __init__(self, config: ShaderefConfig):
        super().__init__(config)
        # Classes may have been given while loading, when transformers sets only the one of the two.
        config.label2id = {name: number for number, name in config.id2label.items()}
        self.normal_ids = config.normal_ids  # refuses classes that give no anomaly score
        self.shaderef = ShaderefModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @network_forward
    def forward(
        self, pixel_values_videos: Tensor, labels: Tensor | None = None, output_hidden_states: bool | None = None
    ) -> AvrlOutput:
        """Classify whole videos and, with labels, compute the loss.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, F, 3, H, W)`): As for [`ShaderefModel`].
            labels (`torch.Tensor` of shape `(B,)`, *optional*): Class numbers, as in the config's ``id2label``.
            output_hidden_states: As for [`ShaderefModel`].

        Returns:
            [`~avad_hf.models.avrl.modeling_avrl.AvrlOutput`].

        Raises:
            ValueError: As [`ShaderefModel`], and for labels that are no class.
        """
        body = self.shaderef(pixel_values_videos, output_hidden_states=output_hidden_states, return_dict=True)
        logits = self.classifier(body.features.to(self.classifier.weight.dtype))
        anomalous_ids = [number for number in range(logits.shape[1]) if number not in self.normal_ids]
        scores = logits.float()
        anomaly_logits = scores[:, anomalous_ids].logsumexp(dim=1) - scores[:, self.normal_ids].logsumexp(dim=1)
        losses = {} if labels is None else self.losses(logits, labels)
        return AvrlOutput(logits=logits, anomaly_logits=anomaly_logits, hidden_states=body.hidden_states, **losses)

    # The output is AVRL's, and so is what is made of it.
    clip_outputs = AvrlForVideoClassification.clip_outputs
    scores = AvrlForVideoClassification.scores
    probabilities = AvrlForVideoClassification.probabilities
    losses = AvrlForVideoClassification.losses

    @torch.no_grad()
    def _make_form(self, dtype: torch.dtype) -> PreTrainedModel:
        """A copy whose body computes in a type; a 3D ResNet's with folded batch norms."""
        copied = copy.deepcopy(self).eval().requires_grad_(False)
        if self.config.kind == "resnet3d":
            copied.shaderef.network = self.shaderef.network.for_inference(dtype)
        copied.shaderef.to(dtype)
        return copied

    def begin_with(self, source: "ShaderefForVideoClassification") -> None:
        """Take the weights of a trained reference; of one with other classes the body alone."""
        if source.config.id2label == self.config.id2label:
            super().begin_with(source)
        else:
            self.shaderef.load_state_dict(source.shaderef.state_dict())

    def networks_to_export(self, processor: Any, batches: Sequence[Any]) -> Iterator[Network]:
        """All of it as one network, as `DetectorModel.networks_to_export` says."""
        name = self.main_input_name
        yield Network(
            folder="",
            source=self,
            model=self.for_inference(torch.float32),
            sample={name: torch.zeros(1, processor.num_frames, 3, *processor.size)},
            varying={name: ()},
            calibration=[{name: processor.encode(windows)[name]} for windows in batches],
            bound=0.03,
        )


__all__ = ["ShaderefForVideoClassification", "ShaderefModel", "ShaderefPreTrainedModel"]
