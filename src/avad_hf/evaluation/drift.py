"""Whether footage is still like that which a detector was calibrated on, or fitted to, and what to do if it is not."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedModel

from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import as_json, write_text
from avad_hf.metrics.drift import FEWEST_BLOCKS, MOVED_SHIFT, SIGNIFICANT, Comparison, blocks_needed, compare
from avad_hf.metrics.event_streams import count_events, footage_hours
from avad_hf.models.detector import spec_of
from avad_hf.models.normality.modeling_normality import SENSE_NAMES, NormalityForAnomalyDetection
from avad_hf.processes import process_state

from .calibrate import shown_threshold
from .compared import SCORES, Compared, Footage, calibrated_sample, levels, sides, with_calibration, with_fitting
from .evaluate import check_readable
from .kept import UNKNOWN_HOUR, KeptSample
from .scoring import refuse_other_features

Advice = Literal["nothing", "calibrate", "fit again", "train again", "more footage"]
JSON_FILE = "drift.json"


@dataclass(frozen=True)
class Alarms:
    """False alarms that were promised, and those that came.

    Args:
        threshold: The threshold that was calibrated.
        promised: Alarms a day.
        promised_95: Where the true rate lies at that threshold, 95%.
        seen: Number of events of this footage.
        hours: Its length.
        seen_95: Where the rate of this footage lies, in events a day, 95%.
    """

    threshold: float
    promised: float
    promised_95: tuple[float, float]
    seen: int
    hours: float
    seen_95: tuple[float, float]

    @property
    def seen_per_day(self) -> float:
        """Events a day of this footage."""
        return self.seen / self.hours * 24

    @property
    def has_moved(self) -> bool:
        """Whether the intervals lie apart."""
        return self.seen_95[0] > self.promised_95[1] or self.seen_95[1] < self.promised_95[0]

    def to_dict(self) -> dict[str, Any]:
        """Numbers as JSON has them."""
        return {
            "threshold": self.threshold,
            "promised_per_day": self.promised,
            "promised_95": list(self.promised_95),
            "seen": self.seen,
            "seen_per_day": self.seen_per_day,
            "seen_95": list(self.seen_95),
            "hours": self.hours,
            "has_moved": self.has_moved,
        }


@dataclass(frozen=True)
class Drift:
    """What [`drift`] found.

    Args:
        advice: ``"nothing"`` to do; ``"calibrate"`` again, where scores or alarms have moved and features have not;
            ``"fit again"`` or ``"train again"``, where features have moved; ``"more footage"``, where nothing can be
            told.
        reasons: What it rests on, a sentence for each thing that was compared.
        compared_with: ``"calibration"`` or ``"fitting"``: the footage that the detector was calibrated on, or that it
            was fitted to.
        comparisons: What was compared, by name: ``"sight"``, ``"sound"``, and ``"scores"`` by their logits. What
            could not be compared is not there.
        level: The p-value below which a comparison is significant: 0.05, divided by the number of comparisons.
        threshold: Score from which on a clip is anomalous.
        above: Share of the compared clips that are above it, then and now; ``None`` where scores are not compared.
        alarms: False alarms that were promised and that came; ``None`` if the detector promises none.
        compared_hours: Hours of day that were compared; none where hours are not known.
        new_hours: Hours of day that this footage has, and that then had none.
        num_videos: Videos of this footage.
        notes: What one should know.
        data: Which videos these were (name, Hub id, split, its seed, scene).
        levels: Logits of the scores of clips then and now, for the picture.
    """

    advice: Advice
    reasons: list[str]
    compared_with: Literal["calibration", "fitting"]
    comparisons: dict[str, Comparison]
    level: float
    threshold: float
    above: tuple[float, float] | None
    alarms: Alarms | None
    compared_hours: list[int]
    new_hours: list[int]
    num_videos: int
    notes: list[str]
    data: dict[str, Any]
    levels: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    @property
    def moved(self) -> list[str]:
        """Names of the comparisons that have moved: significantly, and far enough to do something about it."""
        return [name for name, found in self.comparisons.items() if found.has_moved(self.level)]

    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON has it."""
        return {
            "advice": self.advice,
            "reasons": self.reasons,
            "compared_with": self.compared_with,
            "moved": self.moved,
            "comparisons": {name: found.to_dict() for name, found in self.comparisons.items()},
            "level": self.level,
            "threshold": self.threshold,
            "above": None if self.above is None else list(self.above),
            "alarms": None if self.alarms is None else self.alarms.to_dict(),
            "compared_hours": self.compared_hours,
            "new_hours": self.new_hours,
            "num_videos": self.num_videos,
            "data": self.data,
            "notes": self.notes,
        }

    def save(self, directory: str | os.PathLike) -> None:
        """Write ``drift.json``; of several processes the main one writes."""
        if process_state().is_main_process:
            Path(directory).mkdir(parents=True, exist_ok=True)
            write_text(Path(directory) / JSON_FILE, as_json(self.to_dict(), indent=2) + "\n")


