"""How well AVACA names the classes of videos: top-1 of each class, and what is taken for what."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from avad_hf.corpora.classes import MAVAD_CLASSES
from avad_hf.models.avaca.configuration_avaca import AvacaConfig

from .protocol import Figure


def class_settings(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Settings of a detector that names the classes of a scene: MAVAD's eleven, or its own where it has others.

    Returns:
        ``None`` for fewer than three classes: of two the score says all.
    """
    found = {row["label"] for row in rows}
    if len(found) < 3:
        return None
    is_mavads = found <= set(MAVAD_CLASSES.names)
    settings = AvacaConfig.class_settings(rows, len(MAVAD_CLASSES.names) if is_mavads else len(found))
    # As JSON has them, for a run that goes on to know its settings again.
    names = {str(number): name for number, name in settings["id2label"].items()}
    return {"id2label": names, "normal_labels": settings["normal_labels"]}


def classes_as_markdown(runs: Mapping[str, Sequence[dict[str, Any]]], areas: Mapping[str, str]) -> str:
    """Tables of detectors that name classes.

    Args:
        runs: By scene, the figures of a detector of each split.
        areas: By scene, the AUC of its videos, by the scores of the same detectors.

    Raises:
        ValueError: Without a scene.
    """
    if not runs:
        raise ValueError("No scene has three classes or more, and of two the score says all. Leave classes out.")
    events = {scene: [run["events"] for run in found] for scene, found in runs.items()}
    names = {scene: list(found[0]["top1_recall"]) for scene, found in events.items()}
    shown = [
        name
        for name in dict.fromkeys(chain(*names.values()))
        if any(_videos(found, name) for found in events.values())
    ]
    lines = [
        [name, *(_over_splits([one["top1_recall"].get(name) for one in found]) for found in events.values())]
        for name in shown
    ]
    for name, key in (("all videos", "top1_accuracy"), ("mean over classes", "top1_macro")):
        lines.append([name, *(_over_splits([one[key] for one in found]) for found in events.values())])
    lines.append(["AUC of videos, by the score", *(areas[scene] for scene in events)])
    parts = [
        "Share of each class's test videos that is called what it is, in per cent:",
        _table(["class", *events], lines),
    ]
    for scene, found in events.items():
        counts = np.sum([one["confusion_matrix"] for one in found], axis=0)
        there = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
        head = [names[scene][number] for number in there]
        rows = [[name, *map(str, counts[number][there])] for name, number in zip(head, there, strict=True)]
        parts += [f"{scene}, what test videos of all splits are called:", _table(["what it is", *head], rows)]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def _videos(found: Sequence[dict[str, Any]], name: str) -> int:
    return sum(one["num_videos"].get(name, 0) for one in found)


def _over_splits(values: Sequence[float | None]) -> str:
    """Mean and deviation over the splits that have such test videos; a dash where none has."""
    known = [value for value in values if value is not None]
    return str(Figure(known)) if known else "-"


__all__ = ["class_settings", "classes_as_markdown"]
