"""Published files of 3D-ResNet-34, of 2018 and of 2020.

Shortcuts of type B have weights, and those of type A have none, which tells them apart. Weights of type A were trained
on pixels of 0 to 255 (2018), those of type B on 0 to 1 (2020); the checkpoint says which.
"""

from avad_hf.models.conversion import CheckpointParts, Converter, Origin, PublishedFile, class_count
from avad_hf.models.feature_extraction_video import VideoFeatureExtractor

from .configuration_resnet3d import ResNet3dConfig
from .modeling_resnet3d import ResNet3dForVideoClassification

# ActivityNet's mean, which was subtracted from pixels of 0 to 255 in 2018; nothing was divided.
INPUT_2018 = {"rescale_factor": 1.0, "image_mean": (114.7748, 107.7354, 99.4750), "image_std": (1.0, 1.0, 1.0)}
# What its authors' files of so many classes were trained on.
CORPORA = {
    101: "UCF-101, after Kinetics",
    400: "Kinetics-400",
    700: "Kinetics-700",
    1039: "Kinetics-700 and Moments in Time",
}

ORIGINS = (
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


def make(file: PublishedFile, config: ResNet3dConfig | None, pixel_range: int | None = None) -> CheckpointParts:
    """The parts of a 3D ResNet's checkpoint.

    Args:
        file: The network.
        config: Settings of another network than the 3D-ResNet-34; they say what pixels the weights want.
        pixel_range: 1 or 255, for weights that were trained otherwise than the published ones of their type.

    Raises:
        ValueError: For another range, or a range and a config.
    """
    if pixel_range not in (None, 1, 255):
        raise ValueError(f"pixel_range must be 1 or 255, got {pixel_range!r}.")
    if pixel_range is not None and config is not None:
        raise ValueError("Give pixel_range or config, not both: the config says what pixels the weights want.")
    if config is None:
        kind = "B" if any(".downsample." in name for name in file.tensors) else "A"
        is_2018 = pixel_range == 255 or (pixel_range is None and kind == "A")
        settings = (INPUT_2018 if is_2018 else {}) | class_count(file.tensors, "fc.weight")
        config = ResNet3dConfig(shortcut_type=kind, **settings)
    corpus = CORPORA.get(config.num_labels)
    span = "0 to 255" if config.rescale_factor == 1 else "0 to 1"
    facts = [
        f"Shortcuts of type {config.shortcut_type}. Reads RGB frames with pixels of {span}, mean "
        f"{list(config.image_mean)} and standard deviation {list(config.image_std)}.",
        f"{config.num_labels} classes"
        + (f", as files of its authors that were trained on {corpus} have." if corpus else "."),
        "Its feature extractor scales 16 frames to 112 x 112, where the authors crop.",
    ]
    pixels = {name: getattr(config, name) for name in ("rescale_factor", "image_mean", "image_std")}
    # As its authors test it, but for the crop.
    extractor = VideoFeatureExtractor(num_frames=16, size=(112, 112), **pixels)
    return CheckpointParts(config, file.tensors, extractor, facts)


CONVERTER = Converter(
    title="3D ResNet",
    origins=ORIGINS,
    model=ResNet3dForVideoClassification,
    make=make,
    source_help=(
        "The authors of the 3D ResNets publish their files on Google Drive, which only a browser opens. Download "
        "r3d34_K_200ep.pth or resnet-34-kinetics.pth by the links under 'Pre-trained models' of "
        f"{ORIGINS[0].project}, and give the file."
    ),
    options=("pixel_range",),
)

__all__ = ["CONVERTER"]
