"""One run a folder: who is refused, what a killed run leaves behind, and what a full disk does."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import SafetensorError

from avad_hf.disks import DiskError, writing
from avad_hf.files import folder_written_whole, written_whole
from avad_hf.runs import LOCK, new_folder, only_run, sweep, temporary_folder

from . import warm
from .feature_stores import plant
from .killing import Found, Victim
from .media_files import frame_times, sound, write_media
from .small_disks import needs_mounts

HOLD = """
import sys, time
from avad_hf.runs import new_folder, only_run, temporary_folder
hold = {"new": new_folder, "run": only_run, "temporary": lambda unused: temporary_folder()}[sys.argv[2]]
with hold(sys.argv[1]) as folder:
    if folder is not None:
        (folder / "half").write_text("half")
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder():
    """Starts a process that holds a folder: `holder(folder, how)`."""
    started = []

    def hold(folder: Path, how: str = "run") -> subprocess.Popen:
        process = subprocess.Popen([sys.executable, "-c", HOLD, folder, how], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# Locks


@pytest.mark.parametrize("how", ["run", "new"])
def test_a_second_run_is_refused_until_the_first_is_killed(tmp_path, holder, how):
    folder, hold = tmp_path / "deep" / "folder", {"run": only_run, "new": new_folder}[how]
    process = holder(folder, how)
    said = rf"Another run is writing {folder} \(process {process.pid} on {os.uname().nodename}, since \d{{4}}-.*\)\. "
    with pytest.raises(ValueError, match=said + r"Wait for it, stop it, or give another folder\."), hold(folder):
        pass
    with only_run(folder, is_main_process=False):  # another process of the same run
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with hold(folder) as new:
        assert how == "run" or not list(new.iterdir())
    assert names(tmp_path / "deep") == ["folder"]


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path):
    (tmp_path / "there").mkdir()
    for folder in (tmp_path / "a" / "b", tmp_path / "there"):
        with pytest.raises(KeyError), only_run(folder):
            assert names(folder) == [LOCK]
            raise KeyError
    assert names(tmp_path) == ["there"]
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileExistsError, match=r"file is a file, and not an empty folder\."),
        only_run(tmp_path / "file"),
    ):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_on_file_systems_without_locks_a_run_goes_on_with_a_notice(tmp_path, monkeypatch, caplog, code):
    import fcntl

    def flock(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with only_run(tmp_path / "run"):
        (tmp_path / "run" / "result").touch()
    assert names(tmp_path / "run") == ["result"]
    assert "run is on a file system without locks: start no second run on it." in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def mkdir(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    said = r"^The folder of the run \(.*/run\) cannot be written: Read-only file system; .*: have the disk mounted"
    with pytest.raises(DiskError, match=said), only_run(tmp_path / "run"):
        pass


# What is left


def test_what_killed_runs_left_is_removed_and_what_others_write_stays(tmp_path, holder):
    holder(tmp_path / "other")
    for name in ("other/x.partial", "a/b/x.partial", "a/y.3.partial", "a/keep.txt", "a/clip.partial-12.safetensors"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("epoch_0001.partial", ".partial-tmp12"):
        (tmp_path / "a" / name).mkdir()
        (tmp_path / "a" / name / "model.safetensors").touch()
    elsewhere = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    elsewhere.mkdir()
    (elsewhere / "z.partial").touch()
    (tmp_path / "link").symlink_to(elsewhere)
    with written_whole(tmp_path / "a" / "live") as live, folder_written_whole(tmp_path / "a" / "made") as made:
        sweep(tmp_path)
        assert live.exists() and made.exists()
    kept = [
        "a",
        "a/b",
        "a/clip.partial-12.safetensors",
        "a/keep.txt",
        "a/live",
        "a/made",
        "link",
        "other",
        "other/.lock",
    ]
    assert names(tmp_path) == [*kept, "other/x.partial"]
    assert (elsewhere / "z.partial").exists()


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(KeyError), new_folder(tmp_path / name) as folder:
            (folder / "half").touch()
            raise KeyError
        assert names(tmp_path) == ["empty"]
    for name in ("new", "empty"):
        with new_folder(tmp_path / name) as folder:
            (folder / "file").write_text(name)
            (folder.with_name("videos")).mkdir()
            assert not (tmp_path / name / "file").exists()
    assert names(tmp_path) == ["empty", "empty/file", "new", "new/file"]
    (tmp_path / ".partial-new").mkdir()  # of a run that was killed at its very end
    with pytest.raises(FileExistsError, match="new is not an empty directory"), new_folder(tmp_path / "new"):
        pass
    assert (tmp_path / "new" / "file").read_text() == "new"
    assert names(tmp_path) == ["empty", "empty/file", "new", "new/file"]


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "avad_hf-without-lock").mkdir()
    killed, living = (holder(tmp_path / "unused", "temporary") for _ in range(2))
    made = {path for path in tmp_path.iterdir() if (path / "half").exists()}
    assert len(made) == 2
    killed.kill()
    killed.wait()
    with temporary_folder() as folder:
        (folder / "video").touch()
        (kept,) = made & set(tmp_path.iterdir())
        with temporary_folder() as other:  # of a second thread, say
            assert other != folder and folder.exists()
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "avad_hf-without-lock", kept])
    living.kill()
    living.wait()
    with temporary_folder():
        pass
    assert names(tmp_path) == ["avad_hf-without-lock"]


