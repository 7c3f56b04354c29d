"""`avad-hf train`: detectors from stored features and videos."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .detect import AudioPath
from .init import Fusion, Modality
from .terminal import quiet, refuse


class AvacaProfile(StrEnum):
    """Recipes of training AVACA."""

    default = "default"
    paper = "paper"
    shanghaitech = "shanghaitech"


class AvrlProfile(StrEnum):
    """Recipes of training AVRL."""

    avrl = "avrl"
    default = "default"


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


# Options that both commands have.
StoreArgument = Annotated[str, typer.Argument(help="Feature store: a folder, or its Hub id.", show_default=False)]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", show_default=False)]
SceneOption = Annotated[str | None, typer.Option(help="Only the videos of this scene.")]
SplitSeedOption = Annotated[int | None, typer.Option(help="Of the random split. Default: 0, or the fixed split.")]
SeedOption = Annotated[int, typer.Option(help="Of new weights and of the order of the videos.")]
EpochsOption = Annotated[int | None, typer.Option(help="Default: the profile's.")]
RateOption = Annotated[float | None, typer.Option(help="Default: the profile's.")]
SchedulerOption = Annotated[Scheduler | None, typer.Option(help="Default: the profile's.")]
PatienceOption = Annotated[
    int | None, typer.Option(help="Epochs without a better validation figure until it ends. Default: the profile's.")
]
AccumulateOption = Annotated[int, typer.Option(help="Parts that a batch is cut into, for less memory.", min=1)]
PrecisionOption = Annotated[MixedPrecision, typer.Option(help="Precision of the computation.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")]
LogOption = Annotated[
    list[str] | None, typer.Option(help="Tracker of Accelerate, tensorboard for example; repeat for several.")
]


def train_avaca(
    store: StoreArgument,
    output: OutputOption,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose architecture and processor are taken; the one that made the features."),
    ] = None,
    profile: Annotated[
        AvacaProfile, typer.Option(help="default: tuned on synthetic videos. paper, shanghaitech: as published.")
    ] = AvacaProfile.default,
    scene: SceneOption = None,
    split_seed: SplitSeedOption = None,
    audio_path: Annotated[AudioPath | None, typer.Option(help="How sound is used. Default: the profile's.")] = None,
    seed: SeedOption = 0,
    epochs: EpochsOption = None,
    batch_size: Annotated[int | None, typer.Option(help="Videos a step, over all processes; even.")] = None,
    learning_rate: RateOption = None,
    scheduler: SchedulerOption = None,
    patience: PatienceOption = None,
    accumulate: AccumulateOption = 1,
    mixed_precision: PrecisionOption = MixedPrecision.no,
    fine_tune: Annotated[bool, typer.Option("--fine-tune", help="Begin with the weights of --model.")] = False,
    resume: ResumeOption = False,
    log_with: LogOption = None,
) -> None:
    """Train an AVACA detector on stored features and save the best epoch with its threshold.

    The best epoch and the threshold are chosen on validation videos; test videos are never looked at. Each epoch
    leaves a state to --resume from. With several processes or machines: accelerate launch -m avad_hf.cli train ...
    """
    settings = {
        "model_options": {"audio_path": audio_path.value} if audio_path else None,
        "fine_tune": fine_tune or None,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "scheduler": scheduler,
        "patience": patience,
        "gradient_accumulation_steps": accumulate,
        "mixed_precision": mixed_precision,
        "log_with": tuple(log_with or ()),
    }
    _train("avaca", profile, store, output, resume, settings, model, scene, split_seed, seed)


def train_avrl(
    store: StoreArgument,
    output: OutputOption,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint that training begins with; the one whose processor stored the videos."),
    ] = None,
    profile: Annotated[
        AvrlProfile, typer.Option(help="avrl: as published. default: AdamW with warm-up and cosine.")
    ] = AvrlProfile.avrl,
    scene: SceneOption = None,
    split_seed: SplitSeedOption = None,
    fusion: Annotated[Fusion | None, typer.Option(help="How sight and sound are put together.")] = None,
    modality: Annotated[Modality | None, typer.Option(help="What it sees and hears.")] = None,
    frozen_video_stages: Annotated[
        int | None, typer.Option(help="Parts of the 3D ResNet that keep their weights: 1 the stem, 5 all.")
    ] = None,
    frozen_audio_stages: Annotated[
        int | None, typer.Option(help="Groups of VGGish's convolutions that keep their weights: 4 are all.")
    ] = None,
    seed: SeedOption = 0,
    epochs: EpochsOption = None,
    batch_size: Annotated[int | None, typer.Option(help="Videos a step, over all processes.")] = None,
    learning_rate: RateOption = None,
    scheduler: SchedulerOption = None,
    patience: PatienceOption = None,
    accumulate: AccumulateOption = 1,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, for more time.")
    ] = False,
    mixed_precision: PrecisionOption = MixedPrecision.no,
    new_weights: Annotated[
        bool, typer.Option("--new-weights", help="Draw new weights; of --model only the architecture is taken.")
    ] = False,
    resume: ResumeOption = False,
    log_with: LogOption = None,
) -> None:
    """Train an AVRL detector on stored videos and save the best epoch with its threshold.

    The best epoch and the threshold are chosen on validation videos; test videos are never looked at. Each epoch
    leaves a state to --resume from. With several processes or machines: accelerate launch -m avad_hf.cli train ...
    """
    options = {
        "fusion": fusion and fusion.value,
        "modality": modality and modality.value,
        "frozen_video_stages": frozen_video_stages,
        "frozen_audio_stages": frozen_audio_stages,
    }
    settings = {
        "model_options": {name: value for name, value in options.items() if value is not None},
        "fine_tune": model is not None and not new_weights,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "scheduler": scheduler,
        "patience": patience,
        "gradient_accumulation_steps": accumulate,
        "gradient_checkpointing": gradient_checkpointing,
        "mixed_precision": mixed_precision,
        "log_with": tuple(log_with or ()),
    }
    _train("avrl", profile, store, output, resume, settings, model, scene, split_seed, seed)


def _train(
    detector: str,
    profile: StrEnum,
    store: str,
    output: Path,
    resume: bool,
    settings: dict[str, Any],
    model: str | None,
    scene: str | None,
    split_seed: int | None,
    seed: int,
) -> None:
    from avad_hf import registration  # noqa: F401
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.processes import process_state
    from avad_hf.training.config import TrainingConfig
    from avad_hf.training.loop import train
    from avad_hf.training.objectives import objective_of

    quiet()
    settings = {name: getattr(value, "value", value) for name, value in settings.items() if value is not None}
    try:
        config = TrainingConfig.from_profile(
            profile.value,
            data=store,
            output_dir=str(output),
            model=model,
            scene=scene,
            split_seed=split_seed,
            seed=seed,
            **settings,
        )
        features = FeatureDataset(store)
        if features.holds_videos != (detector == "avrl"):
            holds, other = ("frames and sound", "avrl") if features.holds_videos else ("features", "avaca")
            raise ValueError(f"{store} holds {holds} for the other detector. Say avad-hf train {other} ...")
        result = train(config, resume=resume)
    except (OSError, ValueError, RuntimeError) as error:
        refuse(str(error))
    if process_state().is_main_process:
        objective = objective_of(features)
        typer.echo(
            f"{output}: epoch {result.best_epoch} of {result.epochs}, validation {objective.figure_name} "
            f"{result.validation[objective.figure]:.3f}, threshold {result.threshold:.3f} "
            f"({result.threshold_origin or 'nobody has looked for one'})."
        )
        if model is None:
            note = "This checkpoint reads stored features only. With --model it gets a processor, and detect runs."
            typer.secho(note, fg="yellow", err=True)
