"""The command, as a process of its own and in this one."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import get_args

import av
import pytest
import torch
from transformers import pipeline
from typer.testing import CliRunner

from avad_hf import AvacaConfig, AvacaProcessor, AvrlConfig
from avad_hf.cli import app
from avad_hf.cli.describe import MOST_STRETCHES, print_description
from avad_hf.cli.detect import _print_result
from avad_hf.cli.evaluate import Tail, VideoRule
from avad_hf.cli.init import Fusion, Modality, Size
from avad_hf.cli.options import AudioPath, config_settings
from avad_hf.cli.train import MixedPrecision, Scheduler
from avad_hf.files import shown
from avad_hf.metrics import videos
from avad_hf.registration import ARCHITECTURES, architectures
from avad_hf.training import config
from avad_hf.training.config import profiles
from avad_hf.untrained import SIZES

from .feature_stores import plant, plant_videos
from .media_files import frame_times, sound, write_media
from .named_encoders import ears, eyes, naming_processor
from .own_detector import OwnConfig, OwnDetector
from .short_clips import beginning

runner = CliRunner()
COMMAND = str(Path(sys.executable).with_name("avad-hf"))
# What no detection needs, and other verbs do. The libraries of the networks import much themselves.
OF_OTHER_VERBS = (
    *("accelerate.commands.launch", "aiohttp", "cv2", "datasets", "evaluate", "fastapi", "gradio", "h5py", "nncf"),
    *("numba", "onnx", "onnxruntime", "openvino", "pandas", "pyarrow", "scipy.stats", "sklearn", "tensorboard"),
    *("torch.utils.tensorboard", "uvicorn"),
)


def imported(stderr: str) -> set[str]:
    """Modules that `python -X importtime` names."""
    return set(re.findall(r"import time: +\d+ \| +\d+ \| +(\S+)", stderr))


def run(*arguments, code=0):
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def bunny34(bunny, tmp_path_factory) -> str:
    """The first 34 frames of `bunny`: two clips."""
    return beginning(bunny, tmp_path_factory.mktemp("beginning") / "bunny.mp4", 34)


@pytest.fixture(scope="module")
def bikes34(bikes, tmp_path_factory) -> str:
    """The first 34 frames of `bikes`: two clips."""
    return beginning(bikes, tmp_path_factory.mktemp("beginning") / "bikes.mp4", 34)


def test_detect_writes_everything(tmp_path, tiny, bunny34):
    outputs = {name: tmp_path / f"out.{name}" for name in ("json", "csv", "png", "mp4")}
    done = subprocess.run(
        [
            *(sys.executable, "-X", "importtime", COMMAND, "detect", bunny34, "--model", tiny),
            *("--json", outputs["json"], "--csv", outputs["csv"]),
            *("--plot", outputs["png"], "--overlay", outputs["mp4"], "--threshold", "0.5", "--device", "cpu"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "2 clips, 1.36 s, with sound" in done.stdout
    assert "Untrained detector" in done.stderr and "100%" in done.stderr
    assert "Traceback" not in done.stderr and "Loading weights" not in done.stderr
    assert "transformers" in imported(done.stderr) and not imported(done.stderr) & set(OF_OTHER_VERBS)
    result = json.loads(outputs["json"].read_text())[bunny34]
    assert len(result["clips"]) == 2
    with open(outputs["csv"], newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == [clip["score"] for clip in result["clips"]]
    assert outputs["png"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with av.open(str(outputs["mp4"])) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in outputs.values()}


def test_several_videos_go_on_after_a_broken_one(tmp_path, tiny, bikes34):
    (tmp_path / "broken.mp4").write_text("no video")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "bikes.mp4").write_bytes(Path(bikes34).read_bytes())
    output = run(
        *("detect", tmp_path / "broken.mp4", bikes34, tmp_path / "again" / "bikes.mp4", "--model", tiny),
        *("--json", tmp_path / "r.json", "--plot", tmp_path / "plots"),
        code=1,
    )
    assert "broken.mp4 cannot be opened as video" in output and "1 of 3 videos failed" in output
    assert len(json.loads((tmp_path / "r.json").read_text())) == 2
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["bikes-2.png", "bikes.png"]


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> list[str]:
    """Videos of 3, 1 and 2 clips."""
    folder = tmp_path_factory.mktemp("short")
    return [
        write_media(
            folder / f"{name}.mp4",
            frame_times(25, clips * 1.28),
            sound(clips, clips * 1.28, 16000),
            16000,
            audio_codec="aac",
        )
        for name, clips in (("three", 3), ("one", 1), ("two", 2))
    ]


@pytest.fixture(scope="module")
def folder(short, tmp_path_factory) -> Path:
    """A folder of videos, one of them without sound of its own, in folders, beside other files."""
    folder = tmp_path_factory.mktemp("given") / "videos"
    (folder / "b").mkdir(parents=True)
    shutil.copy(short[1], folder / "b" / "one.mp4")
    shutil.copy(short[2], folder / "a.mp4")
    write_media(folder / "c.mp4", frame_times(25, 1.28))
    write_media(folder / "c.wav", samples=sound(3, 1.28, 16000), rate=16000, audio_codec="pcm_s16le")
    (folder / "notes.txt").write_text("no video")
    return folder


def test_a_folder_stands_for_the_videos_in_it(tmp_path, tiny, folder, short):
    options = ("--model", tiny, "--json", tmp_path / "r.json", "--plot", tmp_path / "plots")
    output = run("detect", folder, short[0], folder / "a.mp4", *options)
    results = json.loads((tmp_path / "r.json").read_text())
    # Each once, in the order of the folder; sound beside a video is its own.
    assert list(results) == [str(folder / "a.mp4"), str(folder / "c.mp4"), str(folder / "b" / "one.mp4"), short[0]]
    assert all(result["has_audio"] for result in results.values()) and "c.mp4: " in output
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["a.png", "c.png", "one.png", "three.png"]


def test_a_folder_of_one_video_is_still_a_folder(tmp_path, tiny, folder):
    run("detect", folder / "b", "--model", tiny, "--plot", tmp_path / "plots")
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["one.png"]
    words = run("detect", folder / "b", "--model", tiny, "--plot", tmp_path / "a.png", code=2)
    assert "a.png is one file, but a folder of videos was given. Give a folder." in words


def test_folders_without_videos(tmp_path, tiny, short):
    (tmp_path / "empty").mkdir()
    words = run("detect", short[0], tmp_path / "empty", "--model", tiny, code=2)
    assert "empty holds no video (.mp4," in words and "three.mp4" not in words
    (tmp_path / "frames" / "a").mkdir(parents=True)
    (tmp_path / "frames" / "a" / "1.png").write_bytes(b"x")
    words = run("detect", tmp_path / "frames", "--model", tiny, code=1)
    assert "is a folder of 1 pictures, which do not say how many of them are a second" in words


def test_detect_says_why(tmp_path, short):
    """By which sense, in the printed lines and in every file."""
    outputs = ("--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--overlay", tmp_path / "r.mp4")
    processor = naming_processor()
    model = OwnDetector(OwnConfig(visual_size=processor.widths["visual_features"]))
    model.save_pretrained(tmp_path / "own")
    processor.save_pretrained(tmp_path / "own")
    said = run("detect", short[1], "--model", tmp_path / "own", "--threshold", 0, "--explain", *outputs)
    assert "highest at" in said and "\n            sight 100%" in said
    (event,) = json.loads((tmp_path / "r.json").read_text())[short[1]]["events"]
    assert (event["why"]["sight"], event["why"]["sound"]) == (1.0, 0.0)
    with open(tmp_path / "r.csv", newline="") as file:
        assert ("1.0", "0.0") in [(row["sight"], row["sound"]) for row in csv.DictReader(file)]
    assert (tmp_path / "r.mp4").stat().st_size > 1000


def test_reasons_name_the_nearest_normal_clip(capsys):
    why = {"sight": 0.1, "sound": 0.9, "nearest": [{"id": "gate-3", "start": 750.4, "end": 751.7, "distance": 2.0}]}
    event = {"start": 1.0, "end": 2.0, "peak": 1.5, "score": 0.9, "label": "anomaly", "why": why}
    result = {"label": "anomaly", "score": 0.9, "threshold": 0.5, "clips": [], "duration": 2.0, "has_audio": True}
    _print_result("a.mp4", result | {"events": [event, event | {"why": {"logit": 2.0}}]}, err=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "            sound 90%; nearest normal clip: gate-3 at 750.40 s" and len(lines) == 4


def test_streams_give_what_one_after_the_other_gives(tmp_path, tiny, short):
    (tmp_path / "broken.mp4").write_text("no video")
    given = [short[0], tmp_path / "broken.mp4", *short[1:], tmp_path / "none.mp4"]
    options = ("--model", tiny, "--dtype", "float32", "--threshold", 0.25)
    found = {}
    for streams in (1, 2):
        outputs = {name: tmp_path / f"{streams}.{name}" for name in ("json", "csv", "plot")}
        files = (part for name, path in outputs.items() for part in (f"--{name}", path))
        said = run("detect", *given, *options, *files, "--streams", streams, code=1)
        assert "broken.mp4 cannot be opened as video" in said and "none.mp4: no such file" in said
        assert "2 of 5 videos failed" in said and "Traceback" not in said
        assert all(f"{video}: " in said for video in short)
        rows = sorted(outputs["csv"].read_text().splitlines())
        plots = {path.name: path.read_bytes() for path in outputs["plot"].iterdir()}
        found[streams] = json.loads(outputs["json"].read_text()), rows, plots
    results, rows, plots = found[1]
    assert results.keys() == set(short) and len(rows) == 1 + 6
    assert plots.keys() == {"one.png", "three.png", "two.png"}
    assert found[2] == found[1]
    assert "greater than or equal to 1" in run("detect", *given, *options, "--streams", 0, code=2)


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (None, "PyTorch, bfloat16 (this processor has amx_bf16), on cpu."),
        ("auto", "PyTorch, bfloat16 (this processor has amx_bf16), on cpu."),
        ("float32", "PyTorch, float32, on cpu."),
        ("bfloat16", "PyTorch, bfloat16, on cpu."),
        ("float16", "PyTorch, float16, on cpu."),
    ],
)
def test_says_what_the_networks_compute_in(tiny, short, monkeypatch, dtype, words):
    """Beside the results, which may go into a file or another program."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64", "amx_bf16": True})
    options = () if dtype is None else ("--dtype", dtype)
    done = runner.invoke(app, ["detect", short[1], "--model", tiny, "--device", "cpu", *options])
    assert done.exit_code == 0, done.output
    assert f"Networks: {words}\n" in done.stderr and "Networks" not in done.stdout
    assert re.search(r"1\.3 s of video in \d+\.\d s, \d+\.\d\d of their length\.\n", done.stderr)
    assert f"{short[1]}: " in done.stdout and "1 clips, 1.28 s, with sound" in done.stdout
    assert "'float33' is not one of" in run("detect", short[1], "--model", tiny, "--dtype", "float33", code=2)


