"""Encoders of transformers behind the adapter give what the models give when they are called by hand."""

import copy
import hashlib
import json
import pickle
from functools import partial

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import pipeline

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, AvacaProcessor, TrainingConfig, extract_features, train
from avad_hf.models.encoder import encoder_for, load_encoder
from avad_hf.models.foreign.adapter import foreign_encoder
from avad_hf.models.foreign.constants import PixelConstants

from .hub_server import Blob, Commit, HubServer, Repo
from .media_files import frame_times, sound, write_media

pytestmark = pytest.mark.usefixtures("one_thread")

MEAN, STD = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
# As an image processor's or a video processor's JSON has them.
PIXELS = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": MEAN, "image_std": STD}
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
# 4 rows and 6 columns of patches: what is laid out the wrong way is seen.
PATCHES = {"image_size": (32, 48), "patch_size": (8, 8)} | LAYERS
SQUARE = {"image_size": 32, "patch_size": 8} | LAYERS
TEXT = {"vocab_size": 50, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1} | LAYERS
VJEPA2 = {
    "crop_size": 32,
    "patch_size": 8,
    "frames_per_clip": 4,
    "hidden_size": 36,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pred_hidden_size": 36,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "num_pooler_layers": 1,
}
SPECTROGRAM = {"max_length": 64, "num_mel_bins": 32}
WAVES = {
    "conv_dim": (8, 8, 8),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 8, 8),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
} | LAYERS
CLAP_SOUND = {
    "spec_size": 64,
    "num_mel_bins": 32,
    "patch_embeds_hidden_size": 8,
    "hidden_size": 16,
    "depths": [1, 1],
    "num_attention_heads": [2, 2],
    "window_size": 2,
    "projection_dim": 16,
}


def new(name: str, **settings):
    """A model of transformers with random weights; its config has the same name."""
    config = getattr(transformers, f"{name.removesuffix('Model')}Config")
    torch.manual_seed(0)
    model = getattr(transformers, name)(config(**settings)).eval()
    for parameter in model.parameters():  # positions and the class are zero in new models
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


videomae = partial(new, "VideoMAEModel", num_frames=4, tubelet_size=2, decoder_num_hidden_layers=1, **SQUARE)
vjepa2 = partial(new, "VJEPA2Model", **VJEPA2)
clip_vision = partial(new, "CLIPVisionModel", **SQUARE)
ast = partial(new, "ASTModel", **SPECTROGRAM, **LAYERS)
wav2vec2 = partial(new, "Wav2Vec2Model", **WAVES)


def clip():
    return new("CLIPModel", text_config=TEXT, vision_config=SQUARE, projection_dim=16)


def clap(**settings):
    return new("ClapModel", text_config=TEXT, audio_config=CLAP_SOUND | settings, projection_dim=16)


def ast_extractor():
    return transformers.ASTFeatureExtractor(**SPECTROGRAM)


def wave_extractor(**settings):
    return transformers.Wav2Vec2FeatureExtractor(**settings)


def clap_extractor(**settings):
    return transformers.ClapFeatureExtractor(feature_size=32, max_length_s=1, **settings)


def pixels(count: int, num_frames: int, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, num_frames, 3, height, width), dtype=torch.uint8)


def waves(count: int, seconds: float) -> torch.Tensor:
    return torch.rand(count, round(seconds * 16000)) * 2 - 1


def normalised(clips: torch.Tensor) -> torch.Tensor:
    """Pixels normalised by hand."""
    channels = [(clips[:, :, c].float() / 255 - MEAN[c]) / STD[c] for c in range(3)]
    return torch.stack(channels, dim=2)


# Equal to the models, called by hand


@pytest.mark.parametrize(
    ("make", "main", "options", "width"),
    [
        (videomae, "pixel_values", {}, 32),
        (vjepa2, "pixel_values_videos", {"skip_predictor": True}, 36),
    ],
)
def test_a_video_model_gives_the_map_of_its_tokens(make, main, options, width):
    network, clips = make(), pixels(2, 4)
    encoder = foreign_encoder(network, PIXELS)
    with torch.no_grad():
        tokens = network(**{main: normalised(clips)}, **options).last_hidden_state
    expected = torch.zeros(2, width, 4, 4)
    for time in range(2):
        for row in range(4):
            for column in range(4):
                expected[:, :, row, column] += tokens[:, time * 16 + row * 4 + column] / 2
    torch.testing.assert_close(encoder.encode(clips), expected)
    spec = encoder.spec
    assert (spec.reads, spec.gives, spec.width, spec.num_frames) == ("pixels", "map", width, 4)
    assert (spec.size, spec.grid, spec.frame_step) == ((32, 32), (4, 4), 1)


