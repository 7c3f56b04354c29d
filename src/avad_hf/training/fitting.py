"""Fitting a detector of normality to a feature store, and adding to one: no labels, and minutes instead of epochs."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor
from transformers import AutoModelForVideoClassification, PreTrainedConfig, PreTrainedModel, ProcessorMixin

from avad_hf.evaluation.scoring import refuse_other_features
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import recipe_sha256
from avad_hf.files import check_new
from avad_hf.hub.cards import card, card_values, code, plain
from avad_hf.hub.folders import weights_hash, write_checkpoint
from avad_hf.models.architecture import Architecture
from avad_hf.models.detector import spec_of
from avad_hf.models.normality.configuration_normality import ONE_IN_1000, ONE_IN_1000_ORIGIN, NormalityConfig
from avad_hf.models.normality.fitting_normality import Fit, NormalFootage
from avad_hf.models.normality.modeling_normality import SENSE_NAMES, NormalityForAnomalyDetection
from avad_hf.registration import METHOD, architectures

from .models import load_processor

# Fields of a config that say what a detector was fitted to.
FILLED_IN = {
    "visual_size", "audio_size", "feature_grid", "recipe_sha256", "num_kept", "table_size", "rows", "scene_rows",
    "num_classes", "threshold_origin", "thresholds", "alarms",
}  # fmt: skip

Progress = Callable[[int, int], None]
Stage = Callable[[str], None]


def methods() -> dict[str, Architecture]:
    """Architectures that are fitted to normal footage alone, by their model types."""
    return architectures("fit")


@dataclass(frozen=True)
class FitResult:
    """What [`fit`] and [`update`] did.

    Args:
        directory: The checkpoint.
        num_videos: Normal videos that were read now.
        num_clips: Clips of them.
        num_kept: Normal clips that the detector keeps, and was fitted to.
        hours: How long the videos are.
        left_out: Videos of the store that are labelled as anomalous.
        notes: What a user must know.
    """

    directory: Path
    num_videos: int
    num_clips: int
    num_kept: int
    hours: float
    left_out: int
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result as a dict that `json.dumps` takes."""
        return asdict(self) | {"directory": os.fspath(self.directory)}


def normal_training_videos(store: str | os.PathLike, scene: str | None = None) -> FeatureDataset:
    """What of a store a detector of normality is fitted to: all of it, or the training part where some are anomalous.

    A store with anomalous videos is one that detectors are tested on, and what they are tested on they must not know.
    """
    data = FeatureDataset(store, scene=scene)
    is_labelled = any(row["anomaly"] == 1 for row in data.rows)
    return FeatureDataset(store, "train", scene=scene) if is_labelled else data


def fit(
    features: FeatureDataset | str | os.PathLike,
    output_dir: str | os.PathLike,
    method: str = METHOD,
    *,
    processor: str | os.PathLike | None = None,
    contamination: float = 0.0,
    by: str | None = None,
    on_stage: Stage = lambda stage: None,
    on_progress: Progress | None = None,
    **options: Any,
) -> FitResult:
    """Fit a detector to normal footage, without labels, and write its checkpoint.

    Each sense is fitted apart. How rare a distance is, is told by five parts of the footage, each measured by a
    detector that was fitted to the other four. Recordings (the manifest's ``group``, else the video) are split only
    where there are fewer than five, or a camera has a single one and features are relative to it.

    Args:
        features: Stored features of normal videos. Or the store's folder, of which `normal_training_videos` are taken.
            Videos that are labelled as anomalous are left out.
        output_dir: Folder of the checkpoint; must be empty or new.
        method: Model type of the detector, one of `methods`.
        processor: Checkpoint whose processor made the features, to be saved with the detector: it then reads videos.
        contamination: Share of the footage, from 0 to 0.5, that may be anomalous: the clips that are least like the
            rest are left out.
        by: ``"scene"`` or ``"group"``: features are taken relative to the mean of each camera.
        on_stage: Told in words what is done next.
        on_progress: Called with the number of videos that are read and their total.
        options: Fields of the detector's config to set otherwise.

    Raises:
        ValueError: For an unknown method or option, another processor than the features', or footage that a detector
            cannot be fitted to: too short, without any change, with values that are no numbers.
        FileExistsError: If the folder holds files already.
        OSError: If the checkpoint cannot be written.
    """
    known = methods()
    if method not in known:
        raise ValueError(f"method must be one of {', '.join(known)}, got {method!r}.")
    architecture = known[method]
    check_new(output_dir)
    data = features if isinstance(features, FeatureDataset) else normal_training_videos(features)
    if data.holds_videos:
        raise ValueError(
            f"{data.selection['name']} holds frames and sound, and {architecture.title} reads features of frozen "
            "encoders. Extract the videos with a processor that has encoders."
        )
    if not 0 <= contamination <= 0.5:
        raise ValueError(f"contamination must be a share of the footage from 0 to 0.5, got {contamination}.")
    data, left_out = _normal(data)
    saved_with = None if processor is None else load_processor(os.fspath(processor), data)
    _refuse_unknown(options, architecture)
    settings = {"contamination": contamination, "scene_column": by, "threshold_origin": ONE_IN_1000_ORIGIN}
    if "threshold" in options:
        settings["threshold_origin"] = "set by hand; not calibrated to a rate of alarms"
    settings["recipe_sha256"] = recipe_sha256(data.recipe) if data.recipe else None
    try:
        config = architecture.load("config").for_data(data[0], data.rows, data.recipe, **settings | options)
    except StrictDataclassError as error:  # which is no ValueError
        raise ValueError(str(error.__cause__ or error)) from error
    return _fit(architecture, config, data, left_out, Path(output_dir), saved_with, on_stage, on_progress)


