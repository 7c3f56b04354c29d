"""Fills a feature store: every video through the frozen encoders once, resumable, by one process or many."""

import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import ClassLabel, Dataset, DatasetDict
from safetensors.torch import save
from torch import Tensor
from transformers import ProcessorMixin

from avad_hf.disks import refuse_full_disk
from avad_hf.media.ahead import read_together
from avad_hf.media.masking import MaskedMedia, Masking
from avad_hf.media.sources import open_media
from avad_hf.processes import process_state, share_cores
from avad_hf.runs import only_run, sweep

from .store import (
    FACTS,
    INDEX,
    SOURCES,
    claim,
    feature_file,
    fingerprint,
    finished_store,
    is_stored,
    json_line,
    read_features,
    read_jsonl,
    read_recipe,
    refuse_other_recipe,
    write,
    write_index,
)

logger = logging.getLogger(__name__)

VISUAL_DTYPES = ("float16", "float32")
# Videos that are decoded at the same time for a GPU; their batches wait in its memory.
MOST_DECODERS = 4


@dataclass(frozen=True)
class Extraction:
    """What [`extract_features`] did.

    Args:
        num_stored: Videos in the store, those of earlier runs among them.
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
    clips_per_batch: int | None = None,
    decoders: int | None = None,
    visual_dtype: Literal["float16", "float32"] = "float16",
    masking: Masking | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Extraction:
    """Compute the features of every video once and keep them in a folder that [`FeatureDataset`] reads.

    Each video becomes one file, which appears whole or not at all: a run that was stopped goes on where it was. A
    video that cannot be read is listed in ``failed.jsonl``, and the others go on; the next run tries it again. Under
    ``accelerate launch`` each process takes its part.

    Args:
        dataset: What [`load_dataset`] returns, or rows with ``id`` and ``video`` and whatever else is to be known.
        processor: A detector's processor. Of one with frozen encoders, which are on the device and in the precision
            that they shall compute in (``process_state().device`` is each process's own), the features are kept; of
            one whose detector is trained as a whole the picked frames and the spectrogram of each video.
        output_dir: The store. Videos that other calls have put there stay.
        clips_per_batch: Clips that go through the encoders together; by default one on a CPU, and on a GPU as many as
            fit into its memory, up to 16.
        decoders: Videos that are decoded at the same time, each in a thread; by default one for encoders on a CPU,
            and for those on a GPU, which wait for pictures, one for every two cores up to four.
        visual_dtype: Type of the stored visual features; sound features are float32, and frames 8 bits.
        masking: Hides parts of the pictures before anything else, such as faces
            ([`~avad_hf.anonymise.anonymiser.Anonymiser`]); the recipe says so.
        on_progress: Called after each video of this process with the number that are done and their total.

    Raises:
        ValueError: If the store was made by another recipe, a video has changed since its features were stored, rows
            cannot be stored, or another run writes the store.
        FileExistsError: If `output_dir` is a file.
        OSError: If the store cannot be written, because the disk is full for example. What is stored stays, and the
            same call goes on once there is room.
    """
    counts = [count for count in (clips_per_batch, decoders) if count is not None]
    if visual_dtype not in VISUAL_DTYPES or min(counts, default=1) < 1:
        raise ValueError(
            f"visual_dtype must be {' or '.join(VISUAL_DTYPES)}, clips_per_batch and decoders 1 or more, got "
            f"{visual_dtype!r}, {clips_per_batch} and {decoders}."
        )
    state = process_state()
    rows = index_rows(dataset)
    store = Path(output_dir)
    recipe = {"visual_dtype": visual_dtype, "audio_dtype": "float32"} | _recipe(processor, masking)
    with only_run(store, state.is_main_process):
        return _extract(rows, processor, store, recipe, state, clips_per_batch, decoders, masking, on_progress)


def _recipe(processor: ProcessorMixin, masking: Masking | None) -> dict[str, Any]:
    return processor.recipe() | ({} if masking is None else {"anonymised": masking.recipe})


def _extract(
    rows: list[dict[str, Any]],
    processor: ProcessorMixin,
    store: Path,
    recipe: dict[str, Any],
    state: PartialState,
    clips_per_batch: int | None,
    decoders: int | None,
    masking: Masking | None,
    on_progress: Callable[[int, int], None] | None,
) -> Extraction:
    with state.main_process_first():
        claim(store, recipe)
        if state.is_main_process:
            sweep(store)
    process_rows = rows[state.process_index :: state.num_processes]
    pending = [row for row in process_rows if not is_stored(store, row)]
    done = len(process_rows) - len(pending)
    failed = []
    if on_progress is not None:
        on_progress(done, len(process_rows))
    cores = share_cores()
    if decoders is None:
        decoders = 1 if processor.device.type == "cpu" else max(1, min(MOST_DECODERS, cores // 2))
    for row, features, facts in _encoded(
        pending, processor, recipe["visual_dtype"], clips_per_batch, decoders, masking
    ):
        if isinstance(facts, dict):
            write(store / feature_file(row["id"]), save(features, {FACTS: json_line(facts)}))
        else:
            failed.append({"id": row["id"], "error": str(facts)})
        done += 1
        if on_progress is not None:
            on_progress(done, len(process_rows))
    failed = sorted(gather_object(failed), key=lambda failure: failure["id"])
    num_new = sum(gather_object([len(pending)])) - len(failed)
    if state.is_main_process:
        write_index(store, rows, failed)
    state.wait_for_everyone()
    return Extraction(len(read_jsonl(store / INDEX)), num_new, failed)


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
    if unnamed := [row["id"] for row in rows if not isinstance(row["id"], str) or not row["id"]]:
        raise ValueError(f"Each id must be text, but {unnamed[0]!r} is a {type(unnamed[0]).__name__}.")
    for row in rows:
        try:
            json_line({name: value for name, value in row.items() if name not in SOURCES})
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"The row {row['id']!r} cannot be stored: {error}. Columns must hold text, numbers, or lists of them."
            ) from error
    rows.sort(key=lambda row: row["id"])
    if twice := [a["id"] for a, b in pairwise(rows) if a["id"] == b["id"]]:
        raise ValueError(f"{len(twice)} ids are there twice, first {twice[0]!r}. Give each row an id of its own.")
    if not rows:
        raise ValueError("The data set is empty: there is nothing to extract.")
    return rows


def verify_features(
    dataset: Dataset | DatasetDict | Iterable[dict[str, Any]],
    processor: ProcessorMixin,
    store: str | os.PathLike,
    num_videos: int = 5,
    masking: Masking | None = None,
) -> dict[str, float]:
    """Compute some videos' features again and compare them with a store.

    Args:
        dataset: What the store was made from.
        processor: What made it.
        store: Folder of the store.
        num_videos: How many videos, spread evenly over the store.
        masking: What hid parts of the pictures.

    Returns:
        For each compared video the largest difference of any feature, divided by the largest feature.

    Raises:
        FileNotFoundError: If there is no finished store.
        ValueError: If a file of the store is missing or damaged, another recipe made it, or the data set has none of
            its videos.
    """
    store = finished_store(Path(store))
    recipe = read_recipe(store)
    kept = {key: recipe[key] for key in ("visual_dtype", "audio_dtype")}
    refuse_other_recipe(store, recipe, kept | _recipe(processor, masking))
    input_rows = {row["id"]: row for row in index_rows(dataset)}
    stored = [row for row in read_jsonl(store / INDEX) if row["id"] in input_rows]
    if not stored:
        raise ValueError(f"{store} holds none of the {len(input_rows)} videos of this data set.")
    for row in stored:
        read_features(store / row["file"], tensors=False)
    step = max(1, len(stored) // num_videos)
    sample = [input_rows[row["id"]] for row in stored[::step][:num_videos]]
    differences = {}
    for row, features, facts in _encoded(sample, processor, recipe["visual_dtype"], masking=masking):
        if not isinstance(facts, dict):
            raise ValueError(f"{row['video']} cannot be read any more: {facts}")
        _, before = read_features(store / feature_file(row["id"]))
        differences[row["id"]] = max(_difference(features[name], before[name]) for name in features)
    return differences


def _difference(now: Tensor, before: Tensor) -> float:
    if now.shape != before.shape or not before.isfinite().all():
        return float("inf")
    if not before.numel():  # the spectrogram of a video without sound
        return 0.0
    scale = max(before.abs().max().item(), 1e-6)
    return (now.double() - before.double()).abs().max().item() / scale


def _encoded(
    rows: Sequence[dict[str, Any]],
    processor: ProcessorMixin,
    visual_dtype: str,
    clips_per_batch: int | None = None,
    decoders: int = 1,
    masking: Masking | None = None,
) -> Iterator[tuple[dict[str, Any], dict[str, Tensor], dict[str, Any] | Exception]]:
    """Row, features and facts of each video; an exception in place of the facts of one that cannot be read."""
    # The next clips, and the next videos, are decoded while these ones are encoded.
    readers = (_decoded(row, processor, clips_per_batch, masking) for row in rows)
    chunks: defaultdict[int, list[tuple[dict[str, Tensor], bool]]] = defaultdict(list)
    with closing(read_together(readers, at_once=max(1, min(decoders, len(rows))), depth=2)) as decoded:
        for number, entry, error in decoded:
            if entry is None:
                if not isinstance(error, StopIteration):
                    raise error
                continue
            row, batch, facts = entry
            if batch is not None:
                chunks[number].append(processor.stored(batch, visual_dtype))
                continue
            done, features = chunks.pop(number, []), {}
            if isinstance(facts, dict):
                names = dict.fromkeys(name for chunk, _ in done for name in chunk)
                features = {name: torch.cat([chunk[name] for chunk, _ in done if name in chunk]) for name in names}
                times = features["clip_times"]
                facts |= {
                    "duration": times[-1, 1].item() - (row.get("start") or 0.0),
                    "num_clips": len(times),
                    "has_audio": done[0][1],
                }
                if "window_times" in features:
                    facts["num_windows"] = len(features["window_times"])
                if not all(tensor.isfinite().all() for tensor in features.values()):
                    facts = ValueError(f"{row['video']}: its features are not finite in {visual_dtype}. Try float32.")
            yield row, features, facts


def _decoded(
    row: dict[str, Any], processor: ProcessorMixin, clips_per_batch: int | None, masking: Masking | None
) -> Iterator[tuple]:
    """Row and some clips, then row, ``None`` and the facts of the whole video, or what went wrong."""
    try:
        with open_media(row) as media:
            seen = media if masking is None else MaskedMedia(media, masking)
            for batch in processor.decode(seen, clips_per_batch, whole=True):
                yield row, batch, None
            facts = {
                "id": row["id"],
                "fps": media.info.fps,
                "warnings": media.problems,
                "source_sha256": fingerprint(row),
            }
    # Whatever one file does, the others go on; what the encoders raise is not caught here.
    except Exception as error:
        refuse_full_disk(error, tempfile.gettempdir(), f"A temporary copy of {row['id']}")
        logger.warning("%s: %s", row["id"], error)
        facts = error
    yield row, None, facts


__all__ = ["Extraction", "extract_features", "verify_features"]
