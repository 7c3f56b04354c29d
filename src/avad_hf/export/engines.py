"""Checkpoints as engines of OpenVINO or ONNX Runtime, for machines without a GPU."""

import contextlib
import importlib.util
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForVideoClassification, AutoProcessor, PreTrainedModel
from transformers import logging as transformers_logging

from avad_hf.disks import writing
from avad_hf.files import as_json, write_text
from avad_hf.hub.cards import card, card_values, plain
from avad_hf.hub.folders import weights_hash
from avad_hf.models.detector import spec_of
from avad_hf.models.engine import RECORD, RUNTIMES, EngineModel, files_sha256
from avad_hf.models.tracing import Network
from avad_hf.runs import new_folder

from .calibration import Calibration, calibration_clips
from .parity import Parity, compare

FORMATS = {"openvino": ("float32", "bfloat16", "int8"), "onnx": ("float32", "int8")}
# What exporting needs, by format, with the extra of this library that installs it.
NEEDED = {"openvino": ("openvino", "nncf"), "onnx": ("onnx", "onnxscript", "onnxruntime")}


@dataclass(frozen=True)
class Export:
    """What [`export_engines`] did.

    Args:
        directory: What it wrote.
        calibration: What an int8 network was calibrated on, in words; ``None`` for others.
        parity: How far it is from the checkpoint.
        num_bytes: Size of the engines.
    """

    directory: Path
    calibration: str | None
    parity: Parity
    num_bytes: int


