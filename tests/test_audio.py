"""Resampling against resampy and the sinc's definition, streaming against all at once, gaps and jitter."""

import sys

import numpy as np
import pytest
import resampy
import torch

from avad_hf.media.audio import SoundBlock, SoundTrack, StreamResampler, resample, sound_level, to_mono

from .media_files import tone

RATES = [8000, 11025, 22050, 44100, 48000, 96000]


@pytest.mark.parametrize("rate", RATES)
def test_equals_resampy_kaiser_best(rate):
    """Within what resampy's own table of the filter allows: it rounds positions when it reduces the rate."""
    noise = np.random.default_rng(0).standard_normal(rate)
    expected = resampy.resample(noise, rate, 16000, filter="kaiser_best")
    found = resample(noise, rate, 16000).numpy()
    assert abs(len(found) - len(expected)) <= 1
    length = min(len(found), len(expected))
    error = found[:length] - expected[:length]
    assert np.sqrt(np.mean(error**2)) < 1e-3 * np.sqrt(np.mean(expected**2))


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 22254, 47999, 7919])
def test_equals_the_definition(rate):
    """Kaiser-windowed sinc, 50 zero crossings, written out for single output samples."""
    signal = np.random.default_rng(0).standard_normal(rate // 2)
    found = resample(signal, rate, 16000).numpy()
    scale = min(1.0, 16000 / rate)
    for index in (0, 3, 1234, 4321):
        distance = (index / 16000 - np.arange(len(signal)) / rate) * rate * scale
        inside = np.abs(distance) <= 50
        window = np.zeros_like(distance)
        window[inside] = np.i0(12.9846 * np.sqrt(1 - (distance[inside] / 50) ** 2)) / np.i0(12.9846)
        weights = 0.917347 * scale * np.sinc(0.917347 * distance) * window
        assert found[index] == pytest.approx(weights @ signal, abs=1e-6)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [(count, rate) for count in (1, 100, 20_000) for rate in (8000, 16000, 22050, 44100, 48000, 22254, 7919)]
    # Of the last two, which have no filters, one unit is 11127 and 7919 samples: the first two of five go out with
    # less before them than the filter reaches into, the third with all of it.
    + [(100_001, rate) for rate in (8000, 16000, 22050, 44100, 48000)]
    + [(5 * 11127 + 1, 22254), (5 * 7919 + 1, 7919)],
)
def test_pieces_equal_the_whole(samples, rate):
    signal = np.random.default_rng(1).standard_normal(samples).astype(np.float32)
    whole = resample(signal, rate, 16000).numpy()
    for size in (97, 1024, samples):
        resampler = StreamResampler(rate, 16000)
        pieces = [resampler.push(signal[i : i + size]) for i in range(0, samples, size)]
        found = np.concatenate([*pieces, resampler.flush()])
        np.testing.assert_allclose(found, whole, atol=5e-6)


def test_resampler_holds_a_bounded_part():
    resampler = StreamResampler(48000, 16000)
    for _ in range(500):
        resampler.push(np.zeros(1024, dtype=np.float32))
        assert len(resampler.held) < 48000


def test_to_mono_scales_by_type_and_averages_channels():
    np.testing.assert_allclose(to_mono(np.array([[0, 16384], [-32768, 0]], dtype=np.int16)), [-0.5, 0.25])
    np.testing.assert_allclose(to_mono(np.array([0, 128, 192], dtype=np.uint8)), [-1.0, 0.0, 0.5])
    np.testing.assert_allclose(to_mono(np.array([2**30], dtype=np.int32)), [0.5])
    assert to_mono(np.array([0.25], dtype=np.float64)).dtype == np.float32


def blocks(start=0.0, seconds=3.0, rate=16000, size=1000):
    samples = tone(start + np.arange(round(seconds * rate)) / rate).astype(np.float32)
    return [SoundBlock(start + i / rate, samples[i : i + size], rate) for i in range(0, len(samples), size)]


def test_jitter_of_timestamps_is_no_gap():
    jittered = [SoundBlock(b.start + 0.0005 * (-1) ** i, b.samples, b.rate) for i, b in enumerate(blocks())]
    jittered[0] = blocks()[0]
    expected, found = SoundTrack(blocks(), 16000), SoundTrack(jittered, 16000)
    assert torch.equal(found.window(3.0, 3.0), expected.window(3.0, 3.0))