def test_options_of_the_other_detector_are_no_traceback(tmp_path, short):
    run("init", "avrl", tmp_path / "avrl", "--size", "tiny")
    done = runner.invoke(app, ["detect", *short[1:], "--model", str(tmp_path / "avrl"), "--audio-path", "zeroed"])
    words = (
        "audio_path is an option of detectors that use sound in several ways, and this one, of type 'avrl', has none"
    )
    assert words in done.output.replace("\n", " ")
    assert isinstance(done.exception, SystemExit) and done.exit_code in (1, 2)


def test_what_can_be_read_only_once_is_drawn_too(tmp_path, tiny, short):
    """As in `curl ... | avad-hf detect /dev/stdin`."""
    reader, writer = os.pipe()
    before = os.dup(0)
    try:
        os.dup2(reader, 0)
        os.close(reader)

        def write():
            with open(writer, "wb") as file:
                file.write(Path(short[0]).read_bytes())

        thread = threading.Thread(target=write)
        thread.start()
        said = run("detect", "/dev/stdin", "--model", tiny, "--plot", tmp_path / "p.png")
        thread.join()
    finally:
        os.dup2(before, 0)
        os.close(before)
    assert "3 clips, 3.84 s, with sound" in said
    assert (tmp_path / "p.png").stat().st_size > 5000


