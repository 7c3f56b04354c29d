"""Live sources: what comes through, what is survived, and that nothing secret is shown."""

import io
import os
import signal
import threading
import time
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from avad_hf.media import cameras, segments
from avad_hf.media.cameras import Camera, check_source, shown_source
from avad_hf.media.decode import MediaFile
from avad_hf.media.errors import MediaError
from tests.live_servers import http_camera, needs_rtsp, rtsp_server, wait_until
from tests.media_files import frame_times, gray, sound, write_media

RATE = 16000


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """What takes seconds in life takes tenths here."""
    monkeypatch.setattr(cameras, "FIRST_WAIT_S", 0.05)
    monkeypatch.setattr(cameras, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(cameras, "TIMEOUT_S", 1.0)
    monkeypatch.setattr(segments, "STALL_S", 1.5)


class Read:
    """A camera's segments, read in a thread: times of pictures, sound, and why each ended."""

    def __init__(self, source, most_segments=None, **options):
        self.camera = Camera(str(source), **{"quiet_s": 0.3, **options})
        self.segments, self.times, self.sounds, self.sizes, self.reasons = [], [], [], [], []
        self.most_segments = most_segments
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        for segment in self.camera.segments():
            times, heard = [], []
            self.times.append(times)
            self.segments.append(segment)
            track = segment.sound(RATE)
            try:
                for frame in segment.frames(None):
                    times.append(frame.start)
                    self.sizes.append(frame.pixels.shape[1:])
                    if track.has_sound:
                        heard.append(track.window(frame.end, frame.end - frame.start).numpy())
            except MediaError:
                pass
            self.sounds.append(np.concatenate(heard) if heard else np.zeros(0))
            self.reasons.append(segment.feed.ended)
            if len(self.segments) == self.most_segments:
                return

    def end(self, seconds=25.0):
        self.thread.join(seconds)
        assert not self.thread.is_alive(), f"still {self.camera.health}"
        return self


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Six seconds with sound, as MPEG-TS: the path."""
    path = tmp_path_factory.mktemp("live") / "camera.ts"
    options = {"g": "12"}
    return write_media(
        path, frame_times(25, 6), sound(0, 6, RATE), RATE, audio_codec="aac", options=options, pictures=gray
    )


def as_ts(tmp_path, name, seconds=4.0, size=(64, 48), with_sound=True, start=0.0):
    samples = sound(start, seconds, RATE) if with_sound else None
    path = write_media(
        tmp_path / f"{name}.ts", frame_times(25, seconds, start), samples, RATE, start, size, audio_codec="aac"
    )
    with open(path, "rb") as file:
        return file.read()


def test_a_file_gives_what_the_file_reader_gives(recorded):
    read = Read(recorded).end()
    with_reader = MediaFile(recorded)
    frames = list(with_reader.frames(None))
    assert read.times == [[frame.start for frame in frames]] and read.reasons == ["over"]
    track = with_reader.sound(RATE)
    whole = np.concatenate([track.window(frame.end, frame.end - frame.start).numpy() for frame in frames])
    assert np.array_equal(read.sounds[0], whole)
    assert read.camera.health["state"] == "ended" and read.camera.health["frames"] == 150
    assert read.segments[0].sound_db(0, 6) == pytest.approx(20 * np.log10(np.sqrt((whole**2).mean())), abs=0.1)


def test_a_file_is_followed_to_where_it_ends_growing(recorded, tmp_path):
    data = Path(recorded).read_bytes()
    path = tmp_path / "growing.ts"
    path.write_bytes(data[:20_000])
    read = Read(path, quiet_s=1.0)
    for begin in range(20_000, len(data), 8_000):
        time.sleep(0.15)
        with open(path, "ab") as file:
            file.write(data[begin : begin + 8_000])
    read.end()
    assert len(read.times[0]) == 150 and len(read.times) == 1


def test_pipes_and_standard_input(recorded, tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = Path(recorded).read_bytes()
    read = Read(pipe)
    with open(pipe, "wb") as file:
        file.write(data)
    assert len(read.end().times[0]) == 150
    with open(recorded, "rb") as file:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(os.fdopen(os.dup(file.fileno()), "rb")))
        assert len(Read("-").end().times[0]) == 150


def test_http_comes_back_after_it_hung_up_and_after_it_stalled(recorded):
    data = Path(recorded).read_bytes()
    with http_camera([data], [data[: len(data) // 2], 30], [data]) as url:
        read = Read(url, most_segments=3, most_behind_s=100.0).end()
    assert [len(times) for times in read.times][::2] == [150, 150] and 40 < len(read.times[1]) < 150
    assert read.camera.health["reconnects"] >= 2 and read.camera.health["gaps"] >= 2
    # Each segment has its own clock.
    assert all(times[0] < 0.1 for times in read.times)


def test_mjpeg_over_http_has_the_times_at_which_pictures_came():
    pieces = []
    for number in range(12):
        file = io.BytesIO()
        Image.fromarray(gray(number, 64, 48)).save(file, "JPEG")
        head = b"--x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(file.getvalue())
        pieces += [head + file.getvalue() + b"\r\n", 0.1]
    with http_camera(pieces, pieces, content_type="multipart/x-mixed-replace; boundary=x") as url:
        read = Read(url, most_segments=1).end()
    steps = [after - before for before, after in pairwise(read.times[0])]
    assert len(steps) >= 8 and np.median(steps) == pytest.approx(0.1, abs=0.03)


def test_sound_that_vanishes_and_comes_back(tmp_path):
    with http_camera([_without_sound_within(tmp_path, 5.0, 10.0)]) as url:
        read = Read(url, most_segments=3, most_behind_s=100.0).end()
    assert read.reasons[:2] == ["the sound stopped", "the sound came back"]
    assert [one.info.has_audio for one in read.segments] == [True, False, True]
    assert len(read.sounds[0]) > 4 * RATE and not len(read.sounds[1]) and len(read.sounds[2]) > 3 * RATE
    assert np.abs(read.sounds[2][RATE : 3 * RATE]).max() > 0.3


def _without_sound_within(tmp_path, begin, end):
    """Fifteen seconds as one MPEG-TS, in which no sound is sent from `begin` to `end`."""
    write_media(
        tmp_path / "full.ts", frame_times(25, 15), sound(0, 15, RATE), RATE, audio_codec="aac", options={"g": "12"}
    )
    with av.open(str(tmp_path / "full.ts")) as source, av.open(str(tmp_path / "cut.ts"), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        offset = source.start_time / av.time_base
        for packet in source.demux():
            at = None if packet.pts is None else float(packet.pts * packet.time_base) - offset
            if at is None or (packet.stream.type == "audio" and begin <= at < end):
                continue
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
    return (tmp_path / "cut.ts").read_bytes()


def test_another_size_of_the_picture_begins_a_new_segment(tmp_path):
    both = [as_ts(tmp_path, "small"), 1.0, as_ts(tmp_path, "large", size=(96, 64), start=4.0), 1.0]
    with http_camera(both, [as_ts(tmp_path, "large2", size=(96, 64))]) as url:
        read = Read(url, most_segments=2, most_behind_s=100.0).end()
    assert read.reasons[0] == "the picture's size changed from 64 x 48 to 96 x 64"
    assert set(map(tuple, read.sizes)) == {(48, 64), (64, 96)} and len(read.times[0]) >= 98


def test_a_clock_that_jumps_by_an_hour_begins_a_new_segment(tmp_path):
    both = as_ts(tmp_path, "before") + as_ts(tmp_path, "after", start=3604.0)
    with http_camera([both]) as url:
        read = Read(url, most_segments=2, most_behind_s=100.0).end()
    assert read.reasons[0].startswith("its clock jumped by 36")
    assert len(read.times[0]) >= 98 and len(read.times[1]) >= 50 and read.times[1][0] < 0.1


def test_packets_that_are_lost_on_the_way_are_noted_and_survived(recorded):
    with open(recorded, "rb") as file:
        data = file.read()
    packets = [data[begin : begin + 188] for begin in range(0, len(data), 188)]
    damaged = b"".join(packet for number, packet in enumerate(packets) if number < 50 or number % 40)
    with http_camera([damaged]) as url:
        read = Read(url, most_segments=1, most_behind_s=100.0).end()
    assert len(read.times[0]) > 100 and read.times[0] == sorted(read.times[0])
    assert read.segments[0].problems


def test_when_computing_falls_behind_the_newest_pictures_come_next(recorded):
    data = Path(recorded).read_bytes()
    # Four seconds at once, and then as a camera sends them.
    steady = [
        piece for begin in range(len(data) * 2 // 3, len(data), 5_000) for piece in (data[begin : begin + 5_000], 0.2)
    ]
    with http_camera([data[: len(data) * 2 // 3], *steady, 30]) as url:
        camera = Camera(url, most_behind_s=3.0)
        segments_of = camera.segments()
        first = next(segments_of)
        wait_until(lambda: first.feed.ended is not None)
        assert first.feed.ended == "computing fell behind"
        second = next(segments_of)
        frames = second.frames(None)
        times = [next(frames).start for _ in range(20)]
        assert times[0] < 0.1 and camera.left_out_s > 2.9 and camera.health["gaps"] >= 1
        # It begins at the newest key frame, and not where the other one ended.
        assert second.begun - first.begun > 2.9
        segments_of.close()


def test_a_segment_can_be_read_once(recorded):
    camera = Camera(recorded, quiet_s=0.1)
    for segment in camera.segments():
        list(segment.frames(None))
        assert segment.is_endless and segment.num_frames() > 10**6 and segment.num_frames(limit=5) == 5
        with pytest.raises(MediaError, match="can be read once"):
            next(segment.frames(None))


@needs_rtsp
def test_rtsp_survives_a_server_that_is_killed_or_stands_still(recorded, tmp_path):
    path = write_media(
        tmp_path / "long.mp4", frame_times(25, 30), sound(0, 30, RATE), RATE, audio_codec="aac", options={"g": "12"}
    )
    with rtsp_server(gate=path) as server:
        read = Read(server.url("gate", "user:secret@"))
        wait_until(lambda: read.times and len(read.times[0]) > 25)
        server.kill()
        wait_until(lambda: read.camera.state == "reconnecting")
        server.start()
        wait_until(lambda: len(read.times) > 1 and len(read.times[1]) > 10)
        server.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: read.camera.state == "reconnecting" or len(read.times) > 2)
        server.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(read.times) > 2 and len(read.times[-1]) > 10)
        health = read.camera.health
        read.camera.stop()
        read.end()
    assert health["has_audio"] and health["reconnects"] >= 2
    assert "secret" not in repr(health) + repr(read.reasons) + read.camera.name + repr(read.segments[0].info)


@needs_rtsp
@pytest.mark.parametrize("codecs", [("libx264", "aac", "mp4"), ("libx265", "pcm_mulaw", "mov")])
def test_rtsp_keeps_sight_and_sound_in_step(tmp_path, codecs):
    """Clicks and flashes at known times, within 20 ms."""
    video_codec, audio_codec, ending = codecs
    at = (0.8, 1.6, 2.4, 3.2)
    rate = 8000 if audio_codec == "pcm_mulaw" else 16000
    samples = np.zeros((1, 4 * rate))
    for time_s in at:
        samples[0, round(time_s * rate) : round(time_s * rate) + rate // 50] = 0.9
    flashing = {round(time_s * 25) + more for time_s in at for more in range(3)}

    def pictures(index, width, height):
        return np.full((height, width, 3), 235 if index in flashing else 20, np.uint8)

    path = write_media(
        tmp_path / f"steps.{ending}",
        frame_times(25, 4),
        samples,
        rate,
        video_codec=video_codec,
        audio_codec=audio_codec,
        pictures=pictures,
    )
    with rtsp_server(steps=path) as server:
        camera = Camera(server.url("steps"))
        segment = next(segments_of := camera.segments())
        track = segment.sound(RATE)
        frames = [(frame.start, float(frame.pixels.float().mean())) for frame in segment.frames(None)]
        heard = track.read().numpy()
        segments_of.close()
    seen = [after[0] for before, after in pairwise(frames) if after[1] > before[1] + 100]
    loud = np.flatnonzero(np.abs(heard) > 0.4) / RATE + track.start
    clicks = [loud[0], *(after for before, after in pairwise(loud) if after - before > 0.3)]
    assert len(seen) == len(clicks) == 4
    np.testing.assert_allclose(clicks, seen, atol=0.02)


def test_sources_are_checked_and_shown_without_secrets(tmp_path):
    assert shown_source("rtsp://me:pass%40word@host:554/a?token=x") == "rtsp://host:554/a"
    for source in ("ftp://host/x", "udp://host:1", f"{tmp_path}", "", "concat:a|b\0"):
        with pytest.raises(ValueError, match="A live source is"):
            check_source(source)
    with pytest.raises(ValueError, match="names no host"):
        check_source("rtsp://user:secret@/x")
    with pytest.raises(ValueError, match="goes with a device"):
        Camera("rtsp://host/x", sound="hw:1")
    # An error of FFmpeg names the address, and ours does not.
    camera = Read("rtsp://user:secret@127.0.0.1:9/x").camera
    wait_until(lambda: camera.problem is not None)
    assert "secret" not in camera.problem and camera.state == "reconnecting"
    camera.stop()
    missing = Read(tmp_path / "missing.ts").end()
    assert missing.camera.health["state"] == "ended" and "No such file" in missing.camera.health["problem"]


def test_a_try_that_hangs_is_left_behind(recorded, monkeypatch):
    """Also one that is not the first: FFmpeg may hang in looking a name up."""
    monkeypatch.setattr(cameras, "STALL_S", 0.5)
    opened, hangs, tries = cameras._opened, threading.Event(), []

    def instead(source, options, format=None):
        tries.append(source)
        if len(tries) == 1:
            raise OSError("nobody there")
        if len(tries) == 2:
            hangs.wait(60)
        return opened(source, options, format)

    monkeypatch.setattr(cameras, "_opened", instead)
    with open(recorded, "rb") as file, http_camera([file.read()]) as url:
        read = Read(url, most_segments=1, most_behind_s=100.0).end()
    hangs.set()
    assert len(tries) >= 3 and len(read.times[0]) == 150


def test_a_sound_device_beside_a_video_device_is_on_one_clock(monkeypatch):
    """FFmpeg's test sources in real time stand for devices: every second a beep."""
    opened = cameras._opened
    sources = {"v4l2": "testsrc=size=64x48:rate=25,realtime", "alsa": "sine=beep_factor=4:sample_rate=16000,arealtime"}

    def instead(source, options, format=None):
        return opened(sources[format], options=options, format="lavfi")

    monkeypatch.setattr(cameras, "_opened", instead)
    camera = Camera("/dev/video0", sound="hw:1")
    segments_of = camera.segments()
    segment = next(segments_of)
    track = segment.sound(RATE)
    frames = segment.frames(None)
    heard = []
    for _ in range(40):
        frame = next(frames)
        heard.append(track.window(frame.start, 0.04).numpy())
    assert segment.info.has_audio and np.abs(np.concatenate(heard)).max() > 0.05
    assert 1.2 < frame.end < 2.5  # forty pictures at 25 a second, by the clock on the wall
    segments_of.close()
