"""The steps from a folder of videos to a detector; each is skipped where its result is there."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor, PreTrainedModel, ProcessorMixin

from avad_hf.corpora.loading import load_dataset
from avad_hf.corpora.manifest import ManifestError, read_manifest, write_manifest
from avad_hf.corpora.scan import list_videos, probe, scan
from avad_hf.corpora.splits import with_split_columns
from avad_hf.evaluation.calibrate import calibrate
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.extraction import extract_features
from avad_hf.hub.folders import write_checkpoint
from avad_hf.metrics.alarms import hours_needed, is_enough
from avad_hf.registration import DESCRIBERS, architectures
from avad_hf.training.config import TrainingConfig
from avad_hf.training.fitting import fit
from avad_hf.training.loop import train
from avad_hf.untrained import init

from .ranking import features_processor

# What the folder of a job holds, beside the settings.
MANIFEST, ENCODERS, FEATURES, MODEL, REPORT = "manifest.csv", "encoders", "features", "model", "report.html"
FILES = (MANIFEST, ENCODERS, FEATURES, MODEL, REPORT, "metrics.json", "scores.jsonl")
STEPS = ("scan", "encoders", "features", "model", "threshold", "report")
# The recipe of training for the few videos that people label by hand.
PROFILE = "few"


@dataclass
class Job:
    """What the steps work on, and what they have done.

    Args:
        directory: Where results go.
        on_stage: Told in words what is done next.
        on_progress: Called with the number of videos that are done and their total.
        steps: What was done in each step, in words.
        notes: What one must know of the result.
        failed: ``id`` and ``error`` of each video that could not be read.
    """

    directory: Path
    on_stage: Callable[[str], None]
    on_progress: Callable[[int, int], None] | None
    steps: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)

    def begin(self, step: str, words: str) -> None:
        """Name a step, and say what it does."""
        self.steps[step] = words
        self.on_stage(f"step {STEPS.index(step) + 1} of {len(STEPS)}, {step}: {words}")

    def path(self, name: str) -> Path:
        """Where a result is."""
        return self.directory / name

    def has_model(self) -> bool:
        """Whether the detector is there."""
        return (self.path(MODEL) / "config.json").is_file()


def list_rows(
    job: Job, folder: Path, normal: Sequence[str] | None, all_normal: bool, by: str | None, fps: float | None
) -> list[dict[str, Any]]:
    """Rows of the manifest, which is written if it is not there; people may have corrected it by hand."""
    path = job.path(MANIFEST)
    if path.is_file():
        rows = read_manifest(path)
        job.begin("scan", f"{MANIFEST} is there, with {len(rows)} videos")
        known = {row["video"] for row in rows}
        if new := [row["id"] for row in list_videos(folder).rows if row["video"] not in known]:
            job.notes.append(
                f"{len(new)} videos of {folder} are not in {MANIFEST}, first {new[0]}. If they are new, delete "
                f"{MANIFEST}, {MODEL} and {REPORT} in {job.directory}, and run again: their features are added."
            )
        return rows
    job.begin("scan", f"looking for videos in {folder}")
    try:
        found = list_videos(folder, fps) if all_normal else scan(folder, normal=normal, fps=fps)
    except ManifestError as error:
        error.add_note("If no folder names a class, and all is normal footage, say so: --all-normal.")
        raise
    total, move = len(found.rows), job.on_progress
    found = probe(found, None if move is None else lambda number: move(number, total))
    job.failed += [{"id": video, "error": reason} for video, reason in found.unreadable]
    if not found.rows:
        raise ValueError(f"None of the {total} videos in {folder} can be read, first: {job.failed[0]['error']}")
    rows = found.rows
    if all_normal:
        # The first folders are the cameras, where there are some.
        scenes = [Path(row["id"]).parts[0] if by == "scene" and "/" in row["id"] else None for row in rows]
        rows = [
            row | {"label": "normal", "anomaly": 0, "scene": scene} for row, scene in zip(rows, scenes, strict=True)
        ]
    write_manifest(with_split_columns(rows), path)
    job.steps["scan"] = f"wrote {MANIFEST}: {len(rows)} videos, {found.layout}"
    return read_manifest(path)


def get_processor(job: Job, model: Any, video_encoder: Any, audio_encoder: Any, learns: bool) -> ProcessorMixin:
    """What computes the features: of a checkpoint, or of encoders, which are kept beside the results.

    Args:
        job: The job.
        model: The checkpoint, if there is one.
        video_encoder: Name, folder or Hub id of an encoder; the describing one by default.
        audio_encoder: Likewise.
        learns: Whether a detector is trained: the encoders are then kept with an untrained one to begin with.
    """
    if model is not None:
        # Without its path, which is nobody else's business: the report may be handed on.
        job.begin("encoders", f"those of {Path(model).resolve().name if os.path.isdir(model) else model}")
        if learns:
            _refuse_untrainable(model)
        return features_processor(model)
    place = job.path(ENCODERS)
    if not (place / ("config.json" if learns else "processor_config.json")).is_file():

        def tell(words: str) -> None:
            job.begin("encoders", words)

        tell("getting them")
        if learns:
            given = {"video_encoder": video_encoder, "audio_encoder": audio_encoder}
            encoders = {role: one or DESCRIBERS[role] for role, one in given.items()}
            init(trainable()[0], place, on_stage=tell, **encoders)
        else:
            processor = features_processor(None, video_encoder, audio_encoder, tell, tells_places=True)
            write_checkpoint(place, [processor], "The encoders of a detector.\n")
    job.begin("encoders", f"those in {ENCODERS}")
    return AutoProcessor.from_pretrained(place, trust_remote_code=False)


def trainable() -> list[str]:
    """Architectures that learn scores of clips from features and labels, by their model types."""
    found = []
    for name, one in architectures("profiles").items():
        spec = one.load("config")().detector_spec
        if one.init is not None and spec.reads == "features" and spec.objective == "clips":
            found.append(name)
    return found


def _refuse_untrainable(model: Any) -> None:
    model_type, known = AutoConfig.from_pretrained(model, trust_remote_code=False).model_type, trainable()
    if model_type not in known:
        raise ValueError(
            f"The videos have labels, normal and anomalous, and {model} is a checkpoint of type '{model_type}', which "
            f"does not learn from them here. Give one of type {', '.join(known)}; or name a method, to fit a detector "
            "to the normal videos alone."
        )


def compute_features(
    job: Job, rows: Sequence[dict[str, Any]], processor: ProcessorMixin, batch_size: int | None
) -> FeatureDataset:
    """The stored features of the manifest's videos."""
    job.begin("features", f"computing those of {len(rows)} videos")
    dataset = load_dataset("manifest", data_dir=job.path(MANIFEST))
    done = extract_features(
        dataset, processor, job.path(FEATURES), clips_per_batch=batch_size, on_progress=job.on_progress
    )
    listed = {row["id"] for row in rows}
    failed = [failure for failure in done.failed if failure["id"] in listed]
    job.failed += failed
    if len(failed) == len(rows):
        raise ValueError(f"None of the {len(rows)} videos can be read, first: {failed[0]['error']}")
    job.steps["features"] = f"{len(rows) - len(failed)} videos, {done.num_new} of them new"
    return FeatureDataset(job.path(FEATURES)).where(lambda row: row["id"] in listed)


