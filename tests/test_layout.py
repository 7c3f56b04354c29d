"""The rules of the house: what may import what, and pages that tell the truth about files, commands and packages."""

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from avad_hf import registration

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "avad_hf"

# Room -> rooms that it may import; a room is a folder or a file directly under src/avad_hf.
ALLOWED = {
    "disks": set(),
    "files": {"disks"},
    "late": set(),
    "processes": set(),
    "runs": {"disks", "files"},
    "media": {"files", "runs"},
    "metrics": set(),
    "hub": {"files"},
    "models": {"files", "media", "hub"},
    "registration": {"models", "detection"},
    "synthetic": {"files", "media", "corpora"},
    "corpora": {"files", "media", "hub", "synthetic"},
    "features": {"files", "processes", "media", "hub", "corpora"},
    "detection": {"files", "media", "models", "hub"},
    "report": {"files", "media", "detection", "metrics"},
    "untrained": {"files", "corpora", "convert", "models", "registration", "hub"},
    "convert": {"files", "features", "models", "registration", "hub"},
    "evaluation": {"files", "processes", "media", "features", "metrics", "models", "hub", "detection"},
    "training": {"files", "processes", "media", "corpora", "features", "metrics", "models", "evaluation", "hub"},
    "reproduce": {"files", "processes", "media", "corpora", "features", "models", "evaluation", "training", "hub"},
    "comparison": {
        *("files", "disks", "runs", "processes", "media", "corpora", "features", "metrics", "models", "evaluation"),
        *("training", "report", "registration"),
    },
    "demo": {"detection", "corpora", "features", "evaluation", "report", "training"},
    "describing": {"convert", "detection", "registration"},
    "folders": {
        *("files", "runs", "corpora", "features", "metrics", "models", "evaluation", "training", "report", "convert"),
        *("registration", "hub", "untrained"),
    },
    "anonymise": {"disks", "files", "runs", "processes", "media", "models", "convert"},
    "export": {"files", "media", "corpora", "synthetic", "models", "metrics", "detection", "hub"},
    "watching": {"files", "media", "detection", "report", "anonymise", "convert"},
    "app": {"detection", "report", "synthetic"},
    "benchmark": {"files", "media", "models", "registration", "export", "untrained"},
    "__init__": {"registration", "late"},
}
ALLOWED["training"] |= {"registration"}
for writer in ("features", "training", "export", "reproduce", "synthetic", "demo"):
    ALLOWED[writer] |= {"disks", "runs"}
ALLOWED["reproduce"] |= {
    "anonymise",
    "comparison",
    "convert",
    "detection",
    "metrics",
    "registration",
    "synthetic",
    "untrained",
}
# The command may use everything.
ALLOWED["cli"] = set(ALLOWED) - {"__init__"}
# What the contracts of models/ are in: detection knows no more of a detector than this.
CONTRACTS = {"avad_hf.models.detector"}
# Where architectures may be named.
NAMED = ("models", "reproduce", "registration.py")
# Layouts of feature files are called after the papers that published them, and their files after encoders.
NAMES_FILES = "features/published/layouts.py"


@cache
def tree_of(path: Path) -> ast.Module:
    """The code of a file; most rules look at all files."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported_modules(path: Path) -> set[str]:
    """Dotted names of our own modules that a file imports, relative imports resolved."""
    package = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name == "avad_hf" or name.startswith("avad_hf.")}


def room(parts: tuple[str, ...]) -> str:
    return Path(parts[0]).stem


def test_imports_go_one_way():
    for path in sorted(PACKAGE.rglob("*.py")):
        check_imports(path)


def check_imports(path: Path) -> None:
    own = room(path.relative_to(PACKAGE).parts)
    for name in imported_modules(path):
        parts = name.split(".")[1:]
        if not parts or not ((PACKAGE / parts[0]).is_dir() or (PACKAGE / f"{parts[0]}.py").exists()):
            continue
        assert room(tuple(parts)) == own or room(tuple(parts)) in ALLOWED[own], f"{path} imports {name}"
    assert own in ALLOWED


def test_detection_asks_the_contract_alone():
    for path in (PACKAGE / "detection").glob("*.py"):
        models = {name for name in imported_modules(path) if name.startswith("avad_hf.models.")}
        assert all(any(name.startswith(known) for known in CONTRACTS) for name in models), f"{path}: {models}"


@cache
def architecture_names() -> re.Pattern:
    """Matches the name of an architecture: its model type, its title, and the classes of its folder."""
    words = set()
    for one in registration.ARCHITECTURES.values():
        words |= {re.escape(one.model_type), re.escape(one.title)} | {re.escape(name) for name in own_classes(one)}
    return re.compile(
        rf"(?<![A-Za-z0-9])({'|'.join(sorted(words, key=len, reverse=True))})(?![a-z0-9])", re.IGNORECASE
    )


def own_classes(one) -> set[str]:
    """Public classes whose code is in the folder of an architecture."""
    return {name for name, path in one.public.items() if path.startswith(one.folder)}


def docstrings(tree: ast.AST) -> set[int]:
    """Which nodes are docstrings, by identity."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds)]
    return {
        id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr) and hasattr(body[0], "value")
    }


