"""Converted encoders equal the originals, with random weights in their files, and are whole checkpoints.

Where it is not the size that matters the networks are small ones of the same names.
"""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvggish.torchvggish
from huggingface_hub import ModelCard
from pytorchvideo.models.slowfast import create_slowfast
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForVideoClassification, AutoProcessor

from avad_hf import (
    ResNet3dConfig,
    ResNet3dForVideoClassification,
    ResNet3dModel,
    SlowFastConfig,
    SlowFastForVideoClassification,
    SlowFastModel,
    VggishConfig,
    VggishFeatureExtractor,
    VggishModel,
)
from avad_hf.convert.encoders import convert
from avad_hf.convert.files import sha256_of
from avad_hf.media.sources import open_media
from avad_hf.models.feature_extraction_video import VideoFeatureExtractor
from avad_hf.models.slowfast import convert_slowfast
from avad_hf.models.vggish import convert_vggish
from avad_hf.untrained import init_avaca, init_avrl

from .test_convert_files import (
    SMALL_SLOWFAST,
    expect_small,
    save_as_torch_0_3,
    save_caffe2,
    save_pca,
    save_pyslowfast,
    save_pytorchvideo,
    save_tensorflow,
    slowfast_names,
    small_pca,
    small_resnet3d,
    small_slowfast,
    small_tensorflow,
    small_vggish,
    uncounted,
)
from .test_resnet3d import NaiveResNet3d, near, randomise

pytestmark = pytest.mark.usefixtures("one_thread")

KINETICS = (1 / 255, (0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737))
ACTIVITYNET = (1.0, (114.7748, 107.7354, 99.4750), (1.0, 1.0, 1.0))


@pytest.fixture
def small(monkeypatch):
    """The converters expect small networks."""
    expect_small(monkeypatch)


def saved(directory) -> dict:
    """Weights of a checkpoint."""
    return AutoModelForVideoClassification.from_pretrained(directory).state_dict()


def facts(directory) -> str:
    """What the card says of the weights."""
    return ModelCard.load(Path(directory) / "README.md").text.split("## Weights")[1].split("## Limits")[0]


# SlowFast


@pytest.fixture(scope="module")
def slowfast(tmp_path_factory):
    """pytorchvideo's own network, its file, and what became of it."""
    folder = tmp_path_factory.mktemp("slowfast")
    original = create_slowfast(model_depth=50, slowfast_fusion_conv_kernel_size=(7, 1, 1)).eval()
    randomise(original)
    file = save_pytorchvideo(original.state_dict(), folder / "SLOWFAST_8x8_R50.pyth")
    done = convert("slowfast", file, folder / "new")
    yield SimpleNamespace(original=original, file=file, done=done, directory=folder / "new")
    shutil.rmtree(folder)


@torch.no_grad()
def test_slowfast_of_pytorchvideo(slowfast):
    done, original = slowfast.done, slowfast.original
    assert (done.origin, done.directory, done.num_parameters) == ("pytorchvideo", str(slowfast.directory), 34_566_488)
    assert done.parity.original == "pytorchvideo" and 0 < done.parity.relative_error < 1e-5
    frames = torch.randn(1, 32, 3, 193, 200)
    clip = frames.transpose(1, 2)
    maps = [clip[:, :, [0, 4, 8, 13, 17, 22, 26, 31]], clip]
    for block in original.blocks[:6]:
        maps = block(maps)
    model = SlowFastForVideoClassification.from_pretrained(slowfast.directory)
    assert not model.training
    found = model.slowfast(frames)
    assert near(found.feature_map, maps.squeeze(2))
    expected = original.blocks[6](maps)
    assert expected.std() > 0.1 and near(model.proj(found.pooler_output), expected)
    weights = original.state_dict()
    for body in (AutoModel.from_pretrained(slowfast.directory), SlowFastModel.from_pretrained(slowfast.directory)):
        assert type(body) is SlowFastModel
        for name, tensor in body.state_dict().items():
            assert torch.equal(tensor, weights[name]), name


