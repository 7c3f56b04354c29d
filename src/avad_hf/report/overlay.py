"""A video written again with its score burnt into the picture."""

import bisect
import os
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avad_hf.files import shown
from avad_hf.media.decode import MediaError, MediaFile
from avad_hf.media.encode import write_video
from avad_hf.media.sources import open_media

from .timeline import score_edges

# Of the written picture, in pixels.
LEAST_HEIGHT = 360


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
        if min(media.info.width, media.info.height) < 32:
            raise MediaError(
                f"{media.name}: {media.info.width} x {media.info.height} pixels are too few to draw into."
            )
        # Small videos are enlarged until words can be read. H.264 has half as many colour samples as pixels: sides
        # must be even.
        factor = max(1, -(-LEAST_HEIGHT // media.info.height))
        width, height = (factor * side // 2 * 2 for side in (media.info.width, media.info.height))
        painter = _OverlayPainter(result, width, height)

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            for frame in media.frames(None):
                image = Image.fromarray(frame.pixels.permute(1, 2, 0).contiguous().numpy())
                if factor > 1:
                    image = image.resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)
                image = image.crop((0, 0, width, height))
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
        edges = score_edges(result["clips"])
        points = [
            (self._x(edge), self._y(clip["score"]))
            for index, clip in enumerate(result["clips"])
            for edge in edges[index : index + 2]
        ]
        draw.line(points, fill=(120, 190, 255, 255), width=self.line * 2)
        if result["warnings"]:
            small, place = ImageFont.load_default(max(8, height // 40)), (left, left)
            room = int((width - 4 * left) / small.getlength("n"))
            text = "\n".join(line for warning in result["warnings"] for line in textwrap.wrap(shown(warning), room))
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
        if clip.get("label"):
            # Outlined, since it stands on the picture.
            place = (image.width - self.line * 4, top - self.line * 8)
            name = shown(clip["label"])
            draw.text(place, name, font=self.font, fill=colour, anchor="rb", stroke_width=2, stroke_fill=0)
        if anomalous:
            draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=(198, 40, 40), width=self.line * 2)
        return image