def test_refusals_come_before_the_work(tmp_path, tiny, bikes):
    copy = tmp_path / "one.mp4"
    copy.write_bytes(Path(bikes).read_bytes())

    def refused(*arguments):
        return run("detect", *arguments, code=2).replace("\n", " ")

    assert "no such folder" in refused(bikes, "--model", tmp_path / "absent")
    assert "cannot be loaded" in refused(bikes, "--model", "nobody/nothing")
    assert "less than or equal to 1" in refused(bikes, "--model", tiny, "--threshold", "3")
    assert "--device foo cannot be used" in refused(bikes, "--model", tiny, "--device", "foo")
    two = (bikes, copy, "--model", tiny)
    assert "Give a folder" in refused(*two, "--plot", tmp_path / "a.png")
    one = (copy, "--model", tiny)
    assert "ends with .png, .svg, .pdf" in refused(*one, "--plot", tmp_path / "a.foo")
    assert "ends with .png" in refused(*one, "--plot", tmp_path)
    assert "is one of the videos, and would be overwritten" in refused(*one, "--overlay", copy)
    assert "is one of the videos" in refused(*one, "--json", copy)
    assert "Two outputs have the same name" in refused(*one, "--json", tmp_path / "r", "--csv", tmp_path / "r")
    assert "is a folder" in refused(*one, "--csv", tmp_path)
    assert "cannot be written" in refused(*one, "--csv", copy / "r.csv")
    assert "--plot - cannot be: pictures are not written to standard output" in refused(*one, "--plot", "-")
    assert "--overlay - cannot be" in refused(*two, "--overlay", "-")
    assert "Standard output takes one of --json and --csv" in refused(*one, "--json", "-", "--csv", "-")
    assert [path.name for path in tmp_path.iterdir()] == ["one.mp4"]
    assert copy.read_bytes() == Path(bikes).read_bytes()
    assert "no such file" in run("detect", tmp_path / "absent.mp4", "--model", tiny, code=1)


@pytest.mark.parametrize("option", ["--json", "--csv", "--plot", "--overlay"])
def test_places_that_cannot_be_written_are_refused_before_anything_is_loaded(tmp_path, bikes, monkeypatch, option):
    ending = {"--plot": ".png", "--overlay": ".mp4"}.get(option, "")
    pipe = tmp_path / f"pipe{ending}"
    os.mkfifo(pipe)
    monkeypatch.setitem(sys.modules, "transformers", None)  # to import it is an error
    said = run("detect", bikes, option, pipe, code=2)
    assert f"pipe{ending} is a pipe, and only regular files are replaced" in said.replace("\n", " ")
    assert pipe.is_fifo() and [path.name for path in tmp_path.iterdir()] == [pipe.name]


