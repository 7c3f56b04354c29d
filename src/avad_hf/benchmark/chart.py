"""One picture of a benchmark: how long a second of video takes, where the time goes, how near the peaks it comes."""

import os
from typing import Any

from .backends import PUBLIC_PARTS
from .stages import NETWORK_STAGES

# Colours of bars by height, from light to dark; of stages; of the real-time line.
BLUES = ("#9ecae1", "#4292c6", "#08519c", "#08306b")
STAGE_COLOURS = {
    "frames": "#7f8c8d",
    "sound": "#c2c9ca",
    "log_mel": "#f2c14e",
    "video_encoder": "#4292c6",
    "audio_encoder": "#c77700",
    "detector": "#6b9e4f",
}
LINE_COLOUR = "#b22222"
DOTS_PER_INCH = 160
# Behind the numbers, which may cross a line.
LABEL_BOX = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def draw_chart(result: dict[str, Any], path: str | os.PathLike) -> None:
    """Draw the figures of a benchmark.

    Args:
        result: Result of [`~avad_hf.benchmark.run.benchmark`].
        path: The picture; its ending says its format.
    """
    # Not pyplot: it keeps state, and may look for a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["backend"] for row in result["times"]))
    ours = list(result["networks"]["backends"])
    heights = [1.1 + 0.24 * len(names) * len(result["videos"]), 1.1 + 0.36 * len(ours), 1.1 + 0.36 * len(ours)]
    figure = Figure(figsize=(9, sum(heights) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, 1, height_ratios=heights)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("0.6")
        axes.grid(axis="x", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=9, color="0.6")
    _draw_times(panels[0], result, names)
    _draw_stages(panels[1], result, ours)
    _draw_peaks(panels[2], result, ours)
    machine = result["machine"]
    figure.suptitle(
        f"avad-hf benchmark: {machine['cores']} cores of {machine['cpu']}"
        + (f" and {machine['gpu']}" if machine["gpu"] else "")
        + f", {machine['date'][:10]}",
        fontsize=11,
    )
    figure.savefig(path, dpi=DOTS_PER_INCH)


def _draw_times(axes: Any, result: dict[str, Any], names: list[str]) -> None:
    """Bars from file to scores, in parts of the video's length."""
    heights = list(result["settings"]["heights"])
    thickness = 0.8 / len(heights)
    for number, height in enumerate(heights):
        rows = {row["backend"]: row for row in result["times"] if row["height"] == height}
        kept = [name for name in names if name in rows]
        centres = [names.index(name) + (number - (len(heights) - 1) / 2) * thickness for name in kept]
        factors = [rows[name]["real_time_factor"] for name in kept]
        colour = BLUES[min(number, len(BLUES) - 1)]
        axes.barh(centres, factors, 0.9 * thickness, color=colour, label=f"{height}p")
        for centre, name, factor in zip(centres, kept, factors, strict=True):
            ratio = rows[name].get("times_as_fast_as_public_parts")
            beside = "" if ratio is None or name == PUBLIC_PARTS else f"  ({ratio:.1f} times as fast)"
            axes.text(factor, centre, f" {factor:.2f}{beside}", va="center", fontsize=7.5, bbox=LABEL_BOX)
    axes.axvline(1, color=LINE_COLOUR, linestyle="--", linewidth=1.2, label="real time")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    longest = max(row["real_time_factor"] for row in result["times"])
    axes.set(xlim=(0, 1.18 * max(1, longest)), xlabel="seconds from file to scores, for a second of video")
    _add_legend(axes)


def _draw_stages(axes: Any, result: dict[str, Any], names: list[str]) -> None:
    """The stages one after the other, stacked, for each backend."""
    networks = result["networks"]
    media = result["media"][f"{networks['height']}p"]["seconds"]
    duration_s = result["videos"][f"{networks['height']}p"]["duration_s"]
    left = [0.0] * len(names)
    for stage, colour in STAGE_COLOURS.items():
        if stage in NETWORK_STAGES:
            clips = networks["num_clips"]
            seconds = [networks["backends"][name]["seconds_per_clip"][stage] * clips for name in names]
        else:
            seconds = [min(media[stage])] * len(names)
        parts = [value / duration_s for value in seconds]
        label = {"frames": "decode and scale"}.get(stage, stage.replace("_", " "))
        axes.barh(range(len(names)), parts, 0.7, left=left, color=colour, label=label)
        left = [begin + part for begin, part in zip(left, parts, strict=True)]
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel=f"seconds of each stage on its own, for a second of {networks['height']}p")
    _add_legend(axes)


def _draw_peaks(axes: Any, result: dict[str, Any], names: list[str]) -> None:
    """GFLOP/s of the video encoder, with the measured peaks of its numbers as marks."""
    networks = result["networks"]
    for row, name in enumerate(names):
        achieved = networks["backends"][name]["video_encoder_gflops"]
        axes.barh(row, achieved, 0.7, color=STAGE_COLOURS["video_encoder"])
        entry = result["backends"][name]
        peak = networks["peaks"].get(f"{entry['device']}-{entry['precision']}")
        if peak is not None:
            for key, style in (("matmul_gflops", "-"), ("convolution_gflops", ":")):
                axes.plot([peak[key]] * 2, [row - 0.42, row + 0.42], style, color=LINE_COLOUR, linewidth=2)
        axes.text(achieved, row, f" {achieved:.0f}", va="center", fontsize=8)
    axes.plot([], [], "-", color=LINE_COLOUR, linewidth=2, label="measured peak: matmul")
    axes.plot([], [], ":", color=LINE_COLOUR, linewidth=2, label="3-D convolution")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="GFLOP/s of the video encoder")
    _add_legend(axes)


def _add_legend(axes: Any) -> None:
    """Above the panel, where no bar is."""
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(fontsize=8, frameon=False, ncols=6, columnspacing=1.4, **above)


__all__ = ["draw_chart"]
