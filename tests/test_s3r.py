"""S3R: network, losses, dictionary against their definitions, padding, refusals, and what generic code makes of it."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForVideoClassification, AutoProcessor, pipeline

from avad_hf import FeatureDataset, S3rConfig, S3rForAnomalyDetection, S3rModel, TrainingConfig, evaluate, train
from avad_hf.models.aggregate import Aggregate, masked_group_norm
from avad_hf.models.detector import WHOLE_VIDEO
from avad_hf.models.rtfm.losses_rtfm import rtfm_losses
from avad_hf.models.s3r.dictionary_s3r import MOST_VIDEOS, learn_dictionary, num_atoms_of
from avad_hf.models.s3r.modeling_s3r import resampled
from avad_hf.training.models import new_model
from avad_hf.untrained import init

from .feature_stores import plant

TINY = {"visual_size": 16, "audio_size": 5, "num_atoms": 4, "num_segments": 8, "dropout": 0.0}


def features(lengths=(9, 4, 1), seed=0):
    """Features of a batch, and its mask."""
    rng = torch.Generator().manual_seed(seed)
    batch, clips = len(lengths), max(lengths)
    visual = torch.randn(batch, clips, 16, 2, 3, generator=rng)
    audio = torch.randn(batch, clips, 3, 5, generator=rng)
    return visual, audio, torch.arange(clips) < torch.tensor(lengths).unsqueeze(1)


def randomise(network: nn.Module) -> nn.Module:
    """Weights and statistics that are nowhere 0 or 1, so that nothing goes unnoticed."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=rng)
            elif value.is_floating_point():
                value.normal_(std=0.4, generator=rng)
    return network.eval()


def model(**fields) -> S3rForAnomalyDetection:
    return randomise(S3rForAnomalyDetection(S3rConfig(**TINY | fields)))


# The network, one clip after the other


def naive_aggregate(network: Aggregate, sequence: torch.Tensor, norm: str) -> torch.Tensor:
    """What a sequence of shape `(N, C)` becomes, in evaluation."""
    weights = {name: value.double() for name, value in network.state_dict().items()}

    def conv(name, x, dilation=1):
        kernel = weights[f"{name}.weight"]
        reach, rows = kernel.shape[2] // 2, []
        for member in range(len(x)):
            row = weights.get(f"{name}.bias", torch.zeros(len(kernel), dtype=torch.double)).clone()
            for tap in range(kernel.shape[2]):
                where = member + (tap - reach) * dilation
                if 0 <= where < len(x):
                    row += kernel[:, :, tap] @ x[where]
            rows.append(row)
        return torch.stack(rows)

    def batch_norm(name, x):
        centred = (x - weights[f"{name}.running_mean"]) / (weights[f"{name}.running_var"] + 1e-5).sqrt()
        return centred * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def group_norm(name, x):
        parts = []
        for part in x.split(x.shape[1] // math.gcd(8, x.shape[1]), dim=1):
            parts.append((part - part.mean()) / (part.var(correction=0) + 1e-5).sqrt())
        return torch.cat(parts, dim=1) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def layer(name, x, dilation=1):
        x = conv(f"{name}.conv", x, dilation)
        return group_norm(f"{name}.norm", x).relu() if norm == "group" else batch_norm(f"{name}.norm", x.relu())

    x = sequence.double()
    branches = [layer(f"dilated.{i}", x, dilation) for i, dilation in enumerate((1, 2, 4))]
    narrow = conv("attention.projection", x).relu()
    theta, phi, g = (conv(f"attention.{name}", narrow) for name in ("theta", "phi", "g"))
    looked_up = [sum((theta[i] @ phi[j]) * g[j] for j in range(len(x))) / len(x) for i in range(len(x))]
    attended = narrow + batch_norm("attention.norm", conv("attention.output", torch.stack(looked_up)))
    return x + layer("fusion", torch.cat([*branches, attended], dim=1))


@pytest.mark.parametrize("norm", ["group", "batch"])
@torch.no_grad()
def test_aggregate_equals_its_definition(norm):
    network, lengths = randomise(Aggregate(16, norm)), (9, 4, 1)
    x = torch.randn(3, 9, 16)
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)
    found = network((x * mask.unsqueeze(2)).transpose(1, 2), mask).transpose(1, 2)
    for index, length in enumerate(lengths):
        expected = naive_aggregate(network, x[index, :length], norm)
        torch.testing.assert_close(found[index, :length], expected.float(), rtol=1e-4, atol=1e-4)
    assert (found[~mask] == 0).all()


