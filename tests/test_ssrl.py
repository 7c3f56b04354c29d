"""SSRL: network against its definition, stages, padding, refusals, and what generic code makes of it."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import FeatureDataset, SsrlConfig, SsrlForAnomalyDetection, TrainingConfig, evaluate, train
from avad_hf.features.store import FACTS, RECIPE, read_features
from avad_hf.hub.cards import card_values
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.rtfm.losses_rtfm import rtfm_losses
from avad_hf.training.config import profiles
from avad_hf.training.models import new_model
from avad_hf.untrained import init

from .feature_stores import CLIP_LENGTH, plant, recipe
from .short_clips import beginning
from .test_s3r import naive_aggregate, randomise

GRIDS = ((2, 3), (3, 4))
TINY = {
    "visual_size": 8,
    "audio_size": 5,
    "patches": GRIDS,
    "stage": 3,
    "classifier_sizes": (8, 4),
    "num_segments": 8,
    "dropout": 0.0,
}


def features(lengths=(9, 4, 1), seed=0):
    """Features of a batch by their names, and its mask."""
    rng = torch.Generator().manual_seed(seed)
    batch, clips = len(lengths), max(lengths)
    return {
        "visual_features": torch.randn(batch, clips, 8, 2, 3, generator=rng),
        "patch_features": torch.randn(batch, clips, 18, 8, generator=rng),
        "clip_mask": torch.arange(clips) < torch.tensor(lengths).unsqueeze(1),
    }


def model(**fields) -> SsrlForAnomalyDetection:
    return randomise(SsrlForAnomalyDetection(SsrlConfig(**TINY | fields)))


# The network, one clip after the other


def naive_scale(scale, patches):
    """What the patches of one clip, of shape `(P, C)`, add to it."""
    weights = {name: value.double() for name, value in scale.state_dict().items()}
    rows, columns = scale.grid
    cells = naive_aggregate(scale.aggregate, patches, "batch").view(rows, columns, -1)
    kernel, found = weights["reduction.weight"], []
    margin = 0 if rows < 3 else 1  # as published: where the kernel would not fit, there are zeros around
    for row in range(margin, rows - margin):
        for column in range(margin, columns - margin):
            value = weights["reduction.bias"].clone()
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    if 0 <= row + down < rows and 0 <= column + right < columns:
                        value += kernel[:, :, down + 1, right + 1] @ cells[row + down, column + right]
            value = (value.relu() - weights["norm.running_mean"]) / (weights["norm.running_var"] + 1e-5).sqrt()
            found.append(value * weights["norm.weight"] + weights["norm.bias"])
    joined = torch.stack(found, dim=1).flatten()  # channels first
    return (weights["output.weight"] @ joined + weights["output.bias"]).relu()


def naive_forward(detector, video, patches):
    """Logits and magnitudes of a video of shape `(T, C)`, with patches of shape `(T, P, C)`."""
    clips = []
    for clip, places in zip(video.double(), patches.double(), strict=True):
        first = 0
        for scale in detector.ssrl.scales:
            count = scale.grid[0] * scale.grid[1]
            clip = clip + naive_scale(scale, places[first : first + count])
            first += count
        clips.append(clip)
    states = naive_aggregate(detector.ssrl.aggregate, torch.stack(clips), "batch")
    x = states
    for layer in detector.classifier:
        x = x @ layer.weight.double().T + layer.bias.double() if isinstance(layer, nn.Linear) else layer(x)
    return x[:, 0], states.norm(dim=1)


@pytest.mark.parametrize("stage", [1, 2, 3])
@torch.no_grad()
def test_network_equals_its_definition(stage):
    detector, lengths = model(stage=stage), (9, 4, 1)
    given = features(lengths)
    outputs = detector(**given)
    for index, length in enumerate(lengths):
        video = given["visual_features"][index, :length].mean((2, 3))
        logits, magnitudes = naive_forward(detector, video, given["patch_features"][index, :length])
        torch.testing.assert_close(outputs.logits[index, :length], logits.float(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(outputs.magnitudes[index, :length], magnitudes.float(), rtol=1e-3, atol=1e-3)
    mask = given["clip_mask"]
    assert (detector.scores(outputs)[~mask] == 0).all() and (outputs.magnitudes[~mask] == 0).all()
    assert torch.equal(detector.explain(outputs)["feature_magnitude"], outputs.magnitudes)


@torch.no_grad()
def test_sound_is_joined_to_whole_frames():
    detector = model(inputs="both")
    given, sound = features(), torch.randn(3, 9, 4, 5)
    outputs = detector(**given, audio_features=sound)
    assert detector.config.input_size == 13 and detector.ssrl.scales[0].output.out_features == 13
    video = torch.cat([given["visual_features"][0].mean((2, 3)), sound[0].mean(1)], dim=1)
    logits, _ = naive_forward(detector, video, given["patch_features"][0])
    torch.testing.assert_close(outputs.logits[0], logits.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("stage", "count"), [(1, 24_718_849), (2, 79_785_217), (4, 192_015_105)])
def test_size(stage, count):
    """As of the published network with features of 2,048 channels."""
    with torch.device("meta"):
        detector = SsrlForAnomalyDetection(SsrlConfig(visual_size=2048, stage=stage))
    assert sum(value.numel() for value in detector.parameters()) == count


@torch.no_grad()
def test_dropout_of_the_finest_grid_alone():
    detector, seen = model(dropout=0.7).train(), []
    detector.ssrl.dropout.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    outputs = detector(**features())
    assert outputs.logits.shape == outputs.magnitudes.shape == (3, 8)
    added = detector.ssrl.scales[1]
    finest = []
    added.register_forward_hook(lambda layer, inputs, output: finest.append(output))
    seen.clear()
    detector(**features())
    assert len(seen) == 2 and torch.equal(seen[0], finest[0])  # that grid, and the whole at the end
    seen.clear()
    model(dropout=0.7, stage=2).train()
    earlier = model(dropout=0.7, stage=2).train()
    earlier.ssrl.dropout.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    earlier(**features())
    assert len(seen) == 1


def test_losses_are_those_of_rtfm():
    values = {"logits": torch.randn(4, 9), "magnitudes": 150 * torch.rand(4, 9)}
    labels, mask = torch.tensor([0, 1, 0, 1.0]), torch.arange(9) < torch.tensor([[9], [2], [1], [5]])
    detector = model()
    found = detector.losses(SimpleNamespace(**values), labels, mask)
    expected = rtfm_losses(detector.config, values["logits"], values["magnitudes"], labels, mask, training=False)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


# Stages


def test_a_later_stage_leaves_the_earlier_one_as_it_is():
    earlier, later = model(stage=2), model(stage=3, dropout=0.0)
    later.begin_with(earlier)
    kept = {name: value.clone() for name, value in earlier.state_dict().items()}
    learning = [name for name, parameter in later.named_parameters() if parameter.requires_grad]
    assert learning and all(name.startswith("ssrl.scales.1.") for name in learning)
    optimizer = torch.optim.Adam([p for p in later.parameters() if p.requires_grad], lr=1e-2)
    before = {name: value.clone() for name, value in later.state_dict().items()}
    later.train()
    assert later.ssrl.scales[1].aggregate.fusion.norm.training and later.classifier.training
    later(**features(), labels=torch.tensor([0, 1, 1])).loss.backward()
    optimizer.step()
    after = later.state_dict()
    for name, value in after.items():
        if name in kept:  # batch norms' statistics among them
            assert torch.equal(value, kept[name]), name
        elif "num_batches" not in name:
            assert not torch.equal(value, before[name]), name


def test_the_same_stage_learns_on():
    source, detector = model(), SsrlForAnomalyDetection(SsrlConfig(**TINY))
    detector.begin_with(source)
    assert all(parameter.requires_grad for parameter in detector.parameters())
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in detector.state_dict().items())
    detector.train()
    assert detector.ssrl.aggregate.fusion.norm.training


def test_other_stages_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"weights are of stage 3, and stage 2 has fewer grids. Give stage 3"):
        model(stage=2).begin_with(model())
    with pytest.raises(ValueError, match=r"weights are of other sizes .* first classifier.0.weight. Give the same"):
        model(classifier_sizes=(16, 4)).begin_with(model(stage=1))


# Batches


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    """All results are those of the real clips, whatever the padding holds; a video of padding alone counts nothing."""
    given, labels, found = features(), torch.tensor([0, 1, 1]), []
    for filler in (None, 1e4, float("nan")):
        detector = model().train(training)
        padded, y = dict(given), labels
        if filler is not None:  # longer, and with a fourth video that is none
            mask = torch.zeros(4, 13, dtype=torch.bool)
            mask[:3, :9] = given["clip_mask"]
            for name in ("visual_features", "patch_features"):
                value = torch.full((4, 13, *given[name].shape[2:]), filler)
                value[mask] = given[name][given["clip_mask"]]
                padded[name] = value
            padded["clip_mask"], y = mask, torch.tensor([0, 1, 1, 1])
        outputs = detector(**padded, labels=y)
        outputs.loss.backward()
        logits = outputs.logits[:3] if training else outputs.logits[padded["clip_mask"]]
        found.append((logits, outputs.loss, *(p.grad for p in detector.parameters()), *detector.buffers()))
        if filler is not None:
            assert (detector.scores(outputs)[3] == 0).all() and (outputs.magnitudes[3] == 0).all()
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lengths", [(1,), (5, 0), (20, 3, 0), (0, 0)])
@pytest.mark.filterwarnings("error")
def test_gradients_are_finite_for_odd_batches(lengths):
    detector = SsrlForAnomalyDetection(SsrlConfig(**TINY)).train()
    given = features(tuple(max(1, length) for length in lengths))
    given["clip_mask"] &= torch.tensor(lengths).unsqueeze(1) > 0
    outputs = detector(**given, labels=torch.arange(len(lengths)) % 2)
    outputs.loss.backward()
    assert all(value.isfinite() for name, value in outputs.items() if name.endswith("loss"))
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    assert all(buffer.isfinite().all() for buffer in detector.buffers())


# Refusals


def test_other_input_is_refused_by_name():
    given, detector = features(), model()
    seen, patches = given["visual_features"], given["patch_features"]
    with pytest.raises(ValueError, match=r"SSRL of stage 3 needs patch_features of shape \(B, T, 18, 8\) .* got none"):
        detector(seen)
    wanted = r"needs patch_features .* makes them with patches=\[\[2, 3\], \[3, 4\]\]"
    for other in (patches[:, :, :17], patches[..., :7], patches[:, :8], patches[0]):
        with pytest.raises(ValueError, match=wanted):
            detector(seen, patch_features=other)
    patches[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="patch_features holds NaN or infinite values"):
        detector(seen, patch_features=patches)
    with pytest.raises(ValueError, match=r"labels must be 0 \(normal\) or 1 \(anomalous\), got"):
        detector(**features(), labels=torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match="need logits and magnitudes"):
        detector.losses(SimpleNamespace(logits=torch.zeros(1, 3)), torch.zeros(1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"inputs": "audio"}, "inputs"),
        ({"patches": ((2, 0),)}, "patches must be grids of rows and columns"),
        ({"stage": 5}, "stage must be within 1 and 4, got 5: each stage after the first adds one grid"),
        ({"patch_size": 0}, "patch_size must be 1 or more, got 0"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1, got 1.0"),
        ({"num_segments": 2}, "num_selected 3 is more than num_segments 2"),
    ],
)
def test_configs_out_of_range_are_refused(settings, words):
    with pytest.raises(Exception, match=words):
        SsrlConfig(**settings)


# What generic code makes of it


def test_spec_and_card_say_what_it_reads():
    first, last = SsrlConfig(visual_size=8), SsrlConfig(visual_size=8, stage=4, inputs="both")
    assert first.detector_spec.inputs == {"visual_features": 8} and first.detector_spec.context == WHOLE_VIDEO
    assert last.detector_spec.inputs == {"visual_features": 8, "audio_features": 128, "patch_features": 8}
    assert last.num_patches == 49
    assert "whole frames alone" in card_values(first)["architecture"]
    said = card_values(SsrlConfig(stage=2))["architecture"]
    assert "patches of them on grids of 2 x 3. " in said
    assert said.endswith("had besides: ten crops of whole frames, and patches on grids of 3 x 5, 4 x 7.")


@torch.no_grad()
def test_exported_graph_gives_the_same():
    detector = model()
    processor = SimpleNamespace(networks_to_export=lambda batches: iter(()), feature_grid=(2, 3), num_pictures=3)
    (network,) = detector.networks_to_export(processor, [])
    assert network.sample["patch_features"].shape == (2, 3, 18, 8)
    shapes = {"dynamic_shapes": network.dynamic_shapes, "strict": False}
    graph = torch.export.export(network.model, (), network.sample, **shapes).module()
    for lengths in ((9, 4, 1), (17, 3, 2, 1)):
        given = features(lengths)
        expected, found = detector(**given), graph(**{name: given[name] for name in network.sample})
        torch.testing.assert_close(found["logits"], expected.logits, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found["magnitudes"], expected.magnitudes, rtol=1e-3, atol=1e-3)


def plant_patches(directory):
    """A store in which the anomaly shows in one of six patches alone, and not in whole frames."""
    made = recipe(processor={"clip_stride": CLIP_LENGTH, "size": 64, "patches": [[2, 3]]})
    store = plant(directory, num_videos=80, clips=(4, 8), shape=(16, 1, 1), senses=(), recipe_of=made)
    rng = torch.Generator().manual_seed(1)
    for row in FeatureDataset(store).rows:
        facts, tensors = read_features(store / row["file"])
        patches = torch.randn(row["num_clips"], 6, 16, generator=rng)
        if row["anomaly"]:
            clip = row["frame_mask"].index(1) // CLIP_LENGTH
            patches[clip, int(torch.randint(6, (), generator=rng)), :4] += 6.0
        save_file(tensors | {"patch_features": patches.half()}, store / row["file"], {FACTS: json.dumps(facts)})
    assert json.loads((store / RECIPE).read_text())["processor"]["patches"] == [[2, 3]]
    return store


def test_stages_are_trained_one_after_the_other(tmp_path):
    """By the published recipes; the second stage finds what the first one cannot see."""
    store = str(plant_patches(tmp_path / "store"))
    small = {"classifier_sizes": [32, 16], "dropout": 0.2}
    settings = {"epochs": 3, "batch_size": 16, "data": store}
    first = TrainingConfig.from_profile(
        "ssrl", architecture="ssrl", output_dir=str(tmp_path / "first"), model_options=small, **settings
    )
    one = train(first, progress=False)
    trained = AutoModelForVideoClassification.from_pretrained(one.output_dir)
    assert trained.config.stage == 1 and [list(grid) for grid in trained.config.patches] == [[2, 3]]
    second = TrainingConfig.from_profile(
        "ssrl_stage2",
        model=one.output_dir,
        output_dir=str(tmp_path / "second"),
        **settings | {"epochs": 15, "learning_rate": 3e-3},
    )
    two = train(second, progress=False)
    later = AutoModelForVideoClassification.from_pretrained(two.output_dir)
    assert later.config.stage == 2
    for name, value in trained.state_dict().items():
        assert torch.equal(later.state_dict()[name], value), name
    test = FeatureDataset(store, "test")
    before, after = (evaluate(network, test, num_resamples=0).figures for network in (trained, later))
    assert after["frame"]["roc_auc"] > 0.8 > before["frame"]["roc_auc"]


def test_all_grids_are_trained_at_once_too(tmp_path):
    data = FeatureDataset(plant_patches(tmp_path / "store"))
    options = {"stage": 2, "classifier_sizes": [8, 4]}
    config = TrainingConfig(
        data=str(tmp_path / "store"), output_dir=str(tmp_path / "run"), architecture="ssrl", model_options=options
    )
    detector, _ = new_model(config, data)
    assert all(parameter.requires_grad for parameter in detector.parameters())
    detector.train()(**data.collate([data[0], data[1]])).logits.sum().backward()


def test_published_recipes():
    for stage in range(1, 5):
        profile = profiles()["ssrl" if stage == 1 else f"ssrl_stage{stage}"]
        assert profile["model_options"] == {"stage": stage} and profile.get("fine_tune", False) is (stage > 1)
        assert (profile["optimizer"], profile["learning_rate"], profile["weight_decay"]) == ("adam", 1e-3, 5e-3)


@torch.no_grad()
def test_pipeline_cuts_frames_into_patches(tmp_path, bikes):
    """What it gives is what the model gives of all clips at once, not of the few that are read together."""
    video = beginning(bikes, tmp_path / "bikes.mp4", 80)
    folder = tmp_path / "ssrl"
    init("ssrl", folder, size="tiny")
    detect = pipeline("audio-visual-anomaly", model=str(folder), dtype="float32")
    assert detect.processor.patches == ((2, 3),)
    found = detect(video, batch_size=2)
    encoded = AutoProcessor.from_pretrained(folder)(video)
    scores = detect.model.scores(detect.model(**encoded))[0].tolist()
    assert len(scores) == 3 and [clip["score"] for clip in found["clips"]] == pytest.approx(scores, abs=1e-4)
    other = dict(encoded) | {"patch_features": encoded["patch_features"].flip(2)}
    assert detect.model.scores(detect.model(**other))[0].tolist() != scores
    made = init("ssrl", tmp_path / "first", size="tiny", stage=1)
    assert made.processor.patches == () and not made.model.ssrl.scales
