"""Every figure of an evaluation from its definition: scikit-learn, and plain loops over videos scored one by one."""

import json
import math
import re
import shutil
import warnings
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score
from typer.testing import CliRunner

from avad_hf import (
    AvacaConfig,
    AvacaForAnomalyDetection,
    AvacaModel,
    FeatureDataset,
    SlowFastConfig,
    SlowFastForVideoClassification,
    evaluate,
    evaluate_scores,
)
from avad_hf.cli import app
from avad_hf.evaluation.evaluate import Evaluation
from avad_hf.evaluation.figures import video_figures, video_result
from avad_hf.features.changes import Pooled, Scaled, Standardised
from avad_hf.features.published.dataset import read_published
from avad_hf.features.store import INDEX, recipe_sha256
from avad_hf.hub.folders import weights_hash

from .feature_stores import plant, recipe
from .published_files import XD_TEST, make_rtfm, make_xd

SMALL = {"hidden_size": 16, "intermediate_size": 16}
SHAPES = {"visual_size": 6, "audio_size": 5, "num_audio_steps": 8}
RULES = ("max", "topk_mean", "mean")
TAILS = ("extend_score_last", "truncate_gt", "pad_gt_last")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Videos of 2 to 6 clips in two scenes."""
    return plant(tmp_path_factory.mktemp("store"), 30, clips=(2, 6), scenes=("street", "yard"), signal=0.5)


@pytest.fixture(scope="module")
def model(store) -> AvacaForAnomalyDetection:
    """A detector that has begun to learn: right more often than not, and still wrong."""
    torch.manual_seed(0)
    model = AvacaForAnomalyDetection(AvacaConfig(**SHAPES, **SMALL, threshold=0.4, threshold_origin="a guess"))
    data = FeatureDataset(store, "train")
    batch = data.collate(list(data))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(10):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def edited(store, target, change) -> Path:
    """A copy of a store whose index rows were changed; rows that became ``None`` are left out."""
    shutil.copytree(store, target)
    rows = [json.loads(line) for line in (target / INDEX).read_text().splitlines()]
    rows = [row for row in map(change, rows) if row is not None]
    (target / INDEX).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return target


# Definitions, as plain as they can be


@torch.no_grad()
def scores_of(model, visual, audio, **options) -> list[float]:
    """One video through the model, alone and without mask."""
    logits = model.eval()(visual[None].float(), audio[None].float(), **options).logits[0]
    return [1 / (1 + math.exp(-logit)) for logit in logits.tolist()]


def stored_scores(model, store, rows, **options) -> list[list[float]]:
    files = [load_file(store / row["file"]) for row in rows]
    return [scores_of(model, file["visual_features"], file["audio_features"], **options) for file in files]


def of_video(scores, rule, alpha=4) -> float:
    if rule == "max":
        return max(scores)
    best = sorted(scores, reverse=True)[: max(1, len(scores) // alpha) if rule == "topk_mean" else None]
    return sum(best) / len(best)


def of_frames(scores, labels, length, stride, tail) -> tuple[list[float], list[int]]:
    end = (len(scores) - 1) * stride + length
    labels = list(labels)
    if tail == "pad_gt_last":
        labels += [labels[-1]] * (end - len(labels))
    pairs = []
    for frame, label in enumerate(labels):
        mine = [score for i, score in enumerate(scores) if i * stride <= frame < i * stride + length]
        if not mine and tail == "extend_score_last":
            mine = [scores[-1]]
        if mine:
            pairs.append((sum(mine) / len(mine), label))
    return [score for score, _ in pairs], [label for _, label in pairs]


def area(labels, scores) -> float | None:
    return float(roc_auc_score(labels, scores)) if len(set(labels)) == 2 else None


def share(hits) -> float | None:
    hits = list(hits)
    return sum(hits) / len(hits) if hits else None


def ranked(by_video, num_resamples) -> dict:
    """Figures of samples, given as labels and scores of each video."""
    labels, scores = ([x for pair in by_video for x in pair[i]] for i in (0, 1))
    precision, recall, _ = precision_recall_curve(labels, scores, drop_intermediate=False)
    rng, areas = np.random.default_rng(0), []
    for _ in range(num_resamples):
        drawn = rng.integers(len(by_video), size=len(by_video))
        areas.append(area(*([x for video in drawn for x in by_video[video][i]] for i in (0, 1))))
    return {
        "roc_auc": area(labels, scores),
        "average_precision_step": float(average_precision_score(labels, scores)),
        "average_precision_trapezoid": float(auc(recall, precision)),
        "roc_auc_interval_95": np.quantile([x for x in areas if x is not None], (0.025, 0.975)).tolist(),
    }


def equal_error(labels, scores) -> tuple[float, float]:
    """Rate, and the threshold between the last score that is called anomalous and the next one."""
    ordered = sorted(set(scores), reverse=True)
    errors = []
    for score in ordered:
        alarms = share(s >= score for s, label in zip(scores, labels, strict=True) if not label)
        misses = share(s < score for s, label in zip(scores, labels, strict=True) if label)
        errors.append((round(abs(alarms - misses), 9), (alarms + misses) / 2))
    best = errors.index(min(errors, key=lambda error: error[0]))
    return errors[best][1], (ordered[best] + ordered[best + 1]) / 2


def at_threshold(labels, scores, threshold) -> dict:
    pairs = [(label, int(score >= threshold)) for label, score in zip(labels, scores, strict=True)]
    return {
        "accuracy": share(label == called for label, called in pairs),
        "recall": share(called for label, called in pairs if label),
        "false_alarm_rate": share(called for label, called in pairs if not label),
        "confusion": [[pairs.count((label, called)) for called in (0, 1)] for label in (0, 1)],
    }


def definition(rows, clips, masks, threshold, rule, tail, num_resamples, length=32, stride=32) -> dict:
    """All figures of rows, of the scores of their clips, and of the labels of their frames."""
    labels, scores = [row["anomaly"] for row in rows], [of_video(mine, rule) for mine in clips]
    rate, at = equal_error(labels, scores)
    normal = [score for score, label in zip(scores, labels, strict=True) if not label]
    frames = [of_frames(*pair, length, stride, tail) for pair in zip(clips, masks, strict=True)]
    frames = [(mine, values) for values, mine in frames]
    lasting = [x for (_, values), label in zip(frames, labels, strict=True) if not label for x in values]
    within = [pair for pair, label in zip(frames, labels, strict=True) if label]
    single = [value for pair in frames if (value := area(*pair)) is not None]
    classes, scenes = {}, {}
    for name in {row["label"] for row in rows}:
        own = [i for i, row in enumerate(rows) if row["label"] == name]
        against = [i for i, row in enumerate(rows) if row["label"] == name or not row["anomaly"]]
        classes[name] = {
            "num_videos": len(own),
            "anomaly": name != "normal",
            "roc_auc_against_normal": area([labels[i] for i in against], [scores[i] for i in against]),
            "top1_recall": share((scores[i] >= threshold) == labels[i] for i in own),
        }
    for name in {row["scene"] for row in rows}:
        own = [i for i, row in enumerate(rows) if row["scene"] == name]
        pair = [labels[i] for i in own], [scores[i] for i in own]
        scenes[name] = {"num_videos": len(own), "num_anomalous": sum(pair[0]), "roc_auc": area(*pair)}
        scenes[name] |= at_threshold(*pair, threshold)
    return {
        "num_videos": len(rows),
        "num_normal": labels.count(0),
        "num_anomalous": labels.count(1),
        "num_clips": sum(map(len, clips)),
        "num_crops": 1,
        "video": {
            "rule": rule,
            **ranked([([label], [score]) for label, score in zip(labels, scores, strict=True)], num_resamples),
            **{f"roc_auc_{name}": area(labels, [of_video(s, name) for s in clips]) for name in RULES[:2]},
            "equal_error_rate": rate,
            "equal_error_threshold": at,
            **at_threshold(labels, scores, threshold),
            "false_alarm_rate_at_0.5": share(score >= 0.5 for score in normal),
        },
        "clip": {
            "labels": "of the video",
            **ranked([([label] * len(s), s) for label, s in zip(labels, clips, strict=True)], num_resamples),
        },
        "frame": {
            "num_frames": sum(len(values) for _, values in frames),
            "num_anomalous_frames": sum(sum(mine) for mine, _ in frames),
            "tail": tail,
            **ranked(frames, num_resamples),
            "roc_auc_within_anomalous_videos": area(*([x for pair in within for x in pair[i]] for i in (0, 1))),
            "roc_auc_mean_of_videos": sum(single) / len(single),
            "peak_hits": share(
                share(label for label, score in zip(mine, values, strict=True) if score == max(values))
                for mine, values in frames
                if 1 in mine
            ),
            "false_alarm_rate_of_normal_videos": share(score >= threshold for score in lasting),
            "false_alarm_rate_of_normal_videos_at_0.5": share(score >= 0.5 for score in lasting),
        },
        "classes": classes,
        "scenes": scenes,
        "undefined": {},
        "notes": [],
    }


def assert_same(found, expected, where="figures"):
    """Equal in structure and words, and in numbers to 1e-6, which is what batches make of float32."""
    assert type(found) is type(expected), where
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same(found[name], value, f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_same(found[index], value, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-6), where
    else:
        assert found == expected, where


def assert_explained(figures):
    """JSON without NaN that reads back as it was, in which each ``None`` has its reason."""

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(json.dumps(figures), parse_constant=refuse) == figures
    reasons = {name for names in figures["undefined"] for name in names.split(", ")}
    for part in ("video", "clip", "frame"):
        if figures[part] is None:
            assert part in reasons
        for name, value in (figures[part] or {}).items():
            if value is None or value == [None, None]:
                assert part in reasons or f"{part}.{name.removesuffix('_at_0.5')}" in reasons, (part, name)
    if any(row["roc_auc"] is None for row in figures["scenes"].values()):
        assert "scenes" in reasons
    # What others are compared with is not compared.
    if any(row["anomaly"] and row["roc_auc_against_normal"] is None for row in figures["classes"].values()):
        assert "classes" in reasons


# Figures


@pytest.mark.parametrize(
    ("rule", "tail", "stride"), [*zip(RULES, TAILS, (32, 32, 32), strict=True), (*RULES[:1], *TAILS[:1], 20)]
)
def test_every_figure_follows_its_definition(store, model, tmp_path, rule, tail, stride):
    """Videos that end within their last clip, with it, and up to one frame less than another clip later."""
    ends = iter(np.random.default_rng(1).permutation(np.arange(-12, 31)).tolist())

    def relabelled(row):
        end = (row["num_clips"] - 1) * stride + 32
        count = end + next(ends)
        begin = row["num_clips"] * 7 % 40
        mask = [int(row["anomaly"] and begin <= frame < begin + 45) for frame in range(count)]
        return row | {"frame_mask": mask, "duration": min(count, end) / 25}

    other = edited(store, tmp_path / "store", relabelled)
    made = recipe(processor={"clip_stride": stride, "size": 64})
    (other / "recipe.json").write_text(json.dumps(made))
    features = FeatureDataset(other)
    found = evaluate(model, features, threshold=0.45, video_rule=rule, tail=tail, num_resamples=20)
    clips = stored_scores(model, other, features.rows)
    masks = [row["frame_mask"] for row in features.rows]
    expected = definition(features.rows, clips, masks, 0.45, rule, tail, 20, stride=stride)
    given = {"audio_path": "focused", "threshold": 0.45, "threshold_origin": "given by hand"}
    place = {"name": "store", "hub_id": None, "revision": None, "split": None, "split_seed": None, "scene": None}
    given |= {"data": place, "weights_sha256": weights_hash(model)}
    assert_same(found.figures, expected | given)
    assert_explained(found.figures)
    # The figures say something: neither all right nor all wrong.
    assert 0.5 < found.figures["video"]["roc_auc"] < 1
    assert 0 < found.figures["video"]["recall"] < 1
    if tail == "extend_score_last":
        assert found.figures["frame"]["num_frames"] == sum(map(len, masks))

    for video, row, mine, mask in zip(found.videos, features.rows, clips, masks, strict=True):
        assert {name: video[name] for name in ("id", "label", "anomaly", "scene", "has_audio", "duration")} == {
            name: row[name] for name in ("id", "label", "anomaly", "scene", "has_audio", "duration")
        }
        assert video["score"] == pytest.approx(of_video(mine, rule), abs=1e-6)
        assert [clip["score"] for clip in video["clips"]] == pytest.approx(mine, abs=1e-6)
        times = load_file(other / row["file"])["clip_times"].tolist()
        assert [[clip["start"], clip["end"]] for clip in video["clips"]] == [pytest.approx(t, abs=1e-6) for t in times]
        stretches, frame = [], 0
        for label, run in groupby(mask):
            begin, frame = frame, frame + len(list(run))
            if label:
                stretches.append([begin / 25, frame / 25])
        assert np.array(video["anomalous_frames"]) == pytest.approx(np.array(stretches), abs=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_batches_change_nothing(store, model, batch_size):
    features, seen = FeatureDataset(store), []
    found = evaluate(model, features, batch_size=batch_size, num_resamples=0, on_progress=lambda *a: seen.append(a))
    expected = stored_scores(model, store, features.rows)
    for video, scores in zip(found.videos, expected, strict=True):
        assert [clip["score"] for clip in video["clips"]] == pytest.approx(scores, abs=1e-6)
    assert seen == [(min(done, 30), 30) for done in range(batch_size, 30 + batch_size, batch_size)]
    assert "roc_auc_interval_95" not in found.figures["video"]


def test_a_model_in_training_mode_is_evaluated_as_any_other(store, model):
    features = FeatureDataset(store, "test")
    first = evaluate(model, features, num_resamples=0)
    assert evaluate(model.train(), features, num_resamples=0).videos == first.videos
    assert not model.training


@pytest.mark.parametrize("audio_path", AvacaConfig.audio_paths)
def test_another_audio_path_is_the_models_own(store, model, audio_path):
    features = FeatureDataset(store, "test")
    found = evaluate(model, features, audio_path=audio_path, num_resamples=0)
    assert found.figures["audio_path"] == audio_path
    assert model.config.audio_path == "focused"
    expected = stored_scores(model, store, features.rows, audio_path=audio_path)
    for video, scores in zip(found.videos, expected, strict=True):
        assert [clip["score"] for clip in video["clips"]] == pytest.approx(scores, abs=1e-6)


def test_the_threshold_and_where_it_is_from(store, model):
    features = FeatureDataset(store, "test")
    for given, used, origin in (
        (None, 0.4, "a guess"),
        (0.4, 0.4, "a guess"),
        (np.float32(0.25), 0.25, "given by hand"),
    ):
        found = evaluate(model, features, threshold=given, num_resamples=0).figures
        assert (found["threshold"], found["threshold_origin"]) == (used, origin)
        assert_explained(found)
    # A score at the threshold is anomalous, in all tables alike.
    top = max(evaluate(model, features, num_resamples=0).videos, key=lambda video: video["score"])
    found = evaluate(model, features, threshold=top["score"], num_resamples=0).figures
    assert sum(row[1] for row in found["video"]["confusion"]) == 1
    assert sum(row[1] for scene in found["scenes"].values() for row in scene["confusion"]) == 1
    right = sum(row["num_videos"] * row["top1_recall"] for row in found["classes"].values())
    assert right == pytest.approx(found["num_normal"] + (1 if top["anomaly"] else -1))
    for threshold, called in ((0, 1.0), (1, 0.0)):
        found = evaluate(model, features, threshold=threshold, num_resamples=0).figures
        assert found["video"]["recall"] == found["video"]["false_alarm_rate"] == called


def test_what_weights_and_encoders_say_of_themselves_is_repeated(store, model, tmp_path):
    other = edited(store, tmp_path / "store", lambda row: row)
    (other / "recipe.json").write_text(json.dumps(recipe(notices=["Untrained video encoder", ""])))
    torch.manual_seed(0)
    untrained = AvacaForAnomalyDetection(AvacaConfig(**SHAPES, **SMALL, notice="Untrained detector"))
    found = evaluate(untrained, FeatureDataset(other), num_resamples=0).figures
    assert found["notes"] == ["Untrained detector", "Untrained video encoder"]
    assert found["threshold_origin"] is None


def test_scores_near_1_and_0_are_told_apart(store, model):
    """Single precision has no number between 1 and the sigmoid of 17."""
    sure = AvacaForAnomalyDetection(model.config)
    sure.load_state_dict(model.state_dict())
    with torch.no_grad():
        sure.classifier.weight *= 2
        sure.classifier.bias += 22
    features = FeatureDataset(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(sure, features, num_resamples=0)
        assert len({video["score"] for video in found.videos}) == 30
        assert min(clip["score"] for video in found.videos for clip in video["clips"]) > 1 - 1e-6
        clips = stored_scores(sure, store, features.rows)
        area_of_videos = area([row["anomaly"] for row in features.rows], [max(scores) for scores in clips])
        assert found.figures["video"]["roc_auc"] == pytest.approx(area_of_videos, abs=1e-9)
        with torch.no_grad():
            sure.classifier.bias -= 500
        assert evaluate(sure, features, num_resamples=0).figures["video"]["recall"] == 0


# What a video is judged by


def test_top_k_follows_the_detectors_alpha():
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    times = np.stack([np.arange(9), np.arange(9) + 1.0], axis=1)
    scored = [rng.random(9) + 0.2 * label for label in labels]
    for alpha in (1, 2, 4):
        videos = [video_result({"id": "a"}, scores, times, "topk_mean", alpha) for scores in scored]
        expected = [np.sort(scores)[-max(1, 9 // alpha) :].mean() for scores in scored]
        assert [video["score"] for video in videos] == pytest.approx(expected)
        figures = video_figures(labels, np.array(expected), videos, 0.5, "topk_mean", 0, alpha)
        assert figures["roc_auc_topk_mean"] == figures["roc_auc"] == pytest.approx(area(labels, expected))
        assert figures["roc_auc_max"] == pytest.approx(area(labels, [scores.max() for scores in scored]))
    # The default is the paper's.
    assert video_figures(labels, np.array(expected), videos, 0.5, "max", 0)["roc_auc_topk_mean"] == figures["roc_auc"]


@pytest.mark.parametrize("rule", RULES)
def test_a_clip_that_is_mostly_one_repeated_frame_decides_no_video(rule):
    rng = np.random.default_rng(1)
    labels = np.arange(20) % 2
    times = np.stack([np.arange(6), np.arange(6) + 1.0], axis=1)
    scored = [np.append(0.7 * rng.random(5) + 0.1 * label, 0.99 - 0.4 * label) for label in labels]
    decides = np.arange(6) < 5
    videos = [video_result({"id": "a"}, scores, times, rule, 2, decides) for scores in scored]
    for video, scores in zip(videos, scored, strict=True):
        assert video["score"] == pytest.approx(of_video(scores[:5].tolist(), rule, 2))
        # It is scored and marked all the same.
        assert [clip["score"] for clip in video["clips"]] == scores.tolist()
        assert [clip.get("partial") for clip in video["clips"]] == [None] * 5 + [True]
    figures = video_figures(labels, np.array([video["score"] for video in videos]), videos, 0.5, rule, 0, 2)
    for name in RULES[:2]:
        expected = area(labels, [of_video(scores[:5].tolist(), name, 2) for scores in scored])
        assert figures[f"roc_auc_{name}"] == pytest.approx(expected)
    # The only clip there is.
    lone = video_result({"id": "a"}, np.array([0.9]), times[:1], rule, 2, np.array([False]))
    assert lone["score"] == 0.9 and lone["clips"][0]["partial"] is True


# What is known of frames


def test_frames_without_labels(store, model, tmp_path):
    """All frames of a normal video are normal, also if nobody has written that down."""
    whole = evaluate(model, FeatureDataset(store), num_resamples=0)
    normal = edited(store, tmp_path / "normal", lambda row: row if row["anomaly"] else row | {"frame_mask": None})
    found = evaluate(model, FeatureDataset(normal), num_resamples=0)
    assert found.figures == whole.figures | {"data": found.figures["data"]}
    assert found.videos == whole.videos
    some = edited(store, tmp_path / "some", lambda row: row | {"frame_mask": None} if row["label"] == "bus" else row)
    found = evaluate(model, FeatureDataset(some), num_resamples=0)
    without = [video["id"] for video in found.videos if video["label"] == "bus"]
    assert found.figures["frame"] is None
    assert found.figures["undefined"] == {
        "frame": f"frames of {len(without)} of 30 videos have no labels (first {without[0]})"
    }
    assert [video["id"] for video in found.videos if video["anomalous_frames"] is None] == without
    assert_explained(found.figures)
    rest = {name: value for name, value in whole.figures.items() if name not in ("data", "frame", "undefined")}
    assert rest.items() <= found.figures.items()


@pytest.mark.parametrize("fps", [2.0, 11.0, 60.0])
def test_a_mean_rate_that_is_not_exact_harms_no_normal_video(store, model, tmp_path, fps):
    """As of a phone's recording; clips say within one clip how many frames there were."""
    change = {"frame_mask": None, "fps": fps}
    other = edited(store, tmp_path / "store", lambda row: row if row["anomaly"] else row | change)
    features = FeatureDataset(other)
    frame = evaluate(model, features, num_resamples=0).figures["frame"]
    known = sum(len(row["frame_mask"]) for row in features.rows if row["anomaly"])
    clips = sum(row["num_clips"] for row in features.rows if not row["anomaly"])
    count = {2.0: clips * 32 - 15 * 31, 60.0: clips * 32}.get(fps)
    assert count is None or frame["num_frames"] - known == count
    assert clips * 32 - 15 * 31 <= frame["num_frames"] - known <= clips * 32


