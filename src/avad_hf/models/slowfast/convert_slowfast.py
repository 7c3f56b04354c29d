"""Published SlowFast files: those of pytorchvideo and of PySlowFast, whose names differ."""

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

from .configuration_slowfast import SlowFastConfig
from .modeling_slowfast import SlowFastForVideoClassification

# Names of the numbers of a batch norm in Caffe2.
CAFFE2_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


def _stages(rows: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Rows for every stage: ``<stage>`` counts from 1 in PySlowFast, ``<block>`` from 0 in pytorchvideo and here."""
    return tuple(
        (pattern.replace("<stage>", str(stage)), name.replace("<block>", f"slowfast.blocks.{stage - 1}"))
        for pattern, name in rows
        for stage in range(1, 6)
    )


def _caffe2_norms(rows: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Rows for the four numbers of every batch norm."""
    return tuple(
        (f"{pattern}_{short}", f"{name}.{long}") for pattern, name in rows for short, long in CAFFE2_NORM.items()
    )


PATHWAY = r"<block>.multipathway_blocks"
FUSION = r"<block>.multipathway_fusion"

ORIGINS = (
    Origin(
        name="pytorchvideo",
        project="https://github.com/facebookresearch/pytorchvideo",
        license="apache-2.0",
        example="blocks.0.multipathway_blocks.0.conv.weight",
        mark=r"blocks\.\d\.multipathway_blocks\..*",
        table=((r"blocks\.6\.proj\.(.+)", r"proj.\1"), (r"blocks\.([0-4]\..+)", r"slowfast.blocks.\1")),
    ),
    Origin(
        name="PySlowFast",
        project="https://github.com/facebookresearch/SlowFast",
        license="apache-2.0",
        example="s1.pathway0_stem.conv.weight",
        mark=r"s[1-5]\.pathway[01]_.*",
        table=(
            (r"head\.projection\.(.+)", r"proj.\1"),
            *_stages(
                (
                    (r"s<stage>\.pathway([01])_stem\.conv\.(.+)", rf"{PATHWAY}.\1.conv.\2"),
                    (r"s<stage>\.pathway([01])_stem\.bn\.(.+)", rf"{PATHWAY}.\1.norm.\2"),
                    (r"s<stage>_fuse\.conv_f2s\.(.+)", rf"{FUSION}.conv_fast_to_slow.\1"),
                    (r"s<stage>_fuse\.bn\.(.+)", rf"{FUSION}.norm.\1"),
                    (
                        r"s<stage>\.pathway([01])_res(\d+)\.branch1\.(.+)",
                        rf"{PATHWAY}.\1.res_blocks.\2.branch1_conv.\3",
                    ),
                    (
                        r"s<stage>\.pathway([01])_res(\d+)\.branch1_bn\.(.+)",
                        rf"{PATHWAY}.\1.res_blocks.\2.branch1_norm.\3",
                    ),
                    (
                        r"s<stage>\.pathway([01])_res(\d+)\.branch2\.([abc])\.(.+)",
                        rf"{PATHWAY}.\1.res_blocks.\2.branch2.conv_\3.\4",
                    ),
                    (
                        r"s<stage>\.pathway([01])_res(\d+)\.branch2\.([abc])_bn\.(.+)",
                        rf"{PATHWAY}.\1.res_blocks.\2.branch2.norm_\3.\4",
                    ),
                )
            ),
        ),
    ),
    Origin(
        name="PySlowFast (Caffe2)",
        project="https://github.com/facebookresearch/SlowFast",
        license="apache-2.0",
        example="t_pool1_subsample_w",
        mark=r"t_(pool1|res\d_\d+_branch).*_(w|bn_s)",
        ignored=r".*(momentum|lr|model_iter).*",
        table=(
            (r"pred_w", "proj.weight"),
            (r"pred_b", "proj.bias"),
            (r"conv1_w", "slowfast.blocks.0.multipathway_blocks.0.conv.weight"),
            (r"t_conv1_w", "slowfast.blocks.0.multipathway_blocks.1.conv.weight"),
            (r"t_pool1_subsample_w", "slowfast.blocks.0.multipathway_fusion.conv_fast_to_slow.weight"),
            *_caffe2_norms(
                (
                    (r"res_conv1_bn", "slowfast.blocks.0.multipathway_blocks.0.norm"),
                    (r"t_res_conv1_bn", "slowfast.blocks.0.multipathway_blocks.1.norm"),
                    (r"t_pool1_subsample_bn", "slowfast.blocks.0.multipathway_fusion.norm"),
                )
            ),
            *_stages(
                (
                    (r"t_res<stage>_\d+_branch2c_bn_subsample_w", rf"{FUSION}.conv_fast_to_slow.weight"),
                    *_caffe2_norms(((r"t_res<stage>_\d+_branch2c_bn_subsample_bn", rf"{FUSION}.norm"),)),
                    *(
                        row
                        for prefix, pathway in (("", rf"{PATHWAY}.0"), ("t_", rf"{PATHWAY}.1"))
                        for row in (
                            (rf"{prefix}res<stage>_(\d+)_branch1_w", rf"{pathway}.res_blocks.\1.branch1_conv.weight"),
                            (
                                rf"{prefix}res<stage>_(\d+)_branch2([abc])_w",
                                rf"{pathway}.res_blocks.\1.branch2.conv_\2.weight",
                            ),
                            *_caffe2_norms(
                                (
                                    (
                                        rf"{prefix}res<stage>_(\d+)_branch1_bn",
                                        rf"{pathway}.res_blocks.\1.branch1_norm",
                                    ),
                                    (
                                        rf"{prefix}res<stage>_(\d+)_branch2([abc])_bn",
                                        rf"{pathway}.res_blocks.\1.branch2.norm_\2",
                                    ),
                                )
                            ),
                        )
                    ),
                )
            ),
        ),
    ),
)


def make(file: PublishedFile, config: SlowFastConfig | None) -> CheckpointParts:
    """The parts of a SlowFast checkpoint.

    Raises:
        ValueError: Without a config, for another number of classes than Kinetics-400's.
    """
    if config is None:
        config = SlowFastConfig(**class_count(file.tensors, "proj.weight"))
        if config.num_labels != 400:
            raise ValueError(
                f"{file.path} has {config.num_labels} classes, and the network of Kinetics-400 has 400. Others have "
                "weights of the same shapes and differ in what those do not show: 64 frames, channels in another "
                'order, another stride. If you are sure of yours, call convert("slowfast", ..., config='
                f"SlowFastConfig(num_labels={config.num_labels})) in Python. Nothing was written."
            )
    facts = [
        "Trained on Kinetics-400 by its authors, if this is the file that they published."
        if config.num_labels == 400
        else f"Its classifier has {config.num_labels} classes.",
        f"Reads {config.num_frames} RGB frames as (x / 255 - 0.45) / 0.225.",
    ]
    return CheckpointParts(config, file.tensors, VideoFeatureExtractor(num_frames=config.num_frames), facts)


def compare(model: SlowFastForVideoClassification, own: Mapping[str, Tensor] | None) -> Parity | None:
    """Compare class scores with those of pytorchvideo's network, as [`Converter`] says."""
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

    def outputs() -> tuple[Tensor, Tensor]:
        frames = torch.randn(1, fast, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        clip = frames.transpose(1, 2)
        picked = torch.linspace(0, fast - 1, slow).long()
        return original([clip[:, :, picked], clip]), model(frames).logits

    weights = original_names(model, {"slowfast.": "", "proj.": "blocks.6.proj."}) if own is None else own
    return compare_outputs(original, weights, outputs, f"pytorchvideo{RENAMED if own is None else ''}", "class scores")


CONVERTER = Converter(
    title="SlowFast",
    origins=ORIGINS,
    model=SlowFastForVideoClassification,
    make=make,
    downloads={
        "8x8": Download("https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth"),
    },
    compare=compare,
)

__all__ = ["CONVERTER"]
