"""Every figure of a detector on stored features: of videos, clips and frames, by class and by scene."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from transformers import PreTrainedModel

from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import written_whole
from avad_hf.hub.folders import weights_hash
from avad_hf.media.clips import deciding_clips
from avad_hf.metrics.videos import TailRule, VideoRule
from avad_hf.models.detector import DetectorSpec, spec_of
from avad_hf.processes import process_state

from .figures import (
    class_figures,
    clip_figures,
    event_figures,
    frame_figures,
    scene_figures,
    video_figures,
    video_result,
    why_undefined,
    without_nan,
)
from .scoring import (
    STORED,
    class_logits_of_videos,
    labels_of,
    one_row_a_video,
    refuse_other_features,
    score_clips,
    video_class_logits,
    video_of,
)

# Longer videos are detected by windows, unless a processor has others.
LONG_S = 20.0
JSON = {"ensure_ascii": False, "allow_nan": False}


@dataclass(frozen=True)
class Evaluation:
    """What [`evaluate`] found.

    Args:
        figures: All figures, as JSON has them; ``None`` where one is not defined, with the reason in ``undefined``.
            ``data`` says which videos (name, Hub id, split, its seed, scene), ``weights_sha256`` which weights.
            ``num_crops`` is how many crops of each frame were scored: their scores are averaged before all else.
            Of a detector of event classes: ``events``, with ``top1_recall`` of each class, ``top1_accuracy`` of all
            videos, ``top1_macro``, its mean over classes, and ``confusion_matrix``, rows being what videos are and
            columns what they are called; ``clip`` and ``frame`` are ``None`` then, since a video has one score. A
            detector of clips that names classes has all of these: it calls a video by its highest clips, whatever the
            threshold.
        videos: Each video's ``id``, ``label``, ``anomaly``, ``scene``, ``score``, ``has_audio``, ``duration`` in
            seconds, ``clips`` (``start`` and ``end`` in seconds, ``score``; ``partial`` where one does not decide),
            and ``anomalous_frames``: stretches in seconds, or ``None`` where frames have no labels;
            ``frame_labels_fit`` is false where labels are those of another video, which counts for no frame.
            Of a detector of event classes also ``predicted``, the
            class, and ``probabilities`` of all classes.
    """

    figures: dict[str, Any]
    videos: list[dict[str, Any]] = field(repr=False)

    def save(self, directory: str | os.PathLike) -> None:
        """Write ``metrics.json`` and ``scores.jsonl``, a line a video; of several processes the main one writes."""
        if not process_state().is_main_process:
            return
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with written_whole(directory / "metrics.json") as partial:
            Path(partial).write_text(json.dumps(self.figures, indent=2, **JSON) + "\n", encoding="utf-8")
        lines = "".join(json.dumps(video, **JSON) + "\n" for video in self.videos)
        with written_whole(directory / "scores.jsonl") as partial:
            Path(partial).write_text(lines, encoding="utf-8")


def evaluate(
    model: PreTrainedModel,
    features: FeatureDataset,
    *,
    threshold: float | None = None,
    audio_path: str | None = None,
    video_rule: VideoRule = "max",
    tail: TailRule = "extend_score_last",
    batch_size: int | None = None,
    num_resamples: int = 1000,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score all videos of a feature set and compute what can be said about the scores.

    Under ``accelerate launch`` each process scores its part, and every process gets the whole result.

    Args:
        model: A detector, on the device that it shall run on.
        features: With labels.
        threshold: Score from which on a clip is anomalous; the model's own by default, by scene where it has some.
        audio_path: How sound is used, of detectors that have several ways; the model's own by default.
        video_rule: Which score a video gets from its clips' (`avad_hf.metrics.videos.video_score`).
        tail: What becomes of the frames at a video's end (`avad_hf.metrics.videos.frame_scores`).
        batch_size: Videos that go through the model together; by default 16, and 4 of stored frames.
        num_resamples: How often videos are resampled for the 95% confidence intervals; 0 for none.
        on_progress: Called with the number of videos that this process has scored and their total.

    Raises:
        TypeError: For anything but a detector and a feature set.
        ValueError: For videos without label or with classes that the model does not know, features of another recipe
            or shape than the model's, features or scores that are not finite, or unknown rules.
    """
    check_readable(model, features)
    _check(model, audio_path, video_rule, tail, batch_size, num_resamples)
    by_scene = model.config.thresholds if threshold is None else None
    threshold = model.config.threshold if threshold is None else float(threshold)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}.")
    labels_of(features)
    refuse_other_features(model.config, model.name_or_path, features)
    options = {} if audio_path is None else {"audio_path": audio_path}
    spec, names = spec_of(model), None
    notes = [model.config.notice] if model.config.notice else []
    if spec.objective == "classes" or spec.normal_labels:
        names = [model.config.id2label[number] for number in range(model.config.num_labels)]
        try:
            features = features.with_classes(names, beside=spec.objective == "clips")
        except ValueError as error:
            if spec.objective == "classes":
                raise
            # Its scores can be judged all the same.
            names = None
            notes.append(f"No figures of classes. {error}")
    scored = score_clips(model, features, batch_size, on_progress, **options)
    facts = {
        "weights_sha256": weights_hash(model),
        "audio_path": audio_path or getattr(model.config, "audio_path", None),
        "threshold": threshold,
        "threshold_origin": model.config.threshold_origin if threshold == model.config.threshold else "given by hand",
    }
    return _evaluation(features, scored, facts, by_scene or {}, names, notes, video_rule, tail, num_resamples, spec)


