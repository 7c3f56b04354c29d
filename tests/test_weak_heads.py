"""AR-Net and MIST's first stage: networks and losses against their definitions, padding, refusals, training."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import (
    ArnetConfig,
    ArnetForAnomalyDetection,
    FeatureDataset,
    MistConfig,
    MistForAnomalyDetection,
    TrainingConfig,
    evaluate,
    train,
)
from avad_hf.models.mist.losses_mist import part_scores
from avad_hf.models.weak_labels import highest, mean_of, pairs, videos_of_classes
from avad_hf.untrained import init

from .feature_stores import plant
from .test_rtfm import averaged, features, randomise

WIDTHS = {"visual_size": 6, "audio_size": 5}
TINY = {
    ArnetForAnomalyDetection: WIDTHS | {"hidden_size": 8},
    MistForAnomalyDetection: WIDTHS | {"hidden_sizes": (8, 4), "num_parts": 4, "part_length": 2, "num_selected": 2},
}
HEADS = list(TINY)
every_head = pytest.mark.parametrize("kind", HEADS, ids=["arnet", "mist"])


def model(kind, **fields):
    return randomise(kind(kind.config_class(**TINY[kind] | fields))).eval()


# What the losses share


def test_highest_of_each_row():
    values = torch.tensor([[3.0, 1.0, 2.0, 9.0], [0.0, 0.0, 0.0, 0.0], [5.0, 6.0, 7.0, 8.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    found = highest(values, mask, 2)
    assert found[0].tolist() == [True, False, True, False] and found[1].sum() == 2 and not found[2].any()
    counts = torch.tensor([[1], [0], [4]])
    assert highest(values, mask, counts).tolist() == [[True, False, False, False], [False] * 4, [False] * 4]


def test_mean_of_nothing_is_zero():
    values = torch.tensor([[1.0, 2.0, math.inf], [1.0, math.nan, 5.0]], requires_grad=True)
    chosen = torch.tensor([[True, True, False], [False, False, False]])
    mean = mean_of(values, chosen)
    mean.sum().backward()
    assert mean.tolist() == [1.5, 0.0] and values.grad.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, 0, 1], [(0, 1), (2, 3)]),
        ([1, 1, 0, 0], [(2, 0), (3, 1)]),
        ([0, 1, 1, 1], [(0, 1), (0, 2), (0, 3)]),
        ([0, 0, 1, 0, 0, 1], [(0, 2), (1, 5), (3, 2), (4, 5)]),
        ([0, 0], []),
        ([1], []),
        ([], []),
    ],
)
def test_pairs_of_videos(labels, expected):
    labels = torch.tensor(labels)
    normal, anomalous, is_pair = pairs(labels == 0, labels == 1)
    assert list(zip(normal[is_pair].tolist(), anomalous[is_pair].tolist(), strict=True)) == expected
    mask = torch.ones(len(labels), 2, dtype=torch.bool)
    mask[:1] = False
    assert [int(part.sum()) for part in videos_of_classes(labels, mask)] == [
        int((labels[1:] == 0).sum()),
        int((labels[1:] == 1).sum()),
    ]


# The networks, one clip after the other


def naive_logit(detector, clip):
    """The logit of one clip of shape `(D,)`."""
    weights = {name: value.double() for name, value in detector.state_dict().items()}
    is_arnet = isinstance(detector, ArnetForAnomalyDetection)
    names = ["arnet.layer.linear"] if is_arnet else ["mist.layers.0.linear", "mist.layers.1.linear"]
    for number, name in enumerate(names):
        clip = weights[f"{name}.weight"] @ clip + weights[f"{name}.bias"]
        clip = clip.clamp_min(0) if number == 0 else clip
    return (weights["classifier.weight"] @ clip + weights["classifier.bias"]).item()


@every_head
@pytest.mark.parametrize("inputs", ["visual", "audio", "both"])
@torch.no_grad()
def test_network_equals_its_definition(kind, inputs):
    detector, lengths = model(kind, inputs=inputs), (9, 4, 1)
    visual, audio, mask = features(lengths)
    outputs = detector(visual, audio, mask, output_hidden_states=True)
    for index, length in enumerate(lengths):
        video = averaged(visual[index, :length], audio[index, :length], inputs).double()
        expected = [naive_logit(detector, clip) for clip in video]
        assert outputs.logits[index, :length].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert (detector.scores(outputs)[~mask] == 0).all()
    body = getattr(detector, detector.base_model_prefix)(visual, audio, mask)
    assert torch.equal(outputs.hidden_states[-1], body.clip_states)


def test_sizes_and_first_weights():
    published = {
        ArnetForAnomalyDetection: (2048, 4_198_401),  # 4.2 M
        MistForAnomalyDetection: (1024, 541_249),  # 0.54 M
    }
    for kind, (width, size) in published.items():
        detector = kind(kind.config_class(visual_size=width))
        assert sum(value.numel() for value in detector.parameters()) == size
        for name, value in detector.named_parameters():
            if name.endswith("bias"):
                assert (value == 0).all(), name
            else:
                bound = math.sqrt(6 / sum(value.shape))
                assert bound * 0.8 < value.abs().max() <= bound, name
    assert ArnetForAnomalyDetection(ArnetConfig(visual_size=20)).classifier.in_features == 20


@every_head
def test_dropout_follows_the_hidden_layers(kind):
    detector, seen = model(kind, **{"hidden_size": 400} if kind is HEADS[0] else {"hidden_sizes": (400, 300)}), []
    layers = [detector.classifier] if kind is HEADS[0] else [detector.mist.layers[1].linear, detector.classifier]
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    visual, _, _ = features((30,))
    with torch.no_grad():
        detector(visual)
        quiet = [(value == 0).float().mean().item() for value in seen]
        seen.clear()
        detector.train()(visual)
    for value, zeros in zip(seen, quiet, strict=True):  # ReLU's zeros are among them
        dropped = detector.config.dropout
        assert (value == 0).float().mean().item() == pytest.approx(zeros + (1 - zeros) * dropped, abs=0.03)


# Losses


def naive_arnet(scores, labels, config):
    entropy, variance = [], []
    for video, label in zip(scores, labels, strict=True):
        top = sorted(video, reverse=True)[: math.ceil(len(video) / config.alpha)]
        entropy.append(sum(-math.log(score if label else 1 - score) for score in top) / len(top))
        if not label:
            mean = sum(video) / len(video)
            variance.append(sum((score - mean) ** 2 for score in video) / max(1, len(video) - 1))
    losses = {
        "dmil_loss": sum(entropy) / len(entropy),
        "center_loss": sum(variance) / len(variance) if variance else 0.0,
    }
    return {"loss": losses["dmil_loss"] + 20 * losses["center_loss"], **losses}


def naive_parts(video, config):
    """Scores of the parts of one video, each from the beginning of its stretch."""
    parts, length = [], len(video)
    for number in range(config.num_parts):
        start = max(0, min(number * length // config.num_parts, length - config.part_length))
        clips = [min(start + step, length - 1) for step in range(config.part_length)]
        parts.append(sum(video[clip] for clip in clips) / len(clips))
    return parts


def naive_mist(scores, labels, config):
    parts = [naive_parts(video, config) for video in scores]
    judged = [sum(sorted(video)[-config.num_selected :]) / config.num_selected for video in parts]
    normal, anomalous = ([judged[i] for i, label in enumerate(labels) if label == value] for value in (0, 1))
    count = max(len(normal), len(anomalous)) if normal and anomalous else 0
    hinges = [max(0, 1 - anomalous[i % len(anomalous)] + normal[i % len(normal)]) for i in range(count)]
    sparse = [sum(video) / len(video) for video, label in zip(parts, labels, strict=True) if label]
    losses = {
        "ranking_loss": sum(hinges) / count if count else 0.0,
        "sparsity_loss": sum(sparse) / len(sparse) if sparse else 0.0,
    }
    return {"loss": losses["ranking_loss"] + 0.01 * losses["sparsity_loss"], **losses}


@every_head
@pytest.mark.parametrize(
    "labels", [[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
)
def test_losses_equal_their_definitions(kind, labels):
    lengths = [9, 2, 1, 15]
    torch.manual_seed(0)
    logits, mask = 2 * torch.randn(4, 15), torch.arange(15) < torch.tensor(lengths).unsqueeze(1)
    detector = model(kind)
    scores = [row[:length].sigmoid().tolist() for row, length in zip(logits, lengths, strict=True)]
    expected = (naive_arnet if kind is HEADS[0] else naive_mist)(scores, labels, detector.config)
    # In a batch with a video of padding alone, which counts for nothing.
    logits, mask = torch.cat([logits, logits[:1]]), torch.cat([mask, torch.zeros_like(mask[:1])])
    found = detector.losses(SimpleNamespace(logits=logits), torch.tensor([*labels, 0]).float(), mask)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-5), name


@every_head
def test_losses_of_parts_average_to_those_of_the_batch(kind):
    """Of equal parts of pairs: what makes a run by several processes the same run."""
    logits, labels, detector = torch.randn(8, 6), torch.tensor([0, 1] * 4), model(kind)
    whole = detector.losses(SimpleNamespace(logits=logits), labels)
    parts = [
        detector.losses(SimpleNamespace(logits=logits[part]), labels[part]) for part in (slice(0, 4), slice(4, 8))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)


def test_parts_begin_anywhere_in_their_stretch_in_training():
    scores = torch.arange(100.0).repeat(400, 1)
    mask = torch.ones(400, 100, dtype=torch.bool)
    fixed = part_scores(scores, mask, 4, 3)
    assert fixed[0].tolist() == [1.0, 26.0, 51.0, 76.0]
    torch.manual_seed(0)
    drawn = part_scores(scores, mask, 4, 3, at_random=True) - fixed
    assert drawn.unique().tolist() == list(range(23))  # a part of 3 fits into a stretch of 25 in 23 ways
    assert drawn.mean().item() == pytest.approx(11, abs=0.5)
    # Of a short video there is but one way; padding may lie anywhere, and is in no part.
    holes = torch.tensor([[True, False, True, False, True, False]])
    values = torch.tensor([[1.0, 99.0, 2.0, 99.0, 6.0, 99.0]])
    for at_random in (False, True):
        assert part_scores(values, holes, 2, 2, at_random).tolist() == [[1.5, 4.0]]
        assert part_scores(values, holes, 1, 4, at_random).tolist() == [[3.75]]  # its last clip again


def test_mist_draws_parts_in_training_alone():
    detector, labels = model(HEADS[1], dropout=0.0), torch.tensor([0, 1])
    outputs = SimpleNamespace(logits=3 * torch.randn(2, 60))
    assert len({detector.losses(outputs, labels)["loss"].item() for _ in range(4)}) == 1
    assert len({detector.train().losses(outputs, labels)["loss"].item() for _ in range(4)}) == 4


# Batches


@every_head
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(kind, training):
    visual, audio, mask = features((9, 4, 1))
    found = []
    for filler in (None, 0.0, 1e4, float("nan")):
        detector = model(kind, inputs="both", dropout=0.0).train(training)
        v, a, m, labels = visual, audio, mask, torch.tensor([0, 1, 1])
        if filler is not None:  # longer, and with a fourth video that is none
            v = torch.cat([v, v.new_zeros(3, 4, *v.shape[2:])], 1).repeat(2, 1, 1, 1, 1)[:4]
            a = torch.cat([a, a.new_zeros(3, 4, *a.shape[2:])], 1).repeat(2, 1, 1, 1)[:4]
            m = torch.zeros(4, 13, dtype=torch.bool)
            m[:3, :9] = mask
            v = v.masked_fill(~m[..., None, None, None], filler)
            a = a.masked_fill(~m[..., None, None], filler)
            labels = torch.tensor([0, 1, 1, 1])
        torch.manual_seed(0)
        outputs = detector(v, a, m, labels=labels)
        outputs.loss.backward()
        found.append((outputs.logits[m], outputs.loss, *(p.grad for p in detector.parameters())))
        assert (detector.scores(outputs)[~m] == 0).all()
    for other in found[1:]:
        for one, two in zip((found[0][0], *found[0][2:]), (other[0], *other[2:]), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other[1], found[0][1])


@every_head
@pytest.mark.parametrize("lengths", [(1,), (2, 1), (5, 0), (0, 0)])
@pytest.mark.parametrize("label", [0, 1])
def test_gradients_are_finite_for_odd_batches(kind, lengths, label):
    detector = model(kind).train()
    visual, _, mask = features((*lengths, 3))
    outputs = detector(visual[:-1], clip_mask=mask[:-1], labels=torch.full((len(lengths),), label))
    outputs.loss.backward()
    assert all(value.isfinite() for name, value in outputs.items() if name.endswith("loss"))
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    if not any(lengths):
        assert outputs.loss.item() == 0


@every_head
@torch.no_grad()
def test_clips_do_not_see_each_other(kind):
    detector = model(kind)
    visual, _, _ = features((9,))
    assert detector.detector_spec.context == 0
    whole, alone = detector(visual).logits, detector(visual[:, 3:4]).logits
    torch.testing.assert_close(whole[:, 3:4], alone)


# Refusals


@every_head
def test_other_input_and_labels_are_refused(kind):
    visual, audio, _ = features()
    title = kind.config_class.title.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"{title} with inputs 'visual' needs visual_features"):
        model(kind)(audio_features=audio)
    with pytest.raises(ValueError, match=r"labels must be 0 \(normal\) or 1 \(anomalous\), got"):
        model(kind)(visual, labels=torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (ArnetConfig, {"hidden_size": 0}, "hidden_size must be 1 or more, got 0"),
        (ArnetConfig, {"dropout": 1.0}, "dropout must be within 0 and 0.99, got 1.0"),
        (ArnetConfig, {"alpha": 0}, "alpha must be 1 or more, got 0"),
        (ArnetConfig, {"center_weight": -1}, "center_weight must be 0 or more, got -1"),
        (MistConfig, {"hidden_sizes": ()}, r"hidden_sizes needs numbers of 1 or more, at least one, got \[\]"),
        (MistConfig, {"num_selected": 33}, "num_selected 33 is more than num_parts 32: a video has no more parts"),
        (MistConfig, {"part_length": 0}, "part_length must be 1 or more, got 0"),
        (MistConfig, {"margin": float("inf")}, "margin must be a finite number"),
    ],
)
def test_configs_out_of_range_are_refused(config, settings, words):
    with pytest.raises(Exception, match=words):
        config(**settings)
    with pytest.raises(ValueError, match="not valid"):
        config.from_dict({"model_type": config.model_type} | settings)


# The contract


def test_stage_is_said():
    assert MistConfig().detector_spec.title == "MIST (stage 1)"
    assert "paper's figures are those of both" in MistConfig.summary


def test_published_recipes():
    config = TrainingConfig.from_profile("arnet", data="store", output_dir="run", architecture="arnet")
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 1e-4, 5e-4)
    assert config.epochs * math.ceil(175 / 30) == pytest.approx(20 * 238, rel=0.01)
    config = TrainingConfig.from_profile("mist", data="store", output_dir="run", architecture="mist")
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adagrad", 1e-2, 1e-3)
    assert (config.batch_size, config.max_grad_norm) == (40, 10.0)


@pytest.mark.parametrize(
    ("name", "options", "settings"),
    [
        ("arnet", {}, {"learning_rate": 3e-3}),
        ("mist", {"hidden_sizes": [32, 16], "dropout": 0.3}, {}),
    ],
)
def test_it_learns(tmp_path, name, options, settings):
    """On a planted store, where one clip of each anomalous video stands out."""
    store = plant(tmp_path / "store", num_videos=90, clips=(4, 16), signal=6.0, shape=(32, 1, 1))
    settings |= {"data": str(store), "output_dir": str(tmp_path / "run"), "epochs": 16, "batch_size": 16}
    config = TrainingConfig.from_profile(name, architecture=name, model_options=options, **settings)
    result = train(config, progress=False)
    trained = AutoModelForVideoClassification.from_pretrained(result.output_dir)
    assert trained.config.model_type == name and trained.config.inputs == "visual"
    figures = evaluate(trained, FeatureDataset(store, "test"), num_resamples=0).figures
    assert figures["video"]["roc_auc"] > 0.8 and figures["frame"]["roc_auc"] > 0.7


@torch.no_grad()
def test_pipeline_gives_the_scores_of_the_model(tmp_path, bikes):
    folder = tmp_path / "mist"
    init("mist", folder, size="tiny", inputs="both")
    detect = pipeline("audio-visual-anomaly", model=str(folder), dtype="float32")
    found = detect(bikes, batch_size=2)
    expected = detect.model.scores(detect.model(**AutoProcessor.from_pretrained(folder)(bikes)))[0].tolist()
    assert [clip["score"] for clip in found["clips"]] == pytest.approx(expected, abs=1e-5)
    assert any("Untrained detector" in warning for warning in found["warnings"])
    assert type(detect.model) is MistForAnomalyDetection
