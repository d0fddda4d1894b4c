"""Docstrings begin with a noun phrase or a verb, as those of the field do, and not with a question or a pronoun."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("hades", "envs", "experiments")
_OPENING = re.compile(
    r"(What|Whatever|How|Where|Who|Whose|Which|Why|Those|That|None|It|Its|They|Their|All that|Everything that)\b"
)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring of a module, of classes, functions and attributes."""
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for index, statement in enumerate(body):
            after_name = index > 0 and isinstance(body[index - 1], ast.Assign | ast.AnnAssign)
            if ((index == 0 and documented) or after_name) and is_text(statement):
                yield statement.lineno, statement.value.value


def is_text(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None)
    return isinstance(statement, ast.Expr) and isinstance(value, ast.Constant) and isinstance(value.value, str)


def riddles(source: str) -> list[tuple[int, str]]:
    """Line and first line of every docstring that opens with a question word or a pronoun."""
    found = ((line, text.strip().partition("\n")[0]) for line, text in docstrings(source))
    return [(line, first) for line, first in found if _OPENING.match(first)]


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_open_with_a_noun_phrase_or_a_verb(package):
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3
    found = [f"{file.relative_to(ROOT)}:{line}: {first}" for file in files for line, first in riddles(file.read_text())]
    assert not found, (
        f"{len(found)} docstrings open with a question word or a pronoun; expected a noun phrase (what the thing is) "
        f"or a third-person verb (what it does):\n" + "\n".join(found)
    )


def test_the_search_for_openings_finds_them():
    source = '"""What a module is."""\nX = 1\n"""How X is used."""\ndef f():\n    """Returns X."""\n'
    assert riddles(source) == [(1, "What a module is."), (3, "How X is used.")]
    assert riddles('class A:\n    """Italic text, and items."""\n    "It is no docstring."\n') == []
