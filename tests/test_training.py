"""Training: what a step computes, what a run leaves behind, and what is refused."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, pipeline

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, FeatureDataset, TrainingConfig, extract_features, train
from avad_hf.features.store import INDEX, recipe_sha256
from avad_hf.metrics.ranking import Ranking
from avad_hf.runs import LOCK, only_run
from avad_hf.training.batches import BalancedBatches
from avad_hf.training.config import profiles
from avad_hf.training.models import new_model
from avad_hf.training.objectives import ClipScores

from . import warm
from .feature_stores import plant, recipe

# As published: what steps compute is compared with that.
SMALL = {"hidden_size": 16, "intermediate_size": 16, "normalisation": "batch"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(plant(tmp_path_factory.mktemp("store"), num_videos=50))


def config(store, output_dir, **settings) -> TrainingConfig:
    return TrainingConfig(
        **{"data": store, "output_dir": str(output_dir), "epochs": 4, "model_options": SMALL}
        | {"scale_features": False}
        | settings
    )


def run(store, output_dir, **settings):
    return train(config(store, output_dir, **settings), progress=False)


def history_of(output_dir) -> list[dict]:
    return [json.loads(line) for line in (Path(output_dir) / "history.jsonl").read_text().splitlines()]


# Batches


@pytest.mark.parametrize(("num_normal", "num_anomalous"), [(13, 13), (20, 7), (1, 9), (161, 185)])
@pytest.mark.parametrize("batch_size", [2, 4, 10, 64])
def test_an_epoch_sees_the_larger_class_once_and_the_smaller_evenly(num_normal, num_anomalous, batch_size):
    labels = [0] * num_normal + [1] * num_anomalous
    batches = BalancedBatches(labels, batch_size)
    pairs = list(batches.epoch(1))
    seen = [np.bincount([pair[kind] for batch in pairs for pair in batch], minlength=len(labels)) for kind in (0, 1)]
    normal, anomalous = seen[0][:num_normal], seen[1][num_normal:]
    assert seen[0][num_normal:].sum() == seen[1][:num_normal].sum() == 0
    larger, smaller = sorted((normal, anomalous), key=len, reverse=True)
    assert (larger == 1).all()
    assert smaller.max() - smaller.min() <= 1
    sizes = [len(batch) for batch in pairs]
    assert len(sizes) == batches.num_batches
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= batch_size // 2
    assert min(sizes) == batches.smallest


def test_the_order_is_that_of_seed_and_epoch():
    labels = [0, 1] * 20
    assert list(BalancedBatches(labels, 8, seed=1).epoch(3)) == list(BalancedBatches(labels, 8, seed=1).epoch(3))
    others = [BalancedBatches(labels, 8, seed=1).epoch(4), BalancedBatches(labels, 8, seed=2).epoch(3)]
    for other in others:
        assert list(other) != list(BalancedBatches(labels, 8, seed=1).epoch(3))


# What a step computes


def test_all_three_losses_fall_on_one_batch(store):
    data = FeatureDataset(store, "train")
    batch = data.collate([data[index] for index in range(len(data))])
    model = AvacaForAnomalyDetection(AvacaConfig(visual_size=6, audio_size=5, num_audio_steps=8, **SMALL))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    history = []
    for _ in range(120):
        outputs = model(**batch)
        outputs.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append([outputs.loss.item(), outputs.dmil_loss.item(), outputs.center_loss.item()])
    first, last = np.mean(history[:3], axis=0), np.mean(history[-3:], axis=0)
    assert (last < 0.5 * first).all(), (first, last)


@pytest.mark.parametrize("parts", [1, 3])
def test_a_step_is_plain_gradient_descent_on_the_whole_batch(store, tmp_path, parts):
    """One step of SGD, written out; parts of a batch are summed by their share of its pairs."""
    run(
        store,
        tmp_path / "run",
        epochs=1,
        batch_size=100,
        gradient_accumulation_steps=parts,
        optimizer="sgd",
        momentum=0.0,
        weight_decay=0.0,
        learning_rate=0.1,
        scheduler="constant",
        max_grad_norm=None,
    )
    data = FeatureDataset(store, "train")
    torch.manual_seed(0)
    model = AvacaForAnomalyDetection(AvacaConfig(visual_size=6, audio_size=5, num_audio_steps=8, **SMALL)).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    (pairs,) = BalancedBatches([row["anomaly"] for row in data.rows], 100).epoch(1)
    for part in range(parts):
        own = pairs[part::parts]
        loss = model(**data.collate([data[index] for pair in own for index in pair])).loss
        (loss * len(own) / len(pairs)).backward()
    trained = load_file(tmp_path / "run" / "model.safetensors")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(trained[name], before[name] - 0.1 * parameter.grad, rtol=1e-5, atol=1e-6)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(trained[name], buffer)


def test_gradients_are_clipped_to_the_given_norm(store, tmp_path):
    settings = {"epochs": 1, "batch_size": 100, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    settings |= {"learning_rate": 1.0, "scheduler": "constant", "max_grad_norm": 1e-2}
    run(store, tmp_path / "run", **settings)
    torch.manual_seed(0)
    model = AvacaForAnomalyDetection(AvacaConfig(visual_size=6, audio_size=5, num_audio_steps=8, **SMALL))
    trained = load_file(tmp_path / "run" / "model.safetensors")
    steps = [(trained[name] - value).flatten() for name, value in model.named_parameters()]
    assert torch.cat(steps).norm().item() == pytest.approx(1e-2, rel=1e-3)


def test_mixed_precision_learns_as_well(store, tmp_path):
    full, found = (
        run(store, tmp_path / name, mixed_precision=precision, epochs=10).validation["loss"]
        for name, precision in (("full", "no"), ("run", "bf16"))
    )
    assert found != full  # it was used
    assert found == pytest.approx(full, rel=0.1)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


# What a run leaves behind


@pytest.mark.parametrize("best_by", [None, "figure"])
def test_the_best_epoch_is_kept_with_its_threshold(store, tmp_path, best_by):
    found = run(store, tmp_path / "run", epochs=12, best_by=best_by)
    history = history_of(tmp_path / "run")
    assert [epoch["epoch"] for epoch in history] == list(range(1, 13))
    by_figure = [(-e["validation"]["roc_auc"], e["validation"]["loss"], e["epoch"]) for e in history]
    by_loss = [(e["validation"]["loss"], e["epoch"]) for e in history]
    # Both rules choose otherwise here.
    assert min(by_figure)[-1] != min(by_loss)[-1]
    assert found.best_epoch == min(by_figure if best_by else by_loss)[-1]

    model = AvacaForAnomalyDetection.from_pretrained(tmp_path / "run").eval()
    data = FeatureDataset(store, "validation")
    scores, labels = [], []
    for item in map(data.__getitem__, range(len(data))):  # one by one, not as the loop does
        with torch.no_grad():
            logits = model(item["visual_features"][None], item["audio_features"][None]).logits
        scores.append(logits.sigmoid().max().item())
        labels.append(int(item["labels"]))
    ranking = Ranking(labels, scores)
    assert ranking.roc_auc() == pytest.approx(found.validation["roc_auc"], abs=1e-9)
    assert model.config.threshold == found.threshold == pytest.approx(ranking.equal_error().threshold, abs=1e-5)
    assert "9 validation videos" in model.config.threshold_origin
    assert model.config.notice is None
    assert model.config.recipe_sha256 == recipe_sha256(recipe())
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "README.md",
        "config.json",
        "history.jsonl",
        "model.safetensors",
        "training.json",
    ]


def test_senses_are_scaled_to_one_size_and_the_checkpoint_keeps_the_scales(store, tmp_path):
    found = run(store, tmp_path / "run", scale_features=True)
    data = FeatureDataset(store, "train")
    sizes = {
        name: np.sqrt(np.mean(np.concatenate([item[name].numpy().ravel() for item in heard]).astype(float) ** 2))
        for name, heard in (
            ("visual_features", list(data)),
            ("audio_features", [item for item in data if item["has_audio"]]),
        )
    }
    model = AvacaForAnomalyDetection.from_pretrained(found.output_dir).eval()
    assert model.config.feature_scales == pytest.approx({name: 1 / size for name, size in sizes.items()}, rel=1e-5)
    # A checkpoint without scales gives the same scores of features that were scaled before.
    item = data.collate([data[0]])
    plain = AvacaForAnomalyDetection.from_pretrained(found.output_dir, feature_scales=None).eval()
    with torch.no_grad():
        scaled = {name: item[name] / size for name, size in sizes.items()}
        expected = plain(**scaled, clip_mask=item["clip_mask"]).logits
        torch.testing.assert_close(model(**item).logits, expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(plain(**item).logits, expected)


def test_new_detectors_have_no_batch_norm_but_by_the_papers_recipe(store, tmp_path):
    options = {name: value for name, value in SMALL.items() if name != "normalisation"}
    run(store, tmp_path / "new", epochs=1, model_options=options)
    paper = TrainingConfig.from_profile(
        "paper", data=store, output_dir=str(tmp_path / "paper"), epochs=1, model_options=options
    )
    train(paper, progress=False)
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in ("new", "paper")}
    assert not [name for name in weights["new"] if ".norm." in name]
    assert [name for name in weights["paper"] if ".norm." in name]
    assert AvacaConfig.from_pretrained(tmp_path / "paper").feature_scales is None


def test_a_run_that_was_begun_before_there_was_a_choice_goes_on_as_it_was(store, tmp_path):
    settings = {"epochs": 3, "best_by": "figure"}
    run(store, tmp_path / "run", **settings)
    record = tmp_path / "run" / "training.json"
    saved = json.loads(record.read_text())
    for name in ("scale_features", "best_by"):
        del saved["config"][name]
    record.write_text(json.dumps(saved))
    # By today's defaults.
    again = train(config(store, tmp_path / "run", epochs=3, scale_features=True), resume=True, progress=False)
    assert again.epochs == 3


@pytest.mark.parametrize("scales", [{"visual_features": 0.0}, {"audio_features": float("inf")}])
def test_scales_that_cannot_be_are_refused(scales):
    with pytest.raises(Exception, match="feature_scales must be finite and above 0"):
        AvacaConfig(feature_scales=scales)


def test_a_trained_checkpoint_detects(bunny, bikes, tiny, tmp_path):
    """Features by a checkpoint's processor, training with it, and the pipeline with what came out."""
    rows = [
        {"id": f"{name}{part}", "video": path, "start": 1.0 * part, "end": part + 1.0, "label": label}
        | {"anomaly": int(label != "normal"), "scene": None, "split": split}
        for name, path, label in (("bunny", bunny, "rabbit"), ("bikes", bikes, "normal"))
        for part, split in enumerate(("train", "train", "validation"))
    ]
    processor = avad_processor(tiny)
    extract_features(rows, processor, tmp_path / "store")
    found = run(str(tmp_path / "store"), tmp_path / "run", model=tiny, model_options={}, epochs=1)
    result = pipeline("audio-visual-anomaly", model=found.output_dir)(bunny)
    assert result["threshold"] == found.threshold
    # The detector is trained now, its encoders are not.
    assert not any("detector" in note for note in result["warnings"])
    assert any("Untrained video encoder" in note for note in result["warnings"])


