"""The feature processor: decodes a video, aligns its sound with its frames, and asks two frozen encoders."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchFeature, FeatureExtractionMixin, PreTrainedModel

from avad_hf.hub.contents import check_hub_id, refuse_leading_out
from avad_hf.media.ahead import batches
from avad_hf.media.clips import Clip, Frame, cut_clips, join_ends, sound_window
from avad_hf.media.given import as_sources
from avad_hf.media.sources import Media, open_media
from avad_hf.models.encoder import Encoder, encoder_for, encoder_from_hub, load_encoder
from avad_hf.models.placing import clips_at_once, to_device
from avad_hf.models.processing import DetectorProcessor, in_tensors, note_silence, padded
from avad_hf.models.settings import Bounds, check_numbers
from avad_hf.models.tracing import Network

from .end_to_end_avaca import as_map, maps_on_grid

logger = logging.getLogger(__name__)

# Where the encoders lie in a checkpoint that carries them, and what they read.
ROLES: dict[str, Literal["pixels", "waveform"]] = {"video_encoder": "pixels", "audio_encoder": "waveform"}
# What the classes of each encoder name.
SENSES = {"video_encoder": "seen", "audio_encoder": "heard"}
# Features that have one row a clip.
PER_CLIP = ("visual_features", "audio_features", "clip_mask", "clip_times")


@dataclass(frozen=True)
class ClipBatch:
    """Some clips of one video, ready for the encoders.

    Args:
        clips: In their order.
        pixels: `torch.Tensor` of shape `(len(clips) * num_pictures, 3, H, W)`, as decoded, on the encoders' device.
    """

    clips: Sequence[Clip]
    pixels: Tensor


class AvacaProcessor(DetectorProcessor):
    r"""Turns videos into features of clips, with a frozen video encoder and a frozen audio encoder of any kind.

    What AVACA was published with are SlowFast and VGGish: with those the defaults are the paper's.

    Args:
        feature_extractor: What the audio encoder's waveforms go through; its own by default.
        video_encoder: An encoder that reads pictures: a model of this library or of transformers, an
            [`~avad_hf.Encoder`], or the folder or Hub id of one. A Hub id is kept as such by `save_pretrained`, with
            the commit that was loaded, so that checkpoints can share an encoder and it never changes under them;
            ``user/name@revision`` chooses one. Anything else is saved with the processor; an encoder that you have
            changed must be saved to a folder, and given by that.
        audio_encoder: An encoder that reads sound, likewise.
        size: Short side of the frames that the video encoder sees, in pixels; the long side keeps the proportion and
            nothing is cropped. Or height and width, for networks that take no other. The encoder's own by default.
        resize: ``"area"`` scales inside FFmpeg, ``"torch"`` as pytorchvideo's transform, more slowly.
        clip_stride: Frames from one clip to the next. By default clips follow each other without overlap.
        feature_grid: Rows and columns that every feature map is average-pooled to, so that videos of any shape fit one
            batch. Maps of portrait videos are pooled to columns and rows, and their cells turned over the diagonal.
            The encoder's own by default: what SlowFast gives for 16:9.
        image_mean: Subtracted from pixels within 0 and 1; the encoder's own by default.
        image_std: Divides them then; likewise.
        frame_step: The encoder sees every so many frames of a video. 1 is what the paper has (IV-C), whatever the
            weights were trained on.
    """

    whole = "a detector that reads features"
    bounds: ClassVar[Bounds] = {
        "size": (1, 8192),
        "feature_grid": (1, 64),  # 2304 channels of so many rows and columns have 38 MB a clip
        "frame_step": (1, 1024),
    }

    def __init__(
        self,
        feature_extractor: FeatureExtractionMixin | None = None,
        video_encoder: Encoder | PreTrainedModel | str | os.PathLike | None = None,
        audio_encoder: Encoder | PreTrainedModel | str | os.PathLike | None = None,
        size: int | Sequence[int] | None = None,
        resize: Literal["area", "torch"] = "area",
        clip_stride: int | None = None,
        feature_grid: tuple[int, int] | list[int] | None = None,
        image_mean: float | Sequence[float] | None = None,
        image_std: float | Sequence[float] | None = None,
        frame_step: int = 1,
    ):
        if video_encoder is None or audio_encoder is None:
            raise ValueError(
                "AvacaProcessor needs a video_encoder and an audio_encoder: a model each, or the folder or Hub id of "
                "one."
            )
        picture = {"image_mean": image_mean, "image_std": image_std}
        self.encoders: dict[str, Encoder] = {
            "video_encoder": encoder_for("video_encoder", "pixels", video_encoder, picture),
            "audio_encoder": encoder_for(
                "audio_encoder", "waveform", audio_encoder, {"feature_extractor": feature_extractor}
            ),
        }
        super().__init__(self.encoders["audio_encoder"].feature_extractor)
        spec = self.encoders["video_encoder"].spec
        size = spec.size if size is None else size
        sides = [size] if isinstance(size, int) else size
        if not isinstance(sides, (list, tuple)) or len(sides) not in (1, 2) or not all(map(_is_count, sides)):
            raise ValueError(f"size must be the short side in pixels, 1 or more, or height and width, got {size!r}.")
        if isinstance(spec.size, tuple) and tuple(sides) != spec.size:
            raise ValueError(
                f"size must be {spec.size}, height and width: {self.encoders['video_encoder'].name} takes frames of "
                f"no other size, got {size!r}."
            )
        if resize not in ("area", "torch"):
            raise ValueError(f"resize must be 'area' or 'torch', got {resize!r}.")
        grid = spec.grid if feature_grid is None else feature_grid
        if not isinstance(grid, (list, tuple)) or len(grid) != 2 or not all(map(_is_count, grid)):
            raise ValueError(f"feature_grid must be rows and columns, 1 or more each, got {feature_grid!r}.")
        if not _is_count(frame_step):
            raise ValueError(f"frame_step must be a whole number of frames, 1 or more, got {frame_step!r}.")
        for name, value in (("size", size), ("feature_grid", grid), ("frame_step", frame_step)):
            check_numbers(name, value, self.bounds)
        self.size = size if isinstance(size, int) else tuple(size)
        self.resize = resize
        self.feature_grid = tuple(grid)
        self.frame_step = frame_step
        # Embeddings of what is heard before each frame and the probabilities of its classes, by the network that made
        # them: clips may share frames.
        self._heard: WeakKeyDictionary[Frame, tuple[Any, Tensor, Tensor | None]] = WeakKeyDictionary()
        self.num_pictures = spec.num_frames
        self.clip_length = spec.num_frames * frame_step
        self.clip_stride = self.clip_length if clip_stride is None else clip_stride
        if not _is_count(self.clip_stride) or self.clip_stride > self.clip_length:
            raise ValueError(
                f"clip_stride must be between 1 and the {self.clip_length} frames of a clip of the video encoder, a "
                f"whole number, got {clip_stride!r}."
            )
        if self.clip_stride % frame_step:
            raise ValueError(
                f"clip_stride must be a multiple of frame_step {frame_step}, so that clips share the frames that are "
                f"seen, got {clip_stride}."
            )

    def __getstate__(self) -> dict[str, Any]:
        # What is made anew when it is needed, and could not be pickled.
        return self.__dict__ | {"_heard": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_heard": WeakKeyDictionary()})

    @property
    def video_encoder(self) -> PreTrainedModel:
        """The video encoder's network."""
        return self.encoders["video_encoder"].network

    @video_encoder.setter
    def video_encoder(self, encoder: Any) -> None:
        self._replace("video_encoder", encoder, ("image_mean", "image_std"))

    @property
    def audio_encoder(self) -> PreTrainedModel:
        """The audio encoder's network."""
        return self.encoders["audio_encoder"].network

    @audio_encoder.setter
    def audio_encoder(self, encoder: Any) -> None:
        self._replace("audio_encoder", encoder, ("feature_extractor",))

    def _replace(self, role: str, encoder: Any, settings: Sequence[str]) -> None:
        """Put another encoder into a slot, which must read the same; one of the same kind gets the settings too."""
        before = self.encoders[role]
        made = encoder_for(role, ROLES[role], encoder)
        for name in ("gives", "num_frames", "size", "window_s", "sampling_rate"):
            if (now := getattr(made.spec, name)) != (was := getattr(before.spec, name)):
                raise ValueError(
                    f"{made.name} cannot take the place of {before.name}: its {name} is {now}, and not {was}. Make a "
                    f"new {type(self).__name__} with it."
                )
        if type(made) is type(before):
            made.configure(**{name: getattr(before, name) for name in settings})
        made._dtype = before._dtype
        self.encoders[role] = made

    @property
    def image_mean(self) -> float | tuple[float, ...]:
        """Subtracted from pixels within 0 and 1."""
        return self.encoders["video_encoder"].image_mean

    @property
    def image_std(self) -> float | tuple[float, ...]:
        """Divides pixels then."""
        return self.encoders["video_encoder"].image_std

    @property
    def chosen_dtype(self) -> torch.dtype | str | None:
        """What `to` was told about a floating point type, if anything."""
        return self.encoders["video_encoder"]._dtype

    @property
    def widths(self) -> dict[str, int]:
        """Channels of the feature maps, and width of the embeddings of sound."""
        names = {"visual_features": "video_encoder", "audio_features": "audio_encoder"}
        return {name: self.encoders[role].spec.width for name, role in names.items()}

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Names of what is ``"seen"`` and ``"heard"``, of the encoders that have classes with names."""
        return {
            SENSES[role]: encoder.spec.classes
            for role, encoder in self.encoders.items()
            if encoder.class_output is not None and encoder.spec.classes
        }

    @property
    def _hub_ids(self) -> dict[str, str]:
        """Which encoders are kept by their names on the Hub."""
        return {role: one.hub_id for role, one in self.encoders.items() if one.hub_id is not None}

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        return [*PER_CLIP, "has_audio"]

    @property
    def notices(self) -> list[str]:
        """What a user must know about the encoders' weights; empty for ordinary ones."""
        return [notice for encoder in self.encoders.values() for notice in encoder.notices]

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None) -> "AvacaProcessor":
        """Move both encoders to a device, and choose what they compute in; their weights stay as they are.

        Args:
            device: Where to.
            dtype: A floating point type, or ``"auto"`` for bfloat16 where the device has hardware for it and float32
                elsewhere. At first it is that of the weights. Features are float32 always.
        """
        for encoder in self.encoders.values():
            encoder.to(device, dtype)
        return self

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return self.encoders["video_encoder"].device

    @property
    def dtype(self) -> torch.dtype:
        """What the encoders compute in."""
        return self.encoders["video_encoder"].dtype

    @property
    def computes_in(self) -> str:
        """What the encoders compute with, where, in which precision, and why, in words."""
        return "; ".join(dict.fromkeys(encoder.computes_in for encoder in self.encoders.values()))

    def recipe(self) -> dict[str, Any]:
        """Everything that its features depend on, besides the video: for telling features apart that differ."""
        return {
            "processor": {key: value for key, value in self.to_dict().items() if key not in ROLES},
            "fps": "as recorded",
            **{role: encoder.recipe() for role, encoder in self.encoders.items()},
            "notices": self.notices,
            "versions": self.versions(),
        }

    # Saving and loading

    def to_dict(self) -> dict[str, Any]:
        """Everything but the encoders' weights; an encoder is its Hub id, or its folder beside this file."""
        settings = {
            "processor_class": type(self).__name__,
            "feature_extractor": self.feature_extractor.to_dict(),
            "size": self.size if isinstance(self.size, int) else list(self.size),
            "resize": self.resize,
            "clip_stride": self.clip_stride,
            "feature_grid": list(self.feature_grid),
            "image_mean": _plain(self.image_mean),
            "image_std": _plain(self.image_std),
        }
        # Recipes of stores that were made before there was a choice do not name it.
        settings |= {"frame_step": self.frame_step} if self.frame_step != 1 else {}
        return settings | {role: self._hub_ids.get(role, f"./{role}") for role in ROLES}

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Write ``processor_config.json`` and, in folders of their own, the encoders that have no Hub id."""
        os.makedirs(save_directory, exist_ok=True)
        for role in ROLES.keys() - self._hub_ids.keys():
            self.encoders[role].save_pretrained(os.path.join(save_directory, role))
        files = super().save_pretrained(save_directory)
        if push_to_hub:
            # Not by the parent, which would see the config alone as new.
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.abspath(save_directory))), **kwargs)
        return files

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read ``processor_config.json`` and load the encoders that it names and that were not given as arguments."""
        processor_dict, rest = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        hub_names = ("cache_dir", "force_download", "token", "local_files_only", "revision")
        hub_kwargs = {name: kwargs[name] for name in hub_names if kwargs.get(name) is not None}
        for role, reads in ROLES.items():
            place = processor_dict.get(role)
            if role in rest:
                processor_dict.pop(role, None)
            elif place is None:
                raise ValueError(
                    f"{pretrained_model_name_or_path} holds no processor of features: its processor_config.json names "
                    f"no {role}. AvacaProcessor.save_pretrained writes a complete one."
                )
            elif isinstance(place, str) and place.startswith("./"):
                refuse_leading_out(pretrained_model_name_or_path, place[2:], role)
                subfolder = "/".join(part for part in (kwargs.get("subfolder"), place[2:]) if part)
                try:
                    processor_dict[role] = load_encoder(pretrained_model_name_or_path, reads, subfolder, **hub_kwargs)
                except (OSError, ValueError, TypeError) as error:
                    raise ValueError(
                        f"{pretrained_model_name_or_path}: its {role} cannot be loaded from {subfolder}: {error}"
                    ) from error
            else:  # a repository of its own, which this one's revision is none of
                check_hub_id(pretrained_model_name_or_path, place, role)
                own = {name: value for name, value in hub_kwargs.items() if name != "revision"}
                processor_dict[role] = encoder_from_hub(place, reads, **own)
        return processor_dict, rest

    # Features

    def __call__(
        self,
        videos: Any,
        audio: Any = None,
        fps: float | None = None,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Compute the features of one video or of several.

        Args:
            videos: What `avad_hf.media.sources.ACCEPTED_SOURCES` lists, or frames of 8 bits in an array of shape
                `(F, H, W, 3)` or `(F, 3, H, W)`; or a list of them.
            audio: Sound beside the videos: the path of a file beside a path, a waveform beside frames in an array.
            fps: Frames a second of frames in arrays.
            sampling_rate: Samples a second of waveforms, in Hz.
            return_tensors: ``"pt"`` or ``"np"``.

        Returns:
            [`BatchFeature`], videos with fewer clips padded with zeros:

            - ``visual_features`` of shape `(B, T, width, *feature_grid)`,
            - ``audio_features`` of shape `(B, T, num_pictures, width)`, zero for videos without sound,
            - ``clip_mask`` of shape `(B, T)`, false for padding,
            - ``clip_times`` of shape `(B, T, 2)`, start and end in seconds, float64,
            - ``has_audio`` of shape `(B,)`.

        Raises:
            MediaError: If a video cannot be read.
        """
        items = []
        for video in as_sources(videos, audio, fps, sampling_rate):
            chunks = list(self.stream(video))
            item = {key: torch.cat([chunk[key][0] for chunk in chunks]) for key in PER_CLIP}
            items.append(item | {"has_audio": chunks[0]["has_audio"]})
        return in_tensors(self.pad(items), return_tensors)

    def pixels_and_sound(
        self, videos: Any, audio: Any = None, fps: float | None = None, sampling_rate: int | None = None
    ) -> BatchFeature:
        """What the encoders read of one video or of several, for a model that holds them.

        An hour of video has some 30 GB of it: for short videos, and for training on parts of long ones.

        Args:
            videos: As for `__call__`; all of one shape.
            audio: As for `__call__`.
            fps: As for `__call__`.
            sampling_rate: As for `__call__`.

        Returns:
            [`BatchFeature`], videos with fewer clips padded with zeros:

            - ``pixels`` of shape `(B, T, num_pictures, 3, H, W)`, from 0 to 255,
            - ``waveforms`` of shape `(B, T, num_pictures, samples)`, the sound before each frame within -1 and 1; one
              window a clip for audio encoders that give tokens,
            - ``clip_mask``, ``clip_times`` and ``has_audio`` as of `__call__`.

        Raises:
            MediaError: If a video cannot be read.
        """
        spec = self.encoders["audio_encoder"].spec
        items = []
        for video in as_sources(videos, audio, fps, sampling_rate):
            with open_media(video) as media:
                clips = list(self.clips(media))
            pictures = [self.pictures(clip) for clip in clips]
            heard = pictures if spec.gives == "vector" else [[clip.frames[-1]] for clip in clips]
            has_audio = heard[0][0].sound is not None
            silence = torch.zeros(round(spec.window_s * spec.sampling_rate))
            windows = [[frame.sound if has_audio else silence for frame in frames] for frames in heard]
            items.append(
                {
                    "pixels": torch.stack([torch.stack([frame.pixels for frame in frames]) for frames in pictures]),
                    "waveforms": torch.stack([torch.stack(frames) for frames in windows]),
                    "clip_mask": torch.ones(len(clips), dtype=torch.bool),
                    "clip_times": torch.tensor([(clip.start, clip.end) for clip in clips], dtype=torch.float64),
                    "has_audio": torch.tensor([has_audio]),
                }
            )
        names = [name for name in items[0] if name != "has_audio"]
        return BatchFeature(padded(items, names) | {"has_audio": torch.cat([item["has_audio"] for item in items])})

    @staticmethod
    def pad(items: list[dict[str, Tensor]]) -> BatchFeature:
        """Join the features of single videos, each of shape `(T, ...)`, to a batch padded with zeros and masked."""
        return BatchFeature(padded(items, PER_CLIP) | {"has_audio": torch.cat([item["has_audio"] for item in items])})

    def decode(self, media: Media, clips_per_batch: int | None = None, whole: bool = False) -> Iterator[ClipBatch]:
        """Decode a video into batches of clips on the encoders' device: the first half of `stream`.

        Args:
            media: The video.
            clips_per_batch: As for `stream`. By default one on a CPU, which gains nothing from more, and on a GPU as
                many as fit into its memory, up to 16.
            whole: For every detector's processor; clips of frozen encoders are the same either way.
        """
        size = clips_per_batch or clips_at_once(self.device, self.num_pictures, media.info, self.size)
        for clips in batches(self.clips(media), size):
            yield self.prepare(clips)

    def prepare(self, clips: Sequence[Clip]) -> ClipBatch:
        """Put the pixels of some clips of one video together, in 8 bits, on the encoders' device."""
        pixels = torch.stack([frame.pixels for clip in clips for frame in self.pictures(clip)])
        return ClipBatch(clips, to_device(pixels, self.device))

    def pictures(self, clip: Clip) -> list[Frame]:
        """The frames of a clip that the video encoder sees; the last real one stands for those that are missing."""
        if self.frame_step == 1:
            return list(clip.frames)
        last = (clip.num_real - 1) // self.frame_step * self.frame_step
        return [clip.frames[min(index, last)] for index in range(0, self.clip_length, self.frame_step)]

    def clips(self, media: Media) -> Iterator[Clip]:
        """Decode a video into clips with the sound that belongs to them, without the encoders."""
        spec = self.encoders["audio_encoder"].spec
        track = media.sound(spec.sampling_rate)
        note_silence(media, track.has_sound, logger)

        def heard(until: float) -> dict[str, Any]:
            first, _ = sound_window(until, track.start, spec.window_s, track.rate)
            return {"sound": track.window(until, spec.window_s), "first_sample": first}

        def with_sound(frames: Iterator[Frame]) -> Iterator[Frame]:
            for frame in frames:
                if track.has_sound and frame.pixels is not None:
                    frame = replace(frame, **heard(frame.start))
                yield frame

        step, is_by_frame = self.frame_step, spec.gives == "vector"
        picked = None if step == 1 else lambda number: number % step == 0
        frames = join_ends(media.frames(self.size, self.resize, *([] if picked is None else [picked])))
        if is_by_frame:
            frames = with_sound(frames)
        for clip in cut_clips(frames, self.clip_length, self.clip_stride):
            if track.has_sound and not is_by_frame:
                # One window, which ends with the clip; the last frame carries it.
                ending = replace(clip.frames[-1], **heard(clip.end))
                clip = replace(clip, frames=(*clip.frames[:-1], ending))
            yield clip

    @torch.no_grad()
    def encode(self, batch: ClipBatch | Sequence[Clip]) -> BatchFeature:
        """Run both encoders over clips of one video: the second half of `stream`."""
        return self.encode_and_name(batch)[0]

    @torch.no_grad()
    def encode_and_name(self, batch: ClipBatch | Sequence[Clip]) -> tuple[BatchFeature, dict[str, Tensor]]:
        """As `encode`, and what is seen and heard in each clip, by the same pass.

        Returns:
            The features; and of each of `classes` the probabilities, of shape `(clips, classes)`, float32. Those of
            what is heard are the mean over the windows of sound that belong to the clip: a video without sound has
            none.
        """
        if not isinstance(batch, ClipBatch):
            batch = self.prepare(batch)
        if batch.pixels.is_cuda:  # until what is computed here has used it, its memory is not free
            batch.pixels.record_stream(torch.cuda.current_stream(batch.pixels.device))
        visual, seen = self._see(batch.pixels)
        audio, heard = self._hear(batch.clips)
        has_sound = audio is not None
        if audio is None:
            # Zero features, not features of silence: as the paper runs corpora without sound (V-A).
            width = self.encoders["audio_encoder"].spec.width
            audio = visual.new_zeros(len(batch.clips), self.num_pictures, width)
        features = BatchFeature(
            {
                "visual_features": visual.unsqueeze(0),
                "audio_features": audio.unsqueeze(0),
                "clip_mask": torch.ones(1, len(batch.clips), dtype=torch.bool, device=visual.device),
                "clip_times": torch.tensor([[(clip.start, clip.end) for clip in batch.clips]], dtype=torch.float64),
                "has_audio": torch.tensor([has_sound]),
            }
        )
        found = {"seen": seen, "heard": heard}
        return features, {sense: found[sense] for sense in self.classes if found[sense] is not None}

    def stored(self, batch: ClipBatch, visual_dtype: str) -> tuple[dict[str, Tensor], bool]:
        """What a feature store keeps of some clips of one video, and whether it has sound."""
        features = self.encode(batch)
        tensors = {
            "visual_features": features["visual_features"][0].to(getattr(torch, visual_dtype)).cpu(),
            "audio_features": features["audio_features"][0].cpu(),
            "clip_times": features["clip_times"][0].cpu(),
        }
        return tensors, bool(features["has_audio"][0])

    def _see(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps of shape `(clips, width, *feature_grid)`, from frames of shape `(clips * num_pictures, 3, H, W)`.

        And the probabilities of classes, of shape `(clips, classes)`, if the encoder has some.
        """
        encoder = self.encoders["video_encoder"]
        found, probabilities = encoder.encode_and_name(pixels.unflatten(0, (-1, self.num_pictures)))
        # In one piece, as it is stored, whatever layout the network computes in.
        return maps_on_grid(as_map(found), self.feature_grid).contiguous(), probabilities

    def _hear(self, clips: Sequence[Clip]) -> tuple[Tensor | None, Tensor | None]:
        """Embeddings of sound of shape `(clips, num_pictures, width)`, one for each frame; ``None`` without sound.

        And the probabilities of classes, of shape `(clips, classes)`, if the encoder has some.
        """
        encoder = self.encoders["audio_encoder"]
        if encoder.spec.gives == "vector":
            frames = [frame for clip in clips for frame in self.pictures(clip)]
            if frames[0].sound is None:
                return None, None
            shape = (len(clips), self.num_pictures)
            embeddings, probabilities = self._hear_frames(frames)
            if probabilities is not None:
                probabilities = probabilities.unflatten(0, shape).mean(dim=1)
            return embeddings.unflatten(0, shape), probabilities
        windows = [clip.frames[-1] for clip in clips]
        if windows[0].sound is None:
            return None, None
        tokens, probabilities = encoder.encode_and_name(torch.stack([frame.sound for frame in windows]))
        return F.adaptive_avg_pool1d(tokens.transpose(1, 2), self.num_pictures).transpose(1, 2), probabilities

    def _hear_frames(self, frames: Sequence[Frame]) -> tuple[Tensor, Tensor | None]:
        """Embeddings of the sound before each frame, of shape `(frames, width)`; of each frame once.

        And the probabilities of classes, of shape `(frames, classes)`, if the encoder has some.
        """
        encoder = self.encoders["audio_encoder"]
        computing = encoder.computing
        new = [frame for frame in dict.fromkeys(frames) if self._heard.get(frame, (None,))[0] is not computing]
        if new:
            windows = torch.stack([frame.sound for frame in new])
            embeddings, probabilities = encoder.encode_and_name(windows, [frame.first_sample for frame in new])
            rows = [None] * len(new) if probabilities is None else probabilities
            found = zip(new, embeddings, rows, strict=True)
            self._heard.update({frame: (computing, embedding, row) for frame, embedding, row in found})
        _, embeddings, probabilities = zip(*(self._heard[frame] for frame in frames), strict=True)
        return torch.stack(embeddings), None if probabilities[0] is None else torch.stack(probabilities)

    # Export

    def networks_to_export(self, batches: Sequence[Sequence[Clip]]) -> Iterator[Network]:
        """The encoders, each with input to trace it by and to calibrate it on.

        Args:
            batches: Lists of clips, each of one video, for calibration.
        """
        clips = [clip for batch in batches for clip in batch]
        # What torch scales is floating point; FFmpeg gives 8 bits.
        pixel_dtype = torch.uint8 if self.resize == "area" else torch.float32
        height, width = (self.size, self.size * 16 // 9) if isinstance(self.size, int) else self.size
        seeing = self.encoders["video_encoder"]
        is_free = isinstance(self.size, int)
        yield Network.of_encoder(
            "video_encoder",
            seeing,
            seeing.inputs_of(torch.zeros(2, self.num_pictures, 3, height, width, dtype=pixel_dtype)),
            varying=(0, 3, 4) if is_free else (0,),
            calibration=[
                seeing.inputs_of(torch.stack([frame.pixels for frame in self.pictures(clip)]).unsqueeze(0))
                for clip in clips
            ],
        )
        hearing = self.encoders["audio_encoder"]
        samples = round(hearing.spec.window_s * hearing.spec.sampling_rate)
        by_frame = hearing.spec.gives == "vector"
        heard = [self.pictures(clip) if by_frame else [clip.frames[-1]] for clip in clips]
        yield Network.of_encoder(
            "audio_encoder",
            hearing,
            hearing.inputs_of(torch.zeros(2, samples), [0, samples]),
            varying=(0,),
            calibration=[
                hearing.inputs_of(
                    torch.stack([frame.sound for frame in frames]), [frame.first_sample for frame in frames]
                )
                for frames in heard
                if frames[0].sound is not None
            ],
        )


def _is_count(value: Any) -> bool:
    """Whether a value is a whole number, 1 or more; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _plain(value: float | tuple[float, ...]) -> float | list[float]:
    """A number or three, as JSON has them."""
    return list(value) if isinstance(value, tuple) else value


__all__ = ["ROLES", "AvacaProcessor", "ClipBatch"]
