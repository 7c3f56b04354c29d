"""The encoders' inference forms against the networks as they were trained, in turn: seconds, relative error.

python tests/benchmarks/bench_encoders.py [ENCODER ...]

Random weights, the published sizes: one clip of the frames that the encoder reads, in 16:9 where it takes any shape;
or 32 windows of sound, one a frame.
"""

import sys
import time

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


if __name__ == "__main__":
    torch.manual_seed(0)
    for one in ARCHITECTURES.values():
        config = one.load("config")()
        if hasattr(config, "as_encoder") and (len(sys.argv) == 1 or one.model_type in sys.argv):
            compare(one.title, one.load("model")(config).eval())
