"""Detectors that are fitted to normal footage alone: against scikit-learn and analytic densities, and on bad input."""

import json
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from scipy import stats
from sklearn.covariance import LedoitWolf
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline
from typer.testing import CliRunner

import avad_hf
from avad_hf import (
    FeatureDataset,
    GaussianConfig,
    KnnConfig,
    MuldeConfig,
    TrainingConfig,
    evaluate,
    fit,
    train,
    update,
)
from avad_hf.cli import app
from avad_hf.evaluation.scoring import score_clips
from avad_hf.export.engines import _export
from avad_hf.models.detector import spec_of
from avad_hf.models.gaussian.modeling_gaussian import GaussianSense
from avad_hf.models.knn.modeling_knn import coreset
from avad_hf.models.mulde.modeling_mulde import MuldeSense
from avad_hf.models.normality.fitting_normality import FEWEST_CLIPS, NUM_FOLDS, fold_numbers
from avad_hf.models.normality.kept import Collector, KeptClips, clips_of_video
from avad_hf.models.normality.tails import Tail, joined
from avad_hf.training import fitting
from avad_hf.training.fitting import methods

from .feature_stores import plant

# MULDE as small as it can be for these stores.
SMALL = {"mulde": {"hidden_sizes": (32, 32), "num_levels": 4, "num_components": 2, "num_steps": 200, "batch_size": 64}}


def small(method: str, **options):
    return SMALL.get(method, {}) | options


def clips_of(data: FeatureDataset) -> tuple[np.ndarray, np.ndarray]:
    """Means over cells and steps of all clips, in float64."""
    items = list(data)
    seen = [item["visual_features"].double().mean((2, 3)) for item in items]
    heard = [item["audio_features"].double().mean(1) for item in items]
    return torch.cat(seen).numpy(), torch.cat(heard).numpy()


