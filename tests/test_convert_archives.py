"""Published files in folders and archives: found by their paths within, and nothing else of an archive is used."""

import io
import pickle
import tarfile
import tempfile
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from avad_hf import ResNet3dForVideoClassification, VggishModel
from avad_hf.convert import archives
from avad_hf.convert.encoders import convert
from avad_hf.convert.files import sha256_of
from avad_hf.models.resnet3d import convert_resnet3d
from avad_hf.models.vggish import convert_vggish

from .test_convert_files import expect_small, refused, small_resnet3d, small_tensorflow
from .test_tensorflow_bundle import write_bundle
from .test_unpickling import Runs

pytestmark = pytest.mark.usefixtures("one_thread")

INSIDE = "net-1.0/net/weights/net.pth"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Everything that a test writes, also for a time; the converters expect small networks."""
    expect_small(monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


@pytest.fixture
def packaged():
    """A converter whose file is in a package."""
    return replace(convert_resnet3d.CONVERTER, inside=("*net/weights/net.pth", "*other.pth"))


@pytest.fixture(scope="module")
def content() -> bytes:
    """Of the file in the package."""
    torch.manual_seed(0)
    file = io.BytesIO()
    torch.save(small_resnet3d(), file)
    return file.getvalue()


def tar(path, *members: tuple[str, bytes | dict]) -> None:
    """A ``.tar.gz`` of files with content, and of links and devices by what a header says of them."""
    with tarfile.open(path, "w:gz") as file:
        for name, value in members:
            info = tarfile.TarInfo(name)
            if isinstance(value, bytes):
                info.size = len(value)
                file.addfile(info, io.BytesIO(value))
            else:
                for field, said in value.items():
                    setattr(info, field, said)
                file.addfile(info)


def wheel(path, *members: tuple[str, bytes], mode: int = 0o100644) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, value)


PACK = {"net-1.0.tar.gz": tar, "net-1.0.tgz": tar, "net-1.0-py3-none-any.whl": wheel, "net.zip": wheel}


@pytest.mark.parametrize("name", PACK)
def test_file_in_an_archive(folder, packaged, content, name):
    PACK[name](folder / name, ("net-1.0/setup.py", b"raise SystemExit"), (INSIDE, content))
    done = convert(packaged, folder / name, folder / "new")
    (folder / "net.pth").write_bytes(content)
    weights = ResNet3dForVideoClassification.from_pretrained(folder / "new").state_dict()
    assert torch.equal(weights["fc.bias"], torch.load(folder / "net.pth")["fc.bias"])
    assert done.source_sha256 == sha256_of(folder / name)
    card = (folder / "new" / "README.md").read_text()
    assert "Converted from `net.pth`, in the format of [3D-ResNets-PyTorch]" in card
    assert f"SHA-256 `{sha256_of(folder / 'net.pth')}`, out of `{name}`, SHA-256 `{done.source_sha256}`." in card
    assert not any((folder / "temporary").iterdir())


def test_file_in_a_folder(folder, packaged, content):
    """From wherever in the package it is given."""
    path = folder / INSIDE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    for number, given in enumerate((folder / "net-1.0", path.parent, path)):
        done = convert(packaged, given, folder / f"new{number}")
        assert done.source_sha256 == sha256_of(path)
        card = (folder / f"new{number}" / "README.md").read_text()
        assert f"SHA-256 `{sha256_of(path)}`." in card and "out of" not in card


@pytest.mark.parametrize("name", ["a.whl", "a.tar.gz"])
def test_checkpoint_of_several_files(folder, name):
    """TensorFlow's V2 checkpoints: the data files come with the index."""
    tensors = small_tensorflow()
    write_bundle(folder / "variables", tensors, shards=2)
    files = [(f"a/base/{path.name}", path.read_bytes()) for path in sorted(folder.glob("variables.*"))]
    PACK["net.zip" if name == "a.whl" else "net-1.0.tgz"](
        folder / name, *files, ("a/extended/variables.index", b""), ("b/base/variables.data-00000-of-00002", b"")
    )
    one = replace(convert_vggish.CONVERTER, inside=("*base/variables.index",), compare=None)
    convert(one, folder / name, folder / "new")
    found = VggishModel.from_pretrained(folder / "new").state_dict()["embeddings.4.bias"]
    np.testing.assert_array_equal(found, tensors["vggish/fc2/biases"])
    path = folder / "base" / "variables.index"
    path.parent.mkdir()
    for part in folder.glob("variables.*"):
        part.rename(path.with_name(part.name))
    assert convert(one, folder / "base", folder / "other").source_sha256 == sha256_of(path)


# What is refused


