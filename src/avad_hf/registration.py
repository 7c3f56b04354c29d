"""Every architecture, and what makes the Auto classes and the pipeline task of transformers know it."""

from difflib import get_close_matches
from functools import cache
from importlib import import_module

from .models.architecture import Architecture

# Folders of models/, one a line. The first detector of each kind of store is what `train` builds where none is named.
FOLDERS = (
    "avaca",
    "avrl",
    "arnet",
    "bnwvad",
    "gaussian",
    "i3d",
    "knn",
    "macilsd",
    "mist",
    "mulde",
    "resnet3d",
    "rtfm",
    "s3r",
    "shaderef",
    "slowfast",
    "ssrl",
    "urdmu",
    "vggish",
    "x3d",
    "yamnet",
)
ARCHITECTURES: dict[str, Architecture] = {
    one.model_type: one for one in (import_module(f"avad_hf.models.{name}").ARCHITECTURE for name in FOLDERS)
}
# What is fitted to normal footage where no method is named: it is the quickest, and says what is nearest.
METHOD = "knn"
PIPELINE_TASK = "audio-visual-anomaly"
# Encoders whose classes describe videos where none are named.
DESCRIBERS = {"video_encoder": "i3d", "audio_encoder": "yamnet"}


def architectures(part: str) -> dict[str, Architecture]:
    """Those that have a part, by their model types: ``"processor"`` for detectors, ``"converter"``, ``"init"``, ..."""
    return {name: one for name, one in ARCHITECTURES.items() if getattr(one, part) is not None}


def architecture(name: str, part: str, what: str) -> Architecture:
    """The architecture of a name that has a part.

    Args:
        name: Its model type.
        part: What it must have.
        what: What such architectures are called, for the error.

    Raises:
        ValueError: For another name, with a suggestion.
    """
    known = architectures(part)
    if name in known:
        return known[name]
    near = get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"{name!r} is no {what}. Known: {', '.join(known)}.{meant}")


def feature_processor() -> type:
    """Class of the processor whose slots take any two encoders."""
    return ARCHITECTURES["avaca"].load("processor")


@cache
def register() -> None:
    """Make transformers know all architectures and the pipeline task; once."""
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoModel,
        AutoModelForAudioClassification,
        AutoModelForVideoClassification,
        AutoProcessor,
        AutoVideoProcessor,
    )
    from transformers.models.auto import modeling_auto
    from transformers.pipelines import PIPELINE_REGISTRY
    from transformers.utils import is_torchvision_available

    from .detection.pipeline import DEMO_MODEL, AudioVisualAnomalyPipeline

    for one in ARCHITECTURES.values():
        config = one.load("config")
        AutoConfig.register(one.model_type, config)
        hears_only = getattr(one.load("head"), "input_modalities", ()) == ("audio",)
        task = "AUDIO_CLASSIFICATION" if hears_only else "VIDEO_CLASSIFICATION"
        # Detectors are on an Auto class for the pipeline: given a concrete class, transformers loads any checkpoint
        # as that one.
        for auto, part in (
            (AutoModel, "model"),
            (AutoModelForAudioClassification if hears_only else AutoModelForVideoClassification, "head"),
            (AutoFeatureExtractor, "feature_extractor"),
            (AutoProcessor, "processor"),
        ):
            if (found := one.load(part)) is not None:
                auto.register(config, found)
        if one.head is not None:
            # By these names the pipelines of transformers say which models they know.
            names = getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")
            names.setdefault(one.model_type, one.load("head").__name__)
        # Without torchvision transformers has no AutoVideoProcessor.
        reads_videos = "pixel_values_videos" in getattr(one.load("feature_extractor"), "model_input_names", ())
        if reads_videos and is_torchvision_available():
            AutoVideoProcessor.register(config, one.load("feature_extractor"))
    PIPELINE_REGISTRY.register_pipeline(
        PIPELINE_TASK,
        pipeline_class=AudioVisualAnomalyPipeline,
        pt_model=AutoModelForVideoClassification,
        default={"model": (str(DEMO_MODEL), "main")},
        type="multimodal",
    )


__all__ = [
    "ARCHITECTURES",
    "DESCRIBERS",
    "METHOD",
    "PIPELINE_TASK",
    "architecture",
    "architectures",
    "feature_processor",
    "register",
]
