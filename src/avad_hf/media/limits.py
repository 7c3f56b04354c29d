"""Bounds on what a media file may ask of the machine that reads it.

A header of a few bytes can claim a picture of terabytes. Each bound lies far above what cameras record; where someone
needs more, an environment variable of the same name raises it: `AVAD_HF_MAX_PIXELS=1e9`.
"""

import math
import os

from .errors import MediaError

# Pixels of a decoded picture: twice those of 8K video. FFmpeg takes up to some 6 bytes a pixel, for several pictures.
MAX_PIXELS = 2 * 7680 * 4320
# Pixels of a scaled picture where the long side follows from the short one: 256 x 4,096. A clip of 32 is 100 MB, and
# 400 MB in float32. Only strips (2 x 2000) reach it.
MAX_SCALED_PIXELS = 2**20
# Hz. Above 768 kHz nothing records; the filter that resamples grows with the rate.
MAX_SOUND_RATE = 768_000
# Hz. Below, nothing that anyone recognises is heard, and resampling makes sixteen samples and more of each.
MIN_SOUND_RATE = 1_000
# 7.1.4 has twelve channels, ambisonics of the seventh order 64.
MAX_SOUND_CHANNELS = 64
# Streams of one file. Broadcast multiplexes have some dozens.
MAX_STREAMS = 256
# Bytes fetched from an address, or copied from a pipe, for one video, after gzip is unpacked. The copy lies among the
# temporary files.
MAX_COPY_BYTES = 64 * 2**30
# Seconds without a single byte after which a server counts as dead.
MAX_STILL_S = 60.0


def limit(name: str) -> float:
    """A bound of this module by its name, or what the environment variable `AVAD_HF_<name>` raises it to.

    Raises:
        MediaError: If the variable is no number above 0.
    """
    text = os.environ.get(f"AVAD_HF_{name}")
    if text is None:
        return globals()[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise MediaError(f"AVAD_HF_{name}={text} is no bound. Give a number above 0, or unset it.")
    return value


def check_limit(name: str, found: float, what: str) -> None:
    """Raise [`MediaError`] for more than a bound allows.

    Args:
        name: Name of the bound.
        found: What was found.
        what: What was found, in words, with its place: "x.mp4: a picture of 2 x 2000 pixels".
    """
    if found > (most := limit(name)):
        raise MediaError(
            f"{what}; {most:,.0f} are allowed. If that is in order, set the environment variable AVAD_HF_{name} to "
            "what it needs."
        )


__all__ = ["check_limit", "limit"]
