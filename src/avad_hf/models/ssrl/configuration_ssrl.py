"""Configuration of SSRL."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from torch import Tensor

from avad_hf.models.avaca.patches_avaca import MOST_CUTS, patch_grids
from avad_hf.models.clip_vectors import ClipVectorConfig
from avad_hf.models.detector import WHOLE_VIDEO, DetectorSpec
from avad_hf.models.settings import LARGEST, Bounds


@strict
class SsrlConfig(ClipVectorConfig):
    r"""Architecture, loss and threshold of an SSRL detector (Li et al., ECCV 2022).

    Of whole frames it reads what is said by [`ClipVectorConfig`]; as published the visual features. From its second
    stage on it reads features of patches of the frames too, which `AvacaProcessor` makes with the same `patches`.

    Args:
        patches: Rows and columns of the grids that frames are cut into, the coarsest first.
        stage: How much of the network there is: 1 has whole frames alone, and each further stage one grid more. They
            are trained one after the other (`training_ssrl.PROFILES`).
        patch_size: Channels that patches are reduced to before their places are joined; half as many as the visual
            features have, where it is ``None``.
        classifier_sizes: Widths of the hidden layers of the classifier.
        dropout: Probability of dropout in training: after the network over time, before each layer of the classifier,
            of what comes from the finest grid, and of the clips that a video is judged by.
        num_segments: In training each video is resampled to so many segments.
        num_selected: How many clips, those of largest feature magnitude, a video is judged by in the loss.
        margin: Magnitude that anomalous videos are pulled to; that of normal ones is pulled to 0.
        magnitude_weight: Weight of the magnitude loss.
        sparsity_weight: Weight of the sparsity loss.
        smoothness_weight: Weight of the smoothness loss.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "ssrl"
    title: ClassVar[str] = "SSRL"
    context: ClassVar[float] = WHOLE_VIDEO
    summary: ClassVar[str] = "An SSRL detector."
    # For Trainer, which takes all other outputs for predictions.
    keys_to_ignore_at_inference: ClassVar[list[str]] = [
        "video_loss",
        "magnitude_loss",
        "sparsity_loss",
        "smoothness_loss",
        "magnitudes",
    ]

    bounds: ClassVar[Bounds] = ClipVectorConfig.bounds | {
        "patches": (1, MOST_CUTS),  # each of their numbers, as `patch_grids` checks
        "stage": (1, 65),  # the first, and one for each grid that a processor can have
        "patch_size": (1, LARGEST),
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
    inputs: Literal["visual", "both"] = "visual"
    patches: list[list[int]] | tuple[tuple[int, int], ...] = ((2, 3), (3, 5), (4, 7))
    stage: int = 1
    patch_size: int | None = None
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
    def num_patches(self) -> int:
        """Patches of a frame, of all grids, those of later stages among them."""
        return sum(rows * columns for rows, columns in self.patches)

    @property
    def detector_spec(self) -> DetectorSpec:
        """What it reads: patches from the second stage on."""
        spec = super().detector_spec
        return spec if self.stage == 1 else replace(spec, inputs={**spec.inputs, "patch_features": self.visual_size})

    def describe(self) -> dict[str, str]:
        """What a card says of the architecture, and of what the published one had besides."""
        grids = [f"{rows} x {columns}" for rows, columns in self.patches]
        read, left = grids[: self.stage - 1], grids[self.stage - 1 :]
        seen = f", and patches of them on grids of {', '.join(read)}" if read else " alone"
        lacks = "ten crops of whole frames" + (f", and patches on grids of {', '.join(left)}" if left else "")
        return {
            "architecture": f"Stage {self.stage} of {len(grids) + 1}: it sees whole frames{seen}. What the published "
            f"network of the last stage had besides: {lacks}."
        }

    def validate_architecture(self):
        """Check grids and stage, that there are segments to choose from, and that dropout leaves something."""
        patch_grids(self.patches)
        if self.stage > len(self.patches) + 1:
            raise ValueError(
                f"stage must be within 1 and {len(self.patches) + 1}, got {self.stage}: each stage after the first "
                f"adds one grid, and patches has {len(self.patches)}."
            )
        if self.num_selected > self.num_segments:
            raise ValueError(
                f"num_selected {self.num_selected} is more than num_segments {self.num_segments}: a video has no more "
                "clips in training."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be 0 or more and below 1, got {self.dropout}.")

    @classmethod
    def for_data(
        cls,
        item: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]],
        recipe: Mapping[str, Any] | None,
        **settings: Any,
    ) -> "SsrlConfig":
        """A config in the shape of stored features, with the grids that they were made with, if there are some."""
        grids = (recipe or {}).get("processor", {}).get("patches")
        return super().for_data(item, rows, recipe, **({"patches": grids} if grids else {}) | settings)


__all__ = ["SsrlConfig"]
