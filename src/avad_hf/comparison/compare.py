"""One command that compares detectors: the same features, splits, search, choice of epoch and figures for all."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avad_hf.corpora.splits import SEEDS
from avad_hf.disks import writing
from avad_hf.evaluation.scoring import labels_of
from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import as_json, write_text
from avad_hf.metrics.resampling import Estimate, draws, holm
from avad_hf.processes import share_cores
from avad_hf.runs import only_run

from .candidates import Candidate, candidates
from .divisions import Division, divisions
from .figures import FIGURES, Corpus, Measured, Tested, measured
from .runs import PUBLISHED, Run, data_of, known_profiles, run_all
from .tables import csv_of, markdown_of, seconds_of

# Learning rates that every detector is trained with; the one of the best validation figure is tested.
RATES = (3e-4, 1e-3, 3e-3)
# Figures of which differences are told.
MAIN = ("video_auc", "frame_auc")
COMPARISON, TABLES, SECONDS, FIGURES_CSV, PAGE = (
    "comparison.json",
    "tables.md",
    "seconds.md",
    "figures.csv",
    "comparison.html",
)


@dataclass(frozen=True)
class Difference:
    """A detector's figure minus that of the best one, on the same draws.

    Args:
        estimate: The difference, 0 or below.
        p_value: Corrected for as many comparisons as there are (Holm).
    """

    estimate: Estimate
    p_value: float


@dataclass(frozen=True)
class Row:
    """A detector in a scene.

    Args:
        candidate: The detector.
        figures: By the names of `FIGURES`; those that cannot be told are missing.
        differences: To the best detector, by the names of `MAIN`; none for the best one.
        parameters: Numbers that are learnt; the mean over divisions, which differ where they depend on the footage.
        rates: Learning rates that were chosen, by division.
        seconds: Time of all its runs, training at all rates and testing.
    """

    candidate: Candidate
    figures: dict[str, Measured]
    differences: dict[str, Difference]
    parameters: int
    rates: list[float | None]
    seconds: float


@dataclass(frozen=True)
class SceneTable:
    """All detectors in a scene, the highest video AUC first.

    Args:
        scene: Its name; ``None`` for all videos together.
        num_tested: Videos that are tested in one division or more.
        num_anomalous: How many of these are anomalous.
        num_recordings: How many recordings they are of.
        rows: The detectors.
        curves: ROC curves of videos by the name of the detector: false alarm rates and recall, of shape `(N,)`, the
            mean over divisions.
    """

    scene: str | None
    num_tested: int
    num_anomalous: int
    num_recordings: int
    rows: list[Row]
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)


@dataclass(frozen=True)
class Comparison:
    """What [`compare`] found; its folder holds the same as files.

    Args:
        output_dir: The folder: ``tables.md``, ``figures.csv``, ``comparison.html``, ``comparison.json``,
            ``seconds.md`` and a record of each run.
        tables: One a scene.
        notes: How it was done, and what one must know.
    """

    output_dir: str
    tables: list[SceneTable]
    notes: list[str]

    @property
    def markdown(self) -> str:
        """All tables as Markdown."""
        return markdown_of(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but curves and times, as JSON has it."""
        return {
            "notes": self.notes,
            "scenes": [
                {
                    "scene": table.scene,
                    "num_tested": table.num_tested,
                    "num_anomalous": table.num_anomalous,
                    "num_recordings": table.num_recordings,
                    "detectors": [_as_dict(row) for row in table.rows],
                }
                for table in self.tables
            ],
        }


