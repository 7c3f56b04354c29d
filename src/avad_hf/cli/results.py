"""Where results go: results/VERB-NUMBER and the link results/latest, and JSON documents in files or on a stream."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from avad_hf.files import as_json, check_output, write_text

from .options import STDOUT
from .terminal import MESSAGES, RESULTS, check_folder, fail, inform, name_output, refuse, say

LATEST = RESULTS / "latest"


def last_folder(verb: str) -> Path | None:
    """The last folder that a verb made by itself; ``None`` if there is none."""
    numbers = [
        int(match[1])
        for path in RESULTS.glob(f"{verb}-*")
        if (match := re.fullmatch(rf"{verb}-(\d+)", path.name)) and path.is_dir()
    ]
    return RESULTS / f"{verb}-{max(numbers)}" if numbers else None


@contextmanager
def output_folder(output: Path | None, verb: str, again: Path | None = None) -> Iterator[Path]:
    """Give the folder of the output: that of -o, or a new one in results/, to which results/latest leads in the end.

    Until then results/latest leads to the run before, which the command may read. A new folder that is still empty
    when the block ends is removed, as after a refusal.

    Args:
        output: Value of -o; ``None`` if it was left out.
        verb: Name of the command, with which the new folder's begins.
        again: Without -o, the folder to use again in place of a new one.
    """
    if output is not None:
        check_folder(output)
        yield output
        return
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        refuse("Several processes must write to one folder. Give it: -o DIR.")
    check_folder(RESULTS)
    folder = again or _new_folder(verb)
    folder.mkdir(parents=True, exist_ok=True)
    MESSAGES.output_dir = folder
    try:
        yield folder
    finally:
        if any(folder.iterdir()):
            name_output()
            _link(folder.name)
        else:
            folder.rmdir()
            with suppress(OSError):  # it holds results of other runs
                RESULTS.rmdir()


def _new_folder(verb: str) -> Path:
    RESULTS.mkdir(exist_ok=True)
    last = last_folder(verb)
    number = 1 if last is None else int(last.name.rpartition("-")[2]) + 1
    while True:
        folder = RESULTS / f"{verb}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # somebody else's, made meanwhile
            number += 1
        else:
            return folder


def _link(name: str) -> None:
    """Make results/latest lead to a folder beside it; not where there is something other than a link."""
    if LATEST.is_symlink() or not LATEST.exists():
        with suppress(OSError):  # file systems without links
            LATEST.unlink(missing_ok=True)
            LATEST.symlink_to(name, target_is_directory=True)


def check_json(path: Path | None) -> Callable[..., None]:
    """Refuse a file that cannot be written, and return what prints results for people.

    That is standard output, or standard error where the JSON document goes to standard output.
    """
    if path == STDOUT:
        return inform
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_output(path)
        except OSError as error:
            refuse(str(error) if str(path) in str(error) else f"{path} cannot be written: {error}.")
    return say


def write_json(document: dict[str, Any], path: Path | None) -> None:
    """Write a command's results as one JSON document, to a file that appears whole or to standard output."""
    if path is None:
        return
    try:
        write_text(sys.stdout.buffer if path == STDOUT else path, as_json(document, indent=2) + "\n")
    except OSError as error:
        fail(str(error) if str(path) in str(error) else f"{path} cannot be written: {error}.")
        raise typer.Exit(1) from None


__all__ = ["LATEST", "RESULTS", "check_json", "last_folder", "output_folder", "write_json"]
