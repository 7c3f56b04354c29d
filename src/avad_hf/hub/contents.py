"""What a checkpoint holds, and what its files may name: parts of itself, or names on the Hub, and nothing else."""

import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path, PureWindowsPath
from types import NoneType
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

# What from_pretrained reads, and what a person does. Nothing else leaves the machine: a training's folder also holds
# its settings, with paths, and states to resume from.
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", INDEX)
# In place of weights: what avad-hf export writes.
ENGINES = ("export.json", "engine.json", "parity.json", "openvino_model.*", "model.onnx", "model.onnx.data")
CONFIGS = ("config.json", "processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
# A sample of the footage that a detector was calibrated on, by which later footage is told from it.
CALIBRATED_ON = "calibrated_on.safetensors"
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md")
# What transformers reads besides, where it is there.
OTHERS = ("chat_template.*", "generation_config.json", "tokenizer_config.json")
# Names a part of a processor by a path, which is then loaded from wherever that is.
TOKENIZER = "audio_tokenizer_config.json"
# Folders of the encoders that a processor carries, and what processor_config.json calls them.
PARTS = ("video_encoder", "audio_encoder")
# Settings by which transformers reads other files than a checkpoint's own, or packs weights as no network here has
# them; at any depth of a JSON file.
REDIRECTIONS = (
    "audio_tokenizer",
    "configuration_files",
    "fusion_config",
    "per_layer_config",
    "quantization_config",
    "transformers_weights",
)
# Settings of a checkpoint take some kB, and the index of a network of 10,000 tensors 1 MB.
MOST_JSON_BYTES = 1 << 26
# Settings that name a class, and those that are settings of a part: transformers takes them for what they should be.
CLASSES = ("feature_extractor_type", "image_processor_type", "model_type", "processor_class", "video_processor_type")
NESTED = ("audio_config", "feature_extractor", "image_processor", "video_config", "video_processor")


def inside(folder: str | os.PathLike, name: Any, what: str) -> Path:
    """Where something is that a checkpoint or a store names: inside it, whether it is there or not.

    Links may lead to another place in the folder. In the Hub's cache, where every file of a snapshot is a link, they
    may lead to anything of the same repository.

    Args:
        folder: The checkpoint or store.
        name: What it names.
        what: What names it, for errors.

    Raises:
        ValueError: If it is no relative path, or leads out.
    """
    refuse_leading_out(folder, name, what)
    root = Path(folder).resolve()
    try:
        real = (root / name).resolve()
    except (OSError, RuntimeError):
        raise ValueError(f"{folder}: {what} is {name!r}, a link that leads back to itself. Copy the files.") from None
    if not any(real.is_relative_to(allowed) for allowed in (root, *_repositories_of(root))):
        raise ValueError(
            f"{folder}: {what} is {name!r}, a link that leads out of the folder, to {real}. Only files inside it are "
            "read: put the file itself where the link is."
        )
    return Path(folder) / name


def refuse_leading_out(folder: str | os.PathLike, name: Any, what: str) -> None:
    """Raise ``ValueError`` for a name that is no relative path, or leads out of the folder that names it."""
    # By Windows' rules everywhere, which know both kinds of slash: such a folder is read on any machine.
    path = PureWindowsPath(name) if isinstance(name, str) else None
    if path is None or not name or "\0" in name or path.anchor or ".." in path.parts:
        raise ValueError(
            f"{folder}: {what} is {name!r}, but must be the relative path of something in that folder, without '..'."
        )


def _repositories_of(root: Path) -> list[Path]:
    """The repository that a folder of the Hub's cache belongs to: ``models--user--name/snapshots/commit/...``."""
    return [
        place.parent
        for place in (root, *root.parents)
        if place.name == "snapshots" and re.match("(models|datasets|spaces)--", place.parent.name)
    ]


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON file of a checkpoint or a store.

    Raises:
        ValueError: If it is damaged, holds anything but a JSON object, or is too large or too deeply nested.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no file")
        if (size := path.stat().st_size) > MOST_JSON_BYTES:
            raise ValueError(f"it has {size} bytes; settings have {MOST_JSON_BYTES} at most")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__} in place of names with their values")
    except RecursionError:
        raise ValueError(f"{path} is damaged: it is nested too deeply. Copy or download it again.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}). Copy or download it again.") from error
    return content


