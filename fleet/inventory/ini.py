"""An inventory as INI: which line says what, for faults that name it. Ansible alone decides what it means."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

SECTION = re.compile(r"\[([^\]:]+)(?::(\w+))?\]\s*(?:[#;].*)?")


@dataclass(frozen=True)
class Line:
    """`kind`: hosts, vars or children. `name`: a host, or of vars and children what they set or name."""

    number: int
    group: str
    kind: str
    name: str
    values: dict[str, str]


def lines(text: str) -> Iterator[Line]:
    """What cannot be read is left out: Ansible says so."""
    group, kind = "ungrouped", "hosts"
    for number, each in enumerate(text.splitlines(), 1):
        said = each.strip()
        if not said or said[0] in "#;":
            continue
        if section := SECTION.fullmatch(said):
            group, kind = section[1].strip(), section[2] or "hosts"
        elif kind == "vars":
            name, _, value = said.partition("=")
            yield Line(number, group, kind, name.strip(), {name.strip(): value.strip()})
        else:
            try:
                host, *rest = shlex.split(said, comments=True)
            except ValueError:
                continue
            yield Line(number, group, kind, host, dict(word.split("=", 1) for word in rest if "=" in word))
