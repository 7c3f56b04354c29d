"""What is exported of a checkpoint: a network, with input to trace it by and to calibrate it on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.export import Dim
from transformers import PreTrainedModel

from .encoder import Encoder

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """A network to export.

    Args:
        folder: Folder within the checkpoint; ``""`` is its top.
        source: As it was trained.
        model: As it is exported.
        sample: Input to trace it by; sizes that may vary are 2 or more. Where the first is 1, and does not vary, a
            batch is computed one by one.
        varying: Numbers of the dimensions of each input that may vary.
        calibration: Input to calibrate it on; empty for a network that stays in float32.
        output: Name of the output that counts.
        bound: Relative error of it that int8 may bring on the calibration's clips. Chosen on the demonstration model,
            whose scores then move by less than 0.03: neighbouring seconds of sound, of which AVACA takes differences,
            need to be nearer than what is seen.
        is_head: Whether it stays in float32 whatever the rest is exported in: it is less than a hundredth of the work.
    """

    folder: str
    source: PreTrainedModel
    model: nn.Module
    sample: Inputs
    varying: dict[str, tuple[int, ...]]
    calibration: Sequence[Inputs] = ()
    output: str = "logits"
    bound: float = 0.01
    is_head: bool = False

    @classmethod
    def of_encoder(
        cls, folder: str, encoder: Encoder, sample: Inputs, varying: tuple[int, ...], calibration: Sequence[Inputs]
    ) -> "Network":
        """A frozen encoder; arguments as of the class, `varying` of every input."""
        return cls(
            folder=folder,
            source=encoder.network,
            model=encoder.traceable(),
            sample=sample,
            varying=dict.fromkeys(sample, varying),
            calibration=calibration,
            output=encoder.output,
            bound=encoder.int8_bound,
        )

    @property
    def described_inputs(self) -> dict[str, dict[str, Any]]:
        """Shape of each input, ``None`` for sizes that may vary, and its type: what an engine's record says."""
        return {
            name: {
                "shape": [
                    None if axis in self.varying.get(name, ()) else size for axis, size in enumerate(value.shape)
                ],
                "dtype": str(value.dtype).removeprefix("torch."),
            }
            for name, value in self.sample.items()
        }

    @property
    def dynamic_shapes(self) -> dict[str, dict[int, Any]]:
        """For `torch.export`."""
        return {name: dict.fromkeys(self.varying.get(name, ()), Dim.AUTO) for name in self.sample}


__all__ = ["Inputs", "Network"]
