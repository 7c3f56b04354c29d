"""VGGish and its log-mel against torchvggish, with the same random weights, and golden values of the original."""

import math

import numpy as np
import pytest
import torch
from torchvggish import mel_features
from torchvggish.torchvggish import VGG, make_layers
from torchvggish.vggish_input import waveform_to_examples
from transformers import AutoFeatureExtractor, AutoModel

from avad_hf import VggishConfig, VggishFeatureExtractor, VggishModel
from avad_hf.models.vggish.inference_vggish import inference_form

TINY = {"hidden_sizes": (4, 4, 8, 8), "intermediate_size": 16, "embedding_size": 8}
TONE = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
NOISE = np.random.RandomState(0).uniform(-1, 1, 16000)


@pytest.fixture(scope="module")
def extractor():
    return VggishFeatureExtractor()


def reference_log_mel(waveform: np.ndarray) -> np.ndarray:
    return mel_features.log_mel_spectrogram(
        waveform,
        audio_sample_rate=16000,
        log_offset=0.01,
        window_length_secs=0.025,
        hop_length_secs=0.010,
        num_mel_bins=64,
        lower_edge_hertz=125,
        upper_edge_hertz=7500,
    )


@pytest.mark.parametrize(
    "waveform",
    [TONE, NOISE, NOISE * 1e-4, np.zeros(16000), NOISE[:15599], NOISE[:15600], NOISE[:400], np.tile(NOISE, 3)],
    ids=["tone", "noise", "faint", "silence", "15599", "15600", "one frame", "3 s"],
)
def test_log_mel_equals_torchvggish(extractor, waveform):
    found = extractor(waveform, sampling_rate=16000)["input_features"][0].numpy()
    expected = reference_log_mel(waveform)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_golden_values_of_the_original(extractor):
    tone = extractor(TONE).input_features[0]
    assert tone.shape == (98, 64)
    assert tone.mean().item() == pytest.approx(-3.429619, abs=1e-5)
    assert tone.std(correction=0).item() == pytest.approx(2.126577, abs=1e-5)
    assert (tone.min().item(), tone.max().item()) == pytest.approx((-4.601163, 4.811118), abs=1e-5)
    assert tone[0].argmax() == 19
    noise = extractor(NOISE).input_features[0]
    assert noise.mean().item() == pytest.approx(2.842054, abs=1e-5)
    assert noise.std(correction=0).item() == pytest.approx(0.792309, abs=1e-5)
    assert (noise[0, 0].item(), noise[97, 63].item()) == pytest.approx((1.652040, 3.677263), abs=1e-5)
    assert torch.allclose(extractor(np.zeros(16000)).input_features, torch.tensor(-4.605170))
    assert extractor.mel_filters.sum().item() == pytest.approx(230.913599, abs=1e-5)


@pytest.mark.parametrize(("samples", "count"), [(15599, 0), (15600, 1), (16000, 1), (30959, 1), (30960, 2)])
def test_examples_equal_torchvggish(extractor, samples, count):
    waveform = np.tile(NOISE, 2)[:samples]
    found = extractor.examples(extractor(waveform).input_features[0])
    assert found.shape == (count, 96, 64)
    np.testing.assert_allclose(found, waveform_to_examples(waveform, 16000)[:, 0].detach(), atol=1e-5)


@torch.no_grad()
def test_embeddings_equal_torchvggish(extractor):
    original = VGG(make_layers(), postprocess=False).eval()
    ours = VggishModel(VggishConfig()).eval()
    original.load_state_dict(ours.state_dict(), strict=True)
    examples = extractor.log_mel(torch.stack([torch.from_numpy(x) for x in (TONE, NOISE, np.zeros(16000))]))[:, :96]
    expected = original(examples.unsqueeze(1))
    found = ours(examples)
    assert found.pooler_output.shape == (3, 128)
    assert (found.pooler_output - expected).norm() / expected.norm() < 1e-5
    assert sum(parameter.numel() for parameter in ours.parameters()) == 72_141_184


@torch.no_grad()
def test_feature_map_of_any_length():
    model = VggishModel(VggishConfig(**TINY)).eval()
    for frames, rows in ((16, 1), (95, 5), (96, 6), (298, 18), (400, 25)):
        outputs = model(torch.randn(2, frames, 64))
        assert outputs.feature_map.shape == (2, 8, rows, 4)
        assert (outputs.pooler_output is None) == (frames != 96)


@torch.no_grad()
def test_last_relu_is_a_choice():
    activated = VggishModel(VggishConfig(**TINY)).eval()
    plain = VggishModel(VggishConfig(**TINY, activate_embeddings=False)).eval()
    plain.load_state_dict(activated.state_dict())
    example = torch.randn(4, 96, 64)
    before = plain(example).pooler_output
    assert (before < 0).any()
    assert torch.equal(activated(example).pooler_output, before.relu())


def test_batch_equals_single_waveforms_and_masks_padding(extractor):
    waveforms = [NOISE, TONE[:4000], NOISE[:399]]
    batch = extractor(waveforms, sampling_rate=16000)
    assert batch.input_features.shape == (3, 98, 64)
    assert batch.audio_frame_mask.sum(dim=1).tolist() == [98, 23, 0]
    for row, mask, waveform in zip(batch.input_features, batch.audio_frame_mask, waveforms, strict=True):
        assert torch.equal(row[mask], extractor(waveform).input_features[0])
        assert torch.allclose(row[~mask], torch.tensor(math.log(0.01)))
    assert isinstance(extractor(NOISE, return_tensors="np")["input_features"], np.ndarray)


