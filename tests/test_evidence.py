"""What is kept of events: cuts of what cameras sent, snapshots, JSON; and what makes room for them."""

import json
import math
import os
import queue
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from avad_hf.disks import DiskError
from avad_hf.media.errors import MediaError
from avad_hf.media.ring import PacketRing
from avad_hf.watching.evidence import UNMASKED, Evidence
from avad_hf.watching.retention import Freed, make_room

from . import warm
from .media_files import remux
from .small_disks import needs_mounts

# When time 0 of the recordings was: 2026-11-30, 13:15 UTC.
BEGUN = 1796044500.0
SECONDS = 5
# The flash of a picture and the click of the sound come together.
MOMENTS = [0.4, 1.2, 2.0, 2.88, 3.6, 4.4]
SIZE = (64, 48)
CODECS = {
    "libx264": {"g": "10", "bf": "2", "sc_threshold": "0"},
    # Its groups are open: the first pictures after a key frame are built on the group before.
    "libx265": {"x265-params": "keyint=10:min-keyint=10:bframes=3:scenecut=0:log-level=none"},
    "mjpeg": {},
}


def record(path, codec="libx264", sound="aac", rate=48000, sound_start=0.0, **options):
    """Five seconds at 25 fps with a key frame every ten pictures; noise, with a flash and a click at each moment."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream(codec, rate=25, options=CODECS[codec])
        video.width, video.height = SIZE
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        video.codec_context.time_base = Fraction(1, 90000)
        # What AAC replaces by noise of its own is another one each time that it is decoded.
        options = {"aac_pns": "0"} if sound == "aac" else {}
        audio = container.add_stream(sound, rate=rate, layout="mono", options=options) if sound else None
        for number in range(SECONDS * 25):
            lit = any(abs(number / 25 - moment) < 0.03 for moment in MOMENTS)
            picture = np.full((SIZE[1], SIZE[0], 3), 220 if lit else 20 + number % 50, np.uint8)
            picture[:8, :8] = noise.integers(0, 60, (8, 8, 3))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number * 3600, Fraction(1, 90000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            samples = noise.normal(0, 0.02, round((SECONDS - sound_start) * rate))
            for moment in MOMENTS:
                if moment > sound_start:
                    at = round((moment - sound_start) * rate)
                    samples[at : at + rate // 1000] = 0.9
            packed = np.clip(samples * 32767, -32768, 32767).astype(np.int16)
            for begin in range(0, len(packed), 1024):
                frame = av.AudioFrame.from_ndarray(packed[None, begin : begin + 1024].copy(), "s16", "mono")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = begin + round(sound_start * rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return str(path)


def feed(ring, path, begun=BEGUN, change=lambda packet, number: None, later=0.0, until=math.inf):
    """Give a recording to a ring, as a reader does, and close it; `later` is added to its clock, in seconds."""
    with av.open(str(path)) as container:
        streams = [container.streams.video[0], *container.streams.audio[:1]]
        start = container.start_time / av.time_base
        ring.begin(streams, begun, start + later)
        for number, packet in enumerate(container.demux(streams)):
            if not packet.size or (packet.pts or 0) * packet.time_base > until:
                continue
            for name in ("pts", "dts"):
                if getattr(packet, name) is not None:
                    setattr(packet, name, getattr(packet, name) + round(later / packet.time_base))
            change(packet, number)
            ring.add(packet)
    return start


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def h264(folder):
    return record(folder / "a.mp4")


def decoded(path, start=0.0):
    """Pictures by their times and sound by its times, in seconds from `start`."""
    pictures, sounds = [], []
    with av.open(str(path)) as container:
        for frame in container.decode():
            if isinstance(frame, av.VideoFrame):
                pictures.append((frame.time - start, frame.to_ndarray(format="gray")))
            else:
                sounds.append((frame.time - start, frame.to_ndarray().reshape(-1).astype(np.float64)))
    return pictures, sounds


def packets(path, kind):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]


def onsets(path):
    """When pictures flash and sound clicks, in seconds."""
    pictures, sounds = decoded(path)
    light = [(time, picture[20:].mean()) for time, picture in pictures]
    flashes = [time for (_, before), (time, now) in pairwise(light) if now > before + 100]
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
    times = np.concatenate([time + np.arange(len(samples)) / rate for time, samples in sounds])
    loud = np.abs(np.concatenate([samples for _, samples in sounds]))
    found = times[loud > loud.max() / 2]
    return flashes, list(found[np.diff(found, prepend=-1) > 0.05])


CASES = {
    "mp4": ("a.mp4", {}, ".mp4", ("h264", "aac"), True),
    "ts": ("a.ts", {}, ".mp4", ("h264", "aac"), False),
    "h265": ("h265.mp4", {"codec": "libx265"}, ".mp4", ("hevc", "aac"), True),
    "h265-ts": ("h265.ts", {"codec": "libx265"}, ".mp4", ("hevc", "aac"), False),
    "g711": ("g711.mov", {"sound": "pcm_mulaw", "rate": 8000}, ".mkv", ("h264", "pcm_mulaw"), True),
    "mjpeg": ("m.mkv", {"codec": "mjpeg", "sound": "pcm_s16le", "rate": 16000}, ".mkv", ("mjpeg", "pcm_s16le"), True),
}


@pytest.mark.parametrize(("name", "settings", "ending", "codecs", "same_framing"), CASES.values(), ids=CASES)
def test_a_cut_is_what_the_camera_sent(folder, tmp_path, name, settings, ending, codecs, same_framing):
    """Bit for bit, from the key frame before its beginning on, though the input was closed before."""
    source = folder / name
    if not source.exists():
        record(source, **settings)
    ring = PacketRing(60, 1 << 24)
    start = feed(ring, source)
    cut = ring.cut(BEGUN + 1.1, BEGUN + 3.5, tmp_path / "cut")
    assert cut.path == tmp_path / f"cut{ending}" and cut.has_sound and os.listdir(tmp_path) == [cut.path.name]
    assert BEGUN + 0.7 <= cut.begin <= BEGUN + 1.1 and BEGUN + 3.5 <= cut.end < BEGUN + 3.7
    with av.open(str(cut.path)) as container:
        assert tuple(stream.codec_context.name for stream in container.streams) == codecs
        assert codecs[0] != "hevc" or container.streams[0].codec_context.codec_tag == "hvc1"
        # Pictures that are shown before the first key frame cannot be decoded, and are left out.
        assert min(packet.pts for packet in container.demux(video=0) if packet.size) == 0
    (pictures, sounds), (all_pictures, all_sounds) = decoded(cut.path), decoded(source, start)
    begin = cut.begin - BEGUN
    expected = [one for one in all_pictures if begin - 0.001 < one[0] < cut.end - BEGUN - 0.001]
    assert len(pictures) == len(expected) >= 50
    for (at, picture), (its_time, its_picture) in zip(pictures, expected, strict=True):
        assert at + begin == pytest.approx(its_time, abs=0.001)
        np.testing.assert_array_equal(picture, its_picture)
    # The first block of AAC takes half of its samples from the one before.
    for at, samples in sounds[2:]:
        its_time, its_samples = min(all_sounds, key=lambda one: abs(one[0] - at - begin))
        assert at + begin == pytest.approx(its_time, abs=0.001)
        np.testing.assert_array_equal(samples, its_samples[: len(samples)])
    assert sum(len(samples) for _, samples in sounds) / settings.get("rate", 48000) > 1.9
    if same_framing:
        for kind, least in (("video", 50), ("audio", 15)):
            mine, whole = packets(cut.path, kind), packets(source, kind)
            first = whole.index(mine[0])
            # Up to three are left out: those that are shown before the first key frame.
            rest = iter(whole[first : first + len(mine) + 3])
            assert len(mine) >= least and all(packet in rest for packet in mine)


@pytest.mark.parametrize("name", ["mp4", "ts", "h265-ts", "g711"])
def test_sight_and_sound_stay_in_step(folder, tmp_path, name):
    source = folder / CASES[name][0]
    if not source.exists():
        record(source, **CASES[name][1])
    ring = PacketRing(60, 1 << 24)
    feed(ring, source)
    cut = ring.cut(BEGUN + 1.7, BEGUN + 4.6, tmp_path / "cut")
    flashes, clicks = onsets(cut.path)
    assert len(flashes) == len(clicks) == 4
    np.testing.assert_allclose(flashes, clicks, atol=0.001)


def test_latm_goes_into_a_matroska(folder, h264, tmp_path):
    source = remux(h264, folder / "latm.ts", mpegts_flags="latm")
    ring = PacketRing(60, 1 << 24)
    feed(ring, source)
    cut = ring.cut(BEGUN, BEGUN + 5, tmp_path / "cut")
    assert cut.path.suffix == ".mkv"
    np.testing.assert_allclose(*onsets(cut.path), atol=0.001)


def test_the_index_of_an_mp4_is_at_its_front(h264, tmp_path):
    ring = PacketRing(60, 1 << 24)
    feed(ring, h264)
    data = ring.cut(BEGUN, BEGUN + 2, tmp_path / "cut").path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def without_dts(packet, number):
    packet.dts = None


def with_strays(packet, number):
    if number in (150, 151, 201):
        packet.pts = packet.dts = packet.pts + round(5000 / packet.time_base)


def set_back(packet, number):
    packet.duration = 0  # as of cameras that do not say it
    if number > 170:
        packet.pts, packet.dts = (mark - round(3600 / packet.time_base) for mark in (packet.pts, packet.dts))


def with_few_times(packet, number):
    if packet.time_base == Fraction(1, 48000) and number > 20 and number % 3:
        packet.pts = packet.dts = None


@pytest.mark.parametrize("change", [without_dts, with_strays, set_back, with_few_times])
def test_wrong_and_missing_times(h264, tmp_path, change):
    """Clips stay playable, and their sound in step, but for the one picture whose time is wrong."""
    ring = PacketRing(60, 1 << 24)
    feed(ring, h264, change=change)
    cut = ring.cut(BEGUN, BEGUN + 9, tmp_path / "cut")
    assert cut.end - cut.begin == pytest.approx(SECONDS, abs=0.1)
    flashes, clicks = onsets(cut.path)
    assert len(decoded(cut.path)[0]) == SECONDS * 25
    np.testing.assert_allclose(flashes, clicks, atol=0.001 if change is not set_back else 0.05)


def test_a_clock_that_begins_at_three_hours(h264, tmp_path):
    ring = PacketRing(60, 1 << 24)
    feed(ring, h264, later=10800.0)
    cut = ring.cut(BEGUN + 1.3, BEGUN + 3, tmp_path / "cut")
    assert cut.begin == pytest.approx(BEGUN + 1.2) and cut.end == pytest.approx(BEGUN + 3, abs=0.1)
    with av.open(str(cut.path)) as container:
        assert container.start_time == 0
    np.testing.assert_allclose(*onsets(cut.path), atol=0.001)


def test_sound_that_begins_late(tmp_path):
    source = record(tmp_path / "late.mp4", sound_start=1.5)
    ring = PacketRing(60, 1 << 24)
    feed(ring, source)
    flashes, clicks = onsets(ring.cut(BEGUN, BEGUN + 5, tmp_path / "cut").path)
    np.testing.assert_allclose(flashes[2:], clicks, atol=0.001)
    assert not ring.cut(BEGUN, BEGUN + 1, tmp_path / "before").has_sound


def test_a_camera_without_sound(tmp_path):
    source = record(tmp_path / "silent.mp4", sound=None)
    ring = PacketRing(60, 1 << 24)
    feed(ring, source)
    cut = ring.cut(BEGUN + 1, BEGUN + 3, tmp_path / "cut")
    assert not cut.has_sound and len(decoded(cut.path)[0]) >= 50


def test_what_a_ring_holds_is_bounded_in_time(h264):
    ring = PacketRing(2.0, 1 << 24)
    feed(ring, h264)
    assert ring.newest == pytest.approx(BEGUN + 5, abs=0.05)
    with pytest.raises(MediaError, match=r"no picture from 13:15:00 to 13:15:02 UTC in the ring of the last 2 s"):
        ring.cut(BEGUN, BEGUN + 2, "unused")
    ring.seconds = 4.0
    # Within two seconds.
    assert ring.is_losing(BEGUN + 1) and ring.is_losing(BEGUN + 2.9) and not ring.is_losing(BEGUN + 3.1)


def test_an_event_that_is_longer_than_the_ring(h264, tmp_path):
    """Of it there is what is left: the last seconds, from a key frame on."""
    ring = PacketRing(2.0, 1 << 24)
    feed(ring, h264)
    cut = ring.cut(BEGUN - 60, BEGUN + 60, tmp_path / "cut")
    assert BEGUN + 2.5 < cut.begin <= BEGUN + 3 and len(decoded(cut.path)[0]) >= 50
    np.testing.assert_allclose(*onsets(cut.path), atol=0.001)


def test_what_a_ring_holds_is_bounded_in_bytes(h264):
    ring, most = PacketRing(60, 20_000), []
    with av.open(h264) as container:
        ring.begin(container.streams.get(), BEGUN, 0.0)
        for packet in container.demux():
            ring.add(packet)
            most.append(ring.num_bytes)
    assert 10_000 < max(most) <= 20_000
    first = ring._segments[0].groups[0][0].time
    assert first > BEGUN + 1 and ring.is_losing(first) and not ring.is_losing(BEGUN + 4.9)
    # Not even one group of pictures has room.
    ring = PacketRing(60, 3000)
    feed(ring, h264)
    assert ring.num_bytes <= 3000
    with pytest.raises(MediaError, match="Let the ring hold more seconds"):
        ring.cut(BEGUN, BEGUN + 1, "unused")


def test_all_that_a_ring_takes_is_given_back(h264):
    ring = PacketRing(1.0, 1 << 24)
    for hour in range(5):
        feed(ring, h264, begun=BEGUN + 3600 * hour)
    assert len(ring._segments) == 1
    kept = [one for segment in ring._segments for group in (*segment.groups, segment.sounds) for one in group]
    assert ring.num_bytes == sum(one.size for one in kept)


def test_a_cut_never_goes_over_the_end_of_a_segment(h264, folder, tmp_path):
    """The connection was lost for three seconds, and another picture came back."""
    ring = PacketRing(60, 1 << 24)
    feed(ring, h264)
    feed(ring, record(folder / "m2.mkv", "mjpeg", "pcm_s16le", 8000), begun=BEGUN + 8)
    cut = ring.cut(BEGUN + 2, BEGUN + 12, tmp_path / "before")
    assert cut.path.suffix == ".mp4" and cut.end == pytest.approx(BEGUN + 5, abs=0.05)
    cut = ring.cut(BEGUN + 6, BEGUN + 12, tmp_path / "after")
    assert cut.path.suffix == ".mkv" and cut.begin == BEGUN + 8
    with pytest.raises(MediaError, match=r"it holds 13:15:00 to 13:15:1[23]"):
        ring.cut(BEGUN + 5.5, BEGUN + 7, tmp_path / "between")
    assert sorted(os.listdir(tmp_path)) == ["after.mkv", "before.mp4"]


def test_a_damaged_packet_does_not_cost_the_clip(folder, tmp_path):
    source = folder / "a.ts"
    if not source.exists():
        record(source)
    ring = PacketRing(60, 1 << 24)
    with av.open(str(source)) as container:
        sound = container.streams.audio[0]
        ring.begin(container.streams.get(), BEGUN, container.start_time / av.time_base)
        for number, packet in enumerate(container.demux()):
            if packet.stream_index == sound.index and number in (60, 61, 120):
                packet, whole = av.Packet(b"\0" * 40), packet  # without the head of ADTS
                packet.pts, packet.dts, packet.time_base, packet.stream = whole.pts, whole.dts, whole.time_base, sound
            ring.add(packet)
    cut = ring.cut(BEGUN, BEGUN + 5, tmp_path / "cut")
    assert len(packets(cut.path, "audio")) > 200 and len(decoded(cut.path)[0]) == SECONDS * 25
    np.testing.assert_allclose(*onsets(cut.path), atol=0.001)


def test_what_ffmpeg_does_not_accept(h264, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise av.error.ArgumentError(22, "Invalid argument")

    ring = PacketRing(60, 1 << 24)
    feed(ring, h264)
    monkeypatch.setattr("avad_hf.media.ring._write", refuse)
    with pytest.raises(MediaError, match=r"cut\.mp4 cannot be written: FFmpeg does not accept what the camera sends"):
        ring.cut(BEGUN, BEGUN + 3, tmp_path / "cut")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_ring(tmp_path):
    ring = PacketRing(60, 1 << 24)
    assert ring.newest is None and not ring.is_losing(BEGUN)
    with pytest.raises(MediaError, match="it holds nothing yet"):
        ring.cut(BEGUN, BEGUN + 1, tmp_path / "cut")


def test_a_cut_while_packets_come(h264, tmp_path):
    ring, has_begun = PacketRing(2.0, 1 << 24), threading.Event()

    def read():
        for number in range(20):
            feed(ring, h264, begun=BEGUN + 5 * number)
            has_begun.set()

    reader = threading.Thread(target=read)
    reader.start()
    has_begun.wait(10)
    num_cuts = 0
    while reader.is_alive() or not num_cuts:
        cut = ring.cut(0.0, ring.newest + 1, tmp_path / "cut")
        with av.open(str(cut.path)) as container:
            assert next(container.decode(video=0)).key_frame
        num_cuts += 1
    reader.join()


def test_a_packet_of_another_stream_is_left_out(h264):
    ring = PacketRing(60, 1 << 24)
    with av.open(h264) as container:
        ring.add(next(container.demux()))  # before anything began
        ring.begin([container.streams.video[0]], BEGUN, 0.0)
        for packet in container.demux(audio=0):
            ring.add(packet)
    assert ring.num_bytes == 0


# Evidence


def event(state="closed", camera="gate", **changes):
    start = BEGUN + 2
    return {
        "id": f"{camera}-20261130T131502.000Z",
        "camera": camera,
        "state": state,
        "start": start,
        "end": start + 1,
        "peak": start + 0.5,
        "score": 0.93,
        "threshold": 0.5,
        "label": "anomaly",
        "latency": 1.1,
    } | changes


@pytest.fixture
def ring(h264):
    ring = PacketRing(60, 1 << 24)
    feed(ring, h264)
    return ring


PICTURE = np.full((48, 64, 3), 90, np.uint8)
HEAT = {"heat": {"values": [[0.0, 0.0], [0.0, 1.0]], "start": 0.0, "end": 1.0}, "sight": 1.0}


def test_evidence_of_an_event(ring, tmp_path):
    told = queue.Queue()
    evidence = Evidence(tmp_path / "evidence", before_s=1.0, after_s=1.0, on_ready=told.put)
    evidence.add(event("opened", why=HEAT), ring, PICTURE)
    first = told.get(timeout=30)
    assert first["state"] == "opened"
    assert first["evidence"] == {"snapshot": "gate/20261130T131502.000Z.jpg"}
    assert json.loads((tmp_path / "evidence/gate/20261130T131502.000Z.json").read_bytes()) == first
    evidence.add(event(why=HEAT), ring)
    while "clip" not in (last := told.get(timeout=30))["evidence"]:
        pass
    evidence.close()
    folder = tmp_path / "evidence"
    assert sorted(os.listdir(folder / "gate")) == [f"20261130T131502.000Z.{one}" for one in ("jpg", "json", "mp4")]
    assert json.loads((folder / "gate/20261130T131502.000Z.json").read_bytes()) == last
    # A second before to a second after, and the key frame before.
    assert BEGUN + 0.6 <= last["evidence"]["begin"] <= BEGUN + 1 and last["evidence"]["has_sound"]
    assert BEGUN + 4 <= last["evidence"]["end"] <= BEGUN + 4.2
    flashes, clicks = onsets(folder / last["evidence"]["clip"])
    np.testing.assert_allclose(flashes, clicks, atol=0.001)
    assert np.array(flashes) + last["evidence"]["begin"] - BEGUN == pytest.approx(MOMENTS[1:5], abs=0.001)
    snapshot = np.asarray(Image.open(folder / last["evidence"]["snapshot"])).astype(int)
    assert np.abs(snapshot[:16, :16] - 90).max() < 5 and np.ptp(snapshot[-8:, -8:].mean(axis=(0, 1))) > 30
    assert evidence.health() == {"written": 1, "waiting": 0, "left_out": 0, "problem": None}


def test_an_update_brings_a_new_picture(ring, tmp_path):
    told = queue.Queue()
    evidence = Evidence(tmp_path, before_s=0, after_s=0, on_ready=told.put)
    evidence.add(event("opened"), ring, PICTURE)
    assert told.get(timeout=30)["score"] == 0.93
    evidence.add(event("updated", score=0.97), ring, np.full((48, 64, 3), 200, np.uint8))
    assert told.get(timeout=30)["score"] == 0.97
    evidence.close()
    assert np.asarray(Image.open(next(tmp_path.rglob("*.jpg")))).mean() == pytest.approx(200, abs=2)
    assert len(list(tmp_path.rglob("*.mp4"))) == 1  # though nobody closed it


def test_the_clip_waits_for_what_comes_after(h264, tmp_path):
    told, ring = queue.Queue(), PacketRing(60, 1 << 24)
    feed(ring, h264, until=3.5)
    evidence = Evidence(tmp_path, before_s=1, after_s=1.5, on_ready=told.put)
    evidence.add(event(), ring)
    assert "clip" not in told.get(timeout=30)["evidence"]
    assert evidence.health()["waiting"] == 1
    feed(ring, h264, begun=BEGUN + 3.5)
    assert told.get(timeout=30)["evidence"]["end"] == pytest.approx(BEGUN + 3.52, abs=0.05)  # of its segment
    evidence.close()


def test_the_clip_is_cut_before_the_ring_loses_its_beginning(h264, tmp_path):
    told, ring = queue.Queue(), PacketRing(4.0, 1 << 24)
    feed(ring, h264)
    evidence = Evidence(tmp_path, before_s=1, after_s=1, on_ready=told.put)
    evidence.add(event("opened"), ring)
    assert told.get(timeout=30)["evidence"]["end"] == pytest.approx(BEGUN + 5, abs=0.05)
    # Closed, and open again: the same clip, which shows how it began.
    evidence.add(event("closed", end=BEGUN + 60), ring)
    assert told.get(timeout=30)["evidence"]["begin"] < BEGUN + 1.01
    while evidence.health()["waiting"]:
        time.sleep(0.01)
    before = next(tmp_path.rglob("*.mp4")).stat().st_mtime_ns
    evidence.add(event("updated", end=BEGUN + 70), ring)
    again = told.get(timeout=30)
    evidence.close()
    assert again["end"] == BEGUN + 70 and again["evidence"]["clip"] == "gate/20261130T131502.000Z.mp4"
    assert next(tmp_path.rglob("*.mp4")).stat().st_mtime_ns == before


def test_an_event_of_which_the_ring_holds_nothing(tmp_path, caplog):
    evidence = Evidence(tmp_path, before_s=1, after_s=1)
    evidence.add(event(), PacketRing(60, 1 << 24), PICTURE)
    evidence.close()
    health = evidence.health()
    assert (health["written"], health["left_out"]) == (1, 1)
    assert "There is no clip of gate-20261130T131502.000Z. There is no picture from" in health["problem"]
    assert health["problem"] in caplog.text
    assert {path.suffix for path in (tmp_path / "gate").iterdir()} == {".jpg", ".json"}


def test_a_heat_map_that_cannot_be_drawn(ring, tmp_path):
    evidence = Evidence(tmp_path, before_s=1, after_s=1)
    evidence.add(event(why={"heat": {"values": "none"}}), ring, PICTURE)
    evidence.close()
    assert "picture of gate-20261130T131502.000Z cannot be drawn" in evidence.health()["problem"]
    assert {path.suffix for path in (tmp_path / "gate").iterdir()} == {".mp4", ".json"}


@pytest.mark.parametrize(
    "name", ["../../etc", "gate-x", "gate-20261130T131502.000Z/../x", "other-20261130T131502.000Z"]
)
def test_an_id_never_leads_elsewhere(ring, tmp_path, name):
    evidence = Evidence(tmp_path, before_s=1, after_s=1)
    with pytest.raises(ValueError, match="is not that of an event of gate, such as gate-2026"):
        evidence.add(event(id=name), ring)
    evidence.close()
    assert list(tmp_path.iterdir()) == []


def test_names_of_cameras_never_leave_the_folder(ring, tmp_path):
    from avad_hf.detection.incidents import plain_name

    names = ["../x", "a/b", "a_b", "a b", "", ".", "Tür & Tor", "a" * 80, "<script>", "nul\0"]
    evidence = Evidence(tmp_path / "evidence", before_s=0, after_s=0)
    for name in names:
        evidence.add(event(camera=name, id=f"{plain_name(name)}-20261130T131502.000Z"), ring)
    evidence.close()
    assert os.listdir(tmp_path) == ["evidence"] and len(os.listdir(tmp_path / "evidence")) == len(names)
    kept = {json.loads(path.read_bytes())["camera"] for path in tmp_path.rglob("*.json")}
    assert kept == set(names)


def test_links_are_not_followed(ring, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "evidence/gate").mkdir(parents=True)
    for ending in ("mp4", "jpg", "json"):
        (tmp_path / f"evidence/gate/20261130T131502.000Z.{ending}").symlink_to(victim)
    evidence = Evidence(tmp_path / "evidence", before_s=0, after_s=0)
    evidence.add(event(), ring, PICTURE)
    evidence.close()
    assert victim.read_text() == "mine"
    assert not any(path.is_symlink() for path in tmp_path.rglob("*")) and evidence.health()["left_out"] == 0


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="Give a folder"):
        Evidence(tmp_path / "file", before_s=0, after_s=0)


class Blackout:
    """Hides whole pictures; notes what is in a folder meanwhile."""

    def __init__(self, folder):
        self.folder, self.names = folder, set()

    def hide(self, pictures):
        for at, picture in pictures:
            self.names |= {path.name for path in self.folder.rglob("*.*")}
            yield SimpleNamespace(time=at, picture=np.zeros_like(picture), boxes={}, all_boxes=np.zeros((0, 4)))


def test_nothing_that_tells_who_it_was_is_kept(ring, tmp_path):
    left = tmp_path / UNMASKED / "left by a killed run"
    left.mkdir(parents=True)
    told, blackout = queue.Queue(), Blackout(tmp_path)
    evidence = Evidence(tmp_path, before_s=1, after_s=1, anonymise={"gate": blackout}, on_ready=told.put)
    assert not left.exists()
    evidence.add(event(), ring, PICTURE)
    while "clip" not in told.get(timeout=60)["evidence"]:
        pass
    assert list((tmp_path / UNMASKED).iterdir()) == []
    evidence.close()
    # A page gives out what ends like a video, and the only one under such a name is the masked one.
    assert {name for name in blackout.names if name.endswith((".mp4", ".mkv"))} <= {"20261130T131502.000Z.mp4"}
    assert "gate_20261130T131502.000Z" in blackout.names
    clip, snapshot = next(tmp_path.rglob("*.mp4")), next(tmp_path.rglob("*.jpg"))
    assert max(picture.max() for _, picture in decoded(clip)[0]) < 20 and np.asarray(Image.open(snapshot)).max() < 5
    assert len(onsets(clip)[1]) == 4  # it is heard
    assert sorted(path.suffix for path in tmp_path.rglob("*.*")) == [".jpg", ".json", ".mp4"]


def test_a_clip_that_cannot_be_masked_is_not_kept(ring, tmp_path):
    class Broken:
        def hide(self, pictures):
            raise RuntimeError("no weights")

    evidence = Evidence(tmp_path, before_s=1, after_s=1, anonymise={"gate": Broken()})
    evidence.add(event(), ring, PICTURE)
    evidence.close()
    assert "no weights" in evidence.health()["problem"] and evidence.health()["left_out"] == 2
    assert [path.name for path in tmp_path.rglob("*.*")] == ["20261130T131502.000Z.json"]


@needs_mounts
def test_a_full_disk_is_said_and_what_waits_is_written_when_there_is_room(h264, tmp_path):
    code = f"""
