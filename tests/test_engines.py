"""Exported checkpoints in use: wherever a checkpoint is taken, stored features, the Hub; and what they refuse."""

import contextlib
import copy
import importlib.util
import json
import logging
import os
import pickle
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline
from typer.testing import CliRunner

from avad_hf import (
    AvacaConfig,
    AvacaForAnomalyDetection,
    AvacaProcessor,
    AvrlForVideoClassification,
    FeatureDataset,
    SlowFastModel,
    VggishModel,
    evaluate,
    extract_features,
)
from avad_hf.cli import app
from avad_hf.detection.pipeline import DEMO_MODEL
from avad_hf.features.store import recipe_sha256
from avad_hf.models import engine
from avad_hf.models.engine import EngineModel
from avad_hf.training.models import load_processor

from . import warm
from .hub_server import HubServer

TASK = "audio-visual-anomaly"
FORMATS = ["openvino", "onnx"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def rows(drawn) -> list[dict]:
    """Four videos, three of them anomalous, without the one before, whose score bfloat16 moves by 0.03."""
    return drawn(8, 11)[1:5]


@pytest.fixture(scope="module")
def engines(exported, rows):
    """The demonstration model's engines in float32, and in bfloat16: `engines(format, precision)` gives a folder."""

    def export(format: str = "openvino", precision: str = "float32") -> Path:
        return exported(DEMO_MODEL, format, precision, reuse=True, calibrate=[rows[1]["video"]])

    return export


@pytest.fixture(scope="module")
def video(rows) -> str:
    return rows[0]["video"]


@pytest.fixture(scope="module")
def reference():
    """The demonstration model by torch, in float32."""
    return pipeline(TASK, model=str(DEMO_MODEL), dtype="float32")


@pytest.fixture
def damaged(engines, tmp_path):
    """A copy of the engines, to be damaged."""
    return lambda format="openvino": Path(shutil.copytree(engines(format), tmp_path / "copy"))


def scores(result: dict) -> list[float]:
    return [clip["score"] for clip in result["clips"]]


# How they compute


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="which cores a thread may use is known on Linux alone"
)
def test_no_thread_is_bound_to_a_core(engines, video):
    """Processes of one machine would all be bound to its first cores, and leave the others idle."""
    every, folder = os.sched_getaffinity(0), engines()
    found, through = set(), threading.Event()

    def affinities() -> dict[str, frozenset]:
        of_threads = {}
        for thread in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError):  # of a thread that has just ended
                of_threads[thread] = frozenset(os.sched_getaffinity(int(thread)))
        return of_threads

    # By ONNX Runtime itself, in a process in which something was quantised for it.
    bound = {thread for thread, cores in affinities().items() if cores != every}
    processor = AvacaProcessor.from_pretrained(folder)

    def watch():
        while not through.is_set():
            found.update(cores for thread, cores in affinities().items() if thread not in bound)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    processor(video)
    through.set()
    watcher.join()
    assert found == {frozenset(every)}


@pytest.mark.parametrize("format", FORMATS)
@torch.no_grad()
def test_windows_that_overlap_are_heard_as_each_by_itself(engines, format):
    """At 25 and 30 frames a second they share rows of feature maps, at 29.97 none: one engine computes both."""
    hearing, expected = (
        AvacaProcessor.from_pretrained(place).encoders["audio_encoder"].to(dtype="float32")
        for place in (engines(format), DEMO_MODEL)
    )
    waveform = torch.randn(3 * 16000, generator=torch.Generator().manual_seed(0)) / 10
    rows = []
    for fps in (25, 30, 30000 / 1001):
        starts = [round(number / fps * 16000) for number in range(32)]
        windows = torch.stack([waveform[start : start + 16000] for start in starts])
        rows.append(hearing.inputs_of(windows, starts)["rows_1"].numel())
        wanted = expected.encode(windows)
        for found in (hearing.encode(windows, starts), hearing.encode(windows)):
            assert (found - wanted).norm() < 1e-5 * wanted.norm()
    assert rows[0] < rows[1] < rows[2]


# Wherever a checkpoint is taken


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("load", [AvacaForAnomalyDetection, AutoModelForVideoClassification])
def test_a_detector_is_loaded_by_its_class(engines, load, format):
    found, info = load.from_pretrained(engines(format), output_loading_info=True)
    assert isinstance(found, EngineModel) and type(found.config) is AvacaConfig
    assert not any(info.values()) and not found.training and found.main_input_name == "visual_features"
    name = {"openvino": "OpenVINO", "onnx": "ONNX Runtime"}[format]
    assert found.computes_in == f"{name}, float32, on the CPU"
    assert (found.device.type, found.dtype) == ("cpu", torch.float32)
    assert found.to("cuda") is found and found.for_inference() is found


