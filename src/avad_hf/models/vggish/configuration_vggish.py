"""Configuration of VGGish."""

from typing import ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedModel

from avad_hf.models.checkpoints import CheckpointConfig
from avad_hf.models.encoder import Encoder
from avad_hf.models.settings import LARGEST, Bounds


@strict
class VggishConfig(CheckpointConfig):
    r"""Architecture of a VGGish network; the defaults are the published one.

    Args:
        hidden_sizes: Channels of the four groups of convolutions, which hold one, one, two and two of them.
        intermediate_size: Width of the two hidden linear layers.
        embedding_size: Width of the embedding.
        num_mel_bins: Mel bands of the input.
        num_frames: Log-mel frames of one example; 96 frames at 10 ms are the 0.96 s of the published network.
        activate_embeddings: Whether a ReLU follows the last linear layer, as in torchvggish and torchaudio. Current
            TensorFlow VGGish has none, with the same weights.
        has_pca: Whether the checkpoint carries the PCA with which AudioSet's features were published.

    Raises:
        StrictDataclassClassValidationError: If the sizes cannot be pooled four times.
    """

    model_type = "vggish"
    summary: ClassVar[str] = "A VGGish audio encoder."
    idle_settings: ClassVar[tuple[str, ...]] = ("has_pca",)  # it follows what detectors use

    bounds: ClassVar[Bounds] = {
        "hidden_sizes": (1, LARGEST),
        "intermediate_size": (1, LARGEST),
        "embedding_size": (1, LARGEST),
        "num_mel_bins": (16, 1024),
        "num_frames": (16, 65536),  # ten minutes at 10 ms
    }

    hidden_sizes: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    intermediate_size: int = 4096
    embedding_size: int = 128
    num_mel_bins: int = 64
    num_frames: int = 96
    activate_embeddings: bool = True
    has_pca: bool = False

    def as_encoder(self, network: PreTrainedModel) -> Encoder:
        """The frozen encoder of a network with this config."""
        from .encoder_vggish import VggishEncoder

        return VggishEncoder(network)

    def validate_architecture(self):
        """Check that four poolings by two leave whole maps."""
        if len(self.hidden_sizes) != 4:
            raise ValueError(f"hidden_sizes needs four numbers, one a group; got {list(self.hidden_sizes)}.")
        for name in ("num_mel_bins", "num_frames"):
            if getattr(self, name) % 16:
                raise ValueError(f"{name} {getattr(self, name)} is not a multiple of 16 (four poolings by two).")