def test_round_trip_through_auto_classes(tmp_path, extractor):
    model = VggishModel(VggishConfig(**TINY)).eval()
    model.save_pretrained(tmp_path)
    extractor.save_pretrained(tmp_path)
    again = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(again, VggishFeatureExtractor)
    features = again(NOISE).input_features
    assert torch.equal(features, extractor(NOISE).input_features)
    torch.testing.assert_close(AutoModel.from_pretrained(tmp_path)(features).feature_map, model(features).feature_map)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e(NOISE, sampling_rate=44100), r"needs sound at 16000 Hz, got sampling_rate=44100.*resample\("),
        (lambda e: e([]), "No waveform was given"),
        (lambda e: e(np.zeros((2, 3, 16000))), "mono floating point samples"),
        (lambda e: e(np.zeros(16000, dtype=np.int16)), "divide 16-bit integers by 32768"),
        (lambda e: e(np.array([0.0, np.nan] * 400)), "NaN or infinite"),
    ],
)
def test_extractor_refuses(extractor, call, message):
    with pytest.raises(ValueError, match=message):
        call(extractor)


@pytest.mark.parametrize("shape", [(1, 15, 64), (1, 96, 40), (96, 64)])
def test_model_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match=r"needs input_features of shape \(N, frames, 64\)"):
        VggishModel(VggishConfig(**TINY))(torch.zeros(shape))


@torch.no_grad()
def test_inference_form_gives_the_same_embeddings():
    model = VggishModel(VggishConfig(hidden_sizes=(8, 16, 32, 64), intermediate_size=64, embedding_size=32)).eval()
    form = inference_form(model)
    for frames in (96, 130):
        log_mel = torch.randn(5, frames, 64)
        expected, found = model(log_mel), form(log_mel)
        torch.testing.assert_close(found.feature_map, expected.feature_map, rtol=1e-5, atol=1e-5)
        assert (found.pooler_output is None) is (frames == 130)
    torch.testing.assert_close(form(log_mel[:, :96]).pooler_output, model(log_mel[:, :96]).pooler_output)
    # Only the convolutions are copied, and the model keeps its own.
    assert form.embeddings is model.embeddings and form.features is not model.features
    assert model.features[3].weight.is_contiguous() and not form.features[3].weight.is_contiguous()


# Windows that overlap


def windows_of(wave: torch.Tensor, first_samples: list[int], length: int = 16000) -> torch.Tensor:
    """Pieces of a waveform, with silence before its beginning and after its end."""
    padded = torch.nn.functional.pad(wave, (length, 20 * length))
    return torch.stack([padded[first + length :][:length] for first in first_samples])


@pytest.mark.parametrize("fps", [24, 25, 30000 / 1001, 30, 60, 12.5])
def test_windows_before_frames_equal_each_by_itself(extractor, fps):
    """One second before each of 50 frames, from the first, which hears silence, on."""
    wave = torch.from_numpy(np.tile(NOISE, 2)[:30000]).float()
    first = [math.floor(index / fps * 16000 + 0.5) - 16000 for index in range(50)]
    windows = windows_of(wave, first)
    expected = extractor.log_mel(windows)[:, :96]
    found = extractor.log_mel_of_windows(windows, first, 96)
    assert found.shape == (50, 96, 64) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (expected[0] == expected[0, 0]).all() and expected[20].std() > 0.1


@pytest.mark.parametrize(
    "first",
    [
        [0],
        [-15999],
        [0, 0, 0],
        [640, 0, 1280, 640],
        [-640, -320, -319, 0, 1],
        [7, 163, 164, 167, 487, 2000, 13999],
        [13000, 160, -8000, 160, 12840, 320],
    ],
    ids=str,
)
@pytest.mark.parametrize("num_frames", [1, 16, 96, 98])
def test_windows_anywhere_equal_each_by_itself(extractor, first, num_frames):
    wave = torch.from_numpy(NOISE).float()
    windows = windows_of(wave, first)
    found = extractor.log_mel_of_windows(windows, first, num_frames)
    torch.testing.assert_close(found, extractor.log_mel(windows)[:, :num_frames], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("hop", "shared"), [(640, True), (160, True), (534, False), (16000, False)])
def test_frames_that_windows_share_are_computed_once(extractor, hop, shared, monkeypatch):
    """At 25 frames a second a window brings four new log-mel frames, and not 96."""
    computed = []
    whole = VggishFeatureExtractor._log_mel_of_frames

    def counting(self, frames):
        computed.append(math.prod(frames.shape[:-1]))
        return whole(self, frames)

    monkeypatch.setattr(VggishFeatureExtractor, "_log_mel_of_frames", counting)
    first = [number * hop for number in range(20)]
    extractor.log_mel_of_windows(windows_of(torch.from_numpy(np.tile(NOISE, 3)).float(), first), first, 96)
    assert computed == [len({begin + 160 * step for begin in first for step in range(96)})]
    assert computed == [96 + 19 * hop // 160 if shared else 96 * 20]
