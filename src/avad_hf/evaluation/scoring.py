"""Scores of every clip of a feature set, by one process or many."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedConfig

from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import recipe_sha256
from avad_hf.processes import process_state


def no_detector(model: torch.nn.Module) -> TypeError:
    """What is said of a model that cannot be evaluated."""
    return TypeError(
        f"{type(model).__name__} is no anomaly detector: it gives no scores of clips, or has no threshold for them. "
        "Give a checkpoint of AVACA or AVRL, as AutoModelForVideoClassification loads it."
    )


def labels_of(features: FeatureDataset) -> np.ndarray:
    """1 or 0 for each video; raises ``ValueError`` if one has no label."""
    if unlabelled := [row["id"] for row in features.rows if row["anomaly"] is None]:
        raise ValueError(
            f"{len(unlabelled)} of {len(features.rows)} videos have no label, first {unlabelled[0]!r}. Fill in the "
            "manifest's column label or anomaly and extract again (what is stored stays), or leave these videos out."
        )
    return np.array([int(row["anomaly"]) for row in features.rows])


def refuse_other_features(config: PreTrainedConfig, name: str, features: FeatureDataset) -> None:
    """Raise ``ValueError`` if a model, of this config and name, was trained on features that mean something else."""
    trained_on = getattr(config, "recipe_sha256", None)
    if trained_on and features.recipe and recipe_sha256(features.recipe) != trained_on:
        raise ValueError(
            f"These features were made by other encoders or settings than those that {name or 'the model'} was "
            "trained on. Extract them with this model's own processor: avad-hf extract ... --model."
        )


def score_clips(
    model: torch.nn.Module,
    features: FeatureDataset,
    batch_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **options,
) -> list[dict[str, np.ndarray]]:
    """Logits of every clip, by video; each process computes its part, and all get the whole.

    A detector of event classes gives one score a video, that of its being none of the normal classes.

    Args:
        model: A detector, whatever mode it is in; it is put into evaluation mode.
        features: Videos to score.
        batch_size: Videos that go through the model together; 16 by default, and 4 where they are frames, of which 50
            of 240 x 240 pixels take about 0.4 GB in the first convolution.
        on_progress: Called with the number of videos that this process has scored and their total.
        options: For the model's ``forward``.

    Returns:
        For each video, in the order of ``features.rows``: ``logits`` of shape `(T,)` and ``times`` of shape `(T, 2)`;
        of a detector of event classes also ``class_logits`` of shape `(num_labels,)`.
    """
    batch_size = batch_size or (4 if features.holds_videos else 16)
    state: PartialState = process_state()
    own = list(range(state.process_index, len(features), state.num_processes))
    device, scored = next(model.parameters(), torch.empty(0)).device, []  # exported ones have none, on the CPU
    model.eval()
    for begin in range(0, len(own), batch_size):
        batch = features.collate([features[index] for index in own[begin : begin + batch_size]])
        with torch.no_grad():
            outputs = model(**inputs_of(model, batch, device), **options)
        if getattr(outputs, "logits", None) is None:
            raise no_detector(model)
        scored += _by_video(outputs, batch)
        if on_progress is not None:
            on_progress(len(scored), len(own))
    everything = dict(gather_object(list(zip(own, scored, strict=True))))
    return [everything[index] for index in range(len(features))]


def _by_video(outputs: Any, batch: dict[str, Tensor]) -> list[dict[str, np.ndarray]]:
    logits, times = outputs.logits.float().cpu().numpy(), batch["clip_times"].numpy()
    if (anomaly := getattr(outputs, "anomaly_logits", None)) is not None:
        parts = zip(anomaly.float().cpu().numpy(), times, logits, strict=True)
        return [{"logits": score[None], "times": span, "class_logits": row} for score, span, row in parts]
    parts = zip(logits, batch["clip_mask"].numpy(), times, strict=True)
    return [{"logits": row[mask], "times": span[mask]} for row, mask, span in parts]


def inputs_of(model: torch.nn.Module, batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The part of a batch that the model takes, on its device; without labels."""
    model = getattr(model, "module", model)
    forward = getattr(model.forward, "__wrapped__", model.forward)
    # An exported network has no arguments of its own, but knows which it was exported with.
    names = getattr(model, "inputs", None) or inspect.signature(forward).parameters.keys() - {"labels"}
    return {name: value.to(device) for name, value in batch.items() if name in names}


def one_row_a_video(
    rows: Sequence[dict[str, Any]], scored: Sequence[dict[str, np.ndarray]]
) -> tuple[list[dict[str, Any]], list[tuple[np.ndarray, np.ndarray]], int]:
    """Rows, the scores and times of their clips, and the number of crops that scores are the mean of.

    Published features may hold several crops of each frame, each in a row of its own.
    """
    crops: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if np.isnan(scored[index]["logits"]).any():
            raise ValueError(
                f"{row['id']}: the model's scores are NaN. Its weights are damaged, or its precision is too low."
            )
        is_crop = row.get("video_id") is not None and row.get("crop") is not None
        crops.setdefault(row["video_id"] if is_crop else row["id"], []).append(index)
    videos, clips = [], []
    for name, indices in crops.items():
        if len({len(scored[index]["logits"]) for index in indices}) > 1:
            raise ValueError(f"{name}: its crops have different numbers of clips. Extract them again.")
        # In double precision, since in single every logit above 17 would give the same score.
        logits = np.array([scored[index]["logits"] for index in indices])
        scores = torch.from_numpy(logits).double().sigmoid().numpy().mean(axis=0)
        videos.append(rows[indices[0]] | {"id": name})
        clips.append((scores, scored[indices[0]]["times"]))
    return videos, clips, max(map(len, crops.values()))
