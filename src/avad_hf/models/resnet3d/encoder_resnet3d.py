"""The 3D ResNet as a frozen encoder."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from avad_hf.models.encoder import EncoderSpec, VideoEncoder


class ResNet3dEncoder(VideoEncoder):
    """The 3D ResNet's last maps, averaged over time.

    Args:
        network: A [`ResNet3dModel`], or what was exported from one.
    """

    def __init__(self, network: PreTrainedModel):
        config = network.config
        # Pixels within 0 and 1 whatever the weights saw: those of 2018 were trained on 0 to 255.
        scale = 255.0 * config.rescale_factor
        self.image_mean = tuple(value / scale for value in config.image_mean)
        self.image_std = tuple(value / scale for value in config.image_std)
        super().__init__(network)
        self.spec = EncoderSpec(
            reads="pixels",
            gives="map",
            width=config.hidden_size,
            num_frames=16,  # as the authors train and test it
            size=112,
            grid=(4, 7),  # of frames of 112 x 199 pixels
            classes=config.class_names,
        )

    def facts(self) -> dict[str, Any]:
        """Settings of the network, and the frames of a clip, which it does not fix."""
        return super().facts() | {"num_frames": self.spec.num_frames}

    def read(self, outputs: Any) -> Tensor:
        """The map, of shape `(N, width, h, w)`."""
        return super().read(outputs).mean(dim=2)


__all__ = ["ResNet3dEncoder"]
