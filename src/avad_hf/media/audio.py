"""Sound on the clock of its file: mixed to mono, resampled piece by piece, cut into windows."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .clips import sound_window

# resampy's kaiser_best (0.4 and later), which the public VGGish code resamples with. Its 50 zero crossings are counted
# before the roll-off and torchaudio's after it, hence the product.
CROSSINGS, ROLLOFF, BETA = 50, 0.917347, 12.9846
KAISER_BEST = {
    "lowpass_filter_width": CROSSINGS * ROLLOFF,
    "rolloff": ROLLOFF,
    "resampling_method": "sinc_interp_kaiser",
    "beta": BETA,
}

# Output samples that a convolution computes side by side: as its channels they take a tenth of the time.
SIDE_BY_SIDE = 128
# torchaudio keeps a filter for each phase between the two rates. Above this many (rates such as 22254 Hz, which
# share no large factor with 16 kHz, would take gigabytes) single samples are computed from the filter's definition.
MAX_PHASES = 1_000_000
# Up to how many weights are kept for that: 32 MB.
MOST_WEIGHTS = 2_000_000

# A longer pause than this is not resampled sample by sample, but counted: it may be hours, or a wrong time of years.
LONG_GAP_S = 4.0

# Timestamps of some containers are rounded to milliseconds: a block that is off by less than this follows on without a
# gap. About one frame of video.
CLOCK_TOLERANCE_S = 0.04


@dataclass(frozen=True)
class SoundBlock:
    """Some decoded sound.

    Args:
        start: When its first sample sounds, in seconds.
        samples: Mono, within -1 and 1, of shape `(samples,)`.
        rate: Samples a second, in Hz.
    """

    start: float
    samples: np.ndarray
    rate: int


def to_mono(samples: np.ndarray) -> np.ndarray:
    """Average channels, scaling integers to -1 to 1 by their type.

    Args:
        samples: `(samples,)` or `(channels, samples)`; floats, or integers of 8 (unsigned), 16 or 32 bits.

    Returns:
        float32 array of shape `(samples,)`.
    """
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128.0) / 128.0
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float64) / -float(np.iinfo(samples.dtype).min)
    mono = samples if samples.ndim == 1 else samples.mean(axis=0)
    return mono.astype(np.float32)


def _torchaudio() -> Any:
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError) as error:
        raise ImportError(
            f"torchaudio, which resamples sound, cannot be loaded beside torch {torch.__version__}: {error}. Install "
            "a pair of versions built for the same CUDA: pip install 'torch>=2.11,<2.15' 'torchaudio>=2.11'."
        ) from error
    return torchaudio


def resample(waveform: Tensor | np.ndarray, orig_rate: int, new_rate: int) -> Tensor:
    """Resample whole waveforms with the filter of resampy's kaiser_best.

    Args:
        waveform: `(..., samples)`, floating point.
        orig_rate: Its samples a second, in Hz.
        new_rate: Wanted samples a second, in Hz.

    Returns:
        `torch.Tensor` of shape `(..., ceil(samples * new_rate / orig_rate))`.
    """
    waveform = torch.as_tensor(waveform)
    if orig_rate == new_rate:
        return waveform
    return _resampler(orig_rate, new_rate, waveform.dtype)(waveform)


def _resampler(orig_rate: int, new_rate: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    if orig_rate * new_rate // math.gcd(orig_rate, new_rate) ** 2 > MAX_PHASES:
        return partial(_resample_by_definition, orig_rate=orig_rate, new_rate=new_rate)
    # Not torchaudio.functional, which computes its filters in float32 and is off by 1e-5.
    dtype = torch.float64 if dtype == torch.float64 else None
    filters = _torchaudio().transforms.Resample(orig_rate, new_rate, **KAISER_BEST, dtype=dtype)
    return _Convolution(filters.kernel, filters.width, filters.orig_freq // filters.gcd)


class _Convolution:
    """Resampling by torchaudio's filters, `SIDE_BY_SIDE` output samples or more at once.

    Args:
        filters: One for each phase, of shape `(phases, 1, taps)`.
        width: Samples before the first one that the filters reach into.
        stride: Input samples for as many output samples as there are phases.
    """

    def __init__(self, filters: Tensor, width: int, stride: int):
        self.phases, self.width, self.stride = len(filters), width, stride
        taps = filters.shape[-1]
        self.units = max(1, SIDE_BY_SIDE // self.phases)
        self.filters = filters.new_zeros(self.units * self.phases, 1, (self.units - 1) * stride + taps)
        for unit in range(self.units):
            rows = slice(unit * self.phases, (unit + 1) * self.phases)
            self.filters[rows, :, unit * stride : unit * stride + taps] = filters

    def __call__(self, waveform: Tensor) -> Tensor:
        """Resample waveforms of shape `(..., samples)`."""
        samples = waveform.shape[-1]
        count = -(-samples * self.phases // self.stride)
        hop = self.units * self.stride
        needed = (-(-count // len(self.filters)) - 1) * hop + self.filters.shape[-1]
        # What the filters do not reach is not missed.
        padded = F.pad(waveform, (self.width, max(0, needed - self.width - samples)))[..., :needed]
        found = F.conv1d(padded.reshape(-1, 1, needed), self.filters, stride=hop)
        return found.transpose(1, 2).reshape(*waveform.shape[:-1], -1)[..., :count]


def _resample_by_definition(waveform: Tensor, orig_rate: int, new_rate: int) -> Tensor:
    """Each output sample as a sum over its neighbours, weighed by the windowed sinc at their distance."""
    common = math.gcd(orig_rate, new_rate)
    orig, new = orig_rate // common, new_rate // common
    reach = _reach(orig, new)
    padded = np.pad(waveform.numpy(), [(0, 0)] * (waveform.dim() - 1) + [(reach, reach + 1)])
    # The same distances come again with every `new` samples.
    all_weights = _all_weights(orig, new) if new * reach <= MOST_WEIGHTS else None
    pieces = []
    count = -(-waveform.shape[-1] * new // orig)
    for begin in range(0, count, 4000):
        index = np.arange(begin, min(begin + 4000, count))
        weights = _weights(orig, new, index % new) if all_weights is None else all_weights[index % new]
        neighbours = (index * orig // new)[:, None] + np.arange(1 - reach, reach + 1)
        pieces.append((padded[..., neighbours + reach] * weights).sum(axis=-1))
    return torch.from_numpy(np.concatenate(pieces, axis=-1)).to(waveform.dtype)


@lru_cache(maxsize=2)
def _all_weights(orig: int, new: int) -> np.ndarray:
    return _weights(orig, new, np.arange(new))


def _reach(orig: int, new: int) -> int:
    """Input samples on either side that weigh in."""
    return math.ceil(CROSSINGS / min(1.0, new / orig))


def _weights(orig: int, new: int, phases: np.ndarray) -> np.ndarray:
    """Weights of the neighbours of output samples that lie `phases / new` behind an input sample."""
    scale, reach = min(1.0, new / orig), _reach(orig, new)
    fraction = (phases * orig % new / new)[:, None]
    distance = (fraction - np.arange(1 - reach, reach + 1)) * scale
    window = np.i0(BETA * np.sqrt(np.clip(1 - (distance / CROSSINGS) ** 2, 0, None))) / np.i0(BETA)
    return ROLLOFF * scale * np.sinc(ROLLOFF * distance) * window * (np.abs(distance) <= CROSSINGS)


class StreamResampler:
    """`resample` for sound that comes piece by piece; the pieces together equal the whole resampled at once.

    Args:
        orig_rate: Samples a second that come in, in Hz.
        new_rate: Samples a second that go out, in Hz.
    """

    def __init__(self, orig_rate: int, new_rate: int):
        common = math.gcd(orig_rate, new_rate)
        # `orig` samples in become `new` samples out; everything is cut at multiples of that unit.
        self.orig, self.new = orig_rate // common, new_rate // common
        # Units on either side that the filter reaches into.
        self.context = math.ceil(CROSSINGS / min(self.orig, self.new)) + 1
        self.kernel: Any = None if orig_rate == new_rate else _resampler(orig_rate, new_rate, torch.float32)
        # A call of the kernel costs more than a few samples: wait for about a quarter of a second.
        self.batch = max(1, orig_rate // 4 // self.orig)
        # Samples that are held back at most.
        self.reach = (self.batch + self.context + 1) * self.orig
        self.held = np.zeros(0, dtype=np.float32)
        self.left = 0  # units at the head of `held` that have gone out already and serve as context

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples in and return those that can go out already."""
        if self.kernel is None:
            return samples
        self.held = np.concatenate([self.held, samples])
        ready = len(self.held) // self.orig - self.left - self.context
        return self._emit(ready) if ready >= self.batch else np.zeros(0, dtype=np.float32)

    def _emit(self, units: int) -> np.ndarray:
        out = self.kernel(torch.from_numpy(self.held[: (self.left + units + self.context) * self.orig])).numpy()
        out = out[self.left * self.new : (self.left + units) * self.new]
        done = self.left + units
        keep = min(done, self.context)
        self.held = self.held[(done - keep) * self.orig :]
        self.left = keep
        return out

    def skip(self, samples: int) -> tuple[int, int]:
        """Leave out silence that follows on silence, of which at least `reach` samples were pushed already.

        Returns:
            How many samples were taken, which is a whole number of units, and how many go out for them: after what
            `push` returned so far, since what it holds back is silence too.
        """
        units = samples // self.orig
        return units * self.orig, units * self.new

    def flush(self) -> np.ndarray:
        """Return what is left at the end of the sound."""
        if self.kernel is None or len(self.held) == self.left * self.orig:
            return np.zeros(0, dtype=np.float32)
        out = self.kernel(torch.from_numpy(self.held)).numpy()[self.left * self.new :]
        self.held, self.left = self.held[:0], 0
        return out


