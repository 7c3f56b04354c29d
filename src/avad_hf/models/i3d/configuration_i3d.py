"""Configuration of I3D."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedModel

from avad_hf.models.checkpoints import CheckpointConfig
from avad_hf.models.encoder import Encoder
from avad_hf.models.settings import Bounds

# Five layers halve height and width, each rounded up.
PIXELS_A_CELL = 2**5


@strict
class I3dConfig(CheckpointConfig):
    r"""Settings of I3D for colour frames (Carreira and Zisserman, 2017); the layers are always the published ones.

    Args:
        num_frames: Frames of a clip. Any number will do: the authors trained on 64, detectors of anomalies mostly use
            16, and 32 are the clips of this library's detectors.
        frame_step: Frames of a video from one frame of a clip to the next, as the weights were trained.
        short_side: Short side of the frames in pixels. The weights were trained on crops of 224 out of 256, and frames
            of any size can be read. By folds of real recordings whole pictures of 256 did better than of 224, and than
            those squeezed to 224 x 224 (`avad_hf.reproduce.cctv_fights`).
        dropout: Probability of dropout before the classifier.

    Raises:
        StrictDataclassClassValidationError: For numbers that no network can have.
    """

    model_type = "i3d"
    summary: ClassVar[str] = "An I3D video encoder."
    pipeline_tag: ClassVar[str] = "video-classification"
    # What the processor is told is in its own part of a recipe.
    idle_settings: ClassVar[tuple[str, ...]] = ("frame_step", "short_side", "dropout")
    # Channels of the feature map.
    hidden_size: ClassVar[int] = 1024

    bounds: ClassVar[Bounds] = {
        "num_frames": (1, 1024),  # a clip of so many frames at 256 x 455 has 360 MB
        "frame_step": (1, 1024),
        "short_side": (1, 8192),
        "dropout": (0, 1),
    }

    num_frames: int = 32
    frame_step: int = 1
    short_side: int = 256
    dropout: float | int = 0.5

    def __post_init__(self, **kwargs):
        if self.id2label is None:
            kwargs.setdefault("num_labels", 400)
        super().__post_init__(**kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the classes always, which transformers leaves out where there are two."""
        return super().to_diff_dict() | {name: getattr(self, name) for name in ("id2label", "label2id")}

    def validate_architecture(self):
        """Check that dropout leaves something."""
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}.")

    def as_encoder(self, network: PreTrainedModel) -> Encoder:
        """The frozen encoder of a network with this config."""
        from .encoder_i3d import I3dEncoder

        return I3dEncoder(network)

    @staticmethod
    def grid_of(height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of frames of a size."""
        return -(-height // PIXELS_A_CELL), -(-width // PIXELS_A_CELL)
