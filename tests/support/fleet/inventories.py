"""Write inventories into a folder, and read the error message of an invalid one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.errors import InventoryError
from fleet.inventory import model

FLEET = {"fleet": {"name": "farm", "development": True}, "device_type": "generic"}


def write(folder: Path, hosts: dict[str, Any], **files: Any) -> Path:
    """Write an inventory: `hosts` by group below `devices`, and further files by name with `__` for a slash."""
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
    """Return the message of the error that an invalid inventory raises."""
    with pytest.raises(InventoryError) as caught:
        model.load(path)
    assert caught.value.exit_code == 12
    return str(caught.value)


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
