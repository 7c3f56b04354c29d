"""Fills a feature store: every video through the frozen encoders once, resumable, by one process or many."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from datasets import ClassLabel, Dataset, DatasetDict
from safetensors.torch import save
from torch import Tensor
from transformers import ProcessorMixin

from avad_hf.media.ahead import read_ahead
from avad_hf.media.sources import open_media

from .features import FACTS, FAILED, FEATURES, INDEX, RECIPE, read_features, read_jsonl

logger = logging.getLogger(__name__)

# Columns that name files of this machine; the store must make sense on any other.
PLACES = ("video", "audio")
# A process waits for the slowest one at the end, however many hours that takes.
PATIENCE = timedelta(days=30)
PARTIAL = ".partial"


@dataclass(frozen=True)
class Extraction:
    """What [`extract_features`] did.

    Args:
        num_stored: Videos in the store's index.
        num_new: Videos whose features were computed now, by all processes.
        failed: ``id`` and ``error`` of each video that could not be read, as in ``failed.jsonl``.
    """

    num_stored: int
    num_new: int
    failed: list[dict[str, str]] = field(default_factory=list)


def extract_features(
    dataset: Dataset | DatasetDict | Iterable[dict[str, Any]],
    processor: ProcessorMixin,
    output_dir: str | os.PathLike,
    *,
    clips_per_batch: int = 1,
    visual_dtype: Literal["float16", "float32"] = "float16",
    on_progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Compute the features of every video once and keep them in a folder that [`FeatureDataset`] reads.

    Each video becomes one file, which appears whole or not at all: a run that was stopped goes on where it was. A
    video that cannot be read is listed in ``failed.jsonl``, and the others go on; the next run tries it again. Under
    ``accelerate launch`` each process takes its part.

    Args:
        dataset: What [`load_dataset`] returns, or rows with ``id`` and ``video`` and whatever else is to be known.
        processor: An [`AvacaProcessor`] on the device and in the precision that it shall compute in
            (``process_state().device`` is each process's own).
        output_dir: The store. Videos that other calls have put there stay.
        clips_per_batch: Clips that go through the encoders together.
        visual_dtype: Of the stored visual features; sound features are float32.
        on_progress: Called after each video of this process with the number that are done and their total.

    Raises:
        ValueError: If the store was made by another recipe, a video has changed since its features were stored, or
            two rows have one id.
        OSError: If the store cannot be written, because the disk is full for example. What is stored stays, and the
            same call goes on once there is room.
    """
    state = process_state()
    rows = index_rows(dataset)
    store = Path(output_dir)
    recipe = processor.recipe() | {"visual_dtype": visual_dtype, "audio_dtype": "float32"}
    with state.main_process_first():
        _claim(store, recipe)
    own = rows[state.process_index :: state.num_processes]
    pending = [row for row in own if not _is_stored(store, row)]
    done = len(own) - len(pending)
    failed = []
    if on_progress is not None:
        on_progress(done, len(own))
    try:
        for row, features, facts in _encoded(pending, processor, clips_per_batch, visual_dtype):
            if isinstance(facts, dict):
                _write_whole(store / feature_file(row["id"]), save(features, {FACTS: _line(facts)}))
            else:
                failed.append({"id": row["id"], "error": str(facts)})
            done += 1
            if on_progress is not None:
                on_progress(done, len(own))
        failed = gather_object(failed)
        num_new = sum(gather_object([len(pending)])) - len(failed)
        num_stored = 0
        if state.is_main_process:
            failed.sort(key=lambda failure: failure["id"])
            num_stored = _write_index(store, rows, failed)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The feature store {store} cannot be written: {error.strerror or error}. What is finished stays; make "
            "room and run the same command again, and it goes on.",
        ) from error
    state.wait_for_everyone()
    return Extraction(num_stored, num_new, failed)


def process_state() -> PartialState:
    """Which process this is, of those that ``accelerate launch`` started; they wait for each other at the end.

    Raises:
        RuntimeError: If several processes were started that do not know of each other.
    """
    # PartialState alone, unlike Accelerator, overlooks the variable by which several processes share a CPU.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    if (started := int(os.environ.get("WORLD_SIZE", 1))) != state.num_processes:
        raise RuntimeError(
            f"{started} processes were started, but they are not connected, and each would do all of the work. On "
            "machines without GPU set ACCELERATE_USE_CPU=true."
        )
    return state


