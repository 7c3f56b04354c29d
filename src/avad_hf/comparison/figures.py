"""What is computed of the tests of a comparison, on the same draws for all detectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from avad_hf.features.dataset import FeatureDataset
from avad_hf.metrics.resampling import Estimate
from avad_hf.metrics.videos import frame_scores
from avad_hf.metrics.weighted import Fraction, Units, average_precision, roc_area, share

# Numbers of a table of draws that are held at a time.
MOST_HELD = 20_000_000


@dataclass(frozen=True)
class Corpus:
    """The videos of a scene, numbered.

    Args:
        features: Features of all of them.
    """

    features: FeatureDataset

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What is known of each video; crops of one video are one row."""
        rows: dict[str, dict[str, Any]] = {}
        for row in self.features.rows:
            is_crop = row.get("video_id") is not None and row.get("crop") is not None
            rows.setdefault(row["video_id"] if is_crop else row["id"], row)
        return [row | {"id": name} for name, row in rows.items()]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each video, by its id."""
        return {row["id"]: number for number, row in enumerate(self.rows)}

    @cached_property
    def labels(self) -> np.ndarray:
        """1 for anomalous videos, 0 for normal ones."""
        return np.array([int(row["anomaly"]) for row in self.rows])

    @cached_property
    def recordings(self) -> list[str]:
        """Recording of each video: its group, or itself."""
        return [str(row["group"]) if row.get("group") is not None else f"video {row['id']}" for row in self.rows]


class Tested:
    """The test videos of one run, as units that are ranked.

    Args:
        corpus: The videos that the run is of.
        record: What the run found.
    """

    def __init__(self, corpus: Corpus, record: dict[str, Any]):
        self.corpus, self.videos = corpus, record["videos"]
        numbers = np.array([corpus.numbers[name] for name in self.videos])
        scores = np.array([video["score"] for video in self.videos.values()])
        count = len(corpus.rows)
        self.is_tested = np.zeros(count, bool)
        self.is_tested[numbers] = True
        self.alarms = np.zeros(count)
        self.alarms[numbers] = scores >= record["threshold"]
        self.of_videos = self._labelled(numbers, scores)
        lengths = [len(video["clips"]) for video in self.videos.values()]
        clips = np.concatenate([np.asarray(video["clips"], float) for video in self.videos.values()])
        self.of_clips = self._labelled(np.repeat(numbers, lengths), clips)

    def _labelled(self, videos: np.ndarray, scores: np.ndarray) -> Units:
        labels = self.corpus.labels[videos].astype(float)
        return Units(videos, scores, labels, 1 - labels)

    @cached_property
    def _frames(self) -> tuple[Units, np.ndarray] | None:
        """Frames that share a score, and of each video how much of its highest frames is anomalous.

        ``None`` where a test video has no labels of frames, or labels that do not fit.
        """
        parts, peaks = [], np.full(len(self.corpus.rows), np.nan)
        for name, video in self.videos.items():
            number = self.corpus.numbers[name]
            row = self.corpus.rows[number]
            labels = self.corpus.features.frame_labels(row)
            if labels is None:
                return None
            length, stride = self.corpus.features.clip_frames(row)
            last = (len(video["clips"]) - 1) * stride
            if row.get("frame_mask") is None:  # a normal video, whose frames were counted by its mean rate
                labels = np.zeros(np.clip(len(labels), last + 1, last + length), np.uint8)
            try:
                scores, labels = frame_scores(video["clips"], labels, length, stride, cut_short=bool(row["warnings"]))
            except ValueError:
                return None
            values, place = np.unique(scores, return_inverse=True)
            positive = np.bincount(place, labels, len(values))
            parts.append((np.full(len(values), number), values, positive, np.bincount(place) - positive))
            if labels.any():
                peaks[number] = labels[scores == scores.max()].mean()
        return Units(*(np.concatenate(part) for part in zip(*parts, strict=True))), peaks

    def fraction(self, figure: str, weights: np.ndarray) -> Fraction | None:
        """A figure, by the names of `FIGURES`, under weightings of all videos of the corpus."""
        normal, anomalous = (self.is_tested & (self.corpus.labels == label) for label in (0, 1))
        if figure == "video_auc":
            return roc_area(self.of_videos, weights)
        if figure == "clip_auc":
            return roc_area(self.of_clips, weights)
        if figure == "average_precision":
            return average_precision(self.of_videos, weights)
        if figure == "false_alarms":
            return share(self.alarms, normal, weights)
        if figure == "missed":
            return share(1 - self.alarms, anomalous, weights)
        if self._frames is None:
            return None
        units, peaks = self._frames
        if figure == "frame_auc":
            return roc_area(units, weights)
        if figure == "within_auc":
            return roc_area(units.of(self.corpus.labels == 1), weights)
        return share(np.nan_to_num(peaks), ~np.isnan(peaks), weights)


# What is said of each figure.
FIGURES = {
    "video_auc": "video AUC",
    "clip_auc": "clip AUC",
    "frame_auc": "frame AUC",
    "within_auc": "frame AUC within anomalous videos",
    "peak_hits": "peak hits",
    "average_precision": "average precision",
    "false_alarms": "false alarms",
    "missed": "missed",
}


@dataclass(frozen=True)
class Measured:
    """A figure of a detector.

    Args:
        estimate: Mean over the repeats, with its interval.
        deviation: Sample standard deviation over the repeats; NaN of a single one.
    """

    estimate: Estimate
    deviation: float


def measured(repeats: Sequence[Sequence[Tested]], figure: str, weights: np.ndarray) -> Measured | None:
    """A figure over all repeats; ``None`` where it cannot be told.

    Args:
        repeats: The tests of each seed: one, or one a fold, whose pairs are added up.
        figure: A key of `FIGURES`.
        weights: Weights of the videos in each draw, shape `(D, N)`.
    """
    every = np.ones((1, weights.shape[1]))
    values = []
    for tests in repeats:
        parts = [_in_parts(lambda part, one=one: one.fraction(figure, part), every, weights) for one in tests]
        if any(part is None for part in parts):
            return None
        numerator, denominator = (sum(part[index] for part in parts) for index in (0, 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            values.append(np.where(denominator > 0, numerator / denominator, np.nan))
    table = np.stack(values)  # of shape (repeats, 1 + D)
    mean = table.mean(axis=0)
    deviation = float(table[:, 0].std(ddof=1)) if len(table) > 1 else float("nan")
    return Measured(Estimate.of(float(mean[0]), mean[1:]), deviation)


def _in_parts(
    fraction: Callable[[np.ndarray], Fraction | None], every: np.ndarray, weights: np.ndarray
) -> Fraction | None:
    """A fraction with all videos counted once, and under each weighting, some of them at a time."""
    step = max(1, MOST_HELD // (weights.shape[1] * 8))
    found = [fraction(every), *(fraction(weights[start : start + step]) for start in range(0, len(weights), step))]
    if any(part is None for part in found):
        return None
    return tuple(np.concatenate(parts) for parts in zip(*found, strict=True))


__all__ = ["FIGURES", "Corpus", "Measured", "Tested", "measured"]
