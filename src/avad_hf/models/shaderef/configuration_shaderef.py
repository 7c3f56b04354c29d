"""Configuration of SHADE's references."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import PreTrainedConfig

from avad_hf.models.avrl.configuration_avrl import LABELS, NORMAL_LABELS, AvrlConfig
from avad_hf.models.detector import DetectorConfig, DetectorSpec
from avad_hf.models.resnet3d.configuration_resnet3d import ResNet3dConfig
from avad_hf.models.settings import LARGEST, Bounds

Kind = Literal["mlp", "lstm", "lrcn", "resnet3d"]
# As Table II of the AVRL paper calls them.
TITLES = {"mlp": "MLP", "lstm": "LSTM", "lrcn": "LRCN", "resnet3d": "3D ResNet"}


@strict
class ShaderefConfig(DetectorConfig):
    r"""Architecture, classes and threshold of a network that AVRL was compared with (arXiv 2110.14862, Table II).

    The paper names these networks and says no more of them. What is chosen here: all see the same frames as AVRL, and
    a single linear layer names the class. "N3D ResNet", the fifth of them, is not here: neither that paper nor the
    abstract of SHADE's own (doi 10.1016/j.neucom.2021.01.031) says how it is built.

    Args:
        kind: ``"mlp"``: every frame is scaled down to a small grid, and the pixels of all frames go through two
            hidden layers together. ``"lstm"``: the grid of every frame goes through one layer, and the frames through
            an LSTM. ``"lrcn"``: the same with a small 2-D network in place of the grid (Donahue et al., arXiv
            1411.4389). ``"resnet3d"``: a 3D ResNet.
        video_config: Config of the 3D ResNet; not read by the other kinds.
        num_frames: Frames of a video; the MLP needs exactly so many.
        grid_size: Rows and columns that frames are scaled down to, of the MLP and the LSTM.
        cnn_sizes: Channels of the convolutions that the LRCN sees each frame by.
        hidden_sizes: Widths of the two hidden layers of the MLP; of the LSTM and the LRCN, width of a frame's vector
            and of the LSTM. Those of the classifier of AVRL.
        normal_labels: Classes that are no anomaly; the score is 1 minus their probability.

    Without labels of one's own (``id2label``, ``num_labels``) the classes are SHADE's nine.

    Raises:
        StrictDataclassClassValidationError: If the parts do not fit each other.
    """

    model_type = "shaderef"
    summary: ClassVar[str] = "A detector of event classes from frames alone, one of SHADE's references."
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {"video_config": ResNet3dConfig}
    kinds: ClassVar[tuple[str, ...]] = get_args(Kind)
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["anomaly_logits"]
    bounds: ClassVar[Bounds] = {
        "num_frames": (1, 1024),  # as of the processor
        "grid_size": (1, 256),
        "cnn_sizes": (1, 4096),
        "hidden_sizes": (1, LARGEST),
    }

    # Architecture
    kind: Kind = "resnet3d"
    video_config: dict[str, Any] | PreTrainedConfig | None = None
    num_frames: int = 50
    grid_size: list[int] | tuple[int, ...] = (16, 16)
    cnn_sizes: list[int] | tuple[int, ...] = (32, 64, 128, 256)
    hidden_sizes: list[int] | tuple[int, ...] = (512, 256)

    # Detection
    normal_labels: list[str] | tuple[str, ...] = NORMAL_LABELS

    def __post_init__(self, **kwargs):
        self._check_inherited(kwargs)
        if self.video_config is None or isinstance(self.video_config, dict):
            settings = {name: value for name, value in (self.video_config or {}).items() if name != "model_type"}
            self.video_config = ResNet3dConfig(**settings)
        if self.label2id and self.id2label is None:
            self.id2label = {int(number): name for name, number in self.label2id.items()}
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = dict(enumerate(LABELS))
        super().__post_init__(**kwargs)
        # In the order of the numbers, which JSON does not keep.
        self.id2label = dict(sorted(self.id2label.items()))
        self.label2id = {name: number for number, name in self.id2label.items()}

    def describe(self) -> dict[str, Any]:
        """What a card says of the architecture and the classes, and that it does not hear."""
        return {
            "architecture": f"A reference of AVRL's on SHADE: {TITLES[self.kind]}.",
            "classes": ", ".join(self.id2label.values()),
            "hears": False,
        }

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the classes always, which transformers leaves out where it takes them for its default."""
        return super().to_diff_dict() | {name: getattr(self, name) for name in ("id2label", "label2id")}

    def validate_architecture(self):
        """Check that the sizes and the classes fit each other."""
        for name in ("grid_size", "hidden_sizes"):
            if len(getattr(self, name)) != 2:
                raise ValueError(f"{name} needs two numbers, got {list(getattr(self, name))}.")
        if self.video_config.num_channels != 3:
            raise ValueError(f"video_config.num_channels must be 3, got {self.video_config.num_channels}.")
        numbers, names = list(self.id2label), list(self.id2label.values())
        if sorted(map(int, numbers)) != list(range(len(numbers))):
            raise ValueError(f"Class numbers must run from 0 to {len(numbers) - 1}, got {numbers}.")
        if len(set(names)) < len(names):
            raise ValueError(f"Class names must differ, got {', '.join(names)}.")

    @property
    def detector_spec(self) -> DetectorSpec:
        """Classes of whole videos, or of windows of long ones, from their frames."""
        return DetectorSpec(
            TITLES[self.kind],
            reads="videos",
            objective="classes",
            normal_labels=tuple(self.normal_labels),
            scenes=("crowd",),
        )

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "ShaderefConfig":
        """The classes and the frames of some videos; the classes as of AVRL."""
        like = AvrlConfig.for_data(item, rows, recipe)
        defaults = {
            "video_config": like.video_config,
            "num_frames": len(item["pixel_values_videos"]),
            "id2label": like.id2label,
            "normal_labels": like.normal_labels,
        }
        return cls(**defaults | settings)

    # Class numbers by the same rule, from `id2label` and `normal_labels` alone.
    normal_ids = AvrlConfig.normal_ids

    @property
    def hidden_size(self) -> int:
        """Width of what the classifier gets."""
        return self.video_config.hidden_size if self.kind == "resnet3d" else self.hidden_sizes[1]


__all__ = ["TITLES", "ShaderefConfig"]
