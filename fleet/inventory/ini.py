"""Read the entries of an INI inventory, so that error messages can name the file with the error.

The entries are used only in error messages. The values that rollouts use come from Ansible.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

SECTION = re.compile(r"\[([^\]:]+)(?::(\w+))?\]\s*(?:[#;].*)?")


@dataclass(frozen=True)
class Entry:
    """A line of an INI file that declares a host, a variable or a child group of `group`.

    `kind` is hosts, vars or children; `name` is the name of the host, the variable or the child group. `values` are the
    variables that the line sets.
    """

    group: str
    kind: str
    name: str
    values: dict[str, str]


def entries(text: str) -> Iterator[Entry]:
    """Yield the entries of an INI text in order.

    Lines that cannot be parsed are skipped, because Ansible reports them.
    """
    group, kind = "ungrouped", "hosts"
    for line in (each.strip() for each in text.splitlines()):
        if not line or line[0] in "#;":
            continue
        if section := SECTION.fullmatch(line):
            group, kind = section[1].strip(), section[2] or "hosts"
        elif kind == "vars":
            name, _, value = line.partition("=")
            yield Entry(group, kind, name.strip(), {name.strip(): value.strip()})
        else:
            try:
                host, *words = shlex.split(line, comments=True)
            except ValueError:
                continue
            yield Entry(group, kind, host, dict(word.split("=", 1) for word in words if "=" in word))
