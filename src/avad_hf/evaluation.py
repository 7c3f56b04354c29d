"""Scores of a feature set's videos, and every figure of them: of videos, clips and frames, by class and by scene."""

import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from avad_hf.data.extraction import process_state
from avad_hf.data.features import FeatureDataset
from avad_hf.data.store import recipe_sha256
from avad_hf.media.encode import written_whole
from avad_hf.metrics.ranking import Ranking, false_alarm_rate, roc_auc
from avad_hf.metrics.videos import (
    TailRule,
    VideoRule,
    bootstrap_interval,
    frame_scores,
    per_class_auc,
    per_video_auc,
    video_score,
)

# Published figures of false alarms use it, whatever a model's own threshold is.
COMMON_THRESHOLD = 0.5


@dataclass(frozen=True)
class Evaluation:
    """What [`evaluate`] found.

    Args:
        figures: All figures, as JSON has them; ``None`` where one is not defined, with the reason in ``undefined``.
        videos: Each video's ``id``, ``label``, ``anomaly``, ``scene``, ``score``, ``has_audio``, ``duration`` in
            seconds, ``clips`` (``start`` and ``end`` in seconds, ``score``), and ``anomalous_frames``: stretches in
            seconds, or ``None`` where frames have no labels.
    """

    figures: dict[str, Any]
    videos: list[dict[str, Any]] = field(repr=False)

    def save(self, directory: str | os.PathLike) -> None:
        """Write ``metrics.json`` and ``scores.jsonl``, a line a video."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with written_whole(directory / "metrics.json") as partial:
            Path(partial).write_text(json.dumps(self.figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        lines = "".join(json.dumps(video, ensure_ascii=False) + "\n" for video in self.videos)
        with written_whole(directory / "scores.jsonl") as partial:
            Path(partial).write_text(lines, encoding="utf-8")


def evaluate(
    model: PreTrainedModel,
    features: FeatureDataset,
    *,
    threshold: float | None = None,
    audio_path: str | None = None,
    video_rule: VideoRule = "max",
    tail: TailRule = "extend_score_last",
    batch_size: int = 16,
    num_resamples: int = 1000,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score all videos of a feature set and compute what can be said about the scores.

    Under ``accelerate launch`` each process scores its part, and every process gets the whole result.

    Args:
        model: A detector, on the device that it shall run on.
        features: With labels.
        threshold: Score from which on a clip is anomalous; the model's own by default.
        audio_path: ``"focused"``, ``"plain"`` or ``"zeroed"``; the model's own by default.
        video_rule: Which score a video gets from its clips' (`avad_hf.metrics.videos.video_score`).
        tail: What becomes of the frames at a video's end (`avad_hf.metrics.videos.frame_scores`).
        batch_size: Videos that go through the model together.
        num_resamples: Of videos, for the 95% confidence intervals; 0 for none.
        on_progress: Called with the number of videos that this process has scored and their total.

    Raises:
        ValueError: For videos without label, features of another recipe or shape than the model's, frame labels that
            do not fit their video, or features that are not finite.
    """
    threshold = model.config.threshold if threshold is None else threshold
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}.")
    labels = labels_of(features)
    refuse_other_features(model.config, model.name_or_path, features)
    options = {} if audio_path is None else {"audio_path": audio_path}
    scored = score_clips(model, features, batch_size, on_progress, **options)
    videos = [
        _video(row, 1 / (1 + np.exp(-item["logits"])), item["times"], video_rule)
        for row, item in zip(features.rows, scored, strict=True)
    ]
    scores = np.array([video["score"] for video in videos])
    undefined: dict[str, str] = {}
    notes = [note for note in (model.config.notice, *(features.recipe or {}).get("notices", ())) if note]
    figures = {
        "num_videos": len(videos),
        "num_normal": int((labels == 0).sum()),
        "num_anomalous": int((labels == 1).sum()),
        "num_clips": sum(len(video["clips"]) for video in videos),
        "audio_path": audio_path or getattr(model.config, "audio_path", None),
        "threshold": threshold,
        "threshold_origin": model.config.threshold_origin if threshold == model.config.threshold else "given by hand",
        "video": _video_figures(labels, scores, videos, threshold, video_rule, num_resamples),
        "clip": _clip_figures(labels, videos, num_resamples),
        "frame": _frame_figures(features, videos, threshold, tail, num_resamples, undefined, notes),
        "classes": _class_figures(labels, scores, videos, threshold),
        "scenes": _scene_figures(labels, scores, videos, threshold),
        "undefined": undefined,
        "notes": notes,
    }
    if len(set(labels.tolist())) < 2:
        only = "normal" if labels[0] == 0 else "anomalous"
        undefined["video, clip, scenes"] = f"all {len(videos)} videos are {only}: areas under curves need both classes"
    return Evaluation(_without_nan(figures), videos)