def evaluate_scores(
    features: FeatureDataset,
    scores: Mapping[str, ArrayLike],
    threshold: float,
    *,
    video_rule: VideoRule = "max",
    tail: TailRule = "extend_score_last",
    num_resamples: int = 1000,
) -> Evaluation:
    """The figures of scores from anywhere: a detector of another library, a person, a rule.

    Args:
        features: With labels. They say which clips there are, and which frames are anomalous.
        scores: By the id of each video, scores of its clips between 0 and 1, of shape `(T,)`.
        threshold: Score from which on a clip is anomalous.
        video_rule: As of [`evaluate`].
        tail: As of [`evaluate`].
        num_resamples: As of [`evaluate`].

    Returns:
        As of [`evaluate`]; ``weights_sha256`` is ``None``.

    Raises:
        ValueError: For videos without scores or labels, scores that are too few or too many, that are not within 0
            and 1, or unknown rules.
    """
    if not isinstance(features, FeatureDataset):
        raise TypeError(f"features must be a FeatureDataset, got {type(features).__name__}.")
    _check_rules(video_rule, tail, num_resamples)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}.")
    labels_of(features)
    if missing := [row["id"] for row in features.rows if row["id"] not in scores]:
        raise ValueError(f"{len(missing)} of {len(features)} videos have no scores, first {missing[0]!r}.")
    scored = []
    for index, row in enumerate(features.rows):
        times = features[index]["clip_times"].numpy()
        given = np.asarray(scores[row["id"]], dtype=np.float64)
        if given.shape != (len(times),) or not ((given >= 0) & (given <= 1)).all():
            raise ValueError(
                f"{row['id']!r} needs {len(times)} scores within 0 and 1, one a clip, got shape {given.shape}"
                f"{f', from {given.min():g} to {given.max():g}' if given.size else ''}."
            )
        scored.append({"scores": given, "logits": given, "times": times})
    facts = {
        "weights_sha256": None,
        "audio_path": None,
        "threshold": float(threshold),
        "threshold_origin": "given by hand",
    }
    spec = DetectorSpec("scores of elsewhere")
    return _evaluation(features, scored, facts, {}, None, [], video_rule, tail, num_resamples, spec)


