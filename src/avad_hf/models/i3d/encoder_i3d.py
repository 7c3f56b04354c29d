"""I3D as a frozen encoder."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from avad_hf.models.encoder import EncoderSpec, VideoEncoder

from .modeling_i3d import I3dModel

# The 8 x 15 cells of 256 x 455 pixels are averaged to these: a tenth of the store and of the time of training.
GRID = (2, 4)


class I3dEncoder(VideoEncoder):
    """I3D's last map, averaged over time, and the scores of its classes.

    Args:
        network: An [`I3dModel`], or what was exported from one.
    """

    class_output = "logits"
    image_mean = 0.5
    image_std = 0.5

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
            grid=GRID,
            classes=config.class_names,
        )

    def name_features(self, features: Tensor) -> Tensor | None:
        """As of [`Encoder`]. The classifier is linear; it weighs the cells in the middle more than the mean does."""
        if not isinstance(self.network, I3dModel):  # exported
            return None
        with torch.no_grad():
            return self.network.logits(features.to(self.network.dtype)).float().softmax(dim=-1)


__all__ = ["I3dEncoder"]
