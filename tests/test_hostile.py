"""Checkpoints and engines of others, and their settings: nothing of them reaches what is not theirs."""

import json
import os
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor

from avad_hf import AvacaConfig, AvacaForAnomalyDetection, AvacaProcessor, SlowFastModel
from avad_hf.hub.cards import card
from avad_hf.hub.contents import check_hub_id, read_settings
from avad_hf.hub.push import push_checkpoint
from avad_hf.models import engine
from avad_hf.models.encoder import load_encoder
from avad_hf.models.settings import LARGEST, MOST_ITEMS, check_numbers
from avad_hf.registration import ARCHITECTURES

from .hostile_checkpoints import CHECKPOINTS, change, copied

pytestmark = pytest.mark.usefixtures("one_thread")
# What is put in the place of every setting.
WRONG = (
    None,
    -1,
    0,
    1e30,
    float("nan"),
    10**30,
    10**6,
    "x",
    "",
    [],
    {},
    True,
    [None],
    ["x"],
    [10**9] * 4,
    [1] * 10_000,
)


# Checkpoints


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused(name, tmp_path):
    """By the model, or by the processor where it is the processor's."""
    make, words = CHECKPOINTS[name]
    make(folder := copied("avaca", tmp_path))
    with pytest.raises(ValueError, match=words):
        AvacaForAnomalyDetection.from_pretrained(folder)
        AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", [name for name in CHECKPOINTS if "link" in name or "encoder" in name])
def test_a_hostile_processor_is_refused_by_itself(name, tmp_path):
    make, words = CHECKPOINTS[name]
    make(folder := copied("avaca", tmp_path))
    with pytest.raises(ValueError, match=words):
        AvacaProcessor.from_pretrained(folder)


def test_an_encoder_by_a_link_is_refused_by_itself(tmp_path):
    folder = copied("slowfast", tmp_path)
    (folder / "model.safetensors").rename(tmp_path / "w")
    (folder / "model.safetensors").symlink_to(tmp_path / "w")
    for load in (
        SlowFastModel.from_pretrained,
        AutoModel.from_pretrained,
        lambda place: load_encoder(place, "pixels"),
    ):
        with pytest.raises(ValueError, match=r"a link that leads out of the folder, to .*/w"):
            load(folder)


def test_what_the_hubs_cache_holds_is_loaded(tmp_path):
    """There each file is a link to a blob of the same repository; one to another repository is refused."""
    repo = tmp_path / "models--user--name"
    snapshot, blobs = repo / "snapshots" / "c0", repo / "blobs"
    blobs.mkdir(parents=True)
    shutil.copytree(copied("avaca", tmp_path), snapshot)
    for number, path in enumerate(sorted(snapshot.rglob("*.*"))):
        shutil.move(path, blobs / str(number))
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    AutoModelForVideoClassification.from_pretrained(snapshot)
    AutoProcessor.from_pretrained(snapshot)
    AutoModel.from_pretrained(snapshot / "video_encoder")
    weights = snapshot / "model.safetensors"
    other = tmp_path / "models--user--other" / "blobs"
    other.mkdir(parents=True)
    shutil.move(weights.resolve(), other / "w")
    weights.unlink()
    weights.symlink_to(other / "w")
    with pytest.raises(ValueError, match="a link that leads out of the folder"):
        AutoModelForVideoClassification.from_pretrained(snapshot)


def test_a_hub_id_that_is_a_folder_here_is_not_taken_for_it(tmp_path, monkeypatch):
    folder = copied("avaca", tmp_path)
    change(folder / "processor_config.json", video_encoder="user/name@main")
    shutil.copytree(folder / "video_encoder", tmp_path / "user" / "name")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a name on the Hub, but there is a folder of that name here"):
        AvacaProcessor.from_pretrained(folder)
    check_hub_id("here", "user/other@v1", "video_encoder")


def test_code_of_a_checkpoint_is_not_run(tmp_path, monkeypatch, capfd):
    """Nor is anybody asked whether to: neither of types that are known, nor of others."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("Somebody was asked."))
    folder, ran = copied("avaca", tmp_path), tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    auto = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForVideoClassification"), "evil.Evil")
    for file in ("config.json", "processor_config.json", "video_encoder/config.json"):
        change(folder / file, auto_map=auto | {"AutoProcessor": "evil.Evil", "AutoFeatureExtractor": "evil.Evil"})
    AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=False)
    AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    load_encoder(folder / "video_encoder", "pixels")
    change(folder / "config.json", model_type="evil")
    for load in (lambda place: load_encoder(place, "pixels"), lambda place: push_checkpoint(place, "user/name")):
        with pytest.raises(ValueError, match=r"evil|contains custom code"):
            load(folder)
    assert not ran.exists()


def test_no_config_chooses_a_template_of_cards(tmp_path):
    """Templates are programs: one of a checkpoint's own would run when it is pushed."""
    evil = tmp_path / "evil.md"
    evil.write_text("---\nlibrary_name: x\n---\n{{ cycler.__init__.__globals__.os.system('touch ' ~ title) }}")
    with pytest.raises(ValueError, match="is no template of cards"):
        card(str(evil.with_suffix("")), title=str(tmp_path / "ran"))
    with pytest.raises(ValueError, match="AvacaConfig has no setting card"):
        AvacaConfig(card=str(evil.with_suffix("")))
    assert not (tmp_path / "ran").exists()


