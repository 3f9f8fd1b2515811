"""`raw_vars`: read extra variables (`-e`) as plain text, because a direct use would evaluate templates in them.

Each argument is a name with a list of variables. The first variable that is set provides the text for this name. If no
variable is set, the text is empty. `raw_vars: {reason: [rollout_reason, reason]}` returns
{"text": {"reason": "alarms at night"}}. A list, such as `-e '{"rollout_approve": ["early", "rest"]}'`, becomes one text
separated by commas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    def run(self, tmp: Any = None, task_vars: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        text = {
            name: _as_text(next((variables[each] for each in sources if variables.get(each) is not None), ""))
            for name, sources in self._task.args.items()
        }
        return {**result, "changed": False, "text": text}


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
