"""3D ResNet (Hara et al., 2018): video encoder and classifier."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="resnet3d",
    title="3D ResNet",
    folder=__name__,
    config="configuration_resnet3d.ResNet3dConfig",
    model="modeling_resnet3d.ResNet3dModel",
    head="modeling_resnet3d.ResNet3dForVideoClassification",
    feature_extractor="avad_hf.models.feature_extraction_video.VideoFeatureExtractor",
    converter="convert_resnet3d.CONVERTER",
    tiny={"stem_width": 8, "depths": (1, 1, 1, 1)},
)
