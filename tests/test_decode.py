"""Decoding: sizes, scaling, rotation, times, kinds of sources, and every bad file that we could think of."""

import functools
import http.server
import io
import itertools
import math
import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from avad_hf import MediaError
from avad_hf.media import decode, scaling
from avad_hf.media.clips import join_ends
from avad_hf.media.scaling import scaled_size
from avad_hf.media.sources import open_media

from .media_files import frame_times, remux, retimed, sound, with_rotation, write_media


def read(source, size=48, resize="area"):
    with open_media(source) as media:
        return media, list(media.frames(size, resize))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 720), (455, 256)),
        ((1920, 1080), (455, 256)),
        ((856, 480), (456, 256)),
        ((720, 1280), (256, 455)),
        ((256, 256), (256, 256)),
        ((64, 48), (341, 256)),
    ],
)
def test_scaled_size_is_pytorchvideos(size, expected):
    assert scaled_size(*size, 256) == expected


def test_torch_resize_equals_the_reference_transform(bunny):
    """ShortSideScale(256) after normalising, on the full RGB picture: bilinear, no antialiasing.

    Written out, since pytorchvideo.transforms does not import with current torchvision.
    """
    with av.open(bunny) as container:
        full = np.stack(
            [f.to_ndarray(format="rgb24") for _, f in zip(range(3), container.decode(video=0), strict=False)]
        )
    reference = (torch.from_numpy(full).permute(3, 0, 1, 2).float() / 255 - 0.45) / 0.225
    size = (256, math.floor(1280 / 720 * 256))
    reference = F.interpolate(reference, size=size, mode="bilinear", align_corners=False).transpose(0, 1)
    with open_media(bunny) as media:
        ours = torch.stack([f.pixels for f, _ in zip(media.frames(256, "torch"), range(3), strict=False)])
    assert ours.shape == (3, 3, 256, 455)
    torch.testing.assert_close((ours / 255 - 0.45) / 0.225, reference, rtol=1e-5, atol=1e-5)


