"""Which detectors are compared: architectures by name, with options of their configs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from avad_hf.features.dataset import FeatureDataset
from avad_hf.models.architecture import Architecture
from avad_hf.registration import architecture
from avad_hf.training.models import detectors


@dataclass(frozen=True)
class Candidate:
    """One detector of a comparison.

    Args:
        name: As it was asked for: ``rtfm``, or ``rtfm:inputs=both``; files are called by it.
        model_type: Names its architecture.
        options: Fields of its config.
    """

    name: str
    model_type: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> Architecture:
        """Its architecture."""
        return architecture(self.model_type, "head", "detector")

    @property
    def title(self) -> str:
        """Its name for people."""
        settings = ", ".join(f"{name} {value}" for name, value in self.options.items())
        return self.architecture.title + (f", {settings}" if settings else "")

    @property
    def is_fitted(self) -> bool:
        """Whether it learns from normal videos alone."""
        return self.architecture.fit is not None


def candidates(asked: Sequence[str] | None, data: FeatureDataset) -> list[Candidate]:
    """The detectors of a comparison, in their order.

    Args:
        asked: Names, with options after colons: ``rtfm:inputs=both:num_segments=8``. By default every detector that
            learns scores of clips from labels of videos; those that choose what they read read sight and sound where
            the store has sound.
        data: Stored features.

    Raises:
        ValueError: For unknown names and options, detectors of another kind, or none.
    """
    if asked is None:
        has_sound = any(row.get("has_audio") for row in data.rows)
        asked = []
        for name, found in detectors().items():
            config = found.load("config")
            if config().detector_spec.objective == "clips" and config().detector_spec.reads == data.reads:
                chooses = has_sound and "inputs" in {item.name for item in fields(config)}
                asked.append(f"{name}:inputs=both" if chooses else name)
    chosen = parsed(asked)
    for one in chosen:
        spec = one.architecture.load("config")().detector_spec
        if spec.reads != data.reads or spec.objective == "classes":
            raise ValueError(
                f"{one.name} cannot be compared on {data.selection['name']}: it learns classes, or reads videos. "
                "Compared are detectors of stored features that give scores of clips."
            )
    names = [one.name for one in chosen]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"Give one detector or more, each once, got {', '.join(names) or 'none'}.")
    return chosen


def parsed(asked: Sequence[str]) -> list[Candidate]:
    """The detectors of names, as `candidates` takes them; raises ``ValueError`` for unknown names and options."""
    return [_candidate(name) for name in asked]


def _candidate(asked: str) -> Candidate:
    model_type, *settings = asked.strip().split(":")
    found = architecture(model_type, "head", "detector")
    if model_type not in detectors():
        raise ValueError(f"{model_type} is an encoder, and no detector. Known detectors: {', '.join(detectors())}.")
    known = {item.name for item in fields(found.load("config"))}
    options = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or name not in known:
            raise ValueError(f"{asked}: {setting!r} is no option of {found.title}. Give name=value after a colon.")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return Candidate(asked.strip(), model_type, options)


__all__ = ["Candidate", "candidates", "parsed"]
