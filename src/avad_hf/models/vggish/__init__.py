"""VGGish (Hershey et al., 2017): audio encoder."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="vggish",
    title="VGGish",
    folder=__name__,
    config="configuration_vggish.VggishConfig",
    model="modeling_vggish.VggishModel",
    feature_extractor="feature_extraction_vggish.VggishFeatureExtractor",
    converter="convert_vggish.CONVERTER",
    tiny={"hidden_sizes": (8, 8, 16, 32), "intermediate_size": 16, "embedding_size": 8},
)
