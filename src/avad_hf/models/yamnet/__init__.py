"""YAMNet (Plakal and Ellis, 2019): audio encoder, and classifier of AudioSet's events."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="yamnet",
    title="YAMNet",
    folder=__name__,
    config="configuration_yamnet.YamnetConfig",
    model="modeling_yamnet.YamnetModel",
    head="modeling_yamnet.YamnetForAudioClassification",
    feature_extractor="feature_extraction_yamnet.YamnetFeatureExtractor",
    converter="convert_yamnet.CONVERTER",
    tiny={"hidden_sizes": (8, 16, 16), "strides": (2, 2, 2)},
)
