"""Log-mel spectrograms as VGGish was trained on them."""

from avad_hf.models.log_mel import LogMelFeatureExtractor


class VggishFeatureExtractor(LogMelFeatureExtractor):
    """Turns mono waveforms at 16 kHz into log-mel frames; its settings are those of [`LogMelFeatureExtractor`].

    The logarithm is that of the mel band plus 0.01.
    """

    whole = "a VGGish audio encoder"
    log_offset = 0.01


__all__ = ["VggishFeatureExtractor"]
