"""Settings of a training run as a TOML file: read with checks, and written so that they can be read again."""

import json
import os
import re
import tomllib
from dataclasses import fields
from difflib import get_close_matches
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from huggingface_hub.dataclasses import type_validator

from .config import TrainingConfig

# Beside the fields of TrainingConfig: the recipe that they are taken over.
PROFILE = "profile"
# TOML has no null. This word stands for it in settings that have a value unless they are switched off.
NOTHING = "none"
# Names of options of `avad-hf train` that differ from the fields that they set.
OPTIONS = {
    "store": "data",
    "output": "output_dir",
    "accumulate": "gradient_accumulation_steps",
    "set": "model_options",
}
# Bytes. Settings are some hundred; a larger file is a store or a video that was given by mistake.
MAX_BYTES = 2**20
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", tuple: "a list of text"}
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def _types() -> dict[str, Any]:
    return get_type_hints(TrainingConfig) | {PROFILE: str}


def _can_be_nothing(name: str) -> bool:
    """Whether a setting has a value unless it is switched off."""
    defaults = {item.name: item.default for item in fields(TrainingConfig)}
    return defaults.get(name) is not None and NoneType in get_args(_types()[name])


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
    """Read fields of [`TrainingConfig`], and ``profile``, from a TOML file.

    Args:
        path: The file. Paths in it are as on the command line: from the current folder on.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no TOML, or for names and types that no setting has, with a suggestion.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES:,} bytes, and is no file of settings. Give a TOML file.")
    try:
        settings = tomllib.loads(data.decode("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no TOML file: {error}. An example: avad-hf train STORE --print-config.") from None
    types = _types()
    for name, value in settings.items():
        if name not in types:
            meant = OPTIONS.get(name) or next(iter(get_close_matches(name.replace("-", "_"), types, n=1)), None)
            suggestion = f"Did you mean {meant}?" if meant else f"Settings: {', '.join(types)}."
            raise ValueError(f"{path}: there is no setting {name}. {suggestion}")
        settings[name] = _checked(f"{path}: {name}", value, types[name], _can_be_nothing(name))
    return settings


def _checked(name: str, value: Any, expected: Any, can_be_nothing: bool) -> Any:
    """A value of the type that a setting has."""
    if can_be_nothing and value == NOTHING:
        return None
    choices = [choice for choice in get_args(expected) if choice is not NoneType]
    is_optional = NoneType in get_args(expected)
    (plain,) = choices if is_optional and len(choices) == 1 else (expected,)
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if get_origin(plain) is tuple and isinstance(value, list):
        value = tuple(value)
    try:
        type_validator(name, value, plain)
    except TypeError:
        if get_origin(plain) is Literal:
            needed = f"one of {', '.join(get_args(plain))}"
        else:
            needed = WORDS.get(get_origin(plain) or plain, "a table")
        needed += f', or "{NOTHING}"' if can_be_nothing else ""
        raise ValueError(f"{name} must be {needed}, got {value!r}.") from None
    return value


def settings_text(config: TrainingConfig, profile: str, has_output: bool = True) -> str:
    """Write settings as TOML that [`read_settings`] reads back.

    Args:
        config: All settings of a run.
        profile: The recipe that they are taken over.
        has_output: Whether ``output_dir`` is one of them; without it each run gets a new folder.

    Raises:
        ValueError: For a value that TOML cannot hold.
    """
    lines = [f"{PROFILE} = {toml_value(PROFILE, profile)}"]
    for item in fields(config):
        name, value = item.name, getattr(config, item.name)
        if isinstance(value, dict) or (name == "output_dir" and not has_output):
            continue
        if value is None:
            lines.append(f'{name} = "{NOTHING}"' if _can_be_nothing(name) else f"# {name} is not set.")
        else:
            lines.append(f"{name} = {toml_value(name, value)}")
    for item in fields(config):  # a table ends where the next one begins, so tables are last
        if isinstance(table := getattr(config, item.name), dict):
            lines += ["", f"[{item.name}]"]
            lines += [f"{_key(key)} = {toml_value(f'{item.name}.{key}', value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def toml_value(name: str, value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(name, item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(key)} = {toml_value(name, item)}' for key, item in value.items())}}}"
    raise ValueError(f"{name} is {value!r}, which a TOML file cannot hold. Set it on the command line: --set.")


def _text(name: str, text: str) -> str:
    """A string of TOML: that of JSON, but for DEL, which must be written as an escape."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{name} is {text!r}, which is not UTF-8. Give a path that is.") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else _text("A name", key)


__all__ = ["read_settings", "settings_text", "toml_value"]
