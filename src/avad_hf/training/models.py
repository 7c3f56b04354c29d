"""New detectors to train, in the shape of their data or of a checkpoint."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForVideoClassification,
    AutoProcessor,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.utils import PROCESSOR_NAME, has_file

from avad_hf.evaluation.scoring import refuse_other_features
from avad_hf.features.dataset import FeatureDataset
from avad_hf.features.store import recipe_sha256
from avad_hf.hub.cards import card
from avad_hf.models.avaca.configuration_avaca import AvacaConfig
from avad_hf.models.avrl.configuration_avrl import LABELS, NORMAL_LABELS, AvrlConfig

from .config import TrainingConfig


def new_model(config: TrainingConfig, data: FeatureDataset) -> tuple[PreTrainedModel, ProcessorMixin | None]:
    """The model to train, with new weights from torch's seed or those of a checkpoint, and the checkpoint's processor.

    Raises:
        ValueError: If there is no such checkpoint, the model's config has no such options, the data are of another
            shape or for another detector, or the data were made by another processor than the checkpoint's.
    """
    processor = None
    if config.model is None:
        model_config = _videos_config(data) if data.holds_videos else AvacaConfig(**_shapes(data))
    else:
        # What looks like a path is none of the Hub's names.
        looks_like_path = config.model.startswith((".", "/", "~")) or config.model.count("/") > 1
        if looks_like_path and not Path(config.model).is_dir():
            raise ValueError(f"{config.model}: no such folder. Give the folder of a checkpoint, or its Hub id.")
        model_config = AutoConfig.from_pretrained(config.model)
        if (model_config.model_type == "avrl") != data.holds_videos:
            raise ValueError(
                f"{config.model} is a checkpoint of type '{model_config.model_type}', but {config.data} was made for "
                "the other detector: AVACA learns from features of frozen encoders, AVRL from frames and sound. "
                f"Extract the videos with this checkpoint's processor: avad-hf extract ... --model {config.model}."
            )
        # A detector that was trained on stored features alone has none.
        if has_file(config.model, PROCESSOR_NAME):
            processor = load_processor(config.model, data)
        elif config.fine_tune:
            refuse_other_features(model_config, config.model, data)
    known = {*type(model_config).__annotations__, *(["id2label"] if data.holds_videos else [])}
    if unknown := [name for name in config.model_options if name not in known]:
        raise ValueError(f"{type(model_config).__name__} has no option {', '.join(unknown)}.")
    settings = model_config.to_dict() | config.model_options
    if "id2label" in config.model_options:
        settings.pop("label2id")  # which is that of the classes before
    if model_config.threshold_origin is not None and "threshold" not in config.model_options:
        settings["threshold"] = type(model_config).threshold  # found for other weights
    model_config = type(model_config).from_dict(settings)
    # What was said of other weights is not true of these.
    model_config.notice = model_config.threshold_origin = None
    model_config.recipe_sha256 = recipe_sha256(data.recipe) if data.recipe else None
    # Weights are float32 whatever the checkpoint's are: small steps would be lost in rounding.
    model = AutoModelForVideoClassification.from_config(model_config, dtype=torch.float32)
    if config.fine_tune:
        source = AutoModelForVideoClassification.from_pretrained(config.model, dtype=torch.float32)
        if data.holds_videos and _differs(source.config, model_config):
            model.avrl.load_backbones(source.avrl.visual, source.avrl.audio)
        else:
            model.load_state_dict(source.state_dict())
    # Shapes that do not fit show here, before anything is written.
    with torch.no_grad():
        model.eval()(**data.collate([data[0]]))
    return model, processor


def _differs(before: AvrlConfig, now: AvrlConfig) -> bool:
    """Whether a classifier gets other features, or names other classes, than before."""
    names = ["modality", "id2label", *(["fusion"] if now.uses_both else [])]
    is_wider = list(before.hidden_sizes) != list(now.hidden_sizes)
    return is_wider or any(getattr(before, name) != getattr(now, name) for name in names)


def _videos_config(data: FeatureDataset) -> AvrlConfig:
    """AVRL with the classes of some videos: SHADE's nine where they are among these, in the order of names else."""
    labels = {row["label"]: row["anomaly"] for row in data.rows if row["label"] is not None}
    names = list(LABELS) if labels.keys() <= set(LABELS) else sorted(labels)
    normal = [name for name in names if not labels.get(name, name not in NORMAL_LABELS)]
    settings = {name: data.recipe["processor"][name] for name in ("rescale_factor", "image_mean", "image_std")}
    return AvrlConfig(video_config=settings, id2label=dict(enumerate(names)), normal_labels=normal)


def _shapes(data: FeatureDataset) -> dict[str, Any]:
    item = data[0]
    _, num_steps, audio_size = item["audio_features"].shape
    shapes = {"visual_size": item["visual_features"].shape[1], "audio_size": audio_size, "num_audio_steps": num_steps}
    # Differences of sound steps need two of them.
    return shapes | ({"audio_path": "plain"} if num_steps == 1 else {})


def load_processor(model: str, data: FeatureDataset) -> ProcessorMixin:
    """A checkpoint's processor; raises ``ValueError`` if the data were made by another one."""
    processor = AutoProcessor.from_pretrained(model)
    if data.recipe:
        # Of frozen encoders; rounding cannot be undone, so a processor of another precision is a copy.
        stored = data.recipe.get("video_encoder", {}).get("dtype", "float32")
        maker = processor
        if stored in ("bfloat16", "float16") and "runtime" not in data.recipe["video_encoder"]:
            maker = AutoProcessor.from_pretrained(model, dtype=stored)
        if recipe_sha256(maker.recipe()) != recipe_sha256(data.recipe):
            raise ValueError(
                f"The features were made by other encoders or settings than those of {model}. Extract them with its "
                f"processor: avad-hf extract ... --model {model}."
            )
    return processor


def model_card(
    config: TrainingConfig, model: PreTrainedModel, result: dict[str, Any], processor: ProcessorMixin | None
) -> str:
    """What the trained checkpoint's README.md says, with the figures of its run."""
    validation, is_avrl = result["validation"], model.config.model_type == "avrl"
    figure = f"top-1 accuracy {validation['top1_accuracy']:.4f}" if is_avrl else f"ROC AUC {validation['roc_auc']:.4f}"
    no_processor = (
        "No processor: this checkpoint reads stored videos."
        if is_avrl
        else "No encoders: this checkpoint reads stored features."
    )
    origin = result["threshold_origin"] or "nobody has looked for one"
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
        *([f"It reads {'videos' if is_avrl else 'features'} of the recipe `{recipe}` (SHA-256)."] if recipe else []),
        f"Validation videos: {figure}. This figure chose the epoch; it is no test result.",
        f"Threshold {result['threshold']:.4f}: {origin}.",
        *(processor.notices if processor else [no_processor]),
    ]
    name = "AVRL" if is_avrl else "AVACA"
    return card(
        model.config.model_type,
        title=name,
        summary=f"An {name} detector, trained by avad_hf.",
        location=Path(config.output_dir).resolve().name,
        facts=notes,
        has_processor=processor is not None,
        **model.config.describe(),
    )


def _named(place: str) -> str:
    """A folder without its path, which is nobody else's business; or a Hub id."""
    return Path(place).resolve().name if Path(place).is_dir() else place


__all__ = ["load_processor", "model_card", "new_model"]
