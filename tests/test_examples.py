"""Every example runs, and stays short."""

import sys
from pathlib import Path

import nbformat
import pytest
import torch
from huggingface_hub import ModelCard
from nbclient import NotebookClient
from PIL import Image
from transformers import AutoProcessor, pipeline

import avad_hf
from avad_hf import (
    AvacaForAnomalyDetection,
    AvrlForVideoClassification,
    FeatureDataset,
    SlowFastConfig,
    SlowFastModel,
    VideoFeatureExtractor,
    evaluate,
)
from avad_hf.corpora.manifest import write_manifest
from avad_hf.registration import ARCHITECTURES

from . import warm
from .feature_stores import plant
from .hub_server import HubServer
from .media_files import frame_times, sound, write_media
from .test_convert_files import save_pytorchvideo, small_slowfast, small_vggish

EXAMPLES = Path(__file__).parents[1] / "examples"
# Before an example: it draws videos of a second, not of four to eight, and no picture of their classes.
SHORT = f"""
import sys
sys.path.insert(1, {str(Path(__file__).parents[1])!r})
from avad_hf.corpora import synthetic
from tests import warm
warm.short_videos(1.0)
synthetic.gallery = lambda plans, path: None
"""
# The same, and the demo ends before its fitted detector, of which no picture is made.
NOT_FITTED = f"""{SHORT}
import avad_hf.demo
avad_hf.demo._normality = lambda *_: []
"""
# Before an example: it expects encoders of few channels.
SMALL_ENCODERS = f"""
import sys
sys.path.insert(1, {str(Path(__file__).parents[1])!r})
import pytest
from tests.test_convert_files import expect_small
expect_small(pytest.MonkeyPatch())
"""


def cache(folder: Path) -> dict[str, str]:
    """An environment in which data sets are kept in a folder."""
    return {"HF_HOME": str(folder / "home"), "HF_DATASETS_CACHE": str(folder / "cache")}


def run(script: str, *arguments, code: str = "", env: dict[str, str] | None = None) -> list[str]:
    """What an example prints, line by line."""
    return warm.run(EXAMPLES / script, *arguments, code=code, env=env).stdout.splitlines()


def run_with_hub(hub: HubServer, home: Path, script: str, *arguments) -> list[str]:
    """The same with an account on a Hub."""
    argv = [str(EXAMPLES / script), *map(str, arguments)]
    code = f"import runpy, sys; sys.argv = {argv!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    return hub.run(code, home).splitlines()


def test_detect_video(tiny, bunny):
    lines = run("detect_video.py", bunny, tiny)
    assert len(lines) == 6 and lines[0].startswith("   0.00 s to    1.28 s")
    assert "most attention to the sound between frames" in lines[-1]


def test_features_of_a_corpus(tiny, tmp_path):
    lines = run("features_of_a_corpus.py", tiny, tmp_path / "store", "6", code=SHORT, env=cache(tmp_path))
    assert "6 videos stored, 6 of them new, 0 failed" in lines
    assert lines[-1].startswith("loss of an untrained model on 4 synthetic videos")


def test_events_in_a_crowd(tmp_path):
    lines = run("events_in_a_crowd.py", tmp_path / "run", "30", "1", code=SHORT, env=cache(tmp_path))
    first, *recalls, last = lines
    assert first.startswith("validation top-1 accuracy") and len(recalls) == 9
    detector = AvrlForVideoClassification.from_pretrained(tmp_path / "run" / "trained")
    assert last.split(": ")[1].split(",")[0] in detector.config.id2label.values()


def test_train_with_trainer(tmp_path):
    store = plant(tmp_path / "store", num_videos=40)
    last = run("train_with_trainer.py", store, tmp_path / "trained", "8")[-1]
    best = float(last.removeprefix("best validation AUC: ").split(",")[0])
    # What Trainer saved is what it said, and it has learnt something.
    model = AvacaForAnomalyDetection.from_pretrained(tmp_path / "trained")
    found = evaluate(model, FeatureDataset(store, "validation"), num_resamples=0)
    assert found.figures["video"]["roc_auc"] == pytest.approx(best, abs=5e-4)
    assert best > 0.7


def test_fine_tune_classifier(tmp_path):
    rows = []
    for index in range(10):
        label = ("normal", "fire")[index % 2]
        video = write_media(tmp_path / f"{index}.mp4", frame_times(25, 0.4))
        rows.append({"id": str(index), "video": video, "label": label})
    write_manifest(rows, tmp_path / "manifest.csv")
    torch.manual_seed(0)
    network = SlowFastModel(SlowFastConfig(**ARCHITECTURES["slowfast"].tiny))
    network.save_pretrained(tmp_path / "encoder")
    VideoFeatureExtractor(num_frames=8, size=(64, 64)).save_pretrained(tmp_path / "encoder")
    arguments = tmp_path / "manifest.csv", tmp_path / "encoder", tmp_path / "classifier", "1"
    last = run("fine_tune_classifier.py", *arguments, env=cache(tmp_path))[-1]
    assert last.startswith("validation accuracy ")
    classify = pipeline("video-classification", model=str(tmp_path / "classifier"), device="cpu")
    assert classify.model.config.notice is None  # its classifier has been trained
    assert {item["label"] for item in classify(str(tmp_path / "0.mp4"))} == {"normal", "fire"}


def test_train_and_push(tmp_path):
    store = plant(tmp_path / "store", num_videos=60)
    with HubServer(tokens={"tok": "alice"}) as hub:
        lines = run_with_hub(
            hub, tmp_path / "home", "train_and_push.py", store, tmp_path / "street", "alice/street", "6"
        )
        assert hub.repos["model", "alice/street"].private
        files = hub.files("model", "alice/street")
    assert "/alice/street/commit/" in lines[-1]
    # What the card shows is what was printed.
    card = ModelCard(files["README.md"].decode())
    shown = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert f"test AUC {shown['ROC AUC of videos']:.3f}" in lines[-2]
    assert shown["ROC AUC of videos"] > 0.7


