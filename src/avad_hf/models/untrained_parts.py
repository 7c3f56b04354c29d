"""What the ``untrained_*.py`` of all detectors have in common: sizes, notices, and facts for cards.

A folder's ``init`` gives the parts of a new checkpoint (`Untrained`); `avad_hf.untrained.init` writes them::

    def init(size, seed, video_encoder=None, audio_encoder=None, **options) -> Untrained

It is called with torch's generator seeded. `options` are fields of the config, and count before everything else.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import PreTrainedModel, ProcessorMixin

from avad_hf.hub.cards import code
from avad_hf.hub.folders import weights_hash

Size = Literal["base", "tiny"]
# `base` is the published architecture. `tiny` is for trying things out: it runs faster than real time on two cores.
SIZES: tuple[Size, ...] = ("base", "tiny")


@dataclass(frozen=True)
class Untrained:
    """The parts of a checkpoint to begin training from.

    Args:
        model: The detector, with new weights.
        processor: Its processor, with its encoders if it has some.
        facts: What the card says besides the notices of both.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    facts: Sequence[str] = ()


def untrained_notice(what: str, seed: int) -> str:
    """The notice of a network with random weights; every result that is made with it repeats it."""
    return f"Untrained {what} (random weights, seed {seed}): scores mean nothing."


def encoder_facts(place: str | os.PathLike | None, encoder: PreTrainedModel | None, what: str) -> list[str]:
    """What a card says of a trained encoder: its hash, by which the encoder's own card is found.

    Args:
        place: Folder or Hub id that the user gave; ``None`` for a new encoder, of which nothing is said.
        encoder: The network.
        what: ``"video"`` or ``"audio"``.
    """
    if place is None:
        return []
    name = Path(place).resolve().name if os.path.isdir(place) else os.fspath(place)
    return [
        f"Its {what} encoder is that of {code(name)}, whose card says where it is from; SHA-256 of its weights: "
        f"`{weights_hash(encoder)}`."
    ]


__all__ = ["SIZES", "Size", "Untrained", "encoder_facts", "untrained_notice"]
