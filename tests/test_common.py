"""What users of transformers expect of every network, asked of all architectures alike.

A new architecture is tested here as soon as it is registered; its folder's ``tiny`` says how small a network may be.
"""

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AttentionInterface, AutoConfig, AutoModel, AutoModelForVideoClassification

from avad_hf import I3dConfig
from avad_hf.models.i3d import modeling_i3d
from avad_hf.registration import ARCHITECTURES
from avad_hf.training.fitting import methods
from avad_hf.training.models import detectors

NETWORKS = [(name, part) for name, one in ARCHITECTURES.items() for part in ("model", "head") if getattr(one, part)]
# These losses pair videos by their labels, whose numbers a compiled graph cannot know: `losses` is called beside it.
LOSS_LOOKS_AT_LABELS = ("rtfm", "s3r", "ssrl")
HEADS = [name for name, one in ARCHITECTURES.items() if one.head]
# Each with all of its layers: a head holds its body.
WHOLE = [(name, "head" if one.head else "model") for name, one in ARCHITECTURES.items()]
every_network = pytest.mark.parametrize(("name", "part"), NETWORKS, ids=map("-".join, NETWORKS))
every_whole_network = pytest.mark.parametrize(("name", "part"), WHOLE, ids=map("-".join, WHOLE))
every_head = pytest.mark.parametrize("name", HEADS)
# Those that are fitted to normal footage have no losses.
every_learner = pytest.mark.parametrize("name", [name for name in HEADS if name not in methods()])


@pytest.fixture(autouse=True)
def narrow_i3d(monkeypatch):
    """I3D has no setting for its width: two of its blocks are left, of two channels a branch."""
    monkeypatch.setattr(modeling_i3d, "MIXED", dict.fromkeys(("Mixed_4b", "Mixed_5b"), (2, 2, 2, 2, 2, 2)))
    monkeypatch.setattr(I3dConfig, "hidden_size", 8)


def build(name: str, part: str = "model", **settings: Any) -> nn.Module:
    """A small network with random weights and batch norm statistics, in evaluation mode."""
    one = ARCHITECTURES[name]
    torch.manual_seed(0)
    network = one.load(part)(one.load("config")(**{**one.tiny, **settings})).eval()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.weight is not None:  # some begin at zero, by which what comes before would not count
                module.weight.data.uniform_(0.5, 1.5)
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def takes(network: nn.Module) -> list[str]:
    return list(inspect.signature(network.forward).parameters)


def inputs(network: nn.Module, batch: int = 2, seed: int = 0, side: int | None = None) -> dict[str, torch.Tensor]:
    """Random input as its config says; what is masked is all real."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    config, names, made = network.config, takes(network), {}
    if "visual_features" in names:
        for name, width in config.detector_spec.inputs.items():
            made[name] = draw(batch, 5, width, 2, 3) if name == "visual_features" else draw(batch, 5, 6, width)
        made["clip_mask"] = torch.ones(batch, 5, dtype=torch.bool)
    if network.main_input_name == "pixel_values_videos":
        side = side or min(64, getattr(config, "short_side", 64))
        made["pixel_values_videos"] = draw(batch, getattr(config, "num_frames", 8), 3, side, side + 32)
    if "input_features" in names:
        sound = getattr(config, "audio_config", config)
        made["input_features"] = draw(batch, sound.num_frames, sound.num_mel_bins)
        if "audio_frame_mask" in names:
            made["audio_frame_mask"] = torch.ones(batch, sound.num_frames, dtype=torch.bool)
    return made


def labels(network: nn.Module, batch: int = 2) -> torch.Tensor:
    """Labels that fit its loss."""
    config = network.config
    if config.problem_type == "multi_label_classification":
        return (torch.arange(batch * config.num_labels) % 2).view(batch, -1).float()
    return torch.arange(batch) % 2


def tensors(outputs: Any) -> dict[str, torch.Tensor]:
    """All tensors of an output, by their names."""
    found = {}
    for name, value in outputs.items():
        values = value if isinstance(value, tuple) else (value,)
        found |= {f"{name}.{index}": tensor for index, tensor in enumerate(values)}
    return found


def check_equal(found: Any, expected: Any, bound: float = 1e-5) -> None:
    """Compare all tensors of two outputs, by their largest difference beside the largest value."""
    found, expected = tensors(found), tensors(expected)
    assert found.keys() == expected.keys() and found
    for name, tensor in found.items():
        check_near(tensor, expected[name], bound, name)


def check_near(found: torch.Tensor, expected: torch.Tensor, bound: float, name: str) -> None:
    assert found.shape == expected.shape, name
    if not found.is_floating_point():
        assert torch.equal(found, expected), name
        return
    is_real = expected > torch.finfo(torch.bfloat16).min / 2  # below are the scores of padding
    assert torch.equal(is_real, found > torch.finfo(torch.bfloat16).min / 2) or found.dtype == torch.float16, name
    if is_real.any():
        difference = (found.float() - expected.float())[is_real].abs().max()
        scale = expected.float()[is_real].abs().max().clamp_min(1)
        assert difference <= bound * scale, f"{name}: {difference:.3g} of {scale:.3g}"


def learn(network: nn.Module, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Gradients of one step in training mode, and the batch norms' statistics after it."""
    network.train()
    torch.manual_seed(0)
    network(**given, labels=labels(network)).loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return gradients | {name: tensor.clone() for name, tensor in network.named_buffers()}


