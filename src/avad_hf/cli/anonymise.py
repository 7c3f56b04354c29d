"""`avad-hf anonymise`: videos without faces, number plates, masked ground and speech."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.files import shown

from .options import DeviceOption, JsonOption, one_folder
from .results import check_json, write_json
from .terminal import (
    check_device,
    counted,
    fail,
    hush_libraries,
    inform,
    progress,
    refuse,
    stage,
    stop_for,
    stoppable,
)

MANIFEST = ".csv"


class HidingMethod(StrEnum):
    """How parts of the picture are hidden."""

    blur = "blur"
    mosaic = "mosaic"
    solid = "solid"


class SpeechMethod(StrEnum):
    """What becomes of speech."""

    keep = "keep"
    mute = "mute"
    blur = "blur"


@stoppable("Videos that are written stay. Run the same command again, and it goes on.")
def anonymise(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", help="A video, a folder of videos, or a manifest (.csv).", show_default=False),
    ],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The new video (.mp4), or a folder for many.", show_default=False),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The same as OUT.", show_default="OUT")] = None,
    hide: Annotated[
        str, typer.Option(help="What is hidden by published detectors, divided by commas; none for nothing.")
    ] = "faces,plates",
    detector: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL=CLASSES",
            help="Another detector: checkpoint for object detection and its classes, such as "
            "PekingU/rtdetr_r50vd=person,car; or a folder with an ONNX file and detector.json. Repeat it for several.",
            show_default="none",
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Fixed masks: polygons on a snapshot, the JSON file of LabelMe.", show_default="none"),
    ] = None,
    method: Annotated[HidingMethod, typer.Option(help="How it is hidden.")] = HidingMethod.blur,
    speech: Annotated[
        SpeechMethod, typer.Option(help="mute: silence in its place; blur: noise as loud, without any word.")
    ] = SpeechMethod.keep,
    look_every: Annotated[
        float, typer.Option(help="Seconds from one picture that is searched to the next.", min=0, max=0.5)
    ] = 0.2,
    check: Annotated[
        int, typer.Option(help="Pictures of random times of each video, for a person to confirm.", min=0, max=1000)
    ] = 0,
    workers: Annotated[
        int | None, typer.Option(help="Videos at the same time.", min=1, show_default="one for every two cores")
    ] = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Write videos again without faces, number plates, masked ground and speech.

    Example: avad-hf anonymise recordings anonymised --speech blur --check 5

    What is found is followed through the pictures in between, before and after. Metadata are left out, sound is copied
    where nothing of it is hidden, and pictures keep their times. Beside the videos lie contact sheets to look through.
    Detectors miss some: look before you publish.
    """
    output = one_folder(target, output, "OUT")
    tell = check_json(json)
    check_device(device)
    if not source.exists():
        refuse(f"{source}: no such file or folder. Check the path.")
    are_many = source.is_dir() or source.suffix.lower() == MANIFEST
    if not are_many and output.suffix.lower() != ".mp4":
        refuse(f"{output}: for one video give a file that ends with .mp4.")
    if detector:
        hush_libraries()
    try:
        from avad_hf.anonymise.choosing import Choice

        names = tuple(name.strip() for name in hide.split(",") if name.strip() not in ("", "none"))
        choice = Choice(names, tuple(detector or ()), None if masks is None else str(masks), method.value, look_every)
        settings = {"speech": speech.value, "num_checks": check, "device": device}
        if are_many:
            document = _many(source, output, choice, settings | {"num_workers": workers})
        else:
            document = _one(source, output, choice, settings)
    except Exception as error:
        stop_for(error)
    write_json(document, json)
    for name, report in document["videos"].items():
        tell(f"{shown(name)}: {_words(report)}")
    if document["failed"]:
        fail(f"{len(document['failed'])} of {len(document['videos']) + len(document['failed'])} videos failed.")
        raise typer.Exit(1)


def _one(source: Path, output: Path, choice: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from avad_hf.anonymise.sheets import write_checks, write_sheet, write_table
    from avad_hf.anonymise.video import anonymise_video
    from avad_hf.media.sources import open_media

    with open_media(source) as media:
        duration = media.info.duration
    with progress(output.name, duration) as move:
        found = anonymise_video(
            source,
            output,
            choice.anonymiser(stage, device=settings["device"]),
            speech=settings["speech"],
            num_checks=settings["num_checks"],
            on_progress=move,
        )
    write_sheet(output.with_suffix(".jpg"), found.samples)
    if found.checks:
        folder = output.with_name(f"{output.stem}-checks")
        write_table(folder / "checks.csv", write_checks(folder, output.stem, found.checks))
    inform(f"Look through {output.with_suffix('.jpg')} before you publish the video.")
    return {"videos": {str(output): found.report}, "failed": {}}


def _many(source: Path, output: Path, choice: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from avad_hf.anonymise.folder import SHEETS, anonymise_videos, tasks_of
    from avad_hf.corpora.manifest import read_manifest, write_manifest
    from avad_hf.corpora.tree import walk

    rows = read_manifest(source) if source.suffix.lower() == MANIFEST else None
    if rows is None:
        tree = walk(source)
        pairs = [(str(found.path), tree.audio.get(found.path)) for found in tree.videos]
    else:
        pairs = [(row["video"], row.get("audio")) for row in rows]
    sources = {video: {"video": video, "audio": sound and str(sound)} for video, sound in pairs}
    if not sources:
        raise ValueError(f"{source} holds no videos. Give a folder that does.")
    tasks = tasks_of(sources, source if rows is None else source.parent)
    with counted("videos", len(tasks)) as move:
        ended = [0]

        def tell(name: str, error: str | None) -> None:
            ended[0] += 1
            move(ended[0], len(tasks))
            if error is not None:
                fail(f"{shown(name)}: {error}")

        done = anonymise_videos(tasks, output, choice, **settings, on_stage=stage, on_video=tell)
    if rows is not None:
        written = {task.path: str(output / f"{task.name}.mp4") for task in tasks if task.name in done.reports}
        kept = [row | {"video": written[row["video"]], "audio": None} for row in rows if row["video"] in written]
        write_manifest(kept, output / "manifest.csv")
    inform(f"Look through the pictures in {output / SHEETS} before you publish the videos.")
    return {"videos": done.reports, "failed": done.failed}


def _words(report: dict[str, Any]) -> str:
    found = [f"{kind} in {100 * one['pictures_with']:.0f}% of the pictures" for kind, one in report["found"].items()]
    if report["speech"]["method"] != "keep":
        found.append(f"{report['speech']['seconds']:.1f} s of speech")
    return "hidden " + (", ".join(found) if found else "what is masked")
