"""What the anonymiser needs beside the library's own packages."""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRA = "pip install 'avad-hf[anonymise]'"


@contextmanager
def needs_extra() -> Iterator[None]:
    """Say how packages are installed that are missing."""
    try:
        yield
    except ImportError as error:
        if "libGL" in str(error):  # OpenCV's, on machines without a desktop
            raise ImportError(f"{error}. Hiding needs OpenGL's library: apt-get install libgl1") from error
        raise ImportError(
            f"{error.name or error} is not installed, and hiding needs it. Install it: {EXTRA}"
        ) from error


__all__ = ["needs_extra"]