def naive_forward(detector, video):
    """Logits, magnitudes and the reconstruction's logit of one video of shape `(T, C)`."""

    def linear(layer, x):
        return x @ layer.weight.double().T + layer.bias.double()

    def classify(layers, x):
        for layer in layers:
            x = linear(layer, x) if isinstance(layer, nn.Linear) else layer(x)
        return x

    body, video = detector.s3r, video.double()
    dictionary, normal = body.dictionary, []
    atoms = dictionary.atoms.double()
    for clip in video:
        likeness = torch.stack([linear(dictionary.query, clip) @ linear(dictionary.key, atom) for atom in atoms]).exp()
        normal.append(
            sum(linear(dictionary.value, a) * w for a, w in zip(atoms, likeness / likeness.sum(), strict=True))
        )
    x = naive_aggregate(body.aggregate, video, "group")
    y = naive_aggregate(body.normal_aggregate, torch.stack(normal), "group")
    kept = linear(body.gate.outer, linear(body.gate.inner, x.mean(0) - y.mean(0)).relu()).sigmoid()
    x, y = x * kept, y * (1 - kept)
    return classify(detector.classifier, x)[:, 0], x.norm(dim=1), classify(detector.normal_classifier, y.mean(0))


@pytest.mark.parametrize("inputs", ["visual", "audio", "both"])
@torch.no_grad()
def test_network_equals_its_definition(inputs):
    detector, lengths = model(inputs=inputs), (9, 4, 1)
    visual, audio, mask = features(lengths)
    outputs = detector(visual, audio, mask)
    averaged = {"visual": visual.mean((3, 4)), "audio": audio.mean(2)}
    averaged["both"] = torch.cat(list(averaged.values()), dim=2)
    for index, length in enumerate(lengths):
        logits, magnitudes, of_normal = naive_forward(detector, averaged[inputs][index, :length])
        torch.testing.assert_close(outputs.logits[index, :length], logits.float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outputs.magnitudes[index, :length], magnitudes.float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outputs.reconstruction_logits[index, 0], of_normal[0].float(), rtol=1e-4, atol=1e-4)
    assert (detector.scores(outputs)[~mask] == 0).all() and (outputs.magnitudes[~mask] == 0).all()
    assert torch.equal(detector.explain(outputs)["feature_magnitude"], outputs.magnitudes)


def test_group_norm_without_padding_is_torchs():
    norm = nn.GroupNorm(4, 8)
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 8, 5)
    found = masked_group_norm(norm, x, torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(found, masked_group_norm(norm, x, None))


def test_size_and_first_weights():
    detector = S3rForAnomalyDetection(S3rConfig(visual_size=2048, num_atoms=2))
    # 81.4 M as published, of which two convolutions with their norms are not used.
    unused = 2 * (3 * 2048 * 2048 + 2048 + 2 * 2048)
    assert sum(value.numel() for value in detector.parameters()) == 81_436_802 - unused
    for name, value in detector.named_parameters():
        if name.endswith("bias"):
            assert (value == 0).all(), name
        elif ".norm." in name:
            assert (value == (0 if "attention" in name else 1)).all(), name
        else:
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(value)
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert bound * 0.95 < value.abs().max() <= bound, name
    assert "s3r.dictionary.atoms" in detector.state_dict()


@pytest.mark.parametrize("num_segments", [8, 5])
def test_videos_are_resampled_as_pictures_are(num_segments):
    """torch resizes with the same centres: `align_corners=False`."""
    lengths = (1, 2, 5, 8, 13)
    x = torch.randn(5, 13, 3)
    mask = torch.arange(13) < torch.tensor(lengths).unsqueeze(1)
    found = resampled(x.masked_fill(~mask.unsqueeze(2), float("nan")), mask, num_segments)
    for index, length in enumerate(lengths):
        expected = F.interpolate(x[index, :length].T[None], num_segments, mode="linear", align_corners=False)[0].T
        torch.testing.assert_close(found[index], expected)
    # Padding may lie anywhere.
    holes = torch.tensor([[True, False, True, True, False]])
    y = torch.randn(1, 5, 2)
    everything = torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(resampled(y, holes, num_segments), resampled(y[:, [0, 2, 3]], everything, num_segments))


def test_training_sees_segments():
    detector = model().train()
    visual, audio, mask = features()
    outputs = detector(visual, audio, mask)
    assert outputs.logits.shape == outputs.magnitudes.shape == outputs.reconstruction_logits.shape == (3, 8)
    torch.manual_seed(0)
    dropped = model(dropout=0.7).train()
    dropped.s3r.gate.register_forward_pre_hook(lambda gate, inputs: seen.extend(inputs[:2]))
    seen = []
    dropped(visual, audio, mask)
    shares = [(states == 0).float().mean().item() for states in seen]
    assert shares == pytest.approx([0.7, 0.7], abs=0.1)


# Losses


@pytest.mark.parametrize("labels", [[1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]])
def test_losses_are_those_of_rtfm_and_of_the_reconstructions(labels):
    lengths, labels = [9, 2, 1, 5], torch.tensor(labels).float()
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)
    of_videos = torch.randn(4)
    values = {
        "logits": torch.randn(4, 9),
        "magnitudes": 150 * torch.rand(4, 9),
        "reconstruction_logits": of_videos.unsqueeze(1) * mask,  # as validation pads
    }
    detector = model()
    found = detector.losses(SimpleNamespace(**values), labels, mask)
    expected = rtfm_losses(detector.config, values["logits"], values["magnitudes"], labels, mask, training=False)
    # All reconstructions should be normal, those of anomalous videos as well.
    normal = F.binary_cross_entropy_with_logits(of_videos, torch.zeros(4))
    expected |= {"reconstruction_loss": normal, "loss": expected["loss"] + normal}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