@pytest.mark.parametrize("make", [clip, clip_vision])
def test_an_image_model_sees_each_frame_alone(make):
    network, clips = make(), pixels(2, 8)
    encoder = foreign_encoder(network, PIXELS)
    tower = getattr(network, "vision_model", network)
    expected = torch.zeros(2, 32, 4, 4)
    for frame in range(8):
        with torch.no_grad():
            tokens = tower(pixel_values=normalised(clips)[:, frame]).last_hidden_state
        for row in range(4):
            for column in range(4):
                expected[:, :, row, column] += tokens[:, 1 + row * 4 + column] / 8  # after that of the class
    torch.testing.assert_close(encoder.encode(clips), expected)
    assert type(encoder.network).__name__ == "CLIPVisionModel"
    assert encoder.spec.num_frames == 8
    assert foreign_encoder(network, PIXELS, num_frames=3).encode(clips[:, :3]).shape == (2, 32, 4, 4)


def test_ast_gives_tokens_over_time():
    network, extractor, windows = ast(), ast_extractor(), waves(2, 0.64)
    encoder = foreign_encoder(network, extractor)
    inputs = extractor(list(windows.numpy()), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        tokens = network(**inputs).last_hidden_state
    rows, times = (32 - 16) // 10 + 1, (64 - 16) // 10 + 1
    expected = torch.zeros(2, times, 32)
    for row in range(rows):
        for time in range(times):
            expected[:, time] += tokens[:, 2 + row * times + time] / rows  # after those of class and distillation
    torch.testing.assert_close(encoder.encode(windows), expected)
    spec = encoder.spec
    assert (spec.reads, spec.gives, spec.width, spec.window_s, spec.sampling_rate) == (
        "waveform",
        "tokens",
        32,
        0.64,
        16000,
    )


def test_wav2vec2_gives_its_states_over_time():
    network, extractor, windows = wav2vec2(), wave_extractor(), waves(2, 2.0)
    encoder = foreign_encoder(network, extractor)
    expected = []
    for window in windows:
        scaled = (window - window.mean()) / (window.var(correction=0) + 1e-7).sqrt()
        with torch.no_grad():
            expected.append(network(scaled[None]).last_hidden_state[0])
    torch.testing.assert_close(encoder.encode(windows), torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert (encoder.spec.gives, encoder.spec.window_s) == ("tokens", 2.0)
    shorter = foreign_encoder(network, extractor, window_s=0.5)
    assert shorter.spec.window_s == 0.5 and shorter.encode(windows[:, :8000]).shape == (2, 98, 32)
    assert not hasattr(extractor, "window_s")


# Where tokens lie: in models without layers each token is its own patch, and no other pixel changes it


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("VideoMAEModel", {"num_frames": 4, "tubelet_size": 2} | PATCHES),
        ("TimesformerModel", {"num_frames": 4} | SQUARE),
        ("TimesformerModel", {"num_frames": 4, "attention_type": "joint_space_time"} | SQUARE),
        ("TimesformerModel", {"num_frames": 4, "attention_type": "space_only"} | SQUARE),
        ("VivitModel", {"num_frames": 4, "tubelet_size": (2, 8, 8), "image_size": 32} | LAYERS),
        ("VJEPA2Model", VJEPA2),
        ("CLIPVisionModel", SQUARE),
        ("SiglipVisionModel", SQUARE),
        ("ViTModel", PATCHES),
        ("DeiTModel", PATCHES),
        ("Dinov2Model", SQUARE),
        ("Dinov2WithRegistersModel", SQUARE | {"num_register_tokens": 3}),
        ("DINOv3ViTModel", SQUARE | {"num_register_tokens": 3}),
    ],
)
def test_pixels_change_the_cells_in_which_they_are_and_no_others(name, settings):
    encoder = foreign_encoder(new(name, **settings | {"num_hidden_layers": 0}), PIXELS)
    height, width = encoder.spec.size
    clips = pixels(1, encoder.spec.num_frames, height, width)
    before = encoder.encode(clips)
    assert before.shape[2:] == (height // 8, width // 8)
    for row, column, frame in ((0, 1, 0), (2, 3, 1), (3, 0, 3)):
        changed = clips.clone()
        changed[0, frame, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] ^= 255
        difference = (encoder.encode(changed) - before).abs().amax(1)[0]
        assert difference[row, column] > 1e-4
        difference[row, column] = 0
        assert difference.max() < 1e-5


@pytest.mark.parametrize(
    ("make", "extractor"),
    [
        (ast, ast_extractor),
        # Its other normalisations see the whole window.
        (partial(wav2vec2, feat_extract_norm="layer"), partial(wave_extractor, do_normalize=False)),
    ],
)
def test_sound_changes_the_tokens_of_its_time_alone(make, extractor):
    encoder = foreign_encoder(make(num_hidden_layers=0), extractor())
    windows = waves(1, encoder.spec.window_s)
    before = encoder.encode(windows)
    changed = windows.clone()
    changed[:, -(windows.shape[1] // 4) :] = 0
    difference = (encoder.encode(changed) - before).abs().amax(-1)[0]
    assert difference[-1] > 1e-4 and difference[: len(difference) // 2].max() < 1e-5


# Other kinds of networks


def test_networks_without_known_places_give_a_vector():
    network, clips = new("YolosModel", num_detection_tokens=5, **PATCHES | {"patch_size": 8}), pixels(1, 8, 32, 48)
    encoder = foreign_encoder(network, PIXELS)
    assert (encoder.spec.gives, encoder.spec.grid) == ("vector", (1, 1))
    with torch.no_grad():
        expected = network(normalised(clips)[0]).last_hidden_state.mean((0, 1))
    torch.testing.assert_close(encoder.encode(clips)[0], expected)


def test_convolutional_networks_take_any_size_and_give_their_maps():
    network = new("ResNetModel", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    encoder = foreign_encoder(network, PIXELS | {"size": {"shortest_edge": 48}})
    assert (encoder.spec.size, encoder.spec.gives, encoder.spec.width) == (48, "map", 16)
    clips = pixels(1, 8, 48, 80)
    with torch.no_grad():
        expected = network(normalised(clips)[0]).last_hidden_state.mean(0)
    assert expected.shape == (16, 6, 10)
    torch.testing.assert_close(encoder.encode(clips)[0], expected)


def test_hierarchical_networks_give_the_map_of_their_last_stage():
    settings = {"image_size": 64, "patch_size": 4, "embed_dim": 12, "window_size": 2}
    network = new("SwinModel", depths=[1, 1, 1], num_heads=[2, 2, 2], **settings)
    encoder, clips = foreign_encoder(network, PIXELS), pixels(1, 8, 64, 64)
    assert encoder.spec.grid == (4, 4)
    with torch.no_grad():
        states = network(normalised(clips)[0], output_hidden_states=True)
    expected = network.layernorm(states.reshaped_hidden_states[-1].permute(0, 2, 3, 1)).mean(0).permute(2, 0, 1)
    torch.testing.assert_close(encoder.encode(clips)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("is_fused", "truncation"), [(False, "rand_trunc"), (True, "fusion")])
def test_clap_gives_tokens_of_its_audio_tower(is_fused, truncation, tmp_path):
    network, extractor = clap(enable_fusion=is_fused), clap_extractor(truncation=truncation)
    encoder, windows = foreign_encoder(network, extractor), torch.rand(3, 48000) * 2 - 1
    assert (encoder.spec.window_s, encoder.spec.sampling_rate, encoder.spec.gives) == (1, 48000, "tokens")
    tokens = encoder.encode(windows)
    assert type(encoder.network).__name__ == "ClapAudioModel"
    for window, found in zip(windows, tokens, strict=True):
        inputs = extractor(window.numpy(), sampling_rate=48000, return_tensors="pt")
        with torch.no_grad():
            outputs = network.audio_model(inputs["input_features"].float(), is_longer=inputs["is_longer"])
        torch.testing.assert_close(found, outputs.last_hidden_state[0].mean(1).T, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.mean(0), outputs.pooler_output[0], atol=1e-5, rtol=1e-5)
    encoder.save_pretrained(tmp_path)  # its class is on no Auto class of transformers
    assert torch.equal(load_encoder(tmp_path, "waveform").encode(windows), tokens)


def test_of_whisper_the_encoder_is_called():
    sizes = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    tokens = {"vocab_size": 9, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    network = new("WhisperModel", num_mel_bins=16, d_model=16, max_source_positions=50, **sizes, **tokens)
    extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    encoder, windows = foreign_encoder(network, extractor), waves(2, 1.0)
    inputs = extractor(list(windows.numpy()), sampling_rate=16000, return_tensors="pt")
    with torch.no_grad():
        expected = network.encoder(**inputs).last_hidden_state
    torch.testing.assert_close(encoder.encode(windows), expected)


def test_heads_are_left_out(tmp_path):
    labels = {"id2label": {0: "walking", 1: "fighting"}}
    network = transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(num_frames=4, **SQUARE, **labels)
    )
    encoder = foreign_encoder(network, PIXELS)
    assert encoder.network is network.videomae and encoder.spec.classes == ("walking", "fighting")
    encoder.save_pretrained(tmp_path)
    assert not [name for name in load_file(tmp_path / "model.safetensors") if "classifier" in name]
    assert foreign_encoder(videomae(), PIXELS).spec.classes == ()


# How pixels are normalised


def test_constants_are_those_of_the_models_own_processors():
    frames = pixels(1, 4, 32, 32)[0]
    sizes = {"size": {"height": 32, "width": 32}, "do_center_crop": False}
    plain = {"image_mean": list(MEAN), "image_std": list(STD)}
    processors = [
        transformers.CLIPImageProcessorPil(**sizes, **plain),
        transformers.CLIPImageProcessorPil(**sizes, **plain, rescale_factor=1 / 200),
        transformers.CLIPImageProcessorPil(**sizes, **plain, do_rescale=False),
        transformers.CLIPImageProcessorPil(**sizes, do_normalize=False),
        transformers.VivitVideoProcessor(**sizes),  # which subtracts 1 and does not say so
    ]
    for processor in processors:
        if "Video" in type(processor).__name__:
            expected = processor([frames], return_tensors="pt")["pixel_values"][0]
        else:
            expected = processor(list(frames.permute(0, 2, 3, 1).numpy()), return_tensors="pt")["pixel_values"]
        for source in (processor, processor.to_dict(), json.loads(processor.to_json_string())):
            encoder = foreign_encoder(clip_vision(), source, num_frames=4)
            found = encoder.inputs_of(frames[None])["pixel_values"]
            scale = expected.abs().max().item()
            torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=1e-5)
            assert encoder.spec.size == (32, 32)


def test_what_a_processor_says_of_sizes_counts_where_the_network_takes_it():
    cropped = PIXELS | {"do_center_crop": True, "size": {"shortest_edge": 40}}
    takes_others = new("Dinov2Model", **SQUARE)
    assert foreign_encoder(takes_others, cropped | {"crop_size": {"height": 24, "width": 24}}).spec.size == (24, 24)
    assert foreign_encoder(clip_vision(), cropped | {"crop_size": 24}).spec.size == (32, 32)
    assert foreign_encoder(takes_others, PIXELS | {"size": 16}).spec.grid == (2, 2)


def test_one_number_stands_for_three_channels_and_given_constants_count():
    assert PixelConstants.of({"image_mean": 0.5, "image_std": [0.25]}, "x").image_std == (0.25,) * 3
    encoder = foreign_encoder(
        clip_vision(), PIXELS | {"do_rescale": False}, image_mean=0.5, image_std=[0.5, 0.5, 0.25]
    )
    assert (encoder.image_mean, encoder.image_std) == ((0.5,) * 3, (0.5, 0.5, 0.25))
    assert foreign_encoder(clip_vision(), PIXELS, image_mean=0.5).image_std == STD


# Precision, weights, copies


@pytest.mark.parametrize(
    ("make", "preprocessor", "make_batch"),
    [(videomae, PIXELS, partial(pixels, 1, 4)), (wav2vec2, wave_extractor(), partial(waves, 1, 2.0))],
)
def test_precision_is_chosen_and_copies_compute_the_same(make, preprocessor, make_batch):
    encoder, batch = foreign_encoder(make(), preprocessor), make_batch()
    exact, recipe = encoder.encode(batch), encoder.recipe()
    assert recipe["dtype"] == "float32" and encoder.computes_in == "PyTorch, float32, on cpu"
    for same in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(same.encode(batch), exact) and same.recipe() == recipe and same.spec == encoder.spec
        assert not any(parameter.requires_grad for parameter in same.network.parameters())
    assert encoder.to(dtype="bfloat16") is encoder and encoder.dtype == torch.bfloat16
    assert encoder.network.dtype == torch.float32 and encoder.recipe()["dtype"] == "bfloat16"
    rough, form = encoder.encode(batch), encoder.computing
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    assert encoder.computing is form
    list(encoder.network.parameters())[-1].add_(1)
    assert encoder.computing is not form and not torch.equal(encoder.encode(batch), rough)
    assert encoder.recipe()["weights_sha256"] != recipe["weights_sha256"]


def test_processors_may_set_their_normalisation():
    seeing = foreign_encoder(videomae(), PIXELS)
    assert seeing.configure(image_mean=0.5, image_std=None) is seeing
    assert (seeing.image_mean, seeing.image_std) == ((0.5,) * 3, STD)
    with pytest.raises(ValueError, match="image_std divides pixels and must be above 0"):
        seeing.configure(image_std=[0, 1, 1])
    hearing, clips = foreign_encoder(wav2vec2(), wave_extractor()), waves(1, 2.0)
    before = hearing.encode(clips)
    assert torch.equal(hearing.configure(feature_extractor=wave_extractor()).encode(clips), before)
    hearing.configure(feature_extractor=wave_extractor(do_normalize=False, window_s=0.5))
    assert hearing.spec.window_s == 0.5 and not torch.equal(hearing.encode(clips), before)
    with pytest.raises(TypeError, match=r"needs a Wav2Vec2FeatureExtractor, got a ASTFeatureExtractor. Make a new"):
        hearing.configure(feature_extractor=ast_extractor())


def test_a_notice_is_passed_on():
    network = videomae()
    assert foreign_encoder(network, PIXELS).notices == []
    network.config.notice = "Trained on drawn videos alone."
    assert foreign_encoder(network, PIXELS).notices == ["Trained on drawn videos alone."]


# Folders


def save(folder, network, processor=None, name="preprocessor_config.json"):
    """Write a model and its processor's JSON as transformers' own libraries do."""
    network.save_pretrained(folder)
    if isinstance(processor, dict):
        (folder / name).write_text(json.dumps(processor))
    elif processor is not None:
        processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("preprocessor_config.json", PIXELS),
        ("video_preprocessor_config.json", PIXELS),
        ("processor_config.json", {"image_processor": PIXELS, "processor_class": "CLIPProcessor"}),
    ],
)
def test_constants_are_found_in_folders(name, settings, tmp_path):
    network, clips = clip(), pixels(1, 8)
    encoder = load_encoder(save(tmp_path / "whole", network, settings, name), "pixels")
    assert torch.equal(encoder.encode(clips), foreign_encoder(network, PIXELS).encode(clips))
    encoder.save_pretrained(tmp_path / "tower")
    # Of the tower alone, as transformers loads it, in which no path of this machine is written.
    alone = transformers.AutoModel.from_pretrained(tmp_path / "tower")
    assert type(alone).__name__ == "CLIPVisionModel"
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "tower").glob("*.json"))
    again = load_encoder(tmp_path / "tower", "pixels")
    assert again.recipe() == encoder.recipe() and torch.equal(again.encode(clips), encoder.encode(clips))


