"""Child processes that read the Hub's settings at import and yet start in a second.

They are forks of a process that has imported what reads no such setting, torch above all. The Hub's client,
transformers, datasets and this library are imported by each child, from the environment that it was given.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

TEMPLATE = """
import atexit, contextlib, gc, importlib, json, os, signal, sys, threading, time, traceback

for name in (
    "torch", "torch._dynamo.convert_frame", "torch.distributed.tensor", "torch.distributed.checkpoint",
    "torch.distributed._composable.fsdp", "torch.nn.attention.flex_attention", "torchvision", "torchaudio",
    "scipy.optimize", "scipy.signal", "sklearn.metrics", "pandas", "pyarrow.parquet", "pyarrow.dataset", "av",
    "PIL.Image", "yaml", "jinja2", "typer.testing", "rich", "safetensors.torch", "tokenizers", "tqdm.auto", "regex",
    "fsspec", "dill", "multiprocess", "anyio", "h11", "httpx2", "filelock", "xxhash", "soundfile", "uuid",
):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
assert not {"huggingface_hub", "transformers", "datasets", "accelerate", "avad_hf"} & sys.modules.keys()
# Which no child's collector looks through again.
gc.collect()
gc.freeze()

def wait(process, seconds):
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return "timeout"

def end(status):
    # As an interpreter ends, but that it does not take everything apart, which takes as long as the imports.
    with contextlib.suppress(BaseException):
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)

while line := sys.stdin.readline():
    asked = json.loads(line)
    process = os.fork()
    if not process:
        break
    print(json.dumps(wait(process, asked["timeout"])), flush=True)
else:
    end(0)
for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    os.dup2(file, number)
    os.close(file)
os.environ.clear()
os.environ.update(asked["env"])
os.chdir(asked["cwd"])
sys.argv = ["-c", *asked["arguments"]]
try:
    exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
except SystemExit as error:
    if isinstance(error.code, str):
        print(error.code, file=sys.stderr)
    end(error.code if isinstance(error.code, int) else int(error.code is not None))
except BaseException:
    traceback.print_exc()
    end(1)
end(0)
"""


@cache
def _template() -> subprocess.Popen:
    command = [sys.executable, "-c", TEMPLATE]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # At the end of what it reads it ends too.
    atexit.register(process.stdin.close)
    return process


def run(code: str, *arguments, cwd, env: dict[str, str], timeout: float = 300) -> subprocess.CompletedProcess:
    """As `subprocess.run` does with `python -c code arguments`, what it prints captured as text."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if sys.platform != "linux":  # elsewhere not every library survives a fork
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: os.path.join(folder, name) for name in ("out", "err")}
        asked = {"code": code, "arguments": command[3:], "cwd": str(cwd), "env": env, "timeout": timeout}
        template = _template()
        template.stdin.write(json.dumps(asked | files) + "\n")
        template.stdin.flush()
        status = json.loads(template.stdout.readline())
        out, err = (Path(path).read_text() for path in files.values())
    if status == "timeout":
        raise subprocess.TimeoutExpired(command, timeout, out, err)
    return subprocess.CompletedProcess(command, status, out, err)
