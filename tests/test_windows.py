"""Picked frames and windows against a naive full decode; counting frames; the sound of windows against its signal."""

import itertools
import weakref
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from avad_hf.media import decode
from avad_hf.media.audio import SoundBlock, SoundTrack, resample
from avad_hf.media.decode import MediaFile
from avad_hf.media.sources import open_media
from avad_hf.media.windows import normalised, read_whole, read_windows

from .media_files import frame_times, remux, sound, tone, with_rotation, write_media

RATE = 16000
NATIVE = (48, 64)  # height and width of what write_media writes, so that nothing is scaled


def numbered(index: int, width: int, height: int) -> np.ndarray:
    """A plain picture that differs much from its neighbours, with a mark in its upper left quarter."""
    picture = np.full((height, width, 3), 20 + index * 37 % 199, dtype=np.uint8)
    picture[: height // 2, : width // 2] = 250
    return picture


def video(path, count: int, samples=None, **kwargs) -> str:
    return write_media(path, frame_times(25, count / 25), samples, RATE, pictures=numbered, **kwargs)


def pictures_of(path) -> list[np.ndarray]:
    """Every frame that can be decoded, of the file's own size."""
    pictures = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            with suppress(av.FFmpegError):
                pictures += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(pictures)), "picks could not be told apart"
    return pictures


