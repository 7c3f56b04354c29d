"""Fits a detector of normality to the clips that are kept of normal footage. Everything follows from those."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .configuration_normality import NormalityConfig
from .kept import CERTAIN, HEARD, USED, Collector, KeptClips, clips_of_video
from .modeling_normality import CLASS_UNIT, PLACE_UNIT, SENSE_NAMES, NormalityForAnomalyDetection
from .senses import Relative, Sense
from .tails import Tail, joined

# Parts that the footage is cut into, to measure each by a detector that does not know it.
NUM_FOLDS = 5
# Share of the footage from which on a recording is split in time: what is left could not tell how far its clips are.
MOST_OF_ONE = 0.4
# Fewer clips say nothing of how rare something is: the tail would rest on five of them.
FEWEST_CLIPS = 50
# How often the clips that are least like the rest are left out, and the rest is fitted anew.
TRIMMING_ROUNDS = 2
# Features beyond this are cut where places are counted, so that whole numbers have room for years of footage.
LARGEST_FEATURE = 1e4
# A clip that is rarer than one in this many times the footage does not belong to it by chance.
UNLIKELY = 1000


@dataclass
class NormalFootage:
    """Takes normal videos one after the other, in memory that does not grow with them.

    Args:
        config: Config of the detector that is to be fitted: its widths, its senses and its limits.
    """

    config: NormalityConfig
    collector: Collector = field(init=False)
    places: dict[Any, list[Tensor]] = field(default_factory=dict, init=False)
    classes: dict[str, list[Tensor]] = field(default_factory=dict, init=False)

    def __post_init__(self):
        self.collector = Collector(self.config.most_kept)

    def add(
        self,
        row: Mapping[str, Any],
        features: Mapping[str, Tensor],
        vectors: Mapping[str, Tensor],
        names: Mapping[str, Tensor] | None = None,
        chosen: Tensor | None = None,
        certain: bool = False,
    ) -> None:
        """Take one video.

        Args:
            row: What is known of it: ``id``, ``group``, ``scene``, ``hour``, ``has_audio``.
            features: Its clips: ``clip_times``, and ``visual_features`` of shape `(T, C, h, w)` among others.
            vectors: What its clips are compared by, of shape `(T, width)`, by the names of the features.
            names: Probabilities of the encoders' classes, of ``"seen"`` and ``"heard"`` where they are known, of shape
                `(T, classes)`.
            chosen: Which of its clips are taken, of shape `(T,)`; all by default.
            certain: Whether a person says that these are normal.

        Raises:
            ValueError: For another grid of the map than the first video had.
        """
        chosen = torch.ones(len(features["clip_times"]), dtype=torch.bool) if chosen is None else chosen
        if not chosen.any():
            return
        taken = {name: value[chosen] for name, value in vectors.items()}
        self.collector.add(
            clips_of_video(row, features["clip_times"][chosen], taken, bool(row.get("has_audio")), certain)
        )
        for sense, probabilities in (names or {}).items():
            sums = (probabilities[chosen].double() * CLASS_UNIT).round().long().sum(0)
            before = self.classes.setdefault(sense, [torch.zeros_like(sums), torch.tensor(0)])
            before[0] += sums
            before[1] = before[1] + int(chosen.sum())
        if "visual_features" in self.config.senses:
            maps = features["visual_features"][chosen].float()
            if tuple(maps.shape[2:]) != tuple(self.config.feature_grid):
                raise ValueError(
                    f"{row['id']}: its feature maps have {tuple(maps.shape[2:])} rows and columns, those of the "
                    f"detector {tuple(self.config.feature_grid)}. Extract all videos with one processor."
                )
            self._count(row, maps)

    def _count(self, row: Mapping[str, Any], maps: Tensor) -> None:
        maps = self.config.scaled("visual_features", maps).clamp(-LARGEST_FEATURE, LARGEST_FEATURE).double()
        sums = (maps * PLACE_UNIT).round().long().sum(0)
        squares = (maps.square() * PLACE_UNIT).round().long().sum(0)
        scene = row.get(self.config.scene_column) if self.config.scene_column else None
        for key in {None, scene}:
            before = self.places.setdefault(key, [torch.zeros_like(sums), torch.zeros_like(sums), torch.tensor(0)])
            before[0] += sums
            before[1] += squares
            before[2] = before[2] + len(maps)

    def go_on_from(self, model: NormalityForAnomalyDetection) -> None:
        """Take what a fitted detector was fitted to."""
        kept = model.kept_clips()
        kept.flags = kept.flags | USED
        self.collector.add(kept)
        for sense in model.config.num_classes or {}:
            self.classes[sense] = [getattr(model, f"{sense}_{part}").cpu().clone() for part in ("sums", "count")]
        if "visual_features" in self.config.senses:
            rows = {None: -1} | (model.config.scene_rows or {})
            parts = (model.place_sums.cpu(), model.place_squares.cpu(), model.place_counts.cpu())
            for key, row in rows.items():
                self.places[key] = [part[row].clone() for part in parts]


@dataclass(frozen=True)
class Fit:
    """A detector that was fitted, and what was found on the way.

    Args:
        model: The detector.
        scores: Scores of the kept clips, each by a detector that was fitted without its recording, of shape `(N,)`.
        kept: The kept clips.
        notes: What a user must know.
    """

    model: NormalityForAnomalyDetection
    scores: np.ndarray
    kept: KeptClips
    notes: list[str]


def fit_model(
    kind: type[NormalityForAnomalyDetection],
    config: NormalityConfig,
    footage: NormalFootage,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Fit:
    """Fit a detector.

    Args:
        kind: Its class.
        config: What it is to be; what depends on the footage is filled in.
        footage: Everything normal.
        on_stage: Told in words what is done next.

    Raises:
        ValueError: For footage that is too short, that does not change, or of which too much is to be left out.
    """
    kept = footage.collector.kept() if footage.collector.seen else None
    if kept is None or len(kept) < FEWEST_CLIPS:
        raise ValueError(
            f"The footage has {0 if kept is None else len(kept)} normal clips, and a detector of normality needs "
            f"{FEWEST_CLIPS} at least, better thousands: some hours of each camera. Give more footage."
        )
    senses, notes = _senses_that_can_be_fitted(config, kept)
    scenes = sorted({one for one in _scenes_of(config, kept) if one is not None}, key=str)
    if config.scene_column and not scenes:
        notes.append(f"No video names its {config.scene_column}, so that all footage has one mean.")
    settings = config.to_dict() | {
        "inputs": {("visual_features",): "visual", ("audio_features",): "audio"}.get(senses, "both"),
        "num_kept": len(kept),
        "scene_rows": {str(name): number for number, name in enumerate(scenes)} or None,
        "num_classes": {sense: len(sums) for sense, (sums, _) in footage.classes.items()} or None,
    }
    config = type(config).from_dict(settings)
    kept.vectors = {name: kept.vectors[name] for name in senses}
    fitting = _Fitting(kind, config, kept)
    surprises = fitting.apart(on_stage)
    if config.contamination:
        for _ in range(TRIMMING_ROUNDS):
            fitting.leave_out(surprises)
            surprises = fitting.apart(on_stage)
    on_stage("fitting to all of it")
    model = fitting.whole(surprises.distances)
    _fill_in_places(model, footage)
    for sense, (sums, count) in footage.classes.items():
        getattr(model, f"{sense}_sums").copy_(sums)
        getattr(model, f"{sense}_count").copy_(count)
    notes += fitting.notes(surprises)
    return Fit(model, surprises.scores(), kept, notes)


def _senses_that_can_be_fitted(config: NormalityConfig, kept: KeptClips) -> tuple[tuple[str, ...], list[str]]:
    """Names of the senses, and what must be said; sound that is hardly ever there is left out."""
    senses, notes = config.senses, []
    heard = int(kept.has(HEARD).sum())
    if "audio_features" in senses and heard < FEWEST_CLIPS:
        if len(senses) == 1:
            raise ValueError(
                f"Only {heard} clips of the footage have sound, and {FEWEST_CLIPS} are needed at least. Give footage "
                "with sound, or inputs='visual'."
            )
        notes.append(f"Only {heard} clips of the footage have sound: the detector sees, and does not hear.")
        senses = ("visual_features",)
    return senses, notes


def _scenes_of(config: NormalityConfig, kept: KeptClips) -> list[Any]:
    return [None] * len(kept) if config.scene_column is None else kept.column(config.scene_column)


def fold_numbers(kept: KeptClips, scene_column: str | None) -> np.ndarray:
    """In which part of the footage each clip is, of shape `(N,)`: clips that were recorded together are in one part.

    Features that are relative to a camera need some of it in the other parts, else all of it is far from their mean:
    of a camera that would be in one part alone, the parts follow each other in time. So they do where there are fewer
    recordings than parts, and within a recording that is most of the footage: the others could not measure it.
    """
    # Names are ordered by their hashes, so that a name keeps its place among others.
    units = kept.column("id") if scene_column == "group" else kept.recordings
    names = sorted(set(units), key=lambda name: hashlib.sha256(str(name).encode()).digest())
    number_of = {name: number % NUM_FOLDS for number, name in enumerate(names)}
    folds = np.array([number_of[name] for name in units])
    everything = np.arange(len(kept))
    if len(names) < NUM_FOLDS:
        return _folds_in_time(kept, folds, everything)
    for name in names:
        members = everything[np.array(units) == name]
        if len(members) > MOST_OF_ONE * len(kept):
            folds = _folds_in_time(kept, folds, members)
    if scene_column is not None:
        cameras = np.array([str(name) for name in kept.column(scene_column)])
        for camera in np.unique(cameras):
            members = everything[cameras == camera]
            if len(np.unique(folds[members])) == 1:
                folds = _folds_in_time(kept, folds, members)
    return folds


def _folds_in_time(kept: KeptClips, folds: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The parts of clips, where those of some clips follow each other in time."""
    ids = kept.column("id")
    order = sorted(members.tolist(), key=lambda index: (str(ids[index]), int(kept.times[index, 0])))
    folds = folds.copy()
    folds[order] = np.arange(len(order)) * NUM_FOLDS // len(order)
    return folds