def test_area_resize_averages_areas(tmp_path):
    """A picture of known blocks, reduced four times: means of the blocks, where bilinear would pick single pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (192, 256, 3), dtype=np.uint8)
    frame = {"frames": noise[None], "fps": 25}
    _, (area,) = read(frame, 48)
    means = noise.reshape(48, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(area.pixels.permute(1, 2, 0).numpy() - means).max() < 3
    _, (bilinear,) = read(frame, 48, "torch")
    assert np.abs(bilinear.pixels.permute(1, 2, 0).numpy() - means).mean() > 10


def test_small_pictures_are_enlarged_smoothly(tmp_path):
    _, frames = read(write_media(tmp_path / "a.mp4", frame_times(25, 0.2)), 256)
    assert frames[0].pixels.shape == (3, 256, 341)
    line = frames[0].pixels[0, 64].float()
    assert line[:120].mean() > 200 and line[-120:].mean() < 60
    assert len(line[150:190].unique()) > 3  # a slope, not a step


@pytest.mark.parametrize("size", [(65, 48), (64, 49), (51, 37), (33, 200)])
def test_odd_sizes(tmp_path, size):
    media, frames = read(write_media(tmp_path / "a.mkv", frame_times(25, 0.4), size=size), 32)
    assert (media.info.width, media.info.height) == size
    assert frames[0].pixels.shape == (3, *scaled_size(*size, 32)[::-1])
    assert len(frames) == 10


@pytest.mark.parametrize(
    ("turns", "bright"), [(0, "upper left"), (1, "upper right"), (2, "lower right"), (3, "lower left")]
)
def test_rotation_tag(tmp_path, turns, bright):
    """The stored picture is bright in its upper left; a player turns it clockwise by the tag."""
    stored = write_media(tmp_path / "a.mp4", frame_times(25, 0.2), size=(96, 64))
    media, frames = read(with_rotation(stored, tmp_path / "turned.mp4", turns), 32)
    upright = turns % 2 == 0
    assert (media.info.width, media.info.height) == ((96, 64) if upright else (64, 96))
    assert frames[0].pixels.shape == ((3, 32, 48) if upright else (3, 48, 32))
    picture = frames[0].pixels[0].float()
    half_h, half_w = picture.shape[0] // 2, picture.shape[1] // 2
    quarters = {
        "upper left": picture[:half_h, :half_w],
        "upper right": picture[:half_h, half_w:],
        "lower left": picture[half_h:, :half_w],
        "lower right": picture[half_h:, half_w:],
    }
    assert max(quarters, key=lambda name: quarters[name].mean()) == bright


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts", "a.avi"])
def test_containers(tmp_path, name):
    times = frame_times(25, 1.0)
    path = write_media(tmp_path / name, times, sound(0, 1.0, 48000), audio_codec="mp2" if name == "a.ts" else "aac")
    media, frames = read(path)
    assert len(frames) == 25
    assert frames[-1].start - frames[0].start == pytest.approx(0.96, abs=2e-3)
    assert media.info.fps == pytest.approx(25, abs=0.01) and media.info.has_audio
    assert media.info.duration == pytest.approx(1.0, abs=0.05)
    assert media.problems == []


def test_frames_without_timestamps_follow_the_average_rate(tmp_path):
    """A raw H.264 stream has no clock."""
    path = write_media(tmp_path / "a.h264", frame_times(25, 1.0))
    _, frames = read(path)
    assert len(frames) == 25
    starts = [frame.start for frame in frames]
    assert starts[0] == pytest.approx(0, abs=0.1) and np.diff(starts) == pytest.approx(1 / 25, abs=1e-3)


def test_sources_of_every_kind_give_the_same_frames(tmp_path, bikes):
    data = Path(bikes).read_bytes()
    expected = [frame.pixels for _, frame in zip(range(3), read(bikes)[1], strict=False)]
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(Path(bikes).parent))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/bikes.mp4"
        with open(bikes, "rb") as file:
            sources = [Path(bikes), data, io.BytesIO(data), file, {"path": bikes, "bytes": None}, {"bytes": data}, url]
            for source in sources:
                frames = read(source)[1]
                assert len(frames) == 250
                assert all(torch.equal(a, b.pixels) for a, b in zip(expected, frames[:3], strict=True))
        with (
            pytest.raises(MediaError, match=r"absent.mp4 cannot be fetched .*Check the URL"),
            open_media(url[:-9] + "absent.mp4"),
        ):
            pass
        server.shutdown()


def test_arrays(bikes):
    with av.open(bikes) as container:
        frames = np.stack(
            [f.to_ndarray(format="rgb24") for _, f in zip(range(5), container.decode(video=0), strict=False)]
        )
    media, found = read({"frames": frames, "fps": 25.0})
    expected = read(bikes)[1][:5]
    assert [f.start for f in found] == pytest.approx([f.start for f in expected])
    # From YUV in one step here, by way of RGB there: a rounding apart.
    difference = torch.stack([f.pixels for f in found]).float() - torch.stack([f.pixels for f in expected]).float()
    assert difference.abs().mean() < 1
    timed, found = read(
        {"frames": frames, "times": [0.0, 0.1, 0.5, 0.6, 2.0], "waveform": np.ones(8000), "sampling_rate": 8000}
    )
    assert [f.start for f in found] == [0.0, 0.1, 0.5, 0.6, 2.0] and timed.sound(16000).has_sound
    assert timed.info.duration == pytest.approx(2.5)
    torch.testing.assert_close(timed.sound(16000).window(0.5, 0.1), torch.ones(1600), atol=2e-3, rtol=0)
    assert media.info.fps == 25 and not media.info.has_audio


PICTURE = np.zeros((2, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"frames": PICTURE.astype(float), "fps": 25}, r"uint8 RGB of shape \(F, H, W, 3\), got float64"),
        ({"frames": PICTURE[..., 0], "fps": 25}, r"got uint8 of \(2, 8, 8\)"),
        ({"frames": PICTURE[:0], "fps": 25}, r"got uint8 of \(0, 8, 8, 3\)"),
        ({"frames": PICTURE}, "either fps .* or times"),
        ({"frames": PICTURE, "fps": 0}, "fps must be a number above 0"),
        ({"frames": PICTURE, "times": [0.0, 0.0]}, "each above the last"),
        ({"frames": PICTURE, "times": [0.0]}, r"shape \(2,\), got shape \(1,\)"),
        ({"frames": PICTURE, "times": [0.0, np.nan]}, "one finite number a frame"),
        ({"frames": PICTURE, "fps": "25"}, "a number above 0, got '25'"),
        ({"frames": [PICTURE[0], PICTURE[0, :4]], "fps": 25}, "one array, all of one size"),
        (
            {"frames": PICTURE, "fps": 25, "waveform": [1, 2], "sampling_rate": 8000},
            "int16, int32 or uint8, got int64",
        ),
        ({"frames": PICTURE, "fps": 25, "waveform": np.zeros(10)}, "needs its sampling_rate in Hz"),
        ({"frames": PICTURE, "fps": 25, "waveform": np.zeros(10), "sampling_rate": -1}, "whole number, got -1"),
        ({"frames": PICTURE, "fps": 25, "waveform": np.zeros((10, 2)), "sampling_rate": 8000}, "Transpose it"),
        ({"frames": PICTURE, "fps": 25, "waveform": np.full(10, np.nan), "sampling_rate": 8000}, "NaN or infinite"),
        ({"frames": PICTURE, "fps": 25, "audio": np.zeros(10)}, r"Unknown keys \['audio'\]"),
    ],
)
def test_refuses_arrays(arrays, message):
    with pytest.raises(MediaError, match=message), open_media(arrays):
        pass


@pytest.mark.parametrize("source", [None, 3, {"video": 1}, object()])
def test_refuses_other_types(source):
    with pytest.raises(TypeError, match=r"Cannot read a .* as video.\nA video is one of"), open_media(source):
        pass


def test_refuses_missing_files_directories_and_empty_files(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    for name, message in (
        ("absent.mp4", "absent.mp4: no such file"),
        (".", "is a directory"),
        ("empty.mp4", r"empty.mp4 is empty \(0 bytes\)"),
        ("text.mp4", r"text.mp4 cannot be opened as video \(InvalidDataError: 1200 bytes"),
    ):
        with pytest.raises(MediaError, match=message):
            read(tmp_path / name)


def test_refuses_sound_without_picture(tmp_path):
    path = write_media(tmp_path / "a.m4a", samples=sound(0, 1.0, 48000), audio_codec="aac")
    with pytest.raises(MediaError, match=r"has no picture \(streams: audio\). Sound alone cannot be scored"):
        read(path)


def test_a_cover_picture_is_no_video(tmp_path):
    """A sound file with a picture of its record: one frame that means nothing."""
    path = str(tmp_path / "a.mp4")
    whole = write_media(tmp_path / "w.mov", [0.0], sound(0, 1.0, 48000), video_codec="mjpeg", audio_codec="aac")
    with av.open(whole) as source, av.open(path, "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in source.streams}
        streams[0].disposition = av.stream.Disposition.attached_pic
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    with pytest.raises(MediaError, match="has no picture"):
        read(path)


def test_truncated_files(tmp_path, bunny):
    """The index of an MP4 stands at its end unless it was written for streaming."""
    data = Path(bunny).read_bytes()
    for part in (data[:2000], data[: len(data) // 2]):
        with pytest.raises(MediaError, match=r"cannot be opened as video .* its index is gone"):
            read(part)
    streaming = Path(remux(bunny, tmp_path / "s.mp4", movflags="faststart")).read_bytes()
    with pytest.raises(MediaError, match=r"not one frame could be decoded .*The file is cut or damaged"):
        read(streaming[:20_000])
    media, frames = read(streaming[: len(streaming) // 2])
    assert 40 < len(frames) < 70 and media.info.duration == pytest.approx(5.28)


def test_damage_in_the_middle_is_skipped_and_noted(tmp_path, bunny):
    data = bytearray(Path(remux(bunny, tmp_path / "s.mkv")).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 5000] = bytes(5000)
    media, frames = read(bytes(data))
    starts = [f.start for f in frames]
    assert 40 < len(frames) < 132 and starts[-1] > 5
    assert all(a < b for a, b in itertools.pairwise(starts))
    assert any("there is no picture from 2." in problem for problem in media.problems)


def test_joined_recordings_go_on_with_picture_and_sound(tmp_path):
    """Three transport streams joined as bytes: the timestamps start anew twice."""
    part = write_media(tmp_path / "a.ts", frame_times(25, 2.0), sound(0, 2.0, 48000), audio_codec="mp2")
    frames = read(Path(part).read_bytes() * 3)[1]
    assert len(frames) == 150 and frames[-1].start == pytest.approx(5.96, abs=0.1)
    assert all(a.start < b.start for a, b in itertools.pairwise(frames))
    with open_media(Path(part).read_bytes() * 3) as media:
        track = media.sound(16000)
        loudness = [track.window(t, 0.2).square().mean().sqrt().item() for t in (0.5, 1.5, 2.6, 3.5, 4.6, 5.5)]
        list(media.frames(48))
        track.window(100.0, 1.0)
    assert min(loudness) > 0.2
    # FFmpeg takes the joints for lost packets, too.
    assert {"the clock of the sound", "the clock of the picture"} <= {
        problem.split(" starts anew,")[0] for problem in media.problems
    }


WRONG_TIMES = {
    "far ahead": {20: 1000.0},
    "a little ahead": {20: 0.5},
    "first": {0: 1000.0},
    "three": {20: 1000.0, 21: 1000.0, 22: 1000.0},
    "last": {49: 1000.0},
    "back": {45: -1.5},
}


# Lengths of a MOV's pictures are differences of times that a step back leaves no room for.
@pytest.mark.parametrize(
    ("name", "shifts"),
    [
        *itertools.product(["a.mkv", "a.mov", "a.ts"], [name for name in WRONG_TIMES if name != "back"]),
        ("a.mkv", "back"),
    ],
)
def test_one_wrong_time_moves_no_other_picture(tmp_path, name, shifts):
    codec = "mp2" if name == "a.ts" else "pcm_s16le"
    whole = write_media(tmp_path / "whole.mov", frame_times(25, 2.0), sound(0, 2.0, 48000), audio_codec=codec)
    shifts = WRONG_TIMES[shifts]
    _, expected = read(retimed(whole, tmp_path / f"right-{name}", "video", {}))
    media, frames = read(retimed(whole, tmp_path / name, "video", shifts))
    assert len(frames) == 50
    # A MOV whose first picture is wrong begins with the second.
    shift = expected[1].start - frames[1].start
    assert shift == pytest.approx(0.04 if name == "a.mov" and 0 in shifts else 0.0, abs=0.011)
    for frame, right in zip(join_ends(frames), join_ends(expected), strict=True):
        assert (frame.start + shift, frame.end + shift) == pytest.approx((right.start, right.end), abs=1.1e-3)
        assert torch.equal(frame.pixels, right.pixels)
    if max(map(abs, shifts.values())) > 1:
        (problem,) = media.problems
        assert problem.startswith("single times of the picture are wrong, first ")
        assert "in place of" in problem
    else:
        assert media.problems == []
    # Not the wrong time, which some containers take for the end.
    assert media.info.duration < 2.1


def test_a_pause_of_picture_and_sound_stays_where_it_is(tmp_path):
    """A minute without either, then two more seconds; and one wrong time after it."""
    whole = write_media(tmp_path / "whole.mov", frame_times(25, 4.0), sound(0, 4.0, 48000))
    picture = retimed(whole, tmp_path / "picture.mov", "video", dict.fromkeys(range(50, 100), 60.0))
    # 94 packets of 1024 samples are 2 s.
    path = retimed(picture, tmp_path / "a.mkv", "audio", dict.fromkeys(range(94, 188), 60.0))
    for shifts in ({}, {70: 1000.0}):
        media, frames = read(retimed(path, tmp_path / f"b{len(shifts)}.mkv", "video", shifts))
        times = [time + 60 * (time > 1.99) for time in frame_times(25, 4.0)]
        assert [frame.start for frame in frames] == pytest.approx(times, abs=1.1e-3)
        assert any(problem.endswith(" to 62.00 s") for problem in media.problems)
        track = media.sound(16000)
        loudness = [track.window(time, 0.2).square().mean().sqrt().item() for time in (1.9, 2.3, 30.0, 62.0, 62.4, 64)]
        assert [level > 0.2 for level in loudness] == [True, False, False, False, True, True]


def test_a_picture_that_starts_late_ends_when_it_ends(tmp_path):
    path = write_media(tmp_path / "a.mov", frame_times(25, 2.0, start=3.0), sound(0, 5.0, 48000))
    media, frames = read(path)
    assert media.info.duration == pytest.approx(5.0, abs=1e-3) and frames[0].start == pytest.approx(3.0, abs=1e-3)


def test_length_of_the_sound_is_not_taken_for_the_pictures(tmp_path):
    """An FLV says one length for both."""
    path = write_media(
        *(tmp_path / "a.flv", frame_times(25, 1.0), sound(0, 3.0, 44100)),
        rate=44100,
        video_codec="flv1",
        audio_codec="aac",
    )
    assert read(path)[0].info.duration is None


def test_size_that_changes_on_the_way(tmp_path):
    small = write_media(tmp_path / "a.ts", frame_times(25, 0.4), size=(64, 48))
    large = write_media(tmp_path / "b.ts", frame_times(25, 0.4), size=(80, 96))
    media, frames = read(Path(small).read_bytes() + Path(large).read_bytes())
    assert len(frames) == 20 and {tuple(frame.pixels.shape) for frame in frames} == {(3, 48, 64)}
    assert any("size changes on the way" in problem for problem in media.problems)


def test_rotation_that_changes_on_the_way(tmp_path, monkeypatch):
    """A phone that is turned while it records: pictures stay upright, and of the first one's size."""
    path = write_media(tmp_path / "a.mp4", frame_times(25, 1.0), size=(96, 64))
    with av.open(path) as container:
        times = sorted(float(packet.pts * packet.time_base) for packet in container.demux() if packet.size)
    turned = set(times[10:])
    for module in (decode, scaling):
        monkeypatch.setattr(module, "quarter_turns", lambda frame: 1 if frame.time in turned else 0)
    media, frames = read(path)
    assert len(frames) == 25 and {tuple(frame.pixels.shape) for frame in frames} == {(3, 48, 72)}
    assert any("size changes on the way" in problem for problem in media.problems)


