"""The second of sound before each frame, against the signal that was written: no decoder stands on the other side."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from avad_hf.media.encode import write_video
from avad_hf.media.sources import open_media

from .media_files import frame_times, retimed, sound, tone, write_media

RATE = 16000
# Right at its two ends the resampled tone rings; these samples are left out.
EDGE_S = 0.01


def naive_window(end: float, sound_start: float, sound_end: float) -> tuple[np.ndarray, np.ndarray]:
    """What should be heard during the second before `end`, and which samples are clear of the sound's own ends.

    The samples of the sound lie at `sound_start + n / 16000`; the window is the 16000 that end nearest to `end`.
    """
    stop = int(np.rint((end - sound_start) * RATE))
    times = sound_start + np.arange(stop - RATE, stop) / RATE
    heard = (times > sound_start - 1e-9) & (times < sound_end - 1e-9)
    clear = (np.abs(times - sound_start) > EDGE_S) & (np.abs(times - sound_end) > EDGE_S)
    return np.where(heard, tone(times), 0.0), clear


def check(path, times, sound_start, sound_end, shift=0.0):
    """Compare every window; `shift` is the time of the file that the library calls 0 seconds."""
    with open_media(path) as media:
        track = media.sound(RATE)
        frames = list(media.frames(48))
        assert [f.start for f in frames] == pytest.approx([t - shift for t in times], abs=2e-5)
        for frame in frames:
            window = track.window(frame.start, 1.0).numpy()
            assert window.shape == (RATE,)
            expected, clear = naive_window(frame.start + shift, sound_start, sound_end)
            # 16 bits and the resampler's ripple. One sample too many or too few would be 0.1.
            assert np.abs(window - expected)[clear].max(initial=0) < 5e-4


@pytest.mark.parametrize("fps", [24, 25, Fraction(30000, 1001), 30, 60])
def test_frame_rates(tmp_path, fps):
    times = frame_times(fps, 2.0)
    check(write_media(tmp_path / "a.mov", times, sound(0, 2.1, 48000)), times, 0.0, 2.1)


def test_variable_frame_rate(tmp_path):
    gaps = np.random.default_rng(0).uniform(0.01, 0.2, 40)
    times = [round(t * 90000) / 90000 for t in np.concatenate([[0.0], np.cumsum(gaps)])]
    check(write_media(tmp_path / "a.mov", times, sound(0, 5.0, 44100), 44100), times, 0.0, 5.0)


def test_sound_starts_half_a_second_after_the_picture(tmp_path):
    times = frame_times(25, 2.0)
    path = write_media(tmp_path / "a.mov", times, sound(0.5, 1.5, 48000), sound_start=0.5)
    check(path, times, 0.5, 2.0)


def test_sound_starts_before_the_picture(tmp_path):
    """The container then begins with the sound, and so do our seconds."""
    times = frame_times(25, 2.0, start=0.3)
    check(write_media(tmp_path / "a.mov", times, sound(0.0, 2.3, 48000)), times, 0.0, 2.3)


def test_container_that_does_not_start_at_zero(tmp_path):
    times = frame_times(25, 2.0, start=100.0)
    path = write_media(tmp_path / "a.mkv", times, sound(100.0, 2.0, 48000), sound_start=100.0)
    check(path, times, 100.0, 102.0, shift=100.0)


def test_sound_shorter_than_the_picture(tmp_path):
    times = frame_times(25, 3.0)
    check(write_media(tmp_path / "a.mov", times, sound(0, 0.7, 48000)), times, 0.0, 0.7)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_rates_and_channels(tmp_path, rate, channels):
    times = frame_times(25, 1.6)
    check(write_media(tmp_path / "a.mov", times, sound(0, 1.6, rate, channels), rate), times, 0.0, 1.6)


def test_a_gap_in_the_sound_is_silence(tmp_path):
    """Two stretches of sound with 0.6 s of nothing between them, by timestamps alone."""
    import av

    path = tmp_path / "gap.mkv"
    samples = sound(0, 2.0, 48000)
    samples[:, 48000 * 7 // 10 : 48000 * 13 // 10] = 0
    whole = write_media(tmp_path / "whole.mkv", frame_times(25, 2.0), samples)
    with av.open(whole) as source, av.open(str(path), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None:
                continue
            time = packet.pts * packet.time_base
            if (
                packet.stream.type == "audio"
                and Fraction(7, 10) < time
                and time + Fraction(22, 1000) < Fraction(13, 10)
            ):
                continue
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    with open_media(str(path)) as gap, open_media(whole) as full:
        gap_track, full_track = gap.sound(RATE), full.sound(RATE)
        for time in frame_times(25, 2.0):
            # Millisecond timestamps: the second stretch may sit half a millisecond off.
            close = torch.isclose(gap_track.window(time, 1.0), full_track.window(time, 1.0), atol=0.35)
            assert close.float().mean() > 0.999
    assert sum(1 for p in av.open(str(path)).demux(audio=0)) < sum(1 for p in av.open(whole).demux(audio=0))


WRONG_TIMES = {
    "far ahead": {20: 1000.0},
    "a little ahead": {20: 0.5},
    "first": {0: 1000.0},
    "three": {20: 1000.0, 21: 1000.0, 22: 1000.0},
    "last": {62: 1000.0},
}


@pytest.mark.parametrize("name", ["a.mkv", "a.mov"])
@pytest.mark.parametrize("shifts", WRONG_TIMES)
def test_one_wrong_time_moves_no_other_sound(tmp_path, name, shifts):
    """The samples themselves are all there, and in their places."""
    times = frame_times(25, 2.0)
    # 1024 samples are 32 ms then, which no container rounds.
    whole = write_media(tmp_path / "whole.mov", times, sound(0, 2.0, 32000), 32000, video_codec="mjpeg")
    # A MOV has times of its own for each packet of sound only in fragments.
    options = {} if name == "a.mkv" else {"movflags": "empty_moov+default_base_moof", "frag_duration": "10000000"}
    path = retimed(whole, tmp_path / name, "audio", WRONG_TIMES[shifts], **options)
    check(path, times, 0.0, 2.0)
    with open_media(path) as media:
        assert len(media.sound(RATE).read()) == 2 * RATE
        problems = [] if shifts == "a little ahead" else ["single times of the sound are wrong, first "]
        assert [problem[:43] for problem in media.problems] == problems


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_sound_that_is_copied_keeps_its_place_whatever_one_packet_says(tmp_path, codec):
    """As an overlay writes it: AAC packets as they are, others encoded anew."""
    whole = write_media(tmp_path / "whole.mov", frame_times(25, 2.0), sound(0, 2.0, 48000), audio_codec=codec)
    copies = []
    for shifts in ({}, {20: 1000.0}, {20: 1000.0, 21: 1000.0}):
        source = retimed(whole, tmp_path / f"{len(shifts)}.mkv", "audio", shifts)
        copies.append(tmp_path / f"copy{len(shifts)}.mp4")
        with open_media(source) as media:
            pictures = ((time, np.zeros((48, 64, 3), np.uint8)) for time in frame_times(25, 2.0))
            write_video(copies[-1], pictures, (64, 48), 25, sound_of=media)
    read = []
    for path in copies:
        with open_media(str(path)) as media:
            assert media.info.duration == pytest.approx(2.0, abs=0.05) and media.problems == []
            read.append(media.sound(RATE).read())
    for other in read[1:]:
        torch.testing.assert_close(other, read[0])


def test_real_clip_with_surround_sound(bunny):
    """AAC 5.1 against a naive reading: decode all, average channels, resample at once with resampy, slice."""
    import av
    import resampy

    with av.open(bunny) as container:
        decoded = [f.to_ndarray() for f in container.decode(audio=0)]
    mono = np.concatenate(decoded, axis=1).mean(axis=0)
    mono = resampy.resample(mono.astype(np.float64), 48000, RATE, filter="kaiser_best")
    padded = np.concatenate([np.zeros(RATE), mono])
    with open_media(bunny) as media:
        track = media.sound(RATE)
        for frame in media.frames(48):
            stop = round(frame.start * RATE)
            expected = padded[stop : stop + RATE]
            got = track.window(frame.start, 1.0).numpy()[: len(expected)]
            assert np.abs(got - expected).max() < 1e-3 * np.abs(mono).max() + 1e-6


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_aac_has_no_priming_delay(tmp_path, name):
    """AAC begins with 1024 samples of priming, which containers mark in different ways: none may shift the sound."""
    times = frame_times(25, 2.0)
    path = write_media(tmp_path / name, times, sound(0, 2.0, 48000), audio_codec="aac")
    with open_media(path) as media:
        track = media.sound(RATE)
        frames = list(media.frames(48))
        shift = min(track.start, frames[0].start)
        for frame in frames[10:]:
            expected, clear = naive_window(frame.start - frames[0].start, 0.0, 2.0)
            clear &= np.arange(RATE) > RATE * (1.2 - frame.start + shift)  # the encoder's own fade-in
            assert (track.window(frame.start, 1.0).numpy() - expected)[clear].std() < 0.05  # one sample off: 0.1