def update(
    model: str | os.PathLike,
    features: FeatureDataset | str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    normal: Mapping[str, Any] | str | os.PathLike | None = None,
    on_stage: Stage = lambda stage: None,
    on_progress: Progress | None = None,
) -> FitResult:
    """Add normal footage to a fitted detector, without forgetting what it knows, and write a new checkpoint.

    The detector keeps an even sample of all normal clips, and is fitted anew to it: the result is that of fitting to
    all the footage at once, byte for byte, on one machine.

    Args:
        model: Folder or Hub id of the detector.
        features: Stored features of the new footage, or the store's folder, made by the same processor.
        output_dir: Folder of the new checkpoint; must be empty or new.
        normal: What `detect` found, by video (its JSON, or the path of it), of which a person says that its events are
            false alarms. Of these videos only the clips of the events are taken, and they are kept in any case. All
            other videos of the store count as new normal footage.
        on_stage: Told in words what is done next.
        on_progress: Called with the number of videos that are read and their total.

    Raises:
        ValueError: For a model that is not fitted to normal footage, features of another recipe, or events of videos
            that are not in the store.
        FileExistsError: If the folder holds files already.
        OSError: If the model is not there, or the checkpoint cannot be written.
    """
    check_new(output_dir)
    before = AutoModelForVideoClassification.from_pretrained(model, dtype=torch.float32, trust_remote_code=False)
    if not isinstance(before, NormalityForAnomalyDetection):
        raise ValueError(
            f"{model} is a {spec_of(before).title} detector, which learns from labels, or an exported one. Give a "
            "checkpoint that avad-hf fit wrote; to train such a detector further: avad-hf train --fine-tune."
        )
    data = features if isinstance(features, FeatureDataset) else FeatureDataset(features)
    refuse_other_features(before.config, os.fspath(model), data)
    false_alarms = _false_alarms(normal, data)
    data, left_out = _normal(data, always=false_alarms.keys())
    processor = load_processor(os.fspath(model), data) if _has_processor(model) else None
    architecture = methods()[before.config.model_type]
    footage = NormalFootage(_as_new(before.config))
    footage.go_on_from(before)
    return _fit(
        architecture, footage.config, data, left_out, Path(output_dir), processor, on_stage, on_progress, footage,
        false_alarms,
    )  # fmt: skip


