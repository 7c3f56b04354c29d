"""A study of real recordings: fights before surveillance cameras, by sight and sound. Its protocol is fixed here.

Data. Clips of about two seconds of the Surveillance Camera Fight Dataset, with a fight or without. Those that were cut
from one recording are one group. The clips nofi062 to nofi091 are left out: they are from two other data sets.

Features. Frozen encoders of the whole picture and of sound: I3D (Kinetics-400) and YAMNet (AudioSet), unless a
checkpoint is given.

Folds. Five times five folds by recording (`avad_hf.corpora.splits.grouped_folds`, seeds 0 to 4). Of the recordings
that a fold does not test, a quarter is held out for validation: it chooses the epoch and the threshold. Nothing is
chosen by the tested fifth.

Systems. AVACA with its three audio paths, and RTFM, all by the profile "few". References on the same folds: logistic
regression on mean features, trained on training and validation recordings together, its strength chosen by folds
within them; that a file has sound at all; AVACA that hears another clip's sound in place of each clip's own.

Figures. A clip's score is that of its highest part. ROC AUC within folds (a fight against a clip without one, scored
by the same detector) and over all folds at once; average precision over all folds; false alarms and fights found at
the stored threshold. Each is computed on all clips of a repeat and averaged over the repeats, with a 95% interval by
2,000 draws of recordings. What sound gives is told of the clips that are not silent: AVACA that hears against AVACA
that hears zeros, and against hearing another clip, on the same draws. A clip is silent if no sample of it reaches -60
dB of full scale.

What was chosen before. The size of the frames, the grid of the maps, the profile "few", that there is no batch norm,
that senses are scaled, and that the loss chooses the epoch: by folds within the recordings that fold 0 of seed 0 does
not test. Its tested recordings took no part (`HELD_BACK`), and their figures are given alone too.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import AutoModelForVideoClassification, ProcessorMixin

from avad_hf.corpora.splits import grouped_folds
from avad_hf.evaluation.scoring import score_clips
from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import as_json, write_text
from avad_hf.media.clips import deciding_clips
from avad_hf.media.sources import open_media
from avad_hf.metrics.videos import video_score
from avad_hf.processes import process_state
from avad_hf.training.config import TrainingConfig
from avad_hf.training.loop import train

from .protocol import Protocol, held, load, write_tables
from .recordings import Estimate, Repeat, draws, estimate
from .references import MeanRegression, mean_features

CORPUS = "cctv-fights"
SEEDS, NUM_FOLDS = (0, 1, 2, 3, 4), 5
# Seed and number of the fold whose tested recordings no choice has seen.
HELD_BACK = (0, 0)
# For every detector its architecture, and its settings besides.
DETECTORS: dict[str, dict[str, Any]] = {
    "AVACA, focused": {"architecture": "avaca", "options": {"audio_path": "focused"}},
    "AVACA, plain": {"architecture": "avaca", "options": {"audio_path": "plain"}},
    "AVACA, zeroed": {"architecture": "avaca", "options": {"audio_path": "zeroed"}},
    # Clips have two parts or three, which 32 segments would only repeat.
    "RTFM": {
        "architecture": "rtfm",
        "options": {"num_segments": 4, "num_selected": 2, "inputs": "both"},
    },
}
REGRESSIONS = {
    "logistic regression, seen": ("seen",),
    "logistic regression, heard": ("heard",),
    "logistic regression, seen and heard": ("seen", "heard"),
}
OTHERS_SOUND = "AVACA, focused, hearing another clip"
HAS_SOUND = "has sound"
# Samples of sound below this are silence: -60 dB of full scale.
SILENCE = 1e-3


class _OthersSound(FeatureDataset):
    """Videos that are heard with the sound of others.

    Args:
        features: The videos.
        order: For each, the number of the one whose sound it gets.
    """

    def __init__(self, features: FeatureDataset, order: Sequence[int]):
        self.__dict__.update(features.__dict__)
        self.order = order

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item, heard = super().__getitem__(index), super().__getitem__(self.order[index])["audio_features"]
        clips = [number % len(heard) for number in range(len(item["audio_features"]))]
        return item | {"audio_features": heard[clips]}


def others_sound(rows: Sequence[dict[str, Any]], is_loud: Sequence[bool], seed: int) -> list[int]:
    """For each video that is not silent, the number of another such one of another recording; its own for the rest."""
    rng = np.random.default_rng(seed)
    order = []
    for number, row in enumerate(rows):
        others = [
            other
            for other, (one, loud) in enumerate(zip(rows, is_loud, strict=True))
            if loud and one["group"] != row["group"]
        ]
        order.append(int(rng.choice(others)) if is_loud[number] and others else number)
    return order


def peaks(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Largest sample of each video's sound, by id; 0 without sound."""
    found = {}
    for row in rows:
        with open_media(row) as media:
            sound = media.sound(16000).read(media.info.duration or 0.0)
            found[row["id"]] = float(abs(sound).max()) if len(sound) else 0.0
    return found


