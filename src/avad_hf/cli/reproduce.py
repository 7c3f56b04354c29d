"""`avad-hf reproduce`: the papers' tables."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .terminal import DType, check_checkpoint, check_device, quiet, refuse


class Corpus(StrEnum):
    """Corpora with a published table, and the synthetic ones."""

    mavad = "mavad"
    shanghaitech = "shanghaitech"
    synthetic = "synthetic"
    shade = "shade"
    crowd = "crowd"


class Profile(StrEnum):
    """Recipes of training either detector."""

    default = "default"
    paper = "paper"
    shanghaitech = "shanghaitech"
    avrl = "avrl"


class Study(StrEnum):
    """Studies of the AVRL paper."""

    modality = "modality"
    fusion = "fusion"
    dark = "dark"
    patches = "patches"


class DarkFrom(StrEnum):
    """Which dark videos are looked at."""

    test = "test"
    all = "all"


# Videos of the synthetic corpora.
NUM_VIDEOS = {Corpus.synthetic: 200, Corpus.crowd: 540}


def reproduce(
    corpus: Annotated[Corpus, typer.Argument(help="Whose tables.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of all stages and of tables.md.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint whose processor makes the features; shade: that training begins with. The synthetic "
            "corpora need none."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder or manifest of the corpus; synthetic: where it is rendered.")
    ] = None,
    raw_dir: Annotated[Path | None, typer.Option(help="MAVAD before it was anonymised, for Table V.")] = None,
    study: Annotated[
        list[Study] | None, typer.Option(help="Of shade and crowd; repeat for several. Default: all.")
    ] = None,
    dark_from: Annotated[
        DarkFrom, typer.Option(help="Dark videos of the test set, or of all sets, as the paper probably has them.")
    ] = DarkFrom.test,
    ratio: Annotated[
        list[float] | None, typer.Option(help="Share that study patches hides; repeat. Default: 0.2, 0.4, 0.6, 0.8.")
    ] = None,
    profile: Annotated[Profile | None, typer.Option(help="Default: as published; synthetic, crowd: default.")] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Of a split; repeat for several. Default: 0, 1, 2.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the profile's.", min=1)] = None,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is cut into, for less memory.", min=1)] = 1,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, for more time (shade, crowd).")
    ] = False,
    num_videos: Annotated[
        int | None, typer.Option(help="Of the synthetic corpora: 200 a street, 540 of the crowd by default.", min=1)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Of AVACA's encoders: cpu, cuda, cuda:1, mps. Default: the first GPU, or cpu.")
    ] = None,
    dtype: Annotated[DType, typer.Option(help="Precision of AVACA's encoders.")] = DType.float32,
) -> None:
    """Run a paper's protocol and print its tables with the paper's numbers beside.

    AVACA: mavad, scenes by splits by audio paths (Table III; with --raw-dir also Table V); shanghaitech, zero audio
    (Table IV); synthetic, Table III on drawn streets, without any download. AVRL: shade, modalities (Table V), fusions
    (Table III), dark videos (Table IV), hidden parts (Figure 6); crowd, the same on a drawn crowd, without any
    download. What was done before is not done again.
    """
    from avad_hf import registration  # noqa: F401
    from avad_hf.processes import process_state

    quiet()
    is_avrl = corpus in (Corpus.shade, Corpus.crowd)
    if corpus not in NUM_VIDEOS and model is None:
        refuse(
            "--model is needed: the checkpoint that training begins with (avad-hf init avrl)."
            if is_avrl
            else "--model is needed: a checkpoint with trained encoders makes the features."
        )
    if corpus not in NUM_VIDEOS and data_dir is None:
        refuse(f"--data-dir is needed: the folder of {corpus.value}, or its manifest.")
    foreign = (
        {"--raw-dir": raw_dir, "--device": device, "--dtype": dtype is not DType.float32}
        if is_avrl
        else {"--study": study, "--ratio": ratio, "--dark-from": dark_from is not DarkFrom.test}
        | {"--gradient-checkpointing": gradient_checkpointing}
    )
    if corpus not in NUM_VIDEOS:
        foreign["--num-videos"] = num_videos
    if given := [name for name, value in foreign.items() if value]:
        refuse(f"{' and '.join(given)} cannot be used with {corpus.value}.")
    if profile is not None and (profile is Profile.avrl) != is_avrl and profile is not Profile.default:
        refuse(f"--profile {profile.value} is of the other detector.")
    check_device(device)
    check_checkpoint(model)
    try:
        state = process_state()
        options = {
            "data_dir": data_dir,
            "profile": profile and profile.value,
            "seeds": tuple(seeds or (0, 1, 2)),
            "settings": ({} if epochs is None else {"epochs": epochs})
            | {"gradient_accumulation_steps": accumulate, "gradient_checkpointing": gradient_checkpointing},
            "on_stage": lambda stage: typer.echo(f"... {stage}", err=True) if state.is_main_process else None,
        }
        if is_avrl:
            text = _avrl(corpus, output, model, study, dark_from, ratio, num_videos, options)
        else:
            text = _avaca(corpus, output, model, raw_dir, num_videos, device or state.device, dtype, options)
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        refuse(str(error) or type(error).__name__)
    if state.is_main_process:
        typer.echo(f"\n{text}\nWritten to {output / 'tables.md'}")


def _avaca(corpus, output, model, raw_dir, num_videos, device, dtype, options) -> str:
    from avad_hf.detection.pipeline import DEMO_MODEL
    from avad_hf.models.avaca.processing_avaca import AvacaProcessor
    from avad_hf.reproduce.avaca import reproduce as run_protocol

    processor = AvacaProcessor.from_pretrained(model or DEMO_MODEL, dtype=dtype.value).to(device)
    return run_protocol(
        corpus.value,
        processor,
        output,
        raw_dir=raw_dir,
        num_videos=num_videos or NUM_VIDEOS[Corpus.synthetic],
        **options,
    )


def _avrl(corpus, output, model, study, dark_from, ratio, num_videos, options) -> str:
    from avad_hf.reproduce.avrl import RATIOS, STUDIES, reproduce_shade

    return reproduce_shade(
        output,
        model=model,
        studies=[item.value for item in study] if study else STUDIES,
        dark_from=dark_from.value,
        ratios=tuple(ratio or RATIOS),
        num_videos=None if corpus is Corpus.shade else num_videos or NUM_VIDEOS[corpus],
        **options,
    )
