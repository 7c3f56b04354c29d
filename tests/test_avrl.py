"""AVRL: its forward pass against sections III and IV-E written out, padding, freezing, loading and refusals."""

import logging
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvggish.torchvggish import VGG, make_layers
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification

from avad_hf import (
    AvrlConfig,
    AvrlForVideoClassification,
    AvrlModel,
    ResNet3dConfig,
    ResNet3dForVideoClassification,
    ResNet3dModel,
    VggishConfig,
    VggishModel,
)
from avad_hf.corpora.classes import SHADE_CLASSES, is_normal
from avad_hf.models.avrl.modeling_avrl import logger
from tests.test_resnet3d import NaiveResNet3d

pytestmark = pytest.mark.usefixtures("one_thread")

VIDEO = {"stem_width": 8, "depths": (1, 1, 1, 1)}
AUDIO = {"hidden_sizes": (8, 16, 32, 64), "intermediate_size": 16, "embedding_size": 8}
FUSIONS = ["concat", "concat_norm", "concat_scaled", "add", "low_level"]
KINDS = [*(("audio_visual", fusion) for fusion in FUSIONS), ("visual", "concat"), ("audio", "concat")]
# Log-mel frames of the videos of a batch; one is without sound.
LENGTHS = [50, 16, 0, 33, 47, 17, 31]
# Indices of convolutions in VGGish's layers, and of those that a pooling follows.
CONVOLUTIONS, POOLED = (0, 3, 6, 8, 11, 13), (0, 3, 8, 13)


def configured(**fields) -> AvrlConfig:
    return AvrlConfig(**{"video_config": VIDEO, "audio_config": AUDIO, "hidden_sizes": (32, 16)} | fields)


def randomise(model: nn.Module) -> None:
    """Weights and batch-norm statistics that keep activations near 1, so that relative errors mean something."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if "running_var" in name or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.dim() == 1:
            tensor.normal_(0, 0.1, generator=generator)
        elif tensor.dim() > 1:
            nn.init.kaiming_normal_(tensor, nonlinearity="relu", generator=generator)


def detector(modality: str = "audio_visual", fusion: str = "concat", **fields) -> AvrlForVideoClassification:
    model = AvrlForVideoClassification(configured(modality=modality, fusion=fusion, **fields))
    randomise(model)
    return model.eval()


def videos(count: int = 3, frames: int = 4, size=(32, 40)):
    return torch.randn(count, frames, 3, *size)


def sounds(count: int = 3, frames: int = 40):
    return torch.randn(count, frames, 64)


def near(found, expected) -> bool:
    return bool((found - expected).norm() <= 1e-5 * expected.norm())


def naive_sound(weights: dict, log_mel):
    """f_a of section III-B: VGGish's convolutions on the whole spectrogram, the mean of each channel."""
    x = log_mel[None, None]
    for index in CONVOLUTIONS:
        weight, bias = weights[f"avrl.audio.features.{index}.weight"], weights[f"avrl.audio.features.{index}.bias"]
        x = torch.relu(F.conv2d(x, weight, bias, padding=1))
        if index in POOLED:
            x = F.max_pool2d(x, 2)
    return x[0].flatten(1).mean(dim=1)


def naive_features(model: AvrlForVideoClassification, frames, log_mel):
    """f_v, f_a and what Table I gets, for one video; `log_mel` is `None` without sound."""
    weights, config = model.state_dict(), model.config
    f_v = f_a = None
    if config.modality != "visual":
        f_a = torch.zeros(64) if log_mel is None else naive_sound(weights, log_mel)
    if config.modality != "audio":
        hears_early = (config.modality, config.fusion) == ("audio_visual", "low_level")
        if hears_early:
            table = torch.tensor([[float(a * b) for b in f_a] for a in f_a])
            channel = F.interpolate(table[None, None], size=frames.shape[-2:], mode="bilinear", align_corners=False)
            frames = torch.stack([torch.cat([frame, channel[0]]) for frame in frames])
        shortcut = config.video_config.shortcut_type
        network = NaiveResNet3d(shortcut, channels=3 + hears_early, width=8, depths=(1, 1, 1, 1)).eval()
        network.fc = nn.Identity()
        network.load_state_dict(
            {name.removeprefix("avrl.visual."): weights[name] for name in weights if name.startswith("avrl.visual.")}
        )
        f_v = network(frames[None])[0]
    if config.modality != "audio_visual":
        return f_v, f_a, f_a if f_v is None else f_v
    if config.fusion == "add":
        fused = f_v + f_a
    elif config.fusion == "low_level":
        fused = f_v
    elif config.fusion == "concat_scaled":
        fused = torch.cat([f_v, 10 * f_a])
    else:
        fused = torch.cat([f_v, f_a])
    if config.fusion == "concat_norm":
        fused = (fused - fused.mean()) / (fused.var(correction=0) + 1e-5).sqrt()
        fused = fused * weights["avrl.norm.weight"] + weights["avrl.norm.bias"]
    return f_v, f_a, fused


