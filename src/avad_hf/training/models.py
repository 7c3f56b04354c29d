"""Detectors to train: new ones in the shape of their data or of a checkpoint, or one that is given."""

import math
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForVideoClassification,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import PROCESSOR_NAME, has_file

from avad_hf.evaluation.scoring import STORED, refuse_other_features
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import recipe_sha256
from avad_hf.hub.cards import card, card_values, plain
from avad_hf.models.architecture import Architecture
from avad_hf.models.detector import DetectorConfig, DetectorSpec, spec_of
from avad_hf.registration import architectures

from .config import TrainingConfig
from .objectives import objective_of

# Videos whose features are read for their size.
MOST_SCALED = 1000


def new_model(
    config: TrainingConfig,
    data: FeatureDataset,
    model: PreTrainedModel | None = None,
    processor: ProcessorMixin | None = None,
) -> tuple[PreTrainedModel, ProcessorMixin | None]:
    """The model to train, with new weights from torch's seed or those of a checkpoint, and its processor.

    Args:
        config: Settings of the run.
        data: Its training videos.
        model: A detector that is there, with its weights; nothing of the config is used then.
        processor: Saved with it.

    Raises:
        TypeError: For a model that is no detector.
        ValueError: If there is no such checkpoint, the model's config has no such options, the data are of another
            shape or for another detector, or the data were made by another processor than the checkpoint's.
    """
    if model is not None:
        if config.model or config.architecture or config.model_options or config.fine_tune:
            raise ValueError(
                "train was given a model; model, architecture, model_options and fine_tune of the config are for "
                "models that it shall make. Leave them out."
            )
        _refuse_other_reading(spec_of(model), data, type(model).__name__)
        if processor is not None:
            _refuse_other_maker(processor, data, type(processor).__name__)
        model = model.float()
    else:
        model_config, processor = _config_of(config, data)
        # Weights are float32 whatever the checkpoint's are: small steps would be lost in rounding.
        model = AutoModelForVideoClassification.from_config(model_config, dtype=torch.float32)
        if config.scale_features and not config.fine_tune:
            model.config.feature_scales = scales_of(data, list(spec_of(model).inputs))
        if config.fine_tune:
            model.begin_with(
                AutoModelForVideoClassification.from_pretrained(
                    config.model, dtype=torch.float32, trust_remote_code=False
                )
            )
        else:
            model.prepare(data)
    # What was said of other weights is not true of these.
    model.config.notice = model.config.threshold_origin = model.config.thresholds = model.config.alarms = None
    model.config.recipe_sha256 = recipe_sha256(data.recipe) if data.recipe else None
    # Shapes that do not fit show here, before anything is written.
    with torch.no_grad():
        item = {name: value.to(model.device) for name, value in data.collate([data[0]]).items()}
        model.eval()(**item)
    return model, processor


def scales_of(data: FeatureDataset, names: Sequence[str]) -> dict[str, float] | None:
    """What makes the root mean square of features 1, by their names.

    Args:
        data: Training videos. Of very many some are looked at, evenly spread. Sound that is not there is left out.
        names: Names of the features.
    """
    step = max(1, len(data) // MOST_SCALED)
    totals, counts = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0)
    for index in range(0, len(data), step):
        item = data[index]
        for name in names:
            if name == "audio_features" and not item["has_audio"].any():
                continue
            totals[name] += item[name].double().square().sum().item()
            counts[name] += item[name].numel()
    feature_scales = {name: math.sqrt(counts[name] / totals[name]) for name in names if totals[name] > 0}
    return feature_scales or None


def _config_of(
    config: TrainingConfig, data: FeatureDataset, with_processor: bool = True
) -> tuple[DetectorConfig, ProcessorMixin | None]:
    """The config of a new model, and the processor of the checkpoint that it is made after."""
    processor = None
    if config.model is None:
        chosen = _architecture(config, data)
        _refuse_other_reading(chosen.load("config")().detector_spec, data, chosen.title)
        model_config = chosen.load("config").for_data(data[0], data.rows, data.recipe)
    else:
        # What looks like a path is none of the Hub's names.
        looks_like_path = config.model.startswith((".", "/", "~")) or config.model.count("/") > 1
        if looks_like_path and not Path(config.model).is_dir():
            raise ValueError(f"{config.model}: no such folder. Give the folder of a checkpoint, or its Hub id.")
        model_config = AutoConfig.from_pretrained(config.model, trust_remote_code=False)
        if not isinstance(model_config, DetectorConfig):
            raise ValueError(
                f"{config.model} holds a model of type '{model_config.model_type}', which is no detector. Give the "
                f"checkpoint of one, or architecture: {', '.join(detectors())}."
            )
        _refuse_other_reading(model_config.detector_spec, data, config.model)
        # A detector that was trained on stored features alone has none.
        if not with_processor:
            pass
        elif has_file(config.model, PROCESSOR_NAME):
            processor = load_processor(config.model, data)
        elif config.fine_tune:
            refuse_other_features(model_config, config.model, data)
    option_names = {item.name for item in fields(model_config)} - {item.name for item in fields(PreTrainedConfig)}
    if "normal_labels" in option_names:  # it names classes, or can
        option_names |= {"id2label"} | ({"num_labels"} if model_config.detector_spec.objective == "clips" else set())
    if unknown := [name for name in config.model_options if name not in option_names]:
        near = [match for name in unknown for match in get_close_matches(name, option_names, n=1)]
        meant = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"{type(model_config).__name__} has no option {', '.join(unknown)}.{meant}")
    settings = model_config.to_dict() | config.model_options
    if "id2label" in config.model_options:
        settings.pop("label2id")  # which is that of the classes before
    elif "num_labels" in config.model_options:
        classes = model_config.class_settings(data.rows, config.model_options["num_labels"])
        settings |= {name: value for name, value in classes.items() if name not in config.model_options}
    if model_config.threshold_origin is not None and "threshold" not in config.model_options:
        settings["threshold"] = type(model_config).threshold  # found for other weights
    if data.reads == "features" and not config.fine_tune:
        settings |= dict.fromkeys(model_config.encoder_settings)  # stored features teach the detector alone
    return type(model_config).from_dict(settings), processor


