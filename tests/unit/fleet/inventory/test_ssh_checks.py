"""SSH variables of an inventory cannot disable the check of host keys."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from fleet.inventory import model
from tests.support.fleet.inventories import good, refused
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow  # each starts ansible-inventory


def test_the_example_has_known_hosts_in_its_folder(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "inventory/example", tmp_path, dirs_exist_ok=True)
    first = model.load(tmp_path).devices[0]
    words = shlex.split(first.variables["ansible_ssh_common_args"])
    match = re.search(r'^UserKnownHostsFile="\{\{ inventory_dir }}/(\S+)" ~/.ssh/known_hosts$', words[1])
    assert match, "quoted for ssh too, for any path of the folder"
    (tmp_path / match[1]).write_text(f"{first.address} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n")

    assert model.load(tmp_path).devices[0].name == first.name


UNCHECKED = [
    ("ansible_ssh_host_key_checking", False),
    ("ansible_ssh_host_key_checking", "nope"),  # Ansible reads an unknown word as false
    ("ansible_host_key_checking", "{{ checked }}"),
    ("ansible_paramiko_host_key_checking", 0),
    ("ansible_ssh_common_args", "{{ opts }}"),
    ("ansible_ssh_args", "-oStrictHostKeyChecking=false"),
    ("ansible_ssh_extra_args", "-o 'StrictHostKeyChecking = \"no\"'"),
    ("ansible_ssh_extra_args", "-o Strict\\HostKeyChecking=off"),
    ("ansible_sftp_extra_args", "-ostricthostkeychecking=accept-new"),
    ("ansible_scp_extra_args", "-o UserKnownHostsFile=/dev/null"),
    ("ansible_ssh_common_args", "-oUserKnownHostsFile=none"),
    ("ansible_ssh_common_args", "-oGlobalKnownHostsFile=/dev/null"),
    ("ansible_ssh_common_args", "-oNoHostAuthenticationForLocalhost=yes"),
    ("ansible_ssh_common_args", "-F /tmp/config"),
    ("ansible_ssh_common_args", "-4F/tmp/config"),
    ("ansible_ssh_common_args", "-o Include=/tmp/config"),
    ("ansible_ssh_common_args", "-o 'KnownHostsCommand /tmp/any %H'"),
    ("ansible_ssh_common_args", ["-v"]),
    ("ansible_ssh_executable", "/usr/local/bin/ssh-unchecked"),
    ("ansible_ssh_executable", "tools/ssh"),
    ("ansible_scp_executable", "/bin/sh"),
]


@pytest.mark.parametrize(("field", "value"), UNCHECKED)
def test_a_variable_that_disables_the_check_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    message = refused(good(tmp_path, host_vars__b={field: value}))

    assert f"{tmp_path / 'host_vars/b.yml'}: b: {field}: found {value!r}" in message
    assert "expected" in message and "1 error(s)" in message


def test_the_location_of_host_keys_may_be_declared(tmp_path: Path) -> None:
    arguments = "-o UserKnownHostsFile={{ inventory_dir }}/known_hosts -o GlobalKnownHostsFile=/etc/ssh/known"
    arguments += " -oForwardAgent=no -f -o StrictHostKeyChecking=yes -i /keys/no-F"
    variables = {
        "ansible_ssh_common_args": arguments,
        "ansible_host_key_checking": True,
        "ansible_ssh_host_key_checking": "yes",
        "ansible_ssh_executable": "/usr/bin/ssh",
        "ansible_sftp_executable": "sftp",
    }

    assert (
        model.load(good(tmp_path, host_vars__b=variables)).device("b").variables["ansible_ssh_common_args"] == arguments
    )
