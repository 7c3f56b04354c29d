"""The rules of the house: what may import what, and a README that tells the truth about files and commands."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "avad_hf"

# Room -> rooms that it may import; a room is a folder or a file directly under src/avad_hf.
ALLOWED = {
    "files": set(),
    "processes": set(),
    "media": {"files"},
    "metrics": set(),
    "hub": {"files"},
    "models": {"files", "media", "hub"},
    "synthetic": {"files", "media", "corpora"},
    "corpora": {"files", "media", "hub", "synthetic"},
    "features": {"files", "processes", "media", "hub", "corpora"},
    "detection": {"files", "media", "hub"},
    "report": {"files", "media", "detection", "metrics"},
    "untrained": {"files", "corpora", "models", "hub"},
    "convert": {"files", "corpora", "features", "models", "hub"},
    "evaluation": {"files", "processes", "media", "features", "metrics", "hub"},
    "training": {"files", "processes", "media", "features", "metrics", "models", "evaluation", "hub"},
    "reproduce": {"files", "processes", "media", "corpora", "features", "evaluation", "training", "untrained"},
    "demo": {"detection", "corpora", "features", "models", "evaluation", "report", "training"},
    "export": {"files", "media", "corpora", "synthetic", "models", "metrics", "detection", "registration", "hub"},
    "benchmark": {"files", "media", "models", "registration", "export", "untrained"},
    "registration": {"models", "detection"},
    "__init__": {"media", "models", "corpora", "features", "detection", "registration", "evaluation", "training"},
}
ALLOWED["__init__"] |= {"hub", "export"}
# The command may use everything.
ALLOWED["cli"] = set(ALLOWED) - {"__init__"}


def imported_modules(path: Path) -> set[str]:
    """Dotted names of our own modules that a file imports, relative imports resolved."""
    package = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name == "avad_hf" or name.startswith("avad_hf.")}


def room(parts: tuple[str, ...]) -> str:
    return Path(parts[0]).stem


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    own = room(path.relative_to(PACKAGE).parts)
    for name in imported_modules(path):
        parts = name.split(".")[1:]
        if not parts or not ((PACKAGE / parts[0]).is_dir() or (PACKAGE / f"{parts[0]}.py").exists()):
            continue
        assert room(tuple(parts)) == own or room(tuple(parts)) in ALLOWED[own], f"{path} imports {name}"
    assert own in ALLOWED


def test_relative_imports_have_one_dot():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.ImportFrom) or node.level < 2, f"{path}:{node.lineno}"


def test_readme_names_every_file_with_a_clause():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"## Files\n\n```text\n(.*?)```", readme, re.DOTALL).group(1)
    listed = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.strip()}
    for line in tree.splitlines():
        assert not line.strip() or len(line.split()) > 3, f"no clause: {line}"
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "hub_cards").iterdir(), *(ROOT / "examples").glob("*.py")]:
        if path.name == "__init__.py" and path.parent != PACKAGE:
            continue
        assert path.name in listed, f"{path.relative_to(ROOT)} is not in the README's tree"


def test_ci_runs_exactly_the_readmes_test_command():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"passes the tests.*?```bash\n(.*?)\n```", readme, re.DOTALL).group(1)
    assert "pytest" in command
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_public_names_have_docstrings():
    import avad_hf

    for name in avad_hf.__all__:
        assert getattr(avad_hf, name).__doc__, name