def naive_logits(model: AvrlForVideoClassification, fused):
    """Table I: two hidden layers with ReLU, then the classes."""
    weights = model.state_dict()
    x = weights["classifier.0.weight"] @ fused + weights["classifier.0.bias"]
    x = weights["classifier.2.weight"] @ torch.relu(x) + weights["classifier.2.bias"]
    return weights["classifier.4.weight"] @ torch.relu(x) + weights["classifier.4.bias"]


# The definition


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(("modality", "fusion"), KINDS)
@torch.no_grad()
def test_equals_sections_iii_and_iv_e(modality, fusion, shortcut):
    model = detector(modality, fusion, video_config=VIDEO | {"shortcut_type": shortcut})
    frames, log_mel = videos(3, 5), sounds(3, 49)
    mask = torch.ones(3, 49, dtype=torch.bool)
    mask[1] = False
    body, outputs = model.avrl(frames, log_mel, mask), model(frames, log_mel, mask)
    for index in range(3):
        f_v, f_a, fused = naive_features(model, frames[index], None if index == 1 else log_mel[index])
        for found, expected in ((body.visual_features, f_v), (body.audio_features, f_a)):
            assert (found is None) == (expected is None)
            assert found is None or near(found[index], expected)
        assert fused.shape == (model.config.fused_size,)
        assert near(body.fused_features[index], fused)
        assert near(outputs.logits[index], naive_logits(model, fused))
    heard = modality != "visual"
    assert heard == bool((outputs.logits - model(frames, 2 * log_mel, mask).logits).abs().max() > 1e-3)
    assert outputs.loss is None


@pytest.mark.parametrize("frames", [16, 31, 96, 101])
@torch.no_grad()
def test_hears_as_torchvggish(frames):
    original = VGG(make_layers(), postprocess=False).eval()
    model = AvrlModel(AvrlConfig(video_config=VIDEO, modality="audio")).eval()
    model.audio.features.load_state_dict(original.features.state_dict(), strict=True)
    log_mel = sounds(2, frames)
    expected = original.features(log_mel.unsqueeze(1))
    assert expected.shape == (2, 512, frames // 16, 4)
    assert near(model(input_features=log_mel).audio_features, expected.flatten(2).mean(dim=2))


def test_loss_is_equation_4():
    """-(1/m) sum over videos and classes of y_ij log p_ij, with y one-hot."""
    model, frames, log_mel = detector(), videos(), sounds()
    labels = torch.tensor([8, 0, 3])
    outputs = model(frames, log_mel, labels=labels)
    total = 0.0
    for logits, label in zip(outputs.logits.double(), labels, strict=True):
        p = logits.exp() / logits.exp().sum()
        y = torch.tensor([float(j == label) for j in range(9)])
        total = total - (y * p.log()).sum()
    torch.testing.assert_close(outputs.loss.double(), total / 3, rtol=1e-5, atol=0)
    again = model.losses(outputs.logits, labels)
    assert set(again) == {"loss"} and torch.equal(again["loss"], outputs.loss)


@pytest.mark.parametrize("normal", [("normal1", "normal2"), ("chase",), ("scatter", "arrest", "run")])
@torch.no_grad()
def test_score_is_one_minus_the_normal_classes(normal):
    model = detector(normal_labels=normal)
    outputs = model(videos(), sounds())
    names = list(SHADE_CLASSES.names)
    expected = 1 - sum(outputs.logits.softmax(dim=1)[:, names.index(name)] for name in normal)
    torch.testing.assert_close(outputs.anomaly_logits.sigmoid(), expected)


@torch.no_grad()
def test_score_stays_finite_where_probabilities_vanish():
    model = detector()
    model.classifier[4].bias[:] = torch.tensor([300.0, *[0.0] * 8])
    assert (model(videos(), sounds()).anomaly_logits > 250).all()
    model.classifier[4].bias[:] = torch.tensor([*[0.0] * 8, 300.0])
    assert (model(videos(), sounds()).anomaly_logits < -250).all()


def test_classes_are_those_of_shade():
    for config in (AvrlConfig(), configured()):
        assert [config.id2label[index] for index in range(config.num_labels)] == SHADE_CLASSES.names
        assert config.label2id == {name: index for index, name in enumerate(SHADE_CLASSES.names)}
        normal = [index for index, name in enumerate(SHADE_CLASSES.names) if is_normal(name)]
        assert config.normal_ids == normal == [7, 8]


def test_has_the_papers_widths():
    """Table I from 1024 on; 512 features each; 50 frames of 240 x 240 pixels."""
    with torch.device("meta"):
        model = AvrlForVideoClassification(AvrlConfig())
        # The 3D ResNet alone: the body looks at values, which nothing on the meta device has.
        found = model.avrl.visual(torch.empty(2, 50, 3, 240, 240))
    assert found.pooler_output.shape == (2, 512)
    layers = [(layer.in_features, layer.out_features) for layer in model.classifier if isinstance(layer, nn.Linear)]
    assert layers == [(1024, 512), (512, 256), (256, 9)]
    assert [type(layer) for layer in model.classifier[1::2]] == [nn.ReLU, nn.ReLU]
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.avrl.named_children()}
    assert count == {"visual": 63_513_536, "audio": 4_499_712}
    for fusion, width in zip(FUSIONS, (1024, 1024, 1024, 512, 512), strict=True):
        assert AvrlConfig(fusion=fusion).fused_size == width
    assert [AvrlConfig(modality=modality).fused_size for modality in ("visual", "audio")] == [512, 512]


