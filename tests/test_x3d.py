"""X3D against pytorchvideo's, with the same random weights; and as an encoder, in a processor and converted."""

import copy
import warnings

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoFeatureExtractor, AutoModelForVideoClassification

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pytorchvideo.models.x3d import create_x3d

from avad_hf import (
    AvacaProcessor,
    FeatureDataset,
    VggishConfig,
    VggishModel,
    X3dConfig,
    X3dForVideoClassification,
    X3dModel,
    extract_features,
)
from avad_hf.convert.encoders import convert
from avad_hf.models.conversion import PublishedFile
from avad_hf.models.x3d.configuration_x3d import SIZES
from avad_hf.models.x3d.convert_x3d import CONVERTER
from avad_hf.models.x3d.inference_x3d import inference_form

from .media_files import frame_times, write_media

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"widths": (8, 16, 32, 64), "depths": (1, 2, 5, 3), "hidden_size": 24, "pool_size": 2, "short_side": 64}
# The same for pytorchvideo.
TINY_ORIGINAL = {"stem_dim_in": 4, "depth_factor": 1.0, "head_dim_out": 24, "input_crop_size": 64}


def randomise(model: torch.nn.Module) -> None:
    """Weights and batch-norm statistics that keep activations near 1, so that relative errors mean something."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if name.endswith("norm_c.weight"):
            tensor.uniform_(0.1, 0.3, generator=generator)  # sums of many blocks would grow, and be their last block
        elif "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(0, 0.1, generator=generator)
        elif tensor.dim() > 1:
            torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=generator)


def original_of(size: str) -> torch.nn.Module:
    """pytorchvideo's network of a published size, random, without its softmax."""
    settings = SIZES[size]
    sizes = {"input_clip_length": settings["num_frames"], "input_crop_size": settings["short_side"]}
    return create_x3d(**sizes, depth_factor=5.0 if size == "l" else 2.2, head_activation=None).eval()


def renamed(weights: dict) -> dict:
    """pytorchvideo's names as ours."""
    return {
        name.replace("blocks.5.proj", "proj") if name.startswith("blocks.5.proj") else f"x3d.{name}": tensor
        for name, tensor in weights.items()
    }


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


# The network


@pytest.mark.parametrize(
    ("size", "height", "width", "grid"),
    [("xs", 160, 284, (1, 5)), ("s", 129, 161, (1, 2)), ("m", 193, 225, (1, 2))],
)
@torch.no_grad()
def test_equals_pytorchvideo(size, height, width, grid):
    original = original_of(size)
    randomise(original)
    ours = X3dForVideoClassification(X3dConfig.from_size(size)).eval()
    ours.load_state_dict(renamed(original.state_dict()), strict=True)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 3_794_274 and len(ours.state_dict()) == 563
    video = torch.randn(1, ours.config.num_frames, 3, height, width)
    x = video.transpose(1, 2)
    for block in original.blocks[:5]:
        x = block(x)
    cells = original.blocks[5].pool(x)
    logits = original.blocks[5](x)
    found = ours.x3d(video)
    assert found.feature_map.shape == (1, 2048, *grid) and ours.config.grid_of(height, width) == grid
    assert cells.std() > 0.1 and (cells == 0).any()
    assert error(found.feature_map, cells.squeeze(2)) < 1e-5
    assert error(found.pooler_output, cells.mean(dim=(2, 3, 4))) < 1e-5
    # Of several cells pytorchvideo's proj comes before the mean.
    assert error(ours.proj(ours.dropout(found.pooler_output)), logits) < 1e-5
    assert error(inference_form(ours.x3d)(video).feature_map, found.feature_map) < 1e-5
    if size == "xs":
        assert error(inference_form(ours.x3d, torch.bfloat16)(video).feature_map, found.feature_map) < 0.02


@torch.no_grad()
def test_classes_of_one_cell_are_those_of_pytorchvideos_softmax():
    """What its published network gives, which averages the softmax of all cells."""
    original = create_x3d(**TINY_ORIGINAL, input_clip_length=16, model_num_class=5).eval()
    randomise(original)
    ours = X3dForVideoClassification(X3dConfig(**TINY, num_labels=5)).eval()
    ours.load_state_dict(renamed(original.state_dict()), strict=True)
    video = torch.randn(2, 16, 3, 64, 64)
    expected = original(video.transpose(1, 2))
    torch.testing.assert_close(expected.sum(dim=1), torch.ones(2))
    assert error(ours(video).logits.softmax(dim=1), expected) < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_weights_are_pytorchvideos(size):
    with torch.device("meta"):
        original = original_of(size)
        ours = X3dForVideoClassification(X3dConfig.from_size(size))
    expected = {name: tensor.shape for name, tensor in renamed(original.state_dict()).items()}
    assert {name: tensor.shape for name, tensor in ours.state_dict().items()} == expected
    count = sum(parameter.numel() for parameter in ours.parameters())
    assert count == (6_153_384 if size == "l" else 3_794_274)
    head = original.blocks[5].pool.pool.kernel_size
    assert head == (ours.config.num_frames, ours.config.pool_size, ours.config.pool_size)


