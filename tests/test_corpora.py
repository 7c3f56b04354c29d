"""Builders: what load_dataset gives for each corpus, and that it leaves this machine by plain datasets."""

import os
import shutil
from collections import Counter

import datasets
import numpy as np
import pytest

import avad_hf
from avad_hf.corpora.manifest import ManifestError, write_manifest
from avad_hf.corpora.scan import scan
from avad_hf.corpora.shanghaitech import label_of
from avad_hf.corpora.splits import with_split_columns
from avad_hf.media.sources import open_media

from .hub_server import HubServer
from .layouts import MAVAD, Media, mavad_tree, shade_tree, shanghaitech_tree
from .media_files import frame_times, write_media

datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    return Media(tmp_path_factory.mktemp("media"))


@pytest.fixture
def load(tmp_path):
    def load(*args, **kwargs):
        return avad_hf.load_dataset(*args, cache_dir=tmp_path / "cache", **kwargs)

    return load


def everything(dataset: datasets.DatasetDict) -> list[dict]:
    return sorted((row for part in dataset.values() for row in part), key=lambda row: row["id"])


@pytest.mark.parametrize("layout", ["L1", "L3", "L4"])
def test_mavad(media, tmp_path, load, layout):
    mavad_tree(media, tmp_path / "m", layout)
    corpus = load("mavad", data_dir=tmp_path / "m")
    names = corpus["train"].features["label"].names
    assert len(names) == 11 and corpus["train"].features["anomaly"].names == ["normal", "anomaly"]
    counts = Counter((row["scene"], names[row["label"]]) for row in everything(corpus))
    assert counts == {(scene, label): count for scene, _, label, count in MAVAD}
    assert all((row["label"] == 0) == (row["anomaly"] == 0) for row in everything(corpus))
    if layout == "L4":
        assert {name: len(part) for name, part in corpus.items()} == {"train": 9, "test": 6}
        assert set(load("mavad", data_dir=tmp_path / "m", seed=0)) == {"train", "validation", "test"}
    else:
        assert set(corpus) == {"train", "validation", "test"}
        assert "u_turn" in {names[row["label"]] for row in corpus["train"]}
    one = load("mavad", "zejtun_field", data_dir=tmp_path / "m")
    assert Counter(row["scene"] for row in everything(one)) == {"zejtun_field": 6}
    # A scene is divided alike, by itself and among the others.
    assert {r["id"] for r in one["train"]} == {r["id"] for r in corpus["train"] if r["scene"] == "zejtun_field"}


def test_seeds_expressions_and_streaming(media, tmp_path, load):
    mavad_tree(media, tmp_path / "m", "L1")
    splits = [load("mavad", data_dir=tmp_path / "m", split="train", seed=seed)["id"] for seed in (0, 1, 2)]
    assert splits[0] != splits[1] != splits[2]
    assert load("mavad", data_dir=tmp_path / "m", split="train", seed=1)["id"] == splits[1]
    assert load("mavad", data_dir=tmp_path / "m", split="train[:2]", seed=1)["id"] == splits[1][:2]
    assert len(load("mavad", data_dir=tmp_path / "m", split="train+test+validation")) == 15
    stream = load("mavad", data_dir=tmp_path / "m", split="train", seed=1, streaming=True)
    assert list(stream) == list(load("mavad", data_dir=tmp_path / "m", split="train", seed=1))


def test_a_changed_folder_is_read_anew(media, tmp_path, load):
    mavad_tree(media, tmp_path / "m", "L1")
    assert len(everything(load("mavad", data_dir=tmp_path / "m"))) == 15
    media.put(tmp_path / "m" / "mgarr" / "horse" / "new.mp4")
    assert len(everything(load("mavad", data_dir=tmp_path / "m"))) == 16


def test_a_changed_frame_mask_is_read_anew(media, tmp_path, load):
    video = media.put(tmp_path / "v.mp4")
    np.save(tmp_path / "m.npy", np.zeros(10, dtype=np.uint8))
    (tmp_path / "m.csv").write_text(f"video,label,frame_mask\n{video.name},normal,m.npy\n")
    assert load("manifest", data_dir=tmp_path / "m.csv", split="train")[0]["frame_mask"] == [0] * 10
    np.save(tmp_path / "m.npy", np.ones(10, dtype=np.uint8))
    assert load("manifest", data_dir=tmp_path / "m.csv", split="train")[0]["frame_mask"] == [1] * 10


