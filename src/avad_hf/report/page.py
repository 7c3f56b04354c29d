"""The report of an evaluation: one HTML file that needs nothing else, for a browser or for paper."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from avad_hf.metrics.ranking import Ranking

from .html import count, pair, section, table, text, write_page
from .pictures import confusion_image, curve_image, histogram_image, shown_score, timeline_image

DASH = "&ndash;"
RULES = {"max": "its highest clip", "topk_mean": "the mean of its highest clips", "mean": "the mean of its clips"}


def write_report(
    figures: dict[str, Any],
    videos: list[dict[str, Any]],
    directory: str | os.PathLike,
    title: str,
    num_worst: int = 6,
) -> Path:
    """Write an evaluation as `report.html`, which holds its pictures and refers to nothing outside it.

    Args:
        figures: Figures of an evaluation.
        videos: Videos of the same evaluation.
        directory: Folder of the page; it is created if it does not exist.
        title: Title of the page.
        num_worst: How many false alarms and how many misses are shown with their score over time.

    Returns:
        Path of the page.

    Raises:
        ValueError: For no videos, for another number of videos than the figures count, or a negative `num_worst`.
    """
    if not videos or len(videos) != figures["num_videos"]:
        raise ValueError(
            f"A report needs one or more videos and the figures of the same ones, got {len(videos)} videos and "
            f"figures of {figures['num_videos']}. Give both from one evaluation."
        )
    if num_worst < 0:
        raise ValueError(f"num_worst must be 0 or more, got {num_worst}.")
    sections = [
        *([section("Event classes", _events(figures))] if "events" in figures else []),
        section("Ranking", _ranking(figures)),
        section("At the threshold", _at_threshold(figures)),
        section("Curves", _curves(figures, videos)),
        section("Scores of videos", _distribution(figures, videos)),
        section("Classes", _classes(figures)),
        section("Scenes", _scenes(figures)),
        section("Worst false alarms", _worst(videos, figures["threshold"], False, num_worst)),
        section("Worst misses", _worst(videos, figures["threshold"], True, num_worst)),
    ]
    return write_page(Path(directory) / "report.html", title, _summary(figures), figures["notes"], sections)


def _rate(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _undefined(figures: dict[str, Any], part: str, key: str) -> str:
    """Why a figure is not defined, in the evaluation's words where it has some."""
    known = {name: reason for names, reason in figures["undefined"].items() for name in names.split(", ")}
    return known.get(part) or known.get(f"{part}.{key}") or f"both normal and anomalous {part}s are needed"


def _summary(figures: dict[str, Any]) -> str:
    parts = [
        f"{count(figures['num_videos'], 'video')} ({figures['num_normal']:,} normal, "
        f"{figures['num_anomalous']:,} anomalous)",
        *(
            []
            if figures["clip"] is None
            else [
                count(figures["num_clips"], "clip")
                + (f", the mean of {figures['num_crops']} crops each" if figures["num_crops"] > 1 else "")
            ]
        ),
        *([] if figures["clip"] is None else [f"audio path: {figures['audio_path'] or 'not named'}"]),
        f"threshold {shown_score(figures['threshold'])}: {figures['threshold_origin'] or 'not tuned'}",
    ]
    return " &middot; ".join(text(part) for part in parts)


def _events(figures: dict[str, Any]) -> str:
    """Which events are recognised, and what they are taken for."""
    events = figures["events"]
    names = list(events["top1_recall"])
    rows = []
    for name, others in zip(names, events["confusion_matrix"], strict=True):
        recall = events["top1_recall"][name]
        wrong = sorted(((count, other) for count, other in zip(others, names, strict=True) if other != name))[::-1]
        taken = ", ".join(f"{other} {count:,}" for count, other in wrong[:2] if count)
        rows.append([text(name), f"{events['num_videos'][name]:,}", _rate(recall), text(taken)])
    rows.append(["all videos", f"{figures['num_videos']:,}", _rate(events["top1_accuracy"]), ""])
    rows.append(["mean over classes", "", _rate(events["top1_macro"]), ""])
    head = ["class", "videos", "top-1", "mostly taken for"]
    image = confusion_image(np.array(events["confusion_matrix"]), names)
    return pair(
        table("Share of each class that is called what it is", head, rows, "remarks"),
        f"<figure>{image}<figcaption>What videos are (rows), and what they are called (columns)</figcaption></figure>",
    )