def with_labels(store, target, counts) -> Path:
    """A copy of a store in which some videos, by id, have another number of frame labels, all alike."""

    def relabelled(row):
        count = counts.get(row["id"])
        return row if count is None else row | {"frame_mask": [row["anomaly"]] * count(row["num_clips"])}

    return edited(store, target, relabelled)


@pytest.mark.parametrize("tail", TAILS)
def test_labels_that_differ_by_a_clip_are_what_the_tail_rule_is_for(store, model, tmp_path, tail):
    """The last clip begins right after the last label; labels go on for a clip and more after the last clip."""
    rows = FeatureDataset(store).rows
    first, second = [row["id"] for row in rows if row["num_clips"] > 2 and row["anomaly"]][:2]
    counts = {first: lambda clips: (clips - 1) * 32, second: lambda clips: (clips + 1) * 32 + 5}
    features = FeatureDataset(with_labels(store, tmp_path / "store", counts))
    found = evaluate(model, features, tail=tail, num_resamples=0)
    assert found.figures["notes"] == [] and found.figures["undefined"] == {}
    clips = stored_scores(model, store, features.rows)
    masks = [row["frame_mask"] for row in features.rows]
    expected = definition(features.rows, clips, masks, 0.4, "max", tail, 20)["frame"]
    del expected["roc_auc_interval_95"]
    assert_same(found.figures["frame"], expected)
    (video,) = (video for video in found.videos if video["id"] == first)
    # Frames without labels last as well: the stretch ends before the video does.
    assert video["anomalous_frames"][0][1] < video["duration"]


