"""Recipes of training BN-WVAD."""

from typing import Any

# That of UR-DMU, whose trunk it has. The paper's own was not at hand.
PROFILES: dict[str, dict[str, Any]] = {
    "bnwvad": {
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