def test_spellings_in_a_manifest(media, tmp_path, load):
    for name in ("a", "b", "c"):
        media.put(tmp_path / f"{name}.mp4")
    (tmp_path / "m.csv").write_text("video,label,scene\na.mp4,HGV,Mgarr\nb.mp4,Normal,ZS\nc.mp4,u turn,zf\n")
    rows = everything(load("mavad", data_dir=tmp_path / "m.csv"))
    assert [row["scene"] for row in rows] == ["mgarr", "zejtun_scrapyard", "zejtun_field"]
    assert [row["anomaly"] for row in rows] == [1, 0, 1]
    (tmp_path / "m.csv").write_text("video,label\na.mp4,Fire\nb.mp4,fire\nc.mp4,normal\n")
    with pytest.raises(ManifestError, match="'Fire' and 'fire' differ only in spelling"):
        load("manifest", data_dir=tmp_path / "m.csv")


def test_the_rate_of_pictures_can_be_said_when_loading(media, tmp_path, load):
    for index in range(3):
        media.put(tmp_path / "f" / f"{index}.jpg", "picture")
    media.put(tmp_path / "v.mp4")
    (tmp_path / "m.csv").write_text("video,label\nf,normal\nv.mp4,normal\n")
    rows = everything(load("manifest", data_dir=tmp_path / "m.csv", fps=12.5))
    assert [row["fps"] for row in rows] == [12.5, None]


def test_parts_of_a_corpus_know_the_split_of_the_whole(media, tmp_path, load):
    mavad_tree(media, tmp_path / "m", "L1")
    corpus = load("mavad", data_dir=tmp_path / "m", seed=7)
    for split, rows in corpus.items():
        assert set(rows["split_7"]) == {split}
        assert rows["split_0"] != rows["split_7"] or len(rows) < 5


def test_folder_and_manifest_give_the_same(media, tmp_path, load):
    mavad_tree(media, tmp_path / "m", "L3")
    by_folder = load("mavad", data_dir=tmp_path / "m", seed=2)
    write_manifest(with_split_columns(scan(tmp_path / "m").rows), tmp_path / "elsewhere.jsonl")
    by_manifest = load("mavad", data_dir=tmp_path / "elsewhere.jsonl", seed=2)
    own = load("manifest", data_dir=tmp_path / "elsewhere.jsonl", seed=2)
    for part, rows in by_folder.items():
        assert list(by_manifest[part].select_columns(rows.column_names)) == list(rows)
        assert own[part]["id"] == rows["id"]
    # One's own manifest knows the classes that are in it, the normal one first.
    classes = own["train"].features["label"].names
    assert classes == ["normal", "heavy_goods_vehicle", "pedestrians_crossing", "u_turn"]
    write_manifest(scan(tmp_path / "m").rows, tmp_path / "m" / "manifest.csv")
    assert len(everything(load("mavad", data_dir=tmp_path / "m"))) == 15


def test_own_classes_keep_their_names(media, tmp_path, load):
    for label, count in (("leak", 5), ("ok", 10), ("Night shift", 5)):
        for index in range(count):
            media.put(tmp_path / "v" / label / f"{index}.mp4")
    write_manifest(scan(tmp_path / "v", normal=["ok", "night shift"]).rows, tmp_path / "m.csv")
    corpus = load("manifest", data_dir=tmp_path / "m.csv")
    # Normal classes come first.
    assert corpus["train"].features["label"].names == ["Night shift", "ok", "leak"]
    counts = {name: Counter(zip(part["label"], part["anomaly"], strict=True)) for name, part in corpus.items()}
    assert counts["train"] == {(0, 0): 3, (1, 0): 6, (2, 1): 3} and counts["test"] == {(0, 0): 1, (1, 0): 2, (2, 1): 1}


def test_clips_without_labels(media, tmp_path, load):
    for index in range(5):
        media.put(tmp_path / "v" / f"{index}.mp4")
    write_manifest(scan(tmp_path / "v").rows, tmp_path / "m.csv")
    rows = everything(load("manifest", data_dir=tmp_path / "m.csv"))
    assert len(rows) == 5 and {(row["label"], row["anomaly"]) for row in rows} == {(None, None)}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_groups_are_in_one_set_each(media, tmp_path, load, ending):
    mavad_tree(media, tmp_path / "m", "L1")
    found = scan(tmp_path / "m").rows
    rows = [row | {"group": f"{index % 5}"} for index, row in enumerate(found)]
    write_manifest(rows, tmp_path / f"m.{ending}")
    for seed in (0, 7):
        corpus = load("mavad", data_dir=tmp_path / f"m.{ending}", seed=seed)
        assert {row["id"]: row["group"] for row in everything(corpus)} == {row["id"]: row["group"] for row in rows}
        groups = {name: set(part["group"]) for name, part in corpus.items()}
        assert sum(map(len, groups.values())) == 5 and set(groups) == {"train", "validation", "test"}
        # A scene by itself is divided as among the others.
        one = load("mavad", "mgarr", data_dir=tmp_path / f"m.{ending}", seed=seed)
        assert all(set(part["group"]) <= groups[name] for name, part in one.items())
    # Columns of a scan that knew no groups.
    write_manifest(
        [row | {"group": f"{i % 5}"} for i, row in enumerate(with_split_columns(found))], tmp_path / f"old.{ending}"
    )
    with pytest.raises(
        ManifestError, match=r"The column split_0 divides \d groups, .*or remove split_0, and every other"
    ):
        load("mavad", data_dir=tmp_path / f"old.{ending}")