@pytest.mark.parametrize("tail", TAILS)
def test_labels_of_another_video_end_no_evaluation(store, model, tmp_path, tail):
    rows = FeatureDataset(store).rows
    long = next(row["id"] for row in rows if not row["anomaly"])
    short = next(row["id"] for row in rows if row["num_clips"] > 2 and row["anomaly"])
    other = with_labels(store, tmp_path / "store", {short: lambda clips: (clips - 2) * 32, long: lambda clips: 900})
    found = evaluate(model, FeatureDataset(other), tail=tail, num_resamples=0)
    rest = edited(store, tmp_path / "rest", lambda row: None if row["id"] in (short, long) else row)
    expected = evaluate(model, FeatureDataset(rest), tail=tail, num_resamples=0)
    assert found.figures["frame"] == expected.figures["frame"]
    assert found.figures["undefined"] == {}
    assert_explained(found.figures)
    (note,) = found.figures["notes"]
    assert note.startswith("The figures of frames leave out 2 of 30 videos. ")
    for name, words in ((short, r"\d+ frame labels do not fit \d clips"), (long, "900 frame labels do not fit")):
        assert re.search(f"{name}: {words}", note)
    assert "Correct frame_mask and extract again" in note
    for video in found.videos:
        assert (video["anomalous_frames"] is None) is (video["id"] in (short, long))
        assert video.get("frame_labels_fit") is (False if video["id"] in (short, long) else None)
    # All other figures are of all videos.
    whole = evaluate(model, FeatureDataset(store), tail=tail, num_resamples=0).figures
    assert all(found.figures[name] == whole[name] for name in ("video", "clip", "classes", "scenes", "num_videos"))


