"""Pictures of results: the score over time, and the video with its score burnt in."""

import bisect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avad_hf.media.audio import sound_level
from avad_hf.media.decode import MediaError, MediaFile
from avad_hf.media.encode import write_video, written_whole
from avad_hf.media.sources import open_media

SCORE_COLOUR, EVENT_COLOUR, SOUND_COLOUR = "#1f4e79", "#c62828", "#5f7f5f"


def _edges(result: dict[str, Any]) -> list[float]:
    """Times at which the shown score changes: a clip counts until the next one starts, also where clips overlap."""
    return [clip["start"] for clip in result["clips"]] + [result["clips"][-1]["end"]]


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
    score.stairs(values, _edges(result), baseline=None, color=SCORE_COLOUR, linewidth=1.8, label="score of each clip")
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
    score.set(ylabel="anomaly score", ylim=(0, 1.02), xlim=(0, result["duration"]))
    score.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=9)

    with open_media(source) as media:
        score.set_title(title or Path(media.info.name).name, loc="right", fontsize=10, parse_math=False)
        # About a thousand values, whatever the length.
        step = max(0.05, result["duration"] / 1000)
        if result["has_audio"]:
            times, levels = sound_level(media.sound(16000), result["duration"], step)
            sound.fill_between(times, levels, -80, color=SOUND_COLOUR, linewidth=0)
        else:
            sound.text(0.5, 0.5, "no sound", transform=sound.transAxes, ha="center", va="center", color="0.4")
    sound.set(ylabel="sound (dBFS)", xlabel="time (s)", ylim=(-80, 0))
    if result["warnings"]:
        figure.supxlabel("\n".join(result["warnings"]), fontsize=8, color=EVENT_COLOUR, parse_math=False)
    with written_whole(path) as partial:
        # Named, since the unfinished file does not end with it.
        figure.savefig(partial, dpi=130, format=Path(path).suffix[1:] or "png")


def render_overlay(
    result: dict[str, Any],
    source: Any,
    path: str | os.PathLike,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Write the video again as MP4 with its score, timeline and events burnt into the picture, and its sound kept.

    Args:
        result: Of the pipeline.
        source: The video it was made from; a file, not arrays.
        path: Of the MP4.
        on_progress: Called after each frame with its time in seconds.

    Raises:
        TypeError: For arrays, folders of pictures and stretches of a video.
        MediaError: If the video cannot be read.
    """
    with open_media(source) as media:
        if not isinstance(media, MediaFile):
            raise TypeError(f"An overlay is made from a whole video file, not from a {type(media).__name__}.")
        # H.264 has half as many colour samples as pixels: sides must be even.
        width, height = media.info.width // 2 * 2, media.info.height // 2 * 2
        if min(width, height) < 32:
            raise MediaError(
                f"{media.name}: {media.info.width} x {media.info.height} pixels are too few to draw into."
            )
        painter = _OverlayPainter(result, width, height)

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            for frame in media.frames(None):
                image = Image.fromarray(frame.pixels[:, :height, :width].permute(1, 2, 0).contiguous().numpy())
                yield frame.start, np.asarray(painter.paint(image, frame.start))
                if on_progress is not None:
                    on_progress(frame.end)

        write_video(path, pictures(), (width, height), media.info.fps, sound_of=media)


class _OverlayPainter:
    """Draws what belongs to one moment: a strip with the score of the whole video, a cursor, and the score now."""

    def __init__(self, result: dict[str, Any], width: int, height: int):
        self.result = result
        self.starts = [clip["start"] for clip in result["clips"]]
        self.font = ImageFont.load_default(max(10, height // 24))
        self.line = max(1, height // 180)
        strip = max(24, height // 7)
        # Left, top, right and bottom of the timeline; the score in figures stands right of it.
        self.box = (self.line * 4, height - strip + self.line * 4, round(width * 0.8), height - self.line * 4)
        self.strip = Image.new("RGBA", (width, height))
        draw = ImageDraw.Draw(self.strip)
        draw.rectangle((0, height - strip, width, height), fill=(0, 0, 0, 170))
        left, top, right, bottom = self.box
        for event in result["events"]:
            draw.rectangle((self._x(event["start"]), top, self._x(event["end"]), bottom), fill=(120, 30, 30, 200))
        threshold = self._y(result["threshold"])
        draw.line((left, threshold, right, threshold), fill=(255, 255, 255, 120), width=self.line)
        edges = _edges(result)
        points = [
            (self._x(edge), self._y(clip["score"]))
            for index, clip in enumerate(result["clips"])
            for edge in edges[index : index + 2]
        ]
        draw.line(points, fill=(120, 190, 255, 255), width=self.line * 2)
        if result["warnings"]:
            small, text, place = (
                ImageFont.load_default(max(8, height // 40)),
                "\n".join(result["warnings"]),
                (left, left),
            )
            x0, y0, x1, y1 = draw.multiline_textbbox(place, text, font=small)
            draw.rectangle((x0 - left, y0 - left, x1 + left, y1 + left), fill=(0, 0, 0, 170))
            draw.multiline_text(place, text, font=small, fill=(255, 200, 120, 255))

    def _x(self, seconds: float) -> float:
        left, _, right, _ = self.box
        return left + (right - left) * min(1.0, seconds / self.result["duration"])

    def _y(self, score: float) -> float:
        _, top, _, bottom = self.box
        return bottom - (bottom - top) * score

    def paint(self, image: Image.Image, seconds: float) -> Image.Image:
        clip = self.result["clips"][max(0, bisect.bisect_right(self.starts, seconds + 1e-6) - 1)]
        image = Image.alpha_composite(image.convert("RGBA"), self.strip).convert("RGB")
        draw = ImageDraw.Draw(image)
        _, top, right, bottom = self.box
        draw.line((self._x(seconds), top, self._x(seconds), bottom), fill=(255, 255, 255), width=self.line * 2)
        anomalous = clip["score"] >= self.result["threshold"]
        colour = (255, 110, 110) if anomalous else (255, 255, 255)
        place = (right + self.line * 6, (top + bottom) / 2)
        draw.text(place, f"{clip['score']:.2f}", font=self.font, fill=colour, anchor="lm")
        if anomalous:
            draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=(198, 40, 40), width=self.line * 2)
        return image
