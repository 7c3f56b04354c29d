"""The settings of a job, kept beside its results: the same command goes on, and another one is refused."""

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from avad_hf.files import write_text
from avad_hf.runs import LOCK
from avad_hf.training.settings_file import toml_value

SETTINGS = "settings.toml"


def has_settings(directory: str | os.PathLike, settings: Mapping[str, object]) -> bool:
    """Whether a job with just these settings was begun in a folder."""
    path = Path(directory) / SETTINGS
    return path.is_file() and not _differences(_read(path), settings)


def refuse_other_settings(
    directory: str | os.PathLike, settings: Mapping[str, object], files: Sequence[str] = (), advice: str = ""
) -> None:
    """Raise ``ValueError`` if a folder holds a job with other settings, naming all that differ, or something else.

    Args:
        directory: The folder, which is there.
        settings: As of `keep_settings`.
        files: What a job leaves there. Without settings such files are used again.
        advice: What else to do, for the error.
    """
    path = Path(directory) / SETTINGS
    if path.is_file():
        if different := _differences(_read(path), settings):
            listed = "\n".join(f"  {name}: {before} before, {now} now" for name, before, now in different)
            raise ValueError(
                f"{directory} holds results of other settings:\n{listed}\nGive another folder, or the settings that "
                f"are in {SETTINGS}.{advice and ' '}{advice}"
            )
    elif others := sorted(name for name in os.listdir(directory) if name != LOCK and name not in files):
        raise ValueError(
            f"{directory} holds {others[0]}, and no {SETTINGS} of a job that could go on. Give a new or empty folder."
        )


def keep_settings(directory: str | os.PathLike, settings: Mapping[str, object]) -> None:
    """Write the settings of a job into its folder, once `refuse_other_settings` has let them pass.

    Args:
        directory: The folder, which is there.
        settings: Text, numbers, truth values, lists and tables of them by their names; ``None`` where one is not set.
    """
    path = Path(directory) / SETTINGS
    if not path.is_file():
        lines = [f"{name} = {toml_value(name, value)}" for name, value in settings.items() if value is not None]
        write_text(path, "\n".join(lines) + "\n")


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Give another folder.") from None


def _differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[tuple[str, object, object]]:
    """Name, old and new value of all settings that differ; lists and tuples count as the same."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in now.items()}
    return [
        (name, before.get(name, "not set"), "not set" if plain.get(name) is None else plain[name])
        for name in [*plain, *(name for name in before if name not in plain)]
        if before.get(name) != plain.get(name)
    ]


__all__ = ["SETTINGS", "has_settings", "keep_settings", "refuse_other_settings"]
