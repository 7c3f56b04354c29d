"""A picture of drift: scores then and now, how far each sense has moved, and by hour of day."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avad_hf.files import shown, written_whole
from avad_hf.metrics.drift import MOVED_SHIFT

from .timeline import EVENT_COLOUR, NAME_COLOURS, SCORE_COLOUR

COLOURS = {"sight": NAME_COLOURS["seen"], "sound": NAME_COLOURS["heard"], "scores": "#c77700"}
THEN_COLOUR = "0.72"
# Scores that are marked on the axis, which is that of their logits.
MARKED = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
NUM_BINS = 40
# Heights in inches: of the scores, of a bar, and of the hours.
SCORES_INCHES, BAR_INCHES, HOURS_INCHES = 3.0, 0.42, 2.2


def plot_drift(
    found: Mapping[str, Any],
    levels: tuple[np.ndarray, np.ndarray] | None,
    path: str | os.PathLike,
    title: str | None = None,
) -> None:
    """Draw what has moved, how far, and when.

    Args:
        found: `avad_hf.evaluation.drift.Drift.to_dict`.
        levels: Logits of the scores of clips then and now; ``None`` where scores were not compared.
        path: Name of the picture; its ending says the format (PNG, SVG, PDF).
        title: Above the picture, beside the advice.
    """
    # Not pyplot: it keeps state, and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    comparisons = found["comparisons"]
    has_hours = any(one["hours"] for one in comparisons.values())
    heights = [SCORES_INCHES] * (levels is not None) + [1.0 + BAR_INCHES * len(comparisons)]
    heights += [HOURS_INCHES] * has_hours
    figure = Figure(figsize=(9, sum(heights) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0].tolist()
    words = f"Advice: {found['advice']}" if title is None else f"{shown(title)}. Advice: {found['advice']}"
    figure.suptitle(words, fontsize=11, parse_math=False)
    if levels is not None:
        _draw_scores(axes.pop(0), found, levels)
    _draw_shifts(axes.pop(0), found)
    if has_hours:
        _draw_hours(axes.pop(0), found)
    with written_whole(path) as partial:
        # Named, since the unfinished file does not end with it.
        figure.savefig(partial, dpi=130, format=Path(path).suffix[1:] or "png")


def _draw_scores(axis: Any, found: Mapping[str, Any], levels: tuple[np.ndarray, np.ndarray]) -> None:
    """Draw the scores then and now, as shares of all clips, on an axis of logits."""
    limit = float(_logit(found["threshold"]))
    both = np.concatenate([*levels, [limit]])
    # Room at both ends; where scores are all alike, enough not to make them look different.
    room = max(0.05, 0.03 * (both.max() - both.min()))
    bins = np.linspace(both.min() - room, both.max() + room, NUM_BINS + 1)
    then, now = [np.full(len(one), 1 / len(one)) for one in levels]
    above = [f"{share:.2%} above the threshold" for share in found["above"]]
    axis.hist(levels[0], bins, weights=then, color=THEN_COLOUR, label=f"then, {above[0]}")
    axis.hist(
        levels[1], bins, weights=now, histtype="step", color=SCORE_COLOUR, linewidth=1.8, label=f"now, {above[1]}"
    )
    axis.axvline(limit, color=EVENT_COLOUR, linestyle="--", linewidth=1.2, label=f"threshold {found['threshold']:.6g}")
    marks = [score for score in MARKED if bins[0] <= _logit(score) <= bins[-1]]
    if marks:
        axis.set_xticks([_logit(score) for score in marks], [f"{score:g}" for score in marks])
    axis.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axis.set(xlabel="score", ylabel="share of clips", xlim=(bins[0], bins[-1]))
    axis.legend(loc="upper left", frameon=False, fontsize=9)


def _draw_shifts(axis: Any, found: Mapping[str, Any]) -> None:
    """Draw a bar for each thing that was compared: how far it has moved, and how far chance goes."""
    comparisons = found["comparisons"]
    rows = range(len(comparisons))
    for row, (name, one) in zip(rows, comparisons.items(), strict=True):
        colour = EVENT_COLOUR if name in found["moved"] else COLOURS[name]
        axis.barh(row, one["shift"], 0.6, color=colour)
        axis.plot([one["chance_shift"]] * 2, [row - 0.38, row + 0.38], color="0.15", linewidth=2)
        p = "too little footage" if one["p_value"] is None else f"p = {one['p_value']:.2g}"
        words = f"  {p}, spread {one['spread']:.2f}"
        axis.text(max(one["shift"], one["chance_shift"], MOVED_SHIFT), row, words, va="center", fontsize=9)
    axis.plot([], [], color="0.15", linewidth=2, label="chance: 95% of shifts without drift are smaller")
    axis.axvline(MOVED_SHIFT, color="0.5", linestyle=":", linewidth=1.2, label="large enough to do something")
    farthest = max(MOVED_SHIFT, *(max(one["shift"], one["chance_shift"]) for one in comparisons.values()))
    # Room for the words beside the bars.
    axis.set(xlabel="shift (standard deviations)", xlim=(0, farthest * 1.5), ylim=(len(comparisons) - 0.4, -0.6))
    axis.set_yticks(rows, list(comparisons))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)


def _draw_hours(axis: Any, found: Mapping[str, Any]) -> None:
    """Draw how far each thing has moved at each hour of the day, and which hours had no footage then."""
    for name, one in found["comparisons"].items():
        hours, shifts = ([hour[what] for hour in one["hours"]] for what in ("hour", "shift"))
        axis.plot(hours, shifts, "o-", color=COLOURS[name], mfc="white", markersize=5, linewidth=0.8, label=name)
        beyond = [(hour["hour"], hour["shift"]) for hour in one["hours"] if hour["shift"] > hour["chance_shift"]]
        axis.plot([hour for hour, _ in beyond], [shift for _, shift in beyond], "o", color=COLOURS[name], markersize=6)
    axis.plot([], [], "o", color="0.3", markersize=6, label="filled: beyond chance")
    for number, hour in enumerate(found["new_hours"]):
        axis.axvspan(
            hour - 0.5, hour + 0.5, color="0.9", linewidth=0, label="no footage then" if number == 0 else None
        )
    axis.axhline(MOVED_SHIFT, color="0.5", linestyle=":", linewidth=1.2)
    axis.set(xlabel="hour of day", ylabel="shift", xlim=(-0.6, 23.6))
    axis.set_ylim(bottom=0)
    axis.set_xticks(range(0, 24, 2), [f"{hour:02}:00" for hour in range(0, 24, 2)], fontsize=8)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False, fontsize=8)


def _logit(score: float) -> float:
    from scipy.special import logit

    return float(logit(np.clip(score, 1e-9, 1 - 1e-9)))


__all__ = ["plot_drift"]
