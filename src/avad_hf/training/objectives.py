"""What a detector is trained for: anomaly scores of clips, or event classes of videos."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from avad_hf.corpora.classes import normalised
from avad_hf.corpora.splits import small_validation
from avad_hf.evaluation.scoring import labels_of, score_clips, video_class_logits
from avad_hf.features.dataset import FeatureDataset
from avad_hf.media.clips import deciding_clips
from avad_hf.metrics.classes import top1_recall
from avad_hf.metrics.ranking import Ranking
from avad_hf.metrics.videos import video_score
from avad_hf.models.detector import DetectorConfig, DetectorSpec
from avad_hf.registration import architectures

from .batches import BalancedBatches, ShuffledBatches
from .config import TrainingConfig


class ClipScores:
    """Scores of clips, from labels of whole videos: 1 for anomalous ones, 0 for normal ones.

    Args:
        names_classes: Whether the detector names the classes of videos as well.
    """

    # Which validation figure tells how good an epoch is, what it is called, and what chooses the best one.
    figure, figure_name = "roc_auc", "ROC AUC"
    best_by = "loss"

    def __init__(self, names_classes: bool = False):
        self.names_classes = names_classes

    def batches(self, config: TrainingConfig, data: FeatureDataset) -> BalancedBatches:
        """Batches of an epoch."""
        return BalancedBatches(labels_of(data), config.batch_size, config.seed)

    def check(self, validation: FeatureDataset) -> None:
        """Refuse validation videos that cannot choose an epoch."""
        labels = labels_of(validation)
        if labels.min() == labels.max():
            raise ValueError(
                f"All {len(labels)} validation videos are {'anomalous' if labels.all() else 'normal'}: the best epoch "
                "and the threshold need both. Use another split_seed, or more videos."
            )

    def warnings(self, train: FeatureDataset, validation: FeatureDataset) -> list[str]:
        """What one must know: few validation videos, and names of anomalies, which scores do not tell apart."""
        names = sorted({str(row["label"]) for row in train.rows if row["anomaly"] and row["label"] is not None})
        notes = _few(validation)
        if not self.names_classes and [name for name in names if normalised(name) not in ("anomaly", "abnormal")]:
            learners = [
                architecture.model_type
                for architecture in architectures("head").values()
                if issubclass(architecture.load("config"), DetectorConfig)
                and architecture.load("config")().detector_spec.objective == "classes"
            ]
            notes.append(
                f"This detector learns anomaly alone: {', '.join(names)} will be called anomaly. To learn the names, "
                f"train a detector of event classes: {' or '.join(learners)}."
            )
        return notes

    def labelled(self, data: FeatureDataset, model: PreTrainedModel) -> FeatureDataset:
        """Videos with the labels that the model's loss takes, beside 0 and 1 the numbers of its classes."""
        return data.with_classes(_class_names(model), beside=True) if self.names_classes else data

    def training_view(self, data: FeatureDataset, seed: int, epoch: int) -> FeatureDataset:
        """Videos as an epoch sees them."""
        return data

    def validate(self, detector: PreTrainedModel, data: FeatureDataset, epoch: int) -> dict[str, float]:
        """AUC of the videos, each judged by its highest clip, and the loss of all videos as one batch.

        Of a detector that names classes also its top-1 accuracy.
        """
        scored = _finite(score_clips(detector, data), epoch)
        main, *others = detector.clip_outputs
        others += ["class_logits"] if self.names_classes else []
        lengths = torch.tensor([len(item["logits"]) for item in scored])
        padded = {
            name: torch.nn.utils.rnn.pad_sequence([torch.from_numpy(item[key]) for item in scored], batch_first=True)
            for name, key in {main: "logits", **dict(zip(others, others, strict=True))}.items()
        }
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        labels = labels_of(data)
        figures, classes = {"roc_auc": Ranking(labels, _video_scores(scored)).roc_auc()}, {}
        if self.names_classes:
            classes["class_labels"] = torch.tensor(data.class_numbers)
            called = [video_class_logits(item, detector.detector_spec).argmax() for item in scored]
            figures["top1_accuracy"] = float(np.mean(np.array(called) == data.class_numbers))
        losses = detector.losses(SimpleNamespace(**padded), torch.from_numpy(labels).float(), mask, **classes)
        return figures | {name: value.item() for name, value in losses.items()}

    def threshold(self, detector: PreTrainedModel, data: FeatureDataset) -> dict[str, Any]:
        """The threshold of the chosen weights, and how it was found."""
        return _equal_error(detector, data, ", each judged by its highest clip")