def test_settings_of_ones_own_are_kept_in_folders(tmp_path):
    foreign_encoder(vjepa2(), PIXELS, num_frames=2, image_mean=0.1).save_pretrained(tmp_path / "video")
    seeing = load_encoder(tmp_path / "video", "pixels")
    assert (seeing.spec.num_frames, seeing.image_mean, seeing.image_std) == (2, (0.1,) * 3, STD)
    foreign_encoder(wav2vec2(), wave_extractor(), window_s=0.5).save_pretrained(tmp_path / "audio")
    hearing = load_encoder(tmp_path / "audio", "waveform")
    assert hearing.spec.window_s == 0.5


def test_weights_that_do_not_count_may_be_missing(tmp_path):
    """Published classifiers lack the bare model's pooling layer, whose random numbers would be new at each loading."""
    config = transformers.ViTConfig(**SQUARE)
    network = transformers.ViTForImageClassification(config).eval()
    save(tmp_path, network, PIXELS)
    first, second = (load_encoder(tmp_path, "pixels") for _ in range(2))
    clips = pixels(1, 8)
    assert first.recipe() == second.recipe() and first.network.pooler is not None
    assert torch.equal(first.encode(clips), foreign_encoder(network, PIXELS).encode(clips))
    weights = load_file(tmp_path / "model.safetensors")
    removed = next(name for name in weights if "layers.1" in name or "layer.1" in name)
    del weights[removed]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"3 weights are missing .* Give a complete checkpoint as video_encoder"):
        load_encoder(tmp_path, "pixels")


