"""A picture of one result: the score over time, and the sound below it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avad_hf.files import shown, written_whole
from avad_hf.media.audio import sound_level
from avad_hf.media.sources import open_media

SCORE_COLOUR, EVENT_COLOUR, SOUND_COLOUR = "#1f4e79", "#c62828", "#5f7f5f"


def score_edges(clips: Sequence[dict[str, Any]]) -> list[float]:
    """Seconds at which the shown score changes: a clip counts until the next one starts, also where clips overlap."""
    return [clip["start"] for clip in clips] + [clips[-1]["end"]]


def plot_timeline(result: dict[str, Any], source: Any, path: str | os.PathLike, title: str | None = None) -> None:
    """Draw the score over time with the events, and the level of the sound below it.

    Args:
        result: Of the pipeline.
        source: The video it was made from, for the sound.
        path: Of the picture; its ending says the format (PNG, SVG, PDF).
        title: Above the picture; the video's name by default.
    """
    # Not pyplot: it keeps state, and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    score, sound = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))

    values = [clip["score"] for clip in result["clips"]]
    score.stairs(
        values,
        score_edges(result["clips"]),
        baseline=None,
        color=SCORE_COLOUR,
        linewidth=1.8,
        label="score of each clip",
    )
    score.axhline(result["threshold"], color="0.4", linestyle="--", linewidth=1, label="threshold")
    for index, event in enumerate(result["events"]):
        score.axvspan(
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
            score.text(middle, 0.03, name, ha="center", color=EVENT_COLOUR, fontsize=9, parse_math=False)
    score.set(ylabel="anomaly score", ylim=(0, 1.02), xlim=(0, result["duration"]))
    score.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9)

    with open_media(source) as media:
        name = shown(title or Path(media.info.name).name)
        score.set_title(name, loc="right", fontsize=10, parse_math=False)
        # About a thousand values, whatever the length.
        step = max(0.05, result["duration"] / 1000)
        if result["has_audio"]:
            times, levels = sound_level(media.sound(16000), result["duration"], step)
            sound.fill_between(times, levels, -80, color=SOUND_COLOUR, linewidth=0)
        else:
            sound.text(0.5, 0.5, "no sound", transform=sound.transAxes, ha="center", va="center", color="0.4")
    sound.set(ylabel="sound (dBFS)", xlabel="time (s)", ylim=(-80, 0))
    if result["warnings"]:
        warnings = "\n".join(map(shown, result["warnings"]))
        figure.supxlabel(warnings, fontsize=8, color=EVENT_COLOUR, parse_math=False)
    with written_whole(path) as partial:
        # Named, since the unfinished file does not end with it.
        figure.savefig(partial, dpi=130, format=Path(path).suffix[1:] or "png")