# The dictionary


def test_dictionary_approximates_each_channel_by_two_atoms():
    torch.manual_seed(0)
    videos, channels = 20, 32
    means = torch.randn(videos, 4) @ torch.randn(4, channels) + 0.05 * torch.randn(videos, channels)
    atoms = learn_dictionary(means, num_atoms_of(videos, 0.9))
    assert atoms.shape == (18, channels) and atoms.dtype == torch.float32
    assert ((atoms != 0).sum(dim=0) <= 2).all() and (atoms != 0).any()
    assert torch.equal(atoms, learn_dictionary(means, 18))  # from a fixed seed, whatever the run's is
    # The codes are those of a dictionary of videos: together they give the channels back.
    components = np.linalg.lstsq(atoms.T.numpy(), means.T.numpy(), rcond=None)[0]
    rest = means.T.numpy() - atoms.T.numpy() @ components
    assert np.square(rest).sum() < 0.3 * means.square().sum().item()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(1, 32), (3, 2), (5, 6)])
def test_dictionary_of_few_videos_or_channels(shape):
    num_atoms = num_atoms_of(shape[0], 0.9)
    atoms = learn_dictionary(torch.randn(shape), num_atoms)
    assert atoms.shape == (num_atoms, shape[1]) and atoms.isfinite().all()
    assert learn_dictionary(torch.ones(shape), num_atoms).isfinite().all()


def test_share_of_atoms():
    assert [num_atoms_of(175, 0.9), num_atoms_of(800, 0.5), num_atoms_of(1, 0.5), num_atoms_of(3, 1.0)] == [
        158,
        400,
        1,
        3,
    ]


def test_preparing_takes_mean_features_of_normal_videos(tmp_path, monkeypatch):
    seen = []
    learnt = torch.arange(2.0 * 21).view(2, 21)
    monkeypatch.setattr(
        "avad_hf.models.s3r.modeling_s3r.learn_dictionary", lambda means, count: seen.append((means, count)) or learnt
    )
    data = FeatureDataset(plant(tmp_path / "store", num_videos=12, shape=(16, 1, 2), audio_size=5))
    detector = model(inputs="both", atom_share=0.5, feature_scales={"audio_features": 3.0})
    detector.prepare(data)
    (means, count) = seen[0]
    normal = [data[index] for index, row in enumerate(data.rows) if not row["anomaly"]]
    assert count == 3 and len(means) == len(normal) == 6
    for found, item in zip(means, normal, strict=True):
        sound = 3 * item["audio_features"].mean((0, 1))
        torch.testing.assert_close(found, torch.cat([item["visual_features"].mean((0, 2, 3)), sound]))
    assert detector.config.num_atoms == 2 and torch.equal(detector.s3r.dictionary.atoms, learnt)
    detector.save_pretrained(tmp_path / "model")
    loaded = AutoModelForVideoClassification.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded.s3r.dictionary.atoms, learnt)
    # Where there are very many videos some are taken, evenly spread.
    rows = [{"anomaly": 0}] * (2 * MOST_VIDEOS + 1)
    asked = []

    class Many:
        def __getitem__(self, index):
            return asked.append(index) or normal[0]

    many = Many()
    many.rows = rows
    detector.prepare(many)
    assert asked == list(range(0, 2 * MOST_VIDEOS + 1, 3))
    with pytest.raises(ValueError, match="learns a dictionary of normal videos, but no training video is normal"):
        detector.prepare(SimpleNamespace(rows=[{"anomaly": 1}]))


