"""AVACA with its encoders inside: from pixels and waveforms to scores, as by features."""

import copy

import pytest
import torch

from avad_hf import (
    AvacaConfig,
    AvacaForAnomalyDetection,
    AvacaProcessor,
    SlowFastConfig,
    SlowFastModel,
    TrainingConfig,
    VggishConfig,
    VggishModel,
    YamnetConfig,
    YamnetModel,
    train,
)
from avad_hf.registration import ARCHITECTURES

from .feature_stores import plant
from .media_files import frame_times, sound, write_media

GIVEN = ("pixels", "waveforms", "clip_mask", "has_audio")


def small(name: str, kind: type) -> torch.nn.Module:
    return kind(kind.config_class(**ARCHITECTURES[name].tiny))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[str]:
    """One with sound, and a shorter one without."""
    folder = tmp_path_factory.mktemp("videos")
    heard = write_media(folder / "heard.mp4", frame_times(25, 1.0), sound(0, 1.0, 16000), 16000, audio_codec="aac")
    return [heard, write_media(folder / "seen.mp4", frame_times(25, 0.5))]


@pytest.fixture(scope="module")
def processor() -> AvacaProcessor:
    torch.manual_seed(0)
    return AvacaProcessor(
        video_encoder=small("slowfast", SlowFastModel),
        audio_encoder=small("vggish", VggishModel),
        size=64,
        feature_grid=(1, 2),
    )


@pytest.fixture(scope="module")
def detector(processor) -> AvacaForAnomalyDetection:
    torch.manual_seed(1)
    widths = {"visual_size": processor.widths["visual_features"], "audio_size": processor.widths["audio_features"]}
    return AvacaForAnomalyDetection(AvacaConfig(**ARCHITECTURES["avaca"].tiny | widths)).eval()


@pytest.fixture(scope="module")
def raw(processor, videos) -> dict[str, torch.Tensor]:
    return {name: value for name, value in processor.pixels_and_sound(videos).items() if name in GIVEN}


def test_scores_are_those_by_features(detector, processor, videos, raw, tmp_path):
    whole = detector.with_encoders(processor).eval()
    features = processor(videos)
    with torch.no_grad():
        expected, found = detector(**features).logits, whole(**raw).logits
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        # It still takes features, and is a checkpoint like any other.
        torch.testing.assert_close(whole(**features).logits, expected)
        whole.save_pretrained(tmp_path)
        loaded = AvacaForAnomalyDetection.from_pretrained(tmp_path)
        torch.testing.assert_close(loaded(**raw).logits, found)
    assert raw["has_audio"].tolist() == [True, False]


def test_encoders_learn(detector, processor, raw):
    whole = detector.with_encoders(processor).train()
    before = processor.video_encoder.state_dict()
    optimizer = torch.optim.SGD(whole.parameters(), 1e-2)
    whole(**raw, labels=torch.tensor([1, 0])).loss.backward()
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None, name
    assert sum(parameter.grad.abs().sum() > 0 for parameter in whole.encoders.parameters()) > 50
    optimizer.step()
    for name, tensor in processor.video_encoder.state_dict().items():  # those of the processor are others
        assert torch.equal(tensor, before[name])
    # What was learnt is taken back for features.
    tuned = AvacaProcessor(
        video_encoder=whole.encoders.video_encoder,
        audio_encoder=whole.encoders.audio_encoder,
        size=64,
        feature_grid=(1, 2),
    )
    assert tuned.recipe()["video_encoder"]["weights_sha256"] != processor.recipe()["video_encoder"]["weights_sha256"]


def test_frozen_encoders_stay(detector, processor, raw):
    whole = detector.with_encoders(processor).train()
    whole.encoders.requires_grad_(False)
    whole(**raw, labels=torch.tensor([1, 0])).loss.backward()
    assert all(parameter.grad is None for parameter in whole.encoders.parameters())
    assert whole.classifier.weight.grad is not None


def test_exports_as_one_graph(detector, processor, raw, tmp_path):
    import onnxruntime

    whole = detector.with_encoders(processor).eval()
    with torch.no_grad():
        expected = whole(**raw).logits
        program = torch.export.export(whole, (), raw)
        torch.testing.assert_close(program.module()(**raw).logits, expected)
    torch.onnx.export(program, f=tmp_path / "whole.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "whole.onnx")
    outputs = session.run(None, {given.name: raw[given.name].numpy() for given in session.get_inputs()})
    logits = next(torch.tensor(value) for value in outputs if value.shape == tuple(expected.shape))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_video_alone_has_no_sound(detector, processor, raw):
    whole = detector.with_encoders(processor).eval()
    silent = {**raw, "has_audio": torch.tensor([False, False])}
    with torch.no_grad():
        found = whole(pixels=raw["pixels"], clip_mask=raw["clip_mask"]).logits
        torch.testing.assert_close(found, whole(**silent).logits)


def test_other_encoders_of_this_library(videos):
    torch.manual_seed(0)
    processor = AvacaProcessor(
        video_encoder=small("i3d", ARCHITECTURES["i3d"].load("model")), audio_encoder=small("yamnet", YamnetModel)
    )
    config = AvacaConfig(visual_size=1024, audio_size=16, hidden_size=16, intermediate_size=16)
    detector = AvacaForAnomalyDetection(config).eval()
    whole = detector.with_encoders(processor).eval()
    raw = processor.pixels_and_sound(videos[0])
    with torch.no_grad():
        expected = detector(**processor(videos[0])).logits
        torch.testing.assert_close(whole(**{name: raw[name] for name in GIVEN}).logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": torch.zeros(1, 2, 3, 64, 64)}, r"pixels must be of shape \(B, T, 8, 3, H, W\)"),
        ({"waveforms": torch.zeros(2, 3, 8, 8000)}, r"waveforms must be of shape \(2, \d, 8, 16000\)"),
        ({"visual_features": torch.zeros(2, 3, 12, 1, 2)}, "pixels take the place of features"),
    ],
)
def test_refuses(detector, processor, raw, change, message):
    with pytest.raises(ValueError, match=message):
        detector.with_encoders(processor)(**{**raw, **change})


