"""`avad-hf reproduce`: the papers' tables."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.registration import ARCHITECTURES
from avad_hf.reproduce.papers import PAPERS, Paper

from .options import AccumulateOption, DeviceOption, DType, JsonOption, profile_names
from .results import RESULTS, check_json, output_folder, write_json
from .terminal import check_checkpoint, check_device, hush_libraries, refuse, stage, stop_for, stoppable

# Corpora with a published table, and the synthetic ones.
Corpus = StrEnum("Corpus", {name: name for name in PAPERS})


class Study(StrEnum):
    """Studies of event classes."""

    references = "references"
    modality = "modality"
    fusion = "fusion"
    dark = "dark"
    patches = "patches"


class Fusion(StrEnum):
    """Ways to put sight and sound together in Table III."""

    transformer = "transformer"
    attention = "attention"
    late = "late"


class DarkFrom(StrEnum):
    """Which dark videos are looked at."""

    test = "test"
    all = "all"


@stoppable("What is done is kept. Run the same command again, and it goes on.")
def reproduce(
    corpus: Annotated[
        Corpus, typer.Argument(metavar="CORPUS", help=f"One of {', '.join(PAPERS)}.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of all stages and of tables.md; what is there is not done again.",
            show_default="results/reproduce-CORPUS",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint whose processor makes the features; shade: the one that training begins with.",
            show_default="none; the synthetic corpora need none",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder or manifest of the corpus; synthetic corpora: where they are rendered.",
            show_default="synthetic corpora: in the output folder",
        ),
    ] = None,
    raw_dir: Annotated[
        Path | None, typer.Option(help="MAVAD before it was anonymised, for Table V.", show_default="none")
    ] = None,
    match_by: Annotated[
        str | None,
        typer.Option(
            help="Column of both manifests that says which raw video is which anonymised one.", show_default="the file"
        ),
    ] = None,
    fusion: Annotated[
        list[Fusion] | None,
        typer.Option(
            help="Fusion that Table III is made with (mavad, synthetic); repeat for several.",
            show_default="transformer, the paper's",
        ),
    ] = None,
    classes: Annotated[
        bool, typer.Option("--classes", help="Train detectors that name the class of a video too (mavad, synthetic).")
    ] = False,
    study: Annotated[
        list[Study] | None, typer.Option(help="Study of shade and crowd; repeat for several.", show_default="all")
    ] = None,
    dark_from: Annotated[
        DarkFrom, typer.Option(help="Dark videos of the test set, or of all sets, as the paper probably has them.")
    ] = DarkFrom.test,
    ratio: Annotated[
        list[float] | None,
        typer.Option(
            help="Share of a picture that the study `patches` hides; repeat for several.",
            show_default="0.2, 0.4, 0.6, 0.8",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Recipe of training.",
            show_default="as published; synthetic, crowd: default",
            autocompletion=profile_names,
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--split-seed",
            "--seeds",
            help="Seed of a split; repeat for several.",
            show_default="those of the protocol",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each training.", min=1, show_default="the profile's")
    ] = None,
    accumulate: AccumulateOption = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, for more time (shade, crowd).")
    ] = False,
    num_videos: Annotated[
        int | None,
        typer.Option(help="Videos of the synthetic corpora.", min=1, show_default="200 a street, 540 of the crowd"),
    ] = None,
    world_seed: Annotated[
        int, typer.Option(help="Seed of the drawn videos (synthetic): other videos of the same kind.", min=0)
    ] = 0,
    device: DeviceOption = None,
    dtype: Annotated[DType, typer.Option(help="Precision of the encoders.")] = DType.float32,
    json: JsonOption = None,
) -> None:
    """Run a paper's protocol and print its tables with the paper's numbers beside.

    Example, without any download: avad-hf reproduce synthetic -o runs/synthetic

    Scores of clips: mavad, scenes by splits by audio paths (Table III; with --raw-dir also Table V); shanghaitech,
    zero audio (Table IV); synthetic, Table III on drawn streets. Event classes: shade, networks that see alone
    (Table II), modalities (Table V), fusions (Table III), dark videos (Table IV), hidden parts (Figure 6); crowd, the
    same on a drawn crowd. Studies of our own: cctv-fights, real recordings; normal-cctv-fights and normal-synthetic,
    detectors that know normal footage alone; anonymised-synthetic, Table V on drawn streets with faces and plates.

    What was done before is not done again.
    """
    paper = PAPERS[corpus.value]
    tell = check_json(json)
    special = {
        "raw_dir": raw_dir,
        "match_by": match_by,
        "device": device,
        "dtype": dtype.value if dtype is not DType.float32 else None,
        "fusion": [item.value for item in fusion or ()],
        "classes": classes,
        "world_seed": world_seed,
        "study": [item.value for item in study or ()],
        "ratio": ratio,
        "dark_from": dark_from.value if dark_from is not DarkFrom.test else None,
        "gradient_checkpointing": gradient_checkpointing,
    }
    special = {name: value for name, value in special.items() if value}
    _refuse_what_cannot_be(corpus.value, paper, model, data_dir, special, num_videos, profile)
    with output_folder(output, "reproduce", again=RESULTS / f"reproduce-{corpus.value}") as folder:
        check_device(device)
        check_checkpoint(model)
        hush_libraries()
        settings = {"epochs": epochs, "gradient_accumulation_steps": accumulate}
        settings = {name: value for name, value in settings.items() if value is not None}
        settings["gradient_checkpointing"] = special.pop("gradient_checkpointing", False)
        text = _run(
            corpus.value,
            folder,
            model,
            num_videos or paper.num_videos,
            data_dir=data_dir,
            profile=profile,
            seeds=tuple(seeds or paper.seeds),
            settings=settings,
            **special,
        )
    if text is not None:
        from avad_hf.reproduce.protocol import tables_of

        write_json({"folder": str(folder), "tables": tables_of(text)}, json)
        tell(f"\n{text}\nWritten to {folder / 'tables.md'}")


def _run(corpus: str, folder: Path, model: str | None, num_videos: int | None, **options: Any) -> str | None:
    """Make the tables; ``None`` in all processes but the main one."""
    from avad_hf.processes import process_state

    try:
        state = process_state()
        on_stage = stage if state.is_main_process else lambda name: None
        text = PAPERS[corpus].run(corpus, folder, model, num_videos, on_stage=on_stage, **options)
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        stop_for(error)
    return text if state.is_main_process else None


def _refuse_what_cannot_be(
    corpus: str,
    paper: Paper,
    model: str | None,
    data_dir: Path | None,
    special: dict[str, Any],
    num_videos: int | None,
    profile: str | None,
) -> None:
    """Refuse what is missing for a corpus, and options that are not for it."""
    is_drawn = paper.num_videos is not None
    if not is_drawn and model is None and paper.encoders is None:
        refuse(f"--model is needed: {paper.needs}.")
    if not is_drawn and data_dir is None:
        refuse(f"--data-dir is needed: the folder of {corpus}, or its manifest.")
    unfit = [name for name in special if name not in paper.options]
    unfit += ["num_videos"] if num_videos is not None and not is_drawn else []
    if unfit:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in unfit)
        refuse(f"{flags} cannot be used with {corpus}.")
    if profile is not None:
        profiles = ("default", *ARCHITECTURES[paper.architecture].load("profiles"))
        if profile not in profiles:
            refuse(f"--profile {profile} is of the other detector, or none. With {corpus}: {', '.join(profiles)}.")