def standardised(normal: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    variance = normal.var(axis=0)
    return (vectors - normal.mean(axis=0)) / np.sqrt(variance + 0.01 * variance.mean())


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Normal videos; others with anomalies in both senses, in what is seen, and in what is heard."""
    place = tmp_path_factory.mktemp("stores")
    common = {"shape": (6, 2, 3), "steps": 4, "audio_size": 5, "clips": (3, 7), "signal": 6.0}
    plant(place / "normal", 60, share=0.0, seed=1, **common)
    for number, (name, senses) in enumerate(
        {"both": ("seen", "heard"), "seen": ("seen",), "heard": ("heard",)}.items()
    ):
        plant(place / name, 40, seed=2 + number, senses=senses, **common)
    return {path.name: FeatureDataset(path) for path in place.iterdir()}


@pytest.fixture(scope="module")
def fitted(stores, tmp_path_factory):
    """A fitted checkpoint of each method."""
    place = tmp_path_factory.mktemp("fitted")
    for method in methods():
        fit(stores["normal"], place / method, method, **small(method))
    return place


def loaded(folder):
    return AutoModelForVideoClassification.from_pretrained(folder).eval()


def distances(model, data: FeatureDataset) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([model(**inputs(model, item)).distances[0] for item in data]).double().numpy()


def inputs(model, item: dict) -> dict:
    names = (*model.config.senses, "has_audio")
    return {name: item[name].unsqueeze(0) for name in names}


# Against independent definitions


def test_nearest_neighbours_are_scikit_learns(stores, fitted):
    found = distances(loaded(fitted / "knn"), stores["both"])
    for index, (normal, tested) in enumerate(zip(clips_of(stores["normal"]), clips_of(stores["both"]), strict=True)):
        oracle = NearestNeighbors(n_neighbors=5).fit(standardised(normal, normal))
        expected = oracle.kneighbors(standardised(normal, tested))[0].mean(axis=1)
        np.testing.assert_allclose(found[:, index], expected, rtol=1e-5)


def test_the_gaussian_is_scikit_learns(stores, fitted):
    found = distances(loaded(fitted / "gaussian"), stores["both"])
    for index, (normal, tested) in enumerate(zip(clips_of(stores["normal"]), clips_of(stores["both"]), strict=True)):
        oracle = LedoitWolf().fit(standardised(normal, normal))
        expected = np.sqrt(oracle.mahalanobis(standardised(normal, tested)))
        np.testing.assert_allclose(found[:, index], expected, rtol=1e-5)


def test_the_gradient_of_mulde_is_that_of_an_analytic_density():
    rng = np.random.default_rng(0)
    means, deviation = np.array([[-1.5, 0.0], [1.5, 0.5]]), 0.5
    drawn = torch.from_numpy(means[rng.integers(2, size=4000)] + deviation * rng.normal(size=(4000, 2))).float()
    settings = {"hidden_sizes": (64, 64), "num_steps": 1500, "noise": (0.1, 1.0), "learning_rate": 3e-3}
    config = MuldeConfig(
        visual_size=2, inputs="visual", num_levels=4, num_components=2, regularisation=0.0, **settings
    )
    torch.manual_seed(0)
    sense = MuldeSense(config, "visual_features")
    sense.reset()
    sense.fit(drawn, torch.zeros(len(drawn), dtype=torch.bool))
    places = torch.tensor([[x, y] for x in np.linspace(-3, 3, 13) for y in np.linspace(-1.5, 2, 8)]).float()
    for noise in (0.3, 0.6, 1.0):
        variance = deviation**2 + noise**2
        at = places.clone().requires_grad_()
        logs = torch.stack([-(at - torch.tensor(mean)).square().sum(1) / (2 * variance) for mean in means])
        (expected,) = torch.autograd.grad(-torch.logsumexp(logs, dim=0).sum(), at)
        at = places.clone().requires_grad_()
        values = sense.values(at, torch.full((len(at), 1), math.log(noise)))
        (found,) = torch.autograd.grad(values.sum(), at)
        assert torch.cosine_similarity(found.flatten(), expected.flatten().float(), dim=0) > 0.98
        assert (found - expected).norm() < 0.2 * expected.norm()


def test_muldes_mixture_is_scikit_learns(stores, fitted):
    model = loaded(fitted / "mulde")
    sense = model.body.senses["visual_features"]
    normal = model.kept_vectors["visual_features"].detach().double().numpy()  # in the order in which it was fitted
    normal, tested = (
        torch.from_numpy(standardised(normal, vectors)).float() for vectors in (normal, clips_of(stores["both"])[0])
    )
    with torch.no_grad():
        values = ((sense.values_at_levels(part) - sense.value_mean) / sense.value_scale for part in (normal, tested))
        normal_values, tested_values = (part.double().numpy() for part in values)
        found = sense(tested).double().numpy()
    oracle = GaussianMixture(2, reg_covar=1e-3, random_state=0).fit(normal_values)
    np.testing.assert_allclose(found, -oracle.score_samples(tested_values), rtol=2e-3, atol=2e-3)


# How rare a distance is


@pytest.mark.parametrize(
    "distribution",
    [stats.expon(), stats.norm(5, 2), stats.t(4, 10), stats.uniform()],
    ids=["exp", "norm", "t", "flat"],
)
def test_tails_tell_how_rare_a_distance_is(distribution):
    drawn = distribution.rvs(20000, random_state=1)
    tail = Tail().fit(drawn)
    for probability, room in ((0.5, 0.05), (0.1, 0.05), (0.01, 0.15), (0.001, 0.3), (0.0001, 0.8)):
        distance = torch.tensor([distribution.isf(probability)]).float()
        found = tail(distance).item()
        assert found == pytest.approx(-math.log10(probability), abs=room)


def test_tails_rise_without_end():
    tail = Tail().fit(stats.uniform().rvs(500, random_state=0))
    surprises = tail(torch.linspace(0, 20, 2000))
    assert (surprises.diff() >= 0).all() and surprises[0] == 0 and surprises[-1] > 10
    assert surprises.isfinite().all()


def test_tails_of_distances_that_are_alike():
    tail = Tail().fit(np.r_[np.ones(80), 2.0])
    assert tail(torch.tensor([0.5, 1.0, 2.0, 50.0])).isfinite().all()


def test_two_senses_are_joined_as_independent_ones():
    rng = np.random.default_rng(0)
    surprises = -np.log10(rng.uniform(size=(200000, 2)))
    whole = joined(torch.from_numpy(surprises)).numpy()
    for level in (0.5, 1, 2, 3):
        assert (whole >= level).mean() == pytest.approx(10**-level, rel=0.15)
    # Of what is never so rare in normal footage, the logarithm stays exact.
    assert joined(torch.tensor([30.0, 0.0], dtype=torch.float64)).item() == pytest.approx(30 - math.log10(2))


def test_normal_scores_are_as_rare_as_they_say(stores, tmp_path):
    """Other normal videos of the same world reach a score that one in 100 should reach about as often."""
    model_dir = tmp_path / "model"
    fit(stores["normal"], model_dir, "gaussian")
    plant(tmp_path / "others", 400, share=0.0, seed=9, shape=(6, 2, 3), steps=4, audio_size=5, clips=(3, 7))
    scored = score_clips(loaded(model_dir), FeatureDataset(tmp_path / "others"))
    scores = np.concatenate([video["scores"] for video in scored])
    for level in (0.5, 1.0, 2.0):  # of so many clips 10 are as rare as the last one
        expected = 10**-level
        found = (scores >= level / (1 + level)).mean()
        assert expected / 2.5 < found < expected * 2.5, level


# Finding, and by which sense


@pytest.mark.parametrize("method", ["gaussian", "knn", "mulde"])
def test_anomalies_are_found_and_their_sense_is_named(stores, fitted, method):
    assert set(methods()) == {"gaussian", "knn", "mulde"}
    model = loaded(fitted / method)
    assert spec_of(model).objective == "normality"
    assert evaluate(model, stores["both"], num_resamples=0).figures["video"]["roc_auc"] > 0.95
    for name, sense in (("seen", "sight"), ("heard", "sound")):
        right = found = 0
        for item, row in zip(stores[name], stores[name].rows, strict=True):
            if not row["anomaly"]:
                continue
            with torch.no_grad():
                outputs = model(**inputs(model, item))
            best = model.scores(outputs)[0].argmax()
            if not row["frame_mask"][int(best * 32)]:
                continue
            shares = model.explain(outputs)
            torch.testing.assert_close(shares["sight"] + shares["sound"], torch.ones_like(shares["sight"]))
            found += 1
            right += shares[sense][0, best] > 0.5
        assert found >= 15 and right >= 0.9 * found, (name, found, right)


@pytest.mark.parametrize("method", ["gaussian", "knn", "mulde"])
def test_a_video_without_sound_is_judged_by_sight_alone(stores, fitted, method, tmp_path):
    model = loaded(fitted / method)
    item = stores["both"][0]
    given = inputs(model, item)
    with torch.no_grad():
        silent = model(**given | {"has_audio": torch.zeros(1, 1, dtype=torch.bool)})
        other = model(
            **given | {"has_audio": torch.zeros(1, dtype=torch.bool), "audio_features": 9 + given["audio_features"]}
        )
        heard = model(**given)
    torch.testing.assert_close(silent.logits, other.logits)
    assert not torch.equal(silent.logits, heard.logits)
    torch.testing.assert_close(silent.logits, silent.surprises[..., 0].clamp_min(1e-4).log())
    assert (model.explain(silent)["sight"] > 0.99)[silent.surprises[..., 0] > 0.1].all()
    assert "by sight alone" in model.config.silence_notice


def test_batches_and_padding_change_nothing(stores, fitted):
    model = loaded(fitted / "knn")
    items = [stores["both"][index] for index in range(4)]
    batch = FeatureDataset.collate(items)
    given = {name: batch[name] for name in ("visual_features", "audio_features", "clip_mask", "has_audio")}
    with torch.no_grad():
        together = model(**given).logits
        given["visual_features"] = given["visual_features"].masked_fill(~batch["clip_mask"][..., None, None, None], 7)
        assert torch.equal(model(**given).logits, together)
        for number, item in enumerate(items):
            alone = model(**inputs(model, item)).logits[0]
            torch.testing.assert_close(together[number, : len(alone)], alone)
            assert (together[number, len(alone) :] == torch.finfo(torch.float32).min).all()


def test_change_needs_the_clip_before(stores, tmp_path):
    fit(stores["normal"], tmp_path / "m", "knn", visual_parts=("mean", "spread", "change"))
    model = loaded(tmp_path / "m")
    assert model.config.detector_spec.context == 1
    maps = stores["normal"][0]["visual_features"].double()
    change = [(maps[number] - maps[number - 1]).abs().mean((1, 2)) for number in range(1, len(maps))]
    naive = [
        torch.cat([now.mean((1, 2)), now.flatten(1).std(1, correction=0), change[max(0, number - 1)]])
        for number, now in enumerate(maps)
    ]
    found = model.body.pooled(inputs(model, stores["normal"][0]))["visual_features"][0]
    torch.testing.assert_close(found, torch.stack(naive).float(), rtol=1e-4, atol=1e-5)
    # Of a single clip nothing changes.
    single = {name: value[:, :1] for name, value in inputs(model, stores["normal"][0]).items()}
    assert (model.body.pooled(single)["visual_features"][0, 0, 12:] == 0).all()


# What is kept


def footage(rng: np.random.Generator, count: int = 30) -> list[KeptClips]:
    parts = []
    for number in range(count):
        length = int(rng.integers(1, 9))
        times = torch.arange(length + 1).double()
        vectors = {"visual_features": torch.from_numpy(rng.normal(size=(length, 2))).float()}
        row = {"id": f"v{number}", "group": f"g{number // 3}", "scene": "yard"}
        parts.append(clips_of_video(row, torch.stack([times[:-1], times[1:]], 1), vectors, heard=True))
    return parts


def kept_of(parts: list[KeptClips], most: int) -> KeptClips:
    collector = Collector(most)
    for part in parts:
        collector.add(part)
    return collector.kept()


def test_what_is_kept_does_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    parts = footage(rng)
    first = kept_of(parts, 40)
    assert len(first) == 40 and sum(map(len, parts)) > 80
    second = kept_of([parts[number] for number in rng.permutation(len(parts))], 40)
    halves = kept_of([kept_of(parts[:11], 40), kept_of(parts[11:], 40)], 40)
    for other in (second, halves):
        assert other.videos == first.videos
        for name in ("video", "times", "flags"):
            assert torch.equal(getattr(other, name), getattr(first, name)), name
        assert torch.equal(other.vectors["visual_features"], first.vectors["visual_features"])


def test_what_is_kept_is_an_even_sample():
    parts = footage(np.random.default_rng(1), 600)
    total = sum(map(len, parts))
    shares = [sum(name < "v3" for name in kept_of(parts, most).column("id")) / most for most in (300, total)]
    assert shares[0] == pytest.approx(shares[1], abs=0.08)


def test_parts_keep_recordings_together():
    kept = kept_of(footage(np.random.default_rng(0)), 500)
    folds = fold_numbers(kept, None)
    assert set(folds) == set(range(NUM_FOLDS))
    parts = {}
    for recording, number in zip(kept.recordings, folds, strict=True):
        assert parts.setdefault(recording, number) == number


def test_a_coreset_is_near_to_everything():
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(200, 3))).float()
    chosen = coreset(vectors, 20, seed=0)
    assert len(set(chosen)) == 20
    reach = torch.cdist(vectors, vectors[chosen]).min(1).values.max()
    # No set of 20 that is drawn reaches everything from nearer, and each step takes the farthest (Gonzalez, 1985).
    drawn = torch.stack([vectors[torch.randperm(200)[:20]] for _ in range(50)])
    assert reach < min(torch.cdist(vectors, one).min(1).values.max() for one in drawn)
    apart = min((vectors[a] - vectors[b]).norm() for a, b in combinations(chosen, 2))
    assert apart >= reach - 1e-6
    assert coreset(vectors, 20, seed=0, first=[7, 9])[:0] == [] and {7, 9} <= set(coreset(vectors, 20, 0, [7, 9]))
    assert coreset(torch.zeros(30, 2), 5, 0) and len(set(coreset(torch.zeros(30, 2), 5, 0))) == 5


def test_the_memory_is_bounded(stores, tmp_path):
    result = fit(stores["normal"], tmp_path / "m", "knn", most_kept=100, memory_size=30)
    model = loaded(tmp_path / "m")
    assert result.num_kept == 100 < result.num_clips and len(model.kept_clips()) == 100
    assert model.body.senses["visual_features"].memory.shape == (30, 6)
    memory = model.body.senses["audio_features"].memory
    kept = model.body.relative["audio_features"](model.kept_vectors["audio_features"].unsqueeze(1))
    assert all((row - kept.squeeze(1)).abs().sum(1).min() == 0 for row in memory)


# Updating


@pytest.mark.parametrize("method", ["gaussian", "knn", "mulde"])
@pytest.mark.parametrize("most_kept", [100, 8192])
def test_updating_equals_fitting_to_both(stores, method, most_kept, tmp_path):
    if method == "mulde" and most_kept == 100:
        return  # it takes longer, and the sample is the same for all
    options = small(method, most_kept=most_kept)
    if method == "mulde":
        options["num_steps"] = 5
    data = stores["normal"]
    is_old = {row["id"]: number % 2 for number, row in enumerate(data.rows)}
    fit(data, tmp_path / "both", method, **options)
    fit(data.where(lambda row: is_old[row["id"]]), tmp_path / "old", method, **options)
    result = update(tmp_path / "old", data.where(lambda row: not is_old[row["id"]]), tmp_path / "new")
    assert result.num_videos == 30
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "both" / name).read_bytes(), name


def test_false_alarms_are_forgotten_no_more(stores, fitted, tmp_path):
    before = loaded(fitted / "knn")
    row = next(row for row in stores["both"].rows if row["anomaly"])
    index = stores["both"].rows.index(row)
    with torch.no_grad():
        scores = before.scores(before(**inputs(before, stores["both"][index])))[0]
    best = int(scores.argmax())
    event = {"start": best * 1.28 + 0.1, "end": best * 1.28 + 1.0, "score": scores[best].item()}
    alarms = {f"footage/{row['id']}.mp4": {"events": [event]}, "quiet.mp4": {"events": []}}
    (tmp_path / "alarms.json").write_text(json.dumps(alarms))
    one = stores["both"].where(lambda other: other["id"] == row["id"])
    result = update(fitted / "knn", one, tmp_path / "new", normal=tmp_path / "alarms.json")
    assert result.num_clips == 1
    after = loaded(tmp_path / "new")
    with torch.no_grad():
        now = after.scores(after(**inputs(after, stores["both"][index])))[0]
    assert now[best] < scores[best] - 0.05
    kept = after.kept_clips()
    assert kept.has(2).sum() == 1 and kept.column("id")[int(kept.has(2).nonzero()[0, 0])] == row["id"]
    # They stay whatever else comes.
    fit(stores["normal"], tmp_path / "few", "knn", most_kept=60)
    update(tmp_path / "few", one, tmp_path / "few1", normal=alarms)
    update(tmp_path / "few1", stores["normal"], tmp_path / "few2")
    assert loaded(tmp_path / "few2").kept_clips().has(2).sum() == 1


def test_events_that_are_no_false_alarms_are_refused(stores, fitted, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    for given, words in (
        (tmp_path / "bad.json", "is no JSON"),
        ({"nowhere.mp4": {"events": [{"start": 0, "end": 1}]}}, "nowhere.mp4, which is not in"),
        ({"street/0000": {"events": [{"start": "x", "end": 1}]}}, "has no start and end"),
        ({"street/0000": {}}, "has no events"),
        ({"street/0000": {"events": []}}, "normal has no events"),
    ):
        with pytest.raises(ValueError, match=words):
            update(fitted / "knn", stores["normal"], tmp_path / "new", normal=given)


# Footage that is not all normal, and cameras


def test_contamination_is_left_out(tmp_path):
    common = {"shape": (6, 2, 3), "steps": 4, "audio_size": 5, "signal": 3.0, "clips": (4, 4)}
    plant(tmp_path / "mixed", 80, share=0.2, seed=3, **common)
    mixed = FeatureDataset(tmp_path / "mixed")
    anomalous = {row["id"] for row in mixed.rows if row["anomaly"]}
    for row in mixed.rows:
        row["anomaly"] = None
    figures = {}
    plant(tmp_path / "test", 100, seed=4, **common)
    for share in (0.0, 0.05):
        fit(mixed, tmp_path / f"m{share}", "knn", contamination=share)
        model = loaded(tmp_path / f"m{share}")
        figures[share] = evaluate(model, FeatureDataset(tmp_path / "test"), num_resamples=0).figures["frame"][
            "roc_auc"
        ]
    kept = model.kept_clips()
    left_out = [name for name, used in zip(kept.column("id"), kept.has(4).tolist(), strict=True) if not used]
    assert len(left_out) == math.ceil(0.05 * len(kept))
    assert sum(name in anomalous for name in left_out) >= 0.7 * len(left_out)
    assert figures[0.05] > figures[0.0] + 0.005


def test_clips_unlike_all_others_are_named(stores, tmp_path):
    data = stores["normal"]
    plant(tmp_path / "odd", 60, share=0.02, seed=1, shape=(6, 2, 3), steps=4, audio_size=5, clips=(3, 7), signal=40.0)
    odd = FeatureDataset(tmp_path / "odd")
    row, _ = [row for row in odd.rows if row["anomaly"]]
    start = row["frame_mask"].index(1) / row["fps"]
    for other in odd.rows:
        other["anomaly"] = 0
    notes = fit(odd, tmp_path / "m", "gaussian").notes
    assert any("2 of" in note and f"{row['id']} at {start:.1f} s" in note for note in notes), notes
    assert fit(data, tmp_path / "n", "gaussian").notes == []


def test_cameras_have_means_of_their_own(tmp_path):
    plant(tmp_path / "two", 60, share=0.0, shape=(6, 2, 3), scenes=("gate", "yard"), audio_size=5, clips=(4, 6))
    data = FeatureDataset(tmp_path / "two")
    original = data._load

    def load(row):
        item = original(row)
        item["visual_features"] += 20.0 * (row["scene"] == "yard")
        return item

    data._load = load
    fit(data, tmp_path / "by", "gaussian", by="scene")
    model = loaded(tmp_path / "by")
    assert model.config.scene_rows == {"gate": 0, "yard": 1}
    scores = np.array([item["scores"].max() for item in score_clips(model, data)])
    assert scores.max() < 0.9
    item = data[0]
    with torch.no_grad():
        right, wrong, unknown = (
            model.scores(model(**inputs(model, item), scene=name)).max()
            for name in (data.rows[0]["scene"], "yard" if data.rows[0]["scene"] == "gate" else "gate", "nowhere")
        )
    assert right < unknown < wrong and wrong > 0.9
    with pytest.raises(ValueError, match="the means of 2 cameras, and an exported network"):
        next(model.networks_to_export(None, []))
    with pytest.raises(ValueError, match="one name a video, 1, got 2"):
        model(**inputs(model, item), scene=["gate", "yard"])


# Reasons


def test_places_that_are_unlike_normal_ones_are_hot(stores, fitted):
    model = loaded(fitted / "gaussian")
    item = stores["normal"][0]
    maps = torch.cat([item["visual_features"].double() for item in stores["normal"]])
    mean, variance = model.place_statistics(-1)
    torch.testing.assert_close(mean, maps.mean(0).float(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(variance, maps.var(0, correction=0).float(), atol=1e-3, rtol=1e-3)
    given = inputs(model, item)
    given["visual_features"] = given["visual_features"].clone()
    given["visual_features"][0, 1, :, 1, 2] += 4.0
    heat = model.heat(given, 1)
    assert heat.shape == (2, 3) and heat.argmax() == 5 and heat[1, 2] > 3 * model.heat(given, 0).max()
    expected = (given["visual_features"][0, 1] - mean).square().mean(0) / variance.mean()
    torch.testing.assert_close(heat, expected)


def test_nearest_normal_clips(stores, fitted):
    model = loaded(fitted / "knn")
    row = stores["normal"].rows[5]
    item = stores["normal"][5]
    nearest = model.nearest_normal(inputs(model, item), 2, count=2)
    assert [one["distance"] for one in nearest] == sorted(one["distance"] for one in nearest)
    assert nearest[0]["id"] == row["id"] and nearest[0]["distance"] == 0
    assert [nearest[0]["start"], nearest[0]["end"]] == item["clip_times"][2].tolist()
    assert nearest[1]["distance"] > 0 and nearest[0]["sense"] in ("sight", "sound")


# Bad input


def test_footage_that_cannot_be_fitted(stores, tmp_path):
    normal = stores["normal"]
    with pytest.raises(
        ValueError, match=f"has [23][0-9] normal clips, and a detector of normality needs {FEWEST_CLIPS}"
    ):
        few = {row["id"] for row in normal.rows[:5]}
        fit(normal.where(lambda row: row["id"] in few), tmp_path / "m")
    for value, words in ((0.0, "the features of all clips are the same"), (float("nan"), "hold NaN or infinite")):
        broken = normal.where(lambda row: True)
        broken._load = lambda row, value=value: {
            name: torch.full_like(tensor, value) if name == "visual_features" else tensor
            for name, tensor in normal._load(row).items()
        }
        with pytest.raises(ValueError, match=words):
            fit(broken, tmp_path / "m")
    anomalous = stores["both"].where(lambda row: row["anomaly"] == 1)
    with pytest.raises(ValueError, match=r"All 20 videos of .* are labelled as anomalous"):
        fit(anomalous, tmp_path / "m")
    with pytest.raises(ValueError, match=r"method must be one of gaussian, knn, mulde, got 'svm'"):
        fit(normal, tmp_path / "m", "svm")
    with pytest.raises(ValueError, match=r"contamination must be a share of the footage from 0 to 0.5, got 0.7"):
        fit(normal, tmp_path / "m", contamination=0.7)
    with pytest.raises(ValueError, match=r"KNN has no option num_neighbour. Did you mean num_neighbours?"):
        fit(normal, tmp_path / "m", num_neighbour=3)
    assert not (tmp_path / "m").exists()
    silent = normal.where(lambda row: True)
    silent.rows = [row | {"has_audio": False} for row in silent.rows]
    with pytest.raises(ValueError, match="Only 0 clips of the footage have sound"):
        fit(silent, tmp_path / "m", inputs="audio")


def test_videos_that_are_labelled_as_anomalous_are_left_out(stores, tmp_path):
    result = fit(stores["both"], tmp_path / "m", "gaussian")
    assert result.left_out == 20 and "20 videos that are labelled as anomalous were left out." in result.notes
    ids = {row["id"] for row in stores["both"].rows if not row["anomaly"]}
    assert set(loaded(tmp_path / "m").kept_clips().column("id")) == ids
    # Of the folder of a store that has some, only what is for training.
    result = fit(stores["both"].directory, tmp_path / "n", "gaussian", most_kept=50)
    trained = {row["id"] for row in FeatureDataset(stores["both"].directory, "train").rows if not row["anomaly"]}
    assert result.num_videos == len(trained) < 20
    assert set(loaded(tmp_path / "n").kept_clips().column("id")) <= trained


def test_detectors_refuse_what_they_were_not_fitted_to(stores, fitted, tmp_path):
    model = loaded(fitted / "knn")
    item = inputs(model, stores["normal"][0])
    with pytest.raises(ValueError, match=r"needs visual_features of shape \(B, T, 6, h, w\), got \(1, \d, 5, 2, 3\)"):
        model(**item | {"visual_features": item["visual_features"][:, :, :5]})
    with pytest.raises(ValueError, match=r"needs audio_features of shape .* got None"):
        model(visual_features=item["visual_features"])
    with pytest.raises(ValueError, match="visual_features holds NaN or infinite values"):
        model(**item | {"visual_features": item["visual_features"] / 0})
    with pytest.raises(ValueError, match="as many videos and clips"):
        model(**item | {"audio_features": item["audio_features"][:, :1]})
    plant(tmp_path / "other", 20, shape=(6, 2, 3), audio_size=5, recipe_of={"processor": {"clip_stride": 9}})
    with pytest.raises(ValueError, match="made by other encoders or settings"):
        update(fitted / "knn", tmp_path / "other", tmp_path / "new")
    with pytest.raises(StrictDataclassClassValidationError, match="needs at least one part, each once"):
        KnnConfig(visual_parts=())
    with pytest.raises(StrictDataclassClassValidationError, match="must number the scenes from 0"):
        KnnConfig(scene_rows={"a": 1})
    with pytest.raises(StrictDataclassClassValidationError, match="rows must be within 1 and 1048576, got 0"):
        KnnConfig(rows={"visual_features": 0})


def test_training_them_is_refused(stores, tmp_path):
    config = TrainingConfig(str(stores["both"].directory), str(tmp_path / "m"), architecture="gaussian")
    with pytest.raises(ValueError, match="Gaussian is not trained: it is fitted to normal footage"):
        train(config)
    assert not (tmp_path / "m" / "model.safetensors").exists()


def test_a_damaged_table_of_videos_is_told(stores, fitted):
    model = loaded(fitted / "knn")
    model.kept_table[0] = 0
    with pytest.raises(ValueError, match="table of normal videos is damaged"):
        model.kept_clips()


# The rest of the library


@pytest.mark.parametrize("method", ["gaussian", "knn", "mulde"])
def test_exported_detectors_give_the_same_scores(stores, fitted, method, tmp_path):
    model = loaded(fitted / method)

    class Encoders:
        feature_grid, num_pictures = (2, 3), 4

        def networks_to_export(self, batches):
            yield from ()

    (network,) = model.networks_to_export(Encoders(), [])
    _export(network, tmp_path, "onnx", "float32")
    import onnxruntime

    session = onnxruntime.InferenceSession(next(tmp_path.glob("*.onnx")))
    batch = FeatureDataset.collate([stores["both"][index] for index in range(3)])
    batch["has_audio"] = torch.tensor([True, False, True])  # as processors and stores have it
    given = {name: batch[name] for name in network.sample}
    with torch.no_grad():
        expected = model(**given)
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(None, {name: value.numpy() for name, value in given.items()}), strict=True))
    np.testing.assert_allclose(found["logits"], expected.logits.numpy(), rtol=1e-3, atol=2e-3)


def test_a_fitted_detector_reads_videos(drawn, tmp_path, monkeypatch):
    """From drawn videos to an event that is mostly heard or seen, by the encoders of the demonstration."""
    demo = avad_hf.detection.pipeline.DEMO_MODEL
    # Few clips, though they overlap.
    monkeypatch.setattr("avad_hf.models.normality.fitting_normality.FEWEST_CLIPS", 10)
    processor = AutoProcessor.from_pretrained(demo, clip_stride=16)
    processor.save_pretrained(tmp_path / "dense")
    videos = drawn(24, 13, first=6)
    rows = [row for row in videos if not row["anomaly"]]
    avad_hf.extract_features(rows, processor, tmp_path / "store")
    result = fit(tmp_path / "store", tmp_path / "model", processor=tmp_path / "dense")
    assert result.num_videos == len(rows) and result.hours > 0
    assert "Fitted to normal footage alone, by sight and sound" in (tmp_path / "model" / "README.md").read_text()
    detect = pipeline("audio-visual-anomaly", model=str(tmp_path / "model"))
    for row in videos[1:3]:  # a normal one and another
        found = detect(row["video"])
        assert {"sight", "sound"} <= found["clips"][0]["why"].keys()
    assert found["threshold"] == 0.75


@pytest.mark.parametrize("count", [8, 30, 400])
def test_few_and_many_clips_have_scikit_learns_distances(count):
    vectors = np.random.default_rng(count).normal(size=(count, 30)) @ np.random.default_rng(1).normal(size=(30, 30))
    sense = GaussianSense(GaussianConfig(visual_size=30, inputs="visual"), "visual_features")
    sense.fit(torch.from_numpy(vectors), torch.zeros(count, dtype=torch.bool))
    tested = 3 * np.random.default_rng(2).normal(size=(50, 30))
    with torch.no_grad():
        found = sense(torch.from_numpy(tested).float()).numpy()
    np.testing.assert_allclose(found, np.sqrt(LedoitWolf().fit(vectors).mahalanobis(tested)), rtol=1e-5)


@pytest.mark.parametrize(
    ("path", "ids", "named"),
    [
        ("/nvr/cam2/0001.mp4", ["cam1/0001.mp4", "cam2/0001.mp4"], ["cam2/0001.mp4"]),
        ("cam1/0001", ["cam1/0001", "cam2/0001"], ["cam1/0001"]),
        ("0001.mp4", ["cam1/0001.mp4", "cam2/0001.mp4"], ["cam1/0001.mp4", "cam2/0001.mp4"]),
        ("yard/1 May 10.00.mp4", ["1 May 10.00", "1 May 11.00"], ["1 May 10.00"]),
        ("cam1/0002.mp4", ["cam1/0001.mp4"], []),
    ],
)
def test_videos_of_one_name_are_told_apart_by_their_folders(path, ids, named):
    assert fitting._videos_named(path, ids) == named


def test_false_alarms_of_who_knows_which_video_are_refused(stores, fitted, tmp_path):
    data, event = stores["normal"], {"start": 0.0, "end": 1.0}
    first = data.rows[0]["id"]
    for alarms, words in (
        ({first: {"events": [event]}, f"b/{first}.mp4": {"events": [event]}}, "it cannot be told whether that is"),
        ({first: {"events": [{"start": 900.0, "end": 901.0}]}}, "has no clip within its false alarms"),
    ):
        with pytest.raises(ValueError, match=words):
            update(fitted / "knn", data, tmp_path / "new", normal=alarms)
    assert not (tmp_path / "new").exists()


def test_the_card_of_an_update_and_a_fit_by_cameras_that_nobody_names(stores, fitted, tmp_path):
    result = update(fitted / "knn", stores["normal"], tmp_path / "new")
    assert "hours, were added to what it knew before." in (tmp_path / "new" / "README.md").read_text()
    assert "before" not in (fitted / "knn" / "README.md").read_text() and not result.notes
    assert fit(stores["normal"], tmp_path / "by", by="group").notes == [
        "No video names its group, so that all footage has one mean."
    ]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("visual_size=9", "visual_size cannot be set: fitting takes it from the footage"),
        ("num_kept=7", "num_kept cannot be set"),
        ("visual_parts=[]", "visual_parts needs at least one part"),
        ("seed=-1", "seed must be 0 or more"),
    ],
)
def test_the_command_says_which_option_is_wrong(stores, tmp_path, option, words):
    store = stores["normal"].directory
    done = CliRunner().invoke(app, ["fit", str(store), "-o", str(tmp_path / "new"), "--set", option])
    assert done.exit_code == 2 and words in " ".join(done.output.split()) and isinstance(done.exception, SystemExit)
    assert not (tmp_path / "new").exists()


def test_a_threshold_that_was_set_is_not_called_one_in_1000(stores, tmp_path):
    fit(stores["normal"], tmp_path / "new", threshold=0.9)
    config = loaded(tmp_path / "new").config
    assert config.threshold == 0.9 and config.threshold_origin.startswith("set by hand")


def test_a_camera_of_one_recording_is_known_to_all_parts():
    """Else all of it would be far from the mean of the others, and nothing would ever be rare."""
    times = torch.arange(40).unsqueeze(1) + torch.tensor([0.0, 1.0])
    rows = [{"id": f"{scene}/{n}", "scene": scene} for scene in "abcdef" for n in range(1 + (scene == "a"))]
    kept = Collector(1000)
    for row in rows:
        kept.add(clips_of_video(row, times, {"visual_features": torch.zeros(40, 2)}, heard=False))
    kept = kept.kept()
    scenes, folds = np.array(kept.column("scene")), fold_numbers(kept, "scene")
    for scene in "bcdef":
        in_order = folds[scenes == scene][kept.times[torch.from_numpy(scenes == scene), 0].argsort()]
        np.testing.assert_array_equal(in_order, np.arange(40) * NUM_FOLDS // 40)
    assert len(set(fold_numbers(kept, None)[scenes == "b"])) == 1


def test_a_recording_that_is_most_of_the_footage_is_split_in_time():
    parts = []
    for number in range(6):
        times = torch.arange(20.0 if number else 200.0).reshape(-1, 2)
        parts.append(clips_of_video({"id": f"v{number}"}, times, {"x": torch.zeros(len(times), 1)}, True))
    kept = kept_of(parts, 500)
    folds, ids = fold_numbers(kept, None), np.array(kept.column("id"))
    assert np.bincount(folds[ids == "v0"]).tolist() == [20] * NUM_FOLDS
    starts = kept.times[:, 0].numpy()[ids == "v0"]
    assert (np.diff(folds[ids == "v0"][starts.argsort()]) >= 0).all()
    assert all(len(set(folds[ids == f"v{number}"])) == 1 for number in range(1, 6))
