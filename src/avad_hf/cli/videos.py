"""What detect and describe share: the outputs of each video, and going on where one fails."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol

import typer

from avad_hf.files import check_output, shown

from .options import STDOUT, anonymiser_of
from .stopping import unstopped
from .terminal import fail, hush_libraries, inform, is_quiet, progress, progress_of_many, refuse

PLOT_ENDINGS = (".png", ".svg", ".pdf")

VideosArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="VIDEO",
        help="Paths or URLs of videos; a folder stands for the videos in it, also in folders below.",
        show_default=False,
    ),
]
CsvOption = Annotated[
    Path | None,
    typer.Option(help="Write one row a clip to this file; - is standard output.", show_default="not written"),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(help="Draw the timeline (PNG, SVG, PDF); a folder for several videos.", show_default="not drawn"),
]
OverlayOption = Annotated[
    Path | None,
    typer.Option(
        help="Write the video with what was found burnt in (MP4); a folder for several videos.",
        show_default="not written",
    ),
]
StreamsOption = Annotated[int, typer.Option(help="Videos read at the same time; they share the networks.", min=1)]


class Finder(Protocol):
    """What results come from: the pipeline of a detector, or what describes."""

    computes_in: str

    def interleave(self, videos: Any, streams: int, **options: Any) -> Iterator[tuple[int, dict | Exception]]:
        """Results of many videos, as they come."""


def work_through(
    videos: list[str],
    load: Callable[[], Finder],
    print_result: Callable[[str, dict, bool], None],
    json: Path | None,
    csv: Path | None,
    plot: Path | None,
    overlay: Path | None,
    anonymise: str | None = None,
    **options: Any,
) -> None:
    """Find what is in videos, print it, and write it to the outputs; a video that fails is reported and skipped.

    Args:
        videos: Paths or addresses; folders stand for the videos in them.
        load: Loads the networks, after everything that can be refused without them.
        print_result: Prints the result of a video, on standard error if that is true.
        json: File of all results.
        csv: File of one row a clip.
        plot: File of the timeline, or folder for several videos.
        overlay: File of the video with what was found, likewise.
        anonymise: What is hidden in it, as --anonymise says.
        options: Passed on to `Finder.interleave`.
    """
    is_one = len(dict.fromkeys(videos)) == 1 and not os.path.isdir(videos[0])
    sources = _sources(videos)
    videos = list(sources)
    if anonymise is not None and overlay is None:
        refuse("--anonymise hides faces and plates in the video of --overlay. Give --overlay too.")
    failed = _missing(videos)
    outputs = _output_paths(videos, is_one, plot, overlay, json, csv)
    readable = [video for video in videos if video not in failed]
    media_sources = [sources[video] for video in readable]
    hush_libraries()
    from avad_hf.detection.events import write_csv, write_json
    from avad_hf.report.overlay import render_overlay
    from avad_hf.report.timeline import plot_timeline

    try:
        masking = anonymiser_of(anonymise)
    except (ImportError, OSError, ValueError) as error:
        refuse(str(error))
    finder = load()
    inform(f"Networks: {finder.computes_in}.", dim=True)
    results, opened = {}, {}
    begun = time.monotonic()
    try:
        with progress_of_many([Path(video).name for video in readable]) as move:
            try:
                numbered_results = finder.interleave(_opened(media_sources, opened), on_progress=move, **options)
            except ValueError as error:
                refuse(str(error))
            # So that no thread reads on where it is stopped.
            with closing(numbered_results):
                for number, result in numbered_results:
                    video = readable[number]
                    # A night's work must not end at its first odd recording.
                    stack, media = opened.pop(number)
                    try:
                        if isinstance(result, Exception):
                            raise result
                        results[video] = result
                        if STDOUT not in (json, csv) or not is_quiet():
                            print_result(video, result, STDOUT in (json, csv))
                        _print_notes(result)
                        plot_path, overlay_path = outputs[video]
                        if plot_path:
                            plot_timeline(result, media, plot_path)
                        if overlay_path:
                            with progress(overlay_path.name, result["read_until"]) as drawn:
                                render_overlay(result, media, overlay_path, on_progress=drawn, masking=masking)
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


def _sources(videos: list[str]) -> dict[str, Any]:
    """What each video is read from, by its name: itself, or what a folder has of it, sound beside it for example."""
    sources: dict[str, Any] = {}
    for video in videos:
        if not os.path.isdir(video):
            sources[video] = video
            continue
        from avad_hf.corpora.tree import walk

        try:
            tree = walk(Path(video))
        except (OSError, ValueError) as error:
            refuse(str(error))
        for found in tree.videos:
            sound = tree.audio.get(found.path)
            sources[str(found.path)] = {"video": str(found.path), "audio": sound and str(sound)}
    return sources


def _opened(videos: list[Any], opened: dict[int, tuple[ExitStack, Any]]) -> Iterator[Any]:
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
        opened[number] = stack, media
        yield media


def _output_paths(
    videos: list[str], is_one: bool, plot: Path | None, overlay: Path | None, json: Path | None, csv: Path | None
) -> dict[str, tuple[Path | None, Path | None]]:
    """Where the pictures of each video go: the given file for one video, files in the given folder for several.

    What cannot work is refused here, before anything is computed.
    """
    for option, path, endings in (("--plot", plot, PLOT_ENDINGS), ("--overlay", overlay, (".mp4",))):
        if path == STDOUT:
            refuse(f"{option} - cannot be: pictures are not written to standard output. Give a file.")
        if path is not None and is_one and path.suffix.lower() not in endings:
            refuse(f"{option} {path}: for one video give a file that ends with {', '.join(endings)}.")
        if path is not None and not is_one and (path.is_file() or path.suffix.lower() in endings):
            number = f"there are {len(videos)} videos" if len(videos) > 1 else "a folder of videos was given"
            refuse(f"{option} {path} is one file, but {number}. Give a folder.")
    if json == csv == STDOUT:
        refuse("Standard output takes one of --json and --csv. Give the other one a file.")
    if is_one:
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


def _print_speed(results: dict[str, dict], elapsed: float) -> None:
    seconds = sum(result["read_until"] for result in results.values())
    if seconds:
        inform(f"{seconds:.1f} s of video in {elapsed:.1f} s, {elapsed / seconds:.2f} of their length.", dim=True)


def _print_notes(result: dict) -> None:
    """Print what one must know to read a result."""
    if result["warnings"]:
        inform("\n".join(f"  Note: {warning}" for warning in result["warnings"]), fg="yellow")
    if result["read"] and result["read"]["remarks"]:
        inform("\n".join(f"  Remark: {remark}" for remark in result["read"]["remarks"]), dim=True)
