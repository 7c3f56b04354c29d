"""Networks of transformers for clips and for pictures, as frozen encoders."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import FEATURE_EXTRACTOR_NAME

from avad_hf.models.encoder import EncoderSpec, check_normalisation, normalise

from .constants import PixelConstants, channels
from .frozen import ForeignEncoder, NoStates
from .layouts import TokenGrid, pair, picture_grid
from .towers import modality

# Frames of a clip for networks that see one picture at a time. Each costs a whole pass, and neighbouring frames differ
# little.
NUM_PICTURES = 8
# Most rows and columns that a store keeps by default. A square picture of 14 x 14 patches has 196 vectors a clip; 16
# cells still tell where something happens, and make the store 12 times smaller. SlowFast's grid has 18.
MOST_CELLS = 4
# Used where neither the network nor its processor names a size.
SHORT_SIDE = 224


class ForeignPictures(ForeignEncoder):
    """A network that reads clips, or each picture of a clip alone, as an encoder of pixels.

    Tokens are laid out in rows and columns and averaged over time. Tokens without a place in the picture (class,
    registers) are left out. If the places of the tokens are not known, their mean is given as one vector.

    The whole picture is scaled to the height and width that the network was trained on. Nothing is cropped, although
    most networks' own processors do that: what happens at the edges must be seen. Convolutional networks take any
    size: for them the short side is scaled, and the picture keeps its proportion.

    Args:
        network: The bare network.
        name: What errors call it.
        constants: How pixels are normalised.
        num_frames: Frames of a clip. By default as the network was trained, or 8 for networks that see each picture
            alone.

    Attributes:
        image_mean: Subtracted from pixels within 0 and 1, one number a channel.
        image_std: Divides them then.

    Raises:
        ValueError: If the network cannot be called with pictures alone.
    """

    def __init__(self, network: PreTrainedModel, name: str, constants: PixelConstants, num_frames: int | None = None):
        super().__init__(network, name)
        config = network.config
        self.image_mean, self.image_std = constants.image_mean, constants.image_std
        check_normalisation(self.image_mean, self.image_std)
        num_channels = getattr(config, "num_channels", None) or getattr(config, "in_chans", None) or 3
        if num_channels != 3:
            raise ValueError(f"{name} reads pictures of {num_channels} channels, and only RGB can be given.")
        self._is_video = modality(network) == "video"
        asked = (num_frames, constants.num_frames, *(getattr(config, key, None) for key in FRAMES))
        self._num_frames = next((number for number in asked if number is not None), NUM_PICTURES)
        if not isinstance(self._num_frames, int) or self._num_frames < 1:
            raise ValueError(f"num_frames must be a whole number, 1 or more, got {self._num_frames!r}.")
        trained = getattr(config, "image_size", None) or getattr(config, "crop_size", None)
        sizes = dict.fromkeys(pair(size) for size in (constants.size, trained) if size is not None)
        size, states = self._first_that_works(list(sizes) or [(SHORT_SIDE, SHORT_SIDE)])
        # Networks that see each picture alone give each as a row of the batch.
        self._is_apart = len(states) != 1
        if self._is_apart and len(states) != self._num_frames:
            raise ValueError(f"{name} gives {len(states)} rows of states for a clip of {self._num_frames} frames.")
        self._grid: TokenGrid | None = None
        self._is_channels_last = states.dim() == 4 and not _has_channels_first(config, states)
        if states.dim() == 3:
            self._grid = picture_grid(config, states.shape[1], 1 if self._is_apart else self._num_frames, size)
        features = self._laid_out(states)
        is_map = features.dim() == 4
        self.spec = EncoderSpec(
            reads="pixels",
            gives="map" if is_map else "vector",
            width=features.shape[1],
            num_frames=self._num_frames,
            # No config of transformers says with which step a network was trained.
            frame_step=1,
            size=min(size) if states.dim() == 4 and self._takes(_wide(size)) else size,
            grid=tuple(min(MOST_CELLS, cells) for cells in features.shape[2:]) if is_map else (1, 1),
            classes=self.class_names,
        )
        self._constants = replace(constants, size=self.spec.size, num_frames=self._num_frames)

    def configure(self, **settings: Any) -> "ForeignPictures":
        """Set ``image_mean`` and ``image_std``, as `Encoder.configure` says."""
        for key in ("image_mean", "image_std"):
            if settings.get(key) is not None:
                setattr(self, key, channels(settings, key, self.name))
        check_normalisation(self.image_mean, self.image_std)
        return self

    def inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Normalised pixels. For networks that see each picture alone, all pictures form one batch."""
        pixels = normalise(batch.to(self.device), self.image_mean, self.image_std).to(self.dtype)
        return {self.network.main_input_name: pixels if self._is_video else pixels.flatten(0, 1)}

    def read(self, outputs: Any) -> Tensor:
        """A map of shape `(N, width, h, w)` or vectors of shape `(N, width)`, averaged over time."""
        return self._laid_out(self._states(outputs))

    def _laid_out(self, states: Tensor) -> Tensor:
        if states.dim() == 3:
            states = states.mean(1) if self._grid is None else self._grid.lay_out(states).permute(0, 3, 1, 2)
        elif self._is_channels_last:
            states = states.permute(0, 3, 1, 2)
        if states.dim() not in (2, 4):
            raise ValueError(f"{self.name} gives states of shape {tuple(states.shape)}, which have no known meaning.")
        return states.unflatten(0, (-1, self._num_frames)).mean(1) if self._is_apart else states

    def facts(self) -> dict[str, Any]:
        """Settings of the network, and frames of a clip."""
        return super().facts() | {"num_frames": self._num_frames}

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write the network, and the constants of its pixels beside it."""
        super().save_pretrained(directory)
        constants = replace(self._constants, image_mean=self.image_mean, image_std=self.image_std)
        (Path(directory) / FEATURE_EXTRACTOR_NAME).write_text(constants.to_json(), encoding="utf-8")

    def _first_that_works(self, sizes: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], Tensor]:
        """The first height and width that the network takes, and its states for a clip of that size."""
        for size in sizes:
            try:
                return size, self._tried(size)
            except NoStates:
                raise
            except Exception as error:
                failure = error
        tried = " or ".join(f"{height} x {width}" for height, width in sizes)
        raise ValueError(
            f"{self.name}, a network of type '{self.network.config.model_type}', cannot be called with "
            f"{self._num_frames} frames of {tried} alone: {failure}"
        ) from failure

    def _takes(self, size: tuple[int, int]) -> bool:
        """Whether the network takes pictures of a height and width, and gives a larger map."""
        try:
            return self._tried(size).dim() == 4
        except Exception:  # networks refuse a size each in their own way
            return False

    @torch.no_grad()
    def _tried(self, size: tuple[int, int]) -> Tensor:
        return self._try(self.inputs_of(torch.zeros(1, self._num_frames, 3, *size, dtype=torch.uint8)))


# What configs call the frames of a clip.
FRAMES = ("num_frames", "frames_per_clip")


def _wide(size: tuple[int, int]) -> tuple[int, int]:
    """The same short side, at 16:9."""
    return min(size), min(size) * 16 // 9


def _has_channels_first(config: Any, states: Tensor) -> bool:
    """Whether maps are of shape `(N, width, h, w)`, as most are."""
    sizes = getattr(config, "hidden_sizes", None)
    width = sizes[-1] if isinstance(sizes, (list, tuple)) else getattr(config, "hidden_size", None)
    return states.shape[1] == width or states.shape[-1] != width


__all__ = ["ForeignPictures"]
