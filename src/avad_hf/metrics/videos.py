"""From clip scores to scores of videos and of frames, and figures over many videos."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike

from .ranking import Ranking, check_samples, check_scores, roc_auc

VideoRule = Literal["max", "topk_mean", "mean"]
TailRule = Literal["extend_score_last", "truncate_gt", "pad_gt_last"]


class Interval(NamedTuple):
    """Limits of a confidence interval; NaN where it is not defined."""

    low: float
    high: float


def video_score(scores: ArrayLike, rule: VideoRule = "max", alpha: int = 4, decides: ArrayLike | None = None) -> float:
    """One score for a video.

    Args:
        scores: Scores of its clips, shape `(T,)`.
        rule: ``"max"``, the highest; ``"topk_mean"``, the mean of the ``max(1, T // alpha)`` highest, which is what
            the DMIL loss trains; ``"mean"``. There is no common standard: name the rule with the figure.
        alpha: As of the DMIL loss.
        decides: Which clips count, shape `(T,)`; all by default, and where it is false for all. False for a clip of
            which less than a quarter is real (`avad_hf.media.clips.deciding_clips`).
    """
    scores = check_scores(scores)
    if rule not in get_args(VideoRule):
        raise ValueError(f"rule must be one of {', '.join(get_args(VideoRule))}, got {rule!r}.")
    if alpha < 1:
        raise ValueError(f"alpha must be 1 or more, got {alpha}.")
    if decides is not None:
        decides = np.asarray(decides, dtype=bool)
        if decides.shape != scores.shape:
            raise ValueError(
                f"decides must say of each clip whether it counts: {len(scores)} clips, got shape {decides.shape}."
            )
        scores = scores[decides] if decides.any() else scores
    scores = np.sort(scores)[::-1]
    count = {"max": 1, "topk_mean": max(1, len(scores) // alpha), "mean": len(scores)}[rule]
    return float(scores[:count].mean())


def check_frame_labels(
    num_labels: int, num_clips: int, clip_length: int, clip_stride: int, cut_short: bool = False
) -> None:
    """Refuse frame labels of another video.

    The clips of a video say how many frames it has to within a clip: the last one may repeat its last frame, or frames
    may have been left over. Labels may differ from that by one clip more, as where a decoder gives a few frames less.

    Args:
        num_labels: Labels, one a frame.
        num_clips: Clips of the video.
        clip_length: Frames of a clip.
        clip_stride: Frames from one clip's start to the next one's.
        cut_short: Whether the recording broke off, so that its labels may go on for longer.

    Raises:
        ValueError: If the labels are too few or too many.
    """
    last = (num_clips - 1) * clip_stride
    fewest, most = max(1, last + 1 - clip_length), last + 3 * clip_length - 1
    if num_labels < fewest or (num_labels > most and not cut_short):
        raise ValueError(
            f"{num_labels} frame labels do not fit {num_clips} clips of {clip_length} frames, {clip_stride} apart, "
            f"which need {fewest} to {most}. Are they those of another video, or of the whole video that this is a "
            "stretch of?"
        )


def frame_scores(
    clip_scores: ArrayLike,
    frame_labels: ArrayLike,
    clip_length: int = 32,
    clip_stride: int | None = None,
    tail: TailRule = "extend_score_last",
    cut_short: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Give every frame the score of its clip, and say which frames count.

    A frame in several clips gets their mean. Published codes treat the end of a video differently.

    Args:
        clip_scores: Shape `(T,)`.
        frame_labels: 1 for anomalous frames, 0 for normal ones, shape `(N,)`.
        clip_length: Frames of a clip.
        clip_stride: Frames from one clip's start to the next one's, at most `clip_length`, which is the default.
        tail: ``"extend_score_last"``: every real frame is scored once, those after the last clip as the last clip.
            ``"truncate_gt"``: frames after the last clip are left out (AR-Net); ``"pad_gt_last"``: labels go on with
            the last one up to the end of the last clip (RTFM), so that frames count that are not there; those after
            the last clip are left out. Where labels end before the last clip begins, the first two leave the scores
            after the last label out, and the third goes on with it as well.
        cut_short: Whether the recording broke off, so that labels may go on for however long after the last clip.

    Returns:
        Scores and labels of the frames that count, both of one length.

    Raises:
        ValueError: For an unknown rule, for clips with gaps between them, or for labels that are too few or too many
            for the clips by more than a clip (`check_frame_labels`).
    """
    scores, labels = check_scores(clip_scores), np.asarray(frame_labels)
    stride = clip_length if clip_stride is None else clip_stride
    if tail not in get_args(TailRule):
        raise ValueError(f"tail must be one of {', '.join(get_args(TailRule))}, got {tail!r}.")
    if not 1 <= stride <= clip_length:
        raise ValueError(f"clip_stride must be between 1 and the clip's length {clip_length}, got {stride}.")
    if labels.ndim != 1 or not labels.size:
        raise ValueError(f"Frame labels must be of shape (N,) with one or more of them, got {labels.shape}.")
    check_frame_labels(len(labels), len(scores), clip_length, stride, cut_short)
    end = (len(scores) - 1) * stride + clip_length
    if stride == clip_length:
        expanded = np.repeat(scores, clip_length)
    else:
        total, count = np.zeros(end), np.zeros(end)
        for index, score in enumerate(scores):
            total[index * stride : index * stride + clip_length] += score
            count[index * stride : index * stride + clip_length] += 1
        expanded = total / count
    if tail == "pad_gt_last":
        labels = np.append(labels, np.full(max(0, end - len(labels)), labels[-1]))
    if tail == "extend_score_last":
        expanded = np.append(expanded, np.full(max(0, len(labels) - end), scores[-1]))
    length = min(len(expanded), len(labels))
    return expanded[:length], labels[:length]


def per_video_auc(labels: Sequence[ArrayLike], scores: Sequence[ArrayLike]) -> float:
    """Mean of the ROC AUC of single videos (macro), over those that hold both classes; NaN if none does.

    Args:
        labels: Labels of the frames of each video.
        scores: Scores of the frames of each video.
    """
    values = [roc_auc(one, other) for one, other in zip(labels, scores, strict=True)]
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def per_class_auc(classes: Sequence[str], labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """ROC AUC of each anomaly class against all normal videos.

    Args:
        classes: Name of each video's class.
        labels: 1 for anomalous videos, 0 for normal ones, shape `(N,)`.
        scores: Scores of the videos, shape `(N,)`.

    Returns:
        By class, in the order of their names; NaN where there is no normal video.
    """
    names, (labels, scores) = np.asarray(classes, dtype=object), check_samples(labels, scores)
    if names.shape != labels.shape:
        raise ValueError(f"One class a video is needed, got {names.shape} classes and {labels.shape} labels.")
    values = {}
    for name in sorted(set(names[labels == 1])):
        chosen = (labels == 0) | ((names == name) & (labels == 1))
        values[name] = roc_auc(labels[chosen], scores[chosen])
    return values


def bootstrap_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    videos: ArrayLike | None = None,
    statistic: Callable[[Ranking, np.ndarray], float] = lambda ranking, weights: ranking.roc_auc(weights),
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile confidence interval by drawing whole videos with replacement: their frames are not independent.

    Args:
        labels: 1 for anomalous samples, 0 for normal ones, shape `(N,)`.
        scores: Shape `(N,)`.
        videos: Which video each sample belongs to, shape `(N,)`; each to its own by default.
        statistic: Takes a [`Ranking`] and the samples' weights; the ROC AUC by default.
        confidence: Share of resamples within the interval.
        num_resamples: How many are drawn. Those that hold one class only are left out.
        seed: Seed of the drawing.

    Returns:
        [`Interval`]; NaN if half of the resamples or more hold one class only.
    """
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ValueError(
            f"confidence must be between 0 and 1 and num_resamples 1 or more, got {confidence}, {num_resamples}."
        )
    ranking = Ranking(labels, scores)
    number = len(np.asarray(scores))
    _, video = np.unique(np.arange(number) if videos is None else np.asarray(videos), return_inverse=True)
    if video.shape != (number,):
        raise ValueError(f"videos must name one video a sample: {number} samples, got {video.shape}.")
    rng, count = np.random.default_rng(seed), int(video.max()) + 1
    values = np.empty(num_resamples)
    for index in range(num_resamples):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count)
        values[index] = statistic(ranking, drawn[video])
    values = values[~np.isnan(values)]
    if 2 * len(values) <= num_resamples:
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, ((1 - confidence) / 2, (1 + confidence) / 2))
    return Interval(float(low), float(high))


__all__ = [
    "Interval",
    "TailRule",
    "VideoRule",
    "bootstrap_interval",
    "check_frame_labels",
    "frame_scores",
    "per_class_auc",
    "per_video_auc",
    "video_score",
]
