"""README and guides: what they tell to run parses, what can run here runs, and every name and link is there."""

import ast
import re
import shlex
import shutil
from pathlib import Path

import pytest
import typer
from filelock import FileLock
from transformers import PreTrainedModel

import avad_hf
from avad_hf import X3dConfig, X3dModel, YamnetConfig, YamnetModel
from avad_hf.cli import app
from avad_hf.convert import getting

from . import warm
from .hub_server import HubServer

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "examples" / "guides").glob("*.md"))
PAGES = [README, *GUIDES]
# One sitting.
MOST_LINES = 260

# What is not run here, by a part of its text, and why. Everything else is run, in the order of its page.
NOT_RUN = {
    "python3 -m venv": "takes minutes: .ci/run",
    "-m pytest": "all of these tests",
    "avad-hf demo": "takes half a minute: tests/test_demo.py",
    "pip install": "needs a package index",
    "hf auth login": "needs an account",
    "tensorboard --logdir": "serves until it is stopped",
    "WANDB_MODE": "its package is no dependency of the tests",
    "MLFLOW_TRACKING_URI": "its package is no dependency of the tests",
    "accelerate launch": "several processes: tests/test_extraction.py and tests/test_training.py",
    "avad-hf convert": "published files: tests/test_convert.py and its neighbours",
    "checkpoints/": "begins with converted encoders, which are published files",
    "/data/": "a released corpus: tests/test_corpora.py and tests/test_reproduce.py",
    "avad-hf reproduce": "takes minutes: tests/test_reproduce.py and tests/test_cctv_fights.py",
    "avad-hf compare synthetic": "draws for an hour: tests/test_compare.py",
    "avad-hf compare tables": "a store of real recordings: tests/test_compare.py",
    "avad-hf compare features": "trains for a minute: tests/test_compare.py",
    "avad-hf anonymise": "downloads detectors: tests/test_anonymise.py",
    "avad-hf rank": "encoders with classes: tests/test_rank.py",
    "avad-hf fit videos": "encoders with classes: tests/test_fit_folder.py",
    "normality": "begins with more normal videos: tests/test_normality.py",
    "yard": "begins with days of footage: tests/test_calibrate.py, tests/test_drift.py, tests/test_normality.py",
    "avad-hf benchmark": "takes minutes: tests/test_benchmark.py",
    "avad-hf export": "takes a minute: tests/test_export.py",
    "engines/street": "an exported detector: tests/test_engines.py",
    "avad-hf describe": "encoders with classes: tests/test_cli.py",
    "avad_hf.describe": "encoders with classes: tests/test_describe.py",
    "avad-hf watch rtsp": "cameras: tests/test_watch.py",
    "cameras.toml": "cameras: tests/test_deployment.py, tests/test_cameras_toml.py and tests/test_watch.py",
    "evidence/feedback.csv": "answers of people: tests/test_watch_page.py",
    "docker build": "needs Docker: tests/test_deployment.py",
    "systemctl": "needs a service: tests/test_deployment.py",
    "MCG-NJU/videomae-base": "a download: tests/test_foreign.py",
    "user/slowfast": "the published network: tests/test_hub_push.py",
    "num_videos=200": "draws for a minute: tests/test_synthetic_world.py",
    "draw_videos.py": "runs before every page: `workshop`",
    "tests/benchmarks/": "takes minutes or hours",
}
# What the pages find in their folder when they begin; the README's own commands make all of it.
WORKSHOP = ("videos", "new.mp4", "quiet.mp4", "start", "features", "detector", "report")
BEGINS_WITHOUT = {"data.md": ("videos/manifest.csv", "start", "features"), "encoders.md": ("start",)}
BEGINS_WITHOUT |= {"training.md": ("detector", "report")}

