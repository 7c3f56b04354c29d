"""Recipes of training AR-Net."""

from typing import Any

# As published, for ShanghaiTech: 20 epochs of as many steps as there are training videos (238), each of 30 normal and
# 30 anomalous videos drawn anew. Our epochs see each video of the larger class once: 793 of them are these 4,760
# steps. The published code reads 300 clips of a longer video; here it is read whole.
PROFILES: dict[str, dict[str, Any]] = {
    "arnet": {
        "epochs": 793,
        "batch_size": 60,
        "learning_rate": 1e-4,
        "optimizer": "adam",
        "weight_decay": 5e-4,
        "scheduler": "constant",
        "warmup_ratio": 0.0,
        "max_grad_norm": None,
        "patience": None,
        "scale_features": False,
        "best_by": "figure",
    },
}

__all__ = ["PROFILES"]
