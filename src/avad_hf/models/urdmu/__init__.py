"""UR-DMU (Zhou et al., 2023): scores of clips from a whole video at once, by memories of normal and abnormal."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="urdmu",
    title="UR-DMU",
    folder=__name__,
    config="configuration_urdmu.UrdmuConfig",
    model="modeling_urdmu.UrdmuModel",
    head="modeling_urdmu.UrdmuForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_urdmu.init",
    profiles="training_urdmu.PROFILES",
    profile="urdmu",
    published={
        "UCF-Crime, I3D: frame AUC": "86.97",
        "XD-Violence, I3D, sight alone: frame AP": "81.66",
    },
    tiny={
        "visual_size": 12,
        "hidden_size": 16,
        "num_heads": 2,
        "head_size": 8,
        "feedforward_size": 16,
        "num_slots": 8,
        "classifier_size": 8,
        "num_segments": 8,
    },
)