def test_published_splits_do_not_divide_groups(media, tmp_path, load):
    names = (["01_001", "01_0014", "01_002"], ["02_0015", "02_002"])
    shanghaitech_tree(media, tmp_path / "sh", *names)
    found = scan(tmp_path / "sh").rows
    for name, group in (("by scene", lambda row: row["scene"]), ("by number", lambda row: row["id"][3:6])):
        write_manifest([row | {"group": group(row)} for row in found], tmp_path / f"{name}.csv")
    # The lists keep these scenes apart, the original split does not.
    assert len(load("shanghaitech", data_dir=tmp_path / "by scene.csv")["test"]) == 2
    held_out = load("shanghaitech", data_dir=tmp_path / "by scene.csv", seed=0)
    assert {name: len(part) for name, part in held_out.items()} == {"train": 3, "test": 2}
    with pytest.raises(ManifestError, match="The column split_original divides 2 groups, first '01': it is in"):
        load("shanghaitech", "original", data_dir=tmp_path / "by scene.csv")
    with pytest.raises(ManifestError, match=r"The column split divides 2 groups, first '001': it is in train .01_001"):
        load("shanghaitech", data_dir=tmp_path / "by number.csv")


def test_rows_can_be_read_as_they_are(media, tmp_path, load):
    mavad_tree(media, tmp_path / "m", "L3")
    row = load("mavad", data_dir=tmp_path / "m", split="train")[0]
    assert isinstance(row["video"], str)
    with open_media(row) as opened:
        assert opened.info.has_audio and opened.sound(16000).has_sound and len(list(opened.frames(16))) == 10


@pytest.mark.parametrize("layout", ["S1", "S2"])
def test_shade(media, tmp_path, load, layout):
    shade_tree(media, tmp_path / "s", layout)
    corpus = load("shade", data_dir=tmp_path / "s")
    names = corpus["train"].features["label"].names
    assert len(names) == 9 and {name: len(part) for name, part in corpus.items()} == {"train": 5, "test": 3}
    counts = Counter(names[row["label"]] for row in everything(corpus))
    assert counts == {"normal1": 3, "knockdown": 3, "shoot": 2}
    assert [row["anomaly"] for row in everything(corpus)] == [row["label"] < 7 for row in everything(corpus)]
    assert {row["dark_source"] for row in everything(corpus)} == {None}


def test_shades_dark_subset_by_metadata_hour_and_luma(media, tmp_path, load):
    for name in ("a", "b", "c", "d", "e"):
        media.put(tmp_path / "s" / "test" / "run" / f"{name}.mp4")
    night = tmp_path / "s" / "train" / "run" / "night.mp4"
    night.parent.mkdir(parents=True)
    write_media(night, frame_times(25, 0.4), pictures=lambda i, w, h: np.full((h, w, 3), 30, np.uint8))
    meta = "video,hour,dark\na,18,\nb,17,\nc,5,\nd,6,\ne,12,true\n"
    (tmp_path / "s" / "meta.csv").write_text(meta)
    dark = everything(load("shade", "dark", data_dir=tmp_path / "s"))
    assert [(os.path.basename(row["id"]), row["dark_source"]) for row in dark] == [
        ("a.mp4", "hour"), ("c.mp4", "hour"), ("e.mp4", "metadata"), ("night.mp4", "luma"),
    ]  # fmt: skip
    assert all(row["dark"] for row in dark)
    known = {os.path.basename(row["id"]): row["dark"] for row in everything(load("shade", data_dir=tmp_path / "s"))}
    assert known == {"a.mp4": True, "b.mp4": False, "c.mp4": True, "d.mp4": False, "e.mp4": True, "night.mp4": None}
    # The sets stay apart: the test set of the dark subset has test videos only.
    assert len(load("shade", "dark", data_dir=tmp_path / "s", split="test")) == 3


