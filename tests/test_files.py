"""Files that appear whole and in the place of nothing but files; and what may be printed."""

import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from avad_hf import files
from avad_hf.files import (
    PARTIAL,
    as_json,
    check_folder,
    check_output,
    folder_written_whole,
    shown,
    write_file,
    write_text,
    written_whole,
)


@pytest.fixture
def umask():
    """That of a group that shares its files."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture(params=["pipe", "socket", "folder"])
def special(request, tmp_path):
    """Something that is no regular file, and what it is called."""
    path = tmp_path / "special"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "folder":
        path.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    return path, request.param


def test_only_files_are_replaced(tmp_path, special):
    path, name = special
    link = tmp_path / "link"
    link.symlink_to(path)
    kind = stat.S_IFMT(path.stat().st_mode)
    for given in (path, link):
        for write in (check_output, lambda target: write_text(target, "text")):
            with pytest.raises(OSError, match=f"{given.name} is a {name}.* Give a"):
                write(given)
    with pytest.raises(OSError, match="special is a "):
        write_file(path, b"data")
    assert stat.S_IFMT(path.stat().st_mode) == kind and link.is_symlink()
    assert {entry.name for entry in tmp_path.iterdir()} == {"special", "link"}


@pytest.mark.parametrize(
    "stream", ["/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1", "/dev/../dev/stdout", "/dev//fd/7"]
)
def test_open_streams_are_refused_whatever_they_lead_to(stream):
    with pytest.raises(OSError, match=r"is a stream that is open already, and is not replaced.* that is called -"):
        check_output(stream)


def test_a_device_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"/dev/full is a device, and only regular files are replaced"):
        check_output("/dev/full")
    (tmp_path / "link").symlink_to("/dev/full")
    with pytest.raises(OSError, match="link is a device"):
        check_output(tmp_path / "link")


def test_of_a_link_the_file_that_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(f"there/{name}.txt")
    (tmp_path / "there" / "old.txt").write_text("before")
    for name in ("old", "new"):
        check_output(tmp_path / name)
        write_text(tmp_path / name, "after")
        assert (tmp_path / name).is_symlink()
    assert {path.name: path.read_text() for path in (tmp_path / "there").iterdir()} == {
        "old.txt": "after",
        "new.txt": "after",
    }
    (tmp_path / "nowhere").symlink_to("none/x.txt")
    with pytest.raises(FileNotFoundError, match=r"nowhere cannot be written: .*none does not exist"):
        check_output(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError, match="circle is a broken link, and only regular files are replaced"):
        write_text(tmp_path / "circle", "text")


def test_links_of_others_and_those_at_names_that_nobody_gave_are_not_followed(tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (tmp_path / "out").symlink_to(secret)
    write_file(tmp_path / "out", b"data")
    assert not (tmp_path / "out").is_symlink() and (tmp_path / "out").read_bytes() == b"data"
    (tmp_path / "planted").symlink_to(secret)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(OSError, match="planted is a link that another user made, and is not followed"):
        write_text(tmp_path / "planted", "text")
    assert secret.read_text() == "kept"


def test_what_is_planted_at_the_partial_name_is_not_written_through(tmp_path, monkeypatch):
    secret, target = tmp_path / "secret", tmp_path / "r.json"
    secret.write_text("kept")
    (tmp_path / f"r.json{PARTIAL}").symlink_to(secret)
    os.mkfifo(tmp_path / f"r.json.2{PARTIAL}")
    (tmp_path / f"r.json.3{PARTIAL}").mkdir()
    planted = {path.name for path in tmp_path.iterdir()}
    check_output(target)
    write_text(target, "text")
    assert target.read_text() == "text" and not target.is_symlink()
    assert secret.read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == planted | {"r.json"}
    monkeypatch.setattr(files, "MOST_WRITERS", 3)
    with pytest.raises(OSError, match=r"3 others are writing .*r.json. Give another name"):
        write_text(target, "more")


KILLED = """
import os, sys
from avad_hf.files import folder_written_whole, written_whole
with written_whole("r.json") as file, written_whole("r.json") as second, folder_written_whole("made") as folder:
    for path in (file, second, folder / "half"):
        path.write_text("half")
    os.kill(os.getpid(), 9)
