"""What the commands share: options with fixed values, messages, and bars."""

import json
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer


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


def fail(message: object) -> None:
    """Print what went wrong."""
    typer.secho(f"Error: {message}", fg="red", err=True)


def refuse(message: str) -> NoReturn:
    """End the command, with status 2, before anything is computed."""
    fail(message)
    raise typer.Exit(2)


@contextmanager
def progress(label: str, total: float | None):
    """A bar over the seconds of one video on the terminal; yields what moves it to a number of seconds."""
    from tqdm import tqdm

    shape = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s [{elapsed}<{remaining}]"
    with tqdm(desc=label, total=total, bar_format=shape if total else None, file=sys.stderr, unit="s") as bar:

        def move(seconds: float, *_) -> None:
            bar.update(min(seconds, total or seconds) - bar.n)

        yield move


@contextmanager
def progress_of_many(names: Sequence[str]):
    """A bar over the seconds of several videos; yields what moves it, with a video's number, seconds and length."""
    from tqdm import tqdm

    read, lengths = {}, {}
    with tqdm(desc=names[0] if len(names) == 1 else f"{len(names)} videos", file=sys.stderr, unit="s") as bar:

        def move(number: int, seconds: float, length: float | None) -> None:
            read[number], lengths[number] = seconds, length
            known = len(lengths) == len(names) and None not in lengths.values()
            bar.total = round(sum(lengths.values()), 1) if known else None
            bar.update(round(min(sum(read.values()), bar.total or float("inf")), 1) - bar.n)

        yield move


@contextmanager
def beside_bars():
    """Takes the bars off the terminal while something else is printed."""
    from tqdm import tqdm

    with tqdm.external_write_mode():
        yield


@contextmanager
def counted(label: str, total: int, hidden: bool = False):
    """A bar over a number of videos; yields what moves it."""
    from tqdm import tqdm

    with tqdm(desc=label, total=total, file=sys.stderr, unit="video", disable=hidden) as bar:

        def move(done: int, whole: int = total) -> None:
            bar.total = whole
            bar.update(done - bar.n)

        yield move


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
