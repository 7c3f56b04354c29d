"""`avad-hf fit` and `avad-hf update`: detectors of normality, from normal footage alone."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.registration import architectures

from .folder import (
    AlarmsOption,
    AllNormalOption,
    AudioEncoderOption,
    EncodersDTypeOption,
    NormalOption,
    VideoEncoderOption,
    fit_videos,
    is_video_folder,
    refuse_folder_options,
)
from .options import (
    ClipBatchOption,
    DeviceOption,
    DType,
    JsonOption,
    SceneOption,
    SetOption,
    config_settings,
    names_of,
)
from .results import check_json, write_json
from .terminal import (
    check_checkpoint,
    check_folder,
    check_store,
    counted,
    hush_libraries,
    note,
    refuse,
    stage,
    stop_for,
    stoppable,
)

METHODS = ", ".join(architectures("fit"))


class By(StrEnum):
    """What cameras are told apart by."""

    scene = "scene"
    group = "group"


OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="New or empty folder of the checkpoint.", show_default=False)
]


@stoppable("No checkpoint was written; of a folder of videos, what is stored stays. Run the same command again.")
def fit(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE",
            help="Feature store of normal videos: folder or Hub id. Or FOLDER: a folder of videos.",
            show_default=False,
        ),
    ],
    output: OutputOption,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"One of {METHODS}.",
            show_default="nearest neighbours; training where a folder has labels",
            autocompletion=names_of("fit"),
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint whose processor made the store; it is saved with the detector, which then reads videos.",
            show_default="the detector reads stores",
        ),
    ] = None,
    contamination: Annotated[
        float, typer.Option(help="Share of the footage that may be anomalous, and is left out.", min=0, max=0.5)
    ] = 0.0,
    by: Annotated[
        By | None,
        typer.Option(help="Take features relative to the mean of each camera.", show_default="one mean of all"),
    ] = None,
    scene: SceneOption = None,
    set_: SetOption = None,
    alarms_per_day: AlarmsOption = 1.0,
    normal: NormalOption = None,
    all_normal: AllNormalOption = False,
    video_encoder: VideoEncoderOption = None,
    audio_encoder: AudioEncoderOption = None,
    batch_size: ClipBatchOption = None,
    device: DeviceOption = None,
    dtype: EncodersDTypeOption = DType.auto,
    json: JsonOption = None,
) -> None:
    """Fit a detector to normal footage: no labels, no training, minutes on two cores.

    Example: avad-hf fit features/yard -o checkpoints/yard --model checkpoints/encoders

    Example with a folder of videos, of which DIR gets features, detector, threshold and report:
    avad-hf fit /recordings/yard -o yard --all-normal

    Videos that are labelled as anomalous are left out, and of a store that has such videos the test and validation
    parts, so that evaluate can test on them. A threshold for a rate of alarms comes next:
    avad-hf calibrate.
    """
    check_folder(output)
    if model is not None:
        check_checkpoint(model)
    settings = config_settings(set_)
    tell = check_json(json)
    for_folders = {
        "alarms_per_day": alarms_per_day,
        "normal": normal,
        "all_normal": all_normal,
        "video_encoder": video_encoder,
        "audio_encoder": audio_encoder,
        "device": device,
        "dtype": dtype.value,
        "batch_size": batch_size,
    }
    if is_video_folder(store):
        if scene is not None:
            refuse("--scene is for a feature store. Give the folder of that scene.")
        chosen = {"method": method, "model": model, "contamination": contamination, "by": by and by.value}
        fit_videos(store, output, tell, json, for_folders | chosen, settings)
        return
    check_store(store)
    refuse_folder_options(for_folders)
    chosen = {} if method is None else {"method": method}
    hush_libraries()
    from avad_hf.training.fitting import fit as fit_detector
    from avad_hf.training.fitting import normal_training_videos

    try:
        features = normal_training_videos(store, scene)
        with counted("features", len(features)) as move:
            result = fit_detector(
                features,
                output,
                processor=model,
                contamination=contamination,
                by=by and by.value,
                on_stage=stage,
                on_progress=move,
                **chosen,
                **settings,
            )
    # A traceback says no more, of options that no detector can have for example.
    except Exception as error:
        stop_for(error)
    _print(result, tell, json)


@stoppable("No checkpoint was written. Run the same command again.")
def update(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Detector that fit wrote: folder or Hub id.", show_default=False),
    ],
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE", help="Feature store of new normal videos: folder or Hub id.", show_default=False
        ),
    ],
    output: OutputOption,
    normal: Annotated[
        Path | None,
        typer.Option(
            help="JSON of detect, of which all events are false alarms; their videos must be in the store.",
            show_default="none",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Add normal footage, and events that were false alarms, to a fitted detector, which forgets nothing by it.

    Example: avad-hf update checkpoints/yard features/yard-june -o checkpoints/yard-june --normal false-alarms.json

    It is fitted anew to an even sample of all footage, old and new. Its threshold is that of a new detector: calibrate
    it again.
    """
    check_checkpoint(model, "MODEL")
    check_store(store)
    check_folder(output)
    tell = check_json(json)
    hush_libraries()
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.training.fitting import update as update_detector

    try:
        features = FeatureDataset(store)
        with counted("features", len(features)) as move:
            result = update_detector(model, features, output, normal=normal, on_stage=stage, on_progress=move)
    # A broken checkpoint raises whatever its reader does.
    except Exception as error:
        stop_for(error)
    _print(result, tell, json)


def _print(result: Any, tell: Any, json: Path | None) -> None:
    tell(
        f"{result.num_videos} normal videos, {result.hours:.2f} hours, {result.num_clips} clips; fitted to "
        f"{result.num_kept} of them."
    )
    tell(f"Checkpoint: {result.directory}")
    for words in result.notes:
        note(words)
    write_json(result.to_dict(), json)