def named_architectures(tree: ast.Module) -> list[str]:
    """Architectures that code names: in names, attributes, imports, and strings that are no docstrings."""
    known = architecture_names()
    described = docstrings(tree)
    found = []
    for node in ast.walk(tree):
        texts = []
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in described:
            texts = [node.value]
        elif isinstance(node, ast.Name):
            texts = [node.id]
        elif isinstance(node, ast.Attribute):
            texts = [node.attr]
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.arg)):
            texts = [getattr(node, "name", None) or node.arg]
        elif isinstance(node, ast.keyword):
            texts = [node.arg or ""]
        elif isinstance(node, ast.Import):
            texts = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            texts = [node.module or "", *(alias.name for alias in node.names)]
        found += [f"line {node.lineno}: {match[0]}" for text in texts for match in known.finditer(text)]
    return found


def test_what_an_architecture_is_its_own_folder_says():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        if name.parts[0] not in NAMED and name.as_posix() != NAMES_FILES:
            assert named_architectures(tree_of(path)) == [], name


@pytest.mark.parametrize(
    "source",
    [
        "if config.model_type == 'avrl': pass",
        "from avad_hf.models.slowfast.modeling_slowfast import SlowFastModel",
        "isinstance(model, AvacaModel)",
        "kind = f'{name} of VGGish'",
        "def compare_slowfast(): pass",
        "settings(avaca=1)",
        "TYPES = ['rtfm']",
    ],
)
def test_the_rule_sees_names(source):
    assert named_architectures(ast.parse(source))


def test_the_rule_leaves_docstrings_and_other_words_alone():
    source = '"""AVACA and AVRL."""\n\ndef vary():\n    """Of SlowFast."""\n    return "slow, fast"'
    assert named_architectures(ast.parse(source)) == []


def test_relative_imports_have_one_dot():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            assert not isinstance(node, ast.ImportFrom) or node.level < 2, f"{path}:{node.lineno}"


def test_the_tree_names_every_file_with_a_clause():
    page = (ROOT / "examples" / "guides" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"## Files\n\n```text\n(.*?)```", page, re.DOTALL).group(1)
    listed = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()}
    for line in tree.splitlines():
        assert not line.strip() or len(line.split()) > 3, f"no clause: {line}"
    folders = {PACKAGE / "models" / name for name in registration.FOLDERS}  # whose files are called by their role
    paths = [*PACKAGE.rglob("*.py"), *(ROOT / "hub_cards").iterdir()]
    for path in [*paths, *(ROOT / "examples").glob("*.py"), *(ROOT / "examples").glob("*.ipynb")]:
        if path.parent in folders or (path.name == "__init__.py" and path.parent != PACKAGE):
            continue
        assert path.name in listed, f"{path.relative_to(ROOT)} is not in the tree of architecture.md"
    # And no file that is gone.
    names = {path.name for path in [*paths, *(ROOT / "examples").iterdir(), *(ROOT / "tests").iterdir()]}
    gone = {name for name in listed if name.endswith((".py", ".ipynb")) and "/" not in name} - names
    assert not gone, f"architecture.md names files that are not there: {gone}"


def test_the_readme_has_a_row_for_every_architecture():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in registration.FOLDERS:
        assert f"| `{name}` | " in readme, f"{name} has no row in the table of architectures"


def test_ci_runs_exactly_the_readmes_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"runs the tests.*?```bash\n(.*?)\n```", readme, re.DOTALL).group(1)
    assert "pytest" in command
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_dependency_is_imported():
    """Where nothing imports one, it would be installed for nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    modules = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn"}  # others are called as their packages are
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)[0].lower()
        assert modules.get(name, name.replace("-", "_")) in imported, f"nothing imports {name}"


def test_torch_for_cpus_is_taken_as_it_is():
    """The versions of the CPU index meet what pip is asked for, so that it replaces neither of both."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    line = re.search(r"pip install --index-url \S+/whl/cpu (.*)", (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    said = [Requirement(word) for word in shlex.split(line)]
    assert [one.name for one in said] == ["torch", "torchaudio"] and said[0].specifier == wanted["torch"]
    assert wanted["torch"].contains("2.14.1+cpu") and wanted["torchaudio"].contains("2.11.0+cpu")


def test_public_names_have_docstrings():
    import avad_hf

    for name in avad_hf.__all__:
        assert getattr(avad_hf, name).__doc__, name