def _fit(
    architecture: Architecture,
    config: NormalityConfig,
    data: FeatureDataset,
    left_out: int,
    output_dir: Path,
    processor: ProcessorMixin | None,
    on_stage: Stage,
    on_progress: Progress | None,
    footage: NormalFootage | None = None,
    false_alarms: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> FitResult:
    footage = NormalFootage(config) if footage is None else footage
    before = footage.collector.seen
    on_stage("reading features")
    read(footage, data, architecture, processor, false_alarms or {}, on_progress)
    num_clips = footage.collector.seen - before
    fitted: Fit = architecture.load("fit")(architecture.load("head"), config, footage, on_stage)
    model, notes = fitted.model, [*fitted.notes]
    if left_out:
        notes.append(f"{left_out} videos that are labelled as anomalous were left out.")
    result = FitResult(output_dir, len(data), num_clips, len(fitted.kept), _hours(data), left_out, notes)
    text = _card(model, result, data, processor, is_update=before > 0)
    write_checkpoint(output_dir, [model, processor] if processor else [model], text)
    return result


def read(
    footage: NormalFootage,
    data: FeatureDataset,
    architecture: Architecture,
    processor: ProcessorMixin | None,
    false_alarms: Mapping[str, Sequence[tuple[float, float]]],
    on_progress: Progress | None = None,
) -> None:
    """Hand stored videos over, one at a time; of those with false alarms only what was alarmed at."""
    body = architecture.load("model")(footage.config)
    for index, row in enumerate(data.rows):
        item = data[index]
        with torch.no_grad():
            pooled = body.pooled({name: item[name].unsqueeze(0) for name in footage.config.senses})
        chosen = None
        if row["id"] in false_alarms:
            starts, ends = item["clip_times"].T
            stretches = false_alarms[row["id"]]
            chosen = torch.stack([(starts < end) & (ends > start) for start, end in stretches]).any(0)
            if not chosen.any():
                raise ValueError(
                    f"{row['id']} ends at {ends.max():.2f} s, and has no clip within its false alarms, which begin at "
                    f"{stretches[0][0]:.2f} s. Give the events of this video."
                )
        vectors = {name: value[0] for name, value in pooled.items()}
        footage.add(row, item, vectors, _names(processor, row, item), chosen, certain=chosen is not None)
        if on_progress is not None:
            on_progress(index + 1, len(data))


def _refuse_unknown(options: Mapping[str, Any], architecture: Architecture) -> None:
    """Raise ``ValueError`` for options that are no fields of a detector's config, or that fitting fills in."""
    if filled := sorted(FILLED_IN & options.keys()):
        raise ValueError(f"{', '.join(filled)} cannot be set: fitting takes it from the footage. Leave it out.")
    known = {item.name for item in fields(architecture.load("config"))} - {
        item.name for item in fields(PreTrainedConfig)
    }
    if unknown := [name for name in options if name not in known]:
        near = [match for name in unknown for match in get_close_matches(name, known, n=1)]
        meant = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"{architecture.title} has no option {', '.join(unknown)}.{meant}")


