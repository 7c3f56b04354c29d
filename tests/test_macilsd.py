"""MACIL-SD: network, losses, twin against their definitions, padding, refusals, and what generic code makes of it."""

import math
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import (
    FeatureDataset,
    MacilsdConfig,
    MacilsdForAnomalyDetection,
    MacilsdModel,
    TrainingConfig,
    evaluate,
    train,
)
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.macilsd.losses_macilsd import contrast_loss, video_logits
from avad_hf.models.macilsd.modeling_macilsd import sample_clips
from avad_hf.untrained import init

from .feature_stores import plant

TINY = {"visual_size": 6, "audio_size": 5, "hidden_size": 8, "num_heads": 2, "feedforward_size": 4, "dropout": 0.0}


def features(lengths=(20, 4, 1), seed=0):
    """Features of a batch, and its mask."""
    rng = torch.Generator().manual_seed(seed)
    batch, clips = len(lengths), max(lengths)
    visual = torch.randn(batch, clips, 6, 2, 3, generator=rng)
    audio = torch.randn(batch, clips, 3, 5, generator=rng)
    return visual, audio, torch.arange(clips) < torch.tensor(lengths).unsqueeze(1)


def model(**fields) -> MacilsdForAnomalyDetection:
    """With weights that are nowhere 0 or 1, so that nothing goes unnoticed."""
    detector = MacilsdForAnomalyDetection(MacilsdConfig(**TINY | fields))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.normal_(std=0.5, generator=rng)
    return detector.eval()


@torch.no_grad()
def undecided(detector, visual, audio, mask):
    """A detector that calls about half of these videos anomalous, as the contrast needs it."""
    scores = video_logits(detector.eval()(visual, audio, mask).logits, mask)
    detector.classifier.bias -= scores.mean() / 2  # which is in the logit twice
    return detector


# The network, one clip after the other


def naive_layer(layer, x, other):
    """What clips of shape `(T, C)` become that attend to others."""
    weights = {name: value.double() for name, value in layer.state_dict().items()}

    def linear(name, row):
        return weights[f"{name}.weight"] @ row + weights[f"{name}.bias"]

    def normal(name, row):
        centred = row - row.mean()
        scaled = centred / (centred.square().mean() + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    rows, size = [], x.shape[1] // layer.num_heads
    for row in x:
        query, attended = linear("query", normal("query_norm", row)), []
        for head in range(layer.num_heads):
            part = slice(head * size, (head + 1) * size)
            keys = [linear("key", o)[part] for o in other]
            likeness = torch.stack([(query[part] @ key) / math.sqrt(size) for key in keys]).exp()
            values = [linear("value", o)[part] for o in other]
            attended.append(sum(w * v for w, v in zip(likeness / likeness.sum(), values, strict=True)))
        row = row + linear("output", torch.cat(attended))
        rows.append(row + linear("outer", linear("inner", normal("norm", row)).relu()))
    return torch.stack(rows)


def naive_forward(detector, visual, audio):
    """Outputs of one video, by their names."""

    def linear(layer, x):
        return x @ layer.weight.double().T + layer.bias.double()

    seen, heard = visual.double().mean((2, 3)), audio.double().mean(1)
    body, twin = detector.macilsd, detector.twin
    x, y = linear(body.visual_projection, seen), linear(body.audio_projection, heard)
    states = naive_layer(body.layer, x, y), naive_layer(body.layer, y, x)
    logits = [linear(detector.classifier, state)[:, 0] for state in states]
    alone = linear(twin.visual_projection, seen)
    return {
        "logits": logits[0] + logits[1],
        "visual_logits": logits[0],
        "audio_logits": logits[1],
        "twin_logits": linear(twin.classifier, naive_layer(twin.layer, alone, alone))[:, 0],
        "visual_states": states[0],
        "audio_states": states[1],
    }


@torch.no_grad()
def test_network_equals_its_definition():
    detector, lengths = model(), (20, 4, 1)
    visual, audio, mask = features(lengths)
    outputs = detector(visual, audio, mask)
    for index, length in enumerate(lengths):
        expected = naive_forward(detector, visual[index, :length], audio[index, :length])
        assert expected.keys() == set(detector.clip_outputs)
        for name, value in expected.items():
            torch.testing.assert_close(outputs[name][index, :length], value.float(), rtol=1e-4, atol=1e-4)
    assert (detector.scores(outputs)[~mask] == 0).all()
    why = detector.explain(outputs)
    torch.testing.assert_close((why["visual_logits"] + why["audio_logits"])[mask], outputs.logits[mask])


def test_size_and_first_weights():
    detector = MacilsdForAnomalyDetection(MacilsdConfig(visual_size=1024))
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in detector.named_children()}
    # Layers of the published networks that nothing uses: an attention with its norm, a norm, two linear layers.
    unused = (4 * (128 * 128 + 128) + 256) + 256 + 2 * (128 * 128 + 128)
    assert unused == 99_584
    assert counts["macilsd"] + counts["classifier"] + unused == 347_009  # 0.347 M as published
    assert sum(counts.values()) + 2 * unused == 677_506  # 0.678 M with the twin
    for name, value in detector.named_parameters():
        if "norm" in name:
            assert (value == (0 if name.endswith("bias") else 1)).all(), name
        elif name.endswith("weight"):
            bound = 1 / math.sqrt(value.shape[1])
            assert bound * 0.95 < value.abs().max() <= bound, name


