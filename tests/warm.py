"""Processes that begin warm: forked from one that has imported everything, which takes seconds each time.

They are processes of their own, with what they print, what they return and how they can be killed, like those of
`subprocess`. Some libraries read the Hub's address and folder when they are imported. A first process has imported
what reads no such setting. For each set of settings a second one is forked from it and imports the rest; all others
are forked from these.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

BASE = """
torch torch._dynamo.convert_frame torch.distributed.tensor torch.distributed.checkpoint
torch.distributed._composable.fsdp torch.nn.attention.flex_attention torchaudio torchvision scipy.optimize scipy.signal
sklearn.metrics pandas pyarrow.parquet pyarrow.dataset av matplotlib.pyplot PIL.Image yaml jinja2 typer.testing rich
safetensors.torch tokenizers tqdm.auto regex fsspec dill multiprocess anyio h11 httpx2 filelock xxhash soundfile uuid
"""
# These read settings of the Hub.
MODULES = """
transformers transformers.pipelines transformers.trainer datasets accelerate avad_hf.cli
avad_hf.features.extraction avad_hf.features.dataset avad_hf.training.loop avad_hf.evaluation.evaluate
avad_hf.detection.pipeline avad_hf.report.timeline avad_hf.models.avaca avad_hf.models.avrl avad_hf.synthetic.world
"""
SETTINGS = ("HF_", "HUGGING", "TRANSFORMERS_")


class Process:
    """As subprocess.Popen, with text as what it printed."""

    def __init__(self, server: subprocess.Popen, request: dict):
        self.server, self.settings, self.returncode = server, request["settings"], None
        self.outputs = [Path(request[name]) for name in ("stdout", "stderr")]
        self.pid = self._ask(request)

    def _ask(self, request: dict) -> int | None:
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def poll(self) -> int | None:
        """Its exit code if it has ended, negative if a signal ended it."""
        if self.returncode is None:
            self.returncode = self._ask({"poll": self.pid, "settings": self.settings})
        return self.returncode

    def wait(self, seconds: float = 300) -> int:
        """Until it has ended, which it is made to if it takes too long."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        return self.outputs[0].read_text()

    @property
    def stderr(self) -> str:
        return self.outputs[1].read_text()


@functools.cache
def _server() -> subprocess.Popen:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, BASE, MODULES], stdin=-1, stdout=-1, text=True, env=env)
    process.settings = _settings(env)
    atexit.register(process.stdin.close)  # at the end of what it reads it ends too
    return process


@functools.cache
def _outputs() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="warm-")


def _settings(env: dict[str, str]) -> dict[str, str]:
    """What libraries read from an environment when they are imported; the token is read each time."""
    return {name: env[name] for name in sorted(env) if name.startswith(SETTINGS) and name != "HF_TOKEN"}


def start(
    *command,
    code: str = "",
    env: dict[str, str] | None = None,
    hub: dict[str, str] | None = None,
    cwd: Path | None = None,
    fresh: bool = False,
) -> Process:
    """Begin `python *command`: a script, or `-m` and a module, and arguments; or Python code, which else comes first.

    Args:
        env: What is to be set in its environment besides this process's own. Settings of the Hub have no effect.
        hub: Its whole environment, with settings of the Hub.
        cwd: Its folder, if another than this process's.
        fresh: It imports by itself what reads such settings, and this library.
    """
    folder = tempfile.mkdtemp(dir=_outputs().name)
    settings = None if fresh else _settings(hub) if hub else _server().settings
    request = {"command": [str(part) for part in command], "code": code, "cwd": str(cwd or os.getcwd())}
    request |= {"env": hub or os.environ | (env or {}), "settings": settings}
    request |= {"stdout": f"{folder}/stdout", "stderr": f"{folder}/stderr"}
    for name in ("stdout", "stderr"):  # that can be read before the process has begun
        Path(request[name]).touch()
    return Process(_server(), request)


