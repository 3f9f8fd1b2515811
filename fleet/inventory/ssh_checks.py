"""Refuse SSH variables of an inventory that would let Ansible connect to a host with an unknown host key.

ansible.cfg and the environment variables that `fleet` sets require known host keys, but variables of Ansible's ssh
connection override both.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

CHECKING = ("ansible_host_key_checking", "ansible_ssh_host_key_checking", "ansible_paramiko_host_key_checking")
TRUE = ("true", "yes", "on", "1", "y", "t")  # Ansible reads every other word as false
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
    r"|\bKnownHostsCommand[=\s]"  # a command that can accept any key
    r"|\bInclude[=\s])"
    r"|(?<!\S)-[46AaCfGgKkMNnqsTtVvXxYy]*F"  # -F: a different configuration file, which can contain any of these
)
QUOTING = str.maketrans("", "", "\"'\\")
INVENTORY_DIR = re.compile(r"\{\{ *inventory_dir *\}\}")  # the only template whose value is known here, a folder


def faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each variable that disables or could disable the check of SSH host keys.

    Each result is a pair: the name of the variable, and a description of the expected value.
    """
    for field in CHECKING:
        if str(values.get(field, True)).lower() not in TRUE:
            yield field, "true or no value, so that host keys are checked"
    for field in ARGUMENTS:
        value = values.get(field, "")
        text = INVENTORY_DIR.sub("/", value) if isinstance(value, str) else "{{"
        if any(mark in text for mark in ("{{", "{%", "{#")):
            yield field, "a text with no template except {{ inventory_dir }}, so that host keys are checked"
        elif UNCHECKED.search(text.translate(QUOTING)):
            yield field, "options without -F, Include, KnownHostsCommand and the like, so that host keys are checked"
    for field, name in PROGRAMS.items():
        if field in values and not re.fullmatch(rf"(/(\S*/)?)?{name}", str(values[field])):
            yield field, f"the program {name} or an absolute path to it, so that host keys are checked"
