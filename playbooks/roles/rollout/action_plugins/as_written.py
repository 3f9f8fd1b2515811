"""`as_written`: what a person gave with `-e`, as text. Ansible evaluates templates in it wherever it is used directly.

The arguments are names, each with the variables that may say it: the first that is there does; where none is, the text
is empty. `as_written: {why: [rollout_reason, reason]}` returns {"text": {"why": "alarms at night"}}. A list of
texts, as `-e '{"rollout_approve": ["early", "rest"]}'` gives it, comes out with commas between.
"""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        there = task_vars or {}
        text = {
            name: _text(next((there[each] for each in names if there.get(each) is not None), ""))
            for name, names in self._task.args.items()
        }
        return {**result, "changed": False, "text": text}


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
