"""Training and evaluating AVRL: classes of whole videos, from stored frames and sound."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score, roc_auc_score

from avad_hf import (
    AvacaConfig,
    AvacaForAnomalyDetection,
    AvrlConfig,
    AvrlForVideoClassification,
    FeatureDataset,
    TrainingConfig,
    evaluate,
    train,
)
from avad_hf.report.page import write_report
from avad_hf.training.batches import ShuffledBatches
from avad_hf.training.objectives import EventClasses
from avad_hf.untrained import init_avrl

from . import warm
from .feature_stores import plant, plant_videos

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("arrest", "fight", "normal1", "normal2")
SMALL = {
    "video_config": {"stem_width": 4, "depths": (1, 1, 1, 1)},
    "audio_config": {"hidden_sizes": (4, 8, 16, 32), "intermediate_size": 8, "embedding_size": 8},
    "hidden_sizes": (16, 8),
}
QUICK = {"epochs": 16, "batch_size": 6, "learning_rate": 1e-2, "patience": None}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(plant_videos(tmp_path_factory.mktemp("videos") / "store", num_videos=72))


def run(store, output_dir, profile="default", options=None, **settings):
    config = TrainingConfig.from_profile(
        profile, data=store, output_dir=str(output_dir), model_options=SMALL | (options or {}), **QUICK | settings
    )
    return train(config, progress=False)


def history_of(output_dir) -> list[dict]:
    return [json.loads(line) for line in (Path(output_dir) / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    place = tmp_path_factory.mktemp("trained") / "run"
    return run(store, place), place


# Which videos a step sees


@pytest.mark.parametrize(("num_videos", "batch_size"), [(1, 12), (12, 12), (13, 12), (100, 12), (35, 4), (7, 1)])
def test_an_epoch_sees_each_video_once_in_even_batches(num_videos, batch_size):
    batches = ShuffledBatches(num_videos, batch_size, seed=3)
    seen = [[index for (index,) in batch] for batch in batches.epoch(1)]
    assert Counter(index for batch in seen for index in batch) == Counter(range(num_videos))
    sizes = [len(batch) for batch in seen]
    assert len(sizes) == batches.num_batches == -(-num_videos // batch_size)
    assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size and min(sizes) == batches.smallest


def test_the_order_is_that_of_seed_and_epoch():
    def order(seed, epoch):
        return list(ShuffledBatches(40, 8, seed).epoch(epoch))

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4) and order(1, 3) != order(2, 3)


def test_half_of_the_training_videos_are_mirrored_alike_for_a_seed_and_epoch(store):
    data = FeatureDataset(store)
    plain = [data[index]["pixel_values_videos"] for index in range(len(data))]

    def mirrored(seed, epoch):
        view, found = EventClasses().training_view(data, seed, epoch), []
        for index, frames in enumerate(plain):
            now = view[index]["pixel_values_videos"]
            is_plain, is_mirrored = torch.equal(now, frames), torch.equal(now, frames.flip(-1))
            assert is_plain != is_mirrored
            found.append(is_mirrored)
        return found

    once = mirrored(0, 1)
    assert 23 <= sum(once) <= 49  # 36 of 72, and three standard deviations
    assert once == mirrored(0, 1)
    assert once != mirrored(0, 2) and once != mirrored(1, 1)
    assert torch.equal(data[0]["pixel_values_videos"], plain[0])  # the data themselves stay as they are


# What is learnt


def test_planted_events_are_learnt_by_sight_and_sound_together(store, trained, tmp_path):
    """Sight tells two pairs of classes apart and sound the classes of a pair: each alone is right half of the time."""
    accuracy = {}
    for modality in ("visual", "audio"):
        run(store, tmp_path / modality, options={"modality": modality})
        accuracy[modality] = top1(tmp_path / modality, store)
    both = top1(trained[1], store)
    assert both > 0.65
    assert both > max(accuracy.values()) + 0.15, (both, accuracy)


def top1(place, store) -> float:
    found = evaluate(AvrlForVideoClassification.from_pretrained(place), FeatureDataset(store, "test"), num_resamples=0)
    return found.figures["events"]["top1_accuracy"]


def test_the_best_epoch_is_that_of_the_highest_accuracy_then_the_lowest_loss(trained, store):
    result, place = trained
    history = history_of(place)
    best = max(history, key=lambda e: (e["validation"]["top1_accuracy"], -e["validation"]["loss"]))
    assert result.best_epoch == best["epoch"] and result.validation == best["validation"]
    model = AvrlForVideoClassification.from_pretrained(place)
    validation = FeatureDataset(store, "validation").with_classes(list(model.config.id2label.values()))
    batch = validation.collate([validation[index] for index in range(len(validation))])
    with torch.no_grad():
        outputs = model(**batch)
    assert outputs.loss.item() == pytest.approx(best["validation"]["loss"], rel=1e-4)
    right = outputs.logits.argmax(1) == batch["labels"]
    assert right.float().mean().item() == pytest.approx(best["validation"]["top1_accuracy"])
    recalls = [right[batch["labels"] == number].float().mean().item() for number in batch["labels"].unique()]
    assert np.mean(recalls) == pytest.approx(best["validation"]["top1_macro"])


def test_the_checkpoint_says_what_it_is(trained, store):
    result, place = trained
    model = AvrlForVideoClassification.from_pretrained(place)
    # SHADE's nine, since these are among them.
    assert len(model.config.id2label) == 9 and list(model.config.normal_labels) == ["normal1", "normal2"]
    assert model.config.threshold == result.threshold
    assert "validation videos" in model.config.threshold_origin == result.threshold_origin
    card = (place / "README.md").read_text(encoding="utf-8")
    assert f"top-1 accuracy {result.validation['top1_accuracy']:.4f}" in card and "arrest, chase" in card
    assert "No processor" in card


def test_classes_of_ones_own_come_from_the_videos(tmp_path):
    own = plant_videos(tmp_path / "store", classes=("fire", "normal", "smoke"))
    run(str(own), tmp_path / "run", epochs=1)
    config = AvrlForVideoClassification.from_pretrained(tmp_path / "run").config
    assert config.id2label == {0: "fire", 1: "normal", 2: "smoke"} and list(config.normal_labels) == ["normal"]


def test_a_step_is_plain_gradient_descent_on_the_whole_batch(store, tmp_path):
    settings = {"epochs": 1, "batch_size": 100, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    settings |= {"learning_rate": 0.1, "scheduler": "constant", "max_grad_norm": None}
    run(store, tmp_path / "run", **settings)
    data = EventClasses().training_view(FeatureDataset(store, "train"), 0, 1)
    torch.manual_seed(0)
    # Random numbers are drawn for the same network, in the same order.
    start = AvrlForVideoClassification(AvrlForVideoClassification.from_pretrained(tmp_path / "run").config)
    data = data.with_classes([start.config.id2label[number] for number in range(9)])
    ((*order,),) = ShuffledBatches(len(data), 100).epoch(1)
    torch.manual_seed(0)
    start = AvrlForVideoClassification(start.config).train()
    before = {name: value.clone() for name, value in start.named_parameters()}
    start(**data.collate([data[index] for (index,) in order])).loss.backward()
    trained = load_file(tmp_path / "run" / "model.safetensors")
    for name, parameter in start.named_parameters():
        torch.testing.assert_close(trained[name], before[name] - 0.1 * parameter.grad, rtol=1e-4, atol=1e-5)


def test_the_published_profile_and_its_schedule(store, tmp_path):
    config = TrainingConfig.from_profile("avrl", data="a", output_dir="b")
    assert (config.optimizer, config.learning_rate, config.momentum, config.weight_decay) == ("sgd", 1e-2, 0.9, 1e-3)
    assert (config.batch_size, config.epochs, config.scheduler) == (12, 80, "reduce_lr_on_plateau")
    assert config.min_learning_rate == 1e-7 and config.patience is None and not config.fine_tune
    assert TrainingConfig.from_profile("avrl", data="a", output_dir="b", model="c").fine_tune
    # A rate at which nothing is learnt: after eleven epochs without a lower loss it is a tenth.
    run(store, tmp_path / "run", "avrl", epochs=13, batch_size=100, learning_rate=1e-6, options={"modality": "audio"})
    rates = [epoch["learning_rate"] for epoch in history_of(tmp_path / "run")]
    assert rates[0] == pytest.approx(1e-6) and rates[-1] == pytest.approx(1e-7)


def test_gradient_checkpointing_learns_the_same(store, tmp_path):
    for name, on in (("plain", False), ("checkpointed", True)):
        run(store, tmp_path / name, epochs=2, gradient_checkpointing=on)
    plain, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "checkpointed"))
    for name, value in plain.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)


def test_a_resumed_run_ends_as_one_that_was_not_stopped(store, tmp_path, monkeypatch):
    options = {"epochs": 4}
    run(store, tmp_path / "whole", **options)
    validate, calls = EventClasses.validate, []

    def stopped(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(self, *arguments)

    monkeypatch.setattr(EventClasses, "validate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(store, tmp_path / "stopped", **options)
    monkeypatch.setattr(EventClasses, "validate", validate)
    settings = QUICK | options | {"data": store, "output_dir": str(tmp_path / "stopped"), "model_options": SMALL}
    train(TrainingConfig.from_profile("default", **settings), resume=True, progress=False)
    for file in ("model.safetensors", "history.jsonl"):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


def test_two_processes_take_the_step_that_one_takes(store, tmp_path):
    settings = {"epochs": 1, "batch_size": 100, "optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0}
    settings |= {"learning_rate": 0.5, "scheduler": "constant", "max_grad_norm": None}
    warm.run_two(
        code=f"""
