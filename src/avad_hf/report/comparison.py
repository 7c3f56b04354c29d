"""The page of a comparison of detectors: bars with intervals, curves, and tables."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from .html import count, pair, section, table, text, write_page
from .pictures import interval_image, mean_curves_image

# Figures of the tables, in their order, and what they are called.
RANKED = {
    "video_auc": "videos",
    "clip_auc": "clips",
    "frame_auc": "frames",
    "within_auc": "frames within anomalous videos",
}
FOUND = {
    "average_precision": "average precision",
    "peak_hits": "peak hits",
    "false_alarms": "false alarms",
    "missed": "missed",
}
HOW_TO_READ = (
    "Peak hits: the share of anomalous videos whose highest score is at an anomalous frame. False alarms and missed: "
    "shares of the normal and of the anomalous videos at the threshold of equal errors on validation videos. "
    "Differences are to the detector of the highest figure, on the same draws of test videos."
)


def write_comparison_page(
    document: Mapping[str, Any],
    curves: Mapping[str | None, Mapping[str, tuple[np.ndarray, np.ndarray]]],
    path: str | os.PathLike,
) -> Path:
    """Write a comparison as one HTML file that refers to nothing outside it.

    Args:
        document: What `Comparison.to_dict` gives.
        curves: By scene, ROC curves by the name of the detector: false alarm rates and recall, of shape `(N,)`.
        path: The file.
    """
    parts = []
    for one in document["scenes"]:
        detectors = one["detectors"]
        bars = {item["title"]: item["figures"]["video_auc"] for item in detectors}
        drawn = {item["title"]: curves[one["scene"]][item["name"]] for item in detectors}
        facts = [count(one["num_tested"], "test video"), f"{one['num_anomalous']:,} anomalous"]
        if one["num_recordings"] != one["num_tested"]:
            facts.append(count(one["num_recordings"], "recording"))
        content = [
            f'<p class="soft">{" &middot; ".join(map(text, facts))}</p>',
            pair(interval_image(bars, "ROC AUC of videos"), mean_curves_image(drawn)),
            _figures("ROC AUC", RANKED, detectors),
            _figures("What is found", FOUND, detectors),
            _differences(detectors),
        ]
        parts.append(section(text(one["scene"] or "All videos"), "\n".join(content)))
    parts.append(section("How to read this", f"<p>{text(HOW_TO_READ)}</p>"))
    number = max(len(one["detectors"]) for one in document["scenes"])
    return write_page(path, "Detectors compared", escape(count(number, "detector")), document["notes"], parts)


def _figures(caption: str, names: Mapping[str, str], detectors: list[dict[str, Any]]) -> str:
    shown = {name: words for name, words in names.items() if any(name in item["figures"] for item in detectors)}
    head = ["detector", *shown.values()]
    rows = [[text(item["title"]), *(_cell(item["figures"].get(name)) for name in shown)] for item in detectors]
    return table(caption, head, rows)


def _cell(figure: Mapping[str, Any] | None) -> str:
    if figure is None or np.isnan(figure["mean"]):
        return "&ndash;"
    deviation = "" if np.isnan(figure["deviation"]) else f" &plusmn; {figure['deviation']:.3f}"
    low, high = figure["interval_95"]
    limits = "" if np.isnan(low) else f"<br><small>{low:.3f} to {high:.3f}</small>"
    return f"{figure['mean']:.3f}{deviation}{limits}"


def _differences(detectors: list[dict[str, Any]]) -> str:
    rows = []
    for item in detectors:
        cells = [text(item["title"])]
        for name in ("video_auc", "frame_auc"):
            one = item["differences_to_best"].get(name)
            if one is None:
                cells.append("the best" if name in item["figures"] else "&ndash;")
                continue
            low, high = one["interval_95"]
            limits = "" if np.isnan(low) else f"<br><small>{low:.3f} to {high:.3f}, p {one['p_holm']:.3f}</small>"
            cells.append(f"{one['difference']:.3f}{limits}")
        rates = sorted({rate for rate in item["learning_rates"] if rate is not None})
        cells += [f"{item['parameters']:,}", ", ".join(f"{rate:g}" for rate in rates) or "&ndash;"]
        rows.append(cells)
    head = ["detector", "videos", "frames", "parameters", "learning rates"]
    return table("ROC AUC minus that of the best", head, rows)


__all__ = ["write_comparison_page"]