def compare(
    store: str | os.PathLike,
    output_dir: str | os.PathLike,
    detectors: Sequence[str] | None = None,
    *,
    scenes: Sequence[str] | None = None,
    seeds: Sequence[int] = SEEDS,
    num_folds: int | None = None,
    rates: Sequence[float] = RATES,
    profile: str = "few",
    settings: dict[str, Any] | None = None,
    standardise: bool = False,
    num_resamples: int = 2000,
    num_workers: int | None = None,
    on_run: Callable[[str, int, int], None] = lambda words, done, total: None,
) -> Comparison:
    """Train and test detectors on the same stored features, and compare them.

    Every detector gets the same: features, divisions, seeds, learning rates, and the epoch and the rate of the highest
    validation AUC of videos. Its threshold is that of equal errors on validation videos. Test videos choose nothing.
    What was done before is not done again: a comparison that was stopped goes on, and its files come out the same.

    Intervals are of 95%, by draws of test videos, or of recordings where they are known (``group``); differences are
    to the detector of the highest figure, on the same draws, with p-values corrected by Holm. Draws say nothing of
    other training videos: that is what the deviation over the seeds is for.

    Args:
        store: Features, of which each video has a label.
        output_dir: Folder of the comparison; what is there is not done again.
        detectors: Names, with options after colons, as `candidates` says; by default all that learn from labels.
        scenes: Compare within each of these scenes; ``("all",)`` or none: all videos together, ``("each",)``: within
            every scene of the store.
        seeds: One split each, or one set of folds.
        num_folds: Folds by recording of each seed; 0 for splits. By default 5 where the corpus knows recordings and
            fixes no split.
        rates: Learning rates that are tried; none for the recipe's own.
        profile: Recipe of training; ``"published"`` for that of each detector's own paper.
        settings: Settings of training that count before the recipe's (`TrainingConfig`).
        standardise: Give each channel mean 0 and deviation 1 over the training videos, for every detector
            ([`Standardised`]).
        num_resamples: Draws.
        num_workers: Processes that train at the same time; by default one a core, on a GPU one.
        on_run: Told in words which run has ended, how many are done, and their total.

    Raises:
        ValueError: For unknown detectors, options, scenes or recipes, a store that cannot be divided so, videos
            without label, or a folder that holds another comparison or is in use.
    """
    data = FeatureDataset(store)
    labels_of(data)
    if profile not in known_profiles():
        raise ValueError(f"profile must be one of {', '.join(known_profiles())}, got {profile!r}.")
    if num_resamples < 100:
        raise ValueError(f"num_resamples must be 100 or more, got {num_resamples}: limits of 95% need them.")
    if any(not rate > 0 for rate in rates):
        raise ValueError(f"rates must be above 0, got {', '.join(map(str, rates))}.")
    chosen = candidates(detectors, data)
    divided = divisions(data, seeds, num_folds)
    where = _scenes(scenes, data)
    contents = {scene: data_of(FeatureDataset(store, scene=scene)) for scene in where}
    runs = {
        (scene, one.name, division.name): Run(
            str(store),
            str(output_dir),
            scene,
            division,
            one,
            tuple(rates),
            profile,
            dict(settings or {}),
            contents[scene],
            standardise,
        )
        for scene in where
        for division in divided
        for one in chosen
    }
    for scene in where:  # before hours of training
        for division in divided:
            division.parts(str(store), scene)
    workers = num_workers or (1 if torch.cuda.is_available() else share_cores())
    with only_run(output_dir):
        done = [sum(run.record() is not None for run in runs.values())]

        def tell(run: Run) -> None:
            done[0] += 1
            on_run(run.words, done[0], len(runs))

        run_all(list(runs.values()), workers, tell)
        tables = [_table(scene, str(store), chosen, divided, runs, num_resamples) for scene in where]
        notes = _notes(data, next(iter(runs.values())), divided, num_resamples)
        found = Comparison(str(output_dir), tables, notes)
        _write(found)
    return found


def _scenes(asked: Sequence[str] | None, data: FeatureDataset) -> list[str | None]:
    known = sorted({row["scene"] for row in data.rows if row["scene"]})
    if not asked or list(asked) == ["all"]:
        return [None]
    if list(asked) == ["each"]:
        asked = known
    if unknown := [name for name in asked if name not in known]:
        raise ValueError(f"No scene {', '.join(unknown)}. Scenes: {', '.join(known) or 'none is named'}.")
    return list(dict.fromkeys(asked))


def _table(
    scene: str | None,
    store: str,
    chosen: Sequence[Candidate],
    divided: Sequence[Division],
    runs: dict[tuple[str | None, str, str], Run],
    num_resamples: int,
) -> SceneTable:
    corpus = Corpus(FeatureDataset(store, scene=scene))
    weights = draws(corpus.recordings, num_resamples).astype(float)
    found: dict[str, dict[str, Measured]] = {}
    records = {one.name: [runs[scene, one.name, division.name].record() for division in divided] for one in chosen}
    tests = {name: [Tested(corpus, record) for record in parts] for name, parts in records.items()}
    for name, parts in tests.items():
        by_seed: dict[int, list[Tested]] = {}
        for division, test in zip(divided, parts, strict=True):
            by_seed.setdefault(division.seed, []).append(test)
        figures = {figure: measured(list(by_seed.values()), figure, weights) for figure in FIGURES}
        found[name] = {figure: value for figure, value in figures.items() if value is not None}
    differences = {figure: _differences(found, figure) for figure in MAIN}
    rows = [
        Row(
            one,
            found[one.name],
            {figure: table[one.name] for figure, table in differences.items() if one.name in table},
            round(float(np.mean([record["parameters"] for record in records[one.name]]))),
            [record["rate"] for record in records[one.name]],
            sum(_seconds(runs[scene, one.name, division.name]) for division in divided),
        )
        for one in chosen
    ]
    rows.sort(key=lambda row: -row.figures["video_auc"].estimate.value)
    is_tested = np.any([test.is_tested for test in next(iter(tests.values()))], axis=0)
    return SceneTable(
        scene,
        int(is_tested.sum()),
        int(corpus.labels[is_tested].sum()),
        len({name for name, counts in zip(corpus.recordings, is_tested, strict=True) if counts}),
        rows,
        {name: _mean_curve(parts) for name, parts in tests.items()},
    )


