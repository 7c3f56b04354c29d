"""AVACA that names the class of a video: its second classifier, training, evaluation, and what the pipeline says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, FeatureDataset, TrainingConfig, evaluate, train
from avad_hf.corpora.classes import MAVAD_CLASSES
from avad_hf.evaluation.scored import scored_recordings
from avad_hf.evaluation.scoring import class_logits_of_videos, score_clips, video_class_logits
from avad_hf.models.avaca import classes_avaca
from avad_hf.models.avaca.configuration_avaca import LABELS
from avad_hf.models.detector import DetectorConfig
from avad_hf.report.page import write_report
from avad_hf.training.models import new_model
from avad_hf.untrained import init

from .feature_stores import plant
from .short_clips import beginning
from .test_avaca import TINY, features

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["normal", "bus", "horse"]
SMALL = {"hidden_size": 16, "intermediate_size": 16}


def build(**fields) -> AvacaForAnomalyDetection:
    torch.manual_seed(0)
    return AvacaForAnomalyDetection(AvacaConfig(**TINY, **fields)).eval()


def naive_logits(class_logits, scores, alpha=4):
    """Of one video: the mean over its highest clips, one by one."""
    count = max(1, len(scores) // alpha)
    highest = sorted(range(len(scores)), key=lambda clip: -scores[clip])[:count]
    return sum(class_logits[clip] for clip in highest) / count


# The config


def test_eleven_classes_are_mavads():
    config = AvacaConfig(num_labels=11)
    assert list(LABELS) == MAVAD_CLASSES.names == list(config.id2label.values())
    assert config.names_classes and config.detector_spec.normal_labels == ("normal",)
    assert config.detector_spec.objective == "clips"
    assert AvacaConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


def test_two_classes_are_the_score():
    """transformers gives every config two: what was written before names none, and has no weights for it."""
    config = AvacaConfig(**TINY)
    assert not config.names_classes and config.detector_spec.normal_labels == () and config.normal_labels is None
    assert not {"normal_labels", "class_weight"} & config.facts().keys()
    detector = AvacaForAnomalyDetection(config)
    assert not [name for name in detector.state_dict() if name.startswith("class_")]
    outputs = detector(*features(), labels=torch.tensor([0, 1, 0]))
    assert outputs.class_logits is None and detector.probabilities(outputs) is None and outputs.class_loss is None


def test_classes_of_ones_own():
    given = AvacaConfig(id2label={2: "fire", 0: "quiet", 1: "calm"}, normal_labels=["quiet", "calm"])
    assert list(given.id2label.values()) == ["quiet", "calm", "fire"] and given.label2id["fire"] == 2
    assert given.detector_spec.normal_labels == ("quiet", "calm")
    assert AvacaConfig(label2id={"normal": 1, "fire": 0, "theft": 2}).detector_spec.normal_labels == ("normal",)
    assert AvacaConfig(num_labels=3).normal_labels == ["LABEL_0"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"id2label": {0: "a", 1: "b", 3: "c"}}, r"Class numbers must run from 0 to 2, got \[0, 1, 3\]"),
        ({"id2label": {0: "a", 1: "b", 2: "a"}}, "Class names must differ, got a, b, a"),
        ({"num_labels": 11, "normal_labels": ["ok"]}, "normal_labels must name some of the classes .* got ok"),
        ({"num_labels": 3, "normal_labels": []}, "not all of them; got none"),
        ({"class_weight": -1}, "class_weight must be"),
    ],
)
def test_refuses_impossible_classes(fields, words):
    with pytest.raises(Exception, match=words):
        AvacaConfig(**fields)


def test_class_settings_follow_the_videos():
    rows = [{"label": name, "anomaly": int(name != "normal")} for name in ("bus", "normal", "horse", "bus")]
    rows.append({"label": None, "anomaly": 1})
    own = AvacaConfig.class_settings(rows, 3)
    assert own == {"id2label": dict(enumerate(NAMES)), "label2id": None, "normal_labels": ["normal"]}
    mavad = AvacaConfig.class_settings(rows, 11)
    assert list(mavad["id2label"].values()) == list(LABELS) and mavad["normal_labels"] == ["normal"]
    with pytest.raises(
        ValueError, match=r"num_labels is 4, but these videos have 3 classes: normal, bus, horse. Give"
    ):
        AvacaConfig.class_settings(rows, 4)
    with pytest.raises(ValueError, match=r"DetectorConfig names no classes. Leave num_labels out"):
        DetectorConfig.class_settings(rows, 3)


# The network


def test_the_class_of_a_video_is_that_of_its_highest_clips():
    torch.manual_seed(0)
    lengths = torch.tensor([9, 4, 1])
    class_logits, logits = torch.randn(3, 9, 5, requires_grad=True), torch.randn(3, 9, requires_grad=True)
    mask = torch.arange(9) < lengths.unsqueeze(1)
    with torch.no_grad():
        class_logits[~mask] = float("nan")
    expected = torch.stack(
        [naive_logits(class_logits[n, :length], logits[n, :length].tolist()) for n, length in enumerate(lengths)]
    )
    found = classes_avaca.video_class_logits(class_logits, logits, mask)
    torch.testing.assert_close(found, expected)
    numbers = torch.tensor([4, 0, 2])
    loss = classes_avaca.class_loss(class_logits, numbers, logits, mask)
    torch.testing.assert_close(loss, -expected.log_softmax(1)[range(3), numbers].mean())
    loss.backward()
    assert logits.grad is None and class_logits.grad.isfinite().all()
    assert (class_logits.grad.abs().sum(-1) > 0).sum(1).tolist() == [2, 1, 1]
    # The same by numbers alone, for those who have scores of clips.
    item = {"scores": logits[0].detach().numpy(), "class_logits": class_logits[0].detach().numpy()}
    spec = AvacaConfig(num_labels=5).detector_spec
    np.testing.assert_allclose(video_class_logits(item, spec), expected[0].detach().numpy(), rtol=1e-6)


def test_the_loss_with_classes():
    detector = build(num_labels=5, class_weight=3.0).train()
    labels, numbers = torch.tensor([0, 1, 0]), torch.tensor([0, 4, 0])
    outputs = detector(*features(), labels=labels, class_labels=numbers)
    parts = 10 * outputs.dmil_loss + outputs.center_loss + 3 * outputs.class_loss
    torch.testing.assert_close(outputs.loss, parts)
    outputs.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in detector.parameters())
    torch.testing.assert_close(detector.losses(outputs, labels, None, numbers)["loss"], outputs.loss)
    assert detector(*features(), labels=labels).class_loss is None
    with pytest.raises(ValueError, match=r"class_labels must be class numbers from 0 to 4, got \[0, 5\]"):
        detector(*features(), labels=labels, class_labels=torch.tensor([0, 5, 0]))
    with pytest.raises(ValueError, match=r"this one has no classes: num_labels is 2. Give a config with more"):
        build()(*features(), labels=labels, class_labels=numbers)


@torch.no_grad()
def test_padding_and_scores_are_as_without_classes():
    detector, (visual, audio) = build(num_labels=5), features()
    mask = torch.arange(5) < torch.tensor([5, 2, 1]).unsqueeze(1)
    outputs = detector(visual, audio, mask)
    assert outputs.class_logits.shape == (3, 5, 5) and not outputs.class_logits[~mask].any()
    alone = detector(visual[1:2, :2], audio[1:2, :2])
    torch.testing.assert_close(outputs.class_logits[1, :2], alone.class_logits[0], rtol=1e-5, atol=1e-5)
    probabilities = detector.probabilities(outputs)
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities, outputs.class_logits.double().softmax(-1))
    plain = build()
    plain.begin_with(detector)
    assert torch.equal(plain(visual, audio, mask).logits, outputs.logits)


@torch.no_grad()
def test_fine_tuning_keeps_the_classes_that_are_the_same():
    known = build(id2label=dict(enumerate(NAMES)))
    same, other = build(id2label=dict(enumerate(NAMES))), build(num_labels=4)
    for detector in (same, other):
        detector.class_classifier.weight.fill_(7.0)
    same.begin_with(known)
    other.begin_with(known)
    assert torch.equal(same.class_classifier.weight, known.class_classifier.weight)
    assert (other.class_classifier.weight == 7).all()
    assert torch.equal(other.classifier.weight, known.classifier.weight)


def test_untrained_ones(tmp_path):
    made = init("avaca", tmp_path / "new", size="tiny", classes=["fire", "normal", "theft"])
    assert made.model.config.normal_labels == ["normal"] and made.model.class_classifier.out_features == 3
    with pytest.raises(ValueError, match=r"AVACA names three classes or more, got normal, fire. Of two its score"):
        init("avaca", tmp_path / "other", size="tiny", classes=["normal", "fire"])


# Training and evaluation


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return str(plant(tmp_path_factory.mktemp("classes") / "store", num_videos=60, signal=4.0))


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory):
    place = tmp_path_factory.mktemp("trained") / "run"
    config = TrainingConfig(
        data=store, output_dir=str(place), epochs=3, architecture="avaca", model_options=SMALL | {"num_labels": 3}
    )
    return train(config, progress=False), place


def test_training_learns_both(trained, store):
    result, place = trained
    config = json.loads((place / "config.json").read_text())
    assert config["id2label"] == {"0": "normal", "1": "bus", "2": "horse"} and config["normal_labels"] == ["normal"]
    assert not result.warnings or "learns anomaly alone" not in " ".join(result.warnings)
    first, *_, last = [json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()]
    for part in ("train", "validation"):
        assert last[part]["class_loss"] < first[part]["class_loss"]
        assert {"loss", "dmil_loss", "center_loss"} < last[part].keys()
    assert 0 <= last["validation"]["top1_accuracy"] <= 1
    # The validation loss is that of all videos as one batch, classes among it.
    model = AutoModelForVideoClassification.from_pretrained(place)
    data = FeatureDataset(store, "validation").with_classes(NAMES, beside=True)
    batch = data.collate([data[index] for index in range(len(data))])
    assert batch["class_labels"].tolist() == [NAMES.index(row["label"]) for row in data.rows]
    assert batch["labels"].tolist() == [row["anomaly"] for row in data.rows]
    given = {name: batch[name] for name in ("visual_features", "audio_features", "clip_mask")}
    with torch.no_grad():
        whole = model(**given, labels=batch["labels"], class_labels=batch["class_labels"])
    assert result.validation["loss"] == pytest.approx(whole.loss.item(), rel=1e-4)
    assert result.validation["class_loss"] == pytest.approx(whole.class_loss.item(), rel=1e-4)


def test_evaluation_has_both(trained, store, tmp_path):
    model = AutoModelForVideoClassification.from_pretrained(trained[1])
    data = FeatureDataset(store, "test")
    done = evaluate(model, data, num_resamples=0)
    figures = done.figures
    assert figures["clip"]["roc_auc"] and figures["frame"]["roc_auc"] and figures["undefined"] == {}
    scored = score_clips(model, data)
    expected = [NAMES[int(naive_logits(item["class_logits"], item["scores"]).argmax())] for item in scored]
    assert [video["predicted"] for video in done.videos] == expected
    truth = [row["label"] for row in data.rows]
    confusion = [[sum(a == x and b == y for a, b in zip(truth, expected, strict=True)) for y in NAMES] for x in NAMES]
    assert figures["events"]["confusion_matrix"] == confusion
    assert figures["events"]["top1_accuracy"] == pytest.approx(np.mean(np.array(truth) == np.array(expected)))
    assert list(figures["events"]["top1_recall"]) == NAMES
    # The figures of the scores are those of any detector of clips, and so is the report.
    page = write_report(figures, done.videos, tmp_path, "classes").read_text(encoding="utf-8")
    assert "Event classes" in page and "clips" in page and "1 minus the probability" not in page
    # Videos of other classes are scored all the same.
    other = data.where(lambda row: True)
    other.rows = [row | {"label": "ship"} if row["label"] == "bus" else row for row in other.rows]
    without = evaluate(model, other, num_resamples=0).figures
    assert "events" not in without and without["video"]["roc_auc"] == figures["video"]["roc_auc"]
    assert "No figures of classes. Videos are labelled ship, which is no class of the model" in without["notes"][-1]


def test_events_of_recordings_have_classes(trained, store):
    model = AutoModelForVideoClassification.from_pretrained(trained[1])
    _, recordings = scored_recordings(model, FeatureDataset(store, "test"))
    assert all(set(one.classes.tolist()) <= {1, 2} for one in recordings)


def test_crops_of_a_video_are_averaged():
    rows = [{"id": f"a#{crop}", "video_id": "a", "crop": crop} for crop in range(2)] + [{"id": "b"}]
    scored = [{"scores": np.full(2, value), "class_logits": np.full((2, 3), 10 * value)} for value in (0.2, 0.4, 0.5)]
    first, second = class_logits_of_videos(rows, scored)
    np.testing.assert_allclose(first["scores"], 0.3)
    np.testing.assert_allclose(first["class_logits"], 3.0)
    np.testing.assert_allclose(second["class_logits"], 5.0)


def test_classes_of_training_are_checked(store, tmp_path):
    def settings(**options):
        return TrainingConfig(data=store, output_dir=str(tmp_path / "run"), model_options=SMALL | options)

    data = FeatureDataset(store, "train")
    with pytest.raises(ValueError, match="num_labels is 5, but these videos have 3 classes: normal, bus, horse"):
        new_model(settings(num_labels=5), data)
    named, _ = new_model(settings(id2label={"0": "horse", "1": "normal", "2": "bus"}), data)
    assert named.config.normal_labels == ["normal"] and named.config.num_labels == 3
    with pytest.raises(ValueError, match="RtfmConfig has no option num_labels"):
        new_model(
            TrainingConfig(data=store, output_dir="x", architecture="rtfm", model_options={"num_labels": 3}), data
        )


# The pipeline


@pytest.fixture(scope="module")
def naming(tiny, tmp_path_factory) -> Path:
    """A checkpoint of which every clip is a bus more than a horse, and normal most of all."""
    place = tmp_path_factory.mktemp("naming")
    processor = AutoProcessor.from_pretrained(tiny)
    old = AutoModelForVideoClassification.from_pretrained(tiny)
    config = AvacaConfig.from_dict(
        old.config.to_dict() | {"id2label": dict(enumerate(NAMES)), "label2id": None, "notice": None}
    )
    detector = AvacaForAnomalyDetection(config)
    detector.begin_with(old)
    detector.class_classifier.weight.data.zero_()
    detector.class_classifier.bias.data = torch.tensor([3.0, 2.0, 1.0])
    detector.save_pretrained(place)
    processor.save_pretrained(place)
    return place


def test_the_pipeline_names_events(naming, tiny_pipe, bikes, tmp_path):
    detect = pipeline("audio-visual-anomaly", model=str(naming), dtype="float32")
    video = beginning(bikes, tmp_path / "bikes.mp4")
    result = detect(video, threshold=0.0)
    assert result["label"] == "bus" and [event["label"] for event in result["events"]] == ["bus"]
    probabilities = torch.tensor([3.0, 2.0, 1.0]).softmax(0).tolist()
    for clip in result["clips"]:
        assert clip["label"] == "bus"
        assert clip["probabilities"] == pytest.approx(dict(zip(NAMES, probabilities, strict=True)))
    assert result["score"] == pytest.approx(tiny_pipe(video)["score"])
    quiet = detect(video, threshold=1.0)
    assert quiet["label"] == "normal" and quiet["events"] == []
