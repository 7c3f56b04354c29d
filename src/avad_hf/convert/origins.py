"""Where published weights come from, and how their names become this library's: one ordered table an origin."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

# Names of the numbers of a batch norm in Caffe2.
CAFFE2_NORM = {"s": "weight", "b": "bias", "rm": "running_mean", "riv": "running_var"}


@dataclass(frozen=True)
class Origin:
    """Files of one project.

    Args:
        name: Of the project's format.
        project: Its address.
        license: Of the project, as the Hub names it; none is stated for weights apart.
        example: A name that these files have.
        mark: Matches names that they have and files of other origins have not.
        table: Patterns of whole names and what they become, in order: the first that matches counts.
        ignored: Matches names of what is no part of the network: states of an optimizer.
        change: What is done to a tensor besides, its new name given.
    """

    name: str
    project: str
    license: str
    example: str
    mark: str
    table: tuple[tuple[str, str], ...]
    ignored: str = r"(?!)"
    change: Callable[[Tensor], Tensor] | None = None


def _slowfast_stages(rows: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
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

SLOWFAST = (
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
            *_slowfast_stages(
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
            *_slowfast_stages(
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


def _from_tensorflow(tensor: Tensor) -> Tensor:
    """Convolutions are height, width, in, out in TensorFlow, and linear layers in, out."""
    return tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor.T if tensor.dim() == 2 else tensor


# TensorFlow's layers, in the order of torchvggish's.
TENSORFLOW_LAYERS = {
    "conv1": "features.0",
    "conv2": "features.3",
    "conv3/conv3_1": "features.6",
    "conv3/conv3_2": "features.8",
    "conv4/conv4_1": "features.11",
    "conv4/conv4_2": "features.13",
    "fc1/fc1_1": "embeddings.0",
    "fc1/fc1_2": "embeddings.2",
    "fc2": "embeddings.4",
}

VGGISH = (
    Origin(
        name="torchvggish",
        project="https://github.com/harritaylor/torchvggish",
        license="apache-2.0",
        example="features.0.weight",
        mark=r"features\.\d+\.(weight|bias)",
        table=((r"((?:features|embeddings|pproc)\..+)", r"\1"),),
    ),
    Origin(
        name="torchaudio",
        project="https://github.com/pytorch/audio",
        license="bsd-2-clause",
        example="features_network.0.weight",
        mark=r"features_network\.\d+\.(weight|bias)",
        table=((r"features_network\.(.+)", r"features.\1"), (r"embedding_network\.(.+)", r"embeddings.\1")),
    ),
    Origin(
        name="TensorFlow",
        project="https://github.com/tensorflow/models/tree/master/research/audioset/vggish",
        license="apache-2.0",
        example="vggish/conv1/weights",
        mark=r"vggish/(conv|fc).*/(weights|biases)",
        ignored=r".*/Adam(_1)?|.*beta[12]_power|.*global_step",
        table=tuple(
            (f"vggish/{before}/{kind}", f"{now}.{name}")
            for before, now in TENSORFLOW_LAYERS.items()
            for kind, name in (("weights", "weight"), ("biases", "bias"))
        ),
        change=_from_tensorflow,
    ),
)

RESNET3D = (
    Origin(
        name="3D-ResNets-PyTorch",
        project="https://github.com/kenshohara/3D-ResNets-PyTorch",
        license="mit",
        example="layer4.0.conv1.weight",
        mark=r"(?:module\.){0,2}layer[1-4]\.\d+\.conv1\.weight",
        table=(
            (r"(?:module\.){0,2}(fc\..+)", r"\1"),
            (r"(?:module\.){0,2}((?:conv1|bn1|layer[1-4])\..+)", r"resnet3d.\1"),
        ),
    ),
)


def origin_of(names: list[str], origins: tuple[Origin, ...]) -> Origin:
    """The origin whose mark is among these names; raises ``ValueError`` if that is not exactly one."""
    found = [origin for origin in origins if any(re.fullmatch(origin.mark, name) for name in names)]
    if len(found) != 1:
        known = ", ".join(f"{origin.example} of {origin.name}" for origin in origins)
        raise ValueError(
            f"its {len(names)} names are those of {'no' if not found else 'more than one'} known origin: "
            f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}. Files must have {known}"
        )
    return found[0]


def renamed(tensors: Mapping[str, Tensor], origin: Origin) -> tuple[dict[str, Tensor], list[str]]:
    """Give tensors this library's names.

    Returns:
        The tensors, and the names that the table does not have, or that become the same name twice.
    """
    result: dict[str, Tensor] = {}
    unused = []
    for name, tensor in tensors.items():
        if re.fullmatch(origin.ignored, name):
            continue
        row = next((row for row in origin.table if re.fullmatch(row[0], name)), None)
        new = None if row is None else re.sub(*row, name)
        if new is None or new in result:
            unused.append(name)
        else:
            result[new] = tensor if origin.change is None else origin.change(tensor)
    return result, unused


__all__ = ["RESNET3D", "SLOWFAST", "VGGISH", "Origin", "origin_of", "renamed"]
