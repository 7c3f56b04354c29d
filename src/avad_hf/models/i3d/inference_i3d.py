"""I3D as it computes fastest while it is frozen: the same network, written down otherwise."""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avad_hf.models.convolution import frozen_copy

from .modeling_i3d import I3dModel


def fold_norms(model: I3dModel) -> None:
    """Make batch norms parts of the convolutions before them, within the model."""
    for module in model.modules():
        if isinstance(norm := getattr(module, "bn", None), nn.BatchNorm3d):
            module.conv3d, module.bn = fuse_conv_bn_eval(module.conv3d, norm), nn.Identity()


def inference_form(model: I3dModel, dtype: torch.dtype | None = None) -> I3dModel:
    """A copy with folded batch norms, laid out as the processor likes it; it gives the same maps to 1e-5 in float32.

    Args:
        model: The network as it was trained; it stays as it is.
        dtype: What the copy computes in; the model's own type by default.
    """
    return frozen_copy(model, dtype, fold_norms)


__all__ = ["fold_norms", "inference_form"]
