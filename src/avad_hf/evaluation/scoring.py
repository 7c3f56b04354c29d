"""Scores of every clip of a feature set, by one process or many."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor
from transformers import PreTrainedConfig

from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import recipe_sha256
from avad_hf.models.detector import DetectorSpec, spec_of
from avad_hf.processes import process_state

# What stores hold, in words.
STORED = {"features": "features of frozen encoders", "videos": "frames and sound"}


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
    """Scores of every clip, by video; each process computes its part, and all get the whole.

    A detector of event classes gives one score a video, that of its being none of the normal classes; of a video that
    is longer than its processor's window one for each window, as the pipeline does.

    Args:
        model: A detector, whatever mode it is in; it is put into evaluation mode.
        features: Videos to score.
        batch_size: Videos that go through the model together; 16 by default, and 4 where they are frames, of which 50
            of 240 x 240 pixels take about 0.4 GB in the first convolution.
        on_progress: Called with the number of videos that this process has scored and their total.
        options: For the model's ``forward``.

    Returns:
        For each video, in the order of ``features.rows``: ``scores`` of shape `(T,)`, float64, ``times`` of shape
        `(T, 2)`, ``logits``, what the scores were made of, and whatever else the detector's losses need of clips; of a
        detector of event classes also ``class_logits`` of shape `(T, num_labels)`, where T is 1 but for long videos;
        of a detector of clips that names classes too, those of the clips.

    Raises:
        TypeError: If the model is no detector.
    """
    spec_of(model)
    batch_size = batch_size or (4 if features.holds_videos else 16)
    state: PartialState = process_state()
    process_videos = list(range(state.process_index, len(features), state.num_processes))
    device = next(model.parameters(), torch.empty(0)).device  # exported ones have none, on the CPU
    parts = ((index, part) for index in process_videos for part in features.parts(index))
    scored_parts: dict[int, list[dict[str, np.ndarray]]] = {}
    model.eval()
    while taken := list(islice(parts, batch_size)):
        batch = features.collate([part for _, part in taken])
        if (column := getattr(model.config, "scene_column", None)) is not None:
            options["scene"] = [features.rows[index][column] for index, _ in taken]
        with torch.no_grad():
            outputs = model(**inputs_of(model, batch, device), **options)
        for (index, _), scored in zip(taken, _by_video(model, outputs, batch), strict=True):
            scored_parts.setdefault(index, []).append(scored)
        if on_progress is not None:
            on_progress(
                sum(len(scored_parts.get(index, ())) == features.num_parts(index) for index in process_videos),
                len(process_videos),
            )
    scored = [
        (index, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
        for index, parts in scored_parts.items()
    ]
    everything = dict(gather_object(scored))
    return [everything[index] for index in range(len(features))]


def _by_video(model: torch.nn.Module, outputs: Any, batch: dict[str, Tensor]) -> Iterator[dict[str, np.ndarray]]:
    """What is kept of each video of a batch, one row a clip."""
    main, *others = model.clip_outputs
    kept = {"scores": model.scores(outputs), "logits": getattr(outputs, main), "times": batch["clip_times"]}
    kept |= {name: getattr(outputs, name) for name in others}
    if model.probabilities(outputs) is not None:
        kept["class_logits"] = getattr(outputs, "class_logits", outputs.logits)
    kept = {
        name: value.to("cpu", value.dtype if value.dtype == torch.float64 else torch.float32).numpy()
        for name, value in kept.items()
    }
    for number in range(len(kept["scores"])):
        # Detectors that read videos give one score for each.
        if kept["scores"].ndim == 1:
            yield {
                name: value[number] if name == "times" else value[number : number + 1] for name, value in kept.items()
            }
        else:
            mask = batch["clip_mask"][number].numpy()
            yield {name: value[number][mask] for name, value in kept.items()}


def inputs_of(model: torch.nn.Module, batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The part of a batch that the model takes, on its device; without labels."""
    model = getattr(model, "module", model)
    forward = getattr(model.forward, "__wrapped__", model.forward)
    # An exported network has no arguments of its own, but knows which it was exported with.
    names = getattr(model, "inputs", None) or inspect.signature(forward).parameters.keys() - {"labels"}
    return {name: value.to(device) for name, value in batch.items() if name in names}


def video_class_logits(item: dict[str, np.ndarray], spec: DetectorSpec) -> np.ndarray:
    """Class logits by which a video is called, of shape `(num_labels,)`.

    A long video of a detector of event classes is called by the window that decides its score; a detector of clips
    calls a video by the mean of its highest clips, ``max(1, T // alpha)`` of them.

    Args:
        item: What `score_clips` gives of a video.
        spec: What the detector says of itself.
    """
    count = max(1, len(item["scores"]) // spec.alpha) if spec.objective == "clips" else 1
    highest = np.argsort(-item["scores"], kind="stable")[:count]
    return item["class_logits"][highest].mean(axis=0)


def one_row_a_video(
    rows: Sequence[dict[str, Any]], scored: Sequence[dict[str, np.ndarray]]
) -> tuple[list[dict[str, Any]], list[tuple[np.ndarray, np.ndarray]], int]:
    """Rows, the scores and times of their clips, and the number of crops that scores are the mean of.

    Published features may hold several crops of each frame, each in a row of its own.
    """
    for row, item in zip(rows, scored, strict=True):
        if np.isnan(item["logits"]).any():
            raise ValueError(
                f"{row['id']}: the model's scores are NaN. Its weights are damaged, or its precision is too low."
            )
    crops = _crops(rows)
    videos, clips = [], []
    for name, indices in crops.items():
        if len({len(scored[index]["logits"]) for index in indices}) > 1:
            raise ValueError(f"{name}: its crops have different numbers of clips. Extract them again.")
        scores = np.array([scored[index]["scores"] for index in indices]).mean(axis=0)
        videos.append(rows[indices[0]] | {"id": name})
        clips.append((scores, scored[indices[0]]["times"]))
    return videos, clips, max(map(len, crops.values()))


def class_logits_of_videos(
    rows: Sequence[dict[str, Any]], scored: Sequence[dict[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    """``scores`` and ``class_logits`` of each video's clips, in the order of `one_row_a_video`; means of its crops."""
    return [
        {name: np.mean([scored[index][name] for index in indices], axis=0) for name in ("scores", "class_logits")}
        for indices in _crops(rows).values()
    ]


def _crops(rows: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """Numbers of the rows of each video, by its id."""
    crops: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        crops.setdefault(video_of(row), []).append(index)
    return crops


def video_of(row: dict[str, Any]) -> str:
    """Id of the video that a row is of, or a crop of."""
    is_crop = row.get("video_id") is not None and row.get("crop") is not None
    return row["video_id"] if is_crop else row["id"]
