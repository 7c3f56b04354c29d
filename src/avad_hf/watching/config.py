"""`cameras.toml`, read and checked before anything starts: all that is wrong in it is said at once."""

import math
import os
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from avad_hf.detection.incidents import plain_name
from avad_hf.files import shown

from .guard import is_loopback
from .settings import (
    SINKS,
    CameraConfig,
    CommandConfig,
    EventsConfig,
    EvidenceConfig,
    MqttConfig,
    PageConfig,
    Sink,
    WatchConfig,
    WebhookConfig,
)
from .sinks import parse_address

Table = TypeVar("Table")
# Bytes. A hundred cameras take some ten thousand; a larger file was given by mistake.
MOST_BYTES = 2**20
# A value that stands in the environment, so that a secret is not in the file.
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,12})?) ?([KMGT]?)(i?)B")
# Letters of a value that a message shows.
SHOWN_LETTERS = 60
WORDS = {
    str: "text that is not empty",
    float: "a number",
    int: "a whole number",
    bool: "true or false",
    tuple: "a list of text",
}


class ConfigError(ValueError):
    """A file of cameras that cannot be used.

    Args:
        path: The file.
        problems: All that is wrong in it.
    """

    def __init__(self, path: str | os.PathLike, problems: Sequence[str]):
        self.problems = tuple(problems)
        super().__init__("\n  ".join([f"{shown(path)} cannot be used:", *self.problems]))


def _size(text: str) -> int | None:
    """Bytes of a text such as ``20GB`` or ``1.5 GiB``."""
    if (match := SIZE.fullmatch(text)) is None:
        return None
    return round(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2] or " "))


