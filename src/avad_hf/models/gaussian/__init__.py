"""A Gaussian with shrunk covariance: the Mahalanobis distance of a clip to normal ones."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="gaussian",
    title="Gaussian",
    folder=__name__,
    config="configuration_gaussian.GaussianConfig",
    model="modeling_gaussian.GaussianModel",
    head="modeling_gaussian.GaussianForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    fit="avad_hf.models.normality.fitting_normality.fit_model",
    tiny={"visual_size": 12, "audio_size": 6, "feature_grid": (2, 3), "num_kept": 8},
)
