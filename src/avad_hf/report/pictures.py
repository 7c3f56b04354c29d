"""Pictures of an evaluation, as HTML images that carry their own data: curves, histograms, scores over time."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import Any, Literal

import numpy as np

from avad_hf.files import shown
from avad_hf.metrics.ranking import Ranking

from .timeline import EVENT_COLOUR, SCORE_COLOUR, score_edges

COLOURS = {"videos": SCORE_COLOUR, "clips": "#c77700", "normal": SCORE_COLOUR, "anomalous": EVENT_COLOUR}
# Twice the pixels of a usual screen, so that pictures stay sharp on fine screens and on paper.
DOTS_PER_INCH, PIXELS_PER_INCH = 192, 96


def shown_score(score: float) -> str:
    """A score in figures; with fewer than four places, it could look equal to a threshold next to it."""
    return f"{score:.4f}" if score == 0 or score >= 0.001 else f"{score:.2g}"


def curve_image(kind: Literal["roc", "precision_recall"], rankings: Mapping[str, Ranking], threshold: float) -> str:
    """ROC or precision-recall curves of videos and of clips, with what the threshold gives marked on them.

    Args:
        kind: Which curves.
        rankings: By name; each must hold both classes.
        threshold: Score from which on something is called anomalous.
    """
    figure, (axes,) = _figure(4.8, 4.2)
    areas = []
    for name, ranking in rankings.items():
        if kind == "roc":
            curve, area = ranking.roc(), ranking.roc_auc()
        else:
            # Steps, so that the drawn area is the average precision by steps.
            curve, area = ranking.precision_recall(), ranking.average_precision("step")
            axes.axhline(curve.y[-1], color=COLOURS[name], linestyle=":", linewidth=1)
        areas.append(f"{name}, area {area:.3f}")
        axes.plot(
            *_thinned(curve.x, curve.y),
            color=COLOURS[name],
            drawstyle="default" if kind == "roc" else "steps-pre",
            linewidth=1.8,
            label=areas[-1],
        )
        at = np.flatnonzero(curve.thresholds >= threshold)[-1]
        axes.plot(
            curve.x[at],
            curve.y[at],
            "o",
            color=COLOURS[name],
            markersize=8,
            markeredgecolor="white",
            clip_on=False,
            zorder=3,
        )
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
        axes.set(xlabel="false alarm rate", ylabel="recall")
    else:
        axes.set(xlabel="recall", ylabel="precision")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
    axes.plot([], [], "o", color="0.4", markersize=7, label="at the threshold")
    axes.plot([], [], ":", color="0.4", linewidth=1, label="chance")
    place = "lower right" if kind == "roc" else "lower left"
    axes.legend(fontsize=8, framealpha=0.85, edgecolor="none", loc=place)
    name = {"roc": "ROC curves", "precision_recall": "Precision-recall curves"}[kind]
    return _image(figure, f"{name}: {'; '.join(areas)}.")


def histogram_image(scores: Mapping[str, np.ndarray], threshold: float) -> str:
    """Scores of normal and of anomalous videos, one above the other, with the threshold.

    Args:
        scores: Scores of shape `(N,)`, by ``"normal"`` and ``"anomalous"``.
        threshold: Score from which on a video is called anomalous.
    """
    values = np.concatenate([[threshold], *scores.values()])
    # Never closer than a tenth, which would make scores that are all alike look different.
    middle, half = (values.min() + values.max()) / 2, max(0.05, (values.max() - values.min()) / 2)
    bins = np.linspace(middle - half, middle + half, 31)
    figure, panels = _figure(4.8, 0.8 + 1.4 * len(scores), len(scores))
    for axes, (name, group) in zip(panels, scores.items(), strict=True):
        axes.hist(group, bins, color=COLOURS[name], alpha=0.85)
        axes.axvline(threshold, color="0.25", linestyle="--", linewidth=1.2)
        axes.set_ylabel(f"{name} videos")
        axes.yaxis.get_major_locator().set_params(integer=True)
    panels[-1].set_xlabel("score (dashed: threshold)")
    medians = " and ".join(f"{name} videos, median {shown_score(np.median(group))}" for name, group in scores.items())
    return _image(figure, f"Histogram of the scores of {medians}; threshold {shown_score(threshold)}.")


def interval_image(figures: Mapping[str, Mapping[str, Any]], what: str) -> str:
    """A figure of several systems as points with their intervals, the first on top.

    Args:
        figures: By the name of the system ``mean`` and ``interval_95``; NaN where it is not defined.
        what: Name of the figure.
    """
    figure, (axes,) = _figure(4.8, 1.0 + 0.32 * len(figures))
    names = [shown(name) for name in figures]
    for place, one in enumerate(figures.values()):
        low, high = one["interval_95"]
        axes.plot([low, high], [place, place], color=SCORE_COLOUR, linewidth=2.2, alpha=0.55)
        axes.plot(one["mean"], place, "o", color=SCORE_COLOUR, markersize=6)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=what)
    said = "; ".join(f"{name} {one['mean']:.3f}" for name, one in zip(names, figures.values(), strict=True))
    return _image(figure, f"{what}: {said}.")


def mean_curves_image(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """ROC curves of several systems.

    Args:
        curves: By the name of the system false alarm rates and recall, of shape `(N,)`.
    """
    from matplotlib import colormaps

    figure, (axes,) = _figure(4.8, max(4.2, 1.0 + 0.32 * len(curves)))
    colours = colormaps["tab10" if len(curves) <= 10 else "tab20"].colors
    for number, (name, (x, y)) in enumerate(curves.items()):
        style = "-" if number < len(colours) else "--"
        colour = colours[number % len(colours)]
        axes.plot(x, y, style, color=colour, linewidth=1.5, label=shown(name).replace("$", r"\$"))
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel="false alarm rate", ylabel="recall")
    axes.legend(fontsize=7, framealpha=0.85, edgecolor="none", loc="lower right")
    return _image(figure, f"ROC curves of videos, mean over divisions: {', '.join(map(shown, curves))}.")


def confusion_image(matrix: np.ndarray, names: Sequence[str]) -> str:
    """What videos of each class were called, as counts on a tint that is their share of the row.

    Args:
        matrix: Counts of shape `(N, N)`: rows are what videos are, columns what they are called.
        names: Names of the classes.
    """
    names = [shown(name) for name in names]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.38 * len(names)
    figure, (axes,) = _figure(side, side)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(places, names, parse_math=False)
    axes.set(xlabel="called", ylabel="is")
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.6 else "0.2"
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, color=colour)
    right = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, shares.diagonal(), strict=True))
    return _image(figure, f"Confusion matrix of {int(matrix.sum())} videos; called what they are: {right}.")


def timeline_image(video: dict[str, Any], threshold: float) -> str:
    """Score of one video over time, with its labelled anomalous stretches shaded where they are known.

    Args:
        video: One video of an evaluation.
        threshold: Score from which on a clip is called anomalous.
    """
    values, edges = [clip["score"] for clip in video["clips"]], score_edges(video["clips"])
    figure, (axes,) = _figure(4.8, 1.6)
    for start, end in video["anomalous_frames"] or ():
        axes.axvspan(start, end, color=EVENT_COLOUR, alpha=0.18, linewidth=0)
    axes.stairs(values, edges, baseline=None, color=SCORE_COLOUR, linewidth=1.6 if len(values) < 200 else 0.6)
    # On white, so that it is seen before hundreds of clips too.
    axes.axhline(threshold, color="white", linewidth=2.4, alpha=0.7)
    axes.axhline(threshold, color="0.15", linestyle="--", linewidth=1)
    axes.set(ylim=(0, 1.02), yticks=(0, 0.5, 1), xlim=(0, max(video["duration"] or 0, edges[-1])), xlabel="time (s)")
    best = int(np.argmax(values))
    return _image(
        figure,
        f"Score of {video['id']} over time: highest {shown_score(values[best])} at {edges[best]:.1f} s, "
        f"threshold {shown_score(threshold)}.",
    )


def _figure(width: float, height: float, rows: int = 1) -> tuple[Any, Any]:
    """A picture of some inches, and its axes one above the other."""
    # Not pyplot: it keeps state, and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("0.6")
        axes.grid(color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, color="0.6")
        for axis in (axes.xaxis, axes.yaxis):
            axis.label.set_size(9)
    return figure, panels


def _image(figure: Any, alt: str) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    width, height = (round(inches * PIXELS_PER_INCH) for inches in figure.get_size_inches())
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(shown(alt))}">'


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a curve without those that fall on the same pixel as the one before: there may be millions."""
    cells = np.round(np.stack([x, y]) * 1000)
    kept = np.append(True, (np.diff(cells) != 0).any(axis=0))
    kept[-1] = True
    return x[kept], y[kept]


__all__ = [
    "confusion_image",
    "curve_image",
    "histogram_image",
    "interval_image",
    "mean_curves_image",
    "shown_score",
    "timeline_image",
]