def test_own_videos(tiny, tmp_path):
    folder = tmp_path / "tunnel"
    for label in ("fire", "normal"):
        (folder / label).mkdir(parents=True)
        for index in range(3):
            write_media(
                folder / label / f"{index}.mp4", frame_times(25, 1.5), sound(0, 1.5, 16000), 16000, audio_codec="aac"
            )
    with HubServer(tokens={"tok": "alice"}) as hub:
        arguments = folder, tiny, tmp_path / "store", "alice/tunnel"
        lines = run_with_hub(hub, tmp_path / "home", "own_videos.py", *arguments)
        assert "6 videos of the classes fire, normal" in lines[0]
        assert f"6 videos stored in {tmp_path / 'store'}" in lines
        assert hub.repos["dataset", "alice/tunnel"].private
        read = "import datasets; print(datasets.load_dataset('alice/tunnel')['train']['id'])"
        assert "fire/" in hub.run(read, tmp_path / "reader", fresh=True)


def test_convert_encoders(tmp_path):
    """By networks of all layers and few channels; `test_convert.py` converts those of the published size."""
    slowfast, vggish = small_slowfast(), small_vggish()
    files = [save_pytorchvideo(slowfast, tmp_path / "SLOWFAST_8x8_R50.pyth"), tmp_path / "vggish-10086976.pth"]
    torch.save(vggish, files[1])
    lines = run("convert_encoders.py", tmp_path / "made", *files, code=SMALL_ENCODERS)
    counts = [
        sum(tensor.numel() for name, tensor in weights.items() if "running" not in name and "num_batches" not in name)
        for weights in (slowfast, vggish)
    ]
    assert lines[0].startswith(f"slowfast: {counts[0]:,} weights of pytorchvideo. Relative error")
    assert lines[1].startswith(f"vggish: {counts[1]:,} weights of torchvggish. Nothing to compare with.")
    assert lines[2] == "400 classes from 32 frames of 256 pixels"
    encoder = AutoProcessor.from_pretrained(tmp_path / "made" / "avaca").video_encoder
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, slowfast[name]), name


def test_two_processes_begin_as_accelerate_launch_begins_them(tmp_path):
    names = ("ACCELERATE_USE_CPU", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR")
    script = tmp_path / "says.py"
    # In one piece, since both write to one place.
    script.write_text(
        f"import os\nwords = [os.environ['MASTER_PORT'] > '', *map(os.environ.get, {names!r})]\n"
        "os.write(1, (' '.join(map(str, words)) + '\\n').encode())\n"
    )
    ours = [process.stdout.strip() for process in warm.run_two(script)]
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    done = warm.run(*launch, script, env={"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"})
    assert sorted(done.stdout.splitlines()) == ours


def test_extract_distributed(tiny, tmp_path):
    rows = [
        {"id": str(index), "video": write_media(tmp_path / f"{index}.mp4", frame_times(25, 1.5)), "label": "normal"}
        for index in range(4)
    ]
    write_manifest(rows, tmp_path / "manifest.csv")
    script, store = EXAMPLES / "extract_distributed.py", tmp_path / "store"
    both = warm.run_two(script, tmp_path / "manifest.csv", tiny, store, env=cache(tmp_path))
    lines = [line for process in both for line in process.stdout.splitlines()]
    assert "4 videos stored by 2 processes, 0 failed" in lines
    assert {"process 0: 2 of 2", "process 1: 2 of 2"} <= set(lines)
    avad_hf.extract_features(rows, AutoProcessor.from_pretrained(tiny), tmp_path / "alone")
    for file in (tmp_path / "alone").rglob("*.safetensors"):
        assert file.read_bytes() == (store / file.relative_to(tmp_path / "alone")).read_bytes()


def test_draw_pictures(tmp_path):
    # In place of a browser: it draws the page's first line.
    browser = tmp_path / "browser"
    browser.write_text(
        f"""#!{sys.executable}
import pathlib, sys, urllib.request
shot = next(word.partition("=")[2] for word in sys.argv if word.startswith("--screenshot="))
assert b"avad_hf demo" in urllib.request.urlopen(sys.argv[-1]).read()
from PIL import Image
Image.new("RGB", (1000, 985)).save(shot)
"""
    )
    browser.chmod(0o755)
    lines = run("draw_pictures.py", tmp_path / "pictures", "3", browser, code=NOT_FITTED, env=cache(tmp_path))
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == ["timeline.png", "overlay.png", "report.png"]
    assert {Image.open(path).width for path in (tmp_path / "pictures").iterdir()} == {640, 900}


def test_the_notebook_runs_and_shows_its_results(tmp_path, monkeypatch):
    notebook = nbformat.read(EXAMPLES / "from_folder_to_events.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # which would hold paths
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    small = "NUM_VIDEOS, EPOCHS = 16, 2\nENCODERS = {'size': 'tiny'}"
    parameters.source = "\n".join([parameters.source, SHORT, small])
    for name, value in cache(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    resources = {"metadata": {"path": str(tmp_path)}}
    done = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "19 videos\n" in said and "16 videos stored, 0 failed" in said and "best epoch" in said
    assert all(f"new-{label}.mp4: " in said for label in ("normal", "horse", "bus"))
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    assert sum("image/png" in data for data in shown) == 3
    assert "street/report/report.html" in str(shown) and (tmp_path / "street/report/report.html").exists()


def test_examples_are_short():
    assert all(len(path.read_text().splitlines()) <= 80 for path in EXAMPLES.glob("*.py"))
