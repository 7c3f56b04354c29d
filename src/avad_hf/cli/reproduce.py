"""`avad-hf reproduce`: the paper's tables."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import DType, check_device, quiet, refuse
from .train import Profile


class Corpus(StrEnum):
    """Corpora with a published table, and the synthetic one."""

    mavad = "mavad"
    shanghaitech = "shanghaitech"
    synthetic = "synthetic"


def reproduce(
    corpus: Annotated[Corpus, typer.Argument(help="Whose table.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of all stages and of tables.md.")],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose processor makes the features; synthetic: the demonstration model."),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder or manifest of the corpus; synthetic: where it is rendered.")
    ] = None,
    raw_dir: Annotated[Path | None, typer.Option(help="MAVAD before it was anonymised, for Table V.")] = None,
    profile: Annotated[Profile | None, typer.Option(help="Default: as published; synthetic: default.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Of a split; repeat for several. Default: 0, 1, 2.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the profile's.", min=1)] = None,
    num_videos: Annotated[int, typer.Option(help="Videos a scene of the synthetic world.", min=1)] = 200,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the first GPU, or cpu.")] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the encoders.")] = DType.float32,
) -> None:
    """Run the AVACA paper's protocol and print its table with the paper's numbers beside.

    mavad: scenes by splits by audio paths (Table III; with --raw-dir also Table V). shanghaitech: zero audio (Table
    IV). synthetic: Table III on drawn streets, without any download. What was done before is not done again.
    """
    import torch

    from avad_hf import registration  # noqa: F401
    from avad_hf.data.extraction import process_state
    from avad_hf.models.avaca.processing_avaca import AvacaProcessor
    from avad_hf.pipeline import DEMO_MODEL
    from avad_hf.reproduce import reproduce as run_protocol

    quiet()
    if corpus is not Corpus.synthetic and model is None:
        refuse("--model is needed: a checkpoint with trained encoders makes the features.")
    if corpus is not Corpus.synthetic and data_dir is None:
        refuse(f"--data-dir is needed: the folder of {corpus.value}, or its manifest.")
    check_device(device)
    try:
        state = process_state()
        processor = AvacaProcessor.from_pretrained(model or DEMO_MODEL, dtype=getattr(torch, dtype.value))
        text = run_protocol(
            corpus.value,
            processor.to(device or state.device),
            output,
            data_dir=data_dir,
            raw_dir=raw_dir,
            profile=profile and profile.value,
            seeds=tuple(seeds or (0, 1, 2)),
            num_videos=num_videos,
            settings={} if epochs is None else {"epochs": epochs},
            on_stage=lambda stage: typer.echo(f"... {stage}", err=True) if state.is_main_process else None,
        )
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        refuse(str(error) or type(error).__name__)
    if state.is_main_process:
        typer.echo(f"\n{text}\nWritten to {output / 'tables.md'}")
