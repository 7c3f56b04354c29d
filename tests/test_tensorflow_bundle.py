"""TensorFlow V2 checkpoints read without TensorFlow: one that it wrote, others in parts, and other or damaged files.

``data/tensorflow_v2.ckpt.*`` was written by TensorFlow 2.21. To write it again, add tensorflow-cpu to the environment
of the tests and run ``python -m tests.test_tensorflow_bundle`` in the repository's root.
"""

import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from avad_hf.convert.files import read_weights, sha256_of
from avad_hf.convert.tensorflow_bundle import bundle_files, read_bundle
from avad_hf.convert.tensorflow_tables import checksum_of, crc32c

from .test_tensorflow_checkpoint import GOLDEN as V1
from .test_tensorflow_checkpoint import golden_values, message, table_of, varint

GOLDEN = Path(__file__).parent / "data" / "tensorflow_v2.ckpt"
DATA_TYPES = {"<f4": 1, "<f8": 2, "<i4": 3, "<i8": 9}
# What the header says by default: one data file.
HEADER = message((1, 1), (3, message((1, 1))))


def expected_golden() -> dict[str, np.ndarray]:
    return {
        f"values/{number}/.ATTRIBUTES/VARIABLE_VALUE": value for number, value in enumerate(golden_values().values())
    }


def write_golden(prefix: Path) -> None:
    import tensorflow as tf

    values = [tf.Variable(value) for value in golden_values().values()]
    written = tf.train.Checkpoint(values=values).save(str(prefix))
    for part in (".index", ".data-00000-of-00001"):
        os.replace(written + part, f"{prefix}{part}")
    prefix.with_name("checkpoint").unlink()  # which says what the last one is called


def entry(array: np.ndarray, offset: int, shard: int = 0, **changed: int | bytes) -> bytes:
    """A ``BundleEntryProto``."""
    data = np.ascontiguousarray(array).tobytes()
    fields = {
        "dtype": DATA_TYPES[array.dtype.str],
        "shape": message(*((2, message((1, size))) for size in array.shape)),
        "shard": shard,
        "offset": offset,
        "size": len(data),
    }
    numbers = {"dtype": 1, "shape": 2, "shard": 3, "offset": 4, "size": 5, "slices": 7}
    fields |= {name: value for name, value in changed.items() if name != "checksum"}
    checksum = changed.get("checksum", checksum_of(data))
    return (
        message(*((numbers[name], value) for name, value in fields.items())) + b"\x35" + checksum.to_bytes(4, "little")
    )


def write_index(path: Path, entries: dict[str, bytes], header: bytes = HEADER) -> None:
    """An index of one block, whose keys leave out what they share with the one before."""
    block, before = b"", b""
    for name, value in [("", header), *sorted(entries.items())]:
        key = name.encode()
        same = sum(key.startswith(before[:length]) for length in range(1, len(before) + 1))
        block += varint(same) + varint(len(key) - same) + varint(len(value)) + key[same:] + value
        before = key
    path.write_bytes(table_of([block]))


def write_bundle(prefix: Path, tensors: dict[str, np.ndarray], shards: int = 1) -> Path:
    """A checkpoint whose tensors go to its data files in turn."""
    datas, entries = [b""] * shards, {}
    for number, (name, array) in enumerate(tensors.items()):
        shard = number % shards
        entries[name] = entry(array, len(datas[shard]), shard)
        datas[shard] += np.ascontiguousarray(array).tobytes()
    write_index(prefix.with_name(f"{prefix.name}.index"), entries, message((1, shards)))
    for shard, data in enumerate(datas):
        prefix.with_name(f"{prefix.name}.data-{shard:05}-of-{shards:05}").write_bytes(data)
    return prefix


@pytest.fixture
def golden(tmp_path):
    """A copy of what TensorFlow wrote."""
    for path in GOLDEN.parent.glob(f"{GOLDEN.name}.*"):
        shutil.copy(path, tmp_path)
    return tmp_path / GOLDEN.name


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_variables_that_tensorflow_wrote(ending):
    tensors, expected = read_bundle(f"{GOLDEN}{ending}"), expected_golden()
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert tensors[name].flags.writeable and tensors[name].flags.aligned
        np.testing.assert_array_equal(tensors[name], value, strict=True, err_msg=name)


def test_weights_of_a_converter(golden):
    """By any of its names; and the hash of both files, as of one after the other."""
    index, data = bundle_files(golden)
    both = golden.with_name("both")
    both.write_bytes(index.read_bytes() + data.read_bytes())
    for path in (golden, index, data):
        tensors = read_weights(path)
        assert {name: tensor.shape for name, tensor in tensors.items()} == {
            name: value.shape for name, value in expected_golden().items()
        }
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
        assert sha256_of(path) == sha256_of(both)
    with pytest.raises(FileNotFoundError, match=r"absent.index: no such file"):
        read_weights(golden.with_name("absent.index"))


def test_several_data_files(tmp_path):
    rng = np.random.default_rng(0)
    expected = {f"layer/{number}": rng.normal(size=(number, 5)).astype(np.float32) for number in range(7)}
    tensors = read_bundle(write_bundle(tmp_path / "model.ckpt", expected, shards=3))
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)
    assert [path.name for path in bundle_files(tmp_path / "model.ckpt.index")] == [
        "model.ckpt.index",
        *(f"model.ckpt.data-0000{number}-of-00003" for number in range(3)),
    ]