# Batches and padding


@pytest.mark.parametrize("filler", [0.0, 1e30, math.nan, math.inf])
@pytest.mark.parametrize(("modality", "fusion"), KINDS)
@torch.no_grad()
def test_a_batch_gives_what_single_videos_give(modality, fusion, filler):
    model = detector(modality, fusion)
    frames, log_mel = videos(len(LENGTHS)), sounds(len(LENGTHS), 64)
    mask = torch.arange(64) < torch.tensor(LENGTHS).unsqueeze(1)
    padded = log_mel.masked_fill(~mask.unsqueeze(2), filler)
    batch, body = model(frames, padded, mask), model.avrl(frames, padded, mask)
    for index, length in enumerate(LENGTHS):
        video, sound = frames[index : index + 1], log_mel[index : index + 1, :length]
        if length == 0 and modality != "audio":
            sound = None
        single = model(video, sound)
        assert near(batch.logits[index], single.logits[0])
        torch.testing.assert_close(batch.anomaly_logits[index], single.anomaly_logits[0], rtol=1e-5, atol=1e-5)
        if modality != "visual":
            features = model.avrl(video, sound).audio_features[0]
            assert near(body.audio_features[index], features)
            assert bool((features == 0).all()) == (length == 0)


@pytest.mark.parametrize("fusion", ["concat", "low_level"])
def test_padding_does_not_teach(fusion):
    """Loss, gradients and statistics of a training step are the same whatever the padding holds."""
    frames, log_mel, labels = videos(len(LENGTHS)), sounds(len(LENGTHS), 64), torch.arange(len(LENGTHS))
    mask = torch.arange(64) < torch.tensor(LENGTHS).unsqueeze(1)
    found = []
    for filler in (0.0, -4.6, 1e30, math.nan):
        model = detector(fusion=fusion).train()
        loss = model(frames, log_mel.masked_fill(~mask.unsqueeze(2), filler), mask, labels=labels).loss
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


@torch.no_grad()
def test_masks_of_other_types_and_full_masks():
    model, frames, log_mel = detector(), videos(), sounds()
    expected = model(frames, log_mel).logits
    assert near(model(frames, log_mel, torch.ones(3, 40, dtype=torch.bool)).logits, expected)
    mask = (torch.arange(40) < torch.tensor([40, 20, 0]).unsqueeze(1)).long()
    assert torch.equal(model(frames, log_mel, mask).logits, model(frames, log_mel, mask.bool()).logits)
    assert not near(model(frames, log_mel, mask).logits, expected)


# Missing sound


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_missing_sound_is_zero_features(fusion):
    model, frames, log_mel = detector(fusion=fusion), videos(), sounds()
    expected = torch.stack([naive_logits(model, naive_features(model, video, None)[2]) for video in frames])
    silent = torch.zeros(3, 40, dtype=torch.bool)
    for sound, mask in (
        (None, None),
        (None, silent),
        (log_mel, silent),
        (log_mel[:, :0], None),
        (log_mel[:, :5], silent[:, :5]),
    ):
        body = model.avrl(frames, sound, mask)
        assert body.audio_features.shape == (3, 64) and (body.audio_features == 0).all()
        assert near(model(frames, sound, mask).logits, expected)
    # Silence that was recorded is no missing sound.
    assert (model.avrl(frames, torch.full_like(log_mel, math.log(0.01))).audio_features != 0).any()


@torch.no_grad()
def test_log_says_which_sound_is_missing(caplog):
    model, frames, log_mel = detector(), videos(), sounds()
    caplog.set_level(logging.INFO, logger=logger.name)
    model(frames)
    assert caplog.messages == ["3 of 3 videos have no sound: their sound features are zero."]
    caplog.clear()
    model(frames, log_mel, torch.tensor([[True], [False], [True]]).expand(3, 40))
    assert caplog.messages == ["1 of 3 videos have no sound: their sound features are zero."]
    caplog.clear()
    model(frames, log_mel)
    model(frames, log_mel, torch.ones(3, 40))
    detector("visual")(frames)
    assert caplog.messages == []


@torch.no_grad()
def test_low_level_without_sound_is_a_channel_of_zeros():
    model, frames = detector(fusion="low_level"), videos()
    four = torch.cat([frames, torch.zeros(3, 4, 1, 32, 40)], dim=2)
    assert torch.equal(model.avrl(frames).visual_features, model.avrl.visual(four).pooler_output)


# Training


