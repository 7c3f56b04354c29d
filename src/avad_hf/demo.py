"""A first look, without any download: synthetic videos, the demonstration model, and everything it gives.

Then a detector that knows normal footage alone: it is fitted to normal synthetic videos, and says why an event is one.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoModelForVideoClassification, AutoProcessor, ProcessorMixin, pipeline

from avad_hf.corpora.loading import load_dataset
from avad_hf.detection.events import write_json
from avad_hf.detection.explaining import reason
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.evaluation.evaluate import Evaluation, evaluate
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.extraction import extract_features
from avad_hf.report.overlay import render_overlay
from avad_hf.report.page import write_report
from avad_hf.report.timeline import plot_timeline
from avad_hf.runs import only_run
from avad_hf.training.config import TrainingConfig
from avad_hf.training.fitting import fit
from avad_hf.training.loop import train as train_detector

# Where anomalies are seen and heard, and where they are mostly heard.
SCENES = ("crossing", "underpass")
# Worlds that the demonstration model was not trained on: its own are those of examples/train_demo_model.py.
UNSEEN_WORLD, TRAINING_WORLD = 900, 901
# Normal videos that a detector is fitted to, how many, and rows and columns of the maps by which it tells where
# something is.
NORMAL_WORLD, NUM_NORMAL, PLACES = 902, 16, (4, 7)
# It calls a clip anomalous that is as rare as one of 100 normal clips: it knows too few for more.
NORMAL_THRESHOLD = 2 / 3


@dataclass(frozen=True)
class Demonstration:
    """What [`demonstrate`] found.

    Args:
        with_sound: Figures of the unseen videos.
        without_sound: The same detector with its sound features set to zero.
        files: What was written: timelines, overlays, the report.
        reasons: Why the detector that was fitted to normal videos calls the events of one video so, one sentence each.
    """

    with_sound: Evaluation
    without_sound: Evaluation
    files: list[Path]
    reasons: list[str]


def demonstrate(
    output_dir: str | os.PathLike,
    train: bool = False,
    num_videos: int = 16,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Demonstration:
    """Render unseen synthetic videos, find the anomalies in them, and draw what was found.

    Args:
        output_dir: Where all of it goes. Videos and features that are there already are used again.
        train: Train the detector anew, on other synthetic videos, in place of the one that is shipped.
        num_videos: A scene.
        on_stage: Told in words what is done next.

    Raises:
        ValueError: If another process is writing the folder.
        OSError: If it cannot be written, because the disk is full for example.
    """
    with only_run(output_dir):
        return _demonstrate(Path(output_dir), train, num_videos, on_stage)


def _demonstrate(place: Path, train: bool, num_videos: int, on_stage: Callable[[str], None]) -> Demonstration:
    model, processor = DEMO_MODEL, AutoProcessor.from_pretrained(DEMO_MODEL)
    if train:
        model = place / f"trained-{num_videos}"
        store = _features(place, "training", TRAINING_WORLD, 4 * num_videos, processor, on_stage)
        on_stage("training the detector")
        config = TrainingConfig(str(store), str(model), model=str(DEMO_MODEL))
        train_detector(config, resume=True)
    store = _features(place, "unseen", UNSEEN_WORLD, num_videos, processor, on_stage)
    on_stage("scoring with and without sound")
    features, detector = FeatureDataset(store), AutoModelForVideoClassification.from_pretrained(model)
    with_sound, without = evaluate(detector, features), evaluate(detector, features, audio_path="zeroed")
    with_sound.save(place)
    title = "avad_hf demo: synthetic street videos"
    files = [write_report(with_sound.figures, with_sound.videos, place, title)]

    on_stage("detecting events in three videos")
    detect = pipeline("audio-visual-anomaly", model=str(model))
    # One of each scene with an anomaly, the surest ones, and one normal video.
    ranked = sorted(with_sound.videos, key=lambda video: -video["score"])
    chosen = [next(v for v in ranked if v["scene"] == scene and v["anomaly"]) for scene in SCENES]
    chosen.append(next(v for v in reversed(ranked) if not v["anomaly"]))
    results = {}
    for video in chosen:
        path = _folder(place, "unseen", video["scene"], num_videos, UNSEEN_WORLD) / f"{video['id']}.mp4"
        results[str(path)] = result = detect(str(path))
        files.append(place / f"{video['id']}.png")
        plot_timeline(result, str(path), files[-1], title=f"{video['id']}: {video['label']} (synthetic)")
    first = next(iter(results))
    files.append(place / f"{Path(first).stem}-overlay.mp4")
    render_overlay(results[first], first, files[-1])
    reasons = _normality(place, first, results, files, on_stage)
    files.append(place / "results.json")
    write_json(results, files[-1])
    return Demonstration(with_sound, without, files, reasons)


def _normality(
    place: Path,
    video: str,
    results: dict[str, dict],
    files: list[Path],
    on_stage: Callable[[str], None],
) -> list[str]:
    """Fit a detector to normal videos, and let it say why events of a video are events."""
    processor = AutoProcessor.from_pretrained(DEMO_MODEL)
    processor.feature_grid = PLACES
    scene, model = SCENES[0], place / "fitted"
    on_stage(f"{NUM_NORMAL} normal videos of {scene}")
    # Half of a street's videos are normal.
    rows = load_dataset(
        "synthetic", scene, data_dir=place / "videos" / "normal", num_videos=2 * NUM_NORMAL, world_seed=NORMAL_WORLD
    )
    normal = [row | {"label": "normal"} for part in rows.values() for row in part if not row["anomaly"]]
    store = place / "features" / "normal"
    extract_features(normal, processor, store)
    if not model.exists():
        on_stage("fitting a detector to them, without labels")
        fit(store, model)
    on_stage("asking it why")
    detector = AutoModelForVideoClassification.from_pretrained(model)
    detect = pipeline(
        "audio-visual-anomaly", model=detector, processor=processor, threshold=NORMAL_THRESHOLD, explain=True
    )
    name = f"{video}, by normal videos alone"
    results[name] = result = detect(video)
    stem = f"{Path(video).stem}-why"
    files.append(place / f"{stem}.png")
    plot_timeline(result, video, files[-1], title=f"{Path(video).stem}, by normal videos alone (synthetic)")
    files.append(place / f"{stem}.mp4")
    render_overlay(result, video, files[-1])
    return [
        f"{event['start']:.2f} s to {event['end']:.2f} s, score {event['score']:.3f}: {reason(event['why'])}"
        for event in result["events"]
    ]


def _folder(place: Path, part: str, scene: str, num_videos: int, world: int) -> Path:
    return place / "videos" / part / f"{scene}-{num_videos}-seed{world}"


def _features(
    place: Path,
    part: str,
    world: int,
    num_videos: int,
    processor: ProcessorMixin,
    on_stage: Callable[[str], None],
) -> Path:
    # Other numbers of videos are other videos under the same names.
    store = place / "features" / f"{part}-{num_videos}"
    for scene in SCENES:
        on_stage(f"{num_videos} {part} videos of {scene}")
        rows = load_dataset(
            "synthetic", scene, data_dir=place / "videos" / part, num_videos=num_videos, world_seed=world
        )
        extract_features(rows, processor, store)
    return store


__all__ = ["Demonstration", "demonstrate"]