def labels_of(features: FeatureDataset) -> np.ndarray:
    """1 or 0 for each video; raises ``ValueError`` if one has no label."""
    if unlabelled := [row["id"] for row in features.rows if row["anomaly"] is None]:
        raise ValueError(
            f"{len(unlabelled)} of {len(features.rows)} videos have no label, first {unlabelled[0]!r}. Fill in the "
            "manifest's column label or anomaly and extract again (what is stored stays), or leave these videos out."
        )
    return np.array([int(row["anomaly"]) for row in features.rows])


def refuse_other_features(config: PreTrainedConfig, name: str, features: FeatureDataset) -> None:
    """Raise ``ValueError`` if a model, of this config and name, was trained on features that mean something else."""
    trained_on = getattr(config, "recipe_sha256", None)
    if trained_on and features.recipe and recipe_sha256(features.recipe) != trained_on:
        raise ValueError(
            f"These features were made by other encoders or settings than those that {name or 'the model'} was trained "
            "on. Extract them with this model's own processor: avad-hf extract ... --model."
        )


def score_clips(
    model: torch.nn.Module,
    features: FeatureDataset,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
    **options,
) -> list[dict[str, np.ndarray]]:
    """Logits of every clip, by video; each process computes its part, and all get the whole.

    Args:
        model: A detector, whatever mode it is in; it is put into evaluation mode.
        features: Videos to score.
        batch_size: Videos that go through the model together.
        on_progress: Called with the number of videos that this process has scored and their total.
        options: For the model's ``forward``.

    Returns:
        For each video, in the order of ``features.rows``: ``logits`` of shape `(T,)` and ``times`` of shape `(T, 2)`.
    """
    state: PartialState = process_state()
    own = list(range(state.process_index, len(features), state.num_processes))
    device, scored = next(model.parameters()).device, []
    model.eval()
    for begin in range(0, len(own), batch_size):
        batch = features.collate([features[index] for index in own[begin : begin + batch_size]])
        with torch.no_grad():
            logits = model(**inputs_of(model, batch, device), **options).logits.float().cpu().numpy()
        for row, mask, times in zip(logits, batch["clip_mask"].numpy(), batch["clip_times"].numpy(), strict=True):
            scored.append({"logits": row[mask], "times": times[mask]})
        if on_progress is not None:
            on_progress(len(scored), len(own))
    everything = dict(gather_object(list(zip(own, scored, strict=True))))
    return [everything[index] for index in range(len(features))]


