"""Drawing in SVG by hand: colours come from the page's style (light and dark), the bytes are the same each time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 420  # user units; a phone shows a figure at about this width, so text keeps its size
# Width of a letter at the size that a phone shows, in user units: there letters are largest beside the picture.
LETTER = 7.9

# Of a square, a triangle and a diamond, of about a circle's area.
CORNERS: tuple[list[tuple[float, float]], ...] = (
    [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    [(0, -1.15), (1.1, 0.8), (-1.1, 0.8)],
    [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
)


def number(value: float) -> str:
    """A coordinate: two digits are a hundredth of a pixel."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass
class Drawing:
    """Elements of one picture. `title` is what a screen reader says in its place."""

    title: str
    height: float
    width: float = WIDTH
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        ends = " ".join(f'{k}="{number(v)}"' for k, v in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)))
        self.parts.append(f'<line {ends} class="{style}"/>')

    def rect(
        self, x: float, y: float, width: float, height: float, style: str, extra: str = "", hint: str = ""
    ) -> None:
        size = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" height="{number(height)}"'
        self.parts.append(f'<rect {size} class="{style}" {extra}>{_hint(hint)}</rect>')

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start", turn: float = 0) -> None:
        turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn else ""
        place = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} class="{style}"{turned}>{escape(words)}</text>')

    def path(self, points: Sequence[tuple[float, float]], style: str, closed: bool = False) -> None:
        steps = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.parts.append(f'<path d="M{steps}{"Z" if closed else ""}" class="{style}"/>')

    def marker(self, x: float, y: float, shape: int, style: str, size: float = 5, hint: str = "") -> None:
        """A circle, square, triangle or diamond, so that a series is known without its colour."""
        if shape % 4 == 0:
            self.parts.append(
                f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(size)}" class="{style}">{_hint(hint)}</circle>'
            )
            return
        corners = CORNERS[shape % 4 - 1]
        points = " ".join(f"{number(x + size * dx)},{number(y + size * dy)}" for dx, dy in corners)
        self.parts.append(f'<polygon points="{points}" class="{style}">{_hint(hint)}</polygon>')

    def markup(self) -> Markup:
        return Markup(  # noqa: S704 - every text above went through escape()
            f'<svg viewBox="0 0 {number(self.width)} {number(self.height)}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(self.parts)}</svg>'
        )


def _hint(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


def ticks(low: float, high: float, about: int = 5, whole: bool = False) -> list[float]:
    """Round values that cover [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten; `whole`: of integers."""
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / max(about - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999]
    step = max(1.0, next(s for s in steps if s.is_integer() or s < 1)) if whole else steps[0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """A plot's axes: data to coordinates. On an axis without an extent everything lies in the middle."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    top: float
    right: float
    bottom: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (
            self.left + _along(x, *self.x) * (self.right - self.left),
            self.bottom - _along(y, *self.y) * (self.bottom - self.top),
        )


def _along(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high != low else 0.5


def axes(
    drawing: Drawing,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    y_label: str,
    y_format: Callable[[float], str],
    top: float = 26,
    margin: float = 14,
    x_range: tuple[float, float] | None = None,
) -> Frame:
    """Hairline grid, tick labels, and both axes' names; the y name stands above its axis, where it is read first."""
    labels = [y_format(value) for value in y_ticks]
    left = 12 + 6.6 * max(map(len, labels))
    frame = Frame(
        x_range or (x_ticks[0], x_ticks[-1]),
        (y_ticks[0], y_ticks[-1]),
        left,
        top,
        drawing.width - margin,
        drawing.height - 38,
    )
    for value, label in zip(y_ticks, labels, strict=True):
        _, y = frame.at(frame.x[0], value)
        drawing.line(frame.left, y, frame.right, y, "grid")
        drawing.text(frame.left - 7, y + 4, label, "tick", "end")
    for value in x_ticks:
        x, _ = frame.at(value, y_ticks[0])
        drawing.text(x, frame.bottom + 17, f"{value:g}", "tick", "middle")
    drawing.line(frame.left, frame.bottom, frame.right, frame.bottom, "axis")
    if y_ticks[0] > 0:  # what lies below is cut off, and two strokes across the axis say so
        for y in (frame.bottom - 6, frame.bottom - 10):
            drawing.line(frame.left - 5, y + 3, frame.left + 5, y - 3, "axis")
    drawing.text(0, 12, y_label, "label")
    drawing.text(frame.right, drawing.height - 3, x_label, "label", "end")
    return frame


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Label positions near `positions`, at least `gap` apart, within [low, high] where there is room."""
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    placed = [min(max(p, low), high) for p in positions]
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    overflow = placed[order[-1]] - high if order else 0
    if overflow > 0:
        placed[order[-1]] = high
        for after, before in pairwise(reversed(order)):
            placed[before] = min(placed[before], placed[after] - gap)
    return placed
