"""`avad-hf watch`: live cameras, alerts, and a page to see them on."""

import gc
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.files import as_json, shown

from .detect import load_pipeline
from .options import AnonymiseOption, DeviceOption, DType, GateOption, hidden_names
from .stopping import unstopped
from .terminal import check_checkpoint, fail, hush_libraries, inform, refuse, say, stoppable

# Seconds in which --check waits for a camera's first picture.
CHECK_S = 20.0


@stoppable("Events that were open are closed and written.")
def watch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Addresses (rtsp://, http://), devices (/dev/video0), files that grow, pipes; - is standard input.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint of a detector: folder or Hub id.", show_default="needed without --config"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="File of cameras, detectors, receivers of alerts and the page (TOML).",
            show_default="what SOURCE and the other options say",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what is wrong with the settings and the cameras, and watch nothing.")
    ] = False,
    events: Annotated[bool, typer.Option("--events", help="Print events alone, and not each clip.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which on a clip is anomalous.", min=0, max=1, show_default="the model's"),
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Folder of clips, snapshots and JSON of events.", show_default="nothing is kept"),
    ] = None,
    anonymise: AnonymiseOption = None,
    port: Annotated[
        int | None,
        typer.Option(help="Show the page at this port of 127.0.0.1; 0 takes a free one.", show_default="no page"),
    ] = None,
    describe: Annotated[
        bool, typer.Option("--describe", help="Say what is seen and heard too (encoders that have classes).")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Say why events are events.")] = False,
    gate: GateOption = False,
    device: DeviceOption = None,
    dtype: Annotated[
        DType, typer.Option(help="Precision of the networks; auto: bfloat16 where the device has it, else float32.")
    ] = DType.auto,
) -> None:
    """Watch live cameras: a line of JSON for each clip, and for each event that opens, changes or closes.

    Example: avad-hf watch rtsp://192.0.2.7/street --model checkpoints/street --evidence events --port 8730

    Times are seconds since 1970. With --config FILE cameras have names, detectors, masks and receivers of alerts of
    their own (webhook, MQTT, a command). It goes on until Ctrl-C or SIGTERM; a file ends when it ends growing.
    """
    settings = _settings(sources, model, config, threshold, evidence, anonymise, port, gate)
    for name in {one.model or settings.model for one in settings.cameras} - {None}:
        check_checkpoint(name)
    hush_libraries()
    from avad_hf.watching.starting import started

    try:
        if check:
            settings = _without_outputs(settings)
        with started(
            settings,
            lambda name: load_pipeline(name, device, dtype),
            describe=describe,
            explain=explain,
            on_stage=inform,
        ) as found:
            if check:
                _check_cameras(found.cameras)
                return
            inform(f"Networks: {found.computes_in}.", dim=True)
            # What is loaded stays: collections, one after each connection, look at the rest alone.
            gc.collect()
            gc.freeze()
            if found.url is not None:
                say(f"Page: {found.url}", err=True)
            try:
                for record in found.watcher.run():
                    _print(record, events)
            finally:
                with unstopped():
                    for record in found.watcher.close():
                        _print(record, events)
            if failed := [camera for camera in found.cameras if camera.problem is not None]:
                for camera in failed:
                    fail(f"{shown(camera.name)}: {camera.problem}")
                raise typer.Exit(1)
    except (ImportError, OSError, ValueError) as error:
        refuse(str(error))


def _settings(
    sources: list[str] | None,
    model: str | None,
    config: Path | None,
    threshold: float | None,
    evidence: Path | None,
    anonymise: str | None,
    port: int | None,
    gate: bool,
) -> Any:
    """What is watched, by a file or by words."""
    if bool(sources) == (config is not None):
        refuse("Give SOURCE, or --config FILE, and not both: what is watched stands in one place.")
    from avad_hf.watching.config import ConfigError, load_config
    from avad_hf.watching.settings import CameraConfig, EvidenceConfig, PageConfig, WatchConfig

    if config is not None:
        given = {"--threshold": threshold, "--evidence": evidence, "--anonymise": anonymise, "--port": port}
        given |= {"--gate": gate or None}
        for option, value in {"--model": model, **given}.items():
            if value is not None:
                refuse(f"{option} stands in the file of --config. Write it there.")
        try:
            return load_config(config)
        except ConfigError as error:
            refuse(str(error))
    if model is None:
        refuse("Missing option --model: the checkpoint of a detector.")
    if anonymise is not None and evidence is None:
        refuse("--anonymise hides faces and plates in the clips of --evidence. Give --evidence too.")
    sources = list(dict.fromkeys(sources or ()))
    return WatchConfig(
        tuple(
            CameraConfig(f"camera {number}", source, threshold=threshold, anonymise=hidden_names(anonymise), gate=gate)
            for number, source in enumerate(sources, 1)
        ),
        model=model,
        page=None if port is None else PageConfig(port=port),
        evidence=None if evidence is None else EvidenceConfig(str(evidence)),
    )


def _without_outputs(settings: Any) -> Any:
    """The same cameras and detectors; nothing is sent, written or shown."""
    from dataclasses import replace

    return replace(settings, page=None, evidence=None, sinks=())


def _check_cameras(cameras: Any) -> None:
    """Open each camera once, and say what it sends."""
    import threading

    found: dict[str, str] = {}

    def look(camera: Any) -> None:
        segments = camera.segments()
        for segment in segments:
            info = segment.info
            sound = "with sound" if info.has_audio else "no sound"
            found[camera.name] = f"{info.width} x {info.height}, {info.fps:.4g} pictures a second, {sound}"
            break
        segments.close()

    threads = [threading.Thread(target=look, args=(camera,), daemon=True) for camera in cameras]
    for thread in threads:
        thread.start()
    until = time.monotonic() + CHECK_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    for camera in cameras:
        if camera.name in found:
            say(f"{shown(camera.name)}: {found[camera.name]}")
        else:
            fail(f"{shown(camera.name)}: no picture within {CHECK_S:.0f} s: {camera.problem or 'it sends nothing'}")
    if len(found) < len(cameras):
        raise typer.Exit(1)


def _print(record: dict[str, Any], events: bool) -> None:
    """One line of JSON on standard output, at once."""
    if not events or record["type"] == "event":
        sys.stdout.write(as_json(record) + "\n")
        sys.stdout.flush()