def _ranking(figures: dict[str, Any]) -> str:
    """What does not depend on the threshold, for videos, clips and frames."""
    # A detector of events gives a video one score.
    parts, reasons = ("video",) if figures["clip"] is None else ("video", "clip", "frame"), []
    video, clip, frame = (figures[part] for part in ("video", "clip", "frame"))

    def shown(part: str, key: str) -> str:
        known = figures[part]
        # Frames without labels would have what clips have.
        if key not in (known or clip or video):
            return ""
        value = None if known is None else known[key]
        if isinstance(value, list):
            value = None if None in value else f"{value[0]:.3f} to {value[1]:.3f}"
        if value is None:
            reasons.append(f"{part.capitalize()}s: {_undefined(figures, part, key)}.")
        return value if isinstance(value, str) else _rate(value)

    names = {
        "roc_auc": "ROC AUC",
        "roc_auc_interval_95": "&emsp;95% interval",
        "roc_auc_max": f"&emsp;a video by {RULES['max']}",
        "roc_auc_topk_mean": f"&emsp;a video by {RULES['topk_mean']}",
        "roc_auc_within_anomalous_videos": "&emsp;within anomalous videos",
        "roc_auc_mean_of_videos": "&emsp;mean over videos",
        "peak_hits": "&emsp;highest score at an anomalous frame",
        "average_precision_step": "Average precision, step",
        "average_precision_trapezoid": "Average precision, trapezoid",
    }
    if figures["clip"] is None:
        del names["roc_auc_max"], names["roc_auc_topk_mean"]
    if frame is None or "peak_hits" not in frame:  # of an older evaluation
        del names["peak_hits"]
    rows = [
        [
            "Number",
            f"{figures['num_videos']:,}",
            f"{figures['num_clips']:,}",
            DASH if frame is None else f"{frame['num_frames']:,}",
        ][: 1 + len(parts)],
        [
            "&emsp;anomalous",
            f"{figures['num_anomalous']:,}",
            "" if clip is None else f"<small>label {text(clip['labels'])}</small>",
            DASH if frame is None else f"{frame['num_anomalous_frames']:,}",
        ][: 1 + len(parts)],
        *(
            [name, *(shown(part, key) for part in parts)]
            for key, name in names.items()
            if any(figures[part] is not None and key in figures[part] for part in parts)
        ),
    ]
    caption = f"The score of a video is that of {text(RULES.get(video['rule'], video['rule']))}"
    if figures["clip"] is None:
        caption = "The score of a video is 1 minus the probability of the normal classes"
    if frame is not None:
        caption += f"; rule for the last frames: {text(frame['tail'])}"
    lines = "".join(f"<li>{text(reason)}</li>" for reason in dict.fromkeys(reasons))
    return table(caption, ["", *(f"{part}s" for part in parts)], rows) + (
        f'<ul class="reasons soft">{lines}</ul>' if lines else ""
    )


def _at_threshold(figures: dict[str, Any]) -> str:
    video, frame = figures["video"], figures["frame"]
    (kept, alarms), (missed, found) = video["confusion"]
    normal, anomalous = kept + alarms, missed + found

    def row(name: str, value: float | None, remark: str, reason: str) -> list[str]:
        return [name, _rate(value), text(reason if value is None else remark)]

    def cell(count: int, of: int, kind: str) -> str:
        return f'<span class="{kind}">{count:,} <small>{f"{count / of:.0%}" if of else ""}</small></span>'

    no_normal, no_anomalous = "there are no normal videos", "there are no anomalous videos"
    equal = video["equal_error_threshold"]
    rows = [
        row("Recall", video["recall"], f"{found:,} of {anomalous:,} anomalous", no_anomalous),
        row("False alarm rate", video["false_alarm_rate"], f"{alarms:,} of {normal:,} normal", no_normal),
        row("Accuracy", video["accuracy"], f"{kept + found:,} of {normal + anomalous:,}", ""),
        row(
            "Equal error rate",
            video["equal_error_rate"],
            "" if equal is None else f"at the score {shown_score(equal)}",
            _undefined(figures, "video", "equal_error_rate"),
        ),
        row("False alarm rate at 0.5", video["false_alarm_rate_at_0.5"], "the common choice", no_normal),
    ]
    if frame is not None:
        name, remark = "false_alarm_rate_of_normal_videos", "in normal videos"
        rows.append(row("False alarm rate, frames", frame[name], remark, no_normal))
        rows.append(row("False alarm rate, frames, at 0.5", frame[f"{name}_at_0.5"], remark, no_normal))
    threshold = shown_score(figures["threshold"])
    matrix = [
        ["normal", cell(kept, normal, "right"), cell(alarms, normal, "wrong")],
        ["anomalous", cell(missed, anomalous, "wrong"), cell(found, anomalous, "right")],
    ]
    return pair(
        table(f"A video is called anomalous from the score {threshold} on", ["", "value", ""], rows, "remarks"),
        table(
            "Videos by label and by what they are called", ["", "called normal", "called anomalous"], matrix, "matrix"
        ),
    )


def _curves(figures: dict[str, Any], videos: list[dict[str, Any]]) -> str:
    if not figures["num_normal"] or not figures["num_anomalous"]:
        return f"<p>{DASH} No curves: {text(_undefined(figures, 'video', 'roc_auc'))}.</p>"
    labels = np.array([int(video["anomaly"]) for video in videos])
    rankings = {"videos": Ranking(labels, [video["score"] for video in videos])}
    if figures["clip"] is not None:
        clips = [clip["score"] for video in videos for clip in video["clips"]]
        rankings["clips"] = Ranking(np.repeat(labels, [len(video["clips"]) for video in videos]), clips)
    images = [curve_image(kind, rankings, figures["threshold"]) for kind in ("roc", "precision_recall")]
    captions = ("ROC: what is found, at which price of false alarms", "Precision-recall, in steps")
    return pair(
        *(
            f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
            for image, caption in zip(images, captions, strict=True)
        )
    )


