"""MACIL-SD to begin training from."""

from typing import Any

from avad_hf.models.clip_vectors import untrained
from avad_hf.models.untrained_parts import Size, Untrained

from .configuration_macilsd import MacilsdConfig

# Settings that differ from the defaults, which are the published ones.
SIZES: dict[Size, dict[str, Any]] = {
    "base": {},
    "tiny": {"hidden_size": 32, "feedforward_size": 32},
}


def init(size: Size, seed: int, video_encoder=None, audio_encoder=None, **options: Any) -> Untrained:
    """An untrained MACIL-SD detector and its processor; arguments as of `avad_hf.untrained.init`."""
    return untrained(MacilsdConfig, size, seed, video_encoder, audio_encoder, **SIZES[size] | options)


__all__ = ["SIZES", "init"]
