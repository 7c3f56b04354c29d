"""Videos as a video encoder alone reads them; detectors have processors of their own."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import BatchFeature, FeatureExtractionMixin

from avad_hf.hub.push import PushedWithCard
from avad_hf.media.given import as_sources
from avad_hf.media.sources import open_media
from avad_hf.media.windows import normalised, read_whole

from .processing import in_tensors
from .settings import Bounds, check_arguments, refuse_parts_of_class


class VideoFeatureExtractor(PushedWithCard, FeatureExtractionMixin):
    r"""Turns videos into the normalised frames that [`SlowFastModel`] and [`ResNet3dModel`] read.

    Args:
        num_frames: Frames of a video; of l frames every ``max(1, l // num_frames)``-th from the first one on. Videos
            with fewer frames begin again.
        size: Short side of the frames in pixels, which keeps the proportion; or height and width.
        rescale_factor: What pixels from 0 to 255 are multiplied by.
        image_mean: Subtracted then, by channel.
        image_std: Divides then, by channel.
    """

    whole = "a video encoder"
    model_input_names = ("pixel_values_videos",)
    bounds: ClassVar[Bounds] = {
        "num_frames": (1, 1024),  # at 256 x 455 they have 360 MB
        "size": (1, 8192),
        "rescale_factor": (1e-6, 1e6),
        "image_mean": (-1e6, 1e6),
        "image_std": (1e-6, 1e6),
    }

    def __init__(
        self,
        num_frames: int = 32,
        size: int | Sequence[int] = 256,
        rescale_factor: float = 1 / 255,
        image_mean: Sequence[float] = (0.45, 0.45, 0.45),
        image_std: Sequence[float] = (0.225, 0.225, 0.225),
        **kwargs,
    ):
        refuse_parts_of_class(type(self), kwargs)
        super().__init__(**kwargs)
        settings = {"num_frames": num_frames, "size": size, "rescale_factor": rescale_factor}
        check_arguments(VideoFeatureExtractor, settings | {"image_mean": image_mean, "image_std": image_std})
        if not isinstance(size, int) and len(size) not in (1, 2):
            raise ValueError(f"size must be the short side or height and width in pixels, got {size!r}.")
        if len(image_mean) != 3 or len(image_std) != 3:
            raise ValueError(
                f"image_mean and image_std must be three numbers each, one a channel, got {image_mean!r} and "
                f"{image_std!r}."
            )
        self.num_frames = num_frames
        self.size = size if isinstance(size, int) else tuple(size)
        self.rescale_factor = rescale_factor
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs) -> "VideoFeatureExtractor":
        """Build it from its JSON; raises ``ValueError`` for that of another feature extractor."""
        found = feature_extractor_dict.get("feature_extractor_type", cls.__name__)
        if found != cls.__name__:
            raise ValueError(
                f"This repository holds a {found}, and no {cls.__name__}. Give a video encoder's, or load this one "
                "with AutoFeatureExtractor or AutoProcessor."
            )
        return super().from_dict(feature_extractor_dict, **kwargs)

    def __call__(
        self,
        videos: Any,
        num_frames: int | None = None,
        do_sample_frames: bool = True,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Read one video or several.

        Args:
            videos: What `avad_hf.media.sources.ACCEPTED_SOURCES` lists, or frames of 8 bits in an array of shape
                `(F, H, W, 3)` or `(F, 3, H, W)`; or a list of them, all of one size where `size` is the short side.
            num_frames: Another number of frames than its own, for this call.
            do_sample_frames: Whether frames are picked. If not, a video must have just as many as are needed.
            return_tensors: ``"pt"`` or ``"np"``.

        Returns:
            [`BatchFeature`] with ``pixel_values_videos`` of shape `(B, num_frames, 3, H, W)`.

        Raises:
            MediaError: If a video cannot be read.
            ValueError: If videos come out in several sizes, which do not fit one batch; for another number of frames
                than is needed where none are picked.
        """
        num_frames = self.num_frames if num_frames is None else num_frames
        check_arguments(VideoFeatureExtractor, {"num_frames": num_frames})
        frames = []
        # Only the order of the frames counts here, not when they were shown.
        for video in as_sources(videos, fps=25):
            with open_media(video) as media:
                if not do_sample_frames and (found := media.num_frames(num_frames + 1)) != num_frames:
                    raise ValueError(
                        f"{media.info.name}: do_sample_frames=False takes videos of {num_frames} frames, and this one "
                        f"has {'more' if found > num_frames else found}. Pick the frames, or leave it to this class."
                    )
                frames.append(read_whole(media, num_frames, self.size, rate=None).frames)
        if len(sizes := {tuple(item.shape[-2:]) for item in frames}) > 1:
            raise ValueError(
                f"Videos of {len(sizes)} sizes ({sorted(sizes)}) do not fit one batch. Give them one by one, or a "
                "size of height and width."
            )
        settings = (self.rescale_factor, self.image_mean, self.image_std)
        return in_tensors(
            BatchFeature({"pixel_values_videos": normalised(torch.stack(frames), *settings)}), return_tensors
        )


__all__ = ["VideoFeatureExtractor"]