# Refusals


@pytest.mark.parametrize(
    ("role", "make", "preprocessor", "message"),
    [
        (
            "audio_encoder",
            partial(new, "ViTModel", **SQUARE),
            PIXELS,
            "audio_encoder cannot be used: ViTModel, a network of type 'vit', reads pictures, not sound. Give it as",
        ),
        ("video_encoder", wav2vec2, wave_extractor(), "reads sound, not pictures. Give it as audio_encoder"),
        ("video_encoder", partial(new, "BertModel", **LAYERS), {}, "'bert', reads neither pictures nor sound alone"),
        ("audio_encoder", clip, PIXELS, "'clip', reads pictures, not sound"),
    ],
)
def test_refuses_models_of_another_kind(role, make, preprocessor, message, tmp_path):
    reads = "pixels" if role == "video_encoder" else "waveform"
    network = make()
    with pytest.raises(TypeError, match=message):
        encoder_for(role, reads, network)
    folder = save(tmp_path / "there", network, preprocessor)
    with pytest.raises(TypeError, match=message.replace("ViTModel", ".*there")):
        encoder_for(role, reads, folder)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: foreign_encoder(videomae()), TypeError, r"needs its image or video processor.*image_mean="),
        (lambda: foreign_encoder(ast()), TypeError, r"needs its feature extractor: AvacaProcessor\(audio_encoder="),
        (lambda: foreign_encoder(ast(), PIXELS), TypeError, "needs its own feature extractor of sound, got a dict"),
        (lambda: foreign_encoder(videomae(), 3), TypeError, "as preprocessor, got a int"),
        (lambda: foreign_encoder(videomae(), {}), ValueError, "have no image_mean and image_std. Give them"),
        (lambda: foreign_encoder(videomae(), PIXELS, window_s=1), TypeError, "has no setting window_s. It has"),
        (lambda: foreign_encoder(videomae(), PIXELS | {"image_std": [1, 2]}), ValueError, "a number, or three"),
        (lambda: foreign_encoder(videomae(), PIXELS | {"image_std": 0}), ValueError, "must be above 0"),
        (
            lambda: foreign_encoder(videomae(), PIXELS | {"do_flip_channel_order": True}),
            ValueError,
            "do_flip_channel_order=True, which this library does not do",
        ),
        (lambda: foreign_encoder(videomae(), PIXELS, num_frames=6), ValueError, "be called with 6 frames of 32 x 32"),
        (lambda: foreign_encoder(videomae(), PIXELS, num_frames=0), ValueError, "num_frames must be a whole number"),
        (lambda: foreign_encoder(videomae(num_channels=1), PIXELS), ValueError, "pictures of 1 channels"),
        (
            lambda: foreign_encoder(new("Siglip2VisionModel", num_patches=16, patch_size=8, **LAYERS), PIXELS),
            ValueError,
            "'siglip2_vision_model', cannot be called with 8 frames of 224 x 224 alone: .*pixel_attention_mask",
        ),
        (lambda: foreign_encoder(wav2vec2(), wave_extractor(), window_s=0.005), ValueError, "window of 0.005 s"),
        (lambda: foreign_encoder(wav2vec2(), wave_extractor(), window_s=-1), ValueError, "seconds above 0, got -1"),
        (lambda: foreign_encoder(ast(), ast_extractor(), window_s=2), ValueError, "hears 0.64 s at once, neither"),
        (
            lambda: foreign_encoder(ast(max_length=96), ast_extractor()),
            ValueError,
            "or the feature extractor may be another network's",
        ),
        (
            lambda: foreign_encoder(
                new("EncodecModel", num_filters=4, hidden_size=8), transformers.EncodecFeatureExtractor()
            ),
            TypeError,
            "gives no last_hidden_state, so it cannot be used as an encoder",
        ),
        (lambda: foreign_encoder(videomae(), PIXELS).traceable(), ValueError, "VideoMAEModel.* cannot be exported"),
    ],
)
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_refuses_broken_folders(tmp_path):
    folder = save(tmp_path / "video", videomae())
    with pytest.raises(TypeError, match=r"video needs its image or video processor"):
        load_encoder(folder, "pixels")
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"preprocessor_config.json is damaged"):
        load_encoder(folder, "pixels")
    (folder / "preprocessor_config.json").write_text("{}")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(ValueError, match=r"the weights file is cut or damaged"):
        load_encoder(folder, "pixels")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"config of type 'videomae' but no weights: neither model.safetensors"):
        load_encoder(folder, "pixels")
    (folder / "engine.json").write_text("{}")
    with pytest.raises(TypeError, match=r"an exported network of type 'videomae': only encoders of this library"):
        load_encoder(folder, "pixels")
    with pytest.raises(TypeError, match=r"audio needs its feature extractor"):
        load_encoder(save(tmp_path / "audio", ast()), "waveform")


