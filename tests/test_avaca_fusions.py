"""AVACA's three fusions, each against its definition written out, and what holds for all of them."""

import math

import pytest
import torch
from torch import nn
from torch.export import Dim
from transformers import AutoModelForVideoClassification

from avad_hf import AvacaConfig, AvacaForAnomalyDetection

from .test_avaca import TINY, features, naive_block

FUSIONS = ("transformer", "attention", "late")
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


def build(fusion: str, **fields) -> AvacaForAnomalyDetection:
    """A small detector with weights that make sight and sound count, and batch norms that have seen something."""
    torch.manual_seed(0)
    detector = AvacaForAnomalyDetection(AvacaConfig(**TINY, fusion=fusion, **fields)).train()
    for parameter in detector.parameters():
        nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        detector(*features())
    return detector.eval()


def naive_map(block, keys, queries, heads=4):
    """For one sample: how much each query attends to each key, head by head; keys times what all queries give them."""
    width = keys.shape[-1] // heads
    total = torch.zeros(len(keys))
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        q, k = queries @ block.q.weight.T[:, part], keys @ block.k.weight.T[:, part]
        for one in q:
            total += torch.softmax(one @ k.T / math.sqrt(width), dim=0) / heads
    return keys * total[:, None]


@every_fusion
@pytest.mark.parametrize("path", ["focused", "plain", "zeroed"])
@torch.no_grad()
def test_each_fusion_equals_its_definition(fusion, path):
    """One clip, in the letters of AVACA's paper; stages, keys and queries as Chumachenko et al. have them."""
    detector = build(fusion, audio_path=path)
    body = detector.avaca
    visual, audio = features(1, 1)
    heard = torch.zeros_like(audio) if path == "zeroed" else audio
    v = body.visual_stage1(visual[0]).reshape(16, 18).T
    p = body.audio_stage1(heard[0].transpose(1, 2))[0].T

    def visual_stage2(x):
        return body.visual_stage2(x.T[None])[0].T

    def audio_stage2(x):
        return body.audio_stage2(x.T[None])[0].T

    def changes(p):
        return p if path == "plain" else torch.stack([p[i + 1] - p[i] for i in range(len(p) - 1)])

    if fusion == "transformer":
        vat = visual_stage2(naive_block(body.vat, v, p)[0] + p)
        avt = audio_stage2(naive_block(body.avt, changes(p), v)[0] + v)
    elif fusion == "attention":
        vat, avt = visual_stage2(naive_map(body.vat, v, p)), audio_stage2(naive_map(body.avt, changes(p), v))
    else:
        v, p = visual_stage2(v), audio_stage2(p)
        vat, avt = naive_block(body.vat, v, p)[0], naive_block(body.avt, changes(p), v)[0]
    state = torch.cat([avt.mean(0), vat.mean(0)])
    expected = (state @ detector.classifier.weight.T + detector.classifier.bias)[None]
    torch.testing.assert_close(detector(visual, audio).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("fusion", "num_parameters"), [("transformer", 3_561_985), ("attention", 3_362_817), ("late", 3_561_985)]
)
def test_sizes(fusion, num_parameters):
    """Late fusion has the layers of the default in another order; of attention fusion two maps of 32,768 are left."""
    with torch.device("meta"):
        detector = AvacaForAnomalyDetection(AvacaConfig(fusion=fusion))
    assert sum(parameter.numel() for parameter in detector.parameters()) == num_parameters


@every_fusion
def test_every_parameter_learns_and_padding_changes_nothing(fusion):
    visual, audio = features()
    mask = torch.arange(5) < torch.tensor([5, 2, 1]).unsqueeze(1)
    found = []
    for filler in (0.0, float("nan")):
        detector = build(fusion).train()
        v = visual.masked_fill(~mask[..., None, None, None], filler)
        a = audio.masked_fill(~mask[..., None, None], filler)
        outputs = detector(v, a, mask, labels=torch.tensor([0, 1, 0]))
        outputs.loss.backward()
        gradients = [parameter.grad for parameter in detector.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() and gradient.any() for gradient in gradients)
        found.append((outputs.logits[mask], outputs.loss, *gradients, *detector.buffers()))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@every_fusion
@torch.no_grad()
def test_a_video_alone_scores_as_in_a_batch(fusion):
    detector, (visual, audio) = build(fusion), features()
    mask = torch.arange(5) < torch.tensor([5, 3, 1]).unsqueeze(1)
    batch = detector(visual, audio, mask).logits
    for index, length in enumerate((5, 3, 1)):
        single = detector(visual[index : index + 1, :length], audio[index : index + 1, :length]).logits[0]
        torch.testing.assert_close(batch[index, :length], single, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_fusions_hear_and_differ():
    visual, audio = features()
    scores = {}
    for fusion in FUSIONS:
        detector = build(fusion)
        scores[fusion] = detector(visual, audio).logits
        for path in ("zeroed", "plain"):
            assert not torch.allclose(scores[fusion], detector(visual, audio, audio_path=path).logits)
    assert not torch.allclose(scores["transformer"], scores["late"])


@torch.no_grad()
def test_maps_and_states_on_request():
    visual, audio = features(2, 3)
    steps = {"transformer": 32, "attention": 31, "late": 32}
    for fusion in FUSIONS:
        detector = build(fusion)
        outputs = detector(visual, audio, output_attentions=True, output_hidden_states=True)
        vat, avt = outputs.attentions
        assert vat.shape == (2, 3, 4, 32, 18) and avt.shape == (2, 3, 4, 18, 31)
        torch.testing.assert_close(vat.sum(-1), torch.ones_like(vat[..., 0]))
        assert [tuple(state.shape) for state in outputs.hidden_states] == [
            *((2, 3, 18, 16), (2, 3, 32, 16)),
            *((2, 3, 18, 16), (2, 3, steps[fusion], 16)),
        ]
        torch.testing.assert_close(outputs.logits, detector(visual, audio).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fusion", ["attention", "late"])
@torch.no_grad()
def test_checkpoints_and_exported_graphs(fusion, tmp_path):
    detector = build(fusion)
    detector.save_pretrained(tmp_path)
    again = AutoModelForVideoClassification.from_pretrained(tmp_path)
    visual, audio = features(2, 3)
    expected = detector(visual, audio).logits
    assert again.config.fusion == fusion
    torch.testing.assert_close(again(visual, audio).logits, expected)
    shapes = {name: {0: Dim.AUTO, 1: Dim.AUTO} for name in ("visual_features", "audio_features")}
    given = {"visual_features": visual, "audio_features": audio}
    graph = torch.export.export(detector, (), given, dynamic_shapes=shapes).module()
    visual, audio = features(3, 4)
    expected = detector(visual, audio).logits
    torch.testing.assert_close(graph(visual_features=visual, audio_features=audio).logits, expected)


def test_what_was_written_before_is_the_default():
    config = AvacaConfig(**TINY)
    assert config.fusion == "transformer" and "fusion" not in config.facts()
    assert AvacaConfig(fusion="late").facts()["fusion"] == "late"
    assert AvacaConfig.fusions == FUSIONS
    with pytest.raises(Exception, match="fusion"):
        AvacaConfig(fusion="early")
