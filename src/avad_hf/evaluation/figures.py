"""Figures of scored videos, part by part of `metrics.json`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from avad_hf.features.dataset import FeatureDataset
from avad_hf.metrics.classes import confusion_matrix, top1_recall
from avad_hf.metrics.ranking import Ranking, false_alarm_rate, roc_auc
from avad_hf.metrics.videos import (
    TailRule,
    VideoRule,
    bootstrap_interval,
    check_frame_labels,
    frame_scores,
    per_class_auc,
    per_video_auc,
    video_score,
)

# Published figures of false alarms use it, whatever a model's own threshold is.
COMMON_THRESHOLD = 0.5


def video_result(
    row: dict[str, Any],
    scores: np.ndarray,
    times: np.ndarray,
    rule: VideoRule,
    alpha: int = 4,
    decides: np.ndarray | None = None,
) -> dict[str, Any]:
    """A video with its scored clips and its own score, as `Evaluation.videos` has it.

    Args:
        row: What is known of the video.
        scores: Scores of its clips, shape `(T,)`.
        times: Start and end of each clip in seconds, shape `(T, 2)`.
        rule: Which score the video gets from its clips' (`avad_hf.metrics.videos.video_score`).
        alpha: The detector's ``dmil_alpha``, for rule ``topk_mean``.
        decides: Which clips the video's score may rest on, shape `(T,)`; the others are marked ``partial``.
    """
    decides = np.ones(len(scores), dtype=bool) if decides is None else np.asarray(decides, dtype=bool)
    clips = [
        {"start": round(float(start), 6), "end": round(float(end), 6), "score": float(score)}
        | ({} if counts else {"partial": True})
        for (start, end), score, counts in zip(times, scores, decides, strict=True)
    ]
    row_facts = {name: row.get(name) for name in ("id", "label", "anomaly", "scene", "has_audio", "duration")}
    return row_facts | {"score": video_score(scores, rule, alpha, decides), "clips": clips, "anomalous_frames": None}


def _video_score(video: dict[str, Any], rule: VideoRule, alpha: int) -> float:
    """The score of a result by another rule than its own."""
    clips = video["clips"]
    decides = [not clip.get("partial", False) for clip in clips]
    return video_score([clip["score"] for clip in clips], rule, alpha, decides)


def _operating_point(labels: np.ndarray, scores: np.ndarray, thresholds: np.ndarray | float) -> dict[str, Any]:
    called = scores >= thresholds
    matrix = [[int(((labels == is_) & (called == as_)).sum()) for as_ in (0, 1)] for is_ in (0, 1)]
    return {
        "accuracy": float((called == labels).mean()),
        "recall": float(called[labels == 1].mean()) if (labels == 1).any() else float("nan"),
        "false_alarm_rate": false_alarm_rate((scores - thresholds)[labels == 0], 0.0),
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


def video_figures(
    labels: np.ndarray,
    scores: np.ndarray,
    videos: Sequence[dict[str, Any]],
    thresholds: np.ndarray | float,
    rule: VideoRule,
    num_resamples: int,
    alpha: int = 4,
) -> dict[str, Any]:
    """Figures of whole videos, and what the threshold of each does; `alpha` is the detector's, for ``topk_mean``."""
    error = Ranking(labels, scores).equal_error()
    by_rule = {
        f"roc_auc_{name}": roc_auc(labels, [_video_score(video, name, alpha) for video in videos])
        for name in ("max", "topk_mean")
    }
    return {
        "rule": rule,
        **_ranked(labels, scores, num_resamples),
        **by_rule,
        "equal_error_rate": error.rate,
        "equal_error_threshold": error.threshold,
        **_operating_point(labels, scores, thresholds),
        "false_alarm_rate_at_0.5": false_alarm_rate(scores[labels == 0], COMMON_THRESHOLD),
    }


def clip_figures(labels: np.ndarray, videos: Sequence[dict[str, Any]], num_resamples: int) -> dict[str, Any]:
    """Each clip has its video's label, as weak labels have it: clips before and after an event count as anomalous."""
    lengths = [len(video["clips"]) for video in videos]
    scores = np.array([clip["score"] for video in videos for clip in video["clips"]])
    groups = np.repeat(np.arange(len(videos)), lengths)
    return {"labels": "of the video", **_ranked(np.repeat(labels, lengths), scores, num_resamples, groups)}


