"""Recipes of training UR-DMU."""

from typing import Any

# As published: 3,000 steps of 64 normal and 64 anomalous videos at one rate. Our runs count epochs, in which each
# video of the larger class comes once: 231 of them are 3,000 steps on UCF-Crime (810 anomalous training videos). The
# published code trains on the ten crops of each video as videos of their own.
PROFILES: dict[str, dict[str, Any]] = {
    "urdmu": {
        "epochs": 231,
        "batch_size": 128,
        "learning_rate": 1e-4,
        "optimizer": "adam",
        "weight_decay": 5e-5,
        "scheduler": "constant",
        "warmup_ratio": 0.0,
        "max_grad_norm": None,
        "patience": None,
        "scale_features": False,
        "best_by": "figure",
    },
}

__all__ = ["PROFILES"]