@pytest.mark.parametrize("stream", ["/dev/stdout", "/dev/fd/1", "/dev/stderr"])
def test_open_streams_have_a_name_of_their_own(bikes, stream):
    said = run("detect", bikes, "--json", stream, code=2).replace("\n", " ")
    assert f"{stream} is a stream that is open already" in said and "that is called -." in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("extract", "m.csv", "--model", "m", "-o", "pipe"),
        ("train", "s", "--model", "m", "-o", "pipe"),
        ("evaluate", "m", "s", "-o", "pipe"),
        ("export", "m", "pipe"),
        ("init", "avaca", "pipe"),
        ("convert", "slowfast", "pipe"),
        ("reproduce", "synthetic", "-o", "pipe"),
        ("benchmark", "-o", "pipe"),
        ("demo", "-o", "pipe"),
        ("scan", ".", "-o", "pipe/m.csv"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_tries_its_folder_first(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pipe is a pipe. Give a folder." in run(*arguments, code=2).replace("\n", "")


def test_videos_are_looked_for_before_networks(tmp_path):
    arguments = ("detect", "nosuch.mp4", "other.mp4", "--json", "r.json")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", COMMAND, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time")]
    assert done.returncode == 1 and done.stdout == ""
    assert said == [
        "Error: nosuch.mp4: no such file. Check the path.",
        "Error: other.mp4: no such file. Check the path.",
        "Error: 2 of 2 videos failed: nosuch.mp4, other.mp4",
    ]
    assert not imported(done.stderr) & {"torch", "transformers", "numpy", "av"} and not list(tmp_path.iterdir())


def test_results_on_standard_output_are_alone_there(tmp_path, tiny, short):
    def out(*options):
        done = runner.invoke(app, ["detect", *short[1:], "none.mp4", "--model", tiny, *map(str, options)])
        assert done.exit_code == 1, done.output
        assert f"{short[1]}: " in done.stderr and "none.mp4: no such file" in done.stderr
        return done.stdout_bytes

    results = json.loads(out("--json", "-", "--csv", tmp_path / "r.csv"))
    assert list(results) == short[1:]
    table = out("--csv", "-", "--json", tmp_path / "r.json")
    assert table == (tmp_path / "r.csv").read_bytes() and len(table.splitlines()) == 1 + 3
    assert json.loads((tmp_path / "r.json").read_text()) == results
    assert not Path("-").exists()


# Descriptions


@pytest.fixture
def published(monkeypatch):
    """Small encoders under the names of the published ones; gives what was asked for."""
    from avad_hf import describing

    asked = []

    def place(role, encoder, on_stage):
        asked.append(encoder)
        return {"i3d": eyes, "yamnet": ears}[encoder]()

    monkeypatch.setattr(describing, "encoder_place", place)
    return asked


def test_describe_writes_everything(tmp_path, short, published):
    (tmp_path / "broken.mp4").write_text("no video")
    outputs = {name: tmp_path / "out" / name for name in ("json", "csv", "plot", "overlay")}
    files = (part for name, path in outputs.items() for part in (f"--{name}", path))
    videos = [*short[1:], tmp_path / "broken.mp4"]
    done = runner.invoke(app, ["describe", *map(str, videos), *map(str, files), "--dtype", "float32"])
    assert done.exit_code == 1 and published == ["i3d", "yamnet"], done.output
    assert "broken.mp4 cannot be opened as video" in done.stderr and "1 of 3 videos failed" in done.stderr
    assert "Networks: PyTorch, float32, on cpu." in done.stderr and "\x1b[31m" not in done.stdout
    results = json.loads(outputs["json"].read_text())
    assert list(results) == short[1:]
    for video, result in results.items():
        names = [clip[sense][0]["label"] for clip in result["clips"] for sense in ("seen", "heard")]
        assert f"{video}: {len(result['clips'])} clips, {result['duration']:.2f} s, with sound" in done.stdout
        assert f"seen: {result['seen'][0]['label']} {result['seen'][0]['score']:.2f}; " in done.stdout
        assert "   0.00 s to " in done.stdout and all(shown(name) in done.stdout for name in names)
    with open(outputs["csv"], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["video"] for row in rows] == [video for video, r in results.items() for _ in r["clips"]]
    clips = [clip for result in results.values() for clip in result["clips"]]
    assert [float(row["heard_5_score"]) for row in rows] == [clip["heard"][4]["score"] for clip in clips]
    assert sorted(path.name for path in outputs["plot"].iterdir()) == ["one.png", "two.png"]
    assert sorted(path.name for path in outputs["overlay"].iterdir()) == ["one-overlay.mp4", "two-overlay.mp4"]