def frame_figures(
    features: FeatureDataset,
    rows: Sequence[dict[str, Any]],
    videos: list[dict[str, Any]],
    thresholds: np.ndarray,
    tail: TailRule,
    num_resamples: int,
    notes: list[str],
) -> dict[str, Any] | None:
    """Figures of single frames, where the rows say which are anomalous; puts the stretches into `videos` as well.

    Videos whose labels are those of another video are left out: `notes` says which, and they are marked
    ``frame_labels_fit`` false. ``None`` if a video has no labels, or if all are left out.
    """
    by_video, scored, limits, longer, unfit = [], [], [], [], []
    num_unlabelled = 0
    for row, video, threshold in zip(rows, videos, thresholds, strict=True):
        labels = features.frame_labels(row)
        if labels is None:
            num_unlabelled += 1
            continue
        length, stride = features.clip_frames(row)
        last = (len(video["clips"]) - 1) * stride
        if row.get("frame_mask") is None and not labels.any():
            # The frames of a normal video were counted by its mean rate, which need not be exact.
            labels = np.zeros(np.clip(len(labels), last + 1, last + length), np.uint8)
        # A recording that broke off is known to be shorter than its labels.
        is_cut = bool(row.get("warnings"))
        try:
            check_frame_labels(len(labels), len(video["clips"]), length, stride, is_cut)
        except ValueError as error:
            unfit.append(f"{row['id']}: {error}")
            video["frame_labels_fit"] = False
            continue
        if labels.any() and not video["anomaly"]:
            raise ValueError(
                f"{row['id']} is labelled normal, but {int(labels.sum())} of its frames are labelled anomalous. "
                "Correct one of the two and extract again (what is stored stays)."
            )
        if len(labels) - last - length >= length and is_cut:
            longer.append(row["id"])
        edges = np.flatnonzero(np.diff(np.concatenate([[0], labels, [0]])))
        num_frames = int(np.clip(len(labels), last + 1, last + length))
        second = (video["duration"] or video["clips"][-1]["end"]) / num_frames
        video["anomalous_frames"] = [
            [round(a * second, 3), round(b * second, 3)] for a, b in edges.reshape(-1, 2).tolist()
        ]
        clip_scores = [clip["score"] for clip in video["clips"]]
        by_video.append(frame_scores(clip_scores, labels, length, stride, tail, is_cut))
        scored.append(video)
        limits.append(threshold)
    if longer:
        notes.append(f"Frame labels of {len(longer)} damaged videos go on after the last clip, first {longer[0]}")
    if unfit:
        notes.append(
            f"The figures of frames leave out {len(unfit)} of {len(videos)} videos. {' '.join(unfit[:3])}"
            f"{f' And {len(unfit) - 3} more.' if len(unfit) > 3 else ''} Correct frame_mask and extract again (what "
            "is stored stays)."
        )
    if num_unlabelled or not by_video:
        return None
    scores, labels = (np.concatenate(part) for part in zip(*by_video, strict=True))
    groups = np.repeat(np.arange(len(by_video)), [len(part) for part, _ in by_video])
    anomalous = np.array([bool(video["anomaly"]) for video in scored])[groups]
    within = (labels[anomalous], scores[anomalous])
    return {
        "num_frames": len(scores),
        "num_anomalous_frames": int(labels.sum()),
        "tail": tail,
        **_ranked(labels, scores, num_resamples, groups),
        "roc_auc_within_anomalous_videos": roc_auc(*within) if anomalous.any() else float("nan"),
        "roc_auc_mean_of_videos": per_video_auc([part for _, part in by_video], [part for part, _ in by_video]),
        "peak_hits": peak_hits(by_video),
        "false_alarm_rate_of_normal_videos": false_alarm_rate((scores - np.array(limits)[groups])[~anomalous], 0.0),
        "false_alarm_rate_of_normal_videos_at_0.5": false_alarm_rate(scores[~anomalous], COMMON_THRESHOLD),
    }


