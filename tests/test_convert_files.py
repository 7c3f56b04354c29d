"""Files that are converted: as the projects write them, damaged, of other things, running code, and downloaded.

What is refused is refused in words that say why, and leaves the folders as they were.
"""

import pickle
import re
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import aiohttp
import h5py
import numpy as np
import pytest
import torch
from fsspec.implementations.http import HTTPFileSystem
from typer.testing import CliRunner

from avad_hf import (
    ResNet3dConfig,
    SlowFastConfig,
    SlowFastForVideoClassification,
    SlowFastModel,
    VggishConfig,
    VggishModel,
)
from avad_hf.cli import app
from avad_hf.convert import encoders
from avad_hf.convert.encoders import convert
from avad_hf.convert.files import Download, read_weights, sha256_of
from avad_hf.models.feature_extraction_video import VideoFeatureExtractor
from avad_hf.models.resnet3d import convert_resnet3d
from avad_hf.models.slowfast import convert_slowfast
from avad_hf.models.vggish import convert_vggish

from .test_resnet3d import NaiveResNet3d, randomise
from .test_tensorflow_checkpoint import in_list, numbers, table
from .test_unpickling import Runs

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL_SLOWFAST = {"stem_width": 8, "fast_ratio": 4}
SMALL_VGGISH = {"hidden_sizes": (4, 4, 8, 8), "intermediate_size": 16, "embedding_size": 8}
SMALL_RESNET3D = {"stem_width": 8, "depths": (1, 1, 1, 1)}
# Of a batch norm: pytorch's names and Caffe2's.
NORM = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv", "num_batches_tracked": None}


def expect_small(monkeypatch) -> None:
    """Make the converters expect small networks."""
    monkeypatch.setattr(convert_slowfast, "SlowFastConfig", partial(SlowFastConfig, **SMALL_SLOWFAST))
    monkeypatch.setattr(convert_vggish, "VggishConfig", partial(VggishConfig, **SMALL_VGGISH))
    monkeypatch.setattr(convert_resnet3d, "ResNet3dConfig", partial(ResNet3dConfig, **SMALL_RESNET3D))


# Files as the projects write them


def slowfast_names(depths=(3, 4, 6, 3)) -> list[tuple[str, str, str | None]]:
    """Every weight's name in pytorchvideo, PySlowFast and Caffe2, which does not count batches."""
    pairs = []  # of a convolution and the norm after it, in each of the three
    for path, c2 in enumerate(("", "t_")):
        ours, theirs = f"blocks.0.multipathway_blocks.{path}", f"s1.pathway{path}_stem"
        caffe2 = (f"{c2}conv1", f"{c2}res_conv1_bn")
        pairs.append((f"{ours}.conv", f"{ours}.norm", f"{theirs}.conv", f"{theirs}.bn", *caffe2))
        for stage, depth in enumerate(depths, 2):
            for block in range(depth):
                ours = f"blocks.{stage - 1}.multipathway_blocks.{path}.res_blocks.{block}"
                theirs, caffe2 = f"s{stage}.pathway{path}_res{block}.branch", f"{c2}res{stage}_{block}_branch"
                branches = [(f"2.{x}", f"2{x}", f"branch2.conv_{x}", f"branch2.norm_{x}") for x in "abc"]
                if block == 0:
                    branches.append(("1", "1", "branch1_conv", "branch1_norm"))
                for place, short, conv, norm in branches:
                    pairs.append((f"{ours}.{conv}", f"{ours}.{norm}"))
                    pairs[-1] += (f"{theirs}{place}", f"{theirs}{place}_bn", f"{caffe2}{short}", f"{caffe2}{short}_bn")
    # Caffe2 names what goes over to the slow pathway after the last of the fast one before it.
    before = ["t_pool1", *(f"t_res{stage}_{depth - 1}_branch2c_bn" for stage, depth in enumerate(depths[:3], 2))]
    for block, last in enumerate(before):
        ours, theirs, caffe2 = f"blocks.{block}.multipathway_fusion", f"s{block + 1}_fuse", f"{last}_subsample"
        pairs.append((f"{ours}.conv_fast_to_slow", f"{ours}.norm"))
        pairs[-1] += (f"{theirs}.conv_f2s", f"{theirs}.bn", caffe2, f"{caffe2}_bn")
    names = [(f"blocks.6.proj.{kind}", f"head.projection.{kind}", f"pred_{kind[0]}") for kind in ("weight", "bias")]
    for conv, norm, their_conv, their_norm, c2_conv, c2_norm in pairs:
        names.append((f"{conv}.weight", f"{their_conv}.weight", f"{c2_conv}_w"))
        for entry, short in NORM.items():
            names.append((f"{norm}.{entry}", f"{their_norm}.{entry}", short and f"{c2_norm}_{short}"))
    return names


def save_pytorchvideo(weights: dict, path: Path) -> Path:
    torch.save({"model_state": weights}, path)
    return path


def save_pyslowfast(weights: dict, path: Path) -> Path:
    state = {theirs: weights[name] for name, theirs, _ in slowfast_names()}
    assert len(state) == len(weights)
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"epoch": 195, "model_state": state, "optimizer_state": optimizer, "cfg": "TRAIN:\n  A: 1\n"}, path)
    return path


def save_caffe2(weights: dict, path: Path) -> Path:
    blobs = {theirs: weights[name].numpy() for name, _, theirs in slowfast_names() if theirs}
    blobs |= {f"{name}_momentum": value * 0 + 3 for name, value in blobs.items() if "_bn_r" not in name}
    blobs |= {"lr": np.float32(0.1), "model_iter": np.array([70000.0])}
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return path


