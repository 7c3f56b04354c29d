"""SlowFast (Feichtenhofer et al., 2019): video encoder and classifier."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="slowfast",
    title="SlowFast",
    folder=__name__,
    config="configuration_slowfast.SlowFastConfig",
    model="modeling_slowfast.SlowFastModel",
    head="modeling_slowfast.SlowFastForVideoClassification",
    feature_extractor="avad_hf.models.feature_extraction_video.VideoFeatureExtractor",
    converter="convert_slowfast.CONVERTER",
    tiny={"num_frames": 8, "stem_width": 8, "fast_ratio": 4, "depths": (1, 1, 1, 1), "pool_size": 2},
)
