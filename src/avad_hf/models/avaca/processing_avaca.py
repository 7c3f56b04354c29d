"""The feature processor: decodes a video, aligns its sound with its frames, and asks two frozen encoders."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal
from weakref import WeakKeyDictionary

import torch
from transformers import FeatureExtractionMixin, PreTrainedModel

from avad_hf.hub.contents import check_hub_id, refuse_leading_out
from avad_hf.media.clips import Clip
from avad_hf.models.encoder import Encoder, encoder_for, encoder_from_hub, load_encoder
from avad_hf.models.settings import Bounds, check_numbers
from avad_hf.models.tracing import Network

from .features_avaca import PATCHES, PER_CLIP, ClipBatch, ClipFeatures
from .patches_avaca import patch_grids

# Where the encoders lie in a checkpoint that carries them, and what they read.
ROLES: dict[str, Literal["pixels", "waveform"]] = {"video_encoder": "pixels", "audio_encoder": "waveform"}


class AvacaProcessor(ClipFeatures):
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
        patches: Rows and columns of grids that every frame is cut into besides, ``((2, 3), (3, 5), (4, 7))`` for
            example, as SSRL was published. Each patch is scaled to the size that whole frames have and goes through
            the video encoder by itself: with these three grids extraction takes some fifty times as long. None by
            default.
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
        patches: Sequence[Sequence[int]] | None = None,
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
        for name, value in (("size", size), ("feature_grid", grid)):
            check_numbers(name, value, self.bounds)
        self.size = size if isinstance(size, int) else tuple(size)
        self.resize = resize
        self.feature_grid = tuple(grid)
        self.patches = patch_grids(patches)
        self._heard = WeakKeyDictionary()
        self.num_pictures = spec.num_frames
        self.see_every(frame_step)
        if clip_stride is not None:
            self.clip_stride = clip_stride
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

    def see_every(self, frame_step: int) -> None:
        """Have the video encoder see every so many frames, in clips that follow each other without overlap.

        Raises:
            ValueError: For what is no whole number of frames, 1 or more.
        """
        if not _is_count(frame_step):
            raise ValueError(f"frame_step must be a whole number of frames, 1 or more, got {frame_step!r}.")
        check_numbers("frame_step", frame_step, self.bounds)
        self.frame_step = frame_step
        self.clip_length = self.clip_stride = self.num_pictures * frame_step

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
        """Channels of the feature maps and of patches, if there are some, and width of the embeddings of sound."""
        names = {"visual_features": "video_encoder", "audio_features": "audio_encoder"}
        names |= {PATCHES: "video_encoder"} if self.patches else {}
        return {name: self.encoders[role].spec.width for name, role in names.items()}

    @property
    def _hub_ids(self) -> dict[str, str]:
        """Which encoders are kept by their names on the Hub."""
        return {role: one.hub_id for role, one in self.encoders.items() if one.hub_id is not None}

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns."""
        return [*PER_CLIP, *([PATCHES] if self.patches else []), "has_audio"]

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
        settings |= {"patches": [list(grid) for grid in self.patches]} if self.patches else {}
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
            hearing.traced_inputs_of(torch.zeros(2, samples), [0, samples]),
            varying=hearing.varying,
            calibration=[
                hearing.traced_inputs_of(
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