def naive_picks(pictures: list[np.ndarray], num_frames: int) -> np.ndarray:
    count = len(pictures)
    step = max(1, count // num_frames)
    return np.stack([pictures[i * step % count] for i in range(num_frames)])


def images(frames: torch.Tensor) -> np.ndarray:
    assert frames.dtype == torch.uint8
    return frames.permute(0, 2, 3, 1).numpy()


def with_rubbish(source: str, target, rubbish) -> str:
    """The same packets, but zeros in those of the picture whose number is `rubbish`."""
    with av.open(source) as container, av.open(str(target), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in container.streams}
        number = 0
        for packet in container.demux():
            if packet.dts is None:
                continue
            wanted = packet
            if packet.stream.type == "video":
                if rubbish(number):
                    wanted = av.Packet(bytes(packet.size))
                    for name in ("pts", "dts", "time_base", "duration", "is_keyframe"):
                        setattr(wanted, name, getattr(packet, name))
                number += 1
            wanted.stream = streams[packet.stream.index]
            out.mux(wanted)
    return str(target)


def picture_folder(path: Path, count: int) -> Path:
    path.mkdir()
    for index in range(count):
        Image.fromarray(numbered(index, 64, 48)).save(path / f"{index}.png")
    return path


@pytest.fixture
def readings(monkeypatch) -> list[str]:
    """Files whose frames were read, in order."""
    found, original = [], MediaFile.frames
    monkeypatch.setattr(
        MediaFile, "frames", lambda self, *args, **kwargs: found.append(self.name) or original(self, *args, **kwargs)
    )
    return found


# Picks of a whole video


@pytest.mark.parametrize("count", [1, 7, 49, 50, 51, 99, 100, 101, 149, 150])
def test_fifty_frames_of_a_video_of_any_length(tmp_path, readings, count):
    """Each i * max(1, l // 50)-th; a video with fewer frames begins again."""
    path = video(tmp_path / "v.mp4", count)
    with open_media(path) as media:
        window = read_whole(media, 50, NATIVE, RATE)
    np.testing.assert_array_equal(images(window.frames), naive_picks(pictures_of(path), 50))
    assert (window.start, window.end) == (0.0, pytest.approx(count / 25)) and window.sound is None
    assert len(readings) == 1


def test_frames_of_a_real_video(bikes):
    """250 frames, scaled without keeping the proportion: scaled by FFmpeg alone here."""
    with av.open(bikes) as container:
        expected = [
            frame.reformat(width=240, height=240, format="rgb24", interpolation="AREA").to_ndarray()
            for number, frame in enumerate(container.decode(video=0))
            if number % 5 == 0
        ]
    with open_media(bikes) as media:
        window = read_whole(media, 50, (240, 240), RATE)
    np.testing.assert_array_equal(images(window.frames), np.stack(expected))
    assert (window.start, window.end) == (0.0, pytest.approx(10.0))


def test_arrays_and_folders_are_picked_alike(tmp_path):
    pictures = [numbered(index, 64, 48) for index in range(23)]
    arrays = {"frames": np.stack(pictures), "fps": 10.0}
    folder = {"video": str(picture_folder(tmp_path / "f", 23)), "fps": 10.0}
    for source, num_frames in itertools.product((arrays, folder), (5, 11, 12, 23, 40)):
        with open_media(source) as media:
            window = read_whole(media, num_frames, NATIVE, RATE)
        np.testing.assert_array_equal(images(window.frames), naive_picks(pictures, num_frames))
        assert (window.start, window.end) == (0.0, pytest.approx(2.3))


def test_picks_of_a_stretch_count_from_its_first_frame(tmp_path):
    """From frame 13 on, where picks of the whole video would fall elsewhere; the estimated number is off by one."""
    path = video(tmp_path / "v.mp4", 100)
    pictures = pictures_of(path)
    folder = {"video": str(picture_folder(tmp_path / "f", 100)), "fps": 25.0}
    for row, exact in (({"video": path}, pictures), (folder, [numbered(i, 64, 48) for i in range(100)])):
        # Whole milliseconds, as frames of other files are not where 1 / 25 says in floating point.
        for first, last, num_frames in ((13, 99, 10), (13, 57, 11), (13, 16, 10), (60, 80, 20), (60, 80, 21)):
            with open_media(row | {"start": first / 25 - 0.019, "end": last / 25 + 0.001}) as media:
                window = read_whole(media, num_frames, NATIVE, RATE)
            np.testing.assert_array_equal(images(window.frames), naive_picks(exact[first : last + 1], num_frames))
            assert (window.start, window.end) == (pytest.approx(first / 25), pytest.approx((last + 1) / 25))


@pytest.fixture
def broken_folder(tmp_path) -> dict:
    """12 pictures, of which the fourth cannot be read: the step is 1 for 6 picks, not 2."""
    folder = picture_folder(tmp_path / "broken", 12)
    (folder / "3.png").write_text("<html>")
    return {"video": str(folder), "fps": 8.0}


def test_a_broken_picture_is_no_frame(broken_folder):
    readable = [numbered(index, 64, 48) for index in range(12) if index != 3]
    with open_media(broken_folder) as media:
        window = read_whole(media, 6, NATIVE, RATE)
        np.testing.assert_array_equal(images(window.frames), naive_picks(readable, 6))
        frames = list(media.frames(NATIVE, picked=lambda number: number == 5))
    assert [frame.pixels is not None for frame in frames] == [number == 5 for number in range(11)]
    np.testing.assert_array_equal(images(frames[5].pixels[None])[0], readable[5])
    assert frames[5].start == 6 / 8


def test_a_broken_picture_is_named_once(broken_folder):
    """Also if the folder is read twice, since the count of its pictures is one too high."""
    with open_media(broken_folder) as media:
        read_whole(media, 6, NATIVE, RATE)
        assert media.problems == ["1 pictures cannot be read, first 3.png"]


# Frames that nobody picked


@pytest.fixture
def sources(tmp_path) -> dict:
    """A video of each kind, and how many frames it has."""
    path = video(tmp_path / "v.mp4", 40)
    return {
        "file": (path, 40),
        "arrays": ({"frames": np.stack([numbered(i, 64, 48) for i in range(20)]), "fps": 25.0}, 20),
        "folder": ({"video": str(picture_folder(tmp_path / "f", 20)), "fps": 25.0}, 20),
        "section": ({"video": path, "start": 0.39, "end": 1.21}, 21),  # frames 10 to 30
    }


@pytest.mark.parametrize("kind", ["file", "arrays", "folder", "section"])
@pytest.mark.parametrize(("size", "resize"), [((30, 50), "area"), ((30, 50), "torch"), (24, "area"), (None, "area")])
def test_unpicked_frames_come_without_pixels(sources, kind, size, resize):
    source, count = sources[kind]
    with open_media(source) as media:
        every = list(media.frames(size, resize))
        some = list(media.frames(size, resize, lambda number: number % 3 == 1))
        none = list(media.frames(size, resize, picked=lambda number: False))
        limits = [media.num_frames(limit) for limit in (1, count - 1, count, count + 1, None)]
    assert len(every) == len(some) == len(none) == count
    if kind == "section":  # which is not decoded to count it
        assert limits[0] == 1 and limits[-1] == pytest.approx(count, abs=1) and max(limits) == limits[-1]
    else:
        assert limits == [1, count - 1, count, count, count]
    height, width = {None: NATIVE, 24: (24, 32)}.get(size, size)
    for number, (whole, picked, bare) in enumerate(zip(every, some, none, strict=True)):
        assert whole.pixels.shape == (3, height, width)
        assert whole.pixels.dtype == (torch.uint8 if resize == "area" else torch.float32)
        assert (whole.start, whole.end) == (picked.start, picked.end) == (bare.start, bare.end)
        assert bare.pixels is None
        if number % 3 == 1:
            assert torch.equal(picked.pixels, whole.pixels)
        else:
            assert picked.pixels is None


def test_height_and_width_average_areas():
    """Reduced four times in height and eight times in width."""
    noise = np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    with open_media({"frames": noise[None], "fps": 25}) as media:
        (frame,) = media.frames((48, 32))
    means = noise.reshape(48, 4, 32, 8, 3).mean(axis=(1, 3))
    assert np.abs(images(frame.pixels[None])[0] - means).max() < 3


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_height_and_width_are_those_of_the_upright_picture(tmp_path, turns):
    """The tag says how often a player turns the stored picture clockwise."""
    stored = video(tmp_path / "a.mp4", 3, size=(96, 64))
    size = (40, 24)
    lying = size if turns % 2 == 0 else size[::-1]
    with av.open(stored) as container:
        expected = [
            np.rot90(
                frame.reformat(width=lying[1], height=lying[0], format="rgb24", interpolation="AREA").to_ndarray(),
                -turns,
            )
            for frame in container.decode(video=0)
        ]
    with open_media(with_rotation(stored, tmp_path / "turned.mp4", turns)) as media:
        window = read_whole(media, 3, size, RATE)
    assert window.frames.shape == (3, 3, *size)
    np.testing.assert_array_equal(images(window.frames), np.stack(expected))


# Counting


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.ts", "libx264"),
        ("a.h264", "libx264"),
        ("a.avi", "mpeg4"),
        ("a.avi", "libx264"),
        ("a.mov", "mjpeg"),
        ("a.flv", "flv1"),
        ("a.webm", "libvpx"),
    ],
)
def test_frames_are_counted_without_decoding(tmp_path, monkeypatch, name, codec):
    path = video(tmp_path / name, 101, video_codec=codec)
    assert len(pictures_of(path)) == 101
    with open_media(path) as media:
        monkeypatch.setattr(MediaFile, "decode", None)
        assert [media.num_frames(limit) for limit in (None, 101, 100, 1, 500)] == [101, 101, 100, 1, 101]


