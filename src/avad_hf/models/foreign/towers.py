"""Which part of a model of transformers reads pictures or sound, found from what it is called with."""

import inspect
from collections.abc import Iterator
from typing import Any, Literal

import transformers
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel

from avad_hf.models.encoder import NAMES

Modality = Literal["video", "images", "sound"]
Reads = Literal["pixels", "waveform"]

PICTURE_INPUTS = ("pixel_values", "pixel_values_videos")
SOUND_INPUTS = ("input_values", "input_features")
# Only networks for clips have one of these. Those for single pictures take `pixel_values` too.
CLIP_SETTINGS = ("num_frames", "frames_per_clip", "tubelet_size")
READS: dict[Modality, Reads] = {"video": "pixels", "images": "pixels", "sound": "waveform"}
ROLES: dict[Reads, str] = {"pixels": "video_encoder", "waveform": "audio_encoder"}


def modality(network: PreTrainedModel) -> Modality | None:
    """What a network reads; ``None`` if that is text, or several inputs at once."""
    names = inspect.signature(network.forward).parameters
    kinds = [any(name in names for name in inputs) for inputs in (PICTURE_INPUTS, SOUND_INPUTS, ("input_ids",))]
    if sum(kinds) != 1:
        return None
    main = network.main_input_name
    if main == "pixel_values_videos":
        return "video"
    if main == "pixel_values":
        is_video = any(getattr(network.config, name, None) is not None for name in CLIP_SETTINGS)
        return "video" if is_video else "images"
    return "sound" if main in SOUND_INPUTS else None


def tower_of(network: PreTrainedModel, reads: Reads | None, name: str) -> PreTrainedModel:
    """The part of a model that reads what is needed, without heads: the model itself, or one inside it.

    Only a part that can be loaded by its own config is taken, so that it can be saved without the rest.

    Args:
        network: A model of transformers.
        reads: What it must read; ``None`` if that is clear from the model.
        name: Name for errors.

    Raises:
        TypeError: If no part reads that, or several do.
    """
    towers = list(_towers(network))
    fitting = [part for part in towers if reads in (None, READS[modality(part)])]
    if len(fitting) == 1:
        return fitting[0]
    called = f"{name}, a network of type '{network.config.model_type}',"
    if len(fitting) > 1:
        parts = ", ".join(f"{type(part).__name__} ({NAMES[READS[modality(part)]]})" for part in fitting)
        raise TypeError(f"{called} holds several encoders: {parts}. Give the one that is meant.")
    if towers:
        other = READS[modality(towers[0])]
        raise TypeError(f"{called} reads {NAMES[other]}, not {NAMES[reads]}. Give it as {ROLES[other]}.")
    raise TypeError(
        f"{called} reads neither pictures nor sound alone: its main input is {network.main_input_name}. Give a video, "
        "image or audio encoder of transformers."
    )


def _towers(network: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The outermost parts that read only pictures or only sound."""
    inside: set[int] = set()
    for part in network.modules():
        if not isinstance(part, PreTrainedModel) or id(part) in inside or hasattr(part.config, "as_encoder"):
            continue  # this library's own networks need no adapter
        if modality(part) is not None and is_loadable(part):
            inside.update(map(id, part.modules()))
            yield part


def is_loadable(network: PreTrainedModel) -> bool:
    """Whether `loader_of` gives the network's own class for its config."""
    classes = MODEL_MAPPING.get(type(network.config), None)
    if classes is None:
        return getattr(transformers, type(network).__name__, None) is type(network)
    return type(network) in (classes if isinstance(classes, tuple) else (classes,))


def loader_of(config: PreTrainedConfig) -> Any:
    """The class whose ``from_pretrained`` loads the bare model of a config. It is always one of transformers' own.

    A few towers (CLAP's for sound) are on no Auto class; for them ``config.json`` names the class.

    Raises:
        TypeError: If transformers has none.
    """
    if type(config) in MODEL_MAPPING:
        return AutoModel
    named = (config.architectures or [""])[0]
    loader = getattr(transformers, named, None)
    if not (isinstance(loader, type) and issubclass(loader, PreTrainedModel)):
        raise TypeError(f"transformers knows no model for a config of type '{config.model_type}'.")
    return loader


__all__ = ["ROLES", "Modality", "Reads", "is_loadable", "loader_of", "modality", "tower_of"]