@pytest.mark.parametrize(("modality", "fusion"), KINDS)
def test_every_parameter_learns(modality, fusion):
    model = detector(modality, fusion).train()
    frames, log_mel, labels = videos(), sounds(), torch.tensor([0, 8, 4])
    mask = torch.arange(40) < torch.tensor([40, 17, 0]).unsqueeze(1)
    model(frames, log_mel, mask, labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name
    # Wholly silent: DistributedDataParallel waits for a gradient of every parameter.
    model.zero_grad()
    model(frames, log_mel, torch.zeros_like(mask), labels=labels).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert not name.startswith("avrl.audio.") or (parameter.grad == 0).all(), name
    if modality != "audio":
        model.zero_grad()
        model(frames, labels=labels).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_few_steps_lower_the_loss():
    model, frames, log_mel = AvrlForVideoClassification(configured()).train(), videos(), sounds()
    labels = torch.tensor([0, 8, 4])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(frames, log_mel, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Begins near guessing.
    assert losses[0] == pytest.approx(math.log(9), abs=0.4)
    assert losses[-1] < 0.2 * losses[0]


VIDEO_STAGES = (("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",))
AUDIO_STAGES = (("features.0.",), ("features.3.",), ("features.6.", "features.8."), ("features.11.", "features.13."))


def frozen_prefixes(video: int, audio: int) -> tuple[str, ...]:
    return tuple(
        [f"visual.{prefix}" for stage in VIDEO_STAGES[:video] for prefix in stage]
        + [f"audio.{prefix}" for stage in AUDIO_STAGES[:audio] for prefix in stage]
    )


def check_frozen(body: AvrlModel, video: int, audio: int) -> None:
    prefixes = frozen_prefixes(video, audio)
    assert {name for name, p in body.named_parameters() if not p.requires_grad} == {
        name for name, _ in body.named_parameters() if name.startswith(prefixes)
    }
    for name, module in body.named_modules():
        if isinstance(module, nn.BatchNorm3d):
            assert module.training == (body.training and not f"{name}.".startswith(prefixes)), name


@pytest.mark.parametrize(("video", "audio"), [(0, 0), (1, 0), (0, 1), (2, 2), (3, 3), (4, 1), (5, 4)])
def test_frozen_stages_keep_weights_and_statistics(tmp_path, video, audio):
    config = configured(frozen_video_stages=video, frozen_audio_stages=audio, fusion="concat_norm")
    check_frozen(AvrlModel(config), video, audio)
    model = AvrlForVideoClassification(config)
    check_frozen(model.avrl, video, audio)
    model.save_pretrained(tmp_path)
    for loaded in (AvrlForVideoClassification.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)):
        body = getattr(loaded, "avrl", loaded)
        check_frozen(body, video, audio)
        assert not loaded.training
        loaded.train()
        check_frozen(body, video, audio)
        loaded.eval()
        check_frozen(body, video, audio)
    # A step in training mode, with weight decay, on what was loaded.
    model = AvrlForVideoClassification.from_pretrained(tmp_path).train()
    assert model.avrl.training and model.classifier.training
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(videos(), sounds(), labels=torch.tensor([0, 1, 2])).loss.backward()
    optimizer.step()
    prefixes = tuple(f"avrl.{prefix}" for prefix in frozen_prefixes(video, audio))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith(prefixes), name
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if (video, audio) == (5, 4):
        assert all(name.startswith(("avrl.norm.", "classifier.")) for name in trainable)


@pytest.mark.parametrize("modality", ["visual", "audio"])
def test_frozen_stages_of_a_network_that_is_not_built(modality):
    model = detector(modality, frozen_video_stages=5, frozen_audio_stages=4).train()
    trainable = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable == {"classifier"}
    model(videos(), sounds(), labels=torch.tensor([0, 1, 2])).loss.backward()


@pytest.mark.parametrize(
    ("modality", "fusion", "frozen"),
    [*((modality, fusion, 0) for modality, fusion in KINDS if modality != "audio"), ("audio_visual", "concat", 2)],
)
def test_checkpointing_changes_nothing_but_memory(modality, fusion, frozen):
    frames, log_mel, labels = videos(), sounds(), torch.tensor([0, 8, 4])
    mask = torch.arange(40) < torch.tensor([40, 17, 0]).unsqueeze(1)
    found, computed = [], []
    for saving in (False, True):
        model = detector(modality, fusion, frozen_video_stages=frozen).train()
        if saving:
            model.activation_checkpointing_enable()
        count = []
        for part in (model.avrl.visual.conv1, model.avrl.visual.layer4[0].conv2):
            part.register_forward_hook(lambda module, inputs, output, count=count: count.append(module))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
        losses = []
        for _ in range(2):
            optimizer.zero_grad()
            loss = model(frames, log_mel, mask, labels=labels).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append((losses, gradients, dict(model.state_dict())))
        computed.append(len(count) // 2)
    torch.testing.assert_close(found[1], found[0])
    # With it the stem is computed twice, if it learns at all.
    assert computed == [2, 4 if frozen == 0 else 3 if frozen < 5 else 2]
    counts = {name: int(n) for name, n in found[1][2].items() if name.endswith("num_batches_tracked")}
    kept = tuple(f"avrl.{prefix}" for prefix in frozen_prefixes(frozen, 0))
    assert counts == {name: 0 if name.startswith(kept) else 2 for name in counts}


# Weights


@torch.no_grad()
def test_takes_the_weights_of_trained_encoders():
    video_encoder, audio_encoder = ResNet3dModel(ResNet3dConfig(**VIDEO)), VggishModel(VggishConfig(**AUDIO))
    randomise(video_encoder)
    randomise(audio_encoder)
    video_encoder.eval()
    frames, log_mel = videos(), sounds()
    expected_v = video_encoder(frames).pooler_output
    expected_a = audio_encoder(log_mel).feature_map.mean(dim=(2, 3))
    for fusion in FUSIONS:
        body = AvrlModel(configured(fusion=fusion)).eval()
        assert not near(body(frames, log_mel).visual_features, expected_v)
        body.load_backbones(video_encoder, audio_encoder)
        outputs = body(frames, log_mel)
        assert near(outputs.visual_features, expected_v) and near(outputs.audio_features, expected_a)
        for name, tensor in video_encoder.state_dict().items():
            own = body.visual.state_dict()[name]
            assert torch.equal(own[:, :3] if name == "conv1.weight" else own, tensor), name
        for name, tensor in audio_encoder.features.state_dict().items():
            assert torch.equal(body.audio.features.state_dict()[name], tensor), name
    # Fusion low_level, the last one: the new channel is there, and of zeros.
    assert body.visual.conv1.weight.shape == (8, 4, 7, 7, 7) and (body.visual.conv1.weight[:, 3] == 0).all()
    assert video_encoder.conv1.weight.shape == (8, 3, 7, 7, 7)


def test_the_new_channel_learns():
    model = detector(fusion="low_level").train()
    model.avrl.load_backbones(ResNet3dModel(ResNet3dConfig(**VIDEO)))
    model(videos(), sounds(), labels=torch.tensor([0, 8, 4])).loss.backward()
    assert model.avrl.visual.conv1.weight.grad[:, 3].abs().max() > 0


@pytest.mark.parametrize(("given", "wanted"), [("low_level", "add"), ("low_level", "low_level"), ("add", "low_level")])
@torch.no_grad()
def test_takes_the_networks_of_another_detector(given, wanted):
    """What was learnt of a sound's channel stays behind."""
    source, body = detector(fusion=given).avrl, AvrlModel(configured(fusion=wanted)).eval()
    before = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    body.load_backbones(source.visual, source.audio)
    kernel = body.visual.conv1.weight
    assert torch.equal(kernel[:, :3], source.visual.conv1.weight[:, :3]) and (kernel[:, 3:] == 0).all()
    assert kernel.shape[1] == (4 if wanted == "low_level" else 3)
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert name == "visual.conv1.weight" or torch.equal(body.state_dict()[name], tensor), name


@torch.no_grad()
def test_takes_one_encoder_and_leaves_the_other():
    body, video_encoder = AvrlModel(configured()), ResNet3dModel(ResNet3dConfig(**VIDEO))
    before = {name: tensor.clone() for name, tensor in body.audio.state_dict().items()}
    body.load_backbones(video_encoder=video_encoder)
    assert torch.equal(body.visual.conv1.weight, video_encoder.conv1.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.audio.state_dict().items())
    seeing, hearing = AvrlModel(configured(modality="visual")), AvrlModel(configured(modality="audio"))
    audio_encoder = VggishModel(VggishConfig(**AUDIO))
    for model in (seeing, hearing):
        model.load_backbones(video_encoder, audio_encoder)
    assert torch.equal(seeing.visual.conv1.weight, video_encoder.conv1.weight)
    assert torch.equal(hearing.audio.features[13].weight, audio_encoder.features[13].weight)
    assert seeing.audio is None and hearing.visual is None


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        (
            lambda: {"video_encoder": ResNet3dModel(ResNet3dConfig(**VIDEO | {"stem_width": 16}))},
            "video_encoder does not have the architecture of video_config",
        ),
        (
            lambda: {"video_encoder": ResNet3dModel(ResNet3dConfig(**VIDEO, shortcut_type="A"))},
            r"of video_config: (.|\n)*layer2.0.downsample",
        ),
        (
            lambda: {"video_encoder": ResNet3dModel(ResNet3dConfig(**VIDEO | {"depths": (1, 1, 1, 2)}))},
            r"of video_config: (.|\n)*layer4.1.conv1",
        ),
        (
            lambda: {"audio_encoder": VggishModel(VggishConfig(**AUDIO | {"hidden_sizes": (8, 16, 32, 32)}))},
            "audio_encoder does not have the architecture of audio_config",
        ),
    ],
)
@pytest.mark.parametrize("fusion", ["concat", "low_level"])
def test_refuses_encoders_of_another_architecture(fusion, encoders, message):
    with pytest.raises(ValueError, match=message):
        AvrlModel(configured(fusion=fusion)).load_backbones(**encoders())


