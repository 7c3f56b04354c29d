"""What the record of an exported network may say, and what its exporter noted beside it."""

import json
import re
from collections.abc import Mapping
from types import NoneType
from typing import Any

import torch
from transformers import PreTrainedModel

# What transformers' exporters write, and what this library notes beside it.
MANIFEST, RECORD = "export.json", "engine.json"
# By format: the file with the graph, which says what lies beside it.
GRAPHS = {"openvino": "openvino_model.xml", "onnx": "model.onnx"}
# What the exporter notes of inputs and outputs: types of Python's, and outputs of this library's and transformers'
# models. Names of other things would be imported to be looked at.
NOTED_TYPES = re.compile(r"builtins\.\w+|collections\.OrderedDict|transformers\.modeling_outputs\.\w+")


def check_record(noted: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for an engine's record whose values are of other kinds than `export` writes."""
    for name in ("precision", "sha256", "source_sha256"):
        if not isinstance(noted[name], str):
            raise ValueError(f"{name} must be text, got {noted[name]!r}")
    if not isinstance(noted["inputs"], dict) or not noted["inputs"]:
        raise ValueError(f"inputs must name what goes in, got {noted['inputs']!r}")
    for name, wanted in noted["inputs"].items():
        shape, dtype = (wanted.get("shape"), wanted.get("dtype")) if isinstance(wanted, dict) else (None, None)
        is_shape = (
            isinstance(shape, list)
            and shape
            and all(size is None or (type(size) is int and size >= 0) for size in shape)
        )
        if not is_shape or not isinstance(getattr(torch, str(dtype), None), torch.dtype):
            raise ValueError(f"inputs.{name} must be a shape and a type, got {wanted!r}")


def check_manifest(manifest: Mapping[str, Any], format: str, made_from: type[PreTrainedModel] | None) -> None:
    """Raise ``ValueError`` for what the exporter did not write: another format, other files, things to import."""
    # The format chooses the reader: one of OpenVINO or ONNX Runtime, and no other, runs no code of the file.
    if (manifest_format := manifest.get("export_format")) != format:
        raise ValueError(f"{MANIFEST} is of the format {manifest_format}, {RECORD} of {format}")
    components = manifest.get("components")
    model_entry = components.get("model") if isinstance(components, dict) and len(components) == 1 else None
    metadata = model_entry.get("metadata") if isinstance(model_entry, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("kwargs"), dict) or not metadata["kwargs"]:
        raise ValueError(f"{MANIFEST} must describe one network, called model")
    if model_entry.get("file") != GRAPHS[format]:
        raise ValueError(f"{MANIFEST} names the file {model_entry.get('file')!r}, and must name {GRAPHS[format]}")
    for name in ("in_spec", "out_spec"):
        pending = [json.loads(metadata[name])]
        while pending:
            value = pending.pop()
            if isinstance(value, dict):
                kind, context = value.get("type"), json.loads(value.get("context") or "null")
                allowed_modules = (__name__.split(".")[0], (made_from or PreTrainedModel).__module__)
                is_known = (
                    kind is None
                    or NOTED_TYPES.fullmatch(kind)
                    or kind.startswith(tuple(f"{m}." for m in allowed_modules))
                )
                # Dictionaries are named by their keys; an object could stand for a member of any enumeration.
                is_plain = isinstance(context, (list, NoneType)) and not any(
                    isinstance(x, (dict, list)) for x in context or ()
                )
                if not is_known or not is_plain:
                    raise ValueError(f"{MANIFEST} names in {name} what is no plain type: {kind}")
                pending += value.get("children_spec", ())
            elif isinstance(value, list):
                pending += value


__all__ = ["MANIFEST", "RECORD", "check_manifest", "check_record"]
