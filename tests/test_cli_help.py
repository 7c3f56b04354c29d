"""What the command says of itself: help, versions, completion, how much it prints, and how it ends."""

import gc
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from avad_hf import __version__
from avad_hf.cli import EPILOG, app
from avad_hf.cli.terminal import MESSAGES, hush_libraries, without_collections
from avad_hf.corpora import scan as corpora_scan
from avad_hf.disks import DiskError
from avad_hf.registration import architectures
from avad_hf.training.config import profiles

from .media_files import frame_times, sound, write_media

runner = CliRunner()
COMMANDS = typer.main.get_command(app).commands
HEAVY = ("torch", "transformers", "numpy", "av", "matplotlib", "datasets", "accelerate")
# Help, versions and completion in one process: which modules each of them has loaded in the end.
NOTHING_HEAVY = f"""
import contextlib, io, sys
from avad_hf.cli import app
for arguments in [["--help"], ["--version"], *([verb, "--help"] for verb in sys.argv[1:])]:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            app(arguments, prog_name="avad-hf", standalone_mode=False)
        except SystemExit:
            pass
    assert "avad-hf" in said.getvalue(), arguments
    loaded = set({HEAVY!r}) & set(sys.modules)
    assert not loaded, (arguments, loaded)
"""
# What is read before anything is loaded: settings of cameras need no torch, and hidden faces no transformers.
NOTHING_NEEDLESS = """
import sys
import avad_hf.detection.events, avad_hf.watching.config, avad_hf.watching.settings
assert not {"torch", "numpy", "av"} & set(sys.modules)
import avad_hf.anonymise.folder
assert not {"transformers", "accelerate", "aiohttp", "scipy", "cv2", "onnxruntime", "datasets"} & set(sys.modules)
"""


def run(*arguments, code=0):
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def folded(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


def test_help_of_every_verb_loads_nothing_heavy():
    """Which keeps it under 0.6 s."""
    subprocess.run([sys.executable, "-c", NOTHING_HEAVY, *COMMANDS], check=True)


def test_settings_and_hidden_faces_load_nothing_needless():
    subprocess.run([sys.executable, "-c", NOTHING_NEEDLESS], check=True)


def test_libraries_are_imported_without_collections(monkeypatch):
    frozen = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(gc.isenabled()))  # the tests' own garbage is collected
    with without_collections():  # as all libraries are there
        assert gc.isenabled()
    monkeypatch.delitem(sys.modules, "transformers")
    with pytest.raises(ImportError), without_collections():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled() and frozen == [False]


def test_quiet_does_not_import_data_sets_to_hide_their_bars(monkeypatch):
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars

    name = "HF_DATASETS_DISABLE_PROGRESS_BARS"
    monkeypatch.setattr(MESSAGES, "level", logging.ERROR)
    monkeypatch.setenv(name, "0")
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    try:
        hush_libraries()
        assert are_progress_bars_disabled()
    finally:
        enable_progress_bars()
    assert os.environ[name] == "1" and "datasets" not in sys.modules


def test_verbs_are_grouped_and_the_epilog_is_there():
    said = run("--help").output
    for title in ("Look at videos", "Prepare videos", "Make a detector", "Share"):
        assert f"─ {title} ─" in said
    assert folded(EPILOG) in folded(said)
    for words in (
        "0 all went well",
        "1 something failed",
        "2 the words",
        "130 stopped",
        "143 stopped",
        "AVAD_HF_HOME",
    ):
        assert words in folded(EPILOG)
    assert folded(run("-h").output) == folded(said)


def test_environment_variables_of_the_library_are_named():
    source = "".join(path.read_text() for path in (Path(__file__).parents[1] / "src").rglob("*.py"))
    named = set(re.findall(r"environ(?:\.get)?[\[(]\"(AVAD_HF_[A-Z_]+)\"", source))
    assert named and all(name in EPILOG for name in named)


