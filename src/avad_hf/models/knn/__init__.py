"""Nearest neighbours: how far a clip is from the normal clips that are most like it."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="knn",
    title="KNN",
    folder=__name__,
    config="configuration_knn.KnnConfig",
    model="modeling_knn.KnnModel",
    head="modeling_knn.KnnForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    fit="avad_hf.models.normality.fitting_normality.fit_model",
    tiny={"visual_size": 12, "audio_size": 6, "feature_grid": (2, 3), "num_kept": 8, "num_neighbours": 2},
)
