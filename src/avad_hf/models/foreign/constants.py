"""The constants with which a network's own image or video processor normalises pixels.

Only its settings are read: to run it needs torchvision, which this library does not.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

# Steps of some processors that this library does not do.
NOT_DONE = ("do_flip_channel_order", "include_top", "do_color_quantize", "do_grayscale")


@dataclass(frozen=True)
class PixelConstants:
    """How pixels are normalised, and the size that a processor makes.

    Args:
        image_mean: Subtracted from pixels within 0 and 1; one number for each channel.
        image_std: Divides them then.
        size: Height and width, or the short side, that the network's processor makes; ``None`` if it does not say.
        num_frames: Frames of a clip; ``None`` if it does not say.
    """

    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    size: int | tuple[int, int] | None = None
    num_frames: int | None = None

    @classmethod
    def of(cls, processor: Any, name: str) -> "PixelConstants":
        """The constants of a processor of transformers, or of its JSON.

        Args:
            processor: An image or video processor, a processor that holds one, or a mapping of its settings.
            name: Name of the network, for errors.

        Raises:
            TypeError: For anything else.
            ValueError: If it does more than constants can say, or if they are missing.
        """
        settings = settings_of(processor, name)
        if steps := [key for key in NOT_DONE if settings.get(key)]:
            raise ValueError(f"{name}: its processor has {steps[0]}=True, which this library does not do to pixels.")
        mean, std = (channels(settings, key, name) for key in ("image_mean", "image_std"))
        if not settings.get("do_normalize", True):
            mean, std = (0.0,) * 3, (1.0,) * 3
        elif mean is None or std is None:
            raise ValueError(
                f"{name}: its processor's settings have no image_mean and image_std. Give them: "
                f"AvacaProcessor(video_encoder=..., image_mean=..., image_std=...)."
            )
        scale, offset = 1.0, 0.0
        if settings.get("do_rescale", True):
            scale = settings.get("rescale_factor") or 1 / 255
            # Processors that divide by 127.5 subtract 1 as well: ViViT's by its code, older ones by `offset`.
            is_doubled = abs(scale * 127.5 - 1) < 1e-6
            offset = 1.0 if settings.get("offset", settings.get("rescale_offset", is_doubled)) else 0.0
        # (x scale - offset - mean) / std, written for x / 255.
        if scale == 1 / 255 and not offset:
            image_mean, image_std = mean, std
        else:
            image_mean = tuple((value + offset) / (255 * scale) for value in mean)
            image_std = tuple(value / (255 * scale) for value in std)
        return cls(image_mean, image_std, _size(settings), settings.get("num_frames"))

    def to_json(self) -> str:
        """As ``preprocessor_config.json`` has them."""
        settings = {
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "do_center_crop": False,
            "size": {"shortest_edge": self.size}
            if isinstance(self.size, int)
            else dict(zip(("height", "width"), self.size, strict=True)),
            "num_frames": self.num_frames,
        }
        return json.dumps(settings, indent=2) + "\n"


def settings_of(processor: Any, name: str) -> Mapping[str, Any]:
    """The settings of an image or video processor; raises ``TypeError`` for anything else."""
    for part in ("video_processor", "image_processor"):
        if (inner := getattr(processor, part, None)) is not None:
            processor = inner
            break
    if isinstance(processor, Mapping):
        return processor
    if not hasattr(processor, "to_dict"):
        raise TypeError(
            f"{name} needs its image or video processor as preprocessor, got a {type(processor).__name__}."
        )
    return processor.to_dict()


def channels(settings: Mapping[str, Any], key: str, name: str) -> tuple[float, ...] | None:
    """A constant for each of three channels; ``None`` if it is not set."""
    value = settings.get(key)
    if value is None:
        return None
    values = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
    if len(values) not in (1, 3):
        raise ValueError(f"{name}: {key} must be a number, or three, one a channel, got {value!r}.")
    return tuple(values * (3 // len(values)))


def _size(settings: Mapping[str, Any]) -> int | tuple[int, int] | None:
    """What a processor makes of a picture: the crop if it crops, else what it scales to."""
    crops = settings.get("do_center_crop", False) and settings.get("crop_size") is not None
    size = settings.get("crop_size" if crops else "size")
    if isinstance(size, Mapping):
        if {"height", "width"} <= size.keys():
            return int(size["height"]), int(size["width"])
        size = size.get("shortest_edge")
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    return int(size) if isinstance(size, (int, float)) else None


__all__ = ["PixelConstants", "channels", "settings_of"]
