"""Each layout of published features to its rows and values, and each folder, name and list that is refused."""

import collections
import logging
import pickle

import numpy as np
import pytest

from avad_hf.features.published.dataset import read_published

from .published_files import XD_TEST, XD_TRAIN, assert_item, make_ar_net, make_rtfm, make_xd, save

# Layouts


@pytest.mark.parametrize(
    ("visual_root", "audio_root"), [("i3d-features", "vggish-features"), (".", "."), (".", "vggish-features")]
)
def test_xd_violence(tmp_path, visual_root, audio_root):
    make_xd(tmp_path, visual_root, audio_root)
    features = read_published("xd_violence", tmp_path)
    assert {row["id"]: row["split"] for row in features.rows} == dict.fromkeys(XD_TRAIN, "train") | dict.fromkeys(
        XD_TEST, "test"
    )
    for row, item in zip(features.rows, features, strict=True):
        train = row["split"] == "train"
        visual = tmp_path / visual_root / ("RGB" if train else "RGBTest") / f"{row['id']}__0.npy"
        audio = tmp_path / audio_root / row["split"] / f"{row['id']}__vggish.npy"
        assert_item(item, np.load(visual), np.load(audio), 16 / 24)
        assert item["labels"] == row["anomaly"] == (not row["id"].endswith("_label_A"))
        assert row["num_clips"] == (XD_TRAIN | XD_TEST)[row["id"]]
        assert row["duration"] == pytest.approx(row["num_clips"] * 16 / 24)
        assert (row["fps"], row["clip_length"], row["scene"], row["crop"]) == (24.0, 16, None, 0)


def test_xd_violence_labels_are_the_codes_in_order_of_importance(tmp_path):
    rows = {row["id"]: row for row in read_published("xd_violence", make_xd(tmp_path), split="train").rows}
    assert {name: row["classes"] for name, row in rows.items()} == {
        "v=8cTqh9tMz_I__#1_label_A": ["normal"],
        "Bad.Boys II__#00-10-00_00-10-30_label_B2-0-0": ["shooting"],
        "Été 少林__#1_label_G-B2-B6": ["explosion", "shooting", "car_accident"],
    }
    assert all(row["label"] == row["classes"][0] for row in rows.values())


def test_xd_violence_annotations(tmp_path):
    make_xd(tmp_path)
    (tmp_path / "annotations.txt").write_text("Fast Five 2__#0_label_B6-0-0.mp4 3 17 40 96\n\n")
    rows = {row["id"]: row for row in read_published("xd_violence", tmp_path).rows}
    assert rows["Fast Five 2__#0_label_B6-0-0"]["anomalous_frames"] == [[3, 17], [40, 96]]
    assert rows["v=x__#1_label_A"]["anomalous_frames"] == []
    assert rows["Été 少林__#1_label_G-B2-B6"]["anomalous_frames"] is None


def test_video_without_sound_file_gets_zeros_and_one_log_line(tmp_path, caplog):
    make_xd(tmp_path)
    silent = next(iter(XD_TEST))
    (tmp_path / "vggish-features" / "test" / f"{silent}__vggish.npy").unlink()
    with caplog.at_level(logging.WARNING):
        features = read_published("xd_violence", tmp_path, split="test")
    assert f"1 of 5 videos have no sound file and get zeros, first {silent}" in caplog.text
    (index,) = [index for index, row in enumerate(features.rows) if row["id"] == silent]
    assert features.rows[index]["has_audio"] is False
    assert_item(features[index], np.load(tmp_path / "i3d-features" / "RGBTest" / f"{silent}__0.npy"), None, 16 / 24)


@pytest.mark.parametrize(("extra", "rows"), [(1, 6), (-1, 5)])
def test_lengths_that_differ_by_one_lose_the_last_row(tmp_path, extra, rows):
    visual = save(tmp_path / "RGB" / "a_label_A__0.npy", 6, 4)
    audio = save(tmp_path / "vggish-features" / "train" / "a_label_A__vggish.npy", 6 + extra, 3)
    features = read_published("xd_violence", tmp_path)
    assert features.rows[0]["num_clips"] == rows
    assert_item(features[0], visual[:rows], audio[:rows], 16 / 24)


@pytest.mark.parametrize("extra", [2, -2])
def test_lengths_that_differ_by_two_are_refused(tmp_path, extra):
    save(tmp_path / "RGB" / "a_label_A__0.npy", 6, 4)
    save(tmp_path / "vggish-features" / "train" / "a_label_A__vggish.npy", 6 + extra, 3)
    with pytest.raises(
        ValueError, match=rf"RGB/a_label_A__0.npy has 6 rows and .*__vggish.npy has {6 + extra}; .* by one"
    ):
        read_published("xd_violence", tmp_path)


