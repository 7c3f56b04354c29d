"""Log-mel spectrograms as YAMNet was trained on them."""

from avad_hf.models.log_mel import LogMelFeatureExtractor


class YamnetFeatureExtractor(LogMelFeatureExtractor):
    """Turns mono waveforms at 16 kHz into log-mel frames; its settings are those of [`LogMelFeatureExtractor`].

    The logarithm is that of the mel band plus 0.001, a tenth of VGGish's; all else is the same.
    """

    whole = "a YAMNet audio encoder"
    log_offset = 0.001


__all__ = ["YamnetFeatureExtractor"]
