"""Configuration of RTFM."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from torch import Tensor

from avad_hf.models.detector import WHOLE_VIDEO, DetectorConfig, DetectorSpec
from avad_hf.models.settings import LARGEST, Bounds

RtfmInputs = Literal["visual", "audio", "both"]


@strict
class RtfmConfig(DetectorConfig):
    r"""Architecture, loss and threshold of an RTFM detector (Tian et al., ICCV 2021, arXiv 2101.10030).

    Args:
        visual_size: Channels of the video encoder's feature map.
        audio_size: Width of the audio encoder's embeddings.
        inputs: What it reads: ``"visual"``, as published, the feature map averaged over its cells; ``"audio"``, the
            embeddings averaged over a clip's steps; ``"both"``, one after the other.
        hidden_size: Width of each branch over time: one for each of `dilations`, and the attention.
        attention_size: Width inside the attention.
        dilations: Dilations of the convolutions over time, in clips.
        classifier_sizes: Widths of the hidden layers of the classifier.
        dropout: Probability of dropout in training: before each layer of the classifier, and of the clips that a
            video is judged by.
        num_segments: In training each video is resampled to so many segments.
        num_selected: How many clips, those of largest feature magnitude, a video is judged by in the loss.
        margin: Magnitude that anomalous videos are pulled to; that of normal ones is pulled to 0.
        magnitude_weight: Weight of the magnitude loss.
        sparsity_weight: Weight of the sparsity loss.
        smoothness_weight: Weight of the smoothness loss.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "rtfm"
    summary: ClassVar[str] = "An RTFM detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "video_loss",
        "magnitude_loss",
        "sparsity_loss",
        "smoothness_loss",
        "magnitudes",
    ]

    bounds: ClassVar[Bounds] = {
        "visual_size": (1, LARGEST),
        "audio_size": (1, LARGEST),
        "hidden_size": (1, LARGEST),
        "attention_size": (1, LARGEST),
        "dilations": (1, 4096),  # in clips: a dilation pads as many on either side of every video
        "classifier_sizes": (1, LARGEST),
        "dropout": (0, 1),
        "num_segments": (1, 65536),  # to which every video is resampled in training
        "num_selected": (1, 65536),
        "margin": (0, 1e6),
        "magnitude_weight": (0, 1e6),
        "sparsity_weight": (0, 1e6),
        "smoothness_weight": (0, 1e6),
    }

    # Architecture
    visual_size: int = 2304
    audio_size: int = 128
    inputs: RtfmInputs = "visual"
    hidden_size: int = 512
    attention_size: int = 256
    dilations: list[int] | tuple[int, ...] = (1, 2, 4)
    classifier_sizes: list[int] | tuple[int, ...] = (512, 128)

    # Training
    dropout: float | int = 0.7
    num_segments: int = 32
    num_selected: int = 3
    margin: float | int = 100.0
    magnitude_weight: float | int = 1e-4
    sparsity_weight: float | int = 8e-3
    smoothness_weight: float | int = 8e-4

    @property
    def input_size(self) -> int:
        """Width of what the network gets of a clip."""
        return sum(self.detector_spec.inputs.values())

    @property
    def detector_spec(self) -> DetectorSpec:
        """Clips that all see each other."""
        widths = {"visual_features": self.visual_size, "audio_features": self.audio_size}
        unused = {"visual": "audio_features", "audio": "visual_features"}.get(self.inputs)
        inputs = {name: width for name, width in widths.items() if name != unused}
        return DetectorSpec("RTFM", context=WHOLE_VIDEO, inputs=inputs)

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "RtfmConfig":
        """A config in the shape of stored features, as `DetectorConfig.for_data` says.

        It reads the visual features alone unless `settings` say otherwise: so RTFM was published, while our stores
        hold sound for all detectors. Only where there are no visual features it reads sound.
        """
        known: dict[str, Any] = {}
        if "audio_features" in item:
            known |= {"audio_size": item["audio_features"].shape[-1], "inputs": "audio"}
        if "visual_features" in item:
            known |= {"visual_size": item["visual_features"].shape[1], "inputs": "visual"}
        return cls(**known | settings)

    @property
    def silence_notice(self) -> str | None:
        """That it hears nothing, and what comes of it."""
        if self.inputs == "visual":
            return None
        hearing = "hears only: this result means nothing" if self.inputs == "audio" else "hears zeros"
        return f"The video has no sound that can be decoded, and the detector {hearing}."

    def validate_architecture(self):
        """Check that there are enough segments to choose from, and that dropout leaves something."""
        if self.num_selected > self.num_segments:
            raise ValueError(
                f"num_selected {self.num_selected} is more than num_segments {self.num_segments}: a video has no more "
                "clips in training."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}.")


__all__ = ["RtfmConfig", "RtfmInputs"]
