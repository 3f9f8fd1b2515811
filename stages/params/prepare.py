"""Parameters of `prepare`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from stages.dataset import AudioFeatures
from stages.params.base import Block


class Window(Block):
    """Windows over the rows of one group; a window never spans a gap in time longer than `max_gap_s`."""

    length: int = Field(gt=0)
    stride: int = Field(gt=0)
    max_gap_s: float = Field(gt=0)
    label: Literal["last", "any", "majority"]


class SplitBy(Block):
    method: Literal["group", "column"]
    validation: float = Field(gt=0, lt=1)
    test: float | None = None
    column: str | None = None
    test_values: list[str] | None = None


class Drift(Block):
    bins: int = Field(ge=2)


class Prepare(Block):
    missing: Literal["mean", "median", "interpolate", "drop"]
    scaling: Literal["none", "normalise", "standardise"]
    features: AudioFeatures | None
    window: Window | None
    split: SplitBy
    drift: Drift
