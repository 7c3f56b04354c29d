"""`avad-hf detect`: scores, pictures and overlays of videos."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from avad_hf.files import check_output, shown

from .stopping import unstopped
from .terminal import (
    DType,
    check_checkpoint,
    check_device,
    fail,
    progress,
    progress_of_many,
    quiet,
    refuse,
    say,
    stoppable,
)

PLOT_ENDINGS = (".png", ".svg", ".pdf")
# What --json and --csv call standard output.
STDOUT = Path("-")


class AudioPath(StrEnum):
    """How a detector with an audio path uses sound."""

    focused = "focused"
    plain = "plain"
    zeroed = "zeroed"


@stoppable("The results of the videos that were finished are kept. Run the command again for the others.")
def detect(
    videos: Annotated[list[str], typer.Argument(help="Paths or URLs of videos.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(help="Folder or Hub id of a checkpoint. Default: a small demonstration model.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file; - is standard output.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write one row a clip to this file; - is standard output.")] = None,
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
    failed = _missing(videos)
    outputs = _output_paths(videos, plot, overlay, json, csv)
    readable = [video for video in videos if video not in failed]
    from avad_hf.detection.events import write_csv, write_json
    from avad_hf.report.overlay import render_overlay
    from avad_hf.report.timeline import plot_timeline

    quiet()
    pipe = _load_pipeline(model, device, dtype)
    say(f"Networks: {pipe.computes_in}.", err=True, dim=True)
    results, kept = {}, {}
    options = {"threshold": threshold, "audio_path": audio_path and audio_path.value}
    begun = time.monotonic()
    try:
        with progress_of_many([Path(video).name for video in readable]) as move:
            try:
                found = pipe.interleave(
                    _opened(readable, kept), streams, batch_size=batch_size, on_progress=move, **options
                )
            except ValueError as error:
                refuse(str(error))
            # So that no thread reads on where it is stopped.
            with closing(found):
                for number, result in found:
                    video = readable[number]
                    # A night's work must not end at its first odd recording.
                    stack, media = kept.pop(number)
                    try:
                        if isinstance(result, Exception):
                            raise result
                        results[video] = result
                        _print_result(video, result, err=STDOUT in (json, csv))
                        plot_path, overlay_path = outputs[video]
                        if plot_path:
                            plot_timeline(result, media, plot_path)
                        if overlay_path:
                            with progress(overlay_path.name, result["read_until"]) as drawn:
                                render_overlay(result, media, overlay_path, on_progress=drawn)
                    except Exception as error:
                        failed.append(video)
                        words = str(error) if video in str(error) else f"{video}: {type(error).__name__}: {error}"
                        fail(words.replace(video, shown(video)))
                    finally:
                        stack.close()
        _print_speed(results, time.monotonic() - begun)
    finally:
        results = {video: results[video] for video in videos if video in results}
        if results or len(failed) == len(videos):  # and not where it was stopped before the first result
            with unstopped():
                written = [_write(write_json, results, json), _write(write_csv, results, csv)]
    if failed:
        _fail_of(videos, failed)
    if not all(written):
        raise typer.Exit(1)


def _fail_of(videos: list[str], failed: list[str]) -> NoReturn:
    """End the command with status 1."""
    fail(f"{len(failed)} of {len(videos)} videos failed: {', '.join(map(shown, failed))}")
    raise typer.Exit(1)


def _missing(videos: list[str]) -> list[str]:
    """Report videos that are not there, before networks are loaded; addresses are asked later."""
    missing = [video for video in videos if "://" not in video and not os.path.exists(video)]
    for video in missing:
        fail(f"{shown(video)}: no such file. Check the path.")
    if len(missing) == len(videos):
        _fail_of(videos, missing)
    return missing


def _write(write: Callable[[dict, Any], None], results: dict[str, dict], path: Path | None) -> bool:
    """Write results to a file, or to standard output; says so where that fails, since there may be another output."""
    if path == STDOUT:
        write(results, sys.stdout.buffer)
    elif path is not None:
        try:
            write(results, path)
        except OSError as error:
            words = str(error)
            fail(words if str(path) in words else f"{path} cannot be written: {words}")
            return False
    return True


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
        if path == STDOUT:
            refuse(f"{option} - cannot be: pictures are not written to standard output. Give a file.")
        if path is not None and len(videos) == 1 and path.suffix.lower() not in endings:
            refuse(f"{option} {path}: for one video give a file that ends with {', '.join(endings)}.")
        if path is not None and len(videos) > 1 and (path.is_file() or path.suffix.lower() in endings):
            refuse(f"{option} {path} is one file, but there are {len(videos)} videos. Give a folder.")
    if json == csv == STDOUT:
        refuse("Standard output takes one of --json and --csv. Give the other one a file.")
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
    pictures = (path for pair in outputs.values() for path in pair)
    written = [path for path in (json, csv, *pictures) if path not in (None, STDOUT)]
    sources = {Path(video).resolve() for video in videos}
    for path in written:
        if path.resolve() in sources:
            refuse(f"{path} is one of the videos, and would be overwritten. Give another name.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refuse(f"{path} cannot be written: {error}.")
        try:
            check_output(path)
        except OSError as error:
            refuse(str(error))
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
        return pipeline("audio-visual-anomaly", model=model, device=device, dtype=dtype.value, trust_remote_code=False)
    # Corrupt files raise whatever their reader does; transformers puts whole tracebacks into the message, of which the
    # last line says what is wrong.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        refuse(f"{model} cannot be loaded: {explain(error, model) or lines[-1]}")


def _print_speed(results: dict[str, dict], elapsed: float) -> None:
    seconds = sum(result["read_until"] for result in results.values())
    if seconds:
        say(
            f"{seconds:.1f} s of video in {elapsed:.1f} s, {elapsed / seconds:.2f} of their length.",
            err=True,
            dim=True,
        )


def _print_result(video: str, result: dict, err: bool) -> None:
    sound = "with sound" if result["has_audio"] else "no sound"
    lines = [
        f"{shown(video)}: {result['label']}, score {result['score']:.3f} (threshold {result['threshold']:.4g}), "
        f"{len(result['clips'])} clips, {result['duration']:.2f} s, {sound}"
    ]
    lines += [
        f"  {event['start']:8.2f} s to {event['end']:8.2f} s  {event['label']}, score {event['score']:.3f}, "
        f"highest at {event['peak']:.2f} s"
        for event in result["events"]
    ]
    say("\n".join(lines), err=err)
    if result["warnings"]:
        say("\n".join(f"  Note: {warning}" for warning in result["warnings"]), fg="yellow", err=True)
    if result["read"] and result["read"]["remarks"]:
        say("\n".join(f"  Remark: {remark}" for remark in result["read"]["remarks"]), dim=True, err=True)
