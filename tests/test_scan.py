"""Folders of every layout give the same rows, and what cannot be told apart is refused."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from avad_hf.cli import app
from avad_hf.corpora.manifest import ManifestError, read_manifest, write_manifest
from avad_hf.corpora.scan import probe, scan
from avad_hf.corpora.splits import with_split_columns

from .layouts import MAVAD_LAYOUTS, OWN_LAYOUTS, SHADE_LAYOUTS, Media, mavad_tree, own_tree, shade_tree


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
    for label in ("normal", "bus"):
        media.put(tmp_path / "Zejtun-Field" / label / "a.mp4")
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
    words = (
        r"Unknown classes: Lorry, nornal. Names seen: Lorry, bus, normal, nornal. Known classes: mavad: normal, ped"
    )
    with pytest.raises(ManifestError, match=words):
        scan(tmp_path)
    with pytest.raises(
        ManifestError, match=r"If the classes are your own, say which of them are normal; .*--normal ok"
    ):
        scan(tmp_path)
    with pytest.raises(ManifestError, match=r"Unknown classes: Lorry, bus, normal, nornal"):
        scan(tmp_path, corpus="shade")
    with pytest.raises(ManifestError, match="corpus must be one of mavad, shade, shanghaitech, got 'ucf'"):
        scan(tmp_path, corpus="ucf")

    with pytest.raises(ManifestError, match=r"None of the classes Normal_Videos, bus is normal. .* \(--normal\)"):
        scan(tmp_path, classes=["Normal_Videos", "bus"])


# Classes of one's own, of which is said which are normal


@pytest.mark.parametrize("layout", OWN_LAYOUTS)
def test_own_names_are_kept_as_they_are_written(media, tmp_path, layout):
    expected = own_tree(media, tmp_path / "corpus", layout)
    found = scan(tmp_path / "corpus", normal=["ok", "Night Shift"])
    assert found.corpus == "own" and found.layout.startswith(layout[:2])
    rows = [(r["scene"], r["label"], r["anomaly"], r["split"], stem(r)) for r in found.rows]
    assert sorted(rows, key=str) == expected
    # The names, and what is normal, stay through a manifest.
    rows = with_split_columns(found.rows)
    for ending in ("csv", "jsonl", "parquet"):
        write_manifest(rows, tmp_path / f"m.{ending}")
        assert [{k: r[k] for k in rows[0]} for r in read_manifest(tmp_path / f"m.{ending}")] == rows


def test_a_folder_with_normal_videos_alone_is_no_known_corpus(media, tmp_path):
    media.put(tmp_path / "normal" / "a.mp4")
    media.put(tmp_path / "normal" / "a.wav", "sound")
    found = scan(tmp_path)
    assert (found.corpus, found.layout) == ("own", "L2 (class/clip)")
    assert [(r["label"], r["anomaly"], r["scene"]) for r in found.rows] == [("normal", 0, None)]
    assert found.rows[0]["audio"] is not None
    assert scan(tmp_path, scene="gate").rows[0]["scene"] == "gate"
    # One anomaly of MAVAD, or its name, makes it MAVAD.
    assert scan(tmp_path, corpus="mavad").corpus == "mavad"
    media.put(tmp_path / "bus" / "b.mp4")
    assert scan(tmp_path).corpus == "mavad"
    (tmp_path / "bus").rename(tmp_path / "normal 2")
    assert {(r["label"], r["anomaly"]) for r in scan(tmp_path).rows} == {("normal", 0), ("normal_2", 0)}


def test_one_normal_class_of_ones_own_alone(media, tmp_path):
    media.put(tmp_path / "ok" / "a.mp4")
    with pytest.raises(ManifestError, match="Unknown classes: ok"):
        scan(tmp_path)
    (row,) = scan(tmp_path, normal=["ok"]).rows
    assert (row["label"], row["anomaly"]) == ("ok", 0)
    assert scan(tmp_path, normal="ok").rows == [row]


def test_classes_restrict_and_normal_says_which(media, tmp_path):
    for label in ("OK", "Leak"):
        media.put(tmp_path / label / "a.mp4")
    found = scan(tmp_path, classes=["ok", "leak", "fire"], normal=["ok"])
    assert [(r["label"], r["anomaly"]) for r in found.rows] == [("Leak", 1), ("OK", 0)]
    with pytest.raises(
        ManifestError, match=r"Unknown classes: Leak. Names seen: Leak, OK. Known classes: own: ok, fire"
    ):
        scan(tmp_path, classes=["ok", "fire"], normal=["ok"])


def test_known_names_with_normal_are_ones_own(media, tmp_path):
    """MAVAD's and SHADE's names, and ShanghaiTech's, are no corpus once it is said what is normal."""
    for label in ("Normal", "HGV", "run"):
        media.put(tmp_path / "a" / label / "01_001.mp4")
    found = scan(tmp_path / "a", normal=["normal"])
    assert found.corpus == "own"
    assert [(r["label"], r["anomaly"]) for r in found.rows] == [("HGV", 1), ("Normal", 0), ("run", 1)]
    media.put(tmp_path / "b" / "training" / "ok" / "01_001.mp4")
    found = scan(tmp_path / "b", normal=["ok"])
    assert [(found.corpus, r["label"], r["split"]) for r in found.rows] == [("own", "ok", "train")]


