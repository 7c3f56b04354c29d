"""Activations that are computed again in the backward pass, for less memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CheckpointedModule(nn.Module):
    """A module that can compute its activations again in the backward pass, for less memory.

    transformers sets both attributes, in `activation_checkpointing_enable`.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func = None

    def computed(self, function: Callable[..., Any], *inputs: Tensor | bool | None) -> Any:
        """``function(*inputs)``, which must use no other module with parameters than parts of this one."""
        if not (self.gradient_checkpointing and self.training and torch.is_grad_enabled()):
            return function(*inputs)
        if getattr(self._gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            raise ValueError(
                "use_reentrant=True would count what is computed twice twice in the statistics of batch norms. Call "
                "activation_checkpointing_enable() without it, or leave it out of gradient_checkpointing_kwargs."
            )
        return self._gradient_checkpointing_func(
            function, *inputs, context_fn=lambda: (nullcontext(), _statistics_kept(self))
        )


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norms leave their running statistics alone: what is computed twice must not count twice."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.training]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)


__all__ = ["CheckpointedModule"]