def test_pixel_format_that_changes_on_the_way(tmp_path):
    """Recordings of two cameras joined as bytes, the second with full colour: every picture is read, in its colour."""
    parts = [
        write_media(tmp_path / name, frame_times(25, 1.0), size=size, pictures=red)
        for name, size in (("a.ts", (64, 48)), ("b.ts", (65, 49)))
    ]
    frames = read(b"".join(Path(part).read_bytes() for part in parts))[1]
    assert len(frames) == 50 and {tuple(frame.pixels.shape) for frame in frames} == {(3, 48, 64)}
    for frame in frames:
        assert frame.pixels[0].float().mean() > 200 and frame.pixels[1:].float().mean() < 60


def red(index, width, height):
    return np.full((height, width, 3), (230, 20, 20), dtype=np.uint8)


class Damaged(Exception):
    """What a decoder has never raised yet."""


@pytest.mark.parametrize("error", [IndexError, ZeroDivisionError, UnicodeDecodeError, Damaged])
def test_an_error_of_any_kind_costs_its_frame_alone(tmp_path, monkeypatch, error):
    path = write_media(tmp_path / "a.mov", frame_times(25, 2.0), video_codec="mjpeg")
    scale, number = decode.scaled_pixels, itertools.count()

    def failing(*arguments):
        if next(number) == 20:
            raise error(*("utf-8", b"", 0, 1, "") if error is UnicodeDecodeError else ())
        return scale(*arguments)

    monkeypatch.setattr(decode, "scaled_pixels", failing)
    media, frames = read(path)
    assert len(frames) == 49 and "some pictures could not be scaled" in media.problems


