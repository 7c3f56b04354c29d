"""Untrained checkpoints, to begin training from.

Every detector that says how it begins (`init` of its `ARCHITECTURE`) has a function of its own here too:
``init_<model type>(directory, size, seed, video_encoder, audio_encoder, **options)``.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

from avad_hf.convert.getting import encoder_place
from avad_hf.corpora.classes import is_normal
from avad_hf.files import check_new
from avad_hf.hub.cards import card, card_values, plain
from avad_hf.hub.folders import write_checkpoint
from avad_hf.models.untrained_parts import SIZES, Untrained
from avad_hf.registration import architecture as find_architecture
from avad_hf.registration import architectures

# Licence of random weights.
LICENSE = "apache-2.0"


def init(
    architecture: str,
    directory: str | os.PathLike,
    size: Literal["base", "tiny"] = "base",
    seed: int = 0,
    video_encoder: str | os.PathLike | None = None,
    audio_encoder: str | os.PathLike | None = None,
    on_stage: Callable[[str], None] | None = None,
    frame_step: int = 1,
    **options: Any,
) -> Untrained:
    """Write a checkpoint to begin training from: detector, processor with its encoders, and card.

    The checkpoint says that it is untrained in its card and, through the configs' ``notice``, in every result.

    Args:
        architecture: Model type of the detector.
        directory: Where to write it; must be empty or new.
        size: ``"base"`` is the published architecture, ``"tiny"`` a small one for trying things out.
        seed: Seed of the random weights.
        video_encoder: Folder or Hub id of a trained video encoder to use instead of random weights; or the name of a
            published one (``"i3d"``), which is downloaded once (`avad_hf.convert.getting`).
        audio_encoder: The same of an audio encoder (``"yamnet"``).
        on_stage: Told in words what is downloaded, and from where.
        frame_step: The video encoder of a detector that reads features sees every so many frames (X3D-S was trained
            with 6, X3D-M with 5). A clip is so many times as long then, and costs the same.
        options: Fields of the detector's config to set otherwise. For detectors that name events also ``classes``,
            their names in the order of their numbers, and ``normal_classes``, those that are no anomalies: by default
            all that are called normal (normal, normal1, normal type 2, ...).

    Returns:
        The parts that were written.

    Raises:
        ValueError: For an unknown architecture, size or option, or options that do not fit each other.
        TypeError: For an encoder that does not fit its place.
        OSError: If an encoder is not there; `ConnectionError` if a published one cannot be had.
        FileExistsError: If the directory holds files already.
    """
    chosen = find_architecture(architecture, "init", "detector")
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}.")
    make, config_class = chosen.load("init"), chosen.load("config")
    known = _options(make, config_class)
    if unknown := [name for name in options if name not in known]:
        near = [match for name in unknown for match in get_close_matches(name, known, n=1)]
        meant = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"{chosen.title} has no option {', '.join(unknown)}.{meant}")
    check_new(directory)
    if "classes" in options:
        options.setdefault("normal_classes", [name for name in options["classes"] if is_normal(name)])
    video_encoder = encoder_place("video_encoder", video_encoder, on_stage)
    audio_encoder = encoder_place("audio_encoder", audio_encoder, on_stage)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made = make(size, seed, video_encoder, audio_encoder, **options)
            if frame_step != 1:
                if not hasattr(made.processor, "see_every"):
                    raise ValueError(f"{chosen.title} picks its frames by itself: leave frame_step out.")
                made.processor.see_every(frame_step)
    except StrictDataclassError as error:  # which is no ValueError
        raise ValueError(" ".join(str(error).split())) from error
    config = made.model.config
    article = config.summary.split()[0]  # "A" or "An"
    text = card(
        config.card,
        {"license": None if video_encoder or audio_encoder else LICENSE},
        title=f"Untrained {chosen.title}",
        summary=f"**Untrained.** {article} {chosen.title} checkpoint of size {size} to begin training from. "
        "Its scores mean nothing.",
        location=Path(directory).resolve().name,
        facts=[*map(plain, (config.notice, *made.processor.notices)), *made.facts],
        **card_values(config),
    )
    write_checkpoint(directory, [made.model, made.processor], text)
    return made


def _options(make: Callable, config_class: type[PreTrainedConfig]) -> set[str]:
    """Names of what a detector's `init` can be told besides encoders: its own arguments, and fields of the config."""
    own = {field.name for field in fields(config_class)} - {field.name for field in fields(PreTrainedConfig)}
    return own | inspect.signature(make).parameters.keys() - inspect.signature(init).parameters.keys()


def _init_one(architecture: str, *arguments: Any, **options: Any) -> ProcessorMixin | PreTrainedModel:
    """As `init`; returns what holds the encoders: the processor, or the model of a detector that reads videos."""
    made = init(architecture, *arguments, **options)
    return made.processor if made.model.detector_spec.reads == "features" else made.model


def __getattr__(name: str) -> Callable[..., ProcessorMixin | PreTrainedModel]:
    model_type = name.removeprefix("init_")
    if name == model_type or model_type not in architectures("init"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_init_one, model_type)


__all__ = ["SIZES", "init"]
