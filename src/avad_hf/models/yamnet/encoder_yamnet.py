"""YAMNet as a frozen encoder."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from avad_hf.models.log_mel import LogMelEncoder
from avad_hf.models.shared_windows import TimeStage

from .feature_extraction_yamnet import YamnetFeatureExtractor
from .modeling_yamnet import STAGES, YamnetModel, same_padding


class YamnetEncoder(LogMelEncoder):
    """YAMNet's embedding of one second of sound, and the events of AudioSet that it hears.

    Args:
        network: A [`YamnetModel`], or what was exported from one.
    """

    title = "YAMNet"
    extractor = YamnetFeatureExtractor
    class_output = "logits"
    # It stays in floating point: int8 brought an error of 0.12 on a recorded street, of the change from one window to
    # the next of 0.34, and took 19 ms in place of 46 for 32 windows on one core. With the convolutions that lose most,
    # 35% of the work, in floating point the error was 0.045, and probabilities of classes moved by up to 0.22.
    int8_bound = 0.0

    def __init__(self, network: PreTrainedModel):
        super().__init__(network, width=network.config.hidden_sizes[-1])
        length, stages = network.config.num_frames, []
        for stride in network.config.strides[:STAGES]:
            stages.append(TimeStage(3, stride, *same_padding(length, 3, stride)))
            length = -(-length // stride)
        self.time_stages = tuple(stages)

    def name_features(self, features: Tensor) -> Tensor | None:
        """As of [`Encoder`]: what the classifier makes of an embedding."""
        if not isinstance(self.network, YamnetModel):  # exported
            return None
        with torch.no_grad():
            return self.network.classifier(features.to(self.network.dtype)).float().sigmoid()

    def probabilities(self, outputs: Any) -> Tensor:
        """Probabilities of its classes, of which several may be true, in float32."""
        return outputs[self.class_output].float().sigmoid()


__all__ = ["YamnetEncoder"]
