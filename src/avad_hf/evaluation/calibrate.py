"""The threshold that gives so many false alarms a day, found on normal footage and kept in a detector's config."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import check_new, folder_written_whole, shown, write_file
from avad_hf.hub.contents import read_settings
from avad_hf.hub.folders import README, copy_checkpoint
from avad_hf.metrics.alarms import (
    AlarmThreshold,
    alarm_threshold,
    check_rate,
    hours_needed,
    is_enough,
    refuse_too_little,
)
from avad_hf.metrics.event_streams import Recording, Stretch, block_numbers, footage_hours
from avad_hf.models.detector import spec_of
from avad_hf.processes import process_state

from .evaluate import check_readable
from .kept import NO_SCENE, KeptSample, choose_clips, hours_of_day, pooled
from .scored import scored_recordings
from .scoring import refuse_other_features

CONFIG = "config.json"
# How many suspicious stretches a note names.
MOST_NAMED = 5
# How many of the kept clips are compared with those that a detector was fitted to, and how near is the same.
NUM_COMPARED, SAME_DISTANCE, SAME_TIME_S = 50, 1e-3, 0.01


@dataclass(frozen=True)
class AlarmCalibration:
    """What [`calibrate`] found.

    Args:
        alarms_per_day: Events a day of footage of one camera, which were asked for.
        common: The threshold of all scenes; ``None`` where one scene alone was calibrated.
        scenes: Thresholds of scenes that have enough footage of their own, by their names.
        notes: What one should know: videos that were left out, scenes with too little footage, suspicious events.
        data: Which videos these were (name, Hub id, split, its seed, scene).
        sample: Clips that the checkpoint keeps, to tell later footage from this.
    """

    alarms_per_day: float
    common: AlarmThreshold | None
    scenes: dict[str, AlarmThreshold]
    notes: list[str]
    data: dict[str, Any]
    sample: KeptSample = field(repr=False)

    def settings(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the detector's config: ``threshold``, ``threshold_origin``, ``thresholds`` and ``alarms``.

        ``alarms`` holds what [`~avad_hf.metrics.alarms.AlarmThreshold`] has of the common threshold, by the same
        names; ``scenes``: the same of scenes that have their own, by their names; and ``data``, which videos were
        used. Where one scene alone was calibrated, the common threshold and those of other scenes stay.

        Args:
            before: The config's fields as they are.
        """
        thresholds = {name: found.threshold for name, found in self.scenes.items()}
        by_scene = {name: found.to_dict() for name, found in self.scenes.items()}
        if self.common is None:
            alarms = before.get("alarms") or {}
            by_scene = {**alarms.get("scenes", {}), **by_scene}
            return {
                "thresholds": {**(before.get("thresholds") or {}), **thresholds},
                "alarms": {**alarms, "scenes": by_scene},
            }
        return {
            "threshold": self.common.threshold,
            "threshold_origin": origin_of(self.common),
            "thresholds": thresholds or None,
            "alarms": {**self.common.to_dict(), "scenes": by_scene, "data": self.data},
        }

    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON has it."""
        return {
            "alarms_per_day": self.alarms_per_day,
            "common": None if self.common is None else self.common.to_dict(),
            "scenes": {name: found.to_dict() for name, found in self.scenes.items()},
            "suspects": [stretch._asdict() for stretch in self.suspects],
            "data": self.data,
            "notes": self.notes,
        }

    @property
    def suspects(self) -> list[Stretch]:
        """Stretches that score far above all others, the highest first."""
        found = [self.common, *self.scenes.values()]
        stretches = [stretch for one in found if one is not None for stretch in one.suspects]
        # All scenes and their own may name the same event, with other ends.
        by_peak = {(stretch.recording, stretch.score): stretch for stretch in stretches}
        return sorted(by_peak.values(), key=lambda stretch: (-stretch.score, stretch))

    def save(self, directory: str | os.PathLike, copy_of: str | os.PathLike | None = None) -> None:
        """Write the thresholds into a checkpoint: its config, the line of its card, and the sample.

        The sample takes the place of that of an earlier calibration. All other settings stay.
        Weights and engines are not touched. Of several processes the main one writes.

        Args:
            directory: Folder of the checkpoint.
            copy_of: Checkpoint, a folder or on the Hub, that is copied there first; the folder must be new or empty
                then.

        Raises:
            FileNotFoundError: If the folder holds no checkpoint.
            FileExistsError: If a copy would replace something.
            HubError: If the Hub has no such checkpoint, or cannot be reached.
        """
        if not process_state().is_main_process:
            return
        if copy_of is None:
            self._write(Path(directory))
            return
        check_new(directory)
        with folder_written_whole(directory) as folder:
            copy_checkpoint(copy_of, folder)
            self._write(folder)

    def _write(self, directory: Path) -> None:
        if not (directory / CONFIG).is_file():
            raise FileNotFoundError(
                f"{directory} holds no checkpoint ({CONFIG}). Give the folder of a detector, or a new folder for a "
                "copy of it."
            )
        before = read_settings(directory / CONFIG)
        settings = self.settings(before)
        card = directory / README
        # The config comes last: whoever stops halfway has the old threshold, with all that it says of itself.
        self.sample.save(directory)
        if self.common is not None and card.is_file():
            line = f"Threshold {shown_threshold(self.common.threshold)}: {settings['threshold_origin']}."
            text = card.read_text(encoding="utf-8")
            text = re.sub(r"^- Threshold [\d.e-]+: .*$", lambda _: f"- {line}", text, flags=re.MULTILINE)
            write_file(card, text.encode())
        write_file(directory / CONFIG, f"{json.dumps({**before, **settings}, indent=2, sort_keys=True)}\n".encode())


def calibrate(
    model: PreTrainedModel,
    features: FeatureDataset,
    *,
    alarms_per_day: float = 1.0,
    batch_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> AlarmCalibration:
    """Find the threshold at which a detector gives so many false alarms a day, on normal footage.

    Events are merged from clips as detecting merges them. The footage must be new to the detector: what it was trained
    on or fitted to scores lower than the same place does tomorrow. Under ``accelerate launch`` each process scores its
    part, and every process gets the whole result.

    Args:
        model: A detector, on the device that it shall run on.
        features: Normal footage. Videos that are labelled as anomalous are left out; those without label are taken
            for normal. If they are of several scenes, each with enough footage gets a threshold of its own; if they
            were chosen by ``scene``, that scene alone gets one.
        alarms_per_day: Events a day of footage of one camera.
        batch_size: Videos that go through the model together; by default 16 at most, fewer long ones, and 4 of
            stored frames.
        on_progress: Called with the number of videos that this process has scored and their total.

    Returns:
        The thresholds, with intervals; ``save`` writes them into a checkpoint.

    Raises:
        TypeError: For anything but a detector and a feature set.
        ValueError: If the footage is too little for the rate (it says how much is missing and what can be promised),
            for no normal videos, features of another recipe or shape than the model's, features or scores that are
            not finite, scores that are all equal, and rates that no threshold has.

    Example:
    ```python
    >>> calibration = avad_hf.calibrate(model, FeatureDataset("features/yard"), alarms_per_day=1)
    >>> calibration.common.threshold, calibration.common.interval_95
    >>> calibration.save("checkpoints/yard")
    ```
    """
    check_readable(model, features)
    check_rate(alarms_per_day)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
    refuse_other_features(model.config, model.name_or_path, features)
    notes = [model.config.notice] if model.config.notice else []
    normal = _normal(features, notes)
    _refuse_before_scoring(normal.rows, alarms_per_day)
    rows, recordings = scored_recordings(model, normal, batch_size, on_progress)
    only = normal.selection.get("scene")
    if only is None:
        common = alarm_threshold(recordings, alarms_per_day)
        scenes = _by_scene(rows, recordings, alarms_per_day, notes)
    else:
        common, scenes = None, {only: alarm_threshold(recordings, alarms_per_day)}
    facts = (common or scenes[only]).to_dict()
    sample, was_fitted = _sample(model, normal, rows, recordings, facts)
    if was_fitted:
        notes.insert(
            0,
            f"The detector was fitted to clips of this footage (first {shown(was_fitted)}): they score lower than new "
            "footage of the same place, which will bring more alarms than promised. Calibrate on other days.",
        )
    calibration = AlarmCalibration(float(alarms_per_day), common, scenes, notes, features.selection, sample)
    if calibration.suspects:
        notes.append(_of_suspects(calibration.suspects))
    return calibration


def origin_of(found: AlarmThreshold) -> str:
    """Where a threshold comes from, in words."""
    low, high = found.interval_95
    return (
        f"{found.alarms_per_day:g} false alarms a day (95% {low:.2g} to {high:.2g}), from {found.hours:.1f} hours of "
        f"normal footage in {found.num_recordings} recordings"
    )


def shown_threshold(threshold: float) -> str:
    """A threshold with four places; with more where it is so near to 0 or 1 that they would not tell it from them."""
    distance = min(threshold, 1 - threshold)
    return f"{threshold:.4f}" if distance >= 0.001 or distance <= 0 else f"{threshold:.{3 - int(np.log10(distance))}f}"


def _normal(features: FeatureDataset, notes: list[str]) -> FeatureDataset:
    """The videos that are not labelled as anomalous."""
    normal = features.where(lambda row: row["anomaly"] != 1)
    num_left_out = len(features) - len(normal)
    if not len(normal):
        raise ValueError(
            f"All {num_left_out} videos are labelled as anomalous. Give normal footage: videos in which nothing "
            "happens."
        )
    if num_left_out:
        notes.append(
            f"{num_left_out} of {len(features)} videos are labelled as anomalous, and are left out. If the detector "
            "was trained on other videos of this store, calibrate on its test videos alone: split test."
        )
    if num_unlabelled := sum(row["anomaly"] is None for row in normal.rows):
        notes.append(f"{num_unlabelled} of {len(features)} videos have no label, and are taken for normal.")
    return normal


def _refuse_before_scoring(rows: Sequence[Mapping[str, Any]], alarms_per_day: float) -> None:
    """Refuse too little footage before hours of it are scored, where all rows say how long they are."""
    durations = {row.get("video_id") or row["id"]: row.get("duration") for row in rows}  # crops of a video are one
    if all(durations.values()):
        refuse_too_little(sum(durations.values()) / 3600, alarms_per_day)


def _by_scene(
    rows: Sequence[Mapping[str, Any]], recordings: Sequence[Recording], alarms_per_day: float, notes: list[str]
) -> dict[str, AlarmThreshold]:
    """Thresholds of scenes that have enough footage; a note for each other one."""
    names = {row["scene"] for row in rows}
    if len(names) < 2:
        return {}
    scenes = {}
    for name in sorted(filter(None, names), key=str):
        chosen = [recording for row, recording in zip(rows, recordings, strict=True) if row["scene"] == name]
        hours = footage_hours(chosen)
        if not is_enough(hours, alarms_per_day):
            needed = hours_needed(alarms_per_day)
            notes.append(
                f"Scene {shown(name)} keeps the common threshold: it has {hours:.4g} of the {needed:.4g} hours that "
                f"one of its own takes, and {needed - hours:.4g} are missing."
            )
            continue
        try:
            scenes[str(name)] = alarm_threshold(chosen, alarms_per_day)
        except ValueError as error:
            notes.append(f"Scene {shown(name)} keeps the common threshold. {error}")
    return scenes


def _of_suspects(suspects: Sequence[Stretch]) -> str:
    named = [f"{shown(one.recording)} from {one.start:.1f} to {one.end:.1f} s" for one in suspects[:MOST_NAMED]]
    more = f" and {len(suspects) - MOST_NAMED} more" if len(suspects) > MOST_NAMED else ""
    return (
        f"{len(suspects)} events score far above all others, and may be no normal footage: {', '.join(named)}{more}. "
        "Look at them. If they are anomalies, label these videos as anomalous and calibrate again: now they raise the "
        "threshold."
    )


def _sample(
    model: PreTrainedModel,
    features: FeatureDataset,
    rows: Sequence[Mapping[str, Any]],
    recordings: Sequence[Recording],
    facts: dict[str, Any],
) -> tuple[KeptSample, str | None]:
    """Clips that the checkpoint keeps, and the first video that the detector was fitted to, if it was to some."""
    chosen = choose_clips({recording.name: len(recording.scores) for recording in recordings})
    blocks = block_numbers(recordings)
    scenes = sorted({str(row["scene"]) for row in rows if row["scene"]})
    items: dict[str, int] = {}
    for index, row in enumerate(features.rows):
        items.setdefault(row["id"], index)
        items.setdefault(row.get("video_id") or row["id"], index)
    names = [] if features.holds_videos else list(spec_of(model).inputs)
    every = max(1, sum(map(len, chosen.values())) // NUM_COMPARED)
    parts: list[dict[str, np.ndarray]] = []
    num_seen, was_fitted = 0, None
    for row, recording, block in zip(rows, recordings, blocks, strict=True):
        numbers = chosen.get(recording.name)
        if numbers is None:
            continue
        part = {
            "scores": recording.scores[numbers],
            "has_audio": np.full(len(numbers), bool(row.get("has_audio"))),
            "block": block[numbers],
            "hour": hours_of_day(row, recording.times[numbers, 0]),
            "scene": np.full(len(numbers), scenes.index(str(row["scene"])) if row["scene"] else NO_SCENE),
        }
        if names:
            whole = features[items[recording.name]]
            item = {name: whole[name][numbers] for name in names if name in whole}
            part |= {f"features.{name}": pooled(value) for name, value in item.items()}
            for place in range(-num_seen % every, len(numbers), every):
                clip = {name: value[None, place : place + 1] for name, value in item.items()}
                clip["has_audio"] = whole["has_audio"].reshape(1)
                if was_fitted is None and _was_fitted_to(model, clip, row, recording.times[numbers[place], 0]):
                    was_fitted = recording.name
            num_seen += len(numbers)
        parts.append(part)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept = {
        name.removeprefix("features."): columns.pop(name) for name in list(columns) if name.startswith("features.")
    }
    return KeptSample(**columns, scenes=tuple(scenes), features=kept, facts=facts), was_fitted


def _was_fitted_to(
    model: PreTrainedModel, clip: Mapping[str, torch.Tensor], row: Mapping[str, Any], start: float
) -> bool:
    """Whether a clip of a video, from a second on, is one of the normal clips that a detector keeps."""
    device = next(model.parameters(), torch.empty(0)).device
    column = getattr(model.config, "scene_column", None)
    options = {} if column is None else {"scene": row[column]}
    nearest = model.nearest_normal({name: value.to(device) for name, value in clip.items()}, 0, 1, **options)
    return bool(nearest) and (
        nearest[0]["id"] == row["id"]
        and abs(nearest[0]["start"] - start) < SAME_TIME_S
        and nearest[0]["distance"] < SAME_DISTANCE
    )


__all__ = ["AlarmCalibration", "calibrate", "origin_of", "shown_threshold"]
