"""Pictures for a person to look through: contact sheets, and single pictures to confirm."""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from avad_hf.files import written_whole

# Width of a picture of a contact sheet in pixels, and how many stand in a row.
TILE_WIDTH, COLUMNS = 426, 3
OUTLINE = (255, 210, 0)
# Columns of the table that a person fills in.
ANSWER = "recognisable (yes or no)"
COLUMNS_OF_CHECKS = ("picture", "video", "time_s", ANSWER)


class Sample(NamedTuple):
    """A picture as it was written, its time in seconds, and what was hidden, of shape `(N, 4)`."""

    time: float
    picture: np.ndarray
    boxes: np.ndarray


def even(duration: float, count: int) -> list[float]:
    """Times in the middle of equal parts of a video."""
    return [duration * (number + 0.5) / count for number in range(count)]


def write_sheet(path: str | os.PathLike, samples: Sequence[Sample]) -> None:
    """Write pictures side by side with their times, and thin lines around what was hidden (JPEG)."""
    height, width = samples[0].picture.shape[:2]
    tile = TILE_WIDTH, max(1, round(height / width * TILE_WIDTH))
    rows = math.ceil(len(samples) / COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * tile[0], rows * tile[1]), (40, 40, 40))
    for number, sample in enumerate(samples):
        picture = Image.fromarray(sample.picture).resize(tile, Image.Resampling.BOX)
        draw = ImageDraw.Draw(picture)
        for left, top, right, bottom in sample.boxes * (tile[0] / width):
            if right > left and bottom > top:
                draw.rectangle([left, top, right, bottom], outline=OUTLINE)
        draw.text((6, 4), f"{sample.time:.2f} s", fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
        sheet.paste(picture, (number % COLUMNS * tile[0], number // COLUMNS * tile[1]))
    with written_whole(path) as partial:
        sheet.save(partial, format="JPEG", quality=88)


def write_checks(folder: Path, name: str, samples: Sequence[Sample]) -> list[dict[str, str]]:
    """Write single pictures at full size; returns a row of each for `write_table`."""
    rows = []
    for sample in samples:
        path = folder / f"{name}-{sample.time:.2f}s.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial:
            Image.fromarray(sample.picture).save(partial, format="JPEG", quality=92)
        rows.append({"picture": path.relative_to(folder).as_posix(), "video": name, "time_s": f"{sample.time:.2f}"})
    return rows


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write the table of the pictures that a person confirms; the last column is left to that person."""
    with written_whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS_OF_CHECKS, restval="")
        writer.writeheader()
        writer.writerows(rows)


__all__ = ["Sample", "even", "write_checks", "write_sheet", "write_table"]
