"""Pickles, arrays, feature stores and manifests of others: nothing of them reaches what is not theirs."""

import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avad_hf import FeatureDataset, load_dataset
from avad_hf.convert.files import read_weights
from avad_hf.corpora import tree
from avad_hf.corpora.manifest import ManifestError, read_manifest
from avad_hf.corpora.masks import read_frame_mask
from avad_hf.features.published.npy import array_shape
from avad_hf.features.published.unpickling import read_plain_pickle

from .hostile_checkpoints import PICKLES, Touches, copied, plain_pickle

# Pickles and arrays


@pytest.mark.parametrize("name", PICKLES)
def test_a_hostile_pickle_is_refused(name, tmp_path):
    content, words = PICKLES[name]
    (tmp_path / "a.pickle").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_plain_pickle(tmp_path / "a.pickle")


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_pickle_is_refused_or_read(seed, tmp_path):
    rng, path = random.Random(seed), tmp_path / "a.pickle"
    for _ in range(40):
        data = bytearray(plain_pickle(seed))
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            read_plain_pickle(path)
        except ValueError as error:
            assert "a.pickle is n" in str(error)  # "no readable pickle", or "not read"


@pytest.mark.parametrize("is_archive", [True, False])
def test_types_in_torchs_files_are_made_anew(is_archive, tmp_path):
    class Evil:
        def __reduce__(self):
            return np.dtype, ("f8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("f8"), 0)}, 8, 1, 63)

    path = tmp_path / "a.pt"
    torch.save({"a": np.arange(3.0), "b": torch.ones(2)}, path, _use_new_zipfile_serialization=is_archive)
    assert read_weights(path)["a"].tolist() == [0, 1, 2]
    torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=is_archive)
    with pytest.raises(ValueError, match=r"a.pt is not read|a.pt is cut or damaged"):
        read_weights(path)
    torch.save({"a": Touches(tmp_path / "ran")}, path, _use_new_zipfile_serialization=is_archive)
    with pytest.raises(ValueError, match="it holds more than tensors, which could run code"):
        read_weights(path)
    assert not (tmp_path / "ran").exists()


def test_weights_larger_than_any_are_refused(tmp_path, monkeypatch):
    """Tensors that repeat few bytes, and archives that unpack to many."""
    monkeypatch.setattr("avad_hf.convert.files.MOST_BYTES", 10_000)
    torch.save({"a": torch.zeros(1).expand(10**6)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds tensors of 4000000 bytes; files of weights have 10000 at most"):
        read_weights(tmp_path / "a.pt")
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6, np.float32))
    with pytest.raises(ValueError, match="it unpacks to 4000128 bytes"):
        read_weights(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "header", [b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", b"(" * 9000, b"-" * 9000 + b"1"]
)
def test_headers_of_arrays_that_are_none(header, tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(ValueError, match=r"a.npy is (no readable .npy|cut short)"):
        array_shape(path)
    with pytest.raises(ManifestError, match=r"a.npy cannot be read as a .npy array"):
        read_frame_mask(path)


@pytest.mark.parametrize("read", [read_plain_pickle, array_shape, read_frame_mask])
def test_a_pipe_is_not_waited_for(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        read(tmp_path / "pipe")


# Stores


def _rows(folder: Path, **values) -> None:
    lines = (folder / "index.jsonl").read_text().splitlines()
    (folder / "index.jsonl").write_text("".join(json.dumps(json.loads(line) | values) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"file": "../../x.safetensors"}, "line 1: file of|file of .* but must be the relative path"),
        ({"file": "/etc/passwd"}, "file of .* is '/etc/passwd', but must be the relative path"),
        ({"file": None}, "file of .* is None, but must"),
        ({"file": "a\0b"}, "but must be the relative path"),
        ({"id": 7}, "index.jsonl, line 1 is damaged: each line needs id"),
        ({"anomaly": "x"}, "line 1 is damaged: each line needs id .text., file, and anomaly"),
        ({"label": [1]}, r"line 1: label must be text or null, got \[1\]"),
    ],
)
def test_a_hostile_index_is_refused(values, words, tmp_path):
    _rows(folder := copied("avaca-store", tmp_path), **values)
    with pytest.raises(ValueError, match=words):
        FeatureDataset(folder)


def test_features_by_a_link_are_neither_read_nor_published(tmp_path):
    folder = copied("avaca-store", tmp_path)
    data = FeatureDataset(folder)
    path = folder / data.rows[0]["file"]
    shutil.move(path, tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    for use in (lambda: data[0], lambda: data.push_to_hub("user/name")):
        with pytest.raises(ValueError, match=r"a link that leads out of the folder, to .*/secret"):
            use()
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match="it is no regular file"):
        data[0]


def test_features_without_their_tensors_are_refused(tmp_path):
    folder = copied("avaca-store", tmp_path)
    data = FeatureDataset(folder)
    save_file({"x": torch.zeros(1)}, folder / data.rows[0]["file"], {"avad_hf": "{}"})
    with pytest.raises(ValueError, match="it has no visual_features, audio_features, clip_times"):
        data[0]


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, '{"processor": 1}'])
def test_recipes_that_are_none(content, tmp_path):
    folder = copied("avaca-store", tmp_path)
    (folder / "recipe.json").write_text(content)
    with pytest.raises(ValueError, match=r"recipe.json is damaged"):
        FeatureDataset(folder)