def _names(processor: ProcessorMixin | None, row: Mapping[str, Any], item: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Probabilities of the encoders' classes in each clip, where their classifiers can tell from what is stored."""
    encoders, found = getattr(processor, "encoders", {}), {}
    if "video_encoder" in encoders:
        found["seen"] = encoders["video_encoder"].name_features(item["visual_features"].mean((2, 3)))
    if "audio_encoder" in encoders and row.get("has_audio"):
        steps = item["audio_features"]
        probabilities = encoders["audio_encoder"].name_features(steps.flatten(0, 1))
        found["heard"] = None if probabilities is None else probabilities.unflatten(0, steps.shape[:2]).mean(1)
    return {sense: values for sense, values in found.items() if values is not None}


def _as_new(config: NormalityConfig) -> NormalityConfig:
    """The config as it was before the footage filled it in; a threshold of a calibration is none for other footage."""
    before = {
        "num_kept": 1,
        "table_size": 2,
        "rows": None,
        "scene_rows": None,
        "num_classes": None,
        "threshold": ONE_IN_1000,
        "threshold_origin": ONE_IN_1000_ORIGIN,
        "thresholds": None,
        "alarms": None,
    }
    return type(config).from_dict(config.to_dict() | before)


def _normal(data: FeatureDataset, always: Sequence[str] = ()) -> tuple[FeatureDataset, int]:
    """The videos that count as normal, and how many do not: those that are labelled as anomalous."""
    anomalous = {row["id"] for row in data.rows if row["anomaly"] == 1} - set(always)
    if len(anomalous) == len(data.rows):
        raise ValueError(
            f"All {len(data.rows)} videos of {data.selection['name']} are labelled as anomalous. A detector of "
            "normality is fitted to normal videos: give some, or train one that learns from labels."
        )
    return data.where(lambda row: row["id"] not in anomalous) if anomalous else data, len(anomalous)


def _false_alarms(
    normal: Mapping[str, Any] | str | os.PathLike | None, data: FeatureDataset
) -> dict[str, list[tuple[float, float]]]:
    """Start and end of each event that is a false alarm, by the id of its video in the store."""
    if normal is None:
        return {}
    name = "normal"
    if not isinstance(normal, Mapping):
        name = os.fspath(normal)
        try:
            normal = json.loads(Path(normal).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is no JSON ({error}). Give what avad-hf detect --json wrote.") from error
    ids = [row["id"] for row in data.rows]
    found: dict[str, list[tuple[float, float]]] = {}
    for video, result in normal.items() if isinstance(normal, Mapping) else ():
        events = result.get("events") if isinstance(result, Mapping) else None
        if not isinstance(events, list):
            raise ValueError(f"{name}: {video} has no events. Give what avad-hf detect --json wrote.")
        if not events:
            continue
        matches = _videos_named(video, ids)
        if not matches:
            raise ValueError(
                f"{name} has events of {video}, which is not in {data.selection['name']}. Extract that video into the "
                "store, under its name, or remove it from the events."
            )
        match = matches[0]
        if len(matches) > 1 or match in found:
            raise ValueError(
                f"{name} has events of {video}, and it cannot be told whether that is {matches[-1]} of "
                f"{data.selection['name']}: several videos have this name. In {name}, call it by its id in the store."
            )
        try:
            found[match] = [(float(event["start"]), float(event["end"])) for event in events]
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{name}: an event of {video} has no start and end in seconds.") from error
    if not found:
        raise ValueError(f"{name} has no events. Leave it out, or give what avad-hf detect --json wrote.")
    return found


def _videos_named(path: str, ids: Sequence[str]) -> list[str]:
    """The ids of stored videos that share most of their last parts with a path; the id itself is a path of its own."""
    if path in ids:
        return [path]
    shared = {video: _num_shared(Path(path), Path(video)) for video in ids}
    most = max(shared.values(), default=0)
    return [video for video, number in shared.items() if number == most > 0]


def _num_shared(path: Path, video: Path) -> int:
    """How many of the last parts of two paths are the same; the ending of the file may be missing."""
    if path.name != video.name and video.name != path.stem and path.stem != video.stem:
        return 0
    folders = zip(reversed(path.parent.parts), reversed(video.parent.parts), strict=False)
    return 1 + sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], folders))


def _has_processor(model: str | os.PathLike) -> bool:
    from transformers.utils import PROCESSOR_NAME, has_file

    return (Path(model) / PROCESSOR_NAME).is_file() if os.path.isdir(model) else has_file(model, PROCESSOR_NAME)


def _hours(data: FeatureDataset) -> float:
    return sum(row.get("duration") or 0.0 for row in data.rows) / 3600


def _card(
    model: PreTrainedModel,
    result: FitResult,
    data: FeatureDataset,
    processor: ProcessorMixin | None,
    is_update: bool,
) -> str:
    """What the checkpoint's README.md says."""
    config, spec = model.config, model.detector_spec
    senses = " and ".join(SENSE_NAMES[name] for name in config.senses)
    facts = [
        f"Fitted to normal footage alone, by {senses}: {result.num_videos} videos of {code(data.selection['name'])}, "
        f"{result.hours:.2f} hours{', were added to what it knew before' if is_update else ''}.",
        f"It keeps {result.num_kept} normal clips: their features, the names of their videos, and when they were. "
        "Features can tell who is in a video.",
        f"Threshold {config.threshold:.4f}: {config.threshold_origin}.",
        *([f"It reads features of the recipe `{config.recipe_sha256}` (SHA-256)."] if config.recipe_sha256 else []),
        f"SHA-256 of its weights: `{weights_hash(model)}`.",
        *map(plain, result.notes),
        *(map(plain, processor.notices) if processor else ["No encoders: this checkpoint reads stored features."]),
    ]
    return card(
        config.card,
        title=spec.title,
        summary=f"A {spec.title} detector, fitted to normal footage by avad_hf.",
        location=result.directory.resolve().name,
        facts=facts,
        has_processor=processor is not None,
        **card_values(config),
    )


__all__ = ["FitResult", "fit", "methods", "read", "update"]