def test_never_runs_code_of_a_checkpoint(tmp_path):
    folder = save(tmp_path, videomae(), PIXELS)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_encoder(folder, "pixels")
    assert not (tmp_path / "ran").exists()


# In a processor


def arrays(num_frames: int = 13, seconds: float = 2.0) -> dict:
    rng = np.random.default_rng(0)
    return {
        "frames": rng.integers(0, 256, (num_frames, 40, 60, 3), dtype=np.uint8),
        "fps": 10,
        "waveform": rng.uniform(-1, 1, round(seconds * 16000)).astype(np.float32),
        "sampling_rate": 16000,
    }


@pytest.mark.parametrize(
    ("video", "num_frames", "audio", "width"),
    [
        (lambda: foreign_encoder(videomae(), PIXELS), 4, lambda: foreign_encoder(ast(), ast_extractor()), 32),
        (lambda: foreign_encoder(vjepa2(), PIXELS), 4, lambda: foreign_encoder(wav2vec2(), wave_extractor()), 36),
        (
            lambda: foreign_encoder(clip(), PIXELS, num_frames=4),
            4,
            lambda: foreign_encoder(ast(), ast_extractor()),
            32,
        ),
    ],
)
def test_a_processor_computes_and_keeps_them(video, num_frames, audio, width, tmp_path):
    processor = AvacaProcessor(video_encoder=video(), audio_encoder=audio())
    recipe = json.dumps(processor.recipe(), sort_keys=True)
    assert (processor.num_pictures, processor.size, processor.feature_grid) == (num_frames, (32, 32), (4, 4))
    assert processor.widths == {"visual_features": width, "audio_features": 32}
    source = arrays()
    features = processor(source)
    assert features["visual_features"].shape == (1, 4, width, 4, 4)
    assert features["audio_features"].shape == (1, 4, num_frames, 32)
    assert features["audio_features"].any() and features["has_audio"].item()
    silent = processor({name: source[name] for name in ("frames", "fps")})
    assert not silent["audio_features"].any() and not silent["has_audio"].item()
    assert torch.equal(silent["visual_features"], features["visual_features"])
    processor.save_pretrained(tmp_path)
    again = AvacaProcessor.from_pretrained(tmp_path)
    for computing in (processor, again, copy.deepcopy(again)):
        found = computing(source)
        assert all(torch.equal(found[name], features[name]) for name in features)
        assert json.dumps(computing.recipe(), sort_keys=True) == recipe
    next(again.audio_encoder.parameters()).add_(1)
    assert json.dumps(again.recipe(), sort_keys=True) != recipe
    with pytest.raises(ValueError, match="cannot be exported: only encoders of this library can"):
        list(processor.networks_to_export([]))


