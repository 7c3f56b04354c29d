"""SlowFast against pytorchvideo's, with the same random weights."""

import copy

import pytest
import torch
from pytorchvideo.models.slowfast import create_slowfast

from avad_hf import SlowFastConfig, SlowFastForVideoClassification, SlowFastModel
from avad_hf.models.checkpoints import weights_state
from avad_hf.models.slowfast.inference_slowfast import inference_form

SLOW_FRAMES = [0, 4, 8, 13, 17, 22, 26, 31]
TINY = {"stem_width": 8, "fast_ratio": 4, "depths": (1, 1, 1, 1)}


def randomise(model: torch.nn.Module) -> None:
    """Weights and batch-norm statistics that keep activations near 1, so that relative errors mean something."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(0, 0.1, generator=generator)
        elif tensor.dim() > 1:
            torch.nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=generator)


def original_of(stem_width: int) -> torch.nn.Module:
    """pytorchvideo's SlowFast."""
    widths = (stem_width, stem_width // 8)
    return create_slowfast(model_depth=50, slowfast_fusion_conv_kernel_size=(7, 1, 1), stem_dim_outs=widths)


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The original's weights under our names."""
    return {
        name.replace("blocks.6.proj", "proj") if name.startswith("blocks.6") else f"slowfast.{name}": tensor
        for name, tensor in weights.items()
    }


@pytest.fixture(scope="module")
def pair():
    """pytorchvideo's SlowFast and ours of all layers with the same weights, an eighth as wide as published."""
    original = original_of(8).eval()
    randomise(original)
    ours = SlowFastForVideoClassification(SlowFastConfig(stem_width=8)).eval()
    ours.load_state_dict(renamed(original.state_dict()), strict=True)
    return original, ours


@pytest.mark.parametrize(("size", "cells"), [((193, 225), (1, 2)), ((256, 256), (2, 2)), ((256, 455), (2, 9))])
@torch.no_grad()
def test_equals_pytorchvideo(pair, size, cells):
    original, ours = pair
    video = torch.randn(1, 32, 3, *size)
    channels_first = video.transpose(1, 2)
    expected_map = [channels_first[:, :, SLOW_FRAMES], channels_first]
    for block in original.blocks[:6]:
        expected_map = block(expected_map)
    expected_logits = original.blocks[6](expected_map)
    bodies = []
    hook = ours.slowfast.register_forward_hook(lambda module, inputs, outputs: bodies.append(outputs))
    logits = ours(video).logits
    hook.remove()
    (found,) = bodies
    assert found.feature_map.shape == expected_map.shape[:2] + cells
    for value, expected in (
        (found.feature_map, expected_map.squeeze(2)),
        (logits, expected_logits),
        (found.pooler_output, expected_map.mean(dim=(2, 3, 4))),
    ):
        assert (value - expected).norm() / expected.norm() < 1e-5


def test_weights_are_pytorchvideos():
    """Of the published width."""
    with torch.device("meta"):
        original, ours = original_of(64), SlowFastForVideoClassification(SlowFastConfig())
    assert sum(parameter.numel() for parameter in ours.parameters()) == 34_566_488
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in renamed(original.state_dict()).items()}
    assert len(shapes) == 662


def test_residual_branches_start_as_zero():
    model = SlowFastModel(SlowFastConfig(**TINY))
    last = [m.norm_c.weight for m in model.modules() if hasattr(m, "norm_c")]
    assert len(last) == 8 and all((weight == 0).all() for weight in last)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 3, 224, 224), r"needs pixel_values_videos of shape \(B, 32, 3, H, W\), got \(1, 16, 3, 224, 224\)"),
        ((32, 3, 224, 224), r"got \(32, 3, 224, 224\)"),
        ((1, 32, 3, 128, 224), "at least 193 pixels"),
    ],
)
def test_refuses_other_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        SlowFastModel(SlowFastConfig(**TINY))(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stem_width": 12}, "not a multiple of fast_ratio"),
        ({"num_frames": 30}, "not a multiple of slow_ratio"),
        ({"depths": (1, 1)}, "needs four numbers"),
    ],
)
def test_refuses_impossible_configs(fields, message):
    with pytest.raises(Exception, match=message):
        SlowFastConfig(**fields)


@pytest.mark.parametrize(("frames", "ratio"), [(32, 4), (32, 8), (16, 4), (64, 2), (8, 8)])
@torch.no_grad()
def test_slow_frames_are_those_of_linspace(tmp_path, frames, ratio):
    """Also in a model that was loaded, which begins on the meta device, and in its inference form."""
    config = SlowFastConfig(**TINY, num_frames=frames, slow_ratio=ratio, pool_size=1)
    expected = torch.linspace(0, frames - 1, frames // ratio).long().tolist()
    SlowFastModel(config).save_pretrained(tmp_path)
    loaded = SlowFastModel.from_pretrained(tmp_path).eval()
    # Each frame is of one number, the frame's own.
    video = torch.arange(frames, dtype=torch.float32).view(1, frames, 1, 1, 1).expand(-1, -1, 3, 32, 32)
    for model in (SlowFastModel(config).eval(), loaded, inference_form(loaded), copy.deepcopy(loaded)):
        assert model.slow_frames == expected
        seen = []
        model.blocks[0].register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs))
        model(video)
        ((slow, fast),) = seen
        assert slow[0, 0, :, 0, 0].tolist() == expected and fast[0, 0, :, 0, 0].tolist() == list(range(frames))
    assert (frames, ratio) != (32, 4) or expected == SLOW_FRAMES


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_inference_form_gives_the_same_maps(dtype):
    model = SlowFastModel(SlowFastConfig(**TINY, pool_size=2))
    randomise(model)
    model.to(dtype).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    form = inference_form(model)
    video = torch.randn(2, 32, 3, 64, 96)
    reference = copy.deepcopy(model).float()(video).feature_map
    error = (form(video).feature_map.float() - reference).norm() / reference.norm()
    assert error < (1e-5 if dtype == torch.float32 else 1e-2)
    # Not a batch norm is left, and the model itself is as it was.
    assert not [module for module in form.modules() if isinstance(module, torch.nn.BatchNorm3d)]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_weights_state_tells_every_change():
    model = SlowFastModel(SlowFastConfig(**TINY, pool_size=2))
    states = [weights_state(model)]
    assert weights_state(model) == states[0]
    changes = (
        lambda: model.blocks[0].multipathway_blocks[0].norm.running_mean.add_(1),
        lambda: model.load_state_dict({name: tensor + 1 for name, tensor in model.state_dict().items()}),
        lambda: model.to(torch.bfloat16),
        lambda: setattr(model.blocks[1], "multipathway_fusion", None),
    )
    for change in changes:
        change()
        states.append(weights_state(model))
    assert len(set(states)) == len(states)


def test_every_fourth_frame_as_printed():
    """`slow_sampling="stride"` (AVACA IV-C); recipes of stores name it only where it is chosen."""
    config = SlowFastConfig(stem_width=8, depths=(1, 1, 1, 1), slow_sampling="stride")
    assert SlowFastModel(config).slow_frames == [0, 4, 8, 12, 16, 20, 24, 28]
    assert config.facts()["slow_sampling"] == "stride" and "slow_sampling" not in SlowFastConfig().facts()
    assert SlowFastConfig.from_dict(config.to_dict()).slow_sampling == "stride"