from avad_hf import TrainingConfig, train
train(TrainingConfig(data={store!r}, output_dir={str(tmp_path / "two")!r}, model_options={SMALL!r}, **{settings!r}),
      progress=False)
"""
    )
    run(store, tmp_path / "one", **settings)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-4)
    losses = [history_of(tmp_path / name)[0]["train"]["loss"] for name in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


# Beginning with a checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained checkpoint whose processor stores what the planted videos say it did."""
    place = tmp_path_factory.mktemp("checkpoint") / "new"
    init_avrl(place, size="tiny", classes=CLASSES)
    settings = json.loads((place / "processor_config.json").read_text())
    return place, settings


@pytest.fixture(scope="module")
def fitting(checkpoint, tmp_path_factory) -> str:
    """A planted store with the recipe of that checkpoint's processor."""
    from transformers import AutoProcessor

    folder = plant_videos(tmp_path_factory.mktemp("fitting") / "store")
    made = AutoProcessor.from_pretrained(checkpoint[0]).recipe() | {"audio_dtype": "float32"}
    (folder / "recipe.json").write_text(json.dumps(made))
    return str(folder)


STILL = {"optimizer": "sgd", "learning_rate": 1e-12, "weight_decay": 0.0, "scheduler": "constant", "warmup_ratio": 0.0}