def test_encoders_are_loaded_by_their_classes(engines):
    for kind, part in ((SlowFastModel, "video_encoder"), (VggishModel, "audio_encoder")):
        for load, place in ((kind, engines() / part), (AutoModel, engines() / part)):
            found = load.from_pretrained(place)
            assert isinstance(found, EngineModel) and isinstance(found.config, kind.config_class)
        assert isinstance(kind.from_pretrained(engines(), subfolder=part), EngineModel)


def test_a_detector_of_another_class_is_refused(engines):
    with pytest.raises(ValueError, match="holds a model of type 'avaca', but AvrlConfig reads only 'avrl'"):
        AvrlForVideoClassification.from_pretrained(engines())
    with pytest.raises(ValueError, match="holds a model of type 'slowfast'"):
        VggishModel.from_pretrained(engines() / "video_encoder")


@pytest.mark.parametrize("load", [AvacaProcessor, AutoProcessor])
def test_a_processor_computes_with_engines(engines, reference, video, load):
    processor = load.from_pretrained(engines())
    assert isinstance(processor, AvacaProcessor) and isinstance(processor.video_encoder, EngineModel)
    assert processor.computes_in == "OpenVINO, float32, on the CPU" and processor.device.type == "cpu"
    found, expected = processor(video), reference.processor(video)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(processor.to("cpu", "bfloat16")(video)["visual_features"], found["visual_features"])


def test_torch_and_engines_mix(engines, reference, video):
    """A detector of the one reads what an encoder of the other has computed."""
    model = AvacaForAnomalyDetection.from_pretrained(engines())
    for processor, detector in (
        (AvacaProcessor.from_pretrained(engines()), reference.model),
        (reference.processor, model),
    ):
        found = pipeline(TASK, model=detector, processor=processor, device="cpu")(video)
        assert scores(found) == pytest.approx(scores(reference(video)), abs=1e-4)
    parts = [getattr(AvacaProcessor.from_pretrained(engines()), name) for name in ("video_encoder", "audio_encoder")]
    whole = AvacaProcessor(reference.processor.feature_extractor, *parts, size=64, feature_grid=(2, 4))
    torch.testing.assert_close(whole(video)["visual_features"], reference.processor(video)["visual_features"])


def test_detect_takes_the_folder(engines, reference, video, tmp_path):
    arguments = ["detect", video, "--model", str(engines()), "--json", str(tmp_path / "out.json"), "--device", "cpu"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "Networks: OpenVINO, float32, on the CPU." in done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text()).values()
    assert scores(found) == pytest.approx(scores(reference(video)), abs=1e-4)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_copies_compute_the_same(engines, video, copied):
    processor = AvacaProcessor.from_pretrained(engines())
    model = AvacaForAnomalyDetection.from_pretrained(engines())
    features = processor(video)
    assert torch.equal(copied(processor.video_encoder).config.depths and copied(model)(**features).logits,
                       model(**features).logits)  # fmt: skip


# Stored features


@pytest.fixture(scope="module")
def stores(engines, rows, tmp_path_factory) -> dict[str, Path]:
    """Features of the same four videos, by torch and by OpenVINO in bfloat16."""
    root = tmp_path_factory.mktemp("stores")
    places = {"torch": DEMO_MODEL, "engine": engines("openvino", "bfloat16")}
    for name, place in places.items():
        done = extract_features(rows, AvacaProcessor.from_pretrained(place), root / name)
        assert (done.num_stored, done.failed) == (4, [])
    return {name: root / name for name in places}


def test_features_of_engines_mean_the_same_and_say_what_made_them(stores, engines):
    torch_made, made = (FeatureDataset(stores[name]).recipe for name in ("torch", "engine"))
    assert recipe_sha256(torch_made) == recipe_sha256(made)
    for role in ("video_encoder", "audio_encoder"):
        assert made[role]["weights_sha256"] == torch_made[role]["weights_sha256"]
        record = json.loads((engines("openvino", "bfloat16") / role / "engine.json").read_text())
        assert (made[role]["dtype"], torch_made[role]["dtype"]) == ("bfloat16", "float32")
        assert made[role]["runtime"] == f"openvino ({record['sha256'][:12]})" and "runtime" not in torch_made[role]
    for place in (DEMO_MODEL, engines()):  # which is what training asks
        assert isinstance(load_processor(str(place), FeatureDataset(stores["engine"])), AvacaProcessor)


