"""The 3D ResNet as it computes fastest while it is not trained: the same network, written down otherwise."""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avad_hf.models.convolution import frozen_copy

from .modeling_resnet3d import ResNet3dBasicBlock, ResNet3dModel


@torch.no_grad()
def fold_norms(model: ResNet3dModel) -> None:
    """Make batch norms parts of the convolutions before them, within the model."""
    pairs = [(model, "conv1", "bn1")]
    for block in model.modules():
        if isinstance(block, ResNet3dBasicBlock):
            pairs += [(block, "conv1", "bn1"), (block, "conv2", "bn2")]
            if block.downsample is not None:
                pairs.append((block.downsample, "0", "1"))
    for module, conv, norm in pairs:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())


def inference_form(model: ResNet3dModel, dtype: torch.dtype | None = None) -> ResNet3dModel:
    """A copy with folded batch norms, laid out as the processor likes it; it gives the same maps to 1e-5 in float32.

    Args:
        model: As it was trained; it stays as it is.
        dtype: What the copy computes in; the model's own type by default.
    """
    return frozen_copy(model, dtype, fold_norms)


__all__ = ["fold_norms", "inference_form"]
