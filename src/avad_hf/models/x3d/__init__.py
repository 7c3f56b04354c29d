"""X3D (Feichtenhofer, 2020): video encoder and classifier."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="x3d",
    title="X3D",
    folder=__name__,
    config="configuration_x3d.X3dConfig",
    model="modeling_x3d.X3dModel",
    head="modeling_x3d.X3dForVideoClassification",
    feature_extractor="avad_hf.models.feature_extraction_video.VideoFeatureExtractor",
    converter="convert_x3d.CONVERTER",
    tiny={
        "num_frames": 4,
        "widths": (8, 16, 32, 64),
        "depths": (1, 1, 2, 1),
        "hidden_size": 24,
        "pool_size": 2,
        "short_side": 64,
    },
)
