"""Draw pictures in SVG. The same input gives the same bytes. The style sheet of the page defines the colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

WIDTH = 420  # in user units; about the width of a phone's screen in pixels, so that a phone does not scale the text
# Width of a letter in user units, at the font size for phones, which is the largest in relation to the picture.
LETTER = 7.9

# Corners of a square, a triangle and a diamond, with about the same area as a circle of radius 1.
CORNERS: tuple[list[tuple[float, float]], ...] = (
    [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    [(0, -1.15), (1.1, 0.8), (-1.1, 0.8)],
    [(0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)],
)


def number(value: float) -> str:
    """Return a coordinate as text, rounded to hundredths of a user unit."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass
class Drawing:
    """A picture that consists of SVG elements. Screen readers read the `title` of the picture."""

    title: str
    height: float
    width: float = WIDTH
    parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        """Add a line.

        Args:
            x1: Horizontal position of the start.
            y1: Vertical position of the start.
            x2: Horizontal position of the end.
            y2: Vertical position of the end.
            style: CSS classes.
        """
        ends = " ".join(f'{k}="{number(v)}"' for k, v in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)))
        self.parts.append(f'<line {ends} class="{style}"/>')

    def rect(
        self, x: float, y: float, width: float, height: float, style: str, extra: str = "", hint: str = ""
    ) -> None:
        """Add a rectangle.

        Args:
            x: Position of the left edge.
            y: Position of the top edge.
            width: Width; a negative width is drawn as 0.
            height: Height.
            style: CSS classes.
            extra: Additional SVG attributes.
            hint: Text of the tooltip; empty for no tooltip.
        """
        size = f'x="{number(x)}" y="{number(y)}" width="{number(max(width, 0))}" height="{number(height)}"'
        self.parts.append(f'<rect {size} class="{style}" {extra}>{_hint(hint)}</rect>')

    def text(self, x: float, y: float, words: str, style: str = "", anchor: str = "start", turn: float = 0) -> None:
        """Add a text.

        Args:
            x: Horizontal position of the anchor.
            y: Vertical position of the baseline.
            words: The text. Special characters in it are escaped.
            style: CSS classes.
            anchor: The part of the text that is at `x`: "start", "middle" or "end".
            turn: Clockwise rotation about the anchor, in degrees.
        """
        turned = f' transform="rotate({number(turn)} {number(x)} {number(y)})"' if turn else ""
        position = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"'
        self.parts.append(f'<text {position} class="{style}"{turned}>{escape(words)}</text>')

    def path(self, points: Sequence[tuple[float, float]], style: str, closed: bool = False) -> None:
        """Add a line through several points.

        Args:
            points: The position (x, y) of each point.
            style: CSS classes.
            closed: Whether the line returns to the first point.
        """
        steps = "L".join(f"{number(x)} {number(y)}" for x, y in points)
        self.parts.append(f'<path d="M{steps}{"Z" if closed else ""}" class="{style}"/>')

    def marker(self, x: float, y: float, shape: int, style: str, size: float = 5, hint: str = "") -> None:
        """Add a circle, square, triangle or diamond, so that each series can be recognised without colour.

        Args:
            x: Horizontal position of the centre.
            y: Vertical position of the centre.
            shape: Number of the series. It selects one of the four shapes; the fifth series has the first shape again.
            style: CSS classes.
            size: Radius of the circle; the other shapes have about the same area.
            hint: Text of the tooltip; empty for no tooltip.
        """
        if shape % 4 == 0:
            self.parts.append(
                f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(size)}" class="{style}">{_hint(hint)}</circle>'
            )
            return
        corners = CORNERS[shape % 4 - 1]
        points = " ".join(f"{number(x + size * dx)},{number(y + size * dy)}" for dx, dy in corners)
        self.parts.append(f'<polygon points="{points}" class="{style}">{_hint(hint)}</polygon>')

    def markup(self) -> Markup:
        """Return the picture as SVG."""
        return Markup(  # noqa: S704 - every text above went through escape()
            f'<svg viewBox="0 0 {number(self.width)} {number(self.height)}" role="img" '
            f'aria-label="{escape(self.title)}">{"".join(self.parts)}</svg>'
        )


def _hint(words: str) -> str:
    return f"<title>{escape(words)}</title>" if words else ""


def ticks(low: float, high: float, about: int = 5, integers: bool = False) -> list[float]:
    """Return the values of the ticks for an axis that covers [low, high].

    The distance between two ticks is 1, 2, 2.5 or 5 times a power of ten.

    Args:
        low: Smallest value of the data.
        high: Largest value of the data.
        about: Approximate number of ticks.
        integers: Whether ticks must be integers.
    """
    if not high > low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / max(about - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    steps = [power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999]
    step = max(1.0, next(s for s in steps if s.is_integer() or s < 1)) if integers else steps[0]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """The axes of a plot: the ranges of the x and y values, and the edges of the plot in the drawing.

    If the range of an axis has length 0, every point is drawn in the middle of that axis.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    top: float
    right: float
    bottom: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the position in the drawing of the data point with the values `x` and `y`."""
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
    """Add a plot's axes to a drawing: grid lines, tick labels and the names of the axes. Return the frame of the plot.

    The name of the y axis is above the axis.

    Args:
        drawing: The drawing, which is changed in place.
        x_ticks: Values that are labelled on the x axis. If `x_range` is None, the axis ranges from the first to the
            last of these values.
        y_ticks: Values that are labelled on the y axis, which ranges from the first to the last of these values.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
        y_format: Function that returns the label of a y value.
        top: Space above the plot.
        margin: Space to the right of the plot.
        x_range: The smallest and the largest value of the x axis; None for the range of `x_ticks`.
    """
    labels = [y_format(value) for value in y_ticks]
    frame = Frame(
        x_range or (x_ticks[0], x_ticks[-1]),
        (y_ticks[0], y_ticks[-1]),
        12 + 6.6 * max(map(len, labels)),
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
    if y_ticks[0] > 0:  # two strokes across the axis show that it does not begin at 0
        for y in (frame.bottom - 6, frame.bottom - 10):
            drawing.line(frame.left - 5, y + 3, frame.left + 5, y - 3, "axis")
    drawing.text(0, 12, y_label, "label")
    drawing.text(frame.right, drawing.height - 3, x_label, "label", "end")
    return frame


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move labels apart so that they do not overlap, and return their new positions.

    Args:
        positions: The preferred position of each label.
        gap: Minimum distance between two labels.
        low: Minimum position. If there is not enough space, some positions are less than this.
        high: Maximum position.
    """
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
