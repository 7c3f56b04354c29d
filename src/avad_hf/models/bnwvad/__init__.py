"""BN-WVAD (Zhou et al., 2023): scores of clips from a whole video at once, by distances from batch norms' means."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="bnwvad",
    title="BN-WVAD",
    folder=__name__,
    config="configuration_bnwvad.BnwvadConfig",
    model="modeling_bnwvad.BnwvadModel",
    head="modeling_bnwvad.BnwvadForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_bnwvad.init",
    profiles="training_bnwvad.PROFILES",
    profile="bnwvad",
    published={
        "UCF-Crime, I3D: frame AUC": "87.24",
        "XD-Violence, I3D, sight alone: frame AP": "84.93",
    },
    tiny={
        "visual_size": 12,
        "hidden_size": 16,
        "num_heads": 2,
        "head_size": 8,
        "feedforward_size": 16,
        "classifier_sizes": (8, 4),
        "num_segments": 8,
    },
)
