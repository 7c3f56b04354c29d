"""The training loop: one function, read from top to bottom, for one process or many."""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel, ProcessorMixin, get_scheduler

from avad_hf.disks import writing
from avad_hf.evaluation.scoring import inputs_of
from avad_hf.features.dataset import FeatureDataset
from avad_hf.files import PARTIAL
from avad_hf.processes import process_state
from avad_hf.runs import only_run

from .config import TrainingConfig
from .models import model_card, new_model, spec_for
from .objectives import objective_of
from .run import RESUME, RunFolder, data_sha256
from .synced_norm import sync_batch_norms


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Args:
        output_dir: The trained checkpoint.
        best_epoch: Whose weights it holds: that of the lowest validation loss; of event classes that of the highest
            top-1 accuracy (`TrainingConfig.best_by`).
        epochs: How many were trained.
        validation: ``roc_auc`` or ``top1_accuracy`` of the videos, and ``loss``, in the best epoch.
        threshold: Equal-error threshold of the validation videos.
        threshold_origin: How it was found, as the checkpoint's config says it; ``None`` if it could not be looked for,
            because all validation videos are normal or all are anomalous (event classes).
        figure: Which figure of `validation` tells how good the epoch is.
        figure_name: The same, for people.
        warnings: What one must know to read the figures: few validation videos, names that are not learnt.
    """

    output_dir: str
    best_epoch: int
    epochs: int
    validation: dict[str, float]
    threshold: float
    threshold_origin: str | None
    figure: str = "roc_auc"
    figure_name: str = "ROC AUC"
    warnings: list[str] = field(default_factory=list)


def train(
    config: TrainingConfig,
    *,
    train_data: FeatureDataset | None = None,
    validation_data: FeatureDataset | None = None,
    model: PreTrainedModel | None = None,
    processor: ProcessorMixin | None = None,
    resume: bool = False,
    progress: bool = True,
    on_begin: Callable[[], None] | None = None,
    keep_states: bool = True,
) -> TrainingResult:
    """Train a detector on stored features, choose its best epoch and its threshold on validation videos, and save it.

    Which detector that is, the config says by a checkpoint or an architecture; or it is given.

    Under ``accelerate launch`` all processes share each batch. Every video (for scores of clips: of the larger class)
    is seen once an epoch, whatever the number of processes; gradients and batch norm are those of the whole batch, so
    that one process and several learn the same. Each epoch leaves a state to resume from.

    Args:
        config: Settings of the run.
        train_data: Instead of the store's training videos: published features, for example.
        validation_data: Instead of the store's validation videos.
        model: A detector to train as it is, of whatever class: what keeps the contract of
            `avad_hf.models.detector`. The config then names none.
        processor: Saved with `model`, so that the checkpoint reads videos; it must be what made the features.
        resume: Go on with the run in ``config.output_dir``, if there is one.
        progress: Whether to show a bar.
        on_begin: Called in the main process when all checks have passed and training begins.
        keep_states: Whether each epoch leaves a state to resume from, of three times the size of the weights; without
            it a run that was stopped begins again, to the same end.

    Returns:
        [`TrainingResult`].

    Raises:
        FileNotFoundError: If there is no finished feature store.
        FileExistsError: If the output folder holds something and `resume` is not set.
        TypeError: For a model that is no detector.
        ValueError: If training or validation videos are missing, without label or (for scores of clips) of one class
            only; if features or classes do not fit the model; if the output folder holds another run, or damaged files
            of this one; if another process trains into it; if a tracker's package is missing; for videos in bf16 on a
            CPU; if training diverges.
        OSError: If the output folder cannot be written, because the disk is full for example. The epochs that are
            finished stay, and the run can be resumed once there is room.
    """
    # Which refuses processes that do not know of each other.
    with only_run(config.output_dir, process_state().is_main_process):
        return _train(config, train_data, validation_data, model, processor, resume, progress, on_begin, keep_states)


def _train(
    config: TrainingConfig,
    train_data: FeatureDataset | None,
    validation_data: FeatureDataset | None,
    model: PreTrainedModel | None,
    processor: ProcessorMixin | None,
    resume: bool,
    progress: bool,
    on_begin: Callable[[], None] | None,
    keep_states: bool,
) -> TrainingResult:
    AcceleratorState._reset_state()  # of an earlier run in this process, whose precision was another one
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        log_with=list(config.log_with) or None,
        project_dir=config.output_dir,
    )
    # Accelerate leaves out, without a word, trackers whose package is not installed.
    if missing := set(config.log_with) - {"all", *(getattr(kind, "value", kind) for kind in accelerator.log_with)}:
        raise ValueError(f"log_with: the package of {', '.join(sorted(missing))} is not installed.")
    if train_data is None:
        train_data = FeatureDataset(config.data, "train", config.split_seed, config.scene)
    objective = objective_of(spec_for(config, train_data, model))
    if validation_data is None:
        validation_data = FeatureDataset(config.data, "validation", config.split_seed, config.scene)
    # torch 2.14 on processors with AVX-512 computes gradients of 3-D convolutions in bfloat16 that are 1e30 and more
    # where a map is two steps long; batch norm hides them from the scores.
    if train_data.holds_videos and config.mixed_precision == "bf16" and accelerator.device.type == "cpu":
        raise ValueError(
            "Detectors that read videos cannot be trained in bf16 on a CPU: torch's gradients of 3-D convolutions are "
            "wrong there. Train without mixed_precision, or on a GPU."
        )
    batches = objective.batches(config, train_data)
    parts, rank, world = config.gradient_accumulation_steps, accelerator.process_index, accelerator.num_processes
    if batches.smallest < parts * world:
        raise ValueError(
            f"Batches of {config.batch_size} of {len(train_data)} videos are too small for {world} processes and "
            f"{parts} parts each: every part needs a video, or for scores of clips a normal and an anomalous one. "
            "Give a larger batch_size, or fewer processes."
        )
    objective.check(validation_data)
    warnings = objective.warnings(train_data, validation_data)
    described = {"figure": objective.figure, "figure_name": objective.figure_name, "warnings": warnings}
    run = RunFolder(config, data_sha256(train_data, validation_data), keep_states)
    if (finished := run.check(resume)) is not None:
        if accelerator.is_main_process:
            run.clean(is_finished=True)
        return TrainingResult(str(run.path), **finished, **described)

    config = run.config  # that of a run that was begun before is resumed as it was
    best_by = config.best_by or objective.best_by
    set_seed(config.seed)
    model, processor = new_model(config, train_data, model, processor)
    train_data, validation_data = (objective.labelled(data, model) for data in (train_data, validation_data))
    sync_batch_norms(model)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    optimizer = _optimizer(config, model)
    scheduler, by_loss = _scheduler(config, optimizer, config.epochs * batches.num_batches)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler)

    history, best_epoch = run.load_state(accelerator) if resume else ([], 0)
    accelerator.wait_for_everyone()  # until all have looked at the folder as it was
    if accelerator.is_main_process:
        run.clean(is_finished=False)
        if not history:
            run.claim()
        if on_begin is not None:
            on_begin()
    if config.log_with:
        with writing(run.path, "The log of the run", RESUME):
            accelerator.init_trackers(
                "avad_hf", {k: v for k, v in config.to_dict().items() if isinstance(v, (int, float, str))}
            )
    # No word on bars that are wanted: TQDM_DISABLE, the environment variable, decides about them.
    hidden = {} if progress and accelerator.is_main_process else {"disable": True}
    bar = tqdm(total=config.epochs, initial=len(history), unit="epoch", **hidden)
    while len(history) < config.epochs and not _has_stalled(config, history, best_epoch):
        epoch = len(history) + 1
        # What each process sees of each part of each batch (pairs of videos, or single ones), and how much that is of
        # the batch.
        shares = [
            (units[part::parts][rank::world], len(units)) for units in batches.epoch(epoch) for part in range(parts)
        ]
        loader = DataLoader(
            objective.training_view(train_data, config.seed, epoch),
            batch_sampler=[[video for unit in rank_videos for video in unit] for rank_videos, _ in shares],
            collate_fn=train_data.collate,
        )
        totals: dict[str, torch.Tensor] = {}
        model.train()
        for index, batch in enumerate(loader):
            is_last_part = (index + 1) % parts == 0
            rank_videos, num_units = shares[index]
            share = len(rank_videos) / num_units
            with nullcontext() if is_last_part else accelerator.no_sync(model):
                labels = batch["labels"].to(accelerator.device)
                outputs = model(**inputs_of(model, batch, accelerator.device), labels=labels)
                # Gradients are averaged over processes; times their number, they are summed.
                accelerator.backward(outputs.loss * share * world)
            for name, value in outputs.items():
                if name.endswith("loss"):
                    totals[name] = totals.get(name, 0) + value.detach().float() * share
            if is_last_part:
                if config.max_grad_norm is not None:
                    accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                optimizer.step()
                optimizer.zero_grad()
                if not by_loss:
                    scheduler.step()
        losses = {name: accelerator.reduce(value).item() / batches.num_batches for name, value in totals.items()}
        # Not by the wrapper of several processes: its forward waits for all, and some may have no video to score.
        validation = objective.validate(accelerator.unwrap_model(model), validation_data, epoch)
        if by_loss:
            scheduler.step(validation["loss"])
        rate = optimizer.param_groups[0]["lr"]
        history.append({"epoch": epoch, "train": losses, "validation": validation, "learning_rate": rate})
        best_epoch = _best(history, objective.figure if best_by == "figure" else None)
        run.save_state(accelerator, model, history, best_epoch)
        figures = {f"train/{k}": v for k, v in losses.items()} | {f"validation/{k}": v for k, v in validation.items()}
        with writing(run.path, "The log of the run", RESUME):
            accelerator.log(figures | {"learning_rate": rate}, step=epoch)
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        figure = {f"validation_{objective.figure}": f"{validation[objective.figure]:.3f}"}
        bar.set_postfix(shown | figure | {"best_epoch": best_epoch})
        bar.update()
    bar.close()

    # The best epoch's weights, with the threshold that they need.
    detector = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    detector.load_state_dict(run.best_weights(best_epoch))
    result = {
        "best_epoch": best_epoch,
        "epochs": len(history),
        "validation": history[best_epoch - 1]["validation"],
        **objective.threshold(detector, validation_data),
    }
    if accelerator.is_main_process:
        detector.config.update({name: result[name] for name in ("threshold", "threshold_origin")})
        with (
            writing(run.path, "The trained checkpoint", RESUME),
            tempfile.TemporaryDirectory(prefix=f"{PARTIAL}-", dir=run.path) as folder,
        ):
            detector.float().save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(model_card(config, detector, result, processor), encoding="utf-8")
            run.finish(Path(folder), history, result)
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    return TrainingResult(str(run.path), **result, **described)


def _optimizer(config: TrainingConfig, model: PreTrainedModel) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shared = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "adagrad":
        # torch's fused form of it is not on all devices.
        return torch.optim.Adagrad(trained, **shared | {"fused": False})
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, momentum=config.momentum, **shared)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer](trained, **shared)


def _scheduler(config: TrainingConfig, optimizer: torch.optim.Optimizer, num_steps: int):
    """The scheduler, and whether it goes by the validation loss, once an epoch, and not by steps."""
    by_loss = config.scheduler == "reduce_lr_on_plateau"
    specific = {"min_lr": config.min_learning_rate} if by_loss else None
    warmup = round(config.warmup_ratio * num_steps)
    return get_scheduler(config.scheduler, optimizer, warmup, num_steps, specific), by_loss


def _best(history: list[dict[str, Any]], figure: str | None) -> int:
    """The epoch of the highest figure, of equal ones that of the lowest loss; by the loss alone without one."""

    def goodness(item: dict[str, Any]) -> tuple[float, ...]:
        validation = item["validation"]
        return (-validation["loss"],) if figure is None else (validation[figure], -validation["loss"])

    return max(history, key=goodness)["epoch"]


def _has_stalled(config: TrainingConfig, history: list[dict[str, Any]], best_epoch: int) -> bool:
    return config.patience is not None and len(history) - best_epoch >= config.patience and bool(history)


__all__ = ["TrainingResult", "train"]
