"""UR-DMU and BN-WVAD, which share a trunk: networks and losses against their definitions, padding, training."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import (
    BnwvadConfig,
    BnwvadForAnomalyDetection,
    FeatureDataset,
    TrainingConfig,
    UrdmuConfig,
    UrdmuForAnomalyDetection,
    evaluate,
    train,
)
from avad_hf.models.bnwvad.losses_bnwvad import anomalous_clips, triplet_loss
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.urdmu.losses_urdmu import cross_entropy, video_loss
from avad_hf.models.urdmu.trunk_urdmu import near_sums
from avad_hf.untrained import init

from .feature_stores import plant
from .test_rtfm import averaged, features, naive_segments, randomise

TRUNK = {
    "visual_size": 6,
    "audio_size": 5,
    "hidden_size": 8,
    "num_heads": 2,
    "head_size": 4,
    "feedforward_size": 6,
    "num_segments": 8,
}
TINY = {
    UrdmuForAnomalyDetection: TRUNK | {"num_slots": 20, "classifier_size": 5},
    BnwvadForAnomalyDetection: TRUNK | {"classifier_sizes": (6, 4)},
}
HEADS = list(TINY)
every_head = pytest.mark.parametrize("kind", HEADS, ids=["urdmu", "bnwvad"])
LABELS = [[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]


def model(kind, **fields):
    return randomise(kind(kind.config_class(**TINY[kind] | fields))).eval()


def losses_of(outputs):
    return {name: value for name, value in outputs.items() if name.endswith("loss")}


# The networks, one clip after the other


def linear(weights, name, x):
    bias = weights.get(f"{name}.bias")
    return x @ weights[f"{name}.weight"].T + (0 if bias is None else bias)


def naive_trunk(weights, config, x):
    """Features of the clips of one video of shape `(T, D)`."""
    kernel, count = weights["convolution.conv.weight"], len(x)
    rows = []
    for clip in range(count):
        row = weights["convolution.conv.bias"].clone()
        for tap in range(3):
            if 0 <= clip + tap - 1 < count:
                row += kernel[:, :, tap] @ x[clip + tap - 1]
        rows.append(row.relu())
    x = torch.stack(rows)
    # As published: column by column, not row by row.
    near = torch.tensor([[math.exp(-abs(i - j) / math.e) for j in range(count)] for i in range(count)]).double()
    near = near / near.sum(0)

    def norm(name, x):
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    for number in range(config.num_layers):
        layer = f"layers.{number}"
        parts = linear(weights, f"{layer}.attention.projection", norm(f"{layer}.attention_norm", x)).chunk(4, dim=1)
        heads = []
        for head in range(config.num_heads):
            cut = slice(head * config.head_size, (head + 1) * config.head_size)
            q, k, v, t = (part[:, cut] for part in parts)
            heads += [(q @ k.T / math.sqrt(config.head_size)).softmax(1) @ v, near @ t]
        x = x + linear(weights, f"{layer}.attention.output", torch.cat(heads, dim=1))
        hidden = linear(weights, f"{layer}.feedforward.0", norm(f"{layer}.feedforward_norm", x))
        x = x + linear(weights, f"{layer}.feedforward.3", nn.functional.gelu(hidden))
    return x


def doubles(detector, prefix=""):
    names = detector.state_dict().items()
    return {name.removeprefix(prefix): value.double() for name, value in names if name.startswith(prefix)}


def naive_urdmu(detector, x, noise=None):
    """What the losses need of one video; `noise` is that of a normal video in training."""
    weights, config = doubles(detector), detector.config
    states = naive_trunk(doubles(detector, "urdmu."), config, x)
    known, given = {}, {}
    for name in ("abnormal", "normal"):
        slots = weights[f"{name}_memory.slots"]
        attention = (states @ slots.T / math.sqrt(config.hidden_size)).sigmoid()
        known[name] = attention.sort(dim=1, descending=True).values[:, : config.num_slots // 16 + 1].mean(1)
        given[name] = attention @ slots
    means = {name: linear(weights, "mean", value) for name, value in given.items()}
    log_variance = linear(weights, "log_variance", given["normal"])
    divergence = -0.5 * (1 + log_variance - means["normal"] ** 2 - log_variance.exp()).mean(1)
    if noise is not None:
        means["normal"] = means["normal"] + noise * log_variance.exp().sqrt()
    joined = torch.cat([states, means["abnormal"] + means["normal"]], dim=1)
    logits = linear(weights, "classifier.2", linear(weights, "classifier.0", joined).relu())[:, 0]
    return {"logits": logits, "states": states, "known": known, "means": means, "divergence": divergence}


def naive_bnwvad(detector, x):
    """Logits, and distances from the mean of each batch norm, of one video."""
    weights = doubles(detector)
    x, distances = naive_trunk(doubles(detector, "bnwvad.trunk."), detector.config, x), []
    for number in range(2):
        layer = f"bnwvad.layers.{number}"
        x = linear(weights, f"{layer}.linear", x)
        scaled = (x - weights[f"{layer}.norm.running_mean"]) / (weights[f"{layer}.norm.running_var"] + 1e-5).sqrt()
        distances.append((scaled**2).sum(1).sqrt())
        x = (scaled * weights[f"{layer}.norm.weight"] + weights[f"{layer}.norm.bias"]).relu()
    return linear(weights, "classifier", x)[:, 0], torch.stack(distances, dim=1)


@pytest.mark.parametrize("inputs", ["visual", "audio", "both"])
@torch.no_grad()
def test_urdmu_equals_its_definition(inputs):
    detector, lengths = model(HEADS[0], inputs=inputs), (20, 4, 1)
    visual, audio, mask = features(lengths)
    outputs = detector(visual, audio, mask)
    for index, length in enumerate(lengths):
        video = averaged(visual[index, :length], audio[index, :length], inputs).double()
        expected = naive_urdmu(detector, video)
        known = torch.stack([expected["known"]["abnormal"], expected["known"]["normal"]], dim=1)
        for name, value in (
            ("logits", expected["logits"]),
            ("states", expected["states"]),
            ("memory_attention", known),
            ("divergences", expected["divergence"]),
        ):
            torch.testing.assert_close(outputs[name][index, :length], value.float(), rtol=1e-3, atol=1e-4)
    for name in detector.clip_outputs[1:]:
        assert (outputs[name][~mask] == 0).all(), name
    assert (detector.scores(outputs)[~mask] == 0).all()


@torch.no_grad()
def test_bnwvad_equals_its_definition():
    detector, lengths = model(HEADS[1], inputs="both"), (20, 4, 1)
    visual, audio, mask = features(lengths)
    outputs = detector(visual, audio, mask)
    scores = detector.scores(outputs)
    for index, length in enumerate(lengths):
        video = averaged(visual[index, :length], audio[index, :length], "both").double()
        logits, distances = naive_bnwvad(detector, video)
        torch.testing.assert_close(outputs.logits[index, :length], logits.float(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(outputs.distances[index, :length], distances.float(), rtol=1e-3, atol=1e-4)
        published = distances.sum(1) * logits.sigmoid() / (math.sqrt(6) + math.sqrt(4))
        torch.testing.assert_close(scores[index, :length], published / (1 + published), rtol=1e-3, atol=1e-5)
    assert (scores[~mask] == 0).all() and (outputs.distances[~mask] == 0).all()


def test_urdmu_draws_normal_videos_in_training():
    """Training sees segments; noise comes to the normal videos alone, which the labels tell."""
    detector = model(HEADS[0], dropout=0.0).train()
    lengths, labels = (9, 4, 1, 30), [1, 0, 1, 0]
    visual, _, mask = features(lengths)
    torch.manual_seed(3)
    outputs = detector(visual, clip_mask=mask, labels=torch.tensor(labels))
    torch.manual_seed(3)
    noise = torch.randn(4, 8, 8).double()
    videos = [naive_segments(visual[index, :length].mean((2, 3)), 8).double() for index, length in enumerate(lengths)]
    expected = [
        naive_urdmu(detector, video, None if label else noise[index])
        for index, (video, label) in enumerate(zip(videos, labels, strict=True))
    ]
    for index, video in enumerate(expected):
        torch.testing.assert_close(outputs.logits[index], video["logits"].float(), rtol=1e-3, atol=1e-3)
    for name, value in naive_urdmu_losses(expected, labels, detector.config).items():
        assert outputs[name].item() == pytest.approx(value, rel=1e-3), name
    quiet = [detector(visual, clip_mask=mask).logits for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(quiet[0][1], outputs.logits[1]) and torch.equal(quiet[0][0], outputs.logits[0])
    detector.eval()
    given = {"clip_mask": mask, "labels": torch.tensor(labels)}
    assert torch.equal(detector(visual, **given).logits, detector(visual, **given).logits)


def test_bnwvad_measures_by_running_statistics_in_training():
    detector = model(HEADS[1], dropout=0.0).train()
    visual, _, _ = features((8, 8))
    with torch.no_grad():
        outputs = detector(visual)
    videos = [naive_segments(video.mean((2, 3)), 8).double() for video in visual]
    # The second layer sees what the first batch norm makes of the batch; the first distance shows what is measured by.
    expected = torch.stack([naive_bnwvad(detector, video)[1][:, 0] for video in videos])
    torch.testing.assert_close(outputs.distances[..., 0], expected.float(), rtol=1e-3, atol=1e-4)


def test_near_clips_weigh_more():
    """As by the whole matrix of weights, far beyond the reach of the kernel; and padding counts for nothing."""
    x, mask = torch.randn(2, 300, 3), torch.arange(300) < torch.tensor([[300], [170]])
    found = near_sums(x.masked_fill(~mask.unsqueeze(2), 7.0), mask)
    for index, length in enumerate((300, 170)):
        clips = torch.arange(length).double()
        weights = torch.exp(-(clips[:, None] - clips).abs() / math.e)
        expected = (weights / weights.sum(0)) @ x[index, :length].double()
        torch.testing.assert_close(found[index, :length], expected.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(near_sums(x, None)[0], found[0])


def test_sizes_and_first_weights():
    for kind, size in ((HEADS[0], 6_492_929), (HEADS[1], 5_791_905)):  # 6.49 and 5.79 M as published
        detector = kind(kind.config_class(visual_size=1024))
        assert sum(value.numel() for value in detector.parameters()) == size
        for name, value in detector.named_parameters():
            if "norm." in name:
                assert (value == (0 if name.endswith("bias") else 1)).all(), name
            elif name.endswith("weight") and value.numel() > 10_000:
                bound = value[0].numel() ** -0.5
                assert bound * 0.95 < value.abs().max() <= bound, name
            elif name.endswith("slots"):
                assert 0.95 * 512**-0.5 < value.abs().max() <= 512**-0.5, name
            else:
                assert value.abs().max() > 0, name


@torch.no_grad()
def test_dropout_is_in_the_layers_alone():
    for kind in HEADS:
        detector = model(kind, dropout=0.5)
        dropped = [part for part in detector.modules() if isinstance(part, nn.Dropout)]
        assert len(dropped) == 3 * 2 and {part.p for part in dropped} == {0.5}
        visual, _, _ = features((9,))
        assert torch.equal(detector(visual).logits, detector(visual).logits)
        assert not torch.equal(detector.train()(visual).logits, detector(visual).logits)


# Losses


def naive_urdmu_losses(videos, labels, config):
    """All losses of what `naive_urdmu` gives, one video after the other."""

    def best(values, count):
        return sorted(range(len(values)), key=lambda clip: -values[clip])[:count]

    def mean(values):
        return sum(values) / len(values) if values else 0.0

    entropy, of_memories, facts = [], {0: [], 1: []}, {0: [], 1: []}
    for video, label in zip(videos, labels, strict=True):
        known = {name: value.tolist() for name, value in video["known"].items()}
        count = len(known["normal"]) // 16 + 1
        scores = video["logits"].sigmoid().tolist()
        score = mean([scores[clip] for clip in best(scores, count)])
        entropy.append(-math.log(score if label else 1 - score))
        usual, abnormal = best(known["normal"], count), best(known["abnormal"], count)
        if label:
            unusual = mean([1 - known["normal"][clip] for clip in best([-x for x in known["normal"]], count)])
            of_memories[1].append(-math.log(mean([known["abnormal"][clip] for clip in abnormal])) - math.log(unusual))
        else:
            of_memories[0].append(
                mean([-math.log(x) for x in known["normal"]]) + mean([-math.log(1 - x) for x in known["abnormal"]])
            )
        usual_state, abnormal_state = video["states"][usual].mean(0), video["states"][abnormal].mean(0)
        facts[label].append(
            {
                "usual": usual_state / usual_state.norm(),
                "abnormal": abnormal_state / abnormal_state.norm(),
                "long": video["means"]["abnormal"][abnormal].mean(0).norm().item(),
                "short": video["means"]["normal"][usual].mean(0).norm().item(),
                "divergence": video["divergence"].mean().item(),
            }
        )
    normal, anomalous = facts[0], facts[1]
    number = max(len(normal), len(anomalous)) if normal and anomalous else 0
    both = [(normal[i % len(normal)], anomalous[i % len(anomalous)]) for i in range(number)]
    triplets = [
        max(0, 1 + (n["usual"] - a["usual"] + 1e-6).norm() - (n["usual"] - a["abnormal"] + 1e-6).norm())
        for n, a in both
    ]
    losses = {
        "video_loss": mean(entropy),
        "memory_loss": mean(of_memories[0]) + mean(of_memories[1]),
        "triplet_loss": float(mean(triplets)),
        "divergence_loss": config.num_segments * mean([video["divergence"] for video in normal]),
        "distance_loss": mean([max(0, 100 - a["long"] + n["short"]) for n, a in both]),
    }
    weights = {
        "video_loss": 1,
        "memory_loss": 0.1,
        "triplet_loss": 0.1,
        "divergence_loss": 1e-3,
        "distance_loss": 1e-4,
    }
    return {"loss": sum(weights[name] * value for name, value in losses.items()), **losses}


@pytest.mark.parametrize("labels", LABELS)
@torch.no_grad()
def test_urdmu_losses_equal_their_definitions(labels):
    """Of a batch, and of videos that went through the network one by one, as validation joins them."""
    detector, lengths = model(HEADS[0]), [40, 17, 1, 5]
    visual, audio, mask = features(lengths)
    videos = [
        naive_urdmu(detector, averaged(visual[i, :length], audio[i, :length], "visual").double())
        for i, length in enumerate(lengths)
    ]
    expected = naive_urdmu_losses(videos, labels, detector.config)
    together = losses_of(detector(visual, clip_mask=mask, labels=torch.tensor(labels)))
    single = [detector(visual[i : i + 1, :length]) for i, length in enumerate(lengths)]
    padded = {
        name: nn.utils.rnn.pad_sequence([outputs[name][0] for outputs in single], batch_first=True)
        for name in detector.clip_outputs
    }
    joined = detector.losses(SimpleNamespace(**padded), torch.tensor(labels).float(), mask)
    for name, value in expected.items():
        assert together[name].item() == pytest.approx(value, rel=1e-3, abs=1e-6), name
        assert joined[name].item() == pytest.approx(value, rel=1e-3, abs=1e-6), name
    assert list(together) == list(joined) == list(expected)


def test_urdmu_losses_have_gradients_where_scores_are_rounded():
    logits = torch.tensor([[40.0, 40.0], [40.0, 40.0], [0.0, 0.0]], requires_grad=True)
    chosen = torch.tensor([[True, True], [True, True], [False, False]])
    loss = video_loss(logits, torch.tensor([0, 1, 0]), chosen)
    loss.backward()
    assert loss.item() == pytest.approx(20.0) and logits.grad[0].sum().item() == pytest.approx(0.5, rel=1e-4)
    assert (logits.grad[2] == 0).all()
    known = torch.tensor([0.0, 1.0, 0.5], requires_grad=True)
    found = cross_entropy(known, 1) + cross_entropy(known, 0)
    found.sum().backward()
    assert found.isfinite().all() and known.grad.isfinite().all()
    assert found[2].item() == pytest.approx(2 * math.log(2))


def naive_bnwvad_losses(logits, distances, labels, lengths, config):
    normal = [i for i, label in enumerate(labels) if not label]
    anomalous = [i for i, label in enumerate(labels) if label]
    norms = [math.sqrt(sum(float(x) ** 2 for x in logits[i, : lengths[i]].sigmoid())) for i in normal]
    triplets = 0.0
    for weight, layer in zip((5, 20), distances.unbind(2), strict=True):
        clips = sorted(((float(layer[i, t]), i, t) for i in anomalous for t in range(lengths[i])), reverse=True)
        chosen = set(clips[: math.floor(config.batch_ratio * len(clips))])
        for i in anomalous:
            video = [clip for clip in clips if clip[1] == i]
            chosen |= set(video[: max(1, math.ceil(config.sample_ratio * len(video)))])
        share = -(-len(chosen) // len(normal)) if normal else 0
        compared = [x for i in normal for x in sorted(map(float, layer[i, : lengths[i]]), reverse=True)[:share]]
        far, near = sorted((clip[0] for clip in chosen), reverse=True), sorted(compared, reverse=True)
        if far and near:
            hinges = [max(0, config.margin + near[r % len(near)] - value) for r, value in enumerate(far)]
            triplets += weight * sum(hinges) / len(hinges)
    losses = {"normal_loss": sum(norms) / len(norms) if norms else 0.0, "triplet_loss": triplets}
    return {"loss": sum(losses.values()), **losses}


@pytest.mark.parametrize("labels", LABELS)
def test_bnwvad_losses_equal_their_definitions(labels):
    torch.manual_seed(0)
    lengths = [40, 17, 1, 5]
    mask = torch.arange(40) < torch.tensor(lengths).unsqueeze(1)
    logits, distances = torch.randn(4, 40), 5 + torch.randn(4, 40, 2)
    detector = model(HEADS[1])
    expected = naive_bnwvad_losses(logits, distances, labels, lengths, detector.config)
    # In another order, and with a video of padding alone, which counts for nothing.
    order = torch.tensor([3, 0, 0, 2, 1])
    mask, counts = mask[order], torch.tensor([True, False, True, True, True])
    outputs = SimpleNamespace(logits=logits[order], distances=distances[order])
    found = detector.losses(outputs, torch.tensor(labels)[order].float(), mask & counts.unsqueeze(1))
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-5), name


def test_bnwvad_chooses_more_where_more_is_anomalous():
    distances = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]])
    mask, anomalous = torch.ones(2, 10, dtype=torch.bool), torch.tensor([True, True])
    chosen = anomalous_clips(distances, mask, anomalous, sample_ratio=0.2, batch_ratio=0.4)
    assert chosen.sum(dim=1).tolist() == [8, 2] and chosen[0, 2:].all() and chosen[1, 8:].all()
    assert not anomalous_clips(distances, mask, ~anomalous, 0.2, 0.4).any()
    assert anomalous_clips(distances, mask, anomalous, 0, 0).sum(dim=1).tolist() == [1, 1]


def test_bnwvad_triplets_pull_and_push():
    distances = torch.tensor([[4.0, 1.0], [4.5, 9.0]], requires_grad=True)
    mask = torch.ones(2, 2, dtype=torch.bool)
    normal, chosen = torch.tensor([True, False]), torch.tensor([[False, False], [True, False]])
    loss = triplet_loss(distances, chosen, mask, normal, margin=1.0)
    loss.backward()
    assert loss.item() == 0.5 and distances.grad.tolist() == [[1, 0], [-1, 0]]


@torch.no_grad()
def test_bnwvad_scores_keep_the_published_order():
    """They are on one scale, whatever other clips there are, and below 1 however far a clip is."""
    detector = model(HEADS[1])
    logits, distances = torch.randn(1, 50), 20 * torch.rand(1, 50, 2)
    scores = detector.scores(SimpleNamespace(logits=logits, distances=distances))
    published = distances.double().sum(2) * logits.double().sigmoid()
    assert torch.equal(scores.argsort(), published.argsort())
    part = detector.scores(SimpleNamespace(logits=logits[:, :9], distances=distances[:, :9]))
    assert torch.equal(part, scores[:, :9])
    usual = torch.tensor([[[math.sqrt(6), math.sqrt(4)], [1e9, 1e9]]])
    found = detector.scores(SimpleNamespace(logits=torch.full((1, 2), 50.0), distances=usual))
    assert found[0, 0].item() == pytest.approx(0.5) and 0.999 < found[0, 1] < 1


# Batches


@every_head
@torch.no_grad()
def test_a_batch_gives_what_single_videos_give(kind):
    detector, lengths = model(kind, inputs="both"), (12, 5, 1)
    visual, audio, mask = features(lengths)
    batch = detector(visual, audio, mask)
    for index, length in enumerate(lengths):
        single = detector(visual[index : index + 1, :length], audio[index : index + 1, :length])
        for name in detector.clip_outputs:
            torch.testing.assert_close(batch[name][index, :length], single[name][0], rtol=1e-4, atol=1e-4)


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
        torch.manual_seed(0)  # the noise of the first video, which is the normal one
        outputs = detector(v, a, m, labels=labels)
        outputs.loss.backward()
        logits = outputs.logits[:3] if training else outputs.logits[m]
        found.append(
            (logits, outputs.loss, *(p.grad for p in detector.parameters()), *(b.clone() for b in detector.buffers()))
        )
        if filler is not None:
            assert (detector.scores(outputs)[3] == 0).all()
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


@every_head
@pytest.mark.parametrize("lengths", [(1,), (2, 1), (5, 0), (40, 3, 0), (0, 0)])
@pytest.mark.parametrize("label", [0, 1])
def test_gradients_are_finite_for_odd_batches(kind, lengths, label):
    detector = kind(kind.config_class(**TINY[kind] | {"inputs": "both"})).train()
    visual, audio, mask = features((*lengths, 3))
    outputs = detector(visual[:-1], audio[:-1], mask[:-1], labels=torch.full((len(lengths),), label))
    outputs.loss.backward()
    assert all(value.isfinite() for value in losses_of(outputs).values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    assert all(buffer.isfinite().all() for buffer in detector.buffers())
    if not any(lengths):
        assert outputs.loss.item() == 0


@every_head
@torch.no_grad()
def test_in_half_precision(kind):
    detector = model(kind)
    visual, _, mask = features((9, 4, 1))
    scores = detector.scores(detector(visual, clip_mask=mask))
    half = model(kind).to(torch.bfloat16)
    torch.testing.assert_close(half.scores(half(visual, clip_mask=mask)), scores, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
        outputs = detector.train()(visual, clip_mask=mask, labels=torch.tensor([0, 1, 1]))
        outputs.loss.backward()
    assert outputs.loss.isfinite() and outputs.loss.dtype == torch.float32


@every_head
@torch.no_grad()
def test_exported_graph_gives_the_same(kind):
    """As `avad-hf export` traces it: with sizes of batch and video that vary, padding among them."""
    detector = model(kind, inputs="both")
    processor = SimpleNamespace(networks_to_export=lambda batches: iter(()), feature_grid=(2, 3), num_pictures=3)
    (network,) = detector.networks_to_export(processor, [])
    program = torch.export.export(
        network.model, (), network.sample, dynamic_shapes=network.dynamic_shapes, strict=False
    )
    # torch cannot write it as ONNX.
    assert not any("sort.stable" in str(node.target) for node in program.graph.nodes)
    graph = program.module()
    for lengths in ((9, 4, 1), (2, 5), (80, 3, 2, 1)):
        visual, audio, mask = features(lengths)
        given = {"visual_features": visual, "audio_features": audio, "clip_mask": mask}
        expected, found = detector(**given), graph(**{name: given[name] for name in network.sample})
        torch.testing.assert_close(
            detector.scores(SimpleNamespace(**found)), detector.scores(expected), atol=1e-5, rtol=0
        )


# Refusals


@every_head
def test_other_input_labels_and_bare_logits_are_refused(kind):
    visual, audio, _ = features()
    title = kind.config_class.title
    with pytest.raises(ValueError, match=rf"{title} with inputs 'visual' needs visual_features"):
        model(kind)(audio_features=audio)
    with pytest.raises(ValueError, match=r"labels must be 0 \(normal\) or 1 \(anomalous\), got"):
        model(kind)(visual, labels=torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match=rf"{title}'s losses need logits.* of the clips, as forward gives them"):
        model(kind).losses(SimpleNamespace(logits=torch.zeros(1, 3)), torch.zeros(1))


@pytest.mark.parametrize(
    ("config", "settings", "words"),
    [
        (UrdmuConfig, {"num_heads": 0}, "num_heads must be 1 or more, got 0"),
        (UrdmuConfig, {"num_layers": 100}, "num_layers must be within 1 and 64, got 100"),
        (UrdmuConfig, {"dropout": 1.0}, "dropout must be within 0 and 0.99, got 1.0"),
        (UrdmuConfig, {"num_slots": 0}, "num_slots must be 1 or more, got 0"),
        (UrdmuConfig, {"margin": -1}, "margin must be 0 or more, got -1"),
        (UrdmuConfig, {"memory_weight": float("nan")}, "memory_weight must be a finite number"),
        (BnwvadConfig, {"classifier_sizes": (32,)}, r"triplet_weights needs a number for each of classifier_sizes"),
        (BnwvadConfig, {"batch_ratio": 1.5}, "batch_ratio must be within 0 and 1, got 1.5"),
        (BnwvadConfig, {"num_segments": 0}, "num_segments must be 1 or more, got 0"),
    ],
)
def test_configs_out_of_range_are_refused(config, settings, words):
    with pytest.raises(Exception, match=words):
        config(**settings)
    with pytest.raises(ValueError, match="not valid"):
        config.from_dict({"model_type": config.model_type} | settings)


# The contract


@every_head
@torch.no_grad()
def test_spec_and_explanation(kind):
    detector = model(kind)
    spec = detector.detector_spec
    assert (spec.title, spec.context) == ("UR-DMU" if kind is HEADS[0] else "BN-WVAD", WHOLE_VIDEO)
    visual, _, mask = features()
    outputs = detector(visual, clip_mask=mask)
    why = detector.explain(outputs)
    assert list(why) == (["known_as_abnormal", "known_as_normal"] if kind is HEADS[0] else ["distance"])
    assert all(value.shape == (3, 9) for value in why.values())
    if kind is HEADS[0]:
        assert torch.equal(why["known_as_normal"], outputs.memory_attention[..., 1])
    assert all(outputs[name].shape[:2] == (3, 9) for name in detector.clip_outputs)


def test_published_recipes():
    for name in ("urdmu", "bnwvad"):
        config = TrainingConfig.from_profile(name, data="store", output_dir="run", architecture=name)
        assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 1e-4, 5e-5)
        assert config.epochs * math.ceil(810 / 64) == pytest.approx(3000, rel=0.01)


@pytest.mark.parametrize("name", ["urdmu", "bnwvad"])
def test_it_learns(tmp_path, name):
    """On a planted store, where one clip of each anomalous video stands out, by a smaller network than published."""
    store = plant(tmp_path / "store", num_videos=90, clips=(4, 16), signal=20.0, shape=(32, 1, 1))
    small = {"hidden_size": 32, "num_heads": 2, "head_size": 16, "feedforward_size": 32, "num_segments": 12}
    settings = {"epochs": 8, "batch_size": 16, "learning_rate": 3e-3, "model_options": small | {"dropout": 0.3}}
    folders = {"data": str(store), "output_dir": str(tmp_path / "run")}
    result = train(TrainingConfig.from_profile(name, architecture=name, **folders, **settings), progress=False)
    trained = AutoModelForVideoClassification.from_pretrained(result.output_dir)
    assert trained.config.model_type == name and trained.config.inputs == "visual"
    figures = evaluate(trained, FeatureDataset(store, "test"), num_resamples=0).figures
    assert figures["video"]["roc_auc"] > 0.9 and figures["frame"]["roc_auc"] > 0.75


@torch.no_grad()
def test_pipeline_sees_the_whole_video(tmp_path, bikes):
    """What it gives is what the model gives of all clips at once, not of the few that are read together."""
    folder = tmp_path / "urdmu"
    init("urdmu", folder, size="tiny", inputs="both")
    detect = pipeline("audio-visual-anomaly", model=str(folder), dtype="float32")
    found = detect(bikes, batch_size=2)
    outputs = detect.model(**AutoProcessor.from_pretrained(folder)(bikes))
    scores = detect.model.scores(outputs)[0].tolist()
    assert len(scores) > 4 and [clip["score"] for clip in found["clips"]] == pytest.approx(scores, abs=1e-5)
    known = [clip["why"]["known_as_normal"] for clip in found["clips"]]
    assert known == pytest.approx(outputs.memory_attention[0, :, 1].tolist(), rel=1e-4)
    assert any("Untrained detector" in warning for warning in found["warnings"])
