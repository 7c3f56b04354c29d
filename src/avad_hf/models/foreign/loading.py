"""Loads foreign encoders from folders and from the Hub: weights from safetensors, constants from JSON, no code."""

import json
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import is_offline_mode
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoFeatureExtractor, PreTrainedConfig
from transformers.utils import (
    FEATURE_EXTRACTOR_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    VIDEO_PROCESSOR_NAME,
    cached_file,
)

from avad_hf.hub.contents import refuse_redirections
from avad_hf.hub.errors import hub_errors
from avad_hf.models.encoder import Encoder
from avad_hf.models.engine import HUB_OPTIONS, find_engine

from .adapter import foreign_encoder
from .towers import ROLES, Reads, loader_of, modality, tower_of


def load_foreign(
    place: str | os.PathLike,
    config: PreTrainedConfig,
    reads: Reads,
    subfolder: str = "",
    settings: Mapping[str, Any] | None = None,
    **hub_kwargs: Any,
) -> Encoder:
    """Load an encoder of transformers, with its own preprocessor's settings.

    Args:
        place: Folder or Hub id.
        config: Config that lies there.
        reads: What it must read. If the model has several parts, the fitting one is taken.
        subfolder: Folder inside `place`.
        settings: Settings of `avad_hf.models.foreign.adapter.foreign_encoder`.
        hub_kwargs: ``revision``, ``token``, ``cache_dir``, ...

    Raises:
        OSError: If there are no weights.
        TypeError: If it does not read that, or its preprocessor's settings are missing.
        ValueError: If it is damaged.
    """
    name = "/".join(part for part in (os.fspath(place), subfolder) if part)
    options = {key: value for key, value in hub_kwargs.items() if key in HUB_OPTIONS and value is not None}
    options["subfolder"] = subfolder
    refuse_redirections(name, config.to_dict() | {"attn_implementation": config._attn_implementation})
    loader = loader_of(config)
    _require_weights(place, name, config, options)
    try:
        with hub_errors(str(place), "model", "loaded"):
            network, info = loader.from_pretrained(
                place,
                config=config,
                output_loading_info=True,
                use_safetensors=True,
                trust_remote_code=False,
                **options,
            )
    except SafetensorError as error:
        raise ValueError(
            f"{name}: the weights file is cut or damaged ({error}). Copy or download the checkpoint again."
        ) from error
    tower = tower_of(network, reads, name)
    missing = _missing(network, tower, info["missing_keys"])
    # Shows whether the output depends on weights that were never loaded.
    for tensor in missing.values():
        tensor.data.fill_(torch.nan if tensor.is_floating_point() else 0)
    preprocessor = _preprocessor(place, tower, reads, options, settings or {})
    encoder = foreign_encoder(tower, preprocessor, reads, name, **settings or {})
    if missing:
        _drop(encoder, missing)
    return encoder


def _require_weights(
    place: str | os.PathLike, name: str, config: PreTrainedConfig, options: Mapping[str, Any]
) -> None:
    """Raise ``OSError`` if there is no safetensors file: transformers would ask a server to make one."""
    for file in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME):
        if _file(place, file, options) is not None:
            return
    if find_engine(place, **options) is not None:
        raise TypeError(
            f"{name} holds an exported network of type '{config.model_type}': only encoders of this library can be "
            "used in that form. Give the checkpoint that it was made from."
        )
    raise OSError(
        f"{name} holds a config of type '{config.model_type}' but no weights: neither {SAFE_WEIGHTS_NAME} nor "
        f"{SAFE_WEIGHTS_INDEX_NAME} is there. Weights in other files (pytorch_model.bin) are programs and are not "
        "read: load them with transformers yourself, and save_pretrained writes them anew."
    )


def _preprocessor(
    place: str | os.PathLike,
    tower: nn.Module,
    reads: Reads,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Any:
    """The feature extractor, or the settings of the image or video processor; ``None`` if there is none."""
    if reads == "waveform":
        if settings.get("feature_extractor") is not None:
            return None
        if not any(_file(place, name, options) for name in (FEATURE_EXTRACTOR_NAME, PROCESSOR_NAME)):
            return None  # the adapter says what is missing
        with hub_errors(str(place), "model", "loaded"):
            return AutoFeatureExtractor.from_pretrained(place, config=tower.config, trust_remote_code=False, **options)
    names = [VIDEO_PROCESSOR_NAME, FEATURE_EXTRACTOR_NAME]
    parts = ["video_processor", "image_processor"]
    if modality(tower) == "images":
        names, parts = names[::-1], parts[::-1]
    whole = _read(place, PROCESSOR_NAME, options) or {}
    nested = [whole[part] for part in parts if isinstance(whole.get(part), dict)]
    candidates = chain(nested, (_read(place, name, options) for name in names))
    return next(filter(None, candidates), None)


def _read(place: str | os.PathLike, name: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """A JSON file of a checkpoint; ``None`` if it is not there."""
    if (path := _file(place, name, options)) is None:
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{place}: {name} is damaged ({error}). Copy or download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{place}: {name} is damaged: it holds no settings. Copy or download it again.")
    return content


def _file(place: str | os.PathLike, name: str, options: Mapping[str, Any]) -> str | None:
    """The path of a file of a checkpoint; ``None`` if it is not there, or offline and not in the cache."""
    is_offline = is_offline_mode() or bool(options.get("local_files_only"))
    with hub_errors(str(place), "model", "loaded"):
        return cached_file(
            place,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=not is_offline,
            **options,
        )


def _missing(network: nn.Module, tower: nn.Module, names: Any) -> dict[str, Tensor]:
    """The tensors of a tower that the weights file lacks, by their names in the whole model."""
    tower_ids = {id(tensor) for tensor in tower.state_dict(keep_vars=True).values()}
    everything = network.state_dict(keep_vars=True)
    return {name: everything[name] for name in sorted(names) if id(everything.get(name)) in tower_ids}


@torch.no_grad()
def _drop(encoder: Encoder, missing: Mapping[str, Tensor]) -> None:
    """Set missing weights, which are NaN so far, to zero, if the features do not depend on them.

    For example, published classifiers lack the pooling layer of the bare model. transformers draws random numbers for
    such weights, so that each loading would have another hash.

    Raises:
        ValueError: If the features depend on them.
    """
    spec = encoder.spec
    if spec.reads == "pixels":
        height, width = (spec.size, spec.size) if isinstance(spec.size, int) else spec.size
        sample = torch.zeros(1, spec.num_frames, 3, height, width, dtype=torch.uint8)
    else:
        sample = torch.zeros(1, round(spec.window_s * spec.sampling_rate))
    if not encoder.encode(sample).isfinite().all():
        names = list(missing)
        raise ValueError(
            f"{encoder.name}: {len(names)} weights are missing ({', '.join(names[:3])}"
            f"{', ...' if len(names) > 3 else ''}). Give a complete checkpoint as {ROLES[spec.reads]}."
        )
    for tensor in missing.values():
        tensor.zero_()


__all__ = ["load_foreign"]