def begun(fitting, checkpoint, place, **settings):
    """Weights that a run which learns nothing ends with: those that it began with."""
    # Another seed than the checkpoint's, whose weights would be drawn again.
    config = {"data": fitting, "model": str(checkpoint), "output_dir": str(place), "epochs": 1, "batch_size": 100}
    config |= {"seed": 1}
    train(TrainingConfig.from_profile("avrl", **config | STILL | settings), progress=False)
    return load_file(place / "model.safetensors")


def weights_only(state):
    return {name: value for name, value in state.items() if "running_" not in name and "num_batches" not in name}


def test_training_begins_with_the_checkpoints_weights(fitting, checkpoint, tmp_path):
    before = load_file(checkpoint[0] / "model.safetensors")
    after = begun(fitting, checkpoint[0], tmp_path / "run")
    for name, value in weights_only(after).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-9)
    assert (tmp_path / "run" / "processor_config.json").is_file()  # so that detect runs
    assert json.loads((tmp_path / "run" / "config.json").read_text()).get("notice") is None
    fresh = begun(fitting, checkpoint[0], tmp_path / "fresh", fine_tune=False)
    assert not torch.allclose(fresh["avrl.visual.conv1.weight"], before["avrl.visual.conv1.weight"])


def test_another_fusion_takes_both_networks_and_a_silent_channel(fitting, checkpoint, tmp_path):
    before = load_file(checkpoint[0] / "model.safetensors")
    after = begun(fitting, checkpoint[0], tmp_path / "run", model_options={"fusion": "low_level"})
    kernel = after.pop("avrl.visual.conv1.weight")
    torch.testing.assert_close(kernel[:, :3], before["avrl.visual.conv1.weight"], rtol=0, atol=1e-9)
    assert kernel.shape[1] == 4 and kernel[:, 3].abs().max() < 1e-9
    shared = [name for name in weights_only(after) if name.startswith("avrl.")]
    assert len(shared) > 20
    for name in shared:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-9)


