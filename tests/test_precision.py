"""What frozen networks compute in, in which form, and that their weights stay as they are."""

import copy
import pickle
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoProcessor, pipeline

from avad_hf import (
    AvacaForAnomalyDetection,
    AvacaProcessor,
    AvrlForVideoClassification,
    FeatureDataset,
    SlowFastModel,
    VggishModel,
    extract_features,
)
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.media.sources import open_media
from avad_hf.models.avrl.inference_avrl import inference_form
from avad_hf.models.precision import choose_dtype, describe, fastest_dtype
from avad_hf.training.models import load_processor
from avad_hf.untrained import init_avrl

from .media_files import frame_times, sound, write_media
from .short_clips import beginning
from .test_avrl import KINDS, detector, randomise, sounds, videos

TASK = "audio-visual-anomaly"
X86 = {"architecture": "x86_64", "avx2": True}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def has_bfloat16(monkeypatch):
    """A processor with instructions for bfloat16, whatever this one has: without them torch emulates it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: X86 | {"avx512_bf16": True})


@pytest.fixture
def has_none(monkeypatch):
    """A processor without them."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: X86 | {"amx_bf16": False})


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    return write_media(path, frame_times(25, 0.4), sound(0, 0.4, 16000), 16000, audio_codec="aac")


@pytest.fixture(scope="module")
def real(tmp_path_factory, bunny, bikes) -> dict[str, str]:
    """Three clips of each real video."""
    folder = tmp_path_factory.mktemp("real")
    return {name: beginning(path, folder / name, 66) for name, path in (("bunny.mp4", bunny), ("bikes.mp4", bikes))}


