"""S3R to begin training from."""

from typing import Any

from avad_hf.models.clip_vectors import untrained
from avad_hf.models.untrained_parts import Size, Untrained

from .configuration_s3r import S3rConfig

# Settings that differ from the defaults, which are the published ones. Its layers are as wide as the features.
SIZES: dict[Size, dict[str, Any]] = {
    "base": {},
    "tiny": {"num_atoms": 8},
}


def init(size: Size, seed: int, video_encoder=None, audio_encoder=None, **options: Any) -> Untrained:
    """An untrained S3R detector and its processor; arguments as of `avad_hf.untrained.init`."""
    return untrained(S3rConfig, size, seed, video_encoder, audio_encoder, **SIZES[size] | options)


__all__ = ["SIZES", "init"]
