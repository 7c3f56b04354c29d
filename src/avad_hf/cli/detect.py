"""`avad-hf detect`: scores, pictures and overlays of videos."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .terminal import (
    DType,
    beside_bars,
    check_checkpoint,
    check_device,
    fail,
    progress,
    progress_of_many,
    quiet,
    refuse,
)

PLOT_ENDINGS = (".png", ".svg", ".pdf")


class AudioPath(StrEnum):
    """How a detector with an audio path uses sound."""

    focused = "focused"
    plain = "plain"
    zeroed = "zeroed"


def detect(
    videos: Annotated[list[str], typer.Argument(help="Paths or URLs of videos.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub id of a checkpoint. Default: a small demonstration model.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one row a clip to this file.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the timeline (PNG, SVG, PDF); a folder for several videos.")
    ] = None,
    overlay: Annotated[
        Path | None, typer.Option(help="Write the video with its score burnt in (MP4); a folder for several videos.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which on a clip is anomalous, 0 to 1. Default: the model's.", min=0, max=1),
    ] = None,
    audio_path: Annotated[
        AudioPath | None, typer.Option(help="How sound is used (detectors with an audio path). Default: the model's.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Clips that go through the encoders together. Default: 1, on a GPU what fits.", min=1),
    ] = None,
    streams: Annotated[int, typer.Option(help="Videos read at the same time; they share the networks.", min=1)] = 1,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the first GPU, or cpu.")] = None,
    dtype: Annotated[
        DType, typer.Option(help="Precision of the networks; auto: bfloat16 where the device has it, else float32.")
    ] = DType.auto,
) -> None:
    """Score videos clip by clip, or name what happens in them, and list the events.

    Example: avad-hf detect street.mp4 --plot street.png

    A video that cannot be read is reported and skipped; the command then ends with status 1.
    """
    videos = list(dict.fromkeys(videos))
    outputs = _output_paths(videos, plot, overlay, json, csv)
    from avad_hf.detection.events import write_csv, write_json
    from avad_hf.report.overlay import render_overlay
    from avad_hf.report.timeline import plot_timeline

    quiet()
    pipe = _load_pipeline(model, device, dtype)
    typer.secho(f"Networks: {pipe.computes_in}.", err=True, dim=True)
    results, failed, kept = {}, [], {}
    options = {"threshold": threshold, "audio_path": audio_path and audio_path.value}
    begun = time.monotonic()
    try:
        with progress_of_many([Path(video).name for video in videos]) as move:
            try:
                found = pipe.interleave(
                    _opened(videos, kept), streams, batch_size=batch_size, on_progress=move, **options
                )
            except ValueError as error:
                refuse(str(error))
            for number, result in found:
                video = videos[number]
                # A night's work must not end at its first odd recording.
                stack, media = kept.pop(number)
                try:
                    if isinstance(result, Exception):
                        raise result
                    results[video] = result
                    with beside_bars():
                        _print_result(video, result)
                    plot_path, overlay_path = outputs[video]
                    if plot_path:
                        plot_timeline(result, media, plot_path)
                    if overlay_path:
                        with progress(overlay_path.name, result["read_until"]) as drawn:
                            render_overlay(result, media, overlay_path, on_progress=drawn)
                except Exception as error:
                    failed.append(video)
                    with beside_bars():
                        fail(error if video in str(error) else f"{video}: {type(error).__name__}: {error}")
                finally:
                    stack.close()
        _print_speed(results, time.monotonic() - begun)
    finally:
        results = {video: results[video] for video in videos if video in results}
        if json:
            write_json(results, json)
        if csv:
            write_csv(results, csv)
    if failed:
        fail(f"{len(failed)} of {len(videos)} videos failed: {', '.join(failed)}")
        raise typer.Exit(1)


def _opened(videos: list[str], kept: dict[int, tuple[ExitStack, Any]]) -> Iterator[Any]:
    """Each video, open: pictures of it are drawn later, and what comes through a pipe can be read only once.

    What cannot be opened is given as it is, and gives its error where it is scored.
    """
    from avad_hf.media.sources import open_media

    for number, video in enumerate(videos):
        stack = ExitStack()
        try:
            media = stack.enter_context(open_media(video))
        except Exception:  # which is raised again, and reported, where it is scored
            media = video
        kept[number] = stack, media
        yield media


def _output_paths(
    videos: list[str], plot: Path | None, overlay: Path | None, json: Path | None, csv: Path | None
) -> dict[str, tuple[Path | None, Path | None]]:
    """Where the pictures of each video go: the given file for one video, files in the given folder for several.

    What cannot work is refused here, before anything is computed.
    """
    for option, path, endings in (("--plot", plot, PLOT_ENDINGS), ("--overlay", overlay, (".mp4",))):
        if path is not None and len(videos) == 1 and path.suffix.lower() not in endings:
            refuse(f"{option} {path}: for one video give a file that ends with {', '.join(endings)}.")
        if path is not None and len(videos) > 1 and (path.is_file() or path.suffix.lower() in endings):
            refuse(f"{option} {path} is one file, but there are {len(videos)} videos. Give a folder.")
    if len(videos) == 1:
        outputs = {videos[0]: (plot, overlay)}
    else:
        outputs, taken = {}, set()
        for video in videos:
            # Videos of the same name in different folders must not overwrite each other.
            stem = name = Path(video).stem
            number = 2
            while name in taken:
                name, number = f"{stem}-{number}", number + 1
            taken.add(name)
            outputs[video] = (plot and plot / f"{name}.png", overlay and overlay / f"{name}-overlay.mp4")
    written = [path for path in (json, csv, *(path for pair in outputs.values() for path in pair)) if path is not None]
    sources = {Path(video).resolve() for video in videos}
    for path in written:
        if path.resolve() in sources:
            refuse(f"{path} is one of the videos, and would be overwritten. Give another name.")
        if path.is_dir():
            refuse(f"{path} is a folder. Give a file.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refuse(f"{path} cannot be written: {error}.")
    if len({path.resolve() for path in written}) < len(written):
        refuse("Two outputs have the same name. Give each its own.")
    return outputs


def _load_pipeline(model: str | None, device: str | None, dtype: DType):
    from transformers import pipeline

    from avad_hf.detection.pipeline import DEMO_MODEL
    from avad_hf.hub.errors import explain

    check_device(device)
    if model is None:
        model = str(DEMO_MODEL)
    check_checkpoint(model)
    try:
        return pipeline("audio-visual-anomaly", model=model, device=device, dtype=dtype.value)
    # Corrupt files raise whatever their reader does; transformers puts whole tracebacks into the message, of which the
    # last line says what is wrong.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        refuse(f"{model} cannot be loaded: {explain(error, model) or lines[-1]}")


def _print_speed(results: dict[str, dict], elapsed: float) -> None:
    seconds = sum(result["read_until"] for result in results.values())
    if seconds:
        typer.secho(
            f"{seconds:.1f} s of video in {elapsed:.1f} s, {elapsed / seconds:.2f} of their length.",
            err=True,
            dim=True,
        )


def _print_result(video: str, result: dict) -> None:
    sound = "with sound" if result["has_audio"] else "no sound"
    typer.echo(
        f"{video}: {result['label']}, score {result['score']:.3f} (threshold {result['threshold']:.4g}), "
        f"{len(result['clips'])} clips, {result['duration']:.2f} s, {sound}"
    )
    for event in result["events"]:
        typer.echo(
            f"  {event['start']:8.2f} s to {event['end']:8.2f} s  {event['label']}, score {event['score']:.3f}, "
            f"highest at {event['peak']:.2f} s"
        )
    for warning in result["warnings"]:
        typer.secho(f"  Note: {warning}", fg="yellow", err=True)
