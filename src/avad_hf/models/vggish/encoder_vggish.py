"""VGGish as a frozen encoder."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

from avad_hf.models.encoder import Encoder, EncoderSpec

from .feature_extraction_vggish import VggishFeatureExtractor

# Windows of sound are encoded by so many, or twice that, and so on: matrices of other numbers of rows are multiplied
# in an order that depends on the number of threads, and a store must not. Engines prepare themselves less often, too.
WINDOWS_TOGETHER = 8


class VggishEncoder(Encoder):
    """VGGish's embedding of one second of sound.

    Args:
        network: A [`VggishModel`], or what was exported from one.

    Attributes:
        feature_extractor: Makes the log-mel spectrograms.
    """

    output = "pooler_output"
    int8_bound = 0.006

    def __init__(self, network: PreTrainedModel):
        super().__init__(network)
        self.feature_extractor = VggishFeatureExtractor()
        self.spec = EncoderSpec(
            reads="waveform",
            gives="vector",
            width=network.config.embedding_size,
            window_s=1.0,  # AVACA IV-C; one second makes 98 log-mel frames
            sampling_rate=self.feature_extractor.sampling_rate,
        )

    def configure(self, **settings: Any) -> "VggishEncoder":
        """Set ``feature_extractor``, as `Encoder.configure` says."""
        given = settings.get("feature_extractor")
        if given is not None and not isinstance(given, VggishFeatureExtractor):
            raise TypeError(
                f"VGGish needs a VggishFeatureExtractor, got a {type(given).__name__}. Leave feature_extractor out, "
                "and every encoder gets its own."
            )
        super().configure(**settings)
        extractor, config = self.feature_extractor, self.network.config
        num_frames = 1 + (round(self.spec.window_s * extractor.sampling_rate) - extractor.window_length) // max(
            1, extractor.hop_length
        )
        for what, found, fits in (
            ("feature_size", extractor.feature_size, extractor.feature_size == config.num_mel_bins),
            ("sampling_rate", extractor.sampling_rate, extractor.sampling_rate == self.spec.sampling_rate),
            ("hop_length and window_length", num_frames, num_frames >= config.num_frames),
        ):
            if not fits:
                raise ValueError(
                    f"The feature extractor's {what} ({found}) does not fit the VGGish network, which reads "
                    f"{config.num_frames} frames of {config.num_mel_bins} bands a second, at "
                    f"{self.spec.sampling_rate} Hz. Use the extractor that belongs to its weights."
                )
        return self

    def inputs_of(self, batch: Tensor, starts: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Log-mel spectrograms of the first 0.96 s of each window: what is left, 25 ms, all public versions leave."""
        num_frames = self.network.config.num_frames
        if starts is None:
            log_mel = self.feature_extractor.log_mel(batch)[:, :num_frames]
        else:
            log_mel = self.feature_extractor.log_mel_of_windows(batch, starts, num_frames)
        log_mel = F.pad(log_mel, (0, 0, 0, 0, 0, -len(batch) % WINDOWS_TOGETHER))
        return {"input_features": log_mel.to(self.network.device, self.computing.dtype)}


__all__ = ["VggishEncoder"]
