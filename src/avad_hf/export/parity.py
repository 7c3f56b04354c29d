"""How far an exported detector is from the checkpoint that it was made from."""

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, PreTrainedModel

from avad_hf.corpora.manifest import read_manifest
from avad_hf.detection.pipeline import AudioVisualAnomalyPipeline
from avad_hf.media.sources import open_media
from avad_hf.metrics.ranking import roc_auc

# Clips of all videos together that are compared on at most: in float32 each takes seconds.
MOST_CLIPS = 12
# Names for people of what is compared.
NAMES = {"visual_features": "visual features", "audio_features": "sound features"}


@dataclass(frozen=True)
class Parity:
    """Differences between a checkpoint in float32 and what was exported from it.

    Args:
        num_videos: Compared videos.
        num_clips: Their clips.
        relative_errors: For each kind of features, norm of the difference over the norm of the checkpoint's.
        score_difference: Largest difference of any clip's score.
        labelled: Videos with labels, if some were given: their number, and the area under the curve before and after.
    """

    num_videos: int
    num_clips: int
    relative_errors: dict[str, float]
    score_difference: float
    labelled: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """In words."""
        lines = [
            f"Compared with the checkpoint in float32 on {self.num_videos} videos, {self.num_clips} clips",
            *(f"Relative error of the {NAMES[name]}: {value:.1e}" for name, value in self.relative_errors.items()),
            f"Largest difference of a score: {self.score_difference:.1e}",
        ]
        if self.labelled:
            lines.append(
                f"AUC of {self.labelled['num_videos']:.0f} labelled videos: {self.labelled['auc_before']:.4f} before, "
                f"{self.labelled['auc_after']:.4f} after"
            )
        return lines


@torch.no_grad()
def compare(
    model: PreTrainedModel,
    processor: Any,
    exported: Path,
    videos: Sequence[Any],
    labelled: str | os.PathLike | None = None,
) -> Parity:
    """Run a checkpoint and what was exported from it on the same videos.

    Args:
        model: The checkpoint's detector, in float32.
        processor: Its processor.
        exported: The folder of engines.
        videos: To compare on.
        labelled: Manifest of videos with labels.

    Raises:
        ValueError: If a labelled video has no label, or all have the same.
    """
    device = torch.device("cpu")
    processor.to(device, "float32")
    model.asked_dtype = "float32", torch.float32
    before = AudioVisualAnomalyPipeline(model, processor, device=device)
    after = AudioVisualAnomalyPipeline(
        AutoModelForVideoClassification.from_pretrained(exported),
        AutoProcessor.from_pretrained(exported),
        device=device,
    )
    squares: dict[str, list[float]] = {}
    difference, count = 0.0, 0
    clips_a_video = max(1, MOST_CLIPS // max(1, len(videos)))
    for video in videos:
        with open_media(video) as media, closing(processor.decode(media, 1)) as batches:
            for batch in islice(batches, clips_a_video):
                first, second = processor.encode(batch), after.processor.encode(batch)
                pairs = ((model, first), (after.model, second))
                for name in sorted(NAMES.keys() & first.keys()):
                    gap = (second[name] - first[name]).double().square().sum().item()
                    whole = first[name].double().square().sum().item()
                    squares[name] = [a + b for a, b in zip(squares.get(name, [0, 0]), (gap, whole), strict=True)]
                one, two = (net.scores(net(**features)).flatten() for net, features in pairs)
                count += len(one)
                difference = max(difference, (one - two).abs().max().item())
    errors = {name: (gap / whole) ** 0.5 for name, (gap, whole) in squares.items() if whole}
    aucs = {} if labelled is None else _aucs(before, after, labelled)
    return Parity(len(videos), count, errors, difference, aucs)


def _aucs(before: Any, after: Any, labelled: str | os.PathLike) -> dict[str, float]:
    rows = read_manifest(labelled)
    if unlabelled := [row["id"] for row in rows if row.get("anomaly") is None]:
        raise ValueError(f"{labelled}: {len(unlabelled)} videos have no label, first {unlabelled[0]!r}.")
    labels = [int(row["anomaly"]) for row in rows]
    if len(set(labels)) < 2:
        raise ValueError(f"{labelled}: an AUC needs normal and anomalous videos, and all are of one kind.")
    pipes = {"auc_before": before, "auc_after": after}
    return {"num_videos": len(rows)} | {
        name: roc_auc(labels, [pipe(row)["score"] for row in rows]) for name, pipe in pipes.items()
    }


__all__ = ["Parity", "compare"]
