"""From videos to what AVRL reads: 50 frames and the log-mel spectrogram of the whole sound."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchFeature

from avad_hf.media.ahead import batches
from avad_hf.media.given import as_sources
from avad_hf.media.sources import Media, open_media
from avad_hf.media.windows import Window, normalised, read_whole, read_windows
from avad_hf.models.processing import DetectorProcessor, in_tensors, note_silence
from avad_hf.models.settings import Bounds, check_numbers
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor

from .configuration_avrl import FRAMES_PER_STEP

logger = logging.getLogger(__name__)

# Log-mel frames that are computed together: some seconds of memory in float64, whatever the sound's length.
FRAMES_AT_ONCE = 6000


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


@dataclass(frozen=True)
class StoredPart:
    """What a store gets of a video: all of it as one window, or some of the windows of a long one.

    Args:
        windows: One, or some.
        is_whole: Whether it is all of the video.
    """

    windows: Sequence[Window]
    is_whole: bool


class AvrlProcessor(DetectorProcessor):
    r"""Turns videos into the frames and the log-mel spectrograms that AVRL reads (sections III-A, III-B and IV-C).

    Args:
        feature_extractor: [`VggishFeatureExtractor`].
        num_frames: Frames of a video; of l frames every ``max(1, l // num_frames)``-th from the first one on. Videos
            with fewer frames begin again, down to a single frame that is repeated.
        size: Height and width of the frames, in pixels; nothing is cropped, so proportions may change.
        window_s: `stream` cuts videos that are longer than this into windows of this length, in seconds.
        rescale_factor: What pixels from 0 to 255 are multiplied by: 1/255, or 1 for weights that were trained so.
        image_mean: Subtracted then, by channel.
        image_std: Divides then, by channel.
    """

    whole = "an AVRL detector"
    bounds: ClassVar[Bounds] = {
        "num_frames": (1, 1024),  # at 240 x 240 they have 180 MB
        "size": (1, 8192),
        "window_s": (0, 3600),  # an hour of sound has 230 MB
        "rescale_factor": (1e-6, 1e6),
        "image_mean": (-1e6, 1e6),
        "image_std": (1e-6, 1e6),
    }

    def __init__(
        self,
        feature_extractor: VggishFeatureExtractor,
        num_frames: int = 50,
        size: tuple[int, int] | list[int] = (240, 240),
        window_s: float = 20.0,
        rescale_factor: float = 1 / 255,
        image_mean: Sequence[float] = (0.4345, 0.4051, 0.3775),
        image_std: Sequence[float] = (0.2768, 0.2713, 0.2737),
    ):
        super().__init__(feature_extractor)
        if type(num_frames) is not int or num_frames < 1:
            raise ValueError(f"num_frames must be 1 or more, got {num_frames!r}.")
        if not isinstance(size, (list, tuple)) or len(size) != 2 or any(type(x) is not int or x < 1 for x in size):
            raise ValueError(f"size must be height and width in pixels, 1 or more each, got {size!r}.")
        if not _is_finite(window_s) or window_s <= 0:
            raise ValueError(f"window_s must be a number of seconds above 0, got {window_s!r}.")
        for name, values in (("image_mean", image_mean), ("image_std", image_std)):
            if not isinstance(values, (list, tuple)) or len(values) != 3 or not all(map(_is_finite, values)):
                raise ValueError(f"{name} must be three numbers, one a channel, got {values!r}.")
        if not _is_finite(rescale_factor) or rescale_factor <= 0 or min(image_std) <= 0:
            raise ValueError(
                f"rescale_factor and image_std must be above 0, got {rescale_factor!r} and {tuple(image_std)}."
            )
        numbers = {"num_frames": num_frames, "size": size, "window_s": window_s, "rescale_factor": rescale_factor}
        for name, value in (numbers | {"image_mean": image_mean, "image_std": image_std}).items():
            check_numbers(name, value, self.bounds)
        self.num_frames = num_frames
        self.size = tuple(size)
        self.window_s = window_s
        self.rescale_factor = rescale_factor
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        return ["pixel_values_videos", "input_features", "audio_frame_mask", "clip_times", "has_audio"]

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None) -> "AvrlProcessor":
        """Do nothing: both networks are parts of the model. Every detector's processor can be moved."""
        return self

    @property
    def device(self) -> torch.device:
        """Where it computes: on the CPU."""
        return torch.device("cpu")

    def recipe(self) -> dict[str, Any]:
        """Everything that stored videos depend on, besides the videos: for telling stores apart that differ."""
        settings = self.to_dict()
        settings.pop("window_s")  # training reads videos as a whole
        return {
            "processor": settings,
            "notices": [],
            "versions": self.versions(),
            "visual_dtype": "uint8",
        }

    def to_dict(self) -> dict[str, Any]:
        """All settings."""
        return {
            "processor_class": type(self).__name__,
            "feature_extractor": self.feature_extractor.to_dict(),
            "num_frames": self.num_frames,
            "size": list(self.size),
            "window_s": self.window_s,
            "rescale_factor": self.rescale_factor,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
        }

    def __call__(
        self,
        videos: Any,
        random_flip: bool = False,
        audio: Any = None,
        fps: float | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Read one video or several, each as a whole.

        Args:
            videos: What `avad_hf.media.sources.ACCEPTED_SOURCES` lists, or frames of 8 bits in an array of shape
                `(F, H, W, 3)` or `(F, 3, H, W)`; or a list of them.
            random_flip: Mirror each video with probability 0.5, by torch's random numbers: for training (IV-C).
            audio: Sound beside the videos: the path of a file beside a path, a waveform beside frames in an array.
            fps: Frames a second of frames in arrays.
            sampling_rate: Samples a second of waveforms, in Hz.
            return_tensors: ``"pt"`` or ``"np"``.

        Returns:
            [`BatchFeature`]:

            - ``pixel_values_videos`` of shape `(B, num_frames, 3, *size)`,
            - ``input_features`` of shape `(B, frames, 64)`, shorter ones padded with the log-mel of silence,
            - ``audio_frame_mask`` of shape `(B, frames)`, false for padding, and throughout without sound,
            - ``clip_times`` of shape `(B, 1, 2)`, start and end in seconds, float64,
            - ``has_audio`` of shape `(B,)`.

        Raises:
            MediaError: If a video cannot be read.
        """
        windows = []
        for video in as_sources(videos, audio, fps, sampling_rate):
            with open_media(video) as media:
                windows += self.clips(media)
        flips = torch.rand(len(windows)) < 0.5 if random_flip else torch.zeros(len(windows), dtype=torch.bool)
        batch = self.encode(windows)
        batch["pixel_values_videos"][flips] = batch["pixel_values_videos"][flips].flip(-1)
        batch["clip_times"] = batch["clip_times"].transpose(0, 1)
        batch["has_audio"] = torch.tensor([window.sound is not None for window in windows])
        return in_tensors(batch, return_tensors)

    def clips(self, media: Media) -> Iterator[Window]:
        """Decode a whole video: the frames that are picked, and the sound."""
        window = read_whole(media, self.num_frames, self.size, self.feature_extractor.sampling_rate)
        note_silence(media, window.sound is not None, logger)
        yield window

    def decode(
        self, media: Media, clips_per_batch: int | None = None, whole: bool = False
    ) -> Iterator[list[Window] | StoredPart]:
        """Decode a video into batches of windows: a short one as a whole, a longer one by windows of `window_s`.

        In a batch of `stream` ``clip_times`` is of shape `(1, B, 2)` and ``has_audio`` of shape `(1,)`: they belong to
        one video.

        Args:
            media: The video.
            clips_per_batch: As for `stream`; one by default.
            whole: For a store, which keeps a long video both as a whole, to learn from, and by windows, to be scored.
        """
        rate = self.feature_extractor.sampling_rate
        windows = read_windows(media, self.num_frames, self.window_s, self.size, rate)
        size = clips_per_batch or 1
        for number, batch in enumerate(batches(windows, max(2, size) if whole else size)):
            if number == 0:
                note_silence(media, batch[0].sound is not None, logger)
            if not whole:
                yield batch
                continue
            if number == 0:
                is_short = len(batch) == 1
                yield StoredPart(batch if is_short else list(self.clips(media)), is_whole=True)
                if is_short:
                    return
            yield StoredPart(batch, is_whole=False)

    def encode(self, windows: Sequence[Window]) -> BatchFeature:
        """Normalise frames and compute log-mel spectrograms, of windows of one video."""
        spectrograms = [self._log_mel(window.sound) for window in windows]
        lengths = torch.tensor([len(item) for item in spectrograms])
        padded = torch.nn.utils.rnn.pad_sequence(
            spectrograms, batch_first=True, padding_value=self.feature_extractor.padding_value
        )
        frames = torch.stack([window.frames for window in windows])
        return BatchFeature(
            {
                "pixel_values_videos": normalised(frames, self.rescale_factor, self.image_mean, self.image_std),
                "input_features": padded,
                "audio_frame_mask": torch.arange(padded.shape[1]) < lengths.unsqueeze(1),
                "clip_times": torch.tensor([[(item.start, item.end) for item in windows]], dtype=torch.float64),
                "has_audio": torch.tensor([windows[0].sound is not None]),
            }
        )

    def stored(self, batch: StoredPart | Sequence[Window], visual_dtype: str) -> tuple[dict[str, Tensor], bool]:
        """What a feature store keeps of a part of a video, and whether it has sound: frames as they are, in 8 bits."""
        part = batch if isinstance(batch, StoredPart) else StoredPart(batch, is_whole=True)
        times = torch.tensor([(window.start, window.end) for window in part.windows], dtype=torch.float64)
        spectrograms = [self._log_mel(window.sound) for window in part.windows]
        has_sound = part.windows[0].sound is not None
        if part.is_whole:
            (window,) = part.windows
            return {"frames": window.frames, "log_mel": spectrograms[0], "clip_times": times}, has_sound
        tensors = {
            "window_frames": torch.stack([window.frames for window in part.windows]),
            "window_log_mel": torch.cat(spectrograms),
            "window_log_mel_lengths": torch.tensor([len(item) for item in spectrograms]),
            "window_times": times,
        }
        return tensors, has_sound

    def _log_mel(self, sound: Tensor | None) -> Tensor:
        """Log-mel frames of shape `(frames, 64)`: none without sound, otherwise as many as VGGish needs, or more."""
        extractor = self.feature_extractor
        if sound is None:
            return torch.empty(0, extractor.feature_size)
        hop, length = extractor.hop_length, extractor.window_length
        # Less than 0.175 s of sound is followed by silence.
        sound = F.pad(sound, (0, max(0, (FRAMES_PER_STEP - 1) * hop + length - len(sound))))
        count = 1 + (len(sound) - length) // hop
        pieces = [
            extractor.log_mel(sound[begin * hop : (min(begin + FRAMES_AT_ONCE, count) - 1) * hop + length])
            for begin in range(0, count, FRAMES_AT_ONCE)
        ]
        return torch.cat(pieces)


__all__ = ["AvrlProcessor"]