def avad_processor(checkpoint):
    from avad_hf import AvacaProcessor

    return AvacaProcessor.from_pretrained(checkpoint)


def test_fine_tuning_begins_with_the_checkpoints_weights(store, tmp_path):
    first = run(store, tmp_path / "first")
    shutil.copytree(first.output_dir, tmp_path / "again")
    # A detector without processor is enough to go on from, if the features fit.
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "again")
    settings = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1}
    second = run(store, tmp_path / "second", model=str(tmp_path / "again"), fine_tune=True, **settings)
    tuned = AutoModelForVideoClassification.from_pretrained(second.output_dir)
    for (name, value), other in zip(model.named_parameters(), tuned.parameters(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-9, msg=name)


def test_weights_are_float32_whatever_the_checkpoints_are(store, tmp_path):
    half = AvacaForAnomalyDetection(AvacaConfig(visual_size=6, audio_size=5, num_audio_steps=8, **SMALL)).bfloat16()
    half.save_pretrained(tmp_path / "half")
    for fine_tune in (False, True):
        model, _ = new_model(
            config(store, tmp_path / "run", model=str(tmp_path / "half"), fine_tune=fine_tune),
            FeatureDataset(store, "train"),
        )
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_early_stopping_and_the_plateau_schedule(store, tmp_path):
    found = run(store, tmp_path / "run", epochs=80, patience=3, learning_rate=1e-2, scheduler="constant")
    assert found.epochs == found.best_epoch + 3 < 80
    settings = {"scheduler": "reduce_lr_on_plateau", "optimizer": "sgd", "learning_rate": 1e-6}
    run(store, tmp_path / "plateau", epochs=36, patience=None, min_learning_rate=1e-8, momentum=0.0, **settings)
    rates = [epoch["learning_rate"] for epoch in history_of(tmp_path / "plateau")]
    assert rates[0] == 1e-6
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(1e-8)


def test_the_rate_warms_up_and_falls(store, tmp_path):
    run(store, tmp_path / "run", epochs=10, warmup_ratio=0.3, learning_rate=1e-3, scheduler="cosine", patience=None)
    rates = [epoch["learning_rate"] for epoch in history_of(tmp_path / "run")]
    assert rates[2] == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(1e-3 / 3)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_trackers_are_told(store, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(store, tmp_path / "run", epochs=3, log_with=("tensorboard",))
    # Settings lie in a folder of their own below the figures.
    (folder,) = (path.parent for path in (tmp_path / "run").glob("*/events.out*"))
    log = EventAccumulator(str(folder))
    log.Reload()
    assert {"train/loss", "train/dmil_loss", "train/center_loss", "validation/roc_auc"} <= set(log.Tags()["scalars"])
    assert [event.step for event in log.Scalars("train/loss")] == [1, 2, 3]


# Resuming

RESUMABLE = {"scale_features": False, "epochs": 14, "patience": None, "batch_size": 4}


def killed(store, output_dir, when) -> None:
    """Run in a process of its own, which dies without warning once `when` is there."""
    code = f"""
from avad_hf import TrainingConfig, train
train(TrainingConfig(data={store!r}, output_dir={str(output_dir)!r}, model_options={SMALL!r}, **{RESUMABLE!r}),
      resume=True, progress=False)
"""
    process = warm.start(code=code)
    begin = time.monotonic()
    while not when() and process.poll() is None and time.monotonic() - begin < 120:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr[-2000:]


def test_a_run_killed_twice_ends_as_one_that_was_not(store, tmp_path):
    run(store, tmp_path / "whole", **RESUMABLE)
    states = tmp_path / "killed" / "checkpoints"
    killed(store, tmp_path / "killed", lambda: (states / "epoch_0003").exists())
    # The second time while a state is being written.
    killed(store, tmp_path / "killed", lambda: any(int(p.name[6:10]) > 6 for p in states.glob("epoch_*.partial")))
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    train(config(store, tmp_path / "killed", **RESUMABLE), resume=True, progress=False)
    for file in ("model.safetensors", "history.jsonl", "config.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert not states.exists()


def test_without_states_a_stopped_run_begins_again_to_the_same_end(store, tmp_path, monkeypatch):
    run(store, tmp_path / "whole")
    stopped, validate = tmp_path / "stopped", ClipScores.validate

    def fails_in_the_third(self, detector, data, epoch):
        if epoch == 3:
            left = sorted(path.name for path in (stopped / "checkpoints").iterdir())
            assert len(left) == 1 and left[0].startswith("best_")
            raise KeyboardInterrupt
        return validate(self, detector, data, epoch)

    monkeypatch.setattr(ClipScores, "validate", fails_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(config(store, stopped), progress=False, keep_states=False)
    monkeypatch.undo()
    train(config(store, stopped), progress=False, resume=True, keep_states=False)
    for file in ("model.safetensors", "history.jsonl", "config.json"):
        assert (stopped / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file
    assert not (stopped / "checkpoints").exists()


def test_a_finished_run_is_not_done_again(store, tmp_path):
    # A run that was killed while it claimed the folder leaves no more than this.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training.json.partial").write_text("{")
    first = run(store, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    # One that was killed when its checkpoint was there already leaves its states, and half of what it was removing.
    left = sorted((tmp_path / "run").iterdir())
    for name in ("checkpoints/epoch_0004", ".partial-12ab"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "model.safetensors").touch()
    again = train(config(os.path.relpath(store) + "/", tmp_path / "run"), resume=True, progress=False)
    assert again == first
    assert sorted((tmp_path / "run").iterdir()) == left
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before


def test_one_run_a_folder(store, tmp_path):
    with only_run(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(ValueError, match=r"Another run is writing .*run \(process \d+ on .*\)\. Wait for it"):
                train(config(store, tmp_path / "run"), resume=resume, progress=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).touch()  # of a run that was killed as soon as it had begun
    run(store, tmp_path / "run", epochs=1)
    assert not (tmp_path / "run" / LOCK).exists()


def test_damaged_states_and_other_runs_are_refused(store, tmp_path):
    states = tmp_path / "run" / "checkpoints"
    killed(store, tmp_path / "run", lambda: (states / "epoch_0002").exists())
    settings = RESUMABLE | {"learning_rate": 0.5}
    with pytest.raises(ValueError, match=r"holds another run.*\n  learning_rate: 0.003 there, 0.5 now"):
        train(config(store, tmp_path / "run", **settings), resume=True, progress=False)
    with pytest.raises(FileExistsError, match="holds an unfinished training run"):
        train(config(store, tmp_path / "run", **RESUMABLE), progress=False)
    # Killed between writing a state and removing the one before, a run leaves both; the last one counts.
    state = max(path for path in states.glob("epoch_*") if not path.name.endswith(".partial"))
    (state / "optimizer.bin").write_bytes((state / "optimizer.bin").read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"The state {state} is incomplete or damaged"):
        train(config(store, tmp_path / "run", **RESUMABLE), resume=True, progress=False)
    (state / "optimizer.bin").unlink()
    with pytest.raises(ValueError, match=rf"The state {state} is incomplete or damaged"):
        train(config(store, tmp_path / "run", **RESUMABLE), resume=True, progress=False)
    (tmp_path / "run" / "training.json").write_text("{")
    with pytest.raises(ValueError, match=r"training.json is damaged .* Train anew into another folder"):
        train(config(store, tmp_path / "run", **RESUMABLE), resume=True, progress=False)


# Several processes


def test_two_processes_learn_and_score_what_one_does(store, tmp_path):
    """One step of SGD, so that weights show gradients, over pairs that two cannot share evenly; then a whole run."""
    step = {"epochs": 1, "batch_size": 100, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    step |= {"learning_rate": 1.0, "scheduler": "constant", "max_grad_norm": None, "scale_features": False}
    whole = {"epochs": 3, "batch_size": 6, "patience": None, "scale_features": False}
    warm.run_two(
        code=f"""
from avad_hf import AvacaForAnomalyDetection, FeatureDataset, TrainingConfig, evaluate, train
for name, settings in (("step", {step!r}), ("whole", {whole!r})):
    train(TrainingConfig(data={store!r}, output_dir={str(tmp_path)!r} + "/two-" + name, model_options={SMALL!r},
                         **settings), progress=False)
model = AvacaForAnomalyDetection.from_pretrained({str(tmp_path)!r} + "/two-step")
found = evaluate(model, FeatureDataset({store!r}, "validation"), batch_size=3, num_resamples=0)
found.save({str(tmp_path)!r} + "/two-evaluated")
"""
    )

    pairs = BalancedBatches([row["anomaly"] for row in FeatureDataset(store, "train").rows], 100)
    assert pairs.smallest == 15
    torch.manual_seed(0)
    start = AvacaForAnomalyDetection(AvacaConfig(visual_size=6, audio_size=5, num_audio_steps=8, **SMALL))
    one, two = run(store, tmp_path / "one-step", **step), load_file(tmp_path / "two-step" / "model.safetensors")
    weights = load_file(Path(one.output_dir) / "model.safetensors")
    for name, begin in start.named_parameters():
        gradient, other = begin - weights[name], begin - two[name]
        assert (gradient - other).abs().max() <= 1e-5 * max(1.0, gradient.abs().max().item()), name
    for name, _ in start.named_buffers():
        torch.testing.assert_close(two[name], weights[name], rtol=1e-5, atol=1e-6)

    run(store, tmp_path / "one-whole", **whole)
    histories = history_of(tmp_path / "one-whole"), history_of(tmp_path / "two-whole")
    for epoch, other in zip(*histories, strict=True):
        assert epoch["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=1e-3)
        # Biases before a batch norm have no gradient but rounding, which AdamW makes whole steps of; a running mean
        # is late to follow them.
        assert epoch["validation"]["loss"] == pytest.approx(other["validation"]["loss"], rel=5e-3)

    from avad_hf import evaluate

    model = AvacaForAnomalyDetection.from_pretrained(tmp_path / "two-step")
    found = evaluate(model, FeatureDataset(store, "validation"), num_resamples=0)
    scored = json.loads((tmp_path / "two-evaluated" / "metrics.json").read_text())
    assert scored["num_videos"] == found.figures["num_videos"] == 9
    assert scored["video"]["roc_auc"] == pytest.approx(found.figures["video"]["roc_auc"], abs=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "two-evaluated" / "scores.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [video["id"] for video in found.videos]
    for line, video in zip(lines, found.videos, strict=True):
        assert line["score"] == pytest.approx(video["score"], abs=1e-6)


# Wrong input


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs must be a whole number, 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more, got 0"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, adamw, sgd, adagrad, got 'lion'"),
        ({"scheduler": "step"}, "scheduler must be one of constant,"),
        ({"mixed_precision": "int8"}, "mixed_precision must be one of no, bf16, fp16"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"max_grad_norm": -1.0}, "max_grad_norm must be above 0"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"warmup_ratio": 1.0}, "warmup_ratio from 0 to below 1"),
        ({"best_by": "luck"}, "best_by must be one of loss, figure, got 'luck'"),
        ({"patience": 0}, "patience must be a whole number"),
        ({"fine_tune": True}, "fine_tune begins with the weights of a checkpoint"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TrainingConfig(data="a", output_dir="b", **settings)


def test_profiles():
    paper = TrainingConfig.from_profile("paper", data="a", output_dir="b")
    assert (paper.optimizer, paper.learning_rate, paper.weight_decay, paper.epochs) == ("adam", 1e-5, 5e-4, 100)
    assert paper.model_options == {"dmil_weight": 10.0, "center_weight": 1.0, "normalisation": "batch"}
    assert (paper.scale_features, paper.best_by) == (False, "figure")
    weak = TrainingConfig.from_profile("shanghaitech", data="a", output_dir="b", model_options={"dmil_alpha": 2})
    assert weak.model_options == paper.model_options | {
        "dmil_weight": 20.0,
        "audio_path": "zeroed",
        "dmil_alpha": 2,
    }
    assert "dmil_alpha" not in profiles()["shanghaitech"]["model_options"]
    assert TrainingConfig.from_profile("default", data="a", output_dir="b", epochs=3).epochs == 3
    with pytest.raises(
        ValueError, match=r"profile must be one of default, few, paper, shanghaitech, avrl, .*got 'best'"
    ):
        TrainingConfig.from_profile("best", data="a", output_dir="b")


def edited(store, target, change) -> str:
    """A copy of a store whose index rows were changed."""
    shutil.copytree(store, target)
    rows = [json.loads(line) for line in (target / INDEX).read_text().splitlines()]
    rows = [row for row in map(change, rows) if row is not None]
    (target / INDEX).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(target)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row if row["split_0"] != "train" else None, "no video in split train"),
        (lambda row: row if row["split_0"] != "validation" else None, "no video in split validation"),
        (lambda row: row if row["anomaly"] == 0 else None, "normal and anomalous videos, but all .* are normal"),
        (lambda row: row if row["anomaly"] == 1 else None, "normal and anomalous videos, but all .* are anomalous"),
        (
            lambda row: None if row["anomaly"] and row["split_0"] == "validation" else row,
            "All 5 validation videos are normal: the best epoch and the threshold need both",
        ),
        (lambda row: row | {"anomaly": None}, "30 of 30 videos have no label, first 'street/"),
    ],
)
def test_data_that_cannot_be_learnt_from_are_refused(store, tmp_path, change, words):
    data = edited(store, tmp_path / "store", change)
    with pytest.raises(ValueError, match=words):
        run(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_broken_features_are_refused_by_name(store, tmp_path):
    data = FeatureDataset(store, "train")
    shutil.copytree(store, tmp_path / "store")
    from safetensors.torch import save_file

    path = tmp_path / "store" / data.rows[3]["file"]
    tensors = load_file(path)
    tensors["audio_features"][0, 0, 0] = float("nan")
    save_file(tensors, path, {"avad_hf": "{}"})
    with pytest.raises(ValueError, match=rf"{data.rows[3]['id']}: its audio_features hold NaN or infinite"):
        run(str(tmp_path / "store"), tmp_path / "run")


def test_models_that_do_not_fit_are_refused(store, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"made by other encoders or settings than those of .*tiny"):
        run(store, tmp_path / "run", model=tiny)
    with pytest.raises(ValueError, match=r"AVACA needs visual_features of shape \(B, T, 7, h, w\)"):
        run(store, tmp_path / "run", model_options={"visual_size": 7})
    with pytest.raises(ValueError, match="AvacaConfig has no option hidden_sise"):
        run(store, tmp_path / "run", model_options={"hidden_sise": 7})
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run("/nowhere/store", tmp_path / "run")
    with pytest.raises(ValueError, match=r"/nowhere/model: no such folder\. Give the folder of a checkpoint"):
        run(store, tmp_path / "run", model="/nowhere/model")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_refused(store, tmp_path, monkeypatch):
    from accelerate import tracking

    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(ValueError, match="log_with: the package of tensorboard is not installed"):
        run(store, tmp_path / "run", log_with=("tensorboard",))
    assert not (tmp_path / "run").exists()


def test_training_that_diverges_says_so(store, tmp_path):
    with pytest.raises(ValueError, match=r"Training diverged in epoch 1: .* Train with a lower learning_rate"):
        run(store, tmp_path / "run", learning_rate=1e30)


def test_folders_that_hold_something_else_are_left_alone(store, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(FileExistsError, match=r"is not an empty folder\. Give a new one; nothing was overwritten"):
            train(config(store, tmp_path / "run"), resume=resume, progress=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    with pytest.raises(FileExistsError, match="not an empty folder"):
        run(store, tmp_path / "run" / "thesis.txt")
    run(store, tmp_path / "done")
    with pytest.raises(FileExistsError, match="holds a finished training run"):
        run(store, tmp_path / "done")


def test_too_many_parts_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="too small for 1 processes and 9 parts each"):
        run(store, tmp_path / "run", batch_size=18, gradient_accumulation_steps=9, split_seed=0)
