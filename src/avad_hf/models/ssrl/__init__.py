"""SSRL (Li et al., 2022): scores of clips from a whole video at once, by patches of its frames at several scales."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="ssrl",
    title="SSRL",
    folder=__name__,
    config="configuration_ssrl.SsrlConfig",
    model="modeling_ssrl.SsrlModel",
    head="modeling_ssrl.SsrlForAnomalyDetection",
    # It makes features of any encoders, and of patches, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_ssrl.init",
    profiles="training_ssrl.PROFILES",
    profile="ssrl",
    published={"ShanghaiTech, weakly supervised split, I3D with 10 crops, four stages: frame AUC": "97.98"},
    tiny={
        "visual_size": 12,
        "patches": ((2, 3),),
        "stage": 2,
        "patch_size": 8,
        "classifier_sizes": (16, 8),
        "num_segments": 8,
    },
)
