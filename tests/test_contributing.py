"""CONTRIBUTING followed literally, in a copy of the tree: a new encoder, a new detector, a new corpus."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from avad_hf import registration

from . import warm
from .test_guides import blocks as pieces_of_code
from .test_guides import commands, reasons, words_of

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / ".github" / "CONTRIBUTING.md"
TREE = "examples/guides/architecture.md"
BLOCK = re.compile(r"^```(\w+) ([^\s]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def sections() -> dict[str, list[tuple[str, str, str]]]:
    """Blocks of each worked example: language, path (or what it is), and text."""
    parts = re.split(r"^## Add (?:an|a) (\w+).*$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name: BLOCK.findall(text) for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def shell_commands() -> list[list[str]]:
    """Words of the commands of avad-hf, in blocks and within sentences, without the first."""
    lines = [line for language, text, _ in pieces_of_code(GUIDE) if language == "bash" for line in commands(text)]
    lines += re.findall(r"`(avad-hf [^`]+)`", GUIDE.read_text(encoding="utf-8"))
    return [words[1:] for words in map(words_of, lines) if words[0] == "avad-hf"]


def added_line(text: str, diff: str) -> str:
    """Apply a hunk of one added line; what surrounds it must be there once."""
    lines = diff.splitlines()
    (added,) = [line[1:] for line in lines if line.startswith("+")]
    before = "\n".join(line[1:] for line in lines if not line.startswith("+"))
    after = "\n".join(line[1:] for line in lines)
    assert text.count(before) == 1 and added not in text
    return text.replace(before, after)


def row_added(readme: str, row: str) -> str:
    """Add a row to the table of architectures."""
    lines = readme.splitlines(keepends=True)
    folders = tuple(f"| `{name}` | " for name in registration.FOLDERS)
    last = max(number for number, line in enumerate(lines) if line.startswith(folders))
    return "".join([*lines[: last + 1], row, *lines[last + 1 :]])


def clause_added(guide: str, line: str) -> str:
    """Add a clause to the tree of files, after the last one of the corpora."""
    lines = guide.splitlines(keepends=True)
    last = max(number for number, text in enumerate(lines) if text.strip().startswith("cctv_fights.py"))
    return "".join([*lines[: last + 1], line, *lines[last + 1 :]])


def follow(root: Path, blocks: list[tuple[str, str, str]]) -> list[str]:
    """Write the files of an example and make its edits; returns the code to try, and checks how little is touched."""
    tries, created, edited = [], set(), []
    for language, path, text in blocks:
        if path == "try":
            tries.append(text)
        elif path == "tree":
            edited.append(TREE)
            (root / TREE).write_text(clause_added((root / TREE).read_text(), text))
        elif language == "diff":
            edited.append(path)
            (root / path).write_text(added_line((root / path).read_text(), text))
        elif path == "README.md":
            assert text.count("\n") == 1
            edited.append(path)
            (root / path).write_text(row_added((root / path).read_text(), text))
        else:
            assert not (root / path).exists()
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(text)
            created.add(path)
    folders = {os.path.dirname(path) for path in created}
    assert len(folders) == 1, "an example touches one folder"
    assert len(edited) == len(set(edited)) == 2, "a line, and a row or a clause"
    return tries


# What is done in the copy, by another process: its avad_hf is another one.
CHILD = """
import json, sys
import pytest
import torch
import typer
torch.set_num_threads(1)
from pathlib import Path
import avad_hf
from transformers import AutoModel, AutoModelForVideoClassification, AutoProcessor, pipeline
from typer.testing import CliRunner
from avad_hf import AvacaProcessor, registration
from avad_hf.cli import app
from tests import test_layout
from tests.feature_stores import plant
from tests.media_files import frame_times, sound, write_media

root = Path.cwd()
assert Path(avad_hf.__file__).is_relative_to(root)
(encoder, detector, corpus), commands = json.loads(sys.argv[1])
write_media("street.mp4", frame_times(25, 1.4), sound(0, 1.4, 16000), rate=16000, audio_codec="aac")
found = {}

class Counted:
    number = 0  # tests that were run

    def pytest_runtest_call(self):
        self.number += 1

def tried(code):
    *lines, last = code.strip().splitlines()
    names = {}
    exec("\\n".join(lines), names)
    return names, eval(last, names)

