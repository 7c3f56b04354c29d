"""Fixed masks of a camera: polygons that are drawn once on a snapshot, in the files of LabelMe."""

import json
import os
from pathlib import Path

import numpy as np

# A mask has tens of corners; a file of more was meant for something else.
MOST_CORNERS = 10_000


def read_masks(path: str | os.PathLike) -> list[np.ndarray]:
    """Read polygons, as LabelMe writes them.

    The file is JSON: ``imageWidth`` and ``imageHeight`` in pixels, and ``shapes``, each with ``points``, a list of
    ``[x, y]`` in pixels. Two points of a shape are corners of a rectangle.

    Returns:
        Corners of each polygon, of shape `(corners, 2)`, as shares of the width and height of the picture: they fit
        videos of any size.

    Raises:
        ValueError: If the file is missing, or is no such file.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        size = np.array([document["imageWidth"], document["imageHeight"]], dtype=np.float64)
        polygons = [np.array(shape["points"], dtype=np.float64) for shape in document["shapes"]]
        if not polygons or sum(map(len, polygons)) > MOST_CORNERS:
            raise ValueError("it has no shapes, or far too many points")
        for polygon in polygons:
            if polygon.ndim != 2 or polygon.shape[1] != 2 or len(polygon) < 2 or not np.isfinite(polygon).all():
                raise ValueError("a shape has fewer than two points, or they are no numbers")
        if not (np.isfinite(size).all() and (size > 0).all()):
            raise ValueError("the size of its picture is not above 0")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no masks ({type(error).__name__}: {error}). Draw polygons on a snapshot of the camera with "
            "LabelMe, and give its JSON file: imageWidth, imageHeight, and shapes with points."
        ) from error
    return [_corners(polygon) / size for polygon in polygons]


def _corners(points: np.ndarray) -> np.ndarray:
    """Corners of a polygon; of a rectangle from two that are opposite."""
    if len(points) > 2:
        return points
    (x0, y0), (x1, y1) = points
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


__all__ = ["read_masks"]
