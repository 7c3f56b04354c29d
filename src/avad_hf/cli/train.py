"""`avad-hf train`: detectors from stored features and videos."""

from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from avad_hf.registration import ARCHITECTURES, architectures
from avad_hf.registration import architecture as find_architecture

from .init import FusionOption, ModalityOption
from .options import (
    AccumulateOption,
    AudioPath,
    JsonOption,
    SceneOption,
    SetOption,
    SplitSeedOption,
    config_settings,
    names_of,
    profile_names,
)
from .results import RESULTS, check_json, last_folder, output_folder, write_json
from .terminal import (
    check_checkpoint,
    check_store,
    hush_libraries,
    name_output,
    note,
    refuse,
    say,
    stop_for,
    stoppable,
)

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
        list[str] | None,
        typer.Argument(
            metavar="STORE", help="Feature store: folder or Hub id.", show_default="that of --config or --resume"
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the run.", show_default="results/train-NUMBER"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of settings, as --print-config writes it. Options on the command line override the file.",
            show_default="none",
        ),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print all settings as TOML, and train nothing.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in the output folder; without -o with the last in results/. Without STORE and "
            "--config it takes the store and the settings of that run.",
        ),
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            help="Checkpoint whose architecture and processor are taken; the one that made the store.",
            show_default="none",
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            help=f"Without a checkpoint: {DETECTORS}. It then reads stored features only.",
            show_default="the checkpoint's",
            autocompletion=names_of("profiles"),
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Recipe: default, few (for a few hundred videos), or a published one, such as paper; a wrong name "
            "lists all.",
            show_default="the detector's",
            autocompletion=profile_names,
        ),
    ] = None,
    scene: SceneOption = None,
    split_seed: SplitSeedOption = None,
    audio_path: Annotated[
        AudioPath | None,
        typer.Option(help="How sound is used (detectors with an audio path).", show_default="the profile's"),
    ] = None,
    fusion: FusionOption = None,
    modality: ModalityOption = None,
    frozen_video_stages: Annotated[
        int | None,
        typer.Option(
            help="Parts of its video network that keep their weights, from the input on.",
            show_default="the detector's",
        ),
    ] = None,
    frozen_audio_stages: Annotated[
        int | None,
        typer.Option(
            help="Parts of its audio network that keep their weights, from the input on.",
            show_default="the detector's",
        ),
    ] = None,
    settings: SetOption = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of new weights and of the order of the videos.", show_default="0")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Times that all videos are seen.", show_default="the profile's")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Videos a step, over all processes; even where half of them are anomalous.",
            show_default="the profile's",
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Highest learning rate.", show_default="the profile's")
    ] = None,
    scheduler: Annotated[
        Scheduler | None, typer.Option(help="How the learning rate goes.", show_default="the profile's")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Epochs without a better validation figure until it ends.", show_default="the profile's"),
    ] = None,
    accumulate: AccumulateOption = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option("--gradient-checkpointing", help="Less memory, for more time."),
    ] = None,
    mixed_precision: Annotated[
        MixedPrecision | None, typer.Option(help="Precision of the computation.", show_default="the profile's, or no")
    ] = None,
    fine_tune: Annotated[
        bool | None,
        typer.Option(
            "--fine-tune/--new-weights",
            help="Begin with the weights of --model, or take its architecture alone.",
            show_default="as it is published",
        ),
    ] = None,
    log_with: Annotated[
        list[str] | None,
        typer.Option(help="Tracker of Accelerate, tensorboard for example; repeat for several.", show_default="none"),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Train a detector on stored features or videos and save the best epoch with its threshold.

    Example: avad-hf train features/street -o checkpoints/street --model checkpoints/new

    Example with a file of settings: avad-hf train --config run.toml --epochs 10

    "The profile's" as a default is the value of the recipe that --profile names; --print-config shows it. The best
    epoch and the threshold are chosen on validation videos; test videos are never looked at. Each epoch leaves a state
    to --resume from. With several processes or machines: accelerate launch -m avad_hf.cli train ...
    """
    in_file = _read(config)
    output = output or (Path(in_file["output_dir"]) if "output_dir" in in_file else None)
    last_run = last_folder("train") if resume and output is None else None
    if resume and output is None and last_run is None:
        refuse(f"There is no run in {RESULTS} to resume. Give its folder: -o DIR.")
    if resume and not words and config is None:
        in_file = _begun(output or last_run)
        profile = profile or in_file.pop("profile", None)
    store, architecture = _store(words or [], architecture, model, in_file.pop("data", None))
    model_options = config_settings(
        settings,
        audio_path=audio_path,
        fusion=fusion,
        modality=modality,
        frozen_video_stages=frozen_video_stages,
        frozen_audio_stages=frozen_audio_stages,
    )
    if model is not None or architecture is not None:  # either one takes the place of both in the file
        in_file.pop("model", None)
        in_file.pop("architecture", None)
    on_command_line: dict[str, Any] = {
        "model": model,
        "architecture": architecture,
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
        "log_with": tuple(log_with) if log_with else None,
    }
    model_options = in_file.pop("model_options", {}) | model_options
    chosen = in_file | {
        name: getattr(value, "value", value) for name, value in on_command_line.items() if value is not None
    }
    chosen |= {"data": store, "model_options": model_options}
    profile = profile or chosen.pop("profile", None)
    chosen.pop("profile", None)
    check_checkpoint(chosen.get("model"))
    check_store(store)
    if print_config:
        from avad_hf.training.settings_file import settings_text

        config, profile = _config(profile, chosen | {"output_dir": "" if output is None else str(output)})
        try:
            say(settings_text(config, profile, has_output=output is not None), nl=False)
        except ValueError as error:
            refuse(str(error))
        return
    tell = check_json(json)
    with output_folder(output, "train", again=last_run) as folder:
        _run(profile, chosen | {"output_dir": str(folder)}, resume, tell, json)


def _read(path: Path | None) -> dict[str, Any]:
    """Settings of --config."""
    if path is None:
        return {}
    from avad_hf.training.settings_file import read_settings

    try:
        return read_settings(path)
    except (OSError, ValueError) as error:
        refuse(f"--config {path} cannot be read: {error.strerror}." if isinstance(error, OSError) else str(error))


def _begun(folder: Path | None) -> dict[str, Any]:
    """Settings of a run that was begun in a folder, as `_read` gives them; none where there is no run."""
    from avad_hf.training.run import has_run, read_run

    if folder is None or not has_run(folder):
        return {}
    try:
        begun = read_run(folder).config
    except (OSError, ValueError) as error:
        refuse(str(error))
    begun.pop("output_dir", None)  # the folder may have been moved
    return begun | {"profile": "default", "log_with": tuple(begun.get("log_with", ()))}


def _config(profile: str | None, chosen: dict[str, Any]) -> tuple[Any, str]:
    """All settings of a run, and the recipe that they are taken over; or a refusal."""
    from avad_hf.training.config import TrainingConfig

    model, architecture = chosen.get("model"), chosen.get("architecture")
    try:
        if model is None and architecture is None:
            raise ValueError(_which(chosen["data"]))
        recipe, begins_trained = _recipe(model, architecture)
        if model is not None:
            chosen = chosen | {"architecture": None}  # which is the checkpoint's
            if begins_trained:
                chosen.setdefault("fine_tune", True)
        return TrainingConfig.from_profile(profile or recipe, **chosen), profile or recipe
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        stop_for(error)


def _run(
    profile: str | None, chosen: dict[str, Any], resume: bool, tell: Callable[..., None], json: Path | None
) -> None:
    """Train, and say what came of it."""
    hush_libraries()
    from avad_hf.processes import process_state
    from avad_hf.training.loop import train as train_detector

    config, _ = _config(profile, chosen)
    try:
        result = train_detector(config, resume=resume, on_begin=name_output)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        stop_for(error)
    if process_state().is_main_process:
        tell(
            f"{config.output_dir}: epoch {result.best_epoch} of {result.epochs}, validation {result.figure_name} "
            f"{result.validation[result.figure]:.3f}, threshold {result.threshold:.3f} "
            f"({result.threshold_origin or 'not tuned'})."
        )
        if config.model is None:
            result.warnings.append(
                "This checkpoint reads stored features only. With --model it gets a processor, and detect runs."
            )
        for words in result.warnings:
            note(words)
        write_json(asdict(result), json)


def _store(
    words: list[str], architecture: str | None, model: str | None, in_file: str | None
) -> tuple[str, str | None]:
    """The store and the architecture of ``STORE``, or of ``ARCHITECTURE STORE`` as it was spelt before.

    Args:
        words: Words of the command line.
        architecture: Value of --architecture.
        model: Value of --model.
        in_file: Store of --config, where no word names one.
    """
    if not words:
        if in_file is None:
            refuse("Missing argument STORE: the feature store, a folder or its Hub id. Or give --config FILE.")
        words = [in_file]
    if len(words) > 2 or (len(words) == 2 and architecture is not None):
        refuse(f"Give one STORE, got {' '.join(words)}.")
    first_of_two = words[0] if len(words) == 2 else None
    try:
        for name in (architecture, first_of_two):
            if name is not None:
                find_architecture(name, "profiles", "detector that can be trained")
    except ValueError as error:
        refuse(f"Give one STORE, got {' '.join(words)}. {error}" if first_of_two else str(error))
    if first_of_two is None:
        if (
            model is None
            and architecture is None
            and words[0] in architectures("profiles")
            and not Path(words[0]).is_dir()
        ):
            refuse(f"Missing argument STORE. Say: avad-hf train STORE -o DIR --architecture {words[0]}.")
        return words[0], architecture
    instead = f"--architecture {first_of_two}" if model is None else f"--model {model}"
    note(
        f"`avad-hf train {first_of_two} STORE` is an old spelling, and will go. Say: avad-hf train {words[1]} "
        f"{instead} ..."
    )
    return words[1], first_of_two


def _recipe(model: str | None, architecture: str | None) -> tuple[str, bool]:
    """A detector's own profile, and whether it begins with the weights of a checkpoint.

    Raises:
        ValueError: If the checkpoint is of another architecture than the one that is named.
    """
    from avad_hf.training.config import profiles

    if model is not None:
        hush_libraries()
        from transformers import AutoConfig

        model_type = AutoConfig.from_pretrained(model, trust_remote_code=False).model_type
        if architecture not in (None, model_type):
            raise ValueError(
                f"{model} is a checkpoint of type '{model_type}', and no {architecture}. Leave {architecture} out: a "
                "checkpoint has its architecture."
            )
        architecture = model_type
    # A detector of somebody's own has no recipe here.
    name = ARCHITECTURES[architecture].profile if architecture in ARCHITECTURES else "default"
    return name, bool(profiles()[name].get("fine_tune"))


def _which(store: str) -> str:
    """What to say where nobody has said which detector."""
    from avad_hf.evaluation.scoring import STORED
    from avad_hf.features.dataset import FeatureDataset
    from avad_hf.training.models import detectors

    reads = FeatureDataset(store).reads
    fitting = [name for name, item in detectors().items() if item.load("config")().detector_spec.reads == reads]
    return (
        f"Say which detector: --model CHECKPOINT, or --architecture NAME. {store} holds {STORED[reads]}, which these "
        f"detectors read: {', '.join(fitting)}."
    )
