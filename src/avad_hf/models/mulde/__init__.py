"""MULDE (Micorek et al., 2024): the log density of normal clips at several scales, learned by a small network."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="mulde",
    title="MULDE",
    folder=__name__,
    config="configuration_mulde.MuldeConfig",
    model="modeling_mulde.MuldeModel",
    head="modeling_mulde.MuldeForAnomalyDetection",
    # It makes features of any encoders, for every detector that reads features.
    processor="avad_hf.models.avaca.processing_avaca.AvacaProcessor",
    fit="avad_hf.models.normality.fitting_normality.fit_model",
    tiny={
        "visual_size": 12,
        "audio_size": 6,
        "feature_grid": (2, 3),
        "num_kept": 8,
        "hidden_sizes": (16, 16),
        "num_levels": 4,
        "num_components": 2,
    },
)