def test_a_modality_alone_takes_its_network(fitting, checkpoint, tmp_path):
    before = load_file(checkpoint[0] / "model.safetensors")
    after = begun(fitting, checkpoint[0], tmp_path / "run", model_options={"modality": "audio"})
    assert not any(name.startswith("avrl.visual") for name in after)
    torch.testing.assert_close(after["avrl.audio.features.0.weight"], before["avrl.audio.features.0.weight"])


def test_other_classes_begin_with_both_networks(checkpoint, tmp_path):
    from transformers import AutoProcessor

    other = plant_videos(tmp_path / "store", classes=("riot", "calm", "normal1"))
    made = AutoProcessor.from_pretrained(checkpoint[0]).recipe() | {"audio_dtype": "float32"}
    (other / "recipe.json").write_text(json.dumps(made))
    own = {"id2label": {0: "riot", 1: "calm", 2: "normal1"}, "normal_labels": ["normal1"]}
    before = load_file(checkpoint[0] / "model.safetensors")
    after = begun(str(other), checkpoint[0], tmp_path / "run", model_options=own)
    config = AvrlForVideoClassification.from_pretrained(tmp_path / "run").config
    assert config.id2label == own["id2label"] and config.label2id == {"riot": 0, "calm": 1, "normal1": 2}
    for name, value in weights_only(after).items():
        if name.startswith("avrl."):
            torch.testing.assert_close(value, before[name], rtol=0, atol=1e-9)
    assert after["classifier.4.weight"].shape[0] == 3


def test_a_threshold_of_other_weights_is_forgotten(fitting, checkpoint, tmp_path):
    place = tmp_path / "trained"
    shutil.copytree(checkpoint[0], place)
    config = json.loads((place / "config.json").read_text()) | {"threshold": 0.83, "threshold_origin": "of before"}
    (place / "config.json").write_text(json.dumps(config))
    # Validation videos of which none is anomalous cannot give a new one.
    normal = FeatureDataset(fitting, "validation").where(lambda row: not row["anomaly"])
    settings = {"data": fitting, "model": str(place), "output_dir": str(tmp_path / "run"), "epochs": 1}
    train(TrainingConfig.from_profile("avrl", **settings | STILL), validation_data=normal, progress=False)
    config = AvrlForVideoClassification.from_pretrained(tmp_path / "run").config
    assert (config.threshold, config.threshold_origin) == (0.5, None)


def test_frozen_stages_do_not_move(fitting, checkpoint, tmp_path):
    before = load_file(checkpoint[0] / "model.safetensors")
    options = {"frozen_video_stages": 5, "frozen_audio_stages": 4}
    after = begun(fitting, checkpoint[0], tmp_path / "run", learning_rate=0.1, model_options=options)
    for name, value in after.items():
        is_frozen = name.startswith("avrl.")
        assert torch.equal(value, before[name]) == is_frozen, name  # statistics of batch norms among them


