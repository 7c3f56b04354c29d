"""A heat map to lay over a picture: which places of it made an event, for as long as it says something."""

import math
from typing import Any

from PIL import Image

from avad_hf.detection.heat import smooth

# Colours of equal steps of brightness, also for the colour-blind, without the darkest, which would only hide the
# picture, and the palest, which are not seen on bright walls.
COLOURS, FIRST, LAST = "inferno", 0.35, 0.8
# How much of the picture the hottest place hides, and the heat up to which nothing is laid over it.
MOST_OPAQUE, FAINT = 0.6, 0.2


def heat_picture(why: dict[str, Any], size: tuple[int, int]) -> Image.Image:
    """The heat map of an event, smooth, and the more transparent the less a place counts.

    Args:
        why: What a result says of the event, with ``heat``. Where it rests on sound, the map is fainter: by the root
            of the share of sight, so that a quarter is still seen.
        size: Width and height of the picture, in pixels.
    """
    from matplotlib import colormaps

    heat = smooth(why["heat"]["values"], size)
    heat /= max(heat.max(), 1e-9)
    share = ((heat - FAINT) / (1 - FAINT)).clip(0, 1)
    opacity = MOST_OPAQUE * share * (2 - share) * math.sqrt(why.get("sight", 1.0))
    colours = colormaps[COLOURS](FIRST + (LAST - FIRST) * heat, bytes=True)
    colours[..., 3] = (255 * opacity).round()
    return Image.fromarray(colours)


def strength(heat: dict[str, Any], seconds: float) -> float:
    """How strongly a map is shown at a moment: fully in its own clip, and less up to one clip before and after.

    Later what moves is elsewhere.
    """
    outside = max(heat["start"] - seconds, seconds - heat["end"], 0.0)
    return max(0.0, 1 - outside / (heat["end"] - heat["start"]))


def with_heat(image: Image.Image, picture: Image.Image, strength: float) -> Image.Image:
    """A picture in RGBA with a map over it."""
    if strength < 1:
        picture = picture.copy()
        picture.putalpha(picture.getchannel("A").point(lambda value: round(value * strength)))
    return Image.alpha_composite(image, picture)


__all__ = ["heat_picture", "strength", "with_heat"]
