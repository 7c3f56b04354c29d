"""Tables as people write them, in CSV, JSON lines or Parquet: as rows of values by the names of columns."""

import csv
import json
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

# Columns are compared with the known ones by their spelling, each with each.
MOST_COLUMNS = 1000
# A table in Parquet can say in some bytes that it has more rows than memory; a million take 2 GB as they are checked.
MOST_ROWS = 10_000_000
# Characters of a value that errors show.
SHOWN = 100


class ManifestError(ValueError):
    """A manifest cannot be used. The message names the file, the row, what is needed and what to do."""


def read_csv(path: Path, known: Collection[str]) -> list[dict[str, Any]]:
    """Read a CSV; columns but the known ones, whose type somebody else knows, get the type that fits their cells."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        # Excel writes semicolons where the comma is the decimal sign.
        first = file.readline()
        file.seek(0)
        reader = csv.reader(file, strict=True, delimiter=";" if ";" in first and "," not in first else ",")
        _, header = next(_numbered(reader, path, 1), (1, []))
        if "" in header or len(set(header)) < len(header):
            twice = next(name for name in header if not name or header.count(name) > 1)
            raise ManifestError(
                f"{path}: two columns have the same name, or one has none: {shown(twice)!r}. Rename it."
            )
        if len(header) > MOST_COLUMNS:
            raise ManifestError(f"{path} has {len(header)} columns; a table has {MOST_COLUMNS} at most. Remove some.")
        rows = []
        for number, cells in _numbered(reader, path, 2):
            if len(cells) not in (0, len(header)):
                raise ManifestError(
                    f"{path}, row {number}: {len(cells)} cells under {len(header)} columns. Quote cells with commas."
                )
            if cells:
                rows.append(dict(zip(header, cells, strict=True)))
    # A CSV knows no types: other columns get the one that fits all of their cells.
    for name in set(header) - set(known):
        values = _inferred([row[name] for row in rows])
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def _numbered(reader: Any, path: Path, first: int) -> Iterator[tuple[int, list[str]]]:
    """Rows that are left of a CSV, with their numbers; raises `ManifestError` with the row that is damaged."""
    for number in count(first):
        try:
            yield number, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ManifestError(
                f"{path}, row {number}: it is no csv file from here on ({error}). Correct it."
            ) from error


def _inferred(cells: list[str]) -> list[Any]:
    filled = [cell for cell in cells if cell]
    for kind in (int, float):
        try:
            # Not numbers that would change, such as 007, nor those that Arrow cannot hold.
            if all(str(kind(cell)) == cell and abs(kind(cell)) < 2**63 for cell in filled):
                return [kind(cell) if cell else None for cell in cells]
        except ValueError:
            continue
    if set(filled) <= {"true", "false"}:
        return [cell == "true" if cell else None for cell in cells]
    return [cell or None for cell in cells]


def read_jsonl(path: Path, known: Collection[str]) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line, whose values have types of their own."""
    # Not splitlines, which also cuts at rare characters that names can hold.
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ManifestError(f'{path}: each line must be a JSON object such as {{"video": "a.mp4"}}.')
    return rows


def read_parquet(path: Path, known: Collection[str]) -> list[dict[str, Any]]:
    """Read a table in Parquet, whose values have types of their own."""
    if (num_rows := pq.read_metadata(path).num_rows) > MOST_ROWS:
        raise ManifestError(f"{path} has {num_rows} rows; a manifest has {MOST_ROWS} at most. Divide it.")
    return pq.read_table(path).to_pylist()


def shown(value: Any) -> Any:
    """A value as errors show it, however long it is."""
    return f"{value[:SHOWN]}..." if isinstance(value, str) and len(value) > SHOWN else value


READERS = {".csv": read_csv, ".jsonl": read_jsonl, ".parquet": read_parquet}

__all__ = ["MOST_COLUMNS", "READERS", "ManifestError", "read_csv", "shown"]
