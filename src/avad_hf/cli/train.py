"""`avad-hf train`: detectors from stored features and videos."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.registration import ARCHITECTURES, architectures
from avad_hf.registration import architecture as find_architecture

from .detect import AudioPath
from .init import FusionOption, ModalityOption
from .terminal import SetOption, check_checkpoint, check_folder, config_settings, note, quiet, refuse, say, stoppable

DETECTORS = ", ".join(architectures("profiles"))


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


@stoppable("Finished epochs are kept. Run the same command with --resume, and it goes on.")
def train(
    words: Annotated[
        list[str], typer.Argument(metavar="STORE", help="Feature store: a folder, or its Hub id.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint whose architecture and processor are taken; the one that made the store."),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(help=f"Without a checkpoint: {DETECTORS}. It then reads stored features only."),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Recipe: default, or a published one, such as paper; a wrong name lists all. Default: the detector's."
        ),
    ] = None,
    scene: Annotated[str | None, typer.Option(help="Only the videos of this scene.")] = None,
    split_seed: Annotated[
        int | None, typer.Option(help="Seed of the random split. Default: 0, or the fixed split.")
    ] = None,
    audio_path: Annotated[
        AudioPath | None,
        typer.Option(help="How sound is used (detectors with an audio path). Default: the profile's."),
    ] = None,
    fusion: FusionOption = None,
    modality: ModalityOption = None,
    frozen_video_stages: Annotated[
        int | None, typer.Option(help="Parts of its video network that keep their weights, from the input on.")
    ] = None,
    frozen_audio_stages: Annotated[
        int | None, typer.Option(help="Parts of its audio network that keep their weights, from the input on.")
    ] = None,
    settings: SetOption = None,
    seed: Annotated[int, typer.Option(help="Seed of new weights and of the order of the videos.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Default: the profile's.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Videos a step, over all processes; even where half of them are anomalous.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the profile's.")] = None,
    scheduler: Annotated[Scheduler | None, typer.Option(help="Default: the profile's.")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without a better validation figure until it ends. Default: the profile's."),
    ] = None,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is cut into, for less memory.", min=1)] = 1,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Less memory, for more time (detectors that read videos)."),
    ] = False,
    mixed_precision: Annotated[MixedPrecision, typer.Option(help="Precision of the computation.")] = MixedPrecision.no,
    fine_tune: Annotated[
        bool | None,
        typer.Option(
            "--fine-tune/--new-weights",
            help="Begin with the weights of --model, or take its architecture alone. Default: as it is published.",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the output folder.")] = False,
    log_with: Annotated[
        list[str] | None, typer.Option(help="Tracker of Accelerate, tensorboard for example; repeat for several.")
    ] = None,
) -> None:
    """Train a detector on stored features or videos and save the best epoch with its threshold.

    Example: avad-hf train features/street -o checkpoints/street --model checkpoints/new

    The best epoch and the threshold are chosen on validation videos; test videos are never looked at. Each epoch
    leaves a state to --resume from. With several processes or machines: accelerate launch -m avad_hf.cli train ...
    """
    store, architecture = _store(words, architecture, model)
    model_options = config_settings(
        settings,
        audio_path=audio_path,
        fusion=fusion,
        modality=modality,
        frozen_video_stages=frozen_video_stages,
        frozen_audio_stages=frozen_audio_stages,
    )
    check_checkpoint(model)
    check_folder(output)
    given: dict[str, Any] = {
        "model": model,
        "architecture": architecture if model is None else None,
        "fine_tune": fine_tune,
        "scene": scene,
        "split_seed": split_seed,
        "seed": seed,
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
    given = {name: getattr(value, "value", value) for name, value in given.items() if value is not None}

    from avad_hf.processes import process_state
    from avad_hf.training.config import TrainingConfig
    from avad_hf.training.loop import train as train_detector

    quiet()
    try:
        if model is None and architecture is None:
            raise ValueError(_which(store))
        recipe, begins_trained = _recipe(model, architecture)
        if begins_trained and model is not None:
            given.setdefault("fine_tune", True)
        config = TrainingConfig.from_profile(
            profile or recipe, data=store, output_dir=str(output), model_options=model_options, **given
        )
        result = train_detector(config, resume=resume)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        refuse(str(error))
    if process_state().is_main_process:
        say(
            f"{output}: epoch {result.best_epoch} of {result.epochs}, validation {result.figure_name} "
            f"{result.validation[result.figure]:.3f}, threshold {result.threshold:.3f} "
            f"({result.threshold_origin or 'nobody has looked for one'})."
        )
        notes = list(result.warnings)
        if model is None:
            notes.append(
                "This checkpoint reads stored features only. With --model it gets a processor, and detect runs."
            )
        for words in notes:
            note(words)


def _store(words: list[str], architecture: str | None, model: str | None) -> tuple[str, str | None]:
    """The store and the architecture of ``STORE``, or of ``ARCHITECTURE STORE`` as it was spelt before."""
    if len(words) > 2 or (len(words) == 2 and architecture is not None):
        refuse(f"Give one STORE, got {' '.join(words)}.")
    before = words[0] if len(words) == 2 else None
    try:
        for name in (architecture, before):
            if name is not None:
                find_architecture(name, "profiles", "detector that can be trained")
    except ValueError as error:
        refuse(f"Give one STORE, got {' '.join(words)}. {error}" if before else str(error))
    if before is None:
        if (
            model is None
            and architecture is None
            and words[0] in architectures("profiles")
            and not Path(words[0]).is_dir()
        ):
            refuse(f"Missing argument STORE. Say: avad-hf train STORE -o DIR --architecture {words[0]}.")
        return words[0], architecture
    instead = f"--architecture {before}" if model is None else f"--model {model}"
    note(
        f"`avad-hf train {before} STORE` is an old spelling, and will go. Say: avad-hf train {words[1]} {instead} ..."
    )
    return words[1], before


def _recipe(model: str | None, architecture: str | None) -> tuple[str, bool]:
    """A detector's own profile, and whether it begins with the weights of a checkpoint.

    Raises:
        ValueError: If the checkpoint is of another architecture than the one that is named.
    """
    from avad_hf.training.config import profiles

    if model is not None:
        from transformers import AutoConfig

        found = AutoConfig.from_pretrained(model, trust_remote_code=False).model_type
        if architecture not in (None, found):
            raise ValueError(
                f"{model} is a checkpoint of type '{found}', and no {architecture}. Leave {architecture} out: a "
                "checkpoint has its architecture."
            )
        architecture = found
    # A detector of somebody's own has no recipe here.
    name = ARCHITECTURES[architecture].profile if architecture in ARCHITECTURES else "default"
    return name, bool(profiles()[name].get("fine_tune"))


def _which(store: str) -> str:
    """What to say where nobody has said which detector."""
    from avad_hf.evaluation.scoring import STORED
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.training.models import detectors

    reads = FeatureDataset(store).reads
    fitting = [name for name, one in detectors().items() if one.load("config")().detector_spec.reads == reads]
    return (
        f"Say which detector: --model CHECKPOINT, or --architecture NAME. {store} holds {STORED[reads]}, which these "
        f"detectors read: {', '.join(fitting)}."
    )
