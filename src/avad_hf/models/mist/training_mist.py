"""Recipes of training the first stage of MIST."""

from typing import Any

# As published, but for the epochs, which are ours: the best one on validation videos is kept, and training ends where
# none is better for long.
PROFILES: dict[str, dict[str, Any]] = {
    "mist": {
        "epochs": 300,
        "batch_size": 40,
        "learning_rate": 1e-2,
        "optimizer": "adagrad",
        "weight_decay": 1e-3,
        "scheduler": "constant",
        "warmup_ratio": 0.0,
        "max_grad_norm": 10.0,
        "patience": 100,
        "scale_features": False,
        "best_by": "figure",
    },
}

__all__ = ["PROFILES"]
