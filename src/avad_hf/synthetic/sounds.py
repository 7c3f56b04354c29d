"""Makes the sounds of the synthetic world from noise, tones and echoes; nothing is recorded."""

import math
from dataclasses import dataclass

import numpy as np

from .tones import RATE_HZ, bump, clock, gate, motor, noise, ring, strikes, thud, tone

SPEED_OF_SOUND = 340.0


@dataclass
class Source:
    """A sound and where it comes from.

    Args:
        signal: Samples of shape `(samples,)`, as loud as it is at ten metres.
        start_s: When it begins.
        x: To the right, in metres, one value a frame.
        y: Away from the camera, in metres, one value a frame.
    """

    signal: np.ndarray
    start_s: float
    x: np.ndarray
    y: np.ndarray


def _steps(rng, seconds: float, rate_hz: float, people: int) -> np.ndarray:
    """Feet of several people, each at a pace of their own."""
    signal = np.zeros(len(clock(seconds)))
    for _ in range(people):
        own = rate_hz * rng.uniform(0.85, 1.15)
        times = np.arange(rng.uniform(0, 1 / own), seconds, 1 / own)
        high = rng.uniform(1200, 2600)
        signal += strikes(rng, seconds, times, lambda high=high: thud(rng, 150, high, 0.018))
    return signal


def _voice(rng, seconds: float, pitch_hz: float, syllables_hz: float = 3.5, glide: float = 0.15) -> np.ndarray:
    """Somebody who says something that is no word: a tone of moving pitch through moving formants."""
    time = clock(seconds)
    pitch = pitch_hz * (1 + glide * np.sin(2 * np.pi * rng.uniform(0.4, 0.9) * time + rng.uniform(0, 6)))
    k = np.arange(1, 28) * pitch_hz
    sides = []
    for formants in ((700, 1200), (350, 2100)):
        weights = sum(np.exp(-(((k - f) / 220) ** 2)) for f in formants) + 0.02
        sides.append(tone(pitch, weights))
    mouth = 0.5 + 0.5 * np.sin(2 * np.pi * syllables_hz * 0.6 * time + rng.uniform(0, 6))
    stress = np.clip(np.sin(2 * np.pi * syllables_hz * time + rng.uniform(0, 6)) + 0.35, 0, 1)
    return (sides[0] * mouth + sides[1] * (1 - mouth)) * stress


def _crowd(rng, seconds: float, people: int, low_hz: float = 100, high_hz: float = 240) -> np.ndarray:
    return sum(_voice(rng, seconds, rng.uniform(low_hz, high_hz), rng.uniform(2.5, 4.5)) for _ in range(people))


def _scream(rng, seconds: float, people: int) -> np.ndarray:
    signal, time = np.zeros(len(clock(seconds))), clock(seconds)
    for _ in range(people):
        begin, length = rng.uniform(0, max(0.1, seconds - 1)), rng.uniform(0.5, 1.3)
        inside = np.clip((time - begin) / length, 0, 1)
        pitch = rng.uniform(750, 1300) * (1 + 0.25 * np.sin(np.pi * inside)) * (1 + 0.02 * np.sin(170 * time))
        signal += tone(pitch, (1, 0.8, 0.6, 0.3)) * np.sin(np.pi * inside) ** 0.5
    return signal


def _filled(values: np.ndarray) -> np.ndarray:
    """The nearest known position where a thing is not in the picture."""
    known = np.flatnonzero(~np.isnan(values))
    return np.interp(np.arange(len(values)), known, values[known])


def car(rng, speed_mps: np.ndarray, seconds: float) -> np.ndarray:
    """An ordinary car: engine and tyres, which follow its speed (one value a frame, NaN where it is not there)."""
    time, frame_times = clock(seconds), np.linspace(0, seconds, len(speed_mps))
    speed = np.interp(time, frame_times, _filled(speed_mps))
    there = np.convolve(~np.isnan(speed_mps), np.ones(9) / 9, mode="same")
    pitch = rng.uniform(24, 34) + speed * rng.uniform(3.0, 4.5)
    engine = tone(pitch, (0.6, 1, 0.5, 0.6, 0.25, 0.3, 0.15, 0.15))
    tyres = noise(rng, len(time), 250, rng.uniform(900, 1600))
    return ((0.35 + 0.02 * speed) * engine + tyres * (0.01 + 0.08 * speed)) * np.interp(time, frame_times, there)