def export_engines(
    model: str | os.PathLike,
    output: str | os.PathLike,
    *,
    format: Literal["openvino", "onnx"] = "openvino",
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    calibrate: Sequence[str | os.PathLike] = (),
    labelled: str | os.PathLike | None = None,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Export:
    """Export a detector and its encoders to a folder that pipelines, processors and the command take as a checkpoint.

    The new folder is compared with the checkpoint on videos that it was not calibrated on, wherever there are two or
    more; ``parity.json`` and the card keep the figures.

    Args:
        model: Folder or Hub id of a detector's checkpoint with its processor.
        output: New folder.
        format: ``"openvino"`` is the faster one on the processors of Intel and AMD.
        precision: Precision of the encoders, or of a detector's own networks that see and hear. ``"bfloat16"``
            (OpenVINO only) wants a processor that has it, ``"int8"`` one with VNNI; elsewhere they compute what they
            can. Detectors of features, and classifiers in int8, stay in floating point.
        calibrate: Videos that are like those to come, for ``"int8"``, and for the comparison: files, or manifests, of
            which the test split is left out. By default videos of the synthetic world.
        labelled: Manifest of videos with labels, of which the area under the curve is computed before and after.
        on_stage: Told in words what is done next.

    Raises:
        ValueError: For an unknown format or precision, an exported checkpoint, videos that cannot be used, or a folder
            that another process is writing.
        ImportError: If a package is missing; it says which extra installs it.
        FileExistsError: If the folder holds files already.
        OSError: If the checkpoint is not there, or the folder cannot be written, because the disk is full for example.
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if precision not in FORMATS[format]:
        only = " ONNX Runtime has no bfloat16 on CPUs: use float32, int8, or the format openvino."
        raise ValueError(
            f"precision must be one of {', '.join(FORMATS[format])} for {format}, got {precision!r}."
            f"{only if format == 'onnx' and precision == 'bfloat16' else ''}"
        )
    require_exporter(format)
    output = Path(output)
    with new_folder(output) as folder:
        detector = AutoModelForVideoClassification.from_pretrained(
            model, dtype=torch.float32, trust_remote_code=False
        ).eval()
        processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
        spec = spec_of(detector)
        parts = [detector, *(encoder.network for encoder in getattr(processor, "encoders", {}).values())]
        if any(isinstance(part, EngineModel) for part in parts):
            raise ValueError(f"{model} holds engines already. Export the checkpoint that they were made from.")
        on_stage("reading videos")
        clips = calibration_clips(
            processor, spec.scenes, calibrate, folder.with_name("videos"), read=precision == "int8"
        )
        with writing(output, "The engines"):
            _write(detector, processor, folder, format, precision, clips, on_stage)
        on_stage("comparing")
        parity = compare(detector, processor, folder, clips.comparison, labelled)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        export = Export(output, clips.describe() if precision == "int8" else None, parity, size)
        with writing(output, "The engines"):
            write_text(folder / "parity.json", as_json(_report(export), indent=2) + "\n")
            write_text(folder / "README.md", _card(export, model, detector, processor, format, precision))
    return export


def require_exporter(format: str) -> None:
    """Raise ``ImportError`` if a package is missing that exporting to a format needs."""
    if missing := [package for package in NEEDED[format] if importlib.util.find_spec(package) is None]:
        raise ImportError(
            f"Exporting to {format} needs {' and '.join(missing)}. Install it: pip install "
            f"'avad-hf[{RUNTIMES[format][2]}]'."
        )


def _write(
    detector: PreTrainedModel,
    processor: Any,
    folder: Path,
    format: str,
    precision: str,
    clips: Calibration,
    on_stage: Callable[[str], None],
) -> None:
    """Export every network of a checkpoint, and write what belongs to them."""
    for network in detector.networks_to_export(processor, clips.calibration):
        place = folder / network.folder
        own = _precision_of(network, format, precision)
        on_stage(f"exporting {network.folder or 'the detector'} in {own}")
        source = weights_hash(network.source)
        _export(network, place, format, own)
        network.source.config.save_pretrained(place)
        record = {
            "format": format,
            "precision": own,
            "inputs": network.described_inputs,
            "source_sha256": source,
            "sha256": files_sha256(place),
        }
        (place / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    settings = processor.to_dict()
    settings |= {name: f"./{name}" for name in ("video_encoder", "audio_encoder") if name in settings}
    (folder / "processor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _precision_of(network: Network, format: str, precision: str) -> str:
    """What a network of a checkpoint is exported in."""
    # ONNX Runtime's quantiser does not measure what it does, and detectors take differences of what is heard: in int8
    # the demonstration model's scores moved by 0.05.
    is_fragile = network.bound == 0 or (format == "onnx" and network.folder == "audio_encoder")
    return "float32" if network.is_head or (precision == "int8" and is_fragile) else precision


def _export(network: Network, place: Path, format: str, precision: str) -> None:
    """Trace, convert and, for int8, quantise a network, and write it."""
    from transformers import exporters

    quantizer = None
    if precision == "int8":
        if not network.calibration:
            raise ValueError(
                f"Nothing to calibrate {network.folder or 'the detector'} on: the videos have no sound. Give videos "
                "with sound."
            )
        quantizer = _quantizer(network, format)
    options = {"dynamic_shapes": network.dynamic_shapes, "quantizer": quantizer}
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        if format == "openvino":
            exporter, config = exporters.OpenVINOExporter(), exporters.OpenVINOConfig(**options)
            # Half the bytes, to 11 bits, of which bfloat16 keeps 8.
            config.compress_to_fp16 = precision != "float32"
        else:
            exporter, config = exporters.OnnxExporter(), exporters.OnnxConfig(**options)
        # torch and NNCF write what they do to the terminal.
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):
            exporter.export(network.model, network.sample, config=config).save_pretrained(place)
    finally:
        transformers_logging.set_verbosity(level)


def _quantizer(network: Network, format: str) -> Any:
    from transformers import exporters

    if format == "onnx":
        config = exporters.OnnxRuntimeStaticConfig(per_channel=True, op_types_to_quantize=["Conv"])
        return exporters.OnnxRuntimeQuantizer(config, calibration_dataset=network.calibration)
    from .quantization import CarefulQuantizer

    return CarefulQuantizer(network.calibration, network.output, network.bound)


def _report(export: Export) -> dict[str, Any]:
    return {"calibration": export.calibration, **export.parity.to_dict()}


def _card(export: Export, model: Any, detector: PreTrainedModel, processor: Any, format: str, precision: str) -> str:
    name = Path(model).resolve().name if os.path.isdir(model) else os.fspath(model)
    return card(
        detector.config.card,
        title=f"{name} for {RUNTIMES[format][0]}, {precision}",
        summary=f"Engines of {RUNTIMES[format][0]} in {precision}, made from `{name}` by `avad-hf export`.",
        location=export.directory.resolve().name,
        facts=[
            f"Exported from `{name}`, SHA-256 of the detector's weights `{weights_hash(detector)}`. To run them: "
            f"`pip install 'avad-hf[{RUNTIMES[format][2]}]'`.",
            *([f"Calibrated on {export.calibration}."] if export.calibration else []),
            *(f"{line}." for line in export.parity.lines()),
            *map(plain, [detector.config.notice] if detector.config.notice else []),
            *map(plain, processor.notices),
        ],
        **card_values(detector.config),
    )


__all__ = ["Export", "export_engines", "require_exporter"]
