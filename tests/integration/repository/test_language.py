"""The language guide (CONTRIBUTING.md), as far as a program can check it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.support.paths import REPOSITORY

PACKAGES = ("stages", "fleet", "device/edge_agent", "lab", "benchmarks", "examples")

# Names that do not say what they hold or do. `found` is one of the four parts of an error, in the modules of errors.
VAGUE = {
    "alike", "amiss", "anew", "asked", "back", "begun", "brought", "conduct", "fit", "found", "front", "given", "gone",
    "heard", "known", "left", "made", "meant", "of", "owed", "past", "rest", "said", "seen", "taken", "tally", "told",
    "torn", "twice", "wanted", "well", "whole", "why", "wrong",
}  # fmt: skip

# Keys of files and of printed JSON, and the left edge of a drawing.
FORMATS = {
    "device/edge_agent/lifecycle/results.py": {"left", "whole"},
    "device/edge_agent/storage/manifest.py": {"found"},
    "fleet/cli/step_inputs.py": {"asked", "back", "rest"},
    "fleet/devices/messages.py": {"found", "wrong"},
    "fleet/inventory/rollout_policy.py": {"rest"},
    "fleet/records/rollout_plan.py": {"asked", "found", "left", "why"},
    "fleet/records/state.py": {"why"},
    "fleet/rollout/step_results.py": {"back", "brought", "rest"},
    "stages/report/page/svg.py": {"left"},
}


def bound_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every name that the code defines or assigns, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr, node.lineno


def public_functions(body: list[ast.stmt], in_class: bool = False) -> Iterator[tuple[ast.AST, str | None, list[str]]]:
    """Yield public functions and methods with their docstrings and parameters."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node.body, in_class=True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_") and node.name != "__init__":
                continue
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            yield node, ast.get_docstring(node), names[1:] if in_class and names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("package", PACKAGES)
def test_names_say_what_they_hold(package: str) -> None:
    marks = []
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        place = str(path.relative_to(REPOSITORY))
        allowed = {"found"} if path.name == "errors.py" else FORMATS.get(place, set())
        for name, line in bound_names(ast.parse(path.read_text(encoding="utf-8"))):
            if name.strip("_") in VAGUE - allowed:
                marks.append(f"{place}:{line}: {name}")
    assert marks == []


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_with_three_parameters_document_each(package: str) -> None:
    marks = []
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        for node, docstring, names in public_functions(ast.parse(path.read_text(encoding="utf-8")).body):
            arguments = (docstring or "").partition("Args:")[2]
            missing = [name for name in names if not re.search(rf"^\s*{name}: \S", arguments, re.MULTILINE)]
            if len(names) >= 3 and missing:
                marks.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {', '.join(missing)}")
    assert marks == []


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_begin_with_a_sentence(package: str) -> None:
    fragments = re.compile(r"(What|Whether|How|Of|Where|Who|Which|And|That|Those)\b")
    marks = []
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node) or ""
                if fragments.match(docstring):
                    marks.append(f"{path.relative_to(REPOSITORY)}:{node.body[0].lineno}: {docstring.splitlines()[0]}")
    assert marks == []
