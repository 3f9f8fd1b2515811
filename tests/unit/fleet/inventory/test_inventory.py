"""What is declared is read as Ansible reads it; what is wrong is named by file, host and field."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.errors import InventoryError
from fleet.inventory import model
from tests.support.paths import REPOSITORY

FLEET = {"fleet": {"name": "farm", "development": True}, "device_type": "generic"}


def write(folder: Path, hosts: dict[str, Any], **files: Any) -> Path:
    """An inventory: `hosts` by group below `devices`; files by name, `__` for a slash."""
    groups = {name: {"hosts": members} for name, members in hosts.items()}
    tree = {"all": {"children": {"devices": {"children": groups}}}}
    for name, content in {"hosts": tree, **files}.items():
        file = folder / f"{name.replace('__', '/')}.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return folder


def good(folder: Path, **changes: Any) -> Path:
    files: dict[str, Any] = {
        "group_vars__all": FLEET,
        "group_vars__canaries": {"wave": 0, "release": "digits@1.2.0"},
        "group_vars__rest": {"wave": 1, "release": "digits@1.1.0"},
    }
    hosts = {"canaries": {"a": {"ansible_host": "192.0.2.1"}}, "rest": {"b": {"ansible_host": "192.0.2.2"}}}
    return write(folder, changes.pop("hosts", hosts), **{**files, **changes})


def refused(path: Path) -> str:
    with pytest.raises(InventoryError) as caught:
        model.load(path)
    assert caught.value.exit_code == 12
    return str(caught.value)


def test_devices_come_with_what_is_declared_for_them(tmp_path: Path) -> None:
    found = model.load(good(tmp_path))

    assert (found.name, found.development) == ("farm", True)
    first, second = found.devices
    assert (first.name, first.address, first.type, first.wave) == ("a", "192.0.2.1", "generic", 0)
    assert (first.release, second.release) == ("digits@1.2.0", "digits@1.1.0")
    assert first.groups == ("canaries", "devices")
    assert {wave: [each.name for each in members] for wave, members in found.waves().items()} == {0: ["a"], 1: ["b"]}
    assert found.device("b") is second


def test_what_a_host_says_wins_over_its_group(tmp_path: Path) -> None:
    found = model.load(good(tmp_path, host_vars__b={"release": "digits@2.0.0-rc.1"}))

    assert found.device("b").release == "digits@2.0.0-rc.1"


@pytest.mark.parametrize("name", ["example", "embedded"])
def test_the_inventories_here_are_in_order(name: str) -> None:
    found = model.load(REPOSITORY / "inventory" / name)

    assert found.name == name and found.waves()[0] and len(found.waves()) > 1


def test_the_keys_of_its_hosts_lie_beside_the_example(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "inventory/example", tmp_path, dirs_exist_ok=True)
    first = model.load(tmp_path).devices[0]
    words = shlex.split(first.variables["ansible_ssh_common_args"])
    known = re.search(r'^UserKnownHostsFile="\{\{ inventory_dir }}/(\S+)" ~/.ssh/known_hosts$', words[1])
    assert known, "quoted for ssh too, wherever the folder lies"
    (tmp_path / known[1]).write_text(f"{first.address} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5\n")

    assert model.load(tmp_path).devices[0].name == first.name


@pytest.mark.parametrize(
    ("changes", "file", "message"),
    [
        ({"group_vars__rest": {"wave": "one"}}, "group_vars/rest.yml", "b: wave: found 'one', expected a whole number"),
        ({"group_vars__rest": {"wave": True}}, "group_vars/rest.yml", "b: wave: found True"),
        ({"group_vars__rest": {}}, "", "b: wave: found nothing"),
        ({"host_vars__b": {"release": "digits-1.2"}}, "host_vars/b.yml", "b: release: found 'digits-1.2'"),
        ({"group_vars__all": {**FLEET, "device_type": "a b"}}, "group_vars/all.yml", "device_type: found 'a b'"),
        ({"group_vars__all": {"device_type": "x"}}, "", "a: fleet: found nothing"),
        ({"host_vars__b": {"fleet": {"name": "x", "development": True}}}, "", "'name': 'x'"),
        ({"group_vars__canaries": {"wave": 3}}, "", "wave: found no device in wave 0"),
        (
            {"host_vars__b": {"ansible_ssh_common_args": "-o StrictHostKeyChecking=no"}},
            "host_vars/b.yml",
            "expected host keys that are checked",
        ),
        ({"host_vars__b": {"ansible_host_key_checking": False}}, "host_vars/b.yml", "expected host keys that are"),
        (
            {"hosts": {"canaries": {"a": {"ansible_host": "192.0.2.1"}}, "rest": {"b": {"ansible_host": "192.0.2.1"}}}},
            "hosts.yml",
            "b: ansible_host: found '192.0.2.1', the address of a",
        ),
        ({"hosts": {}}, "", "found no host in the group devices"),
    ],
)
def test_a_fault_is_named_by_file_host_and_field(
    tmp_path: Path, changes: dict[str, Any], file: str, message: str
) -> None:
    said = refused(good(tmp_path, **changes))

    assert message in said
    assert str(tmp_path / file) in said


@pytest.mark.parametrize("field", ["rollout_answer_s", "rollout_back_s", "rollout_deploy_s"])
def test_a_time_limit_is_seconds_that_can_be_waited(tmp_path: Path, field: str) -> None:
    wrong = [0, -1, float("inf"), float("nan"), 1e300, 604801, "30m", "60", True, None, [60], "{{ 60 }}"]
    hosts = {"canaries": {"a": {}}, "rest": {f"b{number}": {} for number, _ in enumerate(wrong)}}
    said = {f"host_vars__b{number}": {field: value} for number, value in enumerate(wrong)}

    found = refused(good(tmp_path, hosts=hosts, **said))

    assert f"{len(wrong)} fault(s)" in found
    for number, value in enumerate(wrong):
        assert (
            f"{tmp_path / f'host_vars/b{number}.yml'}: b{number}: {field}: found {value!r}, expected seconds" in found
        )
    right = {"host_vars__a": {field: 0.5}, "host_vars__b": {field: 604800}}
    assert model.load(good(tmp_path / "right", **right)).device("b").variables[field] == 604800


UNCHECKED = [
    ("ansible_ssh_host_key_checking", False),
    ("ansible_ssh_host_key_checking", "nope"),  # Ansible takes any word that it does not know for false
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
def test_host_keys_are_checked_whatever_is_declared(tmp_path: Path, field: str, value: Any) -> None:
    said = refused(good(tmp_path, host_vars__b={field: value}))

    assert f"{tmp_path / 'host_vars/b.yml'}: b: {field}: found {value!r}" in said
    assert "expected" in said and "1 fault(s)" in said


def test_where_host_keys_are_may_be_said(tmp_path: Path) -> None:
    known = "-o UserKnownHostsFile={{ inventory_dir }}/known_hosts -o GlobalKnownHostsFile=/etc/ssh/known"
    known += " -oForwardAgent=no -f -o StrictHostKeyChecking=yes -i /keys/no-F"
    said = {
        "ansible_ssh_common_args": known,
        "ansible_host_key_checking": True,
        "ansible_ssh_host_key_checking": "yes",
        "ansible_ssh_executable": "/usr/bin/ssh",
        "ansible_sftp_executable": "sftp",
    }

    assert model.load(good(tmp_path, host_vars__b=said)).device("b").variables["ansible_ssh_common_args"] == known


TREE = """\
all:
  children:
    devices:
      vars: {{device_type: generic}}
      children:
        canaries:
          vars: {{wave: 0}}
          hosts:
            a: {a}
        rest:
          vars: {rest}
          hosts:
            b: {b}
