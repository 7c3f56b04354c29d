"""`avad-hf export`: checkpoints as engines of OpenVINO or ONNX Runtime."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption, one_folder
from .results import check_json, write_json
from .terminal import check_checkpoint, check_folder, hush_libraries, stage, stop_for, stoppable


class Format(StrEnum):
    """What runs the engines."""

    openvino = "openvino"
    onnx = "onnx"


class Precision(StrEnum):
    """What they compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


@stoppable("No engines were written. Run the same command again.")
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Checkpoint of a detector: folder or Hub id.", show_default=False)
    ],
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="New folder, where --output does not give it.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new folder, in place of DIR.", show_default="DIR")
    ] = None,
    format: Annotated[Format, typer.Option(help="OpenVINO is the faster one on processors of Intel and AMD.")] = (
        Format.openvino
    ),
    precision: Annotated[
        Precision,
        typer.Option(help="What the encoders compute in. bfloat16: OpenVINO only; int8 wants a processor with VNNI."),
    ] = Precision.float32,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            help="Video, or manifest (its test split is left out), like those to come: for int8, and to compare on. "
            "Repeat it for several.",
            show_default="videos of the synthetic world",
        ),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(help="Manifest of labelled videos, for the AUC before and after.", show_default="none"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Make engines of a detector and its encoders, and print how far they are from the checkpoint.

    Example: avad-hf export checkpoints/street engines/street --precision int8 --calibrate street.mp4

    detect, extract and push take the folder in place of the checkpoint. OpenVINO and ONNX Runtime are extras:
    pip install '.[openvino]', '.[onnx]'.
    """
    directory = one_folder(directory, output, "DIR")
    check_folder(directory)
    tell = check_json(json)
    hush_libraries()
    from avad_hf.export.engines import export_engines

    check_checkpoint(model, "MODEL")
    try:
        done = export_engines(
            model,
            directory,
            format=format.value,
            precision=precision.value,
            calibrate=calibrate or (),
            labelled=labelled,
            on_stage=stage,
        )
    # A broken checkpoint or video raises whatever its reader does.
    except Exception as error:
        stop_for(error)
    if done.calibration:
        tell(f"Calibrated on {done.calibration}.")
    for line in done.parity.lines():
        tell(f"{line}.")
    tell(f"Wrote {done.directory} ({done.num_bytes / 1e6:.1f} MB).")
    write_json(asdict(done) | {"directory": str(done.directory)}, json)
