"""Labels of single frames."""

import os

import numpy as np

from .manifest import ManifestError


def read_frame_mask(path: str | os.PathLike) -> np.ndarray:
    """Read which frames of a video are anomalous.

    Returns:
        Array of 0 and 1 of shape `(frames,)`, uint8.

    Raises:
        ManifestError: If the file is no such array.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
            raise ValueError("it is no regular file")
        mask = np.load(path, allow_pickle=False)
    # A header is read as Python's own notation, of which a damaged one raises nearly anything.
    except Exception as error:
        raise ManifestError(f"{path} cannot be read as a .npy array ({error}). Copy it again.") from error
    if mask.dtype.kind not in "biuf" or mask.ndim != 1 or not len(mask) or not np.isin(mask, (0, 1)).all():
        raise ManifestError(f"{path} must hold 0 or 1 for each frame, but is {mask.dtype} of shape {mask.shape}.")
    return mask.astype(np.uint8)
