"""Which file of an inventory says what: for faults that name it.

Ansible merges all files into one answer (`ansible-inventory --list`), which no longer tells where a value came from.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fleet.inventory import ini

VARIABLES = ("group_vars", "host_vars")
SUFFIXES = ("", ".yml", ".yaml", ".json")  # as ansible.cfg has them: YAML_FILENAME_EXTENSIONS, and none
IGNORED = (".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry")  # as Ansible
PRIORITY = "ansible_group_priority"
SOME = object()  # whatever the value is


class _Loader(yaml.SafeLoader):
    """A value with a tag of Ansible's, such as !vault, is there; nobody here needs to know it."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


class Declared:
    """The files of one inventory, each read once."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path if path.is_dir() else path.parent
        self._known: dict[Path, Mapping[str, Any]] = {}
        self._found: dict[str, list[Path]] = {}

    def origin(self, host: str, field: str, groups: Iterable[str], value: Any = SOME) -> str:
        """The file that says a host's variable, as far as one can see it; the inventory where that is not clear."""
        said = [(file, known[field]) for file, known in self._sayings(host, [*groups]) if field in known]
        # NOTE: which of two groups wins is not decided here: Ansible has, and says the value.
        files = list(dict.fromkeys(file for file, each in said if value is SOME or each == value))
        if not files and len({file for file, _ in said}) == 1:  # a template's, or YAML that Ansible reads otherwise
            files = [said[0][0]]
        return str(files[0] if files else self.path)

    def rivals(self, host: str, field: str, depths: Mapping[str, int]) -> dict[str, tuple[Path, Any]]:
        """group -> (file, value) of those that Ansible ranks alike and that say other values for a host.

        `depths`: of its groups. Nothing where the host says it, or where they agree: else the last by name would win.
        """
        if any(field in known for _, known in self._host(host)):
            return {}
        for level in (self._in_files, self._in_sources):  # what group_vars/ says wins over what hosts.yml does
            said = {name: (at, known[field]) for name in depths for at, known in level(name) if field in known}
            if said:
                rank = {name: (depths[name], self._priority(name)) for name in said}
                first = {name: each for name, each in said.items() if rank[name] == max(rank.values())}
                return first if len({str(value) for _, value in first.values()}) > 1 else {}
        return {}

    def _priority(self, group: str) -> int:
        said = [known[PRIORITY] for _, known in self._in_sources(group) if PRIORITY in known]
        return int(said[-1]) if said and str(said[-1]).isdigit() else 1

    def _sayings(self, host: str, groups: list[str]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        """Variables of a host and its groups by file, those that win first, as Ansible's documentation orders them."""
        yield from self._host(host)
        for level in (self._in_files, self._in_sources):
            for group in (*reversed(groups), "all"):
                yield from level(group)

    def _host(self, host: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        yield from self._in(f"host_vars/{host}")
        yield from ((file, known) for file, hosts, _ in self._inline for known in hosts.get(host, ()))

    def _in_files(self, group: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        yield from self._in(f"group_vars/{group}")

    def _in_sources(self, group: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        yield from ((file, known) for file, _, vars_of in self._inline for known in vars_of.get(group, ()))

    @cached_property
    def _inline(self) -> list[tuple[Path, dict[str, list[Any]], dict[str, list[Any]]]]:
        return [(file, *(_parts(self._mapping(file)) if is_tree(file) else _ini(file))) for file in sources(self.path)]

    def _in(self, place: str) -> Iterator[tuple[Path, Mapping[str, Any]]]:
        if place not in self._found:
            at = f"{self.folder}/{place}"  # pathlib would raise where a name is longer than a file's may be
            names = [at + suffix for suffix in (".yml", ".yaml", ".json", "")]
            files = [Path(name) for name in names if os.path.isfile(name)]  # noqa: PTH113
            below = sorted(Path(at).rglob("*")) if os.path.isdir(at) else []  # noqa: PTH112
            self._found[place] = [*files, *(each for each in below if each.is_file() and each.suffix in SUFFIXES)]
        yield from ((file, self._mapping(file)) for file in self._found[place])

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


def sources(path: Path) -> Iterator[Path]:
    """An inventory's own files, as Ansible finds them; programs, whose output it reads, are left out."""
    inside = (file for file in sorted(path.rglob("*")) if _is_source(file.relative_to(path)))
    for file in inside if path.is_dir() else [path]:
        if file.is_file() and not file.read_bytes().startswith(b"#!"):
            yield file


def _is_source(place: Path) -> bool:
    return not any(part in VARIABLES or part.startswith(".") for part in place.parts) and not place.name.endswith(
        IGNORED
    )


def variables(path: Path) -> Iterator[Path]:
    """Files below group_vars and host_vars that Ansible reads."""
    folder = path if path.is_dir() else path.parent
    for file in sorted(file for name in VARIABLES for file in (folder / name).rglob("*") if file.is_file()):
        if not file.name.startswith(".") and not file.name.endswith("~") and file.suffix in SUFFIXES:
            yield file


def is_tree(file: Path) -> bool:
    """Whether Ansible takes an inventory's own file for YAML or JSON, not for INI."""
    if file.suffix:
        return file.suffix in SUFFIXES
    try:
        return isinstance(yaml.compose(file.read_text(encoding="utf-8")), yaml.MappingNode)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def _ini(file: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """As _parts; values are text."""
    hosts: dict[str, list[Any]] = {}
    groups: dict[str, list[Any]] = {}
    for entry in ini.entries(file.read_text(encoding="utf-8", errors="replace")):
        if entry.kind == "hosts":
            hosts.setdefault(entry.name, []).append(entry.values)
        elif entry.kind == "vars":
            groups.setdefault(entry.group, []).append(entry.values)
    return hosts, groups
