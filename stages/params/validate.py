"""Parameters of `validate`: the data contract."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from stages.params.base import Block


class Thresholds(Block):
    """The least share, 0 to 1, of each quality metric; formulas in stages/quality.py."""

    completeness: float = Field(ge=0, le=1)
    consistency: float = Field(ge=0, le=1)
    accuracy: float = Field(ge=0, le=1)
    timeliness: float = Field(ge=0, le=1)
    validity: float = Field(ge=0, le=1)


class Validate(Block):
    extra_columns: Literal["forbid", "drop"]
    columns: dict[str, Any]
    redundant: list[Any]
    plausibility: list[Any]
    quarantine_share: float = Field(ge=0, le=1)
    thresholds: Thresholds
    max_age_s: float | None