def _silence(samples: int, rate: int) -> Iterator[np.ndarray]:
    """Zeros, a second at a time."""
    for begin in range(0, samples, rate):
        yield np.zeros(min(rate, samples - begin), dtype=np.float32)


class SoundTrack:
    """Windows of sound at one rate, read forward from decoded blocks in bounded memory.

    Gaps in the timestamps become silence and overlaps are cut, so that sample n always sounds at
    ``start + n / rate`` seconds.

    Args:
        blocks: Decoded sound in order. Nothing more is read than the windows need.
        rate: Samples a second of the windows, in Hz.
    """

    def __init__(self, blocks: Iterable[SoundBlock], rate: int):
        self.rate = rate
        self._blocks = iter(blocks)
        self._first = next((block for block in self._blocks if len(block.samples)), None)
        self.start = 0.0 if self._first is None else self._first.start
        self._pieces = self._resampled()
        self._held = np.zeros(0, dtype=np.float32)
        self._offset = 0  # index of the first held sample
        self._silent = 0  # samples of a long silence that are still to come

    @property
    def has_sound(self) -> bool:
        """Whether there was any sound to decode."""
        return self._first is not None

    def _contiguous(self) -> Iterator[tuple[np.ndarray | int, int]]:
        """Samples that follow each other without gap or overlap, with their rate; of silence the number of samples."""
        if self._first is None:
            return
        clock, rate, counted = self.start, self._first.rate, 0
        block: SoundBlock | None = self._first
        while block is not None:
            if block.rate != rate:
                clock, rate, counted = clock + counted / rate, block.rate, 0
            samples = block.samples
            late = block.start - (clock + counted / rate)
            if late > CLOCK_TOLERANCE_S:
                missing = round(late * rate)
                counted += missing
                yield missing, rate
            elif late < -CLOCK_TOLERANCE_S:
                samples = samples[round(-late * rate) :]
            counted += len(samples)
            yield samples, rate
            block = next(self._blocks, None)

    def _resampled(self) -> Iterator[np.ndarray | int]:
        """Sound at the wanted rate; of long silence the number of samples."""
        resampler, current = None, None
        for samples, rate in self._contiguous():
            if resampler is None or rate != current:
                if resampler is not None:
                    yield resampler.flush()
                resampler, current = StreamResampler(rate, self.rate), rate
            if not isinstance(samples, int):
                yield resampler.push(samples)
                continue
            # Zeros on either side of what is left out, so that what is held back is zero, and what filters it.
            edge = max(round(LONG_GAP_S / 2 * rate), resampler.reach)
            if samples > 2 * edge:
                yield from map(resampler.push, _silence(edge, rate))
                taken, out = resampler.skip(samples - 2 * edge)
                yield out
                samples -= edge + taken
            yield from map(resampler.push, _silence(samples, rate))
        if resampler is not None:
            yield resampler.flush()

    def window(self, end: float, length: float) -> Tensor:
        """Cut the sound before a time; silence stands in where there is none.

        Args:
            end: Where the window ends, in seconds. A window may not start before the one cut last.
            length: Length of the window, in seconds.

        Returns:
            `torch.Tensor` of shape `(round(length * rate),)`, float32.
        """
        start, stop = sound_window(end, self.start, length, self.rate)
        while self._offset + len(self._held) < stop and (piece := self._next_piece(start, stop)) is not None:
            used = min(max(0, start - self._offset), len(self._held))
            self._held = np.concatenate([self._held[used:], piece])
            self._offset += used
        out = np.zeros(stop - start, dtype=np.float32)
        low, high = max(start, self._offset), min(stop, self._offset + len(self._held))
        if low < high:
            out[low - start : high - start] = self._held[low - self._offset : high - self._offset]
        return torch.from_numpy(out)

    def _next_piece(self, start: int, stop: int) -> np.ndarray | None:
        """The next samples, of a long silence those up to a sample; what lies before another is left out of it."""
        if not self._silent:
            piece = next(self._pieces, None)
            if not isinstance(piece, int):
                return piece
            self._silent = piece
        reached = self._offset + len(self._held)
        if start > reached:
            left_out = min(self._silent, start - reached)
            self._offset, self._held = reached + left_out, self._held[:0]
            self._silent -= left_out
        count = min(self._silent, max(0, stop - self._offset - len(self._held)))
        self._silent -= count
        return np.zeros(count, dtype=np.float32)

    def read(self, until: float = math.inf) -> Tensor:
        """All of the sound, of shape `(samples,)`, float32, up to a time in seconds; no window can be cut after it."""
        most = math.inf if until == math.inf else max(0, sound_window(until, self.start, 0.0, self.rate)[1])
        pieces, count = [self._held], len(self._held)
        piece: np.ndarray | int | None = self._silent
        while piece is not None:
            samples: np.ndarray = piece
            if isinstance(piece, int):
                samples = np.zeros(int(min(piece, max(0, most - count))), dtype=np.float32)
            pieces.append(samples)
            count += len(samples)
            piece = next(self._pieces, None) if count < most else None
        return torch.from_numpy(np.concatenate(pieces)[: None if most == math.inf else most])


def sound_level(track: SoundTrack, duration: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Loudness over time, for plots.

    Args:
        track: The sound.
        duration: Up to where, in seconds.
        step: Seconds from one value to the next.

    Returns:
        Times in seconds and root mean squares in dB of full scale (-100 for silence), both of shape
        `(ceil(duration / step),)`.
    """
    ends = np.arange(1, math.ceil(duration / step) + 1) * step
    power = np.array([track.window(end, step).double().square().mean().item() for end in ends.tolist()])
    return ends - step / 2, 10 * np.log10(np.maximum(power, 1e-10))
