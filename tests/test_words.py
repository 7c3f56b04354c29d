"""Plain English where readers look first: the noun comes first, in docstrings, arguments and comments."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for folder in ("src/avad_hf", "examples", "hub_cards") for path in sorted((ROOT / folder).rglob("*.py"))]
OF = re.compile(r"Of\b")
# An argument, attribute or output of a docstring: "    name: text" or "    name (`type`): text".
ARGUMENT = re.compile(r"\s+[*`\w./, \[\]\"]+?(?: \(.*\))?:\s+(Of\b.*)")


def first_words(source: str) -> list[str]:
    """Docstrings, arguments and blocks of comments that begin with "Of", with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        text = ast.get_docstring(node, clean=True)
        if text is None:
            continue
        begin = node.body[0].lineno
        found += [f"line {begin}: {text.splitlines()[0]}"] if OF.match(text) else []
        before = ""
        for number, line in enumerate(text.splitlines()):
            if match := ARGUMENT.match(line):
                found.append(f"line {begin + number}: {match[1]}")
            elif before.endswith("):") and OF.match(line.strip()):  # the text of an argument, on a line of its own
                found.append(f"line {begin + number}: {line.strip()}")
            before = line
    last = -1  # line of the comment before
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("#: ")
            stands_alone = token.line.lstrip().startswith("#")
            if OF.match(text) and not (stands_alone and last == token.start[0] - 1):
                found.append(f"line {token.start[0]}: {text}")
            last = token.start[0] if stands_alone else -1
    return found


def test_nothing_begins_with_of():
    for path in FILES:
        assert first_words(path.read_text(encoding="utf-8")) == [], path.relative_to(ROOT)


@pytest.mark.parametrize(
    "source",
    [
        '"""Of a module."""',
        'def run():\n    """Of a run."""',
        'def run(config):\n    """Run.\n\n    Args:\n        config: Of the run.\n    """',
        'class A:\n    """An output.\n\n    Args:\n        loss (`Tensor` of shape `()`): Of the batch.\n    """',
        'class A:\n    """An output.\n\n    Args:\n        x (`Tensor`):\n            Of the batch.\n    """',
        "# Of the run.\nx = 1",
        "x = 1  # Of the run",
    ],
)
def test_the_rule_sees_them(source):
    assert len(first_words(source)) == 1


def test_the_rule_leaves_other_words_alone():
    source = '"""Offset of a run.\n\nOf this more below."""\n# The end of a line\n# Of text.\nx = "Of"  # often'
    assert first_words(source) == []
