"""`avad-hf calibrate`: the threshold that gives so many false alarms a day."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .evaluate import Split, load_detector
from .options import DeviceOption, JsonOption, SplitSeedOption
from .results import check_json, write_json
from .terminal import (
    check_checkpoint,
    check_device,
    check_folder,
    check_store,
    counted,
    hush_libraries,
    note,
    refuse,
    stop_for,
    stoppable,
)


@stoppable("The checkpoint is as it was. Run the same command again.")
def calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Checkpoint of a detector: folder or Hub id.", show_default=False)
    ],
    store: Annotated[
        str,
        typer.Argument(metavar="STORE", help="Feature store of normal videos: folder or Hub id.", show_default=False),
    ],
    alarms_per_day: Annotated[
        float, typer.Option("--alarms-per-day", help="False alarms a day of footage of one camera.")
    ] = 1.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="New or empty folder for a copy of MODEL.", show_default="MODEL itself is changed"
        ),
    ] = None,
    split: Annotated[Split, typer.Option(help="Which videos.")] = Split.all,
    scene: Annotated[
        str | None, typer.Option(help="Calibrate this scene alone; other thresholds stay.", show_default="all scenes")
    ] = None,
    split_seed: SplitSeedOption = None,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Videos that are scored together.", min=1, show_default="16; fewer long ones"),
    ] = None,
    device: DeviceOption = None,
    json: JsonOption = None,
) -> None:
    """Set a detector's threshold to so many false alarms a day, from normal footage that it was not trained on.

    Example: avad-hf calibrate checkpoints/yard features/yard-may --alarms-per-day 1

    Events are counted as detect merges them, and the tail of their scores is fitted. One alarm a day takes three days
    of footage, two take a day and a half: with less the command says what can be promised, and ends with status 2.
    Each scene with enough footage of its own gets a threshold of its own, which detect uses with --scene. Videos that
    are labelled as anomalous are left out.
    """
    check_checkpoint(model, "MODEL")
    check_store(store)
    if output is not None:
        check_folder(output)
    elif not Path(model).is_dir():
        refuse(f"{model} is on the Hub, and cannot be changed there. Give a new folder for a copy of it: -o DIR.")
    else:
        check_folder(Path(model))
    tell = check_json(json)
    found = _calibrate(model, store, output, split, scene, split_seed, alarms_per_day, batch_size, device)
    if found is not None:
        _print(found, output or model, tell)
        write_json(found.to_dict(), json)


def _calibrate(
    model: str,
    store: str,
    output: Path | None,
    split: Split,
    scene: str | None,
    split_seed: int | None,
    alarms_per_day: float,
    batch_size: int | None,
    device: str | None,
) -> Any:
    """Calibrate and save; ``None`` in all processes but the main one."""
    hush_libraries()
    from avad_hf.evaluation.calibrate import calibrate as calibrate_model
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.files import check_new
    from avad_hf.processes import process_state

    check_device(device)
    try:
        if output is not None:
            check_new(output)
        state = process_state()
        features = FeatureDataset(store, None if split is Split.all else split.value, split_seed, scene)
        detector = load_detector(model).to(device or state.device)
        with counted(Path(model).resolve().name, len(features), hidden=not state.is_main_process) as move:
            found = calibrate_model(
                detector, features, alarms_per_day=alarms_per_day, batch_size=batch_size, on_progress=move
            )
        found.save(output or model, copy_of=None if output is None else model)
    # Out of memory, for example, is nothing that a traceback helps with.
    except Exception as error:
        stop_for(error)
    return found if state.is_main_process else None


def _print(found: Any, checkpoint: str | Path, tell: Callable[..., None]) -> None:
    from avad_hf.evaluation.calibrate import shown_threshold

    named = [("All scenes" if found.scenes else "Threshold", found.common)] if found.common is not None else []
    for name, one in [*named, *((f"Scene {name}", one) for name, one in found.scenes.items())]:
        low, high = one.interval_95
        tell(
            f"{name}: {shown_threshold(one.threshold)} gives {one.alarms_per_day:g} false alarms a day (95% {low:.2g} "
            f"to {high:.2g}). A week like this footage should bring {one.week_95[0]} to {one.week_95[1]} of them."
        )
        tell(
            f"  It rests on {one.hours:.1f} hours of normal footage in {one.num_recordings} recordings, which have "
            f"{one.num_alarms} events at this threshold."
        )
    tell(f"Checkpoint: {checkpoint}")
    for words in found.notes:
        note(words)
