"""Published encoders as checkpoints of this library: every weight accounted for, or nothing written."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import FeatureExtractionMixin, PreTrainedModel

from avad_hf.files import check_new
from avad_hf.hub.cards import card
from avad_hf.hub.folders import weights_hash, write_checkpoint
from avad_hf.hub.push import PIPELINE_TAGS
from avad_hf.models.feature_extraction_video import VideoFeatureExtractor
from avad_hf.models.resnet3d.configuration_resnet3d import ResNet3dConfig
from avad_hf.models.resnet3d.modeling_resnet3d import ResNet3dForVideoClassification
from avad_hf.models.slowfast.configuration_slowfast import SlowFastConfig
from avad_hf.models.slowfast.modeling_slowfast import SlowFastForVideoClassification
from avad_hf.models.vggish.configuration_vggish import VggishConfig
from avad_hf.models.vggish.feature_extraction_vggish import VggishFeatureExtractor
from avad_hf.models.vggish.modeling_vggish import VggishModel

from .files import Download, fetch, read_weights, sha256_of
from .origins import RESNET3D, SLOWFAST, VGGISH, Origin, origin_of, renamed
from .parity import Parity, compare_slowfast, compare_vggish

SLOWFAST_FILE = Download("https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/SLOWFAST_8x8_R50.pyth")
# torch names files of its hub by the first digits of their hashes.
VGGISH_FILE = Download(
    "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth", "10086976"
)
PCA_FILE = Download(
    "https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish_pca_params-970ea276.pth", "970ea276"
)
# ActivityNet's mean, which was subtracted from pixels of 0 to 255 in 2018; nothing was divided.
INPUT_2018 = {"rescale_factor": 1.0, "image_mean": (114.7748, 107.7354, 99.4750), "image_std": (1.0, 1.0, 1.0)}


# What its authors' files of so many classes were trained on.
CORPORA_3D = {
    101: "UCF-101, after Kinetics",
    400: "Kinetics-400",
    700: "Kinetics-700",
    1039: "Kinetics-700 and Moments in Time",
}
# What is said where there is no parity.
NOT_COMPARED = "Its output was not compared with that of the original network."


@dataclass(frozen=True)
class Conversion:
    """What a converter has written.

    Args:
        directory: The checkpoint.
        origin: Name of the format that the file was in.
        source_sha256: Of the file.
        num_parameters: Of the network.
        parity: How far its output is from the original network's; ``None`` if that is not installed.
    """

    directory: str
    origin: str
    source_sha256: str
    num_parameters: int
    parity: Parity | None


def convert_slowfast(
    source: str | os.PathLike | None, directory: str | os.PathLike, config: SlowFastConfig | None = None
) -> Conversion:
    """Convert SlowFast-R50 8x8 of pytorchvideo (``.pyth``) or PySlowFast (``.pyth``, or ``.pkl`` of Caffe2).

    Args:
        source: The file as published; ``None`` downloads pytorchvideo's.
        directory: Where to write the checkpoint; new or empty.
        config: Of another SlowFast than the published one, with the names of one of these projects.

    Raises:
        FileExistsError: If the directory holds something.
        FileNotFoundError: If there is no such file.
        ConnectionError: If it cannot be downloaded.
        ValueError: If the file is damaged, would run code, or its weights are not exactly those of the network, all of
            which are listed; if the network's output differs from the original's.
    """
    check_new(directory)
    with _file(source, SLOWFAST_FILE) as path:
        own = read_weights(path)
        origin, tensors, unused = _named(own, path, SLOWFAST)
        if config is None:
            config = SlowFastConfig(**_classes(tensors, "proj.weight"))
            if config.num_labels != len(SlowFastConfig().id2label):
                raise ValueError(
                    f"{path} has {config.num_labels} classes, and the network of Kinetics-400 has 400. Others have "
                    "weights of the same shapes and differ in what those do not show: 64 frames, channels in another "
                    "order, another stride. If you are sure of yours, call convert_slowfast(..., config="
                    f"SlowFastConfig(num_labels={config.num_labels})) in Python. Nothing was written."
                )
        model = _model(SlowFastForVideoClassification, config, tensors, unused, path)
        parity = compare_slowfast(model, own if origin.name == "pytorchvideo" else None)
        _refuse_difference(parity, path)
        facts = [
            "Trained on Kinetics-400 by its authors, if this is the file that they published."
            if config.num_labels == 400
            else f"Its classifier has {config.num_labels} classes.",
            f"Reads {config.num_frames} RGB frames as (x / 255 - 0.45) / 0.225.",
        ]
        extractor = VideoFeatureExtractor(num_frames=config.num_frames)
        return _write(directory, model, extractor, path, origin, parity, "SlowFast", facts, source is None)


def convert_vggish(
    source: str | os.PathLike | None,
    directory: str | os.PathLike,
    pca: str | os.PathLike | bool | None = None,
    config: VggishConfig | None = None,
) -> Conversion:
    """Convert VGGish of torchvggish (``.pth``), torchaudio (``.pt``) or TensorFlow (``vggish_model.ckpt``).

    Args:
        source: The file as published; ``None`` downloads torchvggish's.
        directory: Where to write the checkpoint; new or empty.
        pca: File of the PCA that may follow the network (``vggish_pca_params``, ``.pth`` or ``.npz``), which the
            checkpoint then carries; ``True`` downloads torchvggish's. No detector of this library uses it.
        config: Of another VGGish than the published one.

    Raises:
        FileExistsError: If the directory holds something.
        FileNotFoundError: If there is no such file.
        ConnectionError: If it cannot be downloaded.
        ValueError: As of [`convert_slowfast`].
    """
    check_new(directory)
    with _file(source, VGGISH_FILE) as path:
        own = read_weights(path)
        origin, tensors, unused = _named(own, path, VGGISH)
        facts = []
        if pca:
            if "pproc.pca_means" in tensors:
                raise ValueError(f"{path} carries a PCA of its own. Leave the other one out; nothing was written.")
            with _file(None if pca is True else pca, PCA_FILE) as pca_path:
                tensors |= _pca(pca_path, (config or VggishConfig()).embedding_size)
                facts.append(f"Carries the PCA of `{pca_path.name}`, SHA-256 `{sha256_of(pca_path)}`.")
        if "pproc.pca_means" in tensors:  # a column in the published file
            tensors["pproc.pca_means"] = tensors["pproc.pca_means"].flatten()
        config = config or VggishConfig(has_pca=any(name.startswith("pproc.") for name in tensors))
        model = _model(VggishModel, config, tensors, unused, path)
        parity = compare_vggish(model, own if origin.name == "torchvggish" else None)
        _refuse_difference(parity, path)
        facts += [
            "Trained on a forerunner of YouTube-8M by its authors, if this is the file that they published.",
            "Reads log-mel spectrograms of sound at 16 kHz, 0.96 s each. A ReLU follows the last layer.",
        ]
        return _write(
            directory, model, VggishFeatureExtractor(), path, origin, parity, "VGGish", facts, source is None
        )


def convert_resnet3d(
    source: str | os.PathLike | None,
    directory: str | os.PathLike,
    pixel_range: float | None = None,
    config: ResNet3dConfig | None = None,
) -> Conversion:
    """Convert a 3D-ResNet-34 of 3D-ResNets-PyTorch (``.pth``), of 2018 or of 2020.

    Shortcuts of type B have weights, and those of type A have none, which tells them apart. Weights of type A were
    trained on pixels of 0 to 255 (2018), those of type B on 0 to 1 (2020); the checkpoint says which.

    Args:
        source: The file as published.
        directory: Where to write the checkpoint; new or empty.
        pixel_range: 1 or 255, for weights that were trained otherwise than the published ones of their type.
        config: Of another network than the 3D-ResNet-34; it says what pixels the weights want.

    Raises:
        FileExistsError: If the directory holds something.
        FileNotFoundError: If there is no such file.
        ValueError: As of [`convert_slowfast`]; without a source, since its authors publish on a drive that only
            browsers open.
    """
    check_new(directory)
    if source is None:
        raise ValueError(
            "The authors of the 3D ResNets publish their files on Google Drive, which only a browser opens. "
            "Download r3d34_K_200ep.pth or resnet-34-kinetics.pth by the links under 'Pre-trained models' of "
            f"{RESNET3D[0].project}, and give the file."
        )
    if pixel_range not in (None, 1, 255):
        raise ValueError(f"pixel_range must be 1 or 255, got {pixel_range!r}.")
    if pixel_range is not None and config is not None:
        raise ValueError("Give pixel_range or config, not both: the config says what pixels the weights want.")
    with _file(source, None) as path:
        origin, tensors, unused = _named(read_weights(path), path, RESNET3D)
        if config is None:
            kind = "B" if any(".downsample." in name for name in tensors) else "A"
            is_2018 = pixel_range == 255 or (pixel_range is None and kind == "A")
            config = ResNet3dConfig(
                shortcut_type=kind, **(INPUT_2018 if is_2018 else {}), **_classes(tensors, "fc.weight")
            )
        model = _model(ResNet3dForVideoClassification, config, tensors, unused, path)
        settings = {name: getattr(config, name) for name in ("rescale_factor", "image_mean", "image_std")}
        known = CORPORA_3D.get(config.num_labels)
        span = "0 to 255" if config.rescale_factor == 1 else "0 to 1"
        facts = [
            f"Shortcuts of type {config.shortcut_type}. Reads RGB frames with pixels of {span}, mean "
            f"{list(config.image_mean)} and standard deviation {list(config.image_std)}.",
            f"{config.num_labels} classes"
            + (f", as files of its authors that were trained on {known} have." if known else "."),
            "Its feature extractor scales 16 frames to 112 x 112, where the authors crop.",
        ]
        # As its authors test it, but for the crop.
        extractor = VideoFeatureExtractor(num_frames=16, size=(112, 112), **settings)
        return _write(directory, model, extractor, path, origin, None, "3D ResNet", facts, False)


@contextmanager
def _file(source: str | os.PathLike | None, official: Download | None) -> Iterator[Path]:
    """A file that is there, or one that is downloaded to a folder that goes away."""
    if source is not None:
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield fetch(official, folder)


def _named(
    tensors: Mapping[str, Tensor], path: Path, origins: tuple[Origin, ...]
) -> tuple[Origin, dict[str, Tensor], list[str]]:
    """Where tensors come from, the tensors under their new names, and the names that have no use."""
    try:
        origin = origin_of(list(tensors), origins)
    except ValueError as error:
        raise ValueError(f"{path} is of another network: {error}. Nothing was written.") from error
    return origin, *renamed(tensors, origin)


def _pca(path: Path, size: int) -> dict[str, Tensor]:
    """The PCA under the names that the network has for it."""
    tensors = read_weights(path)
    found = {name: tensor.numel() for name, tensor in tensors.items()}
    if found != {"pca_eigen_vectors": size * size, "pca_means": size}:
        raise ValueError(
            f"{path} is no PCA of {size} values: it holds {', '.join(f'{n} ({c} values)' for n, c in found.items())}. "
            "Give vggish_pca_params as it is published; nothing was written."
        )
    return {f"pproc.{name}": tensor for name, tensor in tensors.items()}


def _classes(tensors: Mapping[str, Tensor], name: str) -> dict[str, int]:
    """How many classes the classifier has; that of the file, since its corpus decides."""
    return {"num_labels": len(tensors[name])} if name in tensors and tensors[name].dim() == 2 else {}


def _model(
    kind: type[PreTrainedModel], config: Any, tensors: dict[str, Tensor], unused: list[str], path: Path
) -> PreTrainedModel:
    """The network with these weights, if they are exactly its own."""
    with torch.device("meta"):
        model = kind(config)
    expected = model.state_dict()
    # Counters of batch norm, which files of torch 0.3 and of Caffe2 do not have, and which inference does not use.
    counters = {name for name in expected if name.endswith("num_batches_tracked")}
    problems = [
        *(
            f"missing: {name} of shape {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() - tensors.keys() - counters)
        ),
        *(f"not used: {name}" for name in sorted([*unused, *(tensors.keys() - expected.keys())])),
        *(
            f"wrong shape: {name} is {tuple(tensors[name].shape)}, and must be {tuple(expected[name].shape)}"
            for name in sorted(expected.keys() & tensors.keys())
            if tensors[name].shape != expected[name].shape
        ),
        *(
            f"not finite: {name}"
            for name in sorted(expected.keys() & tensors.keys())
            if not torch.isfinite(tensors[name]).all()
        ),
    ]
    if problems:
        listed = "\n  ".join(problems)
        raise ValueError(
            f"{path} does not hold exactly the weights of {kind.__name__} ({len(problems)} differences):\n  {listed}\n"
            "Give the file as it is published. Nothing was written."
        )
    zero = torch.zeros((), dtype=torch.int64)
    complete = {name: (tensors.get(name, zero).to(expected[name].dtype).contiguous().clone()) for name in expected}
    model.load_state_dict(complete, assign=True)
    return model.eval()


def _refuse_difference(parity: Parity | None, path: Path) -> None:
    if parity is not None and not parity.is_equal:
        raise ValueError(f"{path}: {parity}. They must be equal to 1e-5; nothing was written.")


def _write(
    directory: str | os.PathLike,
    model: PreTrainedModel,
    extractor: FeatureExtractionMixin,
    path: Path,
    origin: Origin,
    parity: Parity | None,
    title: str,
    facts: list[str],
    is_official: bool,
) -> Conversion:
    sha256 = sha256_of(path)
    written = [
        f"Converted from `{path.name}`, in the format of [{origin.name}]({origin.project}), SHA-256 `{sha256}`.",
        *facts,
        f"Licence of that project: {origin.license}. None is stated for the weights apart from it.",
        str(parity) if parity else NOT_COMPARED,
        f"SHA-256 of the weights here: `{weights_hash(model)}`.",
    ]
    text = card(
        "encoder",
        {"license": origin.license if is_official else None, "pipeline_tag": PIPELINE_TAGS[model.config.model_type]},
        title=f"{title} for avad_hf",
        summary=f"{title} from a file in the format of {origin.name}, in the form of transformers.",
        location=Path(directory).resolve().name,
        kind=model.config.model_type,
        facts=written,
    )
    write_checkpoint(directory, [model, extractor], text)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Conversion(os.fspath(directory), origin.name, sha256, parameters, parity)


__all__ = ["NOT_COMPARED", "Conversion", "convert_resnet3d", "convert_slowfast", "convert_vggish"]