"""


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    with written_whole(tmp_path / "r.json") as first, written_whole(tmp_path / "r.json") as second:
        first.write_text("1")
        second.write_text("2")
    with folder_written_whole(tmp_path / "made") as folder:
        (folder / "whole").write_text("whole")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["r.json", "whole"]


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    target = tmp_path / "r.json"
    with written_whole(target) as first:
        first.write_text("first")
        with written_whole(target) as second:
            second.write_text("second")
        assert target.read_text() == "second" and first.read_text() == "first"
        with pytest.raises(ZeroDivisionError), written_whole(target) as third:
            third.write_text(str(1 / 0))
    assert target.read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_permissions_are_those_that_opening_gives(tmp_path, umask):
    path = tmp_path / "r.json"

    def mode(path):
        return oct(stat.S_IMODE(path.stat().st_mode))

    write_text(path, "new")
    assert mode(path) == "0o640"
    path.chmod(0o600)
    write_text(path, "again")
    assert mode(path) == "0o600"
    with written_whole(tmp_path / "moved") as partial:  # as safetensors does
        (tmp_path / "own").touch(mode=0o600)
        os.replace(tmp_path / "own", partial)
    assert mode(tmp_path / "moved") == "0o640"
    with folder_written_whole(tmp_path / "made") as folder:
        (folder / "file").write_text("text")
    assert (mode(tmp_path / "made"), mode(tmp_path / "made" / "file")) == ("0o750", "0o640")


def test_a_folder_appears_at_once_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "made"
    with pytest.raises(ZeroDivisionError), folder_written_whole(target) as folder:
        (folder / "half").write_text(str(1 / 0))
    assert not list(tmp_path.iterdir())
    with folder_written_whole(target) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("1")
        assert not target.exists()
    with folder_written_whole(target) as folder:  # what is there already stays
        (folder / "more").write_text("2")
    assert sorted(path.name for path in target.rglob("*")) == ["file", "more", "sub"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with folder_written_whole(".") as folder:
        (folder / "file").write_text("3")
    assert Path("file").read_text() == "3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "made"]


def test_output_places_are_tried(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match=r"file is a file. Give a folder"):
        check_folder(tmp_path / "file" / "run")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"pipe is a pipe. Give a folder"):
        check_folder(tmp_path / "pipe")
    # Where root cannot write either.
    with pytest.raises(OSError, match=r"Nothing can be written to /proc. Give another folder"):
        check_folder("/proc/run/of/mine")
    with pytest.raises(OSError, match=r"/proc/r.json cannot be written: "):
        check_output("/proc/r.json")
    with pytest.raises(OSError, match=r"r.json cannot be written: .*none does not exist"):
        check_output(tmp_path / "none" / "r.json")
    with pytest.raises(OSError, match="cannot be written: File name too long"):
        check_output(tmp_path / ("x" * 250))
    check_folder(tmp_path / "new" / "run")
    check_output(tmp_path / "r.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


def test_json_has_no_numbers_that_are_none():
    given = {"a": float("nan"), "b": [1.5, (float("inf"), -float("inf"))], "c": {"d": True, "e": None}}
    assert json.loads(as_json(given)) == {"a": None, "b": [1.5, [None, None]], "c": {"d": True, "e": None}}
    assert as_json({"a": [1, "é"]}, indent=2) == '{\n  "a": [\n    1,\n    "é"\n  ]\n}'


NAMES = {
    "plain name-é漢.mp4": "plain name-é漢.mp4",
    "\x1b[31mred\x07": r"\x1b[31mred\x07",
    "\x9b31m\x7f\x00": r"\x9b31m\x7f\x00",
    "two\nlines\r\t": r"two\nlines\r\t",
    "a\u202egpj.exe\u2066\u200f\u061c": r"a\u202egpj.exe\u2066\u200f\u061c",
    "line\u2028\u2029\x85": r"line\u2028\u2029\x85",
    os.fsdecode(b"\xff\xfe.mp4"): r"\xff\xfe.mp4",
    "\ud83d": r"\ud83d",
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_terminal_obeys_is_shown(name):
    assert shown(name) == NAMES[name]
    text = as_json({name: [name]}, indent=1)
    assert json.loads(text) == {name: [name]}
    assert shown(text.replace("\n", "")) == text.replace("\n", "")  # nothing is left to be obeyed
    text.encode("utf-8")


def test_text_goes_to_open_files_too(tmp_path):
    written = io.BytesIO()
    for target in (written, tmp_path / "t"):
        write_text(target, "é\r\n\udcff")
    assert written.getvalue() == (tmp_path / "t").read_bytes() == b"\xc3\xa9\r\n\\udcff"