import av, json, queue, time
import numpy as np
from small_disks import SmallDisk
from avad_hf.media.ring import PacketRing
from avad_hf.watching.evidence import Evidence
disk = SmallDisk({str(tmp_path / "disk")!r})
disk.empty(16384)
ring = PacketRing(60, 1 << 24)
with av.open({h264!r}) as container:
    ring.begin(container.streams.get(), {BEGUN}, 0.0)
    for packet in container.demux():
        ring.add(packet)
told = queue.Queue()
evidence = Evidence(disk.folder, before_s=1, after_s=1, on_ready=told.put)
evidence.add({event()}, ring, np.zeros((48, 64, 3), np.uint8))
while evidence.health()["problem"] is None:
    time.sleep(0.01)
full = evidence.health()
disk.grow(1 << 24)
told.get(timeout=60)
evidence.close()
print(json.dumps([full, evidence.health(), sorted(path.suffix for path in disk.folder.rglob("*.*"))]))
"""
    full, after, files = json.loads(warm.run(code=code).stdout)
    assert "cannot be written: No space left on device" in full["problem"] and full["waiting"] == 1
    assert after == {"written": 1, "waiting": 0, "left_out": 0, "problem": None}
    assert files == [".jpg", ".json", ".mp4"]


def test_a_disk_that_stays_full_is_counted(ring, tmp_path, monkeypatch):
    def fail(path, data):
        raise DiskError(28, "The disk is full.", str(path))

    monkeypatch.setattr("avad_hf.watching.evidence.write_file", fail)
    evidence = Evidence(tmp_path, before_s=1, after_s=1)
    evidence.add(event(), ring, PICTURE)
    evidence.close()
    assert evidence.health() == {
        "written": 0,
        "waiting": 1,
        "left_out": 1,
        "problem": "Evidence of gate-20261130T131502.000Z is not written yet. The disk is full.",
    }


def test_events_that_wait_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("avad_hf.watching.evidence.MOST_WAITING", 3)
    ring = PacketRing(60, 1 << 24)
    evidence = Evidence(tmp_path, before_s=1, after_s=1)
    for number in range(5):
        evidence.add(event("opened", id=f"gate-20261130T13150{number}.000Z"), ring)
    assert evidence.health()["waiting"] == 3 and evidence.health()["left_out"] == 2
    evidence.close()


# Room


def store(folder, camera, moment, /, size=1000, **changes):
    (folder / camera).mkdir(parents=True, exist_ok=True)
    for ending in ("mp4", "jpg"):
        (folder / camera / f"{moment}.{ending}").write_bytes(bytes(size))
    (folder / camera / f"{moment}.json").write_text(
        json.dumps({"id": f"{camera}-{moment}", "camera": camera} | changes)
    )


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


@pytest.fixture
def stored(tmp_path):
    for day in (28, 29, 30):
        for camera in ("gate", "yard"):
            store(tmp_path, camera, f"202611{day}T120000.{0 if camera == 'gate' else 5}00Z")
    return tmp_path


def test_events_go_by_days(stored):
    found = make_room(stored, days=2, now=BEGUN + 3600, is_trial=True)
    assert (found.events, found.files) == (2, 6) and found.bytes > 4000
    assert len(names(stored)) == 18
    assert make_room(stored, days=2, now=BEGUN + 3600) == found
    assert len(names(stored)) == 12 and not any("20261128" in name for name in names(stored))
    assert make_room(stored, days=2, now=BEGUN + 3600) == Freed(0, 0, 0)


def test_events_go_by_bytes_the_oldest_first(stored):
    assert make_room(stored, most_bytes=7000).events == 3
    assert {name.split(".")[0] for name in names(stored)} == {
        "yard/20261129T120000",
        "gate/20261130T120000",
        "yard/20261130T120000",
    }
    assert make_room(stored, most_bytes=0).events == 3 and names(stored) == []


def test_nothing_goes_without_a_bound_or_a_folder(stored):
    assert make_room(stored) == make_room(stored / "missing", days=1) == Freed(0, 0, 0)


def test_only_what_is_ours_goes(stored, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    store(elsewhere, "far", "20200101T000000.000Z")
    (stored / "linked").symlink_to(elsewhere / "far")
    (stored / "gate/20200101T000001.000Z.json").symlink_to(elsewhere / "far/20200101T000000.000Z.json")
    others = ["gate/notes.json", "gate/20200101T000002.000Z.mp4", "gate/20200101T000003.000Z.txt", "readme.json"]
    for name in others:
        (stored / name).write_text("{}")
    store(stored, "other", "20200101T000004.000Z", camera="somebody's")
    store(stored, "gate", "20209999T000004.000Z")
    (stored / "gate/20200101T000005.000Z.json").write_text("[" * 100_000)
    (stored / "gate/20200101T000006.000Z.json").mkdir()
    before = set(names(stored))
    make_room(stored, days=0, most_bytes=0, now=BEGUN + 1e6)
    gone = before - set(names(stored))
    assert len(gone) == 18 and all("202611" in name for name in gone)
    assert len(names(elsewhere)) == 3


def test_partial_files_of_a_killed_run_go_with_their_event(stored):
    for name in ("20261128T120000.000Z.mp4.partial", "20261128T120000.000Z.json.2.partial"):
        (stored / "gate" / name).write_bytes(bytes(10))
    assert make_room(stored, days=2, now=BEGUN + 3600).files == 8


def test_an_event_that_cannot_be_removed_stays_and_the_others_go(stored, monkeypatch):
    unlink = Path.unlink

    def refuse(path, missing_ok=False):
        if path.match("gate/20261128*.mp4"):
            raise PermissionError(13, "denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert make_room(stored, days=1, now=BEGUN).events == 3
    left = {name for name in names(stored) if "20261128" in name}
    assert {"gate/20261128T120000.000Z.mp4", "gate/20261128T120000.000Z.json"} <= left
    assert not any("yard" in name for name in left)


def test_evidence_is_made_room_of(ring, tmp_path):
    """Names and JSON that one writes, the other knows."""
    evidence = Evidence(tmp_path, before_s=1, after_s=1)
    evidence.add(event(), ring, PICTURE)
    evidence.close()
    assert make_room(tmp_path, days=1, now=BEGUN + 1e6).files == 3 and names(tmp_path) == []
