"""Refuse duplicate keys in the files of an inventory.

Ansible would use the value of the last duplicate, and would print at most a warning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import InventoryError
from fleet.inventory import ini, provenance

MERGE = "tag:yaml.org,2002:merge"

# NOTE: Ansible's `duplicate_dict_key = error` (measured: ansible-core 2.19.14) does not replace this check: its message
# for group_vars and host_vars does not name the file; it refuses a key that overrides a merged key, which is valid YAML
# (`{<<: *base, wave: 1}`); and it ignores JSON.


def require_unique(path: Path) -> None:
    """Check that all files of an inventory are readable, and that no mapping has duplicate keys.

    In an INI file, no group may list a host twice with different variables. Raises InventoryError, which lists every
    error.
    """
    faults = [
        fault
        for file in dict.fromkeys([*provenance.inventory_files(path), *provenance.variable_files(path)])
        for fault in (_in_yaml(file) if _is_yaml(file) else _in_ini(file))
    ]
    if faults:
        reason = "\n".join([f"{len(faults)} error(s)", *(f"  {fault}" for fault in faults)])
        raise InventoryError(
            str(path),
            reason,
            "each key only once in a mapping",
            "remove or rename the duplicates; Ansible would use only the last one",
        )


def _is_yaml(file: Path) -> bool:
    return any(name in file.parts for name in provenance.VARIABLES) or provenance.is_yaml(file)


def _in_yaml(file: Path) -> Iterator[str]:
    """Yield an error message for each duplicate key in a YAML or JSON file.

    Raises InventoryError if the file is neither valid YAML nor valid JSON.
    """
    text = ""
    try:
        text = file.read_text(encoding="utf-8")
        root = yaml.compose(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:  # Ansible's message does not name the file
        names = _in_json(text)  # JSON may be indented with tabs, but YAML may not
        if names is None:
            raise InventoryError(
                str(file), " ".join(str(error).split()), "valid YAML", "correct the syntax of the file"
            ) from None
        yield from (f"{file}: found a duplicate {name!r} in one object" for name in names)
        return
    pending, visited = [root] if root else [], set()
    while pending:
        node = pending.pop()
        if id(node) in visited:  # an alias
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            pending += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                pending.append(value)
                if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                    continue
                line, name = key.start_mark.line + 1, (key.tag, key.value)
                if name in lines:
                    yield f"{file}: line {line}: found {key.value!r}, a duplicate of line {lines[name]}"
                lines[name] = line


def _in_json(text: str) -> list[str] | None:
    """Return the names that occur more than once in an object of a JSON text; None if the text is not valid JSON."""
    duplicates: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        duplicates.extend(name for name in dict.fromkeys(names) if names.count(name) > 1)

    try:
        json.loads(text, object_pairs_hook=collect)
    except (ValueError, RecursionError):
        return None
    return duplicates


def _in_ini(file: Path) -> Iterator[str]:
    """Yield an error message for each host or variable that an INI file declares twice with different values.

    A host may be repeated in a group without variables or with the same variables.
    """
    first: dict[tuple[str, str, str], ini.Entry] = {}
    for entry in ini.entries(file.read_text(encoding="utf-8", errors="replace")):
        before = first.setdefault((entry.group, entry.kind, entry.name), entry)
        if before.values != entry.values and before.values and entry.values:
            section = f"{entry.group}:vars" if entry.kind == "vars" else entry.group
            yield f"{file}: found a duplicate {entry.name!r} in [{section}]"
