"""AVACA's encoders within the detector: from pixels and waveforms to features, with gradients."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from avad_hf.models.encoder import encoder_of

# The encoders by their names, and what they must read.
READS = {"video_encoder": "pixels", "audio_encoder": "waveform"}


def encoder_config(name: str, settings: dict[str, Any] | PreTrainedConfig) -> PreTrainedConfig:
    """The config of an encoder within a detector.

    Args:
        name: What it is called, for errors.
        settings: The config, or its JSON with ``model_type``.

    Raises:
        ValueError: If it is none of this library's encoders: others need what only their own processors know.
    """
    if isinstance(settings, dict):
        if not isinstance(model_type := settings.get("model_type"), str):
            raise ValueError(f"{name} must be an encoder's config, whose model_type says which one, got {settings!r}.")
        try:
            settings = AutoConfig.for_model(model_type, **{k: v for k, v in settings.items() if k != "model_type"})
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} cannot be read: {error}") from error
    if not hasattr(settings, "as_encoder"):
        raise ValueError(
            f"{name} must be the config of an encoder of avad_hf, got one of type '{settings.model_type}'. "
            "Use such an encoder through AvacaProcessor."
        )
    return settings


def maps_on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Feature maps of videos of any shape, averaged to the size that all have.

    Args:
        maps: Feature maps of shape `(N, C, h, w)`.
        grid: Rows and columns. Maps of portrait videos are averaged to columns and rows, and their cells turned over
            the diagonal.

    Returns:
        `torch.Tensor` of shape `(N, C, *grid)`.
    """
    rows, columns = grid
    if maps.shape[-2] > maps.shape[-1] and rows < columns:  # portrait
        return F.adaptive_avg_pool2d(maps, (columns, rows)).transpose(-2, -1)
    return maps if maps.shape[-2:] == (rows, columns) else F.adaptive_avg_pool2d(maps, (rows, columns))


def as_map(encoded: Tensor) -> Tensor:
    """What a video encoder gives, as a map of shape `(N, C, h, w)`: tokens are averaged, vectors have one cell."""
    if encoded.dim() == 3:
        encoded = encoded.mean(dim=1)
    return encoded if encoded.dim() == 4 else encoded[..., None, None]


class AvacaEncoders(nn.Module):
    """Both encoders as parts of a model. Unlike those of a processor they get gradients, until they are frozen.

    Args:
        video_config: Config of the video encoder.
        audio_config: Config of the audio encoder.
        grid: Rows and columns that feature maps are averaged to; the video encoder's own by default.

    Attributes:
        readers: How each network is called, by its name. No modules: the networks are `video_encoder` and
            `audio_encoder`.

    Raises:
        ValueError: For an encoder that reads something else.
    """

    def __init__(
        self, video_config: PreTrainedConfig, audio_config: PreTrainedConfig, grid: Sequence[int] | None = None
    ):
        super().__init__()
        self.video_encoder = AutoModel.from_config(video_config)
        self.audio_encoder = AutoModel.from_config(audio_config)
        # What readers hold is computed also where weights have no values.
        with torch.device("cpu"):
            self.readers = {name: encoder_of(getattr(self, name)).unfrozen() for name in READS}
        for name, reads in READS.items():
            if (found := self.readers[name].spec.reads) != reads:
                raise ValueError(
                    f"{name[:5]}_config must be that of an encoder that reads {reads}, but one of type "
                    f"'{getattr(self, name).config.model_type}' reads {found}."
                )
        self.video_spec, self.audio_spec = (self.readers[name].spec for name in READS)
        self.grid = self.video_spec.grid if grid is None else tuple(grid)
        self.num_pictures = self.video_spec.num_frames

    def forward(
        self, pixels: Tensor, waveforms: Tensor | None, has_audio: Tensor | None, clip_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Features as `AvacaProcessor` makes them; arguments as of `AvacaForAnomalyDetection`.

        Only real clips go through the encoders, and only sound that is there: batch norms learn from nothing else. A
        compiled or exported graph, whose shapes are fixed, computes all of them.
        """
        self._check(pixels, waveforms)
        batch, num_clips = pixels.shape[:2]
        is_real = torch.ones(batch, num_clips, dtype=torch.bool, device=pixels.device)
        is_real = is_real if clip_mask is None else clip_mask.bool()
        shape = (batch, num_clips, self.video_spec.width, *self.grid)
        visual = self._of_real(self._see, pixels, is_real, shape)
        shape = (batch, num_clips, self.num_pictures, self.audio_spec.width)
        if waveforms is None:
            return visual, visual.new_zeros(shape)
        is_heard = is_real if has_audio is None else is_real & has_audio.bool()[:, None]
        return visual, self._of_real(self._hear, waveforms, is_heard, shape)

    def _of_real(
        self, encode: Callable[[Tensor], Tensor], values: Tensor, is_real: Tensor, shape: tuple[int, ...]
    ) -> Tensor:
        """What `encode` makes of the clips in `values` of shape `(B, T, ...)` that are real; zero for the others."""
        if torch.compiler.is_compiling():
            encoded = encode(values.flatten(0, 1)).view(shape)
            return encoded.masked_fill(~is_real.view(*is_real.shape, *(1,) * (len(shape) - 2)), 0.0)
        if not is_real.any():
            return torch.zeros(shape, device=values.device)
        encoded = encode(values[is_real])
        return encoded.new_zeros(shape).masked_scatter(
            is_real.view(*is_real.shape, *(1,) * (len(shape) - 2)).expand(shape), encoded
        )

    def _see(self, pixels: Tensor) -> Tensor:
        """Maps of clips, of shape `(N, width, *grid)`."""
        return maps_on_grid(as_map(self._encoded("video_encoder", pixels)), self.grid)

    def _hear(self, waveforms: Tensor) -> Tensor:
        """Embeddings of the sound of clips, of shape `(N, num_pictures, width)`."""
        heard = self._encoded("audio_encoder", waveforms.flatten(0, 1))
        if self.audio_spec.gives == "tokens":
            return F.adaptive_avg_pool1d(heard.transpose(1, 2), self.num_pictures).transpose(1, 2)
        return heard.unflatten(0, (-1, self.num_pictures))

    def _encoded(self, name: str, batch: Tensor) -> Tensor:
        """What an encoder gives; by the module of that name, which may have been wrapped, or be one of replicas."""
        reader = copy.copy(self.readers[name])
        reader.network = getattr(self, name)
        return reader.read(reader.outputs_of(batch))[: len(batch)]

    def _check(self, pixels: Tensor, waveforms: Tensor | None) -> None:
        if pixels.dim() != 6 or pixels.shape[2:4] != (self.num_pictures, 3):
            raise ValueError(
                f"pixels must be of shape (B, T, {self.num_pictures}, 3, H, W), got {tuple(pixels.shape)}. "
                "AvacaProcessor.pixels_and_sound makes them."
            )
        spec = self.audio_spec
        windows = self.num_pictures if spec.gives == "vector" else 1
        needed = (*pixels.shape[:2], windows, round(spec.window_s * spec.sampling_rate))
        if waveforms is not None and tuple(waveforms.shape) != needed:
            raise ValueError(
                f"waveforms must be of shape {needed} beside these pixels, got {tuple(waveforms.shape)}. "
                "AvacaProcessor.pixels_and_sound makes them."
            )


__all__ = ["AvacaEncoders", "as_map", "encoder_config", "maps_on_grid"]
