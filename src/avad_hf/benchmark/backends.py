"""What computes the encoders, in which numbers, and what is missing for it."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from avad_hf.export.engines import NEEDED as NEEDED_TO_EXPORT
from avad_hf.registration import ARCHITECTURES

# The comparison: what a user would put together from public parts.
PUBLIC_PARTS = "public-parts"
# Another detector, which is timed in the same rounds.
BESIDE = "beside"
# Modules that each engine is made of, and what installs them.
NEEDED = {"torch": (), **NEEDED_TO_EXPORT}
EXTRAS = {"openvino": "openvino", "onnx": "onnx", PUBLIC_PARTS: "test"}


@dataclass(frozen=True)
class Backend:
    """An engine, its numbers and its device.

    Args:
        engine: ``"torch"``, ``"openvino"``, ``"onnx"``, or ``"public-parts"`` for the comparison.
        precision: ``"float32"``, ``"bfloat16"`` or ``"int8"``.
        device: ``"cpu"`` or ``"cuda"``.
    """

    engine: str
    precision: str
    device: str = "cpu"

    @property
    def name(self) -> str:
        """As on the command line and in tables."""
        if self.engine == PUBLIC_PARTS:
            return PUBLIC_PARTS
        return f"{self.engine}-{self.precision}" + ("" if self.device == "cpu" else f"-{self.device}")

    def missing(self) -> str | None:
        """Why it cannot be measured here, and what to do; ``None`` if it can."""
        if self.device == "cuda":
            return None if torch.cuda.is_available() else "there is no CUDA device that torch can use"
        return _absent(NEEDED.get(self.engine, ()), self.engine)


def _absent(modules: Sequence[str], engine: str) -> str | None:
    """Which modules are not installed, and what installs them."""
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}. pip install 'avad-hf[{EXTRAS[engine]}]'" if absent else None


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("torch", "float32"),
        Backend("torch", "bfloat16"),
        Backend("openvino", "float32"),
        Backend("openvino", "bfloat16"),
        Backend("openvino", "int8"),
        Backend("onnx", "float32"),
        Backend("onnx", "int8"),
        Backend("torch", "bfloat16", "cuda"),
    )
}
PUBLIC = Backend(PUBLIC_PARTS, "float32")


def backend_named(name: str) -> Backend:
    """One of `BACKENDS`, or the public parts."""
    return PUBLIC if name == PUBLIC_PARTS else BACKENDS[name]


def chosen_backends(names: Sequence[str] | None) -> list[Backend]:
    """Backends by their names, or all that this machine has a device for.

    Raises:
        ValueError: For an unknown name.
    """
    if names is None:
        return [backend for backend in BACKENDS.values() if backend.device == "cpu" or torch.cuda.is_available()]
    unknown = [name for name in names if name not in BACKENDS]
    if unknown or not names:
        raise ValueError(f"backends must be some of {', '.join(BACKENDS)}, got {', '.join(unknown) or 'none'}.")
    return [BACKENDS[name] for name in dict.fromkeys(names)]


def public_parts_of(model: str | os.PathLike) -> type | None:
    """What makes up a checkpoint's detector from public packages; ``None`` if its architecture does not say.

    It is a class with ``packages`` and ``refusal(model)``. It is made with ``(model)``, and scores files as a
    [`Detector`] does.
    """
    architecture = ARCHITECTURES.get(AutoConfig.from_pretrained(model, trust_remote_code=False).model_type)
    return None if architecture is None else architecture.load("public_parts")


def refusal(backend: Backend, model: str | os.PathLike) -> str | None:
    """Why a checkpoint cannot be measured with a backend here, and what to do; ``None`` if it can."""
    if backend.engine != PUBLIC_PARTS:
        return backend.missing()
    if (parts := public_parts_of(model)) is None:
        return "nobody has made up this detector from public packages"
    return _absent(parts.packages, PUBLIC_PARTS) or parts.refusal(model)


class Beside:
    """The pipeline of another checkpoint or of engines, from file to scores, in the precision that is usual for it.

    Args:
        folder: Checkpoint or engines: folder or Hub id.
    """

    def __init__(self, folder: str | os.PathLike):
        from transformers import pipeline

        from avad_hf import registration  # noqa: F401

        self.pipe = pipeline("audio-visual-anomaly", model=str(folder), dtype="auto", device="cpu")

    def __call__(self, path: str) -> list[float]:
        """Score every clip of a file."""
        return [clip["score"] for clip in self.pipe(path)["clips"]]


class Detector:
    """The pipeline with one backend, from file to scores.

    Args:
        backend: Which one.
        folder: Checkpoint, or what was exported from it.
    """

    def __init__(self, backend: Backend, folder: str | os.PathLike):
        from transformers import pipeline

        from avad_hf import registration  # noqa: F401

        self.backend = backend
        # In an exported folder this is the type of the detector; its encoders have types of their own.
        dtype = backend.precision if backend.engine == "torch" else "float32"
        self.pipe = pipeline("audio-visual-anomaly", model=str(folder), dtype=dtype, device=backend.device)

    def __call__(self, path: str) -> list[float]:
        """Score every clip of a file."""
        return [clip["score"] for clip in self.pipe(path)["clips"]]


def load_detector(backend: Backend, folder: str | os.PathLike):
    """Load what scores files with a backend: [`Detector`], or the public parts."""
    if backend.engine != PUBLIC_PARTS:
        return Detector(backend, folder)
    return public_parts_of(folder)(folder)


def exported(backend: Backend, model: str, folder: Path, video: str) -> str:
    """Write what a backend loads, where it is not the checkpoint itself; returns its folder.

    Args:
        backend: Which one.
        model: Folder or Hub id of the checkpoint.
        folder: Where to write.
        video: A short video, by which 8-bit numbers find their ranges, and which the export is compared on.
    """
    if backend.engine in ("torch", PUBLIC_PARTS):
        return model
    from avad_hf.export.engines import export_engines

    engines = folder / backend.name
    with redirect_stdout(sys.stderr):  # exporters are talkative, and on stdout are the tables
        export_engines(model, engines, format=backend.engine, precision=backend.precision, calibrate=[video])
    return str(engines)


__all__ = [
    "BACKENDS",
    "BESIDE",
    "PUBLIC",
    "PUBLIC_PARTS",
    "Backend",
    "Beside",
    "Detector",
    "backend_named",
    "chosen_backends",
    "exported",
    "load_detector",
    "public_parts_of",
    "refusal",
]
