"""Pictures and sound that say which moment they are of, so that what was read tells what came through.

Each picture shows its number as black and white cells; each tenth of a second sounds a tone of its own.
"""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

ROWS, COLUMNS = 6, 8
# Cells in which two numbers differ at least. A picture is read while fewer than half of them are spoilt.
DISTANCE = 14
# Correlation with the cells of a number from which on it counts as read: up to 5 of 48 cells are wrong.
READ_FROM = 0.78
# Standard deviation of a picture's cells (0 to 255) below which it shows nothing.
FLAT = 20.0

RATE_HZ = 16000
SLOT_S = 0.1
NUM_SLOTS = 64
# Tones lie between 350 and 3200 Hz: below half of the lowest rate (8 kHz), and 45 Hz apart.
FREQUENCIES_HZ = 350.0 + 45.0 * (np.arange(NUM_SLOTS) * 27 % NUM_SLOTS)
COLUMN_S, HOP_S = 0.05, 0.025
# What a stretch of sound is if it is none of the tones.
SILENT, OTHER = -1, -2


def _words(count: int) -> np.ndarray:
    """Balanced patterns of cells (-1 and 1) that differ from each other in `DISTANCE` cells at least."""
    rng, words = np.random.default_rng(7), np.zeros((0, ROWS * COLUMNS), dtype=np.float32)
    balanced = np.repeat(np.float32([-1, 1]), ROWS * COLUMNS // 2)
    while len(words) < count:
        word = rng.permutation(balanced)
        if not len(words) or (word.size - words @ word).min() / 2 >= DISTANCE:
            words = np.vstack([words, word])
    return words


WORDS = _words(256)


def picture(number: int, width: int, height: int) -> np.ndarray:
    """The picture of a number, of shape `(height, width, 3)`, uint8: its cells under a texture that moves."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    cells = WORDS[number].reshape(ROWS, COLUMNS)[rows * ROWS // height, columns * COLUMNS // width]
    texture = np.sin((columns + 2 * number) / 5.0) * np.sin((rows - number) / 4.0)
    gray = 128 + 80 * cells + 24 * texture
    return np.repeat(gray[..., None], 3, axis=2).round().astype(np.uint8)


def read_picture(pixels: Tensor) -> int:
    """The number that a picture `(3, height, width)` shows, or -1."""
    gray = pixels.float().mean(dim=0)
    # Of 3 x 3 parts of each cell the middle one, since scaling blurs the borders.
    cells = F.adaptive_avg_pool2d(gray[None], (3 * ROWS, 3 * COLUMNS))[0, 1::3, 1::3].flatten().numpy()
    spread = cells.std()
    if not spread >= FLAT:
        return -1
    likeness = WORDS @ ((cells - cells.mean()) / spread) / cells.size
    best = int(likeness.argmax())
    return best if likeness[best] >= READ_FROM else -1


def sound(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """Tones one after the other, of shape `(channels, samples)`; channels differ and average to the tones."""
    times = np.arange(round(seconds * rate)) / rate
    slots = np.minimum((times / SLOT_S).astype(int), NUM_SLOTS - 1)
    within = times - slots * SLOT_S
    # Without soft edges each change would be a click.
    edges = np.clip(np.minimum(within, SLOT_S - within) / 0.004, 0.0, 1.0)
    mono = 0.5 * edges * np.sin(2 * np.pi * FREQUENCIES_HZ[slots] * within)
    return mono * (1 + np.linspace(-0.3, 0.3, channels)[:, None]) if channels > 1 else mono[None]


def read_sound(samples: np.ndarray) -> list[int]:
    """Which tone sounds in each stretch of 50 ms, every 25 ms: its slot, `SILENT` or `OTHER`.

    Args:
        samples: At `RATE_HZ`, of shape `(samples,)`.
    """
    length, hop = round(COLUMN_S * RATE_HZ), round(HOP_S * RATE_HZ)
    if len(samples) < length:
        return []
    pieces = np.lib.stride_tricks.sliding_window_view(samples, length)[::hop].astype(np.float32)
    level = np.sqrt((pieces**2).mean(axis=1))
    power = np.abs(np.fft.rfft(pieces * np.hanning(length).astype(np.float32), 4096, axis=1)) ** 2
    peak = power.argmax(axis=1)
    bins_hz = RATE_HZ / 4096
    slots = np.abs(peak[:, None] * bins_hz - FREQUENCIES_HZ).argmin(axis=1)
    reach = round(70 / bins_hz)
    sums = np.pad(np.cumsum(power, axis=1), ((0, 0), (reach + 1, reach)), mode="edge")
    sums[:, : reach + 1] = 0
    lines = np.arange(len(peak))
    near = sums[lines, peak + 2 * reach + 1] - sums[lines, peak]
    is_tone = (near > 0.6 * power.sum(axis=1)) & (np.abs(peak * bins_hz - FREQUENCIES_HZ[slots]) < 20)
    return np.where(level < 0.02, SILENT, np.where(is_tone, slots, OTHER)).tolist()