def test_detect_without_a_model_describes_and_says_how_to_get_one(tmp_path, short, published):
    options = ["--json", "-", "--streams", "2", "--describe"]
    done = runner.invoke(app, ["detect", *short[1:], *options])
    assert done.exit_code == 0 and published == ["i3d", "yamnet"], done.output
    results = json.loads(done.stdout)
    assert list(results) == short[1:] and all("score" not in result for result in results.values())
    (line,) = [line for line in done.stderr.splitlines() if "Without --model nothing is judged" in line]
    for verb in ("scan ", "init avaca NEW --video-encoder i3d --audio-encoder yamnet;", "extract ", "train "):
        assert f"avad-hf {verb}" in line
    for given in (("--threshold", 0.5), ("--audio-path", "plain"), ("--scene", "gate"), ("--explain",)):
        said = run("detect", short[1], *given, code=2)
        assert f"{given[0]} is an option of detectors. Give one: --model DIR." in said.replace("\n", " ")


def test_detect_describes_beside_its_scores(tmp_path, short, published, tiny):
    said = run("detect", short[1], "--model", tiny, "--describe", "--json", tmp_path / "r.json", code=2)
    assert "Nothing can be described" in said and not (tmp_path / "r.json").exists() and not published
    processor = naming_processor()
    detector = OwnDetector(OwnConfig(visual_size=processor.widths["visual_features"], threshold=0.0))
    pipe = pipeline("audio-visual-anomaly", model=detector, processor=processor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["avad_hf.cli.detect"], "load_pipeline", lambda *options: pipe)
        said = run("detect", short[1], "--model", tiny, "--describe", "--json", tmp_path / "r.json")
    (result,) = json.loads((tmp_path / "r.json").read_text()).values()
    (event,) = result["events"]
    at_peak = " | ".join(shown(event[sense][0]["label"]) for sense in ("seen", "heard"))
    assert f"highest at {event['peak']:.2f} s ({at_peak})" in said
    assert f"  seen: {result['seen'][0]['label']} {result['seen'][0]['score']:.2f}; " in said


def test_describe_refuses(tmp_path, short, tiny, monkeypatch):
    said = run("describe", short[1], "--video-encoder", tmp_path / "absent", code=2).replace("\n", " ")
    assert "--video-encoder" in said and "no such folder" in said
    encoders = ("--video-encoder", f"{tiny}/video_encoder", "--audio-encoder", f"{tiny}/audio_encoder")
    said = " ".join(run("describe", short[1], *encoders, "--csv", tmp_path / "r.csv", code=2).split())
    assert "Nothing can be described" in said and "An encoder must have a classifier" in said
    assert "no such file" in run("describe", tmp_path / "absent.mp4", code=1)
    assert "Give a folder" in run("describe", *short, "--plot", tmp_path / "a.png", code=2)
    assert not list(tmp_path.iterdir())