def test_no_frame_labels_that_fit(store, model, tmp_path):
    ids = [row["id"] for row in FeatureDataset(store).rows]
    other = with_labels(store, tmp_path / "store", dict.fromkeys(ids, lambda clips: 900))
    figures = evaluate(model, FeatureDataset(other), num_resamples=0).figures
    assert figures["frame"] is None
    assert figures["undefined"] == {
        "frame": f"the frame labels of all 30 videos are those of other videos (first {ids[0]})"
    }
    (note,) = figures["notes"]
    assert "leave out 30 of 30 videos" in note and "And 27 more." in note and len(note) < 1000
    assert_explained(figures)

    def unlabelled(row):
        return row | {"frame_mask": None} if row["label"] == "bus" else row

    figures = evaluate(model, FeatureDataset(edited(other, tmp_path / "some", unlabelled)), num_resamples=0).figures
    assert re.match(r"frames of \d+ of 30 videos have no labels", figures["undefined"]["frame"])


def test_labels_of_a_recording_that_broke_off(store, model, tmp_path):
    def damaged(row):
        mask = row["frame_mask"] + [1] * 100
        return row | {"frame_mask": mask, "warnings": ["cut"]} if row["label"] == "bus" else row

    features = FeatureDataset(edited(store, tmp_path / "store", damaged))
    for tail in TAILS:
        found = evaluate(model, features, tail=tail, num_resamples=0)
        broken = [row for row in features.rows if row["warnings"]]
        assert found.figures["notes"] == [
            f"Frame labels of {len(broken)} damaged videos go on after the last clip, first {broken[0]['id']}"
        ]
        counted = sum(len(row["frame_mask"]) for row in features.rows)
        assert (found.figures["frame"]["num_frames"] == counted) is (tail == "extend_score_last")


def test_labels_that_contradict_each_other_are_refused(store, model, tmp_path):
    features = FeatureDataset(store)
    chosen = next(row["id"] for row in features.rows if not row["anomaly"])

    def contradicting(row):
        return row | {"frame_mask": [0] * 3 + [1] * 5 + row["frame_mask"][8:]} if row["id"] == chosen else row

    other = edited(store, tmp_path / "store", contradicting)
    with pytest.raises(ValueError, match=rf"{chosen} is labelled normal, but 5 of its frames are labelled anomalous"):
        evaluate(model, FeatureDataset(other), num_resamples=0)


