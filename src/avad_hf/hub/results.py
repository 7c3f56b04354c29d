"""The figures that an evaluation found, as cards and the Hub take them; none that no run produced."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry

from .cards import code, plain

# What a card shows of an evaluation: where it stands in metrics.json, and what it is.
SHOWN = (
    ("video", "roc_auc", "ROC AUC of videos"),
    ("video", "average_precision_step", "average precision of videos"),
    ("video", "recall", "recall of anomalous videos at the threshold"),
    ("video", "false_alarm_rate", "false alarms of normal videos at the threshold"),
    ("clip", "roc_auc", "ROC AUC of clips"),
    ("frame", "roc_auc", "ROC AUC of frames"),
    ("events", "top1_accuracy", "top-1 accuracy of event classes"),
    ("events", "top1_macro", "top-1 recall, mean over classes"),
)


@dataclass(frozen=True)
class Report:
    """What ``metrics.json`` of an evaluation says.

    Args:
        figures: All of it.
    """

    figures: dict[str, Any]

    @property
    def data(self) -> dict[str, Any]:
        """Which videos: ``name``, ``hub_id``, ``revision``, ``split``, ``split_seed`` and ``scene``."""
        return self.figures["data"]

    @property
    def setting(self) -> str:
        """Which videos, in words."""
        data, figures = self.data, self.figures
        parts = [
            f"{data['split'] or 'all'} videos",
            *([f"scene {data['scene']}"] if data["scene"] else []),
            *([f"split seed {data['split_seed']}"] if data["split_seed"] is not None else []),
            *(["split as the data fix it, or else of seed 0"] if data["split"] and data["split_seed"] is None else []),
            f"{figures['num_videos']} videos, {figures['num_anomalous']} anomalous",
            *([f"sound {figures['audio_path']}"] if figures["audio_path"] else []),
        ]
        return ", ".join(parts)

    @property
    def found(self) -> list[tuple[str, str, str, float]]:
        """Where each figure stands (two names), what it is, and its value; without those that are not defined."""
        rows = [(part, name, words, (self.figures.get(part) or {}).get(name)) for part, name, words in SHOWN]
        return [row for row in rows if row[3] is not None]

    def shown(self) -> dict[str, Any]:
        """The figures as the template ``results`` shows them."""
        rows = []
        for part, name, words, value in self.found:
            low, high = self.figures[part].get(f"{name}_interval_95") or (None, None)
            interval = "" if low is None else f"{low:.3f} to {high:.3f}"
            rows.append({"name": words, "shown": f"{value:.3f}", "interval": interval})
        threshold = f"Threshold {self.figures['threshold']:.4f}: {self.figures['threshold_origin'] or 'not chosen'}."
        missing = [f"Not defined: {what}: {why}." for what, why in self.figures["undefined"].items()]
        return {
            "title": f"On {code(self.data['name'])} ({plain(self.setting)})",
            "rows": rows,
            "notes": [threshold, *missing, *self.figures["notes"]],
        }

    def model_index(self) -> list[EvalResult]:
        """The figures for the card's metadata."""
        data = self.data
        selection = {
            "split_seed": data["split_seed"],
            "scene": data["scene"],
            "audio_path": self.figures["audio_path"],
        }
        return [
            EvalResult(
                task_type="video-classification",
                task_name="Audio-visual anomaly detection",
                dataset_type=data["hub_id"] or data["name"],
                dataset_name=f"{data['name']}, {data['split'] or 'all'} videos",
                dataset_split=data["split"] or "all",
                dataset_revision=data["revision"],
                dataset_args={name: value for name, value in selection.items() if value is not None} or None,
                metric_type=name,
                metric_name=words,
                metric_value=value,
            )
            for _, name, words, value in self.found
        ]

    def entry(self) -> EvalResultEntry | None:
        """The main figure for the model's page; ``None`` if the data set is not on the Hub, or it is not defined."""
        figures = {(part, name): (words, value) for part, name, words, value in self.found}
        # That of detectors which name events and do no more.
        named = figures.get(("events", "top1_accuracy")) if self.figures["clip"] is None else None
        main = named or figures.get(("video", "roc_auc"))
        if main is None or self.data["hub_id"] is None:
            return None
        words, value = main
        return EvalResultEntry(
            dataset_id=self.data["hub_id"],
            dataset_revision=self.data["revision"],
            task_id="default",
            value=value,
            notes=f"{words}; {self.setting}",
        )


def read_report(directory: str | os.PathLike, weights_sha256: str) -> Report:
    """Read what ``avad-hf evaluate -o directory`` wrote.

    Args:
        directory: Its output folder.
        weights_sha256: Hash of the weights that the figures shall stand for.

    Raises:
        ValueError: If it is no such folder, or of other weights.
    """
    path = Path(directory) / "metrics.json"
    try:
        report = Report(json.loads(path.read_text(encoding="utf-8")))
        weights, _ = report.figures["weights_sha256"], report.shown()
    except FileNotFoundError:
        raise ValueError(
            f"{directory} is no report: it holds no metrics.json. `avad-hf evaluate` writes one."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged, or of an older version ({type(error).__name__}: {error}). Run avad-hf evaluate again."
        ) from error
    if weights != weights_sha256:
        raise ValueError(
            f"{path} holds figures of other weights than this checkpoint's, and a card must not claim them. Evaluate "
            "this checkpoint: avad-hf evaluate CHECKPOINT STORE -o REPORT."
        )
    return report


__all__ = ["Report", "read_report"]
