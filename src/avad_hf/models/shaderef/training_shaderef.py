"""The recipe by which SHADE's references are trained."""

from typing import Any

from avad_hf.models.avrl.training_avrl import PROFILES as AVRL_PROFILES

# The paper has one recipe (AVRL, IV-C) and none for the others, so that they are trained as AVRL is.
PROFILES: dict[str, dict[str, Any]] = {"shaderef": AVRL_PROFILES["avrl"]}

__all__ = ["PROFILES"]