@pytest.mark.parametrize(
    ("folders", "options", "words"),
    [
        (
            ["ok", "leak"],
            {"normal": ["okay"]},
            r"--normal okay: there is no such class. Is 'ok' meant\? Names seen: leak",
        ),
        (["ok", "leak"], {"normal": ["ok/"]}, r"--normal ok/: there is no such class. Is 'ok' meant\?"),
        (["ok", "leak"], {"normal": ["zebra"]}, r"--normal zebra: there is no such class. Names seen: leak, ok"),
        (["ok", "leak"], {"normal": []}, r"No class is named as normal. Name one or more \(--normal\). Names seen"),
        (
            ["ok", "leak"],
            {"normal": ["ok"], "corpus": "mavad"},
            "--normal is for classes of your own, but those of mavad",
        ),
        (["ok", "leak", "normal"], {"normal": ["ok"]}, r"'normal' would count as an anomaly, since only ok is named"),
        (
            ["ok", "nornal"],
            {"normal": ["ok"]},
            r"'nornal' would count as an anomaly.* \(--normal 'nornal'\), or rename",
        ),
        (["normal", "nornal"], {"normal": ["normal"]}, "'nornal' would count as an anomaly"),
        (["a/ok", "b/OK", "b/leak"], {"normal": ["ok"]}, "'OK' and 'ok' differ only in spelling. Write them alike"),
    ],
)
def test_what_is_not_said_clearly_of_own_classes(media, tmp_path, folders, options, words):
    depth = max(folder.count("/") for folder in folders)
    for folder in folders:
        media.put(tmp_path / ("s/" * (depth - folder.count("/")) + folder) / "a.mp4")
    with pytest.raises(ManifestError, match=words):
        scan(tmp_path, **options)


def test_ordinary_pairs_of_names(media, tmp_path):
    for normal, anomaly in (("normal", "abnormal"), ("normal", "anormal"), ("ok", "nok"), ("0", "1"), ("iO", "niO")):
        root = tmp_path / normal / anomaly
        for label in (normal, anomaly):
            media.put(root / label / "a.mp4")
        assert {r["label"]: r["anomaly"] for r in scan(root, normal=[normal]).rows} == {normal: 0, anomaly: 1}


# Clips alone


def test_a_flat_folder_is_listed_without_labels(media, tmp_path):
    for name in ("a", "b"):
        media.put(tmp_path / f"{name}.mp4", "silent")
    media.put(tmp_path / "a.wav", "sound")
    (tmp_path / "meta.csv").write_text("video,group,hour\na,2026-03-01,7\nb,2026-03-02,\n")
    found = probe(scan(tmp_path))
    assert (found.corpus, found.layout) == ("own", "clips without labels")
    assert [(r["id"], r["label"], r["anomaly"], r["scene"], r["split"], r["group"]) for r in found.rows] == [
        ("a.mp4", None, None, None, None, "2026-03-01"), ("b.mp4", None, None, None, None, "2026-03-02"),
    ]  # fmt: skip
    assert [r["audio"] for r in found.rows] == [str(tmp_path / "a.wav"), None] and found.silent == ("b.mp4",)
    assert {r["scene"] for r in scan(tmp_path, scene="gate").rows} == {"gate"}
    write_manifest(found.rows, tmp_path / "manifest.csv")
    assert "label" not in (tmp_path / "manifest.csv").read_text().splitlines()[0]
    assert [r["anomaly"] for r in read_manifest(tmp_path / "manifest.csv")] == [None, None]


