"""Folders of every layout give the same rows, and what cannot be told apart is refused."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from avad_hf.corpora.manifest import ManifestError, read_manifest, write_manifest
from avad_hf.corpora.scan import probe, scan
from avad_hf.corpora.splits import with_split_columns

from .layouts import MAVAD_LAYOUTS, SHADE_LAYOUTS, Media, mavad_tree, shade_tree


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return Media(tmp_path_factory.mktemp("media"))


def stem(row) -> str:
    return (
        row["video"].rsplit("/", 1)[-1].rsplit(".", 1)[0]
        if "." in Path(row["video"]).suffix
        else Path(row["video"]).name
    )


@pytest.mark.parametrize("layout", MAVAD_LAYOUTS)
def test_mavad_layouts_load_to_the_same_rows(media, tmp_path, layout):
    root = tmp_path / "corpus"
    expected = mavad_tree(media, root, layout)
    found = scan(root)
    assert found.corpus == "mavad" and found.layout.startswith(layout[:2])
    rows = [(r["scene"], r["label"], r["split"], stem(r), r["audio"] is not None) for r in found.rows]
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert all(r["anomaly"] == (r["label"] != "normal") for r in found.rows)
    assert all(os.path.exists(r["video"]) and r["id"] == os.path.relpath(r["video"], root) for r in found.rows)
    for row in found.rows:
        assert row["audio"] is None or stem({"video": row["audio"]}) == stem(row)
    assert not found.orphans


@pytest.mark.parametrize("layout", SHADE_LAYOUTS)
def test_shade_layouts_load_to_the_same_rows(media, tmp_path, layout):
    expected = shade_tree(media, tmp_path, layout)
    found = scan(tmp_path, fps=30)
    assert found.corpus == "shade" and found.layout.startswith(layout[:2])
    rows = [(r["label"], r["split"], stem(r), r["audio"] is not None) for r in found.rows]
    assert sorted(rows, key=str) == sorted(expected, key=str)
    assert {r["fps"] for r in found.rows} == ({30} if layout == "S3" else {None})


def test_the_root_may_be_the_scene(media, tmp_path):
    media.put(tmp_path / "Zejtun-Field" / "normal" / "a.mp4")
    assert scan(tmp_path / "Zejtun-Field").rows[0]["scene"] == "zejtun_field"
    (tmp_path / "Zejtun-Field").rename(tmp_path / "x")
    assert scan(tmp_path / "x").rows[0]["scene"] is None
    assert scan(tmp_path / "x", scene="zf").rows[0]["scene"] == "zejtun_field"


def test_same_names_in_different_folders(media, tmp_path):
    for scene in ("mgarr", "zs"):
        for label in ("normal", "bus"):
            media.put(tmp_path / scene / label / "1.mp4", "silent")
            media.put(tmp_path / scene / label / "1.wav", "sound")
    rows = scan(tmp_path).rows
    assert len({row["id"] for row in rows}) == 4
    assert all(Path(row["audio"]).parent == Path(row["video"]).parent for row in rows)


def test_sound_is_never_another_videos(media, tmp_path):
    media.put(tmp_path / "mgarr" / "normal" / "1.mp4")
    media.put(tmp_path / "mgarr" / "bus" / "1.mp4")
    media.put(tmp_path / "mgarr" / "bus" / "1.wav", "sound")
    media.put(tmp_path / "mgarr" / "bus" / "2.wav", "sound")
    found = scan(tmp_path)
    assert {row["id"]: row["audio"] for row in found.rows} == {
        "mgarr/bus/1.mp4": str(tmp_path / "mgarr" / "bus" / "1.wav"), "mgarr/normal/1.mp4": None,
    }  # fmt: skip
    assert [path.name for path in found.orphans] == ["2.wav"]
    media.put(tmp_path / "mgarr" / "bus" / "1.mkv", "silent")
    with pytest.raises(ValueError, match=r"1.wav would belong to two videos, .*1.mkv and .*1.mp4"):
        scan(tmp_path)
    (tmp_path / "mgarr" / "bus" / "1.mkv").unlink()
    media.put(tmp_path / "mgarr" / "bus" / "1.flac", "sound")
    with pytest.raises(ValueError, match=r"Which sound belongs to .*bus/1.mp4, .*1.flac or .*1.wav"):
        scan(tmp_path)


def test_one_scene_with_folders_for_sound(media, tmp_path):
    media.put(tmp_path / "video" / "normal" / "1.mp4", "silent")
    media.put(tmp_path / "video" / "bus" / "2.mp4", "silent")
    media.put(tmp_path / "audio" / "1.wav", "sound")
    media.put(tmp_path / "audio" / "bus" / "2.wav", "sound")
    found = scan(tmp_path)
    assert [Path(row["audio"]).name for row in found.rows] == ["2.wav", "1.wav"] and not found.orphans


def test_numbers_for_names_make_no_shanghaitech(media, tmp_path):
    for place in ("mgarr/normal/01_001", "mgarr/bus/01_002", "zf/bus/01_002"):
        media.put(tmp_path / f"{place}.mp4")
    found = scan(tmp_path)
    assert found.corpus == "mavad"
    assert [(r["id"], r["label"]) for r in found.rows] == [
        ("mgarr/bus/01_002.mp4", "bus"), ("mgarr/normal/01_001.mp4", "normal"), ("zf/bus/01_002.mp4", "bus"),
    ]  # fmt: skip


def test_pictures_in_the_root_are_no_video(media, tmp_path):
    media.put(tmp_path / "normal" / "a.mp4")
    media.put(tmp_path / "normal" / "thumbnail.jpg", "picture")
    media.put(tmp_path / "poster.jpg", "picture")
    assert [row["id"] for row in scan(tmp_path).rows] == ["normal/a.mp4"]


def test_own_classes(media, tmp_path):
    for label in ("Normal", "rush hour", "Fire"):
        media.put(tmp_path / "tunnel 1" / label / "a.mp4")
    found = scan(tmp_path, classes=["normal", "rush-hour", "fire"])
    assert found.corpus == "own"
    assert {(r["scene"], r["label"], r["anomaly"]) for r in found.rows} == {
        ("tunnel 1", "normal", 0), ("tunnel 1", "rush_hour", 1), ("tunnel 1", "fire", 1),
    }  # fmt: skip


def test_unknown_classes_are_never_anomalies(media, tmp_path):
    for label in ("normal", "bus", "Lorry", "nornal"):
        media.put(tmp_path / "mgarr" / label / "a.mp4")
    with pytest.raises(
        ManifestError, match=r"'Lorry', 'nornal' are no classes .* Names seen: Lorry, bus, normal, nornal"
    ):
        scan(tmp_path)
    with pytest.raises(ManifestError, match=r"'bus', 'normal' are no classes|'Lorry', 'bus', 'normal'"):
        scan(tmp_path, corpus="shade")
    with pytest.raises(ManifestError, match="corpus must be one of mavad, shade, shanghaitech, got 'ucf'"):
        scan(tmp_path, corpus="ucf")

    with pytest.raises(ManifestError, match="None of the classes Normal_Videos, bus is normal"):
        scan(tmp_path, classes=["Normal_Videos", "bus"])


def test_many_unknown_classes_make_a_short_message(media, tmp_path):
    for index in range(100):
        media.put(tmp_path / f"clip {index:03d}" / "a.mp4")
    with pytest.raises(ManifestError, match=r"clip 019 and 80 more. Classes known") as error:
        scan(tmp_path)
    assert len(str(error.value)) < 1500


def test_unknown_scene(media, tmp_path):
    media.put(tmp_path / "valletta" / "normal" / "a.mp4")
    with pytest.raises(ManifestError, match=r"'valletta' is no scene of MAVAD. Scenes known: mgarr"):
        scan(tmp_path)


def test_what_cannot_be_told_apart(media, tmp_path):
    media.put(tmp_path / "mgarr" / "normal" / "a.mp4")
    media.put(tmp_path / "normal" / "b.mp4")
    with pytest.raises(ManifestError, match="which folders are scenes and which are classes"):
        scan(tmp_path)
    flat = media.put(tmp_path / "flat" / "a.mp4").parent
    with pytest.raises(ManifestError, match=r"a.mp4: neither a folder nor annotations.csv"):
        scan(flat)
    media.put(tmp_path / "two" / "train" / "test" / "normal" / "a.mp4")
    with pytest.raises(ManifestError, match="lies in folders of two splits"):
        scan(tmp_path / "two")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        scan(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no video"):
        scan(tmp_path / "empty")


def test_links(media, tmp_path):
    media.put(tmp_path / "disk" / "normal" / "a.mp4")
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "root" / "mgarr")
    assert len(scan(tmp_path / "root").rows) == 1
    os.symlink(tmp_path / "root", tmp_path / "disk" / "normal" / "round")
    with pytest.raises(ValueError, match=r"round is a link back to .*root, which holds it"):
        scan(tmp_path / "root")
    (tmp_path / "disk" / "normal" / "round").unlink()
    os.symlink(tmp_path / "disk" / "normal" / "b.mp4", tmp_path / "disk" / "normal" / "b.mp4")
    with pytest.raises(ValueError, match=r"b.mp4 is a link that leads back to itself. Remove it"):
        scan(tmp_path / "root")
    (tmp_path / "disk" / "normal" / "b.mp4").unlink()
    os.symlink(tmp_path / "gone.mp4", tmp_path / "disk" / "normal" / "b.mp4")
    found = probe(scan(tmp_path / "root"))
    assert len(found.rows) == 1 and found.unreadable[0][0] == "mgarr/normal/b.mp4"


def test_a_name_that_is_no_text(media, tmp_path):
    media.put(tmp_path / "normal" / "a.mp4")
    (tmp_path / "normal" / os.fsdecode(b"b\xff.mp4")).touch()
    with pytest.raises(ValueError, match=r"the name b'b.xff.mp4' is no UTF-8"):
        scan(tmp_path)


def test_hidden_files_are_not_seen(media, tmp_path):
    media.put(tmp_path / "normal" / "a.mp4")
    media.put(tmp_path / "normal" / "._a.mp4")
    media.put(tmp_path / ".Trash" / "Lorry" / "a.mp4")
    assert [row["id"] for row in scan(tmp_path).rows] == ["normal/a.mp4"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"annotations.csv": "a.mp4,normal\nb.mp4,bus\nc.mp4,bus"},
            "lists 1 videos that are not there, first 'c.mp4'",
        ),
        ({"annotations.csv": "a.mp4,normal"}, r"b.mp4 has no label"),
        ({"annotations.csv": "a.mp4,normal,holdout\nb.mp4,bus,test"}, "a.mp4 is of split 'holdout'"),
        (
            {"annotations.csv": "a.mp4,normal", "annotations.txt": "b.mp4 bus"},
            "has annotations.csv and annotations.txt",
        ),
        ({"annotations.json": '[{"path": "a.mp4"}]'}, "must be an object of path and label"),
        (
            {"train.txt": "a.mp4 normal", "test.txt": "a.mp4 normal\nb.mp4 bus"},
            "a.mp4 is in the list of another split",
        ),
        ({"train.txt": "a.mp4 normal"}, "1 videos are in no list, first .*b.mp4"),
        ({"Train.TXT": "a.mp4 normal"}, "1 videos are in no list, first .*b.mp4"),
        ({"annotations.csv": "a.mp4,normal\na.mp4,bus\nb.mp4,bus"}, "annotations.csv lists a.mp4 twice"),
        ({"annotations.json": '{"a.mp4": {"label": "bus"}, "b.mp4": "bus"}'}, "must be an object of path and label"),
        ({"annotations.json": "{"}, "annotations.json is no JSON in UTF-8"),
        ({"annotations.csv": b"a.mp4,normal\nb.mp4,b\xfcs"}, "annotations.csv is no text in UTF-8"),
        ({"annotations.csv": "a.mp4,normal,test\nb.mp4,bus"}, "1 of 2 rows have no split"),
    ],
)
def test_broken_annotations(media, tmp_path, files, words):
    for name in ("a.mp4", "b.mp4"):
        media.put(tmp_path / name)
    for name, text in files.items():
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError, match=words):
        scan(tmp_path)


def test_hard_names_and_labels_in_lists(media, tmp_path):
    names = ["#1 a, b.mp4", "two words.mp4", "plain.mp4"]
    for name in names:
        media.put(tmp_path / name)
    (tmp_path / "annotations.txt").write_text(
        "# a comment\n#1 a, b.mp4 heavy weight vehicles\ntwo words.mp4 u turn test\nplain normal train\n"
    )
    with pytest.raises(ManifestError, match="1 of 3 rows have no split"):
        scan(tmp_path)
    (tmp_path / "annotations.txt").write_text(
        "#1 a, b.mp4 heavy weight vehicles train\ntwo words.mp4 u turn test\nplain normal train\n"
    )
    assert [(r["label"], r["split"]) for r in scan(tmp_path).rows] == [
        ("heavy_goods_vehicle", "train"), ("normal", "train"), ("u_turn", "test"),
    ]  # fmt: skip
    shade = media.put(tmp_path / "s" / "knowkdown" / "a, b.mp4").parents[1]
    (shade / "train.txt").write_text("knowkdown/a, b.mp4")
    assert scan(shade).rows[0]["split"] == "train"
    (shade / "train.txt").write_text("knowkdown/a, b.mp4 knockdown")
    assert scan(shade).rows[0]["label"] == "knockdown"


def test_a_list_and_a_folder_of_different_splits(media, tmp_path):
    media.put(tmp_path / "train" / "run" / "a.mp4")
    (tmp_path / "test.txt").write_text("train/run/a.mp4")
    with pytest.raises(ManifestError, match=r"lies in a folder of train, and a list says test. Which is it"):
        scan(tmp_path)
    (tmp_path / "test.txt").unlink()
    media.put(tmp_path / "run" / "b.mp4")
    with pytest.raises(ManifestError, match=r"1 of 2 rows have no split, first run/b.mp4"):
        scan(tmp_path)


def test_a_list_that_contradicts_a_folder(media, tmp_path):
    media.put(tmp_path / "run" / "a.mp4")
    (tmp_path / "train.txt").write_text("run/a.mp4 shoot")
    with pytest.raises(ManifestError, match="lies in the folder 'run', and a list says 'shoot'"):
        scan(tmp_path)


def test_meta_adds_hour_weather_and_darkness(media, tmp_path):
    for name in ("a", "b", "c"):
        media.put(tmp_path / "train" / "run" / f"{name}.mp4")
    (tmp_path / "meta.csv").write_text(
        "video,time,weather,dark,crowd\na,21:30,rain,,3\ntrain/run/b.mp4,,foggy,true,\n"
    )
    a, b, c = scan(tmp_path).rows
    assert (a["hour"], a["weather"], a["dark"], a["crowd"]) == (21, "rain", None, 3)
    assert (b["hour"], b["weather"], b["dark"]) == (None, "foggy", True)
    assert (c["hour"], c["weather"], c["dark"]) == (None, None, None)
    (tmp_path / "meta.csv").write_text("video,hour\nz,3\n")
    with pytest.raises(ManifestError, match=r"meta.csv, row 2: 'z' names no video"):
        scan(tmp_path)
    for text, words in (
        ("video,label\na,lorry\n", "the column 'label' is told by folders and lists"),
        ("video,split\na,val\n", "the column 'split' is told by folders and lists"),
        ("video,Hour\na,3\n", "the column 'Hour' is unknown; 'hour' is not there"),
        ("video,hour\na,3\na,4\n", "row 3: 'a' stands there twice"),
        ("hour\n3\n", "needs a column video"),
    ):
        (tmp_path / "meta.csv").write_text(text)
        with pytest.raises(ManifestError, match=words):
            scan(tmp_path)
    (tmp_path / "meta.csv").write_text("video,hour\na,30\n")
    with pytest.raises(ManifestError, match=r"meta.csv, row 2: hour is 30, but must be within 0 and 23"):
        scan(tmp_path)


def test_probe_finds_rates_silence_and_broken_files(media, tmp_path):
    for name, what in (("a", "video"), ("b", "silent")):
        media.put(tmp_path / "mgarr" / "normal" / f"{name}.mp4", what)
    (tmp_path / "mgarr" / "normal" / "broken.mp4").write_text("<html>")
    media.put(tmp_path / "mgarr" / "normal" / "nobody's.wav", "sound")
    counts = []
    found = probe(scan(tmp_path), counts.append)
    assert counts == [1, 2, 3]
    assert [(row["id"], row["fps"]) for row in found.rows] == [(f"mgarr/normal/{n}.mp4", 25.0) for n in "ab"]
    assert found.silent == ("mgarr/normal/b.mp4",)
    assert [path.name for path in found.orphans] == ["nobody's.wav"]
    ((broken, reason),) = found.unreadable
    assert broken == "mgarr/normal/broken.mp4" and "cannot be opened as video" in reason


def test_a_scan_survives_its_manifest(media, tmp_path):
    mavad_tree(media, tmp_path / "corpus", "L3")
    rows = with_split_columns(scan(tmp_path / "corpus").rows)
    for ending in ("csv", "jsonl", "parquet"):
        write_manifest(rows, tmp_path / f"m.{ending}")
        assert [{k: r[k] for k in rows[0]} for r in read_manifest(tmp_path / f"m.{ending}")] == rows
    counts = Counter(row["split_1"] for row in rows)
    assert counts["train"] >= 7 and set(counts) == {"train", "test", "validation"}


def test_probe_measures_shades_darkness_and_survives_what_cannot_be_decoded(media, tmp_path):
    media.put(tmp_path / "run" / "a.mp4")
    data = bytearray(media.put(tmp_path / "run" / "b.mp4").read_bytes())
    begin = data.index(b"mdat") + 4
    data[begin : begin + 2000] = bytes(2000)
    (tmp_path / "run" / "b.mp4").write_bytes(data)
    found = probe(scan(tmp_path))
    assert [(row["id"], row["dark"], row["dark_source"]) for row in found.rows] == [("run/a.mp4", False, "luma")]
    assert found.unreadable[0][0] == "run/b.mp4" and "no frame can be decoded" in found.unreadable[0][1]


def test_names_in_messages_are_whole(tmp_path):
    """A folder with a bracket in its name must not break a message or a pattern."""
    root = tmp_path / "a[1] %06d"
    root.mkdir()
    with pytest.raises(ValueError, match=re.escape("a[1] %06d holds no video")):
        scan(root)
