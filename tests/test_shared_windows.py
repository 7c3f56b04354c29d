"""Windows of sound that overlap, whose feature maps share rows, against each window by itself."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avad_hf import VggishConfig, VggishModel, YamnetConfig, YamnetModel
from avad_hf.models.encoder import encoder_of
from avad_hf.models.log_mel import WINDOWS_TOGETHER
from avad_hf.models.shared_windows import MOST_ROWS, TimeStage, compute_rows, shared_rows, whole_rows

RATE = 16000
WAVE = torch.from_numpy(np.random.RandomState(0).uniform(-0.5, 0.5, 3 * RATE)).float() * torch.linspace(0, 1, 3 * RATE)


class Staged(nn.Module):
    """Convolutions of any kernels, strides and padding over time; `forward` computes every window by itself."""

    def __init__(self, stages: list[TimeStage]):
        super().__init__()
        self.stages = stages
        widths = [1, *range(2, 2 + len(stages))]
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, (stage.kernel, 3), (stage.stride, 1), (0, 1))
            for stage, before, after in zip(stages, widths[:-1], widths[1:], strict=True)
        )

    def stage(self, number: int, blocks: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layers[number](blocks))

    def after_stages(self, maps: torch.Tensor) -> torch.Tensor:
        return maps

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        maps = windows.unsqueeze(1)
        for number, stage in enumerate(self.stages):
            maps = self.stage(number, F.pad(maps, (0, 0, stage.before, stage.after)))
        return maps


def windows_of(first: list[int]) -> torch.Tensor:
    """Seconds of the waveform, with silence before its beginning and after its end."""
    padded = F.pad(WAVE, (RATE, RATE))
    return torch.stack([padded[RATE + begin :][:RATE] for begin in first])


def before_frames(fps: float, count: int, step: int = 1) -> list[int]:
    """Where the seconds before frames begin, from the first frame, which hears silence, on."""
    return [math.floor(index * step / fps * RATE + 0.5) - RATE for index in range(count)]


@pytest.fixture(scope="module", params=["vggish", "yamnet"])
def encoder(request):
    torch.manual_seed(0)
    vggish = VggishConfig(hidden_sizes=(4, 4, 8, 8), intermediate_size=16, embedding_size=8)
    yamnet = YamnetConfig(hidden_sizes=(16, 32, 32, 32, 64), strides=(2, 1, 2, 1, 2), num_labels=3)
    network = VggishModel(vggish) if request.param == "vggish" else YamnetModel(yamnet)
    for part in network.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear, nn.BatchNorm2d)) and part.bias is not None:
            nn.init.uniform_(part.bias, 0.1, 0.5)  # rows of zeros become others
    return encoder_of(network.eval())


@pytest.mark.parametrize("seed", range(6))
def test_any_kernels_and_overlaps_equal_each_window_by_itself(seed):
    random = np.random.RandomState(seed)
    stages = []
    for _ in range(3):
        kernel = random.randint(1, 6)
        stages.append(TimeStage(kernel, random.randint(1, 4), random.randint(0, kernel), random.randint(0, kernel)))
    torch.manual_seed(seed)
    network, strip = Staged(stages), torch.randn(1 + 80, 5)
    strip[0] = 0
    # In any order, and some of them twice.
    numbers = torch.tensor(random.randint(1, 40, 30))[:, None] + torch.arange(40)
    expected = network(strip[numbers])
    for plan in (whole_rows, shared_rows):
        first, *rows = plan(numbers, tuple(stages))
        torch.testing.assert_close(compute_rows(network, strip[first], rows), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "shares"),
    [
        (before_frames(25, 32), True),
        (before_frames(30, 32), True),
        (before_frames(50, 20), True),
        (before_frames(25, 13, step=6), True),
        (before_frames(30000 / 1001, 12), False),
        (before_frames(24, 12), False),
        ([0], False),
        ([7, 7 + 160], False),
        ([5, 5, 5], True),
        ([0, 640, 1280, 1280, 1280], True),  # frames that stand for missing ones
        ([1283, 3, 643, 1923, 643 + 160, 9000], True),
        ([-16000, -15999, 30001], False),
    ],
    ids=str,
)
@torch.no_grad()
def test_windows_that_overlap_equal_each_by_itself(encoder, first, shares):
    windows = windows_of(first)
    inputs = encoder.inputs_of(windows, first)
    assert (len(inputs) > 1) == shares
    log_mel = [encoder.feature_extractor.log_mel(window)[None, :96] for window in windows]
    expected = torch.cat([encoder.network(one).pooler_output for one in log_mel])
    found = encoder.encode(windows, first)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert len(expected.unique(dim=0)) > len(set(first)) // 2  # the first ones are silent


@torch.no_grad()
def test_classes_are_of_the_same_windows():
    torch.manual_seed(0)
    encoder = encoder_of(YamnetModel(YamnetConfig(hidden_sizes=(4, 6, 8), strides=(2, 1, 2), num_labels=3)).eval())
    first = before_frames(25, 10)
    pairs = zip(
        encoder.encode_and_name(windows_of(first), first), encoder.encode_and_name(windows_of(first)), strict=True
    )
    for found, expected in pairs:
        assert len(found) == 10
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_every_row_is_computed_once():
    """VGGish at 25 frames a second: rows of the strip, and those near each window's edges, which are its own."""
    stages = encoder_of(VggishModel(VggishConfig(hidden_sizes=(4, 4, 8, 8), intermediate_size=16))).time_stages
    plan = shared_rows(1 + 4 * torch.arange(32)[:, None] + torch.arange(96), stages)
    # After each stage: rows that have an edge in sight, at both ends of a window of 48 or 24 rows; its steps in rows.
    for rows, edge, length, step in zip(plan[1:], (1, 1, 2, 3), (48, 24, 24, 24), (2, 1, 1, 1), strict=True):
        inner = length - 2 * edge + 31 * step
        made_of = {tuple(row) for row in rows.tolist()}
        assert len(made_of) == len(rows) and max(map(max, made_of)) == inner + 2 * edge * 32
    assert plan[-1].shape == (32, 24)


