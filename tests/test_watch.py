"""Live detection, and a whole watch: sources to events, evidence and alerts."""

import json
import signal
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from transformers import pipeline
from typer.testing import CliRunner

import avad_hf
from avad_hf.cli import app
from avad_hf.detection.events import ScoredClip
from avad_hf.detection.incidents import Incidents
from avad_hf.detection.live import LiveClip, LiveGap, Watched, live
from avad_hf.media import cameras
from avad_hf.media.cameras import Camera
from avad_hf.media.decode import MediaFile
from avad_hf.untrained import init_avrl
from avad_hf.watching.feedback import Feedback
from avad_hf.watching.settings import (
    CameraConfig,
    EventsConfig,
    EvidenceConfig,
    JsonLinesConfig,
    PageConfig,
    WatchConfig,
)
from avad_hf.watching.starting import _make_room as make_room_for
from avad_hf.watching.starting import started
from avad_hf.watching.watcher import Eye, Watcher
from tests import warm
from tests.live_servers import http_camera, needs_rtsp, rtsp_server, wait_until
from tests.media_files import frame_times, sound, write_media
from tests.named_encoders import naming_processor
from tests.test_describe import detector

RATE = 16000


def noisy(index, width, height):
    """Pictures that move for two seconds out of every six."""
    rng = np.random.default_rng(index if (index // 25) % 6 in (2, 3) else 0)
    return rng.integers(0, 255, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Eight seconds of H.264 and AAC, with a key frame each half second: the path."""
    path = tmp_path_factory.mktemp("watch") / "street.mp4"
    return write_media(
        path, frame_times(25, 8), sound(0, 8, RATE), RATE, size=(96, 64), audio_codec="aac", pictures=noisy
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cameras, "QUIET_S", 0.2)
    monkeypatch.setattr(cameras, "FIRST_WAIT_S", 0.05)


def camera(source, name="gate"):
    return Camera(str(source), name, quiet_s=0.2)


def clips_of(records):
    return [record.clip for record in records if isinstance(record, LiveClip)]


@pytest.mark.parametrize("own", [False, True])
def test_offline_and_live_give_the_same_scores(tiny_pipe, bunny, street, own):
    source = street if own else bunny
    offline = tiny_pipe(source)["clips"]
    records = list(live([Watched(camera(source), tiny_pipe)]))
    clips = clips_of(records)
    assert len(clips) == len(offline) > 3
    assert max(abs(one.score - other["score"]) for one, other in zip(clips, offline, strict=True)) < 1e-6
    assert [(one.start, one.end) for one in clips] == [(other["start"], other["end"]) for other in offline]
    assert [bool(one.partial) for one in clips] == [bool(other.get("partial")) for other in offline]
    gaps = [record for record in records if isinstance(record, LiveGap)]
    assert [gap.reason for gap in gaps] == ["over"]
    levels = [record.sound_db for record in records if isinstance(record, LiveClip)]
    assert all(-100 <= level < 0 for level in levels)


@pytest.mark.parametrize("neighbours", [0, 1])
def test_words_are_those_of_the_file_whatever_a_detector_sees_at_once(street, neighbours):
    pipe = detector(naming_processor(), neighbours)
    offline = pipe(street, threshold=0.0, describe=True)["clips"]
    records = list(live([Watched(camera(street), pipe, threshold=0.0, describe=True)]))
    clips = clips_of(records)
    assert [(one.score, one.seen, one.heard) for one in clips] == [
        (pytest.approx(other["score"], abs=1e-6), other["seen"], other["heard"]) for other in offline
    ]
    # Each clip has its own last picture, also where it waits for its neighbours.
    pictures = [record.picture for record in records if isinstance(record, LiveClip)]
    assert len(pictures) == len(offline) > 5 and not torch.equal(pictures[4], pictures[5])


def test_a_detector_of_event_classes_names_windows_as_they_come(street, tmp_path):
    init_avrl(tmp_path / "crowd", size="tiny")
    path = tmp_path / "crowd" / "processor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"window_s": 2.0}))
    pipe = pipeline("audio-visual-anomaly", model=str(tmp_path / "crowd"), dtype="float32")
    offline = pipe(street)["clips"]
    clips = clips_of(live([Watched(camera(street), pipe)]))
    assert [(one.start, one.label) for one in clips] == [(other["start"], other["label"]) for other in offline]
    assert [one.score for one in clips] == pytest.approx([other["score"] for other in offline], abs=1e-6)


def test_cameras_share_the_networks_and_none_waits_for_another(tiny_pipe, street, bikes):
    offline = {name: tiny_pipe(path)["clips"] for name, path in (("street", street), ("bikes", bikes))}
    watched = [Watched(camera(street, "street"), tiny_pipe), Watched(camera(bikes, "bikes"), tiny_pipe)]
    records = [record for record in live(watched) if isinstance(record, LiveClip)]
    for number, name in enumerate(("street", "bikes")):
        scores = [record.clip.score for record in records if record.number == number]
        assert scores == pytest.approx([clip["score"] for clip in offline[name]], abs=1e-6)
    # They take turns: neither is through before the other has begun.
    numbers = [record.number for record in records]
    assert 0 < numbers.index(1) < len(numbers) - 1 - numbers[::-1].index(0) or numbers.index(0) > 0
    assert all(record.sound_db is None for record in records if record.number == 1)


@pytest.mark.parametrize("describe", [False, True])
def test_clips_that_wait_go_through_the_encoder_together(street, bikes, tmp_path, monkeypatch, describe):
    """Where the networks compute on a GPU; here it is said so of a CPU. Scores and words are those of the file."""
    monkeypatch.setattr("avad_hf.detection.live._most_together", lambda watched: 4)
    pipe = detector(naming_processor())
    names = ("street", "again", "bikes", "still")
    paths = {name: bikes if name == "bikes" else street for name in names}
    offline = {name: pipe(paths[name], threshold=0.0, describe=describe)["clips"] for name in ("street", "bikes")}
    sizes, encode_together = [], type(pipe.processor).encode_together

    def noting(self, batches):
        sizes.append(len(batches))
        return encode_together(self, batches)

    monkeypatch.setattr(type(pipe.processor), "encode_together", noting)
    watched = [
        Watched(camera(paths[name], name), pipe, threshold=0.0, describe=describe, gate=name == "still")
        for name in names
    ]
    records = [record for record in live(watched) if isinstance(record, LiveClip)]
    for number, name in enumerate(names[:3]):
        found = [record.clip for record in records if record.number == number]
        wanted = offline["bikes" if name == "bikes" else "street"]
        assert [one.score for one in found] == pytest.approx([clip["score"] for clip in wanted], abs=1e-6)
        if describe:
            words = [(one["label"], one["score"]) for clip in found for one in clip.seen + (clip.heard or [])]
            expected = [
                (one["label"], one["score"]) for clip in wanted for one in clip["seen"] + (clip["heard"] or [])
            ]
            assert [label for label, _ in words] == [label for label, _ in expected]
            assert [score for _, score in words] == pytest.approx([score for _, score in expected], abs=2e-6)
    assert sizes and max(sizes) <= 3  # what has a gate goes by itself


def test_a_source_that_cannot_be_decoded_is_a_gap_and_the_others_go_on(tiny_pipe, street, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    records = list(live([Watched(camera(broken, "broken"), tiny_pipe), Watched(camera(street), tiny_pipe)]))
    assert len([one for one in records if isinstance(one, LiveClip) and one.number == 1]) == 7
    assert not [one for one in records if isinstance(one, LiveClip) and one.number == 0]


def test_a_detector_of_whole_videos_is_refused_by_name(tiny_pipe):
    class Whole:
        spec = type("Spec", (), {"context": float("inf"), "title": "Whole-video detector"})
        processor = None

    with pytest.raises(ValueError, match="gate has no end, and Whole-video detector must see a whole video"):
        Watched(camera("rtsp://host/x"), Whole())


def settings(source, tmp_path, **options):
    return WatchConfig(
        (CameraConfig("gate <b>", str(source), threshold=0.0),),
        model="tiny",
        evidence=EvidenceConfig(str(tmp_path / "evidence"), before=1.0, after=1.0),
        events=EventsConfig(merge=1.0),
        sinks=(JsonLinesConfig(str(tmp_path / "events.jsonl")),),
        **options,
    )


def test_from_a_source_to_evidence_and_alerts(tiny_pipe, street, tmp_path, quick):
    """With a threshold of 0 all of it is one event: one alert, one clip that is the source's own packets."""
    with started(settings(street, tmp_path), lambda name: tiny_pipe) as found:
        records = list(found.watcher.run()) + found.watcher.close()
    assert Counter(record["type"] for record in records)["clip"] == 7
    events = [record for record in records if record["type"] == "event"]
    states = [event["state"] for event in events]
    assert states[0] == "opened" and states.count("opened") == 1 and states[-1] == "closed"
    assert len({event["id"] for event in events}) == 1
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == states
    kept = events[-1]["evidence"]
    folder = tmp_path / "evidence"
    assert "<" not in kept["clip"]
    with av.open(str(folder / kept["clip"])) as clip, av.open(street) as source:
        ours = [bytes(packet) for packet in clip.demux(video=0) if packet.size]
        theirs = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    assert ours == theirs
    assert MediaFile(str(folder / kept["clip"])).info.has_audio
    assert (folder / kept["snapshot"]).stat().st_size > 500
    assert json.loads((folder / kept["clip"]).with_suffix(".json").read_text())["id"] == events[0]["id"]


def test_the_page_shows_events_of_earlier_runs_again(tiny_pipe, street, tmp_path, quick):
    config = settings(street, tmp_path, page=PageConfig(port=0))
    with started(config, lambda name: tiny_pipe) as found:
        records = list(found.watcher.run()) + found.watcher.close()
    (event_id,) = {record["id"] for record in records if record["type"] == "event"}
    with started(config, lambda name: tiny_pipe) as found, urllib.request.urlopen(f"{found.url}state") as answer:
        shown = json.load(answer)["events"]
    assert [(event["id"], event["state"], bool(event["evidence"]["clip"])) for event in shown] == [
        (event_id, "closed", True)
    ]


def test_watch_is_a_function_that_gives_records(tiny_pipe, street, quick):
    records = list(avad_hf.watch({"yard": street}, tiny_pipe))
    assert {record["camera"] for record in records} == {"yard"}
    assert [record["type"] for record in records if record["type"] != "event"] == ["clip"] * 7 + ["gap"]


def test_a_gap_closes_what_is_open(tiny_pipe, street, tmp_path, quick, monkeypatch):
    """The line is dead for longer than an event may pause."""
    # It comes faster than in real time: a busy machine would leave all of it out.
    monkeypatch.setitem(Camera.__init__.__kwdefaults__, "most_behind_s", 100.0)
    with av.open(street) as source, av.open(str(tmp_path / "street.ts"), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    data = (tmp_path / "street.ts").read_bytes()
    step = len(data) // 20
    paced = [piece for begin in range(0, len(data), step) for piece in (data[begin : begin + step], 0.1)]
    with http_camera(paced) as url:
        config = settings(url, tmp_path)
        with started(config, lambda name: tiny_pipe) as found:
            limit = threading.Timer(60, found.cameras[0].stop)
            limit.start()
            for record in found.watcher.run():
                if record["type"] == "event" and record["state"] == "closed":
                    limit.cancel()
                    break
            found.watcher.close()
    assert record["end"] > record["start"]


@needs_rtsp
def test_the_command_watches_a_camera_and_ends_by_sigterm(tiny, street, tmp_path):
    with rtsp_server(street=street) as server:
        url = server.url("street", "user:secret@")
        command = ["-m", "avad_hf.cli", "watch", url, "--model", tiny, "--threshold", "0"]
        process = warm.start(*command, "--evidence", tmp_path / "evidence", "--port", "0")
        wait_until(lambda: process.stdout.count("\n") > 3, 60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    records = [json.loads(line) for line in process.stdout.splitlines()]
    assert {"clip", "event"} <= {record["type"] for record in records}
    closed = [record for record in records if record["type"] == "event" and record["state"] == "closed"]
    assert closed and (tmp_path / "evidence" / closed[-1]["evidence"]["clip"]).is_file()
    lags = [record["lag"] for record in records if record["type"] == "clip"]
    assert all(-0.5 < lag < 20 for lag in lags)
    assert "secret" not in process.stdout + process.stderr
    assert "http://127.0.0.1:" in process.stderr
    for path in Path(tmp_path / "evidence").rglob("*.json"):
        assert "secret" not in path.read_text()


def test_wrong_words_are_refused(tiny, street, tmp_path):
    run = CliRunner().invoke
    for arguments, words in (
        ([], "Give SOURCE, or --config FILE"),
        ([street], "Missing option --model"),
        ([street, "--config", "x.toml"], "and not both"),
        (["--config", str(tmp_path / "none.toml")], "No such file"),
        (["--config", "x.toml", "--port", "1"], "--port stands in the file"),
        ([street, "--model", tiny, "--anonymise", "faces"], "Give --evidence too"),
        (["ftp://host/x", "--model", tiny], "cannot be watched"),
        (["udp://user:secret@host/x", "--model", tiny], "cannot be watched"),
    ):
        result = run(app, ["watch", *arguments])
        assert result.exit_code == 2 and words in result.output, result.output
        assert "secret" not in result.output


def test_a_file_that_cannot_be_read_ends_with_words(tiny, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video " * 100)
    for name, words in (("missing.ts", "No such file"), ("broken.mp4", "Invalid data")):
        result = CliRunner().invoke(app, ["watch", str(tmp_path / name), "--model", tiny])
        assert result.exit_code == 1 and "camera 1: " in result.output and words in result.output


def test_check_says_what_a_camera_sends(tiny, street, tmp_path, quick, monkeypatch):
    monkeypatch.setattr(sys.modules["avad_hf.cli.watch"], "CHECK_S", 2.0)
    config = tmp_path / "cameras.toml"
    config.write_text(
        f'model = "{tiny}"\n[[camera]]\nname = "street"\nsource = "{street}"\n'
        '[[camera]]\nname = "gone"\nsource = "rtsp://user:secret@127.0.0.1:9/x"\n'
    )
    result = CliRunner().invoke(app, ["watch", "--config", str(config), "--check"])
    assert result.exit_code == 1 and "street: 96 x 64, 25 pictures a second, with sound" in result.output
    assert "gone: no picture within" in result.output and "secret" not in result.output


def test_memory_of_explanations_does_not_grow(tiny_pipe, street):
    """Of a source without end reasons are forgotten when they were asked for."""
    records = list(live([Watched(camera(street), tiny_pipe, threshold=0.0, explain=True)]))
    reasons = [one.reasons for one in records if isinstance(one, (LiveClip, LiveGap)) and one.reasons]
    assert len(reasons) == 1 and all({"sight", "sound"} <= why.keys() for why in reasons[0].values())
    (start,) = reasons[0]
    scores = {one.start: one.score for one in clips_of(records) if not one.partial}
    assert scores[start] == max(scores.values())
    assert torch.is_tensor(next(one for one in records if isinstance(one, LiveClip)).picture)


def test_the_snapshot_is_of_the_highest_clip_and_drawn_again_with_its_heat_map():
    drawn = []

    class Kept:
        def add(self, event, ring, picture=None):
            drawn.append((event["state"], None if picture is None else int(picture.max()), "why" in event))

    incidents = Incidents("gate", threshold=0.5, merge_s=2)
    eye = Eye(SimpleNamespace(camera=SimpleNamespace(name="gate"), used_threshold=0.5), incidents, object())
    watcher, segment = Watcher([eye]), SimpleNamespace(begun=time.time())
    watcher.keep(Kept(), lambda: None)
    for number, score in enumerate([0.1, 0.9, 0.95, 0.7, 0.1, 0.1, 0.1]):
        clip = ScoredClip(float(number), number + 1.0, score)
        reasons = {2.0: {"heat": {}}} if number == 5 else {}
        picture = torch.full((3, 4, 4), float(number))
        list(watcher._clip(LiveClip(0, clip, segment, 0.0, None, picture, reasons)))
    assert drawn == [("opened", 1, False), ("updated", 2, False), ("closed", 2, True)]


def test_answers_go_with_the_clips_that_are_removed(tmp_path):
    evidence = EvidenceConfig(str(tmp_path), days=1.0)
    clip = tmp_path / "gate" / "20200101T000000.000Z.mp4"
    clip.parent.mkdir()
    clip.write_bytes(b"x")
    event = {"id": f"gate-{clip.stem}", "camera": "gate", "evidence": {"clip": f"gate/{clip.name}"}}
    clip.with_suffix(".json").write_text(json.dumps(event))
    feedback = Feedback(tmp_path / "feedback.csv", tmp_path)
    feedback.answer(event, "right")
    make_room_for(evidence, feedback)
    assert not clip.exists() and feedback.answers == {}
    assert (tmp_path / "feedback.csv").read_text() == "id,video,label,group\n"
