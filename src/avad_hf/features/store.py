"""The files of a feature store: what made it, what is in it, and how they are written so that a kill harms nothing."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from avad_hf.disks import writing
from avad_hf.files import PARTIAL, write_file
from avad_hf.hub.contents import refuse_leading_out
from avad_hf.media.folders import pictures_in
from avad_hf.runs import LOCK

RECIPE, INDEX, FAILED, FEATURES = "recipe.json", "index.jsonl", "failed.jsonl", "features"
# The one key of a feature file's header: safetensors keeps several in no fixed order, and files must be reproducible.
FACTS = "avad_hf"
# Columns that name files of this machine; the store must make sense on any other.
SOURCES = ("video", "audio")
# Bytes at either end of a file that are looked at for a change.
LOOKED_AT = 1 << 16


def finished_store(directory: Path) -> Path:
    """The folder itself; raises ``FileNotFoundError`` if it is no store, or one that was not finished."""
    if missing := [file for file in (RECIPE, INDEX) if not (directory / file).is_file()]:
        raise FileNotFoundError(
            f"{directory} is no finished feature store: {' and '.join(missing)} missing. If an extraction was "
            "stopped, run the same command again and it goes on."
        )
    return directory


def read_recipe(directory: Path) -> dict[str, Any]:
    """What made the features of a store; raises ``ValueError`` if the file is damaged."""
    path = directory / RECIPE
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(recipe, dict) or not isinstance(recipe.get("processor", {}), dict):
            raise ValueError("it names no settings of a processor")
        return recipe
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). Copy the store again.") from error


def read_index(directory: Path) -> list[dict[str, Any]]:
    """What a store lists; raises ``ValueError`` for rows that are none, or name files outside the store."""
    rows = read_jsonl(directory / INDEX)
    for number, row in enumerate(rows, 1):
        where = f"{directory / INDEX}, line {number}"
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or row.get("anomaly") not in (None, 0, 1):
            raise ValueError(
                f"{where} is damaged: each line needs id (text), file, and anomaly (1, 0 or null), got "
                f"{str(row)[:80]}. Copy the store again."
            )
        for name in ("label", "scene", "split"):
            # Rows of one's own may number their classes.
            if not isinstance(row.get(name), (str, int, float, NoneType)):
                raise ValueError(f"{where}: {name} must be text or null, got {str(row[name])[:80]}. Copy it again.")
        refuse_leading_out(directory, row.get("file"), f"file of {row['id']!r}")
        for name in ("label", "anomaly", "scene", "split"):
            row.setdefault(name, None)
    return rows


def feature_file(video_id: str) -> str:
    """Where a store keeps a video's features: a name that any file system and the Hub take, and no other video has."""
    digest = hashlib.sha256(video_id.encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(video_id).stem)[:60]
    return f"{FEATURES}/{digest[:2]}/{readable}-{digest[:16]}.safetensors"


def read_features(path: Path, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a feature file: its facts and, memory-mapped, its tensors.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("it is no regular file")
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()[FACTS])
            return facts, {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is missing or damaged ({type(error).__name__}: {error}). Delete it, if it is there, and run the "
            "extraction again: only what is missing is computed."
        ) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; raises ``ValueError`` if it is damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). Delete it, and run the extraction again.") from error


def claim(store: Path, recipe: dict[str, Any]) -> None:
    """Begin a store, or make sure that the one that is there was made alike."""
    path = store / RECIPE
    if path.is_file():
        refuse_other_recipe(store, read_recipe(store), recipe)
    # A run that was killed right at its beginning leaves half a recipe and its lock.
    elif any(name != LOCK and not (name.startswith(RECIPE) and name.endswith(PARTIAL)) for name in os.listdir(store)):
        raise ValueError(f"{store} is there already and is no feature store. Give a new or empty folder.")
    else:
        write(path, json.dumps(recipe, indent=2, sort_keys=True).encode() + b"\n")