def test_formats_that_cannot_be_decoded(tmp_path):
    """Names of codecs that nobody knows."""
    path = write_media(tmp_path / "a.avi", frame_times(25, 0.4), video_codec="mjpeg")
    data = Path(path).read_bytes()
    assert data.count(b"MJPG") == 2
    with pytest.raises(MediaError, match=r"has a format that FFmpeg .* cannot decode|has no picture"):
        read(data.replace(b"MJPG", b"QQQQ"))


def test_sound_that_cannot_be_decoded_is_said(tmp_path):
    path = write_media(tmp_path / "a.avi", frame_times(25, 0.4), sound(0, 0.4, 16000), 16000)
    data = bytearray(Path(path).read_bytes())
    place = data.index(b"strf", data.index(b"auds")) + 8
    assert data[place : place + 2] == b"\x01\x00"  # PCM
    data[place : place + 2] = b"\x77\x77"  # nobody's format
    with open_media(bytes(data)) as media:
        assert media.info.has_audio and not media.sound(16000).has_sound
        assert len(list(media.frames(48))) == 10
        assert media.problems == ["the sound cannot be decoded"]


def test_samples_that_are_no_numbers_are_silenced(tmp_path):
    path = write_media(tmp_path / "a.mkv", frame_times(25, 0.4), sound(0, 0.4, 16000), 16000, audio_codec="pcm_f32le")
    data = bytearray(Path(path).read_bytes())
    known = np.float32(np.rint(sound(0, 0.4, 16000)[0, 700] * 32767) / 32768).tobytes()
    place = data.index(known)
    data[place : place + 4] = np.float32(np.nan).tobytes()
    with open_media(bytes(data)) as media:
        window = media.sound(16000).window(0.4, 0.4)
        assert torch.isfinite(window).all() and window.abs().max() > 0.5
        assert any("no numbers" in problem for problem in media.problems)


