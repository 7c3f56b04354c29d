"""Configuration of MULDE."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.detector import DetectorSpec
from avad_hf.models.normality.configuration_normality import NormalityConfig
from avad_hf.models.settings import LARGEST, Bounds


@strict
class MuldeConfig(NormalityConfig):
    r"""Settings of MULDE (Micorek et al., CVPR 2024, arXiv 2403.14497).

    Args:
        hidden_sizes: Widths of the hidden layers. The paper has two of 4096; ours are smaller, so that fitting takes
            minutes on two cores.
        noise: Smallest and largest standard deviation of the noise, in units of a channel's usual difference.
        num_levels: At how many scales, evenly spaced in the logarithm, the density is read (the paper's L).
        regularisation: Weight of the squared value of the network (the paper's beta).
        num_components: Gaussians of the mixture that judges the values at all scales.
        num_steps: Steps of training.
        batch_size: Clips of a step.
        learning_rate: Learning rate of Adam.

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "mulde"
    summary: ClassVar[str] = "A detector that was fitted to normal footage: MULDE."
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["surprises", "distances"]
    bounds: ClassVar[Bounds] = {
        "hidden_sizes": (1, LARGEST),
        "noise": (1e-6, 1e3),
        "num_levels": (1, 1024),
        "regularisation": (0, 1e6),
        "num_components": (1, 256),
        "num_steps": (1, LARGEST),
        "batch_size": (1, LARGEST),
        "learning_rate": (1e-9, 1),
    }

    hidden_sizes: list[int] | tuple[int, ...] = (256, 256)
    noise: list[float] | tuple[float, float] = (0.001, 1.0)
    num_levels: int = 16
    regularisation: float | int = 0.1
    num_components: int = 5
    num_steps: int = 500
    batch_size: int = 128
    learning_rate: float | int = 1e-3

    @property
    def detector_spec(self) -> DetectorSpec:
        """Clips that do not see each other."""
        return self.detector_spec_of("MULDE")

    def validate_noise(self) -> None:
        """Check that there are two scales, the smaller one first."""
        if len(self.noise) != 2 or not self.noise[0] < self.noise[1]:
            raise ValueError(f"noise must be the smallest and the largest deviation, got {list(self.noise)}.")


__all__ = ["MuldeConfig"]