# The sounds of the anomalies: each has the length of the whole event, and its parts are where the picture shows them.


def _pedestrians(rng, seconds):
    return 1.2 * _steps(rng, seconds, 1.9, rng.integers(2, 5)) + 0.7 * _crowd(rng, seconds, 2)


def _pedestrians_crossing(rng, seconds):
    tick = ring(clock(0.02), (rng.uniform(850, 1000), 2400), 0.004)
    ticking = strikes(rng, seconds, np.arange(0.1, seconds, 1 / 8), lambda: tick, 0.1)
    return 1.6 * ticking + 1.1 * _steps(rng, seconds, 2.0, rng.integers(1, 4))


def _bicycle(rng, seconds):
    pitch = rng.uniform(2300, 2900)
    bell = ring(clock(0.5), (pitch, pitch * 1.52, pitch * 2.1), 0.16)
    rings = [at + i * 0.075 for at in rng.uniform(0.15, 0.75, 2) * seconds for i in range(6)]
    clicks = np.arange(0, seconds, 1 / rng.uniform(18, 28))
    return 0.8 * strikes(rng, seconds, rings, lambda: bell) + 0.8 * strikes(
        rng, seconds, clicks, lambda: thud(rng, 3000, 6500, 0.003)
    )


def _bus(rng, seconds):
    time = clock(seconds)
    diesel = motor(rng, seconds, 38 + 10 * np.abs(np.cos(np.pi * time / seconds)), (1, 0.8, 0.9, 0.5, 0.5, 0.4), 0.5)
    hiss = strikes(rng, seconds, [0.46 * seconds, 0.62 * seconds], lambda: thud(rng, 2200, 6500, 0.2), 0.2)
    squeak = tone(rng.uniform(1500, 2000) * (1 - 0.1 * time / seconds), (1, 0.5)) * bump(time / seconds, 0.34, 0.46)
    return diesel + 2.2 * hiss + 0.4 * squeak


def _exit_side_street(rng, seconds):
    time = clock(seconds)
    start = min(0.9, 0.25 * seconds)
    starter = tone(np.full(len(time), rng.uniform(150, 190)), (1, 0.7, 0.6, 0.4)) * (time < start)
    starter *= 0.5 + 0.5 * np.sin(2 * np.pi * 9 * time)
    revs = 38 + 75 * bump(time / seconds, 0.15, 0.5) + 60 * bump(time / seconds, 0.5, 1.0)
    engine = motor(rng, seconds, revs, (0.6, 1, 0.6, 0.7, 0.4, 0.3), 0.3) * (time >= start)
    clicks = strikes(rng, seconds, np.arange(start, seconds, 0.36), lambda: ring(clock(0.03), (1900, 3100), 0.006))
    return 0.9 * starter + 0.9 * engine + 1.6 * clicks


def _heavy_goods_vehicle(rng, seconds):
    time = clock(seconds)
    rumble = motor(rng, seconds, 27 + 6 * np.cos(np.pi * time / seconds), (1, 1, 0.8, 0.8, 0.5, 0.5, 0.3), 0.4)
    beeper = tone(np.full(len(time), rng.uniform(1150, 1350)), (1, 0, 0.33)) * gate(time, 0.8, 0.5)
    return rumble + 0.9 * noise(rng, len(time), 30, 140) + 0.7 * beeper * (time > 0.5 * seconds)


