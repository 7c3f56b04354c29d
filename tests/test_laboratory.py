"""Damaged files lose nothing in silence; and the laboratory that tries them finds what it is there to find."""

import os
from pathlib import Path

import av
import pytest

from .laboratory.bench import open_bench
from .laboratory.damage import KINDS, Case, Damaged, cases, damage
from .laboratory.judge import Verdict, judge, judge_undamaged
from .laboratory.originals import BY_NAME, ORIGINALS
from .laboratory.runner import Runner, warm_runner

SEED, NUM_CASES = 7, 40


@pytest.fixture(scope="module")
def bench():
    with open_bench(warm_runner()) as opened:
        yield opened


def test_damaged_files_lose_nothing_in_silence(bench):
    verdicts = {case.id: bench.try_case(case) for case in cases(NUM_CASES, SEED)}
    failed = [f"{name} ({done}): {v.line}\n{v.trace}" for name, (done, v) in verdicts.items() if v and v.is_failure]
    assert not failed, f"{len(failed)} cases:\n" + "\n".join(failed)
    # Some cannot be done, and of the others most lose something.
    tried = [verdict for _, verdict in verdicts.values() if verdict]
    assert len(tried) > 0.9 * NUM_CASES
    assert sum(sum(verdict.lost.values()) > 0.5 for verdict in tried) > 0.3 * NUM_CASES


@pytest.mark.parametrize("original", ORIGINALS, ids=lambda original: original.name)
def test_files_in_order_are_read_whole_and_without_warnings(bench, original):
    assert judge_undamaged(original, bench.original(original.name)[1]) is None


# Those that are written soonest.
QUICK = ("mov-mjpeg-pcm", "avi-mjpeg-pcm", "ts-mpeg2-mp3")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_case_gives_the_same_damage(bench, tmp_path, kind):
    original = next(name for name in QUICK if KINDS[kind].suits(BY_NAME[name]))
    case, made = Case.of(f"{original}:{kind}:4"), []
    source, _ = bench.original(original)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        damaged = damage(case, source, tmp_path / name)
        made.append(Path(damaged.source["video"]).read_bytes())
    assert made[0] == made[1] != Path(source["video"]).read_bytes()
    assert Case.of(case.id) == case and damaged.description


@pytest.mark.parametrize("name", ["mp4-h264-silent-strong", "webm-vp9-opus", "mkv-hevc-ac3-light", "ogg-vp8-vorbis"])
def test_the_same_original_is_written_each_time(bench, tmp_path, name):
    source, _ = bench.original(name)
    assert Path(BY_NAME[name].write(tmp_path)["video"]).read_bytes() == Path(source["video"]).read_bytes()


# What is read of a file of two seconds: ten pictures a second, and sound.
def observed(frames=range(20), sound=range(20), shift=0.0, problems=(), remarks=()):
    return {
        "outcome": "read",
        "frames": [(n / 10 + shift, (n + 1) / 10 + shift, n) for n in frames],
        "sound_start": shift,
        "sound": [slot for n in range(20) for slot in (n if n in sound else -1,) * 4],
        "problems": list(problems),
        "remarks": list(remarks),
        "seconds": 0.1,
        "peak": 0,
    }


ORDER, DAMAGED = observed(), Damaged({}, "")


def verdict(original="mp4-h264-aac", damaged=DAMAGED, **seen):
    return judge(BY_NAME[original], ORDER, damaged, observed(**seen))


def test_the_judge_finds_what_was_lost():
    assert not verdict().is_failure and sum(verdict().lost.values()) == 0
    gap = [n for n in range(20) if not 5 <= n < 11]
    lost = verdict(frames=gap)
    assert lost.silent == ["picture"] and lost.lost["picture missing"] == pytest.approx(0.6)
    lost = verdict(sound=gap)
    assert lost.silent == ["sound"] and lost.lost["sound missing"] == pytest.approx(0.6)
    assert not verdict(frames=[n for n in range(20) if not 5 <= n < 9]).is_failure
    spoilt = verdict(frames=[-1 if 5 <= n < 11 else n for n in range(20)])
    assert spoilt.lost["picture missing"] + spoilt.lost["picture spoilt"] == pytest.approx(0.6)