def test_clips_without_labels_may_have_sets_sound_folders_and_pictures(media, tmp_path):
    media.put(tmp_path / "a" / "train" / "1.mp4")
    media.put(tmp_path / "a" / "test" / "2.mp4")
    found = scan(tmp_path / "a")
    assert found.layout == "clips without labels"
    assert [(r["split"], r["label"]) for r in found.rows] == [("test", None), ("train", None)]
    for name in ("1", "2"):
        media.put(tmp_path / "b" / f"{name}.mp4")
    (tmp_path / "b" / "train.txt").write_text("1.mp4")
    (tmp_path / "b" / "test.txt").write_text("2.mp4")
    assert [(r["split"], r["label"]) for r in scan(tmp_path / "b").rows] == [("train", None), ("test", None)]
    (tmp_path / "b" / "test.txt").write_text("2.mp4 bus")
    with pytest.raises(ManifestError, match=r"1.mp4: neither a folder nor annotations.csv"):
        scan(tmp_path / "b")
    media.put(tmp_path / "c" / "videos" / "1.mp4", "silent")
    media.put(tmp_path / "c" / "audio" / "1.wav", "sound")
    (row,) = scan(tmp_path / "c").rows
    assert row["label"] is None and row["audio"] == str(tmp_path / "c" / "audio" / "1.wav")
    for frame in range(3):
        media.put(tmp_path / "d" / "clip" / f"{frame:06d}.jpg", "picture")
    (row,) = scan(tmp_path / "d", fps=10).rows
    assert (row["id"], row["label"], row["fps"]) == ("clip", None, 10)


def test_clips_beside_class_folders_are_no_flat_folder(media, tmp_path):
    media.put(tmp_path / "a.mp4")
    media.put(tmp_path / "normal" / "b.mp4")
    with pytest.raises(ManifestError, match=r"a.mp4: neither a folder nor annotations.csv"):
        scan(tmp_path)


# Groups


def test_meta_names_groups_and_fixed_splits_may_not_divide_them(media, tmp_path):
    for place in ("train/run/a", "train/run/b", "test/run/c"):
        media.put(tmp_path / f"{place}.mp4")
    (tmp_path / "meta.csv").write_text("video,group\na,007\nb,007\n")
    assert [r["group"] for r in scan(tmp_path).rows] == [None, "007", "007"]
    (tmp_path / "meta.csv").write_text("video,group\na,monday\nb,tuesday\nc,monday\n")
    words = (
        r"The column split divides 1 groups, first 'monday': it is in test \(test/run/c.mp4\) and train \(train/run/a"
    )
    with pytest.raises(ManifestError, match=words):
        scan(tmp_path)


# The command