"""


@pytest.mark.parametrize(
    ("said", "files", "file", "message"),
    [
        ({"b": "{release: x}"}, {"group_vars__rest": {"release": "digits@1.0.0"}}, "hosts.yml", "b: release"),
        ({"rest": "{wave: 1, release: x}"}, {"host_vars__a": {"release": "digits@1.0.0"}}, "hosts.yml", "b: release"),
        ({"rest": "{wave: 1, release: x}"}, {"group_vars__devices": {"release": "digits@1.0.0"}}, "", None),
        ({"a": "{release: digits@1.0.0}"}, {"group_vars__rest": {"release": "x"}}, "group_vars/rest.yml", "b: release"),
        ({}, {"group_vars__canaries": {"release": "x"}, "group_vars__devices": {"release": "digits@1.0.0"}},
         "group_vars/canaries.yml", "a: release: found 'x'"),
        ({}, {"group_vars__canaries": {"release": "digits@1.0.0"}, "group_vars__devices": {"release": "x"}},
         "group_vars/devices.yml", "b: release: found 'x'"),
        ({"a": "{release: digits@1.0.0, wave: zero}"}, {"host_vars__b": {"wave": 1}}, "hosts.yml", "a: wave"),
        ({"rest": "{}"}, {}, "", "b: wave: found nothing"),
        ({"a": "{secret: !vault x, release: x}"}, {}, "hosts.yml", "a: release: found 'x'"),
    ],
)  # fmt: skip
def test_the_file_that_is_blamed_says_it(
    tmp_path: Path, said: dict[str, str], files: dict[str, Any], file: str, message: str | None
) -> None:
    """Ansible decides which of several files wins: for a host its own, then its group's, what is in hosts.yml last."""
    hosts = TREE.format(**{"a": "{ansible_host: 192.0.2.1}", "b": "{}", "rest": "{wave: 1}", **said})
    path = good(tmp_path, **{"group_vars__canaries": {}, "group_vars__rest": {}, **files})
    (path / "hosts.yml").write_text(hosts)

    if message is None:
        assert model.load(path).device("b").release == "digits@1.0.0"
    else:
        assert f"  {tmp_path / file}: {message}".replace("/: ", ": ") in refused(path)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "all", "ungrouped", "devices", "rest", "rollout_pending"])
