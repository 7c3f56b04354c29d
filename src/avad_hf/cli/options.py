"""Options that several commands have, with one meaning each, and what a shell completes."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.registration import architectures

from .terminal import refuse, stage

# What --json and --csv call standard output.
STDOUT = Path("-")
DEVICES = ("cpu", "cuda", "mps")


class DType(StrEnum):
    """Floating point types of the networks; ``auto`` is bfloat16 where the device has hardware for it."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class AudioPath(StrEnum):
    """How a detector with an audio path uses sound."""

    focused = "focused"
    plain = "plain"
    zeroed = "zeroed"


def names_of(part: str):
    """What completes names of architectures that have a part (``"init"``, ``"converter"``, ``"profiles"``)."""
    return lambda: [*architectures(part)]


def profile_names() -> list[str]:
    """Recipes of training; their files load nothing."""
    from avad_hf.training.config import profiles

    return [*profiles()]


JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Write the results to this file as one JSON document; - is standard output.",
        show_default="not written",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1, mps.", show_default="the first GPU, or cpu", autocompletion=lambda: [*DEVICES]
    ),
]
ClipBatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        help="Clips that go through the encoders together.",
        show_default="1; on a GPU what fits",
        min=1,
    ),
]
SceneOption = Annotated[str | None, typer.Option(help="Only the videos of this scene.", show_default="all scenes")]
SplitSeedOption = Annotated[
    int | None, typer.Option(help="Seed of the random split.", show_default="0, or the fixed split")
]
AccumulateOption = Annotated[
    int | None,
    typer.Option(help="Parts that a batch is cut into, for less memory.", min=1, show_default="the profile's, or 1"),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set any field of the detector's config; VALUE is JSON or plain text. Repeat it for several.",
        show_default="none",
    ),
]


AnonymiseOption = Annotated[
    str | None,
    typer.Option(
        help="Hide these in the pictures: faces, plates, divided by commas.", show_default="nothing is hidden"
    ),
]


GateOption = Annotated[
    bool,
    typer.Option("--gate", help="Compute no clip that is still: it takes the features of an earlier one."),
]


def anonymiser_of(names: str | None, device: str | None = None) -> Any:
    """What --anonymise asks for; ``None`` where nothing is to be hidden."""
    if names is None:
        return None
    from avad_hf.anonymise.choosing import Choice

    return Choice(hidden_names(names)).anonymiser(stage, device=device)


def hidden_names(names: str | None) -> tuple[str, ...]:
    """What --anonymise names."""
    return tuple(name.strip() for name in (names or "").split(",") if name.strip())


def config_settings(pairs: Sequence[str] | None, **options: Any) -> dict[str, Any]:
    """Fields of a config: those that --set names, and options that are fields themselves, where they are given."""
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


def one_folder(word: Path | None, option: Path | None, needs: str) -> Path:
    """The new folder of a command that takes it as a word or by -o."""
    if word is not None and option is not None:
        refuse(f"The new folder is given twice: {word} and --output {option}. Give it once.")
    if word is None and option is None:
        refuse(f"Missing argument {needs}: the new folder.")
    return word if option is None else option


__all__ = [
    "STDOUT",
    "AccumulateOption",
    "AnonymiseOption",
    "AudioPath",
    "ClipBatchOption",
    "DType",
    "DeviceOption",
    "GateOption",
    "JsonOption",
    "SceneOption",
    "SetOption",
    "SplitSeedOption",
    "anonymiser_of",
    "config_settings",
    "hidden_names",
    "names_of",
    "one_folder",
    "profile_names",
]