def test_frames_out_of_order_and_of_varying_length_are_counted(tmp_path):
    """B-frames of H.264, at moments that no frame rate tells: mean rate times length is not their number."""
    gaps = np.random.default_rng(0).uniform(0.01, 0.3, 90)
    times = [round(t * 90000) / 90000 for t in np.concatenate([[0.0], np.cumsum(gaps)])]
    path = write_media(tmp_path / "a.mp4", times, sound(0, 2.0, RATE), RATE, audio_codec="aac", pictures=numbered)
    with av.open(path) as container:
        order = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert order != sorted(order)
    with open_media(path) as media:
        assert media.num_frames() == 91
        window = read_whole(media, 20, NATIVE, RATE)
    np.testing.assert_array_equal(images(window.frames), naive_picks(pictures_of(path), 20))


@pytest.mark.parametrize("claimed", [0, 1, 29, 61, 10**6])
def test_a_wrong_count_costs_a_second_reading_alone(tmp_path, monkeypatch, readings, claimed):
    path = video(tmp_path / "v.mp4", 60, sound(0, 2.4, RATE), audio_codec="aac")
    with open_media(path) as media:
        right = read_whole(media, 20, NATIVE, RATE)
    assert len(readings) == 1
    monkeypatch.setattr(MediaFile, "num_frames", lambda self, limit=None: claimed)
    with open_media(path) as media:
        window = read_whole(media, 20, NATIVE, RATE)
    np.testing.assert_array_equal(images(window.frames), naive_picks(pictures_of(path), 20))
    assert (window.start, window.end) == (right.start, right.end) and torch.equal(window.sound, right.sound)
    assert len(readings) == (2 if claimed == 61 else 3)  # 61 gives the same step


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mov"])
def test_packets_that_are_rubbish_are_no_frames(tmp_path, readings, name):
    """100 packets, of which a third cannot be decoded: at first every second frame is picked, then every one."""
    path = with_rubbish(
        video(tmp_path / name, 100, video_codec="mjpeg"), tmp_path / f"rubbish_{name}", lambda n: n % 3 == 1
    )
    with open_media(path) as media:
        assert media.num_frames() == 100
        window = read_whole(media, 40, NATIVE, RATE)
        assert media.problems == ["some video packets could not be decoded"]
    assert len(pictures_of(path)) == 67 and len(readings) == 2
    np.testing.assert_array_equal(images(window.frames), naive_picks(pictures_of(path), 40))