def test_an_anomalous_video_without_anomalous_frames_is_no_normal_one(store, model, tmp_path):
    """Its label is what false alarms go by: features may end before the event, for example."""

    def quiet(row):
        return row | {"frame_mask": [0] * len(row["frame_mask"])} if row["label"] == "bus" else row

    frame = evaluate(model, FeatureDataset(edited(store, tmp_path / "store", quiet)), num_resamples=0).figures["frame"]
    whole = evaluate(model, FeatureDataset(store), num_resamples=0).figures["frame"]
    for name in ("false_alarm_rate_of_normal_videos", "false_alarm_rate_of_normal_videos_at_0.5"):
        assert frame[name] == whole[name]
    assert frame["roc_auc_within_anomalous_videos"] != whole["roc_auc_within_anomalous_videos"]


# What is not defined


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("anomaly", [0, 1])
def test_one_class_only(store, model, tmp_path, anomaly, masks):
    def chosen(row):
        return row | ({} if masks else {"frame_mask": None}) if row["anomaly"] == anomaly else None

    found = evaluate(model, FeatureDataset(edited(store, tmp_path / "store", chosen)))
    figures, only = found.figures, ("normal", "anomalous")[anomaly]
    assert_explained(figures)
    assert figures["undefined"]["video, clip, classes, scenes"] == (
        f"all 15 videos are {only}: areas under curves need both classes"
    )
    for part in ("video", "clip"):
        assert figures[part]["roc_auc"] is figures[part]["average_precision_step"] is None
        assert figures[part]["roc_auc_interval_95"] == [None, None]
    assert (figures["video"]["recall"] is None) is (anomaly == 0)
    assert (figures["video"]["false_alarm_rate"] is None) is (anomaly == 1)
    called = share(video["score"] >= 0.4 for video in found.videos)
    assert figures["video"][("false_alarm_rate", "recall")[anomaly]] == pytest.approx(called)
    assert figures["video"]["accuracy"] == pytest.approx(called if anomaly else 1 - called)
    if anomaly == 0:
        assert re.fullmatch(
            r"all \d+ frames are normal: areas under curves need both classes", figures["undefined"]["frame"]
        )
        assert figures["frame"]["false_alarm_rate_of_normal_videos"] is not None
    elif masks:
        assert figures["frame"]["roc_auc"] == figures["frame"]["roc_auc_within_anomalous_videos"]
        assert figures["undefined"]["frame.false_alarm_rate_of_normal_videos"] == "no normal videos"
    else:
        assert "frames of 15 of 15 videos have no labels" in figures["undefined"]["frame"]


@pytest.mark.parametrize("anomaly", [0, 1])
def test_a_single_video(store, model, tmp_path, anomaly):
    name = next(row["id"] for row in FeatureDataset(store).rows if row["anomaly"] == anomaly)
    one = edited(store, tmp_path / "store", lambda row: row if row["id"] == name else None)
    found = evaluate(model, FeatureDataset(one))
    assert_explained(found.figures)
    assert [video["id"] for video in found.videos] == [name]
    called = found.videos[0]["score"] >= 0.4
    assert found.figures["video"]["accuracy"] == float(called == anomaly)
    assert sum(map(sum, found.figures["video"]["confusion"])) == 1
    found.save(tmp_path / "saved")


def test_too_few_videos_for_an_interval(store, model, tmp_path):
    rows = FeatureDataset(store).rows
    pair = [next(row["id"] for row in rows if row["anomaly"] == anomaly) for anomaly in (0, 1)]
    two = edited(store, tmp_path / "store", lambda row: row if row["id"] in pair else None)
    figures = evaluate(model, FeatureDataset(two), num_resamples=1).figures
    assert figures["video"]["roc_auc"] in (0, 0.5, 1)
    assert figures["video"]["roc_auc_interval_95"] == [None, None]
    assert "too few videos" in figures["undefined"]["video.roc_auc_interval_95"]
    assert_explained(figures)


def test_scenes_that_have_no_name_or_one_class(store, model, tmp_path):
    scenes = {"street": "street", "yard": None}

    def moved(row):
        return row | {"scene": "lane" if row["anomaly"] and row["id"].endswith(("2", "5")) else scenes[row["scene"]]}

    features = FeatureDataset(edited(store, tmp_path / "store", moved))
    found = evaluate(model, features, num_resamples=0)
    assert_explained(found.figures)
    assert found.figures["undefined"] == {"scenes": "all videos of lane are normal, or all are anomalous"}
    assert list(found.figures["scenes"]) == ["not named", "lane", "street"]
    for name, table in found.figures["scenes"].items():
        own = [video for video in found.videos if (video["scene"] or "not named") == name]
        labels, scores = [v["anomaly"] for v in own], [v["score"] for v in own]
        expected = {"num_videos": len(own), "num_anomalous": sum(labels), "roc_auc": area(labels, scores)}
        assert_same(table, expected | at_threshold(labels, scores, 0.4))
    assert {video["scene"] for video in found.videos} == {None, "lane", "street"}


def test_videos_without_class_name(store, model, tmp_path):
    whole = evaluate(model, FeatureDataset(store), num_resamples=0).figures
    other = edited(store, tmp_path / "store", lambda row: row | {"label": None})
    found = evaluate(model, FeatureDataset(other), num_resamples=0)
    assert {name: row["num_videos"] for name, row in found.figures["classes"].items()} == {"anomaly": 15, "normal": 15}
    assert found.figures["classes"]["anomaly"]["roc_auc_against_normal"] == whole["video"]["roc_auc"]
    assert found.figures["classes"]["normal"] == whole["classes"]["normal"]
    assert {video["label"] for video in found.videos} == {None}


def test_a_class_that_is_normal_in_one_scene_and_an_anomaly_in_another(store, model, tmp_path):
    other = edited(store, tmp_path / "store", lambda row: row | {"label": "pedestrian"})
    whole = evaluate(model, FeatureDataset(store), num_resamples=0).figures
    found = evaluate(model, FeatureDataset(other), num_resamples=0).figures["classes"]
    assert found["pedestrian (normal)"] == whole["classes"]["normal"]
    assert found["pedestrian"] == {
        "num_videos": 15,
        "anomaly": True,
        "roc_auc_against_normal": whole["video"]["roc_auc"],
        "top1_recall": whole["video"]["recall"],
    }


# Files


def test_saved_files_are_whole_and_read_back(store, model, tmp_path):
    def refuse(constant):
        raise AssertionError(constant)

    found = evaluate(model, FeatureDataset(store, "test"))
    for _ in range(2):  # the second time over what is there
        found.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["metrics.json", "scores.jsonl"]
    text = (tmp_path / "new" / "folder" / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == found.figures
    lines = (tmp_path / "new" / "folder" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line, parse_constant=refuse) for line in lines] == found.videos

    broken = Evaluation(found.figures | {"threshold": float("nan")}, found.videos)
    with pytest.raises(ValueError, match="not JSON compliant"):
        broken.save(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / "metrics.json").read_text(encoding="utf-8") == text
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 2