@pytest.fixture(scope="module")
def avrl(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("avrl") / "tiny"
    init_avrl(folder, size="tiny")
    return str(folder)


@pytest.fixture
def computed(monkeypatch) -> dict[str, set]:
    """The types that encoders were run in, by their class."""
    found = {}
    for kind in (SlowFastModel, VggishModel):

        def noting(self, *inputs, forward=kind.forward, **kwargs):
            outputs = forward(self, *inputs, **kwargs)
            types = {parameter.dtype for parameter in self.parameters()} | {outputs.feature_map.dtype}
            found[type(self).__name__] = found.get(type(self).__name__, set()) | types
            return outputs

        monkeypatch.setattr(kind, "forward", noting)
    return found


def scores(result):
    return [clip["score"] for clip in result["clips"]]


def weights(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*.safetensors")}


def distance(found, expected) -> float:
    return ((found - expected).norm() / expected.norm()).item()


# Which type


@pytest.mark.parametrize(
    ("capabilities", "dtype", "words"),
    [
        (X86 | {"avx512_bf16": True}, torch.bfloat16, "this processor has avx512_bf16"),
        (X86 | {"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16, "this processor has amx_bf16"),
        (
            X86 | {"avx512_bf16": False, "avx512_f": True},
            torch.float32,
            "this processor has no instructions for bfloat16",
        ),
        (X86, torch.float32, "this processor has no instructions for bfloat16"),
        ({"architecture": "aarch64", "bf16": True}, torch.float32, "bfloat16 was measured on x86 alone"),
        ({}, torch.float32, "bfloat16 was measured on x86 alone"),
    ],
)
def test_auto_follows_the_processor(capabilities, dtype, words, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: MappingProxyType(capabilities))
    name = str(dtype).removeprefix("torch.")
    for device in ("cpu", torch.device("cpu")):
        assert fastest_dtype(device) == (dtype, words)
        assert choose_dtype("auto", device) == dtype
        assert describe("auto", device) == f"PyTorch, {name} ({words}), on cpu"
    # What was given needs no reason.
    assert describe("float16", "cpu") == describe(torch.float16, "cpu") == "PyTorch, float16, on cpu"
    assert choose_dtype("float32", "cpu") == choose_dtype(torch.float32, "cpu") == torch.float32
    assert choose_dtype(None, "cpu") is None


def test_auto_follows_the_gpu(monkeypatch):
    for has, dtype, words in (
        (True, torch.bfloat16, "this GPU has bfloat16"),
        (False, torch.float32, "this GPU has no bfloat16"),
    ):
        # Emulated it would be slower than float32.
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert fastest_dtype("cuda:1") == (dtype, words)
    assert fastest_dtype("mps") == (torch.float32, "bfloat16 was never measured on mps")


@pytest.mark.parametrize("dtype", ["float33", "int8", "nn", "", torch.int8, torch.bool, 16, float])
def test_refuses_what_is_no_floating_point_type(tiny, dtype):
    words = f"dtype must be 'auto' or a floating point type such as 'float32', got {dtype!r}"
    processor = AvacaProcessor.from_pretrained(tiny)
    for act in (
        lambda: choose_dtype(dtype, "cpu"),
        lambda: processor.to(dtype=dtype),
        lambda: AvacaProcessor.from_pretrained(tiny, dtype=dtype),
    ):
        with pytest.raises(ValueError) as caught:
            act()
        assert str(caught.value).startswith(words)
    assert processor.dtype == torch.float32  # what it was before


# AVACA's encoders


@pytest.mark.parametrize(
    ("load", "dtype"),
    [
        *((AvacaProcessor, dtype) for dtype in ("float32", "bfloat16", "float16", torch.bfloat16)),
        (AutoProcessor, "bfloat16"),
    ],
)
def test_a_type_is_computed_in_and_the_weights_stay(tiny, video, computed, dtype, load):
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    for processor in (load.from_pretrained(tiny, dtype=dtype), load.from_pretrained(tiny).to(dtype=dtype)):
        features = processor(video)
        assert computed == {"SlowFastModel": {wanted}, "VggishModel": {wanted}}
        assert processor.dtype == wanted
        assert features["visual_features"].dtype == features["audio_features"].dtype == torch.float32
        original = AvacaProcessor.from_pretrained(tiny)
        for role in ("video_encoder", "audio_encoder"):
            now, before = getattr(processor, role).state_dict(), getattr(original, role).state_dict()
            assert now.keys() == before.keys()
            assert all(torch.equal(now[name], before[name]) and now[name].dtype == before[name].dtype for name in now)
        computed.clear()


def test_without_a_type_it_is_that_of_the_weights(tmp_path, tiny, video, computed, has_bfloat16):
    processor = AvacaProcessor.from_pretrained(tiny)
    processor(video)
    assert computed == {"SlowFastModel": {torch.float32}, "VggishModel": {torch.float32}}
    # Weights that somebody has rounded are computed with as they are.
    for role in ("video_encoder", "audio_encoder"):
        getattr(processor, role).to(torch.bfloat16)
    processor.save_pretrained(tmp_path)
    computed.clear()
    rounded = AvacaProcessor.from_pretrained(tmp_path)
    rounded(video)
    assert computed == {"SlowFastModel": {torch.bfloat16}, "VggishModel": {torch.bfloat16}}
    assert rounded.dtype == torch.bfloat16 and rounded.computes_in == "PyTorch, bfloat16, on cpu"


def test_a_type_can_be_chosen_again(tiny, video):
    """Each time from the weights as they are: nothing is rounded twice."""
    processor = AvacaProcessor.from_pretrained(tiny)
    first = processor(video)
    rounded = processor.to(dtype="bfloat16")(video)
    again = processor.to(dtype="float32")(video)
    assert processor.to("cpu").dtype == torch.float32  # the device alone
    for key in ("visual_features", "audio_features"):
        assert torch.equal(first[key], again[key]) and not torch.equal(first[key], rounded[key])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "auto"])
def test_what_is_saved_are_the_weights_bit_for_bit(tmp_path, tiny, video, dtype, has_bfloat16):
    processor = AvacaProcessor.from_pretrained(tiny, dtype=dtype)
    processor(video)
    processor.save_pretrained(tmp_path)
    saved = weights(tmp_path)
    assert saved.keys() == {"video_encoder/model.safetensors", "audio_encoder/model.safetensors"}
    assert saved == {name: data for name, data in weights(tiny).items() if name in saved}
    assert AvacaProcessor.from_pretrained(tmp_path).dtype == torch.float32


@pytest.mark.parametrize("name", ["bunny.mp4", "bikes.mp4"])
def test_float32_form_equals_the_plain_networks(tiny, real, name):
    """Maps and embeddings of the modules as they were saved, called by hand, a clip and a second at a time."""
    processor = AvacaProcessor.from_pretrained(tiny, dtype="float32")
    found = processor(real[name])
    with open_media(real[name]) as media:
        for number, clip in enumerate(processor.clips(media)):
            pixels = torch.stack([frame.pixels for frame in clip.frames]).float() / 255
            with torch.no_grad():
                expected = processor.video_encoder(((pixels - 0.45) / 0.225).unsqueeze(0)).feature_map
                expected = F.adaptive_avg_pool2d(expected[0], (1, 3))  # bikes is wider than 16:9
                assert distance(found["visual_features"][0, number], expected) < 1e-4
                if name == "bunny.mp4":
                    windows = torch.stack([frame.sound for frame in clip.frames])
                    log_mel = processor.feature_extractor.log_mel(windows)[:, :96]
                    embeddings = processor.audio_encoder(log_mel).pooler_output
                    torch.testing.assert_close(found["audio_features"][0, number], embeddings, rtol=1e-4, atol=1e-4)


def test_bfloat16_features_differ_by_less_than_a_hundredth(tiny, real):
    types = ("float32", "bfloat16")
    exact, found = (AvacaProcessor.from_pretrained(tiny, dtype=dtype)(real["bunny.mp4"]) for dtype in types)
    for key in ("visual_features", "audio_features"):
        assert 0 < distance(found[key], exact[key]) < 0.01


def test_recipe_names_what_is_computed_in(tiny, has_bfloat16):
    processor = AvacaProcessor.from_pretrained(tiny)
    recipes = {None: processor.recipe()}
    for dtype in ("float32", "bfloat16", torch.float16, "auto"):
        recipes[dtype] = processor.to(dtype=dtype).recipe()
    for role in ("video_encoder", "audio_encoder"):
        assert [recipe[role]["dtype"] for recipe in recipes.values()] == [
            *("float32", "float32", "bfloat16", "float16", "bfloat16")
        ]
        # The weights are the same in all of them.
        assert len({recipe[role]["weights_sha256"] for recipe in recipes.values()}) == 1
    assert recipes["float32"] == recipes[None] and recipes["auto"] == recipes["bfloat16"] != recipes[None]


def test_features_of_another_type_are_known_again(tmp_path, tiny, video):
    """A detector that was trained on them finds the processor of its checkpoint, in whichever type it made them."""
    for dtype in ("bfloat16", "float32"):
        rows = [{"id": "v", "video": video, "label": "normal"}]
        processor = AvacaProcessor.from_pretrained(tiny, dtype=dtype)
        extract_features(rows, processor, tmp_path / dtype)
        assert load_processor(tiny, FeatureDataset(tmp_path / dtype)).to_dict() == processor.to_dict()


# AVRL's networks


@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize(("modality", "fusion"), KINDS)
@torch.no_grad()
def test_avrl_form_equals_the_model(modality, fusion, shortcut):
    video_config = {"stem_width": 8, "depths": (1, 2, 1, 1), "shortcut_type": shortcut}
    model = detector(modality, fusion, video_config=video_config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    form = inference_form(model)
    mask = torch.ones(3, 49, dtype=torch.bool)
    mask[1], mask[2, 20:] = False, False
    for frames, log_mel, heard in (
        (videos(3, 5), sounds(3, 49), mask),
        (videos(1, 1), sounds(1, 16), None),
        (videos(2, 9, (33, 47)), sounds(2, 200), None),
    ):
        expected, found = model(frames, log_mel, heard), form(frames, log_mel, heard)
        assert distance(found.logits, expected.logits) < 1e-4
        torch.testing.assert_close(
            found.anomaly_logits.sigmoid(), expected.anomaly_logits.sigmoid(), rtol=0, atol=1e-4
        )
        expected, found = model.avrl(frames, log_mel, heard), form.avrl(frames, log_mel, heard)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
    # Not a batch norm is left in it, and the model is as it was.
    assert not [module for module in form.modules() if isinstance(module, _BatchNorm)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not form.training and not any(parameter.requires_grad for parameter in form.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_avrl_form_follows_the_weights(tmp_path, has_bfloat16):
    detector().save_pretrained(tmp_path)
    model, frames, log_mel = AvrlForVideoClassification.from_pretrained(tmp_path, dtype="float32"), videos(), sounds()
    other = {name: value * 1.05 for name, value in model.state_dict().items() if value.is_floating_point()}
    forms = [model.for_inference()]
    results = [forms[0](frames, log_mel).logits]
    for change in (
        lambda: model.avrl.visual.bn1.running_mean.add_(0.3),
        lambda: [weight.mul_(1.1) for weight in model.avrl.parameters()],
        lambda: model.load_state_dict(other, strict=False),
        lambda: setattr(model, "classifier", copy.deepcopy(model.classifier).apply(randomise)),
    ):
        assert model.for_inference() is forms[-1] is not model
        change()
        forms.append(model.for_inference())
        results.append(forms[-1](frames, log_mel).logits)
        assert distance(results[-1], model(frames, log_mel).logits) < 1e-4
    assert not any(torch.equal(first, second) for first, second in pairwise(results))
    model.train()
    again = model.for_inference()
    assert not again.training and torch.equal(again(frames, log_mel).logits, results[-1])
    # It is no part of the model: neither of its weights, nor of a copy, which has a form of its own.
    assert model.state_dict().keys() == detector().state_dict().keys()
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for weight in copied.classifier.parameters():
            weight.zero_()
        assert not copied.for_inference()(frames, log_mel).logits.any()
    assert torch.equal(model.for_inference()(frames, log_mel).logits, results[-1])


@torch.no_grad()
def test_avrl_form_is_in_the_fastest_type(tmp_path, monkeypatch):
    """By default; its classifier, which is small, stays as it is."""
    detector().save_pretrained(tmp_path)
    model = AvrlForVideoClassification.from_pretrained(tmp_path)
    for capabilities, dtype in ((X86 | {"amx_bf16": True}, torch.bfloat16), (X86, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        form = model.for_inference()
        assert {parameter.dtype for parameter in form.avrl.parameters()} == {dtype}
        assert {parameter.dtype for parameter in form.classifier.parameters()} == {torch.float32}
        assert form(videos(), sounds()).logits.dtype == model.dtype == torch.float32


@pytest.mark.parametrize(("modality", "fusion"), KINDS)
def test_avrl_scores_in_bfloat16(tmp_path, real, modality, fusion, has_bfloat16):
    init_avrl(tmp_path / "new", size="tiny", modality=modality, fusion=fusion)
    exact = scores(pipeline(TASK, model=str(tmp_path / "new"), dtype="float32")(real["bunny.mp4"]))
    pipe = pipeline(TASK, model=str(tmp_path / "new"))
    found = scores(pipe(real["bunny.mp4"]))
    assert found == pytest.approx(exact, abs=0.01) and found != exact
    assert pipe.model.dtype == torch.float32


# Pipelines


@pytest.mark.parametrize("kind", ["avaca", "avrl"])
def test_a_pipeline_says_what_it_computes_in_and_why(tiny, avrl, monkeypatch, kind):
    checkpoint = {"avaca": tiny, "avrl": avrl}[kind]
    for capabilities, options, words in (
        (X86 | {"amx_bf16": True}, {}, "PyTorch, bfloat16 (this processor has amx_bf16), on cpu"),
        (X86 | {"amx_bf16": True}, {"dtype": "auto"}, "PyTorch, bfloat16 (this processor has amx_bf16), on cpu"),
        (X86, {}, "PyTorch, float32 (this processor has no instructions for bfloat16), on cpu"),
        (X86 | {"amx_bf16": True}, {"dtype": "float32"}, "PyTorch, float32, on cpu"),
        (X86 | {"amx_bf16": True}, {"dtype": torch.float32}, "PyTorch, float32, on cpu"),
        (X86, {"dtype": "bfloat16"}, "PyTorch, bfloat16, on cpu"),
        (X86, {"dtype": torch.float16}, "PyTorch, float16, on cpu"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert pipeline(TASK, model=checkpoint, device="cpu", **options).computes_in == words


@pytest.mark.parametrize("name", ["bunny", "bikes"])
def test_by_default_scores_of_a_trained_detector_differ_by_less_than_a_hundredth(real, name, computed, has_bfloat16):
    found = {}
    for dtype in (None, "float32"):
        pipe = pipeline(TASK, model=str(DEMO_MODEL), **({} if dtype is None else {"dtype": dtype}))
        found[dtype] = scores(pipe(real[f"{name}.mp4"]))
        types = {torch.float32 if dtype else torch.bfloat16}
        assert computed["SlowFastModel"] == types and (name == "bikes" or computed["VggishModel"] == types)
        computed.clear()
        # The detector itself, which is small, computes in the type of its weights.
        assert pipe.model.dtype == torch.float32
    assert found[None] == pytest.approx(found["float32"], abs=0.01) and found[None] != found["float32"]


def test_by_default_a_processor_without_bfloat16_computes_in_float32(tiny, tiny_pipe, video, computed, has_none):
    pipe = pipeline(TASK, model=tiny)
    assert scores(pipe(video)) == scores(tiny_pipe(video))
    assert set.union(*computed.values()) == {torch.float32}


@pytest.mark.parametrize("kind", ["avaca", "avrl"])
def test_what_a_pipeline_saves_are_the_weights_bit_for_bit(tmp_path, tiny, avrl, video, kind, has_bfloat16):
    checkpoint = {"avaca": tiny, "avrl": avrl}[kind]
    pipe = pipeline(TASK, model=checkpoint)
    assert "bfloat16" in pipe.computes_in
    before = scores(pipe(video))
    pipe.save_pretrained(tmp_path / "saved")
    assert weights(tmp_path / "saved") == weights(checkpoint)
    assert scores(pipeline(TASK, model=str(tmp_path / "saved"))(video)) == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_that_was_loaded_in_a_type_keeps_it(tiny, avrl, dtype, has_bfloat16):
    """Where model and processor are handed over, what was asked for when the model was loaded counts."""
    for checkpoint, kind in ((tiny, AvacaForAnomalyDetection), (avrl, AvrlForVideoClassification)):
        model = kind.from_pretrained(checkpoint, dtype=dtype)
        pipe = pipeline(TASK, model=model, processor=AutoProcessor.from_pretrained(checkpoint))
        assert pipe.computes_in == f"PyTorch, {dtype}, on cpu"


def test_what_was_chosen_for_a_processor_stays(tiny, video, computed, has_bfloat16):
    for dtype in ("float32", torch.float16):
        model = AvacaForAnomalyDetection.from_pretrained(tiny)
        pipe = pipeline(TASK, model=model, processor=AvacaProcessor.from_pretrained(tiny, dtype=dtype))
        name = str(dtype).removeprefix("torch.")
        assert pipe.computes_in == f"PyTorch, {name}, on cpu"
        pipe(video)
        assert set.union(*computed.values()) == {getattr(torch, name)}
        computed.clear()


def test_a_model_that_is_built_and_not_loaded(tiny, video, has_bfloat16):
    """As after training: nobody has asked for a type, and its weights are float32."""
    model = AvacaForAnomalyDetection(AvacaForAnomalyDetection.from_pretrained(tiny).config)
    processor = AvacaProcessor.from_pretrained(tiny)
    assert "bfloat16 (this processor has" in pipeline(TASK, model=model, processor=processor).computes_in
    assert pipeline(TASK, model=model.to(torch.float16), processor=processor).computes_in == "PyTorch, float16, on cpu"
    assert model.for_inference() is model
