"""Keys that stand twice in a mapping of an inventory: Ansible takes the last, and at most warns."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import InventoryError
from fleet.inventory import ini, provenance

MERGE = "tag:yaml.org,2002:merge"

# NOTE: `duplicate_dict_key = error` of Ansible (measured: ansible-core 2.19.14) does not replace this. For a file of
# group_vars or host_vars its message names no file; it refuses a merged key that is written over, `{<<: *base, wave:
# 1}`, which is right YAML; and it does not look at JSON.


def check(path: Path) -> None:
    """Whether all files can be read, each key once in its mapping, each host once in its group of an INI file.

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
    first: dict[tuple[str, str, str], ini.Entry] = {}
    for entry in ini.entries(file.read_text(encoding="utf-8", errors="replace")):
        before = first.setdefault((entry.group, entry.kind, entry.name), entry)
        if before.values != entry.values and before.values and entry.values:
            yield f"{file}: found {entry.name!r} twice in [{entry.group}{':vars' if entry.kind == 'vars' else ''}]"
