"""Draws faces of nobody."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .bodies import SKIN, shade

HAIR = ((38, 30, 26), (84, 58, 38), (140, 104, 62), (70, 70, 74), (22, 22, 24))
IRIS = ((62, 44, 30), (70, 96, 120), (84, 96, 58))
LIP = (1.0, 0.72, 0.74)  # of the skin's red, green and blue
# Faces are drawn at this height in pixels, larger than they are shown.
FACE_PX = 256


@dataclass(frozen=True)
class Cutout:
    """A picture that is pasted into others.

    Args:
        pixels: RGBA of shape `(H, W, 4)`, uint8; alpha says what of it is pasted.
        box: Where in it the face or the plate is: x1, y1, x2, y2 in its pixels.
    """

    pixels: np.ndarray
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class _Frame:
    """The frame of a face: x in widths from its middle, y in heights from the hairline down."""

    middle: float
    top: float
    wide: float
    tall: float

    def bounds(self, x: float, y: float, half_x: float, half_y: float) -> tuple[float, float, float, float]:
        """Pixels of a box around a point."""
        x, y = self.middle + x * self.wide, self.top + y * self.tall
        return x - half_x * self.wide, y - half_y * self.tall, x + half_x * self.wide, y + half_y * self.tall

    def glow(self, size: tuple[int, int], spots: list[tuple[float, ...]], blur: float) -> np.ndarray:
        """Soft ellipses (x, y, half width, half height, strength up to 255) as `(H, W, 1)` within 0 and 1."""
        layer = Image.new("L", size)
        draw = ImageDraw.Draw(layer)
        for x, y, half_x, half_y, strength in spots:
            draw.ellipse(self.bounds(x, y, half_x, half_y), fill=int(strength))
        return np.asarray(layer.filter(ImageFilter.GaussianBlur(blur * self.tall)), dtype=float)[..., None] / 255


def draw_face(rng: np.random.Generator) -> Cutout:
    """Draw a head with hair, eyes, nose and mouth, seen from the front; no real person looks so.

    Args:
        rng: For what differs from face to face: skin, hair, eyes, proportions, and where the light comes from.

    Returns:
        The head; its box goes from the hairline to the chin.
    """
    skin, hair, iris = (colours[rng.integers(len(colours))] for colours in (SKIN, HAIR, IRIS))
    wide, apart, light = FACE_PX * rng.uniform(0.72, 0.8), rng.uniform(0.2, 0.23), int(rng.choice((-1, 1)))
    frame = _Frame(middle=0.8 * wide, top=0.3 * FACE_PX, wide=wide, tall=FACE_PX)
    size = round(1.6 * wide), round(1.33 * FACE_PX)
    head = Image.new("RGBA", size, (*hair, 0))
    draw = ImageDraw.Draw(head)
    draw.ellipse(frame.bounds(0, 0.3, 0.6, 0.5), (*hair, 255))
    for side in (-1, 1):
        draw.ellipse(frame.bounds(side * 0.5, 0.47, 0.07, 0.1), (*shade(skin, 0.8), 255))
    draw.ellipse(frame.bounds(0, 0.42, 0.5, 0.43), (*skin, 255))
    draw.ellipse(frame.bounds(0, 0.62, 0.43, 0.38), (*skin, 255))
    draw.chord(frame.bounds(0, 0.18, 0.5, 0.32), 195, 345, (*hair, 255))

    # Shadows of the sockets, the cheeks, the nose, the lip and the chin, and of the side away from the light.
    shadow = frame.glow(
        size,
        [
            (-light * 0.6, 0.5, 0.3, 0.8, 70),
            *((side * apart, 0.39, 0.145, 0.075, 100) for side in (-1, 1)),
            *((side * 0.33, 0.68, 0.08, 0.13, 45) for side in (-1, 1)),
            (-light * 0.09, 0.52, 0.045, 0.13, 80),
            (0, 0.645, 0.13, 0.025, 130),
            (0, 0.855, 0.16, 0.022, 95),
            (0, 1.0, 0.36, 0.05, 120),
        ],
        blur=0.035,
    )
    shine = frame.glow(
        size,
        [(light * 0.04, 0.53, 0.035, 0.13, 120), (0, 0.2, 0.22, 0.07, 70), (-0.27, 0.58, 0.1, 0.06, 75),
         (0.27, 0.58, 0.1, 0.06, 75)],
        blur=0.03,
    )  # fmt: skip
    pixels = np.array(head)
    pixels[..., :3] = np.clip(pixels[..., :3] * (1 - 0.6 * shadow) + 110 * shine, 0, 255)

    head = Image.fromarray(pixels)
    draw = ImageDraw.Draw(head)
    for side in (-1, 1):
        x = side * apart
        for at_y, half_x, half_y, colour in (
            (0.4, 0.092, 0.036, shade(skin, 0.45)),
            (0.404, 0.083, 0.03, (226, 220, 214)),
            (0.401, 0.039, 0.03, iris),
            (0.401, 0.019, 0.0145, (12, 12, 14)),
        ):
            draw.ellipse(frame.bounds(x, at_y, half_x, half_y), (*colour, 255))
        draw.ellipse(frame.bounds(x + light * 0.014, 0.391, 0.008, 0.006), (250, 250, 250, 255))
        draw.arc(frame.bounds(x, 0.387, 0.115, 0.084), 205, 335, (*shade(hair, 0.9), 255), width=5)
        draw.ellipse(frame.bounds(side * 0.06, 0.635, 0.028, 0.014), (*shade(skin, 0.4), 255))
    lip = shade([colour * share for colour, share in zip(skin, LIP, strict=True)], 0.82)
    draw.ellipse(frame.bounds(0, 0.787, 0.15, 0.035), (*lip, 255))
    draw.ellipse(frame.bounds(0, 0.767, 0.19, 0.02), (*shade(lip, 0.9), 255))
    draw.ellipse(frame.bounds(0, 0.775, 0.19, 0.005), (*shade(lip, 0.45), 255))
    pixels = np.asarray(head.filter(ImageFilter.GaussianBlur(0.006 * FACE_PX)))
    return Cutout(pixels, (frame.middle - wide / 2, frame.top, frame.middle + wide / 2, frame.top + FACE_PX))
