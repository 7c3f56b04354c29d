"""`avad-hf init`: untrained checkpoints."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import quiet, refuse


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
    from avad_hf.hub import init_avaca as write_checkpoint

    quiet()
    try:
        processor = write_checkpoint(directory, size.value, seed, video_encoder, audio_encoder)
    except (OSError, ValueError) as error:
        refuse(str(error))
    parts = ["the detector", *(f"the {kind} encoder" for kind in ("video", "audio") if kind in str(processor.notices))]
    typer.echo(
        f"Wrote an untrained checkpoint to {directory} ({' and '.join(parts)} have random weights, seed {seed})."
    )