def test_new_detectors_are_prepared_and_those_that_learn_on_are_not(tmp_path):
    stores = [plant(tmp_path / str(seed), num_videos=20, shape=(16, 1, 2), seed=seed) for seed in (0, 1)]

    def made(store, **settings):
        config = TrainingConfig(data=str(store), output_dir=str(tmp_path / "run"), **settings)
        return new_model(config, FeatureDataset(store, "train"))[0]

    first = made(stores[0], architecture="s3r")
    atoms = first.s3r.dictionary.atoms
    assert torch.equal(made(stores[0], architecture="s3r", seed=7).s3r.dictionary.atoms, atoms)  # as a resumed run
    assert not torch.equal(made(stores[1], architecture="s3r").s3r.dictionary.atoms, atoms)
    first.save_pretrained(tmp_path / "first")
    again = made(stores[1], model=str(tmp_path / "first"), fine_tune=True, model_options={"dropout": 0.1})
    assert torch.equal(again.s3r.dictionary.atoms, atoms)


# Batches


@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(training):
    """All results are those of the real clips, whatever the padding holds; a video of padding alone counts nothing."""
    visual, audio, mask = features()
    labels, found = torch.tensor([0, 1, 1]), []
    for filler in (None, 1e4, float("nan")):
        detector = model(inputs="both").train(training)
        v, a, m, y = visual, audio, mask, labels
        if filler is not None:  # longer, and with a fourth video that is none
            v = torch.cat([v, v.new_zeros(3, 4, *v.shape[2:])], 1).repeat(2, 1, 1, 1, 1)[:4]
            a = torch.cat([a, a.new_zeros(3, 4, *a.shape[2:])], 1).repeat(2, 1, 1, 1)[:4]
            m = torch.zeros(4, 13, dtype=torch.bool)
            m[:3, :9] = mask
            v = v.masked_fill(~m[..., None, None, None], filler)
            a = a.masked_fill(~m[..., None, None], filler)
            y = torch.tensor([0, 1, 1, 1])
        outputs = detector(v, a, m, labels=y)
        outputs.loss.backward()
        logits = outputs.logits[:3] if training else outputs.logits[m]
        found.append((logits, outputs.loss, *(p.grad for p in detector.parameters()), *detector.buffers()))
        if filler is not None:
            assert (detector.scores(outputs)[3] == 0).all() and (outputs.magnitudes[3] == 0).all()
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, another, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("lengths", [(1,), (1, 1), (5, 0), (40, 3, 0), (0, 0)])
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("error")
def test_gradients_are_finite_for_odd_batches(lengths, label):
    detector = S3rForAnomalyDetection(S3rConfig(**TINY)).train()
    visual, _, mask = features(tuple(max(1, length) for length in lengths))
    mask &= torch.tensor(lengths).unsqueeze(1) > 0
    outputs = detector(visual, clip_mask=mask, labels=torch.full((len(lengths),), label))
    outputs.loss.backward()
    assert all(value.isfinite() for name, value in outputs.items() if name.endswith("loss"))
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
    assert all(buffer.isfinite().all() for buffer in detector.buffers())


# Refusals


