"""Convert the results of commands to JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from edge_agent.core.errors import AgentError


def to_json(value: Any) -> Any:
    """Convert `value` to types that JSON supports. A dataclass becomes a dictionary of its fields."""
    if isinstance(value, AgentError):
        return value.as_json()
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, (list, tuple)) else value
