"""Items of published features against a plain numpy.load, and each file that is refused, by the refusal's words."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from avad_hf.features.published.dataset import PublishedFeatures, read_published
from avad_hf.models.avaca.configuration_avaca import AvacaConfig
from avad_hf.models.avaca.modeling_avaca import AvacaForAnomalyDetection
from avad_hf.models.avaca.processing_avaca import AvacaProcessor

from .published_files import XD_TRAIN, assert_item, make_rtfm, make_xd, save

# Crops


def test_crops_in_files(tmp_path):
    make_xd(tmp_path)
    features = read_published("xd_violence", tmp_path, split="train", crop="all")
    assert len(features) == 3 * 5
    for row, item in zip(features.rows, features, strict=True):
        assert row["id"] == f"{row['video_id']}__{row['crop']}"
        assert row["video_id"] in XD_TRAIN
        visual = np.load(tmp_path / "i3d-features" / "RGB" / f"{row['id']}.npy")
        audio = np.load(tmp_path / "vggish-features" / "train" / f"{row['video_id']}__vggish.npy")
        assert_item(item, visual, audio, 16 / 24)
    corner = read_published("xd_violence", tmp_path, split="train", crop=4)
    assert {row["id"] for row in corner.rows} == set(XD_TRAIN)
    assert all(row["visual_file"].endswith("__4.npy") for row in corner.rows)


def test_crops_in_arrays(tmp_path):
    folder = make_rtfm(tmp_path / "Train", {"01_0014": 4})
    features = read_published("rtfm", folder, crop="all")
    array = np.load(folder / "01_0014_i3d.npy")
    assert [row["id"] for row in features.rows] == [f"01_0014__{crop}" for crop in range(10)]
    for crop, item in enumerate(features):
        assert_item(item, array[:, crop], None, 16 / 24)


def test_crops_of_a_video_stay_in_one_split(tmp_path):
    make_rtfm(tmp_path / "Train", {f"01_{number:03}": 2 for number in range(8)})
    parts = {part: read_published("rtfm", tmp_path, part, "all", seed=1).rows for part in ("train", "validation")}
    videos = {part: {row["video_id"] for row in rows} for part, rows in parts.items()}
    assert {part: len(names) for part, names in videos.items()} == {"train": 6, "validation": 2}
    assert not videos["train"] & videos["validation"]


@pytest.mark.parametrize("crop", [-1, True, 1.0, "centre"])
def test_crop_is_a_number_or_all(tmp_path, crop):
    with pytest.raises(ValueError, match=r"crop must be a number from 0 \(the centre\) or 'all', got"):
        read_published("xd_violence", make_xd(tmp_path), crop=crop)


def test_crop_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"crop 5 is asked for, but there are 5. Give 0 to 4"):
        read_published("xd_violence", make_xd(tmp_path), crop=5)


@pytest.mark.parametrize("crop", [3, "all"])
def test_missing_crop_file_is_named(tmp_path, crop):
    make_xd(tmp_path)
    missing = tmp_path / "i3d-features" / "RGBTest" / "v=x__#1_label_A__3.npy"
    missing.unlink()
    assert len(read_published("xd_violence", tmp_path, crop=2)) == 5
    with pytest.raises(ValueError, match=r"RGBTest/v=x__#1_label_A__3.npy is missing. Download or copy it"):
        read_published("xd_violence", tmp_path, crop=crop)


def test_crops_of_different_lengths(tmp_path):
    save(tmp_path / "visual" / "a__0.npy", 3, 4)
    save(tmp_path / "visual" / "a__1.npy", 4, 4)
    with pytest.raises(ValueError, match=r"a__1.npy has 4 rows and .*a__0.npy, another crop of that video, has 3"):
        read_published("npy", tmp_path, fps=25, crop="all")


def test_one_file_and_crops_of_one_video(tmp_path):
    save(tmp_path / "visual" / "a.npy", 3, 4)
    save(tmp_path / "visual" / "a__0.npy", 3, 4)
    with pytest.raises(ValueError, match=r"holds both a.npy and crops a__<k>.npy. Keep one of the two"):
        read_published("npy", tmp_path, fps=25)


# Files that cannot be read


def make_npy(path: Path, kind: str) -> None:
    """A damaged file in the place of a good one."""
    if kind == "page":
        path.write_text("<!DOCTYPE html><html>Sign in</html>")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut header":
        path.write_bytes(path.read_bytes()[:40])
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, np.zeros(3))
    elif kind == "objects":
        np.save(path, np.array([{"a": 1}], dtype=object))
    elif kind == "words":
        np.save(path, np.array(["a"]))
    elif kind == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("page", r"is no readable .npy file; it begins with b'<!DOCTYPE html><html>Si.* download or copy it again"),
        ("empty", r"is no readable .npy file; it begins with b''"),
        ("cut header", r"is no readable .npy file; .* it is cut short"),
        ("archive", r"is no readable .npy file; it begins with b'PK"),
        (
            "cut",
            r"is cut short: an array of shape \(2, 4\) and type float32 takes 32 bytes, the file holds 31. Download",
        ),
        ("objects", r"holds values of type object, features are plain numbers. Save it again with"),
        ("words", r"holds values of type <U1, features are plain numbers"),
        ("folder", r"cannot be read \(IsADirectoryError"),
    ],
)
@pytest.mark.parametrize("room", ["visual", "audio"])
def test_damaged_file_is_named(tmp_path, kind, words, room):
    save(tmp_path / "visual" / "a.npy", 2, 4)
    save(tmp_path / "audio" / "a.npy", 2, 4)
    make_npy(tmp_path / room / "a.npy", kind)
    with pytest.raises(ValueError, match=rf"{room}/a.npy {words}"):
        read_published("npy", tmp_path, fps=25)


def test_file_that_goes_after_construction(tmp_path):
    save(tmp_path / "visual" / "a.npy", 2, 4)
    features = read_published("npy", tmp_path, fps=25)
    (tmp_path / "visual" / "a.npy").unlink()
    with pytest.raises(ValueError, match=r"visual/a.npy is missing"):
        features[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("room", ["visual", "audio"])
def test_values_that_are_not_finite(tmp_path, value, room):
    save(tmp_path / "visual" / "a.npy", 2, 4)
    values = save(tmp_path / "audio" / "a.npy", 2, 4)
    values[1, 3] = value
    np.save(tmp_path / room / "a.npy", values)
    features = read_published("npy", tmp_path, fps=25)
    with pytest.raises(ValueError, match=rf"{room}/a.npy holds NaN or infinite values. Download or extract it again"):
        features[0]


@pytest.mark.parametrize("shape", [(4,), (0, 4), (4, 0), (2, 5, 3, 4), (7, 4, 6)])
def test_visual_shape(tmp_path, shape):
    save(tmp_path / "visual" / "a.npy", *shape)
    with pytest.raises(ValueError, match=r"a.npy is of shape .*, needed is \[T, D\]"):
        read_published("npy", tmp_path, fps=25)


def test_audio_shape(tmp_path):
    save(tmp_path / "visual" / "a.npy", 2, 4)
    save(tmp_path / "audio" / "a.npy", 2, 5, 4)
    with pytest.raises(ValueError, match=r"audio/a.npy is of shape \(2, 5, 4\), needed is \[T, D\] with one row"):
        read_published("npy", tmp_path, fps=25)


def test_axis_of_crops_that_cannot_be_told(tmp_path):
    save(tmp_path / "visual" / "a.npy", 5, 10, 6)
    with pytest.raises(
        ValueError, match=r"\(5, 10, 6\), where both of the first two axes could be crops. Give crop_axis"
    ):
        read_published("npy", tmp_path, fps=25)


def test_axis_of_crops_that_is_not_as_said(tmp_path):
    save(tmp_path / "Test" / "01_0014_i3d.npy", 10, 7, 6)
    with pytest.raises(
        ValueError, match=r"is of shape \(10, 7, 6\), needed is \[T, D\], or \[T, C, D\] with C = 5 or 10"
    ):
        read_published("rtfm", tmp_path)


@pytest.mark.parametrize("room", ["visual", "audio"])
def test_widths_that_differ(tmp_path, room):
    for name in "ab":
        save(tmp_path / "visual" / f"{name}.npy", 2, 4)
        save(tmp_path / "audio" / f"{name}.npy", 2, 4)
    save(tmp_path / room / "b.npy", 2, 3)
    with pytest.raises(
        ValueError, match=rf"{room}/b.npy is 3 wide and .*a.npy is 4 wide; {room} features .* of one width"
    ):
        read_published("npy", tmp_path, fps=25)


def test_all_offenders_are_counted_and_the_first_shown(tmp_path):
    for number in range(9):
        save(tmp_path / "visual" / f"{number}.npy", 2, 4)
        if number:
            make_npy(tmp_path / "visual" / f"{number}.npy", "cut")
    with pytest.raises(ValueError) as caught:
        read_published("npy", tmp_path, fps=25)
    lines = str(caught.value).splitlines()
    assert lines[0] == "8 problems in features of 9 videos:"
    assert [line.partition(" is cut")[0][-5:] for line in lines[1:6]] == [f"{number}.npy" for number in range(1, 6)]
    assert lines[6:] == ["- and 3 more"]


def test_only_what_is_used_is_read(tmp_path):
    array = save(tmp_path / "visual" / "a.npy", 10, 64, 1024)
    features = read_published("npy", tmp_path, fps=25, crop=7)
    tracemalloc.start()
    item = features[0]
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The item itself and its mask of finite values, not the array of ten crops.
    assert peak_bytes < 2 * array.nbytes / 10
    assert_item(item, array[7], None, 16 / 25)


# AVACA


def test_items_fit_avaca(tmp_path):
    features = read_published("xd_violence", make_xd(tmp_path), split="train")
    assert isinstance(features, PublishedFeatures)
    items = list(features)
    batch = AvacaProcessor.pad(items)
    assert batch["visual_features"].shape == (3, 7, 1024, 1, 1)
    assert batch["audio_features"].shape == (3, 7, 1, 128)
    config = AvacaConfig(visual_size=1024, audio_size=128, num_audio_steps=1, hidden_size=16, audio_path="plain")
    model = AvacaForAnomalyDetection(config)
    output = model(**batch, labels=torch.stack([item["labels"] for item in items]))
    output.loss.backward()
    assert output.logits.shape == (3, 7)
    assert torch.isfinite(output.loss)
