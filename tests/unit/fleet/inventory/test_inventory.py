"""An inventory is read as Ansible reads it; faults are reported with file, host and field."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.errors import InventoryError
from fleet.inventory import listing, model
from tests.support.fleet.inventories import FLEET, TREE, good, refused, write
from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow  # each starts ansible-inventory


def test_devices_have_their_declared_values(tmp_path: Path) -> None:
    fleet = model.load(good(tmp_path))

    assert (fleet.name, fleet.development) == ("farm", True)
    first, second = fleet.devices
    assert (first.name, first.address, first.type, first.wave) == ("a", "192.0.2.1", "generic", 0)
    assert (first.release, second.release) == ("digits@1.2.0", "digits@1.1.0")
    assert first.groups == ("canaries", "devices")
    assert {wave: [each.name for each in members] for wave, members in fleet.waves().items()} == {0: ["a"], 1: ["b"]}
    assert fleet.device("b") is second


INI = """\
[canaries]
a ansible_host=192.0.2.1 wave=0
[rest]
b ansible_host=192.0.2.2 {own}
[devices:children]
canaries
rest
[rest:vars]
wave=1
"""


@pytest.mark.parametrize(
    ("host", "variables", "wave"), [("b wave=3", "", 3), ("b", "\n[more:vars]\nansible_group_priority=9\n", 6)]
)
def test_an_ini_inventory_decides_between_the_files_of_its_groups(
    tmp_path: Path, host: str, variables: str, wave: int
) -> None:
    """By the host's own value, or by a group's priority, as Ansible does."""
    files = {"all": FLEET, "rest": {"wave": 5, "release": "digits@1.0.0"}, "more": {"wave": 6}}
    path = write(tmp_path, {}, **{f"group_vars__{name}": values for name, values in files.items()})
    (path / "hosts.yml").unlink()
    groups = f"[first]\na wave=0 release=digits@1.0.0\n[rest]\n{host}\n[more]\nb\n"
    (path / "hosts").write_text(f"[devices:children]\nfirst\nrest\nmore\n{groups}{variables}")

    assert model.load(path).device("b").wave == wave


@pytest.mark.parametrize("name", ["hosts", "hosts.ini"])
def test_an_inventory_may_be_ini(tmp_path: Path, name: str) -> None:
    path = good(tmp_path, group_vars__canaries={}, group_vars__rest={"release": "digits@1.1.0"})
    (path / "hosts.yml").unlink()
    (path / name).write_text(INI.format(own=""))

    fleet = model.load(path)

    assert [(each.name, each.address, each.wave) for each in fleet.devices] == [
        ("a", "192.0.2.1", 0),
        ("b", "192.0.2.2", 1),
    ]
    assert model.load(path / name).device("b").release == "digits@1.1.0"

    (path / name).write_text(INI.format(own="wave=one"))
    assert f"{path / name}: b: wave: found 'one', expected a whole number" in refused(path)


def test_an_inventory_may_be_json(tmp_path: Path) -> None:
    path = good(tmp_path)
    tree = yaml.safe_load((path / "hosts.yml").read_text())
    (path / "hosts.yml").unlink()
    (path / "hosts.json").write_text(json.dumps(tree))

    assert model.load(path).device("b").address == "192.0.2.2"

    devices = tree["all"]["children"]["devices"]["children"]
    devices["rest"]["hosts"]["b"]["release"] = "x"
    (path / "hosts.json").write_text(json.dumps(tree))
    assert f"{path / 'hosts.json'}: b: release: found 'x'" in refused(path)


def test_a_hosts_value_overrides_its_groups(tmp_path: Path) -> None:
    fleet = model.load(good(tmp_path, host_vars__b={"release": "digits@2.0.0-rc.1"}))

    assert fleet.device("b").release == "digits@2.0.0-rc.1"


@pytest.mark.parametrize("name", ["example", "embedded"])
def test_the_shipped_inventories_are_valid(name: str) -> None:
    fleet = model.load(REPOSITORY / "inventory" / name)

    assert fleet.name == name and fleet.waves()[0] and len(fleet.waves()) > 1


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
            "so that host keys are checked",
        ),
        ({"host_vars__b": {"ansible_host_key_checking": False}}, "host_vars/b.yml", "expected true or no value"),
        (
            {"hosts": {"canaries": {"a": {"ansible_host": "192.0.2.1"}}, "rest": {"b": {"ansible_host": "192.0.2.1"}}}},
            "hosts.yml",
            "b: ansible_host: found '192.0.2.1', which is also the address of a",
        ),
        ({"hosts": {}}, "", "found no host in the group devices"),
    ],
)
def test_a_fault_is_reported_with_file_host_and_field(
    tmp_path: Path, changes: dict[str, Any], file: str, message: str
) -> None:
    refusal = refused(good(tmp_path, **changes))

    assert message in refusal
    assert str(tmp_path / file) in refusal


@pytest.mark.parametrize("field", ["rollout_answer_s", "rollout_back_s", "rollout_deploy_s"])
def test_a_time_limit_is_a_positive_number_of_seconds(tmp_path: Path, field: str) -> None:
    invalid = [0, -1, float("inf"), float("nan"), 1e300, 604801, "30m", "60", True, None, [60], "{{ 60 }}"]
    hosts = {"canaries": {"a": {}}, "rest": {f"b{number}": {} for number, _ in enumerate(invalid)}}
    variables = {f"host_vars__b{number}": {field: value} for number, value in enumerate(invalid)}

    message = refused(good(tmp_path, hosts=hosts, **variables))

    assert f"{len(invalid)} error(s)" in message
    for number, value in enumerate(invalid):
        file = tmp_path / f"host_vars/b{number}.yml"
        assert f"{file}: b{number}: {field}: found {value!r}, expected a number of seconds" in message
    valid = {"host_vars__a": {field: 0.5}, "host_vars__b": {field: 604800}}
    assert model.load(good(tmp_path / "right", **valid)).device("b").variables[field] == 604800


@pytest.mark.parametrize(
    ("declared", "files", "file", "message"),
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
def test_the_reported_file_sets_the_value(
    tmp_path: Path, declared: dict[str, str], files: dict[str, Any], file: str, message: str | None
) -> None:
    """Ansible decides which file takes precedence: the host's own, then its group's, and hosts.yml last."""
    hosts = TREE.format(**{"a": "{ansible_host: 192.0.2.1}", "b": "{}", "rest": "{wave: 1}", **declared})
    path = good(tmp_path, **{"group_vars__canaries": {}, "group_vars__rest": {}, **files})
    (path / "hosts.yml").write_text(hosts)

    if message is None:
        assert model.load(path).device("b").release == "digits@1.0.0"
    else:
        assert f"  {tmp_path / file}: {message}".replace("/: ", ": ") in refused(path)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "all", "ungrouped", "devices", "rest", "rollout_pending"])
def test_a_reserved_name_is_refused(tmp_path: Path, name: str) -> None:
    refusal = refused(good(tmp_path, hosts={"canaries": {name: {"ansible_host": "192.0.2.9"}}, "rest": {"b": {}}}))

    assert f"{tmp_path}: {name}: found a name that Ansible or the playbooks use" in refusal


def test_a_group_with_the_playbooks_prefix_is_refused(tmp_path: Path) -> None:
    refusal = refused(good(tmp_path, hosts={"canaries": {"a": {}}, "rest": {"b": {}}, "rollout_pending": {"b": {}}}))

    assert "found the group 'rollout_pending'" in refusal


def test_a_file_that_is_nested_too_deeply_is_reported(tmp_path: Path) -> None:
    assert "group_vars/rest.yml" in refused(good(tmp_path, group_vars__rest="[" * 5000))


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    refusal = refused(good(tmp_path, host_vars__a={"wave": -1}, host_vars__b={"release": "x", "device_type": 3}))

    assert "3 error(s)" in refusal


def test_a_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    assert "group_vars/rest.yml" in refused(good(tmp_path, group_vars__rest="wave: [1\n"))


def test_an_inventory_that_ansible_cannot_read_is_refused(tmp_path: Path) -> None:
    assert "hosts.yml" in refused(good(tmp_path, hosts={"rest": 3}))


def test_no_inventory_at_all(tmp_path: Path) -> None:
    assert "there is no such path" in refused(tmp_path / "nothing")


def test_an_inventory_that_takes_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "TIMEOUT_S", 0.01)

    assert f"{tmp_path}: ansible-inventory did not read the inventory within" in refused(good(tmp_path)).replace(
        ": found", ":"
    )


@pytest.mark.parametrize("group", [None, "devices"])
def test_a_rollout_of_nobody_begins_nothing(tmp_path: Path, group: str | None) -> None:
    tree = {"all": {"children": {group: {"hosts": {}}} if group else {}, "hosts": {"a": {}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(tree))
    command = [sys.executable, "-m", "fleet", "rollout", "-i", str(tmp_path / "hosts.yml"), "--rollouts"]

    done = subprocess.run([*command, str(tmp_path / "rollouts")], capture_output=True, text=True, cwd=REPOSITORY)

    assert done.returncode == 12, done.stderr
    assert "found no host in the group devices" in done.stderr
    assert not (tmp_path / "rollouts").exists()


EXHAUSTIVE = [pytest.param(name, marks=pytest.mark.exhaustive) for name in ("rollback", "bootstrap")]


@pytest.mark.parametrize("playbook", ["rollout", *EXHAUSTIVE])
def test_two_inventories_at_once_are_refused(tmp_path: Path, playbook: str) -> None:
    """Ansible would merge them; what is planned, or called back, is the first one's."""
    both = [argument for name in ("one", "two") for argument in ("-i", str(good(tmp_path / name)))]
    program = Path(sys.executable).with_name("ansible-playbook")

    command = [program, *both, f"playbooks/{playbook}.yml", "--limit", "a", "-e", "reason=test"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)

    assert done.returncode == 2, done.stdout
    assert f"inventories: found {tmp_path / 'one'}, {tmp_path / 'two'}, expected exactly one" in done.stdout


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="no device 'c'"):
        model.load(good(tmp_path)).device("c")
