"""A video written again with what was found burnt in: the score in the picture, names below it."""

import bisect
import os
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from avad_hf.detection.explaining import reason
from avad_hf.files import shown
from avad_hf.media.decode import MediaError, MediaFile
from avad_hf.media.encode import write_video
from avad_hf.media.masking import MaskedMedia, Masking
from avad_hf.media.sources import open_media

from .heat import heat_picture, strength, with_heat
from .timeline import score_edges

# Size of the written picture, in pixels.
LEAST_HEIGHT = 360
# The most probable names that are written below the picture: more could not be read while it moves.
SHOWN_NAMES = 3
NAME_COLOURS = {"seen": (45, 85, 130), "heard": (50, 95, 65)}


def render_overlay(
    result: dict[str, Any],
    source: Any,
    path: str | os.PathLike,
    on_progress: Callable[[float], None] | None = None,
    masking: Masking | None = None,
) -> None:
    """Write the video again as MP4 with what was found burnt in, and its sound kept.

    Score, timeline and events are drawn into the picture, and where events are explained, the places that made them,
    about the clip with the highest score. Why an event is one, and what is seen and heard at the moment, stand below
    the picture, where they hide nothing.

    Args:
        result: Result of the pipeline, or of `avad_hf.describe`.
        source: The video it was made from; a file, not arrays.
        path: Name of the MP4.
        on_progress: Called after each frame with its time in seconds.
        masking: Hides parts of the pictures first, such as faces.

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
        size = (width, height + painter.band)
        seen = media if masking is None else MaskedMedia(media, masking)

        def pictures() -> Iterator[tuple[float, np.ndarray]]:
            for frame in seen.frames(None):
                image = Image.fromarray(frame.pixels.permute(1, 2, 0).contiguous().numpy())
                if factor > 1:
                    image = image.resize((factor * image.width, factor * image.height), Image.Resampling.BICUBIC)
                image = image.crop((0, 0, width, height))
                yield frame.start, np.asarray(painter.paint(image, frame.start))
                if on_progress is not None:
                    on_progress(frame.end)

        write_video(path, pictures(), size, media.info.fps, sound_of=media)


class _OverlayPainter:
    """Draws what belongs to one moment: a strip with the score of the whole video, a cursor, and the score now.

    Below the picture there is a band with the reason of the event, and the names of what is seen and heard now, if
    there are some.

    Attributes:
        band: Height of the band, in pixels, an even number.
    """

    def __init__(self, result: dict[str, Any], width: int, height: int):
        self.result = result
        self.starts = [clip["start"] for clip in result["clips"]]
        self.font = ImageFont.load_default(max(10, height // 24))
        self.line = max(1, height // 180)
        # By the width, of which each sense has a half.
        self.name_font = ImageFont.load_default(max(10, min(height // 26, width // 32)))
        self.row = round(self.name_font.size * 1.4)
        self.senses = [sense for sense in NAME_COLOURS if any(clip.get(sense) for clip in result["clips"])]
        self.events = result.get("events", [])
        self.begins = [event["start"] for event in self.events]
        self.has_reasons = any(reason(event.get("why")) for event in self.events)
        rows = SHOWN_NAMES * bool(self.senses) + self.has_reasons
        self.band = (rows * self.row + 2 * self.line) // 2 * 2 if rows else 0
        # What was painted last: the clip and the event of the band, and the event of the heat map.
        self.named: tuple[dict[str, Any], dict[str, Any] | None, Image.Image] | None = None
        self.heated: tuple[dict[str, Any], Image.Image] | None = None
        self.strip = Image.new("RGBA", (width, height))
        if self.is_scored:
            self._draw_score(width, height)
        if result["warnings"]:
            self._draw_warnings(width, height)

    @property
    def is_scored(self) -> bool:
        """Whether there are scores, and not names alone."""
        return "score" in self.result

    def _draw_score(self, width: int, height: int) -> None:
        """The score of the whole video."""
        result, draw = self.result, ImageDraw.Draw(self.strip)
        strip = max(24, height // 7)
        # Left, top, right and bottom of the timeline; the score in figures stands right of it.
        self.box = (self.line * 4, height - strip + self.line * 4, round(width * 0.8), height - self.line * 4)
        draw.rectangle((0, height - strip, width, height), fill=(0, 0, 0, 170))
        left, top, right, bottom = self.box
        for event in result["events"]:
            draw.rectangle((self._x(event["start"]), top, self._x(event["end"]), bottom), fill=(120, 30, 30, 200))
        if result["label"] is not None:  # else the threshold says nothing of this video
            threshold = self._y(result["threshold"])
            draw.line((left, threshold, right, threshold), fill=(255, 255, 255, 120), width=self.line)
        edges = score_edges(result["clips"])
        points = [
            (self._x(edge), self._y(clip["score"]))
            for index, clip in enumerate(result["clips"])
            for edge in edges[index : index + 2]
        ]
        draw.line(points, fill=(120, 190, 255, 255), width=self.line * 2)

    def _draw_warnings(self, width: int, height: int) -> None:
        """What one must know, in the upper left corner."""
        draw, small, left = ImageDraw.Draw(self.strip), ImageFont.load_default(max(8, height // 40)), self.line * 4
        room = int((width - 4 * left) / small.getlength("n"))
        text = "\n".join(line for warning in self.result["warnings"] for line in textwrap.wrap(shown(warning), room))
        x0, y0, x1, y1 = draw.multiline_textbbox((left, left), text, font=small)
        draw.rectangle((x0 - left, y0 - left, x1 + left, y1 + left), fill=(0, 0, 0, 170))
        draw.multiline_text((left, left), text, font=small, fill=(255, 200, 120, 255))

    def _x(self, seconds: float) -> float:
        left, _, right, _ = self.box
        return left + (right - left) * min(1.0, seconds / self.result["duration"])

    def _y(self, score: float) -> float:
        _, top, _, bottom = self.box
        return bottom - (bottom - top) * score

    def paint(self, image: Image.Image, seconds: float) -> Image.Image:
        clip = self.result["clips"][max(0, bisect.bisect_right(self.starts, seconds + 1e-6) - 1)]
        event = self._event(seconds)
        image = image.convert("RGBA")
        if event is not None and "heat" in (why := event.get("why", {})) and strength(why["heat"], seconds):
            if self.heated is None or self.heated[0] is not event:
                self.heated = event, heat_picture(why, image.size)
            image = with_heat(image, self.heated[1], strength(why["heat"], seconds))
        image = Image.alpha_composite(image, self.strip).convert("RGB")
        if self.is_scored:
            self._paint_score(image, clip, seconds)
        return self._with_band(image, clip, event) if self.band else image

    def _event(self, seconds: float) -> dict[str, Any] | None:
        """The event of the moment."""
        number = bisect.bisect_right(self.begins, seconds + 1e-6) - 1
        return self.events[number] if number >= 0 and seconds < self.events[number]["end"] else None

    def _paint_score(self, image: Image.Image, clip: dict[str, Any], seconds: float) -> None:
        """The cursor and the score of the moment."""
        draw = ImageDraw.Draw(image)
        _, top, right, bottom = self.box
        draw.line((self._x(seconds), top, self._x(seconds), bottom), fill=(255, 255, 255), width=self.line * 2)
        anomalous = self.result["label"] is not None and clip["score"] >= self.result["threshold"]
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

    def _with_band(self, image: Image.Image, clip: dict[str, Any], event: dict[str, Any] | None) -> Image.Image:
        """The picture with the band below it."""
        if self.named is None or self.named[0] is not clip or self.named[1] is not event:
            self.named = clip, event, self._paint_band(clip, event, image.width)
        whole = Image.new("RGB", (image.width, image.height + self.band))
        whole.paste(image)
        whole.paste(self.named[2], (0, image.height))
        return whole

    def _paint_band(self, clip: dict[str, Any], event: dict[str, Any] | None, width: int) -> Image.Image:
        """The reason of the event, and below it what is seen and heard in the clip."""
        band = Image.new("RGB", (width, self.band), (16, 16, 16))
        if event is not None and (words := reason(event.get("why"))):
            self._paint_reason(ImageDraw.Draw(band), event["why"], words, width)
        if self.senses:
            self._paint_names(ImageDraw.Draw(band), clip, width)
        return band

    def _paint_reason(self, draw: ImageDraw.ImageDraw, why: dict[str, Any], words: str, width: int) -> None:
        """Why the event is one, over a bar of the shares of sight and of sound."""
        top, bottom, edge = self.line, self.row, round(width * why["sight"])
        draw.rectangle((0, top, width, bottom), fill=NAME_COLOURS["heard"])
        if edge:
            draw.rectangle((0, top, edge, bottom), fill=NAME_COLOURS["seen"])
        gap = self.line * 4
        text = _fitting(words, self.name_font, width - 2 * gap)
        draw.text((gap, self.line / 2 + self.row / 2), text, font=self.name_font, anchor="lm")

    def _paint_names(self, draw: ImageDraw.ImageDraw, clip: dict[str, Any], width: int) -> None:
        """Names of what is seen and heard in a clip, each with a bar of its probability."""
        font, gap = self.name_font, self.line * 4
        first = self.line + self.row / 2 + self.row * self.has_reasons
        column = width // len(self.senses)
        head = round(font.getlength("heard")) + 2 * gap
        for number, sense in enumerate(self.senses):
            left, right, middle = number * column + gap, (number + 1) * column - gap, first
            draw.text((left, middle), sense, font=font, fill=(150, 150, 150), anchor="lm")
            left += head
            for name in clip[sense][:SHOWN_NAMES]:
                half, score = self.row / 2 - self.line, f"{name['score']:.2f}"
                bar = (left, middle - half, left + (right - left) * name["score"], middle + half)
                draw.rectangle(bar, fill=NAME_COLOURS[sense])
                room = right - left - font.getlength(score) - 2 * gap
                draw.text((left + self.line, middle), _fitting(name["label"], font, room), font=font, anchor="lm")
                draw.text((right, middle), score, font=font, fill=(200, 200, 200), anchor="rm")
                middle += self.row


def _fitting(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """A name on one line, cut where it is too long."""
    text = whole = shown(text)
    while text and font.getlength(text if text == whole else f"{text}...") > room:
        text = text[:-1]
    return text if text == whole else f"{text}..."
