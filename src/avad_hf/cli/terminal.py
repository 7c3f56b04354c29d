"""What the commands share: options with fixed values, messages, bars, and how they end when they are stopped."""

import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from avad_hf import files
from avad_hf.files import shown

from . import stopping


class DType(StrEnum):
    """Floating point types of the networks; ``auto`` is bfloat16 where the device has hardware for it."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set any field of the detector's config; VALUE is JSON or plain text. Repeat it for several.",
        show_default=False,
    ),
]


def config_settings(pairs: Sequence[str] | None, **options: Any) -> dict[str, Any]:
    """Fields of a config: what --set names, and options that are fields themselves, where they are given."""
    settings = {name: getattr(value, "value", value) for name, value in options.items() if value is not None}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not name or not equals:
            refuse(f"--set {pair}: give the name of a field and its value, such as --set threshold=0.5.")
        if name in settings:
            refuse(f"{name} is set twice. Give it once.")
        try:
            settings[name] = json.loads(text)
        except ValueError:  # plain text
            settings[name] = text
    return settings


def stoppable(goes_on: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command end on Ctrl-C (status 130) and SIGTERM (143) with one sentence; and its messages stand alone.

    Args:
        goes_on: What is kept, and how to go on.
    """

    def wrapped(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(*arguments, **options) -> None:
            with stopping.listening(), _messages_of_libraries():
                try:
                    command(*arguments, **options)
                    stopping.check()
                # Whatever a library makes of it, a command that was asked to end was stopped.
                except BaseException as error:
                    number = stopping.asked() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else None)
                    if number is None:
                        raise
                else:
                    return
                if os.environ.get("RANK", "0") == "0":  # of those that `accelerate launch` started
                    say(f"Stopped. {goes_on}", err=True, fg="yellow")
                raise typer.Exit(128 + number)

        return run

    return wrapped


@contextmanager
def _messages_of_libraries() -> Iterator[None]:
    """Print what libraries log, and their warnings, as the command prints its own notes."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage())

    handler = Notes(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: note(message)
            yield
    finally:
        logging.getLogger().removeHandler(handler)


def say(text: object, *, err: bool = False, **style: Any) -> None:
    """Print, as everything that the command prints does: on lines of its own, with control characters as escapes."""
    with _bars_aside():
        typer.secho(_printable(text, sys.stderr if err else sys.stdout), err=err, **style)


def _printable(text: object, stream: TextIO) -> str:
    lines = "\n".join(map(shown, str(text).split("\n")))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return lines.encode(encoding, "backslashreplace").decode(encoding)


@contextmanager
def _bars_aside() -> Iterator[None]:
    """Take the bars off the terminal while something else is printed."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if not getattr(bars, "_instances", None):
        yield
        return
    with bars.external_write_mode():
        if not sys.stderr.isatty():  # in a file, a bar that was taken off is still there
            sys.stderr.write("\n")
        yield


def note(message: object) -> None:
    """Print what one should know."""
    say(f"Note: {message}", err=True, fg="yellow")


def fail(message: object) -> None:
    """Print what went wrong."""
    say(f"Error: {message}", err=True, fg="red")


def refuse(message: str) -> NoReturn:
    """End the command, with status 2, before anything is computed."""
    fail(message)
    raise typer.Exit(2)


def stage(name: str) -> None:
    """Print what is done next."""
    stopping.check()
    say(f"... {name}", err=True)


def _bar(label: str, **options: Any):
    from tqdm import tqdm

    return tqdm(desc=_printable(shown(label), sys.stderr), file=sys.stderr, **options)


@contextmanager
def progress(label: str, total: float | None):
    """A bar over the seconds of one video on the terminal; yields what moves it to a number of seconds."""
    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}]"
    with _bar(label, total=total, bar_format=shape if total else None, unit="s") as bar:

        def move(seconds: float, *_) -> None:
            stopping.check()
            bar.update(min(seconds, total or seconds) - bar.n)

        yield move


@contextmanager
def progress_of_many(names: Sequence[str]):
    """A bar over the seconds of several videos; yields what moves it, with a video's number, seconds and length."""
    read, lengths = {}, {}
    with _bar(names[0] if len(names) == 1 else f"{len(names)} videos", unit="s") as bar:

        def move(number: int, seconds: float, length: float | None) -> None:
            stopping.check()
            read[number], lengths[number] = seconds, length
            known = len(lengths) == len(names) and None not in lengths.values()
            bar.total = round(sum(lengths.values()), 1) if known else None
            bar.update(round(min(sum(read.values()), bar.total or float("inf")), 1) - bar.n)

        yield move


@contextmanager
def counted(label: str, total: int, hidden: bool = False):
    """A bar over a number of videos; yields what moves it."""
    with _bar(label, total=total, unit="video", disable=hidden) as bar:

        def move(done: int, whole: int = total) -> None:
            stopping.check()
            bar.total = whole
            bar.update(done - bar.n)

        yield move


def check_folder(directory: Path) -> None:
    """Refuse what cannot be the folder of the output, before anything is loaded."""
    try:
        files.check_folder(directory)
    except OSError as error:
        refuse(str(error))


def quiet() -> None:
    """Keep the loading bars and notes of the libraries below off the terminal."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def check_checkpoint(checkpoint: str | None, option: str = "--model") -> None:
    """Refuse a folder that is not there, of which the Hub's client would say that it is no name."""
    # What looks like a path is none of the Hub's names.
    looks_like_path = checkpoint is not None and (checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1)
    if looks_like_path and not Path(checkpoint).is_dir():
        refuse(f"{option} {checkpoint}: no such folder. Give the folder of a checkpoint, or its Hub id.")


def check_device(device: str | None) -> None:
    """Refuse a device that is not there."""
    import torch

    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            refuse(f"--device {device} cannot be used: {str(error).splitlines()[0]}")