@pytest.mark.parametrize(
    ("size", "frames", "step", "side", "grid"),
    [("xs", 4, 12, 160, (1, 5)), ("s", 13, 6, 160, (1, 5)), ("m", 16, 5, 224, (1, 7)), ("l", 16, 5, 312, (1, 9))],
)
def test_sizes_say_what_they_were_trained_on(size, frames, step, side, grid):
    config = X3dConfig.from_size(size)
    with torch.device("meta"):
        model = X3dModel(config)
    spec = config.as_encoder(model).spec
    assert (spec.num_frames, spec.frame_step, spec.size, spec.grid, spec.width) == (frames, step, side, grid, 2048)
    assert (spec.reads, spec.gives) == ("pixels", "map")
    assert config.short_side >= config.smallest_side
    assert X3dConfig.from_size(size, num_frames=8).num_frames == 8
    if size == "m":
        defaults = X3dConfig()
        assert all(getattr(defaults, name) == getattr(config, name) for name in SIZES["m"])


@pytest.mark.parametrize(
    ("height", "width", "grid"), [(256, 455, (2, 9)), (455, 256, (9, 2)), (224, 398, (1, 7)), (193, 224, (1, 1))]
)
@torch.no_grad()
def test_maps_of_any_frames(height, width, grid):
    config = X3dConfig(widths=(8, 8, 8, 8), depths=(1, 1, 1, 1), hidden_size=16, num_frames=2)
    found = X3dModel(config).eval()(torch.randn(1, 2, 3, height, width))
    assert found.feature_map.shape == (1, 16, *grid) and config.grid_of(height, width) == grid
    torch.testing.assert_close(found.pooler_output, found.feature_map.mean(dim=(2, 3)))


def test_residual_branches_start_as_zero():
    last = [module.norm_c.weight for module in X3dModel(X3dConfig(**TINY)).modules() if hasattr(module, "norm_c")]
    assert len(last) == sum(TINY["depths"]) and all((weight == 0).all() for weight in last)


def test_without_squeeze_and_excitation():
    model = X3dModel(X3dConfig(**TINY, se_ratio=0))
    original = create_x3d(**TINY_ORIGINAL, input_clip_length=16, se_ratio=0)
    assert {f"x3d.{name}" for name in model.state_dict()} == {
        name for name in renamed(original.state_dict()) if name.startswith("x3d.")
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_inference_form_gives_the_same_maps(dtype):
    model = X3dModel(X3dConfig(**TINY))
    randomise(model)
    model.to(dtype).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = model.for_inference(dtype)
    video = torch.randn(2, 16, 3, 64, 96)
    reference = copy.deepcopy(model).float()(video).feature_map
    limit = 1e-5 if dtype == torch.float32 else 2e-2
    assert error(form(video).feature_map, reference) < limit and error(model(video).feature_map, reference) < limit
    # Not a batch norm is left, and the model itself is as it was.
    assert form is not model and form.dtype == dtype
    assert not [module for module in form.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 3, 64, 64), r"needs pixel_values_videos of shape \(B, 16, 3, H, W\), got \(1, 8, 3, 64, 64\)"),
        ((16, 3, 64, 64), r"got \(16, 3, 64, 64\)"),
        ((1, 16, 3, 32, 64), "32 x 64 pixels leave a map .* window of 2 cells. .* at least 33 pixels"),
    ],
)
def test_refuses_other_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        X3dModel(X3dConfig(**TINY))(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "num_frames must be 1 or more, got 0"),
        ({"frame_step": 0}, "frame_step must be 1 or more"),
        ({"pool_size": -1}, "pool_size must be 1 or more"),
        ({"depths": (1, 1)}, "depths needs four numbers"),
        ({"widths": (8, 8, 0, 8)}, "widths needs numbers of 1 or more, at least one, got"),
        ({"bottleneck_factor": 0.01}, "leaves no channel of a stage of 24"),
        ({"se_ratio": 1.5}, "se_ratio must be within 0 and 1, got 1.5"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1"),
        ({"short_side": 192}, "pool_size 7 needs a short_side of 193 or more, got 192"),
    ],
)
def test_refuses_impossible_configs(fields, message):
    with pytest.raises(Exception, match=message):
        X3dConfig(**fields)