OWN = {"id2label": {0: "quiet", 1: "fire", 2: "flood"}, "normal_labels": ["quiet"]}
TWO = {"id2label": {0: "anomaly", 1: "normal"}, "normal_labels": ["normal"]}


@pytest.mark.parametrize(
    ("fields", "names", "normal"),
    [
        ({}, SHADE_CLASSES.names, [7, 8]),
        ({"fusion": "low_level"}, SHADE_CLASSES.names, [7, 8]),
        ({"modality": "audio"}, SHADE_CLASSES.names, [7, 8]),
        (OWN | {"fusion": "concat_norm"}, ["quiet", "fire", "flood"], [0]),
        (TWO | {"modality": "visual"}, ["anomaly", "normal"], [1]),
        ({"num_labels": 2, "normal_labels": ["LABEL_1"]}, ["LABEL_0", "LABEL_1"], [1]),
    ],
    ids=["shade", "low_level", "audio", "own", "two", "two without names"],
)
@torch.no_grad()
def test_round_trip_through_auto_classes(tmp_path, fields, names, normal):
    model = AvrlForVideoClassification(
        configured(
            threshold=0.3,
            threshold_origin="looked at",
            recipe_sha256="ab",
            frozen_audio_stages=1,
            notice="untrained",
            **fields,
        )
    )
    randomise(model)
    model.eval().save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, AvrlConfig)
    assert config.id2label == dict(enumerate(names)) and config.normal_ids == normal
    assert list(config.id2label.values()) == list(names)  # in the order of their numbers
    assert config.label2id == {name: index for index, name in enumerate(names)} and config.num_labels == len(names)
    assert (config.threshold, config.threshold_origin, config.recipe_sha256) == (0.3, "looked at", "ab")
    assert (config.frozen_audio_stages, config.notice, list(config.hidden_sizes)) == (1, "untrained", [32, 16])
    assert isinstance(config.video_config, ResNet3dConfig) and isinstance(config.audio_config, VggishConfig)
    assert (config.video_config.stem_width, config.video_config.num_channels) == (8, 3)
    assert list(config.audio_config.hidden_sizes) == [8, 16, 32, 64]
    again, body = AutoModelForVideoClassification.from_pretrained(tmp_path), AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, AvrlForVideoClassification) and isinstance(body, AvrlModel)
    assert (config.modality, config.fusion) == (model.config.modality, model.config.fusion)
    assert set(again.state_dict()) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    inputs = videos(), sounds()
    assert again(*inputs).logits.shape == (3, len(names))
    for name in ("logits", "anomaly_logits"):
        torch.testing.assert_close(again(*inputs)[name], model(*inputs)[name])
    torch.testing.assert_close(body(*inputs).fused_features, model.avrl(*inputs).fused_features)


