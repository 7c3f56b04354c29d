"""What figures were measured on, without which they say nothing: the machine, its packages, the day."""

import os
import platform
import re
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from avad_hf.registration import architectures

PACKAGES = ("avad-hf", "torch", "torchaudio", "transformers", "numpy", "av", "openvino", "nncf", "onnx", "onnxruntime")
# Instructions that networks gain by; of x86, and of ARM.
FLAGS = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8", "asimd", "asimddp", "sve", "bf16", "i8mm"),
)


def describe_machine() -> dict[str, Any]:
    """Processor, memory, system, versions and date, ready for JSON; a package that is not installed is ``None``."""
    text = _read("/proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    cpu_flags = set(flags[1].split()) if flags else set()
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    is_cuda = torch.cuda.is_available()
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": name[1].strip() if name else platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "flags": [flag for flag in FLAGS if flag in cpu_flags],
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        # Others' work on the machine makes figures worse, and uneven.
        "load_average_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if is_cuda else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in (*PACKAGES, *_compared_packages())},
    }


def _compared_packages() -> list[str]:
    """What detectors are made up from for comparison."""
    parts = [item.load("public_parts") for item in architectures("public_parts").values()]
    return sorted({package for one in parts for package in one.packages})


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace") if os.path.exists(path) else ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


__all__ = ["describe_machine"]
