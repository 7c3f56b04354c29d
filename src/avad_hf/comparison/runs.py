"""One run of a comparison: a detector is trained at each learning rate, and the chosen one scores the test videos."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForVideoClassification, PreTrainedModel

from avad_hf.disks import writing
from avad_hf.evaluation.scoring import one_row_a_video, score_clips
from avad_hf.features.changes import Standardised
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import recipe_sha256
from avad_hf.files import as_json, write_text
from avad_hf.media.clips import deciding_clips
from avad_hf.metrics.videos import video_score
from avad_hf.training.config import TrainingConfig, profiles
from avad_hf.training.fitting import fit
from avad_hf.training.loop import train
from avad_hf.training.objectives import ClipScores

from .candidates import Candidate
from .divisions import Division

# What names of files should not have.
PLAIN = str.maketrans("/:", "_+")
# Features of up to so many bytes stay in memory during a run, which reads them at every rate and epoch. Each of the
# processes has its own.
MOST_HELD_BYTES = 2**30
# The recipe of a detector's own paper, in place of a profile's name.
PUBLISHED = "published"


@dataclass(frozen=True)
class Run:
    """What is trained and tested.

    Args:
        store: Folder of the features.
        folder: Folder of the comparison.
        scene: Only the videos of this scene; ``None`` for all.
        division: Which videos are for what.
        candidate: The detector.
        rates: Learning rates that are tried; none for the recipe's own.
        profile: Recipe of training, or `PUBLISHED`.
        settings: Settings of training that count before the recipe's.
        data: SHA-256 of the videos and of how their features were made (`data_of`).
        standardise: Whether each channel gets mean 0 and deviation 1 over the training videos, for every detector.
    """

    store: str
    folder: str
    scene: str | None
    division: Division
    candidate: Candidate
    rates: tuple[float, ...] = ()
    profile: str = "few"
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    standardise: bool = False

    @classmethod
    def from_json(cls, text: str) -> "Run":
        """What `to_json` wrote."""
        parts = json.loads(text)
        parts |= {"division": Division(**parts["division"]), "candidate": Candidate(**parts["candidate"])}
        return cls(**parts | {"rates": tuple(parts["rates"])})

    def to_json(self) -> str:
        """The run on one line."""
        return as_json(asdict(self))

    @property
    def words(self) -> str:
        """The run in words."""
        return f"{self.scene or 'all videos'}, {self.division.name}, {self.candidate.title}"

    @property
    def path(self) -> Path:
        """The file of its record."""
        names = [self.scene or "all", self.candidate.name, self.division.name]
        return Path(self.folder, "runs", *(name.translate(PLAIN) for name in names)).with_suffix(".json")

    @property
    def asked(self) -> dict[str, Any]:
        """What the record depends on, wherever the folders are."""
        parts = json.loads(self.to_json())
        return {name: value for name, value in parts.items() if name not in ("store", "folder")}

    def record(self) -> dict[str, Any] | None:
        """What was found before; ``None`` if it was not run.

        Raises:
            ValueError: If the file is damaged, or of a run with other settings.
        """
        if not self.path.is_file():
            return None
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            before = found["asked"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is damaged ({error!r}). Delete it, and run the comparison again."
            ) from error
        if different := [name for name, value in self.asked.items() if before.get(name) != value]:
            said = "; ".join(f"{name}: {before.get(name)} there, {self.asked[name]} now" for name in different)
            raise ValueError(
                f"{self.path} is of another comparison ({said}). Give the same settings, or a new folder."
            )
        return found

    def run(self) -> None:
        """Do it, and write its record. What was trained before it was stopped is not trained again."""
        if self.record() is not None:
            return
        begin = time.monotonic()
        parts, place = self.division.parts(self.store, self.scene), self.path.with_suffix("")
        parts |= {name: _held(parts[name]) for name in ("train", "validation")}
        if self.standardise:
            change = Standardised.by(parts["train"])
            parts = {name: part.map(change) for name, part in parts.items()}
        found = self._fitted(place, parts) if self.candidate.is_fitted else self._searched(place, parts)
        found |= {"asked": self.asked, "videos": _tested(_loaded(found.pop("place")), parts["test"])}
        with writing(self.path, "The record of a run"):
            write_text(self.path, as_json(found) + "\n")
            write_text(self.path.with_suffix(".seconds"), f"{time.monotonic() - begin:.1f}\n")
        shutil.rmtree(place, ignore_errors=True)  # weights of a hundred runs would fill a disk

    def _searched(self, place: Path, parts: dict[str, FeatureDataset]) -> dict[str, Any]:
        """Train at each rate; that of the highest validation AUC is taken, of equal ones that of the lowest loss."""
        tried = []
        for rate in self.rates or (None,):
            config = self.config(place / f"rate-{rate}", rate)
            result = train(
                config,
                train_data=parts["train"],
                validation_data=parts["validation"],
                resume=True,
                progress=False,
                keep_states=False,
            )
            tried.append((config, result))

        def goodness(one: tuple[TrainingConfig, Any]) -> tuple[float, float]:
            figures = one[1].validation
            return figures["roc_auc"], -figures["loss"]

        config, result = max(tried, key=goodness)
        return {
            "place": config.output_dir,
            "threshold": result.threshold,
            "rate": config.learning_rate,
            "epoch": result.best_epoch,
            "validation": {str(one.learning_rate): other.validation["roc_auc"] for one, other in tried},
            "parameters": _parameters(_loaded(config.output_dir)),
        }

    def config(self, place: Path, rate: float | None) -> TrainingConfig:
        """Settings of one training. Every detector's epoch is chosen by the same figure, the validation AUC."""
        profile = self.candidate.architecture.profile if self.profile == PUBLISHED else self.profile
        own = {"data": self.store, "output_dir": str(place), "architecture": self.candidate.model_type}
        own |= {"scene": self.scene, "seed": self.division.training_seed, "best_by": "figure"}
        settings = self.settings | ({} if rate is None else {"learning_rate": rate})
        return TrainingConfig.from_profile(profile, **settings | own | {"model_options": self.candidate.options})

    def _fitted(self, place: Path, parts: dict[str, FeatureDataset]) -> dict[str, Any]:
        """Fit to the normal training videos; validation videos of both kinds give the threshold, as for the others."""
        shutil.rmtree(place, ignore_errors=True)  # what was stopped in between is not gone on with
        normal = parts["train"].where(lambda row: row["anomaly"] == 0)
        fit(normal, place, self.candidate.model_type, **self.candidate.options)
        model = _loaded(str(place))
        return {
            "place": str(place),
            "threshold": ClipScores().threshold(model, parts["validation"])["threshold"],
            "rate": None,
            "epoch": None,
            "validation": {},
            "parameters": _parameters(model),
        }


