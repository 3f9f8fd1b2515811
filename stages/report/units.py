"""Format numbers with their units, for the page and the terminal."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a duration as text with about three digits, such as 61.3 s, 12 min 5 s or 3 h 20 min."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"
