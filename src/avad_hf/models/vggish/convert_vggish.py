"""Published VGGish files: those of torchvggish, of torchaudio, and of TensorFlow, the original."""

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
    compare_outputs,
)

from .configuration_vggish import VggishConfig
from .feature_extraction_vggish import VggishFeatureExtractor
from .modeling_vggish import VggishModel

RELEASE = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"


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

ORIGINS = (
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


def make(file: PublishedFile, config: VggishConfig | None, pca: PublishedFile | None = None) -> CheckpointParts:
    """The parts of a VGGish checkpoint.

    Args:
        file: The network.
        config: Settings of another VGGish than the published one.
        pca: The PCA that may follow the network (``vggish_pca_params``, ``.pth`` or ``.npz``), for the checkpoint to
            carry. No detector of this library uses it.

    Raises:
        ValueError: If the PCA has another size, or the file has one of its own.
    """
    tensors, facts = dict(file.tensors), []
    if pca is not None:
        if "pproc.pca_means" in tensors:
            raise ValueError(f"{file.path} carries a PCA of its own. Leave the other one out; nothing was written.")
        tensors |= _pca_tensors(pca, (config or VggishConfig()).embedding_size)
        facts.append(f"Carries the PCA of `{pca.path.name}`, SHA-256 `{pca.sha256}`.")
    if "pproc.pca_means" in tensors:  # a column in the published file
        tensors["pproc.pca_means"] = tensors["pproc.pca_means"].flatten()
    config = config or VggishConfig(has_pca=any(name.startswith("pproc.") for name in tensors))
    facts += [
        "Trained on a forerunner of YouTube-8M by its authors, if this is the file that they published.",
        "Reads log-mel spectrograms of sound at 16 kHz, 0.96 s each. A ReLU follows the last layer.",
    ]
    return CheckpointParts(config, tensors, VggishFeatureExtractor(), facts)


def _pca_tensors(pca: PublishedFile, size: int) -> dict[str, Tensor]:
    """The PCA under the names that the network has for it."""
    found = {name: tensor.numel() for name, tensor in pca.tensors.items()}
    if found != {"pca_eigen_vectors": size * size, "pca_means": size}:
        raise ValueError(
            f"{pca.path} is no PCA of {size} values: it holds "
            f"{', '.join(f'{name} ({count} values)' for name, count in found.items())}. "
            "Give vggish_pca_params as it is published; nothing was written."
        )
    return {f"pproc.{name}": tensor for name, tensor in pca.tensors.items()}


def compare(model: VggishModel, own: Mapping[str, Tensor] | None) -> Parity | None:
    """Compare embeddings with those of torchvggish's network, as [`Converter`] says."""
    try:
        from torchvggish.torchvggish import VGG, make_layers
    except ImportError:
        return None
    original = VGG(make_layers(), postprocess=False)

    def outputs() -> tuple[Tensor, Tensor]:
        spectrograms = torch.randn(4, 96, 64, generator=torch.Generator().manual_seed(0))
        return original(spectrograms.unsqueeze(1)), model(spectrograms).pooler_output

    # Names here are torchvggish's.
    weights = model.state_dict() if own is None else own
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("pproc.")}
    return compare_outputs(original, weights, outputs, f"torchvggish{RENAMED if own is None else ''}", "embeddings")


CONVERTER = Converter(
    title="VGGish",
    origins=ORIGINS,
    model=VggishModel,
    make=make,
    # torch names files of its hub by the first digits of their hashes.
    downloads={"torchvggish": Download(f"{RELEASE}/vggish-10086976.pth", "10086976")},
    options=("pca",),
    files={"pca": Download(f"{RELEASE}/vggish_pca_params-970ea276.pth", "970ea276")},
    compare=compare,
)

__all__ = ["CONVERTER"]