@every_network
def test_new_weights_are_finite_and_come_from_the_seed(name, part):
    one = ARCHITECTURES[name]
    config = one.load("config")(**one.tiny)
    torch.manual_seed(1)
    first = one.load(part)(config)
    torch.manual_seed(1)
    second = one.load(part)(config).state_dict()
    for key, tensor in first.state_dict().items():
        assert torch.isfinite(tensor).all(), key
        assert torch.equal(tensor, second[key]), key


@every_whole_network
def test_what_a_checkpoint_lacks_is_initialised(name, part):
    """transformers makes networks without values; whatever no rule fills would hold whatever was in memory."""
    network = build(name, part)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
            tensor._is_hf_initialized = False
    for module in network.modules():
        module._is_hf_initialized = False
    network.initialize_weights()
    for key, tensor in network.state_dict().items():
        assert torch.isfinite(tensor).all(), key


@every_network
def test_saving_and_loading(name, part, tmp_path):
    network = build(name, part)
    network.save_pretrained(tmp_path)
    given = inputs(network)
    with torch.no_grad():
        expected = network(**given)
        check_equal(type(network).from_pretrained(tmp_path)(**given), expected)
        placed = type(network).from_pretrained(tmp_path, device_map="cpu", low_cpu_mem_usage=True)
        check_equal(placed(**given), expected)
    half = type(network).from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in half.parameters()} == {torch.bfloat16}
    if part == "head" and network.main_input_name != "input_features":
        assert type(AutoModelForVideoClassification.from_pretrained(tmp_path)) is type(network)
    body = AutoModel.from_pretrained(tmp_path)
    assert type(body) is ARCHITECTURES[name].load("model")
    expected = getattr(network, network.base_model_prefix, network).state_dict()
    for key, tensor in body.state_dict().items():
        assert torch.equal(tensor, expected[key]), key


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_configs_round_trip(name, tmp_path):
    config = build(name).config
    config.save_pretrained(tmp_path)
    kind = type(config)
    for again in (
        kind.from_pretrained(tmp_path),
        AutoConfig.from_pretrained(tmp_path),
        kind.from_dict(config.to_dict()),
        copy.deepcopy(config),
    ):
        assert type(again) is kind
        again._name_or_path = config._name_or_path
        assert again.to_dict() == config.to_dict()
    assert kind().model_type == name  # all settings have defaults
    relabelled = kind(num_labels=3)
    assert len(relabelled.id2label) == len(relabelled.label2id) == relabelled.num_labels == 3


@every_network
def test_the_first_argument_is_the_main_input(name, part):
    network = build(name, part)
    assert takes(network)[0] == network.main_input_name


@every_network
def test_misspelt_arguments_are_refused(name, part):
    network = build(name, part)
    given = inputs(network)
    first = next(iter(given))
    with pytest.raises(TypeError, match=f"takes no argument '{first[:-1]}'.* Did you mean {first}"):
        network(**{first[:-1]: given.pop(first)}, **given)


@every_network
def test_what_a_processor_makes_beside_the_inputs_is_left_out(name, part):
    network = build(name, part)
    given = inputs(network)
    beside = dict.fromkeys({*network.unread_inputs, "patch_features"} - given.keys(), torch.zeros(2))
    with torch.no_grad():
        check_equal(network(**given, **beside), network(**given))


@every_network
def test_tuples_and_outputs_are_equal(name, part):
    network = build(name, part)
    given = inputs(network)
    with torch.no_grad():
        expected = network(**given, output_hidden_states=True)
        found = network(**given, output_hidden_states=True, return_dict=False)
        assert isinstance(found, tuple)
        check_equal(dict(zip(expected.keys(), found, strict=True)), expected)
        network.config.return_dict = False
        assert isinstance(network(**given), tuple)
        assert not isinstance(network(**given, return_dict=True), tuple)