def test_it_trains_under_the_trainer_of_transformers(store, tmp_path):
    from transformers import Trainer, TrainingArguments

    config = AvrlConfig(**SMALL)
    names = [config.id2label[number] for number in range(9)]
    data = FeatureDataset(store, "train").with_classes(names)
    torch.manual_seed(0)
    model = AvrlForVideoClassification(config)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=6,
        use_cpu=True,
        gradient_checkpointing=True,
        remove_unused_columns=False,
    )
    trainer = Trainer(model, arguments, data_collator=data.collate, train_dataset=data, eval_dataset=data)
    loss = trainer.train().training_loss
    assert 1.0 < loss < 3.0 and trainer.evaluate()["eval_loss"] > 0
    assert trainer.predict(data).predictions.shape == (len(data), 9)


def test_accumulated_batches_weigh_as_much_as_whole_ones(store, tmp_path):
    from transformers import Trainer, TrainingArguments

    config = AvrlConfig(**SMALL, modality="audio")  # without batch norms, whose statistics are those of each part
    data = FeatureDataset(store, "train").with_classes([config.id2label[number] for number in range(9)])
    moved = []
    for size, parts in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = AvrlForVideoClassification(config)
        before = model.classifier[4].bias.detach().clone()
        arguments = TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=parts,
            optim="sgd",
            learning_rate=1.0,
            max_grad_norm=0.0,
            use_cpu=True,
            remove_unused_columns=False,
        )
        Trainer(model, arguments, data_collator=data.collate, train_dataset=data).train()
        moved.append(model.classifier[4].bias.detach() - before)
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-3, atol=1e-4)


# Figures


def test_figures_are_those_of_scikit_learn(trained, store, tmp_path, undrawn):
    model = AvrlForVideoClassification.from_pretrained(trained[1])
    data = FeatureDataset(store, "test")
    found = evaluate(model, data, num_resamples=50)
    names = [model.config.id2label[number] for number in range(9)]
    likelihood = []
    with torch.no_grad():
        for index in range(len(data)):
            likelihood.append(model(**data.collate([data[index]])).logits.double().softmax(1)[0].numpy())
    likelihood = np.array(likelihood)
    labels = np.array([names.index(row["label"]) for row in data.rows])
    called = likelihood.argmax(1)
    events = found.figures["events"]
    assert events["top1_accuracy"] == pytest.approx(accuracy_score(labels, called))
    matrix = confusion_matrix(labels, called, labels=range(9))
    assert events["confusion_matrix"] == matrix.tolist()
    recalls = recall_score(labels, called, labels=range(9), average=None, zero_division=np.nan)
    for name, expected in zip(names, recalls, strict=True):
        given = events["top1_recall"][name]
        assert given is None if np.isnan(expected) else given == pytest.approx(expected)
    assert events["top1_macro"] == pytest.approx(np.nanmean(recalls))
    scores = 1 - likelihood[:, [names.index("normal1"), names.index("normal2")]].sum(1)
    anomalous = [row["anomaly"] for row in data.rows]
    assert found.figures["video"]["roc_auc"] == pytest.approx(roc_auc_score(anomalous, scores))
    for video, score, row, number in zip(found.videos, scores, likelihood, called, strict=True):
        assert video["score"] == pytest.approx(score, abs=1e-5) and video["predicted"] == names[number]
        assert list(video["probabilities"].values()) == pytest.approx(row, abs=1e-5)
    assert found.figures["clip"] is None and found.figures["frame"] is None
    assert "no video is labelled chase" in found.figures["undefined"]["events.top1_recall"]
    found.save(tmp_path)
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    page = write_report(found.figures, found.videos, tmp_path, "planted").read_text(encoding="utf-8")
    assert "Event classes" in page and "mostly taken for" in page and "Confusion matrix of" in page
    assert "audio path" not in page