# Published features


def published_scores(model, videos) -> list[list[float]]:
    """Of each video's visual arrays, one a crop, and its sound."""
    clips = []
    for crops, audio in videos:
        length = len(crops[0]) if audio is None else min(len(crops[0]), len(audio))
        sound = torch.zeros(length, 1, 128) if audio is None else torch.from_numpy(audio[:length, None])
        each = [scores_of(model, torch.from_numpy(crop[:length, :, None, None]), sound) for crop in crops]
        clips.append([sum(scores) / len(scores) for scores in zip(*each, strict=True)])
    return clips


@pytest.mark.parametrize("crop", [0, 3, "all"])
def test_xd_violence(tmp_path, crop):
    """Each crop is a row, and the scores of a clip's crops are averaged before anything is judged by them."""
    make_xd(tmp_path)
    (tmp_path / "annotations.txt").write_text("Fast Five 2__#0_label_B6-0-0 20 50 70 71\n")
    model = AvacaForAnomalyDetection(AvacaConfig(visual_size=1024, num_audio_steps=1, audio_path="plain", **SMALL))
    features = read_published("xd_violence", tmp_path, split="test", crop=crop)
    found = evaluate(model, features, num_resamples=0)
    folder = tmp_path / "i3d-features" / "RGBTest"
    arrays = [
        (
            [np.load(folder / f"{name}__{number}.npy") for number in (range(5) if crop == "all" else [crop])],
            np.load(tmp_path / "vggish-features" / "test" / f"{name}__vggish.npy"),
        )
        for name in sorted(XD_TEST)
    ]
    clips = published_scores(model, arrays)
    assert [video["id"] for video in found.videos] == sorted(XD_TEST)
    for video, scores in zip(found.videos, clips, strict=True):
        assert [clip["score"] for clip in video["clips"]] == pytest.approx(scores, abs=1e-6)
        assert video["score"] == pytest.approx(max(scores), abs=1e-6)
        assert [clip["end"] for clip in video["clips"]] == pytest.approx(
            [16 / 24 * (i + 1) for i in range(len(scores))]
        )
    figures = found.figures
    assert_explained(figures)
    assert (figures["num_videos"], figures["num_anomalous"], figures["num_clips"]) == (2, 1, 9)
    assert figures["num_crops"] == (5 if crop == "all" else 1)
    anomalous = [video["anomaly"] for video in found.videos].index(1)
    masks = [[0] * 16 * len(scores) for scores in clips]
    masks[anomalous] = [int(20 <= f < 50 or f == 70) for f in range(16 * len(clips[anomalous]))]
    expanded = [np.repeat(scores, 16) for scores in clips]
    assert figures["frame"]["num_frames"] == 9 * 16
    assert figures["frame"]["roc_auc"] == pytest.approx(
        area(np.concatenate(masks), np.concatenate(expanded)), abs=1e-6
    )
    assert figures["clip"]["roc_auc"] == pytest.approx(
        area([int(i == anomalous) for i in range(2) for _ in clips[i]], [x for scores in clips for x in scores]),
        abs=1e-6,
    )
    assert found.videos[anomalous]["anomalous_frames"] == [[0.833, 2.083], [2.917, 2.958]]
    assert figures["classes"].keys() == {"car_accident", "normal"}


def test_rtfm_without_sound_and_frame_labels(tmp_path):
    folder = make_rtfm(tmp_path / "Test", {"01_0014": 4, "01_001": 3, "02_0003": 2, "02_003": 2})
    model = AvacaForAnomalyDetection(AvacaConfig(visual_size=8, num_audio_steps=1, audio_path="plain", **SMALL))
    features = read_published("rtfm", folder, crop="all")
    found = evaluate(model, features, num_resamples=0, batch_size=7)
    names = [video["id"] for video in found.videos]
    assert sorted(names) == ["01_001", "01_0014", "02_0003", "02_003"]
    arrays = [(np.load(folder / f"{name}_i3d.npy").transpose(1, 0, 2), None) for name in names]
    for video, scores in zip(found.videos, published_scores(model, arrays), strict=True):
        assert [clip["score"] for clip in video["clips"]] == pytest.approx(scores, abs=1e-6)
        assert video["has_audio"] is False
    assert found.figures["num_crops"] == 10
    assert found.figures["frame"] is None
    assert found.figures["undefined"]["frame"].startswith("frames of 2 of 4 videos have no labels (first 0")
    assert list(found.figures["scenes"]) == ["01", "02"]
    assert_explained(found.figures)


def test_stretches_of_one_video_are_no_crops(store, model, tmp_path):
    """A manifest's column of one's own may well be called video_id."""
    other = edited(store, tmp_path / "store", lambda row: row | {"video_id": "recording"})
    found = evaluate(model, FeatureDataset(other), num_resamples=0)
    whole = evaluate(model, FeatureDataset(store), num_resamples=0).figures
    assert found.figures == whole | {"data": found.figures["data"]}
    other = edited(store, tmp_path / "crops", lambda row: row | {"video_id": "recording", "crop": 0})
    with pytest.raises(ValueError, match="recording: its crops have different numbers of clips"):
        evaluate(model, FeatureDataset(other), num_resamples=0)


# Wrong input


def test_features_that_do_not_fit_are_refused(store, model, tmp_path):
    features = FeatureDataset(store)
    own = AvacaForAnomalyDetection(AvacaConfig(**SHAPES, **SMALL, recipe_sha256=recipe_sha256(recipe())))
    evaluate(own, features, num_resamples=0)
    other = AvacaForAnomalyDetection(AvacaConfig(**SHAPES, **SMALL, recipe_sha256="0" * 64))
    with pytest.raises(
        ValueError, match="made by other encoders or settings than those that the model was trained on"
    ):
        evaluate(other, features)
    wide = AvacaForAnomalyDetection(AvacaConfig(**SHAPES | {"visual_size": 7}, **SMALL))
    with pytest.raises(ValueError, match=r"AVACA needs visual_features of shape \(B, T, 7, h, w\), got"):
        evaluate(wide, features)
    loud = AvacaForAnomalyDetection(AvacaConfig(**SHAPES | {"audio_size": 9}, **SMALL))
    with pytest.raises(ValueError, match=r"AVACA needs audio_features of shape \(16, \d, S, 9\)"):
        evaluate(loud, features)
    make_rtfm(tmp_path / "Test", {"01_0014": 4, "01_001": 3})
    with pytest.raises(ValueError, match=r"AVACA needs visual_features of shape \(B, T, 6, h, w\)"):
        evaluate(model, read_published("rtfm", tmp_path))
    sharp = AvacaForAnomalyDetection(AvacaConfig(visual_size=8, num_audio_steps=1, **SMALL))
    with pytest.raises(ValueError, match="Use audio_path 'plain' for one"):
        evaluate(sharp, read_published("rtfm", tmp_path))