@pytest.mark.parametrize("store", ["torch", "engine"])
def test_evaluation_of_both_detectors_on_both_kinds_of_features(stores, engines, reference, rows, store):
    model = AutoModelForVideoClassification.from_pretrained(engines())
    features = FeatureDataset(stores[store])
    by_torch, by_engine = (evaluate(detector, features, num_resamples=5) for detector in (reference.model, model))
    assert by_engine.figures["video"]["roc_auc"] == by_torch.figures["video"]["roc_auc"]
    assert by_engine.figures["weights_sha256"] == json.loads((engines() / "engine.json").read_text())["sha256"]
    found, expected = ([row["score"] for row in judged.videos] for judged in (by_engine, by_torch))
    assert found == pytest.approx(expected, abs=1e-4)
    assert found == pytest.approx([reference(row["video"])["score"] for row in rows], abs=0.01)


@pytest.mark.parametrize("store", ["torch", "engine"])
def test_features_of_two_kinds_do_not_mix(stores, engines, rows, store):
    place = DEMO_MODEL if store == "engine" else engines("openvino", "bfloat16")
    with pytest.raises(
        ValueError, match=r"(?s)made by another recipe.*video_encoder.runtime: .*openvino \([0-9a-f]{12}\)"
    ):
        extract_features(rows, AvacaProcessor.from_pretrained(place), stores[store])


# Saved again


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_saved_again_gives_the_same_bits(engines, video, tmp_path, format):
    pipe = pipeline(TASK, model=str(engines(format)))
    pipe.save_pretrained(tmp_path / "pipeline")
    pipe.processor.save_pretrained(tmp_path / "processor")
    again = pipeline(TASK, model=str(tmp_path / "pipeline"))
    assert isinstance(again.model, EngineModel) and again(video) == pipe(video)
    alone = AvacaProcessor.from_pretrained(tmp_path / "processor")
    for name, value in pipe.processor(video).items():
        assert torch.equal(alone(video)[name], value)
    for path in (path for path in engines(format).rglob("*") if path.is_file() and path.suffix != ".md"):
        copied = tmp_path / "pipeline" / path.relative_to(engines(format))
        assert copied.read_bytes() == path.read_bytes() or path.name in ("config.json", "processor_config.json")


def test_saving_over_itself_changes_nothing(damaged, video):
    folder = damaged()
    pipe = pipeline(TASK, model=str(folder))
    before = pipe(video)
    pipe.save_pretrained(folder)
    assert pipeline(TASK, model=str(folder))(video) == before


# The Hub

