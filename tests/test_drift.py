"""Drift: known samples, the rate of false findings, power, hours of day, advice, and bad input."""

import copy
import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from avad_hf import FeatureDataset, KnnForAnomalyDetection, fit
from avad_hf.cli import app
from avad_hf.evaluation.calibrate import calibrate
from avad_hf.evaluation.drift import drift
from avad_hf.evaluation.kept import KeptSample
from avad_hf.features.store import FACTS, INDEX, RECIPE, feature_file, json_line, write_file
from avad_hf.metrics.drift import FEWEST_BLOCKS, Side, blocks_needed, compare
from avad_hf.models.normality.kept import CERTAIN

from .feature_stores import plant_videos, recipe
from .own_detector import OwnConfig, OwnDetector

CLIP_S = 1.28
# Share of the variance of features that the clips of a recording have in common.
IN_COMMON = 0.3


def drawn(rng, num_blocks, num_clips=8, channels=6, shift=0.0, scale=1.0, in_common=IN_COMMON, hours=None) -> Side:
    """Clips of blocks that each have something in common; `hours` of the blocks."""
    block = np.repeat(np.arange(num_blocks), num_clips)
    common = np.sqrt(in_common) * rng.normal(size=(num_blocks, channels))[block]
    values = common + np.sqrt(1 - in_common) * rng.normal(size=(len(block), channels))
    hour = np.full(len(block), -1) if hours is None else np.asarray(hours)[block]
    return Side(values * scale + shift, block, hour)


def with_every_clip_a_block(side: Side) -> Side:
    return replace(side, block=np.arange(len(side.block)))


def plant(
    directory: Path,
    num_videos: int = 40,
    num_clips: int = 12,
    seed: int = 0,
    seen: tuple[float, float] = (0.0, 1.0),
    heard: tuple[float, float] = (0.0, 1.0),
    hours=None,
    by_hour: float = 0.0,
    clip_s: float = CLIP_S,
    silent: bool = False,
    width: int = 6,
    recipe_of: dict | None = None,
    **row_of,
) -> Path:
    """Write a store of recordings, each of which has something in common.

    Args:
        seen: By how much its features are moved, and how far they spread; `heard` likewise.
        hours: Hour of day of each recording.
        by_hour: By how much features of the night (before 6:00) are moved.
    """
    rng, rows = np.random.default_rng(seed), []
    for index in range(num_videos):
        hour = None if hours is None else int(hours[index])
        night = by_hour * (hour is not None and hour < 6)
        visual = drawn(rng, 1, num_clips, width, seen[0], seen[1]).values + night
        audio = drawn(rng, 1, num_clips, 5, heard[0], heard[1]).values + night
        times = np.arange(num_clips + 1) * clip_s
        row = {"id": f"{seed}/{index:04d}", "label": "normal", "anomaly": 0, "scene": "yard", "group": None}
        row |= {"split": None, "frame_mask": None, "duration": num_clips * clip_s, "fps": 25, "warnings": []}
        row |= {"num_clips": num_clips, "has_audio": not silent, "hour": hour, "file": feature_file(row["id"])}
        rows.append(row | row_of)
        tensors = {
            "visual_features": torch.from_numpy(visual).float()[:, :, None, None],
            "audio_features": torch.from_numpy(audio).float()[:, None] * (not silent),
            "clip_times": torch.from_numpy(np.stack([times[:-1], times[1:]], axis=1)),
        }
        write_file(directory / row["file"], save(tensors, {FACTS: json_line({"id": row["id"]})}))
    write_file(directory / RECIPE, json_line(recipe_of or recipe()).encode())
    write_file(directory / INDEX, "".join(json_line(row) + "\n" for row in rows).encode())
    return directory


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> KnnForAnomalyDetection:
    """Fitted to footage of all hours, of which the night is another one."""
    place = tmp_path_factory.mktemp("fitted")
    fit(plant(place / "store", 60, by_hour=2.0, hours=[index % 12 for index in range(60)]), place / "knn")
    return KnnForAnomalyDetection.from_pretrained(place / "knn").eval()


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory) -> Path:
    """A checkpoint, fitted to some recordings and calibrated on others."""
    place = tmp_path_factory.mktemp("calibrated")
    fit(plant(place / "store", 60), place / "knn")
    model = KnnForAnomalyDetection.from_pretrained(place / "knn").eval()
    other = FeatureDataset(plant(place / "other", 60, 60, seed=1))
    calibrate(model, other, alarms_per_day=80).save(place / "knn")
    return place / "knn"