def uncounted(weights: dict) -> dict:
    """As before torch 0.4, whose batch norms began to count."""
    return OrderedDict((name, value) for name, value in weights.items() if not name.endswith("num_batches_tracked"))


def save_as_torch_0_3(content: dict, path: Path) -> Path:
    """As torch wrote tensors of a GPU in 2017: storages of their own after the pickle, and other functions."""
    storages: dict[str, torch.Tensor] = {}

    class Storage:
        def __init__(self, tensor: torch.Tensor):
            self.tensor = tensor.contiguous()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                key = str(94000000000000 + len(storages))
                storages[key] = value.tensor
                return ("storage", torch.cuda.FloatStorage, key, "cuda:0", value.tensor.numel(), None)

        def reducer_override(self, value):
            if isinstance(value, torch.Tensor):
                return torch._utils._rebuild_tensor, (Storage(value), 0, tuple(value.shape), value.stride())
            return NotImplemented

    sizes = {"short": 2, "int": 4, "long": 4}
    with open(path, "wb") as file:
        for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True} | sizes):
            pickle.dump(value, file, protocol=2)
        Pickler(file, protocol=2).dump(content)
        pickle.dump(list(storages), file, protocol=2)
        for tensor in storages.values():
            file.write(struct.pack("<q", tensor.numel()) + tensor.numpy().tobytes())
    return path


def small_slowfast(**fields) -> dict:
    """Weights of a small SlowFast under pytorchvideo's names."""
    model = SlowFastForVideoClassification(SlowFastConfig(**SMALL_SLOWFAST, **fields))
    randomise(model)
    return {
        re.sub(r"^proj", "blocks.6.proj", name.removeprefix("slowfast.")): value
        for name, value in model.state_dict().items()
    }


def small_vggish() -> dict:
    model = VggishModel(VggishConfig(**SMALL_VGGISH))
    randomise(model)
    return model.state_dict()


def small_pca() -> dict:
    rng = np.random.default_rng(0)
    return {"pca_eigen_vectors": rng.normal(0, 0.3, (8, 8)), "pca_means": rng.normal(0, 0.3, (8, 1))}


def small_tensorflow() -> dict[str, np.ndarray]:
    convolutions = ("conv1", "conv2", "conv3/conv3_1", "conv3/conv3_2", "conv4/conv4_1", "conv4/conv4_2")
    layers = dict(zip(convolutions, ((3, 3, *ends) for ends in ((1, 4), (4, 4), (4, 8), *[(8, 8)] * 3)), strict=True))
    layers |= {"fc1/fc1_1": (6 * 4 * 8, 16), "fc1/fc1_2": (16, 16), "fc2": (16, 8)}
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in layers.items():
        tensors[f"vggish/{name}/weights"] = rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype(np.float32)
        tensors[f"vggish/{name}/biases"] = rng.normal(0, 0.1, shape[-1]).astype(np.float32)
    return tensors


def save_tensorflow(tensors: dict[str, np.ndarray], path: Path) -> Path:
    listed = [in_list(name, value.shape) for name, value in tensors.items()]
    path.write_bytes(table(listed, *(numbers(*item) for item in tensors.items())))
    return path