class Study:
    """The study: every stage is done once, and kept in the folder.

    Args:
        protocol: The folder, seeds, settings, and who is told of the stages.
        features: Features of all clips.
        loudness: What `peaks` gives.
    """

    def __init__(self, protocol: Protocol, features: FeatureDataset, loudness: dict[str, float]):
        self.protocol = protocol
        self.features = features
        self.rows = features.rows
        self.is_loud = {name: peak >= SILENCE for name, peak in loudness.items()}
        self.labels = np.array([int(row["anomaly"]) for row in self.rows])
        self.folds = {seed: grouped_folds(self.rows, NUM_FOLDS, seed) for seed in protocol.seeds}

    def part(self, seed: int, fold: int, *names: str) -> FeatureDataset:
        """The videos of a fold that are for training, validation or test."""
        divided = self.folds[seed][fold]
        return self.features.where(lambda row: divided[row["id"]] in names)

    def detector(self, name: str) -> dict[str, list[Repeat]]:
        """Train a detector in every fold; its repeats, and those of it hearing others' sound."""
        kinds = {name: "scores"} | ({OTHERS_SOUND: "others_sound"} if name == "AVACA, focused" else {})
        return {
            called: [
                self._repeat(seed, lambda fold, s=seed, k=kind: self._run(name, s, fold)[k]) for seed in self.folds
            ]
            for called, kind in kinds.items()
        }

    def _repeat(self, seed: int, scored: Callable[[int], dict[str, list[float]]]) -> Repeat:
        """Scores and thresholds of all folds of a repeat, by id, in the order of the rows."""
        found: dict[str, list[float]] = {}
        for fold in range(NUM_FOLDS):
            found |= scored(fold)
        scores, thresholds = np.array([found[row["id"]] for row in self.rows]).T
        return self.repeat(seed, scores, scores >= thresholds)

    def repeat(self, seed: int, scores: np.ndarray, alarms: np.ndarray) -> Repeat:
        """What is known of all videos in a repeat."""
        folds = [
            next(number for number, fold in enumerate(self.folds[seed]) if fold[row["id"]] == "test")
            for row in self.rows
        ]
        return Repeat(self.labels, scores, alarms, np.array(folds))

    def _run(self, name: str, seed: int, fold: int) -> dict[str, Any]:
        """Score and threshold of each tested video, the same with others' sound, and the settings."""
        folder = self.protocol.output_dir / "runs" / name.replace(", ", "-").lower()
        finished = folder / f"seed{seed}-fold{fold}.json"
        settings = DETECTORS[name]
        place = folder / f"seed{seed}-fold{fold}"
        config = TrainingConfig.from_profile(
            self.protocol.profile,
            **self.protocol.settings
            | {
                "data": str(self.features.directory),
                "output_dir": str(place),
                "architecture": settings["architecture"],
            }
            | {"seed": NUM_FOLDS * seed + fold}
            | {"model_options": self.protocol.settings.get("model_options", {}) | settings["options"]},
        )
        if finished.is_file():
            found = json.loads(finished.read_text(encoding="utf-8"))
            if different := config.differences(found["config"]):
                raise ValueError(
                    f"{finished} is of another run:\n  "
                    + "\n  ".join(different)
                    + "\nGive the same settings, or a new folder."
                )
            return found
        self.protocol.on_stage(f"{name}, repeat {seed + 1}, fold {fold + 1}")
        trained = train(
            config,
            train_data=self.part(seed, fold, "train"),
            validation_data=self.part(seed, fold, "validation"),
            resume=True,
            progress=False,
        )
        model = AutoModelForVideoClassification.from_pretrained(place, trust_remote_code=False)
        tested = self.part(seed, fold, "test")
        order = others_sound(tested.rows, [self.is_loud[row["id"]] for row in tested.rows], seed)
        found: dict[str, Any] = {"config": config.to_dict()}
        for kind, data in (("scores", tested), ("others_sound", _OthersSound(tested, order))):
            found[kind] = {
                row["id"]: [
                    video_score(item["scores"], decides=np.array(deciding_clips(item["times"].tolist()))),
                    trained.threshold,
                ]
                for row, item in zip(tested.rows, score_clips(model, data), strict=True)
            }
        if process_state().is_main_process:
            write_text(finished, as_json(found))
            shutil.rmtree(place)  # 25 RTFMs have 2.5 GB
        process_state().wait_for_everyone()
        return found

    @cached_property
    def means(self) -> dict[str, np.ndarray]:
        """Mean features of all videos, read once."""
        return mean_features(self.features)

    def regression(self, senses: Sequence[str]) -> list[Repeat]:
        """Logistic regression on mean features, in every fold."""
        means = self.means
        numbers = {row["id"]: number for number, row in enumerate(self.rows)}

        def scored(seed: int, fold: int) -> dict[str, list[float]]:
            known, tested = self.part(seed, fold, "train", "validation").rows, self.part(seed, fold, "test").rows
            of = {
                part: {name: value[[numbers[row["id"]] for row in rows]] for name, value in means.items()}
                for part, rows in (("known", known), ("tested", tested))
            }
            model = MeanRegression(senses).fit(of["known"], known)
            scores = model.scores(of["tested"])
            return {row["id"]: [score, model.threshold] for row, score in zip(tested, scores, strict=True)}

        return [self._repeat(seed, lambda fold, s=seed: scored(s, fold)) for seed in self.folds]