def real_pattern() -> tuple[list[str], list[str]]:
    """Ids in the pattern of the published lists: 330 of three digits, 107 of four, in 13 scenes."""
    normal = [f"{1 + index % 13:02d}_{index // 13 + 1:03d}" for index in range(330)]
    abnormal = [f"{1 + index % 13:02d}_{index + 14:04d}" for index in range(107)]
    return normal[:175] + abnormal[:63], abnormal[63:] + normal[175:]


@pytest.mark.parametrize("lists", ["plain", "mist"])
def test_shanghaitechs_published_split(media, tmp_path, load, lists):
    train, test = real_pattern()
    shanghaitech_tree(media, tmp_path / "sh", train, test, lists)
    corpus = load("shanghaitech", data_dir=tmp_path / "sh")
    assert {name: len(part) for name, part in corpus.items()} == {"train": 238, "test": 199}
    assert {name: sum(part["anomaly"]) for name, part in corpus.items()} == {"train": 63, "test": 44}
    assert {row["scene"] for row in everything(corpus)} == {f"{scene:02d}" for scene in range(1, 14)}
    row = next(row for row in corpus["test"] if row["anomaly"])
    assert row["frame_mask"] == [0, 0, 1, 1, 0] and row["fps"] == 25.0 and os.path.isdir(row["video"])
    assert next(row for row in corpus["test"] if not row["anomaly"])["frame_mask"] is None
    original = load("shanghaitech", "original", data_dir=tmp_path / "sh")
    assert {name: (len(part), sum(part["anomaly"])) for name, part in original.items()} == {
        "train": (330, 0), "test": (107, 107),
    }  # fmt: skip
    held_out = load("shanghaitech", data_dir=tmp_path / "sh", seed=0)
    assert held_out["test"]["id"] == corpus["test"]["id"]
    assert set(held_out["train"]["id"]) | set(held_out["validation"]["id"]) == set(corpus["train"]["id"])
    sizes = Counter((row["scene"], row["label"]) for row in corpus["train"])
    for group, size in Counter((row["scene"], row["label"]) for row in held_out["validation"]).items():
        assert size in (sizes[group] // 4, -(-sizes[group] // 4))
    assert len(held_out["train"]) + len(held_out["validation"]) == 238


def test_shanghaitech_from_a_manifest_of_scan(media, tmp_path, load):
    shanghaitech_tree(media, tmp_path / "sh", ["01_001", "01_0014"], ["02_0015", "02_002"])
    found = scan(tmp_path / "sh")
    assert found.corpus == "shanghaitech"
    write_manifest(found.rows, tmp_path / "m.csv")
    corpus = load("shanghaitech", data_dir=tmp_path / "m.csv")
    assert list(corpus["test"]) == list(load("shanghaitech", data_dir=tmp_path / "sh")["test"])
    assert {row["id"]: row["frame_mask"] for row in corpus["test"]} == {"02_0015": [0, 0, 1, 1, 0], "02_002": None}


@pytest.mark.parametrize(("video_id", "label"), [("01_001", "normal"), ("01_0014", "abnormal"), ("13_007", "normal")])
def test_shanghaitechs_id_rule(video_id, label):
    assert label_of(video_id) == label


def test_shanghaitechs_refusals(media, tmp_path, load):
    root = tmp_path / "sh"
    shanghaitech_tree(media, root, ["01_001", "01_0014"], ["02_0015", "02_002"])

    def refused(words):
        with pytest.raises(ManifestError, match=words):
            load("shanghaitech", data_dir=root)

    (root / "SH_Test.txt").write_text("02_0015\n02_002\n03_0001")
    refused("SH_Test.txt lists 03_0001, and there is no such video")
    (root / "SH_Test.txt").write_text("02_0015")
    refused("1 videos are in neither list, first 02_002")
    (root / "SH_Test.txt").write_text("\ufeff02_0015\n02_002\n01_0014")
    refused("SH_Train.txt|SH_Test.txt: 01_0014 is in the list of train too")
    (root / "SH_Test.txt").write_text("02_0015,0,5\n02_002,0,-1")
    refused("SH_Test.txt says 0 of 02_0015, but an id of 4 digits is abnormal")
    (root / "SH_Test.txt").unlink()
    refused("one list of SH_Train")
    (root / "SH_Train.txt").unlink()
    refused("needs the lists SH_Train.txt and SH_Test.txt")
    assert set(load("shanghaitech", "original", data_dir=root)) == {"train", "test"}
    mask = root / "testing" / "test_frame_mask" / "02_0015.npy"
    np.save(mask, np.zeros(4, dtype=np.uint8))
    refused("02_0015.npy has 4 labels for the 5 frames")
    np.save(mask, np.full(5, 2))
    refused("must hold 0 or 1 for each frame")
    mask.write_text("<html>")
    refused("cannot be read as a .npy array")
    mask.unlink()
    (root / "lists").mkdir()
    for folder in (root, root / "lists"):
        (folder / "SH_Train.txt").write_text("01_001\n01_0014")
    refused("Which list counts, .*SH_Train.txt or .*SH_Train.txt")
    twin = media.put(root / "again" / "01_001.mp4")
    refused(r"01_001.mp4 and .*01_001.avi have the same id|01_001.avi and .*01_001.mp4 have the same id")
    twin.unlink()
    media.put(root / "training" / "videos" / "extra.avi", "silent")
    refused("extra.avi: the name is no id of ShanghaiTech")


def test_refusals_of_load_dataset(media, tmp_path, load):
    with pytest.raises(
        ValueError, match="'ucf' is none of mavad, shade, shanghaitech, synthetic, cctv-fights, manifest"
    ):
        load("ucf")
    with pytest.raises(ManifestError, match="data_dir is needed"):
        load("mavad")
    with pytest.raises(ManifestError, match="none: no such folder or manifest"):
        load("mavad", data_dir=tmp_path / "none")
    mavad_tree(media, tmp_path / "m", "L1")
    with pytest.raises(ValueError, match=r"'paris' not found. Available: .'all', 'mgarr'"):
        load("mavad", "paris", data_dir=tmp_path / "m")
    with pytest.raises(ManifestError, match=r"has no videos of scene 'zejtun_scrapyard'. Scenes: mgarr, zejtun_field"):
        load("mavad", "zejtun_scrapyard", data_dir=tmp_path / "m")
    with pytest.raises(ManifestError, match=r"has no manifest.csv.* `avad-hf scan .*m -o .*manifest.csv` writes one"):
        load("manifest", data_dir=tmp_path / "m")
    for name in ("manifest.csv", "manifest.jsonl"):
        write_manifest(scan(tmp_path / "m").rows, tmp_path / "m" / name)
    with pytest.raises(ManifestError, match=r"has manifest.csv and manifest.jsonl. Keep one"):
        load("mavad", data_dir=tmp_path / "m")
    rows = scan(tmp_path / "m").rows
    rows[0]["label"] = "lorry"
    write_manifest(rows, tmp_path / "lorry.csv")
    with pytest.raises(ManifestError, match=r"'lorry' is no class of Mavad. Classes known: normal"):
        load("mavad", data_dir=tmp_path / "lorry.csv")
    write_manifest([row | {"x": (1, "y")[i % 2]} for i, row in enumerate(rows)], tmp_path / "x.jsonl")
    with pytest.raises(ManifestError, match="the column 'x' mixes int, str"):
        load("manifest", data_dir=tmp_path / "x.jsonl")


def test_push_and_plain_load(media, tmp_path, load):
    """Pushed by Dataset.push_to_hub and read by datasets alone; with the videos inside, after one cast."""
    mavad_tree(media, tmp_path / "m", "L1")
    corpus = load("mavad", data_dir=tmp_path / "m", seed=0)
    corpus.save_to_disk(tmp_path / "saved")
    with HubServer(tokens={"tok": "alice"}) as hub:
        hub.run(
            f"""
            from datasets import Video, load_from_disk
            corpus = load_from_disk({str(tmp_path / "saved")!r})
            corpus.push_to_hub("alice/rows")
            corpus.cast_column("video", Video(decode=False)).push_to_hub("alice/videos")
            """,
            tmp_path / "pusher",
        )
        shutil.rmtree(tmp_path / "m")
        hub.run(
            f"""
            import datasets, sys
            corpus = datasets.load_from_disk({str(tmp_path / "saved")!r})
            rows = datasets.load_dataset("alice/rows")
            videos = datasets.load_dataset("alice/videos")
            assert rows.keys() == videos.keys() == corpus.keys()
            for part in corpus:
                assert rows[part].features == corpus[part].features
                assert list(rows[part]) == list(corpus[part])
                assert videos[part]["id"] == corpus[part]["id"]
            print(repr(videos["train"][0]["video"]["path"]), len(videos["train"][0]["video"]["bytes"]))
            videos["train"].save_to_disk("train")
            assert "avad_hf" not in sys.modules
            """,
            tmp_path / "reader",
            fresh=True,
        )
        assert hub.unknown == []
    # What came back holds the video itself, and our reader takes the row as it is.
    row = datasets.load_from_disk(str(tmp_path / "reader" / "train"))[0]
    with open_media(row) as opened:
        assert opened.info.fps == 25.0 and len(list(opened.frames(16))) == 10
