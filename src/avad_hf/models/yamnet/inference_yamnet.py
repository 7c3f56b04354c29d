"""YAMNet as it computes fastest while it is frozen: the same network, laid out otherwise."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .modeling_yamnet import YamnetConv, YamnetModel


@torch.no_grad()
def inference_form(model: YamnetModel, dtype: torch.dtype | None = None) -> YamnetModel:
    """A copy with folded batch norms whose convolutions have their channels last in memory.

    It gives the same embeddings to 1e-5 in float32, and to 0.02 in bfloat16 with the published weights. On one core
    with AVX-512 it took 0.75 of the time in float32, and 0.4 in bfloat16; VGGish takes eight times as long in either.

    Args:
        model: The network as it was trained; it stays as it is.
        dtype: What the copy computes in; the model's own type by default.
    """
    # Folded in float32: products of rounded numbers would be rounded twice.
    copied = copy.deepcopy(model).float().eval()
    for module in copied.modules():
        if isinstance(module, YamnetConv):
            module.conv, module.bn = fuse_conv_bn_eval(module.conv, module.bn), nn.Identity()
    copied = copied.to(dtype or model.dtype).requires_grad_(False)
    # Measured on CPUs alone.
    return copied.to(memory_format=torch.channels_last) if model.device.type == "cpu" else copied


__all__ = ["inference_form"]
