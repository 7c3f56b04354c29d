"""Commands that are stopped, and messages beside bars: in this process, as others, and on a terminal."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from contextlib import suppress

import pytest
import typer
from typer.testing import CliRunner

from avad_hf.cli import app, stopping
from avad_hf.cli.terminal import counted, progress, stage, stoppable
from avad_hf.corpora.scan import Scan, probe
from avad_hf.media.decode import MediaError

from .media_files import frame_times, write_media

runner = CliRunner()


@pytest.fixture(autouse=True)
def _ctrl_c():
    """As at a terminal: shells have it ignored of what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop(number: int) -> None:
    """Handlers are the main thread's; without one, this would end the tests.

    The signal is raised in this thread: another one that took it might be late, when the handlers are gone.
    """
    assert threading.current_thread() is threading.main_thread()
    assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
    signal.raise_signal(number)


def ended(command, number: int, capsys) -> str:
    """What a command says whose end is asked for."""
    with pytest.raises(typer.Exit) as raised:
        stoppable("Go on.")(command)()
    assert raised.value.exit_code == 128 + number
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    return capsys.readouterr().err


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_ends_a_command_with_one_sentence(number, capsys):
    done = []

    def command():
        try:
            stop(number)
            done.append("went on")
        finally:
            done.append("cleaned")

    assert ended(command, number, capsys) == "Stopped. Go on.\n"
    assert done == ["cleaned"]


@pytest.mark.parametrize("bar", [counted("videos", 3), progress("video", 3.0)], ids=["videos", "seconds"])
def test_what_is_lost_in_a_callback_is_raised_again(bar, capsys):
    """As FFmpeg's callbacks lose it."""
    moved = []

    def command():
        with bar as move:
            for number in range(3):
                move(number)
                moved.append(number)
                with suppress(KeyboardInterrupt):
                    stop(signal.SIGTERM)

    assert "Stopped. Go on.\n" in ended(command, signal.SIGTERM, capsys)
    assert moved == [0]


