"""What users of transformers expect of every processor and feature extractor, asked of all architectures alike."""

import inspect
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoFeatureExtractor, AutoProcessor, AutoVideoProcessor, pipeline

from avad_hf.media.sources import open_media
from avad_hf.registration import ARCHITECTURES
from avad_hf.training.models import detectors

from .media_files import frame_times, sound, write_media
from .test_common import build

EXTRACTORS = [name for name, one in ARCHITECTURES.items() if one.feature_extractor]
BEGINNERS = [name for name, one in ARCHITECTURES.items() if name in detectors() and one.init]
CLASSIFIERS = [name for name, one in ARCHITECTURES.items() if one.head and name not in detectors()]


def extractor(name: str) -> Any:
    """As small as the network that it is for."""
    one = ARCHITECTURES[name]
    kind = one.load("feature_extractor")
    config = one.load("config")(**one.tiny)
    if not reads_videos(name):
        return kind()
    return kind(num_frames=config.num_frames, size=getattr(config, "short_side", 64))


def reads_videos(name: str) -> bool:
    return "pixel_values_videos" in ARCHITECTURES[name].load("feature_extractor").model_input_names


def given(name: str, videos: list[str]) -> list[Any]:
    """Two inputs that it reads."""
    return videos if reads_videos(name) else [np.sin(np.arange(16000) / 9), np.cos(np.arange(24000) / 5)]