def test_refuses_unknown_sizes():
    with pytest.raises(ValueError, match="X3D has the sizes xs, s, m, l, got 'xl'"):
        X3dConfig.from_size("xl")


# The encoder of a processor


def test_processor(tmp_path):
    model = X3dModel(X3dConfig(**TINY))
    randomise(model)
    sound = VggishModel(VggishConfig(hidden_sizes=(4, 4, 8, 8), intermediate_size=16, embedding_size=8))
    processor = AvacaProcessor(video_encoder=model, audio_encoder=sound)
    assert (processor.size, processor.feature_grid, processor.frame_step) == (64, (1, 3), 1)
    assert processor.widths == {"visual_features": 24, "audio_features": 8}
    generator = np.random.default_rng(0)
    video = {
        "frames": generator.integers(0, 256, (40, 72, 128, 3), dtype=np.uint8),
        "fps": 25,
        "waveform": generator.normal(0, 0.1, 32000).astype(np.float32),
        "sampling_rate": 16000,
    }
    features = processor(video)
    # Clips of 16 frames: 40 are two and a half.
    assert features["visual_features"].shape == (1, 3, 24, 1, 3)
    assert features["audio_features"].shape == (1, 3, 16, 8)
    assert features["clip_times"][0, :, 0].tolist() == pytest.approx([0, 0.64, 1.28])
    assert features["visual_features"].std() > 0.1 and features["has_audio"].all()

    # By hand, of frames that need no scaling, but for the inference form.
    small = np.ascontiguousarray(video["frames"][:, :64, :114])
    found = processor(video | {"frames": small})["visual_features"][0, :2]
    clips = torch.from_numpy(small[:32]).view(2, 16, 64, 114, 3).permute(0, 1, 4, 2, 3)
    with torch.no_grad():
        expected = model((clips / 255 - 0.45) / 0.225).feature_map
    assert expected.shape[-2:] == (1, 3) and error(found, expected) < 1e-5

    # What it computes with channels last is stored in one piece, and so is a portrait video's turned map.
    store = tmp_path / "store"
    rows = []
    for name, size in (("wide", (128, 72)), ("tall", (72, 128))):
        path = write_media(tmp_path / f"{name}.mp4", frame_times(25, 1.6), size=size)
        rows.append({"id": name, "video": path, "label": None, "anomaly": None})
    assert extract_features(rows, processor, store).failed == []
    shapes = {tuple(FeatureDataset(store)[index]["visual_features"].shape) for index in (0, 1)}
    assert shapes == {(3, 24, 1, 3)}

    recipe = processor.recipe()["video_encoder"]
    assert recipe["config"]["widths"] == (8, 16, 32, 64) and recipe["dtype"] == "float32"
    assert len(recipe["weights_sha256"]) == 64
    processor.save_pretrained(tmp_path)
    again = AvacaProcessor.from_pretrained(tmp_path)
    assert torch.equal(again(video)["visual_features"], features["visual_features"])
    assert again.recipe()["video_encoder"]["weights_sha256"] == recipe["weights_sha256"]
    model.blocks[5].pool.post_conv.weight.data.add_(1)
    assert processor.recipe()["video_encoder"]["weights_sha256"] != recipe["weights_sha256"]


# Conversion


@pytest.fixture(scope="module")
def xs(tmp_path_factory):
    """Random weights of the size XS, and their file under the published name."""
    original = original_of("xs")
    randomise(original)
    path = tmp_path_factory.mktemp("x3d") / "X3D_XS.pyth"
    torch.save({"model_state": original.state_dict()}, path)
    return original.state_dict(), path


def tiny_file(path, **changes):
    """A file of a tiny network, and what config it has; changes of its weights, ``None`` to leave one out."""
    original = create_x3d(**TINY_ORIGINAL, input_clip_length=4, model_num_class=5)
    randomise(original)
    weights = original.state_dict() | changes
    torch.save({"model_state": {name: tensor for name, tensor in weights.items() if tensor is not None}}, path)
    return path, X3dConfig(**TINY, num_frames=4, num_labels=5)


def test_converts_pytorchvideos_file(xs, tmp_path):
    weights, file = xs
    done = convert("x3d", file, tmp_path / "new")
    assert (done.origin, done.num_parameters) == ("pytorchvideo", 3_794_274)
    assert done.parity.original == "pytorchvideo" and 0 < done.parity.relative_error < 1e-5
    saved = AutoModelForVideoClassification.from_pretrained(tmp_path / "new")
    found = saved.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in renamed(weights).items())
    assert (saved.config.num_frames, saved.config.frame_step, saved.config.num_labels) == (4, 12, 400)
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "new")
    assert (extractor.num_frames, extractor.size, extractor.image_mean) == (4, 160, (0.45,) * 3)
    card = ModelCard.load(tmp_path / "new" / "README.md").text
    for words in (
        "Taken for X3D-XS: its file has the name that this size was published by",
        "Reads 4 RGB frames as (x / 255 - 0.45) / 0.225",
        "frames that are 12 apart, and crops of 160 x 160 pixels",
    ):
        assert words in card


