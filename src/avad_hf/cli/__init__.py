"""The command `avad-hf`. Every subcommand parses, calls the library and prints; torch is loaded only when one runs."""

import inspect
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from avad_hf import __version__

from .anonymise import anonymise
from .app import app as app_page
from .benchmark import benchmark
from .calibrate import calibrate
from .compare import compare
from .convert import convert
from .data import extract, scan
from .demo import demo
from .describe import describe
from .detect import detect
from .drift import drift
from .evaluate import evaluate
from .export import export
from .fit import fit, update
from .init import init
from .push import push
from .rank import rank
from .reproduce import reproduce
from .terminal import QuietOption, VerboseOption, say, set_messages
from .train import train
from .watch import watch

GROUPS = {
    "Look at videos": (demo, rank, describe, detect, watch, app_page),
    "Prepare videos": (scan, extract, anonymise),
    "Make a detector": (fit, update, init, train, evaluate, calibrate, drift, compare, reproduce),
    "Encoders, engines and speed": (convert, export, benchmark),
    "Share": (push,),
}
EPILOG = """
avad-hf VERB --help explains a verb, with an example. Results go to standard output; notes, bars and errors go to
standard error. "the profile's" as a default means the value of the training recipe that --profile names.

Exit status: 0 all went well; 1 something failed on the way, for example one video of many; 2 the words or the input
were refused before anything was computed; 130 stopped by Ctrl-C; 143 stopped by SIGTERM.

Environment: HF_TOKEN (token of the Hub), HF_HOME (cache of the Hub), HF_HUB_OFFLINE=1 (ask no network), AVAD_HF_HOME
(cache of published encoders and detectors), AVAD_HF_MAX_... (limits of media; an error names the one to raise),
CUDA_VISIBLE_DEVICES (which GPUs), OMP_NUM_THREADS (how many cores), TQDM_DISABLE=1 (no bars), NO_COLOR=1 (no colours).
"""
# Whose versions an error report needs.
PACKAGES = ("torch", "transformers")


def _folded(text: str) -> str:
    """Paragraphs without the line ends of the code, and with brackets that are no markup."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).replace("[", r"\[")


app = typer.Typer(
    help="Find anomalies in video by sight and sound.",
    epilog=_folded(EPILOG),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _print_version(asked: bool) -> None:
    if not asked:
        return
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"no {package}")
    say(f"avad-hf {__version__} ({', '.join(versions)})")
    raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the versions of the command and of torch."
        ),
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Find anomalies in video by sight and sound."""
    set_messages(quiet, verbose)


for title, commands in GROUPS.items():
    for command in commands:
        app.command(help=_folded(command.__doc__), rich_help_panel=title)(command)