@every_whole_network
def test_hidden_states(name, part):
    network = build(name, part)
    given = inputs(network)
    assert "hidden_states" not in network(**given)
    for tensor in given.values():  # networks without weights that learn have gradients by what they see
        tensor.requires_grad_(tensor.is_floating_point())
    outputs = network(**given, output_hidden_states=True)
    states = outputs.hidden_states
    assert len(states) > 1 and all(len(state) >= 2 for state in states)
    scores = "logits" if part == "head" else next(key for key in outputs if outputs[key].is_floating_point())
    # Gradients go through them, which is how a heat map is made.
    learnt = [state for state in states if state.requires_grad]
    gradients = torch.autograd.grad(outputs[scores].float().sum(), learnt)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    network.config.output_hidden_states = True
    check_equal(network(**given), outputs)
    assert "hidden_states" not in network(**given, output_hidden_states=False)


@every_whole_network
def test_attentions(name, part):
    network = build(name, part)
    given = inputs(network)
    if not network._supports_attention_backend:
        with pytest.raises(TypeError, match="takes no argument 'output_attentions'"):
            network(**given, output_attentions=True)
        return
    with torch.no_grad():
        outputs = network(**given, output_attentions=True)
        for weights in outputs.attentions:
            torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        asked = build(name, part, output_attentions=True, attn_implementation="eager")
        check_equal(asked(**given), outputs)
        assert "attentions" not in network(**given)


@every_whole_network
def test_every_form_of_attention_gives_the_same(name, part):
    if not build(name, part)._supports_attention_backend:
        return
    calls = []

    def counting(module, query, key, value, attention_mask, **options):
        calls.append(module)
        attended, _ = AttentionInterface()["sdpa"](module, query, key, value, attention_mask, **options)
        return attended, None

    AttentionInterface.register("counting", counting)
    given = inputs(build(name, part))
    outputs = {}
    for form in ("eager", "sdpa", "counting"):
        network = build(name, part, attn_implementation=form)
        assert network.config._attn_implementation == form
        with torch.no_grad():
            outputs[form] = network(**given)
    assert calls
    for form in ("sdpa", "counting"):
        check_equal(outputs[form], outputs["eager"])
    default = build(name, part)
    assert default.config._attn_implementation == "sdpa"
    default.set_attn_implementation("eager")
    with torch.no_grad():
        check_equal(default(**given), outputs["eager"])


@every_learner
def test_training_reaches_every_weight(name):
    network = build(name, "head")
    found = learn(network, inputs(network))
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(found[key]).all(), key
    moving = [key for key, parameter in network.named_parameters() if parameter.grad.abs().sum() > 0]
    assert len(moving) > 0.8 * len(list(network.named_parameters()))


@every_learner
def test_gradient_checkpointing_changes_nothing(name):
    network = build(name, "head")
    assert network.supports_gradient_checkpointing and build(name).supports_gradient_checkpointing
    given = inputs(network)
    expected = learn(copy.deepcopy(network), given)
    network.activation_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(ValueError, match="Call activation_checkpointing_enable"):
        learn(copy.deepcopy(network), given)
    network.activation_checkpointing_enable()
    computed = []
    for module in network.modules():
        if getattr(module, "gradient_checkpointing", False):
            original = module._gradient_checkpointing_func
            module._gradient_checkpointing_func = lambda *args, original=original, **kwargs: (
                computed.append(1) or original(*args, **kwargs)
            )
    found = learn(network, given)
    assert computed
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, msg=lambda text, key=key: f"{key}: {text}")


@every_whole_network
@pytest.mark.parametrize("training", [False, True])
def test_compiles_as_one_graph(name, part, training):
    if training and (name not in detectors() or name in methods()):  # those that are fitted have one mode
        return
    network, compiled = build(name, part).train(training), build(name, part).train(training)
    given = inputs(network)
    for mask in ("clip_mask", "audio_frame_mask"):
        if mask in given:
            given[mask][0, -20 if mask.startswith("audio") else -2 :] = False
    if training and name not in LOSS_LOOKS_AT_LABELS:
        given["labels"] = labels(network)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.manual_seed(0)
        expected = network(**given)
        torch.manual_seed(0)
        found = torch.compile(compiled, fullgraph=True, backend="eager")(**given)
    check_equal(found, expected)
    for key, tensor in network.named_buffers():
        check_near(dict(compiled.named_buffers())[key], tensor, 1e-5, key)


@every_whole_network
def test_batches_and_single_inputs_are_equal(name, part):
    network = build(name, part)
    given = inputs(network, batch=3)
    with torch.no_grad():
        together = tensors(network(**given))
        for index in range(3):
            alone = network(**{key: value[index : index + 1] for key, value in given.items()})
            for key, tensor in tensors(alone).items():
                check_near(tensor, together[key][index : index + 1], 1e-5, key)