def peak_hits(by_video: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """In which share of the videos that have anomalous frames the highest score is at one of them.

    Where several frames share the highest score, the share of those that are anomalous counts. NaN without such
    videos.

    Args:
        by_video: Scores and labels of each video's frames, of shape `(frames,)` both.
    """
    hits = [labels[scores == scores.max()].mean() for scores, labels in by_video if labels.any()]
    return float(np.mean(hits)) if hits else float("nan")


def event_figures(
    labels: Sequence[int],
    class_logits: Sequence[np.ndarray],
    names: Sequence[str],
    videos: list[dict[str, Any]],
) -> dict[str, Any]:
    """Figures of event classes; puts the class and the probabilities of each video into `videos` as well."""
    logits = np.stack(class_logits).astype(np.float64)
    likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
    likelihood /= likelihood.sum(axis=1, keepdims=True)
    called = logits.argmax(axis=1)
    for video, number, row in zip(videos, called, likelihood, strict=True):
        video["predicted"] = names[number]
        video["probabilities"] = dict(zip(names, row.tolist(), strict=True))
    recall = top1_recall(labels, called, names)
    return {
        "top1_accuracy": recall.overall,
        "top1_macro": recall.macro,
        "top1_recall": recall.per_class,
        "num_videos": {name: int((np.asarray(labels) == number).sum()) for number, name in enumerate(names)},
        "confusion_matrix": confusion_matrix(labels, called, len(names)).tolist(),
    }


def class_figures(
    labels: np.ndarray, scores: np.ndarray, videos: Sequence[dict[str, Any]], thresholds: np.ndarray | float
) -> dict[str, Any]:
    """By class: how well it is told from normal videos, and how much of it is called what it is."""
    named = [(video["label"] or ("anomaly" if video["anomaly"] else "normal"), video["anomaly"]) for video in videos]
    # What is an anomaly in one scene may be normal in another.
    both = {name for name, anomaly in named if anomaly} & {name for name, anomaly in named if not anomaly}
    names = np.array(
        [f"{name} (normal)" if name in both and not anomaly else name for name, anomaly in named], dtype=object
    )
    areas = per_class_auc(names, labels, scores)
    right = (scores >= thresholds) == labels
    return {
        name: {
            "num_videos": int((names == name).sum()),
            "anomaly": name in areas,
            "roc_auc_against_normal": areas.get(name, float("nan")),
            # The share that is called what it is.
            "top1_recall": float(right[names == name].mean()),
        }
        for name in sorted(set(names))
    }


def scene_figures(
    labels: np.ndarray, scores: np.ndarray, videos: Sequence[dict[str, Any]], thresholds: np.ndarray | float
) -> dict[str, Any]:
    """By scene: area under the ROC curve, and what the threshold does."""
    scenes = np.array([video["scene"] or "" for video in videos], dtype=object)
    table = {}
    for name in sorted(set(scenes)):
        chosen = scenes == name
        table[name or "not named"] = {
            "num_videos": int(chosen.sum()),
            "num_anomalous": int(labels[chosen].sum()),
            "roc_auc": roc_auc(labels[chosen], scores[chosen]),
            **_operating_point(labels[chosen], scores[chosen], np.broadcast_to(thresholds, scores.shape)[chosen]),
        }
    return table


def why_undefined(figures: dict[str, Any], videos: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Why figures are ``None``, by their names."""
    reasons = {}
    num_videos, num_normal, num_anomalous = (figures[f"num_{what}"] for what in ("videos", "normal", "anomalous"))
    if not num_normal or not num_anomalous:
        only = "normal" if num_normal else "anomalous"
        reasons["video, clip, classes, scenes"] = (
            f"all {num_videos} videos are {only}: areas under curves need both classes"
        )
    elif lone := [name for name, row in figures["scenes"].items() if row["roc_auc"] is None]:
        reasons["scenes"] = f"all videos of {', '.join(lone)} are normal, or all are anomalous"
    frame = figures["frame"]
    if figures["clip"] is None:
        reasons["clip, frame"] = "the detector names the event of a whole video, which has one score"
    elif frame is None:
        unfit = [video["id"] for video in videos if not video.get("frame_labels_fit", True)]
        without = [video["id"] for video in videos if video["anomalous_frames"] is None and video["id"] not in unfit]
        reasons["frame"] = (
            f"frames of {len(without)} of {num_videos} videos have no labels (first {without[0]})"
            if without
            else f"the frame labels of all {num_videos} videos are those of other videos (first {unfit[0]})"
        )
    else:
        if frame["roc_auc"] is None:
            only = "anomalous" if frame["num_anomalous_frames"] else "normal"
            reasons["frame"] = f"all {frame['num_frames']} frames are {only}: areas under curves need both classes"
        names = {
            "roc_auc_within_anomalous_videos": "no anomalous videos, or all of their frames are alike",
            "peak_hits": "no video has anomalous frames",
            "roc_auc_mean_of_videos": "no video holds both normal and anomalous frames",
            "false_alarm_rate_of_normal_videos": "no normal videos",
        }
        reasons |= {f"frame.{name}": reason for name, reason in names.items() if frame[name] is None}
    counts = figures.get("events", {}).get("num_videos", {})
    if empty := [name for name, count in counts.items() if not count]:
        reasons["events.top1_recall"] = f"no video is labelled {', '.join(empty)}"
    for part in ("video", "clip", "frame"):
        known = figures[part] or {}
        if known.get("roc_auc") is not None and known.get("roc_auc_interval_95", [0])[0] is None:
            reasons[f"{part}.roc_auc_interval_95"] = (
                "too few videos: half of the sets that are drawn of them, or more, hold one class only"
            )
    return reasons


def without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
