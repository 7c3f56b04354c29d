"""S3R (Wu et al., 2022): scores of clips from a whole video at once, beside what normal footage would look like."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="s3r",
    title="S3R",
    folder=__name__,
    config="configuration_s3r.S3rConfig",
    model="modeling_s3r.S3rModel",
    head="modeling_s3r.S3rForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    init="untrained_s3r.init",
    profiles="training_s3r.PROFILES",
    profile="s3r",
    published={"ShanghaiTech, weakly supervised split, I3D with 10 crops: frame AUC": "97.48"},
    tiny={"visual_size": 32, "num_atoms": 3, "num_segments": 8},
)