def test_a_file_that_is_cut_off(tmp_path, bunny, readings):
    """Written for streaming, so that it opens; the packet that is cut is counted, but gives no frame."""
    whole = Path(remux(bunny, tmp_path / "whole.mp4", movflags="faststart")).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) // 2])
    pictures = pictures_of(path)
    with open_media(path) as media:
        promised = media.num_frames()
        assert promised > len(pictures) > 40
        num_frames = promised // 2
        assert promised // num_frames > len(pictures) // num_frames
        window = read_whole(media, num_frames, (720, 1280), RATE)
    assert len(readings) == 2
    np.testing.assert_array_equal(images(window.frames), naive_picks(pictures, num_frames))


# Sound of whole videos


def clear_of_ends(times: np.ndarray, start: float, end: float) -> np.ndarray:
    """Right at its two ends the resampled tone rings."""
    return (np.abs(times - start) > 0.01) & (np.abs(times - end) > 0.01)


def test_all_of_a_files_sound_is_heard_however_long_the_picture_lasts(tmp_path):
    path = write_media(tmp_path / "v.mov", frame_times(25, 1.0), sound(0, 3.0, 48000), pictures=numbered)
    with open_media(path) as media:
        heard = read_whole(media, 5, NATIVE, RATE).sound.numpy()
    assert heard.shape == (48000,) and heard.dtype == np.float32
    times = np.arange(48000) / RATE
    assert np.abs(heard - tone(times))[clear_of_ends(times, 0.0, 3.0)].max() < 5e-4


