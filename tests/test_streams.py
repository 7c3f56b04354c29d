"""Several videos at a time: streams of the pipeline, decoders of the extraction; each as if it were alone."""

import gc
import json
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
from transformers import pipeline

from avad_hf import AvacaProcessor, AvrlProcessor, FeatureDataset, MediaError, extract_features, processes
from avad_hf.features import extraction
from avad_hf.untrained import init_avrl

from .media_files import frame_times, sound, write_media
from .short_clips import beginning

TASK = "audio-visual-anomaly"
# Clips of 32 frames, and whether there is sound.
LENGTHS = {"five": (5, True), "one": (0.3, False), "three": (2.5, True), "two": (2, False), "another": (1, True)}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[str]:
    """Of 5, 1, 3, 2 and 1 clips."""
    folder = tmp_path_factory.mktemp("videos")
    paths = []
    for index, (name, (clips, has_sound)) in enumerate(LENGTHS.items()):
        seconds = clips * 1.28
        samples = sound(index, seconds, 16000) if has_sound else None
        paths.append(write_media(folder / f"{name}.mp4", frame_times(25, seconds), samples, 16000, audio_codec="aac"))
    return paths


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("broken") / "broken.mp4"
    path.write_text("no video")
    return str(path)


@pytest.fixture(scope="module")
def avrl_pipe(tmp_path_factory):
    """Windows of two seconds."""
    folder = tmp_path_factory.mktemp("avrl") / "tiny"
    init_avrl(folder, size="tiny")
    path = folder / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"window_s": 2.0}))
    return pipeline(TASK, model=str(folder), dtype="float32")


@pytest.fixture(scope="module", params=["avaca", "avrl"])
def pipe(request, tiny_pipe):
    return tiny_pipe if request.param == "avaca" else request.getfixturevalue("avrl_pipe")


@pytest.fixture(scope="module")
def alone(pipe, videos) -> list[dict]:
    """What the pipeline makes of each video by itself."""
    return [pipe(video) for video in videos]


@pytest.fixture(scope="module")
def tiny_alone(tiny_pipe, videos) -> list[dict]:
    return [tiny_pipe(video) for video in videos]


# Threads that another test, which has failed, could not end.
LEFT: set[threading.Thread] = set()


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "read_ahead" and thread not in LEFT]


@pytest.fixture(autouse=True)
def _no_reader_outlives_its_test():
    LEFT.update(threading.enumerate())
    yield
    assert not readers()


# Lists with streams


@pytest.mark.parametrize("streams", [1, 2, 3, 8])
def test_streams_equal_single_calls_in_order(pipe, videos, alone, streams):
    assert pipe(videos, streams=streams) == alone


def test_streams_take_the_options_of_single_calls(tiny, tiny_pipe, videos):
    options = {"batch_size": 2, "audio_path": "plain", "threshold": 0.9}
    given = tuple(videos[2:])
    expected = [tiny_pipe(video, **options) for video in given]
    assert {result["threshold"] for result in expected} == {0.9}
    assert tiny_pipe(given, streams=2, **options) == expected
    configured = pipeline(TASK, model=tiny, dtype="float32", **options)
    assert configured(given, streams=2) == expected
    assert [found for _, found in sorted(configured.interleave(given, 2))] == expected


def test_streams_of_real_clips(tiny_pipe, bunny, bikes, tmp_path):
    bunny, bikes = beginning(bunny, tmp_path / "bunny.mp4", 70), beginning(bikes, tmp_path / "bikes.mp4", 66)
    assert tiny_pipe([bunny, bikes], streams=2) == [tiny_pipe(bunny), tiny_pipe(bikes)]


def test_one_video_and_none(tiny_pipe, videos, tiny_alone):
    assert tiny_pipe(videos[1], streams=3) == tiny_alone[1]
    assert tiny_pipe([videos[1]], streams=3) == [tiny_alone[1]]
    assert tiny_pipe([], streams=3) == [] == list(tiny_pipe.interleave([], 3))


def test_a_broken_video_ends_the_call(tiny_pipe, videos, broken):
    with pytest.raises(MediaError, match=r"broken.mp4 cannot be opened as video"):
        tiny_pipe([videos[0], broken, videos[2]], streams=3)
    assert not readers()


@pytest.mark.parametrize("streams", [1, 2])
def test_progress_of_a_list(tiny, tiny_pipe, videos, streams):
    """Given with the call, or with the pipeline."""
    seen = []
    tiny_pipe(videos[:3], streams=streams, on_progress=lambda *found: seen.append(found))
    assert len(seen) == 9 and {whole for _, whole in seen} == {6.4, 0.4, 3.2}
    pipe = pipeline(TASK, model=tiny, on_progress=lambda *found: seen.append(found))
    pipe(videos[:3], streams=streams)
    assert sorted(seen[9:]) == sorted(seen[:9])


