"""Heat maps over the picture: from the few cells of a feature map to a smooth map, and to the place of its peak."""

import numpy as np

# Each cell spreads over its neighbours by a Gaussian of so many cells: of two cells that are equally hot, what they
# saw lay between them.
SPREAD = 0.6
# Parts of a cell by which the place of a peak is told.
FINE = 16


def smooth(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map over a picture.

    Args:
        values: What each cell has, shape `(rows, columns)`.
        size: Width and height of the picture, in pixels.

    Returns:
        Shape `(height, width)`, between the lowest and the highest value.
    """
    values = np.asarray(values, dtype=np.float64)
    down, across = (
        # Beyond the middle of the outer cells nothing is known: the map goes on as it is there.
        _weights(((np.arange(pixels) + 0.5) / pixels * cells - 0.5).clip(0, cells - 1), cells)
        for cells, pixels in zip(values.shape, (size[1], size[0]), strict=True)
    )
    return down @ values @ across.T


def _weights(places: np.ndarray, cells: int) -> np.ndarray:
    """How much each cell counts at each place, shape `(places, cells)`; the middles of cells are whole numbers."""
    weights = np.exp(-((places[:, None] - np.arange(cells)) ** 2) / (2 * SPREAD**2))
    return weights / weights.sum(1, keepdims=True)


def peak(values: np.ndarray) -> tuple[float, float]:
    """Where a map is hottest: shares of the picture's width and height, from its upper left corner."""
    values = np.asarray(values, dtype=np.float64)
    places = [np.linspace(0, cells - 1, FINE * (cells - 1) + 1) for cells in values.shape]
    down, across = (_weights(known, cells) for known, cells in zip(places, values.shape, strict=True))
    heat = down @ values @ across.T
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    rows, columns = values.shape
    return round(float(places[1][column] + 0.5) / columns, 3), round(float(places[0][row] + 0.5) / rows, 3)


__all__ = ["peak", "smooth"]