def test_of_a_stretch_only_what_is_heard_during_it(tmp_path):
    path = write_media(
        tmp_path / "v.mov", frame_times(25, 4.0), sound(0.5, 2.0, 48000), sound_start=0.5, pictures=numbered
    )
    for start, end in ((1.0, 2.2), (0.2, 1.0), (2.0, 3.0), (3.0, 3.6)):
        with open_media({"video": path, "start": start - 0.001, "end": end - 0.001}) as media:
            window = read_whole(media, 5, NATIVE, RATE)
        assert (window.start, window.end) == (pytest.approx(start), pytest.approx(end))
        assert len(window.sound) == round((end - start) * RATE)
        times = start + np.arange(len(window.sound)) / RATE
        expected = np.where((times >= 0.5) & (times < 2.5), tone(times), 0.0)
        assert np.abs(window.sound.numpy() - expected)[clear_of_ends(times, 0.5, 2.5)].max() < 5e-4


@pytest.mark.parametrize("rate", [8000, RATE, 22050, 48000])
def test_reading_all_sound_equals_resampling_it(rate):
    signal = np.random.default_rng(0).standard_normal(3 * rate + 17).astype(np.float32)
    size = rate // 20
    blocks = [
        SoundBlock(1.0 + begin / rate, signal[begin : begin + size], rate) for begin in range(0, len(signal), size)
    ]
    expected = resample(signal, rate, RATE)
    found = SoundTrack(blocks, RATE).read()
    assert found.shape == expected.shape and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)
    # A pause, here from 1.0 to 1.25 s of the sound, is heard as silence, and after it all is where it was.
    paused = signal.copy()
    paused[20 * size : 25 * size] = 0
    found = SoundTrack([*blocks[:20], *blocks[25:]], RATE).read()
    torch.testing.assert_close(found, resample(paused, rate, RATE), rtol=0, atol=5e-6)


def test_no_sound_and_no_samples():
    assert SoundTrack([], RATE).read().shape == (0,)


# Windows of long videos


def naive_windows(count: int, num_frames: int, step: int) -> list[list[int]]:
    """Numbers of the frames of each window: one after the other, and the last ones."""
    picks = list(range(0, count, step))
    firsts = [*range(0, len(picks) - num_frames, num_frames), len(picks) - num_frames]
    return [picks[first : first + num_frames] for first in firsts]


def check_windows(source, pictures, times, end, step, num_frames, length_s, first=0):
    """Compare windows with a naive cut of all frames; `times` are those of the frames, `first` is the one to begin."""
    with open_media(source) as media:
        windows = list(read_windows(media, num_frames, length_s, NATIVE, RATE))
    expected = naive_windows(len(times), num_frames, step)
    assert len(windows) == len(expected)
    for index, (window, picks) in enumerate(zip(windows, expected, strict=True)):
        np.testing.assert_array_equal(images(window.frames), np.stack([pictures[first + pick] for pick in picks]))
        assert window.start == pytest.approx(times[picks[0]], abs=2e-5)
        is_last = index == len(expected) - 1
        assert window.end == pytest.approx(end if is_last else times[picks[-1] + step], abs=2e-5)
        if index and not is_last:
            assert window.start == windows[index - 1].end
        if window.sound is not None:
            with open_media(source) as media:
                alone = media.sound(RATE).window(window.end, window.end - window.start)
            assert torch.equal(window.sound, alone)
            assert len(window.sound) == round((window.end - window.start) * RATE)
            stop = round(window.end * RATE)
            seconds = np.arange(stop - len(window.sound), stop) / RATE
            assert seconds[0] == pytest.approx(window.start, abs=1 / RATE)
            # 16 bits and the resampler's ripple. One sample too many or too few would be 0.1.
            heard = np.abs(window.sound.numpy() - tone(seconds))
            assert heard[clear_of_ends(seconds, 0.0, end)].max() < 5e-4
    return windows