def _obstruction(rng, seconds):
    time = clock(seconds)
    pitch, blown = rng.uniform(380, 450), np.zeros(len(time))
    for begin in np.sort(rng.uniform(0.25, 0.9, 3)) * seconds:
        blown[(time > begin) & (time < begin + rng.uniform(0.2, 0.7))] = 1
    horn = tone(np.full(len(time), pitch), (1, 0.8, 0.7, 0.5, 0.4)) + tone(
        np.full(len(time), pitch * 1.24), (1, 0.7, 0.6, 0.4)
    )
    tick = strikes(rng, seconds, np.arange(0.2, seconds, 0.35), lambda: ring(clock(0.03), (1700, 2600), 0.006))
    return 0.9 * horn * blown + 1.2 * tick


def _u_turn(rng, seconds):
    time = clock(seconds)
    u = time / seconds
    wobble = np.interp(time, np.arange(0, seconds + 1, 0.05), rng.normal(0, 25, len(np.arange(0, seconds + 1, 0.05))))
    squeal = tone(rng.uniform(850, 1100) + 200 * bump(u, 0.3, 0.8) + wobble, (1, 0.6, 0.5, 0.25))
    squeal = (squeal + 0.5 * noise(rng, len(time), 900, 2600)) * bump(u, 0.3, 0.78)
    return 1.2 * squeal + 0.5 * motor(rng, seconds, 45 + 70 * bump(u, 0.4, 1.1), (0.6, 1, 0.5, 0.6), 0.3)


def _scooter(rng, seconds):
    time = clock(seconds)
    pitch = rng.uniform(125, 165) * (1 + 0.15 * np.sin(2 * np.pi * rng.uniform(0.2, 0.5) * time))
    return motor(rng, seconds, pitch, tuple(1 / (k + 1) ** 0.5 for k in range(20)), 0.25)


def _horse(rng, seconds):
    beat = rng.uniform(0.42, 0.55)
    hoofs = [step * beat / 4 for step in range(int(4 * seconds / beat)) if step % 4 != 3]
    clops = strikes(rng, seconds, hoofs, lambda: ring(clock(0.08), (rng.uniform(650, 900), 1350), 0.016))
    time = clock(1.1)
    neigh = tone((950 - 430 * time) * (1 + 0.07 * np.sin(2 * np.pi * 11 * time)), (1, 0.8, 0.6, 0.4))
    return 2.0 * clops + 0.8 * strikes(
        rng, seconds, [rng.uniform(0.2, 0.6) * seconds], lambda: neigh * bump(time, 0, 1.1)
    )


def _run(rng, seconds):
    return _steps(rng, seconds, 3.1, 9) + 0.6 * _crowd(rng, seconds, 2, 200, 330)


def _chase(rng, seconds):
    time = clock(seconds)
    whistle = tone(2700 + 120 * np.sin(2 * np.pi * 28 * time), (1, 0.3)) * gate(time - 0.3, 1.4, 0.35)
    return 1.5 * _steps(rng, seconds, 3.2, 3) + 0.7 * whistle + 0.8 * _voice(rng, seconds, 210, 1.6)


def _fight(rng, seconds):
    blows = np.cumsum(rng.exponential(0.4, 40)) + 0.1
    return 2.0 * strikes(rng, seconds, blows, lambda: thud(rng, 70, 420, 0.05)) + _crowd(rng, seconds, 3, 170, 300)


def _scatter(rng, seconds):
    return 0.7 * _scream(rng, seconds, rng.integers(3, 7)) + 0.9 * _steps(rng, seconds, 3.0, 7)


def shot_times(rng) -> np.ndarray:
    """When shots fall, in seconds from the start of the event; the picture flashes then."""
    return np.cumsum(rng.uniform(0.25, 0.9, 8)) + 0.1


def _shoot(rng, seconds):
    shots = strikes(rng, seconds, shot_times(rng), lambda: thud(rng, 120, 5000, 0.045))
    return 3.5 * shots + 0.45 * _scream(rng, seconds, rng.integers(0, 4))


