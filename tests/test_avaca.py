"""AVACA: its attention block against the definition written out, its paths, padding and refusals."""

import math

import pytest
import torch
from torch import nn

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, SlowFastConfig, SlowFastModel
from avad_hf.models.avaca.modeling_avaca import AvacaAttentionBlock

TINY = {"visual_size": 12, "audio_size": 10, "hidden_size": 16, "intermediate_size": 24}


def features(batch=3, clips=5, steps=32, grid=(2, 9)):
    return torch.rand(batch, clips, 12, *grid), torch.rand(batch, clips, steps, 10)


def model(**fields) -> AvacaForAnomalyDetection:
    """A small detector whose batch norms have seen something, so that they are no identity."""
    detector = AvacaForAnomalyDetection(AvacaConfig(**TINY, **fields)).train()
    with torch.no_grad():
        detector(*features())
    return detector.eval()


def naive_block(block: AvacaAttentionBlock, keys, queries, heads=4):
    """Chumachenko et al.'s AttentionBlock for one sample, head by head: norms, attention, no sum around it, MLP."""

    def norm(layer: nn.LayerNorm, x):
        x = x - x.mean(dim=-1, keepdim=True)
        return x / (x.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias

    keys, asked = norm(block.norm1_k, keys), norm(block.norm1_q, queries)
    width = keys.shape[-1]
    head = width // heads
    q, kv = asked @ block.attn.q.weight.T, keys @ block.attn.kv.weight.T
    outputs, maps = [], []
    for index in range(heads):
        part = slice(index * head, (index + 1) * head)
        key, value = kv[:, :width][:, part], kv[:, width:][:, part]
        weights = torch.softmax(q[:, part] @ key.T / math.sqrt(head), dim=-1)
        maps.append(weights)
        outputs.append(weights @ value)
    attended = torch.cat(outputs, dim=-1) @ block.attn.proj.weight.T + block.attn.proj.bias
    hidden = norm(block.norm2, attended) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    return attended + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias, torch.stack(maps)


@pytest.mark.parametrize("lengths", [(18, 32), (31, 18), (4, 1)])
@torch.no_grad()
def test_attention_block_equals_its_definition(lengths):
    block = AvacaAttentionBlock(AvacaConfig())
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    keys, queries = torch.randn(2, lengths[0], 128), torch.randn(2, lengths[1], 128)
    fast, none = block(keys, queries, False)
    shown, maps = block(keys, queries, True)
    assert none is None
    for index in range(2):
        expected, expected_maps = naive_block(block, keys[index], queries[index])
        torch.testing.assert_close(fast[index], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(shown[index], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(maps[index], expected_maps)
    assert sum(p.numel() for p in block.parameters()) == 132_352


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("path", ["focused", "plain"])
@torch.no_grad()
def test_body_equals_section_iv_d(path, residual):
    """V', P', U and both transformers for one clip, in the paper's letters."""
    detector = model(audio_path=path, fusion_residual=residual)
    body = detector.avaca
    visual, audio = features(1, 1)
    v = body.visual_stage1(visual[0]).reshape(16, 18).T
    p = body.audio_stage1(audio[0].transpose(1, 2))[0].T
    u = torch.stack([p[i + 1] - p[i] for i in range(31)]) if path == "focused" else p
    tau_vat, _ = naive_block(body.vat, v, p)
    tau_avt, _ = naive_block(body.avt, u, v)
    if residual:
        tau_vat, tau_avt = tau_vat + p, tau_avt + v
    state = torch.cat([body.audio_stage2(tau_avt.T[None]).mean(2), body.visual_stage2(tau_vat.T[None]).mean(2)], 1)
    expected = state @ detector.classifier.weight.T + detector.classifier.bias
    torch.testing.assert_close(detector(visual, audio).logits, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_zeroed_path_does_not_hear():
    detector = model()
    visual, audio = features()
    zeroed = detector(visual, audio, audio_path="zeroed").logits
    assert torch.equal(zeroed, detector(visual, torch.zeros_like(audio)).logits)
    assert torch.equal(zeroed, detector(visual, audio_path="zeroed").logits)
    assert not torch.allclose(zeroed, detector(visual, audio).logits)
    configured = AvacaForAnomalyDetection(AvacaConfig(**TINY, audio_path="zeroed")).eval()
    configured.load_state_dict(detector.state_dict())
    assert torch.equal(configured(visual, audio).logits, zeroed)


@torch.no_grad()
def test_paths_differ_and_can_be_chosen_for_a_call():
    focused, (visual, audio) = model(), features()
    plain = AvacaForAnomalyDetection(AvacaConfig(**TINY, audio_path="plain")).eval()
    plain.load_state_dict(focused.state_dict())
    assert torch.equal(plain(visual, audio).logits, focused(visual, audio, audio_path="plain").logits)
    assert not torch.allclose(plain(visual, audio).logits, focused(visual, audio).logits)


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    """Scores, losses, gradients and batch-norm statistics are those of the real clips, whatever the padding holds."""
    visual, audio = features()
    mask = torch.arange(5) < torch.tensor([5, 2, 1]).unsqueeze(1)
    labels = torch.tensor([0, 1, 0])
    found = []
    for filler in (0.0, 1e4, float("nan")):
        detector = AvacaForAnomalyDetection(AvacaConfig(**TINY)).train(training)
        torch.manual_seed(1)
        for parameter in detector.parameters():
            nn.init.normal_(parameter, std=0.2)
        v = visual.masked_fill(~mask[..., None, None, None], filler)
        a = audio.masked_fill(~mask[..., None, None], filler)
        outputs = detector(v, a, mask, labels=labels)
        outputs.loss.backward()
        gradients = [p.grad for p in detector.parameters()]
        found.append((outputs.logits[mask], outputs.loss, *gradients, *detector.buffers()))
        assert (outputs.logits.sigmoid()[~mask] == 0).all()
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b)


@torch.no_grad()
def test_a_batch_gives_what_single_videos_give():
    detector, (visual, audio) = model(), features()
    mask = torch.arange(5) < torch.tensor([5, 3, 1]).unsqueeze(1)
    batch = detector(visual, audio, mask).logits
    for index, length in enumerate((5, 3, 1)):
        single = detector(visual[index : index + 1, :length], audio[index : index + 1, :length]).logits[0]
        torch.testing.assert_close(batch[index, :length], single, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_attentions_on_request():
    visual, audio = features()
    mask = torch.arange(5) < torch.tensor([5, 3, 1]).unsqueeze(1)
    for path, steps in (("focused", 31), ("plain", 32)):
        detector = model(audio_path=path)
        assert detector(visual, audio).attentions is None
        outputs = detector(visual, audio, mask, output_attentions=True)
        vat, avt = outputs.attentions
        assert vat.shape == (3, 5, 4, 32, 18) and avt.shape == (3, 5, 4, 18, steps)
        torch.testing.assert_close(vat.sum(-1)[mask], torch.ones_like(vat.sum(-1)[mask]))
        torch.testing.assert_close(outputs.logits, detector(visual, audio, mask).logits, rtol=1e-5, atol=1e-5)


def test_loss_is_the_weighted_sum():
    detector = AvacaForAnomalyDetection(AvacaConfig(**TINY, dmil_weight=7, center_weight=3))
    outputs = detector(*features(), labels=torch.tensor([0, 1, 0]))
    torch.testing.assert_close(outputs.loss, 7 * outputs.dmil_loss + 3 * outputs.center_loss)
    outputs.loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in detector.parameters())


def test_a_few_steps_lower_the_loss():
    detector = AvacaForAnomalyDetection(AvacaConfig(**TINY))
    visual, audio = features()
    labels = torch.tensor([0, 1, 0])
    visual[1] += 0.5
    optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = detector(visual, audio, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_golden_scores():
    """Guards against silent change. To make the numbers anew: print(outputs.logits[0]) after an intended change."""
    torch.manual_seed(0)
    detector = AvacaForAnomalyDetection(AvacaConfig(**TINY)).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in detector.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    visual = torch.linspace(-1, 1, 2 * 12 * 18).reshape(1, 2, 12, 2, 9)
    audio = torch.linspace(1, -1, 2 * 32 * 10).reshape(1, 2, 32, 10).sin()
    assert detector(visual, audio).logits[0].tolist() == pytest.approx(GOLDEN, abs=1e-4)


GOLDEN = [0.5757192, 0.6135415]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"visual_features": torch.rand(1, 2, 7, 2, 9)},
            r"visual_features of shape \(B, T, 12, h, w\), got \(1, 2, 7",
        ),
        ({"visual_features": torch.rand(2, 12, 2, 9)}, r"visual_features of shape"),
        ({"audio_features": None}, "needs audio_features of shape"),
        ({"audio_features": torch.rand(1, 3, 32, 10)}, r"audio_features of shape \(1, 2, S, 10\)"),
        ({"audio_features": torch.rand(1, 2, 1, 10)}, "needs two or more, got 1"),
        ({"audio_path": "loud"}, "audio_path must be one of focused, plain, zeroed, got 'loud'"),
        ({"clip_mask": torch.ones(1, 3)}, r"clip_mask must be of shape \(1, 2\)"),
        ({"visual_features": torch.full((1, 2, 12, 2, 9), math.nan)}, "visual_features holds NaN"),
        ({"audio_features": torch.full((1, 2, 32, 10), math.inf)}, "audio_features holds NaN or infinite"),
        ({"labels": torch.tensor([2])}, r"labels must be 0 \(normal\) or 1 \(anomalous\), got \[2\]"),
    ],
)
def test_refuses(arguments, message):
    visual, audio = features(1, 2)
    with pytest.raises(ValueError, match=message):
        model()(**({"visual_features": visual, "audio_features": audio} | arguments))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 30}, "not a multiple of num_attention_heads"),
        ({"kernel_size": 4}, "must be odd"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"audio_path": "loud"}, "audio_path"),
    ],
)
def test_refuses_impossible_configs(fields, message):
    with pytest.raises(Exception, match=message):
        AvacaConfig(**fields)


def test_refuses_a_checkpoint_of_another_type(tmp_path):
    SlowFastModel(SlowFastConfig(stem_width=8, depths=(1, 1, 1, 1))).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'slowfast', but AvacaConfig reads only 'avaca'"):
        AvacaForAnomalyDetection.from_pretrained(tmp_path)


def test_refuses_a_corrupt_weights_file(tmp_path):
    model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"the weights file is cut or damaged .* Copy or download"):
        AvacaForAnomalyDetection.from_pretrained(tmp_path)


def test_one_clip_of_one_cell_can_be_learnt_from():
    """Batch norm has no variance of one value, and goes by its running statistics."""
    detector = model().train()
    detector(*features(1, 1, grid=(1, 1)), labels=torch.tensor([1.0])).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in detector.parameters())


@pytest.mark.parametrize("name", ["dmil_alpha", "num_attention_heads", "visual_size", "num_audio_steps"])
def test_nothing_is_none(name):
    with pytest.raises(Exception, match=f"{name} must be 1 or more, got 0"):
        AvacaConfig(**{name: 0})
