"""Whether a clip looks and sounds as an earlier one did: nothing moves beyond the noise of camera and sound."""

import math
from collections import deque
from statistics import median_low

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .clips import Clip
from .luma import LUMA

# Rows of blocks in which brightness is averaged: somebody who is a thirtieth of the picture high fills one of them.
ROWS = 32
# Parts of a clip whose pictures are averaged: noise shrinks, and what passes quickly still stands out.
PARTS = 4
# Levels (of 255) that a block may change: at least so many, since codecs draw a still picture anew at each key frame,
# and never more than so many. Between them it is so many times what the median block changes. On drawn still streets
# with a sensor's noise of up to 12 levels, in H.264 of crf 20 and 28, no block changed by more than 6 levels,
# which was up to 9 times what the median one did.
LEAST_LEVELS, MOST_LEVELS, TIMES_NOISE = 3.0, 8.0, 8.0
# Clips whose median decides what the camera's noise is: light that goes on in one of them is no noise.
NUM_NOISES = 9
# Seconds after which pictures are computed again in any case. What is missed is missed for so long; and where seven of
# eight clips are still, decoding is the larger part of the work, so that more would gain little.
LONGEST_S = 10.0
# Sound is compared in steps of so many seconds, in bands of a third of an octave from so many Hz on.
STEP_S, LOWEST_HZ = 0.1, 100.0
# Decibels that a band may be louder than its mean: twice its power, and so many standard deviations of steady noise.
LEAST_DB, SIGMAS = 3.0, 4.0
# Power of a band, of full scale, below which it is silent: -80 dB.
SILENCE = 1e-8


class Stillness:
    """Says of the clips of one stream, in order, which are still beside the last ones that were computed.

    A picture is still if in no block, over both clips, the brightness moves beyond the camera's noise. That noise is
    what the median block changes from clip to clip, so that a noisy camera is still too, and a small thing that moves
    in one block is not. A sound is unchanged if in no band any moment of either clip is louder than the mean of either
    by more than steady noise is.

    Clips are compared with what was computed, and not with the clip before: what changes slowly does not creep.

    Args:
        rate: Samples a second of the clips' sound, in Hz.
    """

    def __init__(self, rate: int):
        self._rate = rate
        self._seen: Tensor | None = None  # of the last clip whose pictures were computed, and when it ended
        self._seen_until = 0.0
        self._heard: tuple[np.ndarray, np.ndarray] | None = None  # of the last clip whose sound was computed
        self._before: Tensor | None = None  # of the last clip
        # Nothing counts as noise until most of them are known.
        self._noises = deque([0.0] * NUM_NOISES, maxlen=NUM_NOISES)

    def judge(self, clip: Clip, pixels: Tensor) -> tuple[bool, bool]:
        """Say of the next clip whether its pictures are still, and whether its sound is unchanged too.

        What is not must be computed. The sound of pictures that are not still counts as changed.

        Args:
            clip: The clip; its sound is that of its frames.
            pixels: Its pictures, of shape `(pictures, 3, H, W)`, from 0 to 255, on any device.
        """
        seen, heard = _brightness(pixels), self._levels(clip)
        if self._before is not None:
            self._noises.append(_change(self._before, seen).median().item())
        self._before = seen
        is_still = self._looks_still(seen) and clip.end - self._seen_until <= LONGEST_S
        is_unchanged = is_still and self._sounds_unchanged(heard)
        if not is_still:
            self._seen, self._seen_until = seen, clip.end
        if not is_unchanged:
            self._heard = heard
        return is_still, is_unchanged

    def _looks_still(self, seen: Tensor) -> bool:
        if self._seen is None:
            return False
        noise = TIMES_NOISE * median_low(self._noises)
        return _change(self._seen, seen).max().item() <= min(max(LEAST_LEVELS, noise), MOST_LEVELS)

    def _levels(self, clip: Clip) -> tuple[np.ndarray, np.ndarray] | None:
        """The highest and the mean power of each band; ``None`` without sound."""
        samples = _samples(clip)
        if samples is None:
            return None
        step = min(round(STEP_S * self._rate), len(samples))
        window = np.hanning(step + 1)[:-1]
        spectrum = np.fft.rfft(samples[: len(samples) // step * step].reshape(-1, step) * window)
        power = 2 * np.abs(spectrum) ** 2 / (step * np.square(window).sum())
        edges = np.round(_edges(self._rate) * step / self._rate).astype(int)
        bands = np.add.reduceat(power, edges[:-1], axis=1) + SILENCE
        return bands.max(axis=0), bands.mean(axis=0)

    def _sounds_unchanged(self, heard: tuple[np.ndarray, np.ndarray] | None) -> bool:
        if heard is None or self._heard is None:
            return heard is self._heard
        highest, mean = np.maximum(heard[0], self._heard[0]), np.minimum(heard[1], self._heard[1])
        # The power of noise in a band of B Hz varies in T seconds by 1 / sqrt(BT) of itself, 4.34 / sqrt(BT) dB.
        fluctuation = 10 / math.log(10) / np.sqrt(np.diff(_edges(self._rate)) * STEP_S)
        return bool((10 * np.log10(highest / mean) <= LEAST_DB + SIGMAS * fluctuation).all())


def _brightness(pixels: Tensor) -> Tensor:
    """Mean brightness of blocks in the parts of a clip, of shape `(parts, rows, columns)`."""
    side = max(1, min(pixels.shape[-2:]) // ROWS)
    # Picture by picture: the floats of a whole clip fit into no processor's cache.
    means = torch.stack([F.avg_pool2d(picture.float(), side, ceil_mode=True) for picture in pixels]).cpu()
    luma = torch.einsum("ncyx,c->nyx", means, torch.tensor(LUMA))
    return torch.stack([part.mean(dim=0) for part in luma.tensor_split(min(PARTS, len(luma)))])


def _change(one: Tensor, other: Tensor) -> Tensor:
    """How far the brightness of each block moves over two clips."""
    both = torch.cat([one, other])
    return both.amax(dim=0) - both.amin(dim=0)


def _samples(clip: Clip) -> np.ndarray | None:
    """All that is heard in the frames of a clip, whose windows overlap; ``None`` without sound."""
    pieces, end = [], None
    for frame in clip.frames:
        if frame.sound is not None:
            stop = frame.first_sample + len(frame.sound)
            new = len(frame.sound) if end is None else min(stop - end, len(frame.sound))
            pieces.append(frame.sound[len(frame.sound) - new :].numpy())
            end = stop
    return np.concatenate(pieces) if pieces else None


def _edges(rate: int) -> np.ndarray:
    """Edges of the bands, in Hz."""
    count = math.ceil(3 * math.log2(rate / 2 / LOWEST_HZ))
    return np.minimum(LOWEST_HZ * 2 ** (np.arange(count + 1) / 3), rate / 2)


__all__ = ["Stillness"]