def test_slowfast_checkpoint_is_whole(slowfast):
    files = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert {path.name for path in slowfast.directory.iterdir()} == files
    extractor = AutoFeatureExtractor.from_pretrained(slowfast.directory)
    assert isinstance(extractor, VideoFeatureExtractor)
    assert (extractor.num_frames, extractor.size, extractor.rescale_factor) == (32, 256, 1 / 255)
    assert (extractor.image_mean, extractor.image_std) == ((0.45,) * 3, (0.225,) * 3)
    config = SlowFastConfig.from_pretrained(slowfast.directory)
    assert (config.num_labels, config.notice) == (400, None)


def test_slowfast_card_says_where_it_comes_from(slowfast):
    card = ModelCard.load(slowfast.directory / "README.md")
    # Whose file it is nobody knows: it was not downloaded.
    assert (card.data.license, card.data.library_name) == (None, "avad-hf")
    assert card.data.pipeline_tag == "video-classification"
    assert slowfast.done.source_sha256 == sha256_of(slowfast.file)
    said = facts(slowfast.directory)
    for words in (
        "`SLOWFAST_8x8_R50.pyth`, in the format of [pytorchvideo](https://github.com/facebookresearch/pytorchvideo)",
        f"SHA-256 `{slowfast.done.source_sha256}`",
        "Licence of that project: apache-2.0",
        f"class scores against pytorchvideo: {slowfast.done.parity.relative_error:.1e} on random input",
        "Reads 32 RGB frames as (x / 255 - 0.45) / 0.225",
    ):
        assert words in said


def test_slowfast_names_are_those_that_pyslowfast_says():
    """From the comments of its slowfast/utils/c2_model_loading.py, and a module printed by one of its users."""
    names = {(theirs, caffe2) for _, theirs, caffe2 in slowfast_names()}
    assert names > {
        ("s1_fuse.bn.running_mean", "t_pool1_subsample_bn_rm"),
        ("s4_fuse.bn.running_var", "t_res4_5_branch2c_bn_subsample_bn_riv"),
        ("s4_fuse.conv_f2s.weight", "t_res4_5_branch2c_bn_subsample_w"),
        ("s4.pathway0_res4.branch2.c_bn.bias", "res4_4_branch2c_bn_b"),
        ("s1.pathway0_stem.bn.weight", "res_conv1_bn_s"),
        ("s1.pathway1_stem.conv.weight", "t_conv1_w"),
        ("s4.pathway0_res0.branch1.weight", "res4_0_branch1_w"),
        ("s5.pathway1_res2.branch2.a.weight", "t_res5_2_branch2a_w"),
        ("head.projection.weight", "pred_w"),
    }


@pytest.mark.parametrize(
    ("save", "origin"),
    [(save_pytorchvideo, "pytorchvideo"), (save_pyslowfast, "PySlowFast"), (save_caffe2, "PySlowFast (Caffe2)")],
)
def test_every_weight_of_slowfast_arrives(small, tmp_path, save, origin):
    weights = small_slowfast(num_labels=6)
    config = SlowFastConfig(**SMALL_SLOWFAST, num_labels=6)
    done = convert("slowfast", save(weights, tmp_path / "a.pyth"), tmp_path / "new", config=config)
    # Compared from Caffe2's names too: its weights go to pytorchvideo under the names that they got, which is said.
    renamed = "" if save is save_pytorchvideo else "'s network with the weights as converted"
    assert done.origin == origin and done.parity.original == f"pytorchvideo{renamed}"
    assert 0 < done.parity.relative_error < 1e-5
    found = saved(tmp_path / "new")
    assert len(found) == len(weights) == 662 and found["proj.weight"].shape == (6, 256 + 64)
    for name, tensor in weights.items():
        name = name.replace("blocks.6.", "") if "proj" in name else f"slowfast.{name}"
        is_uncounted = name.endswith("num_batches_tracked") and save is save_caffe2
        assert torch.equal(found[name], torch.tensor(0) if is_uncounted else tensor), name
    assert f"in the format of [{origin}](https://github.com/facebookresearch/" in facts(tmp_path / "new")


