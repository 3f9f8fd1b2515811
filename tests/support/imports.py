"""Find the modules of this project that a module imports, directly or through others, from its source."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.support.paths import REPOSITORY


def module_files(imported: str) -> list[Path]:
    """Return the file of a module of this project, by its dotted name, and the files of its parent packages."""
    parts = imported.split(".")
    base = REPOSITORY if parts[0] == "stages" else REPOSITORY / "device"
    files = []
    for count in range(1, len(parts) + 1):
        path = base.joinpath(*parts[:count])
        files += [candidate for candidate in (path.with_suffix(".py"), path / "__init__.py") if candidate.is_file()]
    return files


def imports(path: Path) -> set[Path]:
    """Return the files of the modules that `path` imports anywhere in its source."""
    files: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in ("stages", "edge_agent"):
                files.update(module_files(name))
    return files


def closure(path: Path) -> set[Path]:
    """Return `path` and all its transitive imports, without `params` and packages that only have a docstring."""
    visited: set[Path] = set()
    pending = [path]
    while pending:
        current = pending.pop()
        docstring_only = current.name == "__init__.py" and len(ast.parse(current.read_text()).body) <= 1
        if current not in visited and not docstring_only and "params" not in current.relative_to(REPOSITORY).parts:
            visited.add(current)
            pending += imports(current)
    return visited
