"""Configuration of the Gaussian."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from avad_hf.models.detector import DetectorSpec
from avad_hf.models.normality.configuration_normality import NormalityConfig


@strict
class GaussianConfig(NormalityConfig):
    r"""Settings of a detector by one Gaussian a sense, whose covariance is shrunk (Ledoit and Wolf, 2004).

    Raises:
        StrictDataclassClassValidationError: For numbers out of range.
    """

    model_type = "gaussian"
    summary: ClassVar[str] = "A detector that was fitted to normal footage: a Gaussian."
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["surprises", "distances"]

    @property
    def detector_spec(self) -> DetectorSpec:
        """Clips that do not see each other."""
        return self.detector_spec_of("Gaussian")


__all__ = ["GaussianConfig"]