def _knockdown(rng, seconds):
    time = clock(seconds)
    u = time / seconds
    engine = motor(rng, seconds, 50 + 70 * bump(u, -0.3, 0.6), (0.6, 1, 0.6, 0.6), 0.4) * (u < 0.62)
    squeal = tone(np.full(len(time), rng.uniform(900, 1150)), (1, 0.6, 0.4)) * bump(u, 0.4, 0.62)
    thuds = strikes(rng, seconds, rng.uniform(0.3, 0.5, 3) * seconds, lambda: thud(rng, 60, 500, 0.07))
    screams = 0.5 * _scream(rng, seconds, rng.integers(1, 4)) * (u > 0.4)
    return 0.8 * engine + 0.7 * squeal + 3 * thuds + screams


def _arrest(rng, seconds):
    time = clock(seconds)
    pitch = 900 + 330 * np.sin(2 * np.pi * rng.choice((0.35, 2.4)) * time)
    return tone(pitch, (1, 0.5, 0.35, 0.2)) * np.clip(1.3 - time / seconds, 0, 1) + 0.6 * _voice(rng, seconds, 140, 3)


_MAKERS = (_pedestrians, _pedestrians_crossing, _bicycle, _bus, _exit_side_street, _heavy_goods_vehicle, _obstruction,
           _u_turn, _scooter, _horse, _run, _chase, _fight, _scatter, _shoot, _knockdown, _arrest)  # fmt: skip
EVENTS = {maker.__name__.lstrip("_"): maker for maker in _MAKERS}


def event(label: str, rng, seconds: float) -> np.ndarray:
    """The sound of an anomaly over its whole length, of effective value 1, faded in and out."""
    signal, time = EVENTS[label](rng, seconds), clock(seconds)
    return signal / np.sqrt(np.mean(signal**2)) * np.clip(np.minimum(time, seconds - time) / 0.2, 0, 1)


def _chant(rng, seconds):
    time = clock(seconds)
    beat = rng.uniform(1.6, 2.2)
    together = np.clip(np.sin(2 * np.pi * beat * time) + 0.2, 0, 1)
    claps = strikes(rng, seconds, np.arange(0, seconds, 1 / beat), lambda: thud(rng, 700, 3500, 0.02))
    return _crowd(rng, seconds, 6, 120, 220) * together + 1.5 * claps


def crowd(kind: str, rng, seconds: float) -> np.ndarray:
    """What a crowd sounds like that strolls (normal1) or stands together and chants (normal2); effective value 1."""
    strolling = _crowd(rng, seconds, 5) + 1.2 * _steps(rng, seconds, 1.8, 6) if kind == "normal1" else None
    signal = _chant(rng, seconds) if strolling is None else strolling
    return signal / np.sqrt(np.mean(signal**2))


def harmless(rng) -> np.ndarray:
    """A sound that means nothing: a bird, a dog, a bell, a horn or a siren far away, a door, an aeroplane."""
    kind, time = rng.integers(0, 7), clock(rng.uniform(1.0, 2.5))
    seconds = len(time) / RATE_HZ
    if kind == 0:
        chirp = clock(0.09)
        call = tone(3300 + 1500 * np.sin(2 * np.pi * rng.uniform(8, 16) * chirp), (1, 0.2)) * bump(chirp, 0, 0.09)
        signal = strikes(rng, seconds, np.arange(0, seconds, rng.uniform(0.14, 0.3)), lambda: call)
    elif kind == 1:
        bark = clock(0.16)
        call = (tone(480 - 900 * bark, (1, 0.9, 0.7, 0.5)) + noise(rng, len(bark), 400, 2000)) * bump(bark, 0, 0.16)
        signal = strikes(rng, seconds, rng.uniform(0, seconds, 3), lambda: call)
    elif kind == 2:
        signal = ring(time, rng.uniform(400, 700) * np.array((1, 2.0, 2.4, 3.0)), 0.6)
    elif kind == 3:
        signal = tone(np.full(len(time), rng.uniform(350, 480)), (1, 0.8, 0.5)) * bump(time, 0.1, 0.7)
    elif kind == 4:
        signal = tone(800 + 250 * np.sin(2 * np.pi * 0.4 * time), (1, 0.4)) * bump(time, 0, seconds)
    elif kind == 5:
        signal = strikes(rng, seconds, [0.1], lambda: thud(rng, 60, 900, 0.06))
    else:
        signal = noise(rng, len(time), 60, 300) * bump(time, 0, seconds)
    return signal / np.sqrt(np.mean(signal**2))