# Kills. Those of extract and train at other moments are in their own tests, and hundreds in benchmarks/kills.py.

# Engines take seconds, and are written by others: what is tested is what becomes of their folder.
QUICK_EXPORT = """
from avad_hf.export import engines
from avad_hf.export.parity import Parity

def export(network, place, format, precision):
    place.mkdir(parents=True, exist_ok=True)
    for name in ("openvino_model.bin", "openvino_model.xml"):
        (place / name).write_bytes(name.encode() * 1000)

engines._export = export
engines.compare = lambda *arguments: Parity(1, 1, {}, 0.0)
"""


@pytest.mark.parametrize(
    ("verb", "shares"),
    [
        ("train", (0.5, 0.4, 0.3)),  # of what one run does; a resumed one does less
        # In the middle, while the last files are written, and right before the last thing that is done.
        ("detect", (0.5, 0.9, 1.0)),
        ("export", (0.5, 0.9, 1.0)),
    ],
    ids=["train", "detect", "export"],
)
def test_three_kills_leave_equal_bytes_and_nothing_else(tiny, tmp_path, verb, shares):
    clip = write_media(tmp_path / "clip.mp4", frame_times(25, 1.0), sound(0, 1.0, 16000), 16000, audio_codec="aac")
    if verb == "train":
        arguments = [str(plant(tmp_path / "store", num_videos=20)), "-o", "{work}/out", "--architecture", "avaca"]
        arguments += ["--set", "hidden_size=4", "--set", "intermediate_size=4", "--epochs", "3", "--batch-size", "4"]
        arguments += ["--resume"]
    elif verb == "detect":
        arguments = [clip, "--model", tiny, "--csv", "{work}/out.csv", "--json", "{work}/out.json"]
    else:
        arguments = [tiny, "{work}/out", "--calibrate", clip]
    victim = Victim(tmp_path, [verb, *arguments], QUICK_EXPORT if verb == "export" else "", verb == "export")
    found = Found()
    victim.round([int(share * victim.operations) for share in shares], found)
    assert found.kills == 3 and found.phases["while"] + found.phases["after"] >= 2
    assert (found.different, found.stray, found.failed) == ([], [], [])


# Full disks


