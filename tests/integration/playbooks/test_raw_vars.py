"""The action `raw_vars`, run by Ansible: extra variables become text, and no template is evaluated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import REPOSITORY

pytestmark = pytest.mark.slow  # each starts ansible-playbook

PLAY = [
    {
        "hosts": "localhost",
        "gather_facts": False,
        "tasks": [
            {"raw_vars": {"text": ["rollout_approve", "other"]}, "register": "raw"},
            {"ansible.builtin.copy": {"content": "{{ raw.text | to_json }}", "dest": "{{ to }}", "mode": "0600"}},
        ],
    }
]


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({"rollout_approve": "rest"}, "rest"),
        ({"rollout_approve": ["rest"]}, "rest"),
        ({"rollout_approve": ["early", "rest"]}, "early,rest"),
        ({"rollout_approve": []}, ""),
        ({"rollout_approve": ["{{ 1 + 1 }}", "{% raw %}"]}, "{{ 1 + 1 }},{% raw %}"),
        ({"rollout_approve": 5}, "5"),
        ({"rollout_approve": None, "other": "rest"}, "rest"),
        ({}, ""),
    ],
)
def test_an_extra_variable_may_be_a_text_or_a_list_of_texts(tmp_path: Path, extra: dict[str, Any], text: str) -> None:
    (tmp_path / "play.yml").write_text(yaml.safe_dump(PLAY))
    output = tmp_path / "output.json"

    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("--inventory", "localhost,", "--connection", "local", tmp_path / "play.yml"),
            *("--extra-vars", json.dumps({**extra, "to": str(output), "ansible_python_interpreter": sys.executable})),
        ],
        env={
            "ANSIBLE_ACTION_PLUGINS": str(REPOSITORY / "playbooks/roles/rollout/action_plugins"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"),
            "HOME": str(tmp_path),
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(output.read_text()) == {"text": text}