def run(*command, code: str = "", check: bool = True, **options) -> Process:
    """As `start`, and wait for its end; with `check` it must have ended well."""
    process = start(*command, code=code, **options)
    process.wait()
    assert not check or process.returncode == 0, process.stderr[-5000:]
    return process


def short_videos(seconds: float) -> None:
    """From now on this process draws synthetic videos that are this short; what happens in them begins in time."""
    from dataclasses import replace

    from avad_hf.synthetic import world

    plan_world = world.plan_world

    def plan(*arguments, **options) -> list:
        made = []
        for one in plan_world(*arguments, **options):
            one = replace(one, duration_s=round(seconds * one.fps) / one.fps)
            if one.event_start_s is not None:
                start = min(one.event_start_s, seconds / 3)
                end = min(start + one.event_whole_s, one.duration_s)
                one = replace(one, event_start_s=start, event_end_s=end)
            made.append(one)
        return made

    world.plan_world = plan


def run_two(*command, code: str = "", env: dict[str, str] | None = None) -> list[Process]:
    """Two processes that know of each other, in the environment that `accelerate launch` gives them without a GPU.

    `test_two_processes_begin_as_accelerate_launch_begins_them` compares it with the command's own.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | (env or {})
    both = [start(*command, code=code, env=common | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    deadline = time.monotonic() + 300
    while any(process.poll() is None for process in both):
        # One that failed would let the other wait.
        if time.monotonic() > deadline or any(process.poll() for process in both):
            for process in both:
                process.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    assert [process.returncode for process in both] == [0, 0], "".join(process.stderr[-3000:] for process in both)
    return both


def _serve() -> dict | None:
    """In the process that everything is forked from. Returns twice: None at the end, and in each child its request."""
    branches = {}
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        settings = request.pop("settings")
        if settings is not None:
            name = json.dumps(settings)
            if name not in branches:
                branches[name] = _branch(settings)
            if branches[name] is None:  # this is the new process, which is asked next
                branches = {}
                continue
            asks, answers = branches[name]
            print(json.dumps(request | {"settings": None}), file=asks, flush=True)
            print(answers.readline(), end="", flush=True)
            continue
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            for number, name in enumerate((os.devnull, request["stdout"], request["stderr"])):
                file = os.open(name, os.O_RDWR | os.O_CREAT)
                os.dup2(file, number)
                os.close(file)
            return request
        print(json.dumps(answer), flush=True)
    return None


def _branch(settings: dict[str, str]) -> tuple | None:
    """Fork a process that imports the rest; returns what it reads and what it answers, and None in that process."""
    (reads, asks), (answers, writes) = os.pipe(), os.pipe()
    if os.fork():
        os.close(reads)
        os.close(writes)
        return open(asks, "w"), open(answers)
    for number, file in enumerate((reads, writes)):
        os.dup2(file, number)
    for file in (reads, asks, answers, writes):
        os.close(file)
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    os.environ.update(settings)
    _import(sys.argv[2])
    return None


def _import(modules: str) -> None:
    """Import what is installed; no child's collector looks through it again."""
    for module in modules.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    gc.collect()
    gc.freeze()


def _become(request: dict) -> None:
    """Do what a new process would do."""
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if "HF_DATASETS_CACHE" in os.environ and "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_DATASETS_CACHE = Path(os.environ["HF_DATASETS_CACHE"])
    sys.modules["torch"].manual_seed(0)  # of what is drawn without a seed, as in the other tests
    if request["code"]:
        exec(compile(request["code"], "code", "exec"), {"__name__": "__main__"})
    if request["command"][:1] == ["-m"]:
        sys.argv = request["command"][1:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif request["command"]:
        sys.argv = request["command"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


def _end(request: dict | None) -> int:
    """What the process does until it ends, and its exit code."""
    try:
        if request:
            _become(request)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _import(sys.argv[1])
    status = _end(_serve())
    # As at the end of any process, but for taking all modules apart, which takes longer than most of what is done.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