def spec_for(config: TrainingConfig, data: FeatureDataset, model: PreTrainedModel | None = None) -> DetectorSpec:
    """What the detector of a run is, before it is made; arguments as of `new_model`."""
    return spec_of(model) if model is not None else _config_of(config, data, with_processor=False)[0].detector_spec


def detectors() -> dict[str, Architecture]:
    """Architectures of detectors, by their model types."""
    return {
        name: architecture
        for name, architecture in architectures("head").items()
        if issubclass(architecture.load("config"), DetectorConfig)
    }


def _architecture(config: TrainingConfig, data: FeatureDataset) -> Architecture:
    """What is asked for, or the first one that reads what the store holds."""
    by_name = detectors()
    if config.architecture is not None:
        if config.architecture not in by_name:
            raise ValueError(f"{config.architecture!r} is no detector. Known: {', '.join(by_name)}.")
        return by_name[config.architecture]
    return next(
        architecture
        for architecture in by_name.values()
        if architecture.load("config")().detector_spec.reads == data.reads
    )


def _refuse_other_reading(spec: DetectorSpec, data: FeatureDataset, name: str) -> None:
    """Refuse a store that holds something else than a detector reads."""
    if spec.reads != data.reads:
        raise ValueError(
            f"{name} is a detector that reads {STORED[spec.reads]}, but {data.selection['name']} holds "
            f"{STORED[data.reads]}. Extract the videos with a checkpoint of this detector: avad-hf extract ... "
            "--model."
        )


def load_processor(model: str, data: FeatureDataset) -> ProcessorMixin:
    """A checkpoint's processor; raises ``ValueError`` if the data were made by another one."""
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
    if data.recipe:
        # Frozen encoders are rounded, which cannot be undone, so a processor of another precision is a copy.
        stored = data.recipe.get("video_encoder", {}).get("dtype", "float32")
        maker = processor
        if stored in ("bfloat16", "float16") and "runtime" not in data.recipe["video_encoder"]:
            maker = AutoProcessor.from_pretrained(model, dtype=stored, trust_remote_code=False)
        _refuse_other_maker(maker, data, model)
    return processor


def _refuse_other_maker(processor: ProcessorMixin, data: FeatureDataset, name: str) -> None:
    """Refuse features that another processor made."""
    if data.recipe and recipe_sha256(processor.recipe()) != recipe_sha256(data.recipe):
        raise ValueError(
            f"The features were made by other encoders or settings than those of {name}. Extract them with its "
            f"processor: avad-hf extract ... --model {name}."
        )


def model_card(
    config: TrainingConfig, model: PreTrainedModel, result: dict[str, Any], processor: ProcessorMixin | None
) -> str:
    """What the trained checkpoint's README.md says, with the figures of its run."""
    validation, spec = result["validation"], model.detector_spec
    objective = objective_of(spec)
    figure = f"{objective.figure_name} {validation[objective.figure]:.4f}"
    holds = "videos" if spec.reads == "videos" else "features"
    no_processor = (
        "No processor: this checkpoint reads stored videos."
        if spec.reads == "videos"
        else "No encoders: this checkpoint reads stored features."
    )
    origin = result["threshold_origin"] or "not tuned"
    split = "as the data fix it, or else of seed 0" if config.split_seed is None else f"of seed {config.split_seed}"
    recipe = model.config.recipe_sha256
    notes = [
        f"Trained for {result['epochs']} epochs on `{_named(config.data)}`"
        + (f", scene {config.scene}" if config.scene else "")
        + f", split {split}, training seed {config.seed}; epoch {result['best_epoch']} is kept."
        + (f" It began with the weights of `{_named(config.model)}`." if config.fine_tune else ""),
        f"Recipe: {config.optimizer}, learning rate {config.learning_rate:g} ({config.scheduler}), weight decay "
        f"{config.weight_decay:g}, batches of {config.batch_size} videos, at most {config.epochs} epochs, precision "
        f"{'float32' if config.mixed_precision == 'no' else config.mixed_precision}.",
        *([f"It reads {holds} of the recipe `{recipe}` (SHA-256)."] if recipe else []),
        f"Validation videos: {figure}. This figure chose the epoch; it is no test result.",
        f"Threshold {result['threshold']:.4f}: {origin}.",
        *(map(plain, processor.notices) if processor else [no_processor]),
    ]
    return card(
        model.config.card,
        title=spec.title,
        summary=f"{model.config.summary.partition(' ')[0]} {spec.title} detector, trained by avad_hf.",
        location=Path(config.output_dir).resolve().name,
        facts=notes,
        has_processor=processor is not None,
        **card_values(model.config),
    )


def _named(source: str) -> str:
    """A folder without its path, which is nobody else's business; or a Hub id."""
    return Path(source).resolve().name if Path(source).is_dir() else source


__all__ = ["detectors", "load_processor", "model_card", "new_model"]
