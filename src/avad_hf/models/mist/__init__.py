"""The first stage of MIST (Feng et al., 2021): scores of clips that do not see each other, by parts of videos."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="mist",
    title="MIST (stage 1)",
    folder=__name__,
    config="configuration_mist.MistConfig",
    model="modeling_mist.MistModel",
    head="modeling_mist.MistForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_mist.init",
    profiles="training_mist.PROFILES",
    profile="mist",
    published={"ShanghaiTech, weakly supervised split, stage 2, encoder trained as well: frame AUC": "94.83"},
    tiny={"visual_size": 12, "hidden_sizes": (16, 8), "num_parts": 4, "part_length": 2, "num_selected": 2},
)
