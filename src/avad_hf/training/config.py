"""What a training run is told: the data, the model, and how to optimise it."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any, Literal, get_args

from avad_hf.registration import architecture, architectures

Optimizer = Literal["adam", "adamw", "sgd", "adagrad"]
Scheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "reduce_lr_on_plateau"]
MixedPrecision = Literal["no", "bf16", "fp16"]
BestBy = Literal["loss", "figure"]

# What runs did that were begun before there was a choice; they go on so.
BEFORE = {"scale_features": False, "best_by": "figure"}

# For a few hundred real videos. Chosen by folds within 27 recordings of fights (`avad_hf.reproduce.cctv_fights`).
FEW: dict[str, Any] = {"epochs": 20, "learning_rate": 1e-3, "patience": 8}


@cache
def profiles() -> dict[str, dict[str, Any]]:
    """What each profile sets, those of the detectors' papers among them; all else is TrainingConfig's own default."""
    recipes: dict[str, dict[str, Any]] = {"default": {}, "few": FEW}
    for detector in architectures("profiles").values():
        recipes |= detector.load("profiles")
    return recipes


@dataclass(frozen=True)
class TrainingConfig:
    """A training run. The defaults are the profile ``"default"``; `from_profile` gives the others.

    Args:
        data: Feature store: a folder that `extract_features` wrote, or the Hub id of one.
        output_dir: Where the run goes, and the trained checkpoint in the end; new or empty.
        model: Checkpoint (folder or Hub id) whose architecture, processor and encoders the trained one gets. Without
            it the detector has its default widths in the shape of the features, and is saved without a processor.
        architecture: Model type of the detector, where there is no checkpoint; by default the first one that reads
            what the store holds.
        model_options: Fields of the model's config to set otherwise (``{"audio_path": "plain"}``,
            ``{"fusion": "add"}``).
        fine_tune: Begin with the weights of `model`; new ones, drawn with `seed`, by default. Of a detector whose
            networks are trained, and that gets other classes or a classifier of another shape, the networks are taken.
        scale_features: Multiply each sense so that its root mean square over the training videos is 1, and keep the
            scales in the checkpoint: encoders differ in the size of what they give. Not with `fine_tune`, whose
            checkpoint has its own.
        scene: Only the videos of this scene.
        split_seed: Seed of the random split, as in [`load_dataset`].
        seed: Seed of new weights and of the order of the videos.
        epochs: Times that all videos are seen; of detectors that learn scores of clips, those of the larger of the two
            classes.
        batch_size: Videos of one step, over all processes; for scores of clips half normal and half anomalous.
        gradient_accumulation_steps: Parts that a batch is cut into, for less memory. The step stays that of the whole
            batch but for batch norm, whose statistics are those of each part.
        gradient_checkpointing: Compute activations again in the backward pass, for less memory, of networks that can.
        optimizer: ``"adam"`` (weight decay in the gradient), ``"adamw"``, ``"sgd"`` or ``"adagrad"``.
        learning_rate: At its highest.
        weight_decay: See `optimizer`.
        momentum: Momentum of ``"sgd"``.
        scheduler: How the learning rate goes over all steps; ``"reduce_lr_on_plateau"`` goes by the validation loss.
        warmup_ratio: Share of the steps in which the rate rises from 0; not with ``"constant"`` and
            ``"reduce_lr_on_plateau"``.
        min_learning_rate: Where ``"reduce_lr_on_plateau"`` ends.
        max_grad_norm: Gradients are scaled down to this norm; ``None`` leaves them.
        mixed_precision: ``"no"``, ``"bf16"``, or ``"fp16"`` (on GPUs).
        best_by: Which epoch is kept: ``"loss"``, that of the lowest validation loss; or ``"figure"``, that of the
            highest ROC AUC or top-1 accuracy. By default the loss chooses where scores of clips are learnt: of few
            videos the AUC jumps, and the first epochs reach it by luck, with scores that no threshold fits. For event
            classes it is the accuracy.
        patience: Epochs without a better one after which training ends; ``None`` to go on.
        log_with: Trackers of Accelerate, ``("tensorboard",)`` for example.

    Raises:
        ValueError: For numbers out of range and unknown names.
    """

    data: str
    output_dir: str
    model: str | None = None
    architecture: str | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    fine_tune: bool = False
    scale_features: bool = True
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
    best_by: BestBy | None = None
    patience: int | None = 15
    log_with: tuple[str, ...] = ()

    def __post_init__(self):
        kinds = {"optimizer": Optimizer, "scheduler": Scheduler, "mixed_precision": MixedPrecision}
        kinds |= {} if self.best_by is None else {"best_by": BestBy}
        for name, kind in kinds.items():
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
        if self.architecture is not None:
            if self.model is not None:
                raise ValueError("Give model or architecture, not both: a checkpoint has its architecture.")
            architecture(self.architecture, "head", "detector")

    @classmethod
    def from_profile(cls, profile: str, **settings) -> "TrainingConfig":
        """A published or tuned recipe, with some settings of one's own.

        Args:
            profile: ``"default"``: tuned on validation videos of the synthetic world; ``"few"``: on real recordings,
                for a few hundred videos. Others are those of the detectors' papers, in their folders: ``"paper"``
                (AVACA, section V-B), ``"shanghaitech"`` (AVACA, V-A, without sound), ``"avrl"`` (AVRL, IV-C),
                ``"rtfm"``.
            settings: Fields of this class; they override the profile's. `model_options` are merged.

        Raises:
            ValueError: For an unknown profile.
        """
        if profile not in profiles():
            raise ValueError(f"profile must be one of {', '.join(profiles())}, got {profile!r}.")
        chosen = profiles()[profile]
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
            before, new_path = saved.get(name), getattr(self, name)
            if before and new_path and os.path.realpath(before) == os.path.realpath(new_path):
                different.remove(name)
        return [f"{name}: {saved.get(name)!r} there, {now[name]!r} now" for name in different]


__all__ = ["BEFORE", "TrainingConfig", "profiles"]