@pytest.mark.parametrize("streams", [0, -1])
def test_refuses_no_streams(tiny_pipe, videos, streams):
    for act in (lambda: list(tiny_pipe.interleave(videos, streams)), lambda: tiny_pipe(videos, streams=streams)):
        with pytest.raises(ValueError, match=rf"streams must be 1 or more, got {streams}"):
            act()


@pytest.mark.parametrize("batch_size", [0, -1])
def test_refuses_no_clips_before_anything_is_read(tiny_pipe, batch_size):
    for act in (tiny_pipe, tiny_pipe.interleave):
        with pytest.raises(ValueError, match=f"^batch_size must be 1 or more, got {batch_size}"):
            act(["any.mp4"], batch_size=batch_size)


# One result after the other


@pytest.fixture
def held(monkeypatch):
    """Lets a video be read no further than its first clips until it is set; the video's name comes with it."""
    gates: dict[str, threading.Event] = {}
    for kind in (AvacaProcessor, AvrlProcessor):

        def gated(self, media, *args, decode=kind.decode, **kwargs):
            for number, batch in enumerate(decode(self, media, *args, **kwargs)):
                if number and media.info.name in gates:
                    gates[media.info.name].wait(60)
                yield batch

        monkeypatch.setattr(kind, "decode", gated)
    return gates


@pytest.mark.parametrize("streams", [2, 3, 50])
def test_results_come_as_soon_as_they_are_there(pipe, videos, alone, held, streams):
    """A video that is slow, as the recording of a camera far away, holds up no other."""
    held[videos[0]] = threading.Event()
    order = []
    for number, result in pipe.interleave(videos, streams):
        order.append(number)
        assert result == alone[number]
        if len(order) == 4:
            held[videos[0]].set()
    assert sorted(order) == [0, 1, 2, 3, 4] and order[-1] == 0
    if streams == 2:  # all others are read by the other one
        assert order == [1, 2, 3, 4, 0]


def test_one_stream_gives_one_after_the_other(pipe, videos, alone):
    assert list(pipe.interleave(videos)) == list(enumerate(alone))


def test_others_go_on_where_one_fails(pipe, videos, alone, broken, tmp_path):
    given = [broken, videos[0], str(tmp_path / "none.mp4"), videos[1], 3]
    found = dict(pipe.interleave(given, 2))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert isinstance(found[0], MediaError) and "broken.mp4 cannot be opened as video" in str(found[0])
    assert isinstance(found[2], MediaError) and "no such file" in str(found[2])
    assert isinstance(found[4], TypeError) and "A video is one of" in str(found[4])
    assert [found[1], found[3]] == alone[:2]


def test_a_network_that_fails_ends_its_video_alone(tiny_pipe, videos, tiny_alone, monkeypatch):
    forward = type(tiny_pipe)._forward

    def failing(self, inputs, **kwargs):
        if inputs["media"].info.name == videos[0] and inputs["piece"].times[0][0] > 2:
            raise RuntimeError("out of memory")
        return forward(self, inputs, **kwargs)

    monkeypatch.setattr(type(tiny_pipe), "_forward", failing)
    seen = []
    found = dict(tiny_pipe.interleave(videos, 2, on_progress=lambda number, *times: seen.append((number, *times))))
    assert str(found[0]) == "out of memory"
    assert [found[number] for number in (1, 2, 3, 4)] == tiny_alone[1:]
    assert [seconds for number, seconds, _ in seen if number == 0] == pytest.approx([1.28, 2.56], abs=1e-4)
    with pytest.raises(RuntimeError, match="out of memory"):
        tiny_pipe(videos, streams=2)


def test_what_has_failed_is_read_no_further(pipe, videos, alone, monkeypatch):
    """A camera has no end at which it could be reported."""
    decode, forward = type(pipe.processor).decode, type(pipe)._forward

    def endless(self, media, *args, **kwargs):
        for batch in decode(self, media, *args, **kwargs):
            while media.info.name == videos[0]:
                yield batch
            yield batch

    def failing(self, inputs, **kwargs):
        if inputs["media"].info.name == videos[0]:
            raise RuntimeError("out of memory")
        return forward(self, inputs, **kwargs)

    monkeypatch.setattr(type(pipe.processor), "decode", endless)
    monkeypatch.setattr(type(pipe), "_forward", failing)
    found = dict(pipe.interleave(videos[:3], 2))
    assert str(found[0]) == "out of memory" and [found[1], found[2]] == alone[1:3]


