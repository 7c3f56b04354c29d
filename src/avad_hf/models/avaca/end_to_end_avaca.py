"""AVACA's encoders within the detector: from pixels and waveforms to features, with gradients."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from avad_hf.models.encoder import Encoder, encoder_of


def encoder_config(name: str, settings: dict[str, Any] | PreTrainedConfig) -> PreTrainedConfig:
    """The config of an encoder within a detector.

    Args:
        name: What it is called, for errors.
        settings: The config, or its JSON with ``model_type``.

    Raises:
        ValueError: If it is none of this library's encoders: others need what only their own processors know.
    """
    if isinstance(settings, dict):
        model_type = settings.get("model_type")
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
    """

    def __init__(
        self, video_config: PreTrainedConfig, audio_config: PreTrainedConfig, grid: tuple[int, int] | None = None
    ):
        super().__init__()
        self.video_encoder = AutoModel.from_config(video_config)
        self.audio_encoder = AutoModel.from_config(audio_config)
        # No modules: they know how to call the networks. What they hold is computed also where weights have no values.
        with torch.device("cpu"):
            self.seeing = encoder_of(self.video_encoder).unfrozen()
            self.hearing = encoder_of(self.audio_encoder).unfrozen()
        self.grid = self.seeing.spec.grid if grid is None else tuple(grid)
        self.num_pictures = self.seeing.spec.num_frames

    def forward(self, pixels: Tensor, waveforms: Tensor | None, has_audio: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features as `AvacaProcessor` makes them; arguments as of `AvacaForAnomalyDetection`."""
        batch, num_clips = pixels.shape[:2]
        self._check(pixels, waveforms)
        maps = maps_on_grid(as_map(_read(self.seeing, pixels.flatten(0, 1))), self.grid)
        visual = maps.unflatten(0, (batch, num_clips))
        if waveforms is None:
            return visual, visual.new_zeros(batch, num_clips, self.num_pictures, self.hearing.spec.width)
        heard = _read(self.hearing, waveforms.flatten(0, 2))
        if self.hearing.spec.gives == "tokens":
            heard = F.adaptive_avg_pool1d(heard.transpose(1, 2), self.num_pictures).transpose(1, 2).flatten(0, 1)
        audio = heard.unflatten(0, (batch, num_clips, self.num_pictures))
        if has_audio is not None:
            audio = audio.masked_fill(~has_audio.bool()[:, None, None, None], 0.0)
        return visual, audio

    def _check(self, pixels: Tensor, waveforms: Tensor | None) -> None:
        if pixels.dim() != 6 or pixels.shape[2:4] != (self.num_pictures, 3):
            raise ValueError(
                f"pixels must be of shape (B, T, {self.num_pictures}, 3, H, W), got {tuple(pixels.shape)}. "
                "AvacaProcessor.pixels_and_sound makes them."
            )
        spec = self.hearing.spec
        windows = self.num_pictures if spec.gives == "vector" else 1
        needed = (*pixels.shape[:2], windows, round(spec.window_s * spec.sampling_rate))
        if waveforms is not None and tuple(waveforms.shape) != needed:
            raise ValueError(
                f"waveforms must be of shape {needed} beside these pixels, got {tuple(waveforms.shape)}. "
                "AvacaProcessor.pixels_and_sound makes them."
            )


def _read(encoder: Encoder, batch: Tensor) -> Tensor:
    return encoder.read(encoder.outputs_of(batch))[: len(batch)]


__all__ = ["AvacaEncoders", "as_map", "encoder_config", "maps_on_grid"]