def divide(job: Job, features: FeatureDataset, alarms_per_day: float) -> tuple[FeatureDataset, FeatureDataset | None]:
    """What a detector of normality is fitted to, and what its threshold is found on, which it must not know.

    Of normal footage alone, all is for the fit where the rest could not support the rate.
    """
    training = features.where(lambda row: row["split"] == "train")
    if any(row["anomaly"] == 1 for row in features.rows):
        return training, features.where(lambda row: row["split"] == "validation" and row["anomaly"] == 0)
    rest = features.where(lambda row: row["split"] != "train")
    hours, needed = _hours(rest), hours_needed(alarms_per_day)
    if is_enough(hours, alarms_per_day):
        return training, rest
    alarms = f"{alarms_per_day:g} alarm{'' if alarms_per_day == 1 else 's'} a day"
    job.notes.append(
        f"The threshold promises no rate of alarms: {alarms} takes {needed:.4g} hours of normal footage that the "
        f"detector does not know. {hours:.3g} of these {_hours(features):.3g} hours could be kept apart for that, so "
        f"{needed - hours:.4g} hours are missing. The detector is fitted to all footage. Add some, or allow more "
        "alarms."
    )
    return features, None


def _hours(features: FeatureDataset) -> float:
    return sum(row["duration"] for row in features.rows) / 3600


def train_model(job: Job, start: Any, options: dict[str, Any]) -> bool:
    """Train a detector on labels; returns whether it is new."""
    is_new = not job.has_model()
    job.begin("model", f"training on labels, by the profile {PROFILE}")
    places = {"data": job.path(FEATURES), "output_dir": job.path(MODEL), "model": start}
    places = {name: os.fspath(place) for name, place in places.items()}
    try:
        result = train(TrainingConfig.from_profile(PROFILE, **places, model_options=options), resume=True)
    except ValueError as error:
        error.add_note(
            f"Here the videos of each set are those of the columns split or split_0 of {job.path(MANIFEST)}: correct "
            "them, or add videos. Or name a method (--method), to fit a detector to the normal videos alone."
        )
        raise
    figure = f"validation {result.figure_name} {result.validation[result.figure]:.3f}"
    job.steps["model"] = f"trained on labels, epoch {result.best_epoch} of {result.epochs}, {figure}"
    job.notes += result.warnings
    return is_new


def fit_model(job: Job, features: FeatureDataset, start: Any, options: dict[str, Any]) -> bool:
    """Fit a detector of normality; returns whether it is new."""
    if job.has_model():
        job.begin("model", f"{MODEL} is there")
        return False
    job.begin("model", f"fitting to {len(features)} normal videos")
    processor = os.fspath(start)
    result = fit(
        features, job.path(MODEL), processor=processor, on_stage=job.on_stage, on_progress=job.on_progress, **options
    )
    job.steps["model"] = (
        f"fitted to {result.num_kept:,} of {result.num_clips:,} normal clips, {result.hours:.3g} hours"
    )
    job.notes += result.notes
    return True


def set_threshold(job: Job, detector: PreTrainedModel, held_out: FeatureDataset | None, alarms_per_day: float) -> bool:
    """Set the threshold to a rate of alarms as far as footage supports it; returns whether it is new."""
    is_new = False
    if detector.config.alarms is not None:
        job.begin("threshold", "calibrated before")
    elif held_out is None or not len(held_out):
        job.begin("threshold", "too little normal footage for a rate of alarms")
    else:
        job.begin("threshold", f"looking for the one that gives {alarms_per_day:g} alarms a day")
        try:
            calibration = calibrate(detector, held_out, alarms_per_day=alarms_per_day, on_progress=job.on_progress)
        except ValueError as error:  # what is missing, in words
            job.notes.append(f"The threshold promises no rate of alarms: {error}")
        else:
            calibration.save(job.path(MODEL))
            job.notes += calibration.notes
            detector.config, is_new = AutoConfig.from_pretrained(job.path(MODEL), trust_remote_code=False), True
    job.steps["threshold"] = f"{detector.config.threshold:.4f}, {detector.config.threshold_origin or 'not tuned'}"
    return is_new
