"""What the pipeline can be asked for; what cannot be is refused before anything is decoded."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from inspect import signature

from transformers import AutoProcessor, PreTrainedModel
from transformers.utils import PROCESSOR_NAME, has_file

from avad_hf.hub.errors import explain
from avad_hf.models.detector import DetectorConfig

# What can be set when the pipeline is made and in each call, and in calls alone.
OPTIONS = ("threshold", "audio_path", "scene", "describe", "explain", "gate", "on_progress", "batch_size")
OPTIONS_OF_CALLS = ("streams",)


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise ``TypeError`` for options that there are not."""
    for name in names:
        raise TypeError(
            f"audio-visual-anomaly takes no option {name!r}. It takes {', '.join(OPTIONS)}; calls also take "
            f"{', '.join(OPTIONS_OF_CALLS)}.{_meant(name, (*OPTIONS, *OPTIONS_OF_CALLS))}"
        )


def check_threshold(threshold: float) -> None:
    """Raise ``ValueError`` for a threshold that no score is."""
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold must be between 0 and 1, got {threshold}.")


def check_audio_path(config: DetectorConfig, audio_path: str) -> None:
    """Raise ``ValueError`` for an audio path that the detector does not have; it would refuse it itself, but later."""
    if not hasattr(config, "audio_paths"):
        raise ValueError(
            f"audio_path is an option of detectors that use sound in several ways, and this one, of type "
            f"'{config.model_type}', has none. Leave it out."
        )
    if audio_path not in (choices := config.audio_paths):
        raise ValueError(f"audio_path must be one of {', '.join(choices)}, got {audio_path!r}.")


def check_scene(config: DetectorConfig, scene: str) -> None:
    """Raise ``ValueError`` for a scene that the detector does not know, where it knows others."""
    if not isinstance(scene, str) or not scene:
        raise ValueError(f"scene must be the name of a scene, got {scene!r}.")
    known = sorted({*(config.thresholds or {}), *(getattr(config, "scene_rows", None) or {})})
    if known and scene not in known:
        raise ValueError(
            f"The detector has no threshold for scene {scene!r}, and no mean; it knows {', '.join(known)}. Give one "
            f"of these, or calibrate it for the scene. Without scene the common threshold {config.threshold:.4g} is "
            f"used.{_meant(scene, known)}"
        )


def scene_for(function: Callable, scene: str | None) -> dict[str, str]:
    """The scene as an argument, of what takes one: detectors may know scenes by more than a threshold."""
    return {"scene": scene} if scene is not None and "scene" in signature(function).parameters else {}


def why_no_processor(model: PreTrainedModel) -> str:
    """Say why: transformers keeps the reason to itself; loading the processor once more shows it."""
    checkpoint = model.name_or_path
    advice = "Pass processor=AutoProcessor.from_pretrained(...) beside the model."
    if not checkpoint:
        return f"audio-visual-anomaly needs a processor too. {advice}"
    try:
        AutoProcessor.from_pretrained(checkpoint)
    except Exception as error:
        if (reason := explain(error, checkpoint)) is None and not has_file(checkpoint, PROCESSOR_NAME):
            return (
                f"{checkpoint} holds no processor: it was trained on stored features, and reads no videos by itself. "
                "Pass processor=AutoProcessor.from_pretrained(...) of the checkpoint that made the features."
            )
        return f"The processor of {checkpoint} cannot be loaded: {reason or error}"
    return f"The processor of {checkpoint} was not loaded. Try again, or pass it: {advice}"


def _meant(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]}?" if near else ""


__all__ = ["check_audio_path", "check_scene", "check_threshold", "refuse_unknown", "scene_for", "why_no_processor"]