def test_a_result_that_cannot_be_made_ends_its_video_alone(pipe, videos, alone, monkeypatch):
    postprocess = type(pipe).postprocess

    def failing(self, outputs, **kwargs):
        if outputs[-1]["media"].info.name == videos[0]:
            raise ValueError("no number")
        return postprocess(self, outputs, **kwargs)

    monkeypatch.setattr(type(pipe), "postprocess", failing)
    found = dict(pipe.interleave(videos[:3], 2))
    assert str(found[0]) == "no number" and [found[1], found[2]] == alone[1:3]


def test_progress_of_each_video(pipe, videos):
    seen = {}
    lengths = [6.4, 0.4, 3.2]
    found = dict(pipe.interleave(videos[:3], 2, on_progress=lambda n, *times: seen.setdefault(n, []).append(times)))
    assert sorted(seen) == [0, 1, 2]
    for number, times in seen.items():
        ends = [clip["end"] for clip in found[number]["clips"]]
        assert [seconds for seconds, _ in times] == pytest.approx(ends, abs=1e-5)
        assert {whole for _, whole in times} == {lengths[number]}


def test_videos_are_begun_as_there_is_room(tiny_pipe, videos):
    """However many there are, and short: no more of them wait than there are streams."""
    begun = []

    def endless():
        while True:
            begun.append(len(begun))
            yield videos[1]

    with closing(tiny_pipe.interleave(endless(), streams=2)) as results:
        for number in range(10):
            next(results)
            # Of each stream one is with the networks, one waits, and one is being read.
            assert len(begun) <= number + 1 + 2 * 3


