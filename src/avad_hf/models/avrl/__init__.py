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
)
