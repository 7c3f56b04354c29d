"""Windows of sound that overlap: what their feature maps have in common is computed once.

A row of a map is one step of time, with all its bands and channels. Which rows are equal is known before any of them
is computed: those that a layer makes of the same rows, where a row of zeros, the padding, is one like any other. So
the edges of windows, strides, and windows that begin anywhere need no rules of their own, and every window gets what
it would get by itself.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

# Rows that differ among all rows of the last stage, from which on computing rows one by one costs more than it saves.
MOST_ROWS = 2 / 3


class TimeStage(NamedTuple):
    """What the first layers of a network, one after the other, read of time.

    Args:
        kernel: Rows that one row is made of.
        stride: Rows from the first of these to the first of the next row's.
        before: Rows of zeros before a window.
        after: Rows of zeros after a window.
    """

    kernel: int
    stride: int
    before: int
    after: int


class StagedNetwork(Protocol):
    """A network whose first stages can be computed apart from the rest."""

    def stage(self, number: int, blocks: Tensor) -> Tensor:
        """Compute one stage, from 0 on, of blocks of shape `(B, C, rows, bands)`, without zeros before and after."""

    def after_stages(self, maps: Tensor) -> Any:
        """Compute its outputs from the maps of the last stage, of shape `(N, C, rows, bands)`."""


def shared_rows(frames: Tensor, stages: tuple[TimeStage, ...]) -> tuple[Tensor, ...] | None:
    """Plan what to compute of windows, each row once.

    Args:
        frames (`torch.Tensor` of shape `(N, num_frames)`): For each window the numbers of its frames in a table, from
            1 on; 0 is a frame of zeros.
        stages: What each stage reads of time.

    Returns:
        For each stage the rows that its blocks are cut from: of shape `(B, rows)`, numbers in what the stage before
        gives, from 1 on, or in the table of frames; 0 is a row of zeros. After the last stage the rows of each
        window's map, of shape `(N, rows)`. ``None`` where windows have too little in common.
    """
    numbers = frames.numpy()
    return _planned(numbers.tobytes(), numbers.shape, stages)


@lru_cache(maxsize=64)  # Clips of a video that has as many frames every second begin alike.
def _planned(numbers: bytes, shape: tuple[int, int], stages: tuple[TimeStage, ...]) -> tuple[Tensor, ...] | None:
    rows = np.frombuffer(numbers, dtype=np.int64).reshape(shape)
    if len(np.unique(rows)) > MOST_ROWS * rows.size:  # what follows has no less that differs
        return None
    plan = []
    for stage in stages:
        blocks = _blocks(rows, stage, 1)
        unique, which = np.unique(blocks.reshape(-1, stage.kernel), axis=0, return_inverse=True)
        plan.append(torch.from_numpy(unique))
        rows = 1 + which.reshape(blocks.shape[:2])
    return (*plan, torch.from_numpy(rows)) if len(unique) <= MOST_ROWS * rows.size else None


def whole_rows(frames: Tensor, stages: tuple[TimeStage, ...]) -> tuple[Tensor, ...]:
    """Plan every window by itself; arguments and result as of `shared_rows`."""
    plan, rows = [], frames.numpy()
    for stage in stages:
        length = (rows.shape[1] + stage.before + stage.after - stage.kernel) // stage.stride + 1
        plan.append(torch.from_numpy(_blocks(rows, stage, length)[:, 0].copy()))
        rows = 1 + np.arange(len(rows) * length).reshape(-1, length)
    return (*plan, torch.from_numpy(rows))


def _blocks(rows: np.ndarray, stage: TimeStage, height: int) -> np.ndarray:
    """The rows, with zeros around, that every `height` rows of the next map are made of: `(N, blocks, rows)`."""
    padded = np.pad(rows, ((0, 0), (stage.before, stage.after)))
    size = (height - 1) * stage.stride + stage.kernel
    return np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, :: height * stage.stride]


def compute_rows(network: StagedNetwork, blocks: Tensor, rows: Sequence[Tensor]) -> Any:
    """Compute a network's outputs by a plan of `shared_rows` or `whole_rows`.

    Args:
        network: Computes the stages.
        blocks (`torch.Tensor` of shape `(B, rows, bands)`): Frames of the first stage's blocks.
        rows: The plan without its first part.
    """
    maps = blocks.unsqueeze(1)
    for number, index in enumerate(rows):
        maps = network.stage(number, maps)
        channels, bands = maps.shape[1], maps.shape[3]
        # In three dimensions OpenVINO turns them in half the time.
        table = maps.flatten(2).transpose(1, 2).reshape(-1, bands, channels)
        maps = F.pad(table, (0, 0, 0, 0, 1, 0))[index].permute(0, 3, 1, 2)
    return network.after_stages(maps)


class SharedWindows(PreTrainedModel):
    """A network that computes by a plan, to be exported as one graph: for windows that share much and for others."""

    main_input_name = "input_features"

    def __init__(self, network: PreTrainedModel):
        super().__init__(network.config)
        self.network = network

    def forward(self, input_features: Tensor, **rows: Tensor) -> Any:
        """Outputs of the network: of the first stage's blocks, and ``rows_1``, ``rows_2``, ... of the plan."""
        return self.network(input_features, rows=list(rows.values()))


__all__ = ["SharedWindows", "TimeStage", "compute_rows", "shared_rows", "whole_rows"]
