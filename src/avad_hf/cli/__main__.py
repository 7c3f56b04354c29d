"""The command under `python -m` and `accelerate launch -m`."""

from . import app

app()
