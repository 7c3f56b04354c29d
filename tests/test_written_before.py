"""What version 0.1.0 wrote (tests/data/make_before.py) is loaded, and gives the same."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForVideoClassification,
    AutoProcessor,
    PreTrainedConfig,
    pipeline,
)

from avad_hf import (
    AvacaForAnomalyDetection,
    AvacaProcessor,
    AvrlForVideoClassification,
    AvrlProcessor,
    EngineModel,
    FeatureDataset,
    ResNet3dForVideoClassification,
    ResNet3dModel,
    SlowFastForVideoClassification,
    SlowFastModel,
    VggishFeatureExtractor,
    VggishModel,
    VideoFeatureExtractor,
    extract_features,
)
from avad_hf.features.store import recipe_sha256
from avad_hf.hub.folders import weights_hash
from avad_hf.models.avaca import features_avaca

from .data.make_before import CLIPS, clip, digest, settings, write_rows

TASK = "audio-visual-anomaly"
BEFORE = Path(__file__).parent / "data" / "before"
# Networks add up in the order that suits the processor: with AVX2 in place of AVX-512 scores moved by 1.5e-6.
BOUND = 1e-5
FACTS = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))
DETECTORS = {
    "avaca": (AvacaForAnomalyDetection, AvacaProcessor),
    "avaca-openvino": (EngineModel, AvacaProcessor),
    "avaca-onnx": (EngineModel, AvacaProcessor),
    "avrl": (AvrlForVideoClassification, AvrlProcessor),
    "avrl-openvino": (EngineModel, AvrlProcessor),
}
ENCODERS = {
    "slowfast": (SlowFastForVideoClassification, SlowFastModel),
    "resnet3d": (ResNet3dForVideoClassification, ResNet3dModel),
}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def portrait_as_before(monkeypatch):
    """Maps of portrait videos were squeezed to the landscape grid; that they are turned now is the one difference."""

    monkeypatch.setattr(features_avaca, "maps_on_grid", torch.nn.functional.adaptive_avg_pool2d)


@pytest.fixture(scope="module")
def expected() -> dict[str, torch.Tensor]:
    return load_file(BEFORE / "expected.safetensors")


def check_tensors(found, expected, name: str) -> None:
    """Compare what was found with all that was noted of a checkpoint: bit for bit, but for what networks compute."""
    digests = FACTS["digests"].get(name, {})
    assert {key: digest(found[key]) for key in digests} == digests
    tensors = {key.removeprefix(f"{name}/"): value for key, value in expected.items() if key.startswith(f"{name}/")}
    assert tensors
    for key, value in tensors.items():
        torch.testing.assert_close(
            found[key], value, rtol=BOUND, atol=BOUND, msg=lambda text, key=key: f"{name}, {key}: {text}"
        )


def check_model(model, name: str) -> None:
    """Weights, and every field of the config; those of an engine are its files, and the config it was made from."""
    assert weights_hash(model) == FACTS["weights_sha256"][name]
    checkpoint, *role = name.split("/")
    before = FACTS["configs"]["/".join([checkpoint.split("-")[0], *role])]
    now = settings(model.config)
    assert {key: now.get(key, "nothing") for key in before} == before
    # Other versions of transformers may have other fields; what came later stands for what was there before.
    later = now.keys() - before.keys() - PreTrainedConfig().to_dict().keys()
    assert {key: now[key] for key in later} == {key: model.config.later_settings[key] for key in later}


def near(value):
    """What equals a result in which no number is further off than the bound."""
    if isinstance(value, dict):
        return {key: near(part) for key, part in value.items()}
    if isinstance(value, list):
        return [near(part) for part in value]
    return pytest.approx(value, rel=0, abs=BOUND) if isinstance(value, float) else value


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_video_encoders(name, expected):
    classifier, encoder = ENCODERS[name]
    extractor = AutoFeatureExtractor.from_pretrained(BEFORE / name)
    model = AutoModelForVideoClassification.from_pretrained(BEFORE / name)
    body = AutoModel.from_pretrained(BEFORE / name)
    assert (type(extractor), type(model), type(body)) == (VideoFeatureExtractor, classifier, encoder)
    check_model(model, name)
    inputs = extractor(clip("wide"))
    check_tensors({**inputs, **body(**inputs), "logits": model(**inputs).logits}, expected, name)


@torch.no_grad()
def test_vggish(expected):
    extractor, model = (kind.from_pretrained(BEFORE / "vggish") for kind in (AutoFeatureExtractor, AutoModel))
    assert (type(extractor), type(model)) == (VggishFeatureExtractor, VggishModel)
    check_model(model, "vggish")
    sound = clip("tall")["waveform"][0] / np.float32(32768)
    inputs = extractor(sound, sampling_rate=16000)
    check_tensors({**inputs, **model(inputs["input_features"][:, :96])}, expected, "vggish")


@torch.no_grad()
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors(name, expected, portrait_as_before):
    model = AutoModelForVideoClassification.from_pretrained(BEFORE / name)
    processor = AutoProcessor.from_pretrained(BEFORE / name)
    assert (type(model), type(processor)) == DETECTORS[name]
    check_model(model, name)
    for role in ("video_encoder", "audio_encoder"):
        if hasattr(processor, role):
            check_model(getattr(processor, role), f"{name}/{role}")
    assert processor.to_dict() == json.loads((BEFORE / name / "processor_config.json").read_text(encoding="utf-8"))
    assert recipe_sha256(processor.recipe()) == FACTS["recipe_sha256"][name]
    inputs = processor([clip(known) for known in CLIPS])
    check_tensors({**inputs, **model(**inputs)}, expected, name)


@pytest.mark.parametrize("name", DETECTORS)
def test_pipelines(name, portrait_as_before):
    pipe = pipeline(TASK, model=str(BEFORE / name), device="cpu", dtype="float32")
    for known, before in FACTS["results"][name].items():
        now = pipe(clip(known))
        assert {key: now[key] for key in before} == near(before), known


@pytest.mark.parametrize("kind", ["avaca", "avrl"])
def test_stores(kind):
    dataset = FeatureDataset(BEFORE / f"{kind}-store")
    assert recipe_sha256(dataset.recipe) == FACTS["recipe_sha256"][f"{kind}-store"] == FACTS["recipe_sha256"][kind]
    assert [row["id"] for row in dataset.rows] == ["scene/silent", "scene/tall", "scene/wide", "stretch"]
    assert [(row["has_audio"], row["label"]) for row in dataset.rows[::3]] == [(False, "fight"), (True, "normal1")]
    for index, row in enumerate(dataset.rows):
        item = dataset[index]
        assert {key: digest(value) for key, value in item.items()} == FACTS["digests"][f"{kind}-store/{row['id']}"]


@pytest.mark.parametrize("kind", ["avaca", "avrl"])
def test_extraction_into_a_store_goes_on(kind, tmp_path):
    """The videos are known again by what is in their files, and another one's features are as they were."""
    store = Path(shutil.copytree(BEFORE / f"{kind}-store", tmp_path / "store"))
    processor = AutoProcessor.from_pretrained(BEFORE / kind)
    recipe = json.loads((store / "recipe.json").read_text(encoding="utf-8"))
    recipe["versions"] = processor.recipe()["versions"]
    (store / "recipe.json").write_text(json.dumps(recipe), encoding="utf-8")
    rows = write_rows(tmp_path / "videos")
    done = extract_features([*rows, rows[0] | {"id": "wide again"}], processor, store)
    assert (done.num_stored, done.num_new, done.failed) == (5, 1, [])
    dataset = FeatureDataset(store)
    items = {row["id"]: dataset[index] for index, row in enumerate(dataset.rows)}
    again, before = items["wide again"], items["scene/wide"]
    assert again.keys() == before.keys()
    for name, value in before.items():
        # Maps are stored in float16.
        rtol = 2**-10 if name == "visual_features" else BOUND
        torch.testing.assert_close(again[name], value, rtol=rtol, atol=BOUND)
