"""The page of a detector that was fitted without labels: what it rests on, and what a person should look at."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .html import count, section, table, text, write_page
from .ranking import cards, clock

LOOK = (
    "These stretches are most unlike the rest of the footage, and the detector takes them for normal: look whether "
    "they are. If one is not, remove its video and fit again, or name the share of such footage (--contamination)."
)
NO_FIGURES = (
    "Without labels nobody can say how much a detector finds. Try it on videos with anomalies (avad-hf detect), or "
    "label some and evaluate it (avad-hf evaluate)."
)


def write_fit_report(
    steps: Mapping[str, str],
    footage: Mapping[str, Any] | None,
    notes: Sequence[str],
    path: str | os.PathLike,
    title: str,
) -> Path:
    """Write what was done, and the stretches that a person should look at, as one HTML file.

    Args:
        steps: What was done in each step, in words.
        footage: What is most unlike the rest, as of `avad_hf.evaluation.ranked.RankedFootage`; ``None`` where that
            cannot be said.
        notes: What the reader must know.
        path: The file.
        title: Title of the page.
    """
    rows = [[text(name), text(words)] for name, words in steps.items() if name != "report"]
    parts = [section("What was done", table("", ["step", ""], rows, "remarks"))]
    summary = "fitted to normal footage, without labels"
    if footage is not None:
        size = f"{count(footage['num_clips'], 'clip')} of {count(footage['num_recordings'], 'recording')}"
        summary = f"{size}, {clock(footage['seconds'])} in all, without labels"
        parts.append(
            section("Look at these", f"<p>{text(LOOK)}</p>{cards(footage['stretches'], footage['pictures'])}")
        )
    parts.append(section("What is not known", f"<p>{text(NO_FIGURES)}</p>"))
    return write_page(path, title, text(summary), notes, parts)


__all__ = ["write_fit_report"]
