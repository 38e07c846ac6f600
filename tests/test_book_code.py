"""What the book promises to run does run: solutions of exercises, and the names that it includes
from the code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
SOLUTION = re.compile(r"^````\{dropdown\} Solution\n(.*?)^````$", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r"\{literalinclude\} (\S+\.py)\n:pyobject: (\S+)")


def solutions():
    found = []
    for path in sorted(BOOK.glob("*.md")):
        for number, text in enumerate(SOLUTION.findall(path.read_text(encoding="utf-8")), start=1):
            for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                found.append(pytest.param(code, id=f"{path.stem} {number}"))
    return found


@pytest.mark.parametrize("code", solutions())
def test_a_solution_runs_as_it_stands(code, capsys):
    exec(compile(code, "solution", "exec"), {})
    assert capsys.readouterr().out.strip(), "it shows its answer"


def test_the_method_has_exercises():
    assert len([item for item in solutions() if item.id.startswith("method")]) >= 3


def test_included_code_exists():
    names = []
    for path in sorted(BOOK.glob("*.md")):
        for file, name in INCLUDED.findall(path.read_text(encoding="utf-8")):
            assert name in defined_names(path.parent / file), f"{path.name}: {file} has no {name}"
            names.append(name)
    assert {"sdm_loss", "ParallelAdapter", "run_layer", "fit_captions"} <= set(names)


def defined_names(path):
    """Functions and classes of a file, and methods as ``Class.method``."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        for method in getattr(node, "body", []):
            if isinstance(node, ast.ClassDef) and isinstance(method, ast.FunctionDef):
                names.add(f"{node.name}.{method.name}")
    return names