def loaded(checkpoint: Path) -> KnnForAnomalyDetection:
    return KnnForAnomalyDetection.from_pretrained(checkpoint).eval()


# The numbers


def naive(values: np.ndarray, is_now: np.ndarray) -> tuple[float, float]:
    """Shift and spread of blocks of one size, from all distances one by one."""
    num_blocks = len(values)
    distances = np.array([[np.linalg.norm(a[:, None] - b, axis=-1).mean() for b in values] for a in values])
    apart = [distances[i, j] for i in range(num_blocks) for j in range(num_blocks) if i != j]
    for number in range(num_blocks):
        distances[number, number] = np.mean(apart)
    then, now = ([i for i in range(num_blocks) if is_now[i] == side] for side in (False, True))
    among_then, among_now = (np.mean([distances[i, j] for i in side for j in side]) for side in (then, now))
    ratio = 2 * np.mean([distances[i, j] for i in then for j in now]) / (among_then + among_now)
    return ratio, among_now / among_then


def test_the_numbers_are_those_of_the_definition_and_p_is_counted_over_all_ways():
    rng = np.random.default_rng(3)
    then, now = drawn(rng, 5, 4), drawn(rng, 5, 4, shift=0.6)
    found = compare(then, now)
    blocks = np.concatenate([then.values, now.values]).reshape(10, 4, -1)
    ways = [np.isin(np.arange(10), chosen) for chosen in combinations(range(10), 5)]
    numbers = np.array([naive(blocks, way) for way in ways])
    ratio, spread = naive(blocks, np.arange(10) >= 5)
    assert found.shift == pytest.approx(np.sqrt(2 * (ratio**2 - 1))) and found.spread == pytest.approx(spread)
    assert found.is_exact and found.num_permutations == len(ways) == 252
    rare = np.stack([numbers[:, 0], np.abs(np.log(numbers[:, 1]))], axis=1)
    shares = np.array([[(rare[:, k] >= row[k] - 1e-9).mean() for k in (0, 1)] for row in rare]).min(axis=1)
    of_data = next(number for number, way in enumerate(ways) if way[5:].all())
    assert found.p_value == pytest.approx((shares <= shares[of_data] + 1e-9).mean())


@pytest.mark.parametrize("channels", [1, 200])
def test_the_shift_is_in_standard_deviations(channels):
    rng = np.random.default_rng(0)
    found = compare(drawn(rng, 250, 4, channels, in_common=0), drawn(rng, 250, 4, channels, 0.5, in_common=0))
    assert found.shift == pytest.approx(0.5, abs=0.06) and found.spread == pytest.approx(1, abs=0.1)
    assert found.energy_distance > 0 and found.p_value <= 0.002


def test_clips_of_a_block_resemble_each_other_and_p_holds_nevertheless():
    """At most 8% of 200 footages of the same kind are told apart; with clips in place of blocks most of them."""
    wrong, wrong_by_clip = 0, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        # Another number of blocks, and of clips in each.
        then, now = drawn(rng, 16, 6, in_common=0.5), drawn(rng, 10, 10, in_common=0.5)
        wrong += compare(then, now, num_permutations=999).p_value < 0.05
        if seed < 50:
            clips = compare(*map(with_every_clip_a_block, (then, now)), num_permutations=199)
            wrong_by_clip += clips.p_value < 0.05
    assert wrong <= 16 and wrong_by_clip >= 40


@pytest.mark.parametrize("change", [{"shift": 0.5}, {"scale": 1.4}], ids=["mean", "spread"])
@pytest.mark.parametrize("channels", [6, 300])
def test_power(change, channels):
    found = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found.append(compare(drawn(rng, 24, channels=channels), drawn(rng, 16, channels=channels, **change)))
    assert np.mean([one.has_moved() for one in found]) >= 0.9
    if "scale" in change:
        assert np.mean([one.spread for one in found]) == pytest.approx(1.4, abs=0.1)