def test_the_judge_hears_what_was_said():
    gap = [n for n in range(20) if not 5 <= n < 11]
    said = verdict(frames=gap, problems=["there is no picture from 0.5 to 1.1 s"])
    assert not said.is_failure and not said.unnamed
    assert verdict(frames=gap, problems=["the sound ends early"]).unnamed == ["picture"]
    # A remark explains a missing end, and nothing else.
    remark = ["the container says no length: a missing end cannot be noticed"]
    assert verdict(frames=range(10), sound=range(10), remarks=remark).unverifiable == ["picture", "sound"]
    assert verdict(frames=gap, remarks=remark).silent == ["picture"]
    assert verdict(frames=range(10), remarks=["all is well"]).silent == ["picture"]


def test_the_judge_asks_for_no_more_than_can_be_known():
    # A rate that was changed moves all pictures; of a file in which nothing but packets changed they may not move.
    assert verdict(damaged=Damaged({}, "", retimed=True), shift=1.0).unknowable == ["picture", "sound"]
    assert verdict(shift=1.0).silent == ["picture", "sound"]
    # A transport stream without its beginning counts from where it begins now.
    later = Damaged({}, "", begins_later=True)
    assert not verdict("ts-h264-aac", later, shift=-1.0, frames=range(10, 20), sound=range(10, 20)).is_failure
    assert verdict("ts-h264-aac", later, shift=-1.0, frames=range(16, 20), sound=range(10, 20)).silent == ["picture"]


def test_what_leaves_no_sign_cannot_be_known(bench, tmp_path):
    source, _ = bench.original("mov-mjpeg-pcm")
    data = Path(source["video"]).read_bytes()

    def is_unknowable(changed) -> bool:
        found = Verdict("read", [], lost={"picture missing": 1.0}, silent=["picture"])
        bench._excuse(found, source, changed)
        return found.unknowable == ["picture"] and not found.silent

    assert is_unknowable(source)
    # Samples are samples; a picture that is no JPEG is complained of, and one that is missing is not there.
    with av.open(source["video"]) as container:
        packets = [(packet.stream.type, packet.pos) for packet in container.demux() if packet.size]
    for kind, leaves_none in (("audio", True), ("video", False)):
        place = [pos for stream, pos in packets if stream == kind][3]
        changed = data[:place] + bytes(200) + data[place + 200 :]
        (tmp_path / "changed.mov").write_bytes(changed)
        assert is_unknowable({"video": str(tmp_path / "changed.mov")}) == leaves_none
    (tmp_path / "cut.mov").write_bytes(data[: len(data) // 2])
    assert not is_unknowable({"video": str(tmp_path / "cut.mov")})


READY = "import json, os, signal, sys, time; print(json.dumps('ready'), flush=True); "
ANSWER = "print(json.dumps({'outcome': 'read', 'peak': PEAK}), flush=True); "


@pytest.mark.parametrize(
    ("code", "outcome", "words"),
    [
        (ANSWER.replace("PEAK", "1"), "read", None),
        (ANSWER.replace("PEAK", "3 << 30"), "memory", "3072 MiB"),
        ("time.sleep(60)", "hang", "no end after 1 s"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash", "SIGSEGV"),
        ("sys.exit(3)", "crash", "exit code 3"),
        ("held = bytearray(b'x' * (300 << 20)); time.sleep(60)", "memory", "MiB"),
    ],
)  # fmt: skip
def test_the_runner_tells_how_a_reader_ended(code, outcome, words):
    limit = 2 << 30 if "bytearray" not in code else 200 << 20
    # A slow machine takes its time to fill memory.
    with Runner(1.0 if outcome == "hang" else 60.0, limit, ["-c", READY + "sys.stdin.readline(); " + code]) as runner:
        for _ in range(2 if outcome == "crash" else 1):  # another one is started
            answer = runner.read("file")
            assert answer["outcome"] == outcome
            assert words is None or words in answer["words"]


def test_a_reader_that_does_not_start_is_told():
    fails = ["-c", "raise SystemExit('no torch')"]
    with Runner(command=fails) as runner, pytest.raises(RuntimeError, match="no torch"):
        runner.read("file")


def test_a_file_that_grows_is_read_while_it_grows(bench, tmp_path):
    source = BY_NAME["ts-h264-aac"].write(tmp_path)
    data = Path(source["video"]).read_bytes()
    (tmp_path / "rest").write_bytes(data[len(data) // 2 :])
    os.truncate(source["video"], len(data) // 2)
    bench.runner.read(source, append=str(tmp_path / "rest"), append_after=3)
    assert Path(source["video"]).read_bytes() == data