def test_refuses_a_checkpoint_of_another_type(tiny, tmp_path):
    with pytest.raises(ValueError, match="holds a model of type 'avaca', but AvrlConfig reads only 'avrl'"):
        AvrlForVideoClassification.from_pretrained(tiny)
    ResNet3dForVideoClassification(ResNet3dConfig(**VIDEO)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'resnet3d', but AvrlConfig reads only 'avrl'"):
        AvrlForVideoClassification.from_pretrained(tmp_path)


def test_refuses_a_damaged_config(tmp_path):
    model = AvrlForVideoClassification(configured())
    model.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"threshold": 0.5', '"threshold": 5'))
    with pytest.raises(
        ValueError, match=r"config of this 'avrl' checkpoint is not valid(.|\n)*between 0 and 1, got 5"
    ):
        AvrlForVideoClassification.from_pretrained(tmp_path)


# Small and coarse


@pytest.mark.parametrize(("modality", "fusion"), KINDS)
@torch.no_grad()
def test_runs_in_bfloat16(modality, fusion):
    model = detector(modality, fusion)
    frames, log_mel = videos(), sounds()
    mask = torch.arange(40) < torch.tensor([40, 17, 0]).unsqueeze(1)
    expected = model(frames, log_mel, mask)
    found = model.to(torch.bfloat16)(frames, log_mel, mask)
    assert found.logits.dtype == torch.bfloat16 and found.anomaly_logits.dtype == torch.float32
    assert (found.logits.float() - expected.logits).norm() < 0.1 * expected.logits.norm()
    with torch.enable_grad():
        model.train()(frames, log_mel, mask, labels=torch.tensor([0, 8, 4])).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize(("modality", "fusion"), KINDS)
@torch.no_grad()
def test_one_frame_is_enough(modality, fusion):
    model = detector(modality, fusion)
    frames, log_mel = videos(1, 1, (32, 32)), sounds(1, 16)
    fused = naive_features(model, frames[0], log_mel[0])[2]
    assert near(model(frames, log_mel).logits[0], naive_logits(model, fused))


def test_golden_scores():
    """Guards against silent change. To make the numbers anew: print what is compared, after an intended change."""
    model = detector()
    frames = torch.linspace(-1, 1, 2 * 4 * 3 * 32 * 32).reshape(2, 4, 3, 32, 32)
    log_mel = torch.linspace(1, -1, 2 * 40 * 64).reshape(2, 40, 64).sin()
    assert model(frames, log_mel).logits[0, :3].tolist() == pytest.approx(GOLDEN, abs=1e-4)


GOLDEN = [0.9002349, -0.2239370, 0.6854102]


# Refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pixel_values_videos": None}, r"pixel_values_videos of shape \(B, F, 3, H, W\), got none"),
        ({"pixel_values_videos": torch.zeros(2, 3, 4, 32, 32)}, r"got \(2, 3, 4, 32, 32\)"),
        ({"pixel_values_videos": torch.zeros(4, 3, 32, 32)}, r"got \(4, 3, 32, 32\)"),
        ({"pixel_values_videos": torch.zeros(2, 0, 3, 32, 32)}, r"got \(2, 0, 3, 32, 32\)"),
        (
            {"pixel_values_videos": torch.full((2, 4, 3, 32, 32), math.nan)},
            "pixel_values_videos holds NaN or infinite",
        ),
        (
            {"pixel_values_videos": torch.full((2, 4, 3, 32, 32), math.inf)},
            "pixel_values_videos holds NaN or infinite",
        ),
        ({"input_features": torch.zeros(3, 40, 64)}, r"input_features of shape \(2, frames, 64\), got \(3, 40, 64\)"),
        ({"input_features": torch.zeros(2, 40, 40)}, r"input_features of shape \(2, frames, 64\), got \(2, 40, 40\)"),
        ({"input_features": torch.zeros(40, 64)}, r"input_features of shape \(2, frames, 64\), got \(40, 64\)"),
        ({"input_features": torch.zeros(2, 15, 64)}, r"16 or more log-mel frames .* \(0.175 s\), got 15. Append"),
        ({"input_features": torch.zeros(2, 1, 64)}, "16 or more log-mel frames .* got 1. Append"),
        ({"audio_frame_mask": torch.arange(40) < torch.tensor([[40], [15]])}, "16 or more log-mel frames .* got 15"),
        ({"audio_frame_mask": torch.arange(40) < torch.tensor([[1], [0]])}, "16 or more log-mel frames .* got 1"),
        ({"audio_frame_mask": torch.ones(2, 39)}, r"audio_frame_mask must be of shape \(2, 40\), got \(2, 39\)"),
        ({"audio_frame_mask": torch.ones(40)}, r"audio_frame_mask must be of shape \(2, 40\), got \(40,\)"),
        ({"audio_frame_mask": torch.arange(40).expand(2, 40) != 20}, "must be true for the first frames of a video"),
        ({"audio_frame_mask": torch.arange(40).expand(2, 40) > 5}, "must be true for the first frames of a video"),
        ({"input_features": torch.full((2, 40, 64), math.nan)}, "input_features holds NaN or infinite"),
        ({"input_features": torch.full((2, 40, 64), -math.inf)}, "input_features holds NaN or infinite"),
        ({"labels": torch.tensor([0, 9])}, r"labels must be class numbers from 0 to 8, got \[0, 9\]"),
        ({"labels": torch.tensor([-1, 3])}, r"labels must be class numbers from 0 to 8, got \[-1, 3\]"),
        ({"labels": torch.tensor([0.0, 1.0])}, r"one class number a video, shape \(2,\), got torch.float32 of \(2,\)"),
        ({"labels": torch.tensor([0, 1, 2])}, r"shape \(2,\), got torch.int64 of \(3,\)"),
        ({"labels": torch.tensor([[0, 1]])}, r"shape \(2,\), got torch.int64 of \(1, 2\)"),
    ],
)
def test_refuses(arguments, message):
    given = {"pixel_values_videos": videos(2, size=(32, 32)), "input_features": sounds(2)}
    with pytest.raises(ValueError, match=message):
        detector()(**given | arguments)