def test_more_of_the_night_is_no_drift_and_another_night_is():
    rng = np.random.default_rng(0)
    hours = np.arange(72) % 24
    day_and_night = drawn(rng, 72, hours=hours)
    day_and_night = replace(day_and_night, values=day_and_night.values + 2.0 * (day_and_night.hour[:, None] < 6))
    nights = drawn(rng, 24, shift=2.0, hours=np.arange(24) % 6)
    known = day_and_night.hour < 6
    found = compare(
        Side(*(part[known] for part in (day_and_night.values, day_and_night.block, day_and_night.hour))), nights
    )
    assert found.p_value > 0.2 and [one.hour for one in found.hours] == list(range(6))
    # Both of all hours, but with other numbers of them.
    mixed = drawn(rng, 48, hours=np.where(np.arange(48) < 36, np.arange(48) % 6, np.arange(48) % 24))
    mixed = replace(mixed, values=mixed.values + 2.0 * (mixed.hour[:, None] < 6))
    common = np.isin(day_and_night.hour, mixed.hour)
    then = Side(*(part[common] for part in (day_and_night.values, day_and_night.block, day_and_night.hour)))
    assert compare(then, mixed).p_value > 0.2
    unknown = [replace(side, hour=np.full(len(side.hour), -1)) for side in (then, mixed)]
    assert compare(*unknown).p_value < 0.01
    moved = replace(mixed, values=mixed.values + 0.6)
    assert compare(then, moved).p_value < 0.01


def test_too_few_blocks_have_no_p_value():
    rng = np.random.default_rng(0)
    for then, now in ((40, 1), (40, FEWEST_BLOCKS - 1), (FEWEST_BLOCKS, FEWEST_BLOCKS), (2, 40)):
        found = compare(drawn(rng, then), drawn(rng, now, shift=3), level=0.05)
        assert found.p_value is None and not found.has_moved() and found.shift > 1
    assert blocks_needed(4) == 5 and blocks_needed(40) == FEWEST_BLOCKS < blocks_needed(4, 0.01)
    assert compare(drawn(rng, 4), drawn(rng, 5, shift=3)).p_value <= 0.05


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda side: replace(side, values=side.values[:, :3]), "6 channels, clips now 3"),
        (lambda side: replace(side, values=np.full_like(side.values, np.nan)), "now have values that are NaN"),
        (lambda side: replace(side, hour=side.hour + 1), "the same hours"),
        (lambda side: replace(side, block=side.block[1:]), r"values of shape \(N, channels\), and N blocks"),
    ],
)
def test_samples_that_cannot_be_compared(change, words):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=words):
        compare(drawn(rng, 8), change(drawn(rng, 8)))


def test_equal_values_tell_nothing():
    side = drawn(np.random.default_rng(0), 8)
    with pytest.raises(ValueError, match="the same values"):
        compare(*[replace(side, values=np.ones_like(side.values))] * 2)


# Detectors


def of(model, store: Path, **options):
    return drift(model, FeatureDataset(store), **options)


def test_footage_of_the_same_kind_needs_nothing(fitted, calibrated, tmp_path):
    same = of(loaded(calibrated), plant(tmp_path / "same", 60, 60, seed=7))
    assert same.advice == "nothing" and same.compared_with == "calibration" and same.moved == []
    assert list(same.comparisons) == ["sight", "sound", "scores"] and same.level == 0.05 / 3
    # As much footage as then: of as many blocks, which are as long.
    assert {one.num_blocks for one in same.comparisons.values()} == {(48, 48)}
    assert all(one.p_value > same.level and one.shift < 0.2 for one in same.comparisons.values())
    assert not same.alarms.has_moved and same.alarms.promised == 80 and same.alarms.hours == pytest.approx(1.28)
    assert same.alarms.promised_95[0] < same.alarms.seen_per_day < same.alarms.promised_95[1]
    assert same.above == pytest.approx((same.alarms.seen / 3600,) * 2, abs=0.01)


@pytest.mark.parametrize("sense", ["sight", "sound"])
def test_one_sense_that_moves(calibrated, tmp_path, sense):
    moved = {"sight": "seen", "sound": "heard"}[sense]
    found = of(loaded(calibrated), plant(tmp_path / "moved", 60, 12, seed=7, **{moved: (0.6, 1.0)}))
    assert found.advice == "fit again" and sense in found.moved
    other = {"sight": "sound", "sound": "sight"}[sense]
    assert other not in found.moved and found.comparisons[sense].shift == pytest.approx(0.6, abs=0.2)
    assert any(one.startswith(f"{sense.capitalize()} has moved: shift") for one in found.reasons)