def inputs_of(model: torch.nn.Module, batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The part of a batch that the model takes, on its device; without labels."""
    forward = getattr(model, "module", model).forward
    names = inspect.signature(getattr(forward, "__wrapped__", forward)).parameters.keys() - {"labels"}
    return {name: value.to(device) for name, value in batch.items() if name in names}


def _video(row: dict[str, Any], scores: np.ndarray, times: np.ndarray, rule: VideoRule) -> dict[str, Any]:
    clips = [
        {"start": round(float(start), 6), "end": round(float(end), 6), "score": float(score)}
        for (start, end), score in zip(times, scores, strict=True)
    ]
    known = {name: row.get(name) for name in ("id", "label", "anomaly", "scene", "has_audio", "duration")}
    return known | {"score": video_score(scores, rule), "clips": clips, "anomalous_frames": None}


def _operating_point(labels: np.ndarray, scores: np.ndarray, threshold: float) -> dict[str, Any]:
    called = scores >= threshold
    matrix = [[int(((labels == is_) & (called == as_)).sum()) for as_ in (0, 1)] for is_ in (0, 1)]
    return {
        "accuracy": float((called == labels).mean()),
        "recall": float(called[labels == 1].mean()) if (labels == 1).any() else float("nan"),
        "false_alarm_rate": false_alarm_rate(scores[labels == 0], threshold),
        "confusion": matrix,
    }


def _ranked(
    labels: np.ndarray, scores: np.ndarray, num_resamples: int, groups: np.ndarray | None = None
) -> dict[str, Any]:
    ranking = Ranking(labels, scores)
    figures = {
        "roc_auc": ranking.roc_auc(),
        "average_precision_step": ranking.average_precision("step"),
        "average_precision_trapezoid": ranking.average_precision("trapezoid"),
    }
    if num_resamples:
        interval = bootstrap_interval(labels, scores, groups, num_resamples=num_resamples)
        figures["roc_auc_interval_95"] = list(interval)
    return figures


def _video_figures(
    labels: np.ndarray,
    scores: np.ndarray,
    videos: Sequence[dict[str, Any]],
    threshold: float,
    rule: VideoRule,
    num_resamples: int,
) -> dict[str, Any]:
    error = Ranking(labels, scores).equal_error()
    by_rule = {
        f"roc_auc_{name}": roc_auc(labels, [video_score([c["score"] for c in v["clips"]], name) for v in videos])
        for name in ("max", "topk_mean")
    }
    return {
        "rule": rule,
        **_ranked(labels, scores, num_resamples),
        **by_rule,
        "equal_error_rate": error.rate,
        "equal_error_threshold": error.threshold,
        **_operating_point(labels, scores, threshold),
        "false_alarm_rate_at_0.5": false_alarm_rate(scores[labels == 0], COMMON_THRESHOLD),
    }


def _clip_figures(labels: np.ndarray, videos: Sequence[dict[str, Any]], num_resamples: int) -> dict[str, Any]:
    """Each clip has its video's label, as weak labels have it: clips before and after an event count as anomalous."""
    lengths = [len(video["clips"]) for video in videos]
    scores = np.array([clip["score"] for video in videos for clip in video["clips"]])
    groups = np.repeat(np.arange(len(videos)), lengths)
    return {"labels": "of the video", **_ranked(np.repeat(labels, lengths), scores, num_resamples, groups)}


def _frame_figures(
    features: FeatureDataset,
    videos: list[dict[str, Any]],
    threshold: float,
    tail: TailRule,
    num_resamples: int,
    undefined: dict[str, str],
    notes: list[str],
) -> dict[str, Any] | None:
    """Figures of single frames, where the rows say which are anomalous; puts the stretches into `videos` as well."""
    by_video = []
    for row, video in zip(features.rows, videos, strict=True):
        labels = features.frame_labels(row)
        if labels is None:
            undefined["frame"] = f"frames have no labels (first {row['id']})"
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[0], labels, [0]])))
        second = (video["duration"] or video["clips"][-1]["end"]) / len(labels)
        video["anomalous_frames"] = [
            [round(a * second, 3), round(b * second, 3)] for a, b in edges.reshape(-1, 2).tolist()
        ]
        length, stride = features.clip_frames(row)
        after = len(labels) - (len(video["clips"]) - 1) * stride - length
        if after >= length:
            notes.append(f"{row['id']}: frame labels go on for {after} frames after the last clip")
        try:
            by_video.append(frame_scores([clip["score"] for clip in video["clips"]], labels, length, stride, tail))
        except ValueError as error:
            raise ValueError(f"{row['id']}: {error}") from error
    if "frame" in undefined:
        return None
    scores, labels = (np.concatenate(part) for part in zip(*by_video, strict=True))
    groups = np.repeat(np.arange(len(by_video)), [len(part) for part, _ in by_video])
    anomalous = np.array([bool(part.any()) for _, part in by_video])[groups]
    within = (labels[anomalous], scores[anomalous])
    return {
        "num_frames": len(scores),
        "num_anomalous_frames": int(labels.sum()),
        "tail": tail,
        **_ranked(labels, scores, num_resamples, groups),
        "roc_auc_within_anomalous_videos": roc_auc(*within) if anomalous.any() else float("nan"),
        "roc_auc_mean_of_videos": per_video_auc([part for _, part in by_video], [part for part, _ in by_video]),
        "false_alarm_rate_of_normal_videos": false_alarm_rate(scores[~anomalous], threshold),
        "false_alarm_rate_of_normal_videos_at_0.5": false_alarm_rate(scores[~anomalous], COMMON_THRESHOLD),
    }


def _class_figures(
    labels: np.ndarray, scores: np.ndarray, videos: Sequence[dict[str, Any]], threshold: float
) -> dict[str, Any]:
    names = np.array(
        [video["label"] or ("anomaly" if video["anomaly"] else "normal") for video in videos], dtype=object
    )
    areas = per_class_auc(names, labels, scores)
    table = {}
    for name in sorted(set(names)):
        chosen = names == name
        anomalous = name in areas
        called = float((scores[chosen] >= threshold).mean())
        table[name] = {
            "num_videos": int(chosen.sum()),
            "anomaly": anomalous,
            "roc_auc_against_normal": areas.get(name, float("nan")),
            # The share that is called what it is.
            "top1_recall": called if anomalous else 1 - called,
        }
    return table


def _scene_figures(
    labels: np.ndarray, scores: np.ndarray, videos: Sequence[dict[str, Any]], threshold: float
) -> dict[str, Any]:
    scenes = np.array([video["scene"] or "" for video in videos], dtype=object)
    table = {}
    for name in sorted(set(scenes)):
        chosen = scenes == name
        table[name or "not named"] = {
            "num_videos": int(chosen.sum()),
            "num_anomalous": int(labels[chosen].sum()),
            "roc_auc": roc_auc(labels[chosen], scores[chosen]),
            **_operating_point(labels[chosen], scores[chosen], threshold),
        }
    return table


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


__all__ = ["Evaluation", "evaluate"]
