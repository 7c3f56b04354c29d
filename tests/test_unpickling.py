"""Pickles of plain values as every Python writes them, and those that would run code, which must not run."""

import collections
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from avad_hf.features.published.dataset import read_published
from avad_hf.features.published.unpickling import read_plain_pickle

from .published_files import make_ar_net


class Runs:
    """A pickle of this writes a file when an ordinary unpickler reads it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    labels = make_ar_net(tmp_path) / "shanghaitech" / "GT" / "video_label.pickle"
    ran = tmp_path / "ran"
    labels.write_bytes(pickle.dumps({"01_001": Runs(ran)}))
    with pytest.raises(
        ValueError, match=r"video_label.pickle is not read: it asks for .*Path.* Only containers, numbers"
    ):
        read_published("ar_net", tmp_path)
    assert not ran.exists()
    pickle.loads(labels.read_bytes())
    assert ran.exists()


@pytest.mark.parametrize("name", ["os system", "posix system", "builtins eval", "builtins getattr", "numpy load"])
def test_pickle_names_the_global_that_it_refuses(tmp_path, name):
    path = tmp_path / "a.pickle"
    path.write_bytes(f"c{name.replace(' ', chr(10))}\n(S'touch {tmp_path}/ran'\ntR.".encode())
    with pytest.raises(ValueError, match=rf"a.pickle is not read: it asks for {name.replace(' ', '.')}\."):
        read_plain_pickle(path)
    assert not (tmp_path / "ran").exists()


def test_pickle_that_python_2_wrote(tmp_path):
    """Protocol 2 with byte strings and numpy's old module names, as Python 2 writes them."""
    raw = struct.pack("<3d", 1.0, 0.0, 1.0)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85"
        b"cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"U" + bytes([len(raw)]) + raw + b"tb"
    )
    path = tmp_path / "a.pickle"
    path.write_bytes(b"\x80\x02}(U\x0701_0014" + array + b"U\x05otherc__builtin__\nset\n]K\x02a\x85Ru.")
    values = read_plain_pickle(path)
    assert values["other"] == {2}
    np.testing.assert_array_equal(values["01_0014"], [1.0, 0.0, 1.0])


@pytest.mark.parametrize("protocol", range(6))
def test_pickle_of_plain_values(tmp_path, protocol):
    values = collections.OrderedDict(
        a=[1, 2.5, "x", b"\xff", None, True, (1, 2), {3}, frozenset({4})],
        b=np.float64(1.5),
        c=np.arange(6, dtype=">i2").reshape(2, 3),
        d=np.bool_(True),
    )
    path = tmp_path / "a.pickle"
    path.write_bytes(pickle.dumps(values, protocol))
    read = read_plain_pickle(path)
    assert read["a"] == values["a"]
    assert (read["b"], read["d"]) == (1.5, True)
    np.testing.assert_array_equal(read["c"], values["c"])


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", pickle.dumps({"a": np.zeros(9)})[:-20]])
def test_pickle_that_is_damaged(tmp_path, content):
    path = tmp_path / "a.pickle"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.pickle is no readable pickle \(.*\). Download or copy it again"):
        read_plain_pickle(path)