def test_names_with_colons_spaces_and_other_signs(tmp_path, bikes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mp4", "straße nr 5 #1=a.mp4", "-x.mp4", "100%d.mp4"):
        Path(name).write_bytes(Path(bikes).read_bytes())
        assert len(read(name)[1]) == 250


def test_a_file_object_can_be_read_twice_and_a_pipe_once(tmp_path, bikes):
    with open(bikes, "rb") as file:
        assert len(read(file)[1]) == len(read(file)[1]) == 250
    with open(bikes, encoding="latin-1") as file, pytest.raises(TypeError, match="Open it with mode 'rb'"):
        read(file)
    os.mkfifo(tmp_path / "pipe.mp4")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe.mp4").write_bytes(Path(bikes).read_bytes()))
    writer.start()
    assert len(read(tmp_path / "pipe.mp4")[1]) == 250
    writer.join()


def test_native_size(bikes):
    with open_media(bikes) as media:
        assert next(media.frames(None)).pixels.shape == (3, 272, 640)


def test_temporary_copies_are_removed(tmp_path, monkeypatch, bikes):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    read(Path(bikes).read_bytes())
    with pytest.raises(MediaError):
        read(b"rubbish")
    assert list(tmp_path.iterdir()) == []


def test_both_handles_are_closed(bunny):
    import psutil

    process = psutil.Process()
    with open_media(bunny) as media:
        track = media.sound(16000)
        track.window(0.5, 1.0)
        next(media.frames(48))
    del media, track
    assert not [f for f in process.open_files() if f.path == bunny]


def test_interpolation_is_not_used_for_size_that_fits():
    frames = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), dtype=np.uint8)
    for resize in ("area", "torch"):
        (frame,) = read({"frames": frames, "fps": 25}, 48, resize)[1]
        assert torch.equal(frame.pixels.permute(1, 2, 0).to(torch.uint8), torch.from_numpy(frames[0]))
