"""Exported networks: called as the models that they were made from, and computed by OpenVINO or ONNX Runtime."""

import hashlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from avad_hf.hub.contents import ENGINES, check_checkpoint, read_settings
from avad_hf.hub.push import PushedWithCard

from .precision import has_int8_instructions
from .records import MANIFEST, RECORD, check_manifest, check_record
from .signal_stack import signal_stack_kept

logger = logging.getLogger(__name__)

# By format: name for people, package that runs it, extra of this library that installs it.
RUNTIMES = {"openvino": ("OpenVINO", "openvino", "openvino"), "onnx": ("ONNX Runtime", "onnxruntime", "onnx")}
# What a checkpoint computes by options that an exported graph does not have.
FIXED = ("labels", "output_attentions", "audio_path")
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def require_runtime(format: str) -> None:
    """Raise ``ImportError`` if what runs engines of a format is not installed."""
    name, package, extra = RUNTIMES[format]
    if importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{name} is not installed, which runs engines of the format '{format}'. Install it, pip install "
            f"'avad-hf[{extra}]', or use the checkpoint that the engines were exported from."
        )


def find_engine(checkpoint: str | os.PathLike, **hub_kwargs) -> Path | None:
    """The record of an exported network in a folder or a repository of the Hub; ``None`` if it holds none."""
    subfolder = hub_kwargs.get("subfolder") or ""
    if os.path.isdir(checkpoint):
        path = Path(checkpoint) / subfolder / RECORD
        return path if path.is_file() else None
    record_path = cached_file(
        checkpoint,
        RECORD,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **{name: value for name, value in hub_kwargs.items() if value is not None},
    )
    return None if record_path is None else Path(record_path)


