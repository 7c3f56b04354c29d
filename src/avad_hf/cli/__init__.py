"""The command `avad-hf`. Every subcommand parses, calls the library and prints; torch is loaded only when one runs."""

import typer

from .data import extract, scan
from .detect import detect
from .init import init_avaca

app = typer.Typer(
    help="Find anomalies in video by sight and sound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (detect, scan, extract):
    app.command()(command)

init_app = typer.Typer(help="Write an untrained checkpoint to begin training from.", no_args_is_help=True)
init_app.command("avaca")(init_avaca)
app.add_typer(init_app, name="init")