def drift(
    model: PreTrainedModel,
    features: FeatureDataset,
    *,
    sample: KeptSample | None = None,
    batch_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Drift:
    """Say whether footage has another distribution of features and scores than what a detector was calibrated on.

    A detector that was not calibrated, and was fitted to normal footage, is asked for the clips that it keeps of that.
    Each sense is compared apart, with the scores besides. Whole blocks of time (recordings, or hours) are permuted for
    the p-values, of the same hour of day where hours are known (`avad_hf.metrics.drift.compare`). Under ``accelerate
    launch`` each process scores its part, and every process gets the whole result.

    Args:
        model: A detector, on the device that it shall run on.
        features: Later footage of the same cameras. Videos that are labelled as anomalous are left out; what is not
            normal, and not labelled, counts as drift.
        sample: Clips to compare with; those that the model's checkpoint keeps of its calibration by default.
        batch_size: Videos that go through the model together; by default 16 at most, and fewer long ones.
        on_progress: Called with the number of videos that this process has read and their total.

    Raises:
        TypeError: For anything but a detector and a feature set.
        ValueError: For a detector that keeps no clips, no normal videos, features of another recipe or shape than the
            model's, features or scores that are not finite, and footage in which nothing ever changes.

    Example:
    ```python
    >>> found = avad_hf.drift(model, FeatureDataset("features/yard-december"))
    >>> found.advice, found.reasons
    ```
    """
    check_readable(model, features)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
    refuse_other_features(model.config, model.name_or_path, features)
    notes = [model.config.notice] if model.config.notice else []
    normal = features.where(lambda row: row["anomaly"] != 1)
    if not len(normal):
        raise ValueError(
            f"All {len(features)} videos are labelled as anomalous. Give footage as the camera sees it every day."
        )
    if num_left_out := len(features) - len(normal):
        notes.append(f"{num_left_out} of {len(features)} videos are labelled as anomalous, and are left out.")
    sample = calibrated_sample(model) if sample is None else sample
    if sample is not None:
        compared = with_calibration(model, sample, normal, batch_size, on_progress)
    elif isinstance(model, NormalityForAnomalyDetection):
        compared = with_fitting(model, normal, on_progress)
    else:
        raise ValueError(
            f"{model.name_or_path or 'The detector'} keeps no clips of normal footage to compare with. Calibrate it "
            "first, on normal footage of these cameras: avad-hf calibrate MODEL STORE."
        )
    notes += compared.notes
    return _judge(model, normal, compared, features.selection, notes)


def _judge(
    model: PreTrainedModel, features: FeatureDataset, compared: Compared, data: dict[str, Any], notes: list[str]
) -> Drift:
    then, now = compared.then, compared.now
    hours, new_hours = _hours(then, now, notes)
    names = [sense for sense in SENSE_NAMES.values() if sense in then.features and sense in now.features]
    if then.scores is not None and now.scores is not None:
        names.append(SCORES)
    pairs = {name: pair for name in names if (pair := sides(then, now, name, hours, notes)) is not None}
    if not pairs:
        raise ValueError(f"Nothing of this footage can be compared. {' '.join(notes)}")
    # One of several comparisons is rare by chance more often than one alone.
    level = SIGNIFICANT / len(pairs)
    comparisons = {name: compare(*pair, level=level) for name, pair in pairs.items()}
    alarms, threshold = _alarms(model, features, compared, notes)
    above = None
    if SCORES in pairs:
        limit = levels(np.array(threshold))
        above = tuple(float((levels(one.scores[_of_hours(one, hours)]) >= limit).mean()) for one in (then, now))
    notes += _too_little(comparisons, compared.block_words, level)
    for name, found in comparisons.items():
        if found.p_value is not None and found.chance_shift > MOVED_SHIFT and not found.has_moved(level):
            notes.append(
                f"{name.capitalize()}: with {found.num_blocks[0]} and {found.num_blocks[1]} blocks only a shift above "
                f"{found.chance_shift:.2f} stands out of chance. More footage would show smaller ones."
            )
    return Drift(
        advice=_advice(comparisons, alarms, level, spec_of(model).objective),
        reasons=_reasons(comparisons, alarms, level),
        compared_with="fitting" if then.scores is None else "calibration",
        comparisons=comparisons,
        level=level,
        threshold=threshold,
        above=above,
        alarms=alarms,
        compared_hours=hours,
        new_hours=new_hours,
        num_videos=len({row.get("video_id") or row["id"] for row in features.rows}),
        notes=notes,
        data=data,
        levels=tuple(levels(one.scores[_of_hours(one, hours)]) for one in (then, now)) if SCORES in pairs else None,
    )


def _advice(comparisons: Mapping[str, Comparison], alarms: Alarms | None, level: float, objective: str) -> Advice:
    """The rule: features first, since a new threshold does not help a detector that sees what it does not know."""
    if all(found.p_value is None for found in comparisons.values()):
        return "more footage"
    moved = {name for name, found in comparisons.items() if found.has_moved(level)}
    if moved - {SCORES}:
        return "fit again" if objective == "normality" else "train again"
    can_tell_scores = SCORES in comparisons and comparisons[SCORES].p_value is not None
    if SCORES in moved or (can_tell_scores and alarms is not None and alarms.has_moved):
        return "calibrate"
    return "nothing"


def _reasons(comparisons: Mapping[str, Comparison], alarms: Alarms | None, level: float) -> list[str]:
    """A sentence for each thing that was compared."""
    sentences = []
    for name, found in comparisons.items():
        noun = name.capitalize()
        verb = "have" if name == SCORES else "has"
        numbers = (
            f"shift {found.shift:.2f} standard deviations, spread {found.spread:.2f} of what it was, energy distance "
            f"{found.energy_distance:.2g}"
        )
        if found.p_value is None:
            sentences.append(f"{noun}: {numbers}; too little footage to tell that from chance.")
            continue
        numbers += f", p = {found.p_value:.2g}"
        if found.has_moved(level):
            sentences.append(f"{noun} {verb} moved: {numbers}.")
        elif found.p_value <= level:
            sentences.append(f"{noun} {verb} moved, but hardly: {numbers}.")
        else:
            sentences.append(f"{noun} {verb} not moved beyond chance: {numbers}.")
    if alarms is not None:
        what = "have moved" if alarms.has_moved else "are within what was promised"
        low, high, hours, rate, seen_low, seen_high = map(
            _rounded, (*alarms.promised_95, alarms.hours, alarms.seen_per_day, *alarms.seen_95)
        )
        sentences.append(
            f"False alarms {what}: {alarms.promised:g} a day were promised (95% {low} to {high}). In {hours} hours "
            f"{alarms.seen} came, {rate} a day (95% {seen_low} to {seen_high})."
        )
    return sentences


def _too_little(comparisons: Mapping[str, Comparison], block_words: str, level: float) -> list[str]:
    """Notes on what has no p-value, and how much it takes."""
    names: dict[str, list[str]] = {}
    for name, found in comparisons.items():
        if found.p_value is None:
            num_then, num_now = found.num_blocks
            where = ", in hours of the day that both have" if found.hours else ""
            words = (
                f"It takes {max(FEWEST_BLOCKS, num_then)} {block_words} then and {blocks_needed(num_then, level)} "
                f"now; there are {num_then} and {num_now}{where}."
            )
            names.setdefault(words, []).append(name)
    return [f"Too little footage for p-values of {', '.join(some)}. {words}" for words, some in names.items()]


def _rounded(rate: float) -> str:
    """Two digits."""
    return f"{float(f'{rate:.2g}'):g}"


def _hours(then: Footage, now: Footage, notes: list[str]) -> tuple[list[int], list[int]]:
    """Hours of day that are compared, none if all clips are, and those that this footage has and then had none."""
    hours_then, hours_now = (set(side.hour.tolist()) for side in (then, now))
    if UNKNOWN_HOUR in hours_then | hours_now:
        notes.append(
            "Hours of the day are not known of all footage (the manifest's column hour), so that footage of other "
            "hours counts as drift."
        )
        return [], []
    new = sorted(hours_now - hours_then)
    common = sorted(hours_now & hours_then)
    if not common:
        notes.append(
            f"No hour of the day has footage then and now: then {_named(hours_then)}, now {_named(hours_now)}. A "
            "drift may be due to the hour alone."
        )
    elif new:
        notes.append(
            f"There was no footage of {_named(new)} then: these hours are not compared, and the detector "
            "may find them unusual. Give it footage of all hours that it is to watch."
        )
    return common, new


def _named(hours: Iterable[int]) -> str:
    """Hours in words, such as 22:00 to 02:00: stretches of hours that follow each other."""
    hours = sorted(hours)
    stretches: list[list[int]] = []
    for hour in hours:
        if stretches and hour == stretches[-1][1] + 1:
            stretches[-1][1] = hour
        else:
            stretches.append([hour, hour])
    if len(stretches) > 1 and stretches[0][0] == 0 and stretches[-1][1] == 23:  # over midnight
        stretches[-1][1] = stretches.pop(0)[1]
    return ", ".join(f"{first:02}:00 to {(last + 1) % 24:02}:00" for first, last in stretches)


def _of_hours(side: Footage, hours: Sequence[int]) -> np.ndarray:
    return np.isin(side.hour, hours) if hours else np.ones(len(side.hour), bool)


def _alarms(
    model: PreTrainedModel, features: FeatureDataset, compared: Compared, notes: list[str]
) -> tuple[Alarms | None, float]:
    """False alarms promised and seen, if some are promised; and the threshold at which they are counted."""
    scenes = {row["scene"] for row in features.rows}
    scene = scenes.pop() if len(scenes) == 1 else None
    threshold = model.config.threshold_of(scene)
    by_scene = (model.config.alarms or {}).get("scenes") or {}
    facts = by_scene.get(scene, compared.facts)
    if not compared.recordings or not {"threshold", "alarms_per_day", "interval_95"} <= facts.keys():
        return None, threshold
    if not math.isclose(threshold, facts["threshold"]):
        notes.append(
            f"The detector's threshold is {shown_threshold(threshold)}, and {shown_threshold(facts['threshold'])} was "
            "calibrated: alarms are counted at what was calibrated."
        )
        threshold = facts["threshold"]
    seen, hours = count_events(compared.recordings, threshold), footage_hours(compared.recordings)
    low, high = facts["interval_95"]
    return (
        Alarms(
            threshold=threshold,
            promised=facts["alarms_per_day"],
            promised_95=(low, high),
            seen=seen,
            hours=hours,
            seen_95=tuple(24 / hours * bound for bound in _count_interval(seen)),
        ),
        threshold,
    )


def _count_interval(count: int) -> tuple[float, float]:
    """Where the expectation of a number of events lies, 95% (Garwood 1936)."""
    from scipy.stats import gamma

    return float(gamma.ppf(0.025, count)) if count else 0.0, float(gamma.ppf(0.975, count + 1))


__all__ = ["Alarms", "Drift", "drift"]
