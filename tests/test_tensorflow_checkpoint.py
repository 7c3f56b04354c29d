"""TensorFlow V1 checkpoints read without TensorFlow: one that it wrote, larger ones, and other or damaged files.

``data/tensorflow_v1.ckpt`` was written by TensorFlow 2.21. To write it again, add tensorflow-cpu to the environment of
the tests and run ``python -m tests.test_tensorflow_checkpoint`` in the repository's root.
"""

import math
import random
import re
from pathlib import Path

import numpy as np
import pytest

from avad_hf.convert.tensorflow import read_tensorflow
from avad_hf.convert.tensorflow_tables import checksum_of, is_table

GOLDEN = Path(__file__).parent / "data" / "tensorflow_v1.ckpt"
SHAPES = {
    "vggish/conv1/weights": ((3, 3, 1, 4), np.float32),
    "vggish/conv1/biases": ((4,), np.float32),
    "vggish/fc2/weights": ((8, 4), np.float32),
    "global_step": ((), np.int64),
    "scalar": ((), np.float32),
    "nothing": ((0, 3), np.float32),
    "steps": ((2, 3), np.int32),
    "precise": ((5,), np.float64),
    # TensorFlow writes every sixteenth key in full, of the others what differs from the one before.
    **{f"more/variable_{number:02}": ((number,), np.float32) for number in range(20)},
}


def golden_values() -> dict[str, np.ndarray]:
    """Numbers on both sides of zero that any of the types holds exactly."""
    return {
        name: ((np.arange(math.prod(shape)) - 3) * (2**20 if "step" in name else 0.125)).astype(dtype).reshape(shape)
        for name, (shape, dtype) in SHAPES.items()
    }


def write_golden(path: Path) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        variables = [
            v1.get_variable(name, initializer=tf.constant(value), use_resource=False)
            for name, value in golden_values().items()
        ]
        session.run(v1.global_variables_initializer())
        saver = v1.train.Saver(variables, write_version=v1.train.SaverDef.V1)
        saver.save(session, str(path), write_meta_graph=False, write_state=False)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    return b"".join(
        varint(number << 3) + varint(value)
        if isinstance(value, int)
        else varint(number << 3 | 2) + varint(len(value)) + value
        for number, value in fields
    )


def in_list(name: str, shape: tuple[int, ...], data_type: int = 1, slices: tuple[bytes, ...] = (b"",)) -> bytes:
    dims = message(*((2, message((1, size))) for size in shape))
    return message((1, name.encode()), (2, dims), (3, data_type), *((4, extents) for extents in slices))


def numbers(name: str, array: np.ndarray) -> bytes:
    return message((2, message((1, name.encode()), (2, b""), (3, message((5, array.astype("<f4").tobytes()))))))


def table(listed: list[bytes], *entries: bytes, compression: int = 0) -> bytes:
    """A checkpoint with a block for each entry."""
    values = [message((1, message(*((1, variable) for variable in listed)))), *entries]
    return table_of(
        [
            varint(0) + varint(number) + varint(len(value)) + b"k" * number + value
            for number, value in enumerate(values)
        ],
        compression,
    )


def table_of(blocks: list[bytes], compression: int = 0) -> bytes:
    """A table of these blocks of entries."""
    written, index = b"", b""

    def add(content: bytes) -> bytes:
        nonlocal written
        handle = varint(len(written)) + varint(len(content) + 8)
        content += bytes(4) + b"\1\0\0\0" + bytes([compression])
        written += content + checksum_of(content).to_bytes(4, "little")
        return handle

    for block in blocks:
        handle = add(block)
        index += varint(0) + varint(1) + varint(len(handle)) + b"k" + handle
    footer = add(b"") + add(index)
    return written + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def read(path: Path, data: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(data)
    return read_tensorflow(path)


def test_variables_that_tensorflow_wrote():
    tensors, expected = read_tensorflow(GOLDEN), golden_values()
    assert is_table(GOLDEN)
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        assert tensors[name].dtype == value.dtype
        assert tensors[name].flags.writeable and tensors[name].flags.aligned
        np.testing.assert_array_equal(tensors[name], value, strict=True, err_msg=name)


def test_many_blocks_of_any_size(tmp_path):
    expected = {f"a/{size}": np.arange(size * 3, dtype=np.float32).reshape(size, 3) for size in (1, 77, 5000, 100_000)}
    listed = [in_list(name, value.shape, slices=(message((1, b""), (1, b"")),)) for name, value in expected.items()]
    tensors = read(tmp_path / "a.ckpt", table(listed, *(numbers(*item) for item in expected.items())))
    assert list(tensors) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value, strict=True)


