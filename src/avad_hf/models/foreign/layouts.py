"""Where tokens lie in the picture, the clip or the sound, as the sizes in a network's config tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# Stages of a hierarchical network, each of which halves the height and width.
MOST_HALVINGS = 5


@dataclass(frozen=True)
class TokenGrid:
    """The order of a network's tokens.

    Args:
        prefix: Number of tokens without a place, which come first (class, distillation, registers).
        shape: How many tokens there are along each axis, the last one running fastest.
        kept: Axes that stay. The tokens are averaged over the others.
    """

    prefix: int
    shape: tuple[int, ...]
    kept: tuple[int, ...]

    def lay_out(self, tokens: Tensor) -> Tensor:
        """Tokens of shape `(N, L, width)` to `(N, *kept, width)`."""
        grid = tokens[:, self.prefix :].unflatten(1, self.shape)
        averaged = [1 + axis for axis in range(len(self.shape)) if axis not in self.kept]
        return grid.mean(averaged) if averaged else grid


def picture_grid(config: Any, length: int, num_frames: int, size: tuple[int, int]) -> TokenGrid | None:
    """How the tokens of a clip are laid out in rows and columns; ``None`` if its config does not say.

    Args:
        config: Config of the network.
        length: Number of its tokens.
        num_frames: Frames of the clip; 1 for networks that see each picture alone.
        size: Height and width of the pictures.
    """
    tubelet = getattr(config, "tubelet_size", None)
    patch = getattr(config, "patch_size", None)
    depth, patch = (tubelet[0], tubelet[1:]) if isinstance(tubelet, (list, tuple)) else (tubelet or 1, patch)
    if patch is None:
        return None
    height, width = pair(patch)
    times = num_frames // depth
    # Later stages of hierarchical networks (Swin) join 2 x 2 patches each.
    for factor in (2**power for power in range(MOST_HALVINGS + 1)):
        rows, columns = size[0] // (height * factor), size[1] // (width * factor)
        prefix = length - times * rows * columns
        if rows and columns and 0 <= prefix <= _most_extra(config):
            # TimeSformer puts the tokens of one place side by side, all others those of one time.
            if times > 1 and "space_time" in str(getattr(config, "attention_type", "")):
                return TokenGrid(prefix, (rows, columns, times), kept=(0, 1))
            return TokenGrid(prefix, (times, rows, columns), kept=(1, 2))
    return None


def sound_grid(config: Any, length: int) -> TokenGrid | None:
    """How the patches of a spectrogram are laid out over frequency and time; ``None`` if its config does not say."""
    names = ("patch_size", "frequency_stride", "time_stride", "num_mel_bins", "max_length")
    sizes = [getattr(config, name, None) for name in names]
    if not all(isinstance(size, int) for size in sizes):
        return None
    patch, frequency_stride, time_stride, bins, frames = sizes
    shape = (bins - patch) // frequency_stride + 1, (frames - patch) // time_stride + 1
    prefix = length - shape[0] * shape[1]
    return TokenGrid(prefix, shape, kept=(1,)) if 0 <= prefix <= _most_extra(config) else None


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width, of one number or two."""
    return (size[0], size[-1]) if isinstance(size, (list, tuple)) else (size, size)


def _most_extra(config: Any) -> int:
    """Most tokens that may come before those with a place: class, distillation, and registers."""
    return 2 + (getattr(config, "num_register_tokens", 0) or 0)


__all__ = ["TokenGrid", "pair", "picture_grid", "sound_grid"]
