"""VGGish as a frozen encoder."""

from transformers import PreTrainedModel

from avad_hf.models.log_mel import LogMelEncoder

from .feature_extraction_vggish import VggishFeatureExtractor
from .modeling_vggish import TIME_STAGES


class VggishEncoder(LogMelEncoder):
    """VGGish's embedding of one second of sound.

    Args:
        network: A [`VggishModel`], or what was exported from one.
    """

    title = "VGGish"
    extractor = VggishFeatureExtractor
    int8_bound = 0.006
    time_stages = TIME_STAGES
    engines_share = True

    def __init__(self, network: PreTrainedModel):
        super().__init__(network, width=network.config.embedding_size)


__all__ = ["VggishEncoder"]
