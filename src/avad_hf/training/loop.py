"""The training loop: one function, read from top to bottom, for one process or many."""

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from avad_hf.data.extraction import process_state
from avad_hf.data.features import FeatureDataset
from avad_hf.evaluation.scoring import inputs_of, labels_of, score_clips
from avad_hf.metrics.ranking import Ranking
from avad_hf.metrics.videos import video_score

from .batches import BalancedBatches
from .config import TrainingConfig
from .models import model_card, new_model
from .run import RunFolder, data_sha256
from .synced_norm import sync_batch_norms

# Videos that are scored together for validation.
SCORING_BATCH = 16


@dataclass(frozen=True)
class TrainingResult:
    """What a run came to.

    Args:
        output_dir: The trained checkpoint.
        best_epoch: Whose weights it holds: the highest validation AUC, of equal ones the lowest validation loss.
        epochs: How many were trained.
        validation: ``roc_auc`` of the videos and ``loss``, in the best epoch.
        threshold: Equal-error threshold of the validation videos.
        threshold_origin: How it was found, as the checkpoint's config says it.
    """

    output_dir: str
    best_epoch: int
    epochs: int
    validation: dict[str, float]
    threshold: float
    threshold_origin: str


def train(
    config: TrainingConfig,
    *,
    train_data: FeatureDataset | None = None,
    validation_data: FeatureDataset | None = None,
    resume: bool = False,
    progress: bool = True,
) -> TrainingResult:
    """Train a detector on stored features, choose its best epoch and its threshold on validation videos, and save it.

    Under ``accelerate launch`` all processes share each batch. Every video of the larger class is seen once an epoch,
    whatever the number of processes; gradients and batch norm are those of the whole batch, so that one process and
    several learn the same. Each epoch leaves a state to resume from.

    Args:
        config: Of the run.
        train_data: Instead of the store's training videos: published features, for example.
        validation_data: Instead of the store's validation videos.
        resume: Go on with the run in ``config.output_dir``, if there is one.
        progress: Whether to show a bar.

    Returns:
        [`TrainingResult`].

    Raises:
        FileNotFoundError: If there is no finished feature store.
        FileExistsError: If the output folder holds something and `resume` is not set.
        ValueError: If training or validation videos are missing, of one class only or without label; if features do
            not fit the model; if the output folder holds another run, or damaged files of this one; if a tracker's
            package is missing; if training diverges.
    """
    process_state()  # refuses processes that do not know of each other
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
    if validation_data is None:
        validation_data = FeatureDataset(config.data, "validation", config.split_seed, config.scene)
    batches = BalancedBatches(labels_of(train_data), config.batch_size, config.seed)
    parts, rank, world = config.gradient_accumulation_steps, accelerator.process_index, accelerator.num_processes
    if batches.smallest < parts * world:
        raise ValueError(
            f"Batches of {2 * batches.smallest} videos are too small for {world} processes and {parts} parts each: "
            "every part needs a normal and an anomalous video. Give a larger batch_size, or fewer processes."
        )
    known = labels_of(validation_data)
    if known.min() == known.max():
        raise ValueError(
            f"All {len(known)} validation videos are {'anomalous' if known.all() else 'normal'}: the best epoch and "
            "the threshold need both. Use another split_seed, or more videos."
        )
    run = RunFolder(config, data_sha256(train_data, validation_data))
    if (finished := run.check(resume)) is not None:
        return TrainingResult(str(run.path), **finished)

    set_seed(config.seed)
    model, processor = new_model(config, train_data)
    sync_batch_norms(model)
    optimizer = _optimizer(config, model)
    scheduler, by_loss = _scheduler(config, optimizer, config.epochs * batches.num_batches)
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(scheduler)

    history, best_epoch = run.load_state(accelerator) if resume else ([], 0)
    accelerator.wait_for_everyone()  # until all have looked at the folder as it was
    if accelerator.is_main_process and not history:
        run.claim()
    if config.log_with:
        accelerator.init_trackers(
            "avad_hf", {k: v for k, v in config.to_dict().items() if isinstance(v, (int, float, str))}
        )
    bar = tqdm(
        total=config.epochs, initial=len(history), unit="epoch", disable=not (progress and accelerator.is_main_process)
    )
    while len(history) < config.epochs and not _has_stalled(config, history, best_epoch):
        epoch = len(history) + 1
        # What each process sees of each part of each batch, and how much that is of the batch.
        shares = [
            (pairs[part::parts][rank::world], len(pairs)) for pairs in batches.epoch(epoch) for part in range(parts)
        ]
        loader = DataLoader(
            train_data,
            batch_sampler=[[video for pair in own for video in pair] for own, _ in shares],
            collate_fn=train_data.collate,
        )
        totals: dict[str, torch.Tensor] = {}
        model.train()
        for index, batch in enumerate(loader):
            is_last_part = (index + 1) % parts == 0
            own, num_pairs = shares[index]
            share = len(own) / num_pairs
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
        validation = _validate(accelerator.unwrap_model(model), validation_data, epoch)
        if by_loss:
            scheduler.step(validation["loss"])
        rate = optimizer.param_groups[0]["lr"]
        history.append({"epoch": epoch, "train": losses, "validation": validation, "learning_rate": rate})
        best_epoch = _best(history)
        run.save_state(accelerator, model, history, best_epoch)
        figures = {f"train/{k}": v for k, v in losses.items()} | {f"validation/{k}": v for k, v in validation.items()}
        accelerator.log(figures | {"learning_rate": rate}, step=epoch)
        shown = {name: f"{value:.3f}" for name, value in losses.items()}
        bar.set_postfix(shown | {"validation_auc": f"{validation['roc_auc']:.3f}", "best_epoch": best_epoch})
        bar.update()
    bar.close()

    # The best epoch's weights, with the threshold that they need.
    detector = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    detector.load_state_dict(run.best_weights(best_epoch))
    scores = _video_scores(score_clips(detector, validation_data, SCORING_BATCH))
    error = Ranking(known, scores).equal_error()
    origin = (
        f"equal error rate {error.rate:.3f} on {len(known)} validation videos ({int(known.sum())} anomalous), each "
        "judged by its highest clip"
    )
    result = {
        "best_epoch": best_epoch,
        "epochs": len(history),
        "validation": history[best_epoch - 1]["validation"],
        "threshold": error.threshold,
        "threshold_origin": origin,
    }
    if accelerator.is_main_process:
        detector.config.update({"threshold": error.threshold, "threshold_origin": origin})
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=run.path) as folder:
            detector.float().save_pretrained(folder)
            if processor is not None:
                processor.save_pretrained(folder)
            (Path(folder) / "README.md").write_text(model_card(config, result, processor), encoding="utf-8")
            run.finish(Path(folder), history, result)
    for tracker in accelerator.trackers:
        tracker.finish()
    accelerator.wait_for_everyone()
    return TrainingResult(str(run.path), **result)