def _distribution(figures: dict[str, Any], videos: list[dict[str, Any]]) -> str:
    groups = {
        name: np.array([video["score"] for video in videos if bool(video["anomaly"]) is anomalous])
        for name, anomalous in (("normal", False), ("anomalous", True))
    }
    groups = {name: scores for name, scores in groups.items() if len(scores)}
    names = {"lowest": 0, "a quarter is below": 0.25, "median": 0.5, "three quarters are below": 0.75, "highest": 1}
    rows = [
        [name, *(shown_score(np.quantile(scores, share)) for scores in groups.values())]
        for name, share in names.items()
    ]
    rows.append(["videos", *(f"{len(scores):,}" for scores in groups.values())])
    return pair(
        f"<figure>{histogram_image(groups, figures['threshold'])}</figure>",
        table("Scores by the label of the video", ["", *groups], rows),
    )


def _classes(figures: dict[str, Any]) -> str:
    rows = []
    # The class that is told apart worst comes first: it is what one looks for.
    for name, row in sorted(
        figures["classes"].items(), key=lambda item: (not item[1]["anomaly"], item[1]["roc_auc_against_normal"] or 0)
    ):
        area = row["roc_auc_against_normal"]
        if area is None:
            last = "no normal videos" if row["anomaly"] else "what others are compared with"
        else:
            last = f'<span class="bar"><i style="width: {area:.1%}"></i><b></b></span>'
        rows.append([text(name), f"{row['num_videos']:,}", _rate(row["top1_recall"]), _rate(area), last])
    caption = "ROC AUC of each class against all normal videos; the line in a bar is chance"
    return table(caption, ["class", "videos", "right at the threshold", "ROC AUC", ""], rows, "remarks")


def _scenes(figures: dict[str, Any]) -> str:
    rows = []
    for name, row in figures["scenes"].items():
        only = " <small>all are anomalous</small>" if row["num_anomalous"] else " <small>all are normal</small>"
        rates = (row[key] for key in ("roc_auc", "recall", "false_alarm_rate", "accuracy"))
        shown = (_rate(rate) + (only if rate is None else "") for rate in rates)
        rows.append([text(name), f"{row['num_videos']:,}", f"{row['num_anomalous']:,}", *shown])
    head = ["scene", "videos", "anomalous", "ROC AUC", "recall", "false alarm rate", "accuracy"]
    return table("Recall, false alarm rate and accuracy at the threshold", head, rows)


def _worst(videos: list[dict[str, Any]], threshold: float, anomalous: bool, num_worst: int) -> str:
    """Misses if `anomalous`, else false alarms; those farthest on the wrong side of the threshold first."""
    kind, error, extreme = ("anomalous", "miss", "lowest") if anomalous else ("normal", "false alarm", "highest")
    group = sorted(
        (video for video in videos if bool(video["anomaly"]) is anomalous),
        key=lambda video: video["score"],
        reverse=not anomalous,
    )
    wrong = [video for video in group if (video["score"] >= threshold) is not anomalous]
    shown = (wrong or group)[:num_worst]
    if not group:
        return f"<p>There are no {kind} videos.</p>"
    number = count(len(group), f"{kind} video")
    below, above = (
        f"below the threshold {shown_score(threshold)}",
        f"at or above the threshold {shown_score(threshold)}",
    )
    if wrong:
        lead = f"{len(wrong):,} of {number} scored {below if anomalous else above}."
        lead += f" Shown are the {extreme} scores." if 0 < len(shown) < len(wrong) else ""
    else:
        lead = f"No {error}: of {number}, none scored {below if anomalous else above}."
        lead += f" Shown are the {extreme} scores{', which reach it' if anomalous else ' below it'}." if shown else ""
    if anomalous and shown:
        known = any(video["anomalous_frames"] is not None for video in shown)
        lead += " Shaded: labelled anomalous." if known else " Which frames are anomalous is not labelled."
    cards = "".join(f'<article class="video">{_card(video, threshold)}</article>\n' for video in shown)
    return f'<p>{lead}</p>\n<div class="pair">{cards}</div>'


def _card(video: dict[str, Any], threshold: float) -> str:
    about = f"{video['label'] or ('anomaly' if video['anomaly'] else 'normal')}, {video['scene'] or 'scene not named'}"
    return (
        f'<p><span class="score">{shown_score(video["score"])}</span> <strong>{text(video["id"])}</strong><br>'
        f"<small>{text(about)}</small></p>{timeline_image(video, threshold)}"
    )


__all__ = ["write_report"]