def test_gap_and_overlap_keep_the_clock():
    parts = blocks()
    expected = SoundTrack(parts, 16000).window(3.0, 3.0)
    gap = SoundTrack(parts[:16] + parts[24:], 16000).window(3.0, 3.0)
    assert torch.equal(gap[:16000], expected[:16000]) and torch.equal(gap[24000:], expected[24000:])
    assert (gap[16000:24000] == 0).all()
    overlapping = SoundTrack(parts[:20] + parts[10:], 16000).window(3.0, 3.0)
    assert torch.equal(overlapping, expected)


def test_rate_may_change_on_the_way():
    parts = blocks(0.0, 1.0, 48000, 1200) + blocks(1.0, 1.0, 8000, 500)
    found = SoundTrack(parts, 16000).window(2.0, 2.0).numpy()
    expected = tone(np.arange(32000) / 16000)
    clear = np.ones(32000, dtype=bool)
    clear[:400] = clear[15500:16500] = clear[-400:] = False
    assert np.abs(found - expected)[clear].max() < 1e-3


def test_a_long_gap_is_filled_only_as_far_as_it_is_heard():
    drawn = SoundTrack([*blocks(0.0, 1.0), SoundBlock(1e6, np.ones(10, dtype=np.float32), 16000)], 16000)
    assert (drawn.window(100.0, 1.0) == 0).all()
    assert len(drawn._held) < 50_000


@pytest.mark.parametrize(
    ("rate", "gap", "new_rate"),
    [(rate, gap, 16000) for rate in (8000, 16000, 44100, 48000) for gap in (3.9, 4.0, 7.3, 20.001)]
    # Without a common factor, where a unit is a second.
    + [(509, 9.1, 503), (1009, 20.001, 500)],
)
def test_a_long_gap_equals_its_zeros(rate, gap, new_rate):
    """What is left out of a gap moves no sample behind it: beside all of it resampled at once, zeros included."""
    rng = np.random.default_rng(2)
    before, after = (rng.standard_normal(count).astype(np.float32) for count in (rate + 123, 2 * rate))
    missing = round(gap * rate)
    whole = resample(np.concatenate([before, np.zeros(missing, dtype=np.float32), after]), rate, new_rate).numpy()
    track = SoundTrack(
        [SoundBlock(0.5, before, rate), SoundBlock(0.5 + (len(before) + missing) / rate, after, rate)], new_rate
    )
    end = 0.5 + len(whole) / new_rate
    found = [track.window(0.5 + number, 1.0).numpy() for number in range(1, int(end - 0.5) + 1)]
    np.testing.assert_allclose(np.concatenate(found), whole[: len(found) * new_rate], atol=5e-6)


def test_a_jump_of_a_day_costs_nothing(monkeypatch):
    """After it there is sound again; resampled are some seconds, and held is one window."""
    pushed = []
    push = StreamResampler.push
    monkeypatch.setattr(
        StreamResampler, "push", lambda self, samples: pushed.append(len(samples)) or push(self, samples)
    )
    ones = np.ones(48000, dtype=np.float32)
    track = SoundTrack([SoundBlock(0.0, ones, 48000), SoundBlock(1e5, ones, 48000)], 16000)
    assert track.window(0.9, 0.5).min() > 0.5
    assert (track.window(5e4, 1.0) == 0).all() and (track.window(99_999.5, 0.5) == 0).all()
    assert track.window(100_000.9, 0.5).min() > 0.5
    assert sum(pushed) < 10 * 48000 and len(track._held) < 100_000


def test_no_sound_at_all():
    track = SoundTrack([], 16000)
    assert not track.has_sound
    assert (track.window(1.0, 1.0) == 0).all()


def test_sound_level_of_a_known_loudness():
    rate = 16000
    loud = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
    track = SoundTrack([SoundBlock(0.0, np.concatenate([np.zeros(rate, np.float32), loud]), rate)], rate)
    times, levels = sound_level(track, 2.0, 0.1)
    np.testing.assert_allclose(times, np.arange(20) * 0.1 + 0.05)
    np.testing.assert_allclose(levels[:10], -100)
    np.testing.assert_allclose(levels[10:], 20 * np.log10(0.5 / np.sqrt(2)), atol=0.01)


def test_without_torchaudio_the_error_names_the_versions(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(ImportError, match=r"cannot be loaded beside torch .*'torch>=2.11,<2.15' 'torchaudio>=2.11'"):
        resample(np.zeros(100), 48000, 16000)
    # Sound that has the right rate already needs no torchaudio.
    assert len(resample(np.zeros(100), 16000, 16000)) == 100
    StreamResampler(16000, 16000)
