"""Which modules of this project a module imports, read from its source: directly, and through others."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.paths import REPOSITORY


def module_files(imported: str) -> list[Path]:
    """The file of a module of ours, by its dotted name, and of the packages above it."""
    parts = imported.split(".")
    base = REPOSITORY if parts[0] == "stages" else REPOSITORY / "device"
    found = []
    for count in range(1, len(parts) + 1):
        path = base.joinpath(*parts[:count])
        found += [candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()]
    return found


def imports(path: Path) -> set[Path]:
    """The modules that `path` imports, wherever in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in ("stages", "edge_agent"):
                found.update(module_files(name))
    return found


def closure(path: Path) -> set[Path]:
    """`path` and all that it imports through others; without parameters, and packages that are a docstring alone."""
    seen: set[Path] = set()
    todo = [path]
    while todo:
        current = todo.pop()
        docstring_only = current.name == "__init__.py" and len(ast.parse(current.read_text()).body) <= 1
        if current not in seen and not docstring_only and "params" not in current.relative_to(REPOSITORY).parts:
            seen.add(current)
            todo += imports(current)
    return seen
