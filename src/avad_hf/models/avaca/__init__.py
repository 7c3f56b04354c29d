"""AVACA (Leporowski et al., 2023): scores of clips of traffic videos, from frozen encoders by cross-attention."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="avaca",
    title="AVACA",
    folder=__name__,
    config="configuration_avaca.AvacaConfig",
    model="modeling_avaca.AvacaModel",
    head="modeling_avaca.AvacaForAnomalyDetection",
    processor="processing_avaca.AvacaProcessor",
    init="untrained_avaca.init",
    profiles="training_avaca.PROFILES",
    public_parts="public_parts_avaca.PublicParts",
    published={"ShanghaiTech, weakly supervised split, zero audio: frame AUC": "93.79"},
    tiny={"visual_size": 12, "audio_size": 10, "hidden_size": 16, "intermediate_size": 24},
)