def test_refuses_nan_in_sound_beside_a_mask():
    log_mel = sounds(2)
    log_mel[1, 19, 63] = math.nan
    mask = torch.arange(40) < torch.tensor([[40], [20]])
    with pytest.raises(ValueError, match="input_features holds NaN or infinite"):
        detector()(videos(2), log_mel, mask)
    mask[1, 19] = False
    assert torch.isfinite(detector()(videos(2), log_mel, mask).logits).all()


def test_refuses_to_listen_without_sound():
    model = detector("audio")
    with pytest.raises(ValueError, match=r"modality 'audio' needs input_features of shape \(B, frames, 64\)"):
        model(videos(2))
    with pytest.raises(ValueError, match=r"input_features of shape \(B, frames, 64\), got \(2, 40, 40\)"):
        model(input_features=torch.zeros(2, 40, 40))
    # As the message advises; and what is seen is not looked at.
    outputs = model(torch.full((1, 1), math.nan), torch.zeros(2, 40, 64), torch.zeros(2, 40))
    assert outputs.logits.shape == (2, 9)


def test_a_model_that_sees_alone_does_not_look_at_sound():
    model, frames = detector("visual"), videos(2)
    expected = model(frames).logits
    assert torch.equal(model(frames, torch.full((7, 3), math.nan), torch.ones(1)).logits, expected)


