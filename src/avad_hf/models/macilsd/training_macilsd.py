"""Recipes of training MACIL-SD."""

from typing import Any

# As published, with Adam. The original trains the twin with a fifth of the learning rate, by an optimizer of its own;
# here both have one. It lets the rate fall to 0 in 60 epochs and stops after 50; here it falls to 0 in 50.
PROFILES: dict[str, dict[str, Any]] = {
    "macilsd": {
        "epochs": 50,
        "batch_size": 128,
        "learning_rate": 4e-4,
        "optimizer": "adam",
        "weight_decay": 0.0,
        "scheduler": "cosine",
        "warmup_ratio": 0.0,
        "max_grad_norm": None,
        "patience": None,
        "scale_features": False,
        # The loss of validation videos is dominated by the contrast, which tells little of the scores.
        "best_by": "figure",
    },
}

__all__ = ["PROFILES"]
