"""AR-Net (Wan et al., 2020): scores of clips that do not see each other, by their highest ones and a center loss."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="arnet",
    title="AR-Net",
    folder=__name__,
    config="configuration_arnet.ArnetConfig",
    model="modeling_arnet.ArnetModel",
    head="modeling_arnet.ArnetForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_arnet.init",
    profiles="training_arnet.PROFILES",
    profile="arnet",
    published={"ShanghaiTech, weakly supervised split, I3D: frame AUC": "91.24"},
    tiny={"visual_size": 12, "hidden_size": 16},
)
