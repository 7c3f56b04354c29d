"""`avad-hf init`: untrained checkpoints."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from avad_hf.registration import architecture as find_architecture
from avad_hf.registration import architectures

from .options import JsonOption, SetOption, config_settings, names_of, one_folder
from .results import check_json, write_json
from .terminal import check_checkpoint, check_folder, hush_libraries, refuse, stage, stop_for, stoppable

DETECTORS = ", ".join(architectures("init"))
ENCODER = (
    "Trained {} encoder: its folder, its Hub id, or the name of a published one (those of avad-hf convert), which is "
    "downloaded once and kept."
)


class Size(StrEnum):
    """Sizes of a new checkpoint."""

    base = "base"
    tiny = "tiny"


class Fusion(StrEnum):
    """How sight and sound are put together."""

    concat = "concat"
    concat_norm = "concat_norm"
    concat_scaled = "concat_scaled"
    add = "add"
    low_level = "low_level"


class Modality(StrEnum):
    """What a detector sees and hears."""

    audio_visual = "audio_visual"
    visual = "visual"
    audio = "audio"


FusionOption = Annotated[
    Fusion | None,
    typer.Option(
        help="How sight and sound are put together (detectors that have a choice).", show_default="the detector's"
    ),
]
ModalityOption = Annotated[
    Modality | None,
    typer.Option(help="What it sees and hears (detectors that have a choice).", show_default="the detector's"),
]


@stoppable("No checkpoint was written. Run the same command again.")
def init(
    architecture: Annotated[
        str | None,
        typer.Argument(
            metavar="ARCHITECTURE", help=f"One of {DETECTORS}.", show_default=False, autocompletion=names_of("init")
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="New or empty folder, where --output does not give it.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new folder, in place of DIR.", show_default="DIR")
    ] = None,
    size: Annotated[
        Size, typer.Option(help="base: the published architecture. tiny: for trying things out.")
    ] = Size.base,
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
    video_encoder: Annotated[
        str | None, typer.Option(help=ENCODER.format("video"), show_default="random weights")
    ] = None,
    audio_encoder: Annotated[
        str | None, typer.Option(help=ENCODER.format("audio"), show_default="random weights")
    ] = None,
    frame_step: Annotated[
        int,
        typer.Option(
            help="The video encoder sees every so many frames: a clip is longer, and costs the same (detectors that "
            "read features).",
            min=1,
        ),
    ] = 1,
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names of the events, with commas, normal among them (detectors that name events).",
            show_default="the detector's",
        ),
    ] = None,
    normal: Annotated[
        str | None,
        typer.Option(help="Which of them are no anomalies, with commas.", show_default="those called normal..."),
    ] = None,
    fusion: FusionOption = None,
    modality: ModalityOption = None,
    settings: SetOption = None,
    json: JsonOption = None,
) -> None:
    """Write an untrained checkpoint to begin training from: detector, processor, encoders and card.

    Example: avad-hf init avaca checkpoints/new --video-encoder i3d --audio-encoder yamnet
    """
    if architecture is None:
        refuse(f"Missing argument ARCHITECTURE. Give one of {DETECTORS}.")
    try:
        find_architecture(architecture, "init", "detector")
    except ValueError as error:
        refuse(str(error))
    directory = one_folder(directory, output, "DIR")
    options = config_settings(
        settings,
        classes=None if classes is None else [name.strip() for name in classes.split(",")],
        normal_classes=None if normal is None else [name.strip() for name in normal.split(",")],
        fusion=fusion,
        modality=modality,
    )
    check_checkpoint(video_encoder, "--video-encoder")
    check_checkpoint(audio_encoder, "--audio-encoder")

    check_folder(directory)
    tell = check_json(json)
    hush_libraries()
    from avad_hf.untrained import init as write_checkpoint

    try:
        made = write_checkpoint(
            architecture, directory, size.value, seed, video_encoder, audio_encoder, stage, frame_step, **options
        )
    except (OSError, ValueError, TypeError) as error:
        stop_for(error)
    notices = [made.model.config.notice, *made.processor.notices]
    tell(f"Wrote an untrained checkpoint to {directory}. {' '.join(notices)}")
    write_json({"directory": str(directory), "architecture": architecture, "notices": notices}, json)
