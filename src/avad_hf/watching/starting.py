"""From settings to cameras that are watched: detectors loaded once, rings, masks, evidence, receivers, page."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from avad_hf.anonymise.anonymiser import Anonymiser
from avad_hf.anonymise.choosing import Choice
from avad_hf.convert.getting import cache_folder
from avad_hf.detection.incidents import Incidents
from avad_hf.detection.live import Watched
from avad_hf.media.cameras import Camera
from avad_hf.media.masking import MaskedMedia
from avad_hf.media.ring import PacketRing

from .board import MOST_EVENTS, Board
from .evidence import Evidence
from .feedback import Feedback
from .retention import kept_events, make_room
from .server import PageServer
from .settings import (
    SINKS,
    CameraConfig,
    EvidenceConfig,
    JsonLinesConfig,
    MqttConfig,
    WatchConfig,
    WebhookConfig,
)
from .settings import Sink as SinkConfig
from .sinks import Sink
from .watcher import Eye, Watcher

# Seconds of an event that its clip shows at most, beside those before and after it.
LONGEST_CLIP_S = 60.0
# Bytes of packets that a camera's ring holds at most: a minute of 16 Mbit/s.
MOST_RING_BYTES = 128 * 2**20
# File of the answers that were given on the page, in the folder of evidence.
FEEDBACK = "feedback.csv"


@dataclass(frozen=True)
class Started:
    """Cameras that are watched.

    Args:
        watcher: Watches them by its `run`.
        url: Address of the page; ``None`` without one.
        computes_in: Where and in which precision the networks compute, in words.
        cameras: The sources, for who only wants to look whether they send something.
    """

    watcher: Watcher
    url: str | None
    computes_in: str
    cameras: tuple[Camera, ...]


@contextmanager
def started(
    config: WatchConfig,
    load: Callable[[str], Any],
    *,
    describe: bool = False,
    explain: bool = False,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Iterator[Started]:
    """Load and open what settings ask for; all of it is closed at the end.

    Args:
        config: The settings.
        load: Loads the pipeline of a checkpoint.
        describe: Whether to say what is seen and heard.
        explain: Whether to say why events are events.
        on_stage: Told in words what takes time.

    Raises:
        ValueError: For a camera, detector or mask that cannot be used.
        OSError: If a folder cannot be written, or an address cannot be listened on.
        ImportError: If a package is missing.
    """
    pipes = {model: load(model) for model in dict.fromkeys(map(partial(_model_of, config), config.cameras))}
    masks = {one.name: Choice((), masks=one.masks).anonymiser() for one in config.cameras if one.masks}
    hides = {one.name: _anonymiser(one, on_stage) for one in config.cameras if one.masks or one.anonymise}
    with ExitStack() as stack:
        board = None if config.page is None else Board([one.name for one in config.cameras])
        eyes = [
            _eye(one, config, pipes[_model_of(config, one)], masks.get(one.name), describe, explain)
            for one in config.cameras
        ]
        kinds = {table: kind for kind, table in SINKS.items()}
        sinks = {}
        for number, one in enumerate(config.sinks, 1):
            sinks[f"{kinds[type(one)]} {number}"] = _sink(one, [camera.name for camera in config.cameras])
        watcher = Watcher(eyes, sinks=sinks, board=board)
        stack.callback(watcher.close)
        url = feedback = None
        if config.evidence is not None:
            folder = Path(config.evidence.folder)
            evidence = Evidence(
                folder,
                before_s=config.evidence.before,
                after_s=config.evidence.after,
                anonymise=hides,
                on_ready=watcher.written,
            )
            feedback = None if config.page is None else Feedback(folder / FEEDBACK, folder)
            watcher.keep(evidence, partial(_make_room, config.evidence, feedback))
            if board is not None and feedback is not None:
                for event in kept_events(folder, [one.name for one in config.cameras], MOST_EVENTS):
                    board.event(event | {"answer": feedback.answers.get(event["id"])})
        if config.page is not None and board is not None:
            server = PageServer(
                board,
                host=config.page.host,
                port=config.page.port,
                token=config.page.token,
                evidence=None if config.evidence is None else Path(config.evidence.folder),
                feedback=feedback,
                sinks_health=lambda: {name: sink.health() for name, sink in sinks.items()},
            )
            url = server.start()
            stack.callback(server.close)
        cameras = tuple(eye.watched.camera for eye in eyes)
        yield Started(watcher, url, next(iter(pipes.values())).computes_in, cameras)


def _make_room(kept: EvidenceConfig, feedback: Feedback | None) -> None:
    """Remove the oldest evidence, and the answers to it: a manifest may name only files that exist."""
    make_room(kept.folder, days=kept.days, most_bytes=kept.bytes)
    if feedback is not None:
        with suppress(OSError):  # a full disk: the next time
            feedback.drop_removed()


def _model_of(config: WatchConfig, camera: CameraConfig) -> str:
    model = camera.model or config.model
    if model is None:
        raise ValueError(f"Camera {camera.name!r} has no detector. Give it a model, or one for all cameras.")
    return model


def _anonymiser(camera: CameraConfig, on_stage: Callable[[str], None]) -> Anonymiser:
    return Choice(tuple(camera.anonymise), masks=camera.masks).anonymiser(on_stage, num_threads=1)


def _eye(
    camera: CameraConfig, config: WatchConfig, pipe: Any, masks: Anonymiser | None, describe: bool, explain: bool
) -> Eye:
    ring = None
    if (kept := config.evidence) is not None:
        ring = PacketRing(kept.before + LONGEST_CLIP_S + kept.after, MOST_RING_BYTES)
    watched = Watched(
        Camera(camera.source, camera.name, sound=camera.sound, ring=ring),
        pipe,
        threshold=camera.threshold,
        scene=camera.scene,
        describe=describe,
        explain=explain,
        gate=camera.gate,
        masked=(lambda segment: segment) if masks is None else partial(MaskedMedia, masking=masks),
    )
    incidents = Incidents(
        camera.name,
        threshold=watched.used_threshold,
        release=config.events.release,
        merge_s=config.events.merge,
        cool_down_s=config.events.cool_down,
        normal_labels=pipe.spec.normal_labels,
    )
    return Eye(watched, incidents, ring, shows_pictures=not camera.anonymise)


def _sink(config: SinkConfig, cameras: Sequence[str]) -> Sink:
    """Make a receiver; those of heavy packages are imported only where they are asked for."""
    if isinstance(config, JsonLinesConfig):
        from .json_lines import JsonLines

        return JsonLines(config.path)
    if isinstance(config, WebhookConfig):
        from .webhook import Webhook

        return Webhook(config.url, _outbox("webhook", config.url), secret=config.secret)
    if isinstance(config, MqttConfig):
        from .mqtt import Mqtt

        return Mqtt(config.url, _outbox("mqtt", config.url, config.topic), cameras, prefix=config.topic)
    from .command import Command

    return Command(config.argv, _outbox("command", *config.argv))


def _outbox(kind: str, *parts: str) -> Path:
    """Folder of events that wait for a receiver: the same each time, and no secret in its name."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return cache_folder() / "outbox" / f"{kind}-{digest}"