def test_archives_without_the_file_or_with_several(folder, packaged, content):
    words = r"matches \*net/weights/net.pth or \*other.pth\. Give it as it is published, or the file of weights itself"
    for name in ("a.tar.gz", "a.zip"):
        pack = tar if name == "a.tar.gz" else wheel
        pack(folder / name, ("net-1.0/README", b"x"), ("net-1.0/weights/net.pth", content))
        with refused(folder, rf"{name} is not used: no file in it {words}"):
            convert(packaged, folder / name, folder / "new")
        pack(folder / name, (INSIDE, content), ("net-1.0/other.pth", content))
        with refused(folder, rf"{name} is not used: 2 files in it match .*one must \({INSIDE}, net-1.0/other.pth\)"):
            convert(packaged, folder / name, folder / "new")
    with refused(folder, rf"temporary is not used: no file in it {words}"):
        convert(packaged, folder / "temporary", folder / "new")


def test_folder_without_end(folder, packaged, monkeypatch):
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    for number in range(4):
        (folder / "temporary" / f"{number}").touch()
    with refused(folder, "temporary is not used: it holds more than 3 files"):
        convert(packaged, folder / "temporary", folder / "new")


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (
            (INSIDE, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
            f"{INSIDE} is a link or a device, and no file",
        ),
        ((INSIDE, {"type": tarfile.CHRTYPE}), f"{INSIDE} is a link or a device, and no file"),
        ((INSIDE, {"type": tarfile.FIFOTYPE}), f"{INSIDE} is a link or a device, and no file"),
        ((f"../../{INSIDE}", b"x"), rf"the path of \.\./\.\./{INSIDE} leads out of it"),
        ((f"/{INSIDE}", b"x"), f"the path of /{INSIDE} leads out of it"),
    ],
)
def test_links_and_paths_that_lead_out(folder, packaged, member, words):
    tar(folder / "a.tar.gz", ("net-1.0/README", b"x" * 5000), member)
    with refused(folder, rf"a.tar.gz is not used: {words}\. Give it"):
        convert(packaged, folder / "a.tar.gz", folder / "new")


def test_links_and_paths_that_lead_out_of_a_wheel(folder, packaged):
    wheel(folder / "a.whl", (INSIDE, b"/etc/passwd"), mode=0o120777)
    with refused(folder, f"a.whl is not used: {INSIDE} is a link or a device, and no file"):
        convert(packaged, folder / "a.whl", folder / "new")
    wheel(folder / "a.whl", (f"../{INSIDE}", b"x"))
    with refused(folder, rf"a.whl is not used: the path of \.\./{INSIDE} leads out of it"):
        convert(packaged, folder / "a.whl", folder / "new")


@pytest.mark.parametrize(("name", "words"), [("a.tar.gz", "it unpacks to"), ("a.zip", f"{INSIDE} unpacks to")])
def test_archives_that_unpack_to_too_much(folder, packaged, name, words):
    (tar if name == "a.tar.gz" else wheel)(folder / name, (INSIDE, bytes(10_000_000)))
    assert (folder / name).stat().st_size < 100_000
    with refused(folder, f"{name} is not used: {words}"):
        convert(packaged, folder / name, folder / "new")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_archives_that_are_cut_or_damaged(folder, packaged, content, name):
    (tar if name == "a.tar.gz" else wheel)(folder / name, (INSIDE, content))
    whole = (folder / name).read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        (folder / name).write_bytes(whole[:size])
        with refused(folder, rf"{name} is not used: it is cut or damaged \(\w+: .*Give it as it is published"):
            convert(packaged, folder / name, folder / "new")
    middle = len(whole) // 2
    (folder / name).write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with refused(folder, rf"{name} is not used: it is cut or damaged"):
        convert(packaged, folder / name, folder / "new")


def test_files_in_archives_are_checked_as_others_are(folder, packaged, content):
    """And are called by their paths in the archive."""
    ran = folder / "ran"
    tar(folder / "a.tar.gz", (INSIDE, pickle.dumps({"fc.bias": Runs(ran)})))
    with refused(folder, rf"a.tar.gz/{INSIDE} is not read: it asks for"):
        convert(packaged, folder / "a.tar.gz", folder / "new")
    assert not ran.exists()
    tar(folder / "a.tar.gz", (INSIDE, content[:-50]))
    with refused(folder, rf"a.tar.gz/{INSIDE} is cut or damaged"):
        convert(packaged, folder / "a.tar.gz", folder / "new")
    file = io.BytesIO()
    torch.save({"encoder.weight": torch.ones(2)}, file)
    tar(folder / "a.tar.gz", (INSIDE, file.getvalue()))
    with refused(folder, rf"a.tar.gz/{INSIDE} is of another network"):
        convert(packaged, folder / "a.tar.gz", folder / "new")


def test_weights_of_another_hash(folder, packaged, content):
    (folder / "net.pth").write_bytes(content)
    with refused(folder, f"net.pth: SHA-256 of its weights is [0-9a-f]+, and that of the published ones {'0' * 64}"):
        convert(packaged, folder / "net.pth", folder / "new", weights_sha256="0" * 64)
