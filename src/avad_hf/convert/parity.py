"""How far a converted network is from the original one, where that is installed."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avad_hf.models.slowfast.modeling_slowfast import SlowFastForVideoClassification
from avad_hf.models.vggish.modeling_vggish import VggishModel

# Said where the original was given weights of another project, which a wrong table would have renamed for both.
RENAMED = "'s network with the weights as converted"
# Relative error up to which two float32 networks are the same.
BOUND = 1e-5


@dataclass(frozen=True)
class Parity:
    """A comparison on random input, seed 0.

    Args:
        original: Package of the original network.
        relative_error: Norm of the difference over the norm of the original's output.
        what: Which output.
    """

    original: str
    relative_error: float
    what: str

    @property
    def is_equal(self) -> bool:
        """Whether they are the same but for rounding."""
        return self.relative_error <= BOUND

    def __str__(self) -> str:
        return f"Relative error of the {self.what} against {self.original}: {self.relative_error:.1e} on random input"


def compare_slowfast(model: SlowFastForVideoClassification, own: Mapping[str, Tensor] | None) -> Parity | None:
    """Compare class scores with those of pytorchvideo's network.

    Args:
        model: The converted network.
        own: The original's weights under its own names; ``None`` for files of other projects, whose weights are given
            to it under the names that they became.

    Returns:
        ``None`` if pytorchvideo is not installed, or cannot build this size.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it has not kept up with
            from pytorchvideo.models.slowfast import create_slowfast
    except ImportError:
        return None
    config = model.config
    slow, fast = config.num_slow_frames, config.num_frames
    original = create_slowfast(
        model_num_class=config.num_labels,
        stem_dim_outs=(config.stem_width, config.stem_width // config.fast_ratio),
        slowfast_channel_reduction_ratio=(config.fast_ratio,),
        slowfast_fusion_conv_kernel_size=(config.fusion_kernel_size, 1, 1),
        slowfast_fusion_conv_stride=(config.slow_ratio, 1, 1),
        head_pool_kernel_sizes=(
            (slow, config.pool_size, config.pool_size),
            (fast, config.pool_size, config.pool_size),
        ),
    )
    suffix = ""
    if own is None:
        suffix = RENAMED
        prefixes = {"slowfast.": "", "proj.": "blocks.6.proj."}
        own = {
            new + name.removeprefix(old): value
            for name, value in model.state_dict().items()
            for old, new in prefixes.items()
            if name.startswith(old)
        }
    if not _load(original, own):
        return None
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(1, fast, 3, 224, 224, generator=generator)
    clip = frames.transpose(1, 2)
    picked = torch.linspace(0, fast - 1, slow).long()
    with torch.no_grad():
        expected, found = original.eval()([clip[:, :, picked], clip]), model(frames).logits
    return Parity(f"pytorchvideo{suffix}", _error(found, expected), "class scores")


def compare_vggish(model: VggishModel, own: Mapping[str, Tensor] | None) -> Parity | None:
    """Compare embeddings with those of torchvggish's network; arguments and result as of `compare_slowfast`."""
    try:
        from torchvggish.torchvggish import VGG, make_layers
    except ImportError:
        return None
    original = VGG(make_layers(), postprocess=False)
    weights = {n: value for n, value in (own or model.state_dict()).items() if not n.startswith("pproc.")}
    if not _load(original, weights):
        return None
    spectrograms = torch.randn(4, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = original.eval()(spectrograms.unsqueeze(1)), model(spectrograms).pooler_output
    return Parity("torchvggish" if own else f"torchvggish{RENAMED}", _error(found, expected), "embeddings")


def _load(original: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Give the original these weights; false if it is built in other sizes, and cannot be compared."""
    shapes = {name: tensor.shape for name, tensor in original.state_dict().items()}
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    if weights.keys() - shapes.keys():
        return False
    if any(shapes[name] != weights[name].shape if name in weights else name not in counters for name in shapes):
        return False
    original.load_state_dict(dict(weights), strict=False)
    return True


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


__all__ = ["Parity", "compare_slowfast", "compare_vggish"]
