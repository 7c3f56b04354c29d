"""Detectors compared: figures against scikit-learn, divisions, what is resumed, several processes, refusals."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from avad_hf import FeatureDataset, compare
from avad_hf.cli import app
from avad_hf.comparison import workers
from avad_hf.comparison.candidates import candidates
from avad_hf.comparison.divisions import divisions
from avad_hf.comparison.runs import Run
from avad_hf.features.store import INDEX

from .feature_stores import plant

DETECTORS = ["rtfm:inputs=both:hidden_size=8:attention_size=4:num_segments=4", "avaca:hidden_size=8"]
SETTINGS = {"settings": {"epochs": 2}, "seeds": (0, 1), "rates": (1e-3, 3e-3), "num_resamples": 100}
FILES = ("tables.md", "comparison.json", "figures.csv", "comparison.html")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("compare") / "store", num_videos=50)


@pytest.fixture(scope="module")
def compared(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare") / "out"
    return compare(store, folder, DETECTORS, num_workers=1, **SETTINGS), folder


def edited(store, target, change):
    shutil.copytree(store, target)
    rows = [json.loads(line) for line in (target / INDEX).read_text().splitlines()]
    (target / INDEX).write_text("".join(json.dumps(change(n, row)) + "\n" for n, row in enumerate(rows)))
    return target


def edited_features(store, target, factor):
    shutil.copytree(store, target)
    for path in target.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors, facts = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        tensors["visual_features"] = tensors["visual_features"] * factor
        save_file(tensors, path, facts)
    return target


def records(folder, name):
    paths = sorted((folder / "runs" / "all" / name.replace(":", "+")).glob("*.json"))
    return [json.loads(path.read_text()) for path in paths]


@pytest.mark.parametrize("name", DETECTORS)
def test_figures_equal_their_definitions(store, compared, name):
    found, folder = compared
    row = next(row for row in found.tables[0].rows if row.candidate.name == name)
    data = FeatureDataset(store)
    rows = {row["id"]: row for row in data.rows}
    expected = {}
    for seed, record in enumerate(records(folder, name)):
        tested = {row["id"] for row in FeatureDataset(store, "test", seed).rows}
        assert record["videos"].keys() == tested
        labels = [rows[name]["anomaly"] for name in record["videos"]]
        scores = [video["score"] for video in record["videos"].values()]
        alarms = np.array(scores) >= record["threshold"]
        frames, masks, hits = [], [], []
        for name_, video in record["videos"].items():
            mask = data.frame_labels(rows[name_])
            spread = np.repeat(video["clips"], 32)[: len(mask)]
            spread = np.concatenate([spread, np.full(len(mask) - len(spread), spread[-1])])
            frames.append(spread)
            masks.append(mask)
            if mask.any():
                hits.append(mask[spread == spread.max()].mean())
        values = {
            "video_auc": roc_auc_score(labels, scores),
            "average_precision": average_precision_score(labels, scores),
            "clip_auc": roc_auc_score(
                np.repeat(labels, [len(video["clips"]) for video in record["videos"].values()]),
                np.concatenate([video["clips"] for video in record["videos"].values()]),
            ),
            "frame_auc": roc_auc_score(np.concatenate(masks), np.concatenate(frames)),
            "peak_hits": np.mean(hits),
            "false_alarms": alarms[np.array(labels) == 0].mean(),
            "missed": 1 - alarms[np.array(labels) == 1].mean(),
        }
        for figure, value in values.items():
            expected.setdefault(figure, []).append(value)
    for figure, values in expected.items():
        assert row.figures[figure].estimate.value == pytest.approx(np.mean(values)), figure
        assert row.figures[figure].deviation == pytest.approx(np.std(values, ddof=1)), figure
        low, high = row.figures[figure].estimate.interval
        assert low <= np.mean(values) <= high


def test_every_detector_gets_the_same_search_and_validation_alone_chooses(compared):
    _, folder = compared
    for name in DETECTORS:
        for seed, record in enumerate(records(folder, name)):
            assert record["validation"].keys() == {"0.001", "0.003"}
            assert record["validation"][str(record["rate"])] == max(record["validation"].values())
            assert record["asked"]["division"]["seed"] == seed


def test_the_best_comes_first_and_others_are_told_from_it(compared):
    found, folder = compared
    best, other = found.tables[0].rows
    assert "video_auc" not in best.differences
    difference = other.differences["video_auc"].estimate
    assert difference.value == pytest.approx(
        other.figures["video_auc"].estimate.value - best.figures["video_auc"].estimate.value
    )
    assert difference.value <= 0 and (folder / "tables.md").read_text() == found.markdown
    assert (
        "the best" in found.markdown
        and "97.21" in found.markdown
        and "As published, not measured here" in (found.markdown)
    )
    with (folder / "figures.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["detector"] for line in lines} == set(DETECTORS)
    line = next(line for line in lines if line["detector"] == other.candidate.name and line["figure"] == "video_auc")
    assert float(line["mean"]) == pytest.approx(other.figures["video_auc"].estimate.value, abs=1e-6)
    page = (folder / "comparison.html").read_text()
    assert page.count("<img") == 2 and "http" not in page.replace("http-equiv", "")
    assert not list(folder.rglob("*.safetensors"))


def test_what_was_stopped_goes_on_to_the_same_bytes_in_several_processes(store, compared, tmp_path):
    _, folder = compared
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    for name in DETECTORS:
        (again / "runs" / "all" / name.replace(":", "+") / "seed1.json").unlink()
    (again / "tables.md").unlink()
    done = []
    compare(store, again, DETECTORS, num_workers=2, on_run=lambda *words: done.append(words), **SETTINGS)
    assert sorted(words[1:] for words in done) == [(3, 4), (4, 4)]
    for name in FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_another_comparison_in_the_folder_is_refused(store, compared):
    _, folder = compared
    other = SETTINGS | {"settings": {"epochs": 3}}
    with pytest.raises(ValueError, match=r"is of another comparison \(settings: .*2.* there, .*3.* now\)"):
        compare(store, folder, DETECTORS, **other)


def test_other_videos_with_the_same_ids_are_refused(store, compared, tmp_path):
    _, folder = compared
    other = edited(store, tmp_path / "other", lambda number, row: row | {"duration": row["duration"] + 1})
    with pytest.raises(ValueError, match=r"is of another comparison \(data: "):
        compare(other, folder, DETECTORS, **SETTINGS)


def test_a_run_that_fails_in_a_process_of_its_own_says_what_it_was(tmp_path, monkeypatch):
    in_processes = workers.run_in_processes
    monkeypatch.setattr(workers, "run_in_processes", lambda runs, number, on_run: in_processes(runs, 1, on_run))
    few = plant(tmp_path / "few", num_videos=20)
    with pytest.raises(ValueError, match=r"all videos, seed., Gaussian: The footage has .* normal clips"):
        compare(few, tmp_path / "out", ["gaussian"], num_workers=2, **SETTINGS)


def test_recordings_are_never_on_both_sides(store, tmp_path):
    grouped = edited(store, tmp_path / "grouped", lambda number, row: row | {"group": f"camera {number // 4}"})
    data = FeatureDataset(grouped)
    divided = divisions(data, (0, 1), None)
    assert [one.name for one in divided[:2]] == ["seed0-fold0", "seed0-fold1"] and len(divided) == 10
    tested = []
    for one in divided[:5]:
        parts = one.parts(str(grouped), None)
        groups = {name: {row["group"] for row in part.rows} for name, part in parts.items()}
        assert not groups["train"] & groups["test"] and not groups["validation"] & (groups["train"] | groups["test"])
        tested += [row["id"] for row in parts["test"].rows]
    assert sorted(tested) == sorted(row["id"] for row in data.rows)
    assert [one.name for one in divisions(data, (3,), 0)] == ["seed3"]
    fixed = edited(grouped, tmp_path / "fixed", lambda number, row: row | {"split": "train" if number % 2 else "test"})
    assert [one.name for one in divisions(FeatureDataset(fixed), (0,), None)] == ["seed0"]


def test_folds_of_a_seed_are_added_up(store, tmp_path, undrawn):
    grouped = edited(store, tmp_path / "grouped", lambda number, row: row | {"group": f"camera {number // 2}"})
    settings = SETTINGS | {"seeds": (0,), "rates": (), "settings": {"epochs": 1}}
    found = compare(grouped, tmp_path / "out", DETECTORS[1:], num_folds=2, num_workers=1, **settings)
    data = {row["id"]: row["anomaly"] for row in FeatureDataset(grouped).rows}
    won = pairs = 0
    for record in records(tmp_path / "out", DETECTORS[1]):
        labels = np.array([data[name] for name in record["videos"]])
        scores = np.array([video["score"] for video in record["videos"].values()])
        number = (labels == 1).sum() * (labels == 0).sum()
        won, pairs = won + number * roc_auc_score(labels, scores), pairs + number
    row = found.tables[0].rows[0]
    assert row.figures["video_auc"].estimate.value == pytest.approx(won / pairs)
    assert np.isnan(row.figures["video_auc"].deviation) and found.tables[0].num_recordings == 25
    assert "whole recordings at a time" in found.markdown and "50 test videos of 25 recordings" in found.markdown


def test_all_that_learn_from_labels_take_part_unless_some_are_named(store):
    chosen = candidates(None, FeatureDataset(store))
    assert {"avaca", "rtfm:inputs=both"} <= {one.name for one in chosen}
    assert not any(one.is_fitted for one in chosen)
    assert candidates(["rtfm:inputs=audio:dilations=[1,3]"], FeatureDataset(store))[0].options == {
        "inputs": "audio",
        "dilations": [1, 3],
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"detectors": ["rtfn"]}, "'rtfn' is no detector.*Did you mean rtfm"),
        ({"detectors": ["rtfm:input=both"]}, "'input=both' is no option of RTFM"),
        ({"detectors": ["avrl"]}, "avrl cannot be compared on .*: it learns classes, or reads videos"),
        ({"detectors": ["i3d"]}, "i3d is an encoder, and no detector"),
        ({"detectors": ["rtfm", "rtfm"]}, "Give one detector or more, each once"),
        ({"scenes": ["moon"]}, "No scene moon. Scenes: street"),
        ({"seeds": (1, 1)}, "Give one seed or more, each once"),
        ({"num_folds": 1}, "folds must be 2 or more, or 0 for splits"),
        ({"rates": (0.0,)}, "rates must be above 0, got 0.0"),
        ({"profile": "best"}, "profile must be one of published, default, few"),
        ({"num_resamples": 5}, "num_resamples must be 100 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(store, tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        compare(store, tmp_path / "out", **{"detectors": DETECTORS} | arguments)
    assert not (tmp_path / "out").exists()


def test_the_command(store, compared, tmp_path):
    _, folder = compared
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    options = ["--split-seed", "0", "--split-seed", "1", "--epochs", "2", "--learning-rates", "0.001,0.003"]
    arguments = ["compare", str(store), "-o", str(again), "--detectors", ",".join(DETECTORS), *options]
    done = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "found.json")])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "found.json").read_text())
    assert len(document["scenes"][0]["detectors"]) == 2 and document["folder"] == str(again)
    assert "video AUC minus the best" in done.output and "comparison.html" in done.output
    wrong = CliRunner().invoke(app, [*arguments[:4], "--learning-rates", "fast"])
    assert wrong.exit_code == 2 and re.search("'fast' is no list of numbers", wrong.output)
    for words, said in (
        ([*arguments[:4], "--world-seed", "1"], "--world-seed cannot be used with a store"),
        (["compare", "synthetic", "-o", str(tmp_path / "new"), "--detectors", "rtfn"], "Did you mean rtfm"),
    ):
        refused = CliRunner().invoke(app, words)
        assert refused.exit_code == 2 and said in refused.output.replace("\n", " ")
    assert not (tmp_path / "new").exists()


def test_features_are_standardised_by_the_training_videos(store, compared, tmp_path, undrawn):
    settings = SETTINGS | {"seeds": (0,), "rates": (1e-3,), "standardise": True}
    found = compare(store, tmp_path, ["gaussian", DETECTORS[1]], num_workers=1, **settings)
    assert "mean 0 and deviation 1 over training videos" in found.markdown
    assert "mean 0 and deviation 1" not in compared[0].markdown
    before, now = records(compared[1], DETECTORS[1])[0], records(tmp_path, DETECTORS[1])[0]
    assert before["videos"] != now["videos"] and now["asked"]["standardise"] is True
    # Other sizes of the channels change nothing then.
    larger = edited_features(store, tmp_path / "larger", 8.0)
    again = compare(larger, tmp_path / "again", ["gaussian", DETECTORS[1]], num_workers=1, **settings)
    one, other = (tables.tables[0].rows[0].figures["video_auc"].estimate.value for tables in (found, again))
    assert one == pytest.approx(other, abs=0.02)
    same = records(tmp_path / "again", DETECTORS[1])[0]["videos"]
    scores = [[video["score"] for video in videos.values()] for videos in (now["videos"], same)]
    np.testing.assert_allclose(*scores, atol=1e-3)
    with pytest.raises(ValueError, match="standardise: True there, False now"):
        compare(store, tmp_path, ["gaussian"], num_workers=1, **settings | {"standardise": False})


def test_a_run_is_the_same_after_its_way_to_another_process(store):
    data = FeatureDataset(store)
    run = Run("store", "out", "street", divisions(data, (4,), 3)[2], candidates(DETECTORS, data)[0], (1e-3,))
    assert Run.from_json(run.to_json()) == run