def test_a_model_with_its_constants_needs_no_adapter():
    network = videomae()
    processor = AvacaProcessor(
        video_encoder=network,
        audio_encoder=wav2vec2(),
        feature_extractor=wave_extractor(),
        image_mean=MEAN,
        image_std=STD,
    )
    clips = pixels(1, 4)
    expected = foreign_encoder(network, PIXELS).encode(clips)
    assert torch.equal(processor.encoders["video_encoder"].encode(clips), expected)
    with pytest.raises(
        ValueError, match=r"size must be \(32, 32\), height and width: VideoMAEModel takes frames of no"
    ):
        AvacaProcessor(
            video_encoder=foreign_encoder(network, PIXELS),
            audio_encoder=wav2vec2(),
            feature_extractor=wave_extractor(),
            size=64,
        )


# From extraction to the Hub and back


def publish(hub: HubServer, folder, name: str) -> None:
    """Put a folder's files into a repository, as another library would."""
    repo = Repo("model", name, private=False)
    files = {path.name: Blob(path.read_bytes(), lfs=path.suffix == ".safetensors") for path in folder.iterdir()}
    repo.add("main", Commit(files, "upload"))
    hub.repos["model", name] = repo


def recordings(folder) -> list[dict]:
    """Videos that a detector learns to tell apart in a few steps: bright ones with a tone, dark and silent ones."""
    rows = []
    for number in range(8):
        is_bright = number % 2

        def picture(index, width, height, level=60 + 150 * is_bright, number=number):
            return np.full((height, width, 3), level + (index * 7 + number * 3) % 20, dtype=np.uint8)

        tone = sound(number, 2.0, 16000) * is_bright
        path = folder / f"{number}.mp4"
        write_media(path, frame_times(10, 2.0), tone, 16000, audio_codec="aac", pictures=picture)
        part = "train" if number < 4 else "validation"
        rows.append(
            {"id": str(number), "video": str(path), "label": str(is_bright), "anomaly": is_bright, "split": part}
        )
    return rows


