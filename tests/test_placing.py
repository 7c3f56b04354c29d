"""Where clips are encoded: how many at once, and the copy to a GPU, with stand-ins where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from avad_hf import AvacaProcessor
from avad_hf.media.decode import MediaInfo
from avad_hf.media.sources import open_media
from avad_hf.models.placing import BYTES_PER_PIXEL, MOST_CLIPS, _copy_stream, clips_at_once, to_device

from .media_files import frame_times, write_media


def info(width: int, height: int) -> MediaInfo:
    return MediaInfo(name="v.mp4", width=width, height=height, fps=25.0, duration=1.0, has_audio=False)


@pytest.mark.parametrize("device", ["cpu", "mps", "meta"])
def test_one_clip_at_once_without_a_gpu_of_its_own(device):
    assert clips_at_once(torch.device(device), 32, info(1920, 1080), 256) == 1


@pytest.mark.parametrize(("width", "height", "wide", "high"), [(1920, 1080, 455, 256), (480, 640, 256, 341)])
@pytest.mark.parametrize("length", [8, 32])
def test_clips_fill_half_of_what_is_free(monkeypatch, width, height, wide, high, length):
    """At the limits: one byte less is one clip less; one clip at least, whatever that takes, and 16 at most."""
    clip = length * wide * high * BYTES_PER_PIXEL
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 2 * clip)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where: 2 * clip)
    asked = []
    for free, expected in (
        (0, 1),
        (2 * clip - 1, 1),
        (2 * clip, 1),
        (4 * clip - 1, 1),
        (4 * clip, 2),
        (10 * clip - 1, 4),
        (10 * clip, 5),
        (2 * MOST_CLIPS * clip - 1, MOST_CLIPS - 1),
        (2 * MOST_CLIPS * clip, MOST_CLIPS),
        (10**15, MOST_CLIPS),
    ):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where, free=free: (asked.append(where) or free, 10**15))
        assert clips_at_once(torch.device("cuda:1"), length, info(width, height), 256) == expected
    assert set(asked) == {torch.device("cuda:1")}


def test_what_torch_keeps_without_using_it_is_free(monkeypatch):
    clip = 32 * 455 * 256 * BYTES_PER_PIXEL
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (2 * clip, 10**15))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda where: 7 * clip)
    for allocated, expected in ((7 * clip, 1), (5 * clip, 2), (3 * clip + 1, 2), (3 * clip, 3), (0, 4)):
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda where, used=allocated: used)
        assert clips_at_once(torch.device("cuda"), 32, info(1920, 1080), 256) == expected


def test_nothing_is_copied_on_a_cpu():
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert to_device(pixels, torch.device("cpu")) is pixels


class Gpu(str):
    """A device that torch takes for the CPU, and the library for a GPU."""

    type = "cuda"


# What is done with streams and pinned memory, in its order.
EVENTS: list[tuple] = []


class Stream:
    """A stream that notes when it is waited for."""

    def __init__(self, device):
        self.device = device

    def synchronize(self):
        EVENTS.append(("synchronised", self.device))


class Pinned(torch.Tensor):
    """Memory that notes by which stream it is copied."""

    def to(self, device, non_blocking=False):
        EVENTS.append(("copied", device, non_blocking, Pinned.current))
        return self.as_subclass(torch.Tensor).clone()


@pytest.fixture
def events(monkeypatch) -> Iterator[list[tuple]]:
    EVENTS.clear()
    monkeypatch.setattr(Pinned, "current", None, raising=False)

    @contextmanager
    def stream(used):
        Pinned.current = used
        yield
        Pinned.current = None

    def pin_memory(pixels):
        EVENTS.append(("pinned",))
        return pixels.clone().as_subclass(Pinned)

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    _copy_stream.cache_clear()
    yield EVENTS
    _copy_stream.cache_clear()


def test_a_gpu_gets_a_copy_by_a_stream_of_its_own(events):
    """From pinned memory, without waiting, and whole before it is handed on."""
    gpu, pixels = Gpu("cpu"), torch.randint(0, 256, (4, 3, 5, 7), dtype=torch.uint8)
    copied = to_device(pixels, gpu)
    assert torch.equal(copied, pixels) and copied.data_ptr() != pixels.data_ptr()
    pinned, (what, device, non_blocking, stream), synchronised = events
    assert pinned == ("pinned",) and (what, device, non_blocking) == ("copied", gpu, True)
    assert isinstance(stream, Stream) and stream.device == gpu and synchronised == ("synchronised", gpu)


def test_one_stream_for_each_gpu(events):
    """Torch keeps memory for every stream that it has seen."""
    gpus = [Gpu("cpu"), Gpu("cpu:0")]
    for gpu in gpus * 3:
        to_device(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), gpu)
    streams = [event[3] for event in events if event[0] == "copied"]
    assert len(set(map(id, streams))) == 2 and [stream.device for stream in streams] == gpus * 3


class OnGpu(torch.Tensor):
    """Pixels that say that they are on a GPU."""

    is_cuda = property(lambda self: True)

    def record_stream(self, stream):
        EVENTS.append(("used by", stream))


def test_pixels_are_kept_until_the_encoders_have_used_them(tmp_path, tiny, events, monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: ("current stream of", device))
    processor = AvacaProcessor.from_pretrained(tiny)
    with open_media(write_media(tmp_path / "v.mp4", frame_times(25, 1.28))) as media:
        (batch,) = processor.decode(media)
    expected = processor.encode(batch)
    assert not events
    found = processor.encode(replace(batch, pixels=batch.pixels.as_subclass(OnGpu)))
    assert events == [("used by", ("current stream of", batch.pixels.device))]
    assert torch.equal(found["visual_features"].as_subclass(torch.Tensor), expected["visual_features"])


def test_what_a_processor_decodes_for_a_gpu(tmp_path, tiny, events, monkeypatch):
    """The same features as on the CPU, with as many clips at once as fit."""
    video = write_media(tmp_path / "v.mp4", frame_times(25, 5.12))  # 4 clips of 64 x 85 pixels
    expected = AvacaProcessor.from_pretrained(tiny)(video)
    processor = AvacaProcessor.from_pretrained(tiny)
    monkeypatch.setattr(AvacaProcessor, "device", property(lambda self: Gpu("cpu")))
    free = 2 * 3 * 32 * 64 * 85 * BYTES_PER_PIXEL
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda where: (free, 10**12))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda where: 0)
    found = list(processor.stream(video))
    assert [chunk["clip_mask"].shape[1] for chunk in found] == [3, 1]
    assert [event[0] for event in events] == ["pinned", "copied", "synchronised"] * 2
    joined = torch.cat([chunk["visual_features"] for chunk in found], dim=1)
    torch.testing.assert_close(joined, expected["visual_features"], rtol=1e-5, atol=1e-5)
    events.clear()
    assert [chunk["clip_mask"].shape[1] for chunk in processor.stream(video, 2)] == [2, 2]  # as was asked for
