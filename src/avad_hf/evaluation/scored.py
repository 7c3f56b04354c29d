"""Stored footage as recordings of scored clips, as events are counted in them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from avad_hf.features.dataset import FeatureDataset
from avad_hf.media.clips import deciding_clips
from avad_hf.metrics.event_streams import Recording
from avad_hf.models.detector import spec_of

from .scoring import class_logits_of_videos, one_row_a_video, score_clips

# Clips that are scored together: recordings of an hour have 2,800, whose feature maps take 1.3 GB.
MOST_CLIPS_TOGETHER, MOST_VIDEOS_TOGETHER = 2048, 16


def scored_recordings(
    model: PreTrainedModel,
    features: FeatureDataset,
    batch_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[dict[str, Any]], list[Recording]]:
    """Score footage.

    Args:
        model: A detector.
        features: The footage.
        batch_size: Videos that go through the model together; of long ones fewer by default.
        on_progress: Called with the number of videos that this process has scored and their total.

    Returns:
        Rows of the videos, and a recording of each. Those of one scene lie together, for blocks of time to be of one
        scene.
    """
    if batch_size is None and not features.holds_videos:
        longest = max((row.get("num_clips") or 1) for row in features.rows)
        batch_size = max(1, min(MOST_VIDEOS_TOGETHER, MOST_CLIPS_TOGETHER // longest))
    scored = score_clips(model, features, batch_size, on_progress)
    rows, clips, _ = one_row_a_video(features.rows, scored)
    classes = [None] * len(rows)
    if "class_logits" in scored[0]:
        labels = [model.config.id2label[number] for number in range(model.config.num_labels)]
        is_normal = np.isin(labels, spec_of(model).normal_labels)
        videos = class_logits_of_videos(features.rows, scored)
        classes = [np.where(is_normal, -np.inf, item["class_logits"]).argmax(axis=1) for item in videos]
    recordings = [
        Recording(row["id"], scores, times, np.array(deciding_clips(times.tolist())), number)
        for row, (scores, times), number in zip(rows, clips, classes, strict=True)
    ]
    order = sorted(range(len(rows)), key=lambda index: str(rows[index]["scene"] or ""))
    return [rows[index] for index in order], [recordings[index] for index in order]


__all__ = ["scored_recordings"]
