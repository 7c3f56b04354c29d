"""Thresholds in alarms a day for whole detectors: from a store of normal features to a config, and to detecting."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification
from typer.testing import CliRunner

import avad_hf.evaluation.kept as kept_module
from avad_hf import (
    AvacaConfig,
    AvacaForAnomalyDetection,
    AvrlConfig,
    AvrlForVideoClassification,
    FeatureDataset,
    RtfmConfig,
    RtfmForAnomalyDetection,
    TrainingConfig,
    evaluate,
    fit,
)
from avad_hf.cli import app
from avad_hf.detection.events import ScoredClip, detect_events
from avad_hf.evaluation.calibrate import AlarmCalibration, calibrate, shown_threshold
from avad_hf.evaluation.kept import KeptSample, choose_clips
from avad_hf.features.store import INDEX, recipe_sha256
from avad_hf.hub.contents import check_checkpoint, checkpoint_files
from avad_hf.training.models import new_model

from .feature_stores import plant, plant_videos, recipe
from .own_detector import OwnConfig, OwnDetector

BEFORE = Path(__file__).parent / "data" / "before"
# 24 alarms a day take three hours: 9,600 clips of 1.28 s are 3.4.
RATE, FOOTAGE = 24.0, {"num_videos": 6, "clips": (1600, 1600), "shape": (6, 1, 1), "steps": 1, "frame_masks": False}


def footage(directory: Path, **options) -> Path:
    return plant(directory, **FOOTAGE | {"share": 0.0} | options)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return footage(tmp_path_factory.mktemp("normal"))


@pytest.fixture(scope="module")
def model() -> OwnDetector:
    torch.manual_seed(0)
    return OwnDetector(OwnConfig()).eval()


@pytest.fixture(scope="module")
def found(model, store) -> AlarmCalibration:
    return calibrate(model, FeatureDataset(store), alarms_per_day=RATE)


@pytest.fixture
def checkpoint(model, tmp_path) -> Path:
    """A checkpoint with a card, and a setting that this library does not know."""
    directory = tmp_path / "checkpoint"
    model.save_pretrained(directory)
    (directory / "README.md").write_text("# Own\n\n- Threshold 0.5000: not tuned.\n- Threshold words stay.\n")
    settings = json.loads((directory / "config.json").read_text()) | {"of_its_owner": [1, {"a": None}]}
    (directory / "config.json").write_text(json.dumps(settings))
    return directory


def edited(store: Path, target: Path, change) -> Path:
    """A copy of a store whose rows were changed."""
    shutil.copytree(store, target)
    rows = [json.loads(line) for line in (target / INDEX).read_text().splitlines()]
    (target / INDEX).write_text("".join(json.dumps(change(number, row)) + "\n" for number, row in enumerate(rows)))
    return target


def run(*arguments, code=0) -> str:
    done = CliRunner().invoke(app, ["calibrate", *map(str, arguments)])
    assert done.exit_code == code, done.output
    return done.output


@torch.no_grad()
def events_of(model, features, threshold) -> int:
    """Events of all videos, each scored by itself and merged as detecting does."""
    count = 0
    for item in features:
        scores = model.scores(model(item["visual_features"][None]))[0].tolist()
        clips = [ScoredClip(*times, score) for times, score in zip(item["clip_times"].tolist(), scores, strict=True)]
        count += len(detect_events(clips, threshold, None, 25, True).events)
    return count


def test_the_threshold_is_that_of_detecting(model, found, store, tmp_path):
    common = found.common
    assert events_of(model, FeatureDataset(store), common.threshold) == common.num_alarms
    assert common.hours == pytest.approx(9600 * 1.28 / 3600) and common.num_recordings == 6
    assert common.interval_95[0] < RATE < common.interval_95[1] and found.notes == [] == found.suspects
    # As much footage again, by another seed, brings as many as the interval says, and as chance adds.
    again = events_of(model, FeatureDataset(footage(tmp_path / "again", seed=1)), common.threshold)
    low, high = (rate * common.hours / 24 for rate in common.interval_95)
    assert low - 2 * math.sqrt(low) <= again <= high + 2 * math.sqrt(high)


def test_a_lower_rate_has_a_higher_threshold(model, store, found):
    assert calibrate(model, FeatureDataset(store), alarms_per_day=100).common.threshold < found.common.threshold


@pytest.mark.parametrize(
    "make",
    [
        lambda: OwnDetector(OwnConfig(neighbours=-1)),
        lambda: AvacaForAnomalyDetection(
            AvacaConfig(visual_size=6, audio_size=5, num_audio_steps=2, hidden_size=16, intermediate_size=16)
        ),
        lambda: RtfmForAnomalyDetection(
            RtfmConfig(visual_size=6, audio_size=5, hidden_size=8, attention_size=4, classifier_sizes=(8, 4))
        ),
    ],
    ids=["whole", "avaca", "rtfm"],
)
def test_every_detector_of_features(make, tmp_path):
    torch.manual_seed(0)
    store = footage(tmp_path / "normal", num_videos=3, clips=(300, 300), steps=2)
    found = calibrate(make(), FeatureDataset(store), alarms_per_day=300)
    assert 0 < found.common.threshold < 1
    assert {name: part.shape[1] for name, part in found.sample.features.items()}["visual_features"] == 6


def test_a_detector_of_videos(tmp_path):
    torch.manual_seed(0)
    store = plant_videos(tmp_path / "videos", 150, classes=("normal1", "normal2"))
    config = AvrlConfig(
        video_config={"stem_width": 4, "depths": (1, 1, 1, 1)},
        audio_config={"hidden_sizes": (4, 8, 16, 32), "intermediate_size": 8, "embedding_size": 8},
        hidden_sizes=(16, 8),
        id2label=dict(enumerate(("normal1", "normal2", "fight", "fire"))),
        normal_labels=("normal1", "normal2"),
    )
    found = calibrate(AvrlForVideoClassification(config), FeatureDataset(store), alarms_per_day=500)
    assert 0 < found.common.threshold < 1 and found.common.num_clips == 150
    assert found.sample.features == {} and len(found.sample) == 150


# What is left out, and refused


def test_anomalous_videos_are_left_out(model, store, found, tmp_path):
    def change(number, row):
        return row | ({"anomaly": 1} if number == 0 else {"anomaly": None} if number == 1 else {})

    mixed = calibrate(model, FeatureDataset(edited(store, tmp_path / "mixed", change)), alarms_per_day=40)
    assert mixed.common.num_recordings == 5
    assert re.match("1 of 6 videos are labelled as anomalous, and are left out.*split test", mixed.notes[0])
    assert mixed.notes[1] == "1 of 6 videos have no label, and are taken for normal."
    everything = edited(store, tmp_path / "all", lambda number, row: row | {"anomaly": 1})
    with pytest.raises(ValueError, match=r"All 6 videos are labelled as anomalous\. Give normal footage"):
        calibrate(model, FeatureDataset(everything))


def test_features_of_another_recipe_are_refused(store):
    other = OwnDetector(OwnConfig(recipe_sha256=recipe_sha256(recipe(versions={}) | {"size": 1})))
    with pytest.raises(ValueError, match="made by other encoders or settings"):
        calibrate(other, FeatureDataset(store), alarms_per_day=RATE)


def test_too_little_footage_is_refused_before_it_is_scored(model, store, monkeypatch):
    monkeypatch.setattr(model, "forward", None)
    with pytest.raises(ValueError, match=r"3\.413 hours of normal footage cannot promise 1 alarms a day.*ask for 22 "):
        calibrate(model, FeatureDataset(store))


def test_what_cannot_be_meant_is_refused(model, store, tmp_path):
    with pytest.raises(TypeError, match="features must be a FeatureDataset"):
        calibrate(model, [1, 2])
    with pytest.raises(TypeError, match="no anomaly detector"):
        calibrate(torch.nn.Linear(1, 1), FeatureDataset(store))
    with pytest.raises(ValueError, match="alarms_per_day must be a finite number above 0"):
        calibrate(model, FeatureDataset(store), alarms_per_day=-1)
    with pytest.raises(ValueError, match="batch_size must be 1 or more, got 0"):
        calibrate(model, FeatureDataset(store), batch_size=0)
    with pytest.raises(ValueError, match="reads features of frozen encoders"):
        calibrate(model, FeatureDataset(plant_videos(tmp_path, 4)))


def test_broken_and_constant_scores_are_refused(store):
    with torch.no_grad():
        broken = OwnDetector(OwnConfig())
        broken.score.weight.fill_(float("nan"))
        constant = OwnDetector(OwnConfig())
        constant.score.weight.fill_(0)
    with pytest.raises(ValueError, match="the model's scores are NaN"):
        calibrate(broken, FeatureDataset(store), alarms_per_day=RATE)
    with pytest.raises(ValueError, match="All 9600 scores are 0"):
        calibrate(constant, FeatureDataset(store), alarms_per_day=RATE)


def test_anomalies_among_normal_footage_are_named(store, tmp_path):
    """One clip of each of three videos stands out, and is labelled as normal."""
    torch.manual_seed(0)
    looking = OwnDetector(OwnConfig())
    with torch.no_grad():
        looking.score.weight[0, 0] = 1.0
    planted = footage(tmp_path / "planted", share=0.5, signal=15.0)
    named = edited(planted, tmp_path / "named", lambda number, row: row | {"anomaly": 0})
    found = calibrate(looking, FeatureDataset(named), alarms_per_day=RATE)
    assert [one.recording for one in found.suspects] != [] and len(found.suspects) == 3
    assert "3 events score far above all others" in found.notes[-1]
    masks = {row["id"]: row for row in FeatureDataset(planted).rows if row["anomaly"]}
    for one in found.suspects:
        assert one.recording in masks and f"{one.recording} from {one.start:.1f} to {one.end:.1f} s" in found.notes[-1]
        item = FeatureDataset(planted)[[row["id"] for row in FeatureDataset(planted).rows].index(one.recording)]
        highest = int(item["visual_features"][:, 0].mean(dim=(1, 2)).argmax())
        assert item["clip_times"][highest].tolist() == [one.start, one.end]


def test_footage_that_the_detector_was_fitted_to_is_named(tmp_path):
    normal = footage(tmp_path / "normal", num_videos=6, clips=(300, 300), audio_size=3)
    fit(normal, tmp_path / "fitted", "knn")
    fitted = AutoModelForVideoClassification.from_pretrained(tmp_path / "fitted")
    assert fitted.config.threshold != 0.5
    notes = calibrate(fitted, FeatureDataset(normal), alarms_per_day=150).notes
    assert notes[0].startswith("The detector was fitted to clips of this footage (first street/0000)")
    other = footage(tmp_path / "other", num_videos=6, clips=(300, 300), audio_size=3, seed=1)
    assert calibrate(fitted, FeatureDataset(other), alarms_per_day=150).notes == []


# Scenes


@pytest.fixture(scope="module")
def two_scenes(tmp_path_factory) -> Path:
    """Five hours of a street, and half an hour of a yard, with no scene named for one video."""

    def change(number, row):
        return row | {"scene": None if number == 5 else "yard" if number == 4 else "street"}

    whole = footage(tmp_path_factory.mktemp("whole"), clips=(2500, 2500))
    return edited(whole, tmp_path_factory.mktemp("scenes") / "store", change)


def test_a_scene_with_enough_footage_has_its_own_threshold(model, two_scenes):
    found = calibrate(model, FeatureDataset(two_scenes), alarms_per_day=RATE)
    alone = calibrate(model, FeatureDataset(two_scenes, scene="street"), alarms_per_day=RATE)
    assert alone.common is None and found.scenes == alone.scenes and [*found.scenes] == ["street"]
    assert found.common.num_recordings == 6 and found.scenes["street"].num_recordings == 4
    assert found.notes == [
        "Scene yard keeps the common threshold: it has 0.8889 of the 3 hours that one of its own takes, and 2.111 are "
        "missing."
    ]


def test_one_scene_leaves_the_others_alone(model, two_scenes, checkpoint):
    before = {
        "threshold": 0.4,
        "threshold_origin": "seen",
        "thresholds": {"yard": 0.6},
        "alarms": {"hours": 1.0, "scenes": {"yard": {"hours": 2.0}}},
    }
    settings = json.loads((checkpoint / "config.json").read_text()) | before
    (checkpoint / "config.json").write_text(json.dumps(settings))
    alone = calibrate(model, FeatureDataset(two_scenes, scene="street"), alarms_per_day=RATE)
    alone.save(checkpoint)
    after = json.loads((checkpoint / "config.json").read_text())
    street = alone.scenes["street"]
    assert after == settings | {
        "thresholds": {"yard": 0.6, "street": street.threshold},
        "alarms": {"hours": 1.0, "scenes": {"yard": {"hours": 2.0}, "street": street.to_dict()}},
    }
    assert "Threshold 0.5000: not tuned" in (checkpoint / "README.md").read_text()


def test_evaluating_takes_the_thresholds_of_scenes(tmp_path):
    data = FeatureDataset(plant(tmp_path / "store", 24, clips=(2, 4), scenes=("street", "yard")))
    torch.manual_seed(0)
    config = OwnConfig(threshold=0.5, thresholds={"yard": 0.0, "lane": 0.1})
    figures = evaluate(OwnDetector(config), data, num_resamples=0).figures
    torch.manual_seed(0)
    common = evaluate(OwnDetector(OwnConfig(threshold=0.5)), data, num_resamples=0).figures
    assert figures["scenes"]["street"] == common["scenes"]["street"]
    assert figures["scenes"]["yard"]["confusion"] == [[0, 6], [0, 6]] != common["scenes"]["yard"]["confusion"]
    street, yard = (np.array(figures["scenes"][name]["confusion"]) for name in ("street", "yard"))
    assert figures["video"]["confusion"] == (street + yard).tolist()
    assert figures["frame"]["false_alarm_rate_of_normal_videos"] > common["frame"]["false_alarm_rate_of_normal_videos"]
    assert figures["notes"] == ["Scenes with a threshold of their own are judged by that: yard (0)."]
    assert figures["threshold"] == 0.5 and common["notes"] == []
    # One that is given by hand is that of all.
    by_hand = evaluate(OwnDetector(config), data, threshold=0.5, num_resamples=0).figures
    assert by_hand["notes"] == [] and by_hand["threshold_origin"] is None


# What a checkpoint keeps


def test_a_checkpoint_keeps_its_threshold_and_where_it_comes_from(found, checkpoint):
    before = json.loads((checkpoint / "config.json").read_text())
    found.save(checkpoint)
    after = json.loads((checkpoint / "config.json").read_text())
    ours = {"threshold", "threshold_origin", "thresholds", "alarms"}
    assert {name: value for name, value in after.items() if name not in ours} == {
        name: value for name, value in before.items() if name not in ours
    }
    assert after["threshold"] == found.common.threshold and after["thresholds"] is None
    low, high = found.common.interval_95
    origin = f"24 false alarms a day (95% {low:.2g} to {high:.2g}), from 3.4 hours of normal footage in 6 recordings"
    assert after["threshold_origin"] == origin
    assert after["alarms"] == found.common.to_dict() | {"scenes": {}, "data": found.data}
    card = (checkpoint / "README.md").read_text()
    assert (
        card == f"# Own\n\n- Threshold {shown_threshold(found.common.threshold)}: {origin}.\n- Threshold words stay.\n"
    )
    loaded = AutoModelForVideoClassification.from_pretrained(checkpoint)
    assert loaded.config.threshold_of("anywhere") == found.common.threshold
    assert loaded.config.alarms["week_95"] == list(found.common.week_95)
    # A second calibration replaces the first.
    found.save(checkpoint)
    assert json.loads((checkpoint / "config.json").read_text()) == after


def test_a_config_is_never_half_written(found, checkpoint, monkeypatch):
    before = (checkpoint / "config.json").read_bytes()
    replace = kept_module.os.replace

    def failing(source, target):
        if Path(target).name == "config.json":
            raise OSError("stopped")
        replace(source, target)

    monkeypatch.setattr("avad_hf.files.os.replace", failing)
    with pytest.raises(OSError, match="stopped"):
        found.save(checkpoint)
    assert (checkpoint / "config.json").read_bytes() == before
    assert not list(checkpoint.glob("*.partial"))


def test_an_exported_network_is_calibrated(found, tmp_path):
    """Neither its own hash nor what it computes is touched."""
    shutil.copytree(BEFORE / "avaca-openvino", tmp_path / "engine")
    found.save(tmp_path / "engine")
    engine = AutoModelForVideoClassification.from_pretrained(tmp_path / "engine")
    assert engine.config.threshold == found.common.threshold and engine.config.alarms["hours"] > 3
    assert len(KeptSample.read(tmp_path / "engine")) == len(found.sample)


def test_a_folder_without_a_checkpoint_is_refused(found, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint \(config.json\)"):
        found.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_copy_is_the_checkpoint_and_nothing_else(found, checkpoint, tmp_path):
    (checkpoint / "states").mkdir()
    (checkpoint / "notes.txt").write_text("mine")
    before = (checkpoint / "config.json").read_bytes()
    found.save(tmp_path / "copy", copy_of=checkpoint)
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert names == {"README.md", "calibrated_on.safetensors", "config.json", "model.safetensors"}
    assert (checkpoint / "config.json").read_bytes() == before
    assert (
        AutoModelForVideoClassification.from_pretrained(tmp_path / "copy").config.threshold == found.common.threshold
    )
    with pytest.raises(FileExistsError, match="not an empty directory"):
        found.save(tmp_path / "copy", copy_of=checkpoint)


def test_a_checkpoint_of_the_hub_is_copied(found, checkpoint, tmp_path, monkeypatch):
    """From a snapshot of the cache, whose files are links, and which stays as it is."""
    snapshot = tmp_path / "models--user--name" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--user--name" / "blobs").mkdir()
    for path in checkpoint.iterdir():
        blob = tmp_path / "models--user--name" / "blobs" / path.name
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(blob)
    asked = []
    monkeypatch.setattr(
        "avad_hf.hub.folders.snapshot_download", lambda name, **options: asked.append(name) or str(snapshot)
    )
    found.save(tmp_path / "copy", copy_of="user/name")
    assert asked == ["user/name"] and not any(path.is_symlink() for path in (tmp_path / "copy").iterdir())
    assert (
        AutoModelForVideoClassification.from_pretrained(tmp_path / "copy").config.threshold == found.common.threshold
    )
    # In place, links are replaced: what they lead to is the cache's.
    before = (tmp_path / "models--user--name" / "blobs" / "config.json").read_bytes()
    found.save(snapshot)
    assert (tmp_path / "models--user--name" / "blobs" / "config.json").read_bytes() == before


def test_training_forgets_the_calibration_of_other_weights(found, checkpoint, tmp_path):
    found.save(checkpoint)
    settings = json.loads((checkpoint / "config.json").read_text()) | {"thresholds": {"yard": 0.5}}
    (checkpoint / "config.json").write_text(json.dumps(settings))
    data = FeatureDataset(plant(tmp_path / "store", 12))
    config = TrainingConfig(data=str(tmp_path / "store"), output_dir=str(tmp_path / "run"), model=str(checkpoint))
    model, _ = new_model(config, data)
    assert model.config.thresholds is None and model.config.alarms is None
    assert (model.config.threshold, model.config.threshold_origin) == (0.5, None)


def test_the_sample_is_part_of_a_checkpoint(found, checkpoint, tmp_path):
    found.save(checkpoint)
    assert "calibrated_on.safetensors" in checkpoint_files(checkpoint)
    (tmp_path / "elsewhere").write_bytes(b"")
    (checkpoint / "calibrated_on.safetensors").unlink()
    (checkpoint / "calibrated_on.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="a link that leads out of the folder"):
        check_checkpoint(checkpoint)


def test_the_sample_is_what_was_scored(model, found, store, checkpoint):
    found.save(checkpoint)
    sample, data = KeptSample.read(checkpoint), FeatureDataset(store)
    assert len(sample) == kept_module.MOST_KEPT == 2048
    chosen = choose_clips({row["id"]: row["num_clips"] for row in data.rows})
    place = 0
    for item, row in zip(data, data.rows, strict=True):
        numbers = chosen[row["id"]]
        part = slice(place, place + len(numbers))
        visual, audio = item["visual_features"][numbers], item["audio_features"][numbers]
        assert np.array_equal(sample.features["visual_features"][part], visual.mean(dim=(2, 3)).numpy())
        with torch.no_grad():
            scores = model.scores(model(item["visual_features"][None]))[0, numbers]
        np.testing.assert_allclose(sample.scores[part], scores.numpy(), rtol=1e-5)
        assert audio.shape[0] == len(numbers) and sample.has_audio[part].all()
        place += len(numbers)
    assert place == 2048 and set(sample.features) == {"visual_features"}
    assert sample.block.min() == 0 and sample.block.max() == 47 and (np.diff(sample.block) >= 0).all()
    assert (sample.hour == -1).all() and sample.scenes == ("street",) and (sample.scene == 0).all()
    assert sample.facts["threshold"] == found.common.threshold and sample.facts["num_clips"] == 9600


def test_the_sample_is_the_same_for_the_same_footage(model, store, found, checkpoint, tmp_path):
    found.save(checkpoint)
    first = (checkpoint / "calibrated_on.safetensors").read_bytes()
    calibrate(model, FeatureDataset(store), alarms_per_day=RATE, batch_size=2).save(checkpoint)
    assert (checkpoint / "calibrated_on.safetensors").read_bytes() == first
    counts = {f"video/{number}": 50 for number in range(40)}
    chosen = choose_clips(counts, 100)
    assert chosen == choose_clips(dict(reversed(counts.items())), 100) and sum(map(len, chosen.values())) == 100
    # More footage only drops clips, and takes new ones.
    more = choose_clips(counts | {"new": 2000}, 100)
    assert all(set(numbers) <= set(chosen[name]) for name, numbers in more.items() if name != "new")
    assert 30 < len(more["new"]) < 70


def test_the_sample_knows_scenes(model, two_scenes, checkpoint):
    calibrate(model, FeatureDataset(two_scenes), alarms_per_day=RATE).save(checkpoint)
    sample = KeptSample.read(checkpoint)
    assert sample.scenes == ("street", "yard")
    shares = [np.mean(sample.scene == number) for number in (-1, 0, 1)]
    assert shares == pytest.approx([1 / 6, 4 / 6, 1 / 6], abs=0.05)
    alone = calibrate(model, FeatureDataset(two_scenes, scene="street"), alarms_per_day=RATE)
    alone.save(checkpoint)
    sample = KeptSample.read(checkpoint)
    assert sample.scenes == ("street",) and (sample.scene == 0).all()
    assert sample.facts == alone.scenes["street"].to_dict()


def test_hours_of_day_go_on_with_the_recording(model, store, tmp_path):
    late = edited(store, tmp_path / "late", lambda number, row: row | {"hour": 23} if number else row)
    # A recording of 34 minutes that begins in the hour of 23 is of that hour; clips of three hours go on from there.
    sample = calibrate(model, FeatureDataset(late), alarms_per_day=RATE).sample
    assert set(sample.hour) == {-1, 23}
    assert kept_module.hours_of_day({"hour": 23}, [0.0, 3599.0, 3600.0, 8000.0]).tolist() == [23, 23, 0, 1]
    assert kept_module.hours_of_day({"hour": None}, [0.0]).tolist() == [-1]


def test_a_sample_that_is_damaged_or_not_there_is_refused(found, checkpoint):
    with pytest.raises(FileNotFoundError, match=r"was not calibrated\. Calibrate it first"):
        KeptSample.read(checkpoint)
    path = checkpoint / "calibrated_on.safetensors"
    for damage in (b"", b"x" * 100):
        path.write_bytes(damage)
        with pytest.raises(ValueError, match=r"calibrated_on\.safetensors is damaged"):
            KeptSample.read(checkpoint)
    odd = {"visual_features": np.zeros((3, 1), np.float32)}
    KeptSample(np.zeros(2), np.ones(2, bool), *[np.zeros(2)] * 3, features=odd).save(checkpoint)
    with pytest.raises(ValueError, match="its columns have different lengths"):
        KeptSample.read(checkpoint)


@pytest.mark.parametrize(
    ("threshold", "words"),
    [(0.5, "0.5000"), (0.12345, "0.1235"), (0.99995, "0.9999500"), (1e-6, "0.000001000"), (1.0, "1.0000")],
)
def test_thresholds_are_shown_with_the_places_that_they_need(threshold, words):
    assert shown_threshold(threshold) == words


# The command


def test_the_command_changes_the_checkpoint_and_says_what_it_found(store, checkpoint, found, tmp_path):
    said = " ".join(run(checkpoint, store, "--alarms-per-day", RATE, "--json", tmp_path / "found.json").split())
    common = found.common
    low, high = common.interval_95
    assert (
        f"Threshold: {shown_threshold(common.threshold)} gives 24 false alarms a day (95% {low:.2g} to {high:.2g}). A "
        f"week like this footage should bring {common.week_95[0]} to {common.week_95[1]} of them. It rests on 3.4 "
        f"hours of normal footage in 6 recordings, which have {common.num_alarms} events at this threshold. "
        f"Checkpoint: {checkpoint}"
    ) in said
    assert json.loads((tmp_path / "found.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert json.loads((checkpoint / "config.json").read_text())["threshold"] == common.threshold


def test_the_command_names_scenes_and_notes(two_scenes, checkpoint, tmp_path):
    said = run(checkpoint, two_scenes, "--alarms-per-day", RATE, "-o", tmp_path / "copy")
    assert "All scenes: " in said and "Scene street: " in said and "Note: Scene yard keeps the common" in said
    copied = json.loads((tmp_path / "copy" / "config.json").read_text())
    assert [*copied["thresholds"]] == [*copied["alarms"]["scenes"]] == ["street"]
    assert json.loads((checkpoint / "config.json").read_text())["threshold"] == 0.5
    said = run(tmp_path / "copy", two_scenes, "--alarms-per-day", RATE, "--scene", "street")
    assert "All scenes" not in said and "Scene street: " in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{checkpoint}", "{store}"], "3.413 hours of normal footage cannot promise 1 alarms a day"),
        (["user/name", "{store}"], "user/name is on the Hub, and cannot be changed there"),
        (["{checkpoint}", "{store}", "-o", "{checkpoint}"], "is not an empty directory"),
        (["{checkpoint}", "{store}", "--scene", "lane"], "no scene 'lane'"),
        (["{checkpoint}", "{store}", "--alarms-per-day", "0"], "alarms_per_day must be a finite number above 0"),
        (["{store}", "{store}"], "cannot be loaded"),
    ],
)
def test_the_command_refuses_with_status_2(store, checkpoint, arguments, words):
    before = (checkpoint / "config.json").read_bytes()
    said = run(*(word.format(checkpoint=checkpoint, store=store) for word in arguments), code=2)
    assert words in " ".join(said.split())
    assert (checkpoint / "config.json").read_bytes() == before
    assert not (checkpoint / "calibrated_on.safetensors").exists()