@dataclass
class _Apart:
    """Distances of clips by detectors that did not know them; NaN where a clip has not this sense."""

    distances: dict[str, np.ndarray]

    def surprise(self) -> np.ndarray:
        """How surprising each clip is, of shape `(N,)`."""
        each = []
        for distances in self.distances.values():
            known = ~np.isnan(distances)
            tail = Tail().fit(distances[known])
            surprise = np.full(len(distances), np.nan)
            surprise[known] = tail(torch.from_numpy(distances[known]).float()).double().numpy()
            each.append(surprise)
        if len(each) == 1:
            return np.nan_to_num(each[0])
        both = joined(torch.from_numpy(np.stack(each, axis=1))).numpy()
        return np.where(np.isnan(each[1]), each[0], both)

    def beyond_belief(self) -> np.ndarray:
        """By how much clips are farther than the farthest one could be that belongs to the footage; 0 of most, `(N,)`.

        Told by the distances of most clips, so that the odd ones do not count: between the 70th and the 95th
        percentile of an exponential tail there are log(6) of its scales.
        """
        excess = np.zeros(len(next(iter(self.distances.values()))))
        for distances in self.distances.values():
            low, high = np.nanpercentile(distances, (70, 95))
            scale = (high - low) / math.log(6)
            farthest = high + scale * math.log(0.05 * UNLIKELY * len(distances))
            excess = np.fmax(excess, (distances - farthest) / max(scale, 1e-12))
        return excess

    def scores(self) -> np.ndarray:
        surprise = self.surprise()
        return surprise / (1 + surprise)


