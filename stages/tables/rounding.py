"""Figures that an engine computed, rounded to what the data decides."""

from __future__ import annotations

import math
from typing import Any

DIGITS = 9


def round_figure(value: Any) -> float | None:
    """A figure as a plain float of DIGITS significant digits; None where there is none.

    An engine adds floats in an order of its own: the last digits of a sum are not the data's.
    """
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")
