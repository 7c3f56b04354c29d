"""The command `avad-hf`. Every subcommand parses, calls the library and prints; torch is loaded only when one runs."""

import typer

from .benchmark import benchmark
from .convert import convert_resnet3d, convert_slowfast, convert_vggish
from .data import extract, scan
from .demo import demo
from .detect import detect
from .evaluate import evaluate
from .export import export
from .init import init_avaca, init_avrl
from .push import push
from .reproduce import reproduce
from .train import train_avaca, train_avrl

app = typer.Typer(
    help="Find anomalies in video by sight and sound.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (demo, detect, scan, extract, evaluate, reproduce, export, benchmark, push):
    app.command()(command)

init_app = typer.Typer(help="Write an untrained checkpoint to begin training from.", no_args_is_help=True)
init_app.command("avaca")(init_avaca)
init_app.command("avrl")(init_avrl)
app.add_typer(init_app, name="init")

train_app = typer.Typer(help="Train a detector on stored features.", no_args_is_help=True)
train_app.command("avaca")(train_avaca)
train_app.command("avrl")(train_avrl)
app.add_typer(train_app, name="train")

convert_app = typer.Typer(help="Make a checkpoint of a published encoder.", no_args_is_help=True)
convert_app.command("slowfast")(convert_slowfast)
convert_app.command("vggish")(convert_vggish)
convert_app.command("resnet3d")(convert_resnet3d)
app.add_typer(convert_app, name="convert")