@pytest.mark.parametrize("end", [0, 48], ids=["end", "middle"])
def test_file_cut_anywhere_is_refused(tmp_path, end):
    data = GOLDEN.read_bytes()
    for size in range(0, len(data) - end, 5):
        with pytest.raises(ValueError, match=r"a.ckpt cannot be read as .*: .*(cut short|damaged)"):
            read(tmp_path / "a.ckpt", data[:size] + data[len(data) - end :])


def test_damage_anywhere_is_refused_or_harmless(tmp_path):
    data, rng = GOLDEN.read_bytes(), random.Random(0)
    singly = [{place: 1 << rng.randrange(8)} for place in range(0, len(data), 5)]
    for flips in singly + [{rng.randrange(len(data)): rng.randrange(256) for _ in range(9)} for _ in range(300)]:
        damaged = bytearray(data)
        for place, byte in flips.items():
            damaged[place] ^= byte
        try:
            tensors = read(tmp_path / "a.ckpt", damaged)
        except ValueError as error:
            assert re.match(r".*a.ckpt cannot be read as a TensorFlow V1 checkpoint: .*\. Give", str(error), re.S)
        else:
            assert tensors.keys() == SHAPES.keys()


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>\n<title>404</title>" * 9, b"", b"PK\3\4"])
def test_other_files_are_refused(tmp_path, content):
    start = re.escape(repr(content[:24]))
    with pytest.raises(ValueError, match=f"it begins with {start} and does not end as one; it is another file or cut"):
        read(tmp_path / "a.ckpt", content)
    assert not is_table(tmp_path / "a.ckpt")


def test_paths_without_a_file_are_refused(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"a.ckpt cannot be read .*: No such file or directory\. Give the checkpoint as it is published",
    ):
        read_tensorflow(tmp_path / "a.ckpt")
    with pytest.raises(
        ValueError, match=r"cannot be read as a TensorFlow V1 checkpoint: .+\. Give the checkpoint as it is"
    ):
        read_tensorflow(tmp_path)
    assert not is_table(tmp_path / "a.ckpt") and not is_table(tmp_path)


TWO = np.zeros(2)
HALVES = (message((1, message((2, 1)))), message((1, message((1, 1), (2, 1)))))


def with_a_gap(data: bytes) -> bytes:
    """A byte more between the index and the footer."""
    return data[:-48] + b"\0" + data[-48:]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            table([in_list("a", (2,))], numbers("a", TWO), compression=1),
            r"damaged or compressed \(kind 1, 1 is snappy\), as none",
        ),
        (table([in_list("a", (2,), slices=HALVES)]), "'a' is saved in parts, as partitioned variables are, and only"),
        (table([in_list("a", (2,), slices=HALVES[:1])]), "'a' is saved in parts"),
        (table([in_list("a", (2,), 7)]), "'a' is of type 7; float32, float64, int32 and int64"),
        (table([in_list("a", (2, 3))], numbers("a", TWO)), r"'a' has shape \(2, 3\), but 8 bytes of float32"),
        (table([in_list("a", (0, 2**63))], numbers("a", TWO[:0])), "too large|dimension"),
        (table([in_list("a", (2,)), in_list("b", (2,))], numbers("a", TWO)), "damaged: the numbers of b are missing"),
        (
            table([in_list("a", (2,))], numbers("b", TWO)),
            "damaged: 'b' is not in its list of variables, or there twice",
        ),
        (table([in_list("a", (2,))], *[numbers("a", TWO)] * 2), "damaged: 'a' is not in its list .*, or there twice"),
        (table([]), r"it lists no variables, as the \.index file of a V2 checkpoint does not"),
        (b"abc" + table([in_list("a", (2,))], numbers("a", TWO)), "damaged or cut short"),
        (with_a_gap(table([in_list("a", (2,))], numbers("a", TWO))), "blocks do not fill it"),
        (
            table([in_list("a", (2,))], numbers("a", TWO + 1)).replace(b"\x80?", b"\0@"),
            "block at 33 has another checksum",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, words):
    with pytest.raises(
        ValueError, match=f"a.ckpt cannot be read as .*: .*{words}.*. Give the checkpoint as it is published"
    ):
        read(tmp_path / "a.ckpt", data)


if __name__ == "__main__":
    write_golden(GOLDEN)
