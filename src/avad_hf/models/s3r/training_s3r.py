"""Recipes of training S3R."""

from typing import Any

# As published: Adam, steps of 32 normal and 32 anomalous videos, 15,000 of them (the published code's `max_epoch`
# counts steps). Our runs count epochs, in which each video of the larger class comes once: 580 of them are 15,000
# steps on UCF-Crime; ShanghaiTech's 175 normal videos would need 2,500. The epoch that does best on validation videos
# is kept in any case. The dictionary's share is ShanghaiTech's; for UCF-Crime it was 0.5.
PROFILES: dict[str, dict[str, Any]] = {
    "s3r": {
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
