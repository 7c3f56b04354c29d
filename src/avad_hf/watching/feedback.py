"""What people answer to alerts: a manifest of the events' clips, which `avad-hf extract` takes."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from avad_hf.files import shown, write_file

# Answer -> label of the clip in the manifest.
LABELS = {"false_alarm": "normal", "right": "anomalous"}
ANSWERS = {label: answer for answer, label in LABELS.items()}
COLUMNS = ["id", "video", "label", "group"]


class FeedbackError(ValueError):
    """An answer cannot be kept. The message says why, and what to do."""


class Feedback:
    """Answers to events, in a CSV file: a manifest with one row an event, its clip, its label and its camera.

    ``avad-hf extract FILE STORE`` computes the clips' features. ``avad-hf update`` learns those of false alarms as
    normal, ``avad-hf calibrate`` counts them, and both leave out the ones that are labelled ``anomalous``.

    Args:
        path: The CSV file. It is read if it exists, and made with the first answer otherwise.
        evidence: Folder of the events' clips.

    Raises:
        FeedbackError: If there is a file that holds something other than answers.
    """

    def __init__(self, path: str | os.PathLike, evidence: str | os.PathLike):
        self._path, self._evidence = Path(path).absolute(), Path(evidence).absolute()
        self._lock = Lock()
        self._rows = self._read()

    @property
    def answers(self) -> dict[str, str]:
        """Answers (``false_alarm`` or ``right``) by the id of the event."""
        with self._lock:
            return {name: ANSWERS[row["label"]] for name, row in self._rows.items()}

    def answer(self, event: Mapping[str, Any], answer: str) -> None:
        """Keep what a person answered to an event; the last answer to it counts.

        Rows whose clip was removed since are left out: a manifest may name only files that exist.

        Args:
            event: With ``id``, ``camera`` and ``evidence``.
            answer: ``false_alarm`` or ``right``.

        Raises:
            FeedbackError: For another answer, and for an event without a clip.
            OSError: If the file cannot be written; then the answer does not count.
        """
        if answer not in LABELS:
            raise FeedbackError(f"The answer is {shown(answer)!r}. It must be {' or '.join(LABELS)}.")
        place = (event.get("evidence") or {}).get("clip")
        if not place:
            when = "Wait until the event has ended" if event.get("state") != "closed" else "Keep evidence (a folder)"
            raise FeedbackError(f"This event has no clip yet that an answer could be kept with. {when}, then answer.")
        clip = self._evidence / place
        if not clip.is_file():
            raise FeedbackError("The clip of this event was removed, so that the answer has nothing to be kept with.")
        # Names without control characters, which other readers of the table would stumble over.
        name = shown(event["id"])
        row = {
            "id": name,
            "video": os.path.relpath(clip, self._path.parent).replace(os.sep, "/"),
            "label": LABELS[answer],
            "group": shown(event["camera"]),
        }
        with self._lock:
            rows = {key: one for key, one in self._rows.items() if self._has_clip(one)} | {name: row}
            self._write(rows)
            self._rows = rows

    def drop_removed(self) -> None:
        """Leave out the rows whose clips were removed since, so that the file stays a manifest that can be read."""
        with self._lock:
            rows = {key: row for key, row in self._rows.items() if self._has_clip(row)}
            if len(rows) < len(self._rows):
                self._write(rows)
                self._rows = rows

    def _has_clip(self, row: Mapping[str, str]) -> bool:
        return (self._path.parent / row["video"]).is_file()

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            with open(self._path, encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                rows = list(reader)
        except FileNotFoundError:
            return {}
        except (UnicodeDecodeError, csv.Error) as error:
            raise FeedbackError(
                f"{self._path} is no CSV file in UTF-8 ({error}), and is not overwritten. Give another file."
            ) from None
        # A row with too many cells has the key None, one with too few the value None.
        if reader.fieldnames != COLUMNS or any(
            None in row or None in row.values() or row["label"] not in ANSWERS for row in rows
        ):
            raise FeedbackError(
                f"{self._path} holds something other than answers to alerts, and is not overwritten. Its columns must "
                f"be {', '.join(COLUMNS)}, and its labels {' or '.join(ANSWERS)}. Give another file."
            )
        return {row["id"]: row for row in rows}

    def _write(self, rows: Mapping[str, Mapping[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
        write_file(self._path, text.getvalue().encode())


__all__ = ["Feedback", "FeedbackError"]
