"""SSRL to begin training from."""

from typing import Any

from avad_hf.models.avaca.patches_avaca import patch_grids
from avad_hf.models.clip_vectors import untrained
from avad_hf.models.untrained_parts import Size, Untrained

from .configuration_ssrl import SsrlConfig

# Settings that differ from the defaults. The published network is that of the last stage.
SIZES: dict[Size, dict[str, Any]] = {
    "base": {"stage": 4},
    "tiny": {"stage": 2, "patches": ((2, 3),), "classifier_sizes": (32, 16)},
}


def init(size: Size, seed: int, video_encoder=None, audio_encoder=None, **options: Any) -> Untrained:
    """An untrained SSRL detector and its processor, which cuts frames into the detector's patches.

    Arguments as of `avad_hf.untrained.init`.
    """
    made = untrained(SsrlConfig, size, seed, video_encoder, audio_encoder, **SIZES[size] | options)
    if made.model.config.stage > 1:
        made.processor.patches = patch_grids(made.model.config.patches)
    return made


__all__ = ["SIZES", "init"]
