"""Rows of a manifest as media: folders of pictures, sound files beside a video, stretches; and reading ahead."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from avad_hf.media.ahead import read_ahead
from avad_hf.media.decode import MediaError
from avad_hf.media.encode import write_video
from avad_hf.media.folders import pictures_in
from avad_hf.media.luma import mean_luma
from avad_hf.media.sources import open_media

from .media_files import frame_times, gray, sound, tone, write_media


def plain(level: int):
    return lambda index, width, height: np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """12 pictures, each brighter than the last, with numbers that sort wrongly as text."""
    path = tmp_path / "f [x] %03d"
    path.mkdir()
    for index in range(12):
        Image.fromarray(plain(20 * index)(0, 64, 48)).save(path / f"frame_{index}.jpg")
    return path


def test_a_folder_of_pictures_is_a_video(folder):
    assert [picture.name for picture in pictures_in(folder)] == [f"frame_{index}.jpg" for index in range(12)]
    with open_media({"video": str(folder), "fps": 8.0}) as media:
        assert (media.info.width, media.info.height, media.info.fps) == (64, 48, 8.0)
        assert media.info.duration == 1.5 and not media.info.has_audio and not media.sound(16000).has_sound
        frames = list(media.frames(24))
    assert [(frame.start, frame.end) for frame in frames] == [(i / 8, (i + 1) / 8) for i in range(12)]
    assert all(abs(frame.pixels.float().mean() - 20 * i) < 3 for i, frame in enumerate(frames))
    assert frames[0].pixels.shape == (3, 24, 32) and frames[0].pixels.dtype == torch.uint8


def test_leftovers_of_macos_are_no_pictures(folder):
    (folder / "._frame_0.jpg").write_bytes(b"\x00\x05\x16\x07")
    assert len(pictures_in(folder)) == 12


def test_a_broken_picture_is_left_out_and_named(folder):
    (folder / "frame_5.jpg").write_text("<html>")
    with open_media({"video": str(folder), "fps": 8.0}) as media:
        assert [frame.start for frame in media.frames(24)] == [i / 8 for i in range(12) if i != 5]
        assert media.problems == ["1 pictures cannot be read, first frame_5.jpg"]


def test_sound_beside_a_video_counts_from_its_start(tmp_path):
    """The side file is heard in place of the video's own sound, which lies 3 s off here."""
    own = sound(3.0, 2, 16000)
    video = write_media(tmp_path / "v.mkv", frame_times(25, 2), own, 16000)
    beside = write_media(tmp_path / "v.wav", samples=sound(0, 2, 16000), rate=16000)
    for row, offset in (({"video": video}, 3.0), ({"video": video, "audio": beside}, 0.0)):
        with open_media(row) as media:
            heard = media.sound(16000).window(1.5, 1.0).numpy()
        np.testing.assert_allclose(heard, tone(offset + 0.5 + np.arange(16000) / 16000), atol=1e-3)
    silent = write_media(tmp_path / "s.mp4", frame_times(25, 2))
    with open_media({"video": silent, "audio": beside, "start": None, "end": None}) as media:
        assert media.info.has_audio and media.sound(16000).has_sound
        # The overlay keeps that sound too.
        write_video(tmp_path / "o.mp4", ((t, gray(0, 64, 48)) for t in frame_times(25, 2)), (64, 48), 25, media)
    with open_media(str(tmp_path / "o.mp4")) as media:
        assert media.sound(16000).has_sound


@pytest.mark.parametrize(("start", "end"), [(0.5, 1.0), (None, 0.3), (1.5, None), (0.41, 0.45)])
def test_a_stretch_has_the_frames_that_begin_in_it(tmp_path, start, end):
    video = write_media(tmp_path / "v.mkv", times := frame_times(25, 2), sound(0, 2, 16000), 16000)
    with open_media({"video": video, "start": start, "end": end}) as media, open_media(video) as whole:
        frames = {round(frame.start, 3): frame for frame in media.frames(24)}
        expected = [round(t, 3) for t in times if (start or 0) <= round(t, 3) < (end or 9)]
        assert sorted(frames) == expected
        for frame in whole.frames(24):
            if round(frame.start, 3) in frames:
                assert torch.equal(frame.pixels, frames[round(frame.start, 3)].pixels)
        assert media.info.duration == pytest.approx(end or 2.0, abs=0.05)
        a, b = media.sound(16000), whole.sound(16000)
        for t in expected:
            assert torch.equal(a.window(t, 1.0), b.window(t, 1.0))