@pytest.mark.parametrize("verb", COMMANDS)
def test_examples_are_understood(verb):
    text = COMMANDS[verb].help
    examples = re.findall(rf"^Example\b[^:]*: avad-hf {verb} (.*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        with COMMANDS[verb].make_context(verb, shlex.split(example)):
            pass


def shown_parameters():
    return [
        (verb, parameter)
        for verb, command in COMMANDS.items()
        for parameter in command.params
        if parameter.param_type_name == "option" and parameter.name != "help"
    ]


def test_every_option_shows_its_default_and_says_what_it_does():
    for verb, option in shown_parameters():
        assert option.help and option.help.endswith("."), (verb, option.name)
        assert "Default:" not in option.help, (verb, option.name)
        is_switch = option.is_flag and not option.secondary_opts
        has_default = isinstance(option.show_default, str) or option.default is not None
        assert option.required or is_switch or has_default, (verb, option.name)
    said = folded(run("train", "--help").output)
    assert "[default: (the profile's)]" in said and '"The profile\'s" as a default is the value of the recipe' in said


def test_an_option_has_one_form_in_all_verbs():
    spellings, types = {}, {}
    for verb, option in shown_parameters():
        for name in option.opts:
            if verb not in ("reproduce", "compare") or name not in ("--split-seed", "--seeds"):  # which take several
                spellings.setdefault(name, set()).add(tuple(sorted(option.opts)))
                types.setdefault(name, set()).add(str(option.type_descriptor.annotation))
    assert {name: found for name, found in spellings.items() if len(found) > 1} == {}
    for name in ("--device", "--batch-size", "--scene", "--split-seed", "--json", "--accumulate", "--audio-path"):
        assert len(types[name]) == 1, name
    assert all(
        {"--quiet", "--verbose"} <= {name for item in verb.params for name in item.opts} for verb in COMMANDS.values()
    )
    with_output = {verb for verb, option in shown_parameters() if "--output" in option.opts and "-o" in option.opts}
    # "watch" keeps evidence in a folder only where it is asked to, and "app" keeps nothing.
    assert with_output == set(COMMANDS) - {"detect", "describe", "push", "watch", "app"}
    with_json = {verb for verb, option in shown_parameters() if "--json" in option.opts}
    # "watch" prints JSON itself, a line for each clip and event, and "app" is a page.
    assert with_json == set(COMMANDS) - {"demo", "watch", "app"}


def test_brackets_are_no_markup():
    assert "pip install '.[openvino]', '.[onnx]'" in folded(run("export", "--help").output)


def test_version():
    said = run("--version").stdout
    assert re.fullmatch(rf"avad-hf {re.escape(__version__)} \(torch \d\S+, transformers \d\S+\)\n", said)


def test_bash_completes_verbs_options_and_names():
    script = """
        eval "$(_AVAD_HF_COMPLETE=source_bash avad-hf)"
        complete_words() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _avad_hf_completion avad-hf; echo "${COMPREPLY[@]}"
        }
        complete_words avad-hf ex
        complete_words avad-hf init ''
        complete_words avad-hf train --profile ''
        complete_words avad-hf evaluate --tail e
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env=os.environ | {"PATH": path}
    )
    assert done.stdout.splitlines() == [
        "extract export",
        " ".join(architectures("init")),
        " ".join(profiles()),
        "extend_score_last",
    ]
    words = {"_AVAD_HF_COMPLETE": "complete_bash", "COMP_WORDS": "avad-hf convert ", "COMP_CWORD": "2"}
    assert runner.invoke(app, prog_name="avad-hf", env=words).stdout.split() == [*architectures("converter")]


# How much is printed


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Path:
    """A folder of two classes, one short video each; the current folder is beside it."""
    monkeypatch.chdir(tmp_path)
    for name in ("ok", "fire"):
        path = tmp_path / "corpus" / name / "a.mp4"
        path.parent.mkdir(parents=True)
        write_media(str(path), frame_times(25, 0.2), sound(0, 0.2, 16000), 16000, size=(64, 48), audio_codec="aac")
    return tmp_path / "corpus"


@pytest.fixture
def talkative(monkeypatch):
    """Scanning says something of each kind."""
    before = corpora_scan.probe

    def probe(videos, move):
        logging.getLogger("avad_hf.corpora.scan").info("looked at all")
        logging.getLogger("other").info("of somebody else")
        logging.getLogger("avad_hf.corpora.scan").warning("one is dark")
        return before(videos, move)

    monkeypatch.setattr(corpora_scan, "probe", probe)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [], {"warning", "bar"}),
        (["--quiet"], [], set()),
        ([], ["-q"], set()),
        (["-v"], [], {"info", "warning", "bar"}),
        ([], ["--verbose"], {"info", "warning", "bar"}),
        (["--verbose"], ["--quiet"], set()),
    ],
)
def test_quiet_and_verbose_before_or_after_the_verb(corpus, talkative, before, after, expected):
    done = run(*before, "scan", corpus, "-o", "m.csv", "--normal", "ok", *after)
    assert "Wrote 2 videos to m.csv." in done.stdout and "dark" not in done.stdout
    said = {"info": "looked at all\n", "warning": "Note: one is dark\n", "bar": "2/2"}
    assert {name for name, words in said.items() if words in done.stderr} == expected
    assert "somebody else" not in done.stderr
    assert bool(done.stderr) == bool(expected)
    assert logging.getLogger("avad_hf").level == logging.NOTSET and "TQDM_DISABLE" not in os.environ


@pytest.mark.parametrize("quiet", [False, True])
def test_what_the_client_of_the_hub_logs_is_printed_once(corpus, quiet, monkeypatch, capsys):
    client = logging.getLogger("huggingface_hub")
    own = logging.StreamHandler(sys.stderr)  # as the client has one
    monkeypatch.setattr(client, "handlers", [own])
    before = corpora_scan.probe

    def probe(videos, move):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        return before(videos, move)

    monkeypatch.setattr(corpora_scan, "probe", probe)
    options = ["--quiet"] if quiet else []
    done = run("scan", corpus, "-o", "m.csv", "--normal", "ok", *options)
    said = done.stderr + capsys.readouterr().err
    assert said.count("Retrying in 1s") == (0 if quiet else 1)
    assert client.handlers == [own]


def test_errors_stay_with_quiet_and_verbose_says_where(corpus):
    (corpus / "ok" / "broken.mp4").write_text("no video")
    arguments = ("scan", corpus, "--normal", "ok", "-o")
    quiet = run(*arguments, "a.csv", "--quiet", code=1)
    assert "Error: ok/broken.mp4" in quiet.stderr.replace(f"{corpus}/", "") and "Wrote 2 videos" in quiet.stdout
    refused = run(*arguments, "a.txt", "--verbose", code=2)
    assert "Traceback" in refused.stderr and refused.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in run(*arguments, "a.txt", code=2).stderr
    assert "Give --quiet or --verbose, not both." in run(*arguments, "b.csv", "-q", "-v", code=2).stderr
    assert "Give --quiet or --verbose, not both." in run("-q", "-v", "scan", corpus, "-o", "b.csv", code=2).stderr


DEMO_WITH_BAR = """
import sys, types, avad_hf.cli
def demonstrate(*options, **others):
    from tqdm import tqdm
    [*tqdm(range(3), desc="drawing")]
    raise ValueError("enough")
sys.modules["avad_hf.demo"] = types.SimpleNamespace(demonstrate=demonstrate)
sys.modules["avad_hf.cli.demo"].hush_libraries = lambda: None  # it would load them
avad_hf.cli.app(prog_name="avad-hf")
"""


def test_quiet_hides_bars_that_the_library_draws(tmp_path):
    """In a process of its own: tqdm reads its environment when it is loaded."""
    arguments = [sys.executable, "-c", DEMO_WITH_BAR, "demo", "-o", str(tmp_path / "out")]
    loud, quiet = (
        subprocess.run([*arguments, *options], capture_output=True, text=True) for options in ([], ["--quiet"])
    )
    assert (loud.returncode, quiet.returncode) == (2, 2)
    assert "drawing: 100%" in loud.stderr and quiet.stderr == "Error: enough\n"


# How it ends


def interrupted(number):
    def probe(*arguments, **options):
        signal.raise_signal(number)
        for _ in range(3000):  # the signal's handler may run only some steps later; then it ends this
            time.sleep(0.01)

    return probe


def raising(error):
    def probe(*arguments, **options):
        raise error

    return probe


@pytest.mark.parametrize(
    ("arguments", "patched", "code", "words"),
    [
        (["--version"], None, 0, "avad-hf "),
        (["scan", "corpus", "-o", "m.csv", "--normal", "ok"], None, 0, "Wrote 2 videos"),
        (["detect", "nosuch.mp4"], None, 1, "1 of 1 videos failed"),
        (
            ["scan", "corpus", "-o", "m.csv"],
            ("scan", raising(DiskError(28, "m.csv: no room."))),
            1,
            "Error: m.csv: no room.",
        ),
        (["scan", "corpus", "-o", "m.csv"], ("scan", raising(ValueError("other classes"))), 2, "Error: other classes"),
        (["scan", "corpus"], None, 2, "Missing option '--output'"),
        (["scan", "nosuch", "-o", "m.csv"], None, 2, "nosuch"),
        (["scann"], None, 2, "Did you mean 'scan'?"),
        (["scan", "corpus", "-o", "m.csv", "--normall", "ok"], None, 2, "Possible options: --normal"),
        (["detect", "corpus", "--streams", "0"], None, 2, "greater than or equal to 1"),
        (["benchmark", "--heights", "720p"], None, 2, "--heights needs whole numbers"),
        (["scan", "corpus", "-o", "m.csv"], ("scan", interrupted(signal.SIGINT)), 130, "Stopped. No manifest was"),
        (["scan", "corpus", "-o", "m.csv"], ("scan", interrupted(signal.SIGTERM)), 143, "Stopped. No manifest was"),
    ],
)
def test_exit_status(corpus, monkeypatch, arguments, patched, code, words):
    if patched is not None:
        monkeypatch.setattr(corpora_scan, *patched)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells ignore in what runs in background
    try:
        done = runner.invoke(app, arguments)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.exit_code == code, done.output
    assert words in folded(done.output)
    assert not Path("results").exists()


def test_json_of_scan(corpus):
    done = run("scan", corpus, "-o", "m.csv", "--normal", "ok", "--json", "-")
    document = json.loads(done.stdout)
    assert document["manifest"] == "m.csv" and document["num_videos"] == 2 and document["unreadable"] == []
    assert document["counts"] == [{"scene": None, "label": name, "num_videos": 1} for name in ("fire", "ok")]
    assert "Wrote 2 videos" in done.stderr
    quiet = run("-q", "scan", corpus, "-o", "n.csv", "--normal", "ok", "--json", "out/s.json")
    assert json.loads(Path("out/s.json").read_text()) == document | {"manifest": "n.csv"}
    assert "Wrote 2 videos" in quiet.stdout and quiet.stderr == ""
    os.mkfifo("pipe")
    said = run("scan", corpus, "-o", "o.csv", "--json", "pipe", code=2).stderr
    assert "pipe is a pipe, and only regular files are replaced" in said and not Path("o.csv").exists()