def test_rtfm_shanghaitech(tmp_path):
    make_rtfm(tmp_path / "SH_Train_ten_crop_i3d", {"01_0014": 10, "13_007": 4})
    make_rtfm(tmp_path / "SH_Test_ten_crop_i3d", {"02_0128": 5})
    features = read_published("rtfm", tmp_path)
    facts = {row["id"]: (row["label"], row["anomaly"], row["scene"], row["split"]) for row in features.rows}
    assert facts == {
        "01_0014": ("abnormal", 1, "01", "train"),
        "13_007": ("normal", 0, "13", "train"),
        "02_0128": ("abnormal", 1, "02", "test"),
    }
    for row, item in zip(features.rows, features, strict=True):
        array = np.load(tmp_path / f"SH_{row['split'].title()}_ten_crop_i3d" / f"{row['id']}_i3d.npy")
        assert_item(item, array[:, 0], None, 16 / 24)
    assert [row["id"] for row in read_published("rtfm", tmp_path, scene="13").rows] == ["13_007"]


def test_rtfm_ucf_crime_in_a_folder_of_its_own(tmp_path):
    names = {"Abuse001_x264": 4, "RoadAccidents012_x264": 4, "Normal_Videos_003_x264": 4, "Normal_Videos003_x264": 4}
    folder = make_rtfm(tmp_path / "UCF_Test_ten_crop_i3d", names)
    features = read_published("rtfm", folder, split="test", crop=9)
    labels = {row["id"]: row["label"] for row in features.rows}
    assert labels == dict(zip(names, ("abuse", "road_accidents", "normal", "normal"), strict=True))
    assert_item(features[0], np.load(folder / "Abuse001_x264_i3d.npy")[:, 9], None, 16 / 30)
    assert read_published("rtfm", folder, fps=25)[0]["clip_times"][0, 1] == 16 / 25


def test_rtfm_folder_without_split_in_its_name_is_divided_by_rule(tmp_path):
    # "latest" holds "test", which is not that word.
    folder = make_rtfm(tmp_path / "latest", {f"01_{number:03}": 2 for number in range(10)})
    splits = [row["split"] for row in read_published("rtfm", folder).rows]
    assert collections.Counter(splits) == {"train": 6, "validation": 2, "test": 2}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_ar_net(tmp_path, protocol):
    make_ar_net(tmp_path, protocol)
    features = read_published("ar_net", tmp_path)
    facts = [(row["id"], row["label"], row["scene"], row["split"], row["anomalous_frames"]) for row in features.rows]
    assert facts == [
        ("01_001", "normal", "01", "train", []),
        ("01_0014", "abnormal", "01", "train", None),
        ("02_0128", "abnormal", "02", "test", [[0, 3], [43, 50]]),
    ]
    streams = tmp_path / "shanghaitech" / "features_video" / "i3d"
    assert_item(features[2], np.load(streams / "combine" / "02_0128" / "feature.npy"), None, 16 / 24)
    flow = read_published("ar_net", tmp_path / "shanghaitech", stream="flow")
    assert_item(flow[0], np.load(streams / "flow" / "01_001" / "feature.npy"), None, 16 / 24)


@pytest.mark.parametrize(
    ("shape", "pick", "options"),
    [
        ((4, 6), lambda array: array, {}),
        ((7, 5, 6), lambda array: array[:, 2], {"crop": 2}),
        ((10, 7, 6), lambda array: array[2], {"crop": 2}),
        ((5, 10, 6), lambda array: array[2], {"crop": 2, "crop_axis": 0}),
        ((5, 10, 6), lambda array: array[:, 2], {"crop": 2, "crop_axis": 1}),
    ],
)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8", "<i4"])
def test_npy_of_every_shape_and_type(tmp_path, shape, pick, options, dtype):
    array = save(tmp_path / "visual" / "a.npy", *shape, dtype=dtype)
    audio = save(tmp_path / "audio" / "a.npy", len(pick(array)), 3, dtype=dtype)
    features = read_published("npy", tmp_path, fps=25, clip_length=32, **options)
    assert_item(features[0], pick(array), audio, 32 / 25)
    assert "labels" not in features[0]
    assert features.rows[0]["label"] is None


def test_npy_in_fortran_order(tmp_path):
    array = np.asfortranarray(save(tmp_path / "visual" / "a.npy", 7, 5, 6))
    np.save(tmp_path / "visual" / "a.npy", array)
    assert_item(read_published("npy", tmp_path, fps=25, crop=3)[0], array[:, 3], None, 16 / 25)