def data_of(features: FeatureDataset) -> str:
    """SHA-256 of videos, wherever they lie, and of how their features were made: other videos may have equal ids."""
    names = ("id", "label", "anomaly", "scene", "group", "duration", "num_clips", "frame_mask")
    rows = [[row.get(name) for name in names] for row in features.rows]
    content = as_json([rows, recipe_sha256(features.recipe) if features.recipe else None])
    return hashlib.sha256(content.encode()).hexdigest()


def _held(data: FeatureDataset) -> FeatureDataset:
    """The same videos, in memory if they are few."""
    files = [data.directory / row["file"] for row in data.rows]
    num_bytes = sum(file.stat().st_size for file in files if file.is_file())  # one that is missing is named when read
    return data.held() if num_bytes <= MOST_HELD_BYTES else data


def _loaded(place: str) -> PreTrainedModel:
    return AutoModelForVideoClassification.from_pretrained(place, trust_remote_code=False)


def _parameters(model: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _tested(model: PreTrainedModel, data: FeatureDataset) -> dict[str, Any]:
    """Score of each test video, and the scores of its clips."""
    rows, clips, _ = one_row_a_video(data.rows, score_clips(model, data))
    return {
        row["id"]: {
            "score": video_score(scores, decides=np.array(deciding_clips(times.tolist()))),
            "clips": scores.tolist(),
        }
        for row, (scores, times) in zip(rows, clips, strict=True)
    }


def run_all(runs: Sequence[Run], num_workers: int, on_run: Callable[[Run], None]) -> None:
    """Do what is not done yet, in this process or in several.

    Args:
        runs: The runs.
        num_workers: Processes. Each run has one thread on a CPU, so that its numbers depend on nothing else.
        on_run: Told of every run that ends.
    """
    missing = [run for run in runs if run.record() is None]
    if num_workers > 1 and len(missing) > 1:
        from .workers import run_in_processes

        run_in_processes(missing, min(num_workers, len(missing)), on_run)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for run in missing:
            run.run()
            on_run(run)
    finally:
        torch.set_num_threads(threads)


def known_profiles() -> list[str]:
    """Recipes that a comparison can use."""
    return [PUBLISHED, *profiles()]


__all__ = ["PUBLISHED", "Run", "data_of", "known_profiles", "run_all"]