def test_a_name_that_means_something_else_is_refused(tmp_path: Path, name: str) -> None:
    said = refused(good(tmp_path, hosts={"canaries": {name: {"ansible_host": "192.0.2.9"}}, "rest": {"b": {}}}))

    assert f"{tmp_path}: {name}: found a name that means something else" in said


def test_a_group_of_the_playbooks_own_is_refused(tmp_path: Path) -> None:
    said = refused(good(tmp_path, hosts={"canaries": {"a": {}}, "rest": {"b": {}}, "rollout_pending": {"b": {}}}))

    assert "found the group 'rollout_pending'" in said


def test_a_file_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    assert "group_vars/rest.yml" in refused(good(tmp_path, group_vars__rest="[" * 5000))


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    said = refused(good(tmp_path, host_vars__a={"wave": -1}, host_vars__b={"release": "x", "device_type": 3}))

    assert "3 fault(s)" in said


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    assert "group_vars/rest.yml" in refused(good(tmp_path, group_vars__rest="wave: [1\n"))


def test_an_inventory_that_ansible_cannot_read_is_refused(tmp_path: Path) -> None:
    assert "hosts.yml" in refused(good(tmp_path, hosts={"rest": 3}))


def test_no_inventory_at_all(tmp_path: Path) -> None:
    assert "not there" in refused(tmp_path / "nothing")


def test_an_inventory_that_takes_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "TIMEOUT_S", 0.01)

    assert f"{tmp_path}: ansible-inventory has not read it within" in refused(good(tmp_path)).replace(": found", ":")


@pytest.mark.parametrize("group", [None, "devices"])
def test_a_rollout_of_nobody_begins_nothing(tmp_path: Path, group: str | None) -> None:
    tree = {"all": {"children": {group: {"hosts": {}}} if group else {}, "hosts": {"a": {}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "fleet", "rollout", "-i", str(tmp_path / "hosts.yml"), "--rollouts"]

    done = subprocess.run([*command, str(tmp_path / "rollouts")], capture_output=True, text=True, cwd=REPOSITORY)

    assert done.returncode == 12, done.stderr
    assert "found no host in the group devices" in done.stderr
    assert not (tmp_path / "rollouts").exists()


@pytest.mark.parametrize("playbook", ["rollout", "rollback", "bootstrap"])
def test_two_inventories_at_once_are_refused(tmp_path: Path, playbook: str) -> None:
    """Ansible would merge them; what is planned, or called back, is the first one's."""
    both = [argument for name in ("one", "two") for argument in ("-i", str(good(tmp_path / name)))]
    program = Path(sys.executable).with_name("ansible-playbook")

    command = [program, *both, f"playbooks/{playbook}.yml", "--limit", "a", "-e", "reason=test"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    assert done.returncode == 2, done.stdout
    assert f"inventories: found {tmp_path / 'one'}, {tmp_path / 'two'}, expected one" in done.stdout


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="no device 'c'"):
        model.load(good(tmp_path)).device("c")