SHARED = """
import json
from pathlib import Path
import torch
torch.set_num_threads(1)
import avad_hf
from transformers import pipeline
root = Path.cwd().parent

def detect(model):
    return pipeline("audio-visual-anomaly", model=str(model))(str(root / "clip.mp4"))
"""
WRITE = """
from avad_hf import push_checkpoint
push_checkpoint(root / "engines", "alice/engines")
for name in ("torch", "engines"):
    push_checkpoint(root / name, "alice/engines-last")
push_checkpoint(root / "engines", "alice/torch-last", private=True)
push_checkpoint(root / "torch", "alice/torch-last")
pipeline("audio-visual-anomaly", model=str(root / "engines")).push_to_hub("alice/pipeline")
print(json.dumps(detect(root / "engines")))
"""
READ = """
names = ("engines", "engines-last", "torch-last", "pipeline")
found = {name: detect(f"alice/{name}") for name in names}
found["is engine"] = [
    type(avad_hf.AvacaForAnomalyDetection.from_pretrained(f"alice/{name}")).__name__ for name in names
]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def hub(engines, video, reference, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(engines(), root / "engines")
    shutil.copytree(DEMO_MODEL, root / "torch")
    shutil.copy(video, root / "clip.mp4")
    with HubServer(tokens={"tok-a": "alice"}) as server:
        written = json.loads(server.run(SHARED + WRITE, root / "writer").splitlines()[-1])
        pulled = json.loads(server.run(SHARED + READ, root / "reader").splitlines()[-1])
        yield server, written, pulled
        assert server.unknown == []


def test_pulled_as_pushed(hub, reference, video):
    _, written, pulled = hub
    assert pulled["engines"] == pulled["engines-last"] == pulled["pipeline"] == written
    assert pulled["is engine"] == ["EngineModel", "EngineModel", "AvacaForAnomalyDetection", "EngineModel"]
    assert scores(written) == pytest.approx(scores(reference(video)), abs=1e-4)


def test_nothing_of_what_was_there_before_stays(hub, engines):
    server = hub[0]
    files = {path.relative_to(engines()).as_posix() for path in engines().rglob("*") if path.is_file()}
    for name in ("engines", "engines-last"):
        assert server.files("model", f"alice/{name}").keys() - {".gitattributes"} == files
    weights = {path.relative_to(DEMO_MODEL).as_posix() for path in Path(DEMO_MODEL).rglob("*") if path.is_file()}
    assert server.files("model", "alice/torch-last").keys() - {".gitattributes"} == weights
    card = server.files("model", "alice/engines")["README.md"].decode()
    assert "Largest difference of a score" in card and 'model="alice/engines"' in card


# Refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": torch.tensor([1])}, r"labels=\.\.\. cannot be given to an exported detector"),
        ({"output_attentions": True}, "output_attentions=.* cannot be given to an exported detector"),
        ({"audio_path": "plain"}, "audio_path=plain cannot be given .* Use the checkpoint that it was made from"),
        ({"audio_features": None}, "needs visual_features, audio_features, clip_mask; audio_features is missing"),
        ({"visual_features": torch.zeros(1, 2, 480, 2, 5)}, r"visual_features of shape \(any, any, 480, 2, 4\), got"),
        ({"visual_features": torch.zeros(2, 480, 2, 4)}, r"visual_features of shape .*, got \(2, 480, 2, 4\)"),
    ],
)
def test_what_a_graph_cannot_follow_is_refused(engines, reference, video, options, words):
    model = AvacaForAnomalyDetection.from_pretrained(engines())
    features = reference.processor(video)
    with pytest.raises(ValueError, match=words):
        model(**features | options)


def test_what_changes_nothing_is_accepted(engines, reference, video):
    model = AvacaForAnomalyDetection.from_pretrained(engines())
    features = reference.processor(video)
    expected = model(**features).logits
    for options in ({"audio_path": "focused"}, {"output_attentions": False}, {"labels": None}, {"clip_mask": None}):
        assert torch.equal(model(**features | options).logits, expected)
    inputs = [features[name] for name in ("visual_features", "audio_features", "clip_mask")]
    assert torch.equal(model(*inputs).logits, expected)
    assert torch.equal(model(*(value.double() for value in inputs[:2])).logits, expected)


def test_the_pipeline_takes_the_exported_sound_path_and_no_other(engines, video):
    pipe = pipeline(TASK, model=str(engines()))
    assert pipe(video, audio_path="focused") == pipe(video)
    with pytest.raises(ValueError, match="audio_path=zeroed cannot be given to an exported detector"):
        pipe(video, audio_path="zeroed")
    done = CliRunner().invoke(app, ["detect", video, "--model", str(engines()), "--audio-path", "plain"])
    assert done.exit_code == 1 and "audio_path=plain cannot be given" in done.stderr


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def of_another_format(path: Path) -> None:
    path.write_text(path.read_text().replace('"openvino"', '"torch"'))


@pytest.mark.parametrize("part", ["", "audio_encoder"])
@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("openvino_model.bin", cut, ""),
        ("openvino_model.bin", one_bit, "its files have changed"),
        ("openvino_model.bin", Path.unlink, ""),
        ("openvino_model.xml", cut, ""),
        ("openvino_model.xml", Path.unlink, ""),
        ("export.json", cut, ""),
        ("export.json", Path.unlink, "export.json"),
        ("export.json", of_another_format, "export.json is of the format torch, engine.json of openvino"),
        ("engine.json", cut, "engine.json is damaged"),
        ("engine.json", of_another_format, "of a format or version that this library does not know: torch"),
    ],
)
def test_a_damaged_engine_is_not_used(damaged, part, name, damage, words):
    folder = damaged()
    damage(folder / part / name)
    load = AvacaProcessor if part else AvacaForAnomalyDetection
    with pytest.raises(ValueError, match=f"(?s)cannot be loaded.*{words}.*Copy or export it again") as raised:
        load.from_pretrained(folder)
    assert not part or "its audio_encoder cannot be loaded from audio_encoder" in str(raised.value)


@pytest.mark.parametrize(("name", "damage"), [("model.onnx", cut), ("model.onnx", Path.unlink)])
def test_a_damaged_engine_of_onnx_is_not_used(damaged, name, damage):
    folder = damaged("onnx")
    damage(folder / name)
    with pytest.raises(ValueError, match=r"(?s)cannot be loaded.*Copy or export it again"):
        AvacaForAnomalyDetection.from_pretrained(folder)


def test_a_pipeline_of_a_damaged_folder_says_what_is_damaged(damaged):
    folder = damaged()
    cut(folder / "video_encoder" / "openvino_model.bin")
    with pytest.raises(ValueError, match=r"(?s)video_encoder cannot be loaded.*Copy or export it again"):
        pipeline(TASK, model=str(folder))


# Machines that lack something


@pytest.mark.parametrize(
    ("format", "package", "words"),
    [
        ("openvino", "openvino", r"OpenVINO is not installed, .*'openvino'.*pip install 'avad-hf\[openvino\]'"),
        ("onnx", "onnxruntime", r"ONNX Runtime is not installed, .*'onnx'.*pip install 'avad-hf\[onnx\]'"),
    ],
)
def test_without_its_runtime_an_engine_says_what_to_install(engines, video, monkeypatch, format, package, words):
    folder, find_spec = engines(format), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find_spec(name, *rest)
    )
    for load in (AvacaForAnomalyDetection, AutoModelForVideoClassification, AvacaProcessor):
        with pytest.raises(ImportError, match=f"{words}, or use the checkpoint that the engines were exported from"):
            load.from_pretrained(folder)
    done = CliRunner().invoke(app, ["detect", video, "--model", str(folder)])
    assert done.exit_code == 2 and f"pip install 'avad-hf[{format}]'" in " ".join(done.stderr.split())


def test_without_runtimes_a_torch_checkpoint_works(tiny, video, monkeypatch):
    find_spec = importlib.util.find_spec
    missing = ("openvino", "nncf", "onnx", "onnxscript", "onnxruntime")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in missing else find_spec(name, *rest)
    )
    assert scores(pipeline(TASK, model=tiny)(video))


def of_precision(folder: Path, precision: str) -> Path:
    """Make an engine's record say another precision."""
    record = json.loads((folder / "engine.json").read_text())
    (folder / "engine.json").write_text(json.dumps(record | {"precision": precision}))
    return folder