def test_whatever_a_library_makes_of_it(capsys):
    def command():
        try:
            stop(signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise RuntimeError("a worker died") from error

    assert ended(command, signal.SIGTERM, capsys) == "Stopped. Go on.\n"

    def lost():
        with pytest.raises(KeyboardInterrupt):
            stop(signal.SIGTERM)

    assert ended(lost, signal.SIGTERM, capsys) == "Stopped. Go on.\n"

    def between():
        lost()
        stage("the next one")

    assert ended(between, signal.SIGTERM, capsys) == "Stopped. Go on.\n"
    with pytest.raises(ZeroDivisionError):
        stoppable("Go on.")(lambda: 1 / 0)()


def test_what_must_be_written_is_written_first(capsys):
    done = []

    def command():
        with stopping.unstopped():
            stop(signal.SIGTERM)
            done.append("written")
        done.append("went on")

    assert ended(command, signal.SIGTERM, capsys) == "Stopped. Go on.\n"
    assert done == ["written"]


def test_what_was_ignored_stays_ignored(capsys):
    """As `nohup` and shells have it of programs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stoppable("Go on.")(lambda: signal.raise_signal(signal.SIGINT))()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == ""


def test_only_the_first_process_of_many_says_it(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert ended(lambda: stop(signal.SIGTERM), signal.SIGTERM, capsys) == ""


def test_every_command_can_be_stopped():
    for command in app.registered_commands:
        assert hasattr(command.callback, "__wrapped__"), command.callback.__name__


SCRIPT = """
import os, signal, sys, time, typer
from avad_hf.cli.terminal import stoppable

# Where the tests themselves run in the background, shells have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def command():
{}
try:
    stoppable("Go on.")(command)()
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


def process(body: str, **options) -> subprocess.Popen:
    """A command in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    return subprocess.Popen([sys.executable, "-c", SCRIPT.format(textwrap.indent(body, "    "))], **options)


def test_a_second_signal_ends_it_at_once_even_where_the_first_was_lost():
    running = process("""
while True:
    try:
        print("up", flush=True)
        time.sleep(100)
    except BaseException:
        print("lost", flush=True)
""")
    assert running.stdout.readline() == "up\n"
    running.send_signal(signal.SIGTERM)
    assert running.stdout.readline() == "lost\n"
    for _ in range(300):  # what comes right after the first is an echo of it
        running.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            running.wait(0.2)
            break
    else:
        running.kill()
    assert running.returncode == 128 + signal.SIGINT
    running.communicate()


def test_an_echo_is_no_second_signal():
    """`timeout` sends a signal to the process and to its group."""
    running = process("""
try:
    os.kill(os.getpid(), signal.SIGTERM)
finally:
    os.kill(os.getpid(), signal.SIGTERM)
    print("written")
""")
    assert running.communicate(timeout=60) == ("written\n", "Stopped. Go on.\n")
    assert running.returncode == 143


def test_children_end_without_their_parent():
    running = process("""
for _ in range(2):
    if not (child := os.fork()):
        time.sleep(100)
    time.sleep(0.6)
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")
    assert running.communicate(timeout=60) == ("-15\n-15\n", "")
    assert running.returncode == 0


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> list[str]:
    """Three videos of one clip."""
    folder = tmp_path_factory.mktemp("short")
    return [write_media(folder / f"{name}.mp4", frame_times(25, 1.28)) for name in "abc"]


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_detect_writes_what_is_done(tmp_path, tiny, short, monkeypatch, number):
    from avad_hf.report import timeline

    drawn = []

    def draw(result, media, path):
        if drawn:
            stop(number)
        drawn.append(path)

    monkeypatch.setattr(timeline, "plot_timeline", draw)
    outputs = ("--json", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv"), "--plot", str(tmp_path))
    done = runner.invoke(app, ["detect", *short, "--model", tiny, *outputs])
    assert done.exit_code == 128 + number
    assert list(json.loads((tmp_path / "r.json").read_text())) == short[:2]
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 1 + 2
    assert done.stderr.endswith(
        "Stopped. The results of the videos that were finished are kept. Run the command again for the others.\n"
    )
    assert "Error" not in done.output
    # Before the first result nothing is known, and what was written before stays.
    done = runner.invoke(app, ["detect", short[0], "--model", tiny, *outputs[:4], "--plot", str(tmp_path / "a.png")])
    assert done.exit_code == 128 + number and len(json.loads((tmp_path / "r.json").read_text())) == 1
    monkeypatch.setattr("avad_hf.cli.videos._opened", lambda *_: stop(number))
    done = runner.invoke(app, ["detect", short[1], "--model", tiny, *outputs[:4]])
    assert done.exit_code == 128 + number
    assert list(json.loads((tmp_path / "r.json").read_text())) == short[:1]


def test_a_scan_that_is_stopped_waits_for_no_video_that_is_not_begun(monkeypatch):
    opened = []

    def open_media(row):
        opened.append(row)
        time.sleep(0.005)
        raise MediaError("broken")

    monkeypatch.setattr("avad_hf.corpora.scan.open_media", open_media)

    def interrupt(done):
        raise KeyboardInterrupt

    found = Scan("own", "L0", [{"id": str(number)} for number in range(2000)])
    with pytest.raises(KeyboardInterrupt):
        probe(found, interrupt)
    assert len(opened) < 2000


BESIDE = """
import logging, warnings
from avad_hf.cli.terminal import counted, fail, say
with counted("a bar\\x1b[2J", 4) as move:
    move(1)
    fail("first\\x1b[31m \\u202e\\udcff")
    move(2)
    say("a result")
    logging.getLogger("avad_hf.some").warning("logged %s", "once")
    move(3)
    warnings.warn("warned")
say("end", err=True)
"""
MESSAGES = [r"Error: first\x1b[31m \u202e\xff", "a result", "Note: logged once", "Note: warned", "end"]


def on_screen(said: str) -> list[str]:
    """Lines that a terminal shows; colours are left out."""
    lines = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", said).split("\n"):
        cells = ""
        for part in line.split("\r"):
            cells = part + cells[len(part) :]
        lines.append(cells.rstrip())
    return [line for line in lines if line]


def test_messages_beside_bars_have_lines_of_their_own_on_a_terminal():
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    running = process(BESIDE, stdout=terminal, stderr=terminal)
    os.close(terminal)
    said = b""
    while True:
        try:
            said += os.read(reader, 1 << 16)
        except OSError:  # nobody writes any more
            break
    os.close(reader)
    assert running.wait() == 0
    shown = on_screen(said.decode())
    assert [line for line in shown if "a bar" not in line] == MESSAGES
    assert shown[-2].startswith(r"a bar\x1b[2J: ") and "3/4" in shown[-2]


def test_messages_beside_bars_have_lines_of_their_own_in_a_file():
    running = process(BESIDE, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    lines = running.communicate()[0].split("\n")
    assert running.returncode == 0
    assert [line for line in lines if line in MESSAGES] == MESSAGES
