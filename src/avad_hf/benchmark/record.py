"""The benchmark's record on disk: written after each part, read when a stopped benchmark is run again."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avad_hf.files import as_json, written_whole

from .videos import real_clip

# The name while parts are missing: a finished benchmark.json is only replaced by a finished one.
UNFINISHED = "benchmark-unfinished.json"
FINISHED = "benchmark.json"
# What every record has. One without it is another program's, or of another version, and no part of it is used.
PARTS = {
    "machine": dict,
    "settings": dict,
    "videos": dict,
    "backends": dict,
    "times": list,
    "media": dict,
    "networks": dict,
    "peak_memory": dict,
    "command_seconds": float | None,
}
# What changes from run to run on one machine.
CHANGING = {"date", "load_average_before"}


def read_unfinished(directory: Path) -> dict[str, Any] | None:
    """What a stopped benchmark left in its folder; ``None`` if there is nothing that can be read."""
    try:
        result = json.loads((directory / UNFINISHED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict) or any(
        name not in result or not isinstance(result[name], kind) for name, kind in PARTS.items()
    ):
        return None
    return result


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings and traits of the machine that differ between two benchmarks, in words."""
    words = []
    for part, changing in (("settings", set()), ("machine", CHANGING)):
        for name in sorted((before[part].keys() | now[part].keys()) - changing):
            there, here = before[part].get(name), now[part].get(name)
            if there != here:
                words.append(f"{name}: {there!r} there, {here!r} now")
    return words


def measured_parts(result: dict[str, Any]) -> list[str]:
    """What an unfinished benchmark has measured already, in words."""
    heights = dict.fromkeys(f"{row['height']}p" for row in result["times"])
    parts = {
        "times of": heights,
        "decoding of": result["media"],
        "networks of": result["networks"].get("backends", {}),
        "cameras of": result.get("cameras", {}).get("backends", {}),
        "memory of": result["peak_memory"].get("mib", {}),
    }
    return [f"{what} {', '.join(names)}" for what, names in parts.items() if names]


def can_go_on(output_dir: str | os.PathLike, *arguments: Any) -> bool:
    """Whether a benchmark of the same settings was stopped in a folder.

    Args:
        output_dir: The folder.
        arguments: Those of [`~avad_hf.benchmark.run.benchmark`] that follow, from `video` to `beside`.

    Raises:
        ValueError: If no video is given and there is none to take.
    """
    before = read_unfinished(Path(output_dir))
    return before is not None and before["settings"] == settings_of(*arguments)


def source_of(video: str | os.PathLike | None) -> str:
    """The video that is given, or the real clip; raises ``ValueError`` if that is not installed."""
    return os.fspath(video) if video is not None else real_clip()


def settings_of(
    video: str | os.PathLike | None,
    model: str | os.PathLike | None,
    size: str,
    heights: Sequence[int],
    rounds: int,
    backends: Sequence[str] | None,
    cameras: int,
    seconds: float,
    beside: Sequence[str | os.PathLike] = (),
) -> dict[str, Any]:
    """Settings as ``benchmark.json`` holds them, by which a stopped benchmark is known again."""
    source = source_of(video)
    return {
        "model": None if model is None else os.fspath(model),
        "weights": f"random, size {size}" if model is None else "of the checkpoint",
        "video": Path(source).name,
        "video_bytes": os.path.getsize(source) if os.path.isfile(source) else None,
        "heights": list(heights),
        "seconds": seconds,
        "rounds": rounds,
        "cameras": cameras,
        "backends": None if backends is None else list(backends),
        **({"beside": [os.fspath(place) for place in beside]} if beside else {}),
    }


def write_unfinished(result: dict[str, Any], directory: Path) -> None:
    """Keep what has been measured so far."""
    _write(result, directory / UNFINISHED)


def write_finished(result: dict[str, Any], directory: Path) -> None:
    """Write the whole benchmark in place of the unfinished one."""
    _write(result, directory / FINISHED)
    (directory / UNFINISHED).unlink(missing_ok=True)


def _write(result: dict[str, Any], path: Path) -> None:
    with written_whole(path) as partial:
        partial.write_text(as_json(result, indent=2) + "\n", encoding="utf-8")


__all__ = [
    "FINISHED",
    "UNFINISHED",
    "can_go_on",
    "differences",
    "measured_parts",
    "read_unfinished",
    "settings_of",
    "source_of",
    "write_finished",
    "write_unfinished",
]
