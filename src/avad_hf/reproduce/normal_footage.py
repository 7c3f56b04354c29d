"""What detectors of normality can do: a study of real recordings, and of drawn streets. Its protocol is fixed here.

Real recordings. The clips of `avad_hf.reproduce.cctv_fights`, with the same features; those without a fight count as
normal. The recordings are cut into two halves by the hash of their names. On the first half the features are chosen,
once for each of the two questions; every figure is of the other half.

Across cameras: can a camera be judged that the detector knows nothing of? Five folds by recording (two seeds): it is
fitted to the normal clips of the other recordings of the half, without anything relative to a camera.

Within cameras: can a camera be judged of which normal clips are known? Of each recording with two normal clips or
more these are dealt out to three parts (two seeds). Each part is tested together with the recording's fights by a
detector that is fitted to all other normal clips of the half, relative to the mean of each recording (``by="group"``).

By sight alone: of the normal clips that a detector is fitted to fewer than 50 have sound, which is too few.

Methods. Those that take no training (`METHODS`): of about 70 clips a network learns little, and slowly.

What is chosen. The parts of the picture (`FEATURES`), by the mean AUC of sight over the methods, on the first half.
Everything else is as it is by default.

Drawn streets. Videos of the crossing of two worlds, with I3D and YAMNet, or the encoders of a checkpoint: fitted to
the normal videos of one world, tested on all videos of the other. Beside them AVACA, trained by the profile "default"
on all videos of the first world with their labels, a fifth of them for validation.

Figures. A video's score is that of its highest clip. ROC AUC of videos: across cameras within folds, within cameras
among the videos of one recording alone; of drawn streets each sense alone too. Intervals of 95% by
2,000 draws of recordings; of drawn streets, of videos.
"""

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForVideoClassification, ProcessorMixin

from avad_hf.corpora.splits import grouped_folds
from avad_hf.evaluation.scoring import score_clips
from avad_hf.features.dataset import FeatureDataset
from avad_hf.media.clips import deciding_clips
from avad_hf.metrics.videos import video_score
from avad_hf.registration import architectures
from avad_hf.training.config import TrainingConfig
from avad_hf.training.fitting import fit
from avad_hf.training.loop import train

from .protocol import Protocol, held, load, write_tables
from .reasons import SCENE, reasons
from .recordings import Repeat, draws, estimate

REAL = "cctv-fights"
SEEDS = (0, 1)
METHODS = ("gaussian", "knn")
NUM_FOLDS, NUM_PARTS = 5, 3
# What of the picture clips may be compared by.
FEATURES = (("mean",), ("mean", "spread"), ("mean", "change"), ("mean", "spread", "change"), ("change",))
SENSES = {"sight": "visual", "sound": "audio", "both": "both"}
# Worlds that neither the demonstration model nor its encoders were trained on.
FITTED_WORLD, TESTED_WORLD = 905, 906