@dataclass(frozen=True)
class Place:
    """How a scene sounds.

    Args:
        noise: Level of wind and far streets; a sound at ten metres is 1.
        away_m: From the microphone to the camera, further back.
        echo_s: How long the place rings.
        event: Level of what belongs to anomalies, from the lowest to the highest.
    """

    noise: float
    away_m: float
    echo_s: float
    event: tuple[float, float]


PLACES = {
    "crossing": Place(noise=0.25, away_m=0.0, echo_s=0.0, event=(0.3, 1.6)),
    "underpass": Place(noise=0.25, away_m=0.0, echo_s=0.5, event=(0.5, 2.2)),
    "overlook": Place(noise=1.2, away_m=90.0, echo_s=0.0, event=(0.3, 1.6)),
    "crowd": Place(noise=0.25, away_m=0.0, echo_s=0.0, event=(0.2, 1.2)),
    "avenue": Place(noise=0.8, away_m=60.0, echo_s=0.0, event=(0.1, 0.5)),
    "junction": Place(noise=0.2, away_m=0.0, echo_s=0.0, event=(1.5, 3.0)),
}


def heard(sources: list[Source], frame_times: np.ndarray, seconds: float, place: Place, rng) -> np.ndarray:
    """Sources as two microphones hear them: weaker and later when far, shifted in pitch when they move, with echo."""
    time, both = clock(seconds), np.zeros((2, len(clock(seconds))))
    for source in sources:
        x, y = (np.interp(time, frame_times, _filled(values)) for values in (source.x, source.y))
        away = np.hypot(x, y + place.away_m)
        late = time - source.start_s - (away - away[0]) / SPEED_OF_SOUND
        signal = np.interp(late * RATE_HZ, np.arange(len(source.signal)), source.signal, left=0.0, right=0.0)
        signal *= 10.0 / np.maximum(away, 5.0)
        angle = (np.clip(x / np.maximum(y + place.away_m, 5.0), -1, 1) + 1) * math.pi / 4
        both += signal * np.stack([np.cos(angle), np.sin(angle)])
    if place.echo_s:
        tail = clock(place.echo_s)
        size = 1 << (both.shape[1] + len(tail)).bit_length()
        for side in both:
            reply = rng.normal(0, 1, len(tail)) * np.exp(-tail / (place.echo_s / 4))
            reply *= 0.8 / np.sqrt(np.sum(reply**2))
            side += np.fft.irfft(np.fft.rfft(side, size) * np.fft.rfft(reply, size), size)[: len(side)]
    return both


def street_noise(rng, seconds: float, place: Place, weather: str) -> np.ndarray:
    """Wind, far streets and rain, for two microphones."""
    time = clock(seconds)
    gusts = 1 + 0.4 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * time + rng.uniform(0, 6))
    level = place.noise * 10 ** rng.uniform(-0.3, 0.3)
    sides = []
    for _ in range(2):
        wind = noise(rng, len(time), 30, rng.uniform(250, 500)) * gusts + 0.5 * noise(rng, len(time), 100, 3000)
        sides.append(level * wind + (0.1 * noise(rng, len(time), 1500, 6500) if weather == "rain" else 0))
    return np.stack(sides)


def log_spectrum(samples: np.ndarray, num_bands: int = 40, step: int = 320) -> np.ndarray:
    """Loudness over time and pitch in dB, of shape `(num_bands, frames)`, low pitch first, for samples `(n,)`."""
    pieces = np.lib.stride_tricks.sliding_window_view(np.pad(samples, (0, 1024)), 1024)[::step]
    power = np.abs(np.fft.rfft(pieces * np.hanning(1024), axis=1)) ** 2
    edges = np.geomspace(2, 513, num_bands + 1).astype(int)
    edges = np.maximum(edges, np.arange(num_bands + 1) + 2)
    bands = np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1) / np.diff(edges)
    return 10 * np.log10(bands.T + 1e-9)