def test_any_number_of_videos_together_gives_the_same(trained, store):
    model, data = AvrlForVideoClassification.from_pretrained(trained[1]), FeatureDataset(store, "test")
    several, single = (evaluate(model, data, batch_size=size, num_resamples=0) for size in (7, 1))
    for video, other in zip(several.videos, single.videos, strict=True):
        assert video["score"] == pytest.approx(other["score"], abs=1e-5)


# Wrong input


def test_videos_and_features_are_told_apart(store, trained, checkpoint, tmp_path):
    features = plant(tmp_path / "features")
    model = AvrlForVideoClassification.from_pretrained(trained[1])
    with pytest.raises(ValueError, match=r"type 'avrl' cannot read this store: .*Extract the videos"):
        evaluate(model, FeatureDataset(features))
    avaca = AvacaForAnomalyDetection(AvacaConfig(visual_size=6, audio_size=5, num_audio_steps=8, hidden_size=8))
    with pytest.raises(ValueError, match="type 'avaca' cannot read this store"):
        evaluate(avaca, FeatureDataset(store))
    settings = {"data": str(features), "output_dir": str(tmp_path / "run"), "model": str(checkpoint[0])}
    with pytest.raises(ValueError, match=r"detector that reads frames and sound, but .* holds features of frozen"):
        train(TrainingConfig(**settings), progress=False)
    assert not (tmp_path / "run").exists()


def test_classes_that_do_not_fit_are_refused(checkpoint, tmp_path):
    from transformers import AutoProcessor

    other = plant_videos(tmp_path / "store", classes=("arrest", "riot", "normal1", "normal2"))
    made = AutoProcessor.from_pretrained(checkpoint[0]).recipe() | {"audio_dtype": "float32"}
    (other / "recipe.json").write_text(json.dumps(made))
    settings = {"data": str(other), "output_dir": str(tmp_path / "run"), "model": str(checkpoint[0])}
    with pytest.raises(ValueError, match=r"labelled riot, which is no class of the model \(arrest, fight,"):
        train(TrainingConfig.from_profile("avrl", **settings), progress=False)
    assert not (tmp_path / "run").exists()
    model = AvrlForVideoClassification.from_pretrained(checkpoint[0])
    with pytest.raises(ValueError, match="labelled riot, which is no class"):
        evaluate(model, FeatureDataset(other))


def test_videos_of_another_processor_are_refused(store, checkpoint, trained, tmp_path):
    settings = {"data": store, "output_dir": str(tmp_path / "run"), "model": str(checkpoint[0])}
    with pytest.raises(ValueError, match="made by other encoders or settings than those of"):
        train(TrainingConfig.from_profile("avrl", **settings), progress=False)


def test_audio_path_and_small_batches_are_refused(store, trained, tmp_path):
    model = AvrlForVideoClassification.from_pretrained(trained[1])
    with pytest.raises(ValueError, match="audio_path is an option of detectors"):
        evaluate(model, FeatureDataset(store), audio_path="zeroed")
    with pytest.raises(ValueError, match="too small for 1 processes and 4 parts each"):
        run(store, tmp_path / "run", batch_size=2, gradient_accumulation_steps=4)
    with pytest.raises(ValueError, match="Detectors that read videos cannot be trained in bf16 on a CPU"):
        run(store, tmp_path / "run", mixed_precision="bf16")
    unknown = FeatureDataset(store, "validation")
    unknown.rows = [row | {"anomaly": None} for row in unknown.rows]
    config = TrainingConfig(data=store, output_dir=str(tmp_path / "run"), model_options=SMALL)
    with pytest.raises(ValueError, match="have no label"):
        train(config, validation_data=unknown, progress=False)
    with pytest.raises(ValueError, match="AvrlConfig has no option audio_path"):
        run(store, tmp_path / "run", options={"audio_path": "plain"})
    assert not (tmp_path / "run").exists()
