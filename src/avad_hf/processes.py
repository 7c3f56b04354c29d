"""The processes of one run, and the cores that each of them has."""

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from accelerate import PartialState

# A process waits for the slowest one at the end, however many hours that takes.
PATIENCE = timedelta(days=30)


def process_state() -> "PartialState":
    """Which process this is, of those that ``accelerate launch`` started; they wait for each other at the end.

    Raises:
        RuntimeError: If several processes were started that do not know of each other.
    """
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # PartialState alone, unlike Accelerator, overlooks the variable by which several processes share a CPU.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"), timeout=PATIENCE)
    if (started := int(os.environ.get("WORLD_SIZE", 1))) != state.num_processes:
        raise RuntimeError(
            f"{started} processes were started, but they are not connected, and each would do all of the work. On "
            "machines without GPU set ACCELERATE_USE_CPU=true."
        )
    return state


def share_cores() -> int:
    """Divide the cores evenly between the processes of this machine; returns this one's.

    torchrun gives each process one thread, however many cores there are for it. Exported engines follow torch when
    they are loaded, so this comes first.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if beside > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(max(1, cores // beside))
    return max(1, cores // beside)


__all__ = ["process_state", "share_cores"]
