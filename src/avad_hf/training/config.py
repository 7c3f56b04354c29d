"""What a training run is told: the data, the model, and how to optimise it."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

Optimizer = Literal["adam", "adamw", "sgd"]
Scheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "reduce_lr_on_plateau"]
MixedPrecision = Literal["no", "bf16", "fp16"]

# What each profile sets; everything else is TrainingConfig's own default.
PROFILES: dict[str, dict[str, Any]] = {
    "default": {},
    # AVACA V-B. The paper gives no batch size. Adam at 1e-5 moves a weight by no more than 1e-5 a step, so 100 epochs
    # learn only as much as they have steps: with 4 videos a batch there are about 5,000 on a scene of MAVAD. Tried on
    # 180 synthetic videos: after 100 epochs the DMIL loss is 0.008 with batches of 4, 0.029 with 16, 0.083 with 64.
    "paper": {
        "epochs": 100,
        "batch_size": 4,
        "learning_rate": 1e-5,
        "optimizer": "adam",
        "weight_decay": 5e-4,
        "scheduler": "constant",
        "warmup_ratio": 0.0,
        "max_grad_norm": None,
        "patience": None,
        "model_options": {"dmil_weight": 10.0, "center_weight": 1.0},
    },
}
# AVRL IV-C. "Updated automatically through minimize the validation loss" is read as a plateau schedule, with torch's
# defaults (a tenth after 10 epochs), as in the code of the 3D ResNet that the paper is built on. That code's dampening
# of the momentum (0.9 in 2018, 0 later) is left out.
PROFILES["avrl"] = {
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
    "fine_tune": True,  # where there is a checkpoint: its networks were trained before
}
# AVACA V-A: a corpus without sound.
PROFILES["shanghaitech"] = PROFILES["paper"] | {
    "model_options": {"dmil_weight": 20.0, "center_weight": 1.0, "audio_path": "zeroed"}
}


@dataclass(frozen=True)
class TrainingConfig:
    """A training run. The defaults are the profile ``"default"``; `from_profile` gives the others.

    Args:
        data: Feature store: a folder that `extract_features` wrote, or the Hub id of one.
        output_dir: Where the run goes, and the trained checkpoint in the end; new or empty.
        model: Checkpoint (folder or Hub id) whose architecture, processor and encoders the trained one gets. Without
            it the detector has its default widths in the shape of the features, and is saved without a processor.
        model_options: Fields of the model's config to set otherwise (``{"audio_path": "plain"}``,
            ``{"fusion": "add"}``).
        fine_tune: Begin with the weights of `model`; new ones, drawn with `seed`, by default. Of an AVRL checkpoint
            of another fusion, modality or other classes both networks are taken, and the classifier is new.
        scene: Only the videos of this scene.
        split_seed: Of the random split, as in [`load_dataset`].
        seed: Of new weights and of the order of the videos.
        epochs: Times that all videos are seen; AVACA: those of the larger of its two classes.
        batch_size: Videos of one step, over all processes. AVACA: half of them normal and half anomalous.
        gradient_accumulation_steps: Parts that a batch is cut into, for less memory. The step stays that of the whole
            batch but for batch norm, whose statistics are those of each part.
        gradient_checkpointing: Compute activations again in the backward pass, for less memory; AVRL only.
        optimizer: ``"adam"`` (weight decay in the gradient), ``"adamw"`` or ``"sgd"``.
        learning_rate: At its highest.
        weight_decay: See `optimizer`.
        momentum: Of ``"sgd"``.
        scheduler: Of the learning rate over all steps; ``"reduce_lr_on_plateau"`` goes by the validation loss.
        warmup_ratio: Share of the steps in which the rate rises from 0; not with ``"constant"`` and
            ``"reduce_lr_on_plateau"``.
        min_learning_rate: Where ``"reduce_lr_on_plateau"`` ends.
        max_grad_norm: Gradients are scaled down to this norm; ``None`` leaves them.
        mixed_precision: ``"no"``, ``"bf16"``, or ``"fp16"`` (on GPUs).
        patience: Epochs without a better validation figure after which training ends; ``None`` to go on.
        log_with: Trackers of Accelerate, ``("tensorboard",)`` for example.

    Raises:
        ValueError: For numbers out of range and unknown names.
    """

    data: str
    output_dir: str
    model: str | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    fine_tune: bool = False
    scene: str | None = None
    split_seed: int | None = None
    seed: int = 0
    epochs: int = 40
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    optimizer: Optimizer = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-1
    momentum: float = 0.9
    scheduler: Scheduler = "cosine"
    warmup_ratio: float = 0.1
    min_learning_rate: float = 1e-7
    max_grad_norm: float | None = 1.0
    mixed_precision: MixedPrecision = "no"
    patience: int | None = 15
    log_with: tuple[str, ...] = ()

    def __post_init__(self):
        for name, kind in (("optimizer", Optimizer), ("scheduler", Scheduler), ("mixed_precision", MixedPrecision)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {getattr(self, name)!r}.")
        for name in ("epochs", "batch_size", "gradient_accumulation_steps", "patience"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}.")
        for name in ("learning_rate", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, got {value!r}.")
        if not self.weight_decay >= 0 or not 0 <= self.warmup_ratio < 1:
            raise ValueError(
                f"weight_decay must be 0 or more and warmup_ratio from 0 to below 1, got {self.weight_decay!r} and "
                f"{self.warmup_ratio!r}."
            )
        if self.fine_tune and self.model is None:
            raise ValueError("fine_tune begins with the weights of a checkpoint: name it by model.")

    @classmethod
    def from_profile(cls, profile: str, **settings) -> "TrainingConfig":
        """A published or tuned recipe, with some settings of one's own.

        Args:
            profile: ``"default"``: tuned on validation videos of the synthetic world. ``"paper"``: AVACA, section V-B.
                ``"shanghaitech"``: AVACA, section V-A, without sound. ``"avrl"``: AVRL, section IV-C.
            settings: Fields of this class; they count before the profile's. `model_options` are merged.

        Raises:
            ValueError: For an unknown profile.
        """
        if profile not in PROFILES:
            raise ValueError(f"profile must be one of {', '.join(PROFILES)}, got {profile!r}.")
        chosen = PROFILES[profile]
        if not settings.get("model"):
            chosen = chosen | {"fine_tune": False}
        options = chosen.get("model_options", {}) | settings.pop("model_options", {})
        return cls(**chosen | settings | {"model_options": options})

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them."""
        return json.loads(json.dumps(asdict(self)))

    def differences(self, saved: dict[str, Any]) -> list[str]:
        """What another run was told otherwise, `output_dir` aside: it may have been moved."""
        now = self.to_dict()
        names = [item.name for item in fields(self) if item.name not in ("output_dir", "log_with")]
        different = [name for name in names if saved.get(name) != now[name]]
        # One folder has many spellings.
        for name in {"data", "model"} & set(different):
            before, place = saved.get(name), getattr(self, name)
            if before and place and os.path.realpath(before) == os.path.realpath(place):
                different.remove(name)
        return [f"{name}: {saved.get(name)!r} there, {now[name]!r} now" for name in different]


__all__ = ["PROFILES", "TrainingConfig"]