def test_refusals(tmp_path, folder, bikes):
    def refused(words, **row):
        with pytest.raises(MediaError, match=words), open_media(row) as media:
            list(media.frames(16))

    refused(r"is a folder of 12 pictures, which do not say .* \(fps: None\). Give fps", video=str(folder))
    refused(r"\(fps: -1\)", video=str(folder), fps=-1)
    (tmp_path / "empty").mkdir()
    refused("directory without pictures", video=str(tmp_path / "empty"), fps=25)
    (folder / "frame_0.jpg").write_text("<html>")
    refused(r"frame_0.jpg cannot be read as a picture", video=str(folder), fps=25)
    refused("from 20 s to its end is no stretch of a video of 10.00 s", video=bikes, start=20)
    refused("from 3 s to 2 s is no stretch", video=bikes, start=3, end=2)
    refused("no frame appears from 0.401 to 0.402 s", video=bikes, start=0.401, end=0.402)
    refused("bikes.mp4 has no sound", video=bikes, audio=bikes)
    (tmp_path / "a.wav").write_text("<html>")
    refused(
        r"a.wav cannot be opened as sound .* check that it is sound at all", video=bikes, audio=str(tmp_path / "a.wav")
    )
    refused(r"none.wav: no such file", video=bikes, audio="none.wav")


def test_rows_go_through_the_processor_and_the_pipeline(tiny_pipe, bikes, folder):
    result = tiny_pipe({"video": bikes, "start": 4.0, "end": 6.0, "label": "normal"})
    assert result["clips"][0]["start"] == 4.0 and result["clips"][-1]["end"] == 6.0 == result["duration"]
    assert [len(r["clips"]) for r in tiny_pipe([{"video": str(folder), "fps": 25}, {"video": bikes}])] == [1, 8]


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (30, 30), (128, 128), (255, 255)])
def test_luma_of_files_folders_and_arrays(tmp_path, level, expected):
    video = write_media(tmp_path / "v.mp4", frame_times(25, 1), pictures=plain(level))
    (tmp_path / "f").mkdir()
    for index in range(40):
        Image.fromarray(plain(level)(0, 64, 48)).save(tmp_path / "f" / f"{index}.png")
    arrays = {"frames": np.full((3, 48, 64, 3), level, dtype=np.uint8), "fps": 25}
    for source in (video, {"video": str(tmp_path / "f"), "fps": 25}, arrays):
        with open_media(source) as media:
            assert mean_luma(media) == pytest.approx(expected, abs=2)


def test_luma_is_that_of_the_eye(tmp_path):
    """Blue is darker than its number, in a stretch as in a whole file."""
    blue = np.full((48, 64, 3), (0, 0, 220), dtype=np.uint8)
    video = write_media(tmp_path / "v.mp4", frame_times(25, 1), pictures=lambda *_: blue)
    for source in (video, {"video": video, "start": 0.2}, {"frames": blue[None].repeat(3, 0), "fps": 25}):
        with open_media(source) as media:
            assert mean_luma(media) == pytest.approx(0.114 * 220, abs=3)


def test_reading_ahead_gives_the_same_and_never_more_than_asked():
    made = []

    def numbers():
        for number in range(50):
            made.append(number)
            yield number

    taken = []
    for number in read_ahead(numbers(), depth=3):
        time.sleep(0.002)
        taken.append(number)
        # Three wait, one is being handed over, one is with the reader.
        assert len(made) <= number + 1 + 3 + 1
    assert taken == list(range(50))


def test_reading_ahead_passes_errors_on_in_their_place():
    def failing():
        yield 1
        raise MediaError("broken here")

    reader = read_ahead(failing(), depth=5)
    assert next(reader) == 1
    with pytest.raises(MediaError, match="broken here"):
        next(reader)


def test_reading_ahead_stops_with_its_reader():
    closed = []

    def endless():
        try:
            while True:
                yield threading.current_thread().name
        finally:
            closed.append(threading.current_thread().name)

    reader = read_ahead(endless(), depth=2)
    assert next(reader) == "read_ahead"
    reader.close()
    assert closed == ["read_ahead"]
    assert not [thread for thread in threading.enumerate() if thread.name == "read_ahead"]