@needs_mounts
def test_training_on_disks_that_fill_up_at_each_of_its_files(tmp_path):
    """With room the run goes on, and ends as one that always had it."""
    store = plant(tmp_path / "store", num_videos=20)
    code = f"""
import json, shutil
from pathlib import Path
from avad_hf import TrainingConfig, train
from avad_hf.training.run import RunFolder
from small_disks import SmallDisk

def learn(place, resume):
    train(TrainingConfig({str(store)!r}, str(place / "run"), epochs=2, patience=None, batch_size=4,
                         model_options={{"hidden_size": 4, "intermediate_size": 4, "normalisation": "batch"}}),
              resume=resume, progress=False)

def contents(place):
    return {{path.name: path.read_bytes() for path in (place / "run").iterdir() if path.name != "training.json"}}

def fill(*arguments):
    (disk.folder / "other").write_bytes(bytes(shutil.disk_usage(disk.folder).free))
    return best_weights(*arguments)

place, best_weights = Path({str(tmp_path)!r}), RunFolder.best_weights
disk, said = SmallDisk(place / "disk"), []
learn(place / "whole", False)
for size in (4096, 20480, 61440, 131072, 204800, 1 << 20):
    disk.empty(size)
    if size == 1 << 20:  # which somebody else fills when only the checkpoint is to be written
        RunFolder.best_weights = fill
    try:
        learn(disk.folder, False)
    except OSError as error:
        said.append(str(error))
    RunFolder.best_weights = best_weights
    assert not list(disk.folder.rglob("*.partial*")) and not list(disk.folder.rglob(".*"))
    disk.grow(1 << 24)
    learn(disk.folder, True)
    assert contents(disk.folder) == contents(place / "whole"), size
print(json.dumps(said))
"""
    said = json.loads(warm.run(code=code).stdout)
    assert len(said) == 6
    words = (
        r"The (?:record of the run|state of the run|trained checkpoint) \((\S+)\) cannot be written: No space left "
    )
    words += (
        r"on device; 0\.0 MB are free there\. What is finished stays: make room, and resume the run \(--resume\)\."
    )
    named = [re.fullmatch(words, sentence)[1] for sentence in said]
    assert {Path(name).name.split("_")[0] for name in named} == {"training.json", "best", "epoch", "run"}


@pytest.mark.parametrize(
    ("error", "free", "words"),
    [
        (SafetensorError("I/O error: No space left on device (os error 28)"), 1 << 30, "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"), 1 << 12, "No space left on"),
        (RuntimeError("basic_ios::clear: iostream error"), 1 << 30, "Input/output error"),
    ],
    ids=["safetensors", "torch", "openvino"],
)
def test_what_libraries_say_of_a_disk_is_understood(tmp_path, monkeypatch, error, free, words):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    said = rf"^The engines \({tmp_path}\) cannot be written: {words}"
    with pytest.raises(DiskError, match=said), writing(tmp_path, "The engines"):
        raise error


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "make room, and run"),
        (errno.EDQUOT, "have the quota raised"),
        (errno.EFBIG, "raise the limit of a file's size"),
        (errno.EROFS, "have the disk mounted for writing"),
        (errno.EIO, "have the disk .* checked"),
        (errno.EACCES, "have its permissions changed"),
    ],
)
def test_the_sentence_says_which_file_why_and_what_to_do(tmp_path, code, advice):
    path = tmp_path / "new" / "file"
    said = (
        rf"^The features \({path}\) cannot be written: {os.strerror(code)}; \d+\.\d [MG]B are free there\. .*{advice}"
    )
    with pytest.raises(DiskError, match=said) as raised, writing(path, "The features"):
        raise OSError(code, os.strerror(code))
    assert raised.value.errno == code and raised.value.filename == str(path)


def test_a_sentence_within_another_is_that_of_the_inner_file_and_the_outer_words(tmp_path):
    said = rf"^The store \({tmp_path}/index\) cannot be written: No space left .* make room, and go on\.$"
    with (
        pytest.raises(DiskError, match=said),
        writing(tmp_path, "The store", "go on"),
        written_whole(tmp_path / "index"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_errors_of_other_things_pass(tmp_path):
    for error in (ValueError("iostream of consciousness"), FileNotFoundError(errno.ENOENT, "none"), KeyError("os")):
        with pytest.raises(type(error)) as raised, writing(tmp_path):
            raise error
        assert raised.value is error
    with pytest.raises(OSError, match="Input/output error") as raised, writing(tmp_path, reads=True):
        raise OSError(errno.EIO, "Input/output error")  # of what was read, perhaps
    assert not isinstance(raised.value, DiskError)
