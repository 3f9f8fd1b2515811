"""Duplicate keys and contradicting groups of an inventory are faults, where Ansible would silently choose one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.inventory import model
from tests.support.fleet.inventories import TREE, good, refused

pytestmark = pytest.mark.slow  # each starts ansible-inventory


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        (
            "hosts.yml",
            TREE.format(a="{}", b="{}", rest="{wave: 1}") + "            b: {release: digits@2.0.0}\n",
            (14, 13),
        ),
        ("hosts.yml", TREE.format(a="{}", b="{}", rest="{wave: 1, wave: 0}"), (11, 11)),
        ("group_vars/all.yml", "fleet: {name: farm, development: true}\ndevice_type: x\nfleet: {}\n", (3, 1)),
        ("group_vars/all/more.yaml", "rollout:\n  bake_s: 5\n  'bake_s': 6\n", (3, 2)),
        ("host_vars/a", "wave: 0\nwave: 1\n", (2, 1)),
    ],
)
def test_a_duplicate_key_is_reported_with_file_and_line(
    tmp_path: Path, name: str, content: str, lines: tuple[int, int]
) -> None:
    path = good(tmp_path)
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(content)

    assert f"{path / name}: line {lines[0]}: found" in (message := refused(path))
    assert f"a duplicate of line {lines[1]}" in message and "each key only once" in message


@pytest.mark.parametrize("indent", [" ", "\t"])
def test_a_duplicate_key_in_json_is_reported(tmp_path: Path, indent: str) -> None:
    path = good(tmp_path)
    (path / "group_vars/rest.yml").unlink()
    file = path / "group_vars/rest.json"
    file.write_text('{\n|"wave": 1,\n|"release": "digits@1.1.0",\n|"release": "digits@1.0.0"\n}'.replace("|", indent))

    message = refused(path)

    assert str(file) in message and "'release'" in message and "each key only once" in message


def test_a_duplicate_key_in_an_inventory_without_a_suffix_is_reported(tmp_path: Path) -> None:
    path = good(tmp_path)
    (path / "hosts.yml").unlink()
    file = path / "hosts"
    file.write_text(TREE.format(a="{}", b="{}", rest="{wave: 1}") + "            b: {release: digits@2.0.0}\n")

    assert f"{file}: line 14: found 'b', a duplicate of line 13" in refused(path)
    assert f"{file}: line 14: found 'b'" in refused(file)


INI = """\
[canaries]
a ansible_host=192.0.2.1
[rest]
b ansible_host=192.0.2.2 {first}
[devices:children]
canaries
rest
[all:vars]
site=basel  # a comment
[rest]
b {second}
{more}
"""


@pytest.mark.parametrize("name", ["hosts", "hosts.ini"])
@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"first": "release=digits@1.0.0", "second": "release=digits@2.0.0"}, "found a duplicate 'b' in [rest]"),
        ({"more": "[all:vars]\nsite=zug"}, "found a duplicate 'site' in [all:vars]"),
        ({"second": "# again"}, ""),
        ({"more": "[all:vars]\nfloor='3"}, ""),
    ],
)
def test_a_duplicate_in_an_ini_file_is_reported(tmp_path: Path, name: str, lines: dict[str, str], message: str) -> None:
    path = good(tmp_path)
    (path / "hosts.yml").unlink()
    (path / name).write_text(INI.format(**{"first": "", "second": "", "more": "", **lines}))

    if message:
        assert f"{path / name}: {message}" in refused(path)
    else:
        assert model.load(path).device("b").address == "192.0.2.2"


BOTH: dict[str, dict[str, Any]] = {"canaries": {"a": {}}, "rest": {"b": {}}, "zurich": {"b": {}}}


@pytest.mark.parametrize("field", ["wave", "release"])
def test_two_groups_with_different_values_are_a_fault(tmp_path: Path, field: str) -> None:
    other = {"wave": 2, "release": "digits@1.0.0"}[field]
    message = refused(good(tmp_path, hosts=BOTH, group_vars__zurich={field: other}))

    assert f"{tmp_path / 'group_vars/zurich.yml'}: b: {field}: found" in message
    assert f"in the group rest ({tmp_path / 'group_vars/rest.yml'}), {other!r} in the group zurich" in message


@pytest.mark.parametrize(
    ("changes", "release"),
    [
        ({"group_vars__zurich": {"release": "digits@1.1.0"}}, "digits@1.1.0"),
        ({"group_vars__zurich": {"release": "digits@1.0.0"}, "host_vars__b": {"release": "x@3.0.0"}}, "x@3.0.0"),
        ({"group_vars__devices": {"release": "digits@1.0.0"}}, "digits@1.1.0"),
        ({"group_vars__zurich": {"release": "digits@1.0.0"}, "more": {"rest": {"vars": {"ansible_group_priority": 2}}}},
         "digits@1.1.0"),
    ],
)  # fmt: skip
def test_groups_may_agree_or_be_ranked(tmp_path: Path, changes: dict[str, Any], release: str) -> None:
    """A device's own value, a deeper group and a higher priority win, regardless of the names."""
    assert model.load(good(tmp_path, hosts=BOTH, **changes)).device("b").release == release


def test_two_groups_of_one_ini_file_are_compared(tmp_path: Path) -> None:
    path = good(tmp_path, group_vars__rest={}, group_vars__canaries={"wave": 0})
    (path / "hosts.yml").unlink()
    more = "[zug]\nb\n[zug:vars]\nwave=2\n[rest:vars]\nwave=1\n[devices:children]\nzug"
    (path / "hosts").write_text(INI.format(first="", second="", more=more))

    assert f"{path / 'hosts'}: b: wave: found '1' in the group rest" in refused(path)


def test_keys_may_be_merged_and_shared(tmp_path: Path) -> None:
    shared = "x: &x {a: 1}\ny: &y {b: 2}\nboth: {<<: *x, <<: *y, a: 3}\nlist: [*x, *x]\n"

    assert model.load(good(tmp_path, group_vars__devices=shared)).device("a").variables["both"]["a"] == 3


def test_an_inventory_of_one_file_is_checked_too(tmp_path: Path) -> None:
    path = good(tmp_path, group_vars__rest="wave: 1\nwave: 2\n")

    assert f"{tmp_path / 'group_vars/rest.yml'}: line 2: found 'wave'" in refused(path / "hosts.yml")


def test_a_name_may_be_longer_than_a_file_name(tmp_path: Path) -> None:
    name = "b" * 300

    assert model.load(good(tmp_path, hosts={"canaries": {"a": {}}, "rest": {name: {}}})).device(name).wave == 1