def test_slowfast_of_another_size(tmp_path):
    """SlowFast 4x16: its slow pathway sees every eighth frame, and its fusion has another kernel and stride."""
    config = SlowFastConfig(**SMALL_SLOWFAST, slow_ratio=8, fusion_kernel_size=5, num_labels=3)
    weights = small_slowfast(slow_ratio=8, fusion_kernel_size=5, num_labels=3)
    done = convert("slowfast", save_pyslowfast(weights, tmp_path / "a.pyth"), tmp_path / "new", config=config)
    assert 0 < done.parity.relative_error < 1e-5
    assert SlowFastConfig.from_pretrained(tmp_path / "new").slow_ratio == 8


def test_slowfast_is_not_compared_with_another_depth(tmp_path):
    """pytorchvideo's R50 has weights of the same names and shapes as a deeper network."""
    depths = (3, 4, 7, 3)
    weights = small_slowfast(depths=depths)
    config = SlowFastConfig(**SMALL_SLOWFAST, depths=depths)
    file = save_pytorchvideo(weights, tmp_path / "a.pyth")
    assert convert("slowfast", file, tmp_path / "new", config=config).parity is None


# VGGish


@pytest.fixture(scope="module")
def vggish(tmp_path_factory):
    """torchvggish's own network with its own PCA, their files, and what became of them."""
    folder = tmp_path_factory.mktemp("vggish")
    rng = np.random.default_rng(0)
    pca = {"pca_eigen_vectors": rng.normal(0, 0.1, (128, 128)), "pca_means": rng.normal(0, 0.3, (128, 1))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "load_state_dict_from_url", lambda url: pca)
        original = torchvggish.torchvggish.VGG(torchvggish.torchvggish.make_layers(), postprocess=True).eval()
    randomise(original)
    torch.save(original.state_dict(), folder / "vggish.pth")
    torch.save(pca, folder / "pca.pth", _use_new_zipfile_serialization=False)
    done = convert("vggish", folder / "vggish.pth", folder / "new", pca=folder / "pca.pth")
    yield SimpleNamespace(original=original, file=folder / "vggish.pth", done=done, directory=folder / "new")
    shutil.rmtree(folder)


@torch.no_grad()
def test_vggish_of_torchvggish_with_its_pca(vggish, monkeypatch):
    assert (vggish.done.origin, vggish.done.num_parameters) == ("torchvggish", 72_141_184)
    assert vggish.done.parity.original == "torchvggish" and vggish.done.parity.relative_error < 1e-5
    spectrograms = torch.randn(3, 96, 64)
    found = VggishModel.from_pretrained(vggish.directory)(spectrograms)
    levels = vggish.original(spectrograms.unsqueeze(1))
    monkeypatch.setattr(vggish.original, "postprocess", False)
    embeddings = vggish.original(spectrograms.unsqueeze(1))
    assert embeddings.std() > 0.1 and near(found.pooler_output, embeddings)
    assert len(levels.unique()) > 100 and (levels.min(), levels.max()) == (0, 255)
    # A rounding apart where a value lies between two levels.
    assert (found.quantized_embeddings == levels).float().mean() > 0.99
    torch.testing.assert_close(found.quantized_embeddings, levels, atol=1, rtol=0)


