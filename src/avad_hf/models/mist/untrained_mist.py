"""MIST (stage 1) to begin training from."""

from typing import Any

from avad_hf.models.clip_vectors import untrained
from avad_hf.models.untrained_parts import Size, Untrained

from .configuration_mist import MistConfig

# Settings that differ from the defaults, which are the published ones.
SIZES: dict[Size, dict[str, Any]] = {
    "base": {},
    "tiny": {"hidden_sizes": (32, 16)},
}


def init(size: Size, seed: int, video_encoder=None, audio_encoder=None, **options: Any) -> Untrained:
    """An untrained MIST (stage 1) detector and its processor; arguments as of `avad_hf.untrained.init`."""
    return untrained(MistConfig, size, seed, video_encoder, audio_encoder, **SIZES[size] | options)


__all__ = ["SIZES", "init"]
