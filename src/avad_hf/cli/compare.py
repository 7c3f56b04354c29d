"""`avad-hf compare`: detectors on the same features, splits, search and figures."""

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonOption
from .rank import counted_once_known
from .results import check_json, output_folder, write_json
from .terminal import hush_libraries, refuse, stage, stop_for, stoppable

# What is drawn in place of a store.
SYNTHETIC = "synthetic"


def numbers(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no list of numbers, such as 0.0003,0.001.") from error


@stoppable("What is done is kept. Run the same command again, and it goes on.")
def compare(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="Folder that avad-hf extract wrote; or the word synthetic: drawn scenes.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of tables.md, comparison.html, figures.csv and all runs; what is there is not done again.",
            show_default="results/compare-NUMBER",
        ),
    ] = None,
    detectors: Annotated[
        str | None,
        typer.Option(
            help="Names between commas, with options after colons: NAME,NAME:inputs=both.",
            show_default="all that learn from labels, reading both senses",
        ),
    ] = None,
    scenes: Annotated[
        str | None,
        typer.Option(
            help="Compare within each of these scenes, between commas; each: within every scene.",
            show_default="all videos together",
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--split-seed", "--seeds", help="Seed of a split, or of a set of folds; repeat it.", show_default="0, 1, 2"
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Folds by recording (the column group); 0: splits.",
            show_default="5 where recordings are known and no split is fixed",
        ),
    ] = None,
    learning_rates: Annotated[
        str,
        typer.Option(help="Learning rates that each detector is trained with; the best in validation is tested."),
    ] = "0.0003,0.001,0.003",
    profile: Annotated[
        str, typer.Option(help="Recipe of training for all; published: that of each detector's own paper.")
    ] = "few",
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of each training.", min=1, show_default="the profile's")
    ] = None,
    standardise: Annotated[
        bool | None,
        typer.Option(
            "--standardise/--as-stored",
            help="Features with mean 0 and deviation 1 of each channel over training videos, or as stored.",
            show_default="as stored; drawn videos: standardised",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Detectors that are trained at the same time.", min=1, show_default="one a core; GPU: 1"),
    ] = None,
    num_videos: Annotated[
        int | None,
        typer.Option(
            help="Drawn videos a scene to learn from, and as many again to test.",
            min=20,
            show_default="200; at the junction 600 to learn from",
        ),
    ] = None,
    world_seed: Annotated[int | None, typer.Option(help="Seed of the drawn videos.", min=0, show_default="1")] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where synthetic videos are drawn.", show_default="in the output folder"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Compare detectors: train each on the same features and splits, and test it on the same videos.

    Example: avad-hf compare features/street --detectors avaca,rtfm:inputs=both,gaussian -o results/compared

    Every detector gets the same learning rates, and the epoch and rate that do best on validation videos; test videos
    choose nothing. Tables hold means, deviations over seeds, 95% intervals by draws of test videos or recordings, and
    differences to the best with corrected p-values. Detectors that know normal footage alone (gaussian, knn, mulde)
    can take part.

    Without any store: avad-hf compare synthetic -o results/drawn draws the scenes, and compares within each. A run
    that was stopped goes on where it was.
    """
    tell = check_json(json)
    rates = numbers(learning_rates)
    drawn = {"num_videos": num_videos, "world_seed": world_seed, "data_dir": data_dir}
    drawn = {name: value for name, value in drawn.items() if value is not None}
    if drawn and store != SYNTHETIC:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in drawn)
        refuse(f"{flags} cannot be used with a store: drawn videos are compared with the word {SYNTHETIC}.")
    with output_folder(output, "compare") as folder:
        hush_libraries()
        from avad_hf.comparison.compare import compare as compare_detectors

        try:
            place, asked = store, detectors.split(",") if detectors else None
            within = scenes.split(",") if scenes else None
            if store == SYNTHETIC:
                from avad_hf.comparison.candidates import parsed
                from avad_hf.reproduce.drawn import DETECTORS, STANDARDISE, drawn_features

                parsed(asked or ())  # before minutes of drawing
                place = drawn_features(folder, scenes=within, on_stage=stage, **drawn)
                within, asked = within or ["each"], asked or list(DETECTORS)
                standardise = STANDARDISE if standardise is None else standardise
            with counted_once_known("runs") as move:
                found = compare_detectors(
                    place,
                    folder,
                    asked,
                    scenes=within,
                    seeds=seeds or (0, 1, 2),
                    num_folds=folds,
                    rates=rates,
                    profile=profile,
                    settings={} if epochs is None else {"epochs": epochs},
                    standardise=bool(standardise),
                    num_workers=workers,
                    on_run=lambda words, done, total: move(done, total),
                )
        # What is done is kept, whatever ends a run.
        except Exception as error:
            stop_for(error)
    write_json(found.to_dict() | {"folder": str(folder)}, json)
    tell(f"\n{found.markdown}\nWritten to {folder / 'tables.md'}, and as a page to {folder / 'comparison.html'}")
