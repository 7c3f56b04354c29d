"""Hides stretches of sound: silences them, or leaves of them only how loud each band was, twice a second."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from avad_hf.media.encode import SoundPiece

METHODS = ("mute", "blur")
# How long the original goes over into what hides it, and back, inside a stretch, so that nothing clicks.
FADE_S = 0.01

# Seconds from one Fourier frame to the next; frames are twice as long, so that bins are 16 Hz apart.
HOP_S = 0.032
# Frames whose power is averaged to one level: 0.51 s. Syllables come four a second; of two levels a second nothing
# faster than 1 Hz can be read, by whatever means.
LEVEL_FRAMES = 16
# Bands are half an octave wide, and one is all that lies below 60 Hz. They reach up to half the rate: consonants such
# as s and f are heard beyond 8 kHz.
LOWEST_HZ = 60.0
BAND_OCTAVES = 0.5


def hide_sound(
    pieces: Iterable[SoundPiece], spans: Sequence[tuple[float, float]], method: str
) -> Iterator[SoundPiece]:
    """Hide stretches of sound in all channels. Samples outside of them stay as they are, bit for bit.

    The method ``"blur"`` puts noise of random phase in their place. It is as loud in each half octave as the original
    was on average over half a second, interpolated in between. Nothing else of the original is in it, but for 10 ms at
    either end, so that it could not be restored even by who knew the random numbers, which are kept nowhere.

    Args:
        pieces: Sound in order.
        spans: Start and end of each stretch in seconds, in order, without overlap.
        method: ``"mute"`` or ``"blur"``.

    Yields:
        The same sound, up to a second later, in as many pieces or some more.

    Raises:
        ValueError: If the method is none of the two.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method to hide speech: {method!r}. Methods: {', '.join(METHODS)}.")
    return _hidden(pieces, spans, method)


def _hidden(pieces: Iterable[SoundPiece], spans: Sequence[tuple[float, float]], method: str) -> Iterator[SoundPiece]:
    # A recording may change its rate or channels on the way.
    parts = groupby(_cut(pieces, spans), lambda part: (part[0], part[1].rate, len(part[1].samples)))
    for (number, rate, channels), group in parts:
        inside = (piece for _, piece in group)
        if number is None:
            yield from inside
        elif method == "mute":
            for piece in inside:
                yield _mixed(piece, np.zeros(piece.samples.shape), spans[number])
        else:
            yield from _blurred(inside, spans[number], _Blur(rate, channels))


def _cut(
    pieces: Iterable[SoundPiece], spans: Sequence[tuple[float, float]]
) -> Iterator[tuple[int | None, SoundPiece]]:
    """Cut pieces where stretches begin and end; each comes with the number of its stretch, or ``None``."""
    ends = [end for _, end in spans]
    for piece in pieces:
        size, done = piece.samples.shape[1], 0
        for number in range(bisect_right(ends, piece.time), len(spans)):
            begin, stop = (min(max(done, round((t - piece.time) * piece.rate)), size) for t in spans[number])
            if begin > done:
                yield None, _part(piece, done, begin)
            if stop > begin:
                yield number, _part(piece, begin, stop)
            done = stop
            if done == size:
                break
        if done < size:
            yield None, _part(piece, done, size)


def _part(piece: SoundPiece, begin: int, end: int) -> SoundPiece:
    return replace(piece, time=piece.time + begin / piece.rate, samples=piece.samples[:, begin:end])


def _blurred(pieces: Iterable[SoundPiece], span: tuple[float, float], blur: "_Blur") -> Iterator[SoundPiece]:
    waiting: deque[SoundPiece] = deque()
    noise = np.zeros((blur.channels, 0))
    for piece in pieces:
        waiting.append(piece)
        noise = np.concatenate([noise, blur.push(_to_float(piece.samples))], axis=1)
        while waiting and waiting[0].samples.shape[1] <= noise.shape[1]:
            piece = waiting.popleft()
            size = piece.samples.shape[1]
            yield _mixed(piece, noise[:, :size], span)
            noise = noise[:, size:]
    noise = np.concatenate([noise, blur.flush()], axis=1)
    for piece in waiting:
        size = piece.samples.shape[1]
        yield _mixed(piece, noise[:, :size], span)
        noise = noise[:, size:]


def _mixed(piece: SoundPiece, hidden: np.ndarray, span: tuple[float, float]) -> SoundPiece:
    """The piece's samples, faded over into `hidden` of shape `(channels, samples)` and back at the span's ends."""
    times = piece.time + np.arange(piece.samples.shape[1]) / piece.rate
    share = np.clip(np.minimum(times - span[0], span[1] - times) / FADE_S, 0, 1)
    mixed = share * hidden + (1 - share) * _to_float(piece.samples)
    return replace(piece, samples=_from_float(mixed, piece.samples.dtype))


