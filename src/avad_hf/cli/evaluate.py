"""`avad-hf evaluate`: all figures of a checkpoint on stored features, and the report."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import AudioPath, DeviceOption, JsonOption, SceneOption, SplitSeedOption
from .results import check_json, output_folder, write_json
from .terminal import check_checkpoint, check_device, check_store, counted, hush_libraries, note, stop_for, stoppable


class Split(StrEnum):
    """Parts of a corpus."""

    train = "train"
    validation = "validation"
    test = "test"
    all = "all"


class VideoRule(StrEnum):
    """Which score a video gets from its clips'."""

    max = "max"
    topk_mean = "topk_mean"
    mean = "mean"


class Tail(StrEnum):
    """What becomes of the frames at a video's end."""

    extend_score_last = "extend_score_last"
    truncate_gt = "truncate_gt"
    pad_gt_last = "pad_gt_last"


@stoppable("Run the same command again: it begins anew.")
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Checkpoint of a detector: folder or Hub id.", show_default=False)
    ],
    store: Annotated[
        str, typer.Argument(metavar="STORE", help="Feature store: folder or Hub id.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of metrics.json, scores.jsonl and report.html, which are replaced.",
            show_default="results/evaluate-NUMBER",
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Which videos.")] = Split.test,
    scene: SceneOption = None,
    split_seed: SplitSeedOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Score from which on a clip is anomalous.", min=0, max=1, show_default="the model's"),
    ] = None,
    audio_path: Annotated[
        AudioPath | None,
        typer.Option(help="How sound is used (detectors with an audio path).", show_default="the model's"),
    ] = None,
    video_rule: Annotated[VideoRule, typer.Option(help="Which score a video gets from its clips'.")] = VideoRule.max,
    tail: Annotated[Tail, typer.Option(help="What becomes of frames after the last clip.")] = Tail.extend_score_last,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Videos that are scored together.", min=1, show_default="16; 4 by detectors that read videos"
        ),
    ] = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Score stored videos and write all figures: of videos, clips and frames, by class and by scene, with a report.

    Example: avad-hf evaluate checkpoints/street features/street -o reports/street

    Detectors that name events get top-1 recall of each class and the confusion matrix, and the figures of the anomaly
    score for videos.
    """
    check_checkpoint(model, "MODEL")
    check_store(store)
    tell = check_json(json)
    with output_folder(output, "evaluate") as folder:
        done = _evaluate(
            model,
            store,
            folder,
            split,
            scene,
            split_seed,
            device,
            threshold=threshold,
            audio_path=audio_path and audio_path.value,
            video_rule=video_rule.value,
            tail=tail.value,
            batch_size=batch_size,
        )
    if done is not None:
        figures, page = done
        _print_figures(figures, tell)
        tell(f"Report: {page}")
        write_json(figures, json)


def _evaluate(
    model: str,
    store: str,
    output: Path,
    split: Split,
    scene: str | None,
    split_seed: int | None,
    device: str | None,
    **options: Any,
) -> tuple[dict[str, Any], Path] | None:
    """Write figures and report, and return the figures and the page; ``None`` in all processes but the main one."""
    hush_libraries()
    from avad_hf.evaluation.evaluate import evaluate as evaluate_model
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.processes import process_state
    from avad_hf.report.page import write_report

    check_device(device)
    try:
        state = process_state()
        features = FeatureDataset(store, None if split is Split.all else split.value, split_seed, scene)
        detector = load_detector(model).to(device or state.device)
        with counted(Path(model).resolve().name, len(features), hidden=not state.is_main_process) as move:
            evaluation = evaluate_model(detector, features, on_progress=move, **options)
        if not state.is_main_process:
            return None
        evaluation.save(output)
        title = f"{Path(model).resolve().name} on {Path(store).resolve().name}, {split.value} videos"
        title = title if scene is None else f"{title} of {scene}"
        page = write_report(evaluation.figures, evaluation.videos, output, title)
    # Out of memory, for example, is nothing that a traceback helps with.
    except Exception as error:
        stop_for(error)
    return evaluation.figures, page


def load_detector(model: str):
    """Load a detector of a folder or the Hub; raises ``ValueError`` with the reason where that fails."""
    from transformers import AutoModelForVideoClassification

    from avad_hf.hub.errors import explain

    try:
        return AutoModelForVideoClassification.from_pretrained(model, trust_remote_code=False)
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        reason = explain(error, model) or error or type(error).__name__
        raise ValueError(f"{model} cannot be loaded: {reason}") from error


def _print_figures(figures: dict[str, Any], tell: Callable[..., None]) -> None:
    def shown(value: float | None) -> str:
        return "not defined" if value is None else f"{value:.3f}"

    video, frame = figures["video"], figures["frame"]
    low, high = video["roc_auc_interval_95"]
    interval = "" if low is None else f" (95% {low:.3f} to {high:.3f})"
    tell(
        f"{figures['num_videos']} videos ({figures['num_anomalous']} anomalous): AUC {shown(video['roc_auc'])}"
        f"{interval}, average precision {shown(video['average_precision_step'])}"
    )
    tell(
        f"At threshold {figures['threshold']:.3f}: recall {shown(video['recall'])}, false alarms "
        f"{shown(video['false_alarm_rate'])} of normal videos"
    )
    if frame is not None:
        tell(f"{frame['num_frames']} frames: AUC {shown(frame['roc_auc'])}")
    if (events := figures.get("events")) is not None:
        tell(
            f"Event classes: top-1 accuracy {shown(events['top1_accuracy'])}, mean over classes "
            f"{shown(events['top1_macro'])}"
        )
        for name, recall in events["top1_recall"].items():
            tell(f"  {name}: {shown(recall)} of {events['num_videos'][name]} videos")
    for what, reason in figures["undefined"].items():
        tell(f"Not defined: {what}: {reason}")
    for words in figures["notes"]:
        note(words)
