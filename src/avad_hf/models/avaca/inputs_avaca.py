"""What AVACA refuses to compute."""

import torch
from torch import Tensor

from .configuration_avaca import AvacaConfig


def check_features(
    config: AvacaConfig, visual: Tensor, audio: Tensor | None, clip_mask: Tensor | None, audio_path: str
) -> None:
    """Refuse features that a detector of this config cannot take; arguments as of its ``forward``."""
    if audio_path not in config.audio_paths:
        raise ValueError(f"audio_path must be one of {', '.join(config.audio_paths)}, got {audio_path!r}.")
    if visual.dim() != 5 or visual.shape[2] != config.visual_size:
        raise ValueError(
            f"AVACA needs visual_features of shape (B, T, {config.visual_size}, h, w), got {tuple(visual.shape)}. "
            "AvacaProcessor makes them; the config's visual_size is the channels of its video encoder."
        )
    if audio is None:
        if audio_path != "zeroed":
            raise ValueError(
                f"audio_path '{audio_path}' needs audio_features of shape (B, T, S, {config.audio_size}). "
                "Give zeros for videos without sound, or use audio_path 'zeroed'."
            )
    elif audio.dim() != 4 or audio.shape[:2] != visual.shape[:2] or audio.shape[3] != config.audio_size:
        raise ValueError(
            f"AVACA needs audio_features of shape ({visual.shape[0]}, {visual.shape[1]}, S, {config.audio_size}) "
            f"beside visual_features of {tuple(visual.shape)}, got {tuple(audio.shape)}."
        )
    elif audio_path == "focused" and audio.shape[2] < 2:
        raise ValueError(
            f"The focused audio path takes differences of neighbouring sound steps and needs two or more, got "
            f"{audio.shape[2]}. Use audio_path 'plain' for one."
        )
    if clip_mask is not None and clip_mask.shape != visual.shape[:2]:
        raise ValueError(f"clip_mask must be of shape {tuple(visual.shape[:2])}, got {tuple(clip_mask.shape)}.")


def refuse_nan(name: str, features: Tensor) -> None:
    """Refuse features that are not finite, by their name."""
    # Tracing for export has no values to look at.
    if not torch.compiler.is_compiling() and not torch.isfinite(features).all():
        raise ValueError(
            f"{name} holds NaN or infinite values. Extract the features of that video again, or mask its clips."
        )


__all__ = ["check_features", "refuse_nan"]
