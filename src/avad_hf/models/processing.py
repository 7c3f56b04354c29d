"""What the processors of all detectors have in common: reading ahead, loading, and the words for what went wrong."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from typing import Any, Self

import av
import torch
from torch import Tensor
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import PROCESSOR_NAME

from avad_hf.hub.contents import check_checkpoint, refuse_redirections
from avad_hf.hub.errors import hub_errors, refuse_unreachable
from avad_hf.hub.push import PushedWithCard
from avad_hf.media.ahead import read_ahead
from avad_hf.media.decode import MediaInfo
from avad_hf.media.sources import Media, open_media


class DetectorProcessor(PushedWithCard, ProcessorMixin):
    """Turns videos into what a detector reads, a few clips at a time.

    A processor decodes (`decode`), and computes what the detector reads (`encode`); `stream` does both at once, and
    `stored` is what a feature store keeps.
    """

    # What the whole is called that it is a part of, for cards.
    whole = "a detector"

    @abstractmethod
    def decode(self, media: Media, clips_per_batch: int | None = None, whole: bool = False) -> Iterator[Any]:
        """Decode a video into batches of clips: the first half of `stream`.

        Args:
            media: The video.
            clips_per_batch: As for `stream`.
            whole: For a store, which may keep more of a video than a detector sees at once.
        """

    @abstractmethod
    def encode(self, batch: Any) -> BatchFeature:
        """Compute what the detector reads of a batch of clips: the second half of `stream`."""

    def encode_together(self, batches: Sequence[Any]) -> list[tuple[BatchFeature, dict[str, Tensor]]]:
        """Encode batches of several videos: of each what `encode_and_name` gives, or `encode` and no classes."""
        encode_and_name = getattr(self, "encode_and_name", None)
        return [(self.encode(batch), {}) if encode_and_name is None else encode_and_name(batch) for batch in batches]

    def gated(self) -> Any:
        """What encodes the batches of one stream, in order, as this does, but for still clips takes earlier features.

        Returns:
            An object with `encode` and, as far as this has it, `encode_and_name`; with ``num_clips``, how many were
            encoded, and ``reused``, how many of them took earlier features of their ``"pictures"`` and ``"sound"``.

        Raises:
            ValueError: Where there are no features of clips that could be taken.
        """
        raise ValueError(
            f"{type(self).__name__} cannot spare still clips: its detector reads the pictures themselves, and no "
            "features of frozen encoders. Leave gate out."
        )

    @abstractmethod
    def stored(self, batch: Any, visual_dtype: str) -> tuple[dict[str, Tensor], bool]:
        """What a feature store keeps of a batch of `decode`, and whether the video has sound."""

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """Everything that what is stored depends on, besides the video: for telling stores apart that differ."""

    @abstractmethod
    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None) -> Self:
        """Move what computes to a device, and choose what it computes in."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def notices(self) -> list[str]:
        """What a user must know besides the detector's own notice."""
        return []

    @property
    def chosen_dtype(self) -> torch.dtype | str | None:
        """What `to` was told about a floating point type, if anything."""
        return None

    def turns_maps(self, info: MediaInfo) -> bool:
        """Whether feature maps of a video are turned over the diagonal: their rows are the picture's columns then."""
        return False

    @property
    def widths(self) -> dict[str, int]:
        """Width of each of the features that it makes, by their names; empty where it makes none."""
        return {}

    def stream(self, source: Any, clips_per_batch: int | None = None) -> Iterator[BatchFeature]:
        """Read one video a few clips at a time, in memory that does not grow with its length.

        The next clips are decoded, in a thread of their own, while these ones are encoded.

        Args:
            source: What `avad_hf.media.sources.ACCEPTED_SOURCES` lists, or an open `Media`.
            clips_per_batch: Clips that go through the networks together; what fits the device by default.

        Yields:
            [`BatchFeature`] as `__call__` returns for one video, with `clips_per_batch` clips, fewer at the end.

        Raises:
            MediaError: If the video cannot be read.
        """
        if clips_per_batch is not None and clips_per_batch < 1:
            raise ValueError(f"clips_per_batch must be 1 or more, got {clips_per_batch}.")
        with open_media(source) as media, closing(read_ahead(self.decode(media, clips_per_batch), depth=1)) as ahead:
            for batch in ahead:
                yield self.encode(batch)

    @staticmethod
    def versions() -> dict[str, str]:
        """Versions of what decodes and computes, for recipes."""
        versions = {name: version(name) for name in ("avad-hf", "av", "torch", "torchaudio")}
        return versions | {"ffmpeg": av.ffmpeg_version_info}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *args: Any,
        dtype: torch.dtype | str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load the processor, with its networks if it has some, which compute in `dtype`, as for `to`."""
        check_checkpoint(pretrained_model_name_or_path, kwargs.get("subfolder"))
        with hub_errors(str(pretrained_model_name_or_path), "model", "loaded"):
            processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return processor.to(dtype=dtype)

    @classmethod
    def get_processor_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read ``processor_config.json``; raises ``ValueError`` for that of another processor."""
        processor_dict, rest = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        if not processor_dict:
            refuse_unreachable(pretrained_model_name_or_path, PROCESSOR_NAME, **kwargs)
        refuse_redirections(f"{pretrained_model_name_or_path}: {PROCESSOR_NAME}", processor_dict)
        if (found := processor_dict.get("processor_class", cls.__name__)) != cls.__name__:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds a processor of class {found}, but {cls.__name__} reads its "
                f"own alone. Load it with {found}, or with AutoProcessor."
            )
        return processor_dict, rest


def note_silence(media: Media, has_sound: bool, logger: Any) -> None:
    """Log why a video is not heard."""
    if not has_sound:
        found = "its sound cannot be decoded" if media.info.has_audio else "it has no sound"
        logger.info("%s: %s; its sound features are zero.", media.info.name, found)


def in_tensors(features: BatchFeature, return_tensors: str | None) -> BatchFeature:
    """Features as tensors of torch, ``"pt"`` or ``None``, or as arrays of numpy, ``"np"``.

    Raises:
        ValueError: For another library.
    """
    if return_tensors not in ("pt", "np", None):
        raise ValueError(f"return_tensors must be 'pt' or 'np', got {return_tensors!r}.")
    if return_tensors != "np":
        return features
    return BatchFeature({name: value.cpu().numpy() for name, value in features.items()})


def padded(items: Sequence[dict[str, Tensor]], names: Sequence[str]) -> dict[str, Tensor]:
    """Join what single videos have of shape `(T, ...)` to batches, shorter ones padded with zeros."""
    return {name: torch.nn.utils.rnn.pad_sequence([item[name] for item in items], batch_first=True) for name in names}


__all__ = ["DetectorProcessor", "in_tensors", "note_silence", "padded"]