def test_a_long_description_is_cut_on_the_screen(capsys):
    clips = [
        {"start": float(i), "end": i + 1.0, "seen": [{"label": f"n{i // 2}", "score": 0.5}], "heard": []}
        for i in range(60)
    ]
    result = {"seen": clips[0]["seen"], "heard": [], "clips": clips, "duration": 60.0, "has_audio": False}
    print_description("a.mp4", result, err=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["a.mp4: 60 clips, 60.00 s, no sound", "  seen: n0 0.50", "      0.00 s to     2.00 s  n0"]
    assert len(lines) == 2 + MOST_STRETCHES + 1
    assert lines[-1] == "  ... and 10 more stretches: --csv and --json write every clip"


def test_results_of_a_night_are_not_lost_where_one_output_fails(tmp_path, tiny, short, monkeypatch):
    from avad_hf.detection import events

    def write(results, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(events, "write_json", write)
    options = ("--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv")
    said = run("detect", short[1], "--model", tiny, *options, code=1)
    assert "Error: " in said and "r.json cannot be written: [Errno 28] No space left on device" in said
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 2


def test_what_goes_wrong_while_features_are_computed_is_said_once(tmp_path, tiny, short):
    (tmp_path / "broken.mp4").write_text("no video")
    rows = [f"video,id\n{short[1]},whole\n{tmp_path}/broken.mp4,broken\x1b[31m\n"]
    (tmp_path / "m.csv").write_text("".join(rows))
    said = run("extract", tmp_path / "m.csv", "--model", tiny, "-o", tmp_path / "store", code=1)
    assert said.count("broken.mp4 cannot be opened as video") == 1
    assert r"\nNote: broken\x1b[31m: ".replace(r"\n", "\n") in said
    assert f"1 videos cannot be read. They are listed in {tmp_path / 'store' / 'failed.jsonl'}." in said
    assert "store: 1 videos, 1 of them new." in said


def test_names_of_files_are_data_everywhere(tmp_path, tiny, short, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b'=1+$x_^$<script>"\x1b[31m\n\xe2\x80\xae\xff.mp4')
    printed = r'=1+$x_^$<script>"\x1b[31m\n\u202e\xff.mp4'
    shutil.copy(short[1], name)
    broken = name.replace("=", "-").replace("+", "e")
    Path(f"./{broken}").write_text("no video")
    files = (part for option in ("json", "csv", "plot", "overlay") for part in (f"--{option}", f"out/{option}"))
    done = runner.invoke(app, ["detect", "--model", tiny, *files, "--", name, broken])
    assert done.exit_code == 1, done.output
    assert f"\n{printed}: " in f"\n{done.stdout}" and not re.search("\x1b\\[31m|\u202e", done.output)
    of_broken = printed.replace("=", "-").replace("+", "e")
    assert f"Error: {of_broken} cannot be opened as video" in done.stderr
    assert f"Error: 1 of 2 videos failed: {of_broken}\n" in done.stderr
    (key,) = json.loads(Path("out/json").read_text(encoding="utf-8"))
    assert key == name and Path(key).exists()
    with open("out/csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["video"] == f"'{printed}" and 0 <= float(row["score"]) <= 1
    stem = name.removesuffix(".mp4")
    assert Path(f"out/plot/{stem}.png").stat().st_size > 5000
    assert Path(f"out/overlay/{stem}-overlay.mp4").stat().st_size > 1000


def test_a_corrupt_checkpoint_is_one_line(tmp_path, tiny, bikes):
    shutil.copytree(tiny, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    output = run("detect", bikes, "--model", tmp_path / "cut", code=2)
    assert "the weights file is cut or damaged" in output and "Traceback" not in output
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    (tmp_path / "cut" / "config.json").write_text(json.dumps(config | {"hidden_size": 30}))
    assert "not a multiple of num_attention_heads" in run("detect", bikes, "--model", tmp_path / "cut", code=2)


def test_overlays_beside_their_videos_and_names_that_collide(tmp_path, tiny, bikes34):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.mp4").write_bytes(Path(bikes34).read_bytes())
    videos = [tmp_path / "x" / "a.mp4", tmp_path / "y" / "a.mp4", tmp_path / "x" / "a.mp4"]
    run("detect", *videos, "--model", tiny, "--overlay", tmp_path / "x", "--csv", tmp_path / "new" / "r.csv")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["a-2-overlay.mp4", "a-overlay.mp4", "a.mp4"]
    with open(tmp_path / "new" / "r.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4  # the video that was named twice counts once


def test_init_writes_a_checkpoint_that_says_what_it_is(tmp_path, bikes34):
    output = run("init", "avaca", tmp_path / "new", "--size", "tiny", "--seed", "3")
    assert "untrained checkpoint" in output and "seed 3" in output
    assert "**Untrained.**" in (tmp_path / "new" / "README.md").read_text()
    assert "Untrained detector (random weights, seed 3)" in run("detect", bikes34, "--model", tmp_path / "new")
    assert "nothing was overwritten" in run("init", "avaca", tmp_path / "new", code=2)


@pytest.mark.parametrize("audio_path", ["focused", "plain", "zeroed"])
def test_audio_path_and_dtype(tmp_path, tiny, bikes34, audio_path):
    run("detect", bikes34, "--model", tiny, "--audio-path", audio_path, "--dtype", "bfloat16", "--batch-size", "4")


def test_choices_are_those_of_the_config():
    """Written out in the command, which loads no model to print its help."""
    assert tuple(AudioPath) == AvacaConfig.audio_paths
    assert tuple(Size) == tuple(SIZES)


def test_starts_as_a_module_too():
    done = subprocess.run([sys.executable, "-m", "avad_hf.cli", "--help"], capture_output=True, text=True, check=True)
    assert "detect" in done.stdout


def test_train_refuse_resume(tmp_path):
    store, output = plant(tmp_path / "store"), tmp_path / "run"
    options = ("--architecture", "avaca", "--epochs", 2, "--audio-path", "plain")
    said = run("train", store, "-o", output, *options, "--batch-size", 8)
    assert "of 2, validation ROC AUC" in said and "equal error rate" in said
    assert "This checkpoint reads stored features only" in said
    config = json.loads((output / "config.json").read_text())
    assert config["audio_path"] == "plain"
    training = json.loads((output / "training.json").read_text())["config"]
    assert (training["epochs"], training["batch_size"], training["learning_rate"]) == (2, 8, 3e-3)

    again = ("train", store, "-o", output, *options)
    assert "holds a finished training run. Resume it (--resume)" in run(*again, "--batch-size", 8, code=2)
    assert "batch_size: 8 there, 16 now" in run(*again, "--resume", code=2)
    (done,) = re.findall(r"run: epoch . of 2, validation ROC AUC .*", said)
    assert done in run(*again, "--batch-size", 8, "--resume")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("/nowhere", "-o", "run"), "/nowhere: no such folder"),
        (("STORE", "-o", "run", "--batch-size", "3"), "batch_size must be even"),
        (("STORE", "-o", "run", "--scene", "harbour"), "has no scene 'harbour'. Scenes: street"),
        (("STORE", "-o", "run", "--fine-tune"), "fine_tune begins with the weights of a checkpoint"),
        (("STORE", "-o", "run", "--profile", "best"), "profile must be one of default, few, paper, "),
        (("STORE", "-o", "run", "--fusion", "add"), "expected one of ('transformer', 'attention', 'late'), got add"),
        (("STORE", "-o", "run", "--set", "hidden_siz=3"), "no option hidden_siz. Did you mean hidden_size?"),
        (("STORE", "-o", "run", "--set", "hidden_size"), "--set hidden_size: give the name of a field and its value"),
        (("STORE", "-o", "run", "--set", "kernel_size=4"), "kernel_size must be odd"),
        (("STORE", "-o", "run", "--model", "/nowhere"), "/nowhere"),
        (("STORE", "-o", "run", "--log-with", "spreadsheet"), "spreadsheet"),
        (("STORE", "-o", "STORE"), "is not an empty folder"),
    ],
)
def test_train_refuses(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = str(plant(tmp_path / "store", num_videos=30))
    architecture = () if "--model" in arguments else ("--architecture", "avaca")
    said = run("train", *(store if part == "STORE" else part for part in arguments), *architecture, code=2)
    assert words in said.replace("\n", " ")
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_choices_are_those_of_the_library():
    for choices, known in (
        (Fusion, AvrlConfig.fusions),
        (Modality, AvrlConfig.modalities),
        (Scheduler, get_args(config.Scheduler)),
        (MixedPrecision, get_args(config.MixedPrecision)),
        (VideoRule, get_args(videos.VideoRule)),
        (Tail, get_args(videos.TailRule)),
    ):
        assert [choice.value for choice in choices] == list(known)
    assert {"default", "paper", "shanghaitech", "avrl"} <= set(profiles())
    assert all(one.profile in profiles() for one in ARCHITECTURES.values())


# The words of init and train


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("trian", "STORE"), "No such command 'trian'. Did you mean 'train', 'rank'?"),
        (("init",), "Missing argument ARCHITECTURE. Give one of avaca, avrl"),
        (("init", "avaca"), "Missing argument DIR: the new folder"),
        (("init", "checkpoints/new"), "'checkpoints/new' is no detector. Known: avaca, avrl"),
        (("init", "avac", "new"), "Did you mean avaca?"),
        (("init", "slowfast", "new"), "'slowfast' is no detector"),
        (("init", "avaca", "new", "--fusion", "add"), "expected one of ('transformer', 'attention', 'late'), got add"),
        (("init", "avaca", "new", "--classes", "a,normal"), "AVACA names three classes or more, got a, normal"),
        (("init", "avrl", "new", "--set", "audio_path=plain"), "AVRL has no option audio_path"),
        (("init", "avrl", "new", "--fusion", "add", "--set", "fusion=concat"), "fusion is set twice"),
        (("init", "avaca", "new", "--set", "audio_path"), "--set audio_path: give the name of a field and its value"),
        (("init", "avaca", "new", "--size", "tiny", "--set", "audio_path=loud"), "got loud"),
        (("init", "avrl", "new", "--size", "tiny", "--frame-step", "6"), "AVRL picks its frames by itself"),
        (("init", "avaca", "new", "--video-encoder", "/nowhere"), "--video-encoder /nowhere: no such folder"),
        (
            ("train", "STORE", "-o", "run"),
            "--architecture NAME. STORE holds features of frozen encoders, which these detectors read: avaca",
        ),
        (
            ("train", "VIDEOS", "-o", "run"),
            "VIDEOS holds frames and sound, which these detectors read: avrl, shaderef.",
        ),
        (("train", "/nowhere", "-o", "run"), "/nowhere: no such folder"),
        (
            ("train", "avaca", "-o", "run"),
            "Missing argument STORE. Say: avad-hf train STORE -o DIR --architecture avaca",
        ),
        (("train", "STORE", "-o", "run", "--architecture", "avacca"), "Did you mean avaca?"),
        (
            ("train", "STORE", "-o", "run", "--architecture", "slowfast"),
            "'slowfast' is no detector that can be trained",
        ),
        (("train", "avac", "STORE", "-o", "run"), "Give one STORE, got avac STORE. 'avac' is no detector"),
        (("train", "avaca", "STORE", "VIDEOS", "-o", "run"), "Give one STORE, got avaca STORE VIDEOS"),
        (("train", "avaca", "STORE", "-o", "run", "--architecture", "avaca"), "Give one STORE, got avaca STORE"),
        (("train", "VIDEOS", "-o", "run", "--architecture", "avaca"), "AVACA is a detector that reads features"),
        (("train", "STORE", "-o", "run", "--model", "NEW", "--architecture", "avrl"), "type 'avaca', and no avrl"),
        (("train", "avrl", "STORE", "-o", "run", "--model", "NEW"), "type 'avaca', and no avrl"),
        (("train", "STORE", "-o", "run", "--model", "STORE"), "STORE"),
    ],
)
def test_a_wrong_word_says_what_was_meant(arguments, words, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "STORE", num_videos=12)
    plant_videos(tmp_path / "VIDEOS", 12)
    said = " ".join(run(*(tiny if part == "NEW" else part for part in arguments), code=2).split())
    assert words in said.replace("│ ", "") and "Traceback" not in said
    assert not (tmp_path / "run").exists() and not (tmp_path / "new").exists()