def test_a_sense_that_spreads_more(calibrated, tmp_path):
    found = of(loaded(calibrated), plant(tmp_path / "spread", 60, 12, seed=7, seen=(0.0, 1.5)))
    assert found.advice == "fit again" and found.comparisons["sight"].spread == pytest.approx(1.5, abs=0.1)


def test_what_it_was_fitted_to_by_hour(fitted, tmp_path):
    nights = plant(tmp_path / "nights", 40, seed=7, by_hour=2.0, hours=[index % 5 for index in range(40)])
    found = of(fitted, nights)
    assert found.advice == "nothing" and found.compared_with == "fitting" and found.moved == []
    assert list(found.comparisons) == ["sight", "sound"] and found.compared_hours == list(range(5))
    assert [one.hour for one in found.comparisons["sight"].hours] == list(range(5)) and found.new_hours == []
    assert any("Scores are not compared" in note for note in found.notes) and found.alarms is None
    # Without its hours the same footage differs: it is all of the night.
    unknown = of(fitted, plant(tmp_path / "unknown", 40, seed=7, by_hour=2.0, seen=(2.0, 1.0), heard=(2.0, 1.0)))
    assert unknown.advice == "fit again" and any("Hours of the day are not known" in one for one in unknown.notes)


def test_hours_that_it_never_saw(fitted, tmp_path):
    hours = [index % 4 + 10 for index in range(40)]
    found = of(fitted, plant(tmp_path / "some", 40, seed=7, hours=hours))
    assert found.compared_hours == [10, 11] and found.new_hours == [12, 13] and found.advice == "nothing"
    assert any("no footage of 12:00 to 14:00 then" in note for note in found.notes)
    found = of(fitted, plant(tmp_path / "none", 40, seed=7, hours=[23, 0, 22, 23] * 10, by_hour=2.0))
    assert found.compared_hours == [0] and found.new_hours == [22, 23]
    found = of(fitted, plant(tmp_path / "other", 40, seed=7, hours=[hour + 8 for hour in hours]))
    assert any("No hour of the day has footage then and now" in note for note in found.notes)
    assert found.compared_hours == [] and all(not one.hours for one in found.comparisons.values())


def own_sample(model, store: Path, **promised) -> KeptSample:
    """A sample of a store, a block a recording."""
    data = FeatureDataset(store)
    visual = torch.cat([item["visual_features"].mean((2, 3)) for item in data])
    with torch.no_grad():
        scores = model.scores(model(visual[None, :, :, None, None]))[0].numpy()
    block = np.repeat(np.arange(len(data)), [len(item["clip_times"]) for item in data])
    hours = len(block) * CLIP_S / 3600
    return KeptSample(
        scores=scores,
        has_audio=np.ones(len(block), bool),
        block=block,
        hour=np.full(len(block), -1),
        scene=np.zeros(len(block), int),
        scenes=("yard",),
        features={"visual_features": visual.numpy()},
        facts=promised | {"hours": hours},
    )


@pytest.fixture
def own() -> OwnDetector:
    model = OwnDetector(OwnConfig(threshold=0.9)).eval()
    torch.nn.init.constant_(model.score.weight, 1.0)
    return model


def test_a_detector_that_learns_from_labels(own, tmp_path):
    sample = own_sample(own, plant(tmp_path / "then", 40))
    same = of(own, plant(tmp_path / "same", 30, seed=1), sample=sample)
    assert same.advice == "nothing" and list(same.comparisons) == ["sight", "scores"]
    moved = of(own, plant(tmp_path / "moved", 30, seed=2, seen=(0.7, 1.0)), sample=sample)
    assert moved.advice == "train again" and moved.moved == ["sight", "scores"] and moved.above[1] > moved.above[0]


def test_scores_alone_that_move_ask_for_a_calibration(own, tmp_path):
    sample = own_sample(own, plant(tmp_path / "then", 40))
    # The detector is another one: its scores rise, and features are what they were.
    torch.nn.init.constant_(own.score.bias, 1.5)
    found = of(own, plant(tmp_path / "now", 30, seed=1), sample=sample)
    assert found.advice == "calibrate" and found.moved == ["scores"]
    assert any(one.startswith("Scores have moved") for one in found.reasons)