def test_other_files_of_a_folder_may_be_links(tmp_path):
    """Those that are not loaded: a training's folder has states and reports wherever its owner keeps them."""
    folder = copied("avaca", tmp_path)
    (folder / "metrics.json").symlink_to("/etc/hostname")
    (folder / "best").symlink_to(tmp_path)
    AutoModelForVideoClassification.from_pretrained(folder)


def test_a_license_by_a_link_is_not_published(tmp_path):
    folder = copied("avaca", tmp_path)
    (tmp_path / "secret").write_text("x")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match="a file is 'LICENSE', a link that leads out"):
        push_checkpoint(folder, "user/name")


def test_another_shape_is_loaded_where_that_is_asked_for(tmp_path):
    folder = copied("avaca", tmp_path)
    change(folder / "config.json", visual_size=97)
    with pytest.raises(ValueError, match="belong to different networks"):
        AvacaForAnomalyDetection.from_pretrained(folder)
    model = AvacaForAnomalyDetection.from_pretrained(folder, ignore_mismatched_sizes=True)
    assert model.config.visual_size == 97


def test_weights_of_whole_numbers_are_refused(tmp_path):
    folder = copied("avaca", tmp_path)
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.endswith("weight"))
    save_file(tensors | {name: tensors[name].to(torch.int8)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"{re.escape(name)} is of type I8, and must be of floating point"):
        AutoModelForVideoClassification.from_pretrained(folder)


def test_settings_files_are_bounded(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text('{"a": "' + "x" * 100 + '"}')
    monkeypatch.setattr("avad_hf.hub.contents.MOST_JSON_BYTES", 100)
    with pytest.raises(ValueError, match="it has 109 bytes; settings have 100 at most"):
        read_settings(path)


# Settings


@pytest.mark.parametrize(
    "kind",
    [
        *("arnet", "avaca", "avrl", "bnwvad", "macilsd", "mist", "resnet3d", "rtfm", "s3r", "slowfast", "ssrl"),
        *("urdmu", "vggish", "x3d", "yamnet"),
    ],
)
def test_every_wrong_setting_is_named(kind):
    """Or taken: nothing crashes, hangs, or says something else."""
    config = ARCHITECTURES[kind].load("config")
    settings = json.loads(config().to_json_string(use_diff=False))
    for name in settings:
        for wrong in WRONG:
            try:
                made = config.from_dict(settings | {name: wrong})
            except ValueError as error:
                text = str(error)
                # A mistake of one part may show in another that depends on it.
                assert name in text or name in ("id2label", "label2id", "model_type", "pool_size"), (name, wrong, text)
            else:
                made.to_json_string()


@pytest.mark.parametrize("kind", ["resnet3d", "vggish", "yamnet"])
def test_every_wrong_setting_of_a_feature_extractor_is_named(kind):
    extractor = ARCHITECTURES[kind].load("feature_extractor")
    settings = extractor().to_dict()
    for name in settings.keys() - {"feature_extractor_type", "padding_side", "return_attention_mask"}:
        for wrong in WRONG:
            try:
                extractor.from_dict(settings | {name: wrong})
            except ValueError as error:
                assert name in str(error), (name, wrong, str(error))
    with pytest.raises(ValueError, match="has no setting to_dict: that is a part of the class"):
        extractor.from_dict(settings | {"to_dict": 1})


def test_every_number_has_bounds():
    for name, one in ARCHITECTURES.items():
        config = one.load("config")
        names, bounds = dict(config.__annotations__), dict(config.bounds)
        for kind in config.__mro__:  # what several detectors have in common
            if "bounds" in vars(kind):
                names, bounds = names | kind.__annotations__, bounds | kind.bounds
        own = {item.name: item for item in fields(config) if item.name in names}
        numbers = {
            key
            for key, item in own.items()
            if re.search(r"\b(int|float)\b", str(item.type)) and "dict" not in str(item.type)
        }
        assert numbers - {"threshold"} == set(bounds), name  # which a validator checks


def test_numbers_without_bounds_are_finite_and_few():
    check_numbers("other", LARGEST, {})
    for wrong in (LARGEST + 1, float("inf"), float("nan"), 10**5000):
        with pytest.raises(ValueError, match=r"other must be .*within"):
            check_numbers("other", wrong, {})
    with pytest.raises(ValueError, match=f"other has {MOST_ITEMS + 1} items, and may have {MOST_ITEMS}"):
        check_numbers("other", [1] * (MOST_ITEMS + 1), {})


def test_parts_of_a_config_are_checked_as_well():
    with pytest.raises(ValueError, match="depths needs numbers of within 1 and 256"):
        ARCHITECTURES["avrl"].load("config").from_dict({"video_config": {"depths": [10**9] * 4}})
    with pytest.raises(StrictDataclassError, match="stem_width must be 1 or more, got 0"):
        ARCHITECTURES["resnet3d"].load("config")(stem_width=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"feature_size": 32}, r"feature_size \(32\) does not fit the VGGish network"),
        ({"sampling_rate": 8000, "high_hz": 3000.0}, r"sampling_rate \(8000\) does not fit"),
        ({"hop_length": 400}, r"hop_length and window_length \(40\) does not fit"),
        ({"fft_length": 256}, "fft_length must be window_length 400 or more, got 256"),
        ({"low_hz": 8000.0}, "high_hz must be above low_hz 8000, got 7500"),
    ],
)
def test_a_feature_extractor_that_does_not_fit_is_refused(settings, words, tmp_path):
    folder = copied("avaca", tmp_path)
    before = json.loads((folder / "processor_config.json").read_text())["feature_extractor"]
    change(folder / "processor_config.json", feature_extractor=before | settings)
    with pytest.raises(ValueError, match=words):
        AvacaProcessor.from_pretrained(folder)