def test_refuses_pixels_without_encoders(detector, raw):
    with pytest.raises(ValueError, match="make such a model by with_encoders"):
        detector(pixels=raw["pixels"])
    with pytest.raises(ValueError, match="needs visual_features, or pixels"):
        detector()


def test_refuses_another_normalisation(detector, processor):
    other = AvacaProcessor(
        video_encoder=processor.video_encoder, audio_encoder=processor.audio_encoder, image_mean=0.5, size=64
    )
    with pytest.raises(ValueError, match="image_mean is not the video_encoder's own"):
        detector.with_encoders(other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"video_config": SlowFastConfig()}, "or neither"),
        ({"video_config": {"model_type": "bert"}, "audio_config": VggishConfig()}, "got one of type 'bert'"),
        ({"video_config": {"model_type": "none"}, "audio_config": YamnetConfig()}, "video_config cannot be read"),
        ({"feature_grid": [2]}, "must be rows and columns"),
        ({"video_config": {}, "audio_config": VggishConfig()}, "whose model_type says which one"),
    ],
)
def test_refuses_configs(settings, message):
    with pytest.raises(Exception, match=message):
        AvacaConfig(**settings)


def test_refuses_encoders_in_each_others_place():
    config = AvacaConfig(video_config=VggishConfig(), audio_config=YamnetConfig())
    with pytest.raises(ValueError, match="video_config must be that of an encoder that reads pixels"):
        AvacaForAnomalyDetection(config)


def test_padding_teaches_nothing(detector, processor, videos):
    """Neither the loss nor the batch norms of the encoders see clips that are padding, or sound that is none."""
    first, second = (detector.with_encoders(processor).train() for _ in range(2))
    raw = {name: value for name, value in processor.pixels_and_sound(videos[0]).items() if name in GIVEN}
    padded = copy.copy(raw)
    for name in ("pixels", "waveforms", "clip_mask"):
        padded[name] = torch.cat([raw[name], torch.zeros_like(raw[name])], dim=1)
    loss = first(**raw, labels=torch.tensor([1])).loss
    torch.testing.assert_close(second(**padded, labels=torch.tensor([1])).loss, loss, rtol=1e-4, atol=1e-4)
    for (name, found), (_, expected) in zip(second.named_buffers(), first.named_buffers(), strict=True):
        torch.testing.assert_close(found, expected, msg=name)
    heard = detector.with_encoders(processor).train()
    heard(**{**raw, "has_audio": torch.tensor([False])}, labels=torch.tensor([1])).loss.backward()
    assert all(parameter.grad is None for parameter in heard.encoders.audio_encoder.parameters())


def test_an_encoder_may_be_wrapped(detector, processor, raw):
    """Adapters put a module of their own in its place, and copies for several GPUs have encoders of their own."""

    class Wrapper(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.config, self.device = network, network.config, network.device

        def on_pixels(self, *inputs):
            self.calls = getattr(self, "calls", 0) + 1
            return self.network.on_pixels(*inputs)

    whole = detector.with_encoders(processor).eval()
    with torch.no_grad():
        expected = whole(**raw).logits
        whole.encoders.video_encoder = Wrapper(whole.encoders.video_encoder)
        torch.testing.assert_close(whole(**raw).logits, expected)
    assert whole.encoders.video_encoder.calls == 1


def test_types_are_kept(detector, processor):
    half = copy.deepcopy(detector).to(torch.bfloat16)
    assert half.with_encoders(processor).dtype == torch.bfloat16


def test_training_on_stored_features_leaves_the_encoders_out(detector, processor, tmp_path):
    """New weights are for the detector alone; encoders within would be new and random too."""
    whole = detector.with_encoders(processor)
    whole.save_pretrained(tmp_path / "whole")
    widths = processor.widths
    shape = (widths["visual_features"], 1, 2)
    store = plant(tmp_path / "store", num_videos=24, shape=shape, audio_size=widths["audio_features"])
    settings = {"data": str(store), "model": str(tmp_path / "whole"), "epochs": 1, "batch_size": 8}
    for name, fine_tune in (("new", False), ("tuned", True)):
        train(TrainingConfig(output_dir=str(tmp_path / name), fine_tune=fine_tune, **settings), progress=False)
        trained = AvacaForAnomalyDetection.from_pretrained(tmp_path / name)
        assert (trained.encoders is None) == (trained.config.video_config is None) == (not fine_tune)
    for name, tensor in whole.encoders.state_dict().items():
        assert torch.equal(trained.encoders.state_dict()[name], tensor), name