def check_features(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, value in found.items():
        torch.testing.assert_close(torch.as_tensor(value), torch.as_tensor(expected[name]))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("videos")
    paths = []
    for number, seconds in enumerate((0.8, 0.6)):
        path = folder / f"{number}.mp4"
        wave = sound(0, seconds, 16000)
        paths.append(write_media(path, frame_times(25, seconds), wave, 16000, audio_codec="aac"))
    return paths


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    """Processors of the detectors that begin untrained, with small networks; those that are fitted have the same."""
    made = {}
    for name in BEGINNERS:
        torch.manual_seed(0)
        made[name] = ARCHITECTURES[name].load("init")("tiny", 0)
    return made


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractors_round_trip(name, tmp_path):
    made = extractor(name)
    made.save_pretrained(tmp_path)
    for again in (type(made).from_pretrained(tmp_path), AutoFeatureExtractor.from_pretrained(tmp_path)):
        assert type(again) is type(made) and json.loads(again.to_json_string()) == json.loads(made.to_json_string())
    changed = type(made).from_pretrained(tmp_path, **({"size": 48} if reads_videos(name) else {"low_hz": 50.0}))
    assert changed.to_json_string() != made.to_json_string()


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractors_give_what_is_asked_for(name, videos):
    made, inputs = extractor(name), given(name, videos)
    features = made(inputs, return_tensors="pt")
    assert all(isinstance(value, torch.Tensor) for value in features.values())
    arrays = made(inputs, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    check_features(arrays, features)
    first = made(inputs[0])
    for key, value in first.items():
        torch.testing.assert_close(value[0], features[key][0][: value.shape[1]])
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        made(inputs, retrun_tensors="pt")
    if not reads_videos(name):
        check_features(made(audio=inputs), features)
        check_features(made(waveform=inputs), features)  # as it was called before
        with pytest.raises(ValueError, match="Give the waveform as audio, once"):
            made()


@pytest.mark.parametrize("name", EXTRACTORS)
def test_networks_take_what_extractors_give(name, videos):
    network = build(name)
    with torch.no_grad():
        outputs = network(**extractor(name)(given(name, videos)))
    assert all(torch.isfinite(value).all() for value in outputs.values())


@pytest.mark.parametrize("name", [name for name in EXTRACTORS if reads_videos(name)])
def test_frames_in_arrays_are_videos(name, videos):
    made = extractor(name)
    with open_media(videos[0]) as media:
        frames = np.stack([frame.pixels.permute(1, 2, 0).numpy() for frame in media.frames(None)])
    expected = made({"frames": frames, "fps": 25})
    channels_first = torch.as_tensor(frames).permute(0, 3, 1, 2)
    pictures = [Image.fromarray(frame) for frame in frames]
    for form in (frames, channels_first, list(frames), pictures, [frames], [pictures], frames[None]):
        check_features(made(form), expected)
    picked = frames[:: max(1, len(frames) // made.num_frames)][: made.num_frames]
    check_features(made(picked, do_sample_frames=False), expected)
    with pytest.raises(ValueError, match=f"takes videos of {made.num_frames} frames, and this one has more"):
        made(frames, do_sample_frames=False)
    assert made(frames, num_frames=3)["pixel_values_videos"].shape[1] == 3


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_pipelines_of_transformers_classify(name, videos, tmp_path, caplog):
    network, made = build(name, "head", id2label={0: "walk", 1: "fall"}), extractor(name)
    network.save_pretrained(tmp_path)
    made.save_pretrained(tmp_path)
    task = "video-classification" if reads_videos(name) else "audio-classification"
    classify = pipeline(task, model=str(tmp_path), device="cpu")
    assert type(classify.model) is type(network)
    inputs = given(name, videos)
    found = classify(inputs[0], top_k=2)
    assert "not supported" not in caplog.text
    if reads_videos(name):
        assert type(classify.video_processor) is type(AutoVideoProcessor.from_pretrained(tmp_path)) is type(made)
    with torch.no_grad():
        logits = network(**made(inputs[0])).logits[0]
    several = network.config.problem_type == "multi_label_classification"
    probabilities = logits.sigmoid() if several else logits.softmax(-1)
    assert {item["label"] for item in found} == {"walk", "fall"}
    for item in found:
        expected = probabilities[("walk", "fall").index(item["label"])].item()
        assert item["score"] == pytest.approx(expected, abs=1e-5)
    assert classify(inputs, top_k=1)[1] != []


@pytest.mark.parametrize("name", BEGINNERS)
def test_processors_round_trip(name, processors, tmp_path):
    processor = processors[name].processor
    processor.save_pretrained(tmp_path)
    for again in (type(processor).from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(again) is type(processor) and again.to_dict() == processor.to_dict()


@pytest.mark.parametrize("name", BEGINNERS)
def test_processors_give_what_is_asked_for(name, processors, videos):
    processor = processors[name].processor
    features = processor(videos)
    arrays = processor(videos, return_tensors="np")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())
    check_features(arrays, features)
    assert set(features) <= {*processor.model_input_names}
    first = processor(videos[0])
    for key, value in first.items():
        index = tuple(slice(size) for size in value.shape[1:])
        torch.testing.assert_close(value[0], features[key][0][index], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="return_tensors must be 'pt' or 'np', got 'tf'"):
        processor(videos[0], return_tensors="tf")
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        processor(videos[0], retrun_tensors="pt")
    assert "audio" in inspect.signature(processor.__call__).parameters


@pytest.mark.parametrize("name", BEGINNERS)
def test_frames_and_waveforms_in_arrays(name, processors):
    processor = processors[name].processor
    frames = np.random.default_rng(0).integers(0, 255, (30, 40, 60, 3), dtype=np.uint8)
    wave = np.sin(np.arange(24000) / 9).astype(np.float32)
    expected = processor({"frames": frames, "fps": 25, "waveform": wave, "sampling_rate": 16000})
    arguments = {"audio": wave, "fps": 25, "sampling_rate": 16000}
    check_features(processor(frames, **arguments), expected)
    check_features(processor([list(frames)], **{**arguments, "audio": [wave]}), expected)
    check_features(processor(torch.as_tensor(frames).permute(0, 3, 1, 2), **arguments), expected)
    check_features(processor(frames[None], **{**arguments, "audio": wave[None]}), expected)
    assert not processor(frames, fps=25)["has_audio"].any()
    with pytest.raises(ValueError, match="one sound a video: got 2 of them for 1 videos"):
        processor(frames, **{**arguments, "audio": [wave, wave]})
    with pytest.raises(ValueError, match="either fps"):
        processor(frames)


@pytest.mark.parametrize("name", BEGINNERS)
def test_sound_files_beside_videos(name, processors, videos, tmp_path):
    processor = processors[name].processor
    silent = write_media(tmp_path / "silent.mp4", frame_times(25, 0.8))
    expected = processor({"video": silent, "audio": videos[0]})
    check_features(processor(silent, audio=videos[0]), expected)
    check_features(processor([silent], audio=[videos[0]]), expected)
    assert expected["has_audio"].all() and not processor([silent], audio=[None])["has_audio"].any()
    with pytest.raises(ValueError, match="got a ndarray beside a str"):
        processor(silent, audio=np.zeros(16000), sampling_rate=16000)


@pytest.mark.parametrize("name", BEGINNERS)
def test_detectors_take_what_processors_give(name, processors, videos):
    parts = processors[name]
    with torch.no_grad():
        outputs = parts.model.eval()(**parts.processor(videos))
    assert len(outputs.logits) == 2