def test_windows_with_little_in_common_are_not_shared():
    stages = (TimeStage(3, 1, 1, 1),)
    few = torch.arange(1, 1 + 4 * 30).view(4, 30)
    assert shared_rows(few, stages) is None
    # The frames alone are common enough, and after the last stage the rows are not.
    pairs = few[:, None].expand(-1, 2, -1).reshape(-1, 30).clone()
    assert len(shared_rows(pairs, stages)[0]) == 4 * 30
    pairs[1::2, ::4] = 1000 + torch.arange(4 * 8).view(4, 8)
    assert len(pairs.unique()) < MOST_ROWS * pairs.numel() and shared_rows(pairs, stages) is None


def test_what_learns_takes_whole_windows():
    network = YamnetModel(YamnetConfig(hidden_sizes=(4, 6, 8), strides=(2, 1, 2), num_labels=3))
    first = before_frames(25, 3)
    assert len(encoder_of(network).inputs_of(windows_of(first), first)) > 1
    assert encoder_of(network).unfrozen().inputs_of(windows_of(first), first).keys() == {"input_features"}


@torch.no_grad()
def test_an_embedding_does_not_depend_on_the_windows_beside_it(encoder):
    """Nor on how many threads compute: feature stores are compared byte for byte."""
    first = before_frames(25, 24)
    windows = windows_of(first)
    together = encoder.encode(windows, first)
    for size in (8, 12, 1):
        parts = [encoder.encode(windows[n : n + size], first[n : n + size]) for n in range(0, 24, size)]
        assert torch.equal(torch.cat(parts), together)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(2, threads))
        assert torch.equal(encoder.encode(windows, first), together)
    finally:
        torch.set_num_threads(threads)


def test_numbers_of_windows_are_few(encoder):
    """Linear layers, and engines, see multiples of eight windows."""
    for count in (1, 5, 9):
        first = before_frames(25, count)
        inputs = list(encoder.inputs_of(windows_of(first), first).values())
        assert len(inputs[-1]) == -(-count // WINDOWS_TOGETHER) * WINDOWS_TOGETHER
