"""Published X3D files: those of pytorchvideo.

X3D-L has more blocks than the others. XS, S and M have weights of the same shapes, and differ in the frames that they
were trained on, which the weights do not show: there the option ``variant`` says which it is, or the name under which
the file is published.
"""

import re
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from avad_hf.models.conversion import (
    RENAMED,
    CheckpointParts,
    Converter,
    Download,
    Origin,
    Parity,
    PublishedFile,
    class_count,
    compare_outputs,
    original_names,
)
from avad_hf.models.feature_extraction_video import VideoFeatureExtractor

from .configuration_x3d import PIXELS_A_CELL, SIZES, X3dConfig
from .modeling_x3d import X3dForVideoClassification

RELEASE = "https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics"

ORIGINS = (
    Origin(
        name="pytorchvideo",
        project="https://github.com/facebookresearch/pytorchvideo",
        license="apache-2.0",
        example="blocks.0.conv.conv_xy.weight",
        mark=r"blocks\.(0\.conv\.conv_(t|xy)|5\.pool\.(pre|post)_conv)\.weight",
        table=((r"blocks\.5\.proj\.(.+)", r"proj.\1"), (r"blocks\.([0-5]\..+)", r"x3d.blocks.\1")),
    ),
)


def make(file: PublishedFile, config: X3dConfig | None, variant: str | None = None) -> CheckpointParts:
    """The parts of an X3D checkpoint.

    Args:
        file: The network.
        config: Settings of another network than the published ones.
        variant: Which of the published sizes it is: ``"xs"``, ``"s"``, ``"m"`` or ``"l"``.

    Raises:
        ValueError: For an unknown variant, one that the file cannot be, or one and a config; without a config, if
            nothing tells the size, or for another number of classes than Kinetics-400's.
    """
    if variant is not None and config is not None:
        raise ValueError("Give variant or config, not both: the config says which size it is.")
    facts = []
    if config is None:
        size, reason = _size(file, variant)
        config = X3dConfig.from_size(size, **class_count(file.tensors, "proj.weight"))
        if config.num_labels != 400:
            raise ValueError(
                f"{file.path} has {config.num_labels} classes, and the networks of Kinetics-400 have 400. Others may "
                "have been trained on other frames, which weights do not show. If you are sure of yours, call "
                f'convert("x3d", ..., config=X3dConfig.from_size("{size}", num_labels={config.num_labels})) in '
                "Python. Nothing was written."
            )
        facts.append(f"Taken for X3D-{size.upper()}: {reason}.")
    facts += [
        "Trained on Kinetics-400 by its authors, if this is the file that they published."
        if config.num_labels == 400
        else f"Its classifier has {config.num_labels} classes.",
        f"Reads {config.num_frames} RGB frames as (x / 255 - 0.45) / 0.225. It was trained on frames that are "
        f"{config.frame_step} apart, and crops of {config.short_side} x {config.short_side} pixels.",
    ]
    extractor = VideoFeatureExtractor(num_frames=config.num_frames, size=config.short_side)
    return CheckpointParts(config, file.tensors, extractor, facts)


def _size(file: PublishedFile, variant: str | None) -> tuple[str, str]:
    """Which of the published sizes a file is, and how that is known."""
    if variant is not None and variant not in SIZES:
        raise ValueError(f"variant must be one of {', '.join(SIZES)}, got {variant!r}.")
    # Its third stage tells it from the others; a file that is neither is refused later, weight by weight.
    blocks = {re.match(r"x3d\.blocks\.3\.res_blocks\.(\d+)\.", name) for name in file.tensors}
    depth = len({block[1] for block in blocks if block is not None})
    fitting = [size for size, settings in SIZES.items() if settings["depths"][2] == depth] or list(SIZES)
    if variant is not None:
        if variant not in fitting:
            raise ValueError(
                f"{file.path} is no X3D-{variant.upper()}: its third stage has {depth} blocks, as X3D-"
                f"{fitting[0].upper()} has. Nothing was written."
            )
        return variant, "whoever converted it said so"
    if len(fitting) == 1:
        return fitting[0], f"no other has {depth} blocks in its third stage"
    named = next((size for size in fitting if file.path.name == f"X3D_{size.upper()}.pyth"), None)
    if named is None:
        raise ValueError(
            f"{file.path} may be X3D-{', '.join(size.upper() for size in fitting[:-1])} or {fitting[-1].upper()}: "
            "weights do not show which frames they were trained on. Say which, by variant "
            f"({', '.join(fitting)}), or give the file under the name that it was published by, such as X3D_M.pyth. "
            "Nothing was written."
        )
    return named, "its file has the name that this size was published by"


def compare(model: X3dForVideoClassification, own: Mapping[str, Tensor] | None) -> Parity | None:
    """Compare class scores with those of pytorchvideo's network, as [`Converter`] says.

    Before softmax, which pytorchvideo has in the network, and of frames with a map of 2 x 2 cells.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it has not kept up with
            from pytorchvideo.models.x3d import create_x3d
    except ImportError:
        return None
    config = model.config
    original = create_x3d(
        input_channel=config.num_channels,
        input_clip_length=config.num_frames,
        input_crop_size=PIXELS_A_CELL * config.pool_size,
        model_num_class=config.num_labels,
        # It has half of the stem's channels, and 1, 2, 5 and 3 blocks, and multiplies both.
        stem_dim_in=max(config.widths[0] // 2, 1),
        width_factor=2.0,
        depth_factor=config.depths[2] / 5,
        bottleneck_factor=config.bottleneck_factor,
        se_ratio=config.se_ratio,
        head_dim_out=config.hidden_size,
        head_activation=None,
    )

    def outputs() -> tuple[Tensor, Tensor]:
        side = config.smallest_side + PIXELS_A_CELL
        size = (1, config.num_frames, config.num_channels, side, side)
        frames = torch.randn(size, generator=torch.Generator().manual_seed(0))
        return original(frames.transpose(1, 2)), model(frames).logits

    weights = original_names(model, {"x3d.": "", "proj.": "blocks.5.proj."}) if own is None else own
    return compare_outputs(original, weights, outputs, f"pytorchvideo{RENAMED if own is None else ''}", "class scores")


CONVERTER = Converter(
    title="X3D",
    origins=ORIGINS,
    model=X3dForVideoClassification,
    make=make,
    # Without a variant the first one is downloaded: M, which reads 16 frames, as the AVACA paper did with X3D.
    downloads={size: Download(f"{RELEASE}/X3D_{size.upper()}.pyth") for size in ("m", "xs", "s", "l")},
    options=("variant",),
    compare=compare,
)

__all__ = ["CONVERTER"]
