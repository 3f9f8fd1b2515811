"""Round numbers that DuckDB or Spark computed from a table, so that both engines give the same numbers in every run."""

from __future__ import annotations

import math
from typing import Any

DIGITS = 9


def round_figure(value: Any) -> float | None:
    """Return `value` rounded to DIGITS significant digits, or None if it is missing or not finite.

    DuckDB and Spark do not add floats in a fixed order, so the last digits of a sum differ from run to run.
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