def test_vggish_checkpoint_is_whole(vggish):
    files = {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"}
    assert {path.name for path in vggish.directory.iterdir()} == files
    assert type(AutoModel.from_pretrained(vggish.directory)) is VggishModel
    assert isinstance(AutoFeatureExtractor.from_pretrained(vggish.directory), VggishFeatureExtractor)
    said = facts(vggish.directory)
    for words in (
        "`vggish.pth`, in the format of [torchvggish](https://github.com/harritaylor/torchvggish)",
        f"SHA-256 `{vggish.done.source_sha256}`",
        "Licence of that project: apache-2.0",
        f"embeddings against torchvggish: {vggish.done.parity.relative_error:.1e} on random input",
        "Carries the PCA of `",
    ):
        assert words in said


def naive_tensorflow_vggish(tensors: dict, spectrogram: np.ndarray) -> np.ndarray:
    """Height, width, channel, as TensorFlow computes."""
    x = spectrogram[:, :, None]
    layers = {"conv1": 2, "conv2": 2, "conv3/conv3_1": 1, "conv3/conv3_2": 2, "conv4/conv4_1": 1, "conv4/conv4_2": 2}
    for name, pool in layers.items():
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((1, 1), (1, 1), (0, 0))), (3, 3), (0, 1))
        x = np.einsum("hwcij,ijco->hwo", windows, tensors[f"vggish/{name}/weights"]) + tensors[f"vggish/{name}/biases"]
        height, width, channels = x.shape
        x = np.maximum(x, 0).reshape(height // pool, pool, width // pool, pool, channels).max((1, 3))
    x = x.flatten()
    for name in ("fc1/fc1_1", "fc1/fc1_2", "fc2"):
        x = np.maximum(x @ tensors[f"vggish/{name}/weights"] + tensors[f"vggish/{name}/biases"], 0)
    return x


@torch.no_grad()
def test_vggish_of_tensorflow(small, tmp_path):
    """The order of axes in convolutions, linear layers and between them; with states of a training beside."""
    tensors = small_tensorflow()
    beside = {"global_step": np.ones(1), "vggish/fc2/biases/Adam_1": np.ones(8), "vggish/beta1_power": np.ones(1)}
    done = convert("vggish", save_tensorflow(tensors | beside, tmp_path / "vggish_model.ckpt"), tmp_path / "new")
    assert done.origin == "TensorFlow"
    spectrograms = torch.randn(3, 96, 64)
    expected = np.stack([naive_tensorflow_vggish(tensors, spectrogram.numpy()) for spectrogram in spectrograms])
    found = VggishModel.from_pretrained(tmp_path / "new")(spectrograms).pooler_output
    assert (expected > 0).mean() > 0.2 and near(found, torch.from_numpy(expected))
    assert "[TensorFlow](https://github.com/tensorflow/models/" in facts(tmp_path / "new")


def test_vggish_of_torchaudio(small, tmp_path):
    weights = small_vggish()
    parts = {"features": "features_network", "embeddings": "embedding_network"}
    renamed = {re.sub(r"^\w+", lambda found: parts[found[0]], name): value for name, value in weights.items()}
    torch.save(renamed, tmp_path / "vggish.pt")
    done = convert("vggish", tmp_path / "vggish.pt", tmp_path / "new")
    found = VggishModel.from_pretrained(tmp_path / "new").state_dict()
    assert done.origin == "torchaudio" and found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert "Licence of that project: bsd-2-clause" in facts(tmp_path / "new")


@pytest.mark.parametrize("kind", ["archive", "legacy", "numpy 1", "npz", "in the file"])
@torch.no_grad()
def test_pca_is_that_of_torchvggish(small, tmp_path, kind):
    weights, pca, file = small_vggish(), small_pca(), None
    if kind == "in the file":  # as newer torchvggish keeps it
        weights |= {f"pproc.{name}": torch.from_numpy(value).float() for name, value in pca.items()}
    else:
        file = save_pca(tmp_path / "pca.pth", kind)
    torch.save(weights, tmp_path / "a.pth")
    convert("vggish", tmp_path / "a.pth", tmp_path / "new", pca=file)
    model = VggishModel.from_pretrained(tmp_path / "new")
    assert model.config.has_pca and model.pproc.pca_means.shape == (8,)
    found = model(torch.randn(40, 96, 64))
    rotated = pca["pca_eigen_vectors"] @ (found.pooler_output.double().numpy().T - pca["pca_means"])
    levels = torch.from_numpy(np.round((np.clip(rotated.T, -2, 2) + 2) * 255 / 4)).float()
    assert levels.std() > 10 and (found.quantized_embeddings == levels).float().mean() > 0.99
    torch.testing.assert_close(found.quantized_embeddings, levels, atol=1, rtol=0)


def test_vggish_without_pca_has_none(small, tmp_path):
    torch.save(small_vggish(), tmp_path / "a.pth")
    convert("vggish", tmp_path / "a.pth", tmp_path / "new")
    model = VggishModel.from_pretrained(tmp_path / "new")
    assert not model.config.has_pca and model(torch.zeros(1, 96, 64)).quantized_embeddings is None
    assert "PCA" not in facts(tmp_path / "new")


# What the comparison with the original is for


def test_weights_that_are_exchanged_are_noticed(small, vggish, tmp_path, monkeypatch):
    """Two of one shape, by the table."""
    norm = r"blocks\.1\.multipathway_blocks\.0\.res_blocks\.1\.branch2\.norm_{}\.weight"
    for module, one, other, prefix in (
        (convert_slowfast, norm.format("a"), norm.format("b"), "slowfast."),
        (convert_vggish, r"features\.6\.bias", r"features\.8\.bias", ""),
    ):
        first, *rest = module.CONVERTER.origins
        rows = tuple((before, prefix + now.replace("\\", "")) for before, now in ((one, other), (other, one)))
        origins = (replace(first, table=rows + first.table), *rest)
        monkeypatch.setattr(module, "CONVERTER", replace(module.CONVERTER, origins=origins))
    file = save_pytorchvideo(small_slowfast(), tmp_path / "a.pyth")
    with pytest.raises(ValueError, match=r"a.pyth: .*class scores against pytorchvideo: .*equal to 1e-5; nothing was"):
        convert("slowfast", file, tmp_path / "new")
    monkeypatch.setattr(convert_vggish, "VggishConfig", VggishConfig)
    with pytest.raises(ValueError, match=r"vggish.pth: .*embeddings against torchvggish: .*equal to 1e-5; nothing"):
        convert("vggish", vggish.file, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pyth"]


def test_originals_need_not_be_installed(small, vggish, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorchvideo.models.slowfast", None)
    monkeypatch.setitem(sys.modules, "torchvggish.torchvggish", None)
    file = save_pytorchvideo(small_slowfast(), tmp_path / "a.pyth")
    assert convert("slowfast", file, tmp_path / "slowfast").parity is None
    monkeypatch.setattr(convert_vggish, "VggishConfig", VggishConfig)
    beside = vggish.file.with_name("uncompared")
    assert convert("vggish", vggish.file, beside).parity is None
    for directory in (tmp_path / "slowfast", beside):
        assert "was not compared with that of the original network" in facts(directory)
        assert "Relative error" not in facts(directory)


# 3D ResNets


@torch.no_grad()
def test_resnet3d_of_2018_in_the_published_size(tmp_path):
    """As torch 0.3 wrote it from a network on GPUs, with the state of its training."""
    naive = NaiveResNet3d("A", num_labels=400)
    randomise(naive)
    weights = uncounted({f"module.{name}": value for name, value in naive.state_dict().items()})
    optimizer = {"state": {139: {"momentum_buffer": torch.ones(5)}}, "param_groups": [{"lr": 0.1, "params": [139]}]}
    content = {"epoch": 110, "arch": "resnet-34", "state_dict": weights, "optimizer": optimizer}
    file = save_as_torch_0_3(content, tmp_path / "resnet-34-kinetics.pth")
    done = convert("resnet3d", file, tmp_path / "new")
    assert (done.origin, done.num_parameters, done.parity) == ("3D-ResNets-PyTorch", 63_544_912, None)
    frames = torch.randn(1, 8, 3, 48, 80)
    model = ResNet3dForVideoClassification.from_pretrained(tmp_path / "new")
    expected = naive.eval()(frames)
    assert expected.std() > 0.1 and near(model(frames).logits, expected)
    assert all(tensor == 0 for name, tensor in model.state_dict().items() if name.endswith("num_batches_tracked"))
    assert type(AutoModel.from_pretrained(tmp_path / "new")) is ResNet3dModel
    assert "Licence of that project: mit" in facts(tmp_path / "new")
    said = facts(tmp_path / "new")
    assert "Shortcuts of type A. Reads RGB frames with pixels of 0 to 255, mean [114.7748, 107.7354, 99.475]" in said
    assert f"(https://github.com/kenshohara/3D-ResNets-PyTorch), SHA-256 `{done.source_sha256}`" in said
    shutil.rmtree(tmp_path)  # 500 MB


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module."])
@pytest.mark.parametrize("shortcut", ["A", "B"])
@torch.no_grad()
def test_resnet3d_of_both_types(small, tmp_path, shortcut, prefix, is_legacy):
    weights = small_resnet3d(shortcut, prefix)
    content = {"epoch": 200, "arch": "resnet-34", "state_dict": weights, "optimizer": {"state": {}}}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not is_legacy)
    convert("resnet3d", tmp_path / "a.pth", tmp_path / "new")
    model = ResNet3dForVideoClassification.from_pretrained(tmp_path / "new")
    assert model.config.shortcut_type == shortcut
    naive = NaiveResNet3d(shortcut, 5, width=8, depths=(1, 1, 1, 1)).eval()
    naive.load_state_dict({name.removeprefix(prefix): value for name, value in weights.items()})
    frames = torch.randn(1, 6, 3, 40, 40)
    assert near(model(frames).logits, naive(frames))
    assert model.state_dict()["resnet3d.bn1.num_batches_tracked"] == 7


@pytest.mark.parametrize(
    ("shortcut", "pixel_range", "expected", "span"),
    [
        ("A", None, ACTIVITYNET, "0 to 255"),
        ("A", 255, ACTIVITYNET, "0 to 255"),
        ("A", 1, KINETICS, "0 to 1,"),
        ("B", None, KINETICS, "0 to 1,"),
        ("B", 1, KINETICS, "0 to 1,"),
        ("B", 255, ACTIVITYNET, "0 to 255"),
    ],
)
def test_resnet3d_says_what_pixels_it_reads(small, tmp_path, shortcut, pixel_range, expected, span):
    torch.save({"state_dict": small_resnet3d(shortcut)}, tmp_path / "a.pth")
    convert("resnet3d", tmp_path / "a.pth", tmp_path / "new", pixel_range=pixel_range)
    config = ResNet3dConfig.from_pretrained(tmp_path / "new")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "new")
    for found in (config, extractor):
        assert (found.rescale_factor, tuple(found.image_mean), tuple(found.image_std)) == expected
    assert (extractor.num_frames, extractor.size) == (16, (112, 112))
    assert f"Shortcuts of type {shortcut}. Reads RGB frames with pixels of {span}" in facts(tmp_path / "new")


def test_resnet3d_of_two_classes(small, tmp_path):
    torch.save(small_resnet3d(num_labels=2), tmp_path / "a.pth")
    convert("resnet3d", tmp_path / "a.pth", tmp_path / "new")
    assert ResNet3dConfig.from_pretrained(tmp_path / "new").num_labels == 2


# Encoders of new detectors


def moving(count: int, height: int = 48, width: int = 64) -> dict:
    """A video with sound, as arrays."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    sound = rng.uniform(-1, 1, count * 640).astype(np.float32)
    return {"frames": frames, "fps": 25.0, "waveform": sound, "sampling_rate": 16000}


@torch.no_grad()
def test_avaca_begins_with_converted_encoders(small, tmp_path):
    """Whose features are those of the encoder with the extractor of its own checkpoint."""
    save_pytorchvideo(small_slowfast(), tmp_path / "a.pyth")
    torch.save(small_vggish(), tmp_path / "a.pth")
    video_place, audio_place = tmp_path / "video", tmp_path / "audio"
    convert("slowfast", tmp_path / "a.pyth", video_place)
    convert("vggish", tmp_path / "a.pth", audio_place, pca=save_pca(tmp_path / "pca.pth", "archive"))
    init_avaca(tmp_path / "new", size="tiny", video_encoder=video_place, audio_encoder=audio_place)
    processor = AutoProcessor.from_pretrained(tmp_path / "new")
    assert processor.notices == []
    video = moving(32)
    features = processor(video)
    pixels = AutoFeatureExtractor.from_pretrained(video_place)(video)["pixel_values_videos"]
    expected = AutoModel.from_pretrained(video_place)(pixels).feature_map
    assert near(features["visual_features"][0, 0], F.adaptive_avg_pool2d(expected, (2, 9))[0])
    audio = AutoModel.from_pretrained(audio_place)
    sound = video["waveform"][19840 - 16000 : 19840]  # the second before the last frame
    spectrogram = AutoFeatureExtractor.from_pretrained(audio_place)(sound)["input_features"]
    assert near(features["audio_features"][0, 0, -1], audio(spectrogram[:, :96]).pooler_output[0])
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "new")
    assert model(**features).logits.isfinite().all()


@pytest.mark.parametrize(("shortcut", "expected"), [("A", ACTIVITYNET), ("B", KINETICS)])
def test_avrl_begins_with_converted_encoders(small, tmp_path, shortcut, expected):
    """And reads the pixels that they were trained on."""
    torch.save(small_resnet3d(shortcut, "module."), tmp_path / "a.pth")
    torch.save(small_vggish(), tmp_path / "b.pth")
    convert("resnet3d", tmp_path / "a.pth", tmp_path / "video")
    convert("vggish", tmp_path / "b.pth", tmp_path / "audio", pca=save_pca(tmp_path / "pca.pth", "archive"))
    init_avrl(tmp_path / "new", size="tiny", video_encoder=tmp_path / "video", audio_encoder=tmp_path / "audio")
    processor = AutoProcessor.from_pretrained(tmp_path / "new")
    assert (processor.rescale_factor, processor.image_mean, processor.image_std) == expected
    video = moving(60)
    settings = {"num_frames": processor.num_frames, "size": processor.size}
    extractor = VideoFeatureExtractor.from_pretrained(tmp_path / "video", **settings)
    assert torch.equal(processor(video)["pixel_values_videos"], extractor(video)["pixel_values_videos"])
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "new")
    found = {name.rpartition("visual.")[2]: value for name, value in model.state_dict().items() if "visual." in name}
    assert found
    for name, tensor in ResNet3dModel.from_pretrained(tmp_path / "video").state_dict().items():
        assert torch.equal(found[name], tensor), name


# The extractor that their checkpoints carry


def test_extractor_reads_a_real_clip(bikes):
    """250 frames, of which 32 are every seventh."""
    found = VideoFeatureExtractor(size=64)(bikes)["pixel_values_videos"]
    with open_media(bikes) as media:
        frames = [frame.pixels.double() for frame in media.frames(64)]
    assert len(frames) == 250 and frames[0].shape == (3, 64, 150)
    expected = torch.stack([(frame / 255 - 0.45) / 0.225 for frame in frames[: 32 * 7 : 7]])
    assert found.shape == (1, 32, 3, 64, 150) and found.dtype == torch.float32
    torch.testing.assert_close(found[0], expected.float())


def test_extractor_subtracts_and_divides_by_channel():
    video = moving(20)
    settings = {"rescale_factor": 0.5, "image_mean": (1, 20, 300), "image_std": (1, 2, 4)}
    found = VideoFeatureExtractor(num_frames=5, size=(48, 64), **settings)(video)["pixel_values_videos"][0]
    for index in range(5):
        for channel, (mean, std) in enumerate(((1, 1), (20, 2), (300, 4))):
            expected = (video["frames"][index * 4, :, :, channel] * 0.5 - mean) / std
            np.testing.assert_allclose(found[index, channel], expected, rtol=1e-6)


def test_extractor_reads_several_videos_and_short_ones():
    extractor = VideoFeatureExtractor(num_frames=8, size=(40, 40))
    videos = [moving(20), moving(3, 32, 80)]
    batch = extractor(videos)["pixel_values_videos"]
    assert batch.shape == (2, 8, 3, 40, 40)
    for row, video in zip(batch, videos, strict=True):
        assert torch.equal(row, extractor(video)["pixel_values_videos"][0])
    short = batch[1]
    assert torch.equal(short[3:6], short[:3]) and torch.equal(short[6:], short[:2])
    assert not torch.equal(short[0], short[1])


def test_extractor_refuses_a_batch_of_two_sizes():
    with pytest.raises(ValueError, match=r"2 sizes \(\[\(32, 42\), \(32, 80\)\]\) do not fit one batch. Give them"):
        VideoFeatureExtractor(num_frames=2, size=32)([moving(2), moving(2, 32, 80)])
    with pytest.raises(ValueError, match="No video was given"):
        VideoFeatureExtractor()([])


@pytest.mark.parametrize("size", [96, (48, 64)])
def test_extractor_is_saved_and_loaded(tmp_path, size):
    settings = dict(zip(("rescale_factor", "image_mean", "image_std"), ACTIVITYNET, strict=True))
    extractor = VideoFeatureExtractor(num_frames=4, size=size, **settings)
    extractor.save_pretrained(tmp_path)
    again = VideoFeatureExtractor.from_pretrained(tmp_path)
    assert vars(again) | {"feature_extractor_type": None} == vars(extractor) | {"feature_extractor_type": None}
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())["image_mean"] == list(ACTIVITYNET[1])
    video = moving(9)
    assert torch.equal(again(video)["pixel_values_videos"], extractor(video)["pixel_values_videos"])