@every_whole_network
def test_padding_changes_nothing(name, part):
    network = build(name, part)
    given = inputs(network)
    features = ("visual_features", "audio_features", "patch_features")
    masks = {"clip_mask": features, "audio_frame_mask": ("input_features",)}
    with torch.no_grad():
        expected = tensors(network(**given))
        for mask, names in masks.items():
            if mask not in given:
                continue
            padded = dict(given)
            for key in (mask, *(key for key in names if key in given)):
                shape = (given[key].shape[0], 3, *given[key].shape[2:])
                padded[key] = torch.cat([given[key], given[key].new_zeros(shape)], dim=1)
            for key, tensor in tensors(network(**padded)).items():
                size = expected[key].shape
                kept = tensor[:, : size[1]] if tensor.dim() > 1 else tensor
                check_near(kept, expected[key], 1e-5, key)


@every_whole_network
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(name, part, dtype):
    network = build(name, part)
    given = inputs(network, batch=1)
    with torch.no_grad():
        expected = tensors(network(**given))
        half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in given.items()}
        for key, tensor in tensors(network.to(dtype)(**half)).items():
            check_near(tensor, expected[key], 0.1, key)


@every_whole_network
def test_pictures_of_another_size(name, part):
    network = build(name, part)
    if network.main_input_name != "pixel_values_videos":
        return
    given = inputs(network)
    larger = inputs(network, side=given["pixel_values_videos"].shape[-2] + 32)
    with torch.no_grad():
        small, large = tensors(network(**given)), tensors(network(**larger))
    assert small.keys() == large.keys()
    for key, tensor in large.items():
        assert tensor.dim() == small[key].dim() and torch.isfinite(tensor).all()


@every_head
def test_a_head_from_a_bare_body_says_so(name, tmp_path, caplog):
    one = ARCHITECTURES[name]
    head = build(name, "head")
    body = getattr(head, head.base_model_prefix, None)
    build(name, "model").save_pretrained(tmp_path)
    if body is None:  # one network is both
        assert one.load("head").from_pretrained(tmp_path).config.notice is None
        return
    loaded = one.load("head").from_pretrained(tmp_path)
    assert "are new and untrained" in loaded.config.notice and loaded.config.notice in caplog.text
    new = [key for key in loaded.state_dict() if not key.startswith(f"{head.base_model_prefix}.")]
    assert all(key in loaded.config.notice for key in new)
    trained = getattr(loaded, head.base_model_prefix).state_dict()
    for key, tensor in build(name, "model").state_dict().items():
        assert torch.equal(trained[key], tensor), key
    # It is said until they have been trained.
    loaded.save_pretrained(tmp_path / "untrained")
    assert one.load("head").from_pretrained(tmp_path / "untrained").config.notice == loaded.config.notice
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1e-3)
    loaded.save_pretrained(tmp_path / "trained")
    assert one.load("head").from_pretrained(tmp_path / "trained").config.notice is None


@every_head
def test_a_new_head_for_other_classes_says_so(name, tmp_path):
    head = build(name, "head")
    if name in detectors():  # their classes are other settings too
        return
    head.save_pretrained(tmp_path)
    kind, count = type(head), head.config.num_labels + 1
    with pytest.raises(ValueError, match="to train a new head for them, give ignore_mismatched_sizes=True"):
        kind.from_pretrained(tmp_path, num_labels=count)
    loaded = kind.from_pretrained(tmp_path, num_labels=count, ignore_mismatched_sizes=True)
    assert "are new and untrained: those of its checkpoint had other shapes" in loaded.config.notice
    assert loaded.config.num_labels == count


@every_head
def test_what_a_call_returns_is_not_saved(name, tmp_path):
    head = build(name, "head", return_dict=False)
    head.save_pretrained(tmp_path)
    assert head.config.return_dict is False
    assert type(head).from_pretrained(tmp_path).config.return_dict is True


@every_head
def test_a_head_with_missing_weights_is_refused(name, tmp_path):
    head = build(name, "head")
    weights = head.state_dict()
    lost = [key for key, value in weights.items() if value.is_floating_point()][-1]
    head.save_pretrained(tmp_path, state_dict={key: value for key, value in weights.items() if key != lost})
    with pytest.raises(ValueError, match=f"1 weights of {type(head).__name__} are missing"):
        type(head).from_pretrained(tmp_path)


@pytest.mark.parametrize("name", detectors())
def test_detectors_give_one_scale_of_scores(name):
    network = build(name, "head")
    with torch.no_grad():
        scores = network.scores(network(**inputs(network)))
    assert scores.dtype == torch.float64 and ((scores >= 0) & (scores <= 1)).all()
