"""RTFM to begin training from."""

from typing import Any

from avad_hf.models.clip_vectors import untrained
from avad_hf.models.untrained_parts import Size, Untrained

from .configuration_rtfm import RtfmConfig

# Settings that differ from the defaults, which are the published ones.
SIZES: dict[Size, dict[str, Any]] = {
    "base": {},
    "tiny": {"hidden_size": 32, "attention_size": 16, "classifier_sizes": (32, 16)},
}


def init(size: Size, seed: int, video_encoder=None, audio_encoder=None, **options: Any) -> Untrained:
    """An untrained RTFM detector and its processor; arguments as of `avad_hf.untrained.init`."""
    return untrained(RtfmConfig, size, seed, video_encoder, audio_encoder, **SIZES[size] | options)


__all__ = ["SIZES", "init"]