def test_every_detector_is_named_where_it_can_be_chosen():
    for arguments, part in ((("init",), "init"), (("train",), "profiles")):
        said = " ".join(run(*arguments, "--help").replace("│", " ").split())
        assert ", ".join(architectures(part)) in said and f"Example: avad-hf {arguments[0]}" in said


def test_fields_of_the_config_are_set_by_name(tmp_path):
    fields = ("--set", "audio_path=plain", "--set", "threshold=0.75", "--set", "fusion-residual=false")
    run("init", "avaca", tmp_path / "new", "--size", "tiny", "--frame-step", "3", *fields)
    processor = AvacaProcessor.from_pretrained(tmp_path / "new")
    assert (processor.frame_step, processor.clip_length, processor.clip_stride) == (3, 96, 96)
    config = AvacaConfig.from_pretrained(tmp_path / "new")
    assert (config.audio_path, config.threshold, config.fusion_residual, config.hidden_size) == (
        *("plain", 0.75, False),
        32,
    )
    assert config_settings(["a_b=[1, 2]", "c-d=x=y", "e="], fusion=Fusion.add, modality=None) == {
        **{"a_b": [1, 2], "c_d": "x=y", "e": "", "fusion": "add"}
    }


def test_the_old_spelling_of_train_says_the_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plant(tmp_path / "store", num_videos=30)
    options = ("--epochs", "1", "--batch-size", "8")
    done = runner.invoke(app, ["train", "avaca", "store", "-o", "old", *options])
    assert done.exit_code == 0, done.output
    note = "`avad-hf train avaca STORE` is an old spelling, and will go. Say: avad-hf train store --architecture avaca"
    assert note in done.stderr and "old spelling" not in done.stdout
    assert "old spelling" not in run("train", "store", "-o", "new", "--architecture", "avaca", *options)
    found = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("old", "new")]
    assert found[0]["config"] | {"output_dir": "new"} == found[1]["config"]
    assert found[0]["result"] == found[1]["result"]
    # A store may be called as an architecture is.
    (tmp_path / "store").rename(tmp_path / "avaca")
    run("train", "avaca", "-o", "named", "--architecture", "avaca", *options)


