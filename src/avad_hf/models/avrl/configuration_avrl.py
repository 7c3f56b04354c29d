"""Configuration of AVRL."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch.nn.functional as F
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import PreTrainedConfig

from avad_hf.models.detector import DetectorConfig, DetectorSpec
from avad_hf.models.resnet3d.configuration_resnet3d import ResNet3dConfig
from avad_hf.models.settings import LARGEST, Bounds
from avad_hf.models.vggish.configuration_vggish import VggishConfig

Fusion = Literal["concat", "concat_norm", "concat_scaled", "add", "low_level"]
Modality = Literal["audio_visual", "visual", "audio"]

# SHADE's classes; the paper gives them no numbers (section IV-B).
LABELS = ("arrest", "chase", "fight", "knockdown", "run", "shoot", "scatter", "normal1", "normal2")
NORMAL_LABELS = ("normal1", "normal2")
# Log-mel frames that VGGish's convolutions make one step of; fewer give nothing.
FRAMES_PER_STEP = 16


@strict
class AvrlConfig(DetectorConfig):
    r"""Architecture, classes and threshold of an AVRL detector (Gao et al., arXiv 2110.14862, section III).

    Args:
        video_config: Config of the 3D ResNet.
        audio_config: Config of VGGish; only its convolutions are used.
        fusion: How what is seen and what is heard are put together (IV-E): ``"concat"``, the paper's choice, one
            after the other; ``"concat_norm"``, with layer norm after it; ``"concat_scaled"``, with the sound's
            features times 10; ``"add"``, their sum; ``"low_level"``, the outer product of the sound's features as a
            fourth channel of every frame.
        modality: ``"audio_visual"``, or ``"visual"`` or ``"audio"`` alone (V-B); the other network is then not built,
            and `fusion` does not count.
        hidden_sizes: Widths of the two hidden layers of the classifier (Table I).
        frozen_video_stages: How many of the 3D ResNet's five parts keep their weights, from the input on: 1 for the
            stem, 5 for all of it. The paper trains everything.
        frozen_audio_stages: How many of VGGish's four groups of convolutions keep their weights, likewise.
        normal_labels: Classes that are no anomaly; the score is 1 minus their probability.

    Without labels of one's own (``id2label``, ``num_labels``) the classes are SHADE's nine.

    Raises:
        StrictDataclassClassValidationError: If the parts do not fit each other.
    """

    model_type = "avrl"
    card: ClassVar[str] = "avrl"
    summary: ClassVar[str] = "An AVRL detector."
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {
        "video_config": ResNet3dConfig,
        "audio_config": VggishConfig,
    }
    fusions: ClassVar[tuple[str, ...]] = get_args(Fusion)
    modalities: ClassVar[tuple[str, ...]] = get_args(Modality)
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["anomaly_logits"]
    bounds: ClassVar[Bounds] = {
        "hidden_sizes": (1, LARGEST),
        "frozen_video_stages": (0, 5),
        "frozen_audio_stages": (0, 4),
    }

    # Architecture
    video_config: dict[str, Any] | PreTrainedConfig | None = None
    audio_config: dict[str, Any] | PreTrainedConfig | None = None
    fusion: Fusion = "concat"
    modality: Modality = "audio_visual"
    hidden_sizes: list[int] | tuple[int, ...] = (512, 256)

    # Training
    frozen_video_stages: int = 0
    frozen_audio_stages: int = 0

    # Detection
    normal_labels: list[str] | tuple[str, ...] = NORMAL_LABELS

    def __post_init__(self, **kwargs):
        self._check_inherited(kwargs)
        for name, kind in self.sub_configs.items():
            sub_settings = getattr(self, name)
            if sub_settings is None or isinstance(sub_settings, dict):
                setattr(self, name, kind(**{k: v for k, v in (sub_settings or {}).items() if k != "model_type"}))
        if self.label2id:
            inverse = {int(number): name for name, number in self.label2id.items()}
            if self.id2label is not None and inverse != {int(k): name for k, name in self.id2label.items()}:
                raise ValueError(f"id2label {self.id2label} and label2id {self.label2id} contradict each other.")
            self.id2label = inverse
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = dict(enumerate(LABELS))
        super().__post_init__(**kwargs)
        # Whichever of the two was given, the other one follows; in the order of the numbers, which JSON does not keep.
        self.id2label = dict(sorted(self.id2label.items()))
        self.label2id = {name: index for index, name in self.id2label.items()}

    def describe(self) -> dict[str, str]:
        """What a card says of the architecture and the classes."""
        video = self.video_config
        depth = 2 + 2 * sum(video.depths)
        seen = f"a 3D ResNet-{depth} of {video.hidden_size} features (shortcuts of type {video.shortcut_type})"
        heard = f"VGGish's convolutions with {self.audio_config.hidden_sizes[-1]} features"
        parts = {
            "audio_visual": f"It sees and hears: {seen}, {heard}, fusion `{self.fusion}`.",
            "visual": f"It sees only: {seen}.",
            "audio": f"It hears only: {heard}.",
        }
        return {"architecture": parts[self.modality], "classes": ", ".join(self.id2label.values())}

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the classes always, which transformers leaves out where it takes them for its default."""
        return super().to_diff_dict() | {name: getattr(self, name) for name in ("id2label", "label2id")}

    def validate_architecture(self):
        """Check that both networks, the classes and the threshold fit each other."""
        video, audio = self.video_config, self.audio_config
        if len(self.hidden_sizes) != 2:
            raise ValueError(f"hidden_sizes needs two widths, got {list(self.hidden_sizes)}.")
        if video.num_channels != 3:
            raise ValueError(
                f"video_config.num_channels must be 3, got {video.num_channels}: the fourth channel of fusion "
                "'low_level' is added by the model."
            )
        if self.uses_both and self.fusion == "add" and video.hidden_size != audio.hidden_sizes[-1]:
            raise ValueError(
                f"Fusion 'add' needs features of one width, got {video.hidden_size} of the 3D ResNet and "
                f"{audio.hidden_sizes[-1]} of VGGish."
            )
        if self.uses_both and self.fusion == "low_level" and self.frozen_video_stages:
            raise ValueError(
                f"Fusion 'low_level' needs frozen_video_stages 0, got {self.frozen_video_stages}: the stem has to "
                "learn what the sound's channel means."
            )
        numbers, names = list(self.id2label), list(self.id2label.values())
        if sorted(map(int, numbers)) != list(range(len(numbers))):
            raise ValueError(f"Class numbers must run from 0 to {len(numbers) - 1}, got {numbers}.")
        if len(set(names)) < len(names):
            raise ValueError(f"Class names must differ, got {', '.join(names)}.")

    @property
    def detector_spec(self) -> DetectorSpec:
        """Classes of whole videos, or of windows of long ones, from its own networks."""
        return DetectorSpec(
            "AVRL",
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
    ) -> "AvrlConfig":
        """The classes of some videos: SHADE's nine where they are among these, in the order of names else."""
        labels = {row["label"]: row["anomaly"] for row in rows if row["label"] is not None}
        names = list(LABELS) if labels.keys() <= set(LABELS) else sorted(labels)
        normal = [name for name in names if not labels.get(name, name not in NORMAL_LABELS)]
        pixels = {name: recipe["processor"][name] for name in ("rescale_factor", "image_mean", "image_std")}
        defaults = {"video_config": pixels, "id2label": dict(enumerate(names)), "normal_labels": normal}
        return cls(**defaults | settings)

    @property
    def silence_notice(self) -> str | None:
        """That it hears nothing, and what comes of it."""
        if self.modality == "visual":
            return None
        hearing = "hears only: this result means nothing" if self.modality == "audio" else "hears zeros"
        return f"The video has no sound that can be decoded, and the detector {hearing}."

    def engine_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """A video without sound has no frames at all, of which the runtimes would compute nothing."""
        if "input_features" in inputs and "audio_frame_mask" in inputs:
            missing = max(0, FRAMES_PER_STEP - inputs["input_features"].shape[1])
            padded = {
                "input_features": F.pad(inputs["input_features"], (0, 0, 0, missing)),
                "audio_frame_mask": F.pad(inputs["audio_frame_mask"], (0, missing)),
            }
            return inputs | padded
        return inputs

    @property
    def uses_both(self) -> bool:
        """Whether sight and sound are fused."""
        return self.modality == "audio_visual"

    @property
    def normal_ids(self) -> list[int]:
        """Numbers of the normal classes.

        Raises:
            ValueError: If one of them is no class, or if not some classes are normal and others anomalous.
        """
        class_numbers = {name: index for index, name in self.id2label.items()}
        unknown = [name for name in self.normal_labels if name not in class_numbers]
        if unknown or not 0 < len(set(self.normal_labels)) < len(class_numbers):
            raise ValueError(
                f"normal_labels must name some of the classes ({', '.join(class_numbers)}), but not all of them; got "
                f"{', '.join(self.normal_labels) or 'none'}. Without them there is no anomaly score."
            )
        return sorted(class_numbers[name] for name in self.normal_labels)

    @property
    def fused_size(self) -> int:
        """Width of what the classifier gets."""
        visual, audio = self.video_config.hidden_size, self.audio_config.hidden_sizes[-1]
        if self.modality == "audio":
            return audio
        return visual + audio if self.uses_both and self.fusion.startswith("concat") else visual
