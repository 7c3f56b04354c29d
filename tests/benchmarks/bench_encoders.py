"""The encoders' inference forms against the networks as they were trained, in turn: seconds, relative error.

python tests/benchmarks/bench_encoders.py

Random weights, the published sizes: one clip of 32 frames of 256 x 455 pixels, and 32 seconds of sound, one a frame.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from avad_hf import SlowFastConfig, SlowFastModel, VggishConfig, VggishModel
from avad_hf.models.slowfast.inference_slowfast import inference_form as slowfast_form
from avad_hf.models.vggish.inference_vggish import inference_form as vggish_form

ROUNDS = 5


@torch.no_grad()
def compare(name: str, model: PreTrainedModel, form_of: Callable, given: Tensor) -> None:
    reference = model(given).feature_map
    for dtype in (torch.float32, torch.bfloat16):
        forms = {"as trained": model.to(dtype), "inference form": form_of(model)}
        seconds, errors = {kind: [] for kind in forms}, {}
        for _ in range(ROUNDS):
            for kind, form in forms.items():
                begin = time.perf_counter()
                found = form(given).feature_map.float()
                seconds[kind].append(time.perf_counter() - begin)
                errors[kind] = float((found - reference).norm() / reference.norm())
        for kind, times in seconds.items():
            print(f"{name}, {dtype}, {kind}: {min(times):.3f} s, relative error {errors[kind]:.1e}")
        before, after = (min(times) for times in seconds.values())
        print(f"{name}, {dtype}: ratio {after / before:.2f}")
    model.float()


if __name__ == "__main__":
    torch.manual_seed(0)
    compare("SlowFast", SlowFastModel(SlowFastConfig()).eval(), slowfast_form, torch.randn(1, 32, 3, 256, 455))
    compare("VGGish", VggishModel(VggishConfig()).eval(), vggish_form, torch.randn(32, 96, 64))