# What each child process begins with.
CHILD = """
import hashlib, json
import torch
torch.set_num_threads(1)
import avad_hf
from transformers import AutoProcessor, pipeline

def digests(processor):
    return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in processor(CLIP).items()}

def detected(place):
    found = pipeline("audio-visual-anomaly", model=place, dtype="float32")(CLIP)
    return [found["score"], [clip["score"] for clip in found["clips"]]]
"""
PUSH = """
avad_hf.push_checkpoint(ROOT + "/run", "alice/carried")
processor = avad_hf.AvacaProcessor(video_encoder="other/clip", audio_encoder="other/ast")
processor.save_pretrained(ROOT + "/named")
avad_hf.push_checkpoint(ROOT + "/named", "alice/named")
print(json.dumps({"features": digests(processor), "score": detected(ROOT + "/named"), "recipe": processor.recipe()}))
"""
PULL = """
processor = AutoProcessor.from_pretrained("alice/named")
found = {"features": digests(processor), "score": detected("alice/named"), "recipe": processor.recipe()}
print(json.dumps(found | {"carried": detected("alice/carried")}))
"""


def detector(processor: AvacaProcessor, folder) -> None:
    """Write an untrained AVACA for a processor's features."""
    sizes = {"visual_size": processor.widths["visual_features"], "audio_size": processor.widths["audio_features"]}
    config = AvacaConfig(**sizes, num_audio_steps=processor.num_pictures, hidden_size=16, num_attention_heads=2)
    AvacaForAnomalyDetection(config).save_pretrained(folder)


