"""What is seen and heard in videos, by published encoders that are got by their names: no detector is needed."""

from collections.abc import Callable
from typing import Any

import torch

from .convert.getting import encoder_place
from .detection.describe import Describer
from .registration import DESCRIBERS, feature_processor


def load_describer(
    video_encoder: Any = DESCRIBERS["video_encoder"],
    audio_encoder: Any = DESCRIBERS["audio_encoder"],
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    on_stage: Callable[[str], None] | None = None,
) -> Describer:
    """Load what describes videos, to be used for many of them; arguments as of `describe`.

    Args:
        video_encoder: Encoder that reads pictures.
        audio_encoder: Encoder that reads sound.
        device: Where they compute.
        dtype: What they compute in.
        on_stage: Told in words what is done where weights are got, which may take minutes.

    Raises:
        ValueError: If neither encoder has classes with names.
        OSError: If one is not there, and cannot be downloaded.
    """
    encoders = {"video_encoder": video_encoder, "audio_encoder": audio_encoder}
    processor = feature_processor()(**{role: encoder_place(role, one, on_stage) for role, one in encoders.items()})
    describer = Describer(processor)
    processor.to(device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype)
    return describer


def describe(
    videos: Any,
    video_encoder: Any = DESCRIBERS["video_encoder"],
    audio_encoder: Any = DESCRIBERS["audio_encoder"],
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    **options: Any,
) -> dict[str, Any] | list[dict[str, Any]]:
    """Say in words what is seen and heard in a video over time. No detector is needed, and nothing is judged.

    Args:
        videos: A path, URL, file object, bytes or dict of arrays (`avad_hf.media.sources.ACCEPTED_SOURCES`), or a list
            of them, which gives a list.
        video_encoder: Encoder that reads pictures and has classes: the name of a published one, which is downloaded
            once and kept (``"i3d"``: 400 classes of Kinetics), a folder, a Hub id, a model or an [`~avad_hf.Encoder`].
        audio_encoder: Encoder that reads sound, likewise (``"yamnet"``: 521 classes of AudioSet).
        device: Where they compute; the first GPU by default, or the CPU.
        dtype: What they compute in; ``"auto"`` is bfloat16 where the device has hardware for it, else float32.
        options: ``batch_size``, ``streams`` and ``on_progress``, as of
            [`~avad_hf.detection.describe.Describer.interleave`].

    Returns:
        For each video a dict ready for JSON, all times in seconds, as of
        [`~avad_hf.detection.describe.Describer.__call__`]: ``seen``, ``heard``, ``clips``, ``duration``, ``fps``,
        ``has_audio``, ``read_until``, ``warnings`` and ``read``.

    Raises:
        MediaError: If a video cannot be read.
        ValueError: If neither encoder has classes with names.
        OSError: If an encoder is not there, and cannot be downloaded.
    """
    return load_describer(video_encoder, audio_encoder, device, dtype)(videos, **options)


__all__ = ["describe", "load_describer"]
