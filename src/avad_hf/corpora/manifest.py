"""The manifest: one table, a row a video, that every corpus is brought into and that people can write themselves."""

import csv
import datetime
import errno
import json
import math
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from avad_hf.files import written_whole

from .classes import is_normal, refuse_doubtful
from .splits import SPLIT_ALIASES, check_groups
from .tables import MOST_COLUMNS, READERS, ManifestError, read_csv, shown

# Column -> type of its values; any cell may be empty but those of `video`. Other columns are kept as they are.
COLUMNS: dict[str, type] = {
    "id": str,  # name of the row; by default the path as it is written, with the stretch of time if there is one
    "video": str,  # video file or folder of pictures; relative paths count from the manifest's folder
    "audio": str,  # sound file beside it, where the video has none of its own
    "label": str,  # class
    "anomaly": int,  # 1 or 0; by default 0 for the label normal and 1 for all others
    "scene": str,  # camera or place
    "group": str,  # recording, camera or day: rows of one group are never in two sets of a split
    "split": str,  # train, validation or test
    "start": float,  # seconds
    "end": float,  # seconds
    "fps": float,  # frames a second; what folders of pictures need
    "hour": int,  # of the day, 0 to 23
    "weather": str,
    "dark": bool,
    "frame_mask": str,  # .npy file of 0 and 1, one a frame, where frames are labelled
}
# What people call these columns, beside misspelling them.
OTHER_NAMES = {
    "path": "video", "file": "video", "filename": "video", "file_name": "video", "filepath": "video", "clip": "video",
    "class": "label", "category": "label", "target": "label", "camera": "scene", "subset": "split", "set": "split",
    "time": "hour", "wav": "audio", "sound": "audio",
}  # fmt: skip
# Columns of an index, which are found while features are computed.
RESERVED = ("file", "num_clips", "has_audio", "duration", "warnings")
PLACES = {"video", "audio", "frame_mask"}
# What meta.csv may say; its other columns are its own.
META_COLUMNS = {"video", "group", "hour", "weather", "dark", "fps"}
TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
FORMATS = (".csv", ".jsonl", ".parquet")


