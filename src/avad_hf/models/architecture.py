"""What an architecture's folder declares of itself, as names: nothing is imported until it is used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Architecture:
    """One encoder or detector. Its folder's ``__init__`` makes one, called ``ARCHITECTURE``.

    Objects are named ``module.Name``, counted from the folder, or with their whole path from ``avad_hf``.

    Args:
        model_type: As its ``config.json`` says.
        title: Its name for people.
        folder: Dotted name of the folder.
        config: Its config.
        model: The bare network.
        head: The network that detects, or classifies.
        feature_extractor: What reads videos or sound for an encoder alone.
        processor: What reads videos for a detector.
        converter: Its [`~avad_hf.models.conversion.Converter`] of published files.
        fit: Function that fits it to normal footage, for detectors that learn from that alone.
        init: Function that makes an untrained checkpoint, `avad_hf.untrained` says how.
        profiles: Its recipes of training, by their names.
        profile: The recipe where none is named.
        public_parts: What makes up the detector from public packages, for the benchmark to compare with
            (`avad_hf.benchmark.backends.public_parts_of`).
        published: Figures of its paper in per cent, by what they are of: they stand beside measured ones.
        tiny: Settings of its config for a small network: what the tests that all architectures pass are run on.
        others: Whatever else users import from `avad_hf`.
    """

    model_type: str
    title: str
    folder: str
    config: str
    model: str | None = None
    head: str | None = None
    feature_extractor: str | None = None
    processor: str | None = None
    converter: str | None = None
    fit: str | None = None
    init: str | None = None
    profiles: str | None = None
    profile: str = "default"
    public_parts: str | None = None
    published: Mapping[str, str] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    others: tuple[str, ...] = field(default=())

    def path(self, part: str) -> str | None:
        """Where a part is: ``avad_hf.module.Name``; ``None`` if there is no such part."""
        name = getattr(self, part)
        return None if name is None else self._whole(name)

    def load(self, part: str) -> Any:
        """A part itself, imported now; ``None`` if there is no such part."""
        path = self.path(part)
        return None if path is None else load_object(path)

    @property
    def public(self) -> dict[str, str]:
        """Names that `avad_hf` gives to users, and where they are."""
        parts = (self.config, self.model, self.head, self.feature_extractor, self.processor, *self.others)
        return {part.rpartition(".")[2]: self._whole(part) for part in parts if part is not None}

    def _whole(self, name: str) -> str:
        return name if name.startswith("avad_hf.") else f"{self.folder}.{name}"


def load_object(path: str) -> Any:
    """What ``avad_hf.module.Name`` stands for."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


__all__ = ["Architecture", "load_object"]