# The commands are what this avad-hf takes.
for verb, *rest in commands:
    typer.main.get_command(app).commands[verb].make_context(verb, list(rest))
found["verbs"] = [words[0] for words in commands]

def run(verb, *more):
    (words,) = {tuple(words) for words in commands if words[0] == verb}
    done = CliRunner().invoke(app, [*words, *more])
    assert done.exit_code == 0, done.output
    return done.stdout

# Encoder: it encodes, and comes back from a folder.
names, shape = tried(encoder)
found["shape"] = list(shape)
names["processor"].save_pretrained("eyes")
again = AvacaProcessor.from_pretrained("eyes")("street.mp4")["visual_features"]
found["same"] = torch.equal(names["features"]["visual_features"], again)
found["moves"] = bool(again.abs().max() > 0)
names["network"].save_pretrained("network")
found["model"] = type(AutoModel.from_pretrained("network")).__name__
try:
    names["network"](torch.zeros(1, 1, 3, 8, 8))
except ValueError as error:
    found["refusal"] = str(error)

# Detector: new, trained, and it detects.
run("init", "--size", "tiny")
found["settings"] = run("train", "--print-config")
processor = AutoProcessor.from_pretrained("checkpoints/mlpmil")
untrained = pipeline("audio-visual-anomaly", model="checkpoints/mlpmil", dtype="float32")("street.mp4")
found["untrained"] = [len(untrained["clips"]), untrained["warnings"]]
widths = processor.widths
shape = (widths["visual_features"], 1, 3)
plant(root / "features", 20, shape, audio_size=widths["audio_features"], steps=processor.num_pictures)
exec(detector)
model = AutoModelForVideoClassification.from_pretrained("runs/mlpmil")
found["detector"] = [type(model).__name__, model.config.threshold_origin is not None]
detect = pipeline("audio-visual-anomaly", model=model, processor=processor, dtype="float32")
found["scores"] = [clip["score"] for clip in detect("street.mp4")["clips"]]
batch = {
    "visual_features": torch.randn(2, 5, *shape),
    "audio_features": torch.randn(2, 5, processor.num_pictures, widths["audio_features"]),
    "clip_mask": torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
}
alone = {name: value[1:, :3] for name, value in batch.items()}
with torch.no_grad():
    found["padding"] = torch.allclose(model(**batch).logits[1:, :3], model(**alone).logits, atol=1e-5)

# Corpus: rows, classes and splits.
Path("HockeyFights").mkdir()
for number in range(1, 11):
    for prefix in ("fi", "no"):
        Path(f"HockeyFights/{prefix}{number}_xvid.avi").touch()
names, classes = tried(corpus)
found["classes"] = classes
found["rows"] = {part: len(rows) for part, rows in names["corpus"].items()}
Path("empty").mkdir()
try:
    avad_hf.load_dataset("hockey-fights", data_dir="empty")
except ValueError as error:
    found["empty"] = str(error)

