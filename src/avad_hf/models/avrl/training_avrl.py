"""The recipe by which AVRL was trained (section IV-C)."""

from typing import Any

# "Updated automatically through minimize the validation loss" is read as a plateau schedule, with torch's defaults (a
# tenth after 10 epochs), as in the code of the 3D ResNet that the paper is built on. That code's dampening of the
# momentum (0.9 in 2018, 0 later) is left out.
PROFILES: dict[str, dict[str, Any]] = {
    "avrl": {
        "epochs": 80,
        "batch_size": 12,
        "learning_rate": 1e-2,
        "optimizer": "sgd",
        "weight_decay": 1e-3,
        "momentum": 0.9,
        "scheduler": "reduce_lr_on_plateau",
        "warmup_ratio": 0.0,
        "min_learning_rate": 1e-7,
        "max_grad_norm": None,
        "patience": None,
        "scale_features": False,
        "fine_tune": True,  # where there is a checkpoint: its networks were trained before
    }
}

__all__ = ["PROFILES"]
