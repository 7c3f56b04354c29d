"""Configuration of the 3D ResNet."""

from typing import ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedModel

from avad_hf.models.checkpoints import CheckpointConfig
from avad_hf.models.encoder import Encoder
from avad_hf.models.settings import Bounds

ShortcutType = Literal["A", "B"]


@strict
class ResNet3dConfig(CheckpointConfig):
    r"""Architecture of a 3D ResNet of basic blocks (Hara et al., CVPR 2018); the defaults are 3D-ResNet-34.

    Args:
        num_channels: Channels of a frame.
        stem_width: Channels after the stem. Stages have 1, 2, 4 and 8 times as many, so that a small network for
            tests is one with a small `stem_width`.
        depths: Residual blocks in each of the four stages.
        shortcut_type: How a block's input reaches its output where the size changes: ``"A"``, every second value and
            zeros for the new channels, as in the weights published in 2018; ``"B"``, a convolution, as in those of
            2020.
        rescale_factor: What pixels from 0 to 255 are multiplied by before the weights see them: 1/255 for ``"B"``
            weights, 1 for ``"A"`` weights.
        image_mean: Subtracted then, by channel: Kinetics' for ``"B"`` weights; ActivityNet's 114.7748, 107.7354 and
            99.4750 for ``"A"`` weights.
        image_std: Divides then, by channel: 1 for ``"A"`` weights.

    Raises:
        StrictDataclassClassValidationError: If there are not four stages.
    """

    model_type = "resnet3d"
    summary: ClassVar[str] = "A 3D ResNet video encoder."
    pipeline_tag: ClassVar[str] = "video-classification"

    # What the published weights were trained on; any number can be read.
    num_frames: ClassVar[int] = 16
    bounds: ClassVar[Bounds] = {
        "num_channels": (1, 1024),
        "stem_width": (1, 4096),  # stages have up to 8 times as many
        "depths": (1, 256),
        "rescale_factor": (1e-6, 1e6),
        "image_mean": (-1e6, 1e6),
        "image_std": (1e-6, 1e6),
    }

    # Architecture
    num_channels: int = 3
    stem_width: int = 64
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    shortcut_type: ShortcutType = "B"

    # Input that the weights were trained on
    rescale_factor: float | int = 1 / 255
    image_mean: list[float | int] | tuple[float | int, ...] = (0.4345, 0.4051, 0.3775)
    image_std: list[float | int] | tuple[float | int, ...] = (0.2768, 0.2713, 0.2737)

    def as_encoder(self, network: PreTrainedModel) -> Encoder:
        """The frozen encoder of a network with this config."""
        from .encoder_resnet3d import ResNet3dEncoder

        return ResNet3dEncoder(network)

    def validate_architecture(self):
        """Check that there are four stages, and that pixels can be normalised."""
        for name in ("image_mean", "image_std"):
            if len(getattr(self, name)) != self.num_channels and self.num_channels == 3:
                raise ValueError(f"{name} needs three numbers, one a channel; got {list(getattr(self, name))}.")
        if len(self.depths) != 4:
            raise ValueError(f"depths needs four numbers, one a stage, 1 or more each; got {list(self.depths)}.")

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage."""
        return 8 * self.stem_width