def _to_float(samples: np.ndarray) -> np.ndarray:
    """Samples within -1 and 1, float64."""
    if samples.dtype == np.uint8:
        return samples / 128.0 - 1.0
    if np.issubdtype(samples.dtype, np.integer):
        return samples / -float(np.iinfo(samples.dtype).min)
    return np.nan_to_num(samples.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _from_float(samples: np.ndarray, dtype: np.dtype) -> np.ndarray:
    samples = np.clip(samples, -1.0, 1.0)
    if not np.issubdtype(dtype, np.integer):
        return samples.astype(dtype)
    info = np.iinfo(dtype)
    middle, scale = (128, 128.0) if dtype == np.uint8 else (0, -float(info.min))
    return np.clip(np.rint(samples * scale) + middle, info.min, info.max).astype(dtype)


class _Blur:
    """Noise in place of sound that comes piece by piece; as many samples come out as went in, up to a second later.

    Args:
        rate: Samples a second, in Hz.
        channels: Number of channels. They get the same noise, each at its own levels, so that equal ones stay equal.
    """

    def __init__(self, rate: int, channels: int):
        self.channels, self._hop = channels, max(1, round(HOP_S * rate))
        self._window = np.sqrt(np.hanning(2 * self._hop + 1)[:-1])
        pitch = np.maximum(np.fft.rfftfreq(2 * self._hop, 1 / rate), LOWEST_HZ * 2**-BAND_OCTAVES)
        bands = np.floor(np.log2(pitch / LOWEST_HZ) / BAND_OCTAVES)
        self._edges = np.flatnonzero(np.diff(bands, prepend=-2))
        self._widths = np.diff(self._edges, append=len(bands))
        self._rng = np.random.default_rng()
        self._held = np.zeros((channels, self._hop))  # the second half of the last frame, and what came after it
        self._num_waiting = 0  # frames that were heard, and have no noise in their place yet
        self._level: np.ndarray | None = None  # where the noise has got to, of shape (channels, bands)
        self._tail = np.zeros((channels, self._hop))
        self._num_padded = self._hop  # samples that come out first and never went in
        self._num_owed = 0  # samples that went in and did not come out

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples of shape `(channels, samples)`; returns what can go out, of that shape."""
        self._num_owed += samples.shape[1]
        self._held = np.concatenate([self._held, samples], axis=1)
        out = [np.zeros((self.channels, 0))]
        while self._held.shape[1] >= (LEVEL_FRAMES + 1) * self._hop:
            level = self._heard(LEVEL_FRAMES) / LEVEL_FRAMES
            # A level belongs to the middle of its frames.
            out.append(self._noise(self._num_waiting - LEVEL_FRAMES // 2, level))
        return np.concatenate(out, axis=1)

    def flush(self) -> np.ndarray:
        """Return what is left at the end of the sound."""
        hops = self._held.shape[1] / self._hop - 1
        num_frames = int(np.ceil(hops)) + 1
        self._held = np.pad(self._held, ((0, 0), (0, (num_frames + 1) * self._hop - self._held.shape[1])))
        level, num_owed = self._heard(num_frames) / max(1.0, hops), self._num_owed
        # The average over a moment would tell of that moment.
        if self._level is not None and hops < LEVEL_FRAMES // 2:
            level = self._level
        return self._noise(self._num_waiting, level)[:, :num_owed]

    def _heard(self, num_frames: int) -> np.ndarray:
        """Take frames out of what is held; returns the sum of their powers a bin, of shape `(channels, bands)`."""
        frames = np.lib.stride_tricks.sliding_window_view(self._held, 2 * self._hop, axis=1)
        spectra = np.fft.rfft(frames[:, : num_frames * self._hop : self._hop] * self._window)
        self._held = self._held[:, num_frames * self._hop :]
        self._num_waiting += num_frames
        return np.add.reduceat(np.abs(spectra) ** 2, self._edges, axis=-1).sum(axis=1) / self._widths

    def _noise(self, num_frames: int, level: np.ndarray) -> np.ndarray:
        """Noise in place of the frames that wait longest, on its way from the last level to this one."""
        before = level if self._level is None else self._level
        way = ((np.arange(num_frames) + 0.5) / num_frames)[:, None]
        power = before[:, None] * (1 - way) + level[:, None] * way
        phases = np.exp(2j * np.pi * self._rng.random((num_frames, self._widths.sum())))
        # The window takes half of the power.
        spectra = np.repeat(np.sqrt(2 * power), self._widths, axis=-1) * phases
        frames = np.fft.irfft(spectra, 2 * self._hop) * self._window
        first, second = frames[..., : self._hop], frames[..., self._hop :]
        out = first + np.concatenate([self._tail[:, None], second[:, :-1]], axis=1)
        out = out.reshape(self.channels, -1)[:, self._num_padded :]
        self._level, self._tail, self._num_padded = level, second[:, -1], 0
        self._num_waiting -= num_frames
        self._num_owed -= out.shape[1]
        return out


__all__ = ["METHODS", "hide_sound"]