# Engines


def _metadata(folder: Path, **values) -> None:
    manifest = json.loads((folder / "export.json").read_text())
    manifest["components"]["model"]["metadata"] |= values
    (folder / "export.json").write_text(json.dumps(manifest))


# What an engine's manifest says of a network in a file outside.
OUTSIDE = {"model": {"file": "../x.onnx", "metadata": {"kwargs": {"a": 1}}}}


def _spec(kind: str, context: str) -> str:
    return json.dumps([1, {"type": kind, "context": context, "children_spec": []}])


def _enum(module: str) -> str:
    return json.dumps({"__enum__": True, "fqn": f"{module}:X", "name": "A"}).replace("__enum__", "\\u005f_enum__")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: change(f / "engine.json", sha256=7), "sha256 must be text, got 7"),
        (lambda f: change(f / "engine.json", inputs=[]), "inputs must name what goes in"),
        (lambda f: change(f / "engine.json", inputs={"x": {"shape": "y", "dtype": "float32"}}), "inputs.x must be a"),
        (lambda f: change(f / "engine.json", inputs={"x": {"shape": [1], "dtype": "save"}}), "inputs.x must be"),
        (lambda f: change(f / "engine.json", inputs={"x": {"shape": [], "dtype": "bool"}}), "inputs.x must be a"),
        (lambda f: change(f / "engine.json", format="torch"), "this library does not know: torch"),
        (lambda f: change(f / "export.json", components={}), "must describe one network, called model"),
        (lambda f: change(f / "export.json", components=OUTSIDE), "names the file '../x.onnx', and must name"),
        (lambda f: _metadata(f, out_spec=_spec("builtins.tuple", _enum("evil"))), "names in out_spec what is"),
        (lambda f: _metadata(f, in_spec=_spec("transformers.utils.hub.PushInProgress", "[]")), "names in in_spec"),
        (lambda f: _metadata(f, in_spec="{"), "cannot be loaded"),
    ],
)  # fmt: skip
def test_a_hostile_engine_is_refused(make, words, tmp_path, monkeypatch):
    make(folder := copied("avaca-onnx", tmp_path))
    monkeypatch.setattr("transformers.exporters.ExportedModel.from_pretrained", lambda *_, **__: pytest.fail("Read."))
    with pytest.raises(ValueError, match=words):
        AutoModelForVideoClassification.from_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "file"),
    [("avaca-onnx", "model.onnx"), ("avaca-onnx", "model.onnx.data"), ("avaca-openvino", "openvino_model.bin")],
)
def test_an_engine_that_is_cut_or_elsewhere_never_reaches_its_runtime(kind, file, tmp_path, monkeypatch):
    folder = copied(kind, tmp_path)
    monkeypatch.setattr("transformers.exporters.ExportedModel.from_pretrained", lambda *_, **__: pytest.fail("Read."))
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="its files have changed since they were written"):
        AutoModelForVideoClassification.from_pretrained(folder)
    (folder / file).unlink()
    (tmp_path / "elsewhere").write_bytes(data)
    (folder / file).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"a file is '{file}', a link that leads out"):
        AutoModelForVideoClassification.from_pretrained(folder)


def test_weights_of_an_engine_outside_it_are_refused(tmp_path):
    """By ONNX Runtime itself, with hashes that fit."""
    import onnx

    folder = copied("avaca-onnx", tmp_path)
    shutil.copy(folder / "model.onnx.data", tmp_path / "x.data")
    network = onnx.load(str(folder / "model.onnx"), load_external_data=False)
    for tensor in network.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../x.data" if entry.key == "location" else entry.value
    (folder / "model.onnx").write_bytes(network.SerializeToString())
    change(folder / "engine.json", sha256=engine.files_sha256(folder))
    with pytest.raises(ValueError, match=r"cannot be loaded .*escapes model directory"):
        AutoModelForVideoClassification.from_pretrained(folder)