def test_broken_features_are_refused_by_name(store, model, tmp_path):
    row = FeatureDataset(store).rows[3]
    for name, words in (("cut", "is missing or damaged"), ("gone", "is missing or damaged"), ("nan", "hold NaN")):
        other = edited(store, tmp_path / name, lambda row: row)
        path = other / row["file"]
        if name == "cut":
            path.write_bytes(path.read_bytes()[:200])
        elif name == "gone":
            path.unlink()
        else:
            tensors = load_file(path)
            tensors["visual_features"][0, 0] = float("nan")
            save_file(tensors, path, {"avad_hf": "{}"})
        with pytest.raises(ValueError, match=rf"({re.escape(str(path))}|{row['id']}).* {words}"):
            evaluate(model, FeatureDataset(other))


def test_scores_that_are_no_numbers_are_refused(store, model):
    broken = AvacaForAnomalyDetection(model.config)
    with torch.no_grad():
        broken.classifier.weight.fill_(float("nan"))
    first = FeatureDataset(store).rows[0]["id"]
    with pytest.raises(ValueError, match=rf"{first}: the model's scores are NaN. Its weights are damaged"):
        evaluate(broken, FeatureDataset(store))


def test_videos_without_label_are_refused(store, model, tmp_path):
    change = {"label": None, "anomaly": None, "frame_mask": None}
    other = edited(store, tmp_path / "store", lambda row: row | change if row["label"] == "bus" else row)
    with pytest.raises(ValueError, match=r"7 of 30 videos have no label, first 'yard/0001'\. Fill in the manifest's"):
        evaluate(model, FeatureDataset(other))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 1.5}, "threshold must be between 0 and 1, got 1.5"),
        ({"threshold": float("nan")}, "threshold must be between 0 and 1, got nan"),
        ({"audio_path": "loud"}, "audio_path must be one of focused, plain, zeroed, got 'loud'"),
        ({"video_rule": "median"}, "video_rule must be one of max, topk_mean, mean, got 'median'"),
        ({"tail": "drop"}, "tail must be one of extend_score_last, truncate_gt, pad_gt_last, got 'drop'"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"num_resamples": -1}, "num_resamples must be 0 or more, got -1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(store, model, settings, words):
    with pytest.raises(ValueError, match=words):
        evaluate(model, FeatureDataset(store), **settings)


def test_what_is_no_detector_and_no_feature_set(store, model):
    features = FeatureDataset(store)
    with pytest.raises(TypeError, match=r"features must be a FeatureDataset, .* got str"):
        evaluate(model, str(store))
    with pytest.raises(TypeError, match=r"features must be a FeatureDataset, .* got AvacaForAnomalyDetection"):
        evaluate(features, model)
    with pytest.raises(TypeError, match=r"features must be a FeatureDataset, .* got Subset"):
        evaluate(model, torch.utils.data.Subset(features, [0]))
    with pytest.raises(TypeError, match="model must be a detector, got str"):
        evaluate("somewhere", features)
    with pytest.raises(TypeError, match="Linear is no anomaly detector"):
        evaluate(torch.nn.Linear(1, 1), features)
    with pytest.raises(TypeError, match="AvacaModel is no anomaly detector: it gives no scores of clips"):
        evaluate(AvacaModel(model.config), features)


# The command

runner = CliRunner()


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "mine"
    model.save_pretrained(folder)
    return folder


