"""Which file of an inventory says what: for faults that name it, and for keys that stand twice.

Ansible takes the last of two equal keys and merges all files into one answer (`ansible-inventory --list`), which no
longer tells where a value came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fleet.errors import InventoryError

VARIABLES = ("group_vars", "host_vars")
MERGE = "tag:yaml.org,2002:merge"
SOME = object()  # whatever the value is


class _Loader(yaml.SafeLoader):
    """A value with a tag of Ansible's, such as !vault, is there; nobody here needs to know it."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


class Declared:
    """The files of one inventory, each read once."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path if path.is_dir() else path.parent
        self._known: dict[Path, Mapping[str, Any]] = {}

    def origin(self, host: str, field: str, groups: Iterable[str], value: Any = SOME) -> str:
        """The file that says a host's variable, as far as one can see it; the inventory where that is not clear."""
        said = [(file, known[field]) for file, known in self._sayings(host, [*groups]) if field in known]
        # NOTE: which of two groups wins is not decided here: Ansible has, and says the value.
        files = list(dict.fromkeys(file for file, each in said if value is SOME or each == value))
        if not files and len({file for file, _ in said}) == 1:  # a template's, or YAML that Ansible reads otherwise
            files = [said[0][0]]
        return str(files[0] if files else self.path)

    def _sayings(self, host: str, groups: list[str]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Variables of a host and its groups by file, those that win first, as Ansible's documentation orders them."""
        yield from self._in(f"host_vars/{host}")
        yield from ((file, known) for file, hosts, _ in self._inline for known in hosts.get(host, ()))
        for group in (*reversed(groups), "all"):
            yield from self._in(f"group_vars/{group}")
        for group in (*reversed(groups), "all"):
            yield from ((file, known) for file, _, vars_of in self._inline for known in vars_of.get(group, ()))

    @cached_property
    def _inline(self) -> list[tuple[Path, dict[str, list[Any]], dict[str, list[Any]]]]:
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.y*ml"))
        return [(file, *_parts(self._mapping(file))) for file in files]

    def _in(self, place: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        at = self.folder / place
        files = [file for suffix in (".yml", ".yaml", "") if (file := at.with_name(at.name + suffix)).is_file()]
        for file in [*files, *sorted(at.glob("**/*.y*ml"))]:
            yield file, self._mapping(file)

    def _mapping(self, file: Path) -> Mapping[str, Any]:
        if file not in self._known:
            try:
                value = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 a SafeLoader
            except (yaml.YAMLError, ValueError, RecursionError):  # Ansible has read it
                value = None
            self._known[file] = value if isinstance(value, dict) else {}
        return self._known[file]


def _parts(tree: Mapping[str, Any]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Variables by host, and by group, in an inventory's own file."""
    hosts: dict[str, list[Any]] = {}
    groups: dict[str, list[Any]] = {}
    left = [tree]
    while left:
        for name, group in left.pop().items():
            if not isinstance(group, dict):
                continue
            for host, known in _part(group, "hosts").items():
                hosts.setdefault(str(host), []).append(known if isinstance(known, dict) else {})
            groups.setdefault(str(name), []).append(_part(group, "vars"))
            left.append(_part(group, "children"))
    return hosts, groups


def _part(group: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = group.get(name)
    return value if isinstance(value, dict) else {}


def check(path: Path) -> None:
    """Whether all files are YAML, each key once in its mapping. Raises InventoryError, which lists every fault."""
    faults = [fault for file in _files(path) for fault in _twice(file)]
    if faults:
        found = "\n".join([f"{len(faults)} fault(s)", *(f"  {fault}" for fault in faults)])
        raise InventoryError(str(path), found, "each key once: the last alone would count", "remove one, or rename it")


def _files(path: Path) -> Iterator[Path]:
    """YAML by its name, and what Ansible takes for YAML: variables in a file without a suffix."""
    yield from sorted(path.rglob("*.y*ml")) if path.is_dir() else [path] if path.suffix in (".yml", ".yaml") else ()
    folder = path if path.is_dir() else path.parent
    for file in sorted(file for name in VARIABLES for file in (folder / name).rglob("*") if file.is_file()):
        hidden = file.name.startswith(".") or file.name.endswith("~")
        if not hidden and (not file.suffix or (path.is_file() and file.suffix in (".yml", ".yaml"))):
            yield file


def _twice(file: Path) -> Iterator[str]:
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:  # Ansible says what, but not in which file
        raise InventoryError(str(file), " ".join(str(error).split()), "YAML", "mend it") from None
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