def run(*arguments, code=0):
    result = CliRunner().invoke(app, ["scan", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_command_with_own_classes(media, tmp_path):
    for label in ("ok", "night shift", "leak"):
        media.put(tmp_path / "v" / label / "a.mp4")
    for number, options in enumerate((["--normal", "ok", "--normal", "night shift"], ["--normal", "ok, night shift"])):
        said = run(tmp_path / "v", "-o", tmp_path / f"{number}.csv", *options)
        assert "own, layout L2 (class/clip): 3 videos" in said
        rows = read_manifest(tmp_path / f"{number}.csv")
        assert [(r["label"], r["anomaly"]) for r in rows] == [("leak", 1), ("night shift", 0), ("ok", 0)]
    refused = run(tmp_path / "v", "-o", tmp_path / "x.csv", "--normal", "okk", code=2)
    assert "--normal okk: there is no such class. Is 'ok' meant? Names seen: leak, night shift, ok" in refused
    refused = run(tmp_path / "v", "-o", tmp_path / "x.csv", "--normal", "ok", "--corpus", "shade", code=2)
    assert "Give --normal or --corpus, not both" in refused
    assert "No class is named as normal" in run(tmp_path / "v", "-o", tmp_path / "x.csv", "--normal", "", code=2)
    assert not (tmp_path / "x.csv").exists()


def test_command_on_a_flat_folder(media, tmp_path):
    for name in "abc":
        media.put(tmp_path / "v" / f"{name}.mp4")
    said = run(tmp_path / "v", "-o", tmp_path / "m.csv", "--scene", "gate")
    assert "own, layout clips without labels: 3 videos" in said and "(no label)" in said
    assert "The validation set has" not in said  # nothing is known of what is in it
    assert [(r["scene"], r["label"]) for r in read_manifest(tmp_path / "m.csv")] == [("gate", None)] * 3


def test_command_warns_of_few_validation_videos(media, tmp_path):
    for label, count in (("ok", 10), ("leak", 5)):
        for index in range(count):
            media.put(tmp_path / "v" / label / f"{index}.mp4")
    said = run(tmp_path / "v", "-o", tmp_path / "m.csv", "--normal", "ok")
    assert "Note: The validation set has 2 normal and 1 anomalous videos. With fewer than 20 of a kind" in said
    # One that the corpus fixes, and one that is held out of its training set.
    for layout, words in (("val", "1 normal and 1 anomalous"), ("test", "0 normal and 0 anomalous")):
        for split in ("train", layout):
            for label in ("ok", "leak"):
                media.put(tmp_path / layout / split / label / f"{split}.mp4")
        if layout == "val":
            media.put(tmp_path / layout / "test" / "ok" / "t.mp4")
        assert words in run(tmp_path / layout, "-o", tmp_path / f"{layout}.csv", "--normal", "ok")


def test_command_keeps_groups_together(media, tmp_path):
    for label in ("normal", "bus"):
        for index in range(6):
            media.put(tmp_path / "v" / label / f"{label}{index}.mp4")
    lines = [f"{label}{index},day {index // 2}" for label in ("normal", "bus") for index in range(6)]
    (tmp_path / "v" / "meta.csv").write_text("\n".join(["video,group", *lines]))
    run(tmp_path / "v", "-o", tmp_path / "m.csv")
    for seed in (0, 1, 2):
        days = {(r["group"], r[f"split_{seed}"]) for r in read_manifest(tmp_path / "m.csv")}
        assert len(days) == 3 and {split for _, split in days} == {"train", "test", "validation"}


def test_many_unknown_classes_make_a_short_message(media, tmp_path):
    for index in range(100):
        media.put(tmp_path / f"clip {index:03d}" / "a.mp4")
    with pytest.raises(ManifestError, match=r"clip 019 and 80 more. Known classes") as error:
        scan(tmp_path)
    assert len(str(error.value)) < 1500


def test_unknown_scene(media, tmp_path):
    for label in ("normal", "bus"):
        media.put(tmp_path / "valletta" / label / "a.mp4")
    with pytest.raises(ManifestError, match=r"'valletta' is no scene of MAVAD. Scenes known: mgarr"):
        scan(tmp_path)


def test_what_cannot_be_told_apart(media, tmp_path):
    media.put(tmp_path / "mgarr" / "normal" / "a.mp4")
    media.put(tmp_path / "normal" / "b.mp4")
    with pytest.raises(ManifestError, match="which folders are scenes and which are classes"):
        scan(tmp_path)
    flat = media.put(tmp_path / "flat" / "a.mp4").parent
    for options in ({"corpus": "mavad"}, {"classes": ["normal", "fire"]}, {"normal": ["ok"]}):
        words = (
            r"a.mp4: neither a folder nor annotations.csv .* listed without labels where neither corpus nor classes"
        )
        with pytest.raises(ManifestError, match=words):
            scan(flat, **options)
    (flat / "annotations.csv").write_text("path,label\n")
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
