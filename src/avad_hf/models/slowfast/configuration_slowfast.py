"""Configuration of SlowFast."""

from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedModel

from avad_hf.models.checkpoints import CheckpointConfig
from avad_hf.models.encoder import Encoder
from avad_hf.models.settings import Bounds


@strict
class SlowFastConfig(CheckpointConfig):
    r"""Architecture of a SlowFast network; the defaults are SlowFast-R50 8x8 as trained on Kinetics-400.

    Args:
        num_channels: Colour channels of a frame.
        num_frames: Frames of a clip, all of which the fast pathway sees.
        slow_ratio: The slow pathway sees ``num_frames // slow_ratio`` frames (alpha in the SlowFast paper).
        stem_width: Channels after the slow pathway's stem. All other widths follow from it, so that a small network
            for tests is one with a small ``stem_width``.
        fast_ratio: The fast pathway has ``1 / fast_ratio`` of the slow pathway's channels (1 / beta in the paper).
        depths: Residual blocks in each of the four stages.
        fusion_kernel_size: Temporal kernel of the convolutions that carry the fast pathway over to the slow one.
        pool_size: Side of the square window, in cells of the last feature map, that is averaged at stride 1.
        dropout: Probability of dropout before the classifier.
        slow_sampling: Which frames the slow pathway sees: ``"linspace"``, spread from the first to the last one, as
            the published weights were trained; ``"stride"``, every `slow_ratio`-th from the first one on, as the AVACA
            paper says (IV-C, "every fourth frame").

    Raises:
        StrictDataclassClassValidationError: If the sizes do not divide each other.
    """

    model_type = "slowfast"
    summary: ClassVar[str] = "A SlowFast video encoder."
    pipeline_tag: ClassVar[str] = "video-classification"
    later_settings: ClassVar[dict[str, Any]] = {"slow_sampling": "linspace"}

    bounds: ClassVar[Bounds] = {
        "num_channels": (1, 1024),
        "num_frames": (1, 1024),  # a clip of so many frames at 256 x 455 has 360 MB
        "slow_ratio": (1, 1024),
        "stem_width": (1, 4096),  # stages have up to 32 times as many
        "fast_ratio": (1, 4096),
        "depths": (1, 256),
        "fusion_kernel_size": (1, 255),
        "pool_size": (1, 1024),
        "dropout": (0, 1),
    }

    num_channels: int = 3
    num_frames: int = 32
    slow_ratio: int = 4
    stem_width: int = 64
    fast_ratio: int = 8
    depths: list[int] | tuple[int, ...] = (3, 4, 6, 3)
    fusion_kernel_size: int = 7
    pool_size: int = 7
    dropout: float = 0.5
    slow_sampling: Literal["linspace", "stride"] = "linspace"

    def __post_init__(self, **kwargs):
        if self.id2label is None:
            kwargs.setdefault("num_labels", 400)
        super().__post_init__(**kwargs)

    def to_diff_dict(self) -> dict[str, Any]:
        """What is saved: the classes always, which transformers leaves out where there are two."""
        return super().to_diff_dict() | {name: getattr(self, name) for name in ("id2label", "label2id")}

    def validate_architecture(self):
        """Check that both pathways come out with whole widths and lengths."""
        if self.stem_width % self.fast_ratio:
            raise ValueError(f"stem_width {self.stem_width} is not a multiple of fast_ratio {self.fast_ratio}.")
        if self.num_frames % self.slow_ratio:
            raise ValueError(f"num_frames {self.num_frames} is not a multiple of slow_ratio {self.slow_ratio}.")
        if len(self.depths) != 4:
            raise ValueError(f"depths needs four numbers, one a stage; got {list(self.depths)}.")

    def as_encoder(self, network: PreTrainedModel) -> Encoder:
        """The frozen encoder of a network with this config."""
        from .encoder_slowfast import SlowFastEncoder

        return SlowFastEncoder(network)

    @property
    def num_slow_frames(self) -> int:
        """Frames that the slow pathway sees."""
        return self.num_frames // self.slow_ratio

    @property
    def hidden_size(self) -> int:
        """Channels of the feature map: both pathways' last stages, one after the other."""
        slow = 4 * self.stem_width * 2**3
        return slow + slow // self.fast_ratio