@pytest.mark.parametrize(
    ("precision", "has_bfloat16", "has_int8", "in_use", "warning"),
    [
        ("bfloat16", False, True, "float32, since this processor has no bfloat16", "OpenVINO computes in float32"),
        ("bfloat16", True, True, "bfloat16", None),
        ("int8", True, False, "int8 without VNNI", "has no VNNI instructions: it may be no faster than float32"),
        ("int8", True, True, "int8", None),
        ("float32", False, False, "float32", None),
    ],
)
def test_a_processor_that_lacks_instructions_is_named(
    damaged, monkeypatch, caplog, precision, has_bfloat16, has_int8, in_use, warning
):
    folder = of_precision(damaged(), precision)
    monkeypatch.setattr(engine, "_capabilities", lambda: ["FP32", "INT8", *(["BF16"] if has_bfloat16 else [])])
    monkeypatch.setattr(engine, "has_int8_instructions", lambda: has_int8)
    with caplog.at_level(logging.WARNING, logger=engine.__name__):
        model = AvacaForAnomalyDetection.from_pretrained(folder)
    assert model.computes_in == f"OpenVINO, {in_use}, on the CPU"
    messages = [record.message for record in caplog.records if record.name == engine.__name__]
    assert len(messages) == (warning is not None)
    assert warning is None or (warning in messages[0] and messages[0].startswith("copy was exported in"))


def test_onnx_int8_without_instructions_is_named(damaged, monkeypatch, caplog):
    monkeypatch.setattr(engine, "has_int8_instructions", lambda: False)
    with caplog.at_level(logging.WARNING, logger=engine.__name__):
        model = AvacaForAnomalyDetection.from_pretrained(of_precision(damaged("onnx"), "int8"))
    assert model.computes_in == "ONNX Runtime, int8 without VNNI, on the CPU"
    assert "may be no faster" in caplog.text


def test_the_processor_itself_is_asked(monkeypatch):
    """The names are those of OpenVINO and torch: where they change, every processor would seem to lack them."""
    known = engine._capabilities()
    assert "FP32" in known and "INT8" in known
    flags = Path("/proc/cpuinfo")
    if flags.exists() and "avx512_bf16" in flags.read_text():
        assert "BF16" in known
    if flags.exists() and "avx512_vnni" in flags.read_text():
        assert engine.has_int8_instructions()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="OpenVINO changes it on Linux alone")
def test_signals_are_handled_where_they_were_before(engines):
    """Cores of OpenVINO that go in the order of their coming leave a stack that is freed: Ctrl-C would end it all."""
    code = f"""
import faulthandler, gc, signal
faulthandler.enable()
from avad_hf.models.engine import _capabilities
from transformers import AutoProcessor
first, second = (AutoProcessor.from_pretrained({str(engines())!r}) for _ in range(2))
_capabilities()
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""
    assert warm.run(code=code).stdout == "handled\n"