def watch(
    sources: str | os.PathLike | Sequence[str | os.PathLike] | WatchConfig | Mapping[str, str],
    model: Any = None,
    *,
    device: str | None = None,
    dtype: str = "auto",
    describe: bool = False,
    explain: bool = False,
    gate: bool = False,
) -> Iterator[dict[str, Any]]:
    """Watch live sources: scores and events as they come.

    Args:
        sources: What is watched: one source or several, as [`~avad_hf.media.cameras.Camera`] takes them, by name in a
            dict; or the settings of a file of cameras, of `load_config`.
        model: A checkpoint, folder or Hub id, or a pipeline of ``"audio-visual-anomaly"``.
        device: Where the networks compute.
        dtype: In which precision.
        describe: Whether to say what is seen and heard.
        explain: Whether to say why events are events.
        gate: Whether still clips take the features of the last clip that was computed; where settings are given, they
            say it of each camera.

    Yields:
        Dicts as of [`~avad_hf.watching.watcher.Watcher.run`].

    Raises:
        ValueError: For a source that cannot be watched, and a detector that must see whole videos.

    Example:
    ```python
    >>> import avad_hf

    >>> for record in avad_hf.watch("rtsp://192.0.2.7/street", "checkpoints/street"):
    ...     if record["type"] == "event":
    ...         print(record["state"], record["camera"], record["score"])
    ```
    """
    if isinstance(sources, WatchConfig):
        config = sources
    else:
        if isinstance(sources, Mapping):
            named = dict(sources)
        else:
            listed = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
            named = {f"camera {number}": os.fspath(one) for number, one in enumerate(listed, 1)}
        cameras = tuple(CameraConfig(name, source, gate=gate) for name, source in named.items())
        config = WatchConfig(cameras, model="given")

    def load(name: str) -> Any:
        if name == "given" and not isinstance(model, (str, os.PathLike)):
            return model
        from transformers import pipeline

        path = os.fspath(model) if name == "given" else name
        return pipeline("audio-visual-anomaly", model=path, device=device, dtype=dtype, trust_remote_code=False)

    with started(config, load, describe=describe, explain=explain) as found:
        yield from found.watcher.run()
        yield from found.watcher.close()


__all__ = ["Started", "started", "watch"]