@pytest.mark.parametrize("count", [51, 55, 75, 99, 100, 101, 149, 150, 151])
def test_windows_of_a_long_video(tmp_path, count):
    """Every fifth frame, ten in a window, which is 2 s."""
    seconds = count / 25
    path = video(tmp_path / "v.mov", count, sound(0, seconds, RATE))
    windows = check_windows(path, pictures_of(path), frame_times(25, seconds), seconds, 5, 10, 2.0)
    assert windows[0].start == 0.0 and all(len(window.frames) == 10 for window in windows)
    assert windows[-1].end == pytest.approx(seconds)
    # The sound that was written, to the bit, where windows begin on a sample.
    written = np.rint(sound(0, seconds, RATE)[0] * 32767) / 32768
    for window in windows:
        begin = round(window.start * RATE)
        np.testing.assert_allclose(window.sound, written[begin : begin + len(window.sound)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [1, 9, 10, 49, 50])
@pytest.mark.parametrize("with_sound", [True, False])
def test_a_video_that_is_no_longer_than_a_window_is_read_whole(tmp_path, count, with_sound):
    path = video(tmp_path / "v.mov", count, sound(0, 3.0, RATE) if with_sound else None)
    with open_media(path) as media:
        (window,) = read_windows(media, 10, 2.0, NATIVE, RATE)
        whole = read_whole(media, 10, NATIVE, RATE)
    np.testing.assert_array_equal(images(window.frames), naive_picks(pictures_of(path), 10))
    assert torch.equal(window.frames, whole.frames) and (window.start, window.end) == (whole.start, whole.end)
    if with_sound:
        assert len(window.sound) == 48000 and torch.equal(window.sound, whole.sound)
    else:
        assert window.sound is None and whole.sound is None


def test_windows_without_sound_and_of_arrays_and_folders(tmp_path):
    pictures = [numbered(index, 64, 48) for index in range(33)]
    arrays = {"frames": np.stack(pictures), "fps": 10.0}
    folder = {"video": str(picture_folder(tmp_path / "f", 33)), "fps": 10.0}
    for source in (arrays, folder):
        windows = check_windows(source, pictures, [i / 10 for i in range(33)], 3.3, 2, 5, 1.0)
        assert len(windows) == 4 and all(window.sound is None for window in windows)


def test_a_window_may_be_shorter_than_its_frames():
    """Every frame is picked then, also if fewer than are wanted appear within a window's length."""
    pictures = [numbered(index, 64, 48) for index in range(25)]
    check_windows({"frames": np.stack(pictures), "fps": 10.0}, pictures, [i / 10 for i in range(25)], 2.5, 1, 10, 0.3)


def test_windows_of_a_video_of_varying_frame_rate(tmp_path):
    """Times are those of the frames, and the sound is what is heard then."""
    gaps = np.random.default_rng(1).uniform(0.01, 0.2, 120)
    times = [round(t * 90000) / 90000 for t in np.concatenate([[0.0], np.cumsum(gaps)])]
    path = write_media(tmp_path / "a.mov", times, sound(0, times[-1] + 1, 48000), pictures=numbered)
    with open_media(path) as media:
        step = round(3.0 * media.info.fps / 8)
        end = list(media.frames(NATIVE, picked=lambda number: False))[-1].end
    assert step > 1
    windows = check_windows(path, pictures_of(path), times, end, step, 8, 3.0)
    assert len(windows) > 3 and len({round(window.end - window.start, 3) for window in windows}) == len(windows)


def test_windows_of_a_stretch(tmp_path):
    """From frame 13 on: frames, times and sound of the stretch, on the clock of the whole."""
    path = video(tmp_path / "v.mov", 150, sound(0, 6.0, RATE))
    row = {"video": path, "start": 13 / 25 - 0.01, "end": 121 / 25 + 0.01}
    times = frame_times(25, 6.0)[13:122]
    check_windows(row, pictures_of(path), times, 122 / 25, 5, 10, 2.0, first=13)


def test_silence_stands_in_where_a_window_has_no_sound(tmp_path):
    samples = sound(1.0, 2.0, RATE)
    path = video(tmp_path / "v.mov", 200, samples, sound_start=1.0)
    with open_media(path) as media:
        windows = list(read_windows(media, 10, 2.0, NATIVE, RATE))
    heard = torch.cat([window.sound for window in windows]).numpy()
    expected = np.zeros(8 * RATE)
    expected[RATE : 3 * RATE] = np.rint(samples[0] * 32767) / 32768
    np.testing.assert_allclose(heard, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("packets", "decodable", "num_frames", "length_s"), [(40, 15, 20, 0.8), (45, 38, 10, 1.6)])
def test_a_file_that_promised_more_than_a_window_and_holds_less_is_read_whole(
    tmp_path, packets, decodable, num_frames, length_s
):
    """Fewer frames than are picked of a window, and as many picks, but fewer frames than a window has."""
    source = video(tmp_path / "v.mkv", packets, sound(0, 3.0, RATE), video_codec="mjpeg")
    path = with_rubbish(source, tmp_path / "rubbish.mkv", lambda number: number >= decodable)
    with open_media(path) as media:
        assert media.num_frames() == packets > length_s * 25 > decodable
        (window,) = read_windows(media, num_frames, length_s, NATIVE, RATE)
        whole = read_whole(media, num_frames, NATIVE, RATE)
    np.testing.assert_array_equal(images(window.frames), naive_picks(pictures_of(path), num_frames))
    assert (window.start, window.end) == (whole.start, whole.end) and torch.equal(window.sound, whole.sound)


# Memory


@pytest.fixture
def pictures_alive(monkeypatch) -> dict[str, int]:
    """How many scaled pictures there are, were at most, and have been."""
    counts, original = {"now": 0, "most": 0, "ever": 0}, decode.scaled_pixels

    def gone():
        counts["now"] -= 1

    def counted(*args):
        pixels = original(*args)
        weakref.finalize(pixels, gone)
        counts["now"] += 1
        counts["ever"] += 1
        counts["most"] = max(counts["most"], counts["now"])
        return pixels

    monkeypatch.setattr(decode, "scaled_pixels", counted)
    return counts


def test_only_the_picked_frames_of_a_minute_are_scaled_and_kept(tmp_path, pictures_alive):
    path = video(tmp_path / "v.mp4", 1500)
    with open_media(path) as media:
        window = read_whole(media, 50, NATIVE, RATE)
    assert pictures_alive == {"now": 0, "most": 50, "ever": 50}
    assert len(window.frames) == 50 and window.end == pytest.approx(60.0)


def test_no_more_than_a_window_of_frames_is_kept(tmp_path, pictures_alive):
    """Of 60 s in windows of 4 s: each tenth frame, ten of them, and the one that follows."""
    path = video(tmp_path / "v.mp4", 1500)
    with open_media(path) as media:
        assert sum(1 for _ in read_windows(media, 10, 4.0, NATIVE, RATE)) == 15
    assert pictures_alive["ever"] == 150 and pictures_alive["most"] == 11


# Normalisation


@pytest.mark.parametrize(
    ("factor", "mean", "std"),
    [
        (1 / 255, (0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737)),  # Kinetics
        (1, [114.7748, 107.7354, 99.4750], [1, 1, 1]),  # ActivityNet, 0 to 255
        (1.0, (114, 107, 99), (38.7568578, 37.88248729, 40.02898126)),
    ],
)
def test_normalisation(factor, mean, std):
    """Every value that a pixel can have, in each channel."""
    values = np.stack([np.roll(np.arange(256, dtype=np.uint8).reshape(16, 16), turn) for turn in (0, 5, 77)])[None]
    expected = (values * np.float64(factor) - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    found = normalised(torch.from_numpy(values), factor, mean, std)
    assert found.dtype == torch.float32 and found.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_normalising_leaves_alone_what_it_was_given(dtype):
    given = torch.arange(75).reshape(1, 3, 5, 5).to(dtype)
    before = given.clone()
    assert normalised(given, 1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))[0, 0, 0, 0] == -2.0
    assert torch.equal(given, before)
