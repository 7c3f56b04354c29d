"""Recipes of training RTFM."""

from typing import Any

# As published: 15,000 steps of 32 normal and 32 anomalous videos, whatever the corpus. Our runs count epochs, in which
# each video of the larger class comes once: 580 of them are 15,000 steps on UCF-Crime (810 anomalous training videos);
# ShanghaiTech's 175 normal ones would need 2,500. The epoch that does best on validation videos is kept in any case.
PROFILES: dict[str, dict[str, Any]] = {
    "rtfm": {
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
    },
}

__all__ = ["PROFILES"]
