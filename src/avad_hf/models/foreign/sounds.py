"""Networks of transformers for sound, as frozen encoders."""

import copy
import inspect
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import FeatureExtractionMixin, PreTrainedModel

from avad_hf.models.encoder import EncoderSpec

from .frozen import ForeignEncoder, NoStates
from .layouts import TokenGrid, sound_grid

# For networks that take sound of any length. With AVACA's defaults VGGish hears about as much of a clip: the 1.3 s of
# its 32 frames, and the second before the first.
WINDOW_S = 2.0
# Time from one row of AST's spectrogram to the next: Kaldi's default, which no setting changes.
KALDI_STEP_S = 0.01


class ForeignSound(ForeignEncoder):
    """A network that reads waveforms, or what its own feature extractor makes of them, as an encoder of sound.

    Patches of spectrograms are averaged over frequency, which gives one token for each step of time. Tokens without
    a time (class, distillation) are left out.

    Args:
        network: The bare network.
        name: What errors call it.
        feature_extractor: The network's own. It is copied.
        window_s: Length of the sound that is heard at once, in seconds. By default what the network's input covers,
            if that is fixed (AST 10.24 s, CLAP 10 s, Whisper 30 s), else 2.

    Raises:
        ValueError: If the network cannot be called with such a window.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        name: str,
        feature_extractor: FeatureExtractionMixin,
        window_s: float | None = None,
    ):
        super().__init__(network, name)
        self._set_up(feature_extractor, window_s)

    def configure(self, **settings: Any) -> "ForeignSound":
        """Set ``feature_extractor``, which must be of the same kind, as `Encoder.configure` says."""
        extractor = settings.get("feature_extractor")
        if extractor is None:
            return self
        if type(extractor) is not type(self.feature_extractor):
            raise TypeError(
                f"{self.name} needs a {type(self.feature_extractor).__name__}, got a {type(extractor).__name__}. Make "
                "a new processor with this encoder, and it gets its own."
            )
        if extractor.to_json_string() != self.feature_extractor.to_json_string():
            self._set_up(extractor, None)
        return self

    def _set_up(self, feature_extractor: FeatureExtractionMixin, window_s: float | None) -> None:
        """Find out what the network gives for windows of this feature extractor."""
        network, name = self.network, self.name
        self.feature_extractor = copy.deepcopy(feature_extractor)
        rate = self.feature_extractor.sampling_rate
        fixed = covered_s(self.feature_extractor)
        if window_s is None:
            window_s = getattr(self.feature_extractor, "window_s", None) or fixed or WINDOW_S
        if isinstance(window_s, bool) or not isinstance(window_s, (int, float)) or not 0 < window_s < float("inf"):
            raise ValueError(f"window_s must be a number of seconds above 0, got {window_s!r}.")
        if fixed is not None and window_s != fixed:
            raise ValueError(f"{name} hears {fixed:g} s at once, neither more nor less; got window_s={window_s:g}.")
        if window_s != (fixed or WINDOW_S):
            # Written with the feature extractor, and found there when it is loaded.
            self.feature_extractor.window_s = window_s
        self._arguments = set(inspect.signature(self._called(network).forward).parameters)
        states = self._tried(round(window_s * rate), window_s)
        self._grid: TokenGrid | None = None
        self._is_pooled = states.dim() == 2
        if states.dim() == 3:
            self._grid = sound_grid(network.config, states.shape[1])
            # The order of patches whose places are not known says nothing about time.
            self._is_pooled = self._grid is None and getattr(network.config, "patch_size", None) is not None
        self.spec = EncoderSpec(
            reads="waveform",
            gives="vector" if self._is_pooled else "tokens",
            width=self._laid_out(states).shape[-1],
            window_s=window_s,
            sampling_rate=rate,
            classes=self.class_names,
        )

    def inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What the feature extractor makes of each window by itself: CLAP's chooses among a batch at random."""
        rate = self.feature_extractor.sampling_rate
        made = [
            self.feature_extractor(window, sampling_rate=rate, return_tensors="pt")
            for window in batch.detach().float().cpu().numpy()
        ]
        inputs = {}
        for name in self._arguments & made[0].keys():
            value = torch.cat([one[name] for one in made]).to(self.device)
            inputs[name] = value.to(self.dtype) if value.is_floating_point() else value
        return inputs

    def read(self, outputs: Any) -> Tensor:
        """Tokens of shape `(N, T, width)` or vectors of shape `(N, width)`."""
        return self._laid_out(self._states(outputs))

    def _laid_out(self, states: Tensor) -> Tensor:
        if states.dim() == 4:  # (N, width, frequency, time): CLAP's
            return states.mean(2).transpose(1, 2)
        if self._grid is not None:
            return self._grid.lay_out(states)
        return states.mean(1) if self._is_pooled and states.dim() == 3 else states

    def facts(self) -> dict[str, Any]:
        """Settings of the network, and the length of a window."""
        return super().facts() | {"window_s": self.spec.window_s}

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write the network, and its feature extractor beside it."""
        super().save_pretrained(directory)
        self.feature_extractor.save_pretrained(directory)

    @torch.no_grad()
    def _tried(self, num_samples: int, window_s: float) -> Tensor:
        """The states for a silent window."""
        try:
            states = self._try(self.inputs_of(torch.zeros(1, num_samples)))
            if states.dim() not in (2, 3, 4) or 0 in states.shape:
                raise ValueError(f"it gives states of shape {tuple(states.shape)}")
        except NoStates:
            raise
        except Exception as error:
            raise ValueError(
                f"{self.name}, a network of type '{self.network.config.model_type}', cannot be called with a window "
                f"of {window_s:g} s ({num_samples} samples): {error}. It may be too short, or the feature extractor "
                "may be another network's."
            ) from error
        return states


def covered_s(feature_extractor: FeatureExtractionMixin) -> float | None:
    """Seconds of sound to which a feature extractor pads or cuts; ``None`` if it takes any length."""
    for name in ("nb_max_samples", "n_samples"):  # CLAP, Whisper
        if isinstance(samples := getattr(feature_extractor, name, None), int):
            return samples / feature_extractor.sampling_rate
    rows = getattr(feature_extractor, "max_length", None)
    if isinstance(rows, int) and hasattr(feature_extractor, "num_mel_bins"):  # AST
        return rows * KALDI_STEP_S
    return None


__all__ = ["ForeignSound", "covered_s"]