def refuse_other_recipe(store: Path, stored: dict[str, Any], recipe: dict[str, Any]) -> None:
    """Raise ``ValueError``, with all differences, if a store was made by another recipe than this."""
    before, now = _flat(stored), _flat(json.loads(json.dumps(recipe)))
    different = [
        f"  {key}: {before.get(key, 'nothing')} in the store, {now.get(key, 'nothing')} now"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if different:
        listed = "\n".join(different)
        raise ValueError(
            f"The feature store {store} was made by another recipe, and features of two recipes must not mix:\n"
            f"{listed}\nGive another folder, or the processor and versions that made this one."
        )


def _flat(recipe: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in recipe.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def recipe_sha256(recipe: dict[str, Any]) -> str:
    """SHA-256 of what features mean: encoders, their weights and settings, whatever versions computed them."""
    numerics = ("versions", "notices", "visual_dtype", "audio_dtype")
    meaning = {key: value for key, value in _flat(recipe).items() if key.split(".")[0] not in numerics}
    meaning = {key: value for key, value in meaning.items() if not key.endswith((".dtype", ".runtime", ".notice"))}
    return hashlib.sha256(json_line(meaning).encode()).hexdigest()


def json_line(value: dict[str, Any]) -> str:
    """JSON on one line that is the same for the same value; raises ``ValueError`` for NaN, which JSON has not."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)


def is_stored(store: Path, row: dict[str, Any]) -> bool:
    """Whether a row's features are there; raises ``ValueError`` if they are damaged, or of something else."""
    path = store / feature_file(row["id"])
    if not path.exists():
        return False
    facts, _ = read_features(path, tensors=False)
    if (source := fingerprint(row)) is not None and facts["source_sha256"] != source:
        raise ValueError(
            f"{row['video']} is not what the features stored as {row['id']!r} were computed from: the video, its "
            f"sound file, start, end or fps has changed. If that is meant, delete {path} and run again; if it is "
            "another video, use another folder."
        )
    return True


def fingerprint(row: dict[str, Any]) -> str | None:
    """Hash of what is to be read, by which a change shows; ``None`` for URLs and files that are not there.

    Of each file its size, beginning and end, so that a store of a thousand hours is resumed in seconds.
    """
    digest = hashlib.sha256(json_line({name: row.get(name) for name in ("start", "end")}).encode())
    for column in SOURCES:
        source = row.get(column)
        if isinstance(source, dict):
            source = source.get("bytes") or source.get("path")
        if source is None:
            continue
        try:
            if isinstance(source, bytes):
                digest.update(source)
            elif os.path.isdir(source):
                pictures = [(path.name, path.stat().st_size) for path in pictures_in(source)]
                digest.update(json_line({"fps": row.get("fps"), "pictures": pictures}).encode())
            else:
                with open(source, "rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    digest.update(f"{size} ".encode())
                    for begin in (0, max(0, size - LOOKED_AT)):
                        file.seek(begin)
                        digest.update(file.read(LOOKED_AT))
        except OSError:
            return None
    return digest.hexdigest()


def write_index(store: Path, rows: Sequence[dict[str, Any]], failed: list[dict[str, str]]) -> None:
    """List everything that is stored, with what the data set knows of it, and everything that could not be read."""
    broken = {failure["id"] for failure in failed}
    input_ids = {row["id"] for row in rows}
    listed = {row["id"]: row for row in read_jsonl(store / INDEX)} if (store / INDEX).exists() else {}
    for row in rows:
        if row["id"] not in broken:
            file = feature_file(row["id"])
            facts, _ = read_features(store / file, tensors=False)
            row_facts = {"label": None, "anomaly": None, "scene": None, "split": None}
            row_facts |= {key: value for key, value in row.items() if key not in SOURCES}
            facts = {key: value for key, value in facts.items() if key not in ("id", "source_sha256")}
            listed[row["id"]] = row_facts | facts | {"file": file}
    write(store / INDEX, "".join(json_line(listed[key]) + "\n" for key in sorted(listed)).encode())
    if (store / FAILED).exists():  # those of other parts of a corpus stay
        failed = [*failed, *(failure for failure in read_jsonl(store / FAILED) if failure["id"] not in input_ids)]
    if failed:
        failed.sort(key=lambda failure: failure["id"])
        write(store / FAILED, "".join(json_line(failure) + "\n" for failure in failed).encode())
    else:
        (store / FAILED).unlink(missing_ok=True)


def write(path: Path, data: bytes) -> None:
    """Write a file of a store whole; raises `DiskError`, which says what to do, if the disk is full."""
    with writing(path, "The feature store's file"):
        write_file(path, data)
