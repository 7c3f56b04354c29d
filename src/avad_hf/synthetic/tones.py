"""What the sounds of the synthetic world are made of: noise, tones, strikes, and how they rise and fall."""

import numpy as np

# What every sound model of this library listens at: more would be made, stored and then thrown away.
RATE_HZ = 16000


def clock(seconds: float) -> np.ndarray:
    """Times of the samples, in seconds."""
    return np.arange(max(1, int(seconds * RATE_HZ))) / RATE_HZ


def noise(rng, num_samples: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Noise of a band with soft edges, of effective value 1."""
    size = 1 << max(6, (num_samples - 1).bit_length())
    pitch = np.maximum(np.fft.rfftfreq(size, 1 / RATE_HZ), 1.0)
    shape = 1 / (1 + (low_hz / pitch) ** 4) / (1 + (pitch / high_hz) ** 4)
    signal = np.fft.irfft(shape * np.exp(2j * np.pi * rng.random(len(pitch))), size)[:num_samples]
    return signal / max(float(np.sqrt(np.mean(signal**2))), 1e-12)


def tone(pitch_hz: np.ndarray, weights) -> np.ndarray:
    """A tone whose harmonics have these weights; those above what can be held are left out."""
    count = max(1, min(len(weights), int(0.45 * RATE_HZ / max(1.0, float(pitch_hz.max())))))
    turns = np.arange(2048) / 2048
    cycle = sum(w * np.sin(2 * np.pi * (k + 1) * turns + k) for k, w in enumerate(weights[:count]))
    cycle = cycle / np.sqrt(np.mean(cycle**2))
    return cycle[(np.cumsum(pitch_hz) / RATE_HZ * 2048).astype(np.int64) % 2048]


def strikes(rng, seconds: float, times, make, spread: float = 0.3) -> np.ndarray:
    """The same kind of short sound at several times, not always as loud."""
    signal = np.zeros(len(clock(seconds)))
    for time in times:
        at = int(time * RATE_HZ)
        if 0 <= at < len(signal):
            grain = make() * rng.uniform(1 - spread, 1 + spread)
            signal[at : at + len(grain)] += grain[: len(signal) - at]
    return signal


def thud(rng, low_hz: float, high_hz: float, tau_s: float) -> np.ndarray:
    """A short noise that dies away."""
    time = clock(6 * tau_s)
    return noise(rng, len(time), low_hz, high_hz) * np.exp(-time / tau_s)


def ring(time: np.ndarray, pitches_hz, tau_s: float) -> np.ndarray:
    """Tones that die away together."""
    return sum(np.sin(2 * np.pi * f * time) for f in pitches_hz) * np.exp(-time / tau_s)


def motor(rng, seconds: float, pitch_hz: np.ndarray, weights, rattle: float) -> np.ndarray:
    """An engine: harmonics of its firing, and noise that beats with it."""
    time = clock(seconds)
    beat = 0.6 + 0.4 * tone(pitch_hz, (1,))
    return tone(pitch_hz * rng.uniform(0.97, 1.03), weights) + rattle * noise(rng, len(time), 120, 1600) * beat


def gate(time: np.ndarray, period_s: float, share: float) -> np.ndarray:
    """1 in the first share of each period, else 0."""
    return ((time % period_s) < share * period_s).astype(float)


def bump(u: np.ndarray, begin: float, end: float) -> np.ndarray:
    """Rises and falls between two shares of the event."""
    return np.sin(np.pi * np.clip((u - begin) / (end - begin), 0, 1))
