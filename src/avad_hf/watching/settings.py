"""Settings of a watch, as `cameras.toml` names them: the keys of each table, and what their values must be."""

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any
from urllib.parse import quote

from avad_hf.detection.incidents import COOL_DOWN_S, MERGE_S, PLAIN_NAME

from .guard import SHORTEST_TOKEN

# Letters of a camera's name: as much as a page and an alert show on one line.
MOST_NAME_LETTERS = 64
# Seconds of a clip before and after its event: a ring in memory holds them, some hundred megabytes for ten minutes.
MOST_BESIDE_S = 600.0


def _key(
    default: Any = MISSING,
    needs: str = "",
    is_fine: Callable[[Any], bool] = bool,
    is_secret: bool = False,
) -> Any:
    """A key of a table.

    Args:
        default: Without one it must be given.
        needs: What its value must be, in words; without them its type says it.
        is_fine: Whether it is.
        is_secret: Whether its value is in no message and no `repr`.
    """
    return field(
        default=default, repr=not is_secret, metadata={"needs": needs, "is_fine": is_fine, "is_secret": is_secret}
    )


def _share() -> Any:
    return _key(None, "a number between 0 and 1", lambda value: 0 <= value <= 1)


def _seconds(default: float, most: float = math.inf) -> Any:
    words = "seconds, 0 or more" if most == math.inf else f"seconds between 0 and {most:g}"
    return _key(default, words, lambda value: 0 <= value <= most)


@dataclass(frozen=True)
class CameraConfig:
    """``[[camera]]``: one camera.

    Args:
        name: Shown to people; another one for each camera.
        source: Address, device, file or ``-``, as [`~avad_hf.media.cameras.Camera`] takes it.
        sound: Sound device beside a video device.
        model: Checkpoint of its detector, in place of the common one.
        threshold: Score from which on a clip is anomalous, in place of the checkpoint's.
        scene: Whose calibrated threshold is used.
        masks: File of LabelMe with parts of the picture that are hidden.
        anonymise: What is hidden in evidence, such as ``faces`` and ``plates``.
        gate: Whether still clips take the features of the last clip that was computed.
    """

    name: str = _key(
        needs=f"text of 1 to {MOST_NAME_LETTERS} letters",
        is_fine=lambda name: 0 < len(name.strip()) <= len(name) <= MOST_NAME_LETTERS,
    )
    source: str = _key(is_secret=True)
    sound: str | None = _key(None)
    model: str | None = _key(None)
    threshold: float | None = _share()
    scene: str | None = _key(None)
    masks: str | None = _key(None)
    anonymise: tuple[str, ...] = _key(())
    gate: bool = _key(False)


@dataclass(frozen=True)
class PageConfig:
    """``[page]``: the page.

    Args:
        host: Address it listens on.
        port: Its port; 0 for any that is free.
        token: Asked of whoever opens it.
    """

    host: str = _key("127.0.0.1")
    port: int = _key(8730, "a whole number between 0 and 65535", lambda port: 0 <= port <= 65535)
    token: str | None = _key(
        None, f"text of at least {SHORTEST_TOKEN} letters", lambda token: len(token) >= SHORTEST_TOKEN, is_secret=True
    )


@dataclass(frozen=True)
class EvidenceConfig:
    """``[evidence]``: clips, snapshots and JSON of events.

    Args:
        folder: Where they go.
        before: Seconds of a clip before its event.
        after: Seconds after it.
        days: Events are removed after so many.
        bytes: The oldest events are removed when all take more.
    """

    folder: str = _key()
    before: float = _seconds(5.0, MOST_BESIDE_S)
    after: float = _seconds(5.0, MOST_BESIDE_S)
    days: float | None = _key(None, "a number above 0", lambda days: days > 0)
    bytes: int | None = _key(None, 'a size above 0, such as "20GB"', lambda size: size > 0)


@dataclass(frozen=True)
class EventsConfig:
    """``[events]``: when something is one event, as [`~avad_hf.detection.incidents.Incidents`] says.

    Args:
        release: Lowest score that prolongs an open event.
        merge: Seconds below it that close the event.
        cool_down: Seconds in which the same again is no new event.
    """

    release: float | None = _share()
    merge: float = _seconds(MERGE_S)
    cool_down: float = _seconds(COOL_DOWN_S)


@dataclass(frozen=True)
class JsonLinesConfig:
    """``[[sink]]`` of type ``jsonl``.

    Args:
        path: The file, or ``-`` for standard output.
    """

    path: str = _key()


@dataclass(frozen=True)
class WebhookConfig:
    """``[[sink]]`` of type ``webhook``.

    Args:
        url: Where events are posted.
        secret: Signs them.
    """

    url: str = _key(is_secret=True)
    secret: str | None = _key(None, is_secret=True)


@dataclass(frozen=True)
class MqttConfig:
    """``[[sink]]`` of type ``mqtt``.

    Args:
        host: The broker.
        port: Its port; by default 1883, and 8883 with TLS.
        user: Name to log in by.
        password: Its password.
        tls: Whether the connection is encrypted.
        topic: What all topics begin with.
    """

    host: str = _key()
    port: int | None = _key(None, "a whole number between 1 and 65535", lambda port: 0 < port <= 65535)
    user: str | None = _key(None, is_secret=True)
    password: str | None = _key(None, is_secret=True)
    tls: bool = _key(False, is_fine=lambda value: True)
    topic: str = _key(
        "avad-hf", "text of 1 to 40 letters, digits, - and _", lambda topic: bool(PLAIN_NAME.fullmatch(topic))
    )

    @property
    def url(self) -> str:
        """The broker's address, with its password."""
        login = "" if self.user is None else f"{quote(self.user, safe='')}:{quote(self.password or '', safe='')}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{login}{host}{'' if self.port is None else f':{self.port}'}"


@dataclass(frozen=True)
class CommandConfig:
    """``[[sink]]`` of type ``command``.

    Args:
        argv: The command and its arguments; no shell reads them.
    """

    argv: tuple[str, ...] = _key(is_secret=True)


SINKS = {"jsonl": JsonLinesConfig, "webhook": WebhookConfig, "mqtt": MqttConfig, "command": CommandConfig}
Sink = JsonLinesConfig | WebhookConfig | MqttConfig | CommandConfig


@dataclass(frozen=True)
class WatchConfig:
    """What a file of cameras says.

    Args:
        cameras: At least one.
        model: Checkpoint of the detector of cameras that name none.
        page: ``None`` for no page.
        evidence: ``None`` if none is kept.
        events: When something is one event.
        sinks: Who is told.
    """

    cameras: tuple[CameraConfig, ...]
    model: str | None = _key(None)
    page: PageConfig | None = None
    evidence: EvidenceConfig | None = None
    events: EventsConfig = EventsConfig()
    sinks: tuple[Sink, ...] = ()


__all__ = [
    "SINKS",
    "CameraConfig",
    "CommandConfig",
    "EventsConfig",
    "EvidenceConfig",
    "JsonLinesConfig",
    "MqttConfig",
    "PageConfig",
    "Sink",
    "WatchConfig",
    "WebhookConfig",
]
