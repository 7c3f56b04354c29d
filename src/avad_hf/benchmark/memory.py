"""Peak memory of a process that does nothing but score one file."""

import re
import subprocess
import sys
from pathlib import Path

from .backends import Backend, backend_named, load_detector

CODE = """
import sys
from avad_hf.benchmark.memory import main
main(*sys.argv[1:])
"""


def peak_memory_mib(backend: Backend, folder: str, path: str) -> float | None:
    """Score a file in a process of its own and say the most memory that it held, in MiB; ``None`` if unknown.

    Args:
        backend: What computes.
        folder: What it loads.
        path: The file.

    Raises:
        RuntimeError: If the process fails, with its last line.
    """
    command = [sys.executable, "-c", CODE, backend.name, folder, path]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"{backend.name} failed in a process of its own: {last}")
    kib = done.stdout.split()[-1]
    return None if kib == "unknown" else int(kib) / 1024


def _peak_kib() -> int | None:
    # Not ru_maxrss where it can be helped: on Linux it begins with the size of the process that started this one.
    status = Path("/proc/self/status")
    peak_line = status.exists() and re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
    if peak_line:
        return int(peak_line[1])
    try:
        import resource
    except ImportError:  # Windows has none
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def main(name: str, folder: str, path: str) -> None:
    """Score one file, and print the peak of this process's memory, in KiB."""
    load_detector(backend_named(name), folder)(path)
    print(_peak_kib() or "unknown")


__all__ = ["main", "peak_memory_mib"]