@pytest.mark.parametrize(
    ("normal", "message"),
    [
        (["normal1", "normal3"], "normal_labels must name some of the classes .*got normal1, normal3"),
        (["normal"], "got normal. Without them there is no anomaly score"),
        ([], "not all of them; got none"),
        (SHADE_CLASSES.names, "but not all of them; got arrest, chase"),
    ],
)
def test_refuses_classes_without_an_anomaly_score(normal, message):
    config = configured(normal_labels=normal)
    with pytest.raises(ValueError, match=message):
        AvrlForVideoClassification(config)
    assert AvrlModel(config).config is config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id2label": {0: "run", 1: "normal", 2: "run"}}, "Class names must differ, got run, normal, run"),
        (
            {"fusion": "add", "audio_config": AUDIO | {"hidden_sizes": (8, 16, 32, 48)}},
            "Fusion 'add' needs features of one width, got 64 of the 3D ResNet and 48 of VGGish",
        ),
        ({"fusion": "mean"}, "fusion"),
        ({"modality": "smell"}, "modality"),
        ({"hidden_sizes": (32,)}, r"hidden_sizes needs two widths, got \[32\]"),
        ({"video_config": VIDEO | {"num_channels": 4}}, "num_channels must be 3, got 4"),
        ({"video_config": VIDEO | {"depths": (1, 1)}}, "depths needs four numbers"),
        ({"frozen_video_stages": 6}, "frozen_video_stages must be within 0 and 5, got 6"),
        ({"frozen_video_stages": -1}, "frozen_video_stages must be 0 or more, got -1"),
        (
            {"fusion": "low_level", "frozen_video_stages": 1},
            "Fusion 'low_level' needs frozen_video_stages 0, got 1: the stem has to learn",
        ),
        ({"id2label": {1: "run", 2: "normal"}}, r"Class numbers must run from 0 to 1, got \[1, 2\]"),
        ({"frozen_audio_stages": 5}, "frozen_audio_stages must be within 0 and 4, got 5"),
        ({"threshold": 1.5}, "threshold must be between 0 and 1, got 1.5"),
    ],
)
def test_refuses_impossible_configs(fields, message):
    with pytest.raises(Exception, match=message):
        configured(**fields)


def test_labels_by_name_alone_are_taken():
    config = configured(label2id={"normal": 1, "fire": 0}, normal_labels=["normal"])
    assert config.id2label == {0: "fire", 1: "normal"} and config.normal_ids == [1]


def test_labels_that_contradict_each_other_are_refused(tmp_path):
    with pytest.raises(Exception, match="contradict each other"):
        configured(id2label={0: "fire", 1: "normal"}, label2id={"fire": 1, "normal": 0}, normal_labels=["normal"])
    detector().save_pretrained(tmp_path)
    names = {"id2label": {0: "fire", 1: "normal"}, "normal_labels": ["normal"], "ignore_mismatched_sizes": True}
    config = AvrlForVideoClassification.from_pretrained(tmp_path, **names).config
    assert config.label2id == {"fire": 0, "normal": 1}


def test_whole_numbers_of_any_width_are_labels():
    model, frames, log_mel = detector(), videos(), sounds()
    expected = model(frames, log_mel, labels=torch.tensor([0, 8, 4])).loss
    for dtype in (torch.int32, torch.uint8):
        assert torch.equal(model(frames, log_mel, labels=torch.tensor([0, 8, 4], dtype=dtype)).loss, expected)
    with pytest.raises(ValueError, match="labels must be one class number a video"):
        model(frames, log_mel, labels=torch.tensor([True, False, True]))


@pytest.mark.parametrize("fusion", ["concat", "low_level"])
def test_videos_without_frames_or_pixels_are_refused(fusion):
    for shape in ((2, 0, 3, 32, 32), (2, 4, 3, 0, 32), (0, 4, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"pixel_values_videos of shape \(B, F, 3, H, W\), got"):
            detector(fusion=fusion)(torch.zeros(shape), sounds()[:2])


def test_a_mask_of_sound_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="audio_frame_mask says that there is sound, but input_features are missing"):
        detector()(videos(), None, torch.ones(3, 7))


def test_a_model_that_hears_alone_can_be_checkpointed():
    losses, log_mel = [], sounds()
    for saving in (False, True):
        model = detector("audio").train()
        if saving:
            model.activation_checkpointing_enable()
        loss = model(input_features=log_mel, labels=torch.tensor([0, 8, 4])).loss
        loss.backward()
        losses.append((loss.item(), model.avrl.audio.features[0].weight.grad))
    assert losses[0][0] == losses[1][0] and near(losses[0][1], losses[1][1])


def test_widths_may_differ_where_nothing_is_added():
    audio = AUDIO | {"hidden_sizes": (8, 16, 32, 48)}
    for modality, fusion, width in (("audio_visual", "concat", 112), ("visual", "add", 64), ("audio", "add", 48)):
        model = detector(modality, fusion, audio_config=audio)
        assert model.avrl(videos(), sounds()).fused_features.shape == (3, width)
