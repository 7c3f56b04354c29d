"""A comparison as Markdown and as CSV."""

import csv
import io
import math
from typing import TYPE_CHECKING

from avad_hf.metrics.resampling import Estimate

from .figures import FIGURES, Measured

if TYPE_CHECKING:
    from .compare import Comparison, Row, SceneTable

RANKED = ("video_auc", "clip_auc", "frame_auc", "within_auc", "average_precision")
WHAT_IS_FOUND = ("peak_hits", "false_alarms", "missed")


def cell(one: Measured | None) -> str:
    """A figure with its deviation and its interval."""
    if one is None or math.isnan(one.estimate.value):
        return "not defined"
    deviation = "" if math.isnan(one.deviation) else f" ± {one.deviation:.3f}"
    return f"{one.estimate.value:.3f}{deviation}{interval(one.estimate)}"


def interval(estimate: Estimate) -> str:
    """An interval in brackets; nothing where there is none."""
    low, high = estimate.interval
    return "" if math.isnan(low) else f" [{low:.3f}, {high:.3f}]"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table of texts."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join(lines + [f"| {' | '.join(one.replace('|', '/') for one in row)} |" for row in rows])


def markdown_of(found: "Comparison") -> str:
    """Tables of all scenes, and published figures beside."""
    parts = []
    for one in found.tables:
        parts += [f"## {one.scene or 'All videos'}", _counts(one), *_tables(one)]
    return "\n\n".join([*parts, *(f"{note}" for note in found.notes), *published_of(found)]) + "\n"


def _counts(one: "SceneTable") -> str:
    recordings = "" if one.num_recordings == one.num_tested else f" of {one.num_recordings} recordings"
    return f"{one.num_tested} test videos{recordings}, {one.num_anomalous} of them anomalous."


def _tables(one: "SceneTable") -> list[str]:
    parts = []
    for names, others in ((RANKED, []), (WHAT_IS_FOUND, ["parameters", "learning rates"])):
        shown = [name for name in names if any(name in row.figures for row in one.rows)]
        rows = [
            [row.candidate.title, *(cell(row.figures.get(name)) for name in shown), *(_facts(row) if others else [])]
            for row in one.rows
        ]
        parts.append(table(["detector", *(FIGURES[name] for name in shown), *others], rows))
    compared = [name for name in ("video_auc", "frame_auc") if any(name in row.differences for row in one.rows)]
    if compared:
        columns = [part for name in compared for part in (f"{FIGURES[name]} minus the best", "p")]
        rows = [
            [row.candidate.title, *(part for name in compared for part in _difference(row, name))] for row in one.rows
        ]
        parts.append(table(["detector", *columns], rows))
    return parts


def _facts(row: "Row") -> list[str]:
    rates = [rate for rate in row.rates if rate is not None]
    return [f"{row.parameters:,}", ", ".join(f"{rate:g}" for rate in sorted(set(rates))) or "none"]


def _difference(row: "Row", name: str) -> list[str]:
    if name not in row.figures:
        return ["not defined", ""]
    if name not in row.differences:
        return ["the best", ""]
    one = row.differences[name]
    return [f"{one.estimate.value:.3f}{interval(one.estimate)}", f"{one.p_value:.3f}"]


def published_of(found: "Comparison") -> list[str]:
    """Figures of the papers of these detectors, which were measured by others on other features."""
    seen: dict[str, list[str]] = {}
    for one in found.tables:
        for row in one.rows:
            architecture = row.candidate.architecture
            for what, figure in architecture.published.items():
                seen.setdefault(f"{architecture.title}{what}", [architecture.title, what, figure])
    if not seen:
        return []
    return [
        "As published, not measured here: other videos, other features, and the epoch often chosen on the test set.",
        table(["detector", "figure, and on what", "per cent"], list(seen.values())),
    ]


def seconds_of(found: "Comparison") -> str:
    """Seconds of each detector's runs: a file of its own, since no two runs take the same time."""
    rows = [
        [one.scene or "all videos", row.candidate.title, f"{row.seconds:.0f}"]
        for one in found.tables
        for row in one.rows
    ]
    return (
        "Seconds of training at all learning rates and of testing, over all divisions, one thread each on a CPU:\n\n"
        + table(["scene", "detector", "seconds"], rows)
        + "\n"
    )


def csv_of(found: "Comparison") -> str:
    """A row a scene, detector and figure."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(
        [
            *("scene", "detector", "figure", "mean", "deviation", "low", "high"),
            *("difference_to_best", "difference_low", "difference_high", "p_holm", "parameters"),
        ]
    )
    for one in found.tables:
        for row in one.rows:
            for name, value in row.figures.items():
                estimate, difference = value.estimate, row.differences.get(name)
                compared = [] if difference is None else [difference.estimate.value, *difference.estimate.interval]
                numbers = [estimate.value, value.deviation, *estimate.interval]
                compared += [] if difference is None else [difference.p_value]
                writer.writerow(
                    [one.scene or "", row.candidate.name, name]
                    + [_number(number) for number in numbers]
                    + [_number(number) for number in compared]
                    + [""] * (4 - len(compared))
                    + [row.parameters]
                )
    return lines.getvalue()


def _number(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.6f}"


__all__ = ["cell", "csv_of", "interval", "markdown_of", "published_of", "seconds_of", "table"]
