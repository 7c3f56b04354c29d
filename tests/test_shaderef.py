"""SHADE's references: each kind against its definition, what it refuses, and the doors that all detectors have."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import (
    AvrlConfig,
    AvrlForVideoClassification,
    AvrlProcessor,
    FeatureDataset,
    ResNet3dConfig,
    ResNet3dForVideoClassification,
    ResNet3dModel,
    ShaderefConfig,
    ShaderefForVideoClassification,
    TrainingConfig,
    evaluate,
    train,
)
from avad_hf.models.shaderef.configuration_shaderef import TITLES
from avad_hf.models.shaderef.untrained_shaderef import beside
from avad_hf.untrained import init

from .feature_stores import plant_videos

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "video_config": {"stem_width": 4, "depths": (1, 1, 1, 1)},
    "num_frames": 4,
    "grid_size": (4, 4),
    "cnn_sizes": (4, 8),
    "hidden_sizes": (16, 8),
}
every_kind = pytest.mark.parametrize("kind", TITLES)


def build(kind: str, **settings) -> ShaderefForVideoClassification:
    """A small reference in evaluation mode; batch norms do something."""
    torch.manual_seed(0)
    model = ShaderefForVideoClassification(ShaderefConfig(**SMALL | {"kind": kind} | settings)).eval()
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


def videos(batch: int = 2, frames: int = 4, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


# Against their definitions


def grids(frames: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Means of equal blocks, of shape `(B, F, 3 * rows * columns)`."""
    batch, count, _, height, width = frames.shape
    blocks = frames.view(batch, count, 3, rows, height // rows, columns, width // columns)
    return blocks.mean(dim=(4, 6)).flatten(2)


def lstm(cell: torch.nn.LSTMCell, vectors: torch.Tensor) -> torch.Tensor:
    """Outputs at every step, by the LSTM's equations."""
    memory = state = torch.zeros(len(vectors), cell.hidden_size)
    outputs = []
    for step in range(vectors.shape[1]):
        gates = vectors[:, step] @ cell.weight_ih.T + cell.bias_ih + state @ cell.weight_hh.T + cell.bias_hh
        let_in, keep, new, let_out = gates.chunk(4, dim=1)
        memory = keep.sigmoid() * memory + let_in.sigmoid() * new.tanh()
        state = let_out.sigmoid() * memory.tanh()
        outputs.append(state)
    return torch.stack(outputs, dim=1)


def linear(layer: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + layer.bias


@torch.no_grad()
def test_the_mlp_sees_all_frames_at_once():
    model, frames = build("mlp"), videos()
    body = model.shaderef.network
    x = linear(body.fc1, grids(frames, 4, 4).flatten(1)).clamp(min=0)
    expected = linear(model.classifier, linear(body.fc2, x).clamp(min=0))
    torch.testing.assert_close(model(frames).logits, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_lstm_goes_over_the_frames():
    model, frames = build("lstm"), videos(frames=6)  # of any number
    body = model.shaderef.network
    outputs = lstm(body.cell, linear(body.fc, grids(frames, 4, 4)).clamp(min=0))
    # The average of what is predicted at each frame.
    expected = linear(model.classifier, outputs).mean(dim=1)
    torch.testing.assert_close(model(frames).logits, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_lrcn_sees_each_frame_by_convolutions():
    model, frames = build("lrcn"), videos(frames=3)
    body, vectors = model.shaderef.network, []
    for frame in frames.unbind(1):
        x = frame
        for index, (conv, norm) in enumerate(zip(body.frame.convs, body.frame.norms, strict=True)):
            x = F.conv2d(x, conv.weight, stride=2 if index == 0 else 1, padding=1)
            deviation = (norm.running_var + norm.eps).sqrt()
            x = (x - norm.running_mean[:, None, None]) / deviation[:, None, None] * norm.weight[:, None, None]
            x = F.max_pool2d((x + norm.bias[:, None, None]).relu(), 3, 2, 1)
        vectors.append(linear(body.fc, x.flatten(2).mean(2)).relu())
    expected = linear(model.classifier, lstm(body.cell, torch.stack(vectors, dim=1))).mean(dim=1)
    torch.testing.assert_close(model(frames).logits, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_3d_resnet_is_the_encoders_classifier():
    model, frames = build("resnet3d"), videos()
    config = ResNet3dConfig(**SMALL["video_config"], num_labels=9)
    other = ResNet3dForVideoClassification(config).eval()
    other.resnet3d.load_state_dict(model.shaderef.network.state_dict())
    other.fc.load_state_dict(model.classifier.state_dict())
    assert torch.equal(model(frames).logits, other(frames).logits)


def test_parameters_of_the_base_size():
    counts = {}
    for kind in TITLES:
        with torch.device("meta"):
            model = ShaderefForVideoClassification(ShaderefConfig(kind=kind))
        counts[kind] = sum(parameter.numel() for parameter in model.parameters())

    def layer(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    memory = 4 * 256 * (512 + 256 + 2)
    convolutions = sum(9 * before * after + 2 * after for before, after in pairwise((3, 32, 64, 128, 256)))
    assert counts == {
        "mlp": layer(50 * 3 * 16 * 16, 512) + layer(512, 256) + layer(256, 9),
        "lstm": layer(3 * 16 * 16, 512) + memory + layer(256, 9),
        "lrcn": convolutions + layer(256, 512) + memory + layer(256, 9),
        "resnet3d": 63_513_536 + layer(512, 9),  # 3D-ResNet-34 without its classifier
    }


@every_kind
def test_the_score_is_one_minus_the_normal_classes(kind):
    model = build(kind)
    with torch.no_grad():
        outputs = model(videos(), labels=torch.tensor([0, 8]))
    likelihood = outputs.logits.double().softmax(1)
    torch.testing.assert_close(model.scores(outputs), 1 - likelihood[:, 7:].sum(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.probabilities(outputs), likelihood)
    assert outputs.loss.item() == pytest.approx(-likelihood[[0, 1], [0, 8]].log().mean().item(), rel=1e-5)


# What every network must do, of the kinds that test_common.py does not build


@every_kind
@pytest.mark.parametrize("frames", [4, 1])
def test_a_batch_gives_what_single_videos_give(kind, frames):
    model, given = build(kind, num_frames=frames), videos(3, frames)
    with torch.no_grad():
        together = model(given).logits
        for index in range(3):
            torch.testing.assert_close(model(given[index : index + 1]).logits, together[index : index + 1])


@every_kind
def test_every_parameter_learns_and_checkpointing_changes_nothing(kind):
    gradients = []
    for checkpointed in (False, True):
        model = build(kind).train()
        if checkpointed:
            model.activation_checkpointing_enable()
        model(videos(), labels=torch.tensor([0, 8])).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and gradient.abs().sum() > 0, name
        torch.testing.assert_close(gradients[1][name], gradient)


@every_kind
def test_states_lead_to_the_scores(kind):
    model = build(kind)
    outputs = model(videos(), output_hidden_states=True)
    gradients = torch.autograd.grad(outputs.logits.sum(), outputs.hidden_states)
    assert len(gradients) > 1 and all(gradient.abs().sum() > 0 for gradient in gradients)


@every_kind
def test_a_form_for_inference_is_near(kind):
    model, frames = build(kind), videos()
    with torch.no_grad():
        expected = model(frames).logits
        torch.testing.assert_close(model.for_inference(torch.float32)(frames).logits, expected, rtol=1e-4, atol=1e-5)
        half = model.for_inference(torch.bfloat16)
        assert half.shaderef.dtype == torch.bfloat16 and half.classifier.weight.dtype == torch.float32
        torch.testing.assert_close(half(frames).logits, expected, rtol=0.05, atol=0.05)
    assert model.dtype == torch.float32


@every_kind
def test_it_can_be_exported(kind, tmp_path):
    init("shaderef", tmp_path / "new", "tiny", kind=kind)
    model = ShaderefForVideoClassification.from_pretrained(tmp_path / "new")
    processor = AutoProcessor.from_pretrained(tmp_path / "new")
    (network,) = model.networks_to_export(processor, [])
    program = torch.export.export(network.model, (), network.sample, strict=False)
    given = {name: torch.randn_like(value) for name, value in network.sample.items()}
    with torch.no_grad():
        found, expected = program.module()(**given).logits, model(**given).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["mlp", "lstm"])
def test_frames_smaller_than_the_grid_are_spread_over_it(kind):
    model = build(kind)
    small = videos(height=2, width=2)
    with torch.no_grad():
        torch.testing.assert_close(model(small).logits, model(F.interpolate(small, (3, 4, 4))).logits)


# Training and use


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sight tells the first two classes from the others."""
    return plant_videos(tmp_path_factory.mktemp("videos") / "store", num_videos=48, signal=120.0)


@every_kind
def test_what_can_be_seen_is_learnt(kind, store, tmp_path):
    sizes = {name: SMALL[name] for name in ("grid_size", "cnn_sizes", "hidden_sizes")}
    if kind == "resnet3d":
        sizes["video_config"] = SMALL["video_config"]
    config = TrainingConfig.from_profile(
        "default",
        data=str(store),
        output_dir=str(tmp_path / "run"),
        architecture="shaderef",
        model_options={"kind": kind} | sizes,
        **{"epochs": 12, "batch_size": 6, "learning_rate": 1e-2, "patience": None},
    )
    train(config, progress=False)
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "run")
    assert model.config.num_frames == 4 and model.config.id2label[0] == "arrest" and model.config.num_labels == 9
    figures = evaluate(model, FeatureDataset(store, "test"), num_resamples=0).figures
    pairs = np.array(figures["events"]["confusion_matrix"])
    seen = [0, 2], [7, 8]  # arrest and fight, and the normal ones
    right = sum(pairs[np.ix_(rows, rows)].sum() for rows in seen)
    assert right >= 0.9 * pairs.sum(), pairs
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert f"SHADE: {TITLES[kind]}" in card and "from its frames." in card and "its sound" not in card


def test_the_recipe_is_that_of_avrl():
    def settings(profile: str) -> dict:
        return TrainingConfig.from_profile(profile, data="a", output_dir="b").to_dict()

    assert settings("shaderef") == settings("avrl")


@every_kind
def test_the_pipeline_names_what_is_seen(kind, tmp_path):
    init("shaderef", tmp_path / "new", "tiny", kind=kind)
    rng = np.random.default_rng(0)
    video = {"frames": rng.integers(0, 255, (30, 40, 60, 3), dtype=np.uint8), "fps": 15.0}
    model = ShaderefForVideoClassification.from_pretrained(tmp_path / "new", dtype="float32")
    processor = AvrlProcessor.from_pretrained(tmp_path / "new")
    result = pipeline("audio-visual-anomaly", model=model, processor=processor)(dict(video))
    with torch.no_grad():
        outputs = model(**processor(dict(video)))
    (clip,) = result["clips"]
    names = list(model.config.id2label.values())
    likelihood = outputs.logits.softmax(1)[0].tolist()
    assert clip["probabilities"] == pytest.approx(dict(zip(names, likelihood, strict=True)), abs=1e-5)
    # It never hears: that nothing is heard is not worth a warning.
    assert result["warnings"] == [f"Untrained {TITLES[kind]} (random weights, seed 0): scores mean nothing."]


def test_other_classes_begin_with_the_body():
    source, other = build("lrcn"), build("lrcn", id2label={0: "fire", 1: "normal1"}, normal_labels=["normal1"])
    for parameter in source.parameters():
        parameter.data.add_(1.0)
    classifier = other.classifier.weight.clone()
    other.begin_with(source)
    assert torch.equal(other.classifier.weight, classifier)
    assert torch.equal(other.shaderef.network.fc.weight, source.shaderef.network.fc.weight)
    same = build("lrcn")
    same.begin_with(source)
    assert torch.equal(same.classifier.weight, source.classifier.weight)


@pytest.mark.parametrize("options", [{}, {"fusion": "low_level"}, {"modality": "audio"}])
def test_beside_avrl_it_sees_by_the_same_3d_resnet(options):
    small = {"video_config": SMALL["video_config"], "id2label": {0: "fire", 1: "calm"}, "normal_labels": ["calm"]}
    sound = {"hidden_sizes": (4, 8, 16, 32), "intermediate_size": 8, "embedding_size": 8}
    avrl = AvrlForVideoClassification(AvrlConfig(**small, audio_config=sound, hidden_sizes=(8, 8), **options))
    model = beside(avrl, "resnet3d", 7, "tiny")
    assert model.config.id2label == avrl.config.id2label and model.config.normal_labels == ["calm"]
    kernel = model.shaderef.network.conv1.weight
    assert kernel.shape[1] == 3
    if avrl.avrl.visual is not None:
        assert torch.equal(kernel, avrl.avrl.visual.conv1.weight[:, :3])
    assert beside(avrl, "mlp", 7, "tiny").config.num_frames == 7


def test_init_begins_with_a_trained_3d_resnet(tmp_path):
    encoder = ResNet3dModel(ResNet3dConfig(**SMALL["video_config"], rescale_factor=1, image_std=(1, 1, 1)))
    encoder.save_pretrained(tmp_path / "encoder")
    made = init("shaderef", tmp_path / "new", "tiny", video_encoder=tmp_path / "encoder")
    assert torch.equal(made.model.shaderef.network.conv1.weight, encoder.conv1.weight)
    assert made.processor.rescale_factor == 1 and made.processor.size == (240, 240)
    assert made.model.config.notice.startswith("Untrained classifier (random weights")


# What is refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "n3d"}, "kind must be one of mlp, lstm, lrcn, resnet3d, got 'n3d'"),
        ({"audio_encoder": "some/vggish"}, "SHADE's references see alone, got audio_encoder some/vggish"),
        ({"kind": "mlp", "video_encoder": "some/net"}, "kind 'mlp' has no 3D ResNet, got video_encoder some/net"),
    ],
)
def test_what_cannot_be_begun_is_refused(options, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        init("shaderef", tmp_path / "new", "tiny", **options)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid_size": (4,)}, r"grid_size needs two numbers, got \[4\]"),
        ({"hidden_sizes": (4, 5, 6)}, r"hidden_sizes needs two numbers, got \[4, 5, 6\]"),
        ({"video_config": {"num_channels": 4}}, "video_config.num_channels must be 3, got 4"),
        ({"id2label": {0: "a", 2: "b"}}, r"Class numbers must run from 0 to 1, got \[0, 2\]"),
        ({"id2label": {0: "a", 1: "a"}}, "Class names must differ, got a, a"),
        ({"cnn_sizes": ()}, "cnn_sizes needs numbers of 1 or more"),
    ],
)
def test_impossible_configs_are_refused(settings, words):
    with pytest.raises(Exception, match=words):
        ShaderefConfig(**SMALL | settings)


def test_what_it_cannot_see_is_refused():
    model = build("mlp")
    with pytest.raises(ValueError, match=r"shape \(B, F, 3, H, W\), got \(2, 4, 1, 16, 24\)"):
        model(videos()[:, :, :1])
    with pytest.raises(ValueError, match="This MLP needs 4 frames of each video, got 5"):
        model(videos(frames=5))
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        model(videos() * math.nan)
    with pytest.raises(ValueError, match="labels must be class numbers from 0 to 8"):
        model(videos(), labels=torch.tensor([0, 9]))
    with pytest.raises(ValueError, match="normal_labels must name some of the classes"):
        build("mlp", normal_labels=["calm"])


def test_classes_come_back_in_their_order(tmp_path):
    model = build("lstm", id2label={number: f"class{number}" for number in range(12)}, normal_labels=["class3"])
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["id2label"]["11"] == "class11"
    again = ShaderefForVideoClassification.from_pretrained(tmp_path)
    assert list(again.config.id2label) == list(range(12)) and again.normal_ids == [3]
    assert ShaderefConfig(label2id={"b": 1, "normal1": 0}).id2label == {0: "normal1", 1: "b"}