def test_a_list_that_cannot_be_read_on_is_an_error(tiny_pipe, videos):
    def failing():
        yield videos[1]
        raise OSError("the disk is gone")

    raised = []

    def read():
        try:
            list(tiny_pipe.interleave(failing(), streams=2))
        except OSError as error:
            raised.append(str(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(30)
    assert raised == ["the disk is gone"]


@pytest.mark.parametrize("leave", ["close", "break", "collect", "raise"])
def test_threads_do_not_outlive_what_is_broken_off(pipe, videos, monkeypatch, leave):
    """Two of three videos never end, as a camera's."""
    kind = type(pipe.processor)
    decode = kind.decode

    def endless(self, media, *args, **kwargs):
        for batch in decode(self, media, *args, **kwargs):
            while media.info.name != videos[1]:
                yield batch
            yield batch

    monkeypatch.setattr(kind, "decode", endless)
    results = pipe.interleave([videos[0], videos[1], videos[2], videos[3]], 3)
    if leave == "raise":
        with pytest.raises(KeyError):
            for _ in results:
                assert readers() == ["read_ahead"] * 3
                raise KeyError
    elif leave == "break":
        for number, _ in results:
            assert number == 1 and readers() == ["read_ahead"] * 3
            break
    else:
        assert next(results)[0] == 1 and readers() == ["read_ahead"] * 3
        if leave == "close":
            results.close()
    del results
    gc.collect()
    assert not readers()


# Decoders of the extraction


@pytest.fixture(scope="module")
def processor(tiny):
    return AvacaProcessor.from_pretrained(tiny)


def rows_of(videos):
    return [{"id": f"v{number}", "video": video} for number, video in enumerate(videos)]


def contents(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def stores(videos, processor, tmp_path_factory) -> dict:
    """By clips per batch, as one decoder fills them."""
    folders = {clips: tmp_path_factory.mktemp("stores") / "one" for clips in (None, 3)}
    for clips, folder in folders.items():
        assert extract_features(rows_of(videos), processor, folder, clips_per_batch=clips).num_new == 5
        assert len(contents(folder)) == 5 + 2
    return folders


@pytest.mark.parametrize(("decoders", "clips_per_batch"), [(2, None), (3, 3), (50, None), (50, 3)])
def test_decoders_fill_the_same_store(videos, processor, stores, tmp_path, decoders, clips_per_batch):
    options = {"decoders": decoders, "clips_per_batch": clips_per_batch}
    done = extract_features(rows_of(videos), processor, tmp_path / "s", **options)
    assert (done.num_stored, done.num_new, done.failed) == (5, 5, [])
    assert contents(tmp_path / "s") == contents(stores[clips_per_batch])
    assert not readers()


def test_clips_in_batches_fill_a_store_that_is_as_good(videos, processor, stores):
    """Of several clips at once matrices are multiplied otherwise: the last digits differ, and nothing else."""
    one, three = (FeatureDataset(stores[clips]) for clips in (None, 3))
    assert one.rows == three.rows and one.recipe == three.recipe
    for found, expected in zip(three, one, strict=True):
        assert found.keys() == expected.keys()
        for name in found:
            torch.testing.assert_close(found[name], expected[name], rtol=2**-10, atol=1e-5)


def test_decoders_of_whole_videos(videos, avrl_pipe, tmp_path):
    processor = avrl_pipe.processor
    assert isinstance(processor, AvrlProcessor)
    extract_features(rows_of(videos), processor, tmp_path / "one", decoders=1)
    extract_features(rows_of(videos), processor, tmp_path / "more", decoders=3, clips_per_batch=3)
    assert contents(tmp_path / "more") == contents(tmp_path / "one")


def test_a_broken_video_among_decoders(videos, broken, processor, tmp_path):
    """Before, between and after others of the same decoder; the next run tries it again."""
    given = [broken, *videos[:3], broken, *videos[3:], broken]
    rows, seen = rows_of(given), []
    done = extract_features(rows, processor, tmp_path / "s", decoders=3, on_progress=lambda *n: seen.append(n))
    assert [failure["id"] for failure in done.failed] == ["v0", "v4", "v7"]
    assert all("broken.mp4 cannot be opened as video" in failure["error"] for failure in done.failed)
    assert (done.num_stored, done.num_new) == (5, 5) and seen == [(number, 8) for number in range(9)]
    good = [row for row in rows if row["video"] != broken]
    extract_features(good, processor, tmp_path / "good")
    stored = contents(tmp_path / "s")
    assert {name: data for name, data in stored.items() if name != "failed.jsonl"} == contents(tmp_path / "good")
    assert FeatureDataset(tmp_path / "s").rows == FeatureDataset(tmp_path / "good").rows
    again = [row | {"video": videos[1]} for row in rows if row["video"] == broken]
    assert extract_features(good + again, processor, tmp_path / "s", decoders=2).num_new == 3


def test_an_encoder_that_fails_stops_all_decoders(videos, processor, tmp_path, monkeypatch):
    encode, calls = AvacaProcessor.encode, []

    def failing(self, batch):
        calls.append(batch)
        if len(calls) == 4:
            raise RuntimeError("out of memory")
        return encode(self, batch)

    monkeypatch.setattr(AvacaProcessor, "encode", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        extract_features(rows_of(videos), processor, tmp_path / "s", decoders=3)
    assert not readers()
    monkeypatch.undo()
    assert extract_features(rows_of(videos), processor, tmp_path / "s").num_stored == 5


@pytest.mark.parametrize(
    ("device", "cores", "given", "expected"),
    [
        ("cpu", 8, None, 1),
        ("cuda", 6, None, 3),
        ("cuda", 8, None, 4),
        ("cuda", 64, None, 4),
        ("cuda", 1, None, 1),
        ("cuda", 8, 2, 2),
        ("cpu", 8, 3, 3),
        ("cuda", 1, 50, 5),
    ],
)
def test_decoders_by_default(videos, tmp_path, monkeypatch, device, cores, given, expected):
    """One for encoders on a CPU; for those on a GPU, which wait for pictures, one for every two cores up to four."""
    most = []

    class Processor:
        """Encodes nothing; its readers wait with the six batches of a video until they are asked."""

        recipe = staticmethod(lambda: {})

        def __init__(self):
            self.device = SimpleNamespace(type=device)

        def decode(self, media, clips_per_batch, **kwargs):
            for _ in range(6):
                yield media

        def stored(self, batch, visual_dtype):
            most.append(len(readers()))
            return {"visual_features": torch.zeros(1, 1), "clip_times": torch.tensor([[0.0, 1.0]])}, False

    monkeypatch.setattr(extraction, "share_cores", lambda: cores)
    extract_features(rows_of(videos), Processor(), tmp_path / "s", decoders=given)
    assert max(most) == expected


@pytest.mark.parametrize(
    ("environment", "cores", "threads"),
    [
        ({}, 8, 3),
        ({"LOCAL_WORLD_SIZE": "1"}, 8, 3),
        ({"LOCAL_WORLD_SIZE": "2"}, 4, 4),
        ({"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}, 4, 4),
        ({"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "3"}, 4, 3),  # which somebody has chosen
        ({"LOCAL_WORLD_SIZE": "50"}, 1, 1),
    ],
)
def test_processes_of_one_machine_share_its_cores(monkeypatch, environment, cores, threads):
    for name in ("LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: range(8), raising=False)
    chosen = [3]
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    assert processes.share_cores() == cores
    assert chosen[-1] == threads


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"decoders": 0}, r"decoders 1 or more, got 'float16', None and 0"),
        ({"decoders": -2}, r"decoders 1 or more, got 'float16', None and -2"),
        ({"clips_per_batch": 0}, r"clips_per_batch and decoders 1 or more, got 'float16', 0 and None"),
        ({"clips_per_batch": -1, "decoders": 2}, r"got 'float16', -1 and 2"),
    ],
)
def test_refuses_no_decoders_and_no_clips(videos, processor, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        extract_features(rows_of(videos), processor, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()
