"""Recipes of training SSRL: one for each stage of the published network.

As published: Adam, each stage up to 150,000 steps on 8 GPUs with 4 normal and 4 anomalous videos each. Our runs count
epochs, in which each video of the larger class comes once: 580 are 15,000 steps of 64 videos on UCF-Crime, which RTFM,
the first stage's network, was published with. The epoch that does best on validation videos is kept in any case.

A stage after the first begins with the checkpoint of the one before, which it leaves as it is::

    avad-hf train STORE -o stage1 --architecture ssrl --profile ssrl
    avad-hf train STORE -o stage2 --model stage1 --profile ssrl_stage2
"""

from typing import Any

_STAGE: dict[str, Any] = {
    "epochs": 580,
    "batch_size": 64,
    "learning_rate": 1e-3,
    "optimizer": "adam",
    "weight_decay": 5e-3,
    "scheduler": "constant",
    "warmup_ratio": 0.0,
    "max_grad_norm": None,
    "patience": None,
    "scale_features": False,
    "best_by": "figure",
}

PROFILES: dict[str, dict[str, Any]] = {
    "ssrl": _STAGE | {"model_options": {"stage": 1}},
    "ssrl_stage2": _STAGE | {"fine_tune": True, "model_options": {"stage": 2}},
    "ssrl_stage3": _STAGE | {"fine_tune": True, "model_options": {"stage": 3}},
    "ssrl_stage4": _STAGE | {"fine_tune": True, "model_options": {"stage": 4}},
}

__all__ = ["PROFILES"]