# The rules of the house hold with all three.
test_layout.test_imports_go_one_way()
test_layout.test_what_an_architecture_is_its_own_folder_says()
test_layout.test_relative_imports_have_one_dot()
# The common tests take them by themselves; some of them, for the time that all take.
chosen = "(framediff or mlpmil) and (saving or hidden or misspelt or tuples or padding or scale or round_trip)"
options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", chosen, "tests/test_common.py"]
found["common"] = int(pytest.main(options, plugins=[counted := Counted()]))
found["num_common"] = counted.number
found["registered"] = [name in registration.ARCHITECTURES for name in ("framediff", "mlpmil")]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def followed(tmp_path_factory) -> dict:
    root = tmp_path_factory.mktemp("copy")
    for name in ("src/avad_hf", "hub_cards", "examples"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.mp4", "pictures"))
    (root / "tests").mkdir()
    for name in ("__init__.py", "feature_stores.py", "media_files.py", "test_common.py", "test_layout.py"):
        shutil.copy(ROOT / "tests" / name, root / "tests" / name)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    code = [*follow(root, blocks := sections()["encoder"]), *follow(root, sections()["detector"])]
    code += follow(root, sections()["corpus"])
    assert len(code) == 3 and blocks
    code = json.dumps([code, shell_commands()])
    begin = f"import sys\nsys.path[:0], sys.argv = [{str(root / 'src')!r}, {str(root)!r}], ['-c', {code!r}]\n"
    done = warm.run(code=begin + CHILD, env={"HF_HOME": str(root / "home")}, cwd=root, fresh=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"root": root, "output": done.stdout}


def test_the_encoder_encodes_and_comes_back(followed):
    assert followed["shape"] == [1, 3, 64, 2, 4]
    assert followed["same"] and followed["moves"] and followed["model"] == "FrameDiffModel"
    assert (
        "FrameDiff needs clips of shape (B, F, 3, H, W) with 2 frames or more, got (1, 1, 3, 8, 8)"
        in (followed["refusal"])
    )


def test_the_detector_begins_trains_and_detects(followed):
    count, warnings = followed["untrained"]
    assert count == 2 and any("Untrained detector" in text for text in warnings)
    assert followed["detector"] == ["MlpMilForAnomalyDetection", True]
    assert len(followed["scores"]) == 2 and all(0 < score < 1 for score in followed["scores"])
    assert followed["padding"]


def test_the_commands_are_taken(followed):
    assert followed["verbs"] == ["init", "extract", "train", "detect", "init"]
    settings = tomllib.loads(followed["settings"])
    assert (settings["data"], settings["output_dir"]) == ("features", "runs/mlpmil")


def test_the_corpus_is_loaded(followed):
    assert followed["classes"] == ["normal", "fight"]
    assert sum(followed["rows"].values()) == 20 and set(followed["rows"]) == {"train", "validation", "test"}
    assert "has no clips such as fi1_xvid.avi" in followed["empty"]


def test_they_are_registered_and_the_rules_hold(followed):
    assert followed["registered"] == [True, True]


def test_they_pass_the_common_tests(followed):
    assert followed["common"] == 0, followed["output"]
    assert followed["num_common"] >= 10


def test_the_files_are_written_as_the_house_does(followed):
    paths = [path for blocks in sections().values() for _, path, _ in blocks if path.endswith(".py")]
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, *dict.fromkeys(paths)]
        done = subprocess.run(ruff, cwd=followed["root"], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_links_and_commands_lead_somewhere():
    text = GUIDE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (GUIDE.parent / target).exists(), target
    for name in re.findall(r"`((?:tests|models|corpora|\.ci)/[\w./]+)`", text):
        assert any((base / name).exists() for base in (ROOT, ROOT / "src" / "avad_hf")), name


def test_what_is_told_to_set_up_is_known():
    """It needs a package index: `.ci/run` installs the same."""
    lines = [line for language, text, _ in pieces_of_code(GUIDE) if language == "bash" for line in commands(text)]
    others = [line for line in lines if words_of(line)[0] != "avad-hf" and not reasons(line)]
    assert len(lines) == 9 and others == [".venv/bin/pre-commit install"]


def test_one_version_of_ruff_everywhere():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]
    version = hooks["rev"].removeprefix("v")
    (in_ci,) = re.findall(r'"ruff(.*?)"', (ROOT / ".ci" / "run").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (in_extra,) = [name for name in project["project"]["optional-dependencies"]["test"] if name.startswith("ruff")]
    assert [hook["id"] for hook in hooks["hooks"]] == ["ruff-check", "ruff-format"]
    assert version in SpecifierSet(in_ci) and version in SpecifierSet(in_extra.removeprefix("ruff"))


def test_what_is_type_checked_is_there():
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    assert {"src/avad_hf/models/encoder.py", "src/avad_hf/models/detector.py"} <= set(files)
    assert all((ROOT / name).exists() for name in files)
    assert (ROOT / "src" / "avad_hf" / "py.typed").exists()
    assert ".ci-venv/bin/mypy\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_issue_forms_are_as_github_takes_them(path):
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert form.keys() == {"name", "description", "labels", "body"}
    for part in form["body"]:
        assert part["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert "value" in part["attributes"] if part["type"] == "markdown" else {"id", "attributes"} <= part.keys()


def test_the_workflow_runs_what_people_run():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]
    commands = " ".join(step.get("run", "") for job in jobs.values() for step in job["steps"])
    for name in re.findall(r"\.ci/\w+", commands):
        assert os.access(ROOT / name, os.X_OK), name
    assert {".ci/run", ".ci/coverage"} <= set(re.findall(r"\.ci/\w+", commands))