class EventClasses:
    """Classes of whole videos."""

    figure, figure_name = "top1_accuracy", "top-1 accuracy"
    best_by = "figure"

    def batches(self, config: TrainingConfig, data: FeatureDataset) -> ShuffledBatches:
        """Batches of an epoch."""
        return ShuffledBatches(len(data), config.batch_size, config.seed)

    def check(self, validation: FeatureDataset) -> None:
        """Refuse validation videos of which it is not known whether they are anomalous."""
        labels_of(validation)

    def warnings(self, train: FeatureDataset, validation: FeatureDataset) -> list[str]:
        """What one must know: few validation videos."""
        return _few(validation)

    def labelled(self, data: FeatureDataset, model: PreTrainedModel) -> FeatureDataset:
        """Videos with the numbers of the model's classes."""
        return data.with_classes(_class_names(model))

    def training_view(self, data: FeatureDataset, seed: int, epoch: int) -> FeatureDataset:
        """Videos as an epoch sees them: each mirrored with probability 0.5 (AVRL IV-C), alike in a resumed run."""
        if not data.holds_videos:
            return data

        def mirrored(index: int, frames: Tensor) -> Tensor:
            return frames.flip(-1) if np.random.default_rng((seed, epoch, index)).random() < 0.5 else frames

        return data.with_frames(mirrored)

    def validate(self, detector: PreTrainedModel, data: FeatureDataset, epoch: int) -> dict[str, float]:
        """Top-1 accuracy, its mean over classes, and the loss of all videos."""
        scored = _finite(score_clips(detector, data), epoch)
        logits = torch.from_numpy(np.stack([video_class_logits(item, detector.detector_spec) for item in scored]))
        labels = torch.tensor(data.class_numbers)
        recall = top1_recall(labels.numpy(), logits.argmax(dim=1).numpy(), list(detector.config.id2label.values()))
        loss = detector.losses(logits, labels)["loss"].item()
        return {"top1_accuracy": recall.overall, "top1_macro": recall.macro, "loss": loss}

    def threshold(self, detector: PreTrainedModel, data: FeatureDataset) -> dict[str, Any]:
        """The threshold of the chosen weights, and how it was found; the config's own where none can be found."""
        labels = labels_of(data)
        if labels.min() == labels.max():
            return {"threshold": detector.config.threshold, "threshold_origin": None}
        return _equal_error(detector, data, "")


def objective_of(spec: DetectorSpec) -> ClipScores | EventClasses:
    """What a detector learns; raises ``ValueError`` for one that learns nothing from labels."""
    if spec.objective == "normality":
        raise ValueError(
            f"{spec.title} is not trained: it is fitted to normal footage, without labels. Use avad-hf fit, or name "
            "another architecture."
        )
    return ClipScores(bool(spec.normal_labels)) if spec.objective == "clips" else EventClasses()


def _class_names(model: PreTrainedModel) -> list[str]:
    return [model.config.id2label[number] for number in range(model.config.num_labels)]


def _few(validation: FeatureDataset) -> list[str]:
    warning = small_validation(labels_of(validation).tolist())
    return [] if warning is None else [warning]


def _equal_error(detector: PreTrainedModel, data: FeatureDataset, judged: str) -> dict[str, Any]:
    labels = labels_of(data)
    error = Ranking(labels, _video_scores(score_clips(detector, data))).equal_error()
    origin = (
        f"equal error rate {error.rate:.3f} on {len(labels)} validation videos ({int(labels.sum())} anomalous){judged}"
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
    return [video_score(item["scores"], decides=np.array(deciding_clips(item["times"].tolist()))) for item in scored]


__all__ = ["ClipScores", "EventClasses", "objective_of"]