def read_manifest(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read and check a manifest.

    Args:
        path: A ``.csv``, ``.jsonl`` or ``.parquet`` file.

    Returns:
        A dict a row with all of `COLUMNS` (``None`` where a cell is empty), paths made absolute, and the columns that
        the manifest has besides.

    Raises:
        ManifestError: For another format, unknown or misspelt columns, values of the wrong kind, files that are not
            there, and rows that stand there twice.
    """
    path = Path(path)
    _check_format(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device read without end
        raise ManifestError(f"{path} is no regular file. Give the name of the manifest's file.")
    try:
        raw = READERS[path.suffix.lower()](path, COLUMNS)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no such file. `avad-hf scan FOLDER -o {path.name}` writes one.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, pa.ArrowException) as error:
        raise ManifestError(f"{path} is no {path.suffix[1:]} file in UTF-8: {error}.") from error
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}.") from error
    if not raw:
        raise ManifestError(f"{path} has no rows. Each video needs one.")
    _check_columns(path, list(dict.fromkeys(name for row in raw for name in row)))
    # Line 1 of a CSV is its header.
    first = 2 if path.suffix.lower() == ".csv" else 1
    rows = [_typed(f"{path}, row {number}", row) for number, row in enumerate(raw, first)]
    rows = complete(rows, path.absolute().parent, str(path))
    _check_places(rows, str(path), first)
    return rows


def refuse_outside(rows: Iterable[dict[str, Any]], folder: Path, name: str) -> None:
    """Refuse a manifest that was found in a corpus's folder, and names files elsewhere on this machine.

    Who gives a manifest by its name has looked at it; what lies in a folder came with it, from whoever made that.
    """
    base = os.path.normpath(folder.absolute())
    for row in rows:
        for column in sorted(PLACES):
            place = row[column]
            if place is not None and not _is_url(place) and os.path.commonpath([base, place]) != base:
                raise ManifestError(
                    f"{name}: {column} of {shown(row['id'])} is {shown(place)}, outside the folder. A manifest in a "
                    "corpus's folder may name files in that folder alone. If you wrote it yourself, give it by its "
                    f"name: data_dir={name!r}."
                )


def _check_format(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        raise ManifestError(f"{path}: a manifest ends with {', '.join(FORMATS)}. Give such a name.")


def check_new(path: str | os.PathLike) -> None:
    """Refuse a name that no manifest can be written to; people edit theirs by hand, so none is overwritten."""
    path = Path(path)
    _check_format(path)
    if os.path.lexists(path):
        raise ManifestError(f"{path} is there already. Give another name, or remove it; nothing was overwritten.")


def complete(rows: Sequence[dict[str, Any]], base: Path, name: str) -> list[dict[str, Any]]:
    """Fill in what follows from the rest (id, anomaly, absolute paths) and check what needs all rows.

    Args:
        rows: With all of `COLUMNS`.
        base: What relative paths count from.
        name: What errors call these rows.
    """
    if (labelled := sum(row["label"] is not None for row in rows)) not in (0, len(rows)):
        raise ManifestError(f"{name}: {len(rows) - labelled} of {len(rows)} rows have no label. Label all or none.")
    try:
        refuse_doubtful(row["label"] for row in rows if row["label"] is not None and row["anomaly"] is None)
    except ValueError as error:
        raise ManifestError(f"{name}: {error}") from None
    done = []
    for row in rows:
        identity = row["id"] or _relative(row["video"], base)
        if row["id"] is None and (row["start"] is not None or row["end"] is not None):
            identity += f"#t={row['start'] or 0:g},{'' if row['end'] is None else format(row['end'], 'g')}"
        anomaly = row["anomaly"]
        if anomaly is None and row["label"] is not None:
            anomaly = int(not is_normal(row["label"]))
        places = {place: _absolute(row[place], base) for place in PLACES}
        done.append(row | places | {"id": identity, "anomaly": anomaly})
    if twice := [identity for identity, count in Counter(row["id"] for row in done).items() if count > 1]:
        raise ManifestError(
            f"{name}: {len(twice)} videos stand there more than once, first {twice[0]}. Keep one row of each, or give "
            "stretches of one video with start and end."
        )
    for column in dict.fromkeys(key for row in done for key in row if key == "split" or _is_split_column(key)):
        without = [row["id"] for row in done if not row.get(column)]
        if 0 < len(without) < len(done):
            raise ManifestError(
                f"{name}: {len(without)} of {len(done)} rows have no {column}, first {without[0]}. Fill it in all "
                "rows, or in none to have them divided 60/20/20."
            )
        if column == "split_original":  # counts only where it is chosen, and is checked there
            continue
        try:
            check_groups(done, [row.get(column) for row in done], column)
        except ValueError as error:
            raise ManifestError(f"{name}: {error}") from None
    return done


def _is_url(place: str) -> bool:
    return "://" in place


def _absolute(place: str | None, base: Path) -> str | None:
    return place if place is None or _is_url(place) else os.path.normpath(base / place)


def _relative(place: str, base: Path) -> str:
    if _is_url(place):
        return place
    return Path(os.path.relpath(base / place, base)).as_posix()


def write_manifest(rows: Sequence[dict[str, Any]], path: str | os.PathLike) -> None:
    """Write rows as a manifest, with paths relative to its folder; columns that are empty in all rows are left out.

    Raises:
        ManifestError: For a format that is none of `FORMATS`, and if the file is there already.
    """
    path = Path(path)
    check_new(path)
    base = path.absolute().parent
    names = [
        name
        for name in dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)])
        if any(row.get(name) is not None for row in rows)
    ]
    table = [{name: row.get(name) for name in names} for row in rows]
    for row in table:
        for place in PLACES & row.keys():
            if row[place] is not None and not _is_url(row[place]):
                row[place] = Path(os.path.relpath(row[place], base)).as_posix()
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        if path.suffix.lower() == ".parquet":
            pq.write_table(pa.Table.from_pylist(table), partial)
        elif path.suffix.lower() == ".jsonl":
            partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table), encoding="utf-8")
        else:
            with open(partial, "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, names, lineterminator="\n")
                writer.writeheader()
                writer.writerows([{key: _cell(value) for key, value in row.items()} for row in table])


def _cell(value: Any) -> Any:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value


def read_meta(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a table that adds to what folders say: a column video, and any others.

    Returns:
        For each row where it stands, for errors, and its values that are not empty; a time such as 21:30 as ``hour``.
    """
    records, seen = [], set()
    rows = read_csv(path, COLUMNS)
    names = list(rows[0]) if rows else []
    _check_columns(path, [{"time": "hour"}.get(name, name) for name in names])
    if unfit := sorted({*names} & {*COLUMNS} - META_COLUMNS):
        raise ManifestError(
            f"{path}: the column {unfit[0]!r} is told by folders and lists. Remove it; known here are "
            f"{', '.join(sorted(META_COLUMNS))}, time, and others of your own."
        )
    for number, raw in enumerate(rows, 2):
        where, row = f"{path}, row {number}", dict(raw)
        if "time" in row and "hour" not in row:
            row["hour"] = str(row.pop("time") or "").split(":")[0]
        if not row.get("video"):
            raise ManifestError(f"{where}: video is empty. Give the name or path of a video.")
        if row["video"] in seen:
            raise ManifestError(f"{where}: {row['video']!r} stands there twice. Keep one row of each video.")
        seen.add(row["video"])
        typed = {
            name: _value(where, name, value, COLUMNS[name]) if name in COLUMNS else value
            for name, value in row.items()
        }
        _check_ranges(where, typed)
        records.append((where, {name: value for name, value in typed.items() if value is not None}))
    return records


def _check_columns(path: Path, names: list[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise ManifestError(f"{path} has {len(names)} columns; a table has {MOST_COLUMNS} at most. Remove some.")
    for name in names:
        if name in COLUMNS or _is_split_column(name):
            continue
        plain = str(name).strip().lower()
        near = OTHER_NAMES.get(plain) or next(iter(get_close_matches(plain, COLUMNS, n=1, cutoff=0.8)), None)
        if near is not None and near not in names:
            raise ManifestError(
                f"{path}: the column {name!r} is unknown; {near!r} is not there. Is that what is meant? Rename it. "
                f"Known columns: {', '.join(COLUMNS)}; others are kept as long as their names differ from these."
            )
        if name in RESERVED:
            raise ManifestError(f"{path}: the column {name!r} is filled in when features are computed. Rename it.")
    if "video" not in names:
        raise ManifestError(
            f"{path} needs a column video with the path of each. Columns: {', '.join(map(str, names))}."
        )


def _typed(where: str, row: dict[str, Any]) -> dict[str, Any]:
    typed = {name: _value(where, name, row.get(name), kind) for name, kind in COLUMNS.items()}
    if typed["video"] is None:
        raise ManifestError(f"{where}: video is empty. Give the path of a video.")
    _check_ranges(where, typed)
    if None not in (typed["start"], typed["end"]) and typed["end"] <= typed["start"]:
        raise ManifestError(f"{where}: it ends at {typed['end']:g} s, before it starts at {typed['start']:g} s.")
    if typed["fps"] is not None and not 0 < typed["fps"] < 1000:
        raise ManifestError(f"{where}: fps is {typed['fps']}, but must be above 0 frames a second.")
    for name, value in row.items():
        if name == "split" or _is_split_column(name):
            typed[name] = _split(where, name, value)
        elif name not in COLUMNS:
            typed[name] = _plain(where, name, value)
    return typed


@lru_cache(MOST_COLUMNS)  # asked of each column of each row
def _is_split_column(name: str) -> bool:
    return re.fullmatch(r"split_([0-9]+|original)", name) is not None


def _plain(where: str, name: str, value: Any) -> Any:
    """A value of a column of one's own as text, number or truth value; dates and the like as text."""
    if isinstance(value, (list, tuple, dict, bytes)):
        raise ManifestError(f"{where}: {name} holds a {type(value).__name__}. Give text, numbers, or true and false.")
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, int) and abs(value) >= 2**63:
        return str(value)
    return value if isinstance(value, (str, bool, int, float)) else str(value)


def _check_ranges(where: str, row: dict[str, Any]) -> None:
    for name, low, high in (("hour", 0, 23), ("anomaly", 0, 1), ("start", 0, math.inf), ("end", 0, math.inf)):
        if (value := row.get(name)) is not None and not low <= value <= high:
            raise ManifestError(f"{where}: {name} is {value}, but must be within {low} and {high}.")


def _value(where: str, name: str, value: Any, kind: type) -> Any:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip()
    try:
        if kind is bool:
            return TRUTH[text.lower()]
        if name == "anomaly" and text.lower() in TRUTH:
            return int(TRUTH[text.lower()])
        if kind is int:
            number = float(text)
            if number != int(number):
                raise ValueError
            return int(number)
        if kind is float:
            number = float(text)
            if not math.isfinite(number):
                raise ValueError
            return number
        # A group may be a day, which other programs write as a date.
        if not isinstance(value, (str, int, datetime.date) if name == "group" else (str, int)):
            raise ValueError
    except (ValueError, KeyError, OverflowError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
        raise ManifestError(f"{where}: {name} is {shown(value)!r}, but must be {wanted}.") from None
    if "\0" in text:
        raise ManifestError(f"{where}: {name} is {shown(value)!r}, which holds a NUL character. Remove it.")
    # Paths and ids stay as they are; stray spaces would make classes and scenes of their own.
    return str(value) if name in PLACES | {"id"} else text or None


def _split(where: str, name: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    try:
        return SPLIT_ALIASES[str(value).strip().lower()]
    except KeyError:
        raise ManifestError(f"{where}: {name} is {shown(value)!r}, but must be train, validation or test.") from None


def _check_places(rows: Iterable[dict[str, Any]], name: str, first: int) -> None:
    """Raise `ManifestError` for files that are not there, and for what is no file; the first row has a number."""
    missing = []
    for column in sorted(PLACES):
        for number, row in enumerate(rows, first):
            if (place := row[column]) is None or _is_url(place):
                continue
            try:
                mode = os.stat(place).st_mode
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise ManifestError(f"{name}: {place} is a link that leads back to itself.") from None
                missing.append(place)
                continue
            # A device is read without end, and a pipe waited for.
            if not (stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and column == "video")):
                raise ManifestError(
                    f"{name}, row {number}: {column} is {shown(place)}, which is no regular file"
                    f"{' and no folder of pictures' if column == 'video' else ''}. Give a file."
                )
    if missing:
        raise ManifestError(
            f"{name}: {len(missing)} files are not there, first {', '.join(map(shown, missing[:3]))}. Paths count "
            "from the manifest's folder: move it beside the videos, or correct them."
        )


__all__ = ["COLUMNS", "ManifestError", "read_manifest", "refuse_outside", "write_manifest"]
