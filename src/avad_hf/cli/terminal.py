"""What the commands share: messages, bars, and how they end when they are stopped or something fails."""

import gc
import inspect
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer

from avad_hf import files
from avad_hf.disks import DiskError
from avad_hf.files import shown

from . import stopping

# Whose log --verbose prints.
LIBRARY = __package__.partition(".")[0]
# Where results go without -o. What begins so is a path, and no name of the Hub's.
RESULTS = Path("results")
# One of them is in every folder that --model takes: a detector or an encoder, and a processor alone.
CONFIGS = ("config.json", "processor_config.json")


@dataclass
class _Messages:
    """What is printed beside results, on standard error."""

    level: int = logging.WARNING
    # A new folder of results, until it is named: a command that refuses its input names none.
    output_dir: Path | None = None


MESSAGES = _Messages()
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="No bars, stages and notes; errors and results stay.", rich_help_panel="Messages"
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        help="Also the library's own log, and where in the code an error arose.",
        rich_help_panel="Messages",
    ),
]


def set_messages(quiet: bool, verbose: bool) -> None:
    """Choose how much is printed beside results."""
    if quiet and verbose:
        refuse("Give --quiet or --verbose, not both.")
    MESSAGES.level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING


def is_quiet() -> bool:
    """Whether only errors are printed beside results."""
    return MESSAGES.level > logging.WARNING


def stoppable(goes_on: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command end on Ctrl-C (status 130) and SIGTERM (143) with one sentence; add --quiet and --verbose to it.

    Args:
        goes_on: What is kept, and how to go on.
    """

    def wrapped(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(*arguments, quiet: bool = False, verbose: bool = False, **options) -> None:
            if quiet or verbose:  # else what was said before the verb holds
                set_messages(quiet, verbose)
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

        signature = inspect.signature(command)
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
            for name, annotation in (("quiet", QuietOption), ("verbose", VerboseOption))
        ]
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added])
        return run

    return wrapped


@contextmanager
def _messages_of_libraries() -> Iterator[None]:
    """Print what libraries log, and their warnings, as the command prints its own notes."""
    from huggingface_hub.utils import logging as hub_logging

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= max(logging.WARNING, MESSAGES.level):
                say(f"Note: {record.getMessage()}", err=True, fg="yellow")
            elif record.name.partition(".")[0] == LIBRARY:
                inform(record.getMessage(), dim=True)

    handler = Notes(min(logging.WARNING, MESSAGES.level))
    library, level = logging.getLogger(LIBRARY), logging.getLogger(LIBRARY).level
    # The Hub's client prints what it logs, and hands it on to be printed: once is enough, and --quiet must hold.
    client = hub_logging.get_logger()
    handlers, client.handlers = client.handlers, []
    if MESSAGES.level < logging.WARNING:
        library.setLevel(MESSAGES.level)
    # Bars of the library and of those below, in this process and in those that it starts: tqdm is not loaded yet.
    bars = os.environ.get("TQDM_DISABLE")
    MESSAGES.output_dir = None
    if is_quiet():
        os.environ["TQDM_DISABLE"] = "1"
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: note(message)
            yield
    finally:
        logging.getLogger().removeHandler(handler)
        client.handlers = handlers
        library.setLevel(level)
        if is_quiet() and bars is None:
            del os.environ["TQDM_DISABLE"]


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


def inform(text: object, **style: Any) -> None:
    """Print something beside the results, on standard error; not with --quiet."""
    if not is_quiet():
        say(text, err=True, **style)


def note(message: object) -> None:
    """Print something that the user should know."""
    inform(f"Note: {message}", fg="yellow")


def fail(message: object) -> None:
    """Print what went wrong."""
    if MESSAGES.level < logging.WARNING and sys.exc_info()[0] is not None:
        say(traceback.format_exc().rstrip(), err=True, dim=True)
    say(f"Error: {message}", err=True, fg="red")


def refuse(message: str) -> NoReturn:
    """End the command, with status 2, before anything is computed."""
    fail(message)
    raise typer.Exit(2)


def stop_for(error: Exception) -> NoReturn:
    """End the command for an error of the library: status 2 where it refused its input, 1 where something failed."""
    refused = isinstance(error, OSError | TypeError | ValueError | ImportError) and not isinstance(error, DiskError)
    text = str(error) or type(error).__name__
    if not refused and not isinstance(error, DiskError | RuntimeError):  # a bare KeyError, for example, says nothing
        text = f"{type(error).__name__}: {error}"
    fail("\n".join([text, *getattr(error, "__notes__", [])]))
    raise typer.Exit(2 if refused else 1)


def stage(name: str) -> None:
    """Print what is done next."""
    stopping.check()
    name_output()
    inform(f"... {name}")


def name_output() -> None:
    """Print the new folder of results, once, when the command begins to work."""
    if MESSAGES.output_dir is not None:
        inform(f"Output folder: {MESSAGES.output_dir}")
        MESSAGES.output_dir = None


def _bar(label: str, disable: bool = False, **options: Any):
    from tqdm import tqdm

    name_output()
    hidden = disable or is_quiet()
    options |= {"disable": True} if hidden else {}  # what is not given, TQDM_DISABLE may say
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
            has_all_lengths = len(lengths) == len(names) and None not in lengths.values()
            bar.total = round(sum(lengths.values()), 1) if has_all_lengths else None
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


def hush_libraries() -> None:
    """Import torch and transformers, and keep their loading bars and notes off the terminal.

    What needs these libraries is imported after it. With --quiet the bars of downloads are hidden too.
    """
    with without_collections():
        from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if is_quiet():
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
        if "datasets" in sys.modules:
            from datasets.utils.logging import disable_progress_bar

            disable_progress_bar()
        else:  # it reads this when it is imported, which takes a second, and not every verb needs it
            os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"


@contextmanager
def without_collections() -> Iterator[None]:
    """Import libraries without garbage collections, which take an eighth of the time and find nothing.

    What was imported stays until the process ends: later collections pass it over, and so does the last one, which
    would take a second.
    """
    if "transformers" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def check_checkpoint(checkpoint: str | None, option: str = "--model") -> None:
    """Refuse a folder that is not there, of which the Hub's client would say that it is no name."""
    if checkpoint is None:
        return
    folder = Path(checkpoint)
    # What looks like a path is none of the Hub's names.
    looks_like_path = checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1 or _is_in_results(folder)
    if looks_like_path and not folder.is_dir():
        refuse(f"{option} {checkpoint}: no such folder. Give the folder of a checkpoint, or its Hub id.")
    if _is_in_results(folder) and not any((folder / name).is_file() for name in CONFIGS):
        leads = f" leads to {folder.parent / os.readlink(folder)}, which" if folder.is_symlink() else ""
        refuse(
            f"{option} {checkpoint}{leads} holds no checkpoint (no config.json). Give the folder of a finished "
            "training."
        )


def check_store(store: str) -> None:
    """Refuse a folder in results/ that is not there, before the Hub is asked for it."""
    if _is_in_results(Path(store)) and not Path(store).is_dir():
        refuse(f"STORE {store}: no such folder. Give the folder of a feature store, or its Hub id.")


def _is_in_results(path: Path) -> bool:
    return path.parts[:1] == RESULTS.parts and len(path.parts) > 1


def check_device(device: str | None) -> None:
    """Refuse a device that is not there."""
    if device is None:
        return
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        refuse(f"--device {device} cannot be used: {str(error).splitlines()[0]}")