def check_checkpoint(place: str | os.PathLike, subfolder: str | None = None) -> None:
    """Look at a checkpoint's folder before any of it is loaded.

    Args:
        place: The folder. What is on the Hub is looked at where it is loaded: its client lets no name lead out.
        subfolder: Where in it the checkpoint is.

    Raises:
        ValueError: If a file in it is a link that leads out, or no regular file, or names what is not inside it; if
            its settings are damaged, or would make transformers read something else.
    """
    if not os.path.isdir(place):
        return
    top = inside(place, subfolder, "subfolder") if subfolder else Path(place)
    for folder in (top, *(inside(place, os.path.relpath(top / part, place), "a folder") for part in PARTS)):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if any(fnmatch(path.name, pattern) for pattern in (*CONFIGS, *WEIGHTS, *ENGINES, *OTHERS, CALIBRATED_ON)):
                inside(place, os.path.relpath(path, place), "a file")
                if not path.is_file():
                    raise ValueError(f"{path} is no regular file. Put the file itself there.")
                if path.name in CONFIGS:
                    refuse_redirections(path, read_settings(path))
        if (folder / TOKENIZER).exists():
            raise ValueError(f"{folder} holds {TOKENIZER}, which no detector has. Remove it if you trust the rest.")
        if (folder / INDEX).is_file():
            _check_index(place, folder)


def checkpoint_files(checkpoint_dir: Path) -> dict[str, str]:
    """What belongs to a checkpoint besides its card: names in its folder, and their paths."""
    folders = [
        checkpoint_dir,
        *(checkpoint_dir / part for part in PARTS if (checkpoint_dir / part / "config.json").is_file()),
    ]
    patterns = (*CONFIGS, *WEIGHTS, *ENGINES, *LICENSES, CALIBRATED_ON)
    paths = sorted({path for folder in folders for pattern in patterns for path in folder.glob(pattern)})
    return {path.relative_to(checkpoint_dir).as_posix(): str(path) for path in paths}


def refuse_redirections(path: str | os.PathLike, settings: dict[str, Any]) -> None:
    """Raise ``ValueError`` for settings by which transformers would read something else than a checkpoint's files."""
    pending: list[Any] = [settings]
    while pending:
        value = pending.pop()
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for name, setting in value.items() if isinstance(value, dict) else ():
            for names, kind, what in ((CLASSES, str, "the name of a class"), (NESTED, dict, "settings of a part")):
                if name in names and not isinstance(setting, (kind, NoneType)):
                    raise ValueError(f"{path}: {name} must be {what}, got {str(setting)[:80]}.")
            # Attention from the Hub is a program, named as user/name.
            is_program = str(name).endswith("_implementation") and "/" in str(setting)
            if is_program or (name in REDIRECTIONS and setting is not None):
                raise ValueError(
                    f"{path}: the setting {name} would load or compute something else than the files of this "
                    f"checkpoint ({str(setting)[:80]}), which is not done. Remove it if you trust the rest."
                )


def check_hub_id(place: str | os.PathLike, name: Any, what: str) -> None:
    """Raise ``ValueError`` for what is no ``user/name[@revision]`` of the Hub, or is a folder here as well."""
    try:
        repo_id = name.partition("@")[0]
        validate_repo_id(repo_id)
    except (AttributeError, HFValidationError):
        raise ValueError(
            f"{place}: {what} is {name!r}, but must be './{what}', a folder beside it, or user/name on the Hub."
        ) from None
    if os.path.exists(repo_id):
        raise ValueError(
            f"{place}: {what} is {name!r}, a name on the Hub, but there is a folder of that name here, which would be "
            f"taken in its place. Run in another folder, or give the encoder yourself ({what}=...)."
        )


def _check_index(place: str | os.PathLike, folder: Path) -> None:
    """Raise ``ValueError`` if the list of a checkpoint's weights files is damaged, or names other than its own."""
    files = read_settings(folder / INDEX).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"{folder / INDEX} is damaged: it has no weight_map. Copy or download it again.")
    for name in {str(name): name for name in files.values()}.values():
        refuse_leading_out(folder, name, f"a file that {INDEX} names")
        inside(place, os.path.relpath(folder / name, place), f"a file that {INDEX} names")
        if not name.endswith(".safetensors") or not (folder / name).is_file():
            raise ValueError(f"{folder}: {INDEX} names {name!r}, which is no weights file there. Copy them all again.")


__all__ = [
    "CALIBRATED_ON",
    "CONFIGS",
    "ENGINES",
    "LICENSES",
    "PARTS",
    "WEIGHTS",
    "check_checkpoint",
    "check_hub_id",
    "checkpoint_files",
    "inside",
    "read_settings",
    "refuse_leading_out",
    "refuse_redirections",
]
