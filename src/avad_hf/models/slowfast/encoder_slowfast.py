"""SlowFast as a frozen encoder."""

from transformers import PreTrainedModel

from avad_hf.models.encoder import EncoderSpec, VideoEncoder


class SlowFastEncoder(VideoEncoder):
    """SlowFast's feature map, both pathways one after the other.

    Args:
        network: A [`SlowFastModel`], or what was exported from one.
    """

    def __init__(self, network: PreTrainedModel):
        super().__init__(network)
        config = network.config
        self.spec = EncoderSpec(
            reads="pixels",
            gives="map",
            width=config.hidden_size,
            num_frames=config.num_frames,
            frame_step=2,
            size=256,
            grid=(2, 9),  # of frames of 256 x 455 pixels
            classes=config.class_names,
        )


__all__ = ["SlowFastEncoder"]
