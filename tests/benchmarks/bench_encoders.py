"""The encoders' inference forms against the networks as they were trained, in turn: seconds, relative error.

python tests/benchmarks/bench_encoders.py [ENCODER ...]
python tests/benchmarks/bench_encoders.py slowfast i3d 224x224 224x398 256x455

With sizes (height x width), the inference forms of video encoders beside each other, in turn, at each of them.

Random weights, the published sizes: one clip of the frames that the encoder reads, in 16:9 where it takes any shape;
or 32 windows of sound, one a frame. For encoders whose windows share rows of feature maps then each window by itself
and what they share once, in turn, at 25 and 30 frames a second.
"""

import sys
import time
from itertools import product
from statistics import median

import torch
from torch import Tensor
from transformers import PreTrainedModel

from avad_hf.models.encoder import Encoder, encoder_of, normalise
from avad_hf.registration import ARCHITECTURES

ROUNDS = 5


def network_input(encoder: Encoder) -> Tensor:
    """What the encoder's network is called with."""
    spec = encoder.spec
    if spec.reads == "waveform":
        windows = torch.rand(32, round(spec.window_s * spec.sampling_rate)) * 2 - 1
        return next(iter(encoder.inputs_of(windows).values()))
    height, width = (spec.size, spec.size * 16 // 9) if isinstance(spec.size, int) else spec.size
    pixels = torch.randint(256, (1, spec.num_frames, 3, height, width), dtype=torch.uint8)
    return normalise(pixels, encoder.image_mean, encoder.image_std)


@torch.no_grad()
def compare(name: str, network: PreTrainedModel) -> None:
    encoder = encoder_of(network)
    given = network_input(encoder)
    reference = network(given)[encoder.output]
    for dtype in (torch.float32, torch.bfloat16):
        forms = {"inference form": network.for_inference(dtype), "as trained": network.to(dtype)}
        seconds, errors = {kind: [] for kind in forms}, {}
        for _ in range(ROUNDS):
            for kind, form in forms.items():
                begin = time.perf_counter()
                found = form(given.to(dtype))[encoder.output].float()
                seconds[kind].append(time.perf_counter() - begin)
                errors[kind] = float((found - reference).norm() / reference.norm())
        for kind, times in seconds.items():
            print(f"{name}, {dtype}, {kind}: {min(times):.3f} s, relative error {errors[kind]:.1e}")
        after, before = (min(times) for times in seconds.values())
        print(f"{name}, {dtype}: ratio {after / before:.2f}")
        network.float()


@torch.no_grad()
def overlapping(name: str, network: PreTrainedModel) -> None:
    encoder = encoder_of(network)
    if not getattr(encoder, "time_stages", ()):
        return
    rate = encoder.spec.sampling_rate
    waveform = torch.rand(3 * rate) * 2 - 1
    for dtype, fps in product((torch.float32, torch.bfloat16), (25, 30)):
        computing = encoder.to(dtype=dtype).computing
        starts = [round(number / fps * rate) for number in range(32)]
        windows = torch.stack([waveform[start : start + rate] for start in starts])
        whole, (blocks, *rows) = encoder.inputs_of(windows), encoder.inputs_of(windows, starts).values()
        seconds: dict[str, list[float]] = {"each by itself": [], "shared": []}
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            expected = computing(**whole)[encoder.output].float()
            middle = time.perf_counter()
            found = computing(blocks, rows=rows)[encoder.output].float()
            seconds["each by itself"].append(middle - begin)
            seconds["shared"].append(time.perf_counter() - middle)
        error = float((found - expected).norm() / expected.norm())
        before, after = map(median, seconds.values())
        print(
            f"{name}, {dtype}, 32 windows at {fps} frames a second: each by itself {before:.3f} s, shared {after:.3f}"
        )
        print(f"    ratio {after / before:.2f}, relative difference {error:.1e}")


@torch.no_grad()
def side_by_side(networks: dict[str, PreTrainedModel], height: int, width: int) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        forms = {title: network.for_inference(dtype) for title, network in networks.items()}
        seconds = {title: [] for title in forms}
        for _ in range(ROUNDS):
            for title, form in forms.items():
                clip = torch.randn(1, form.config.num_frames, 3, height, width, dtype=dtype)
                begin = time.perf_counter()
                form(clip)
                seconds[title].append(time.perf_counter() - begin)
        first = min(next(iter(seconds.values())))
        for title, times in seconds.items():
            size = f"{forms[title].config.num_frames} x {height} x {width}"
            print(f"{title}, {size}, {dtype}: {min(times):.3f} s, ratio {min(times) / first:.2f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    sizes = [tuple(map(int, word.split("x"))) for word in sys.argv[1:] if word[0].isdigit()]
    names = [word for word in sys.argv[1:] if not word[0].isdigit()]
    found = {}
    for one in ARCHITECTURES.values():
        config = one.load("config")()
        if hasattr(config, "as_encoder") and (not names or one.model_type in names):
            found[one.model_type] = one.title, one.load("model")(config).eval()
    if not sizes:
        for title, network in found.values():
            compare(title, network)
            overlapping(title, network)
    for height, width in sizes:
        side_by_side(dict(found[name] for name in names), height, width)
