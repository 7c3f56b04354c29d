"""`avad-hf init`: untrained checkpoints."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import check_checkpoint, quiet, refuse


class Size(StrEnum):
    """Sizes of a new checkpoint."""

    base = "base"
    tiny = "tiny"


def init_avaca(
    directory: Annotated[Path, typer.Argument(help="Where to write it; new or empty.", show_default=False)],
    size: Annotated[
        Size, typer.Option(help="base: the published architecture. tiny: for trying things out.")
    ] = Size.base,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
    video_encoder: Annotated[str | None, typer.Option(help="Folder or Hub id of a trained SlowFast.")] = None,
    audio_encoder: Annotated[str | None, typer.Option(help="Folder or Hub id of a trained VGGish.")] = None,
) -> None:
    """Write an untrained AVACA checkpoint: detector, processor, encoders and card."""
    from avad_hf import registration  # noqa: F401
    from avad_hf.untrained import init_avaca as write_checkpoint

    quiet()
    check_checkpoint(video_encoder, "--video-encoder")
    check_checkpoint(audio_encoder, "--audio-encoder")
    try:
        processor = write_checkpoint(directory, size.value, seed, video_encoder, audio_encoder)
    except (OSError, ValueError) as error:
        refuse(str(error))
    parts = ["the detector", *(f"the {kind} encoder" for kind in ("video", "audio") if kind in str(processor.notices))]
    typer.echo(f"Wrote an untrained checkpoint to {directory} (random weights, seed {seed}: {' and '.join(parts)}).")


class Fusion(StrEnum):
    """How AVRL puts sight and sound together."""

    concat = "concat"
    concat_norm = "concat_norm"
    concat_scaled = "concat_scaled"
    add = "add"
    low_level = "low_level"


class Modality(StrEnum):
    """What AVRL sees and hears."""

    audio_visual = "audio_visual"
    visual = "visual"
    audio = "audio"


def init_avrl(
    directory: Annotated[Path, typer.Argument(help="Where to write it; new or empty.", show_default=False)],
    size: Annotated[
        Size, typer.Option(help="base: the published architecture. tiny: for trying things out.")
    ] = Size.base,
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
    video_encoder: Annotated[str | None, typer.Option(help="Folder or Hub id of a trained 3D ResNet.")] = None,
    audio_encoder: Annotated[str | None, typer.Option(help="Folder or Hub id of a trained VGGish.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the events, with commas, normal among them. Default: SHADE's nine.")
    ] = None,
    normal: Annotated[
        str | None, typer.Option(help="Which of them are no anomalies, with commas. Default: those called normal...")
    ] = None,
    fusion: Annotated[Fusion, typer.Option(help="How sight and sound are put together.")] = Fusion.concat,
    modality: Annotated[Modality, typer.Option(help="What it sees and hears.")] = Modality.audio_visual,
) -> None:
    """Write an AVRL checkpoint to begin training from: networks, classifier, processor and card."""
    from avad_hf import registration  # noqa: F401
    from avad_hf.untrained import init_avrl as write_checkpoint

    quiet()
    check_checkpoint(video_encoder, "--video-encoder")
    check_checkpoint(audio_encoder, "--audio-encoder")
    given = {"classes": classes, "normal_classes": normal}
    options = {key: [name.strip() for name in value.split(",")] for key, value in given.items() if value is not None}
    try:
        model = write_checkpoint(
            directory,
            size.value,
            seed,
            video_encoder,
            audio_encoder,
            fusion=fusion.value,
            modality=modality.value,
            **options,
        )
    except (OSError, ValueError) as error:
        refuse(str(error))
    typer.echo(f"Wrote a checkpoint to {directory}. {model.config.notice}")