def halves(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The clips of the recordings that features are chosen on, and those of the others, which are reported."""
    names = sorted({row["group"] for row in rows}, key=lambda name: hashlib.sha256(name.encode()).digest())
    first = set(names[: len(names) // 2])
    return [row for row in rows if row["group"] in first], [row for row in rows if row["group"] not in first]


def across(rows: Sequence[dict[str, Any]], seed: int) -> Iterator[tuple[set[str], set[str]]]:
    """Folds by recording: ids of the normal clips that a detector is fitted to, and of all clips that are tested."""
    for fold in grouped_folds(rows, NUM_FOLDS, seed):
        known = {row["id"] for row in rows if fold[row["id"]] != "test" and not row["anomaly"]}
        yield known, {row["id"] for row in rows if fold[row["id"]] == "test"}


def within(rows: Sequence[dict[str, Any]], seed: int) -> Iterator[tuple[set[str], set[str]]]:
    """Parts of the normal clips of each recording, as `across`; a recording's fights are tested with each part."""
    normal, fights = defaultdict(list), defaultdict(list)
    for row in rows:
        (fights if row["anomaly"] else normal)[row["group"]].append(row["id"])
    rng = np.random.default_rng(seed)
    part_of = {}
    for group in sorted(normal):
        if len(normal[group]) >= 2 and fights[group]:
            for number, name in enumerate(rng.permutation(sorted(normal[group]))):
                part_of[str(name)] = number % min(NUM_PARTS, len(normal[group]))
    everything = {name for names in normal.values() for name in names}
    group_of = {row["id"]: row["group"] for row in rows}
    for part in range(NUM_PARTS):
        tested = {name for name, number in part_of.items() if number == part}
        groups = {group_of[name] for name in tested}
        yield everything - tested, tested | {name for group in groups for name in fights[group]}


@dataclass
class Question:
    """A question that is asked of real recordings.

    Args:
        title: In words.
        parts: `across` or `within`.
        by: What features are relative to, `avad_hf.fit` says how.
    """

    title: str
    parts: Callable[[Sequence[dict[str, Any]], int], Iterator[tuple[set[str], set[str]]]]
    by: str | None


QUESTIONS = (Question("Across cameras", across, None), Question("Within cameras", within, "group"))


class Study:
    """Detectors that are fitted again and again, and what they score.

    Args:
        features: Features of all clips.
        work: Folder for checkpoints, which are removed.
    """

    def __init__(self, features: FeatureDataset, work: Path):
        self.features, self.work = features, work

    def scores(self, method: str, known: set[str], tested: set[str], **options: Any) -> dict[str, float]:
        """Scores of the tested videos by a detector that is fitted to the known ones, by id."""
        place = self.work / "detector"
        shutil.rmtree(place, ignore_errors=True)
        fit(self.features.where(lambda row: row["id"] in known), place, method, **options)
        model = AutoModelForVideoClassification.from_pretrained(place)
        data = self.features.where(lambda row: row["id"] in tested)
        scored = score_clips(model, data)
        shutil.rmtree(place)
        return {
            row["id"]: video_score(item["scores"], decides=np.array(deciding_clips(item["times"].tolist())))
            for row, item in zip(data.rows, scored, strict=True)
        }

    def answer(
        self, question: Question, rows: Sequence[dict[str, Any]], method: str, seeds: Sequence[int], **options: Any
    ) -> list[tuple[Repeat, list[str]]]:
        """For each seed the tested clips with their scores, and the recording of each.

        Pairs that are compared are those of one fold, or of one recording and part.
        """
        by_id = {row["id"]: row for row in rows}
        repeats = []
        for seed in seeds:
            found = []
            for number, (known, tested) in enumerate(question.parts(rows, seed)):
                for name, score in self.scores(method, known, tested, by=question.by, **options).items():
                    group = by_id[name]["group"]
                    fold = f"{number}" if question.by is None else f"{number} {group}"
                    found.append((by_id[name]["anomaly"], score, fold, group))
            labels, scores, folds, groups = zip(*found, strict=True)
            _, folds = np.unique(folds, return_inverse=True)
            labels, scores = np.array(labels, dtype=int), np.array(scores)
            repeats.append((Repeat(labels, scores, scores >= 0.75, folds), list(groups)))
        return repeats


def auc_of(repeats: Sequence[tuple[Repeat, list[str]]]) -> str:
    """ROC AUC within folds, with its interval by draws of recordings."""
    by_seed = [str_of(repeat, groups) for repeat, groups in repeats]
    value = float(np.mean([one.value for one in by_seed]))
    values = np.mean([one.values for one in by_seed], axis=0)
    low, high = np.nanquantile(values, (0.025, 0.975))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def str_of(repeat: Repeat, groups: Sequence[str]):
    """The AUC of one repeat; all repeats have the same recordings, and so the same draws."""
    return estimate([repeat], draws(groups), Repeat.roc_auc)


def choose(study: Study, question: Question, rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> tuple[str, ...]:
    """The features with the highest mean AUC of sight."""
    found = {}
    for parts in FEATURES:
        values = []
        for method in METHODS:
            for repeat, _ in study.answer(question, rows, method, seeds, inputs="visual", visual_parts=parts):
                values.append(repeat.roc_auc(np.ones(len(repeat.labels))))
        found[parts] = float(np.mean(values))
    return max(FEATURES, key=found.__getitem__)


@held
def reproduce_real(
    processor: ProcessorMixin,
    output_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    profile: str | None = None,
    seeds: Sequence[int] = SEEDS,
    settings: dict[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> str:
    """Run the study of real recordings, and write its tables.

    Args:
        processor: Makes the features: frozen encoders, on their device.
        output_dir: Folder of the features and of ``tables.md``.
        data_dir: A checkout of fight-detection-surv-dataset, or a manifest with the column ``group``.
        profile: Not used: nothing is trained by a profile.
        seeds: Seeds of folds and parts.
        settings: Fields of the detectors' configs.
        on_stage: Told in words what is done next.

    Returns:
        The tables as Markdown.
    """
    protocol = Protocol(Path(output_dir), "", dict(settings or {}), seeds, on_stage)
    store = protocol.features(REAL, load(REAL, data_dir=data_dir), processor)
    study = Study(FeatureDataset(store), protocol.output_dir)
    chosen_on, reported = halves(study.features.rows)
    texts = [
        f"# Normal footage alone: {len(reported)} real clips of {len({row['group'] for row in reported})} recordings"
    ]
    for question in QUESTIONS:
        on_stage(f"{question.title.lower()}: choosing features")
        parts = choose(study, question, chosen_on, seeds)
        lines = ["| method | AUC |", "|---|---|"]
        counted = []
        for method in METHODS:
            title = architectures("fit")[method].title
            on_stage(f"{question.title.lower()}: {title}")
            answer = study.answer(question, reported, method, seeds, inputs="visual", visual_parts=parts)
            counted = [repeat.labels for repeat, _ in answer]
            lines.append(f"| {title} | {auc_of(answer)} |")
        caption = (
            f"{question.title}: AUC, with 95% intervals by draws of recordings, of {int(counted[0].sum())} tests of "
            f"fights and {int((1 - counted[0]).sum())} of normal clips a seed, {len(seeds)} seeds. Of the picture: "
            f"{', '.join(parts)}, chosen on the other {len({row['group'] for row in chosen_on})} recordings."
        )
        texts += [caption, "\n".join(lines)]
    return write_tables(protocol, texts)


@held
def reproduce_drawn(
    processor: ProcessorMixin,
    output_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    profile: str | None = None,
    num_videos: int = 40,
    seeds: Sequence[int] = (0,),
    settings: dict[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> str:
    """Run the study of drawn streets, and write its table; arguments as of `reproduce_real`.

    Args:
        processor: Makes the features.
        output_dir: Folder of all stages.
        data_dir: Where videos are drawn; in the output folder by default.
        profile: Training profile of AVACA; ``"default"`` if not given.
        num_videos: Videos of each scene and world.
        seeds: Seed of AVACA's split and weights; the first one counts.
        settings: Training settings of AVACA.
        on_stage: Told in words what is done next.
    """
    protocol = Protocol(Path(output_dir), profile or "default", dict(settings or {}), seeds, on_stage)
    place = Path(data_dir) if data_dir is not None else protocol.output_dir / "videos"
    stores = {}
    for world in (FITTED_WORLD, TESTED_WORLD):
        rows = load("synthetic", SCENE, data_dir=place / str(world), num_videos=num_videos, world_seed=world)
        stores[world] = protocol.features(f"world-{world}", rows, processor)
    known, tested = FeatureDataset(stores[FITTED_WORLD]), FeatureDataset(stores[TESTED_WORLD])
    systems: dict[str, list[float]] = {}
    for method, one in architectures("fit").items():
        for words, inputs in SENSES.items():
            on_stage(f"{one.title}, {words}")
            name = one.title if inputs == "both" else f"{one.title}, {words} alone"
            systems[name] = _drawn_scores(protocol, known, tested, method, inputs)
    on_stage("AVACA, with labels")
    systems["AVACA, with labels"] = _with_labels(protocol, stores[FITTED_WORLD], tested, seeds[0])
    labels = np.array([int(row["anomaly"]) for row in tested.rows])
    weights = draws([row["id"] for row in tested.rows])
    lines = ["| system | AUC |", "|---|---|"]
    for name, scores in systems.items():
        repeat = Repeat(labels, np.array(scores), np.array(scores) >= 0.5, np.zeros(len(labels), dtype=int))
        lines.append(f"| {name} | {estimate([repeat], weights, Repeat.roc_auc)} |")
    normal = sum(row["anomaly"] == 0 for row in known.rows)
    on_stage("reasons")
    place = protocol.output_dir / "detector"
    fit(known.where(lambda row: not row["anomaly"]), place)
    reasons_table = reasons(place, processor, num_videos, TESTED_WORLD, on_stage)
    shutil.rmtree(place)
    texts = [
        "# Normal footage alone: drawn streets (synthetic)",
        f"AUC of {len(labels)} drawn videos ({labels.sum()} anomalous), with 95% intervals by draws of videos. "
        f"Detectors of normality are fitted to {normal} normal videos of another world; AVACA is "
        f"trained on all {len(known.rows)} videos of that world, with labels.",
        "\n".join(lines),
        f"Reasons at the {SCENE}, by nearest neighbours (the protocol is that of `avad_hf/reproduce/reasons.py`):",
        reasons_table,
        *processor.notices,
    ]
    return write_tables(protocol, texts)


def _drawn_scores(
    protocol: Protocol, known: FeatureDataset, tested: FeatureDataset, method: str, inputs: str
) -> list[float]:
    """Scores of all tested videos."""
    study = Study(_together(known, tested), protocol.output_dir)
    rows = study.features.rows
    normal = {row["id"] for row in rows if row["id"].startswith("known") and not row["anomaly"]}
    others = {row["id"] for row in rows if row["id"].startswith("tested")}
    found = study.scores(method, normal, others, inputs=inputs)
    return [found[f"tested {row['id']}"] for row in tested.rows]


def _together(known: FeatureDataset, tested: FeatureDataset) -> FeatureDataset:
    """The videos of two stores, which have the same names, in one."""
    both = known.where(lambda row: True)
    both.rows = []
    for name, data in (("known", known), ("tested", tested)):
        both.rows += [row | {"id": f"{name} {row['id']}", "store": data} for row in data.rows]
    both._load = lambda row: row["store"]._load(row)
    return both


def _with_labels(protocol: Protocol, store: Path, tested: FeatureDataset, seed: int) -> list[float]:
    """Scores of all tested videos by AVACA."""
    place = protocol.output_dir / "avaca"
    config = TrainingConfig.from_profile(
        protocol.profile,
        **protocol.settings | {"data": str(store), "output_dir": str(place), "architecture": "avaca", "seed": seed},
    )
    data = FeatureDataset(store)
    fold = grouped_folds(data.rows, NUM_FOLDS, seed)[0]
    train(
        config,
        train_data=data.where(lambda row: fold[row["id"]] != "test"),
        validation_data=data.where(lambda row: fold[row["id"]] == "test"),
        resume=True,
        progress=False,
    )
    model = AutoModelForVideoClassification.from_pretrained(place)
    return [
        video_score(item["scores"], decides=np.array(deciding_clips(item["times"].tolist())))
        for item in score_clips(model, tested)
    ]


__all__ = ["reproduce_drawn", "reproduce_real"]