def test_checksum_is_that_of_its_definition():
    def naive(data: bytes) -> int:
        total = 0xFFFFFFFF
        for byte in data:
            total ^= byte
            for _ in range(8):
                total = total >> 1 ^ (0x82F63B78 if total & 1 else 0)
        return total ^ 0xFFFFFFFF

    assert crc32c(b"123456789") == 0xE3069283  # of every catalogue
    rng = random.Random(0)
    for size in (0, 1, 2, 3, 31, 32, 33, 1000, 2499, 2501):
        data = rng.randbytes(size)
        assert crc32c(data) == naive(data), size


# What is refused


def refusal(words: str, file: str = r"a\.index") -> str:
    return (
        rf"{file} cannot be read as part of a TensorFlow V2 checkpoint: .*{words}.*\. "
        r"Give the checkpoint as it is published, its \.index beside"
    )


def test_damaged_numbers_are_refused(golden):
    data = golden.with_name(f"{golden.name}.data-00000-of-00001")
    whole = data.read_bytes()
    # After how often it was saved, in 8 bytes, and before which object holds which tensor.
    for place in range(8, 8 + sum(value.nbytes for value in golden_values().values()), 37):
        data.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=refusal("it is damaged: the checksum of 'values/", data.name)):
            read_bundle(golden)


def test_damage_of_the_index_is_refused_or_harmless(golden):
    index = golden.with_name(f"{golden.name}.index")
    whole, rng, expected = index.read_bytes(), random.Random(0), expected_golden()
    flips = [{place: 1 << rng.randrange(8)} for place in range(0, len(whole), 7)]
    flips += [{rng.randrange(len(whole)): rng.randrange(256) for _ in range(9)} for _ in range(100)]
    for flip in flips:
        damaged = bytearray(whole)
        for place, byte in flip.items():
            damaged[place] ^= byte
        index.write_bytes(damaged)
        try:
            tensors = read_bundle(golden)
        except ValueError as error:
            assert re.search(r"cannot be read as part of a TensorFlow V2 checkpoint: .*\. Give", str(error), re.S)
        else:  # between the end of the index and the footer's last bytes
            assert tensors.keys() == expected.keys()


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_file_cut_anywhere_is_refused(golden, ending):
    path = golden.with_name(f"{golden.name}{ending}")
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, len(whole) // 40):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cannot be read as part .*(cut short|damaged)"):
            read_bundle(golden)


TWO = np.arange(2, dtype=np.float32)


@pytest.mark.parametrize(
    ("entries", "header", "words"),
    [
        ({"a": entry(TWO, 0, dtype=7)}, HEADER, "'a' is of type 7; float32, float64, int32 and int64"),
        ({"a": entry(TWO, 0, slices=b"")}, HEADER, "'a' is saved in parts, as partitioned variables are"),
        ({"a": entry(TWO, 0, size=4)}, HEADER, r"'a' has shape \(2,\), but 4 bytes of float32"),
        ({"a": entry(TWO, 0, shape=message((2, message((1, 2**63)))))}, HEADER, "but 8 bytes of float32"),
        ({"a": entry(TWO, 0, shard=3)}, HEADER, "'a' is in data file 3 of 1"),
        ({"a": entry(TWO, 4)}, HEADER, r"it is cut short: it has 8 bytes, and 'a' is at 4 \+ 8"),
        ({"a": entry(TWO, 2**62)}, HEADER, "it is cut short"),
        ({"a": entry(TWO, 0), "b": entry(TWO, 0)}, HEADER, "its tensors are larger than its data files"),
        ({"a": entry(TWO, 0, checksum=0)}, HEADER, "the checksum of 'a' is another than the index says"),
        ({"a" * 1001: entry(TWO, 0)}, HEADER, "its key is endless"),
        ({}, message((1, 0)), "it asks for 0 data files, and 1 to 1000 are read"),
        ({}, message((1, 1 << 40)), "it asks for 1099511627776 data files"),
        ({}, message((1, 1), (2, 1)), "its numbers have their first byte first"),
        ({"a": entry(TWO, 0)}, message((1, 2)), "No such file or directory"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, entries, header, words):
    write_index(tmp_path / "a.index", entries, header)
    (tmp_path / "a.data-00000-of-00001").write_bytes(TWO.tobytes())
    with pytest.raises(ValueError, match=refusal(words, r"a\.(index|data-0000\d-of-0000\d)")):
        read_bundle(tmp_path / "a")


def test_other_files_are_refused(tmp_path):
    for content, words in ((b"<html>" * 30, "it begins with b'<html>.*another file or cut"), (b"", "another file or")):
        (tmp_path / "a.index").write_bytes(content)
        with pytest.raises(ValueError, match=refusal(words)):
            read_weights(tmp_path / "a.index")
    shutil.copy(V1, tmp_path / "a.index")
    with pytest.raises(ValueError, match=refusal("it is a V1 checkpoint: give it under another ending")):
        read_weights(tmp_path / "a.index")
    (tmp_path / "b.data-00000-of-00001").write_bytes(bytes(9))
    with pytest.raises(ValueError, match=refusal("No such file or directory", r"b\.index")):
        read_weights(tmp_path / "b.data-00000-of-00001")


if __name__ == "__main__":
    write_golden(GOLDEN)