def test_npy_list_gives_labels_splits_and_which_videos(tmp_path):
    for name in ("a", "b", "c d", "left out"):
        save(tmp_path / "visual" / f"{name}.npy", 2, 4)
    text = "\ufeffid,label,anomaly,split,scene\na,Normal type 1,,train,yard\nb,bus,0,val,\nc d,,,test,\n"
    (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
    features = read_published("npy", tmp_path, fps=25)
    facts = [(row["id"], row["label"], row["anomaly"], row["split"], row["scene"]) for row in features.rows]
    assert facts == [
        ("a", "Normal type 1", 0, "train", "yard"),
        ("b", "bus", 0, "validation", None),
        ("c d", None, None, "test", None),
    ]
    assert features[0]["labels"] == 0
    assert "labels" not in features[2]
    (tmp_path / "labels.csv").write_text("id,label\na,normal\nb,bus\n")
    assert [row["anomaly"] for row in read_published("npy", tmp_path, fps=25).rows] == [0, 1]


# Folders and lists


@pytest.mark.parametrize("kind", ["xd_violence", "rtfm", "ar_net", "npy"])
def test_empty_folder(tmp_path, kind):
    words = {
        "xd_violence": r"holds no XD-Violence features. Unpack RGB.zip",
        "rtfm": r"holds neither .npy files nor folders with Train or Test .*, but nothing. Give the folder",
        "ar_net": r"holds no AR-Net features: train_split.txt, .* missing. Give the folder",
        "npy": r"has no folder 'visual'. Put one <id>.npy",
    }
    with pytest.raises(FileNotFoundError, match=words[kind]):
        read_published(kind, tmp_path, **({"fps": 25} if kind == "npy" else {}))


@pytest.mark.parametrize(("kind", "folder"), [("xd_violence", "RGB"), ("rtfm", "SH_Train_x"), ("npy", "visual")])
def test_folder_without_features(tmp_path, kind, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "._a_label_A__0.npy").write_bytes(b"macOS")
    with pytest.raises(FileNotFoundError, match=rf"{folder} holds no .npy files. Unpack or copy"):
        read_published(kind, tmp_path, **({"fps": 25} if kind == "npy" else {}))


def test_unknown_kind(tmp_path):
    with pytest.raises(ValueError, match=r"kind must be one of xd_violence, rtfm, ar_net, npy, got 'xd'"):
        read_published("xd", tmp_path)


def test_no_such_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder. Give the folder"):
        read_published("rtfm", tmp_path / "nowhere")


def test_unknown_option(tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword argument 'fps'"):
        read_published("xd_violence", tmp_path, fps=25)


def test_split_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"split must be one of train, validation, test, got 'dev'"):
        read_published("xd_violence", make_xd(tmp_path), split="dev")


def test_validation_needs_a_seed(tmp_path):
    with pytest.raises(ValueError, match=r"fixes test and train alone. Give a seed to hold a quarter"):
        read_published("xd_violence", make_xd(tmp_path), split="validation")


def test_split_without_folder(tmp_path):
    make_rtfm(tmp_path / "SH_Train", {"01_001": 2})
    with pytest.raises(ValueError, match=r"has no video in split test"):
        read_published("rtfm", tmp_path, split="test")


def test_two_folders_of_one_split(tmp_path):
    make_rtfm(tmp_path / "SH_Train", {"01_001": 2})
    make_rtfm(tmp_path / "UCF_Train", {"Abuse001_x264": 2})
    with pytest.raises(ValueError, match=r"several folders of one split: SH_Train, UCF_Train. Keep one corpus"):
        read_published("rtfm", tmp_path)


def test_one_video_in_two_splits(tmp_path):
    make_rtfm(tmp_path / "SH_Train", {"01_001": 2})
    make_rtfm(tmp_path / "SH_Test", {"01_001": 2})
    with pytest.raises(ValueError, match=r"01_001 is there 2 times. Leave it in one place, and in one split"):
        read_published("rtfm", tmp_path)


@pytest.mark.parametrize("name", ["a", "a_label_", "a_label_B3-0-0", "a_label_B1-A", "a_label_0-0-0"])
def test_xd_violence_name_without_label(tmp_path, name):
    save(tmp_path / "RGB" / f"{name}__0.npy", 2, 4)
    with pytest.raises(ValueError, match=rf"The name {name} tells no label: it must end with '_label_A'"):
        read_published("xd_violence", tmp_path)


@pytest.mark.parametrize("name", ["1_0014", "01_14", "video7", "Abusive001_x264"])
def test_rtfm_name_without_label(tmp_path, name):
    make_rtfm(tmp_path / "Train", {name: 2})
    with pytest.raises(ValueError, match=rf"The name {name} tells no label: it is neither ShanghaiTech's"):
        read_published("rtfm", tmp_path)


@pytest.mark.parametrize(
    "line", ["x_label_B1-0-0", "x_label_B1-0-0 3", "x_label_B1-0-0 9 3", "x_label_B1-0-0 -1 -1", "x 3 9"]
)
def test_xd_violence_annotation_that_is_none(tmp_path, line):
    make_xd(tmp_path)
    (tmp_path / "annotations.txt").write_text(f"Fast Five 2__#0_label_B6-0-0 0 9\n{line}\n")
    with pytest.raises(ValueError, match=rf"annotations.txt, line 2: '{line}' is not a name and pairs of frames"):
        read_published("xd_violence", tmp_path)


def test_xd_violence_annotation_without_features(tmp_path):
    make_xd(tmp_path)
    (tmp_path / "annotations.txt").write_text("y__#1_label_B1-0-0 0 9\n")
    with pytest.raises(ValueError, match=r"y__#1_label_B1-0-0 is in .*annotations.txt, but no folder holds"):
        read_published("xd_violence", tmp_path)


def test_list_that_is_not_utf8(tmp_path):
    make_xd(tmp_path)
    (tmp_path / "annotations.txt").write_bytes("é_label_B1 0 9".encode("latin1"))
    with pytest.raises(ValueError, match=r"annotations.txt is not text in UTF-8"):
        read_published("xd_violence", tmp_path)


def test_ar_net_unknown_stream(tmp_path):
    with pytest.raises(ValueError, match=r"has no stream 'depth', but combine, flow, rgb. Give one"):
        read_published("ar_net", make_ar_net(tmp_path), stream="depth")


def test_ar_net_listed_without_label_or_features(tmp_path):
    root = make_ar_net(tmp_path) / "shanghaitech"
    (root / "test_split.txt").write_text("02_0128\n03_0031\n")
    with pytest.raises(ValueError, match=r"03_0031 is in test_split.txt, but has no label 0 or 1"):
        read_published("ar_net", tmp_path)
    labels = {"01_001": [0], "01_0014": [1], "02_0128": [1], "03_0031": [1]}
    (root / "GT" / "video_label.pickle").write_bytes(pickle.dumps(labels))
    with pytest.raises(
        ValueError, match=r"1 problems .*\n- .*combine/03_0031/feature.npy is missing. .* the corpus's lists"
    ):
        read_published("ar_net", tmp_path)


def test_ar_net_labels_that_are_no_dict(tmp_path):
    path = make_ar_net(tmp_path) / "shanghaitech" / "GT" / "video_label.pickle"
    path.write_bytes(pickle.dumps([1.0]))
    with pytest.raises(ValueError, match=r"video_label.pickle holds a list, needed is a dict of labels by id"):
        read_published("ar_net", tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"has the columns none; needed are id and label"),
        ("id;label\n", r"has the columns id;label; needed are id and label"),
        ("id,label,Split\n", r"has the columns id, label, Split; .* known besides are anomaly, split and scene"),
        ("id,label\na,x\na,y\n", r"line 3: each line needs an id of its own"),
        ("id,label\na,x,y\n", r"line 2: each line needs .* no more cells"),
        ("id,label,anomaly\na,x,yes\n", r"line 2: anomaly must be 0, 1 or empty .* got 'yes'"),
        ("id,label,split\na,x,half\n", r"line 2: .* split train, validation, test or empty, got '1' and 'half'"),
        ("id,label\na,norml\n", r"'norml' would count as an anomaly, and is nearly spelt 'normal'"),
        ("id,label\na,x\nb,x\n", r"visual/b.npy is missing. .* take its video off the corpus's lists"),
    ],
)
def test_npy_list_that_is_wrong(tmp_path, text, words):
    save(tmp_path / "visual" / "a.npy", 2, 4)
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_published("npy", tmp_path, fps=25)


def test_npy_options(tmp_path):
    save(tmp_path / "visual" / "a.npy", 2, 4)
    with pytest.raises(TypeError, match="'fps'"):
        read_published("npy", tmp_path)
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"fps must be the videos' frames a second, above 0, got"):
            read_published("npy", tmp_path, fps=fps)
    for options in ({"clip_length": 0}, {"crop_axis": 2}):
        with pytest.raises(ValueError, match=r"clip_length must be 1 frame or more and crop_axis 0, 1 or None"):
            read_published("npy", tmp_path, fps=25, **options)


def test_published_features_are_not_uploaded(tmp_path):
    with pytest.raises(TypeError, match=r"Published features are not uploaded again"):
        read_published("xd_violence", make_xd(tmp_path)).push_to_hub("user/name")
