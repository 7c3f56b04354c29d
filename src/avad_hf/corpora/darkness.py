"""Which videos are dark: as metadata say, by the hour, or by their brightness."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from avad_hf.media.luma import mean_luma
from avad_hf.media.sources import open_media

# SHADE, section V.A: events from 18:00 to 5:59, and those by day that a column `dark` alone can tell.
DARK_FROM_HOUR, LIGHT_FROM_HOUR = 18, 6
# Where neither hour nor darkness is known: mean brightness, of 255. Our choice; the paper gives no figure.
DARK_BELOW_LUMA = 60.0


def with_darkness(rows: Sequence[dict[str, Any]], measure: bool) -> list[dict[str, Any]]:
    """Fill in ``dark``, and ``dark_source``: ``metadata``, ``hour`` or ``luma``, ``None`` where it is not known.

    Args:
        rows: Rows of a manifest.
        measure: Whether to open the videos of which neither hour nor darkness is known.

    Raises:
        MediaError: If one of these cannot be read.
    """
    described = [_by_metadata(row) for row in rows]
    unmeasured = [row for row in described if row["dark"] is None] if measure else []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for row, luma in zip(unmeasured, pool.map(_luma, unmeasured), strict=True):
            row |= {"dark": luma < DARK_BELOW_LUMA, "dark_source": "luma"}
    return described


def _by_metadata(row: dict[str, Any]) -> dict[str, Any]:
    if row["dark"] is not None:
        return row | {"dark_source": row.get("dark_source") or "metadata"}
    if row["hour"] is not None:
        return row | {"dark": not LIGHT_FROM_HOUR <= row["hour"] < DARK_FROM_HOUR, "dark_source": "hour"}
    return row | {"dark_source": None}


def _luma(row: dict[str, Any]) -> float:
    with open_media(row) as media:
        return mean_luma(media)
