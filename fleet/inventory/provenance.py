"""Find the file of an inventory that sets a value, so that error messages can name the file.

Ansible merges all files into one output (`ansible-inventory --list`), which does not show where a value comes from.
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
SUFFIXES = ("", ".yml", ".yaml", ".json")  # Ansible's YAML_FILENAME_EXTENSIONS, and no suffix
IGNORED = (".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry")  # as Ansible
PRIORITY = "ansible_group_priority"
ANY_VALUE = object()
Variables = Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """Reads YAML, and replaces each value that has one of Ansible's tags, such as !vault, with null.

    Here, it matters only that such a value exists.
    """


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


class InventoryFiles:
    """The files of one inventory. Each file is read only once."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder = path, path if path.is_dir() else path.parent
        self._mappings: dict[Path, Variables] = {}
        self._files: dict[str, list[Path]] = {}

    def declaring_file(self, host: str, field: str, groups: Iterable[str], value: Any = ANY_VALUE) -> str:
        """Return the file that sets a variable of a host, or the inventory's path if the file cannot be determined.

        Args:
            host: The host's name.
            field: The variable's name.
            groups: The groups of the host.
            value: The value that Ansible chose, which identifies the file if several groups set the variable.
        """
        declared = [(file, values[field]) for file, values in self._declarations(host, [*groups]) if field in values]
        files = list(dict.fromkeys(file for file, each in declared if value is ANY_VALUE or each == value))
        # The value is a template, or YAML that Ansible reads differently.
        if not files and len({file for file, _ in declared}) == 1:
            files = [declared[0][0]]
        return str(files[0] if files else self.path)

    def conflicting_groups(self, host: str, field: str, depths: Mapping[str, int]) -> dict[str, tuple[Path, Any]]:
        """Return the groups of a host that have the highest precedence, if they set different values of a variable.

        These groups have the same precedence, so Ansible would choose the group whose name sorts last.

        Args:
            host: The host's name.
            field: The variable's name.
            depths: The depth of each group of the host below `all`.

        Returns:
            The file and the value of each of these groups, by group name; empty if the host itself sets the variable,
            or if the groups set the same value.
        """
        if any(field in values for _, values in self._host(host)):
            return {}
        for level in (self._in_files, self._in_sources):  # group_vars/ takes precedence over hosts.yml
            declared = {
                name: (file, values[field]) for name in depths for file, values in level(name) if field in values
            }
            if declared:
                rank = {name: (depths[name], self._priority(name)) for name in declared}
                first = {name: each for name, each in declared.items() if rank[name] == max(rank.values())}
                return first if len({str(value) for _, value in first.values()}) > 1 else {}
        return {}

    def _priority(self, group: str) -> int:
        priorities = [values[PRIORITY] for _, values in self._in_sources(group) if PRIORITY in values]
        return int(priorities[-1]) if priorities and str(priorities[-1]).isdigit() else 1

    def _declarations(self, host: str, groups: list[str]) -> Iterator[tuple[Path, Variables]]:
        """Yield each file that sets variables of a host or of its groups, together with these variables.

        The file with the highest precedence comes first.
        """
        yield from self._host(host)
        for level in (self._in_files, self._in_sources):
            for group in (*reversed(groups), "all"):
                yield from level(group)

    def _host(self, host: str) -> Iterator[tuple[Path, Variables]]:
        yield from self._in(f"host_vars/{host}")
        yield from ((file, values) for file, hosts, _ in self._inline for values in hosts.get(host, ()))

    def _in_files(self, group: str) -> Iterator[tuple[Path, Variables]]:
        yield from self._in(f"group_vars/{group}")

    def _in_sources(self, group: str) -> Iterator[tuple[Path, Variables]]:
        yield from ((file, values) for file, _, vars_of in self._inline for values in vars_of.get(group, ()))

    @cached_property
    def _inline(self) -> list[tuple[Path, dict[str, list[Any]], dict[str, list[Any]]]]:
        return [
            (file, *(_parts(self._mapping(file)) if is_yaml(file) else _ini(file)))
            for file in inventory_files(self.path)
        ]

    def _in(self, name: str) -> Iterator[tuple[Path, Variables]]:
        if name not in self._files:
            at = f"{self.folder}/{name}"  # pathlib would raise for a name that is too long for a file
            names = [at + suffix for suffix in (".yml", ".yaml", ".json", "")]
            files = [Path(each) for each in names if os.path.isfile(each)]  # noqa: PTH113 - see `at`
            below = sorted(Path(at).rglob("*")) if os.path.isdir(at) else []  # noqa: PTH112 - see `at`
            self._files[name] = [*files, *(each for each in below if each.is_file() and each.suffix in SUFFIXES)]
        yield from ((file, self._mapping(file)) for file in self._files[name])

    def _mapping(self, file: Path) -> Mapping[str, Any]:
        if file not in self._mappings:
            try:
                value = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # noqa: S506 a SafeLoader
            except (yaml.YAMLError, ValueError, RecursionError):  # Ansible could read the file
                value = None
            self._mappings[file] = value if isinstance(value, dict) else {}
        return self._mappings[file]


def _parts(tree: Mapping[str, Any]) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return the variables of each host and of each group in a YAML or JSON inventory file."""
    hosts: dict[str, list[Any]] = {}
    groups: dict[str, list[Any]] = {}
    pending = [tree]
    while pending:
        for name, group in pending.pop().items():
            if not isinstance(group, dict):
                continue
            for host, values in _part(group, "hosts").items():
                hosts.setdefault(str(host), []).append(values if isinstance(values, dict) else {})
            groups.setdefault(str(name), []).append(_part(group, "vars"))
            pending.append(_part(group, "children"))
    return hosts, groups


def _part(group: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = group.get(name)
    return value if isinstance(value, dict) else {}


def inventory_files(path: Path) -> Iterator[Path]:
    """Yield the inventory files that Ansible parses.

    Inventory scripts are left out, because Ansible executes them instead.
    """
    files = (file for file in sorted(path.rglob("*")) if _is_source(file.relative_to(path)))
    for file in files if path.is_dir() else [path]:
        if file.is_file() and not file.read_bytes().startswith(b"#!"):
            yield file


def _is_source(file: Path) -> bool:
    is_hidden = any(part in VARIABLES or part.startswith(".") for part in file.parts)
    return not is_hidden and not file.name.endswith(IGNORED)


def variable_files(path: Path) -> Iterator[Path]:
    """Yield the files below group_vars and host_vars that Ansible reads."""
    folder = path if path.is_dir() else path.parent
    for file in sorted(file for name in VARIABLES for file in (folder / name).rglob("*") if file.is_file()):
        if not file.name.startswith(".") and not file.name.endswith("~") and file.suffix in SUFFIXES:
            yield file


def is_yaml(file: Path) -> bool:
    """Return whether Ansible reads an inventory file as YAML or JSON rather than as INI."""
    if file.suffix:
        return file.suffix in SUFFIXES
    try:
        return isinstance(yaml.compose(file.read_text(encoding="utf-8")), yaml.MappingNode)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False


def _ini(file: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Return the variables of each host and of each group in an INI inventory file. All values are strings."""
    hosts: dict[str, list[Any]] = {}
    groups: dict[str, list[Any]] = {}
    for entry in ini.entries(file.read_text(encoding="utf-8", errors="replace")):
        if entry.kind == "hosts":
            hosts.setdefault(entry.name, []).append(entry.values)
        elif entry.kind == "vars":
            groups.setdefault(entry.group, []).append(entry.values)
    return hosts, groups
