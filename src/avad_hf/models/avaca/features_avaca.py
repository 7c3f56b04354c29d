"""From videos to features: clips with the sound that belongs to them, through two frozen encoders."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BatchFeature

from avad_hf.media.ahead import batches
from avad_hf.media.clips import Clip, Frame, cut_clips, join_ends, sound_window
from avad_hf.media.decode import MediaInfo
from avad_hf.media.given import as_sources
from avad_hf.media.scaling import asked_size
from avad_hf.media.sources import Media, open_media
from avad_hf.models.encoder import Encoder
from avad_hf.models.placing import clips_at_once, to_device
from avad_hf.models.processing import DetectorProcessor, in_tensors, note_silence, padded

from .end_to_end_avaca import as_map, maps_on_grid
from .gated_avaca import GatedFeatures
from .patches_avaca import cut_patches

logger = logging.getLogger(__name__)

# Features that have one row a clip.
PER_CLIP = ("visual_features", "audio_features", "clip_mask", "clip_times")
# What there is besides where frames are cut into patches.
PATCHES = "patch_features"

# What the classes of each encoder name.
SENSES = {"video_encoder": "seen", "audio_encoder": "heard"}


@dataclass(frozen=True)
class ClipBatch:
    """Some clips of one video, ready for the encoders.

    Args:
        clips: In their order.
        pixels: `torch.Tensor` of shape `(len(clips) * num_pictures, 3, H, W)`, as decoded, on the encoders' device.
    """

    clips: Sequence[Clip]
    pixels: Tensor


class ClipFeatures(DetectorProcessor):
    """What [`AvacaProcessor`] makes of videos.

    Attributes:
        encoders: The ``video_encoder`` and the ``audio_encoder``.
        size: Short side of the frames that are encoded, in pixels; or height and width.
        resize: How frames are scaled: ``"area"`` or ``"torch"``.
        feature_grid: Rows and columns of the feature maps.
        num_pictures: Frames of a clip that the video encoder sees.
        frame_step: It sees every so many frames.
        clip_length: Frames of a clip.
        clip_stride: Frames from one clip to the next.
        patches: Rows and columns of the grids that frames are cut into besides; empty for none.
    """

    encoders: dict[str, Encoder]
    size: int | tuple[int, int]
    resize: str
    feature_grid: tuple[int, int]
    num_pictures: int
    frame_step: int
    clip_length: int
    clip_stride: int
    patches: tuple[tuple[int, int], ...]
    # Embeddings of what is heard before each frame and the probabilities of its classes, by the network that made
    # them: clips may share frames.
    _heard: WeakKeyDictionary[Frame, tuple[Any, Tensor, Tensor | None]]

    @property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Names of what is ``"seen"`` and ``"heard"``, of the encoders that have classes with names."""
        return {
            SENSES[role]: encoder.spec.classes
            for role, encoder in self.encoders.items()
            if encoder.class_output is not None and encoder.spec.classes
        }

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
            - ``has_audio`` of shape `(B,)`,
            - with `patches`, ``patch_features`` of shape `(B, T, num_patches, width)`.

        Raises:
            MediaError: If a video cannot be read.
        """
        items = []
        for video in as_sources(videos, audio, fps, sampling_rate):
            chunks = list(self.stream(video))
            names = [name for name in (*PER_CLIP, PATCHES) if name in chunks[0]]
            item = {name: torch.cat([chunk[name][0] for chunk in chunks]) for name in names}
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
        names = [name for name in (*PER_CLIP, PATCHES) if name in items[0]]
        return BatchFeature(padded(items, names) | {"has_audio": torch.cat([item["has_audio"] for item in items])})

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

    def turns_maps(self, info: MediaInfo) -> bool:
        """Whether feature maps of a video are turned over the diagonal, as `maps_on_grid` turns those of portraits."""
        rows, columns = self.feature_grid
        width, height = asked_size(info.width, info.height, self.size)
        return rows < columns and height > width

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
        batch = self.prepared(batch)
        return self.joined(batch.clips, self.see(batch.pixels) | self.hear(batch.clips))

    @torch.no_grad()
    def encode_together(self, batches: Sequence[ClipBatch]) -> list[tuple[BatchFeature, dict[str, Tensor]]]:
        """As `encode_and_name` of batches of several videos: pictures of one size go through the encoder together."""
        batches = [self.prepared(batch) for batch in batches]
        by_size: dict[torch.Size, list[int]] = {}
        for number, batch in enumerate(batches):
            by_size.setdefault(batch.pixels.shape[1:], []).append(number)
        rows: dict[int, dict[str, Tensor]] = {}
        for numbers in by_size.values():
            seen = self.see(torch.cat([batches[number].pixels for number in numbers]))
            counts = [len(batches[number].clips) for number in numbers]
            parts = zip(*(values.split(counts) for values in seen.values()), strict=True)
            rows |= {number: dict(zip(seen, part, strict=True)) for number, part in zip(numbers, parts, strict=True)}
        # Each by itself: windows of one waveform share what they have in common.
        return [
            self.joined(batch.clips, rows[number] | self.hear(batch.clips)) for number, batch in enumerate(batches)
        ]

    def prepared(self, batch: ClipBatch | Sequence[Clip]) -> ClipBatch:
        """Clips of one video as `decode` gives them, about to be encoded."""
        if not isinstance(batch, ClipBatch):
            batch = self.prepare(batch)
        if batch.pixels.is_cuda:  # until what is computed here has used it, its memory is not free
            batch.pixels.record_stream(torch.cuda.current_stream(batch.pixels.device))
        return batch

    @torch.no_grad()
    def see(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the video encoder gives of clips, with a row for each: features, and the probabilities of ``"seen"``.

        Args:
            pixels: Their pictures, of shape `(clips * num_pictures, 3, H, W)`.
        """
        visual, seen = self._see(pixels)
        rows = {"visual_features": visual}
        if self.patches:
            rows[PATCHES] = self._see_patches(pixels)
        return rows if seen is None else rows | {"seen": seen}

    @torch.no_grad()
    def hear(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """What the audio encoder gives, likewise, with the probabilities of ``"heard"``; nothing without sound."""
        audio, heard = self._hear(clips)
        found = {"audio_features": audio, "heard": heard}
        return {name: rows for name, rows in found.items() if rows is not None}

    def joined(self, clips: Sequence[Clip], rows: dict[str, Tensor]) -> tuple[BatchFeature, dict[str, Tensor]]:
        """What `encode_and_name` returns of clips, of the rows of `see` and `hear`."""
        visual, audio = rows["visual_features"], rows.get("audio_features")
        has_sound = audio is not None
        if audio is None:
            # Zero features, not features of silence: as the paper runs corpora without sound (V-A).
            width = self.encoders["audio_encoder"].spec.width
            audio = visual.new_zeros(len(clips), self.num_pictures, width)
        features = BatchFeature(
            {
                "visual_features": visual.unsqueeze(0),
                "audio_features": audio.unsqueeze(0),
                "clip_mask": torch.ones(1, len(clips), dtype=torch.bool, device=visual.device),
                "clip_times": torch.tensor([[(clip.start, clip.end) for clip in clips]], dtype=torch.float64),
                "has_audio": torch.tensor([has_sound]),
            }
        )
        if PATCHES in rows:
            features[PATCHES] = rows[PATCHES].unsqueeze(0)
        return features, {sense: rows[sense] for sense in self.classes if sense in rows}

    def gated(self) -> GatedFeatures:
        """What encodes the clips of one stream, and lets still ones take the features of earlier ones."""
        return GatedFeatures(self)

    def stored(self, batch: ClipBatch, visual_dtype: str) -> tuple[dict[str, Tensor], bool]:
        """What a feature store keeps of some clips of one video, and whether it has sound."""
        features = self.encode(batch)
        tensors = {
            "visual_features": features["visual_features"][0].to(getattr(torch, visual_dtype)).cpu(),
            "audio_features": features["audio_features"][0].cpu(),
            "clip_times": features["clip_times"][0].cpu(),
        }
        if PATCHES in features:
            tensors[PATCHES] = features[PATCHES][0].to(getattr(torch, visual_dtype)).cpu()
        return tensors, bool(features["has_audio"][0])

    def _see(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps of shape `(clips, width, *feature_grid)`, from frames of shape `(clips * num_pictures, 3, H, W)`.

        And the probabilities of classes, of shape `(clips, classes)`, if the encoder has some.
        """
        encoder = self.encoders["video_encoder"]
        found, probabilities = encoder.encode_and_name(pixels.unflatten(0, (-1, self.num_pictures)))
        # In one piece, as it is stored, whatever layout the network computes in.
        return maps_on_grid(as_map(found), self.feature_grid).contiguous(), probabilities

    @property
    def num_patches(self) -> int:
        """Patches of a frame, of all grids."""
        return sum(rows * columns for rows, columns in self.patches)

    def _see_patches(self, pixels: Tensor) -> Tensor:
        """Features of shape `(clips, num_patches, width)`, from frames of shape `(clips * num_pictures, 3, H, W)`.

        Patch by patch, so that it takes no more memory than whole frames.
        """
        encoder = self.encoders["video_encoder"]
        rows = []
        for patch in cut_patches(pixels, self.patches, self.size):
            found = as_map(encoder.encode(patch.unflatten(0, (-1, self.num_pictures))))
            rows.append(found.mean(dim=(2, 3)))
        return torch.stack(rows, dim=1)

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


__all__ = ["PATCHES", "PER_CLIP", "ClipBatch", "ClipFeatures"]
