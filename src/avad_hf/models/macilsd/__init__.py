"""MACIL-SD (Yu et al., 2022): sight and sound attend to each other, and a twin that sees alone teaches sight."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="macilsd",
    title="MACIL-SD",
    folder=__name__,
    config="configuration_macilsd.MacilsdConfig",
    model="modeling_macilsd.MacilsdModel",
    head="modeling_macilsd.MacilsdForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_macilsd.init",
    profiles="training_macilsd.PROFILES",
    profile="macilsd",
    published={"XD-Violence, I3D with 5 crops and VGGish: frame AP, both sizes of the network": "82.17 and 83.40"},
    tiny={"visual_size": 12, "audio_size": 8, "hidden_size": 16, "num_heads": 2, "feedforward_size": 16},
)