def _evaluation(
    features: FeatureDataset,
    scored: Sequence[dict[str, np.ndarray]],
    facts: dict[str, Any],
    by_scene: Mapping[str, float],
    names: Sequence[str] | None,
    notes: list[str],
    video_rule: VideoRule,
    tail: TailRule,
    num_resamples: int,
    spec: DetectorSpec,
) -> Evaluation:
    """All figures of scored videos; `facts` says where the scores are from, `names` are the classes to judge by."""
    threshold = facts["threshold"]
    rows, clips, num_crops = one_row_a_video(features.rows, scored)
    videos = [
        video_result(row, scores, times, video_rule, spec.alpha, np.array(deciding_clips(times.tolist())))
        for row, (scores, times) in zip(rows, clips, strict=True)
    ]
    events = None
    if names is not None:
        numbers = {video_of(row): number for row, number in zip(features.rows, features.class_numbers, strict=True)}
        logits = [video_class_logits(item, spec) for item in class_logits_of_videos(features.rows, scored)]
        events = event_figures([numbers[row["id"]] for row in rows], logits, names, videos)
    has_one_score = spec.objective == "classes"
    labels = np.array([int(row["anomaly"]) for row in rows])
    scores = np.array([video["score"] for video in videos])
    thresholds = np.array([by_scene.get(str(row["scene"]), threshold) for row in rows])
    notes += [note for note in (features.recipe or {}).get("notices", ()) if note]
    if features.holds_videos and (whole := [row["id"] for row in rows if _is_long_and_whole(row)]):
        notes.append(
            f"{len(whole)} videos of more than {LONG_S:g} s were stored by an older version, without windows, and are "
            f"scored as a whole, which detecting would not do: extract them again (first {whole[0]})."
        )
    if own := sorted({str(row["scene"]) for row in rows} & by_scene.keys()):
        notes.append(
            "Scenes with a threshold of their own are judged by that: "
            + ", ".join(f"{name} ({by_scene[name]:.4g})" for name in own)
            + "."
        )
    figures = {
        "data": features.selection,
        "weights_sha256": facts["weights_sha256"],
        "num_videos": len(videos),
        "num_normal": int((labels == 0).sum()),
        "num_anomalous": int((labels == 1).sum()),
        "num_clips": sum(len(video["clips"]) for video in videos),
        "num_crops": num_crops,
        **{name: facts[name] for name in ("audio_path", "threshold", "threshold_origin")},
        "video": video_figures(labels, scores, videos, thresholds, video_rule, num_resamples, spec.alpha),
        "clip": None if has_one_score else clip_figures(labels, videos, num_resamples),
        "frame": None
        if has_one_score
        else frame_figures(features, rows, videos, thresholds, tail, num_resamples, notes),
        "classes": class_figures(labels, scores, videos, thresholds),
        "scenes": scene_figures(labels, scores, videos, thresholds),
        "undefined": {},
        "notes": notes,
    }
    if events is not None:
        figures["events"] = events
    figures = without_nan(figures)
    figures["undefined"] = why_undefined(figures, videos)
    return Evaluation(figures, videos)


def _is_long_and_whole(row: dict[str, Any]) -> bool:
    return (row.get("duration") or 0.0) > LONG_S and "num_windows" not in row


def check_readable(model: Any, features: Any) -> None:
    """Refuse what is no detector or no feature set, and features that the detector does not read.

    Raises:
        TypeError: For anything but a detector and a feature set.
        ValueError: For a store of videos where the detector reads features, or the other way round.
    """
    if not isinstance(features, FeatureDataset):
        raise TypeError(
            f"features must be a FeatureDataset, or what read_published returns, got {type(features).__name__}. A "
            "part of one is chosen by its split and scene."
        )
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model must be a detector, got {type(model).__name__}. AutoModelForVideoClassification.from_pretrained "
            "loads one."
        )
    spec = spec_of(model)
    if spec.reads != features.reads:
        raise ValueError(
            f"A model of type '{model.config.model_type}' cannot read this store: it reads {STORED[spec.reads]}, and "
            f"the store holds {STORED[features.reads]}. Extract the videos with this model's own processor: avad-hf "
            "extract ... --model."
        )


def _check(
    model: Any,
    audio_path: str | None,
    video_rule: str,
    tail: str,
    batch_size: int | None,
    num_resamples: int,
) -> None:
    """Refuse options that cannot be meant before anything is scored."""
    _check_rules(video_rule, tail, num_resamples)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
    if audio_path is not None and not hasattr(model.config, "audio_paths"):
        raise ValueError(
            f"audio_path is an option of detectors that use sound in several ways, and {type(model).__name__} has "
            "none. Leave it out."
        )


def _check_rules(video_rule: str, tail: str, num_resamples: int) -> None:
    for name, given, known in (("video_rule", video_rule, VideoRule), ("tail", tail, TailRule)):
        if given not in get_args(known):
            raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {given!r}.")
    if num_resamples < 0:
        raise ValueError(f"num_resamples must be 0 or more, got {num_resamples}.")


__all__ = ["Evaluation", "check_readable", "evaluate", "evaluate_scores"]