class _Fitting:
    """Fits to parts of the kept clips, and to all of them."""

    def __init__(self, kind: type[NormalityForAnomalyDetection], config: NormalityConfig, kept: KeptClips):
        self.kind, self.config, self.kept = kind, config, kept
        rows = config.scene_rows or {}
        self.scenes = torch.tensor([rows.get(str(one), len(rows)) for one in _scenes_of(config, kept)])
        self.folds = torch.from_numpy(fold_numbers(kept, config.scene_column))

    def _members(self, name: str, index: Tensor) -> Tensor:
        """Which of the clips a sense is fitted to."""
        has = self.kept.has(USED) & index
        return has & self.kept.has(HEARD) if name == "audio_features" else has

    def _fit_sense(self, name: str, members: Tensor) -> tuple[Relative, Sense]:
        vectors = self.kept.vectors[name][members]
        if not vectors.isfinite().all():
            raise ValueError(f"The {SENSE_NAMES[name]}'s features hold NaN or infinite values. Extract them again.")
        relative = Relative(len(self.config.scene_rows or {}), vectors.shape[1])
        sense = self.kind.body_class.sense_class(self._config_for(name, int(members.sum())), name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            sense.reset()
            try:
                relative.fit(vectors, self.scenes[members])
                centred = _relative(relative, vectors, self.scenes[members])
                sense.fit(centred, self.kept.has(CERTAIN)[members])
            except ValueError as error:
                raise ValueError(f"The detector's {SENSE_NAMES[name]} cannot be fitted: {error}") from error
        return relative, sense.eval()

    def _config_for(self, name: str, count: int) -> NormalityConfig:
        rows = self.kind.body_class.sense_class.rows_for(self.config, count)
        settings = {} if rows is None else {"rows": {name: rows}}
        return type(self.config).from_dict(self.config.to_dict() | settings)

    def apart(self, on_stage: Callable[[str], None]) -> _Apart:
        """Measure each part of the footage by a detector that was fitted to the others."""
        found = {}
        for name in self.config.senses:
            distances = torch.full((len(self.kept),), torch.nan, dtype=torch.float64)
            heard = self.kept.has(HEARD) if name == "audio_features" else torch.ones(len(self.kept), dtype=torch.bool)
            on_stage(f"{SENSE_NAMES[name]}: {NUM_FOLDS} parts of the footage, each measured by the others")
            for number in range(NUM_FOLDS):
                members, measured = self._members(name, self.folds != number), heard & (self.folds == number)
                if not measured.any() or int(members.sum()) < FEWEST_CLIPS // 2:
                    continue
                relative, sense = self._fit_sense(name, members)
                vectors = self.kept.vectors[name][measured]
                distances[measured] = _measured(sense, _relative(relative, vectors, self.scenes[measured]))
            found[name] = distances.numpy()
            if np.isfinite(found[name]).sum() < FEWEST_CLIPS // 2:
                raise ValueError(
                    f"The footage is too uneven to be measured in {NUM_FOLDS} parts by {SENSE_NAMES[name]}: nearly "
                    "all of it is one recording. Give footage of several recordings."
                )
        return _Apart(found)

    def leave_out(self, apart: _Apart) -> None:
        """Leave out the share of the clips that may be anomalous: those that are least like the rest."""
        surprise = apart.surprise()
        surprise[self.kept.has(CERTAIN).numpy()] = -np.inf
        count = math.ceil(self.config.contamination * len(surprise))
        order = np.argsort(-surprise, kind="stable")[:count]
        self.kept.flags |= USED
        self.kept.flags[torch.from_numpy(order)] -= USED

    def whole(self, distances: Mapping[str, np.ndarray]) -> NormalityForAnomalyDetection:
        """The detector that is fitted to all that is used."""
        everything = torch.ones(len(self.kept), dtype=torch.bool)
        senses = {name: self._fit_sense(name, self._members(name, everything)) for name in self.config.senses}
        counted = {name: sense.num_rows for name, (_, sense) in senses.items() if sense.num_rows is not None}
        table = self.kept.table()
        settings = {"rows": counted or None, "table_size": len(table)}
        model = self.kind(type(self.config).from_dict(self.config.to_dict() | settings)).eval()
        used = self.kept.has(USED).numpy()
        for name, (relative, sense) in senses.items():
            model.body.relative[name].load_state_dict(relative.state_dict())
            model.body.senses[name].load_state_dict(sense.state_dict())
            known = distances[name][used & np.isfinite(distances[name])]
            model.tails[name].fit(known)
            with torch.no_grad():
                model.kept_vectors[name].copy_(self.kept.vectors[name])
        model.kept_video.copy_(self.kept.video)
        model.kept_times.copy_(self.kept.times)
        model.kept_flags.copy_(self.kept.flags)
        model.kept_table.copy_(table)
        return model

    def notes(self, apart: _Apart) -> list[str]:
        """What a user must know: clips that are so unlike the rest that a person should look at them."""
        excess = apart.beyond_belief()
        excess[~self.kept.has(USED).numpy() | self.kept.has(CERTAIN).numpy()] = 0
        odd = np.flatnonzero(excess > 0)
        if not len(odd):
            return []
        odd = odd[np.argsort(-excess[odd])]
        names = self.kept.column("id")
        listed = ", ".join(f"{names[i]} at {self.kept.times[i, 0].item() / 1e6:.1f} s" for i in odd[:3].tolist())
        return [
            f"{len(odd)} of {len(excess)} clips are so unlike all others that they may be anomalies ({listed}). "
            "Look at them; to leave out such clips give contamination, the share of the footage that may be anomalous."
        ]


def _relative(relative: Relative, vectors: Tensor, scenes: Tensor) -> Tensor:
    with torch.no_grad():
        return relative(vectors.unsqueeze(1), scenes).squeeze(1)


def _measured(sense: Sense, vectors: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([sense(part).double() for part in vectors.split(1024)])


def _fill_in_places(model: NormalityForAnomalyDetection, footage: NormalFootage) -> None:
    """Take what was counted of each place."""
    if "visual_features" not in model.config.senses:
        return
    for name, row in ({None: -1} | (model.config.scene_rows or {})).items():
        found = next((places for key, places in footage.places.items() if key == name or str(key) == name), None)
        if found is not None:
            for buffer, value in zip((model.place_sums, model.place_squares, model.place_counts), found, strict=True):
                buffer[row] = value


__all__ = ["FEWEST_CLIPS", "Fit", "NormalFootage", "fit_model", "fold_numbers"]
