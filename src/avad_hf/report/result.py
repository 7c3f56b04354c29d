"""One result as a part of a page: what was found, its timeline, its events, and what is seen and heard."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from avad_hf.detection.explaining import reason

from .html import count, notes_box, table, text
from .timeline import plot_timeline

# Rows of the table: a person reads no more, and the file of the result has them all.
MOST_EVENTS = 50


def result_part(result: dict[str, Any], source: Any, name: str, said: Sequence[str] = ()) -> str:
    """Show a result as HTML that needs nothing else.

    Args:
        result: Result of the pipeline.
        source: The video it was made from, for the sound.
        name: What the video is called.
        said: Warnings that the page shows already.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "timeline.png"
        plot_timeline(result, source, path, title=name)
        picture = b64encode(path.read_bytes()).decode()
    label = "not judged" if result["label"] is None else result["label"]
    described = f"Score over time: at most {result['score']:.3f}, {count(len(result['events']), 'event')}."
    sound = "with sound" if result["has_audio"] else "no sound"
    # On a phone the whole picture is too small to be read: a tap makes it larger, and it can be moved sideways.
    plot = (
        '<label class="plot"><input type="checkbox" aria-label="Enlarge the timeline">'
        f'<span class="hint">Tap the picture to enlarge it.</span><span class="scroll">'
        f'<img alt="{text(described)}" src="data:image/png;base64,{picture}"></span></label>'
    )
    notes = notes_box([note for note in result["warnings"] if note not in said])
    return (
        f'<div class="found"><p class="verdict"><strong>{text(label)}</strong>: highest score {result["score"]:.3f}, '
        f"threshold {result['threshold']:.4g}</p>"
        f'<p class="soft">{text(name)}: {count(len(result["clips"]), "clip")}, {result["duration"]:.2f} s, {sound}</p>'
        f"{notes}{plot}{_events(result)}{_names(result)}</div>"
    )


def _events(result: dict[str, Any]) -> str:
    """The events as a table; nothing where the video is not judged."""
    if result["label"] is None:
        return ""
    events = result["events"][:MOST_EVENTS]
    if not events:
        return "<p>No event: no clip reaches the threshold.</p>"
    senses = [sense for sense in ("seen", "heard") if any(event.get(sense) for event in events)]
    reasons = [reason(event.get("why")) for event in events]
    rows = []
    for event, words in zip(events, reasons, strict=True):
        row = [f"{event['start']:.2f} s to {event['end']:.2f} s", text(event["label"])]
        row += [f"{event['score']:.3f}", f"{event['peak']:.2f} s"]
        row += [text(event[sense][0]["label"]) if event.get(sense) else "" for sense in senses]
        rows.append(row + [text(words or "")] * any(reasons))
    head = ["when", "what", "score", "highest at", *senses, *["why"] * any(reasons)]
    more = len(result["events"]) - len(events)
    return table("Events" + (f" (the first {MOST_EVENTS}; {more} more are in the file)" if more else ""), head, rows)


def _names(result: dict[str, Any]) -> str:
    """What is most seen and heard in the whole video."""
    lines = []
    for sense in ("seen", "heard"):
        names = "; ".join(f"{text(name['label'])} {name['score']:.2f}" for name in result.get(sense, ()))
        lines += [f"<p><strong>{sense.capitalize()}</strong>: {names}</p>"] if names else []
    return "".join(lines)


__all__ = ["result_part"]
