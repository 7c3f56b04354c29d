"""SHADE's references: event classes of crowd videos from frames alone, by an MLP, LSTM, LRCN or 3D ResNet."""

from avad_hf.models.architecture import Architecture

ARCHITECTURE = Architecture(
    model_type="shaderef",
    title="SHADE reference",
    folder=__name__,
    config="configuration_shaderef.ShaderefConfig",
    model="modeling_shaderef.ShaderefModel",
    head="modeling_shaderef.ShaderefForVideoClassification",
    # Its sound is not read.
    processor="avad_hf.models.avrl.processing_avrl.AvrlProcessor",
    init="untrained_shaderef.init",
    profiles="training_shaderef.PROFILES",
    profile="shaderef",
    tiny={"kind": "lrcn", "num_frames": 8, "hidden_sizes": (16, 8), "cnn_sizes": (4, 8)},
)