def test_converts_other_networks_by_their_config(tmp_path):
    file, config = tiny_file(tmp_path / "a.pyth")
    done = convert("x3d", file, tmp_path / "new", config=config)
    assert 0 < done.parity.relative_error < 1e-5
    body = X3dModel.from_pretrained(tmp_path / "new")
    assert body.config.num_frames == 4 and body.config.hidden_size == 24


def test_the_size_is_not_guessed(xs, tmp_path):
    """XS, S and M have weights of one shape; what tells them apart is said, and how it is known."""
    weights, file = xs
    tensors = renamed(weights)
    with torch.device("meta"):
        large = X3dForVideoClassification(X3dConfig.from_size("l")).state_dict()

    def made(name, tensors=tensors, **options):
        return CONVERTER.make(PublishedFile(tmp_path / name, "", tensors), None, **options)

    for size in ("xs", "s", "m"):
        settings = SIZES[size]
        for parts in (made(f"X3D_{size.upper()}.pyth"), made("other.pyth", variant=size)):
            assert all(getattr(parts.config, name) == value for name, value in settings.items())
            assert f"Taken for X3D-{size.upper()}: " in parts.facts[0]
    assert "said so" in made("X3D_S.pyth", variant="m").facts[0]
    parts = made("other.pyth", large)
    assert parts.config.depths == (5, 10, 25, 15) and "no other has 25 blocks" in parts.facts[0]
    with pytest.raises(ValueError, match=r"may be X3D-XS, S or M: .*Say which, by variant \(xs, s, m\)"):
        made("other.pyth")
    with pytest.raises(ValueError, match=r"is no X3D-L: its third stage has 11 blocks, as X3D-XS has"):
        made("other.pyth", variant="l")
    with pytest.raises(ValueError, match=r"is no X3D-M: its third stage has 25 blocks, as X3D-L has"):
        made("X3D_M.pyth", large, variant="m")
    with pytest.raises(ValueError, match=r"variant must be one of xs, s, m, l, got 'xl'"):
        made("other.pyth", variant="xl")
    with pytest.raises(ValueError, match=r"Give variant or config, not both"):
        CONVERTER.make(PublishedFile(file, "", tensors), X3dConfig(), variant="m")
    fewer = tensors | {"proj.weight": torch.zeros(174, 2048)}
    with pytest.raises(ValueError, match=r"has 174 classes, .*from_size\(\"m\", num_labels=174\)"):
        made("X3D_M.pyth", fewer)

    renamed_file = tmp_path / "a.pyth"
    renamed_file.symlink_to(file)
    with pytest.raises(ValueError, match="may be X3D-XS, S or M"):
        convert("x3d", renamed_file, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.1.res_blocks.0.branch2.conv_b.weight": None}, r"missing: x3d\.blocks\.1\.res_blocks\.0\.branch2"),
        ({"blocks.6.extra": torch.zeros(3)}, r"not used: blocks\.6\.extra"),
        ({"blocks.0.norm.bias": torch.zeros(3)}, r"wrong shape: x3d\.blocks\.0\.norm\.bias is \(3,\)"),
    ],
)
def test_refuses_other_weights(tmp_path, changes, message):
    file, config = tiny_file(tmp_path / "a.pyth", **changes)
    with pytest.raises(ValueError, match=message):
        convert("x3d", file, tmp_path / "new", config=config)
    assert not (tmp_path / "new").exists()


def test_refuses_files_of_other_networks(tmp_path):
    names = ("blocks.0.multipathway_blocks.0.conv.weight", "blocks.6.proj.weight")
    torch.save({"model_state": {name: torch.zeros(2, 2) for name in names}}, tmp_path / "SLOWFAST_8x8_R50.pyth")
    with pytest.raises(ValueError, match=r"is of another network: .*blocks\.0\.conv\.conv_xy\.weight of pytorchvideo"):
        convert("x3d", tmp_path / "SLOWFAST_8x8_R50.pyth", tmp_path / "new")


def test_official_files_are_pytorchvideos():
    from pytorchvideo.models.hub.x3d import checkpoint_paths

    assert {f"x3d_{size}": file.url for size, file in CONVERTER.downloads.items()} == checkpoint_paths
    assert next(iter(CONVERTER.downloads)) == "m"