FIGURES = {
    "ROC AUC within folds": Repeat.roc_auc,
    "over all folds": Repeat.pooled_roc_auc,
    "average precision": Repeat.average_precision,
    "false alarms": Repeat.false_alarms,
    "fights found": Repeat.found,
}


def main_table(systems: dict[str, list[Repeat]], weights: np.ndarray) -> str:
    """A row a system, a column a figure."""
    lines = [f"| system | {' | '.join(FIGURES)} |", "|---" * (1 + len(FIGURES)) + "|"]
    for name, repeats in systems.items():
        cells = [str(estimate(repeats, weights, statistic)) for statistic in FIGURES.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(systems: dict[str, list[Repeat]], weights: np.ndarray, is_loud: np.ndarray) -> str:
    """What is compared on the same draws: AVACA with the references, and with itself in other hearing."""

    def auc(name: str, counted: np.ndarray) -> Estimate:
        return estimate(systems[name], counted, Repeat.roc_auc)

    regressions = [name for name in REGRESSIONS if name in systems]
    best = max(regressions, key=lambda name: auc(name, weights).value)
    loud = weights * is_loud
    pairs = [
        ("all clips", weights, "AVACA, focused", best),
        ("all clips", weights, "AVACA, zeroed", "logistic regression, seen"),
        ("clips that are not silent", loud, "AVACA, focused", "AVACA, zeroed"),
        ("clips that are not silent", loud, "AVACA, focused", OTHERS_SOUND),
        ("clips that are not silent", loud, "logistic regression, seen and heard", "logistic regression, seen"),
    ]
    lines = ["| videos | AUC of | minus AUC of | difference |", "|---|---|---|---|"]
    for what, counted, one, other in pairs:
        lines.append(f"| {what} | {one} | {other} | {auc(one, counted).minus(auc(other, counted))} |")
    return "\n".join(lines)


@held
def reproduce_cctv_fights(
    processor: ProcessorMixin,
    output_dir: str | os.PathLike,
    *,
    data_dir: str | os.PathLike | None = None,
    profile: str | None = None,
    seeds: Sequence[int] = SEEDS,
    settings: dict[str, Any] | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> str:
    """Run the study of this module, and write its tables.

    Args:
        processor: Makes the features: frozen encoders, on their device.
        output_dir: Folder of all stages and of ``tables.md``.
        data_dir: A checkout of fight-detection-surv-dataset, or a manifest with the column ``group``.
        profile: Training profile; ``"few"`` by default.
        seeds: Seeds of the repeats.
        settings: Training settings, which count before the profiles'.
        on_stage: Told in words what is done next.

    Returns:
        The tables as Markdown.

    Raises:
        ValueError: For videos that cannot be read, or a folder that holds other runs, or that another process is
            writing.
        ImportError: Without scikit-learn.
    """
    protocol = Protocol(Path(output_dir), profile or "few", dict(settings or {}), seeds, on_stage)
    data = load(CORPUS, data_dir=data_dir)
    store = protocol.features(CORPUS, data, processor)
    corpus = [row for part in data.values() for row in part]
    features = FeatureDataset(store)
    known = {row["id"] for row in corpus}
    study = Study(protocol, features.where(lambda row: row["id"] in known), _loudness(protocol, corpus))

    systems: dict[str, list[Repeat]] = {}
    for name, senses in REGRESSIONS.items():
        on_stage(name)
        systems[name] = study.regression(senses)
    sounding = np.array([float(row["has_audio"]) for row in study.rows])
    systems[HAS_SOUND] = [study.repeat(seed, sounding, sounding > 0) for seed in seeds]
    for name in DETECTORS:
        systems |= study.detector(name)

    recordings = [row["group"] for row in study.rows]
    weights = draws(recordings)
    is_loud = np.array([study.is_loud[row["id"]] for row in study.rows])
    held_back = grouped_folds(study.rows, NUM_FOLDS, HELD_BACK[0])[HELD_BACK[1]]
    untouched = np.array([held_back[row["id"]] == "test" for row in study.rows])
    counts = (
        f"{len(study.rows)} clips of {len(set(recordings))} recordings: {study.labels.sum()} with a fight, "
        f"{(1 - study.labels).sum()} without; {int(sounding.sum())} have a sound stream, of which {is_loud.sum()} are "
        "not silent."
    )
    parts = [
        "# Fights before surveillance cameras: real recordings",
        counts + f" {len(seeds)} times {NUM_FOLDS} folds by recording. Mean over the repeats, and 95% intervals by "
        "draws of recordings. The protocol is that of `avad_hf/reproduce/cctv_fights.py`.",
        main_table(systems, weights),
        "Differences of ROC AUC within folds, on the same draws:\n\n" + differences(systems, weights, is_loud),
        f"The {len(set(np.array(recordings)[untouched]))} recordings ({untouched.sum()} clips) that no choice has "
        "seen, alone:\n\n" + main_table(systems, weights * untouched),
        "What this does not say: the clips show fights or none, last two seconds, are from few recordings, and say "
        "nothing of where in time an event is. Many carry edited-in music.",
        *processor.notices,
    ]
    return write_tables(protocol, parts)


def _loudness(protocol: Protocol, corpus: Sequence[dict[str, Any]]) -> dict[str, float]:
    """`peaks` of the corpus, from the folder if they are there."""
    path = protocol.output_dir / "peaks.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.keys() == {row["id"] for row in corpus}:
            return found
    protocol.on_stage("loudness of the sound")
    found = peaks(corpus)
    if process_state().is_main_process:
        write_text(path, as_json(found))
    return found


__all__ = ["reproduce_cctv_fights"]
