"""AVRL (Gao et al., 2021): event classes of crowd videos, from networks that are trained as a whole."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="avrl",
    title="AVRL",
    folder=__name__,
    config="configuration_avrl.AvrlConfig",
    model="modeling_avrl.AvrlModel",
    head="modeling_avrl.AvrlForVideoClassification",
    processor="processing_avrl.AvrlProcessor",
    init="untrained_avrl.init",
    profiles="training_avrl.PROFILES",
    profile="avrl",
    tiny={
        "video_config": {"stem_width": 8, "depths": (1, 1, 1, 1)},
        "audio_config": {"hidden_sizes": (8, 8, 16, 32), "intermediate_size": 16, "embedding_size": 8},
        "hidden_sizes": (16, 16),
    },
)