def test_alarms_alone_ask_for_a_calibration(own, tmp_path):
    promised = {"threshold": 0.9, "alarms_per_day": 1.0, "interval_95": [0.1, 3.0]}
    sample = own_sample(own, plant(tmp_path / "then", 40), **promised)
    now = plant(tmp_path / "now", 30, seed=1)
    assert of(own, now, sample=sample).alarms.has_moved  # one a day was promised, and hundreds come
    assert of(own, now, sample=sample).advice == "calibrate"
    sample.facts["threshold"] = 0.999999
    found = of(own, now, sample=sample)
    assert found.advice == "nothing" and found.threshold == 0.999999
    assert any("threshold is 0.9000, and 0.99999900 was calibrated" in note for note in found.notes)


def test_too_little_footage_has_no_advice(calibrated, tmp_path):
    model = loaded(calibrated)
    for num_videos, seen in ((1, 0.0), (1, 5.0), (3, 5.0)):
        found = of(model, plant(tmp_path / f"{num_videos}{seen}", num_videos, 12, seed=7, seen=(seen, 1.0)))
        assert found.advice == "more footage" and found.moved == []
        assert all(one.p_value is None for one in found.comparisons.values())
        assert any("for p-values of sight, sound, scores. It takes 48 stretches of" in note for note in found.notes)


def test_sound_on_one_side_is_left_out(fitted, tmp_path):
    found = of(fitted, plant(tmp_path / "silent", 40, seed=7, silent=True))
    assert list(found.comparisons) == ["sight"]
    assert any("There is sound then, and none now" in note for note in found.notes)


def test_anomalies_are_left_out(fitted, tmp_path):
    store = plant(tmp_path / "both", 40, seed=7)
    rows = [json.loads(line) for line in (store / INDEX).read_text().splitlines()]
    for row in rows[30:]:
        row["anomaly"] = 1
    (store / INDEX).write_text("".join(json_line(row) + "\n" for row in rows))
    found = of(fitted, store)
    assert found.num_videos == 30 and any("10 of 40 videos are labelled as anomalous" in one for one in found.notes)
    with pytest.raises(ValueError, match="All 4 videos are labelled as anomalous"):
        of(fitted, plant(tmp_path / "all", 4, anomaly=1))


def test_cameras_are_compared_with_themselves(tmp_path):
    store = tmp_path / "store"
    plant(store / "a", 30, seed=1, scene="yard")
    plant(store / "b", 30, seed=2, seen=(3.0, 1.0), scene="gate")
    for path in (store / "a", store / "b"):
        for file in sorted((path / "features").rglob("*.safetensors")):
            (store / file.relative_to(path)).parent.mkdir(parents=True, exist_ok=True)
            file.rename(store / file.relative_to(path))
    (store / RECIPE).write_bytes((store / "a" / RECIPE).read_bytes())
    (store / INDEX).write_text("".join((store / name / INDEX).read_text() for name in "ab"))
    fit(store, tmp_path / "knn")
    model = loaded(tmp_path / "knn")
    found = of(model, plant(tmp_path / "gate", 30, seed=3, seen=(3.0, 1.0), scene="gate"))
    assert found.advice == "nothing" and any(
        "fitted to of gate, and not with other scenes" in note for note in found.notes
    )
    found = of(model, plant(tmp_path / "hall", 30, seed=3, scene="hall"))
    assert any("was not fitted to footage of hall" in note for note in found.notes)
    # The same of a sample of a calibration, in which the second half is of the gate.
    own = OwnDetector(OwnConfig()).eval()
    sample = own_sample(own, store)
    sample = replace(sample, scene=np.repeat([0, 1], 360), scenes=("yard", "gate"))
    found = of(own, tmp_path / "gate", sample=sample)
    assert found.advice == "nothing" and found.comparisons["sight"].num_blocks == (30, 30)
    assert any("calibrated on of gate, and not with other scenes" in note for note in found.notes)
    both = of(own, tmp_path / "gate", sample=replace(sample, scene=np.zeros(720, int), scenes=("gate",)))
    assert both.advice == "train again"
    # By itself it was calibrated in longer blocks.
    own.config.alarms = {"scenes": {"gate": {"hours": 2 * sample.facts["hours"]}}}
    assert of(own, tmp_path / "gate", sample=sample).comparisons["sight"].num_blocks == (30, 8)
    found = of(model, store)
    assert any("60 videos of this footage are among those" in note for note in found.notes)