class EngineModel(PushedWithCard, PreTrainedModel):
    """A network that ``avad-hf export`` wrote, on a CPU. What it was made from cannot be trained further through it.

    Args:
        config: Config of the network.
        exported: What `transformers.exporters` made of it.
        record: What engine.json says: ``format``, ``precision``, ``inputs``, ``source_sha256`` of the weights that it
            was made from, ``sha256`` of its own files.
        checkpoint_dir: Folder of its files.
        made_from: Class of the network that was exported: what its outputs mean, that says.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        exported: Any,
        record: Mapping[str, Any],
        checkpoint_dir: Path,
        made_from: type[PreTrainedModel] | None = None,
    ):
        super().__init__(config)
        self.made_from = made_from
        self.main_input_name = next(iter(exported.components["model"].metadata.kwargs))
        self.record = dict(record)
        self.place = checkpoint_dir
        self.asked_dtype = None
        self._exported = exported
        self._in_use = self._precision_in_use()

    @classmethod
    def load(
        cls,
        checkpoint: str | os.PathLike,
        record: Path,
        config: PreTrainedConfig,
        made_from: type[PreTrainedModel] | None = None,
        **hub_kwargs,
    ) -> "EngineModel":
        """Load what `find_engine` has found; `made_from` as of the class.

        Raises:
            ImportError: If what runs it is not installed.
            ValueError: If its files are damaged.
        """
        damaged = f"{checkpoint}: the exported network in {record.parent.name} cannot be loaded"
        try:
            noted = read_settings(record)
            format, wanted = noted["format"], noted["sha256"]
            if format not in RUNTIMES or not {"precision", "inputs", "source_sha256"} <= noted.keys():
                raise ValueError(f"it is of a format or version that this library does not know: {format}")
            check_record(noted)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{damaged}: {RECORD} is damaged ({error}). Copy or export it again.") from error
        require_runtime(format)
        from transformers.exporters import ExportedModel

        options = {name: value for name, value in hub_kwargs.items() if name in HUB_OPTIONS and value is not None}
        if not os.path.isdir(checkpoint):
            # All files of the commit that the record is of, in the cache's folder of its name.
            parts = record.parts
            options["revision"] = parts[parts.index("snapshots") + 1]
        try:
            manifest = Path(cached_file(checkpoint, MANIFEST, **options))
            check_manifest(read_settings(manifest), format, made_from)
            if os.path.isdir(checkpoint):
                # Before a runtime reads them. What is on the Hub is there only when it has been downloaded, below.
                check_checkpoint(checkpoint, options.get("subfolder"))
                _check_unchanged(record.parent, wanted)
            with signal_stack_kept():
                exported = ExportedModel.from_pretrained(
                    checkpoint, trust_remote_code=False, **options, **_runner_options(noted)
                )
            if not os.path.isdir(checkpoint):
                _check_unchanged(record.parent, wanted)
        # A damaged file raises whatever its reader does.
        except Exception as error:
            raise ValueError(f"{damaged} ({error}). Copy or export it again.") from error
        config.name_or_path = str(checkpoint)
        return cls(config, exported, noted, record.parent, made_from).eval()

    def _precision_in_use(self) -> str:
        """The precision of its record, or what the processor makes of it."""
        wanted = self.record["precision"]
        if wanted == "bfloat16" and "BF16" not in _capabilities():
            logger.warning(
                "%s was exported in bfloat16, for which this processor has no instructions: OpenVINO computes in "
                "float32.",
                self.place.name,
            )
            return "float32, since this processor has no bfloat16"
        if wanted == "int8" and not has_int8_instructions():
            logger.warning(
                "%s was exported in int8, but this processor has no VNNI instructions: it may be no faster than "
                "float32.",
                self.place.name,
            )
            return "int8 without VNNI"
        return wanted

    @property
    def computes_in(self) -> str:
        """Runtime and precision, in words."""
        return f"{RUNTIMES[self.record['format']][0]}, {self._in_use}, on the CPU"

    @property
    def inputs(self) -> Sequence[str]:
        """Names of the arguments that it was exported with."""
        return tuple(self.record["inputs"])

    @property
    def files_sha256(self) -> str:
        """SHA-256 of its files, which stands for that of weights."""
        return self.record["sha256"]

    def __reduce__(self) -> tuple:
        # By its files: what the runtime made of them cannot be copied.
        return _reload, (self.place, self.config, self.made_from)

    @property
    def device(self) -> torch.device:
        """The CPU: engines run nowhere else."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Type of what goes in and out, whatever is computed in between."""
        return torch.float32

    @property
    def inference_dtype(self) -> str:
        """What the torch networks beside it compute in."""
        return "auto"

    def for_inference(self, dtype: Any = None) -> "EngineModel":
        """Itself, whatever type is asked for."""
        return self

    def describe_inference(self, dtype: Any) -> str:
        """Runtime and precision, in words, whatever type is asked for."""
        return self.computes_in

    def numerics(self, dtype: Any) -> dict[str, str]:
        """For recipes: the weights that it was made from, what it computes in, and what runs it."""
        return {
            "dtype": self.record["precision"],
            "runtime": f"{self.record['format']} ({self.record['sha256'][:12]})",
            "weights_sha256": self.record["source_sha256"],
        }

    def on_pixels(self, pixels: Tensor, mean: Any, std: Any) -> Any:
        """Outputs of frames from 0 to 255; it was exported with its normalisation."""
        return self(pixels=pixels)

    # What a detector's outputs mean, its own class says.

    def scores(self, outputs: Any) -> Tensor:
        """Scores of clips."""
        return self.made_from.scores(self, outputs)

    def probabilities(self, outputs: Any) -> Tensor | None:
        """Probabilities of event classes."""
        return self.made_from.probabilities(self, outputs)

    def explain(self, outputs: Any) -> dict[str, Tensor] | None:
        """Why clips have their scores."""
        return self.made_from.explain(self, outputs)

    # What its own class knows of normal footage is in weights, which an exported network does not have.

    def heat(self, features: Mapping[str, Tensor], clip: int) -> None:
        """No distances of places: they are hidden in turn instead."""
        return None

    def nearest_normal(self, features: Mapping[str, Tensor], clip: int, count: int = 3) -> list[dict[str, Any]]:
        """No normal clips."""
        return []

    def usual_classes(self) -> dict[str, Tensor]:
        """No classes."""
        return {}

    @property
    def clip_outputs(self) -> tuple[str, ...]:
        """Names of the outputs of shape `(B, T)` that losses need."""
        return self.made_from.clip_outputs

    def to(self, *args, **kwargs) -> "EngineModel":
        """Stay where it is."""
        return self

    def forward(self, *args: Tensor, **kwargs: Any) -> Any:
        """Compute what the model of the checkpoint would, from its arguments by name; others are ignored.

        Raises:
            ValueError: For arguments that are missing, or options that an exported graph cannot follow.
        """
        inputs = self.record["inputs"]
        kwargs = dict(zip(inputs, args, strict=False)) | kwargs
        for name in FIXED:
            value = kwargs.get(name)
            if value is not None and value is not False and value != getattr(self.config, name, None):
                raise ValueError(
                    f"{name}={value if isinstance(value, str) else '...'} cannot be given to an exported detector, "
                    "which computes scores as it was exported. Use the checkpoint that it was made from."
                )
        engine_inputs = {name: kwargs[name] for name in inputs if kwargs.get(name) is not None}
        for name in inputs.keys() - engine_inputs.keys():
            if name.endswith("_mask") and engine_inputs:
                rank = len(inputs[name]["shape"])
                like = engine_inputs.get("input_features", next(iter(engine_inputs.values())))
                engine_inputs[name] = torch.ones(like.shape[:rank], dtype=torch.bool)
            else:
                raise ValueError(f"The exported network needs {', '.join(inputs)}; {name} is missing.")
        if hasattr(self.config, "engine_inputs"):
            engine_inputs = self.config.engine_inputs(engine_inputs)
        sizes = {value.shape[0] for value in engine_inputs.values() if value.dim()}
        if all(wanted["shape"][0] == 1 for wanted in inputs.values()) and len(sizes) == 1 and sizes != {1}:
            singles = [
                self(**{name: value[n : n + 1] for name, value in engine_inputs.items()}) for n in range(sizes.pop())
            ]
            return type(singles[0])(**{name: torch.cat([outputs[name] for outputs in singles]) for name in singles[0]})
        for name, value in engine_inputs.items():
            # The runtimes do not look, and would compute anything.
            shape = inputs[name]["shape"]
            if len(shape) != value.dim() or any(
                wanted not in (None, size) for wanted, size in zip(shape, value.shape, strict=True)
            ):
                needed = ", ".join("any" if size is None else str(size) for size in shape)
                raise ValueError(
                    f"The exported network needs {name} of shape ({needed}), got {tuple(value.shape)}. Use the "
                    "processor that was exported with it."
                )
        with torch.no_grad():
            return self._exported(
                **{
                    name: value.to("cpu", getattr(torch, inputs[name]["dtype"])).contiguous()
                    for name, value in engine_inputs.items()
                }
            )

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs) -> None:
        """Copy its files, with the config as it is now; and push them with ``push_to_hub``, to ``repo_id``."""
        target = Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        for path in engine_files(self.place):
            if path.resolve() != (target / path.name).resolve():
                shutil.copyfile(path, target / path.name)
        self.config.save_pretrained(target)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", target.resolve().name), **kwargs)


