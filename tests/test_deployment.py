"""What examples/deployment/ and the guide to watching tell to install: settings that load, and commands that parse."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest
import typer

from avad_hf.cli import app
from avad_hf.watching.config import VARIABLE, ConfigError, load_config
from avad_hf.watching.settings import SINKS, CommandConfig

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "deployment"
CAMERAS, UNIT, DOCKERFILE = FOLDER / "cameras.toml", FOLDER / "avad-hf-watch.service", FOLDER / "Dockerfile"
GUIDE = ROOT / "examples" / "guides" / "watching.md"
SECRET = "only for these tests"


def variables(text: str) -> set[str]:
    """Names of variables in a file's values, not in its comments."""
    return {name for line in text.splitlines() for name in VARIABLE.findall(line.partition("#")[0])}


def set_all(text: str, monkeypatch) -> None:
    for name in variables(text):
        monkeypatch.setenv(name, SECRET)


def command_of(words: list[str]) -> str:
    """Hold words against the real command; returns its verb."""
    verb, *rest = words
    with typer.main.get_command(app).commands[verb].make_context(verb, rest):
        return verb


def unit() -> RawConfigParser:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser


def instructions() -> list[tuple[str, str]]:
    """Name and rest of each instruction of the Dockerfile."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]


def test_the_example_of_cameras_loads(monkeypatch):
    set_all(CAMERAS.read_text(encoding="utf-8"), monkeypatch)
    config = load_config(CAMERAS)
    assert [camera.name for camera in config.cameras] == ["gate", "workshop"]
    assert all(SECRET in camera.source for camera in config.cameras)
    assert config.page.token == SECRET and config.evidence.bytes == 20 * 10**9
    assert {*map(type, config.sinks)} == {*SINKS.values()} - {CommandConfig}


def test_without_its_variables_it_says_which_are_missing(monkeypatch):
    names = variables(CAMERAS.read_text(encoding="utf-8"))
    for name in names:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError) as error:
        load_config(CAMERAS)
    assert len(names) == 5 == len(error.value.problems)
    assert all(f"environment variable {name}," in str(error.value) for name in names)


def test_what_is_commented_out_loads_too(monkeypatch, tmp_path):
    """With files and commands that are there in place of those that it names."""
    text = CAMERAS.read_text(encoding="utf-8")
    set_all(text, monkeypatch)
    masks = tmp_path / "gate.json"
    shape = {"label": "window", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]}
    masks.write_text(json.dumps({"imageWidth": 64, "imageHeight": 48, "shapes": [shape]}))
    told = re.sub(r"^# (?=\w+ = |\[\[)", "", text, flags=re.MULTILINE)
    told = told.replace('"gate.json"', f'"{masks}"').replace("/usr/local/bin/notify", sys.executable)
    path = tmp_path / "cameras.toml"
    path.write_text(told, encoding="utf-8")
    config = load_config(path)
    assert config.cameras[0].masks == str(masks) and config.cameras[1].scene == "workshop"
    assert {*map(type, config.sinks)} == {*SINKS.values()} and config.events.release is not None


def test_the_cameras_of_the_guide_load(monkeypatch, tmp_path):
    blocks = re.findall(r"^```toml\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    for number, block in enumerate(blocks):
        set_all(block, monkeypatch)
        path = tmp_path / f"{number}.toml"
        path.write_text(block, encoding="utf-8")
        assert load_config(path).cameras


def test_the_unit_starts_a_command_that_is_there():
    service = unit()["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "avad-hf" and command_of(words) == "watch"
    # How it ends by SIGTERM, and where its settings are refused, as the guide to the command line says.
    assert service["SuccessExitStatus"] == "143" and service["RestartPreventExitStatus"] == "2"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing")
def test_systemd_takes_the_unit(tmp_path):
    path = tmp_path / UNIT.name
    program = shlex.split(unit()["Service"]["ExecStart"])[0]
    path.write_text(UNIT.read_text(encoding="utf-8").replace(program, sys.executable), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_image_runs_a_command_that_is_there():
    told = dict(instructions())
    program, *words = json.loads(told["ENTRYPOINT"])
    assert program == "avad-hf" and command_of([*words, *json.loads(told["CMD"])]) == "watch"


def test_the_image_copies_what_the_package_needs():
    copied = [word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    assert {"pyproject.toml", "README.md", "LICENSE", "hub_cards", "src"} <= set(copied)
    extras = re.search(r'pip install .*"\.\[(.*?)\]"', DOCKERFILE.read_text(encoding="utf-8"))[1].split(",")
    optional = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    assert "watch" in extras and all(f"\n{extra} = [" in optional for extra in extras)


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is missing")
def test_hadolint_takes_the_dockerfile():
    # Versions of Debian's packages are those of the image.
    subprocess.run(["hadolint", "--ignore", "DL3008", DOCKERFILE], check=True)
