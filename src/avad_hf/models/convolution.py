"""3-D convolutions as they compute fastest: by oneDNN, channels last, with the batch norms in them."""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class OneDnnConv3d(nn.Conv3d):
    """A convolution that is never computed by torch's own loops where oneDNN can compute it.

    For float32 and a batch of one torch chooses between them by channels x frames x height, without the width, and by
    the number of threads. A third of SlowFast's convolutions then go to the loops, which lay out their results
    otherwise, so that what follows is slowed down too. All of it by oneDNN took 0.76 of the time with two threads, and
    0.42 with one. An exported graph keeps the ordinary operation.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` of shape `(B, C, T, H, W)`."""
        if x.dtype != torch.float32 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        settings = self.padding, self.stride, self.dilation, self.groups
        return torch.mkldnn_convolution(x, self.weight, self.bias, *settings)


def by_onednn(model: nn.Module) -> None:
    """Have all 3-D convolutions of a model that stays on the CPU computed by oneDNN, if this torch has it."""
    if torch.backends.mkldnn.is_available():
        for module in model.modules():
            if type(module) is nn.Conv3d:
                module.__class__ = OneDnnConv3d


@torch.no_grad()
def frozen_copy(model: Network, dtype: torch.dtype | None, fold: Callable[[Network], None]) -> Network:
    """A copy with folded batch norms, laid out as the processor likes it. It has other weights' names.

    Args:
        model: The network as it was trained; it stays as it is.
        dtype: What the copy computes in; the model's own type by default.
        fold: Makes batch norms parts of the convolutions before them, within the model.
    """
    dtype = dtype or model.dtype
    # Folded in float32: products of rounded numbers would be rounded twice.
    copied = copy.deepcopy(model).float().eval()
    fold(copied)
    copied = copied.to(dtype).requires_grad_(False)
    if model.device.type != "cpu":  # measured on CPUs alone
        return copied
    by_onednn(copied)
    return copied.to(memory_format=torch.channels_last_3d)


__all__ = ["OneDnnConv3d", "by_onednn", "frozen_copy"]
