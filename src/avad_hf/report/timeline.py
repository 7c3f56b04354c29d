"""A picture of one result: the score over time, why events are events, what is seen and heard, and the sound."""

import os
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from avad_hf.detection.explaining import reason
from avad_hf.files import shown, written_whole
from avad_hf.media.audio import sound_level
from avad_hf.media.sources import open_media

SCORE_COLOUR, EVENT_COLOUR, SOUND_COLOUR = "#1f4e79", "#c62828", "#5f7f5f"
NAME_COLOURS = {"seen": "#3b6ea5", "heard": "#4f8a5b"}
# Names of each sense that have a lane of their own, those that last longest: more would be too small to read.
MOST_LANES = 7
OTHER = "(other)"
# Share of colour, and not of white, in a bar whose name has no probability: it can still be seen.
LEAST_COLOUR = 0.2
# Heights in inches: of the score, of the sound with its axis, and of a lane.
SCORE_INCHES, SOUND_INCHES, LANE_INCHES = 3.45, 1.15, 0.24
# Rows of reasons, of which the highest events get room first, and letters of each: more would hide each other.
REASON_ROWS, REASON_LETTERS = 4, 100
# Share of the width that a letter of a reason takes.
LETTER_WIDTH = 0.0066


def score_edges(clips: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds at which the shown score changes: a clip counts until the next one starts, also where clips overlap."""
    return [clip["start"] for clip in clips] + [clips[-1]["end"]]


def name_lanes(clips: Sequence[dict[str, Any]], sense: str) -> dict[str, list[tuple[float, float, float]]]:
    """When each name is the most probable one: start and length of the stretches, in seconds, and its mean score.

    Args:
        clips: With what is ``"seen"`` and ``"heard"`` in them.
        sense: Which of the two.

    Returns:
        A lane for each name, the longest first; what has none is in a last one. Clips without names are left out.
    """
    edges = score_edges(clips)
    names = [clip[sense][0]["label"] if clip[sense] else None for clip in clips]
    scores = [clip[sense][0]["score"] if clip[sense] else 0.0 for clip in clips]
    lasts: Counter[str] = Counter()
    for name, start, end in zip(names, edges, edges[1:], strict=False):
        if name is not None:
            lasts[name] += end - start
    own = [name for name, _ in lasts.most_common(MOST_LANES)]
    lanes: dict[str, list[tuple[float, float, float]]] = {name: [] for name in own}
    names = [name if name in own or name is None else OTHER for name in names]
    for name, stretch in groupby(range(len(clips)), key=lambda number: names[number]):
        numbers = list(stretch)
        if name is not None:
            begin, score = edges[numbers[0]], fmean(scores[number] for number in numbers)
            lanes.setdefault(name, []).append((begin, edges[numbers[-1] + 1] - begin, score))
    return lanes


def reason_rows(result: dict[str, Any]) -> list[list[tuple[float, str, dict[str, Any]]]]:
    """Where the reasons of events are written, so that none hides another.

    Returns:
        Rows, each with where a reason begins, in seconds, its words, and its event. Reasons for which there is no room
        are left out, those of the highest events last.
    """
    rows: list[list[tuple[float, str, dict[str, Any]]]] = []
    taken: list[list[tuple[float, float]]] = []
    for event in sorted(result.get("events", ()), key=lambda event: -event["score"]):
        words = reason(event.get("why"))
        words = f"{event['start']:.1f} s, {shown(words)}"[:REASON_LETTERS] if words else ""
        width = len(words) * LETTER_WIDTH * result["duration"]
        begin = max(0.0, min(event["start"], result["duration"] - width))
        for row in range(REASON_ROWS if words else 0):
            if row == len(rows):
                rows.append([])
                taken.append([])
            if all(begin >= end or begin + width <= start for start, end in taken[row]):
                rows[row].append((begin, words, event))
                taken[row].append((begin, begin + width))
                break
    return rows


def plot_timeline(result: dict[str, Any], source: Any, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw the score over time with the events and their reasons, what is seen and heard, and the level of the sound.

    Args:
        result: Result of the pipeline, or of `avad_hf.describe`.
        source: The video it was made from, for the sound.
        path: Name of the picture; its ending says the format (PNG, SVG, PDF).
        title: Above the picture; the video's name by default.
    """
    # Not pyplot: it keeps state, and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lanes = {sense: name_lanes(result["clips"], sense) for sense in NAME_COLOURS if sense in result}
    lanes = {sense: found for sense, found in lanes.items() if found}
    rows = reason_rows(result)
    heights = [SCORE_INCHES] * ("score" in result) + [(len(rows) + 1.5) * LANE_INCHES] * bool(rows)
    heights += [(max(2, len(found)) + 1) * LANE_INCHES for found in lanes.values()] + [SOUND_INCHES]
    figure = Figure(figsize=(10, max(sum(heights), 2)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0].tolist()
    top, sound = axes[0], axes[-1]
    if "score" in result:
        _draw_score(axes.pop(0), result)
    if rows:
        _draw_reasons(axes.pop(0), result, rows)
    for axis, (sense, found) in zip(axes, lanes.items(), strict=False):
        _draw_lanes(axis, sense, found)
    top.set_xlim(0, result["duration"])

    with open_media(source) as media:
        name = shown(title or Path(media.info.name).name)
        top.set_title(name, loc="right", fontsize=10, parse_math=False)
        # About a thousand values, whatever the length.
        step = max(0.05, result["duration"] / 1000)
        if result["has_audio"]:
            times, levels = sound_level(media.sound(16000), result["duration"], step)
            sound.fill_between(times, levels, -80, color=SOUND_COLOUR, linewidth=0)
        else:
            sound.text(0.5, 0.5, "no sound", transform=sound.transAxes, ha="center", va="center", color="0.4")
    sound.set(ylabel="sound (dBFS)", xlabel="time (s)", ylim=(-80, 0))
    if lanes:
        sound.set_xlabel("time (s); names are paler where they are less probable")
        figure.align_ylabels()
    if result["warnings"]:
        warnings = "\n".join(map(shown, result["warnings"]))
        figure.supxlabel(warnings, fontsize=8, color=EVENT_COLOUR, parse_math=False)
    with written_whole(path) as partial:
        # Named, since the unfinished file does not end with it.
        figure.savefig(partial, dpi=130, format=Path(path).suffix[1:] or "png")


def _draw_score(axis: Any, result: dict[str, Any]) -> None:
    """Draw the score of each clip, and the events."""
    axis.stairs(
        [clip["score"] for clip in result["clips"]],
        score_edges(result["clips"]),
        baseline=None,
        color=SCORE_COLOUR,
        linewidth=1.8,
        label="score of each clip",
    )
    if result["label"] is not None:  # else the threshold says nothing of this video
        axis.axhline(result["threshold"], color="0.4", linestyle="--", linewidth=1, label="threshold")
    for index, event in enumerate(result["events"]):
        axis.axvspan(
            event["start"],
            event["end"],
            color=EVENT_COLOUR,
            alpha=0.18,
            linewidth=0,
            label="event" if index == 0 else None,
        )
        if event["label"] != "anomaly":
            middle = (event["start"] + event["end"]) / 2
            name = shown(event["label"])
            axis.text(middle, 0.03, name, ha="center", color=EVENT_COLOUR, fontsize=9, parse_math=False)
    axis.set(ylabel="anomaly score", ylim=(0, 1.02))
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9)


def _draw_reasons(axis: Any, result: dict[str, Any], rows: list[list[tuple[float, str, dict[str, Any]]]]) -> None:
    """Draw a bar an event, in parts as large as the shares of sight and sound, and write its reason below it."""
    for event in result["events"]:
        if reason(why := event.get("why")):
            left, width = event["start"], event["end"] - event["start"]
            for sense, bottom, height in (("seen", 0.4 - why["sight"], why["sight"]), ("heard", -0.6, why["sound"])):
                colour = NAME_COLOURS[sense]
                axis.bar(left, height, width, bottom, align="edge", color=colour, edgecolor="white", linewidth=0.6)
    for row, reasons in enumerate(rows, 1):
        for begin, words, event in reasons:
            colour = NAME_COLOURS["heard" if event["why"]["sound"] > event["why"]["sight"] else "seen"]
            axis.text(begin, row, words, color=colour, fontsize=8, va="center", parse_math=False)
    axis.set(ylabel="why", ylim=(len(rows) + 0.6, -0.7), yticks=[])


def _draw_lanes(axis: Any, sense: str, lanes: dict[str, list[tuple[float, float, float]]]) -> None:
    """Draw when each name is the most probable one."""
    for row, stretches in enumerate(lanes.values()):
        colours = [_paler(NAME_COLOURS[sense], score) for _, _, score in stretches]
        spans = [(begin, length) for begin, length, _ in stretches]
        # With an edge, or short stretches of a long video would not be seen.
        axis.broken_barh(spans, (row - 0.35, 0.7), facecolors=colours, edgecolors=colours, linewidth=0.4)
    axis.set_yticks(range(len(lanes)), [shown(name) for name in lanes], fontsize=8, parse_math=False)
    axis.set(ylabel=sense, ylim=(max(2, len(lanes)) - 0.4, -0.6))
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)


def _paler(colour: str, score: float) -> tuple[float, ...]:
    """A colour, mixed with white where the score is low."""
    from matplotlib.colors import to_rgb

    share = LEAST_COLOUR + (1 - LEAST_COLOUR) * score
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))