def save_pca(path: Path, kind: str) -> Path:
    pca = small_pca()
    if kind == "npz":
        np.savez(path.with_suffix(".npz"), **pca)
        return path.with_suffix(".npz")
    torch.save(pca, path, pickle_protocol=2, _use_new_zipfile_serialization=kind == "archive")
    if kind == "numpy 1":
        content = path.read_bytes()
        assert b"numpy._core.multiarray\n" in content
        path.write_bytes(content.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    return path


def small_resnet3d(shortcut: str = "B", prefix: str = "", num_labels: int = 5) -> dict:
    """Weights of a small 3D ResNet under the original's names."""
    naive = NaiveResNet3d(shortcut, num_labels, width=8, depths=(1, 1, 1, 1))
    randomise(naive)
    return {prefix + name: value for name, value in naive.state_dict().items()}


# What is refused


class Kind(NamedTuple):
    """A kind of encoder: converter, weights under published names, how files hold them, a name there and here."""

    convert: Callable
    weights: Callable[[], dict[str, torch.Tensor]]
    wrap: Callable[[dict], dict]
    name: str
    becomes: str


KINDS = {
    "slowfast": Kind(
        partial(convert, "slowfast"),
        small_slowfast,
        lambda weights: {"model_state": weights},
        "blocks.2.multipathway_fusion.norm.bias",
        "slowfast.blocks.2.multipathway_fusion.norm.bias",
    ),
    "vggish": Kind(partial(convert, "vggish"), small_vggish, dict, "features.8.bias", "features.8.bias"),
    "resnet3d": Kind(
        partial(convert, "resnet3d"),
        small_resnet3d,
        lambda weights: {"epoch": 200, "state_dict": weights},
        "layer2.0.bn1.bias",
        "resnet3d.layer2.0.bn1.bias",
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Everything that a test writes, also for a time; the converters expect small networks."""
    expect_small(monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


@pytest.fixture(params=KINDS)
def kind(request, folder):
    return KINDS[request.param]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@contextmanager
def refused(folder: Path, words: str, error: type[Exception] = ValueError):
    """What is done inside is refused in these words, and the folder stays as it was."""
    before = contents(folder)
    with pytest.raises(error, match=f"(?s){words}") as caught:
        yield
    assert contents(folder) == before
    assert caught.type is error


def save(content: Any, path: Path, **options) -> Path:
    torch.save(content, path, **options)
    return path


def listed(*differences: str) -> str:
    """The words of a refusal with these differences and no others."""
    lines = "".join(rf"\n  {difference}" for difference in differences)
    return rf"does not hold exactly the weights of \w+ \({len(differences)} differences\):{lines}\nGive .*Nothing was"


def test_missing_weight(kind, folder):
    weights = kind.weights()
    file = save(kind.wrap({name: weights[name] for name in weights if name != kind.name}), folder / "a.pth")
    with refused(folder, "a.pth " + listed(rf"missing: {kind.becomes} of shape \(\d+,\)")):
        kind.convert(file, folder / "new")


def test_weight_too_many(kind, folder):
    file = save(kind.wrap(kind.weights() | {"more.weight": torch.ones(2)}), folder / "a.pth")
    with refused(folder, listed("not used: more.weight")):
        kind.convert(file, folder / "new")


def test_weight_of_another_shape(kind, folder):
    weights = kind.weights()
    file = save(kind.wrap(weights | {kind.name: weights[kind.name][:, None]}), folder / "a.pth")
    with refused(folder, listed(rf"wrong shape: {kind.becomes} is \((\d+), 1\), and must be \(\1,\)")):
        kind.convert(file, folder / "new")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_no_number(kind, folder, value):
    weights = kind.weights()
    weights[kind.name][-1] = value
    file = save(kind.wrap(weights), folder / "a.pth")
    with refused(folder, listed(f"not finite: {kind.becomes}")):
        kind.convert(file, folder / "new")


def test_all_differences_are_listed(folder):
    weights = small_resnet3d("A")
    del weights["conv1.weight"], weights["layer3.0.bn2.running_var"]
    weights |= {"scheduler": torch.ones(()), "layer9.x": torch.ones(1), "bn1.bias": torch.ones(7)}
    weights["layer1.0.bn1.weight"][0] = float("nan")
    words = listed(
        r"missing: resnet3d.conv1.weight of shape \(8, 3, 7, 7, 7\)",
        r"missing: resnet3d.layer3.0.bn2.running_var of shape \(32,\)",
        "not used: layer9.x",
        "not used: scheduler",
        r"wrong shape: resnet3d.bn1.bias is \(7,\), and must be \(8,\)",
        "not finite: resnet3d.layer1.0.bn1.weight",
    )
    file = save(weights, folder / "a.pth")
    with refused(folder, words):
        convert("resnet3d", file, folder / "new")


@pytest.mark.parametrize("first", ["fc.weight", "module.fc.weight"])
def test_two_names_of_one_weight(folder, first):
    """Whichever comes first is used."""
    other = ({"fc.weight", "module.fc.weight"} - {first}).pop()
    weights = small_resnet3d()
    weights[first] = weights.pop("fc.weight")
    file = save(weights | {other: weights[first].clone()}, folder / "a.pth")
    with refused(folder, listed(f"not used: {other}")):
        convert("resnet3d", file, folder / "new")


def test_two_names_of_one_weight_in_caffe2(folder):
    """The number of the block does not count in one row of the table, which must not let two pass."""
    file = save_caffe2(small_slowfast(), folder / "a.pkl")
    blobs = pickle.loads(file.read_bytes())["blobs"]
    blobs["t_res2_1_branch2c_bn_subsample_w"] = blobs["t_res2_2_branch2c_bn_subsample_w"]
    file.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    with refused(folder, listed("not used: t_res2_1_branch2c_bn_subsample_w")):
        convert("slowfast", file, folder / "new")


def test_three_prefixes_are_too_many(folder):
    file = save(small_resnet3d(prefix="module." * 3), folder / "a.pth")
    with refused(folder, "is of another network"):
        convert("resnet3d", file, folder / "new")


# Files of other things


def test_file_of_another_network_says_what_is_known(folder):
    file = save({f"encoder.{index}.weight": torch.ones(2) for index in range(9)}, folder / "a.pth")
    found = r"its 9 names are those of no known origin: encoder.0.weight, .*, encoder.4.weight, \.{4} Files must have "
    known = {
        "slowfast": "blocks.0.multipathway_blocks.0.conv.weight of pytorchvideo, s1.pathway0_stem.conv.weight of "
        r"PySlowFast, t_pool1_subsample_w of PySlowFast \(Caffe2\)",
        "vggish": "features.0.weight of torchvggish, features_network.0.weight of torchaudio, vggish/conv1/weights of "
        "TensorFlow",
        "resnet3d": "layer4.0.conv1.weight of 3D-ResNets-PyTorch",
    }
    for name, words in known.items():
        with refused(folder, rf"a.pth is of another network: {found}{words}\. Nothing was written"):
            KINDS[name].convert(file, folder / "new")


def test_files_of_each_other(kind, folder):
    for other in KINDS.values():
        if other is not kind:
            file = save(other.wrap(other.weights()), folder / "a.pth")
            with refused(folder, "is of another network: its .* names are those of no known origin"):
                kind.convert(file, folder / "new")


def test_networks_of_other_depth_and_dimension(folder):
    """torchvision's ResNets have the names of the 3D ones."""
    weights = small_resnet3d()
    file = save(
        {name: value[:, :, 0] if value.dim() == 5 else value for name, value in weights.items()}, folder / "2d"
    )
    with refused(folder, r"wrong shape: resnet3d.conv1.weight is \(8, 3, 7, 7\), and must be \(8, 3, 7, 7, 7\)"):
        convert("resnet3d", file, folder / "new")
    file = save(weights | {"layer1.1.conv1.weight": torch.ones(8, 8, 3, 3, 3)}, folder / "deep")
    with refused(folder, listed("not used: resnet3d.layer1.1.conv1.weight")):
        convert("resnet3d", file, folder / "new")


@pytest.mark.parametrize(
    ("convert", "weights", "others"),
    [
        (partial(convert, "slowfast"), small_slowfast, "s3.pathway1_res0.branch1.weight"),
        (partial(convert, "slowfast"), small_slowfast, "t_res4_5_branch2c_bn_subsample_w"),
        (partial(convert, "vggish"), small_vggish, "features_network.0.weight"),
        (partial(convert, "vggish"), small_vggish, "vggish/fc2/biases"),
    ],
)
def test_names_of_two_projects(folder, convert, weights, others):
    file = save(weights() | {others: torch.ones(2)}, folder / "a.pth")
    with refused(folder, "is of another network: its .* names are those of more than one known origin"):
        convert(file, folder / "new")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "holds no weights by name, but a dict"),
        ([torch.ones(2)], "holds no weights by name, but a list"),
        (torch.ones(2), "holds no weights by name, but a Tensor"),
        ({"state_dict": {}}, "holds no weights by name, but a dict"),
        ({0: torch.ones(2)}, "holds no weights by name, but a dict"),
        ({"features.0.weight": torch.ones(2), "arch": "x"}, r"holds what is no tensor: arch \(str\)\. Give"),
        ({"features.0.weight": np.array(["x"])}, "could run code|holds what is no tensor"),
    ],
)
def test_files_without_weights(folder, content, words):
    file = save(content, folder / "a.pth")
    for kind in KINDS.values():
        with refused(folder, f"a.pth .*{words}"):
            kind.convert(file, folder / "new")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"no readable pickle \(EOFError"),
        (b"<!DOCTYPE html>\n<title>404</title>", r"is a web page and no weights \(it begins with b'<!DOCTYPE html>"),
        (b"\r\n  <html><body>Quota exceeded</body></html>", "is a web page and no weights"),
        (b'{"error": "no such file"}', "no readable pickle"),
        (bytes(range(256)) * 9, "no readable pickle"),
    ],
)
def test_files_that_are_none(kind, folder, content, words):
    (folder / "a.pth").write_bytes(content)
    with refused(folder, f"a.pth .*{words}"):
        kind.convert(folder / "a.pth", folder / "new")


