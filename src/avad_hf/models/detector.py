"""The contract of every detector. Pipeline, training, evaluation, export, cards and the command ask this, and no more.

A detector of one's own is a [`DetectorConfig`] that says what it is (`detector_spec`) and a [`DetectorModel`] whose
``forward`` takes the features and ``clip_mask``, and gives ``logits``, one a clip; everything else has a default. Both
are registered as usual, with ``AutoConfig``, ``AutoModelForVideoClassification`` and, for videos, ``AutoProcessor``.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .checkpoints import CheckpointConfig, CheckpointModel
from .tracing import Network

# `DetectorSpec.context` of a detector that must see the whole video at once.
WHOLE_VIDEO = math.inf


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector reads, and what it learns.

    Args:
        title: Its name for people.
        reads: ``"features"`` of frozen encoders, or ``"videos"``: frames and sound, as its own processor makes them.
        objective: ``"clips"``: scores of clips, from labels of whole videos; ``"classes"``: event classes of videos;
            ``"normality"``: scores of clips, from normal videos alone, to which it is fitted and not trained.
        context: How many clips before and after a clip it must see with it: 0 for clips that do not see each other,
            `WHOLE_VIDEO` for all of them.
        inputs: Width of each of the features that it reads, by their names: channels of ``visual_features``, numbers
            of a step of ``audio_features``.
        normal_labels: Event classes that are no anomaly. A detector of clips that has some names classes beside its
            scores: its outputs have ``class_logits``, and its losses take ``class_labels``.
        alpha: Where a video is judged by the mean of its highest clips, t clips give ``max(1, t // alpha)`` of them.
        scenes: Scenes of the synthetic world that an int8 engine is calibrated on where no videos are given.
    """

    title: str
    reads: Literal["features", "videos"] = "features"
    objective: Literal["clips", "classes", "normality"] = "clips"
    context: float = 0
    inputs: Mapping[str, int] = field(default_factory=dict)
    normal_labels: tuple[str, ...] = ()
    alpha: int = 4
    scenes: tuple[str, ...] = ("crossing", "underpass", "overlook")


