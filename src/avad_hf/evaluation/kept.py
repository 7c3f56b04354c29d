"""A sample of the footage that a checkpoint was calibrated on, which it keeps, to tell later footage from it.

It is one file, ``calibrated_on.safetensors``, with a row for each clip.
"""

import hashlib
import heapq
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from avad_hf.features.store import FACTS, json_line
from avad_hf.files import write_file
from avad_hf.hub.contents import CALIBRATED_ON
from avad_hf.hub.errors import hub_errors

# Enough to see a shift of 0.1 standard deviations; with features of 2,432 numbers a clip the file takes 20 MB.
MOST_KEPT = 2048
# Hour of day of footage whose manifest has no column `hour`.
UNKNOWN_HOUR = -1
# Scene of clips whose video names none.
NO_SCENE = -1
# Columns of the file that are no features.
COLUMNS = {
    "scores": np.float64,
    "has_audio": np.bool_,
    "block": np.int64,
    "hour": np.int64,
    "scene": np.int64,
}


@dataclass(frozen=True)
class KeptSample:
    """Clips of the footage that a detector was calibrated on, the same ones for the same footage.

    Args:
        scores: Their scores, shape `(N,)`, float64.
        has_audio: Whether their video has sound, shape `(N,)`.
        block: Number of the block of time that each is from, shape `(N,)`: clips of one block resemble each other, so
            that blocks are what must be permuted. See [`avad_hf.metrics.event_streams.block_numbers`].
        hour: Hour of day, 0 to 23, or -1 where nobody knows, shape `(N,)`.
        scene: Number of each one's scene in `scenes`, or -1 for none, shape `(N,)`.
        scenes: Names of the scenes.
        features: Mean of each of the features that the detector reads, by their names, over the places of its map or
            the steps of its sound, shape `(N, channels)`, float32; none of detectors that read videos.
        facts: What the calibration found of the common threshold, or of the one scene that was calibrated, as the
            config's ``alarms``; ``num_clips``, of which these are a sample.
    """

    scores: np.ndarray
    has_audio: np.ndarray
    block: np.ndarray
    hour: np.ndarray
    scene: np.ndarray
    scenes: tuple[str, ...] = ()
    features: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def save(self, directory: str | os.PathLike) -> None:
        """Write the file into a checkpoint's folder."""
        facts = {"scenes": self.scenes, "calibration": self.facts}
        columns = {name: np.ascontiguousarray(getattr(self, name), dtype=dtype) for name, dtype in COLUMNS.items()}
        features = {f"features.{name}": np.ascontiguousarray(value) for name, value in self.features.items()}
        write_file(Path(directory) / CALIBRATED_ON, save(columns | features, {FACTS: json_line(facts)}))

    @classmethod
    def read(cls, checkpoint: str | os.PathLike) -> "KeptSample":
        """Read the file of a checkpoint, a folder or on the Hub.

        Raises:
            FileNotFoundError: If the checkpoint was not calibrated.
            ValueError: If the file is damaged.
            HubError: If the Hub has no such model, or cannot be reached.
        """
        path = Path(checkpoint) / CALIBRATED_ON
        if not os.path.isdir(checkpoint):
            with hub_errors(str(checkpoint), "model", "downloaded"), suppress(RemoteEntryNotFoundError):
                path = Path(hf_hub_download(str(checkpoint), CALIBRATED_ON))
        if not path.exists():
            raise FileNotFoundError(
                f"{checkpoint} keeps no sample of normal footage ({CALIBRATED_ON}): it was not calibrated. Calibrate "
                "it first: avad-hf calibrate."
            )
        try:
            with safe_open(path, "np") as file:
                facts = json.loads(file.metadata()[FACTS])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            columns = {name: tensors.pop(name).astype(dtype) for name, dtype in COLUMNS.items()}
            features = {name.removeprefix("features."): value for name, value in tensors.items()}
            scenes, found = tuple(facts["scenes"]), facts["calibration"]
            if len({len(value) for value in (columns | features).values()}) != 1:
                raise ValueError("its columns have different lengths")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged ({type(error).__name__}: {error}). Copy the checkpoint or calibrate it again."
            ) from error
        return cls(**columns, scenes=scenes, features=features, facts=found)


def choose_clips(clip_counts: Mapping[str, int], most: int = MOST_KEPT) -> dict[str, list[int]]:
    """Choose an even sample of clips: those of the smallest hashes, whatever the order of the videos.

    Args:
        clip_counts: Number of clips of each video, by its id.
        most: Number of clips that are chosen.

    Returns:
        Numbers of the chosen clips of each video that has some, in order.
    """

    def rank(clip: tuple[str, int]) -> bytes:
        return hashlib.blake2b(f"{clip[0]}\n{clip[1]}".encode("utf-8", "backslashreplace"), digest_size=8).digest()

    clips = ((name, number) for name, count in clip_counts.items() for number in range(count))
    chosen: dict[str, list[int]] = {}
    for name, number in heapq.nsmallest(most, clips, key=rank):
        chosen.setdefault(name, []).append(number)
    return {name: sorted(numbers) for name, numbers in chosen.items()}


def pooled(features: Tensor) -> np.ndarray:
    """Mean of features of clips: of maps `(T, C, h, w)` over places, of sound `(T, S, C)` over steps; `(T, C)`."""
    return features.float().mean(dim=(2, 3) if features.dim() == 4 else 1).cpu().numpy()


def hours_of_day(row: Mapping[str, Any], starts: Sequence[float]) -> np.ndarray:
    """Hour of day of clips, of a video that begins in the hour of its row, or -1."""
    if (hour := row.get("hour")) is None:
        return np.full(len(starts), UNKNOWN_HOUR)
    return (int(hour) + np.asarray(starts) // 3600).astype(np.int64) % 24


__all__ = ["MOST_KEPT", "NO_SCENE", "UNKNOWN_HOUR", "KeptSample", "choose_clips", "hours_of_day", "pooled"]