@pytest.mark.parametrize(
    ("options", "num_blocks"),
    [
        ({}, 20),
        ({"clip_s": 400.0}, 40),  # each of 80 minutes
        ({"group": "day"}, 1),  # four minutes in all
        ({"group": "day", "clip_s": 400.0}, 27),
    ],
    ids=["recordings", "long", "group", "long group"],
)
def test_blocks_are_recordings_or_hours_of_long_ones(fitted, tmp_path, options, num_blocks):
    found = of(fitted, plant(tmp_path / "now", 20, seed=7, **options))
    assert {one.num_blocks for one in found.comparisons.values()} == {(60, num_blocks)}


# Bad input


def test_what_is_refused(fitted, own, tmp_path):
    store = plant(tmp_path / "now", 12, seed=7)
    with pytest.raises(ValueError, match=r"keeps no clips of normal footage to compare with. Calibrate it first"):
        of(own, store)
    with pytest.raises(ValueError, match="made by other encoders or settings"):
        of(fitted, plant(tmp_path / "recipe", 4, recipe_of=recipe(processor={"clip_stride": 16, "size": 64})))
    with pytest.raises(ValueError, match="it reads features of frozen encoders, and the store holds frames and sound"):
        of(fitted, plant_videos(tmp_path / "videos", 4))
    with pytest.raises(ValueError, match="visual_features are not of the width 6"):
        of(fitted, plant(tmp_path / "wide", 4, width=7))
    with pytest.raises(TypeError, match="features must be a FeatureDataset"):
        drift(fitted, str(store))
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        of(fitted, store, batch_size=0)
    broken = plant(tmp_path / "nan", 4, seen=(float("nan"), 1.0))
    with pytest.raises(ValueError, match="visual_features hold NaN or infinite values"):
        of(fitted, broken)


def test_false_alarms_that_a_person_named_are_no_sample(fitted, tmp_path):
    model = copy.deepcopy(fitted)
    model.kept_flags |= CERTAIN
    with pytest.raises(ValueError, match="are false alarms that a person named"):
        of(model, plant(tmp_path / "now", 4))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"facts": {}}, "its length in hours is None"),
        ({"scores": np.full(480, np.nan)}, "it holds NaN"),
        ({"features": {"visual_features": np.full((480, 6), np.inf)}}, "it holds NaN or infinite"),
        ({"scene": np.full(480, 1)}, "clips of scenes that it does not name"),
        ({"features": {"visual_features": np.ones((480, 7))}}, "have 7 channels, those of this footage 6"),
    ],
)
def test_damaged_samples(own, tmp_path, change, words):
    sample = replace(own_sample(own, plant(tmp_path / "then", 40)), **change)
    with pytest.raises(ValueError, match=words):
        of(own, plant(tmp_path / "now", 12, seed=1), sample=sample)


def test_what_never_changes_is_left_out(own, tmp_path):
    sample = own_sample(own, plant(tmp_path / "then", 40, seen=(1.0, 0.0)))
    with pytest.raises(ValueError, match=r"Nothing of this footage can be compared.*look the same.*scores are equal"):
        of(own, plant(tmp_path / "now", 12, seed=1, seen=(1.0, 0.0)), sample=sample)


# The command


def run(*arguments, code=0) -> str:
    done = CliRunner().invoke(app, ["drift", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


def test_the_command(calibrated, tmp_path):
    hours = [index % 24 for index in range(60)]
    store = plant(tmp_path / "store", 60, seed=7, heard=(0.8, 1.0), hours=hours)
    printed = run(calibrated, store, "-o", tmp_path / "out", "--json", tmp_path / "found.json")
    assert "Advice: fit again." in printed and "Sound has moved" in printed and "avad-hf update" in printed
    written = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert written == json.loads((tmp_path / "found.json").read_text())
    assert written["moved"][0] == "sound" and written["comparisons"]["sight"]["p_value"] > written["level"]
    assert (tmp_path / "out" / "drift.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_by_hour(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "knn")
    store = plant(tmp_path / "store", 48, seed=7, by_hour=2.0, hours=[index % 16 for index in range(48)])
    printed = run(tmp_path / "knn", store, "-o", tmp_path / "out")
    assert "Advice: nothing. Nothing to do." in printed and "  03:00    5/3  sight 0." in printed
    assert (tmp_path / "out" / "drift.png").exists()


def test_the_command_refuses(own, tmp_path):
    own.save_pretrained(tmp_path / "own")
    printed = run(tmp_path / "own", plant(tmp_path / "store", 4), "-o", tmp_path / "out", code=2)
    assert "Calibrate it first" in printed and not (tmp_path / "out").exists()