class DetectorConfig(CheckpointConfig):
    """What the configs of all detectors have.

    Args:
        threshold: Score from which on a clip is called anomalous.
        threshold_origin: How the threshold was found; ``None`` if it is not tuned.
        thresholds: Thresholds of scenes (cameras or places) that have their own, by their names; ``None`` where all
            have `threshold`.
        alarms: What `avad_hf.calibrate` found of `threshold`: alarms a day with an interval, and the hours of normal
            footage that it rests on; ``None`` if it was not calibrated.
        recipe_sha256: Hash of the recipe of the features that it was trained on, so that features of another recipe
            are refused; ``None`` if not known.
        feature_scales: What features are multiplied by before anything else, by their names: encoders differ in the
            size of what they give, and the larger sense would count more. ``None`` leaves them as they are.
    """

    card: ClassVar[str] = "detector"
    summary: ClassVar[str] = "A detector of anomalies in video."
    pipeline_tag: ClassVar[str] = "video-classification"

    later_settings: ClassVar[dict[str, Any]] = {"feature_scales": None, "thresholds": None, "alarms": None}
    # Settings of encoders within the model, all ``None`` where it holds none.
    encoder_settings: ClassVar[tuple[str, ...]] = ()

    threshold: float | int = 0.5
    threshold_origin: str | None = None
    thresholds: dict[str, float] | None = None
    alarms: dict[str, Any] | None = None
    recipe_sha256: str | None = None
    feature_scales: dict[str, float] | None = None

    @property
    def detector_spec(self) -> DetectorSpec:
        """What it reads, and what it learns."""
        raise TypeError(f"{type(self).__name__} does not say what its detector is: give it a property detector_spec.")

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "DetectorConfig":
        """A config that fits stored features, with default widths for everything else.

        Args:
            item: What the store has of one video, as `FeatureDataset` gives it.
            rows: What is known of all videos.
            recipe: What made the store.
            settings: Fields to set otherwise.
        """
        raise ValueError(f"{cls.__name__} cannot be made from stored features alone. Give a checkpoint as model.")

    @classmethod
    def class_settings(cls, rows: Sequence[Mapping[str, Any]], num_labels: int) -> dict[str, Any]:
        """Settings of a detector of clips that shall name the classes of some videos, beside its scores.

        Args:
            rows: What is known of the videos.
            num_labels: How many classes there shall be.

        Raises:
            ValueError: If the videos have not so many classes, or such a detector names none.
        """
        raise ValueError(f"{cls.__name__} names no classes. Leave num_labels out.")

    @property
    def silence_notice(self) -> str | None:
        """What is said of a result for a video without sound; ``None`` where nothing need be said."""
        return None

    def threshold_of(self, scene: str | None = None) -> float:
        """Score from which on a clip is anomalous in a scene; that of all scenes where it has none of its own."""
        return self.threshold if scene is None else (self.thresholds or {}).get(scene, self.threshold)

    def scaled(self, name: str, features: Tensor) -> Tensor:
        """Features, by their name, times their scale of `feature_scales`."""
        scale = (self.feature_scales or {}).get(name)
        return features if scale is None else features * scale

    def engine_inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs as an exported network can take them."""
        return inputs

    def validate_threshold(self) -> None:
        """Check that scores can reach the threshold."""
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold must be between 0 and 1, got {self.threshold}.")
        for scene, threshold in (self.thresholds or {}).items():
            if not 0.0 <= threshold <= 1.0:
                raise ValueError(f"thresholds must be between 0 and 1, got {threshold} for scene {scene!r}.")

    def validate_feature_scales(self) -> None:
        """Check that scales are numbers above 0."""
        for name, scale in (self.feature_scales or {}).items():
            if not 0.0 < scale < math.inf:
                raise ValueError(f"feature_scales must be finite and above 0, got {scale} for {name}.")


class DetectorModel(CheckpointModel):
    """A network that scores the clips of videos.

    `scores`, `probabilities` and `explain` use the outputs and ``self.config`` alone: exported networks are asked in
    the same way.

    Attributes:
        clip_outputs: Names of the outputs of shape `(B, T)` that `losses` needs of whole videos: validation computes
            them video by video.
    """

    clip_outputs: ClassVar[tuple[str, ...]] = ("logits",)

    @property
    def detector_spec(self) -> DetectorSpec:
        """What it reads, and what it learns."""
        return self.config.detector_spec

    def scores(self, outputs: Any) -> Tensor:
        """Scores of clips between 0 (normal) and 1 (anomalous): one scale for detecting, evaluating and thresholds.

        Args:
            outputs: What ``forward`` gives.

        Returns:
            `torch.Tensor` of shape `(B, T)`, float64 on the CPU: in float32 all logits above 17 give the same score.
            Of detectors that read videos, of shape `(B,)`.
        """
        return outputs.logits.detach().cpu().double().sigmoid()

    def probabilities(self, outputs: Any) -> Tensor | None:
        """Probabilities of event classes, of shape `(B, num_labels)`, float64; ``None`` where it knows no classes.

        Of detectors of clips, of shape `(B, T, num_labels)`; their outputs have ``class_logits`` of the same shape.
        """
        return None

    def losses(self, outputs: Any, labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of videos, also of videos that went through the network one by one.

        Args:
            outputs: What ``forward`` gives; or what has `clip_outputs` as attributes, joined of several videos.
            labels: 1 for anomalous videos, 0 for normal ones, of shape `(B,)`; or class numbers.
            mask: False for padding, of shape `(B, T)`; all clips are real if not given.

        Returns:
            ``loss``, and whatever it is made of, by names that end with ``loss``.
        """
        raise TypeError(f"{type(self).__name__} has no losses, and cannot be trained.")

    def explain(self, outputs: Any) -> dict[str, Tensor] | None:
        """Numbers that say why clips have their scores, of shape `(B, T)` each; ``None`` where it knows none."""
        return None

    def heat(self, features: Mapping[str, Tensor], clip: int) -> Tensor | None:
        """How unlike normal footage each place of a clip's picture is, of shape `(h, w)`, 0 or more.

        Args:
            features: What ``forward`` takes, of one video.
            clip: Number of the clip.

        Returns:
            ``None`` where it knows no distances: places are then hidden in turn, and it is asked for its score.
        """
        return None

    def nearest_normal(self, features: Mapping[str, Tensor], clip: int, count: int = 3) -> list[dict[str, Any]]:
        """The normal clips that are most like a clip, the nearest first.

        Args:
            features: What ``forward`` takes, of one video.
            clip: Number of the clip.
            count: How many.

        Returns:
            For each ``id`` of its video, ``start`` and ``end`` in seconds, and ``distance``, which is 0 for the same
            features. None where it keeps no normal clips.
        """
        return []

    def usual_classes(self) -> dict[str, Tensor]:
        """Mean probabilities of the encoders' classes in normal footage, of ``"seen"`` and ``"heard"``, if known."""
        return {}

    def prepare(self, data: Any) -> None:
        """Look at the training videos once, before the first step of a new detector. Nothing by default.

        Args:
            data: The training videos: `FeatureDataset`, or what has its ``rows``, ``len`` and items.
        """

    def begin_with(self, source: PreTrainedModel) -> None:
        """Take the weights of a trained detector, to go on from there."""
        self.load_state_dict(source.state_dict())

    def clip_shapes(self, processor: Any) -> dict[str, tuple[int, ...]]:
        """Shapes of a clip's features, without their width, as a processor makes them."""
        return {"visual_features": processor.feature_grid, "audio_features": (processor.num_pictures,)}

    def networks_to_export(self, processor: Any, batches: Sequence[Any]) -> Iterator[Network]:
        """The networks that ``avad-hf export`` writes, one at a time: the encoders, and the detector in float32.

        Args:
            processor: Its processor.
            batches: Lists of what the processor calls clips, for calibration, each of one video.
        """
        yield from processor.networks_to_export(batches)
        shape = (2, 3)
        shapes = self.clip_shapes(processor)
        sample = {}
        for name, width in self.detector_spec.inputs.items():
            inner = (width, *shapes[name]) if name == "visual_features" else (*shapes[name], width)
            sample[name] = torch.zeros(*shape, *inner)
        sample["clip_mask"] = torch.ones(*shape, dtype=torch.bool)
        yield Network(
            folder="",
            source=self,
            model=self.eval(),
            sample=sample,
            varying=dict.fromkeys(sample, (0, 1)),
            is_head=True,
        )


def spec_of(model: Any) -> DetectorSpec:
    """What a detector says of itself, exported or not.

    Raises:
        TypeError: For a model that is no detector.
    """
    model_class = getattr(model, "made_from", None) or type(model)
    if not issubclass(model_class, DetectorModel):
        raise TypeError(
            f"{type(model).__name__} is no anomaly detector: it gives no scores of clips. Give a checkpoint of a "
            "detector, as AutoModelForVideoClassification loads it, or a DetectorModel of your own."
        )
    return model.config.detector_spec


def refuse_other_widths(spec: DetectorSpec, processor: Any) -> None:
    """Raise ``ValueError`` if a processor makes features of another width than a detector reads."""
    for name, width in spec.inputs.items():
        made_width = processor.widths.get(name)
        if made_width is not None and made_width != width:
            encoder = "video encoder" if name == "visual_features" else "audio encoder"
            raise ValueError(
                f"The processor's {encoder} gives {name} of width {made_width}, but this {spec.title} detector reads "
                f"{width}. Use the processor that made its features, or train a detector on features of this one."
            )


__all__ = ["WHOLE_VIDEO", "DetectorConfig", "DetectorModel", "DetectorSpec", "refuse_other_widths", "spec_of"]
