"""Videos whose faces and number plates are known: cutouts that move over a street that was drawn, or over a clip.

They measure what an anonymiser hides and what it misses. The faces are pictures that the caller gives, or drawn ones;
the plates are drawn. Each frame comes with what is in it: where, how large, how turned, dimmed and blurred.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from avad_hf.media.encode import write_video

from .faces import Cutout, draw_face
from .plates import FORMS, draw_plate
from .sprites import Sprite, Truth, paste, sprite
from .world import clip_pictures, plan_world

# Height of faces and width of plates in pixels: from what nobody recognises to what fills a sixth of the picture.
FACE_PX, PLATE_PX = (16.0, 120.0), (40.0, 240.0)
# How far they are turned in the plane, in degrees: a head leans, a car on a slope does so less; and how much of this
# changes on the way.
FACE_TURN, PLATE_TURN, TURN_CHANGE = 20.0, 12.0, 8.0
# A plate that is seen from the side is sheared: its right end is moved up or down by so much of its width at most.
PLATE_SHEAR = 0.15
# How much larger or smaller things get on their way.
GROWTH = (0.7, 1.4)
# Light on one thing, from shadow to full, and in the whole picture, from dusk to day.
SHADE, DAYLIGHT = (0.45, 1.0), (0.6, 1.0)
# How long the shutter is open, and how far out of focus half of the things are: deviation as a share of their height.
EXPOSURE_S, FOCUS = (0.0, 1 / 50), (0.0, 0.04)
# How far a thing goes in a second, as a share of the picture's width.
PACE = (0.03, 0.25)
# How far it sways up and down as a share of its size, and how often in a second: steps, and a rough road.
SWAY, SWAY_HZ = (0.0, 0.15), (0.5, 2.0)
# Deviation of the sensor's noise, in 8-bit steps.
NOISE = 2.0
# Width of a post as a share of the picture's, and its grey: things pass behind it.
POST, POST_GREY = (0.01, 0.03), (50.0, 130.0)
# Streets of the synthetic world that serve as backdrops, one after the other.
STREETS = ("crossing", "overlook", "avenue", "crowd")
# Side of the patch that flashes as a share of the picture's height, and the click that is heard with it.
PATCH, CLICK_S, CLICK_HZ, RATE_HZ = 0.08, 0.004, 2000, 48000


@dataclass(frozen=True)
class _Thing:
    """A face or a plate on its way; each pair is its first and last value, evenly over the video."""

    kind: str
    cutout: Cutout
    x: tuple[float, float]
    y: tuple[float, float]
    size: tuple[float, float]
    angle: tuple[float, float]
    shear: float
    light: float
    focus: float
    exposure_s: float
    sway: float
    sway_hz: float
    phase: float

    @classmethod
    def draw(
        cls, kind: str, cutout: Cutout, size: tuple[int, int], duration_s: float, rng: np.random.Generator
    ) -> "_Thing":
        low, high = FACE_PX if kind == "face" else PLATE_PX
        # Every doubling of its size is as likely as every other.
        first = float(np.exp(rng.uniform(math.log(low), math.log(high))))
        last = float(np.clip(first * rng.uniform(*GROWTH), low, high))
        margin = np.minimum(0.7 * max(first, last), 0.4 * np.array(size))
        start = rng.uniform(margin, size - margin)
        heading, distance = rng.uniform(0, 2 * math.pi), rng.uniform(*PACE) * size[0] * duration_s
        way = distance * np.array([math.cos(heading), 0.5 * math.sin(heading)])
        end = np.clip(start + way, margin, size - margin)
        if rng.random() < 1 / 3:  # comes in from beside the picture
            start[0] = -margin[0] if start[0] < end[0] else size[0] + margin[0]
        limit = FACE_TURN if kind == "face" else PLATE_TURN
        angles = np.clip(rng.uniform(-limit, limit) + TURN_CHANGE * rng.uniform(-1, 1, 2), -limit, limit)
        return cls(
            kind,
            cutout,
            x=(float(start[0]), float(end[0])),
            y=(float(start[1]), float(end[1])),
            size=(first, last),
            angle=(float(angles[0]), float(angles[1])),
            shear=rng.uniform(-PLATE_SHEAR, PLATE_SHEAR) if kind == "plate" else 0.0,
            light=rng.uniform(*SHADE),
            focus=rng.uniform(*FOCUS) if rng.random() < 0.5 else 0.0,
            exposure_s=rng.uniform(*EXPOSURE_S),
            sway=rng.uniform(*SWAY),
            sway_hz=rng.uniform(*SWAY_HZ),
            phase=rng.uniform(0, 2 * math.pi),
        )

    def at(self, time_s: float, duration_s: float) -> tuple[float, float, float, float]:
        """Middle x and y, size and angle."""
        share = time_s / duration_s
        x, y, size, angle = (a + share * (b - a) for a, b in (self.x, self.y, self.size, self.angle))
        return x, y + self.sway * size * math.sin(2 * math.pi * self.sway_hz * time_s + self.phase), size, angle

    def sprite(self, track: int, time_s: float, duration_s: float, picture_size: tuple[int, int]) -> Sprite | None:
        """It at a moment; ``None`` out of the picture."""
        x, y, size, angle = self.at(time_s, duration_s)
        x1, y1, x2, y2 = self.cutout.box
        scale, turn = size / (y2 - y1 if self.kind == "face" else x2 - x1), math.radians(angle)
        matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        matrix = scale * matrix @ [[1, 0], [self.shear, 1]]
        to_x, to_y, _, _ = self.at(time_s + self.exposure_s, duration_s)
        truth = Truth(
            track, self.kind, self.cutout.box, size, angle, self.light, focus_px=self.focus * (y2 - y1) * scale
        )
        return sprite(self.cutout, truth, matrix, (x, y), picture_size, (to_x - x, to_y - y))


def drawn_street(seed: int) -> Iterator[np.ndarray]:
    """The pictures of a street, over and over, each of shape `(90, 160, 3)`; see `avad_hf.synthetic.world`."""
    (plan,) = plan_world(STREETS[seed % len(STREETS)], 1, seed)
    while True:
        for _, picture in clip_pictures(plan):
            yield picture


def compose(
    seed: int,
    faces: Sequence[Cutout] = (),
    backdrop: Iterable[np.ndarray] | None = None,
    size: tuple[int, int] = (1280, 720),
    fps: float = 25.0,
    duration_s: float = 6.0,
    num_faces: int = 3,
    num_plates: int = 3,
    num_posts: int = 0,
    flashes_s: Sequence[float] = (),
) -> Iterator[tuple[float, np.ndarray, list[Truth]]]:
    """Compose a video, frame by frame; the same for the same arguments.

    Args:
        seed: For everything that is drawn at random.
        faces: Cutouts to choose from; by default every face is drawn.
        backdrop: RGB pictures of any size, uint8, one a frame; the video ends with them. By default a drawn street.
        size: Width and height of the video in pixels.
        fps: Frames a second.
        duration_s: Length in seconds.
        num_faces: How many faces there are.
        num_plates: How many plates there are, European and Maltese ones in turn.
        num_posts: How many posts there are; things pass behind them.
        flashes_s: When a patch in the corner, black otherwise, is white for one frame.

    Yields:
        Time in seconds, RGB of shape `(H, W, 3)`, uint8, and what is in the picture.
    """
    rng = np.random.default_rng(seed)
    things = []
    for _ in range(num_faces):
        face = faces[rng.integers(len(faces))] if len(faces) else draw_face(rng)
        things.append(_Thing.draw("face", face, size, duration_s, rng))
    for number in range(num_plates):
        plate, _ = draw_plate(FORMS[number % len(FORMS)], rng)
        things.append(_Thing.draw("plate", plate, size, duration_s, rng))
    width, height = size
    screens = []
    for middle in rng.uniform(0.1, 0.9, num_posts):
        half, grey = rng.uniform(*POST) / 2, rng.uniform(*POST_GREY)
        post = slice(round((middle - half) * width), round((middle + half) * width))
        screens.append((slice(None), post, float(grey)))
    daylight = float(rng.uniform(*DAYLIGHT))
    # Larger than the picture: every frame takes another part of it.
    noise = rng.normal(0, NOISE, (2 * height, 2 * width, 1)).astype(np.float32)
    flashing, patch = {round(moment * fps) for moment in flashes_s}, slice(round(PATCH * height))
    pictures = drawn_street(seed) if backdrop is None else backdrop
    for index, picture in zip(range(round(duration_s * fps)), pictures, strict=False):
        time_s = index / fps
        placed = [thing.sprite(track, time_s, duration_s, size) for track, thing in enumerate(things)]
        corner = [(patch, patch, 255.0 if index in flashing else 0.0)] if flashing else []
        canvas = np.array(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
        truths = paste(canvas, [one for one in placed if one is not None], screens + corner)
        canvas *= daylight
        row, column = rng.integers(0, height), rng.integers(0, width)
        canvas += noise[row : row + height, column : column + width]
        yield time_s, np.clip(canvas, 0, 255).astype(np.uint8), truths


def write_composed(
    path: str | os.PathLike,
    seed: int,
    size: tuple[int, int] = (1280, 720),
    fps: float = 25.0,
    duration_s: float = 6.0,
    flashes_s: Sequence[float] = (),
    **options: Any,
) -> list[tuple[float, list[Truth]]]:
    """Write a composed video as MP4, whole or not at all; its sound is silence but for a click at each flash.

    Args:
        path: Name of the MP4.
        seed: See `compose`, as for all other arguments.
        size: Width and height in pixels, even numbers.
        fps: Frames a second.
        duration_s: Length in seconds.
        flashes_s: When there is a flash and a click.
        options: Further arguments of `compose`.

    Returns:
        Time in seconds and what is in the picture, for each frame.
    """
    samples = np.zeros((1, round(duration_s * RATE_HZ)), dtype=np.float32)
    click = 0.8 * np.sin(2 * np.pi * CLICK_HZ * np.arange(round(CLICK_S * RATE_HZ)) / RATE_HZ)
    for moment in flashes_s:
        # At the time of the frame that shows the flash.
        begin = round(round(moment * fps) / fps * RATE_HZ)
        samples[0, begin : begin + len(click)] = click[: samples.shape[1] - begin]
    known: list[tuple[float, list[Truth]]] = []

    def pictures() -> Iterator[tuple[float, np.ndarray]]:
        for time_s, picture, truths in compose(
            seed, size=size, fps=fps, duration_s=duration_s, flashes_s=flashes_s, **options
        ):
            known.append((time_s, truths))
            yield time_s, picture

    write_video(path, pictures(), size, fps, samples=(samples, RATE_HZ), repeatable=True, is_synthetic=True)
    return known