def engine_files(directory: Path) -> list[Path]:
    """Files of an exported network in its folder, without its config and those of others below it."""
    return sorted(path for pattern in ENGINES for path in directory.glob(pattern))


def _check_unchanged(directory: Path, sha256: str) -> None:
    """Raise ``ValueError`` if the files of an exported network are not those that its record is of."""
    if files_sha256(directory) != sha256:
        raise ValueError("its files have changed since they were written")


def files_sha256(directory: Path) -> str:
    """SHA-256 of the graph and the weights of an exported network."""
    digest = hashlib.sha256()
    for path in engine_files(directory):
        if path.suffix != ".json":
            with path.open("rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
    return digest.hexdigest()


def _reload(directory: Path, config: PreTrainedConfig, made_from: type[PreTrainedModel] | None) -> EngineModel:
    return EngineModel.load(directory, directory / RECORD, config, made_from)


def _capabilities() -> list[str]:
    import openvino

    with signal_stack_kept():
        return openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _runner_options(record: Mapping[str, Any]) -> dict[str, Any]:
    """How the runtime is set up: as many threads as torch has, and the precision that was exported and no other."""
    if record["format"] == "openvino":
        # What is left in floating point of an int8 network gains from bfloat16, and loses nothing next to int8.
        hint = "f32" if record["precision"] == "float32" else "bf16"
        return {
            "device": "cpu",
            "config": {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                # Each process would pin its threads to the first cores, and several would share these alone.
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": hint,
            },
        }
    import onnxruntime

    session = onnxruntime.SessionOptions()
    session.log_severity_level = 3
    session.intra_op_num_threads = torch.get_num_threads()
    return {"providers": ["CPUExecutionProvider"], "session_options": session}


__all__ = ["EngineModel", "engine_files", "files_sha256", "find_engine", "require_runtime"]