def test_a_detector_is_trained_on_them_pushed_and_pulled(tmp_path):
    rows = recordings(tmp_path)
    processor = AvacaProcessor(
        video_encoder=foreign_encoder(videomae(), PIXELS), audio_encoder=foreign_encoder(ast(), ast_extractor())
    )
    done = extract_features(rows, processor, tmp_path / "store")
    assert not done.failed and done.num_stored == 8
    detector(processor, tmp_path / "untrained")
    processor.save_pretrained(tmp_path / "untrained")
    places = {
        "data": str(tmp_path / "store"),
        "output_dir": str(tmp_path / "run"),
        "model": str(tmp_path / "untrained"),
    }
    train(TrainingConfig(**places, epochs=2, batch_size=4), progress=False)
    found = pipeline("audio-visual-anomaly", model=str(tmp_path / "run"), dtype="float32")(rows[1]["video"])
    expected = [found["score"], [clip["score"] for clip in found["clips"]]]

    named = AvacaProcessor(
        video_encoder=foreign_encoder(clip(), PIXELS), audio_encoder=foreign_encoder(ast(), ast_extractor())
    )
    detector(named, tmp_path / "named")
    features = named(rows[1]["video"])
    with HubServer(tokens={"tok": "alice"}) as hub:
        publish(hub, save(tmp_path / "clip", clip(), PIXELS), "other/clip")
        publish(hub, save(tmp_path / "ast", ast(), ast_extractor()), "other/ast")
        head = f"CLIP, ROOT = {rows[1]['video']!r}, {str(tmp_path)!r}\n{CHILD}"
        pushed = json.loads(hub.run(head + PUSH, tmp_path / "home"))
        pulled = json.loads(hub.run(head + PULL, tmp_path / "another home"))
        commit = hub.repos["model", "other/clip"].branches["main"]
        settings = json.loads(hub.files("model", "alice/named")["processor_config.json"])
        assert not [path for path in hub.files("model", "alice/named") if "encoder" in path]
        assert not hub.unknown
    assert pulled.pop("carried") == expected
    assert pulled == pushed
    assert settings["video_encoder"] == f"other/clip@{commit}"
    digests = {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in features.items()}
    assert pushed["features"] == digests
    assert pushed["recipe"]["video_encoder"] == json.loads(json.dumps(named.recipe()))["video_encoder"]