def run(*arguments, code=0) -> str:
    result = runner.invoke(app, ["evaluate", *(str(argument) for argument in arguments)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def test_the_command_writes_figures_scores_and_a_report(store, model, checkpoint, tmp_path):
    output = run(checkpoint, store, "-o", tmp_path / "out", "--device", "cpu")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "metrics.json",
        "report.html",
        "scores.jsonl",
    ]
    found = evaluate(model, FeatureDataset(store, "test"))
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert_same(figures, found.figures)
    lines = (tmp_path / "out" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [video["id"] for video in found.videos]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"mine on {store.name}, test videos" in page
    video = found.figures["video"]
    low, high = video["roc_auc_interval_95"]
    assert f"{len(lines)} videos ({found.figures['num_anomalous']} anomalous): AUC {video['roc_auc']:.3f}" in output
    assert f"(95% {low:.3f} to {high:.3f}), average precision {video['average_precision_step']:.3f}" in output
    assert f"At threshold 0.400: recall {video['recall']:.3f}, false alarms {video['false_alarm_rate']:.3f}" in output
    assert f"frames: AUC {found.figures['frame']['roc_auc']:.3f}" in output
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in output


def test_the_options_of_the_command(store, model, checkpoint, tmp_path, undrawn):
    options = {"threshold": 0.3, "audio_path": "zeroed", "video_rule": "mean", "tail": "pad_gt_last", "batch_size": 3}
    given = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    output = run(checkpoint, store, "-o", tmp_path, "--split", "all", "--scene", "yard", *given)
    figures = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert_same(figures, evaluate(model, FeatureDataset(store, scene="yard"), **options).figures)
    assert list(figures["scenes"]) == ["yard"]
    assert "15 videos" in output and "At threshold 0.300" in output
    assert "all videos of yard" in (tmp_path / "report.html").read_text(encoding="utf-8")
    run(checkpoint, store, "-o", tmp_path, "--split", "validation", "--split-seed", 2)
    scored = [json.loads(line)["id"] for line in (tmp_path / "scores.jsonl").read_text(encoding="utf-8").splitlines()]
    assert scored == [row["id"] for row in FeatureDataset(store, "validation", 2).rows]
    assert scored != [row["id"] for row in FeatureDataset(store, "validation").rows]


def test_the_command_says_what_is_not_defined(store, checkpoint, tmp_path, undrawn):
    def normal(row):
        return None if row["anomaly"] else row

    other = edited(store, tmp_path / "store", normal)
    (other / "recipe.json").write_text(json.dumps(recipe(notices=["Untrained video encoder"])))
    output = run(checkpoint, other, "-o", tmp_path / "out", "--split", "all")
    assert "15 videos (0 anomalous): AUC not defined, average precision not defined" in output
    assert "Not defined: video, clip, classes, scenes: all 15 videos are normal" in output
    assert "Note: Untrained video encoder" in output
    assert (tmp_path / "out" / "report.html").is_file()


def test_refusals_of_the_command(store, checkpoint, tmp_path):
    def refused(*arguments):
        output = run(*arguments, code=2)
        assert "Traceback" not in output
        return output

    out = ("-o", tmp_path / "out")
    assert "recipe.json and index.jsonl missing" in refused(checkpoint, checkpoint, *out)
    assert "no such folder. Give the folder that `avad-hf extract` wrote" in refused(checkpoint, tmp_path / "no", *out)
    assert "no: no such folder. Give the folder of a checkpoint" in refused(tmp_path / "no", store, *out)
    assert "no such folder" in refused(checkpoint / "model.safetensors", store, *out)
    assert "nobody/nothing cannot be loaded: " in refused("nobody/nothing", store, *out)
    assert "nobody/nothing is not in the cache" in refused(checkpoint, "nobody/nothing", *out)
    assert f"{store} cannot be loaded: " in refused(store, store, *out)
    shutil.copytree(checkpoint, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:3000])
    assert "the weights file is cut or damaged" in refused(tmp_path / "cut", store, *out)
    assert "'foo' is not one of" in refused(checkpoint, store, *out, "--split", "foo")
    assert "has no scene 'foo'. Scenes: street, yard" in refused(checkpoint, store, *out, "--scene", "foo")
    wrong = refused(checkpoint, store, *out, "--device", "foo")
    assert "--device foo cannot be used" in wrong
    assert wrong.count("Error") == 1
    only = edited(store, tmp_path / "only", lambda row: row if row["split_0"] == "train" else None)
    assert "has no video in split test, scene any" in refused(checkpoint, only, *out)
    network = tmp_path / "slowfast"
    tiny = {"stem_width": 8, "fast_ratio": 4, "depths": (1, 1, 1, 1)}
    SlowFastForVideoClassification(SlowFastConfig(**tiny, num_labels=5)).save_pretrained(network)
    assert "SlowFastForVideoClassification is no anomaly detector" in refused(network, store, *out)
    assert not (tmp_path / "out").exists()


def test_outputs_that_are_no_folder_are_refused_before_the_work(store, checkpoint, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        assert "file is a file. Give a folder." in run(checkpoint, store, "-o", output, code=2)
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "out" / "metrics.json").mkdir(parents=True)
    assert "metrics.json" in run(checkpoint, store, "-o", tmp_path / "out", code=2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["metrics.json"]


# Doors for researchers


def test_scores_from_anywhere_get_the_same_figures(store, model):
    features = FeatureDataset(store)
    own = evaluate(model, features, num_resamples=20)
    scores = {video["id"]: [clip["score"] for clip in video["clips"]] for video in own.videos}
    given = evaluate_scores(features, scores, own.figures["threshold"], num_resamples=20)
    assert given.videos == own.videos
    assert {name for name in own.figures if given.figures[name] != own.figures[name]} <= {
        "weights_sha256",
        "audio_path",
        "threshold_origin",
    }
    assert given.figures["weights_sha256"] is None and given.figures["threshold_origin"] == "given by hand"


@pytest.mark.parametrize(
    ("change", "threshold", "words"),
    [
        (lambda scores: scores.popitem(), 0.5, "1 of \\d+ videos have no scores, first "),
        (lambda scores: scores.update({next(iter(scores)): [0.5]}), 0.5, "needs . scores within 0 and 1, one a clip"),
        (lambda scores: scores.update({k: [2.0] * len(v) for k, v in scores.items()}), 0.5, "from 2 to 2"),
        (lambda scores: None, 1.5, "threshold must be between 0 and 1, got 1.5"),
    ],
)
def test_scores_that_cannot_be_are_refused(store, change, threshold, words):
    features = FeatureDataset(store)
    scores = {row["id"]: [0.5] * row["num_clips"] for row in reversed(features.rows)}
    scores = dict(sorted(scores.items(), key=lambda item: -len(item[1])))
    change(scores)
    with pytest.raises(ValueError, match=words):
        evaluate_scores(features, scores, threshold)


def test_changed_features_are_of_another_recipe(store, model):
    features = FeatureDataset(store)
    channels, rows, columns = features.shapes["visual_features"]
    changed = features.map(Pooled((1, 1))).map(Scaled({"audio_features": 0.5})).map(lambda item: item, name="nothing")
    assert changed.shapes == features.shapes | {"visual_features": (channels, 1, 1)} and rows * columns > 1
    one, other = features[3], changed[3]
    assert torch.equal(other["audio_features"], one["audio_features"] / 2)
    torch.testing.assert_close(other["visual_features"][..., 0, 0], one["visual_features"].mean((2, 3)))
    assert changed.recipe["changes"] == ["Pooled(grid=(1, 1))", "Scaled(factors={'audio_features': 0.5})", "nothing"]
    assert recipe_sha256(changed.recipe) != recipe_sha256(features.recipe) and "changes" not in features.recipe
    model.config.recipe_sha256 = recipe_sha256(features.recipe)
    with pytest.raises(ValueError, match="made by other encoders or settings"):
        evaluate(model, changed)
    model.config.recipe_sha256 = None


def test_channels_are_standardised_by_the_videos_given(store):
    features = FeatureDataset(store)
    known = features.where(lambda row: row["has_audio"]).held()
    change = Standardised.by(known)
    changed = known.map(change)
    for name, axis in (("visual_features", 1), ("audio_features", 2)):
        parts = [changed[i][name].movedim(axis, -1).flatten(0, -2) for i in range(len(changed))]
        channels = torch.cat(parts)
        torch.testing.assert_close(channels.mean(0), torch.zeros(channels.shape[1]), atol=1e-4, rtol=0)
        before = torch.cat([known[i][name].movedim(axis, -1).flatten(0, -2) for i in range(len(known))])
        expected = (before - before.mean(0)) / before.std(0, correction=0)
        torch.testing.assert_close(channels, expected, atol=1e-3, rtol=1e-3)
    # Sound that is not there stays zero, and a channel that never changes is moved alone.
    item = {"visual_features": torch.ones(2, 3, 1, 1), "audio_features": torch.zeros(2, 4, 5)}
    silent = item | {"has_audio": torch.tensor([False])}
    flat = Standardised.by([silent])
    assert list(flat.means) == ["visual_features"] and not flat(silent)["visual_features"].any()
    assert torch.equal(flat(silent)["audio_features"], silent["audio_features"])
    # A recipe tells one from another.
    other = features.map(Standardised.by(features.where(lambda row: row["anomaly"] == 0)))
    assert changed.recipe["changes"][0].startswith("Standardised(audio_features, visual_features, sha256=")
    assert recipe_sha256(changed.recipe) != recipe_sha256(other.recipe)
    assert changed.recipe["changes"] == [repr(Standardised.by(known))]


def test_what_is_held_is_read_once_and_is_the_same(store, monkeypatch):
    features, read = FeatureDataset(store), []
    expected, held, before = features[2], features.held(), FeatureDataset._read
    monkeypatch.setattr(
        FeatureDataset, "_read", lambda self, row, *names: read.append(row) or before(self, row, *names)
    )
    for _ in range(3):
        item = held[2]
        assert item.keys() == expected.keys() and all(torch.equal(item[name], expected[name]) for name in item)
        item.clear()
    assert len(read) == 1


def test_changes_that_a_recipe_cannot_name_are_refused(store):
    with pytest.raises(ValueError, match="map needs a name for <lambda>"):
        FeatureDataset(store).map(lambda item: item)
    with pytest.raises(ValueError, match="grid must be rows and columns"):
        Pooled((0, 1))
    with pytest.raises(ValueError, match="factors are of visual_features and audio_features, got labels"):
        Scaled({"labels": 2.0})
