"""RTFM: network and losses against their definitions, padding, refusals, and what generic code makes of it."""

import math
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import FeatureDataset, RtfmConfig, RtfmForAnomalyDetection, RtfmModel, TrainingConfig, evaluate, train
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.rtfm.losses_rtfm import choose_clips, magnitude_loss, smoothness_loss, sparsity_loss, video_loss
from avad_hf.models.rtfm.modeling_rtfm import to_segments
from avad_hf.training.config import profiles
from avad_hf.untrained import init

from .feature_stores import plant

TINY = {
    "visual_size": 6,
    "audio_size": 5,
    "hidden_size": 8,
    "attention_size": 4,
    "classifier_sizes": (8, 4),
    "num_segments": 8,
}


def features(lengths=(9, 4, 1), steps=3, grid=(2, 3), seed=0):
    """Features of a batch, and its mask."""
    rng = torch.Generator().manual_seed(seed)
    batch, clips = len(lengths), max(lengths)
    visual = torch.randn(batch, clips, 6, *grid, generator=rng)
    audio = torch.randn(batch, clips, steps, 5, generator=rng)
    return visual, audio, torch.arange(clips) < torch.tensor(lengths).unsqueeze(1)


def randomise(detector, seed=0):
    """Weights and statistics that are nowhere 0 or 1, so that nothing goes unnoticed."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in detector.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=rng)
            elif value.is_floating_point():
                value.normal_(std=0.4, generator=rng)
    return detector


def model(**fields) -> RtfmForAnomalyDetection:
    return randomise(RtfmForAnomalyDetection(RtfmConfig(**TINY | fields))).eval()


# The network, one clip after the other


def naive_forward(detector, videos: list[torch.Tensor], training: bool):
    """Logits and magnitudes of whole videos of shape `(T, D)`; in training batch norms see all of them."""
    weights = {name: value.double() for name, value in detector.state_dict().items()}

    def conv(name, video, dilation=1):
        kernel = weights[f"{name}.weight"]
        reach = kernel.shape[2] // 2
        rows = []
        for clip in range(len(video)):
            row = weights.get(f"{name}.bias", torch.zeros(len(kernel), dtype=torch.double)).clone()
            for tap in range(kernel.shape[2]):
                where = clip + (tap - reach) * dilation
                if 0 <= where < len(video):
                    row += kernel[:, :, tap] @ video[where]
            rows.append(row)
        return torch.stack(rows)

    def norm(name, parts):
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        if training:
            together = torch.cat(parts)
            mean, variance = together.mean(0), together.var(0, correction=0)
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return [(part - mean) / (variance + 1e-5).sqrt() * scale + shift for part in parts]

    def layer(name, parts, dilation=1):
        return norm(f"{name}.norm", [conv(f"{name}.conv", part, dilation).relu() for part in parts])

    videos = [video.double() for video in videos]
    branches = [layer(f"rtfm.dilated.{i}", videos, dilation) for i, dilation in enumerate(detector.config.dilations)]
    narrow, looked_up = [conv("rtfm.attention.projection", video) for video in videos], []
    for video in narrow:
        theta, phi, g = (conv(f"rtfm.attention.{name}", video) for name in ("theta", "phi", "g"))
        rows = [sum((theta[i] @ phi[j]) * g[j] for j in range(len(video))) / len(video) for i in range(len(video))]
        looked_up.append(conv("rtfm.attention.output", torch.stack(rows)))
    attended = [a + b for a, b in zip(narrow, norm("rtfm.attention.norm", looked_up), strict=True)]
    joined = [torch.cat(parts, dim=1) for parts in zip(*branches, attended, strict=True)]
    states = [a + b for a, b in zip(layer("rtfm.fusion", joined), videos, strict=True)]

    def score(state):
        numbers = [n for n, part in enumerate(detector.classifier) if isinstance(part, nn.Linear)]
        for number in numbers:
            state = weights[f"classifier.{number}.weight"] @ state + weights[f"classifier.{number}.bias"]
            state = state if number == numbers[-1] else state.relu()
        return state[0]

    logits = [torch.stack([score(clip) for clip in state]) for state in states]
    return logits, [state.square().sum(1).sqrt() for state in states]


def averaged(visual, audio, inputs):
    """What the network gets of one video, of shape `(T, D)`."""
    rows = []
    for seen, heard in zip(visual, audio, strict=True):
        parts = {"visual": [seen.flatten(1).mean(1)], "audio": [sum(heard) / len(heard)]}
        rows.append(torch.cat(parts["visual"] + parts["audio"] if inputs == "both" else parts[inputs]))
    return torch.stack(rows)


def naive_segments(video, num_segments):
    """As published: bounds by linspace, means between them, and the clip at the bound where there is none between."""
    bounds = np.linspace(0, len(video), num_segments + 1, dtype=int)
    return torch.stack([video[a:b].mean(0) if a < b else video[a] for a, b in pairwise(bounds)])


@pytest.mark.parametrize("inputs", ["visual", "audio", "both"])
@torch.no_grad()
def test_network_equals_its_definition(inputs):
    detector = model(inputs=inputs)
    lengths = (9, 4, 1)
    visual, audio, mask = features(lengths)
    outputs = detector(visual, audio, mask)
    for index, length in enumerate(lengths):
        video = averaged(visual[index, :length], audio[index, :length], inputs)
        (logits,), (magnitudes,) = naive_forward(detector, [video], training=False)
        torch.testing.assert_close(outputs.logits[index, :length], logits.float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outputs.magnitudes[index, :length], magnitudes.float(), rtol=1e-4, atol=1e-4)
    assert (detector.scores(outputs)[~mask] == 0).all() and (outputs.magnitudes[~mask] == 0).all()


@pytest.mark.parametrize("dilations", [(1,), (3, 1)])
@torch.no_grad()
def test_other_dilations_equal_the_definition(dilations):
    detector = model(dilations=dilations)
    visual, audio, _ = features((7,))
    (logits,), _ = naive_forward(detector, [averaged(visual[0], audio[0], "visual")], training=False)
    torch.testing.assert_close(detector(visual).logits[0], logits.float(), rtol=1e-4, atol=1e-4)


def test_training_sees_segments_and_equals_the_definition():
    detector = model(dropout=0.0).train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    lengths = (9, 4, 1, 30)
    visual, _, mask = features(lengths)
    outputs = detector(visual, clip_mask=mask, labels=torch.tensor([1, 0, 1, 0]))
    videos = [naive_segments(visual[index, :length].mean((2, 3)), 8) for index, length in enumerate(lengths)]
    detector.load_state_dict(before)
    logits, magnitudes = naive_forward(detector, videos, training=True)
    torch.testing.assert_close(outputs.logits, torch.stack(logits).float(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(outputs.magnitudes, torch.stack(magnitudes).float(), rtol=1e-3, atol=1e-3)
    expected = naive_losses(torch.stack(logits), torch.stack(magnitudes), [1, 0, 1, 0], [8] * 4, detector.config)
    for name, value in expected.items():
        assert outputs[name].item() == pytest.approx(value, rel=1e-3), name


@torch.no_grad()
def test_dropout_comes_before_magnitudes_and_between_layers():
    detector, seen = model(classifier_sizes=(400, 300)).train(), []
    for layer in (detector.classifier[0], detector.classifier[-1]):
        layer.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    visual, _, _ = features((30,) * 60)
    outputs = detector(visual)
    states, hidden = seen
    assert (states == 0).float().mean().item() == pytest.approx(0.7, abs=0.03)
    torch.testing.assert_close(outputs.magnitudes, states.norm(dim=2))
    assert (hidden == 0).float().mean().item() > 0.8  # ReLU's zeros are among them
    seen.clear()
    detector.eval()(visual)
    assert (seen[0] != 0).all()


@pytest.mark.parametrize("num_segments", [32, 7])
def test_segments_are_those_of_the_published_loader(num_segments):
    lengths = (*range(1, 68), 1000)
    x = torch.randn(len(lengths), 1000, 2)
    mask = torch.arange(1000) < torch.tensor(lengths).unsqueeze(1)
    found = to_segments(x * mask.unsqueeze(2), mask, num_segments)
    for index, length in enumerate(lengths):
        if num_segments == 32:  # a power of two, with which linspace does not round
            expected = naive_segments(x[index, :length], num_segments)
        else:
            bounds = [number * length // num_segments for number in range(num_segments + 1)]
            expected = torch.stack([x[index, a : max(b, a + 1)].mean(0) for a, b in pairwise(bounds)])
        torch.testing.assert_close(found[index], expected, rtol=1e-5, atol=1e-6)
    # Padding may lie anywhere.
    holes = torch.tensor([[True, False, True, True, False]])
    y = torch.randn(1, 5, 2)
    torch.testing.assert_close(
        to_segments(y * holes.unsqueeze(2), holes, num_segments),
        to_segments(y[:, [0, 2, 3]], torch.ones(1, 3, dtype=torch.bool), num_segments),
    )


def test_size_and_first_weights():
    detector = RtfmForAnomalyDetection(RtfmConfig(visual_size=2048))
    assert sum(value.numel() for value in detector.parameters()) == 24_718_849  # 24.7 M as published
    for name, value in detector.named_parameters():
        if name.endswith("bias"):
            assert (value == 0).all(), name
        elif ".norm." in name:
            assert (value == (0 if "attention" in name else 1)).all(), name
        else:
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(value)
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert bound * 0.95 < value.abs().max() <= bound, name
    # At first the attention changes nothing.
    x = torch.randn(1, 2048, 5)
    attention = detector.rtfm.attention.eval()
    assert torch.equal(attention(x, None), attention.projection(x))


# Losses


def naive_losses(logits, magnitudes, labels, lengths, config):
    """All losses of some videos, one after the other, without dropout."""
    logits, magnitudes = logits.tolist(), magnitudes.tolist()
    score = [[1 / (1 + math.exp(-x)) for x in row[:length]] for row, length in zip(logits, lengths, strict=True)]
    entropy, norms = [], []
    for index, length in enumerate(lengths):
        order = sorted(range(length), key=lambda clip: -magnitudes[index][clip])[: config.num_selected]
        mean = sum(score[index][clip] for clip in order) / len(order)
        entropy.append(-math.log(mean if labels[index] else 1 - mean))
        norms.append(sum(magnitudes[index][clip] for clip in order) / len(order))
    anomalous = [index for index, label in enumerate(labels) if label]
    normal = [index for index, label in enumerate(labels) if not label]
    pairs = range(max(len(anomalous), len(normal)))
    terms = [
        (abs(config.margin - norms[anomalous[i % len(anomalous)]]) if anomalous else 0)
        + (norms[normal[i % len(normal)]] if normal else 0)
        for i in pairs
    ]
    sparse = [math.sqrt(sum(x**2 for x in score[index])) for index in anomalous]
    smooth = [sum((a - b) ** 2 for a, b in zip(score[i][1:], score[i][:-1], strict=True)) for i in anomalous]
    losses = {
        "video_loss": sum(entropy) / len(entropy),
        "magnitude_loss": sum(term**2 for term in terms) / len(terms),
        "sparsity_loss": sum(sparse) / len(sparse) if sparse else 0.0,
        "smoothness_loss": sum(smooth) / len(smooth) if smooth else 0.0,
    }
    weights = {"magnitude_loss": 1e-4, "sparsity_loss": 8e-3, "smoothness_loss": 8e-4}
    return {"loss": losses["video_loss"] + sum(w * losses[name] for name, w in weights.items()), **losses}


@pytest.mark.parametrize(
    "labels", [[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
)
def test_losses_equal_their_definitions(labels):
    lengths = [9, 2, 1, 5]
    logits, magnitudes = 3 * torch.randn(4, 9), 50 + 100 * torch.rand(4, 9)  # on both sides of the margin
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)
    detector = RtfmForAnomalyDetection(RtfmConfig(**TINY)).eval()
    found = detector.losses(SimpleNamespace(logits=logits, magnitudes=magnitudes), torch.tensor(labels).float(), mask)
    expected = naive_losses(logits, magnitudes, labels, lengths, detector.config)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-5), name


def test_losses_of_parts_average_to_those_of_the_batch():
    """Of equal parts of pairs: what makes a run by several processes the same run."""
    logits, magnitudes = torch.randn(8, 6), 90 * torch.rand(8, 6)
    labels = torch.tensor([0, 1] * 4)
    detector = RtfmForAnomalyDetection(RtfmConfig(**TINY)).eval()
    whole = detector.losses(SimpleNamespace(logits=logits, magnitudes=magnitudes), labels)
    parts = [
        detector.losses(SimpleNamespace(logits=logits[part], magnitudes=magnitudes[part]), labels[part])
        for part in (slice(0, 4), slice(4, 8))
    ]
    for name, value in whole.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)


def test_clips_are_chosen_over_a_dropped_out_mask():
    magnitudes = torch.arange(1.0, 33.0).repeat(500, 1)
    mask = torch.ones(500, 32, dtype=torch.bool)
    assert choose_clips(magnitudes, mask, 3)[0][0].tolist() == [31, 30, 29]
    torch.manual_seed(0)
    chosen = choose_clips(magnitudes, mask, 3, dropout=0.7)[0]
    largest = chosen.max(dim=1).values
    # The largest clip is kept 3 times of 10, the second largest then is the first 0.7 * 0.3 of the times.
    assert (largest == 31).float().mean().item() == pytest.approx(0.3, abs=0.06)
    assert (largest == 30).float().mean().item() == pytest.approx(0.21, abs=0.06)
    # Padding is chosen only where there is nothing else, and is known for padding.
    short = torch.arange(32) < torch.tensor([[2]]).expand(500, 1)
    chosen, are_real = choose_clips(magnitudes, short, 3, dropout=0.7)
    assert (are_real.sum(dim=1) == 2).all() and (chosen[are_real] < 2).all()


def test_video_loss_has_gradients_where_scores_are_rounded():
    logits = torch.full((2, 3), 40.0, requires_grad=True)
    loss = video_loss(logits, torch.tensor([0, 1]), torch.ones(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(20.0) and logits.grad[0].sum().item() == pytest.approx(0.5, rel=1e-4)
    assert logits.grad[1].abs().max() < 1e-6


def test_losses_of_nothing_are_zero():
    none, mask = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4, dtype=torch.bool)
    losses = [
        video_loss(none, torch.zeros(0), mask),
        magnitude_loss(none[:, 0], torch.zeros(0), 100.0),
        sparsity_loss(none, mask),
        smoothness_loss(none, mask),
    ]
    assert all(loss.item() == 0 for loss in losses)
    sum(losses).backward()


# Batches


@torch.no_grad()
def test_a_batch_gives_what_single_videos_give():
    detector, lengths = model(inputs="both"), (12, 5, 1)
    visual, audio, mask = features(lengths)
    batch = detector(visual, audio, mask)
    for index, length in enumerate(lengths):
        single = detector(visual[index : index + 1, :length], audio[index : index + 1, :length])
        torch.testing.assert_close(batch.logits[index, :length], single.logits[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(batch.magnitudes[index, :length], single.magnitudes[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    """All results are those of the real clips, whatever the padding holds; a video of padding alone counts nothing."""
    visual, audio, mask = features((9, 4, 1))
    labels = torch.tensor([0, 1, 1])
    found = []
    for filler in (None, 0.0, 1e4, float("nan")):
        detector = model(inputs="both").train(training)
        v, a, m, y = visual, audio, mask, labels
        if filler is not None:  # longer, and with a fourth video that is none
            v = torch.cat([v, v.new_zeros(3, 4, *v.shape[2:])], 1).repeat(2, 1, 1, 1, 1)[:4]
            a = torch.cat([a, a.new_zeros(3, 4, *a.shape[2:])], 1).repeat(2, 1, 1, 1)[:4]
            m = torch.zeros(4, 13, dtype=torch.bool)
            m[:3, :9] = mask
            v = v.masked_fill(~m[..., None, None, None], filler)
            a = a.masked_fill(~m[..., None, None], filler)
            y = torch.tensor([0, 1, 1, 1])
        detector.config.dropout = 0.0  # of the clips that are chosen
        detector.dropout.p = 0.0
        for part in detector.classifier:
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        outputs = detector(v, a, m, labels=y)
        outputs.loss.backward()
        logits = outputs.logits[:3] if training else outputs.logits[m]
        found.append(
            (logits, outputs.loss, *(p.grad for p in detector.parameters()), *(b.clone() for b in detector.buffers()))
        )
        if filler is not None:
            assert (detector.scores(outputs)[3] == 0).all() and (outputs.magnitudes[3] == 0).all()
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lengths", [(1,), (1, 1), (2, 1), (5, 0), (40, 3, 0)])
@pytest.mark.parametrize("label", [0, 1])
def test_gradients_are_finite_for_odd_batches(lengths, label):
    detector = RtfmForAnomalyDetection(RtfmConfig(**TINY, inputs="both")).train()
    visual, audio, mask = features(lengths)
    outputs = detector(visual, audio, mask, labels=torch.full((len(lengths),), label))
    assert outputs.logits.shape == outputs.magnitudes.shape == (len(lengths), 8)
    outputs.loss.backward()
    assert all(value.isfinite() for name, value in outputs.items() if name.endswith("loss"))
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in detector.parameters())
    assert all(buffer.isfinite().all() for buffer in detector.buffers())


def test_a_batch_of_nothing():
    detector = RtfmForAnomalyDetection(RtfmConfig(**TINY)).train()
    visual, _, _ = features((3, 2))
    outputs = detector(visual, clip_mask=torch.zeros(2, 3, dtype=torch.bool), labels=torch.tensor([0, 1]))
    outputs.loss.backward()
    assert outputs.loss.item() == 0 and all(buffer.isfinite().all() for buffer in detector.buffers())


@torch.no_grad()
def test_in_half_precision():
    detector = model()
    visual, _, mask = features((9, 4, 1))
    scores = detector.scores(detector(visual, clip_mask=mask))
    for dtype in (torch.bfloat16, torch.float16):
        half = model().to(dtype)
        torch.testing.assert_close(half.scores(half(visual, clip_mask=mask)), scores, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
        outputs = detector.train()(visual, clip_mask=mask, labels=torch.tensor([0, 1, 1]))
        outputs.loss.backward()
    assert outputs.loss.isfinite() and outputs.magnitudes.dtype == torch.float32


# Refusals


def test_other_input_is_refused_by_name():
    visual, audio, mask = features()
    both, seeing = model(inputs="both"), model()
    with pytest.raises(ValueError, match=r"inputs 'both' needs audio_features .* Give zeros for videos without sound"):
        both(visual)
    with pytest.raises(ValueError, match=r"inputs 'visual' needs visual_features of shape \(B, T, 6, h, w\)"):
        seeing(audio_features=audio)
    for other in (visual[:, :, :5], visual.mean(3)):
        with pytest.raises(ValueError, match=r"needs visual_features of shape \(B, T, 6, h, w\), got .*visual_size"):
            seeing(other)
    with pytest.raises(ValueError, match=r"RTFM needs audio_features of shape \(B, T, S, 5\), got .*audio_size"):
        both(visual, audio[..., :4])
    with pytest.raises(ValueError, match=r"as many videos and clips, got \(3, 9, .*\(3, 8, "):
        both(visual, audio[:, :8])
    with pytest.raises(ValueError, match=r"clip_mask must be of shape \(3, 9\), got \(3, 4\)"):
        both(visual, audio, mask[:, :4])
    for value in (float("nan"), float("inf")):
        visual[0, 0, 0, 0, 0] = value
        with pytest.raises(ValueError, match=r"visual_features holds NaN or infinite values.*mask its clips"):
            seeing(visual, clip_mask=mask)
        audio[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match="audio_features holds NaN or infinite"):
            model(inputs="audio")(audio_features=audio)
    mask[0, 0] = False
    seeing(visual, clip_mask=mask)


def test_other_labels_and_bare_logits_are_refused():
    visual, _, _ = features()
    detector = model()
    with pytest.raises(ValueError, match=r"labels must be 0 \(normal\) or 1 \(anomalous\), got"):
        detector(visual, labels=torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match="need logits and magnitudes"):
        detector.losses(torch.zeros(1, 3), torch.zeros(1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": "sound"}, "inputs"),
        ({"visual_size": 0}, "visual_size must be 1 or more, got 0"),
        ({"attention_size": -1}, "attention_size must be 1 or more, got -1"),
        ({"dilations": ()}, r"dilations needs numbers of 1 or more, at least one, got \[\]"),
        ({"dilations": (1, 0)}, r"dilations needs numbers of 1 or more, at least one, got \[1, 0\]"),
        ({"classifier_sizes": (0,)}, "classifier_sizes needs numbers"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1, got 1.0"),
        ({"dropout": float("nan")}, "dropout must be"),
        ({"num_segments": 2}, "num_selected 3 is more than num_segments 2"),
        ({"margin": -1}, "margin must be 0 or more, got -1"),
        ({"sparsity_weight": float("nan")}, "sparsity_weight must be a finite number"),
        ({"threshold": 2}, "threshold must be between 0 and 1, got 2"),
    ],
)
def test_configs_out_of_range_are_refused(settings, words):
    with pytest.raises(Exception, match=words):
        RtfmConfig(**settings)
    if settings.get("threshold") is None:
        with pytest.raises(ValueError, match="not valid"):
            RtfmConfig.from_dict({"model_type": "rtfm"} | settings)


# The contract


def test_spec_says_what_it_reads():
    widths = {"visual": {"visual_features": 6}, "audio": {"audio_features": 5}}
    widths["both"] = widths["visual"] | widths["audio"]
    for inputs, expected in widths.items():
        config = RtfmConfig(**TINY, inputs=inputs)
        spec = config.detector_spec
        assert (spec.title, spec.reads, spec.objective, spec.context) == ("RTFM", "features", "clips", WHOLE_VIDEO)
        assert spec.inputs == expected and config.input_size == sum(expected.values())
        assert RtfmModel(config).fusion.conv.out_channels == config.input_size
    assert RtfmConfig().silence_notice is None
    assert "hears zeros" in RtfmConfig(inputs="both").silence_notice
    assert "means nothing" in RtfmConfig(inputs="audio").silence_notice


@torch.no_grad()
def test_scores_and_explanation():
    detector = model()
    visual, _, mask = features()
    outputs = detector(visual, clip_mask=mask)
    scores = detector.scores(outputs)
    assert scores.dtype == torch.float64 and scores.shape == (3, 9)
    torch.testing.assert_close(scores, outputs.logits.double().sigmoid())
    why = detector.explain(outputs)
    assert list(why) == ["feature_magnitude"] and torch.equal(why["feature_magnitude"], outputs.magnitudes)
    assert detector.probabilities(outputs) is None
    assert all(getattr(outputs, name).shape == (3, 9) for name in detector.clip_outputs)


def test_config_fits_stored_features(tmp_path):
    data = FeatureDataset(plant(tmp_path / "store", num_videos=4, shape=(7, 2, 3), steps=8, audio_size=5))
    item = data[0]
    config = RtfmConfig.for_data(item, data.rows, data.recipe)
    assert (config.visual_size, config.audio_size, config.inputs) == (7, 5, "visual")
    config = RtfmConfig.for_data(item, data.rows, data.recipe, inputs="both", hidden_size=16)
    assert config.input_size == 12 and config.hidden_size == 16
    RtfmForAnomalyDetection(config).eval()(**data.collate([item]))
    heard = RtfmConfig.for_data({"audio_features": item["audio_features"]}, data.rows, data.recipe)
    assert (heard.inputs, heard.input_size) == ("audio", 5)
    seen = RtfmConfig.for_data({"visual_features": item["visual_features"]}, data.rows, None)
    assert (seen.inputs, seen.input_size) == ("visual", 7)


@pytest.mark.parametrize("inputs", ["visual", "audio", "both"])
@torch.no_grad()
def test_exported_graph_gives_the_same(inputs):
    """As `avad-hf export` traces it: with sizes of batch and video that vary, padding among them."""
    detector = model(inputs=inputs)
    processor = SimpleNamespace(networks_to_export=lambda batches: iter(()), feature_grid=(2, 3), num_pictures=3)
    (network,) = detector.networks_to_export(processor, [])
    assert network.sample.keys() == {*detector.detector_spec.inputs, "clip_mask"}
    graph = torch.export.export(
        network.model, (), network.sample, dynamic_shapes=network.dynamic_shapes, strict=False
    ).module()
    for lengths in ((9, 4, 1), (2, 5), (17, 3, 2, 1)):
        visual, audio, mask = features(lengths)
        given = {"visual_features": visual, "audio_features": audio, "clip_mask": mask}
        expected, found = detector(**given), graph(**{name: given[name] for name in network.sample})
        torch.testing.assert_close(found["logits"], expected.logits, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(found["magnitudes"], expected.magnitudes, rtol=1e-5, atol=1e-5)


def test_published_recipe():
    config = TrainingConfig.from_profile("rtfm", data="store", output_dir="run", architecture="rtfm")
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 1e-3, 5e-3)
    assert (config.batch_size, config.scheduler, config.patience, config.max_grad_norm) == (64, "constant", None, None)
    assert profiles()["rtfm"]["epochs"] * math.ceil(810 / 32) == pytest.approx(15_000, rel=0.01)


# What generic code makes of it


def test_it_learns(tmp_path):
    """On a planted store, where one clip of each anomalous video stands out, by a smaller network than published."""
    store = plant(tmp_path / "store", num_videos=90, clips=(4, 16), signal=6.0, shape=(32, 1, 1))
    small = {"hidden_size": 32, "attention_size": 16, "classifier_sizes": [32, 16], "dropout": 0.3}
    settings = {"epochs": 16, "batch_size": 16, "learning_rate": 3e-3, "model_options": small}
    folders = {"data": str(store), "output_dir": str(tmp_path / "run")}
    result = train(TrainingConfig.from_profile("rtfm", architecture="rtfm", **folders, **settings), progress=False)
    trained = AutoModelForVideoClassification.from_pretrained(result.output_dir)
    assert type(trained) is RtfmForAnomalyDetection and trained.config.inputs == "visual"
    assert {"video_loss", "magnitude_loss", "sparsity_loss", "smoothness_loss"} < result.validation.keys()
    figures = evaluate(trained, FeatureDataset(store, "test"), num_resamples=0).figures
    assert figures["video"]["roc_auc"] > 0.8 and figures["frame"]["roc_auc"] > 0.7


@torch.no_grad()
def test_pipeline_sees_the_whole_video(tmp_path, bikes):
    """What it gives is what the model gives of all clips at once, not of the few that are read together."""
    folder = tmp_path / "rtfm"
    init("rtfm", folder, size="tiny", inputs="both")
    detect = pipeline("audio-visual-anomaly", model=str(folder), dtype="float32")
    assert type(detect.model) is RtfmForAnomalyDetection
    nn.init.ones_(detect.model.rtfm.attention.norm.weight)  # of new weights it gives zeros
    found = detect(bikes, batch_size=2)
    encoded = AutoProcessor.from_pretrained(folder)(bikes)
    outputs = detect.model(**encoded)
    scores = detect.model.scores(outputs)[0].tolist()
    assert len(scores) > 4 and max(scores) - min(scores) > 1e-3
    assert [clip["score"] for clip in found["clips"]] == pytest.approx(scores, abs=1e-5)
    magnitudes = [clip["why"]["feature_magnitude"] for clip in found["clips"]]
    assert magnitudes == pytest.approx(outputs.magnitudes[0].tolist(), rel=1e-4)
    for count in (2, len(scores) - 1):  # the last clip is out of reach of the first one's convolutions
        part = {name: value[:, :count] for name, value in encoded.items() if name.endswith("features")}
        assert abs(detect.model.scores(detect.model(**part))[0, 0].item() - scores[0]) > 1e-5
    assert any("Untrained detector" in warning for warning in found["warnings"])
    assert any("hears zeros" in warning for warning in found["warnings"])