# Manifests and folders


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("video\n/dev/zero\n", "m.csv, row 2: video is /dev/zero, which is no regular file and no folder of pictures"),
        (
            "video,audio\na.mp4,/dev/stdin\n",
            "m.csv, row 2: audio is /dev/stdin, which is no regular file. Give a file",
        ),
        ("video\na.mp4\npipe\n", "m.csv, row 3: video is .*pipe, which is no regular file"),
        ("video,frame_mask\na.mp4,.\n", "m.csv, row 2: frame_mask is .*, which is no regular file"),
        ("video\na\0.mp4\n", "row 2"),
        ("video,id\na.mp4," + "x" * 200_000 + "\n", "m.csv, row 2: it is no csv file from here on .field larger than"),
        (",".join(f"c{n}" for n in range(2000)) + "\n", "m.csv has 2000 columns; a table has 1000 at most"),
        ("video,split\na.mp4," + "x" * 5000 + "\n", r"row 2: split is 'x{100}\.\.\.', but must be train"),
        ("video\n" + "a" * 5000 + ".mp4\n", r"1 files are not there, first .{100}\.\.\."),
    ],
)
def test_a_hostile_manifest_is_refused(text, words, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ManifestError, match=words):
        read_manifest(tmp_path / "m.csv")


def test_a_nul_character_is_named(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"video": "a\\u0000.mp4"}\n')
    with pytest.raises(ManifestError, match=r"row 1: video is 'a.x00.mp4', which holds a NUL character"):
        read_manifest(tmp_path / "m.jsonl")


def test_a_manifest_that_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match=r"m.csv is no regular file"):
        read_manifest(tmp_path / "m.csv")
    (tmp_path / "m.jsonl").write_text("[" * 100_000)
    with pytest.raises(ManifestError, match=r"m.jsonl is no jsonl file"):
        read_manifest(tmp_path / "m.jsonl")


def test_many_rows_of_a_parquet_file_are_not_unpacked(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"video": ["a.mp4"] * 50}), tmp_path / "m.parquet")
    monkeypatch.setattr("avad_hf.corpora.tables.MOST_ROWS", 49)
    with pytest.raises(ManifestError, match=r"m.parquet has 50 rows; a manifest has 49 at most"):
        read_manifest(tmp_path / "m.parquet")


def test_a_manifest_of_a_corpus_stays_in_its_folder(tmp_path):
    """What came with a folder may not name other files; what a user names may."""
    (tmp_path / "own.mp4").write_bytes(b"x")
    (folder := tmp_path / "corpus").mkdir()
    (folder / "a.mp4").write_bytes(b"x")
    (folder / "manifest.csv").write_text("video,label\na.mp4,normal\n")
    assert len(load_dataset("manifest", data_dir=folder, cache_dir=tmp_path / "cache")["train"]) == 1
    for outside in ("../own.mp4", str(tmp_path / "own.mp4")):
        (folder / "manifest.csv").write_text(f"video,label\na.mp4,normal\n{outside},normal\n")
        with pytest.raises(
            ManifestError, match=r"video of .* is .*own.mp4, outside the folder.*data_dir='.*manifest.csv'"
        ):
            load_dataset("manifest", data_dir=folder, cache_dir=tmp_path / "cache")
        assert len(read_manifest(folder / "manifest.csv")) == 2


def test_folders_that_links_lead_to_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(tree, "MOST_FOLDERS", 200)
    for level in range(12):
        (tmp_path / f"{level}").mkdir()
        if level:
            for name in "ab":
                (tmp_path / f"{level - 1}" / name).symlink_to(tmp_path / f"{level}")
    with pytest.raises(ValueError, match="or the 201th folder, as links lead to them"):
        tree.walk(tmp_path / "0")
    deep = tmp_path / "deep"
    (deep / "/".join("d" * 102)).mkdir(parents=True)
    with pytest.raises(ValueError, match="is more than 100 folders deep"):
        tree.walk(deep)
