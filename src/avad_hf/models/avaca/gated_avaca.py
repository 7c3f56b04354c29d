"""Features of a stream of which still clips are not computed: they take those of the last clip that was."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BatchFeature

from avad_hf.media.clips import Clip
from avad_hf.media.stillness import Stillness


class GatedFeatures:
    """Encodes the clips of one stream, in order.

    A clip whose pictures are still, and whose sound is unchanged, takes both features of the last clip that was
    computed. Where only the pictures are still, the sound is computed. Times are always a clip's own.

    Args:
        processor: A processor of features.

    Attributes:
        num_clips: How many clips were encoded.
        reused: How many of them took earlier features of their ``"pictures"`` and ``"sound"``.
    """

    def __init__(self, processor: Any):
        self.processor = processor
        self.num_clips, self.reused = 0, {"pictures": 0, "sound": 0}
        self._stillness = Stillness(processor.encoders["audio_encoder"].spec.sampling_rate)
        # The last row that was computed, of all that is seen and of all that is heard.
        self._seen: dict[str, Tensor] = {}
        self._heard: dict[str, Tensor] = {}

    def encode(self, batch: Any) -> BatchFeature:
        """As the processor's."""
        return self.encode_and_name(batch)[0]

    def encode_and_name(self, batch: Any) -> tuple[BatchFeature, dict[str, Tensor]]:
        """As the processor's; of a still clip the classes are those of the earlier one, too."""
        batch = self.processor.prepared(batch)
        clips: Sequence[Clip] = batch.clips
        pixels = batch.pixels.unflatten(0, (len(clips), -1))
        judged = [self._stillness.judge(clip, pictures) for clip, pictures in zip(clips, pixels, strict=True)]
        is_still, is_unchanged = ([bool(one[sense]) for one in judged] for sense in (0, 1))
        seen, self._seen = _filled(self._seen, is_still, lambda new: self.processor.see(pixels[new].flatten(0, 1)))
        heard, self._heard = _filled(
            self._heard, is_unchanged, lambda new: self.processor.hear([clips[number] for number in new])
        )
        self.num_clips += len(clips)
        self.reused["pictures"] += sum(is_still)
        # A stream without sound has none that could be reused.
        self.reused["sound"] += sum(is_unchanged) if heard else 0
        return self.processor.joined(clips, seen | heard)


def _filled(
    last: dict[str, Tensor], is_reused: Sequence[bool], compute: Callable[[list[int]], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rows of all clips, of which some are those of the one before; and the last row.

    Args:
        last: The last row before, of shape `(1, ...)`, by name; empty before the first clip.
        is_reused: For each clip whether it takes the row before. The first clip of a stream does not.
        compute: Gives the rows of the clips of these numbers, by name.
    """
    new = [number for number, reused in enumerate(is_reused) if not reused]
    parts = [rows for rows in (last, compute(new) if new else {}) if rows]
    # The number of the row of each clip, where `last` is before those that are computed.
    numbers = (~torch.tensor(is_reused)).cumsum(0) - (0 if last else 1)
    filled = {
        name: torch.cat([rows[name] for rows in parts])[numbers.tolist()] for name in (parts[0] if parts else {})
    }
    return filled, {name: rows[-1:].clone() for name, rows in filled.items()}


__all__ = ["GatedFeatures"]
