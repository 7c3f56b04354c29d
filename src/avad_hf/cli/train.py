"""`avad-hf train`: detectors from stored features."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .detect import AudioPath
from .terminal import quiet, refuse


class Profile(StrEnum):
    """Recipes of training."""

    default = "default"
    paper = "paper"
    shanghaitech = "shanghaitech"


class MixedPrecision(StrEnum):
    """Precision in which the network computes; weights stay float32."""

    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


class Scheduler(StrEnum):
    """How the learning rate goes."""

    constant = "constant"
    constant_with_warmup = "constant_with_warmup"
    linear = "linear"
    cosine = "cosine"
    reduce_lr_on_plateau = "reduce_lr_on_plateau"


def train_avaca(
    store: Annotated[str, typer.Argument(help="Feature store: a folder, or its Hub id.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose architecture and processor are taken; the one that made the features."),
    ] = None,
    profile: Annotated[
        Profile, typer.Option(help="default: tuned on synthetic videos. paper, shanghaitech: as published.")
    ] = Profile.default,
    scene: Annotated[str | None, typer.Option(help="Only the videos of this scene.")] = None,
    split_seed: Annotated[
        int | None, typer.Option(help="Of the random split. Default: 0, or the fixed split.")
    ] = None,
    audio_path: Annotated[AudioPath | None, typer.Option(help="How sound is used. Default: the profile's.")] = None,
    seed: Annotated[int, typer.Option(help="Of new weights and of the order of the videos.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Default: the profile's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Videos a step, over all processes; even.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the profile's.")] = None,
    scheduler: Annotated[Scheduler | None, typer.Option(help="Default: the profile's.")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better validation figure until it ends.")
    ] = None,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is cut into, for less memory.", min=1)] = 1,
    mixed_precision: Annotated[MixedPrecision, typer.Option(help="Precision of the computation.")] = MixedPrecision.no,
    fine_tune: Annotated[bool, typer.Option("--fine-tune", help="Begin with the weights of --model.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    log_with: Annotated[
        list[str] | None, typer.Option(help="Tracker of Accelerate, tensorboard for example; repeat for several.")
    ] = None,
) -> None:
    """Train an AVACA detector on stored features and save the best epoch with its threshold.

    The best epoch and the threshold are chosen on validation videos; test videos are never looked at. Each epoch
    leaves a state to --resume from. With several processes or machines: accelerate launch -m avad_hf.cli train ...
    """
    from avad_hf import registration  # noqa: F401
    from avad_hf.data.extraction import process_state
    from avad_hf.training.config import TrainingConfig
    from avad_hf.training.loop import train

    quiet()
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "scheduler": scheduler and scheduler.value,
        "patience": patience,
    }
    try:
        config = TrainingConfig.from_profile(
            profile.value,
            data=store,
            output_dir=str(output),
            model=model,
            model_options={"audio_path": audio_path.value} if audio_path else {},
            fine_tune=fine_tune,
            scene=scene,
            split_seed=split_seed,
            seed=seed,
            gradient_accumulation_steps=accumulate,
            mixed_precision=mixed_precision.value,
            log_with=tuple(log_with or ()),
            **{name: value for name, value in settings.items() if value is not None},
        )
        result = train(config, resume=resume)
    except (OSError, ValueError, RuntimeError) as error:
        refuse(str(error))
    if process_state().is_main_process:
        typer.echo(
            f"{output}: epoch {result.best_epoch} of {result.epochs}, validation AUC "
            f"{result.validation['roc_auc']:.3f}, threshold {result.threshold:.3f} ({result.threshold_origin})."
        )
        if model is None:
            note = "This checkpoint reads stored features only. With --model it gets a processor, and detect runs."
            typer.secho(note, fg="yellow", err=True)