def _optimizer(config: TrainingConfig, model: PreTrainedModel) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    shared = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(trained, momentum=config.momentum, **shared)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer](trained, **shared)


def _scheduler(config: TrainingConfig, optimizer: torch.optim.Optimizer, num_steps: int):
    """The scheduler, and whether it goes by the validation loss, once an epoch, and not by steps."""
    by_loss = config.scheduler == "reduce_lr_on_plateau"
    specific = {"min_lr": config.min_learning_rate} if by_loss else None
    warmup = round(config.warmup_ratio * num_steps)
    return get_scheduler(config.scheduler, optimizer, warmup, num_steps, specific), by_loss


def _validate(detector: PreTrainedModel, data: FeatureDataset, epoch: int) -> dict[str, float]:
    """AUC of the videos, each judged by its highest clip, and the loss of all videos as one batch."""
    scored = score_clips(detector, data, SCORING_BATCH)
    if not all(np.isfinite(item["logits"]).all() for item in scored):
        raise ValueError(
            f"Training diverged in epoch {epoch}: the model's scores are NaN or infinite. Train with a lower "
            "learning_rate, or without mixed_precision, into a new folder."
        )
    logits = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(item["logits"]) for item in scored], batch_first=True)
    lengths = torch.tensor([len(item["logits"]) for item in scored])
    mask = torch.arange(logits.shape[1]) < lengths.unsqueeze(1)
    labels = labels_of(data)
    losses = detector.losses(logits, torch.from_numpy(labels).float(), mask)
    auc = Ranking(labels, _video_scores(scored)).roc_auc()
    return {"roc_auc": auc} | {name: value.item() for name, value in losses.items()}


def _video_scores(scored: list[dict]) -> list[float]:
    return [video_score(torch.from_numpy(item["logits"]).double().sigmoid().numpy()) for item in scored]


def _best(history: list[dict[str, Any]]) -> int:
    best = max(history, key=lambda item: (item["validation"]["roc_auc"], -item["validation"]["loss"]))
    return best["epoch"]


def _has_stalled(config: TrainingConfig, history: list[dict[str, Any]], best_epoch: int) -> bool:
    return config.patience is not None and len(history) - best_epoch >= config.patience and bool(history)


__all__ = ["TrainingResult", "train"]
