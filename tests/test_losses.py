"""Both losses against a loop over videos in plain Python, and against AR-Net's definition."""

import math

import pytest
import torch

from avad_hf.models.losses import center_loss, dmil_loss


def naive_dmil(logits, labels, lengths, alpha=4, rounding=math.floor, pooled=False):
    """Equation (1), with the sign of cross-entropy, video by video; `pooled` averages all chosen clips at once."""
    per_video = []
    for row, label, length in zip(logits.tolist(), labels.tolist(), lengths, strict=True):
        k = max(1, rounding(length / alpha))
        scores = sorted((1 / (1 + math.exp(-x)) for x in row[:length]), reverse=True)[:k]
        per_video.append([-(label * math.log(s) + (1 - label) * math.log(1 - s)) for s in scores])
    if pooled:
        clips = [value for values in per_video for value in values]
        return sum(clips) / len(clips)
    return sum(sum(values) / len(values) for values in per_video) / len(per_video)


def naive_center(logits, labels, lengths, ddof=0):
    """Equation (2), video by video, averaged over the normal ones."""
    variances = []
    for row, label, length in zip(logits.tolist(), labels.tolist(), lengths, strict=True):
        if label == 0:
            scores = [1 / (1 + math.exp(-x)) for x in row[:length]]
            center = sum(scores) / length
            variances.append(sum((s - center) ** 2 for s in scores) / max(1, length - ddof))
    return sum(variances) / len(variances) if variances else 0.0


CASES = {
    "mixed": ([3, 9, 12, 1], [0, 1, 0, 1]),
    "k is 1": ([4, 5, 7], [1, 0, 1]),
    "shorter than alpha": ([1, 2, 3], [0, 1, 0]),
    "all normal": ([8, 12], [0, 0]),
    "all anomalous": ([8, 12], [1, 1]),
    "one clip": ([1], [0]),
}


@pytest.fixture(params=CASES)
def case(request):
    lengths, labels = CASES[request.param]
    logits = torch.randn(len(lengths), 12, dtype=torch.float64, requires_grad=True)
    mask = torch.arange(12) < torch.tensor(lengths).unsqueeze(1)
    return logits, torch.tensor(labels), mask, lengths


def test_dmil_equals_the_loop(case):
    logits, labels, mask, lengths = case
    assert dmil_loss(logits, labels, mask).item() == pytest.approx(naive_dmil(logits, labels, lengths))
    found = dmil_loss(logits, labels, mask, alpha=2, rounding="ceil", reduction="clip").item()
    assert found == pytest.approx(naive_dmil(logits, labels, lengths, 2, math.ceil, pooled=True))


def test_center_equals_the_loop(case):
    logits, labels, mask, lengths = case
    assert center_loss(logits, labels, mask).item() == pytest.approx(naive_center(logits, labels, lengths))
    found = center_loss(logits, labels, mask, unbiased=True).item()
    assert found == pytest.approx(naive_center(logits, labels, lengths, ddof=1))


def test_gradients_are_finite_and_never_reach_padding(case):
    logits, labels, mask, _ = case
    for unbiased in (False, True):
        loss = 10 * dmil_loss(logits, labels, mask) + center_loss(logits, labels, mask, unbiased=unbiased)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(gradient).all()
        assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("filler", [1e9, -1e9, math.inf, -math.inf, math.nan])
def test_padding_may_hold_anything(case, filler):
    logits, labels, mask, _ = case
    losses = {
        "dmil": lambda values: dmil_loss(values, labels, mask),
        "dmil of clips": lambda values: dmil_loss(values, labels, mask, rounding="ceil", reduction="clip"),
        "center": lambda values: center_loss(values, labels, mask),
        "unbiased": lambda values: center_loss(values, labels, mask, unbiased=True),
    }
    for loss in losses.values():
        padded = logits.detach().masked_fill(~mask, filler).requires_grad_()
        assert torch.equal(loss(padded), loss(logits))
        (gradient,), (expected,) = (torch.autograd.grad(loss(values), values) for values in (padded, logits))
        assert torch.equal(gradient, expected)
        assert (gradient[~mask] == 0).all()


def test_a_video_that_is_all_padding_counts_for_nothing():
    logits = torch.tensor([[0.5, -1.0], [math.nan, math.nan]], requires_grad=True)
    mask, labels = torch.tensor([[True, True], [False, False]]), torch.tensor([0, 0])
    for loss in (dmil_loss, center_loss):
        assert torch.equal(loss(logits, labels, mask), loss(logits[:1], labels[:1], mask[:1]))
        (gradient,) = torch.autograd.grad(loss(logits, labels, mask), logits)
        assert torch.isfinite(gradient).all() and (gradient[1] == 0).all()


def test_equals_ar_net():
    """AR-Net's KMXMILL_individual and normal_smooth, as spec'd in torch terms: ceil, one BCE mean, torch.var."""
    logits = torch.randn(5, 11)
    labels, lengths = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]), [11, 6, 11, 3, 9]
    mask = torch.arange(11) < torch.tensor(lengths).unsqueeze(1)
    scores = logits.sigmoid()
    chosen, targets = [], []
    for row, length, label in zip(scores, lengths, labels, strict=True):
        top = torch.topk(row[:length], math.ceil(length / 4)).values
        chosen.append(top)
        targets.append(label.expand_as(top))
    expected = torch.nn.BCELoss()(torch.cat(chosen), torch.cat(targets))
    torch.testing.assert_close(dmil_loss(logits, labels, mask, rounding="ceil", reduction="clip"), expected)
    # Its variance runs over the padded row: no mask.
    expected = torch.stack([torch.var(row) for row, label in zip(scores, labels, strict=True) if label == 0]).mean()
    torch.testing.assert_close(center_loss(logits, labels, unbiased=True), expected)


def test_stays_finite_where_scores_saturate():
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    for label in (0, 1):
        loss = dmil_loss(logits, torch.tensor([label]), alpha=1)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


def test_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"logits of shape \(B, T\) and one label a video"):
        dmil_loss(torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"clip_mask must be of shape \(3, 4\)"):
        center_loss(torch.zeros(3, 4), torch.zeros(3), torch.ones(3, 5))


@pytest.mark.parametrize("alpha", [0, -4, 0.5])
def test_refuses_an_alpha_below_1(alpha):
    with pytest.raises(ValueError, match=f"alpha must be 1 or more, got {alpha}"):
        dmil_loss(torch.zeros(3, 4), torch.zeros(3), alpha=alpha)