def _differences(found: dict[str, dict[str, Measured]], figure: str) -> dict[str, Difference]:
    """For each detector but the best one."""
    known = {name: figures[figure].estimate for name, figures in found.items() if figure in figures}
    known = {name: estimate for name, estimate in known.items() if not np.isnan(estimate.value)}
    if not known:
        return {}
    best = max(known, key=lambda name: known[name].value)
    others = {name: estimate.minus(known[best]) for name, estimate in known.items() if name != best}
    corrected = holm([estimate.p_value for estimate in others.values()])
    return {name: Difference(one, p) for (name, one), p in zip(others.items(), corrected, strict=True)}


def _mean_curve(tests: Sequence[Tested]) -> tuple[np.ndarray, np.ndarray]:
    """Recall at each false alarm rate, the mean over divisions."""
    from avad_hf.metrics.ranking import Ranking

    at = np.linspace(0, 1, 201)
    curves = []
    for test in tests:
        units = test.of_videos
        if 0 < units.positive.sum() < len(units.positive):
            curve = Ranking(units.positive.astype(int), units.score).roc()
            curves.append(np.interp(at, curve.x, curve.y))
    return at, np.mean(curves, axis=0) if curves else np.full(len(at), np.nan)


def _seconds(run: Run) -> float:
    path = run.path.with_suffix(".seconds")
    return float(path.read_text()) if path.is_file() else float("nan")


def _notes(data: FeatureDataset, run: Run, divided: Sequence[Division], num_resamples: int) -> list[str]:
    """What was done, in sentences; of all `run` says the recipe and the rates."""
    seeds = sorted({division.seed for division in divided})
    folds = divided[0].num_folds
    how = f"{folds} folds by recording for each of" if folds else "a split for each of"
    recipe = "that of each detector's paper" if run.profile == PUBLISHED else f"the profile {run.profile}"
    recipe += "".join(f", {name} {value}" for name, value in run.settings.items())
    return [
        f"{how.capitalize()} the seeds {', '.join(map(str, seeds))}. Recipe: {recipe}"
        + (f"; learning rates {', '.join(f'{rate:g}' for rate in run.rates)}" if run.rates else "")
        + ". The epoch and the rate of the highest AUC of validation videos are kept, the threshold is that of equal "
        "errors on them. Test videos chose nothing.",
        "Each figure is the mean ± the sample standard deviation over the seeds, with the 95% interval of "
        f"{num_resamples:,} draws of test videos"
        + (", whole recordings at a time." if any(row.get("group") is not None for row in data.rows) else ".")
        + " p: of the difference to the best, two-sided, corrected by Holm.",
        *(
            ["Each channel of the features has mean 0 and deviation 1 over training videos."]
            if run.standardise
            else []
        ),
        *((data.recipe or {}).get("notices", ())),
    ]


def _as_dict(row: Row) -> dict[str, Any]:
    return {
        "name": row.candidate.name,
        "title": row.candidate.title,
        "parameters": row.parameters,
        "learning_rates": row.rates,
        "figures": {
            name: {
                "mean": one.estimate.value,
                "deviation": one.deviation,
                "interval_95": list(one.estimate.interval),
            }
            for name, one in row.figures.items()
        },
        "differences_to_best": {
            name: {
                "difference": one.estimate.value,
                "interval_95": list(one.estimate.interval),
                "p_holm": one.p_value,
            }
            for name, one in row.differences.items()
        },
    }


def _write(found: Comparison) -> None:
    from avad_hf.report.comparison import write_comparison_page

    folder = Path(found.output_dir)
    files = {
        COMPARISON: as_json(found.to_dict(), indent=2) + "\n",
        TABLES: found.markdown,
        SECONDS: seconds_of(found),
        FIGURES_CSV: csv_of(found),
    }
    with writing(folder, "The tables"):
        for name, content in files.items():
            write_text(folder / name, content)
        write_comparison_page(found.to_dict(), {table.scene: table.curves for table in found.tables}, folder / PAGE)


__all__ = ["Comparison", "compare"]