def test_other_input_is_refused_by_name():
    visual, audio, mask = features()
    with pytest.raises(ValueError, match="S3R with inputs 'visual' needs visual_features"):
        model()(audio_features=audio)
    with pytest.raises(ValueError, match=r"labels must be 0 \(normal\) or 1 \(anomalous\), got"):
        model()(visual, clip_mask=mask, labels=torch.tensor([0, 1, 2]))
    with pytest.raises(TypeError, match="losses need magnitudes, reconstruction_logits of the clips"):
        model().losses(SimpleNamespace(logits=torch.zeros(1, 3)), torch.zeros(1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_atoms": 0}, "num_atoms must be 1 or more, got 0"),
        ({"atom_share": 1.5}, "atom_share must be within 1e-06 and 1, got 1.5"),
        ({"dropout": 1.0}, "dropout must be 0 or more and below 1, got 1.0"),
        ({"num_segments": 2}, "num_selected 3 is more than num_segments 2"),
        ({"margin": -1}, "margin must be 0 or more, got -1"),
    ],
)
def test_configs_out_of_range_are_refused(settings, words):
    with pytest.raises(Exception, match=words):
        S3rConfig(**settings)


# What generic code makes of it


@torch.no_grad()
def test_exported_graph_gives_the_same():
    detector = model()
    processor = SimpleNamespace(networks_to_export=lambda batches: iter(()), feature_grid=(2, 3), num_pictures=3)
    (network,) = detector.networks_to_export(processor, [])
    shapes = {"dynamic_shapes": network.dynamic_shapes, "strict": False}
    graph = torch.export.export(network.model, (), network.sample, **shapes).module()
    for lengths in ((9, 4, 1), (17, 3, 2, 1)):
        visual, _, mask = features(lengths)
        expected, found = detector(visual, clip_mask=mask), graph(visual_features=visual, clip_mask=mask)
        for name in detector.clip_outputs:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-4)


def test_published_recipe():
    config = TrainingConfig.from_profile("s3r", data="store", output_dir="run", architecture="s3r")
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 1e-3, 5e-3)
    assert (config.batch_size, config.epochs, config.scheduler) == (64, 580, "constant")
    assert S3rConfig().detector_spec.context == WHOLE_VIDEO


def test_it_learns(tmp_path):
    """On a planted store, where one clip of each anomalous video stands out."""
    store = plant(tmp_path / "store", num_videos=90, clips=(4, 16), signal=6.0, shape=(128, 1, 1))
    settings = {"epochs": 10, "batch_size": 16, "learning_rate": 1e-3, "model_options": {"dropout": 0.3}}
    folders = {"data": str(store), "output_dir": str(tmp_path / "run")}
    config = TrainingConfig.from_profile("s3r", architecture="s3r", **folders, **settings)
    result = train(config, progress=False)
    trained = AutoModelForVideoClassification.from_pretrained(result.output_dir)
    assert type(trained) is S3rForAnomalyDetection and type(trained.s3r) is S3rModel
    normal = sum(row["anomaly"] == 0 for row in FeatureDataset(store, "train").rows)
    assert trained.config.num_atoms == len(trained.s3r.dictionary.atoms) == round(0.9 * normal)
    assert {"video_loss", "magnitude_loss", "reconstruction_loss"} < result.validation.keys()
    figures = evaluate(trained, FeatureDataset(store, "test"), num_resamples=0).figures
    assert figures["video"]["roc_auc"] > 0.8 and figures["frame"]["roc_auc"] > 0.7


@torch.no_grad()
def test_pipeline_sees_the_whole_video(tmp_path, bikes):
    """What it gives is what the model gives of all clips at once, not of the few that are read together."""
    folder = tmp_path / "s3r"
    init("s3r", folder, size="tiny", inputs="both")
    detect = pipeline("audio-visual-anomaly", model=str(folder), dtype="float32")
    found = detect(bikes, batch_size=2)
    encoded = AutoProcessor.from_pretrained(folder)(bikes)
    outputs = detect.model(**encoded)
    scores = detect.model.scores(outputs)[0].tolist()
    assert len(scores) > 4 and [clip["score"] for clip in found["clips"]] == pytest.approx(scores, abs=1e-5)
    magnitudes = [clip["why"]["feature_magnitude"] for clip in found["clips"]]
    assert magnitudes == pytest.approx(outputs.magnitudes[0].tolist(), rel=1e-3)
    part = {name: value[:, :2] for name, value in encoded.items() if name.endswith("features")}
    assert abs(detect.model.scores(detect.model(**part))[0, 0].item() - scores[0]) > 1e-6
