"""AVRL as it computes fastest while it is not trained: the same networks, written down otherwise."""

import copy

import torch

from avad_hf.models.convolution import by_onednn
from avad_hf.models.resnet3d.inference_resnet3d import fold_norms

from .modeling_avrl import AvrlForVideoClassification


@torch.no_grad()
def inference_form(model: AvrlForVideoClassification, dtype: torch.dtype | None = None) -> AvrlForVideoClassification:
    """A copy with folded batch norms, laid out as the processor likes it; its classifier stays in the model's type.

    It gives the same scores to 1e-5 in float32, and to 0.01 in bfloat16. It has other weights' names: save the model,
    not this.

    Args:
        model: As it was trained; it stays as it is.
        dtype: What both networks compute in; the model's own type by default.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    body = copied.avrl
    if body.visual is not None:
        fold_norms(body.visual)
    body.to(dtype or model.dtype)
    if model.device.type == "cpu":  # measured on CPUs alone
        by_onednn(body)
        for part, layout in ((body.visual, torch.channels_last_3d), (body.audio, torch.channels_last)):
            if part is not None:
                part.to(memory_format=layout)
    return copied


__all__ = ["inference_form"]
