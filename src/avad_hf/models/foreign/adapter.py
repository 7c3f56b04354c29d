"""The one adapter for models of transformers that this library does not know."""

from dataclasses import replace
from typing import Any

from transformers import FeatureExtractionMixin, PreTrainedModel

from avad_hf.models.encoder import Encoder
from avad_hf.models.engine import EngineModel

from .constants import PixelConstants, channels, settings_of
from .pictures import ForeignPictures
from .sounds import ForeignSound
from .towers import Reads, modality, tower_of

# Settings, by what a model reads.
SETTINGS = {"pixels": ("image_mean", "image_std", "num_frames"), "waveform": ("feature_extractor", "window_s")}


def foreign_encoder(
    network: PreTrainedModel,
    preprocessor: Any = None,
    reads: Reads | None = None,
    name: str | None = None,
    **settings: Any,
) -> Encoder:
    """A video, image or audio model of transformers as a frozen encoder.

    Whether it reads pictures or sound is found from the model. Heads are left out. If the model has several parts
    (CLIP, CLAP), the one that reads pictures or sound is taken.

    Args:
        network: The model. Its weights get no gradients any more.
        preprocessor: The model's own image processor, video processor (or the settings of one, as a mapping) or
            feature extractor; or a processor that holds one. An image or video processor is not run: only its
            constants are used. It may be left out if `image_mean` and `image_std` are given.
        reads: ``"pixels"`` or ``"waveform"``, for models that have a part for each.
        name: Name for errors.
        settings: For pictures: ``image_mean`` and ``image_std``, for pixels within 0 and 1, and ``num_frames``, frames
            of a clip (as trained by default, or 8 for models that see one picture at a time). For sound:
            ``feature_extractor``, and ``window_s``, seconds that are heard at once by models that take any length.

    Raises:
        TypeError: If the model reads neither pictures nor sound, or not what `reads` says; if its preprocessor is
            missing; for unknown settings.
        ValueError: If it needs more input than pictures or sound.
    """
    name = name or network.name_or_path or type(network).__name__
    if isinstance(network, EngineModel):
        raise TypeError(
            f"{name} is an exported network of type '{network.config.model_type}': only encoders of this library can "
            "be used in that form. Give the checkpoint that it was made from."
        )
    tower = tower_of(network, reads, name)
    reads = "waveform" if modality(tower) == "sound" else "pixels"
    settings = {key: value for key, value in settings.items() if value is not None}
    if unknown := sorted(settings.keys() - set(SETTINGS[reads])):
        raise TypeError(f"{name} has no setting {unknown[0]}. It has {', '.join(SETTINGS[reads])}.")
    if reads == "pixels":
        return ForeignPictures(tower, name, _constants(preprocessor, settings, name), settings.get("num_frames"))
    extractor = settings.get("feature_extractor", preprocessor)
    extractor = getattr(extractor, "feature_extractor", extractor)
    if extractor is None:
        raise TypeError(
            f"{name} needs its feature extractor: "
            "AvacaProcessor(audio_encoder=foreign_encoder(model, feature_extractor), ...), with foreign_encoder from "
            "avad_hf.models.foreign.adapter."
        )
    if not isinstance(extractor, FeatureExtractionMixin) or not hasattr(extractor, "sampling_rate"):
        raise TypeError(f"{name} needs its own feature extractor of sound, got a {type(extractor).__name__}.")
    return ForeignSound(tower, name, extractor, settings.get("window_s"))


def _constants(preprocessor: Any, settings: dict[str, Any], name: str) -> PixelConstants:
    """The constants that were given, or those of the model's own processor."""
    chosen = {key: settings[key] for key in ("image_mean", "image_std") if key in settings}
    if preprocessor is None and len(chosen) < 2:
        raise TypeError(
            f"{name} needs its image or video processor, for the constants of its pixels: "
            "AvacaProcessor(video_encoder=foreign_encoder(model, preprocessor), ...), with foreign_encoder from "
            "avad_hf.models.foreign.adapter; or image_mean=... and image_std=..., for pixels within 0 and 1."
        )
    preprocessor_settings = {} if preprocessor is None else settings_of(preprocessor, name)
    if len(chosen) == 2:  # nothing else that the processor does to pixels counts
        preprocessor_settings = {
            key: preprocessor_settings.get(key) for key in ("do_center_crop", "crop_size", "size", "num_frames")
        } | chosen
    constants = PixelConstants.of(preprocessor_settings, name)
    return replace(constants, **{key: channels(chosen, key, name) for key in chosen})


__all__ = ["foreign_encoder"]