# Losses


def naive_losses(values, labels, lengths, temperature):
    """All losses of some videos, one after the other."""

    def order(row, length):
        return sorted(range(length), key=lambda clip: -row[clip])

    def decided(name):
        scores = []
        for row, length in zip(values[name].tolist(), lengths, strict=True):
            best = order(row, length)[: length // 16 + 1]
            scores.append(1 / (1 + math.exp(-sum(row[clip] for clip in best) / len(best))))
        return scores

    def entropy(name):
        terms = [-math.log(p if label else 1 - p) for p, label in zip(decided(name), labels, strict=True)]
        return sum(terms) / len(terms)

    called = [score > 0.5 for score in decided("logits")]
    chosen = {}
    for sense in ("audio", "visual"):
        for index, length in enumerate(lengths):
            ranked = order(values[f"{sense}_logits"][index].tolist(), length)
            count = length // 16 + 1
            states = values[f"{sense}_states"][index]
            chosen[sense, index] = states[ranked[:count]], states[ranked[::-1][:count]]
    terms = []
    for index in [index for index, is_anomalous in enumerate(called) if is_anomalous and not all(called)]:
        term = 0.0
        for one, other in (("audio", "visual"), ("visual", "audio")):
            query, positive = chosen[one, index][0].mean(0), chosen[other, index][0].mean(0)
            lowest = torch.cat([chosen[other, i][1] for i in range(len(lengths))])
            highest = torch.cat([chosen[other, i][0] for i in range(len(lengths)) if not called[i]])
            for negatives in (lowest, highest):
                likeness = [torch.cosine_similarity(query, x, dim=0) / temperature for x in (positive, *negatives)]
                term -= torch.stack(likeness).log_softmax(0)[0].item()
        terms.append(term)
    return {
        "video_loss": entropy("logits"),
        "contrast_loss": sum(terms) / len(terms) if terms else 0.0,
        "twin_loss": entropy("twin_logits"),
    }


@pytest.mark.parametrize("labels", [[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
@pytest.mark.parametrize("shift", [0.0, -20.0, 20.0])  # all of them called normal, or anomalous
def test_losses_equal_their_definitions(labels, shift):
    torch.manual_seed(0)
    lengths = [40, 17, 1, 5]
    values = {name: torch.randn(4, 40) for name in ("audio_logits", "visual_logits", "twin_logits")}
    values |= {name: torch.randn(4, 40, 8) for name in ("audio_states", "visual_states")}
    values["logits"] = values["audio_logits"] + values["visual_logits"] + shift
    values["logits"][1] -= 10
    mask = torch.arange(40) < torch.tensor(lengths).unsqueeze(1)
    detector = model()
    found = detector.losses(SimpleNamespace(**values), torch.tensor(labels).float(), mask)
    expected = naive_losses(values, labels, lengths, 0.1)
    expected = {"loss": sum(expected.values()) + 0.5 * expected["contrast_loss"]} | expected
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-4, abs=1e-6), name
    # The order of the videos does not matter.
    turned = SimpleNamespace(**{name: value.flip(0) for name, value in values.items()})
    again = detector.losses(turned, torch.tensor(labels).flip(0).float(), mask.flip(0))
    assert all(again[name].item() == pytest.approx(found[name].item(), rel=1e-5) for name in found)


def test_contrast_pulls_the_senses_of_anomalous_videos_together():
    torch.manual_seed(0)
    values = {name: torch.randn(4, 6) for name in ("logits", "audio_logits", "visual_logits")}
    values["logits"] = torch.tensor([9.0, -9.0, 9.0, -9.0]).unsqueeze(1).expand(4, 6)
    apart = {name: torch.randn(4, 6, 8, requires_grad=True) for name in ("audio_states", "visual_states")}
    together = {name: torch.eye(8)[[0, 1, 0, 1]].unsqueeze(1).expand(4, 6, 8) for name in apart}
    mask = torch.ones(4, 6, dtype=torch.bool)
    loss = contrast_loss(**values, **apart, clip_mask=mask, temperature=0.1)
    loss.backward()
    assert all(state.grad.abs().sum() > 0 for state in apart.values())
    assert contrast_loss(**values, **together, clip_mask=mask, temperature=0.1) < loss


def test_a_video_is_judged_by_a_sixteenth_of_its_clips():
    logits = torch.arange(64.0).repeat(3, 1)
    mask = torch.arange(64) < torch.tensor([[15], [16], [63]])
    assert video_logits(logits, mask).tolist() == [14.0, 14.5, 60.5]


# Training


def test_weight_of_the_contrast_grows_with_the_epochs():
    visual, audio, mask = features((20, 7, 12))
    detector = undecided(model(videos_per_epoch=6, distillation=0.0), visual, audio, mask).train()
    labels, weights = torch.tensor([0, 1, 1]), []
    for _ in range(5):
        outputs = detector(visual, audio, mask, labels=labels)
        rest = outputs.loss - outputs.video_loss - outputs.twin_loss
        weights.append((rest / outputs.contrast_loss).item())
    assert outputs.contrast_loss > 0
    assert weights == pytest.approx([0.0, 0.1, 0.1, 0.2, 0.2], abs=1e-4)  # two batches of three are an epoch
    assert detector.twin.videos_seen.item() == 15
    detector.twin.videos_seen += 6 * 100
    outputs = detector(visual, audio, mask, labels=labels)
    rest = outputs.loss - outputs.video_loss - outputs.twin_loss
    assert (rest / outputs.contrast_loss).item() == pytest.approx(1.5, rel=1e-3)
    seen = detector.twin.videos_seen.item()
    detector(visual, audio, mask)  # without labels nothing is learnt
    detector.eval()(visual, audio, mask, labels=labels)
    assert detector.twin.videos_seen.item() == seen


@torch.no_grad()
def test_sight_takes_over_weights_of_the_twin_after_each_epoch():
    detector = model(videos_per_epoch=6, distillation_epochs=4).train()
    visual, audio, mask = features((4, 7, 5))
    pairs = {
        "macilsd.visual_projection.weight": "twin.visual_projection.weight",
        "macilsd.layer.query.weight": "twin.layer.query.weight",
        "macilsd.layer.norm.bias": "twin.layer.norm.bias",
        "classifier.bias": "twin.classifier.bias",
    }
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    shares = []
    for _ in range(12):
        last = {name: value.clone() for name, value in detector.state_dict().items()}
        detector(visual, audio, mask, labels=torch.tensor([0, 1, 1]))
        now = detector.state_dict()
        found = [((now[a] - last[a]) / (last[b] - last[a])).mean().item() for a, b in pairs.items()]
        assert found == pytest.approx([found[0]] * 4, abs=1e-3)
        shares.append(found[0])
        same = [name for name in now if torch.equal(now[name], before[name])]
        assert "macilsd.audio_projection.weight" in same and all(name in same for name in pairs.values())
    # Before the batches that begin an epoch; the first one's share is 0.09, the last's 0.
    expected = [0.045 * (1 + math.cos(math.pi * min(1, epoch / 4))) for epoch in range(5)]
    assert shares[2::2] == pytest.approx(expected, abs=1e-4) and shares[0] == shares[1] == shares[3] == 0


def test_an_epoch_has_the_videos_of_the_larger_class_twice():
    detector = model()
    detector.prepare(SimpleNamespace(rows=[{"anomaly": int(index < 3)} for index in range(10)]))
    assert detector.config.videos_per_epoch == 14


def test_clips_of_longer_videos_are_evenly_spread():
    x = torch.arange(10.0).view(1, 10, 1).repeat(3, 1, 1)
    mask = torch.arange(10) < torch.tensor([[10], [6], [2]])
    taken, kept = sample_clips(x, mask, 4)
    assert kept.sum(1).tolist() == [4, 4, 2]
    assert taken[0, :, 0].tolist() == [0, 3, 6, 9] and taken[1, :, 0].tolist() == [0, 1, 3, 5]
    assert taken[2, :2, 0].tolist() == [0, 1]
    assert sample_clips(x, None, 10)[0] is x and sample_clips(x, None, 3)[0][0, :, 0].tolist() == [0, 4, 9]
    assert sample_clips(x, None, 1)[0].shape == (3, 1, 1)
    # Padding may lie anywhere.
    holes = torch.tensor([[True, False, True, True, False] * 2]).repeat(3, 1)
    assert sample_clips(x, holes, 3)[0][0, :, 0].tolist() == [0, 3, 8]
    detector = model(max_clips=4).train()
    visual, audio, mask = features((9, 4, 1))
    assert detector(visual, audio, mask).logits.shape == (3, 4)
    assert detector.eval()(visual, audio, mask).logits.shape == (3, 9)


# Batches


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    """All results are those of the real clips, whatever the padding holds; a video of padding alone counts nothing."""
    visual, audio, mask = features((9, 4, 1))
    labels, found = torch.tensor([0, 1, 1]), []
    for filler in (None, 1e4, float("nan")):
        detector = undecided(model(contrast_growth=1.0), visual, audio, mask).train(training)
        detector.twin.videos_seen += detector.config.videos_per_epoch
        detector.twin.epochs_passed += 1
        v, a, m, y = visual, audio, mask, labels
        if filler is not None:  # longer, and with a fourth video that is none
            v = torch.cat([v, v.new_zeros(3, 4, *v.shape[2:])], 1).repeat(2, 1, 1, 1, 1)[:4]
            a = torch.cat([a, a.new_zeros(3, 4, *a.shape[2:])], 1).repeat(2, 1, 1, 1)[:4]
            m = torch.zeros(4, 13, dtype=torch.bool)
            m[:3, :9] = mask
            v = v.masked_fill(~m[..., None, None, None], filler)
            a = a.masked_fill(~m[..., None, None], filler)
            y = torch.tensor([0, 1, 1, 1])
        outputs = detector(v, a, m, labels=y)
        outputs.loss.backward()
        assert outputs.contrast_loss > 0
        found.append((outputs.logits[m], outputs.loss, *(p.grad for p in detector.parameters())))
        if filler is not None:
            assert (detector.scores(outputs)[3] == 0).all() and (outputs.visual_states[3] == 0).all()
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [(1,), (1, 1), (5, 0), (40, 3, 0), (0, 0)])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("error")
def test_gradients_are_finite_for_odd_batches(lengths, label):
    detector = MacilsdForAnomalyDetection(MacilsdConfig(**TINY | {"dropout": 0.1})).train()
    visual, audio, mask = features(tuple(max(1, length) for length in lengths))
    mask &= torch.tensor(lengths).unsqueeze(1) > 0
    outputs = detector(visual, audio, mask, labels=torch.full((len(lengths),), label))
    outputs.loss.backward()
    assert all(value.isfinite() for name, value in outputs.items() if name.endswith("loss"))
    assert all(p.grad.isfinite().all() for p in detector.parameters())
    assert any(p.grad.abs().sum() > 0 for p in detector.parameters()) == any(lengths)


# Refusals


def test_other_input_is_refused_by_name():
    visual, audio, mask = features()
    detector = model()
    with pytest.raises(ValueError, match="MACIL-SD with inputs 'both' needs audio_features"):
        detector(visual, clip_mask=mask)
    with pytest.raises(ValueError, match=r"labels must be 0 \(normal\) or 1 \(anomalous\), got"):
        detector(visual, audio, mask, labels=torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=r"losses need audio_logits, visual_logits, .* as forward gives them"):
        detector.losses(SimpleNamespace(logits=torch.zeros(1, 3)), torch.zeros(1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": "visual"}, "inputs"),
        ({"num_heads": 3}, "hidden_size 128 must be a multiple of num_heads 3"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1, got 1.0"),
        ({"temperature": 0}, "temperature must be 0.001 or more, got 0"),
        ({"distillation": 1.5}, "distillation must be within 0 and 1, got 1.5"),
        ({"videos_per_epoch": 0}, "videos_per_epoch must be 1 or more, got 0"),
    ],
)
def test_configs_out_of_range_are_refused(settings, words):
    with pytest.raises(Exception, match=words):
        MacilsdConfig(**settings)


# What generic code makes of it


def test_config_fits_stored_features(tmp_path):
    data = FeatureDataset(plant(tmp_path / "store", num_videos=4, shape=(7, 2, 3), steps=8, audio_size=5))
    item = data[0]
    config = MacilsdConfig.for_data(item, data.rows, data.recipe, hidden_size=16)
    assert (config.visual_size, config.audio_size, config.hidden_size) == (7, 5, 16)
    assert config.detector_spec.inputs == {"visual_features": 7, "audio_features": 5}
    assert config.detector_spec.context == WHOLE_VIDEO and "hears zeros" in config.silence_notice
    with pytest.raises(ValueError, match="reads sight and sound, but these videos have no audio_features"):
        MacilsdConfig.for_data({"visual_features": item["visual_features"]}, data.rows, None)


@torch.no_grad()
def test_exported_graph_gives_the_same():
    detector = model()
    processor = SimpleNamespace(networks_to_export=lambda batches: iter(()), feature_grid=(2, 3), num_pictures=3)
    (network,) = detector.networks_to_export(processor, [])
    shapes = {"dynamic_shapes": network.dynamic_shapes, "strict": False}
    graph = torch.export.export(network.model, (), network.sample, **shapes).module()
    for lengths in ((9, 4, 1), (17, 3, 2, 1)):
        given = dict(zip(("visual_features", "audio_features", "clip_mask"), features(lengths), strict=True))
        expected, found = detector(**given), graph(**{name: given[name] for name in network.sample})
        for name in detector.clip_outputs:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5)


def test_published_recipe():
    config = TrainingConfig.from_profile("macilsd", data="store", output_dir="run", architecture="macilsd")
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 4e-4, 0)
    assert (config.batch_size, config.epochs, config.scheduler) == (128, 50, "cosine")


def test_it_learns(tmp_path):
    """On a planted store, where one clip of each anomalous video stands out."""
    store = plant(tmp_path / "store", num_videos=90, clips=(4, 16), signal=6.0, shape=(16, 1, 1))
    settings = {"epochs": 12, "batch_size": 16, "learning_rate": 3e-3, "model_options": {"hidden_size": 32}}
    folders = {"data": str(store), "output_dir": str(tmp_path / "run")}
    config = TrainingConfig.from_profile("macilsd", architecture="macilsd", **folders, **settings)
    result = train(config, progress=False)
    trained = AutoModelForVideoClassification.from_pretrained(result.output_dir)
    assert type(trained) is MacilsdForAnomalyDetection
    rows = FeatureDataset(store, "train").rows
    anomalous = sum(row["anomaly"] for row in rows)
    assert trained.config.videos_per_epoch == 2 * max(anomalous, len(rows) - anomalous)
    assert trained.twin.videos_seen == result.best_epoch * trained.config.videos_per_epoch
    assert trained.twin.epochs_passed == result.best_epoch - 1
    assert {"video_loss", "contrast_loss", "twin_loss"} < result.validation.keys()
    figures = evaluate(trained, FeatureDataset(store, "test"), num_resamples=0).figures
    assert figures["video"]["roc_auc"] > 0.8 and figures["frame"]["roc_auc"] > 0.7


@torch.no_grad()
def test_pipeline_sees_the_whole_video(tmp_path, bikes):
    """What it gives is what the model gives of all clips at once, not of the few that are read together."""
    folder = tmp_path / "macilsd"
    init("macilsd", folder, size="tiny")
    detect = pipeline("audio-visual-anomaly", model=str(folder), dtype="float32")
    assert type(detect.model) is MacilsdForAnomalyDetection and type(detect.model.macilsd) is MacilsdModel
    found = detect(bikes, batch_size=2)
    encoded = AutoProcessor.from_pretrained(folder)(bikes)
    scores = detect.model.scores(detect.model(**encoded))[0].tolist()
    assert len(scores) > 4 and [clip["score"] for clip in found["clips"]] == pytest.approx(scores, abs=1e-5)
    assert set(found["clips"][0]["why"]) == {"visual_logits", "audio_logits"}
    part = {name: value[:, :2] for name, value in encoded.items() if name.endswith("features")}
    assert abs(detect.model.scores(detect.model(**part))[0, 0].item() - scores[0]) > 1e-6
    assert any("Untrained detector" in warning for warning in found["warnings"])