# Run before the steps of a page: they are in one process, and share Python's names.
DRIVER = """
import contextlib, os, runpy, sys
from avad_hf.cli import app

NAMES = {"__name__": "__main__"}


def command(words):
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        os.environ[name] = value
    with contextlib.ExitStack() as stack:
        if words[-2] == ">":
            stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(words.pop(), "w"))))
            words.pop()
        verb, *sys.argv = words
        try:
            runpy.run_path(sys.argv[0], run_name="__main__") if verb == "python" else app(sys.argv)
        except SystemExit as end:
            assert not end.code, f"{words} ended with {end.code}"


def python(code, where):
    exec(compile(code, where, "exec"), NAMES)
"""


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, text and place of each block of code."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```(bash|python)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(m[1], m[2], f"{page.name}:{text[: m.start()].count(chr(10)) + 1}") for m in found]


def commands(text: str) -> list[str]:
    """The commands of a block, one a line or joined by &&."""
    lines = text.replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("&&") if part.strip()]


def words_of(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def reasons(text: str) -> list[str]:
    return [part for part in NOT_RUN if part in text]


def steps(page: Path) -> list[str]:
    """Lines of Python that run what can be run of a page."""
    found = []
    for language, text, where in blocks(page):
        if language == "bash":
            run = [words_of(one) for one in commands(text) if not reasons(one)]
            assert all({"avad-hf", "python"} & set(words) for words in run), f"{where}: neither run nor in NOT_RUN"
            found += [f"command({words!r})" for words in run]
        elif not reasons(text):
            found.append(f"python({text!r}, {where!r})")
    return found


def parsed(words: list[str]) -> None:
    """Hold a command against the real one: its verb, its options and their values; nothing is run."""
    group = typer.main.get_command(app)
    verb, *rest = words
    assert verb in group.commands, f"no command {verb}"
    group.commands[verb].make_context(verb, rest)


def avad_hf_words(command: str) -> list[str] | None:
    """What a line of the shell hands to avad-hf, if it does."""
    words = words_of(command)
    for index, word in enumerate(words):
        if Path(word).name == "avad-hf" or (word == "avad_hf.cli" and words[index - 1] == "-m"):
            end = words.index(">") if ">" in words else None
            return words[index + 1 : end]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_parses(page):
    for language, text, where in blocks(page):
        for command in commands(text) if language == "bash" else []:
            if (words := avad_hf_words(command)) is not None:
                try:
                    parsed(words)
                except Exception as error:
                    raise AssertionError(f"{where}: {command}: {getattr(error, 'message', error)}") from error


def options_of(verb: str) -> set[str]:
    parameters = typer.main.get_command(app).commands[verb].params
    return {option for one in parameters for option in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_have_their_options(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for verb, rest in re.findall(r"`(?:[A-Z_]+=\S+ )*avad-hf ([a-z]+)([^`]*)`", text):
        unknown = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest)) - options_of(verb)
        assert not unknown, f"avad-hf {verb} has no option {unknown}"


def test_the_page_of_commands_names_all_of_them():
    text = next(page for page in GUIDES if page.name == "command_line.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `avad-hf ([a-z]+)[^`]*` \| (.*?) \|", text, re.MULTILINE))
    verbs = typer.main.get_command(app).commands
    assert set(rows) == {name for name, verb in verbs.items() if not verb.hidden}
    for verb, row in rows.items():
        assert set(re.findall(r"`(--[a-z-]+)", row)) <= options_of(verb)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_names_what_is_there(page):
    for language, text, where in blocks(page):
        tree = ast.parse(text, where) if language == "python" else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "avad_hf":
                module = __import__(node.module, fromlist=["_"])
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{where}: {node.module}.{alias.name}"
            elif isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "avad_hf":
                assert hasattr(avad_hf, node.attr), f"{where}: avad_hf.{node.attr}"


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as the Hub and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(place), f"{page.name} links to {target}"
    for path in re.findall(r"(?<![\w/])((?:examples|tests|src|hub_cards)/[\w./-]*\w)", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_every_guide_is_linked_from_the_readme():
    text = README.read_text(encoding="utf-8")
    assert [page.name for page in GUIDES if f"](examples/guides/{page.name})" not in text] == []
    assert len(text.splitlines()) <= MOST_LINES


def test_the_table_of_trouble_quotes_the_librarys_own_words():
    text = README.read_text(encoding="utf-8")
    table = re.search(r"## Troubleshooting\n\n(.*?)\n\n", text, re.DOTALL)[1]
    of_others = {"Unknown task audio-visual-anomaly", "please install 'torchcodec'"}  # transformers, datasets
    quoted = set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) - of_others
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "src").rglob("*.py")]
    # The parts of a text with values in it are constants of their own.
    words = "\n".join(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    assert len(quoted) == 6
    for quote in quoted:
        assert all(part.strip() in words for part in quote.split("...")), quote


def test_the_readmes_pictures_are_small():
    pictures = list((ROOT / "examples" / "guides" / "pictures").iterdir())
    assert sum(path.stat().st_size for path in pictures) < 600_000
    assert {path.name for path in pictures} == set(re.findall(r"pictures/(\w+\.png)", README.read_text("utf-8")))


def test_what_is_not_run_is_still_there():
    everything = "\n".join(text for page in PAGES for _, text, _ in blocks(page))
    assert [part for part in NOT_RUN if part not in everything] == []


def environment(folder: Path) -> dict[str, str]:
    cache = {"HF_HOME": str(folder / "hf"), "HF_DATASETS_CACHE": str(folder / "hf" / "datasets")}
    return cache | {"AVAD_HF_HOME": str(folder / "encoders_home")}


def program(folder: Path, lines: list[str]) -> str:
    """Python that runs steps in a folder."""
    return "\n".join([f"import os\nos.chdir({str(folder)!r})", DRIVER, *lines])


def small_encoders() -> dict[str, PreTrainedModel]:
    """What stands for the published encoders that are got by name: 8 of 32 frames of 32 pixels; a second of sound."""
    network = {"widths": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "hidden_size": 16, "pool_size": 1}
    seen = X3dModel(X3dConfig(**network, num_frames=8, frame_step=4, short_side=32))
    return {"i3d": seen, "yamnet": YamnetModel(YamnetConfig(hidden_sizes=(8, 8, 16), strides=(2, 2, 2)))}


@pytest.fixture(scope="session")
def workshop(shared) -> Path:
    """A folder in which the README's own commands were run, on drawn videos of a second and a half."""
    folder = shared / "workshop"
    with FileLock(f"{folder}.lock"), pytest.MonkeyPatch.context() as patch:
        if (folder / "done").exists():
            return folder
        folder.mkdir()
        (folder / "examples").symlink_to(ROOT / "examples")
        patch.setenv("AVAD_HF_HOME", environment(folder)["AVAD_HF_HOME"])
        for name, network in small_encoders().items():
            network.save_pretrained(getting._directory(name))
        short = f"import sys\nsys.path.insert(1, {str(ROOT)!r})\nfrom tests import warm\nwarm.short_videos(1.5)\n"
        draw = "command(['python', 'examples/draw_videos.py', 'videos', '16'])"
        # The README shows Python before the commands that make the detector.
        rest = sorted(steps(README), key=lambda step: step.startswith("python"))
        done = warm.run(code=short + program(folder, [draw, *rest]), env=environment(folder))
        assert "videos: 8 normal, 4 horse, 4 bus" in done.stdout
        (folder / "done").touch()
    return folder


def test_the_readmes_commands_make_a_page_of_results(workshop):
    assert "<h2>Curves</h2>" in (workshop / "report" / "report.html").read_text(encoding="utf-8")
    assert (workshop / "new.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("page", [page for page in GUIDES if steps(page)], ids=lambda page: page.name)
def test_what_can_run_of_a_guide_runs(workshop, tmp_path, page):
    for name in WORKSHOP:
        source = workshop / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for name in BEGINS_WITHOUT.get(page.name, ()):
        place = tmp_path / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    code = program(tmp_path, steps(page))
    if any("'push'" in step for step in steps(page)):
        with HubServer(tokens={"token": "user"}) as hub:
            hub.run(code, tmp_path)
        assert not hub.unknown
    else:
        home = {"AVAD_HF_HOME": environment(workshop)["AVAD_HF_HOME"]}
        warm.run(code=code, env=environment(tmp_path) | home)
