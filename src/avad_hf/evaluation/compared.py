"""The two samples of clips by which footage is told from what a detector was calibrated on, or fitted to."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import shown
from avad_hf.metrics.drift import Side
from avad_hf.metrics.event_streams import BLOCK_S, Recording
from avad_hf.models.detector import spec_of
from avad_hf.models.normality.kept import CERTAIN, HEARD, Collector, KeptClips, clips_of_video
from avad_hf.models.normality.modeling_normality import SENSE_NAMES, NormalityForAnomalyDetection

from .kept import MOST_KEPT, UNKNOWN_HOUR, KeptSample, choose_clips, hours_of_day, pooled
from .scored import scored_recordings
from .unlike import standardised

# Clips of each sample that are compared: distances between all of them take a second, and clips of one block resemble
# each other, so that more of them would tell little more.
MOST_CLIPS = 1000
# A score nearer to 0 or 1 is as sure: without a limit a few of them would be farther away than all others together.
SURE = 1e-9
SCORES = "scores"
# How many scenes a note names.
MOST_NAMED = 5
OnProgress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Footage:
    """A sample of clips.

    Args:
        features: Averages over the clip, of shape `(N, channels)`, by ``"sight"`` and ``"sound"``, as far as these are
            there.
        scores: Scores, of shape `(N,)`; ``None`` where they say nothing.
        has_audio: Whether its video has sound, of shape `(N,)`.
        block: Number of the block of time that each is from, of shape `(N,)`.
        hour: Hour of day, or -1 where it is not known, of shape `(N,)`.
    """

    features: dict[str, np.ndarray]
    scores: np.ndarray | None
    has_audio: np.ndarray
    block: np.ndarray
    hour: np.ndarray


@dataclass(frozen=True)
class Compared:
    """Two samples of clips, and what else is known of the later footage.

    Args:
        then: Clips that the detector was calibrated on, or fitted to.
        now: Clips of the later footage.
        recordings: The scores of all of it; none where scores are not compared.
        facts: What the calibration found (`KeptSample.facts`); empty where there was none.
        block_words: What blocks of time are, in words.
        notes: What one must know of the samples.
    """

    then: Footage
    now: Footage
    recordings: list[Recording]
    facts: dict[str, Any]
    block_words: str
    notes: list[str]


def with_calibration(
    model: PreTrainedModel,
    sample: KeptSample,
    features: FeatureDataset,
    batch_size: int | None,
    on_progress: OnProgress,
) -> Compared:
    """Clips that a checkpoint keeps of its calibration, and a sample of later footage, which is scored.

    Raises:
        ValueError: If the sample is damaged, or of other features than the footage.
    """
    _refuse_damaged(sample)
    notes: list[str] = []
    scenes_now = {row["scene"] or None for row in features.rows}
    scenes = [sample.scenes[number] if number >= 0 else None for number in sample.scene.tolist()]
    seconds = _block_seconds(model, sample, scenes, scenes_now)
    is_same = np.array(_of_the_same_scenes(scenes, scenes_now, "calibrated on", notes))
    rows, recordings = scored_recordings(model, features, batch_size, on_progress)
    begins = np.concatenate([[0.0], np.cumsum([recording.times[-1, 1] for recording in recordings])])
    last_block = max(0, round(begins[-1] / seconds) - 1)
    chosen = choose_clips({recording.name: len(recording.scores) for recording in recordings}, MOST_KEPT)
    items: dict[str, int] = {}
    for index, row in enumerate(features.rows):  # crops of a video are rows of their own
        items.setdefault(row.get("video_id") or row["id"], index)
        items.setdefault(row["id"], index)
    names = [name for name in spec_of(model).inputs if name in sample.features]
    columns: dict[str, list[np.ndarray]] = {}
    for row, recording, begin in zip(rows, recordings, begins, strict=False):
        numbers = chosen.get(recording.name)
        if numbers is None:
            continue
        starts = recording.times[numbers, 0]
        part = {
            "scores": recording.scores[numbers],
            "has_audio": np.full(len(numbers), bool(row.get("has_audio"))),
            "block": np.minimum((begin + starts) // seconds, last_block).astype(np.int64),
            "hour": hours_of_day(row, starts),
        }
        if names:
            item = features[items[recording.name]]
            part |= {name: pooled(item[name][numbers]) for name in names}
        for name, values in part.items():
            columns.setdefault(name, []).append(values)
    now = {name: np.concatenate(values) for name, values in columns.items()}
    for name in names:
        _refuse_other_width(name, sample.features[name], now[name])
    kept = {name: getattr(sample, name)[is_same] for name in ("scores", "has_audio", "block", "hour")}
    return Compared(
        Footage(_by_sense({name: values[is_same] for name, values in sample.features.items()}), **kept),
        Footage(_by_sense({name: now.pop(name) for name in names}), **now),
        recordings,
        sample.facts,
        f"stretches of {seconds / 60:.3g} minutes",
        notes,
    )


def with_fitting(model: NormalityForAnomalyDetection, features: FeatureDataset, on_progress: OnProgress) -> Compared:
    """Normal clips that a detector keeps, and a sample of later footage.

    Scores are not compared: those of clips that it was fitted to are lower than those of new ones of the same place.
    """
    collector = Collector(MOST_KEPT)
    device = next(model.parameters()).device
    for index, row in enumerate(features.rows):
        item = features[index]
        inputs = {name: item[name].unsqueeze(0).to(device) for name in model.config.senses if name in item}
        for name, width in spec_of(model).inputs.items():
            if name not in inputs or inputs[name].shape[2 if name == "visual_features" else 3] != width:
                raise ValueError(
                    f"{row['id']}: its {name} are not of the width {width} that the detector reads. Extract the "
                    "videos with the detector's own processor: avad-hf extract ... --model."
                )
        with torch.no_grad():
            vectors = {name: value[0].cpu() for name, value in model.body.pooled(inputs).items()}
        collector.add(clips_of_video(row, item["clip_times"], vectors, bool(row.get("has_audio"))))
        if on_progress is not None:
            on_progress(index + 1, len(features))
    kept, now = model.kept_clips(), collector.kept()
    # What a person called normal was chosen for being odd, and is no sample.
    kept = kept.chosen(torch.nonzero(~kept.has(CERTAIN)).flatten())
    if not len(kept):
        raise ValueError(
            "All clips that the detector keeps are false alarms that a person named, so that they are no sample of "
            "its footage. Calibrate it (avad-hf calibrate), and compare again."
        )
    notes = [
        "Scores are not compared: the detector was fitted to the clips that it keeps, and scores them too low. After "
        "avad-hf calibrate, with other footage, they are compared too."
    ]
    if common := set(kept.column("id")) & set(now.column("id")):
        notes.append(
            f"{len(common)} videos of this footage are among those that the detector was fitted to (first "
            f"{shown(min(common))}). Give footage of other days."
        )
    scenes_now = {scene or None for scene in now.column("scene")}
    is_same = _of_the_same_scenes([scene or None for scene in kept.column("scene")], scenes_now, "fitted to", notes)
    kept = kept.chosen(torch.nonzero(torch.tensor(is_same)).flatten())
    return Compared(_footage(kept), _footage(now), [], {}, "recordings, or hours of long ones,", notes)


def sides(then: Footage, now: Footage, name: str, hours: Sequence[int], notes: list[str]) -> tuple[Side, Side] | None:
    """What is compared of two samples, of a sense or of the scores; ``None``, and a note, where nothing can be.

    Channels are divided by their standard deviation in both samples together. That of one alone would make this one
    less spread than the other, even where nothing has changed.

    Args:
        then: The earlier sample.
        now: The later sample.
        name: ``"sight"``, ``"sound"`` or `SCORES`.
        hours: Hours of day that are compared; none if all clips are.
        notes: To which a note is added.
    """
    picked = []
    for side in (then, now):
        has = side.has_audio if name == "sound" else np.ones(len(side.hour), bool)
        numbers = np.flatnonzero(has & np.isin(side.hour, hours) if hours else has)
        numbers = numbers[
            np.unique(np.linspace(0, len(numbers) - 1, min(len(numbers), MOST_CLIPS)).round().astype(int))
        ]
        picked.append((side, numbers, side.hour[numbers] if hours else np.full(len(numbers), UNKNOWN_HOUR)))
    has_then, has_now = (len(numbers) > 0 for _, numbers, _ in picked)
    if has_then != has_now:
        had, lacks = ("then", "now") if has_then else ("now", "then")
        notes.append(
            f"There is sound {had}, and none {lacks}: sound is left out. If there should be some, look at the "
            "microphone and the recorder."
        )
        return None
    common = np.intersect1d(picked[0][2], picked[1][2])
    picked = [(side, numbers[np.isin(hour, common)], hour[np.isin(hour, common)]) for side, numbers, hour in picked]
    if not len(common):
        if has_then:
            notes.append("Sound is left out: no hour of the day has some then and now.")
        return None
    parts = [
        levels(side.scores[numbers])[:, None] if name == SCORES else side.features[name][numbers]
        for side, numbers, _ in picked
    ]
    both = standardised(np.concatenate(parts))
    if not both.any():
        notes.append(
            {
                "sight": "All clips look the same to the encoder, so sight is left out.",
                "sound": "All clips sound the same to the encoder, so sound is left out.",
                SCORES: "All scores are equal, so that nothing can be told from them.",
            }[name]
        )
        return None
    split = np.split(both, [len(parts[0])])
    first, second = (
        Side(part, side.block[numbers], hour) for part, (side, numbers, hour) in zip(split, picked, strict=True)
    )
    return first, second


def levels(scores: np.ndarray) -> np.ndarray:
    """Scores on a scale without ends, on which the highest ones are not all alike."""
    from scipy.special import logit

    return logit(np.clip(scores, SURE, 1 - SURE))


def calibrated_sample(model: PreTrainedModel) -> KeptSample | None:
    """What the checkpoint that a model was loaded from keeps of its calibration; ``None`` if it was not calibrated."""
    if not model.name_or_path:
        return None
    try:
        return KeptSample.read(os.fspath(model.name_or_path))
    except FileNotFoundError:
        return None


def _refuse_damaged(sample: KeptSample) -> None:
    hours = sample.facts.get("hours") if isinstance(sample.facts, dict) else None
    reason = None
    if not isinstance(hours, (int, float)) or not 0 < hours < math.inf:
        reason = f"its length in hours is {hours!r}"
    elif not len(sample) or not -1 <= sample.scene.min() <= sample.scene.max() < len(sample.scenes):
        reason = "it has no clips, or clips of scenes that it does not name"
    elif not all(np.isfinite(values).all() for values in (sample.scores, *sample.features.values())):
        reason = "it holds NaN or infinite values"
    if reason is not None:
        raise ValueError(
            f"The sample of the calibration is damaged: {reason}. Copy the checkpoint again, or calibrate it again."
        )


def _block_seconds(
    model: PreTrainedModel, sample: KeptSample, scenes: Sequence[str | None], scenes_now: set[str | None]
) -> float:
    """Length of the blocks of a sample: those of later footage shall be as long."""
    by_scene = (model.config.alarms or {}).get("scenes") or {}
    scene = next(iter(scenes_now)) if len(scenes_now) == 1 else None
    if scene in by_scene and scene in scenes:  # it may have been calibrated by itself, with blocks of another length
        blocks, hours = sample.block[np.array(scenes) == scene], by_scene[scene]["hours"]
    else:
        blocks, hours = sample.block, sample.facts["hours"]
    return hours * 3600 / len(np.unique(blocks))


def _refuse_other_width(name: str, then: np.ndarray, now: np.ndarray) -> None:
    if then.ndim != 2 or then.shape[1] != now.shape[1]:
        raise ValueError(
            f"The {name} of the calibration have {then.shape[-1]} channels, those of this footage {now.shape[1]}. "
            "Extract the videos with the detector's own processor: avad-hf extract ... --model."
        )


def _by_sense(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {sense: features[name] for name, sense in SENSE_NAMES.items() if name in features}


def _footage(kept: KeptClips) -> Footage:
    starts = kept.times[:, 0].numpy() / 1e6
    hours = [hours_of_day({"hour": hour}, [start])[0] for hour, start in zip(kept.column("hour"), starts, strict=True)]
    vectors = {name: value.numpy() for name, value in kept.vectors.items()}
    return Footage(_by_sense(vectors), None, kept.has(HEARD).numpy(), _blocks(kept), np.array(hours))


def _blocks(kept: KeptClips) -> np.ndarray:
    """Numbers of blocks: recordings, or hours of long ones, whose videos follow each other."""
    recording_of = dict(zip(kept.column("id"), kept.recordings, strict=True))
    lengths: dict[str, float] = {}
    for name, end in zip(kept.column("id"), kept.times[:, 1].tolist(), strict=True):
        lengths[name] = max(lengths.get(name, 0.0), end / 1e6)
    begins: dict[str, float] = {}
    total = dict.fromkeys(recording_of.values(), 0.0)
    for name in sorted(lengths):
        begins[name] = total[recording_of[name]]
        total[recording_of[name]] += lengths[name]
    numbers: dict[tuple[str, int], int] = {}
    starts = (kept.times[:, 0] / 1e6).tolist()
    keys = [
        (recording_of[name], int((begins[name] + start) // BLOCK_S))
        for name, start in zip(kept.column("id"), starts, strict=True)
    ]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _of_the_same_scenes(then: Sequence[str | None], now: set[str | None], known: str, notes: list[str]) -> list[bool]:
    """Which clips are of the cameras that the later footage is of; all of them where it is of others too.

    Args:
        then: Scene of each clip.
        now: Scenes of the later footage.
        known: What the detector was with these clips, in words.
        notes: To which a note is added.
    """
    if None not in now and None not in then:
        if unknown := sorted(map(str, now - set(then))):
            notes.append(
                f"The detector was not {known} footage of {', '.join(map(shown, unknown[:MOST_NAMED]))}: that a "
                "camera is another one counts as drift."
            )
        elif now != set(then):
            named = ", ".join(map(shown, sorted(map(str, now))[:MOST_NAMED]))
            notes.append(f"Compared with what the detector was {known} of {named}, and not with other scenes.")
            return [scene in now for scene in then]
    return [True] * len(then)


__all__ = ["SCORES", "Compared", "Footage", "calibrated_sample", "levels", "sides", "with_calibration", "with_fitting"]