def test_paths_without_a_file(kind, folder):
    for path in (folder / "absent.pth", folder / "temporary"):
        with refused(folder, f"{path}: no such file. Give the file as it is published", FileNotFoundError):
            kind.convert(path, folder / "new")


def test_resnet3d_needs_its_file(folder):
    words = "Google Drive, which only a browser opens. Download r3d34_K_200ep.pth or resnet-34-kinetics.pth by the"
    with refused(folder, words):
        convert("resnet3d", None, folder / "new")


def test_resnet3d_has_two_ranges_of_pixels(folder):
    file = save(small_resnet3d(), folder / "a.pth")
    with refused(folder, r"pixel_range must be 1 or 255, got 2\."):
        convert("resnet3d", file, folder / "new", pixel_range=2)


# Files that are cut


FORMATS = {
    "archive": (partial(convert, "vggish"), small_vggish, torch.save),
    "legacy": (partial(convert, "vggish"), small_vggish, partial(torch.save, _use_new_zipfile_serialization=False)),
    "torch 0.3": (partial(convert, "resnet3d"), lambda: uncounted(small_resnet3d()), save_as_torch_0_3),
    "Caffe2": (partial(convert, "slowfast"), small_slowfast, save_caffe2),
    "TensorFlow": (partial(convert, "vggish"), small_tensorflow, save_tensorflow),
}


