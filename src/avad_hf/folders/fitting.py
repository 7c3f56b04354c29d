"""`fit_folder`: one call from a folder of videos to a detector with its threshold and a report."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForVideoClassification, PreTrainedModel, ProcessorMixin

from avad_hf.evaluation.evaluate import evaluate
from avad_hf.evaluation.ranked import rank_footage
from avad_hf.features.dataset import FeatureDataset
from avad_hf.metrics.alarms import check_rate
from avad_hf.models.detector import spec_of
from avad_hf.report.fitted import write_fit_report
from avad_hf.report.page import write_report
from avad_hf.runs import only_run

from .ranking import ranking_settings
from .settings import keep_settings, refuse_other_settings
from .steps import (
    ENCODERS,
    FILES,
    MANIFEST,
    MODEL,
    REPORT,
    Job,
    compute_features,
    divide,
    fit_model,
    get_processor,
    list_rows,
    set_threshold,
    train_model,
)

# Stretches that a person is asked to look at: nothing among them should be an anomaly.
MOST_SHOWN = 8
AGAIN = (
    "To use its features again with other settings, delete settings.toml, model and report.html in it, and "
    "manifest.csv too if the videos are others."
)


@dataclass(frozen=True)
class FolderFit:
    """What [`fit_folder`] did.

    Args:
        directory: Folder of the job.
        model: The checkpoint: ``avad-hf detect --model`` takes it.
        report: The page.
        steps: What was done in each step, in words, by its name.
        threshold: Score from which on a clip is anomalous.
        threshold_origin: How it was found.
        alarms: What the calibration found; ``None`` where the footage does not support the rate.
        video: Figures of the test videos, as of [`~avad_hf.Evaluation`]; ``None`` without labels of both kinds.
        notes: What one must know.
        failed: ``id`` and ``error`` of each video that could not be read.
    """

    directory: Path
    model: Path
    report: Path
    steps: dict[str, str]
    threshold: float
    threshold_origin: str | None
    alarms: dict[str, Any] | None
    video: dict[str, Any] | None
    notes: list[str]
    failed: list[dict[str, str]]

    def to_dict(self) -> dict[str, Any]:
        """The result as a dict that `json.dumps` takes."""
        return asdict(self) | {name: os.fspath(getattr(self, name)) for name in ("directory", "model", "report")}


def fit_folder(
    folder: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    method: str | None = None,
    model: str | os.PathLike | None = None,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    alarms_per_day: float = 1.0,
    normal: Sequence[str] | None = None,
    all_normal: bool = False,
    contamination: float = 0.0,
    by: str | None = None,
    fps: float | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    batch_size: int | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> FolderFit:
    """Make a detector of a folder of videos, ready for `detect`.

    Without labels, or if all videos are normal, a detector of normality is fitted. With normal and anomalous videos
    one is trained, and evaluated on test videos. The threshold is set to a rate of alarms as far as the normal footage
    supports that. The same call goes on where it was stopped, and skips what is done.

    Args:
        folder: Folder of the videos: in class folders, with annotations, or alone (`avad_hf.corpora.scan`).
        output_dir: Where all goes: ``manifest.csv``, ``features``, ``model``, ``report.html``, ``settings.toml``.
        method: Detector of normality that is fitted, as of [`~avad_hf.fit`]; where there are labels, to the normal
            training videos, in place of the training.
        model: Checkpoint whose processor, and for training whose architecture, are taken.
        video_encoder: Without `model`: encoder that reads pictures: its folder, Hub id, or the name of a published
            one; that of [`~avad_hf.describe`] by default.
        audio_encoder: Encoder that reads sound, likewise.
        alarms_per_day: Rate of false alarms that the threshold is set to.
        normal: Names of the classes of one's own that are normal.
        all_normal: Whether no folder names a class, and everything is normal footage.
        contamination: Share of the footage that may be anomalous, as of [`~avad_hf.fit`].
        by: What cameras are told apart by, as of [`~avad_hf.fit`]; with `all_normal` and ``"scene"`` the first folders
            are the cameras.
        fps: Frames a second of folders of pictures.
        device: Where the encoders compute; the first GPU by default, or the CPU.
        dtype: What they compute in; ``"auto"`` is bfloat16 where the device has hardware for it, else float32.
        batch_size: Clips that go through the encoders together.
        on_stage: Told in words what is done next.
        on_progress: Called with the number of videos that are done and their total.
        options: Fields of the detector's config to set otherwise.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If its layout or labels cannot be understood, no video can be read, a detector cannot be fitted or
            trained, or `output_dir` holds results of other settings, naming what differs.
        OSError: If an encoder cannot be had, or the output cannot be written.
    """
    if all_normal and normal:
        raise ValueError("Say which classes are normal, or that all videos are, not both.")
    if model is not None and (video_encoder is not None or audio_encoder is not None):
        raise ValueError("Give a model, whose encoders are taken, or encoders, not both.")
    check_rate(alarms_per_day)
    folder, job = Path(folder), Job(Path(output_dir), on_stage, on_progress)
    settings = ranking_settings(folder, model, video_encoder, audio_encoder) | {
        "method": method,
        "alarms_per_day": float(alarms_per_day),
        "normal": None if normal is None else list(normal),
        "all_normal": all_normal,
        "contamination": float(contamination),
        "by": by,
        "options": options or None,
    }
    with only_run(output_dir):
        refuse_other_settings(output_dir, settings, FILES, AGAIN)
        rows = list_rows(job, folder, normal, all_normal, by, fps)
        if all(row["anomaly"] == 1 for row in rows):  # before features are computed, which takes hours
            raise ValueError(
                f"All {len(rows)} videos of {folder} are anomalous by their labels, and a detector needs normal ones. "
                f"Add some, or say which classes are normal. The labels are in {MANIFEST}: correct or delete it."
            )
        is_labelled = {row["anomaly"] for row in rows} >= {0, 1}
        learns = is_labelled and method is None
        processor = get_processor(job, model, video_encoder, audio_encoder, learns)
        processor.to(device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype)
        keep_settings(output_dir, settings)
        job.notes += dict.fromkeys(processor.notices)
        features = compute_features(job, rows, processor, batch_size)
        normal_footage, held_out = divide(job, features, alarms_per_day)
        start = job.path(ENCODERS) if model is None else model
        if learns:
            is_new = train_model(job, start, options)
        else:
            chosen = {"contamination": contamination, "by": by} | ({} if method is None else {"method": method})
            is_new = fit_model(job, normal_footage, start, chosen | options)
        detector = AutoModelForVideoClassification.from_pretrained(job.path(MODEL), trust_remote_code=False)
        is_new |= set_threshold(job, detector, held_out, alarms_per_day)
        title = f"{spec_of(detector).title} detector of {folder.resolve().name}"
        video, tested = None, features.where(lambda row: row["split"] == "test")
        if is_labelled and not len(tested):
            job.notes.append("There are no test videos, so nobody knows how much the detector finds. Add videos.")
        if is_labelled and len(tested):
            video = _evaluate(job, detector, tested, title)
        elif is_new or not job.path(REPORT).is_file():
            sources = {row["id"]: row for row in rows}
            _show_footage(job, processor, features, sources, title)
        else:
            job.begin("report", f"{REPORT} is there")
    config = detector.config
    return FolderFit(
        directory=job.directory,
        model=job.path(MODEL),
        report=job.path(REPORT),
        steps=job.steps,
        threshold=config.threshold,
        threshold_origin=config.threshold_origin,
        alarms=config.alarms,
        video=video,
        notes=job.notes,
        failed=job.failed,
    )


def _evaluate(job: Job, detector: PreTrainedModel, tested: FeatureDataset, title: str) -> dict[str, Any]:
    """Write figures and page of the test videos; returns those of videos."""
    job.begin("report", "evaluating on test videos")
    evaluation = evaluate(detector, tested, on_progress=job.on_progress)
    evaluation.save(job.directory)
    notes = [*evaluation.figures["notes"], *job.notes]
    write_report(evaluation.figures | {"notes": notes}, evaluation.videos, job.directory, title)
    job.steps["report"] = f"wrote {REPORT}: {len(evaluation.videos)} test videos"
    return evaluation.figures["video"]


def _show_footage(
    job: Job, processor: ProcessorMixin, features: FeatureDataset, sources: Mapping[str, Mapping[str, Any]], title: str
) -> None:
    """Write the page of a detector without figures: what it rests on, and what a person should look at."""
    job.begin("report", "looking for what is most unlike the rest of the footage")
    footage = None
    try:
        footage = rank_footage(processor, sources, features, MOST_SHOWN)
    except ValueError as error:  # a detector can be fitted to what leaves nothing to show
        job.notes.append(f"Nothing is shown of the footage: {error}")
    notes = job.notes + (footage.notes if footage else [])
    write_fit_report(job.steps, vars(footage) if footage else None, notes, job.path(REPORT), title)
    job.steps["report"] = f"wrote {REPORT}"


__all__ = ["FolderFit", "fit_folder"]
