"""The command `avad-hf`. Every subcommand parses, calls the library and prints; torch is loaded only when one runs."""

import typer

from .benchmark import benchmark
from .convert import convert
from .data import extract, scan
from .demo import demo
from .describe import describe
from .detect import detect
from .evaluate import evaluate
from .export import export
from .init import init
from .push import push
from .reproduce import reproduce
from .train import train

app = typer.Typer(
    help="Find anomalies in video by sight and sound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS = (demo, describe, detect, scan, extract, init, train, evaluate, reproduce, convert, export, benchmark, push)
for command in COMMANDS:
    app.command()(command)
