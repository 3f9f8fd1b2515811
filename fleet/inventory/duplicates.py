"""What an inventory says twice: Ansible would take the last, and say nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import InventoryError
from fleet.inventory import ini, provenance

MERGE = "tag:yaml.org,2002:merge"


def check(path: Path) -> None:
    """Whether all files can be read, each key once in its mapping, each host once in its group.

    Raises InventoryError, which lists every fault.
    """
    faults = [
        fault
        for file in dict.fromkeys([*provenance.sources(path), *provenance.variables(path)])
        for fault in (_tree(file) if _is_tree(file) else _ini(file))
    ]
    if faults:
        found = "\n".join([f"{len(faults)} fault(s)", *(f"  {fault}" for fault in faults)])
        raise InventoryError(str(path), found, "each key once: the last alone would count", "remove one, or rename it")


def _is_tree(file: Path) -> bool:
    return any(name in file.parts for name in provenance.VARIABLES) or provenance.is_tree(file)


def _tree(file: Path) -> Iterator[str]:
    """Of a file of YAML or JSON."""
    text = ""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:  # Ansible says what, but not in which file
        names = _in_json(text)  # which may be indented by tabs
        if names is None:
            raise InventoryError(str(file), " ".join(str(error).split()), "YAML", "mend it") from None
        yield from (f"{file}: found {name!r} twice in one object" for name in names)
        return
    left, done = [root] if root else [], set()
    while left:
        node = left.pop()
        if id(node) in done:  # an alias
            continue
        done.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                left.append(value)
                if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                    continue
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    yield f"{file}: line {line}: found {key.value!r}, which stands in line {lines[name]} already"
                lines[name] = line


def _in_json(text: str) -> list[str] | None:
    """Names that stand twice in one object; None where this is no JSON."""
    found: list[str] = []

    def pairs(known: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in known]
        found.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)

    try:
        json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return None
    return found


def _ini(file: Path) -> Iterator[str]:
    """A host twice in one group with other variables, or a group's variable twice. A host alone may stand often."""
    seen: dict[tuple[str, str, str], ini.Line] = {}
    for line in ini.lines(file.read_text(encoding="utf-8", errors="replace")):
        before = seen.setdefault((line.group, line.kind, line.name), line)
        if before.values != line.values and before.values and line.values:
            where = f"{line.name!r} in [{line.group}{':vars' if line.kind == 'vars' else ''}]"
            yield f"{file}: line {line.number}: found {where}, which stands in line {before.number} already"