@pytest.mark.parametrize("name", FORMATS)
def test_cut_file(folder, name):
    convert, weights, write = FORMATS[name]
    write(weights(), folder / "a.pth")
    convert(folder / "a.pth", folder / "new")
    whole = (folder / "a.pth").read_bytes()
    words = "is no readable pickle" if name in ("Caffe2", "TensorFlow") else "is cut or damaged"
    for size in (len(whole) - 1, len(whole) // 2, 100):
        (folder / "a.pth").write_bytes(whole[:size])
        with refused(folder, rf"a.pth {words} \(\w+: "):
            convert(folder / "a.pth", folder / f"new{size}")


# Files that would run code


def dumped(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("place", ["alone", "a weight", "beside the weights"])
@pytest.mark.parametrize(
    ("write", "load"),
    [
        (torch.save, partial(torch.load, weights_only=False)),
        (
            partial(torch.save, _use_new_zipfile_serialization=False),
            partial(torch.load, weights_only=False),
        ),
        (dumped, lambda path: pickle.loads(path.read_bytes())),
    ],
    ids=["archive", "legacy", "pickle"],
)
def test_files_that_would_run_code_do_not(folder, write, load, place):
    ran = folder / "ran"
    weights = {name: value.numpy() if write is dumped else value for name, value in small_resnet3d().items()}
    content = {
        "alone": Runs(ran),
        "a weight": {"state_dict": weights | {"fc.bias": Runs(ran)}},
        "beside the weights": {"state_dict": weights, "optimizer": Runs(ran)},
    }[place]
    write(content, folder / "a.pth")
    words = "asks for" if write is dumped else "holds more than tensors, which could run code"
    for kind in KINDS.values():
        with refused(folder, rf"a.pth is not read: it {words}.*(Path|getattr)"):
            kind.convert(folder / "a.pth", folder / "new")
    assert not ran.exists()
    load(folder / "a.pth")
    assert ran.exists()


def test_system_is_not_called(folder):
    command = f"touch {folder}/ran"
    (folder / "a.pkl").write_bytes(f"cposix\nsystem\n(S'{command}'\ntR.".encode())
    with refused(folder, "a.pkl is not read: it asks for posix.system"):
        convert("slowfast", folder / "a.pkl", folder / "new")
    pickle.loads((folder / "a.pkl").read_bytes())
    assert (folder / "ran").exists()


def test_saved_module_is_refused(folder):
    file = save(NaiveResNet3d("A", width=8), folder / "a.pth")
    with refused(folder, "is not read: it holds more than tensors, which could run code .*NaiveResNet3d"):
        convert("resnet3d", file, folder / "new")


def test_pca_that_would_run_code_does_not(folder):
    file = save(small_vggish(), folder / "a.pth")
    ran = folder / "ran"
    np.savez(folder / "pca.npz", pca_means=np.array([Runs(ran)], dtype=object))
    torch.save({"pca_means": Runs(ran)}, folder / "pca.pth")
    for name, words in (("pca.npz", "allow_pickle=False|pickled"), ("pca.pth", "could run code")):
        with refused(folder, f"{name} .*({words})"):
            convert("vggish", file, folder / "new", pca=folder / name)
    assert not ran.exists()


# Dicts in dicts, and files of Keras


def nested(tensors: dict) -> dict:
    """As jax's weights are pickled."""
    content: dict = {}
    for name, value in tensors.items():
        *parents, last = name.split("/")
        inner = content
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return content


def save_keras(tensors: dict[str, np.ndarray], path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in tensors.items():
            file[name] = value
    return path


@pytest.mark.parametrize("kind", ["nested", "keras"])
def test_weights_under_paths(folder, kind):
    tensors, path = small_tensorflow(), folder / "a.h5"
    if kind == "nested":
        dumped(nested(tensors), path)
    else:
        save_keras(tensors, path)
    found = read_weights(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)
    assert convert(replace(convert_vggish.CONVERTER, compare=None), path, folder / "new").origin == "TensorFlow"


def test_dicts_without_end_are_refused(folder):
    deep: dict = {"w": np.ones(2)}
    for _ in range(11):
        deep = {"a": deep}
    shared = {"w": np.ones(2)}
    circle: dict = {}
    circle["a"] = circle
    for content in (deep, {"a": shared, "b": shared}, circle, {"x" * 1001: {"w": np.ones(2)}}):
        dumped(content, folder / "a.ckpt")
        words = (
            "holds dicts in dicts as no file of weights does: more than 10 deep, one in two places, or under names of"
        )
        with refused(folder, f"a.ckpt {words}"):
            convert("vggish", folder / "a.ckpt", folder / "new")


def test_files_of_keras_that_are_none(folder, monkeypatch):
    whole = save_keras(small_tensorflow(), folder / "a.h5").read_bytes()
    for size in (20, len(whole) // 2, len(whole) - 1):
        (folder / "a.h5").write_bytes(whole[:size])
        with refused(folder, r"a.h5 cannot be read as a file of Keras \(\w+: .*Give the file as it is published"):
            convert("vggish", folder / "a.h5", folder / "new")
    with h5py.File(folder / "a.h5", "w") as file:
        file["text"] = "x"
    with refused(folder, "'text' is of type object, and only numbers are read"):
        convert("vggish", folder / "a.h5", folder / "new")
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("w", (1 << 40,), np.float32, chunks=(1 << 20,))
    with refused(folder, "its arrays have more than 4294967296 bytes, which no file of weights has"):
        convert("vggish", folder / "a.h5", folder / "new")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with refused(folder, r"a.h5 is a file of Keras, .*Install it with: pip install 'avad-hf\[keras\]'", ImportError):
        convert("vggish", folder / "a.h5", folder / "new")
    said, error = run("vggish", folder / "a.h5", folder / "new", code=2)
    assert "pip install 'avad-hf[keras]'" in error and said == ""


def test_files_of_keras_read_no_other_files(folder):
    """Links are not followed, and arrays whose numbers are in another file are refused."""
    save_keras({"w": np.ones(2)}, folder / "other.h5")
    (folder / "raw").write_bytes(bytes(8))
    with h5py.File(folder / "a.h5", "w") as file:
        file["mine"] = np.ones(3)
        file["link"] = h5py.ExternalLink("other.h5", "w")
        file["soft"] = h5py.SoftLink("/mine")
    assert read_weights(folder / "a.h5").keys() == {"mine"}
    layout = h5py.VirtualLayout((2,), np.float64)
    layout[:] = h5py.VirtualSource(folder / "other.h5", "w", (2,))
    with h5py.File(folder / "virtual.h5", "w") as file:
        file.create_virtual_dataset("w", layout)
    with h5py.File(folder / "external.h5", "w") as file:
        file.create_dataset("w", (2,), np.float32, external=[(folder / "raw", 0, 8)])
    for name in ("virtual.h5", "external.h5"):
        with refused(folder, f"{name} cannot be read as a file of Keras .*the numbers of 'w' are in another file"):
            convert("vggish", folder / name, folder / "new")


# The PCA of VGGish


def test_pca_of_another_shape_or_file(folder):
    file, pca = save(small_vggish(), folder / "a.pth"), small_pca()
    other = {"pca_eigen_vectors": np.ones((8, 9)), "pca_means": np.ones((7, 1))}
    for content, found in (
        ({"pca_means": pca["pca_means"]}, r"pca_means \(8 values\)"),
        (pca | {"more": np.ones(3)}, r".*more \(3 values\)"),
        (other, r"pca_eigen_vectors \(72 values\), pca_means \(7 values\)"),
    ):
        np.savez(folder / "pca.npz", **content)
        with refused(folder, rf"pca.npz is no PCA of 8 values: it holds {found}. Give vggish_pca_params"):
            convert("vggish", file, folder / "new", pca=folder / "pca.npz")
    np.savez(folder / "pca.npz", **pca)
    own = small_vggish() | {f"pproc.{name}": torch.tensor(value) for name, value in pca.items()}
    own = save(own, folder / "own.pth")
    with refused(folder, "carries a PCA of its own. Leave the other one out"):
        convert("vggish", own, folder / "new", pca=folder / "pca.npz")
    with refused(folder, "pca.pth: no such file", FileNotFoundError):
        convert("vggish", file, folder / "new", pca=folder / "pca.pth")


def test_damaged_archive_of_numpy_is_refused(folder):
    """Wherever it is damaged: what unpacks it has many errors."""
    file = save(small_vggish(), folder / "a.pth")
    np.savez_compressed(folder / "pca.npz", **small_pca())
    whole = (folder / "pca.npz").read_bytes()
    for place in range(0, len(whole), 29):
        (folder / "pca.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_weights(folder / "pca.npz")
        except ValueError as error:
            assert re.search(r"pca.npz (cannot be read|is no readable pickle|is a web page)", str(error))
    (folder / "pca.npz").write_bytes(whole[: len(whole) // 2])
    with refused(folder, "pca.npz cannot be read .*nothing was written"):
        convert("vggish", file, folder / "new", pca=folder / "pca.npz")


# The folder that is written


def test_folder_that_holds_something_stays(kind, folder):
    file = save(kind.wrap(kind.weights()), folder / "a.pth")
    (folder / "new").mkdir()
    (folder / "new" / "notes.txt").write_text("mine")
    for place in (folder / "new", folder / "new" / "notes.txt"):
        with refused(folder, f"{place} is not an empty directory.*nothing was overwritten", FileExistsError):
            kind.convert(file, place)


def test_empty_folder_is_filled(kind, folder):
    (folder / "new").mkdir()
    kind.convert(save(kind.wrap(kind.weights()), folder / "a.pth"), folder / "new")
    files = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {path.name for path in (folder / "new").iterdir()} == files
    assert {path.name for path in folder.iterdir()} == {"a.pth", "new", "temporary"}
    assert not any((folder / "temporary").iterdir())


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_writing_that_fails_leaves_nothing(folder, monkeypatch, error):
    """Between the weights, which are written by then, and the last files."""

    def fail(extractor, place):
        assert (Path(place) / "model.safetensors").is_file() and Path(place).parent == folder
        raise error("disk is full")

    monkeypatch.setattr(VideoFeatureExtractor, "save_pretrained", fail)
    file = save(small_resnet3d(), folder / "a.pth")
    with refused(folder, "disk is full", error):
        convert("resnet3d", file, folder / "new")


# Files that are downloaded


class Answers(BaseHTTPRequestHandler):
    """Files of the server by name; those that are cut end in the middle, and those that are slow take a second."""

    def do_GET(self):
        name = self.path.strip("/")
        content = self.server.files.get(name.removeprefix("cut-").removeprefix("slow-"))
        self.server.asked.append((self.command, name))
        self.send_response(200 if content is not None else 404)
        content = content or b"<html>not found</html>"
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            half = len(content) // 2
            self.wfile.write(content[:half])
            if name.startswith("slow-"):
                self.wfile.flush()
                time.sleep(1)
            if not name.startswith("cut-"):
                self.wfile.write(content[half:])

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(folder, monkeypatch):
    """Serves files on this machine; nothing else may be asked."""
    hosts, connect = set(), socket.socket.connect

    def noted(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            hosts.add(address[0])
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    # Clients that are answered 404 go away before the end, which is no error.
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *arguments: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.files, server.asked = {}, []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()
    assert hosts <= {"127.0.0.1"}


def publish(monkeypatch, module: ModuleType, download: Download, part: str | None = None) -> None:
    """Make a file the official one: of the network, or of a part that goes with it."""
    converter = module.CONVERTER
    changed = {"files": {part: download}} if part else {"downloads": dict.fromkeys(converter.downloads, download)}
    monkeypatch.setattr(module, "CONVERTER", replace(converter, **changed))


def serve(
    server,
    monkeypatch,
    module: ModuleType,
    path: Path,
    url: str = "{}/{}",
    sha256: str | None = None,
    part: str | None = None,
) -> str:
    """Serve a file, and make it the official one; returns its hash."""
    server.files[path.name] = path.read_bytes()
    found = sha256_of(path)
    path.unlink()
    official = Download(url.format(server.url, path.name), found[:8] if sha256 is None else sha256)
    publish(monkeypatch, module, official, part)
    return found


def test_official_files_have_the_hash_in_their_names():
    converter = convert_vggish.CONVERTER
    for download in (*converter.downloads.values(), *converter.files.values()):
        assert download.url.endswith(f"-{download.sha256}.pth") and len(download.sha256) == 8


def test_official_files_are_downloaded(folder, server, monkeypatch):
    sha256 = serve(server, monkeypatch, convert_slowfast, save_pytorchvideo(small_slowfast(), folder / "S.pyth"))
    assert convert("slowfast", None, folder / "slowfast").source_sha256 == sha256
    card = (folder / "slowfast" / "README.md").read_text()
    assert "Converted from `S.pyth`, in the format of [pytorchvideo]" in card and sha256 in card
    serve(server, monkeypatch, convert_vggish, save(small_vggish(), folder / "v.pth"))
    serve(server, monkeypatch, convert_vggish, save_pca(folder / "p.pth", "legacy"), part="pca")
    convert("vggish", None, folder / "vggish", pca=True)
    found = VggishModel.from_pretrained(folder / "vggish")
    np.testing.assert_allclose(found.pproc.pca_means, small_pca()["pca_means"][:, 0], rtol=1e-6)
    assert [name for method, name in server.asked if method == "GET"] == ["S.pyth", "v.pth", "p.pth"]
    assert not any((folder / "temporary").iterdir())


@pytest.mark.parametrize(
    ("url", "sha256", "error", "words"),
    [
        ("{}/{}", "00000000", ValueError, r"has the SHA-256 \w{64}, but 00000000\.\.\. is published.*nothing was wri"),
        ("{}/cut-{}", None, ConnectionError, "cut-S.pyth cannot be downloaded .*run the same command again"),
        ("{}/absent", None, ConnectionError, r"absent cannot be downloaded \(\w+: 404, message='Not Found'"),
        ("http://127.0.0.1:{port}/S", None, ConnectionError, r"cannot be downloaded \(\w+: Cannot connect to host"),
    ],
    ids=["wrong hash", "connection dropped", "404", "connection refused"],
)
def test_download_that_fails_leaves_nothing(folder, server, monkeypatch, url, sha256, error, words):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    file = save_pytorchvideo(small_slowfast(), folder / "S.pyth")
    serve(server, monkeypatch, convert_slowfast, file, url.replace("{port}", str(port)), sha256)
    with refused(folder, rf"http://127.0.0.1:\d+/.*{words}", error):
        convert("slowfast", None, folder / "new")


def test_slow_download_arrives(folder, server, monkeypatch):
    """However long all of it takes: aiohttp would break off what takes five minutes, so 288 MB at 7 Mbit/s."""
    monkeypatch.setattr(aiohttp.client, "DEFAULT_TIMEOUT", aiohttp.ClientTimeout(total=0.5))
    HTTPFileSystem.clear_instance_cache()
    serve(server, monkeypatch, convert_vggish, save(small_vggish(), folder / "v.pth"), "{}/slow-{}")
    assert convert("vggish", None, folder / "new").origin == "torchvggish"


def test_nothing_is_downloaded_for_a_full_folder(folder, server, monkeypatch):
    serve(server, monkeypatch, convert_vggish, save(small_vggish(), folder / "v.pth"))
    (folder / "new").mkdir()
    (folder / "new" / "notes.txt").touch()
    with refused(folder, "is not an empty directory", FileExistsError):
        convert("vggish", None, folder / "new")
    assert server.asked == []


# The command


def run(*arguments, code: int = 0) -> tuple[str, str]:
    """What `avad-hf convert` says, and what it says of errors."""
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout, result.stderr


def test_command_converts(folder):
    file = save_pytorchvideo(small_slowfast(), folder / "a.pyth")
    said, _ = run("slowfast", file, folder / "new")
    model = SlowFastForVideoClassification.from_pretrained(folder / "new")
    parameters = sum(weight.numel() for weight in model.parameters())
    assert f"Read {parameters:,} weights in the format of pytorchvideo, SHA-256 {sha256_of(file)}." in said
    assert "Relative error of the class scores against pytorchvideo: " in said
    assert f"Wrote {folder / 'new'}" in said
    assert type(SlowFastModel.from_pretrained(folder / "new")) is SlowFastModel


def test_command_says_that_nothing_was_compared(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorchvideo.models.slowfast", None)
    said, _ = run("slowfast", save_pytorchvideo(small_slowfast(), folder / "a.pyth"), folder / "new")
    assert "was not compared with that of the original network" in said


def test_command_downloads_without_a_source(folder, server, monkeypatch):
    serve(server, monkeypatch, convert_vggish, save(small_vggish(), folder / "v.pth"))
    serve(server, monkeypatch, convert_vggish, save_pca(folder / "p.pth", "archive"), part="pca")
    run("vggish", folder / "plain")
    run("vggish", folder / "with", "--official-pca")
    assert [VggishConfig.from_pretrained(folder / name).has_pca for name in ("plain", "with")] == [False, True]


def test_command_takes_options(folder):
    run("vggish", save(small_vggish(), folder / "v.pth"), folder / "a", "--pca", save_pca(folder / "p", "npz"))
    assert VggishConfig.from_pretrained(folder / "a").has_pca
    file = save(small_resnet3d("B"), folder / "r.pth")
    for pixels, factor in (("0-255", 1.0), ("0-1", 1 / 255)):
        run("resnet3d", file, folder / pixels, "--pixels", pixels)
        assert ResNet3dConfig.from_pretrained(folder / pixels).rescale_factor == factor


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("slowfast", "A", "B", "C"), "Error: Give SOURCE and OUT, or OUT alone; got A B C."),
        (("slowfast", "absent.pyth", "new"), "Error: absent.pyth: no such file. Give the file as it is published."),
        (("slowfast", "page.pyth", "new"), "Error: page.pyth is a web page and no weights"),
        (("slowfast", "v.pth", "new"), "Error: v.pth is of another network"),
        (("vggish", "pack-1.0.tar.gz"), "Error: pack-1.0.tar.gz is a file, or called like one. Give the new folder"),
        (("vggish", "pack-1.0.whl"), "Error: pack-1.0.whl is a file, or called like one."),
        (("vggish", "v.pth"), "Error: v.pth is a file, or called like one. Give the new folder too: v.pth OUT."),
        (("vggish", "v.pth", "temporary", "--pca", "page.pyth"), "Error: page.pyth is a web page"),
        (("vggish", "v.pth", "new", "--pca", "p", "--official-pca"), "Error: Give --pca or --official-pca, not both."),
        (("vggish", "v.pth", "."), "Error: . is not an empty directory."),
        (("vggish", "cut.pth", "new"), "Error: cut.pth is cut or damaged"),
        (("resnet3d", "new"), "Error: The authors of the 3D ResNets publish their files on Google Drive"),
        (("resnet3d", "v.pth", "new", "--pixels", "0-2"), "'0-2' is not one of"),
        (("resnet3d",), "Missing argument"),
        ((), "Error: Missing argument ENCODER. Give one of "),
        (("slowfst", "new"), "Error: 'slowfst' is no encoder that can be converted. Known: "),
        (("slowfst", "new"), "Did you mean slowfast?"),
        (("v.pth", "new"), "Error: 'v.pth' is no encoder that can be converted."),
        (("avaca", "new"), "Error: 'avaca' is no encoder that can be converted."),
        (("slowfast", "new", "--pca", "p"), "Error: --pca is not for slowfast, which takes no options."),
        (("slowfast", "new", "--official-pca"), "Error: --official-pca is not for slowfast"),
        (("vggish", "new", "--pixels", "0-1"), "Error: --pixels is not for vggish, which takes --pca."),
        (("resnet3d", "new", "--variant", "m"), "Error: --variant is not for resnet3d, which takes --pixels."),
    ],
)
def test_command_refuses(folder, monkeypatch, arguments, words):
    monkeypatch.chdir(folder)
    whole = save(small_vggish(), folder / "v.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[:-9])
    (folder / "page.pyth").write_text("<html>Sign in</html>")
    before = contents(folder)
    said, error = run(*arguments, code=2)
    assert words in " ".join(error.replace("│", " ").split()) and said == ""
    assert contents(folder) == before


def test_command_ends_when_a_download_fails(folder, server, monkeypatch):
    publish(monkeypatch, convert_slowfast, Download(f"{server.url}/absent.pyth"))
    said, error = run("slowfast", folder / "new", code=2)
    assert "absent.pyth cannot be downloaded (ClientResponseError: 404" in error and said == ""
    assert not (folder / "new").exists()


def test_help_has_an_example():
    said, _ = run("--help")
    assert "Example: avad-hf convert slowfast" in said and "resnet3d" in said


def test_names_of_before_still_convert(kind, folder):
    """``convert_slowfast(source, directory, config)`` and the others, with their arguments in the same order."""
    name = next(name for name, one in KINDS.items() if one is kind)
    before = getattr(encoders, f"convert_{name}")
    parameters = {"slowfast": ["config"], "vggish": ["pca", "config"], "resnet3d": ["pixel_range", "config"]}[name]
    assert [*signature(before).parameters] == ["source", "directory", *parameters]
    file = save(kind.wrap(kind.weights()), folder / "a.pth")
    configs = {
        "slowfast": SlowFastConfig(**SMALL_SLOWFAST),
        "vggish": VggishConfig(**SMALL_VGGISH),
        "resnet3d": ResNet3dConfig(**SMALL_RESNET3D, num_labels=5),
    }
    done = before(file, folder / "new", *[None] * (len(parameters) - 1), configs[name])
    assert done.directory == str(folder / "new")
    with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
        before(file, folder / "other", size=3)
    with pytest.raises(AttributeError, match="has no attribute 'convert_avaca'"):
        _ = encoders.convert_avaca


def test_options_that_a_converter_does_not_take(folder):
    file = save(small_resnet3d(), folder / "a.pth")
    with refused(folder, r"The converter of 3D ResNet does not take pca, variant\. It takes pixel_range\."):
        convert("resnet3d", file, folder / "new", pca="p.npz", variant="m", pixel_range=1)
    with refused(folder, r"The converter of SlowFast does not take pca\. It takes no options\."):
        convert("slowfast", file, folder / "new", pca=True)
    with refused(folder, r"'slowfest' is no encoder that can be converted\. Known: .*\. Did you mean slowfast\?"):
        convert("slowfest", file, folder / "new")
    with refused(folder, "Give pixel_range or config, not both"):
        convert("resnet3d", file, folder / "new", pixel_range=1, config=ResNet3dConfig(**SMALL_RESNET3D))


def test_variants_are_downloaded_by_their_names(folder, server):
    """Of a converter of one's own, for which nothing need be registered."""
    given = []

    def make(file, config, variant=None):
        given.append(variant)
        return convert_resnet3d.make(file, config)

    file = save(small_resnet3d(), folder / "m.pth")
    server.files = {"m.pth": file.read_bytes()}
    one = replace(
        convert_resnet3d.CONVERTER,
        make=make,
        options=("variant",),
        downloads={"s": Download(f"{server.url}/s.pth"), "m": Download(f"{server.url}/m.pth")},
    )
    with refused(folder, r"3D ResNet has no variant 'l' to download\. Known: s, m\."):
        convert(one, None, folder / "new", variant="l")
    with refused(folder, "s.pth cannot be downloaded", ConnectionError):
        convert(one, None, folder / "new")
    convert(one, None, folder / "new", variant="m")
    convert(one, file, folder / "other")
    assert given == ["m", None]


def test_slowfast_of_another_corpus_must_be_meant(folder):
    """Something-Something's and AVA's networks have weights of the same shapes, and read clips in another way."""
    file = save_pytorchvideo(small_slowfast(num_labels=174), folder / "a.pyth")
    with refused(folder, "has 174 classes, and the network of Kinetics-400 has 400.*SlowFastConfig.num_labels=174"):
        convert("slowfast", file, folder / "new")
    convert("slowfast", file, folder / "new", config=SlowFastConfig(**SMALL_SLOWFAST, num_labels=174))
    card = (folder / "new" / "README.md").read_text()
    assert "Its classifier has 174 classes." in card and "Kinetics" not in card
