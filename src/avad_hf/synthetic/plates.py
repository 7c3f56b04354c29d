"""Draws number plates in European and Maltese form."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .faces import Cutout

FORMS = ("european", "maltese")
# The usual size in the European Union is 520 x 113 mm; plates are drawn at one pixel a millimetre.
WIDTH_MM, HEIGHT_MM = 520, 113
# Width of the blue band, of the black rim, and height of the characters.
BAND_MM, RIM_MM, LETTER_MM = 44, 5, 75
# Height of a capital of Pillow's font as a share of its size.
CAPITAL = 0.725
BLUE, STAR, WHITE, YELLOW, BLACK = (0, 51, 153), (255, 204, 0), (244, 244, 240), (246, 200, 40), (16, 16, 18)
# Country, colour of the ground, and how its plates are written: A is a letter, 0 is a digit.
COUNTRIES = (
    ("D", WHITE, "AA AA 000"),
    ("F", WHITE, "AA-000-AA"),
    ("I", WHITE, "AA 000AA"),
    ("E", WHITE, "0000 AAA"),
    ("PL", WHITE, "AA 00000"),
    ("NL", YELLOW, "AA-00-AA"),
    ("L", YELLOW, "AA 0000"),
)
# In Malta, since 1995: three letters, three digits, always black on white.
MALTA = ("M", WHITE, "AAA 000")
LETTERS = "ABCDEFGHJKLMNPRSTVWXYZ"  # without I, O, Q and U, which many countries leave out


def draw_plate(form: str, rng: np.random.Generator) -> tuple[Cutout, str]:
    """Draw a number plate and give its text.

    Args:
        form: One of `FORMS`. European plates are those of several countries, two of which have yellow ones.
        rng: For country, letters and digits.

    Raises:
        ValueError: If there is no such form.
    """
    if form not in FORMS:
        raise ValueError(f"Unknown form of plate {form!r}. Choose one of {', '.join(FORMS)}.")
    country, ground, pattern = MALTA if form == "maltese" else COUNTRIES[rng.integers(len(COUNTRIES))]
    text = "".join(
        LETTERS[rng.integers(len(LETTERS))] if sign == "A" else str(rng.integers(10)) if sign == "0" else sign
        for sign in pattern
    )
    plate = Image.new("RGBA", (WIDTH_MM, HEIGHT_MM))
    draw = ImageDraw.Draw(plate)
    draw.rounded_rectangle((0, 0, WIDTH_MM - 1, HEIGHT_MM - 1), 10, (*ground, 255), (*BLACK, 255), RIM_MM)
    band = (RIM_MM, RIM_MM, RIM_MM + BAND_MM, HEIGHT_MM - 1 - RIM_MM)
    draw.rounded_rectangle(band, 6, (*BLUE, 255), corners=(True, False, False, True))
    middle = RIM_MM + BAND_MM / 2
    for number in range(12):
        angle = 2 * math.pi * number / 12
        x, y = middle + 14 * math.sin(angle), 32 - 14 * math.cos(angle)
        draw.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=(*STAR, 255))
    draw.text((middle, 84), country, (255, 255, 255, 255), ImageFont.load_default(30), anchor="mm")
    # As large as the height of letters or the width that is left allows.
    room = WIDTH_MM - BAND_MM - 4 * RIM_MM
    size = LETTER_MM / CAPITAL
    size *= min(1.0, room / ImageFont.load_default(size).getlength(text))
    at = (BAND_MM + RIM_MM + (WIDTH_MM - BAND_MM - 2 * RIM_MM) / 2, HEIGHT_MM / 2)
    # Pressed letters have thick strokes, which the font that Pillow brings along has not.
    draw.text(at, text, (*BLACK, 255), ImageFont.load_default(size), anchor="mm", stroke_width=2)
    return Cutout(np.asarray(plate), (0, 0, WIDTH_MM, HEIGHT_MM)), text
