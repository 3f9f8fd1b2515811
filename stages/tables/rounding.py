"""Round numbers that an engine computed, so that they depend only on the data."""

from __future__ import annotations

import math
from typing import Any

DIGITS = 9


def round_figure(value: Any) -> float | None:
    """Return `value` as a float of DIGITS significant digits; None if it is missing or not finite.

    An engine does not add floats in a fixed order, so the last digits of a sum vary between runs and engines.
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
