"""X3D as a frozen encoder."""

from transformers import PreTrainedModel

from avad_hf.models.encoder import EncoderSpec, VideoEncoder


class X3dEncoder(VideoEncoder):
    """X3D's feature map, after the pooling.

    Args:
        network: An [`X3dModel`], or what was exported from one.
    """

    # Nobody has measured it on trained weights. Random ones lose 0.06 where every convolution is int8, so that the
    # quantiser leaves some in floating point.
    int8_bound = 0.02

    def __init__(self, network: PreTrainedModel):
        super().__init__(network)
        config = network.config
        self.spec = EncoderSpec(
            reads="pixels",
            gives="map",
            width=config.hidden_size,
            num_frames=config.num_frames,
            frame_step=config.frame_step,
            size=config.short_side,
            grid=config.grid_of(config.short_side, config.short_side * 16 // 9),  # of frames of 16:9
            classes=config.class_names,
        )


__all__ = ["X3dEncoder"]