def index_rows(dataset: Dataset | DatasetDict | Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of all splits of a data set, in the order of their ids, with class names in place of numbers."""
    parts = list(dataset.values()) if isinstance(dataset, dict) else [dataset]
    rows = []
    for part in parts:
        features = getattr(part, "features", None) or {}
        classes = {name: kind for name, kind in features.items() if isinstance(kind, ClassLabel)}
        for row in part:
            names = {
                name: kind.int2str(row[name])
                for name, kind in classes.items()
                if row[name] is not None and name != "anomaly"
            }
            rows.append(row | names)
    if missing := [name for name in ("id", "video") if any(name not in row for row in rows)]:
        raise ValueError(
            f"Rows need {' and '.join(missing)} each: a name of its own for each video, and where it is. "
            "avad_hf.load_dataset gives such rows."
        )
    rows.sort(key=lambda row: row["id"])
    if twice := [a["id"] for a, b in pairwise(rows) if a["id"] == b["id"]]:
        raise ValueError(f"{len(twice)} ids are there twice, first {twice[0]!r}. Give each row an id of its own.")
    if not rows:
        raise ValueError("The data set is empty: there is nothing to extract.")
    return rows


def feature_file(video_id: str) -> str:
    """Where a store keeps a video's features: a name that any file system and the Hub take, and no other video has."""
    digest = hashlib.sha256(video_id.encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(video_id).stem)[:60]
    return f"{FEATURES}/{digest[:2]}/{readable}-{digest[:16]}.safetensors"


def verify_features(
    dataset: Dataset | DatasetDict | Iterable[dict[str, Any]],
    processor: ProcessorMixin,
    store: str | os.PathLike,
    num_videos: int = 5,
) -> dict[str, float]:
    """Compute some videos' features again and compare them with a store.

    Args:
        dataset: What the store was made from.
        processor: What made it.
        store: Folder of the store.
        num_videos: How many videos, spread evenly over the store.

    Returns:
        For each compared video the largest difference of any feature, divided by the largest feature.

    Raises:
        ValueError: If a file of the store is missing or damaged, another recipe made it, or the data set has none of
            its videos.
    """
    store = Path(store)
    recipe = json.loads((store / RECIPE).read_text(encoding="utf-8"))
    kept = {key: recipe[key] for key in ("visual_dtype", "audio_dtype")}
    _refuse_other_recipe(store, recipe, processor.recipe() | kept)
    given = {row["id"]: row for row in index_rows(dataset)}
    stored = [row for row in read_jsonl(store / INDEX) if row["id"] in given]
    if not stored:
        raise ValueError(f"{store} holds none of the {len(given)} videos of this data set.")
    for row in stored:
        read_features(store / row["file"], tensors=False)
    step = max(1, len(stored) // num_videos)
    sample = [given[row["id"]] for row in stored[::step][:num_videos]]
    differences = {}
    for row, features, facts in _encoded(sample, processor, 1, recipe["visual_dtype"]):
        if not isinstance(facts, dict):
            raise ValueError(f"{row['video']} cannot be read any more: {facts}")
        _, before = read_features(store / feature_file(row["id"]))
        differences[row["id"]] = max(_difference(features[name], before[name]) for name in features)
    return differences


def _difference(now: Tensor, before: Tensor) -> float:
    if now.shape != before.shape:
        return float("inf")
    scale = max(before.abs().max().item(), 1e-6)
    return (now.double() - before.double()).abs().max().item() / scale


# What a store is made by


def _claim(store: Path, recipe: dict[str, Any]) -> None:
    """Begin a store, or make sure that the one that is there was made alike; clean up after killed runs."""
    path = store / RECIPE
    if path.is_file():
        _refuse_other_recipe(store, json.loads(path.read_text(encoding="utf-8")), recipe)
    elif store.exists() and (not store.is_dir() or any(not name.endswith(PARTIAL) for name in os.listdir(store))):
        raise ValueError(f"{store} is there already and is no feature store. Give a new or empty folder.")
    else:
        store.mkdir(parents=True, exist_ok=True)
        _write_whole(path, json.dumps(recipe, indent=2, sort_keys=True).encode() + b"\n")


def _refuse_other_recipe(store: Path, stored: dict[str, Any], recipe: dict[str, Any]) -> None:
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


# Files


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears under its name when all of it is on the disk, and never in part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _is_stored(store: Path, row: dict[str, Any]) -> bool:
    path = store / feature_file(row["id"])
    if not path.exists():
        return False
    facts, _ = read_features(path, tensors=False)
    size = _source_bytes(row)
    if size is not None and facts["source_bytes"] != size:
        raise ValueError(
            f"{row['video']} is not the video whose features are stored as {row['id']!r} ({facts['source_bytes']} "
            f"bytes then, {size} now). If it was changed, delete {path}; if it is another video, use another folder."
        )
    return True


def _source_bytes(row: dict[str, Any]) -> int | None:
    """Size of what is to be read, by which a changed video shows; ``None`` for URLs and missing files."""
    total = 0
    for place in PLACES:
        value = row.get(place)
        if value is None:
            continue
        if isinstance(value, dict) and value.get("bytes") is not None:
            total += len(value["bytes"])
            continue
        path = value.get("path") if isinstance(value, dict) else value
        try:
            total += os.path.getsize(path) if os.path.isfile(path) else sum(e.stat().st_size for e in os.scandir(path))
        except (OSError, TypeError):
            return None
    return total


def _write_index(store: Path, rows: Sequence[dict[str, Any]], failed: list[dict[str, str]]) -> int:
    """List everything that is stored, with what the data set knows of it; returns the number of videos."""
    broken = {failure["id"] for failure in failed}
    listed = {row["id"]: row for row in read_jsonl(store / INDEX)} if (store / INDEX).exists() else {}
    for row in rows:
        if row["id"] not in broken:
            file = feature_file(row["id"])
            facts, _ = read_features(store / file, tensors=False)
            known = {"label": None, "anomaly": None, "scene": None, "split": None}
            known |= {key: value for key, value in row.items() if key not in PLACES}
            facts = {key: value for key, value in facts.items() if key not in ("id", "source_bytes")}
            listed[row["id"]] = known | facts | {"file": file}
    _write_whole(store / INDEX, "".join(_line(listed[key]) + "\n" for key in sorted(listed)).encode())
    if failed:
        _write_whole(store / FAILED, "".join(_line(failure) + "\n" for failure in failed).encode())
    else:
        (store / FAILED).unlink(missing_ok=True)
    for partial in store.rglob(f"*{PARTIAL}"):  # of killed runs
        partial.unlink(missing_ok=True)
    return len(listed)


# Videos to features


def _encoded(
    rows: Sequence[dict[str, Any]], processor: ProcessorMixin, clips_per_batch: int, visual_dtype: str
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor], dict[str, Any] | Exception]]:
    """Row, features and facts of each video; an exception in place of the facts of one that cannot be read."""
    clips, chunks = [], []

    def encode() -> None:
        if clips:
            features = processor.encode(clips)
            chunk = {
                "visual_features": features["visual_features"][0].to(getattr(torch, visual_dtype)).cpu(),
                "audio_features": features["audio_features"][0].cpu(),
                "clip_times": features["clip_times"][0].cpu(),
            }
            chunks.append((chunk, bool(features["has_audio"][0])))
            clips.clear()

    # The next clips, and the next video, are decoded while these ones are encoded.
    with closing(read_ahead(_decoded(rows, processor), depth=2 * clips_per_batch)) as decoded:
        for row, clip, facts in decoded:
            if clip is not None:
                clips.append(clip)
                if len(clips) == clips_per_batch:
                    encode()
                continue
            features = {}
            if isinstance(facts, dict):
                encode()
                features = {name: torch.cat([chunk[name] for chunk, _ in chunks]) for name in chunks[0][0]}
                facts |= {"num_clips": len(features["clip_times"]), "has_audio": chunks[0][1]}
                if not all(tensor.isfinite().all() for tensor in features.values()):
                    facts = ValueError(f"{row['video']}: its features are not finite in {visual_dtype}. Try float32.")
            clips.clear()
            chunks.clear()
            yield row, features, facts


def _decoded(rows: Sequence[dict[str, Any]], processor: ProcessorMixin) -> Iterator[tuple]:
    """Row and clip for every clip, then row, ``None`` and the facts of the whole video, or what went wrong."""
    for row in rows:
        try:
            with open_media(row) as media:
                for clip in processor.clips(media):
                    yield row, clip, None
                facts = {
                    "id": row["id"],
                    "duration": clip.end,
                    "fps": media.info.fps,
                    "warnings": media.problems,
                    "source_bytes": _source_bytes(row),
                }
        # Whatever one file does, the others go on; what the encoders raise is not caught here.
        except Exception as error:
            logger.warning("%s: %s", row["id"], error)
            facts = error
        yield row, None, facts


__all__ = ["Extraction", "extract_features", "verify_features"]
