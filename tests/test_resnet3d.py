"""The 3D ResNet against 3D-ResNet-34 written out from plain torch layers, with the same random weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avad_hf import ResNet3dConfig, ResNet3dForVideoClassification, ResNet3dModel

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {"stem_width": 8, "depths": (1, 1, 1, 1)}
# What is measured at and after each part, without the batch.
SHAPES = {
    (16, 112, 112): {
        "conv1": (64, 16, 56, 56),
        "maxpool": (64, 8, 28, 28),
        "layer1": (64, 8, 28, 28),
        "layer2": (128, 4, 14, 14),
        "layer3": (256, 2, 7, 7),
        "layer4": (512, 1, 4, 4),
    },
    (50, 240, 240): {
        "conv1": (64, 50, 120, 120),
        "maxpool": (64, 25, 60, 60),
        "layer1": (64, 25, 60, 60),
        "layer2": (128, 13, 30, 30),
        "layer3": (256, 7, 15, 15),
        "layer4": (512, 4, 8, 8),
    },
}


class NaiveBlock(nn.Module):
    def __init__(self, channels: int, planes: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1 = nn.Conv3d(channels, planes, (3, 3, 3), (stride, stride, stride), (1, 1, 1), bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, (3, 3, 3), (1, 1, 1), (1, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.stride, self.changes = stride, stride != 1 or channels != planes
        if self.changes and shortcut == "B":
            self.downsample = nn.Sequential(
                nn.Conv3d(channels, planes, (1, 1, 1), (stride, stride, stride), bias=False), nn.BatchNorm3d(planes)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.changes:
            x = F.avg_pool3d(x, kernel_size=1, stride=self.stride)
            zeros = x.new_zeros(len(x), out.shape[1] - x.shape[1], *x.shape[2:])
            x = torch.cat([x, zeros], dim=1)
        return torch.relu(out + x)


class NaiveResNet3d(nn.Module):
    """3D-ResNet-34 as kenshohara/3D-ResNets-PyTorch defines it, for frames of shape `(B, F, channels, H, W)`."""

    def __init__(self, shortcut: str, num_labels: int = 5, channels: int = 3, width: int = 64, depths=(3, 4, 6, 3)):
        super().__init__()
        self.conv1 = nn.Conv3d(channels, width, (7, 7, 7), (1, 2, 2), (3, 3, 3), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        planes = width
        for stage, (depth, stride) in enumerate(zip(depths, (1, 2, 2, 2), strict=True)):
            blocks = []
            for index in range(depth):
                blocks.append(NaiveBlock(planes, width * 2**stage, stride if index == 0 else 1, shortcut))
                planes = width * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(planes, num_labels)

    def encode(self, frames):
        x = torch.relu(self.bn1(self.conv1(frames.permute(0, 2, 1, 3, 4))))
        x = F.max_pool3d(x, 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, frames):
        return self.fc(self.encode(frames).flatten(2).mean(dim=2))


def randomise(model: nn.Module) -> None:
    """Weights and batch-norm statistics that keep activations near 1, so that relative errors mean something."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(0, 0.1, generator=generator)
        elif tensor.dim() > 1:
            std = (2 / tensor[0].numel()) ** 0.5
            tensor.uniform_(-(3**0.5) * std, 3**0.5 * std, generator=generator)
        else:
            tensor.fill_(7)  # batches that were counted


def prefixed(weights: dict) -> dict:
    """The prefix rule: the original's names to ours."""
    return {name if name.startswith("fc.") else f"resnet3d.{name}": tensor for name, tensor in weights.items()}


def paired(shortcut: str, **fields):
    """The naive network and ours, with the same weights."""
    naive = NaiveResNet3d(shortcut, **{"width" if name == "stem_width" else name: fields[name] for name in fields})
    randomise(naive)
    ours = ResNet3dForVideoClassification(ResNet3dConfig(shortcut_type=shortcut, num_labels=5, **fields))
    ours.load_state_dict(prefixed(naive.state_dict()), strict=True)
    return naive, ours


def near(found, expected) -> bool:
    return bool((found - expected).norm() <= 1e-5 * expected.norm())