def told(monkeypatch, *arguments) -> config.TrainingConfig:
    """What training is told, without training."""
    from avad_hf.training import loop

    kept = []

    def train(config, **options):
        kept.append(config)
        raise ValueError("enough")

    monkeypatch.setattr(loop, "train", train)
    assert "enough" in run("train", *arguments, "-o", "run", code=2)
    return kept[0]


def test_a_detectors_own_recipe_is_the_default(tmp_path, tiny, monkeypatch):
    videos = tmp_path / "avrl"
    run("init", "avrl", videos, "--size", "tiny")
    # Networks that were trained before go on from there; a detector on frozen features begins anew.
    assert told(monkeypatch, "s", "--model", tiny) == config.TrainingConfig("s", "run", model=tiny)
    own = told(monkeypatch, "s", "--model", videos)
    assert own == config.TrainingConfig.from_profile("avrl", data="s", output_dir="run", model=str(videos))
    assert own.fine_tune and own.optimizer == "sgd"
    assert not told(monkeypatch, "s", "--model", videos, "--new-weights").fine_tune
    other = told(monkeypatch, "s", "--model", videos, "--profile", "default")
    assert other.fine_tune and other.optimizer == "adamw"
    assert told(monkeypatch, "s", "--model", tiny, "--fine-tune").fine_tune
    named = told(monkeypatch, "s", "--architecture", "avrl", "--modality", "audio", "--set", "frozen_audio_stages=4")
    assert (named.architecture, named.model, named.fine_tune, named.epochs) == ("avrl", None, False, 80)
    assert named.model_options == {"modality": "audio", "frozen_audio_stages": 4}
    as_option = told(monkeypatch, "s", "--architecture", "avrl", "--frozen-audio-stages", 4, "--set", "modality=audio")
    assert as_option == named
    paper = told(monkeypatch, "s", "--architecture", "avaca", "--profile", "paper", "--audio-path", "zeroed")
    assert paper.model_options == {"dmil_weight": 10.0, "center_weight": 1.0, "normalisation": "batch"} | {
        "audio_path": "zeroed"
    }


def test_notes_of_a_run_are_printed(tmp_path, monkeypatch):
    from avad_hf.training import loop

    result = loop.TrainingResult("run", 2, 3, {"top1_accuracy": 0.25}, 0.5, None, "top1_accuracy", "top-1 accuracy")
    result.warnings.append("Few videos.")
    monkeypatch.setattr(loop, "train", lambda *args, **options: result)
    done = runner.invoke(app, ["train", "store", "-o", "run", "--architecture", "avrl"])
    assert "run: epoch 2 of 3, validation top-1 accuracy 0.250, threshold 0.500 (not tuned)." in done.stdout
    assert "Note: Few videos.\nNote: This checkpoint reads stored features only." in done.stderr
