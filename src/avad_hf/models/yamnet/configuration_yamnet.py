"""Configuration of YAMNet."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedModel

from avad_hf.models.checkpoints import CheckpointConfig
from avad_hf.models.encoder import Encoder
from avad_hf.models.settings import LARGEST, Bounds


@strict
class YamnetConfig(CheckpointConfig):
    r"""Architecture of a YAMNet network; the defaults are the published one, with AudioSet's 521 classes.

    Args:
        hidden_sizes: Channels of the first convolution, and of each of the depthwise separable ones after it; the
            last is the width of the embedding.
        strides: Stride of each of them, over time and frequency.
        num_mel_bins: Mel bands of the input.
        num_frames: Log-mel frames of one example; 96 frames at 10 ms are the 0.96 s of the published network.

    Raises:
        StrictDataclassClassValidationError: For numbers that no network can have.
    """

    model_type = "yamnet"
    summary: ClassVar[str] = "A YAMNet audio encoder."
    pipeline_tag: ClassVar[str] = "audio-classification"

    bounds: ClassVar[Bounds] = {
        "hidden_sizes": (1, LARGEST),
        "strides": (1, 16),
        "num_mel_bins": (1, 1024),
        "num_frames": (1, 65536),  # ten minutes at 10 ms
    }

    hidden_sizes: list[int] | tuple[int, ...] = (
        32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024,
    )  # fmt: skip
    strides: list[int] | tuple[int, ...] = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    num_mel_bins: int = 64
    num_frames: int = 96

    def __post_init__(self, **kwargs):
        if self.id2label is None:
            kwargs.setdefault("num_labels", 521)
        super().__post_init__(**kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the classes always, which transformers leaves out where there are two."""
        return super().to_diff_dict() | {name: getattr(self, name) for name in ("id2label", "label2id")}

    def validate_architecture(self):
        """Check that each convolution has its channels and its stride."""
        if len(self.hidden_sizes) != len(self.strides):
            raise ValueError(
                f"hidden_sizes and strides need as many numbers, one of each a convolution; got "
                f"{len(self.hidden_sizes)} and {len(self.strides)}."
            )

    def as_encoder(self, network: PreTrainedModel) -> Encoder:
        """The frozen encoder of a network with this config."""
        from .encoder_yamnet import YamnetEncoder

        return YamnetEncoder(network)