@pytest.fixture(scope="module", params=["A", "B"])
def pair(request):
    """Of all layers, a quarter as wide as published."""
    naive, ours = paired(request.param, stem_width=16)
    return naive.eval(), ours.eval()


@pytest.mark.parametrize(("size", "cells"), [((8, 48, 80), (1, 2, 3)), ((17, 33, 32), (2, 2, 1))])
@torch.no_grad()
def test_equals_3d_resnet_34(pair, size, cells):
    naive, ours = pair
    frames = torch.randn(2, size[0], 3, *size[1:])
    feature_map = naive.encode(frames)
    found = ours.resnet3d(frames)
    assert found.feature_map.shape == (2, 128, *cells)
    assert feature_map.std() > 0.1
    assert near(found.feature_map, feature_map)
    assert near(found.pooler_output, feature_map.flatten(2).mean(dim=2))
    assert near(ours(frames).logits, naive(frames))


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_trains_as_3d_resnet_34(shortcut):
    """Outputs, gradients and batch-norm statistics in training mode; through shortcut A the gradient passes."""
    naive, ours = paired(shortcut, stem_width=8)
    naive.train()
    ours.train()
    frames = torch.randn(3, 16, 3, 64, 64)
    expected = naive(frames)
    labels = torch.tensor([4, 0, 2])
    outputs = ours(frames, labels=labels)
    assert near(outputs.logits, expected)
    loss = -expected.log_softmax(dim=1)[torch.arange(3), labels].sum() / 3
    torch.testing.assert_close(outputs.loss, loss)
    loss.backward()
    outputs.loss.backward()
    gradients = prefixed({name: parameter.grad for name, parameter in naive.named_parameters()})
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - gradients[name]).norm() <= 1e-4 * gradients[name].norm(), name
    statistics = prefixed(dict(naive.named_buffers()))
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, statistics[name])
        assert not name.endswith("num_batches_tracked") or buffer == 8


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("size", SHAPES)
def test_shapes_layer_by_layer(size, shortcut):
    found = {}
    with torch.device("meta"):
        model = ResNet3dModel(ResNet3dConfig(shortcut_type=shortcut))
        for name in SHAPES[size]:
            getattr(model, name).register_forward_hook(
                lambda module, inputs, output, name=name: found.update({name: tuple(output.shape[1:])})
            )
        outputs = model(torch.empty(2, size[0], 3, *size[1:]))
    assert found == SHAPES[size]
    assert outputs.feature_map.shape == (2, *SHAPES[size]["layer4"])
    assert outputs.pooler_output.shape == (2, 512)


@pytest.mark.parametrize(
    ("shortcut", "classes", "parameters", "entries"),
    [
        ("B", 700, 63_872_636, 218),
        ("A", 700, 63_698_812, 200),
        ("B", 400, 63_718_736, 218),
        ("A", 400, 63_544_912, 200),
        ("B", None, 63_513_536, 216),
        ("A", None, 63_339_712, 198),
    ],
)
def test_has_the_published_size(shortcut, classes, parameters, entries):
    with torch.device("meta"):
        if classes is None:
            model = ResNet3dModel(ResNet3dConfig(shortcut_type=shortcut))
        else:
            model = ResNet3dForVideoClassification(ResNet3dConfig(shortcut_type=shortcut, num_labels=classes))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == entries


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_names_are_those_of_the_original(shortcut):
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = {"conv1.weight", *(f"bn1.{entry}" for entry in norm)}
    for layer, depth in zip((1, 2, 3, 4), (3, 4, 6, 3), strict=True):
        for block in range(depth):
            place = f"layer{layer}.{block}"
            names |= {f"{place}.conv1.weight", f"{place}.conv2.weight"}
            names |= {f"{place}.bn{index}.{entry}" for index in (1, 2) for entry in norm}
        if layer > 1 and shortcut == "B":
            names |= {f"layer{layer}.0.downsample.0.weight"}
            names |= {f"layer{layer}.0.downsample.1.{entry}" for entry in norm}
    with torch.device("meta"):
        config = ResNet3dConfig(shortcut_type=shortcut)
        assert set(ResNet3dModel(config).state_dict()) == names
        classifier = {f"resnet3d.{name}" for name in names} | {"fc.weight", "fc.bias"}
        assert set(ResNet3dForVideoClassification(config).state_dict()) == classifier


