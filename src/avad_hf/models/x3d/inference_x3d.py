"""X3D as it computes fastest while it is not trained: the same network, written down otherwise."""

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from avad_hf.models.convolution import frozen_copy

from .modeling_x3d import X3dModel

# Each batch norm, and the convolution before it, by their names in the modules of X3D.
NORMS = {
    "norm": "conv.conv_xy",
    "norm_a": "conv_a",
    "norm_b.0": "conv_b",
    "norm_c": "conv_c",
    "branch1_norm": "branch1_conv",
    "pre_norm": "pre_conv",
}


@torch.no_grad()
def fold_norms(model: X3dModel) -> None:
    """Make batch norms parts of the convolutions before them, within the model."""
    modules = dict(model.named_modules())
    for name, norm in modules.items():
        if isinstance(norm, nn.BatchNorm3d):
            end = next(end for end in NORMS if name.endswith(f".{end}"))
            conv = name.removesuffix(end) + NORMS[end]
            model.set_submodule(conv, fuse_conv_bn_eval(modules[conv], norm))
            model.set_submodule(name, nn.Identity())


def inference_form(model: X3dModel, dtype: torch.dtype | None = None) -> X3dModel:
    """A copy with folded batch norms, laid out as the processor likes it; it gives the same maps to 1e-5 in float32.

    Args:
        model: As it was trained; it stays as it is.
        dtype: What the copy computes in; the model's own type by default.

    With channels last, oneDNN computes the convolutions of single channels two to seven times faster; 2-D convolutions
    of each frame, and sums of those, were slower. On one core with AVX-512 an X3D-M of 224 x 398 pixels took 0.43 of
    the time in float32, and 0.21 in bfloat16. It has other weights' names: save the model, not this.
    """
    return frozen_copy(model, dtype, fold_norms)


__all__ = ["fold_norms", "inference_form"]
