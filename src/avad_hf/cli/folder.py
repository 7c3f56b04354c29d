"""`avad-hf fit FOLDER`: from a folder of videos to a detector, with a report."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.files import shown
from avad_hf.registration import DESCRIBERS

from .options import DType
from .rank import ENCODER, counted_once_known
from .results import write_json
from .terminal import check_checkpoint, check_device, fail, hush_libraries, note, refuse, stage, stop_for

PANEL = "Where FOLDER is given"

AlarmsOption = Annotated[
    float,
    typer.Option(
        min=0.0, help="Rate of false alarms that the threshold is set to, if there is footage enough.",
        rich_help_panel=PANEL,
    ),
]  # fmt: skip
NormalOption = Annotated[
    list[str] | None,
    typer.Option(
        help="Class of your own that is normal; all others are anomalies. Repeat it, or separate with commas.",
        show_default="none",
        rich_help_panel=PANEL,
    ),
]
AllNormalOption = Annotated[
    bool,
    typer.Option("--all-normal", help="No folder names a class: all is normal footage.", rich_help_panel=PANEL),
]
VideoEncoderOption = Annotated[
    str | None,
    typer.Option(help=ENCODER.format("Video"), show_default=DESCRIBERS["video_encoder"], rich_help_panel=PANEL),
]
AudioEncoderOption = Annotated[
    str | None,
    typer.Option(help=ENCODER.format("Audio"), show_default=DESCRIBERS["audio_encoder"], rich_help_panel=PANEL),
]
EncodersDTypeOption = Annotated[
    DType,
    typer.Option(
        help="Precision of the encoders; auto: bfloat16 where the device has it, else float32.", rich_help_panel=PANEL
    ),
]
# What only a folder of videos has a use for, and its value where nobody gave one.
DEFAULTS: dict[str, Any] = {
    "alarms_per_day": 1.0,
    "normal": None,
    "all_normal": False,
    "video_encoder": None,
    "audio_encoder": None,
    "device": None,
    "dtype": DType.auto.value,
    "batch_size": None,
}


def is_video_folder(place: str) -> bool:
    """Whether a folder holds videos, and no feature store."""
    return Path(place).is_dir() and not (Path(place) / "recipe.json").is_file()


def refuse_folder_options(given: dict[str, Any]) -> None:
    """Refuse options of folders where a feature store is given."""
    if used := [name for name, value in given.items() if value != DEFAULTS[name]]:
        option = used[0].replace("_", "-")
        refuse(f"--{option} is for a folder of videos, and STORE is none: its features are there already.")


def fit_videos(
    folder: str,
    output: Path,
    tell: Callable[..., None],
    json: Path | None,
    options: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    """Make a detector of a folder of videos, and print what came of it.

    Args:
        folder: The folder.
        output: Where all goes.
        tell: Prints results for people.
        json: File of the JSON document.
        options: Options of `avad_hf.folders.fitting.fit_folder`.
        settings: Fields of the detector's config.
    """
    for name in ("video_encoder", "audio_encoder"):
        check_checkpoint(options[name], f"--{name.replace('_', '-')}")
    hush_libraries()
    check_device(options["device"])
    if options["normal"]:
        options["normal"] = [name for names in options["normal"] for name in names.split(",") if name.strip()]
    from avad_hf.folders.fitting import fit_folder

    try:
        with counted_once_known(Path(folder).name or folder) as move:
            done = fit_folder(folder, output, on_stage=stage, on_progress=move, **options, **settings)
    # A broken checkpoint raises whatever its reader does, and what is stored stays.
    except Exception as error:
        stop_for(error)
    for step, words in done.steps.items():
        tell(f"{step}: {words}")
    if done.video is not None and done.video["roc_auc"] is not None:
        tell(f"Test videos: AUC {done.video['roc_auc']:.3f}, recall {done.video['recall']:.3f} at the threshold.")
    tell(f"Report: {done.report}")
    tell(f"Detector: avad-hf detect VIDEO --model {done.model}")
    for words in done.notes:
        note(words)
    write_json(done.to_dict(), json)
    if done.failed:
        for failure in done.failed:
            fail(shown(f"{failure['id']}: {failure['error']}"))
        fail(f"{len(done.failed)} videos cannot be read and were left out.")
        raise typer.Exit(1)
