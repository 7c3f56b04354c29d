"""Settings that all detectors of normality have."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from avad_hf.models.detector import DetectorConfig, DetectorSpec
from avad_hf.models.settings import LARGEST, MOST_CLASSES, Bounds

Inputs = Literal["visual", "audio", "both"]
VisualPart = Literal["mean", "spread", "change"]

# A clip is called anomalous from here on where no rate of alarms was asked for: as rare as one of 1,000 normal clips.
ONE_IN_1000 = 0.75
ONE_IN_1000_ORIGIN = "as rare as one of 1,000 normal clips; not calibrated to a rate of alarms"


class NormalityConfig(DetectorConfig):
    r"""What the configs of all detectors of normality have. `avad_hf.fit` fills most of it in.

    Args:
        visual_size: Channels of the video encoder's feature map.
        audio_size: Width of the audio encoder's embeddings.
        inputs: What it reads: ``"visual"``, ``"audio"``, or ``"both"``, which are judged apart and joined by their
            tail probabilities.
        visual_parts: What is made of a clip's feature map, one after the other: ``"mean"`` over its cells,
            ``"spread"``, the standard deviation over them, and ``"change"``, the mean difference of each cell to the
            clip before, without sign.
        feature_grid: Rows and columns of the map.
        most_kept: How many normal clips are kept at most, with the features that they are compared by. Of more
            footage as many are drawn evenly: those whose hashed names come first, so that it does not matter in which
            order, or in how many parts, footage comes.
        num_kept: How many normal clips are kept.
        table_size: Bytes of the table of the videos that they are from.
        rows: How many rows of numbers the detector has of each sense, by the names of the features, where that
            depends on the footage.
        scene_column: What cameras are told apart by, where features are taken relative to their camera's mean: the
            manifest's column ``"scene"`` or ``"group"``; ``None`` for one mean of all footage.
        scene_rows: For each camera by its name the row of its mean. A camera that is not there has the common mean.
        num_classes: How many classes the encoders have of ``"seen"`` and of ``"heard"``, of which it knows how likely
            they are in normal footage; none if the detector was fitted without its processor.
        contamination: Which share of the footage may be anomalous: the clips that are least like the rest are left
            out, so many of them.
        seed: Seed of what is drawn while fitting.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    bounds: ClassVar[Bounds] = {
        "visual_size": (1, LARGEST),
        "audio_size": (1, LARGEST),
        "feature_grid": (1, 64),
        "most_kept": (50, LARGEST),
        "num_kept": (1, LARGEST),
        "table_size": (2, 1 << 28),  # JSON of a million videos
        "contamination": (0, 0.5),
        "seed": (0, 1 << 32),
    }

    visual_size: int = 2304
    audio_size: int = 128
    inputs: Inputs = "both"
    visual_parts: list[VisualPart] | tuple[VisualPart, ...] = ("mean",)
    feature_grid: list[int] | tuple[int, int] = (7, 13)

    # What it was fitted to
    most_kept: int = 8192
    num_kept: int = 1
    table_size: int = 2
    rows: dict[str, int] | None = None
    scene_column: Literal["scene", "group"] | None = None
    scene_rows: dict[str, int] | None = None
    num_classes: dict[str, int] | None = None
    contamination: float | int = 0.0
    seed: int = 0

    threshold: float | int = ONE_IN_1000

    @property
    def widths(self) -> dict[str, int]:
        """Width of what clips are compared by, by the names of the features."""
        return {
            "visual_features": self.visual_size * len(self.visual_parts),
            "audio_features": self.audio_size,
        }

    @property
    def senses(self) -> tuple[str, ...]:
        """Names of the features that it reads."""
        unused = {"visual": "audio_features", "audio": "visual_features"}.get(self.inputs)
        return tuple(name for name in self.widths if name != unused)

    def detector_spec_of(self, title: str) -> DetectorSpec:
        """The spec of a detector with this title. A clip's change needs the clip before."""
        widths = {"visual_features": self.visual_size, "audio_features": self.audio_size}
        context = int("change" in self.visual_parts and "visual_features" in self.senses)
        inputs = {name: widths[name] for name in self.senses}
        return DetectorSpec(title, objective="normality", context=context, inputs=inputs)

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "NormalityConfig":
        """A config in the shape of stored features, as `DetectorConfig.for_data` says.

        Sound is read where one of the videos has some.
        """
        known: dict[str, Any] = {"inputs": "audio"}
        if "audio_features" in item:
            known["audio_size"] = item["audio_features"].shape[-1]
        if "visual_features" in item:
            _, known["visual_size"], *grid = item["visual_features"].shape
            known["feature_grid"] = tuple(grid)
            is_heard = "audio_features" in item and any(row.get("has_audio") for row in rows)
            known["inputs"] = "both" if is_heard else "visual"
        return cls(**known | settings)

    @property
    def silence_notice(self) -> str | None:
        """That it cannot judge what it does not hear."""
        return {
            "visual": None,
            "audio": "The video has no sound that can be decoded, and the detector hears only: this result means "
            "nothing.",
            "both": "The video has no sound that can be decoded: it is judged by sight alone.",
        }[self.inputs]

    def validate_normality(self) -> None:
        """Check that there are parts to compare by, that counts can be, and that each camera has a row of its own."""
        if not self.visual_parts or len(set(self.visual_parts)) != len(self.visual_parts):
            raise ValueError(f"visual_parts needs at least one part, each once, got {list(self.visual_parts)}.")
        if len(self.feature_grid) != 2:
            raise ValueError(f"feature_grid must be rows and columns, got {list(self.feature_grid)}.")
        for name, most in (("rows", LARGEST), ("num_classes", MOST_CLASSES)):
            for key, number in (getattr(self, name) or {}).items():
                if not 1 <= number <= most:
                    raise ValueError(f"{name} must be within 1 and {most}, got {number} for {key!r}.")
        scenes = self.scene_rows or {}
        if sorted(scenes.values()) != list(range(len(scenes))):
            raise ValueError(f"scene_rows must number the scenes from 0, each once, got {str(scenes)[:80]}.")


__all__ = ["ONE_IN_1000", "ONE_IN_1000_ORIGIN", "NormalityConfig"]
