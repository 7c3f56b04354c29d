"""`avad-hf convert`: published encoders as checkpoints."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import quiet, refuse

Place = Annotated[
    list[Path],
    typer.Argument(metavar="[SOURCE] OUT", help="The file as published, and the new folder.", show_default=False),
]


class PixelRange(StrEnum):
    """What pixels a network was trained on."""

    one = "0-1"
    byte = "0-255"


def convert_slowfast(places: Place) -> None:
    """SlowFast-R50 8x8 of pytorchvideo (.pyth) or PySlowFast (.pkl). Without SOURCE: pytorchvideo's."""
    from avad_hf.convert.encoders import convert_slowfast as convert

    _run(convert, *_places(places))


def convert_vggish(
    places: Place,
    pca: Annotated[Path | None, typer.Option(help="vggish_pca_params (.pth or .npz), to carry along.")] = None,
    official_pca: Annotated[bool, typer.Option("--official-pca", help="Download torchvggish's PCA.")] = False,
) -> None:
    """VGGish of torchvggish (.pth), torchaudio (.pt) or TensorFlow (.ckpt). Without SOURCE: torchvggish's."""
    if pca is not None and official_pca:
        refuse("Give --pca or --official-pca, not both.")
    from avad_hf.convert.encoders import convert_vggish as convert

    _run(convert, *_places(places), pca=official_pca or pca)


def convert_resnet3d(
    places: Place,
    pixels: Annotated[
        PixelRange | None,
        typer.Option(help="What it was trained on. Default: 0-255 for shortcuts of type A (2018), else 0-1 (2020)."),
    ] = None,
) -> None:
    """3D-ResNet-34 of 3D-ResNets-PyTorch (.pth), of 2018 (shortcuts A) or 2020 (B)."""
    from avad_hf.convert.encoders import convert_resnet3d as convert

    given = {None: None, PixelRange.one: 1, PixelRange.byte: 255}[pixels]
    _run(convert, *_places(places), pixel_range=given)


def _places(places: list[Path]) -> tuple[Path | None, Path]:
    if len(places) > 2:
        refuse(f"Give SOURCE and OUT, or OUT alone; got {' '.join(map(str, places))}.")
    return (None, places[0]) if len(places) == 1 else (places[0], places[1])


def _run(convert: Callable, source: Path | None, directory: Path, **options) -> None:
    from avad_hf import registration  # noqa: F401
    from avad_hf.convert.encoders import NOT_COMPARED

    quiet()
    if source is None and (directory.is_file() or directory.suffix in (".pyth", ".pth", ".pt", ".pkl", ".ckpt")):
        refuse(f"{directory} is a file, or called like one. Give the new folder too: {directory} OUT.")
    try:
        done = convert(source, directory, **options)
    except (OSError, ValueError) as error:
        refuse(str(error))
    typer.echo(f"Read {done.num_parameters:,} weights in the format of {done.origin}, SHA-256 {done.source_sha256}.")
    typer.echo(f"{done.parity}." if done.parity else NOT_COMPARED)
    typer.echo(f"Wrote {done.directory}")