@torch.no_grad()
def test_begins_as_the_original_does():
    """Convolutions by He et al. over what leaves them, norms that change nothing."""
    model = ResNet3dForVideoClassification(ResNet3dConfig(stem_width=16, depths=(1, 1, 1, 1)))
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            expected = (2 / (module.out_channels * module.weight[0, 0].numel())) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.1)
        elif isinstance(module, nn.BatchNorm3d):
            assert (module.weight == 1).all() and (module.bias == 0).all()
    assert (model.fc.bias == 0).all()


def trained(checkpointing: bool, shortcut: str, steps: int = 2):
    """A small network after some steps of training, its losses and gradients, and how often its stem was computed."""
    torch.manual_seed(0)
    model = ResNet3dForVideoClassification(ResNet3dConfig(stem_width=8, depths=(2, 1, 1, 1), shortcut_type=shortcut))
    randomise(model)
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
    computed = []
    for part in (model.resnet3d.conv1, model.resnet3d.layer1[1].conv2, model.resnet3d.layer4[0].conv1):
        part.register_forward_hook(lambda module, inputs, output: computed.append(module))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(3, 8, 3, 48, 48), labels=torch.tensor([1, 0, 1])).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return model, losses, [parameter.grad for parameter in model.parameters()], len(computed) // steps


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_checkpointing_changes_nothing_but_memory(shortcut):
    plain, losses, gradients, computed = trained(False, shortcut)
    saving, same_losses, same_gradients, computed_again = trained(True, shortcut)
    assert (computed, computed_again) == (3, 6)
    torch.testing.assert_close(same_losses, losses)
    torch.testing.assert_close(same_gradients, gradients)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(saving.state_dict()[name], tensor, msg=lambda text, name=name: f"{name}: {text}")
        assert not name.endswith("num_batches_tracked") or tensor == 9
    assert all(part.momentum == 0.1 for part in saving.modules() if isinstance(part, nn.BatchNorm3d))


def test_checkpointing_waits_for_training():
    model = ResNet3dModel(ResNet3dConfig(**TINY))
    model.activation_checkpointing_enable()
    frames, computed = torch.randn(2, 4, 3, 32, 32), []
    model.layer2[0].conv1.register_forward_hook(lambda *arguments: computed.append(1))
    model.eval()(frames).pooler_output.sum().backward()
    assert len(computed) == 1
    model.train()(frames).pooler_output.sum().backward()
    assert len(computed) == 3
    model.activation_checkpointing_disable()
    model(frames).pooler_output.sum().backward()
    assert len(computed) == 4


@pytest.mark.parametrize(
    ("shape", "found"),
    [
        ((8, 3, 32, 32), r"\(8, 3, 32, 32\)"),
        ((1, 3, 8, 32, 32), r"\(1, 3, 8, 32, 32\)"),
        ((1, 8, 4, 32, 32), r"\(1, 8, 4, 32, 32\)"),
        ((1, 0, 3, 32, 32), r"\(1, 0, 3, 32, 32\)"),
    ],
)
def test_refuses_other_shapes(shape, found):
    with pytest.raises(ValueError, match=rf"needs pixel_values_videos of shape \(B, F, 3, H, W\), got {found}"):
        ResNet3dModel(ResNet3dConfig(**TINY))(torch.zeros(shape))


def test_takes_as_many_channels_as_configured():
    model = ResNet3dModel(ResNet3dConfig(**TINY, num_channels=4)).eval()
    assert model(torch.zeros(1, 4, 4, 32, 32)).pooler_output.shape == (1, 64)
    with pytest.raises(ValueError, match=r"shape \(B, F, 4, H, W\), got \(1, 4, 3, 32, 32\)"):
        model(torch.zeros(1, 4, 3, 32, 32))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": (3, 4, 6)}, r"depths needs four numbers, one a stage, 1 or more each; got \[3, 4, 6\]"),
        ({"depths": (3, 4, 0, 3)}, r"got \[3, 4, 0, 3\]"),
        ({"shortcut_type": "C"}, "shortcut_type"),
    ],
)
def test_refuses_impossible_configs(fields, message):
    with pytest.raises(Exception, match=message):
        ResNet3dConfig(**fields)
