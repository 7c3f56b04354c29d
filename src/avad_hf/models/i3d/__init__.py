"""I3D (Carreira and Zisserman, 2017): video encoder and classifier."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="i3d",
    title="I3D",
    folder=__name__,
    config="configuration_i3d.I3dConfig",
    model="modeling_i3d.I3dModel",
    head="modeling_i3d.I3dForVideoClassification",
    feature_extractor="avad_hf.models.feature_extraction_video.VideoFeatureExtractor",
    converter="convert_i3d.CONVERTER",
    tiny={"num_frames": 4, "short_side": 32, "id2label": {0: "walk", 1: "fall"}},
)
