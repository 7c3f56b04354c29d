"""Weights as others publish them: downloaded, and read without running what a file may carry."""

import hashlib
import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from fsspec.callbacks import TqdmCallback
from torch import Tensor

from avad_hf.features.published.unpickling import Array, Dtype, read_plain_pickle
from avad_hf.models.conversion import Download

from .keras import check_reader, is_keras, read_keras
from .tensorflow import read_tensorflow
from .tensorflow_bundle import bundle_files, bundle_prefix, read_bundle
from .tensorflow_tables import is_table

# Where files with states of a training keep the weights.
NESTED = ("model_state", "state_dict", "blobs")
# Files of torch: archives since 1.6, and pickles that begin with a magic number before.
ARCHIVE, LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What stands for numpy arrays in torch's files, under the names of numpy 1 and 2.
ARRAYS = [
    (Array, "numpy.ndarray"),
    (Dtype, "numpy.dtype"),
    *((Array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
]
# The largest published file has 400 MB. Archives of numpy may hold far more than they have bytes.
MOST_BYTES = 1 << 32
# How deep dicts may lie in each other (jax's have four), and how long the names made of their keys may become.
MOST_NESTED, MOST_CHARACTERS = 10, 1000
# Seconds until an address answers at all, and until the next bytes arrive: who is offline should wait for seconds.
CONNECT_S, READ_S = 10, 60


def fetch(download: Download, folder: str | os.PathLike) -> Path:
    """Download a file, with a bar, and check it.

    Raises:
        ConnectionError: If it cannot be had, or not all of it.
        ValueError: If its hash is another than the published one.
        ImportError: If nothing is installed that reads it.
    """
    import aiohttp

    path = Path(folder) / download.url.rsplit("/", 1)[1]
    check_reader(path)
    bar = TqdmCallback(tqdm_kwargs={"desc": path.name, "unit": "B", "unit_scale": True})
    # However long all of it takes, for which aiohttp would give five minutes.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
    try:
        filesystem, remote_path = fsspec.core.url_to_fs(
            download.url, client_kwargs={"timeout": timeout, "trust_env": True}
        )
        size = filesystem.info(remote_path).get("size")
        with bar:
            filesystem.get_file(remote_path, str(path), callback=bar)
    # Clients of HTTP have errors of their own.
    except Exception as error:
        # fsspec says of every address that does not answer that there is no such file.
        cause = (isinstance(error, FileNotFoundError) and error.__cause__) or error
        reason = f"{type(cause).__name__}: {cause}".rstrip(": ")
        raise ConnectionError(
            f"{download.url} cannot be downloaded ({reason}). Check the network and run the same command again, or "
            "download it in another way and give the file."
        ) from error
    if size is not None and path.stat().st_size != size:
        raise ConnectionError(
            f"{download.url}: {path.stat().st_size} of {size} bytes arrived. Run the same command again."
        )
    sha256 = sha256_of(path)
    if download.sha256 is not None and not sha256.startswith(download.sha256):
        raise ValueError(
            f"{download.url} has the SHA-256 {sha256}, but {download.sha256}... is published. What was "
            "downloaded is damaged or another file; nothing was written."
        )
    return path


def sha256_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file; of TensorFlow's V2 checkpoints, of the index and the data files one after the other."""
    digest = hashlib.sha256()
    for part in [path] if bundle_prefix(path) is None else bundle_files(path):
        with open(part, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the tensors of a file of torch, Caffe2, TensorFlow, Keras or numpy, without running code that it carries.

    Args:
        path: The file; of TensorFlow's V2 checkpoints the index, a data file, or the prefix of both.

    Returns:
        The tensors by their names. Names in dicts in dicts, as jax's are pickled, are put together with ``/``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these, is damaged, would run code, or holds anything but tensors.
        ImportError: If it is one of Keras's, and h5py is not installed.
    """
    path = Path(path)
    if not path.is_file() and bundle_prefix(path) is None:
        raise FileNotFoundError(f"{path}: no such file. Give the file as it is published.")
    content = _read(path)
    for name in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if isinstance(content, Mapping):
        content = dict(_flat(content, path, set()))
    if not isinstance(content, Mapping) or not content or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{path} holds no weights by name, but a {type(content).__name__}. {ADVICE}")
    tensors = {}
    for name, value in content.items():
        is_array = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
        tensors[name] = torch.from_numpy(np.array(value)) if is_array else value
    if strange := {name: type(value).__name__ for name, value in tensors.items() if not _is_plain(value)}:
        # Counters of an optimizer in Caffe2, for one.
        numbers = (int, float, np.integer, np.floating)
        if any(not isinstance(content[name], numbers) for name in strange):
            listed = ", ".join(f"{name} ({kind})" for name, kind in strange.items())
            raise ValueError(f"{path} holds what is no tensor: {listed}. {ADVICE}")
        tensors |= {name: torch.tensor(content[name]) for name in strange}
    # A tensor may say that it repeats, or begins beyond, the few bytes that are there.
    held = path.stat().st_size if path.is_file() else 0
    if (size := sum(tensor.nbytes for tensor in tensors.values())) > max(MOST_BYTES, held):
        raise ValueError(f"{path} holds tensors of {size} bytes; files of weights have {MOST_BYTES} at most. {ADVICE}")
    return tensors


def _flat(content: Mapping, path: Path, seen: set[int], before: str = "", depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Items of a dict, and of those in it under names put together; `seen` are the dicts of before."""
    for key, value in content.items():
        name = f"{before}{key}" if isinstance(key, str) else key
        if not isinstance(value, Mapping):
            yield name, value
            continue
        # One dict in many places, again and again, has more items than any memory.
        if depth == MOST_NESTED or len(str(name)) > MOST_CHARACTERS or id(value) in seen:
            raise ValueError(
                f"{path} holds dicts in dicts as no file of weights does: more than {MOST_NESTED} deep, one in two "
                f"places, or under names of more than {MOST_CHARACTERS} characters. {ADVICE}"
            )
        seen.add(id(value))
        yield from _flat(value, path, seen, f"{name}/", depth + 1)


def _is_plain(value: Any) -> bool:
    """Whether something is a tensor of real numbers that are all there: not sparse, quantised or without content."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and not (value.is_meta or value.is_quantized or value.is_complex())
    )


ADVICE = "Give the file as it is published, or download it again; nothing was written."


def _read(path: Path) -> Any:
    if bundle_prefix(path) is not None:
        return read_bundle(path)
    with open(path, "rb") as file:
        start = file.read(64)
    if start.lstrip()[:1] == b"<":
        raise ValueError(
            f"{path} is a web page and no weights (it begins with {start[:20]!r}): the download was answered by a "
            f"message. {ADVICE}"
        )
    if is_table(path):
        return read_tensorflow(path)
    if is_keras(start):
        return read_keras(path, MOST_BYTES)
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                if (size := sum(item.file_size for item in arrays.zip.infolist())) > MOST_BYTES:
                    raise ValueError(f"it unpacks to {size} bytes, and files of weights have {MOST_BYTES} at most")
                return dict(arrays)
        # A damaged file raises nearly anything.
        except Exception as error:
            raise ValueError(f"{path} cannot be read ({type(error).__name__}: {error}). {ADVICE}") from error
    if start.startswith((ARCHIVE, LEGACY)):
        try:
            with torch.serialization.safe_globals(ARRAYS):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Without torch's advice to allow it.
            lines = (line.strip().partition(" Please use")[0] for line in str(error).splitlines())
            reason = next((line for line in lines if "GLOBAL" in line or "nsupported" in line), error)
            raise ValueError(
                f"{path} is not read: it holds more than tensors, which could run code ({reason}). {ADVICE}"
            ) from error
        # A damaged file raises nearly anything.
        except Exception as error:
            raise ValueError(f"{path} is cut or damaged ({type(error).__name__}: {error}). {ADVICE}") from error
    return read_plain_pickle(path)


__all__ = ["Download", "fetch", "read_weights", "sha256_of"]
