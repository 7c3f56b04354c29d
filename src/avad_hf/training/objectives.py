"""What a detector is trained for: anomaly scores of clips (AVACA), or event classes of videos (AVRL)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from avad_hf.evaluation.scoring import labels_of, score_clips
from avad_hf.features.dataset import FeatureDataset
from avad_hf.metrics.classes import top1_recall
from avad_hf.metrics.ranking import Ranking
from avad_hf.metrics.videos import video_score

from .batches import BalancedBatches, ShuffledBatches
from .config import TrainingConfig


class ClipScores:
    """Scores of clips, from labels of whole videos: 1 for anomalous ones, 0 for normal ones."""

    # Which validation figure chooses the best epoch, and what it is called.
    figure, figure_name = "roc_auc", "AUC"

    def batches(self, config: TrainingConfig, data: FeatureDataset) -> BalancedBatches:
        """Batches of an epoch."""
        return BalancedBatches(labels_of(data), config.batch_size, config.seed)

    def check(self, validation: FeatureDataset) -> None:
        """Refuse validation videos that cannot choose an epoch."""
        known = labels_of(validation)
        if known.min() == known.max():
            raise ValueError(
                f"All {len(known)} validation videos are {'anomalous' if known.all() else 'normal'}: the best epoch "
                "and the threshold need both. Use another split_seed, or more videos."
            )

    def labelled(self, data: FeatureDataset, model: PreTrainedModel) -> FeatureDataset:
        """Videos with the labels that the model's loss takes."""
        return data

    def training_view(self, data: FeatureDataset, seed: int, epoch: int) -> FeatureDataset:
        """Videos as an epoch sees them."""
        return data

    def validate(self, detector: PreTrainedModel, data: FeatureDataset, epoch: int) -> dict[str, float]:
        """AUC of the videos, each judged by its highest clip, and the loss of all videos as one batch."""
        scored = _finite(score_clips(detector, data), epoch)
        logits = [torch.from_numpy(item["logits"]) for item in scored]
        lengths = torch.tensor([len(item) for item in logits])
        logits = torch.nn.utils.rnn.pad_sequence(logits, batch_first=True)
        mask = torch.arange(logits.shape[1]) < lengths.unsqueeze(1)
        labels = labels_of(data)
        losses = detector.losses(logits, torch.from_numpy(labels).float(), mask)
        auc = Ranking(labels, _video_scores(scored)).roc_auc()
        return {"roc_auc": auc} | {name: value.item() for name, value in losses.items()}

    def threshold(self, detector: PreTrainedModel, data: FeatureDataset) -> dict[str, Any]:
        """The threshold of the chosen weights, and how it was found."""
        return _equal_error(detector, data, ", each judged by its highest clip")


class EventClasses:
    """Classes of whole videos."""

    figure, figure_name = "top1_accuracy", "top-1 accuracy"

    def batches(self, config: TrainingConfig, data: FeatureDataset) -> ShuffledBatches:
        """Batches of an epoch."""
        return ShuffledBatches(len(data), config.batch_size, config.seed)

    def check(self, validation: FeatureDataset) -> None:
        """Refuse validation videos of which it is not known whether they are anomalous."""
        labels_of(validation)

    def labelled(self, data: FeatureDataset, model: PreTrainedModel) -> FeatureDataset:
        """Videos with the numbers of the model's classes."""
        names = model.config.id2label
        return data.with_classes([names[number] for number in range(len(names))])

    def training_view(self, data: FeatureDataset, seed: int, epoch: int) -> FeatureDataset:
        """Videos as an epoch sees them: each mirrored with probability 0.5 (AVRL IV-C), alike in a resumed run."""

        def mirrored(index: int, frames: Tensor) -> Tensor:
            return frames.flip(-1) if np.random.default_rng((seed, epoch, index)).random() < 0.5 else frames

        return data.with_frames(mirrored)

    def validate(self, detector: PreTrainedModel, data: FeatureDataset, epoch: int) -> dict[str, float]:
        """Top-1 accuracy, its mean over classes, and the loss of all videos."""
        scored = _finite(score_clips(detector, data), epoch)
        logits = torch.from_numpy(np.stack([item["class_logits"] for item in scored]))
        labels = torch.tensor(data.class_numbers)
        found = top1_recall(labels.numpy(), logits.argmax(dim=1).numpy(), list(detector.config.id2label.values()))
        loss = detector.losses(logits, labels)["loss"].item()
        return {"top1_accuracy": found.overall, "top1_macro": found.macro, "loss": loss}

    def threshold(self, detector: PreTrainedModel, data: FeatureDataset) -> dict[str, Any]:
        """The threshold of the chosen weights, and how it was found; the config's own where none can be found."""
        known = labels_of(data)
        if known.min() == known.max():
            return {"threshold": detector.config.threshold, "threshold_origin": None}
        return _equal_error(detector, data, "")


def objective_of(data: FeatureDataset) -> ClipScores | EventClasses:
    """What can be learnt from a feature set."""
    return EventClasses() if data.holds_videos else ClipScores()


def _equal_error(detector: PreTrainedModel, data: FeatureDataset, judged: str) -> dict[str, Any]:
    known = labels_of(data)
    error = Ranking(known, _video_scores(score_clips(detector, data))).equal_error()
    origin = (
        f"equal error rate {error.rate:.3f} on {len(known)} validation videos ({int(known.sum())} anomalous){judged}"
    )
    return {"threshold": error.threshold, "threshold_origin": origin}


def _finite(scored: list[dict[str, np.ndarray]], epoch: int) -> list[dict[str, np.ndarray]]:
    if not all(np.isfinite(item["logits"]).all() for item in scored):
        raise ValueError(
            f"Training diverged in epoch {epoch}: the model's scores are NaN or infinite. Train with a lower "
            "learning_rate, or without mixed_precision, into a new folder."
        )
    return scored


def _video_scores(scored: list[dict[str, np.ndarray]]) -> list[float]:
    return [video_score(torch.from_numpy(item["logits"]).double().sigmoid().numpy()) for item in scored]


__all__ = ["ClipScores", "EventClasses", "objective_of"]
