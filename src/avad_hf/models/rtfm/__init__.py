"""RTFM (Tian et al., 2021): scores of clips from a whole video at once, by the magnitude of their features."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="rtfm",
    title="RTFM",
    folder=__name__,
    config="configuration_rtfm.RtfmConfig",
    model="modeling_rtfm.RtfmModel",
    head="modeling_rtfm.RtfmForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_rtfm.init",
    profiles="training_rtfm.PROFILES",
    profile="rtfm",
    published={"ShanghaiTech, weakly supervised split, I3D with 10 crops: frame AUC": "97.21"},
    tiny={"visual_size": 12, "hidden_size": 16, "attention_size": 8, "classifier_sizes": (16, 8), "num_segments": 8},
)
