"""Configuration of X3D."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedModel

from avad_hf.models.checkpoints import CheckpointConfig
from avad_hf.models.encoder import Encoder
from avad_hf.models.settings import LARGEST, Bounds

# The published sizes: what each was trained on, and the side of its map then. XS, S and M have weights of one shape.
SIZES: dict[str, dict[str, Any]] = {
    "xs": {"num_frames": 4, "frame_step": 12, "short_side": 160, "pool_size": 5, "depths": (3, 5, 11, 7)},
    "s": {"num_frames": 13, "frame_step": 6, "short_side": 160, "pool_size": 5, "depths": (3, 5, 11, 7)},
    "m": {"num_frames": 16, "frame_step": 5, "short_side": 224, "pool_size": 7, "depths": (3, 5, 11, 7)},
    "l": {"num_frames": 16, "frame_step": 5, "short_side": 312, "pool_size": 10, "depths": (5, 10, 25, 15)},
}
# The stem and each of the four stages halve height and width.
PIXELS_A_CELL = 2**5


@strict
class X3dConfig(CheckpointConfig):
    r"""Architecture of an X3D network; the defaults are X3D-M as trained on Kinetics-400.

    `X3dConfig.from_size` gives the other published sizes.

    Args:
        num_channels: Colour channels of a frame.
        num_frames: Frames of a clip.
        frame_step: Frames of a video from one frame of a clip to the next, as the weights were trained.
        short_side: Short side of the frames in pixels, as the weights were trained. The authors test XS and S at 182,
            M at 256 and L at 356; frames of any size from `smallest_side` on can be read.
        widths: Channels of each of the four stages; the stem has those of the first.
        depths: Residual blocks in each of the four stages.
        bottleneck_factor: A block has so many times its stage's channels within.
        se_ratio: In every second block of a stage, from the first on, channels are weighed by a network that has this
            part of them within; 0 for none.
        hidden_size: Channels of the feature map.
        pool_size: Side of the square window, in cells of the last stage's map, that is averaged at stride 1.
        dropout: Probability of dropout before the classifier.

    Raises:
        StrictDataclassClassValidationError: For numbers that no network can have.
    """

    model_type = "x3d"
    summary: ClassVar[str] = "An X3D video encoder."
    pipeline_tag: ClassVar[str] = "video-classification"
    # What the processor is told is in its own part of a recipe.
    idle_settings: ClassVar[tuple[str, ...]] = ("frame_step", "short_side", "dropout")

    bounds: ClassVar[Bounds] = {
        "num_channels": (1, 1024),
        "num_frames": (1, 1024),  # a clip of so many frames at 256 x 455 has 360 MB
        "frame_step": (1, 1024),
        "short_side": (1, 8192),
        "widths": (1, 65536),
        "depths": (1, 256),
        "bottleneck_factor": (0, 64),
        "se_ratio": (0, 1),
        "hidden_size": (1, LARGEST),
        "pool_size": (1, 1024),
        "dropout": (0, 1),
    }

    num_channels: int = 3
    num_frames: int = 16
    frame_step: int = 5
    short_side: int = 224
    widths: list[int] | tuple[int, ...] = (24, 48, 96, 192)
    depths: list[int] | tuple[int, ...] = (3, 5, 11, 7)
    bottleneck_factor: float | int = 2.25
    se_ratio: float | int = 0.0625
    hidden_size: int = 2048
    pool_size: int = 7
    dropout: float | int = 0.5

    def __post_init__(self, **kwargs):
        if self.id2label is None:
            kwargs.setdefault("num_labels", 400)
        super().__post_init__(**kwargs)

    @classmethod
    def from_size(cls, size: str, **settings: Any) -> "X3dConfig":
        """The config of a published size.

        Args:
            size: ``"xs"``, ``"s"``, ``"m"`` or ``"l"``.
            settings: What is to be otherwise.

        Raises:
            ValueError: For another size.
        """
        if size not in SIZES:
            raise ValueError(f"X3D has the sizes {', '.join(SIZES)}, got {size!r}.")
        return cls(**SIZES[size] | settings)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the classes always, which transformers leaves out where there are two."""
        return super().to_diff_dict() | {name: getattr(self, name) for name in ("id2label", "label2id")}

    def validate_architecture(self):
        """Check that there are four stages, some channels are left, and the window fits the frames."""
        for name in ("widths", "depths"):
            values = getattr(self, name)
            if len(values) != 4:
                raise ValueError(f"{name} needs four numbers, one a stage, 1 or more each; got {list(values)}.")
        if int(self.bottleneck_factor * min(self.widths)) < 1:
            raise ValueError(
                f"bottleneck_factor {self.bottleneck_factor} leaves no channel of a stage of {min(self.widths)}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}.")
        if self.short_side < self.smallest_side:
            raise ValueError(
                f"pool_size {self.pool_size} needs a short_side of {self.smallest_side} or more, got "
                f"{self.short_side}."
            )

    def as_encoder(self, network: PreTrainedModel) -> Encoder:
        """The frozen encoder of a network with this config."""
        from .encoder_x3d import X3dEncoder

        return X3dEncoder(network)

    @property
    def inner_widths(self) -> tuple[int, ...]:
        """Channels within the blocks of each stage."""
        return tuple(int(self.bottleneck_factor * width) for width in self.widths)

    def squeezed(self, width: int) -> int | None:
        """Channels within the network that weighs `width` channels: the nearest multiple of 8 to `se_ratio` of them.

        It is the next multiple where the nearest is less than nine tenths; ``None`` where there is no such network.
        """
        if not self.se_ratio:
            return None
        wanted = self.se_ratio * width
        nearest = max(8, int(wanted + 4) // 8 * 8)
        return nearest + 8 if nearest < 0.9 * wanted else nearest

    @property
    def smallest_side(self) -> int:
        """Pixels that height and width need at least for the pooling window."""
        return PIXELS_A_CELL * (self.pool_size - 1) + 1

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of frames of a size, which is `smallest_side` or more."""
        rows, columns = (-(-side // PIXELS_A_CELL) - self.pool_size + 1 for side in (height, width))
        return rows, columns
