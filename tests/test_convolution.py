"""Convolutions by oneDNN: the same numbers as torch's own, whatever it would have chosen."""

import copy

import pytest
import torch
from torch import nn

from avad_hf.models.convolution import OneDnnConv3d, by_onednn

# Channels in and out, kernel, stride, padding, and the rest of the settings.
KINDS = {
    "spatial": (8, 8, (1, 3, 3), 1, (0, 1, 1), {}),
    "temporal": (8, 16, (3, 1, 1), 1, (1, 0, 0), {"bias": False}),
    "lateral": (4, 8, (7, 1, 1), (4, 1, 1), (3, 0, 0), {}),
    "shortcut": (16, 32, 1, (1, 2, 2), 0, {"bias": False}),
    "stem": (3, 8, (5, 7, 7), (1, 2, 2), (2, 3, 3), {}),
    "in groups, dilated": (8, 8, 3, 1, 2, {"groups": 4, "dilation": 2}),
}


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN, and nothing is replaced"
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_equals_torchs_own(kind, batch, layout, one_thread):
    channels, out, kernel, stride, padding, rest = KINDS[kind]
    torch.manual_seed(0)
    conv = nn.Conv3d(channels, out, kernel, stride, padding, **rest)
    frames = torch.randn(batch, channels, 8, 9, 11)
    expected = copy.deepcopy(conv).double()(frames.double()).float()  # for which torch has nothing but its own
    model = nn.Sequential(conv).to(memory_format=layout)
    by_onednn(model)
    assert isinstance(conv, OneDnnConv3d)
    for given in (frames.to(memory_format=layout), frames.transpose(3, 4).contiguous().transpose(3, 4)):
        torch.testing.assert_close(model(given), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(conv.bfloat16()(frames.bfloat16()).float(), expected, rtol=2e-2, atol=2e-2)


@torch.no_grad()
def test_what_is_exported_is_the_ordinary_operation():
    model = nn.Sequential(nn.Conv3d(3, 4, 1)).eval()
    by_onednn(model)
    graph = torch.export.export(model, (torch.randn(1, 3, 2, 4, 4),)).graph
    assert [node.target for node in graph.nodes if node.op == "call_function"] == [torch.ops.aten.conv3d.default]