def load_config(path: str | os.PathLike) -> WatchConfig:
    """Read a file of cameras.

    Paths in it are as on the command line: from the current folder on. ``${NAME}`` within a text stands for a variable
    of the environment.

    Args:
        path: A TOML file.

    Raises:
        ConfigError: For all that is wrong in it, at once.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, [f"It cannot be read: {error.strerror}. Check the path."]) from None
    if len(data) > MOST_BYTES:
        raise ConfigError(path, [f"It has more than {MOST_BYTES:,} bytes. Give a file of cameras."])
    try:
        tables = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise ConfigError(path, [f"It is no TOML: {shown(what)}. Write tables such as [[camera]]."]) from None
    reading = _Reading()
    config = reading.config(tables)
    if reading.problems:
        raise ConfigError(path, reading.problems)
    return config


class _Reading:
    """Makes settings of tables, and notes what is wrong."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def config(self, tables: Mapping[str, Any]) -> WatchConfig:
        """Settings of the whole file, as far as they can be made."""
        self._refuse_unknown("the file", tables, ("model", "camera", "page", "evidence", "events", "sink"))
        model = None
        if "model" in tables:
            (key,) = (key for key in fields(WatchConfig) if key.name == "model")
            model = self._value("the file", "model", tables["model"], str, key)
        page = self._table("[page]", tables["page"], PageConfig) if "page" in tables else None
        evidence = self._table("[evidence]", tables["evidence"], EvidenceConfig) if "evidence" in tables else None
        events = self._table("[events]", tables.get("events", {}), EventsConfig) or EventsConfig()
        if page is not None and "token" not in tables["page"] and not is_loopback(page.host):
            self._say("[page]", f"token is missing, and other machines reach {_given(page.host)}", "Give one")
        cameras: dict[str, CameraConfig] = {}
        for where, values in self._each(tables, "camera"):
            camera = self._table(where, values, CameraConfig)
            if camera is not None:
                self._check_camera(where, values, camera, events, "model" in tables)
                if (folder := plain_name(camera.name).casefold()) in cameras:
                    self._say(where, f"{_given(values['name'])} is the name of another camera", "Give another one")
                cameras[folder] = camera
        if not tables.get("camera"):
            self._say("the file", "there is no [[camera]]", "Give at least one, with name and source")
        sinks = [self._sink(where, values) for where, values in self._each(tables, "sink")]
        return WatchConfig(
            tuple(cameras.values()), model, page, evidence, events, tuple(sink for sink in sinks if sink is not None)
        )

    def _say(self, where: str, problem: str, advice: str) -> None:
        self.problems.append(f"{where}: {problem}. {advice}.")

    def _each(self, tables: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
        """Tables of an array of tables, with how they are called in messages."""
        given = tables.get(name, [])
        if not isinstance(given, list):
            self._say(f"[{name}]", f"there may be several, and {_given(given)} was given", f"Write [[{name}]]")
            return
        for number, values in enumerate(given, 1):
            called = values.get("name", values.get("type")) if isinstance(values, dict) else None
            yield f"[[{name}]] {number}" + (f" {_given(called)}" if isinstance(called, str) else ""), values

    def _refuse_unknown(self, where: str, values: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in values:
            if key not in known:
                near = get_close_matches(key[:SHOWN_LETTERS], known, n=1)
                advice = f"Did you mean {near[0]}?" if near else f"Known are {', '.join(known)}."
                self.problems.append(f"{where}: there is no key {_given(key)}. {advice}")

    def _table(self, where: str, values: Any, cls: type[Table]) -> Table | None:
        """Settings of a table; ``None`` if what must be there is not."""
        if not isinstance(values, dict):
            self._say(where, f"{_given(values)} was given", "It must be a table")
            return None
        keys, hints = {one.name: one for one in fields(cls)}, get_type_hints(cls)  # type: ignore[arg-type]
        self._refuse_unknown(where, values, list(keys))
        kept = {}
        for name, key in keys.items():
            if name in values:
                value = self._value(where, name, values[name], hints[name], key)
                if value is not None:
                    kept[name] = value
            elif key.default is MISSING:
                self._say(where, f"{name} is missing", f"Give {_needs(hints[name], key)}")
        if any(key.default is MISSING and name not in kept for name, key in keys.items()):
            return None
        return cls(**kept)

    def _value(self, where: str, name: str, given: Any, hint: Any, key: Field) -> Any:
        """The value of a key; ``None`` if it cannot be used."""
        value, unset = _from_environment(given)
        if unset:
            self._say(where, f"{name} needs the environment variable {unset}, which is not set", "Set it")
            return None
        value = _typed(value, _kind(hint), name == "bytes")
        if value is not None and (isinstance(value, bool) or key.metadata["is_fine"](value)):
            return value
        was = _kind_of(given) if key.metadata["is_secret"] else _given(given)
        self._say(where, f"{name} is {was}", f"It must be {_needs(hint, key)}")
        return None

    def _check_camera(
        self, where: str, values: Mapping[str, Any], camera: CameraConfig, events: EventsConfig, has_model: bool
    ) -> None:
        """Note what only several keys together, or other parts of this library, say."""
        from avad_hf.anonymise.choosing import Choice
        from avad_hf.anonymise.masks import read_masks
        from avad_hf.media.cameras import SOURCES, Camera

        try:
            Camera(camera.source)
        except ValueError:
            self._say(where, "source is nothing that can be watched", SOURCES.rstrip("."))
        else:
            self._try(where, "sound", values, lambda: Camera(camera.source, camera.name, sound=camera.sound))
        if camera.masks is not None:
            self._try(where, "masks", values, lambda: read_masks(str(camera.masks)))
        if camera.anonymise:
            self._try(where, "anonymise", values, lambda: Choice(camera.anonymise))
        if camera.model is None and not has_model:
            self._say(where, "model is missing", "Give it here, or once at the top of the file")
        if camera.threshold is not None and events.release is not None and events.release > camera.threshold:
            self._say(where, f"threshold is {camera.threshold}, and release of [events] is above it", "Lower release")

    def _try(self, where: str, name: str, values: Mapping[str, Any], make: Callable[[], Any]) -> None:
        try:
            make()
        except ValueError as error:
            said = str(error)
            value, _ = _from_environment(values.get(name))
            if isinstance(value, str) and value != values[name]:  # what a variable holds may be a secret
                said = said.replace(value, values[name])
            self._say(where, f"{name} cannot be used: {said.rstrip('.')}", "Correct it, or leave it out")

    def _sink(self, where: str, values: Any) -> Sink | None:
        kind = values.get("type") if isinstance(values, dict) else None
        if not isinstance(kind, str) or kind not in SINKS:
            self._say(where, f"type is {'missing' if kind is None else _given(kind)}", f"Give {', '.join(SINKS)}")
            return None
        sink = self._table(where, {key: value for key, value in values.items() if key != "type"}, SINKS[kind])
        try:
            if isinstance(sink, WebhookConfig):
                parse_address(sink.url, {"https": 443, "http": 80}, "a webhook")
            if isinstance(sink, MqttConfig):
                parse_address(sink.url, {"mqtt": 1883, "mqtts": 8883}, "an MQTT broker")
        except ValueError as error:
            self._say(where, "its address cannot be used", str(error).rstrip("."))
        if isinstance(sink, MqttConfig) and sink.password is not None and sink.user is None:
            self._say(where, "there is a password, and user is missing", "Give it")
        if isinstance(sink, CommandConfig) and shutil.which(sink.argv[0]) is None:
            self._say(where, f"there is no command {_given(values['argv'][0])}", "Give its whole path")
        return sink


def _from_environment(given: Any) -> tuple[Any, str | None]:
    """A value with what ``${NAME}`` stands for in its texts; and the first such name that is not set."""
    texts = [one for one in (given if isinstance(given, list) else [given]) if isinstance(one, str)]
    unset = next((name for text in texts for name in VARIABLE.findall(text) if name not in os.environ), None)

    def filled(one: Any) -> Any:
        return VARIABLE.sub(lambda match: os.environ.get(match[1], ""), one) if isinstance(one, str) else one

    return [filled(one) for one in given] if isinstance(given, list) else filled(given), unset


def _kind(hint: Any) -> Any:
    """The type of a value, such as ``str`` of ``str | None``."""
    if get_origin(hint) is tuple:
        return tuple
    return next((kind for kind in get_args(hint) if kind is not NoneType), hint)


def _typed(value: Any, kind: Any, is_size: bool) -> Any:
    """A value as its type; ``None`` if it is of another."""
    if is_size and isinstance(value, str):
        return _size(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value) if math.isfinite(value) else None
        except OverflowError:
            return None
    if kind is tuple and isinstance(value, list):
        words = tuple(_typed(one, str, False) for one in value)
        return words if all(words) else None
    if kind is str and isinstance(value, str):
        return None if "\0" in value else value
    return value if type(value) is kind else None


def _needs(hint: Any, key: Field) -> str:
    return key.metadata["needs"] or WORDS[_kind(hint)]


def _kind_of(value: Any) -> str:
    kinds = WORDS | {str: "text", list: "a list", dict: "a table"}
    return "empty" if value == "" else kinds.get(type(value), "a date or time")


def _given(value: Any) -> str:
    """A value for a message; only its type where a secret may be within."""
    if not isinstance(value, str | int | float) or (isinstance(value, str) and "@" in value):
        return _kind_of(value)
    if isinstance(value, int) and abs(value) >= 10**SHOWN_LETTERS:  # Python writes no number of thousands of digits
        return _kind_of(value)
    text = f'"{shown(value)}"' if isinstance(value, str) else str(value).lower()
    return text if len(text) <= SHOWN_LETTERS else f"{text[:SHOWN_LETTERS]}..."


__all__ = ["ConfigError", "load_config"]
