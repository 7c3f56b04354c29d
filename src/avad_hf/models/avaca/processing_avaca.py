"""From videos to AVACA's features: decoding, the two frozen encoders, and their checkpoint folder."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal
from weakref import WeakKeyDictionary

import av
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchFeature, PreTrainedModel, ProcessorMixin
from transformers.utils import PROCESSOR_NAME

from avad_hf.hub.errors import hub_errors, refuse_unreachable
from avad_hf.hub.folders import weights_hash
from avad_hf.hub.push import PushedWithCard
from avad_hf.media.ahead import batches, read_ahead
from avad_hf.media.clips import Clip, Frame, cut_clips, join_ends, sound_window
from avad_hf.media.sources import Media, open_media
from avad_hf.models.checkpoints import weights_state
from avad_hf.models.engine import EngineModel
from avad_hf.models.placing import clips_at_once, to_device
from avad_hf.models.precision import choose_dtype, describe
from avad_hf.models.slowfast.inference_slowfast import inference_form as slowfast_form
from avad_hf.models.slowfast.modeling_slowfast import SlowFastModel
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor
from avad_hf.models.vggish.inference_vggish import inference_form as vggish_form
from avad_hf.models.vggish.modeling_vggish import VggishModel

from .encoders import ENCODERS, HUB_ID, encoder_from_hub, frozen_encoder

logger = logging.getLogger(__name__)

# The sound of a frame: one second that ends exactly at its time (AVACA IV-C).
SOUND_WINDOW_S = 1.0
# Windows of sound are encoded by so many, or twice that, and so on: matrices of other numbers of rows are multiplied
# in an order that depends on the number of threads, and a store must not. Engines prepare themselves less often, too.
WINDOWS_TOGETHER = 8
# Features that have one row a clip.
PER_CLIP = ("visual_features", "audio_features", "clip_mask", "clip_times")
FORMS = {"video_encoder": slowfast_form, "audio_encoder": vggish_form}


@dataclass(frozen=True)
class ClipBatch:
    """Some clips of one video, ready for the encoders.

    Args:
        clips: In their order.
        pixels: `torch.Tensor` of shape `(len(clips) * clip_length, 3, H, W)`, as decoded, on the encoders' device.
    """

    clips: Sequence[Clip]
    pixels: Tensor


class AvacaProcessor(PushedWithCard, ProcessorMixin):
    r"""Turns videos into the features that AVACA reads, with a frozen video encoder and a frozen audio encoder.

    Args:
        feature_extractor: [`VggishFeatureExtractor`] for the audio encoder.
        video_encoder: A [`SlowFastModel`], or the folder or Hub id of one. A Hub id is kept as such by
            `save_pretrained`, with the commit that was loaded, so that checkpoints can share an encoder and it never
            changes under them; ``user/name@revision`` chooses one. Anything else is saved with the processor; an
            encoder that you have changed must be saved to a folder, and given by that.
        audio_encoder: A [`VggishModel`], likewise.
        size: Short side of the frames that the video encoder sees, in pixels; the long side keeps the proportion and
            nothing is cropped.
        resize: ``"area"`` scales inside FFmpeg, ``"torch"`` as pytorchvideo's transform, more slowly.
        clip_stride: Frames from one clip to the next. By default clips follow each other without overlap, as the video
            encoder has them (32 frames).
        feature_grid: Rows and columns that every feature map is average-pooled to, so that videos of any shape fit one
            batch: what SlowFast gives for 16:9.
        image_mean: Subtracted from pixels within 0 and 1.
        image_std: Divides them then.
    """

    part_of = "avaca"

    def __init__(
        self,
        feature_extractor: VggishFeatureExtractor,
        video_encoder: SlowFastModel | str | os.PathLike,
        audio_encoder: VggishModel | str | os.PathLike,
        size: int = 256,
        resize: Literal["area", "torch"] = "area",
        clip_stride: int | None = None,
        feature_grid: tuple[int, int] | list[int] = (2, 9),
        image_mean: float = 0.45,
        image_std: float = 0.225,
    ):
        super().__init__(feature_extractor)
        if resize not in ("area", "torch"):
            raise ValueError(f"resize must be 'area' or 'torch', got {resize!r}.")
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"size must be the short side in pixels, 1 or more, got {size!r}.")
        if not isinstance(feature_grid, (list, tuple)) or len(feature_grid) != 2 or min(feature_grid) < 1:
            raise ValueError(f"feature_grid must be rows and columns, 1 or more each, got {feature_grid!r}.")
        self.size = size
        self.resize = resize
        self.feature_grid = tuple(feature_grid)
        self.image_mean = image_mean
        self.image_std = image_std
        self._forms: dict[str, tuple] = {}
        self._dtype: torch.dtype | str | None = None
        # Embeddings of what is heard before each frame, by the network that made them: clips may share frames.
        self._heard: WeakKeyDictionary[Frame, tuple[PreTrainedModel, Tensor]] = WeakKeyDictionary()
        self.video_encoder = frozen_encoder("video_encoder", video_encoder)
        self.audio_encoder = frozen_encoder("audio_encoder", audio_encoder)
        self.clip_length = self.video_encoder.config.num_frames
        self.clip_stride = self.clip_length if clip_stride is None else clip_stride
        if not 1 <= self.clip_stride <= self.clip_length:
            raise ValueError(
                f"clip_stride must be between 1 and the video encoder's {self.clip_length} frames, got {clip_stride}."
            )

    def __getstate__(self) -> dict[str, Any]:
        # What is made anew when it is needed, and could not be pickled.
        return self.__dict__ | {"_forms": {}, "_heard": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state | {"_heard": WeakKeyDictionary()})

    @property
    def chosen_dtype(self) -> torch.dtype | str | None:
        """What `to` was told about a floating point type, if anything."""
        return self._dtype

    @property
    def _hub_ids(self) -> dict[str, str]:
        """Which encoders are kept by their names on the Hub."""
        named = {role: getattr(getattr(self, role), HUB_ID, None) for role in ENCODERS}
        return {role: name for role, name in named.items() if name is not None}

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        return [*PER_CLIP, "has_audio"]

    @property
    def notices(self) -> list[str]:
        """What a user must know about the encoders' weights; empty for ordinary ones."""
        return [encoder.config.notice for encoder in (self.video_encoder, self.audio_encoder) if encoder.config.notice]

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | str | None = None) -> "AvacaProcessor":
        """Move both encoders to a device, and choose what they compute in; their weights stay as they are.

        Args:
            device: Where to.
            dtype: A floating point type, or ``"auto"`` for bfloat16 where the device has hardware for it and float32
                elsewhere. At first it is that of the weights. Features are float32 always.
        """
        for encoder in (self.video_encoder, self.audio_encoder):
            encoder.to(device=device)
        if dtype is not None and not isinstance(self.video_encoder, EngineModel):
            choose_dtype(dtype, self.device)  # which refuses what is no such type
            self._dtype = dtype
        return self

    @property
    def device(self) -> torch.device:
        """Where the encoders are."""
        return self.video_encoder.device

    @property
    def dtype(self) -> torch.dtype:
        """What the encoders compute in."""
        return choose_dtype(self._dtype, self.device) or self.video_encoder.dtype

    def recipe(self) -> dict[str, Any]:
        """Everything that its features depend on, besides the video: for telling features apart that differ."""
        settings = {key: value for key, value in self.to_dict().items() if key not in ENCODERS}
        encoders = {
            role: {
                # Its own fields: what transformers adds says nothing about what is computed. Nor does a PCA, which
                # follows what is used here.
                "config": {
                    name: getattr(encoder.config, name)
                    for name in type(encoder.config).__annotations__
                    if name != "has_pca"
                },
                **self._numerics(encoder),
            }
            for role in ENCODERS
            for encoder in [getattr(self, role)]
        }
        versions = {name: version(name) for name in ("avad-hf", "av", "torch", "torchaudio")}
        return {
            "processor": settings,
            "fps": "as recorded",
            **encoders,
            "notices": self.notices,
            "versions": versions | {"ffmpeg": av.ffmpeg_version_info},
        }

    def _numerics(self, encoder: PreTrainedModel) -> dict[str, str]:
        """Which weights an encoder has, whatever it computes in; and that."""
        if isinstance(encoder, EngineModel):
            record = encoder.record
            return {
                "dtype": record["precision"],
                "runtime": f"{record['format']} ({record['sha256'][:12]})",
                "weights_sha256": record["source_sha256"],
            }
        dtype = choose_dtype(self._dtype, encoder.device) or encoder.dtype
        return {"dtype": str(dtype).removeprefix("torch."), "weights_sha256": weights_hash(encoder)}

    @property
    def computes_in(self) -> str:
        """What the encoders compute with, where, in which precision, and why, in words."""
        if isinstance(self.video_encoder, EngineModel):
            return self.video_encoder.computes_in
        return describe(self._dtype or self.dtype, self.device)

    # Saving and loading

    def to_dict(self) -> dict[str, Any]:
        """Everything but the encoders' weights; an encoder is its Hub id, or its folder beside this file."""
        return {
            "processor_class": type(self).__name__,
            "feature_extractor": self.feature_extractor.to_dict(),
            "size": self.size,
            "resize": self.resize,
            "clip_stride": self.clip_stride,
            "feature_grid": list(self.feature_grid),
            "image_mean": self.image_mean,
            "image_std": self.image_std,
        } | {role: self._hub_ids.get(role, f"./{role}") for role in ENCODERS}

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> list[str]:
        """Write ``processor_config.json`` and, in folders of their own, the encoders that have no Hub id."""
        os.makedirs(save_directory, exist_ok=True)
        for role in ENCODERS.keys() - self._hub_ids.keys():
            getattr(self, role).save_pretrained(os.path.join(save_directory, role))
        files = super().save_pretrained(save_directory)
        if push_to_hub:
            # Not by the parent, which would see the config alone as new.
            self.push_to_hub(kwargs.pop("repo_id", os.path.basename(os.path.abspath(save_directory))), **kwargs)
        return files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, dtype=None, **kwargs) -> "AvacaProcessor":
        """Load the processor with its encoders, which compute in float32 unless a `dtype` is given, as for `to`."""
        with hub_errors(str(pretrained_model_name_or_path), "model", "loaded"):
            processor = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return processor.to(dtype=dtype)

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path, **kwargs) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read ``processor_config.json`` and load the encoders that it names and that were not given as arguments."""
        processor_dict, rest = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
        hub_names = ("cache_dir", "force_download", "token", "local_files_only", "revision")
        hub_kwargs = {name: kwargs[name] for name in hub_names if kwargs.get(name) is not None}
        if not processor_dict:
            refuse_unreachable(pretrained_model_name_or_path, PROCESSOR_NAME, **kwargs)
        for role in ENCODERS:
            place = processor_dict.get(role)
            if role in rest:
                processor_dict.pop(role, None)
            elif place is None:
                raise ValueError(
                    f"{pretrained_model_name_or_path} holds no processor of AVACA: its processor_config.json names no "
                    f"{role}. AvacaProcessor.save_pretrained writes a complete one."
                )
            elif place.startswith("./"):
                subfolder = "/".join(part for part in (kwargs.get("subfolder"), place[2:]) if part)
                try:
                    processor_dict[role] = ENCODERS[role].from_pretrained(
                        pretrained_model_name_or_path, subfolder=subfolder, **hub_kwargs
                    )
                except (OSError, ValueError) as error:
                    raise ValueError(
                        f"{pretrained_model_name_or_path}: its {role} cannot be loaded from {subfolder}: {error}"
                    ) from error
            else:  # a repository of its own, which this one's revision is none of
                own = {name: value for name, value in hub_kwargs.items() if name != "revision"}
                processor_dict[role] = encoder_from_hub(role, place, **own)
        return processor_dict, rest

    # Features

    def __call__(self, videos: Any) -> BatchFeature:
        """Compute the features of one video or of several.

        Args:
            videos: What `avad_hf.media.sources.ACCEPTED_SOURCES` lists, or a list of them.

        Returns:
            [`BatchFeature`], videos with fewer clips padded with zeros:

            - ``visual_features`` of shape `(B, T, hidden_size, *feature_grid)`,
            - ``audio_features`` of shape `(B, T, clip_length, embedding_size)`, zero for videos without sound,
            - ``clip_mask`` of shape `(B, T)`, false for padding,
            - ``clip_times`` of shape `(B, T, 2)`, start and end in seconds, float64,
            - ``has_audio`` of shape `(B,)`.

        Raises:
            MediaError: If a video cannot be read.
        """
        if not isinstance(videos, (list, tuple)):
            videos = [videos]
        if not videos:
            raise ValueError("No video was given.")
        items = []
        for video in videos:
            chunks = list(self.stream(video))
            item = {key: torch.cat([chunk[key][0] for chunk in chunks]) for key in PER_CLIP}
            items.append(item | {"has_audio": chunks[0]["has_audio"]})
        return self.pad(items)

    @staticmethod
    def pad(items: list[dict[str, Tensor]]) -> BatchFeature:
        """Join the features of single videos, each of shape `(T, ...)`, to a batch padded with zeros and masked."""
        batch = {
            key: torch.nn.utils.rnn.pad_sequence([item[key] for item in items], batch_first=True) for key in PER_CLIP
        }
        return BatchFeature(batch | {"has_audio": torch.cat([item["has_audio"] for item in items])})

    def stream(self, source: Any, clips_per_batch: int | None = None) -> Iterator[BatchFeature]:
        """Compute the features of one video a few clips at a time, in memory that does not grow with its length.

        The next clips are decoded, in a thread of their own, while these ones are encoded.

        Args:
            source: What `avad_hf.media.sources.ACCEPTED_SOURCES` lists, or an open `Media`.
            clips_per_batch: Clips that go through the encoders together. By default one on a CPU, which gains nothing
                from more, and on a GPU as many as fit into its memory, up to 16.

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

    def decode(self, media: Media, clips_per_batch: int | None = None, whole: bool = False) -> Iterator[ClipBatch]:
        """Decode a video into batches of clips on the encoders' device: the first half of `stream`.

        Args:
            media: The video.
            clips_per_batch: As for `stream`.
            whole: For every detector's processor; AVACA's clips are the same either way.
        """
        size = clips_per_batch or clips_at_once(self.device, self.clip_length, media.info, self.size)
        for clips in batches(self.clips(media), size):
            yield self.prepare(clips)

    def prepare(self, clips: Sequence[Clip]) -> ClipBatch:
        """Put the pixels of some clips of one video together, in 8 bits, on the encoders' device."""
        pixels = torch.stack([frame.pixels for clip in clips for frame in clip.frames])
        return ClipBatch(clips, to_device(pixels, self.device))

    def clips(self, media: Media) -> Iterator[Clip]:
        """Decode a video into clips with the sound of each frame, without the encoders."""
        track = media.sound(self.feature_extractor.sampling_rate)
        if not track.has_sound:
            found = "its sound cannot be decoded" if media.info.has_audio else "it has no sound"
            logger.info("%s: %s; its sound features are zero.", media.info.name, found)

        def with_sound(frames: Iterator[Frame]) -> Iterator[Frame]:
            for frame in frames:
                if track.has_sound:
                    first, _ = sound_window(frame.start, track.start, SOUND_WINDOW_S, track.rate)
                    sound = track.window(frame.start, SOUND_WINDOW_S)
                    frame = replace(frame, sound=sound, first_sample=first)
                yield frame

        frames = join_ends(media.frames(self.size, self.resize))
        return cut_clips(with_sound(frames), self.clip_length, self.clip_stride)

    @torch.no_grad()
    def encode(self, batch: ClipBatch | Sequence[Clip]) -> BatchFeature:
        """Run both encoders over clips of one video: the second half of `stream`."""
        if not isinstance(batch, ClipBatch):
            batch = self.prepare(batch)
        clips = batch.clips
        frames = [frame for clip in clips for frame in clip.frames]
        has_sound = frames[0].sound is not None
        if batch.pixels.is_cuda:  # until what is computed here has used it, its memory is not free
            batch.pixels.record_stream(torch.cuda.current_stream(batch.pixels.device))
        visual = self._encode_frames(batch.pixels)
        if has_sound:
            audio = self._encode_sound(frames)
        else:
            # Zero features, not features of silence: as the paper runs corpora without sound (V-A).
            audio = visual.new_zeros(len(frames), self.audio_encoder.config.embedding_size)
        return BatchFeature(
            {
                "visual_features": visual.unsqueeze(0),
                "audio_features": audio.unflatten(0, (1, len(clips), self.clip_length)),
                "clip_mask": torch.ones(1, len(clips), dtype=torch.bool, device=visual.device),
                "clip_times": torch.tensor([[(clip.start, clip.end) for clip in clips]], dtype=torch.float64),
                "has_audio": torch.tensor([has_sound]),
            }
        )

    def stored(self, batch: ClipBatch, visual_dtype: str) -> tuple[dict[str, Tensor], bool]:
        """What a feature store keeps of some clips of one video, and whether it has sound."""
        features = self.encode(batch)
        tensors = {
            "visual_features": features["visual_features"][0].to(getattr(torch, visual_dtype)).cpu(),
            "audio_features": features["audio_features"][0].cpu(),
            "clip_times": features["clip_times"][0].cpu(),
        }
        return tensors, bool(features["has_audio"][0])

    def _encode_frames(self, pixels: Tensor) -> Tensor:
        """Frames of shape `(clips * clip_length, 3, H, W)` to maps of shape `(clips, hidden_size, *feature_grid)`."""
        encoder = self._fast("video_encoder")
        if isinstance(encoder, EngineModel):  # which normalises by itself
            return self._on_grid(encoder(pixels=pixels.unflatten(0, (-1, self.clip_length))).feature_map)
        # Normalised where the encoder is: as floats four times as many bytes would be copied to it.
        scaled = pixels.to(torch.float32, copy=True).div_(255.0 * self.image_std)
        normalised = scaled.sub_(self.image_mean / self.image_std).unflatten(0, (-1, self.clip_length))
        return self._on_grid(encoder(normalised.to(encoder.dtype)).feature_map.float())

    def _on_grid(self, maps: Tensor) -> Tensor:
        """Maps of videos of any shape, averaged to the size that all have."""
        return maps if maps.shape[-2:] == self.feature_grid else F.adaptive_avg_pool2d(maps, self.feature_grid)

    def _encode_sound(self, frames: Sequence[Frame]) -> Tensor:
        """Embeddings of the sound before each frame, of shape `(frames, embedding_size)`; of each frame once."""
        encoder = self._fast("audio_encoder")
        new = [frame for frame in dict.fromkeys(frames) if self._heard.get(frame, (None,))[0] is not encoder]
        if new:
            # One second makes 98 frames; VGGish takes the first 96 and leaves the last 25 ms (as all public versions
            # do).
            log_mel = self.feature_extractor.log_mel_of_windows(
                torch.stack([frame.sound for frame in new]),
                [frame.first_sample for frame in new],
                encoder.config.num_frames,
            )
            log_mel = F.pad(log_mel, (0, 0, 0, 0, 0, -len(new) % WINDOWS_TOGETHER))
            embeddings = encoder(log_mel.to(encoder.device, encoder.dtype)).pooler_output[: len(new)].float()
            self._heard.update({frame: (encoder, row) for frame, row in zip(new, embeddings, strict=True)})
        return torch.stack([self._heard[frame][1] for frame in frames])

    def _fast(self, role: str) -> PreTrainedModel:
        """An encoder in its inference form, made anew after its weights have been moved or changed."""
        encoder = getattr(self, role)
        if isinstance(encoder, EngineModel):
            return encoder
        dtype = choose_dtype(self._dtype, encoder.device)
        state = (dtype, weights_state(encoder))
        # The encoder is kept beside its form: another one must not be taken for it because it lies at the same place.
        known, before, form = self._forms.get(role, (None, None, None))
        if known is not encoder or before != state:
            # Whatever was done to the encoder since, say by train() of a model around it: it stays frozen.
            form = FORMS[role](encoder.eval(), dtype)
            self._forms[role] = encoder, state, form
        return form


__all__ = ["AvacaProcessor"]
