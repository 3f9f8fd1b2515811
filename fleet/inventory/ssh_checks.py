"""Whether what an inventory says of SSH lets Ansible reach a host whose key nobody knows.

ansible.cfg checks keys, and so does the environment of `fleet`; a variable of Ansible's ssh connection wins over both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

CHECKING = ("ansible_host_key_checking", "ansible_ssh_host_key_checking", "ansible_paramiko_host_key_checking")
TRUE = ("true", "yes", "on", "1", "y", "t")  # Ansible takes every other word for false
ARGUMENTS = (
    "ansible_ssh_args",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
    "ansible_sftp_extra_args",
    "ansible_scp_extra_args",
)
PROGRAMS = {"ansible_ssh_executable": "ssh", "ansible_sftp_executable": "sftp", "ansible_scp_executable": "scp"}
UNCHECKED = re.compile(
    r"(?i:StrictHostKeyChecking[=\s]+(no|off|false|accept-new)\b"
    r"|(User|Global)KnownHostsFile[=\s]+(/dev/null|none)(?!\S)"
    r"|NoHostAuthenticationForLocalhost[=\s]+(yes|true)\b"
    r"|\bKnownHostsCommand[=\s]"  # vouches for whatever it likes
    r"|\bInclude[=\s])"
    r"|(?<!\S)-[46AaCfGgKkMNnqsTtVvXxYy]*F"  # another configuration, which may say any of these
)
QUOTING = str.maketrans("", "", "\"'\\")
PLACE = re.compile(r"\{\{ *inventory_dir *\}\}")  # the one template whose value is known here: a folder


def faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, what is expected of it) of each variable that would let a host in unchecked, or may."""
    for field in CHECKING:
        if str(values.get(field, True)).lower() not in TRUE:
            yield field, "host keys that are checked: true, or nothing"
    for field in ARGUMENTS:
        value = values.get(field, "")
        text = PLACE.sub("/", value) if isinstance(value, str) else "{{"
        if any(mark in text for mark in ("{{", "{%", "{#")):
            yield field, "host keys that are checked: a text, without a template but {{ inventory_dir }}"
        elif UNCHECKED.search(text.translate(QUOTING)):
            yield field, "host keys that are checked: known_hosts of your own, no -F, no Include, no KnownHostsCommand"
    for field, name in PROGRAMS.items():
        if field in values and not re.fullmatch(rf"(/(\S*/)?)?{name}", str(values[field])):
            yield field, f"host keys that are checked: {name}, or a path from / that ends with it"
