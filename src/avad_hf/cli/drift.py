"""`avad-hf drift`: whether footage is still like that which a detector knows, and what to do if it is not."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .evaluate import Split, load_detector
from .options import DeviceOption, JsonOption, SceneOption, SplitSeedOption
from .results import check_json, output_folder, write_json
from .terminal import check_checkpoint, check_device, check_store, counted, hush_libraries, note, stop_for, stoppable

PICTURE = "drift.png"
# What to do, by the advice; MODEL and STORE are the command's own.
ADVICE = {
    "nothing": "Nothing to do.",
    "calibrate": "Calibrate again, with this footage if it is normal: avad-hf calibrate MODEL STORE.",
    "fit again": "Look at the footage. If it is normal, add it to the detector, and calibrate the new one on other "
    "days: avad-hf update MODEL STORE -o DIR.",
    "train again": "Look at the footage. If it is normal, train again with footage like it among the normal videos, "
    "and calibrate the new detector.",
    "more footage": "This footage is too little to tell. Give more.",
}


@stoppable("Run the same command again: it begins anew.")
def drift(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Checkpoint of a detector: folder or Hub id.", show_default=False)
    ],
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="Feature store of later footage of the same cameras: folder or Hub id.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of drift.json and drift.png, which are replaced.",
            show_default="results/drift-NUMBER",
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Which videos.")] = Split.all,
    scene: SceneOption = None,
    split_seed: SplitSeedOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Videos that are scored together.", min=1, show_default="16; fewer long ones"),
    ] = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Tell whether footage is still like that which a detector was calibrated on or fitted to, and what to do if not.

    Example: avad-hf drift checkpoints/yard features/yard-december

    What is seen, what is heard and the scores are compared with the clips that the checkpoint keeps: how far they have
    moved (shift, in standard deviations), whether they spread more, and a p-value. Recordings or hours are permuted
    for it, and where the manifest has a column hour, only those of the same hour of the day. The advice is nothing,
    calibrate, fit again, train again, or more footage. A checkpoint that keeps no clips must be calibrated first.
    """
    check_checkpoint(model, "MODEL")
    check_store(store)
    tell = check_json(json)
    with output_folder(output, "drift") as folder:
        found = _drift(model, store, folder, split, scene, split_seed, batch_size, device)
    if found is not None:
        _print(found, folder / PICTURE, tell)
        write_json(found.to_dict(), json)


def _drift(
    model: str,
    store: str,
    output: Path,
    split: Split,
    scene: str | None,
    split_seed: int | None,
    batch_size: int | None,
    device: str | None,
) -> Any:
    """Compare and write; ``None`` in all processes but the main one."""
    hush_libraries()
    from avad_hf.evaluation.drift import drift as drift_of
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.processes import process_state
    from avad_hf.report.drift import plot_drift

    check_device(device)
    try:
        state = process_state()
        features = FeatureDataset(store, None if split is Split.all else split.value, split_seed, scene)
        detector = load_detector(model).to(device or state.device)
        with counted(Path(model).resolve().name, len(features), hidden=not state.is_main_process) as move:
            found = drift_of(detector, features, batch_size=batch_size, on_progress=move)
        if not state.is_main_process:
            return None
        found.save(output)
        title = f"{Path(store).resolve().name} beside what {Path(model).resolve().name} knows"
        plot_drift(found.to_dict(), found.levels, output / PICTURE, title)
    # Out of memory, for example, is nothing that a traceback helps with.
    except Exception as error:
        stop_for(error)
    return found


def _print(found: Any, picture: Path, tell: Callable[..., None]) -> None:
    from avad_hf.evaluation.calibrate import shown_threshold

    known = "calibrated on" if found.compared_with == "calibration" else "fitted to"
    tell(f"{found.num_videos} videos, compared with clips of what the detector was {known}.")
    for sentence in found.reasons:
        tell(f"  {sentence}")
    if found.above is not None:
        then, now = found.above
        tell(f"  Clips above the threshold {shown_threshold(found.threshold)}: {then:.2%} then, {now:.2%} now.")
    rows: dict[int, list[str]] = {}
    for name, one in found.comparisons.items():
        for hour in one.hours:
            rows.setdefault(hour.hour, ["{:>4}/{}".format(*hour.num_blocks)])
            rows[hour.hour].append(f"{name} {hour.shift:.2f} (chance {hour.chance_shift:.2f})")
    if rows:
        tell("By hour of day: blocks then/now, and shifts:")
    for hour, words in sorted(rows.items()):
        tell(f"  {hour:02}:00 {'  '.join(words)}")
    tell(f"Advice: {found.advice}. {ADVICE[found.advice]}")
    tell(f"Picture: {picture}")
    for words in found.notes:
        note(words)
