"""Draw the pictures of the page reports/index.html from the numbers in the reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from stages.report.page.overlaps import Mark, name_overlapping
from stages.report.page.svg import LETTER, WIDTH, Drawing, Frame, axes, spread, ticks

DIGIT = 8.9  # width of a digit, in the same units as LETTER


def percent(value: float) -> str:
    """Return a fraction as a percentage with four significant digits."""
    return f"{100 * value:.4g}%"


def interval(low: float, high: float) -> str:
    """Return the bounds of an interval as percentages with one decimal, because the bounds are only estimates."""
    return f"{100 * low:.1f} to {100 * high:.1f}%"


def from_where(label: str, lowest: float) -> str:
    """Return an axis label. If the axis does not start at 0, add a note, because differences then look larger.

    Args:
        label: The label without the note.
        lowest: The value at which the axis starts.
    """
    return f"{label}, axis from {percent(lowest)}" if lowest > 0 else label


def share_ticks(low: float, high: float) -> list[float]:
    """Return the values of the ticks for an axis that shows fractions from `low` to `high`, without ticks above 1."""
    values = ticks(low, high)
    return [value for value in values if value <= 1.0] or values


@dataclass(frozen=True)
class Line:
    """A curve in a plot: its name, its values and its CSS classes."""

    name: str
    values: Sequence[float]
    style: str


def curves(
    title: str, x: Sequence[float], lines: Sequence[Line], y_label: str, share: bool, best: float | None
) -> Markup:
    """Draw curves over the epochs of training, and write the name of each curve at its right end.

    Args:
        title: Text for screen readers.
        x: Numbers of the epochs.
        lines: The curves, each with one value per epoch.
        y_label: Name of the y axis.
        share: Whether the values are fractions between 0 and 1; fractions are shown as percentages.
        best: Number of the epoch whose weights were kept, which is marked in the plot; None for no mark.
    """
    values = [value for line in lines for value in line.values]
    drawing = Drawing(title, 250)
    y_ticks = (share_ticks if share else ticks)(min(values), max(values))
    if share:
        y_label = from_where(y_label, y_ticks[0])
    reach = (x[0], max(x[-1], x[0] + 1))
    x_ticks = [value for value in ticks(*reach, 6, integers=True) if reach[0] <= value <= reach[1]]
    margin = 12 + 7.4 * max(len(line.name) for line in lines)
    frame = axes(
        drawing, x_ticks, y_ticks, "epoch", y_label, percent if share else "{:g}".format, margin=margin, x_range=reach
    )
    if best is not None:
        mark, _ = frame.at(best, y_ticks[0])
        drawing.line(mark, frame.top, mark, frame.bottom, "mark")
        drawing.text(mark, frame.top - 4, "kept", "note", "middle")
    _draw_lines(drawing, frame, x, lines)
    return drawing.markup()


def _draw_lines(drawing: Drawing, frame: Frame, x: Sequence[float], lines: Sequence[Line]) -> None:
    """Draw the curves, and write the name of each curve next to its right end, so that the names do not overlap."""
    ends = [frame.at(x[-1], line.values[-1])[1] for line in lines]
    for line, y in zip(lines, spread([end + 4 for end in ends], 15, frame.top + 4, frame.bottom), strict=True):
        drawing.path([frame.at(a, b) for a, b in zip(x, line.values, strict=True)], f"curve {line.style}")
        drawing.text(frame.at(x[-1], 0)[0] + 6, y, line.name, f"name {line.style}-text")


@dataclass(frozen=True)
class Point:
    """A target in a scatter plot, with a value and a confidence interval for each axis."""

    name: str
    x: tuple[float, float, float]  # value, low, high
    y: tuple[float, float, float]
    passed: bool


def scatter(title: str, points: Sequence[Point], x_label: str, y_label: str) -> Markup:
    """Draw one marker per target, with confidence intervals and a legend. The marker of a failed target is hollow.

    If markers overlap, their names are also written next to them, because one marker can hide another.

    Args:
        title: Text for screen readers.
        points: The targets. The values for the y axis are fractions, which are shown as percentages.
        x_label: Name of the x axis.
        y_label: Name of the y axis.
    """
    legend = 20.0 * ((len(points) + 1) // 2)
    drawing = Drawing(title, 262)
    y_ticks = share_ticks(min(p.y[1] for p in points), max(p.y[2] for p in points))
    frame = axes(
        drawing,
        ticks(0, max(p.x[2] for p in points) * 1.02),
        y_ticks,
        x_label,
        from_where(y_label, y_ticks[0]),
        percent,
    )
    marks = []
    for shape, point in enumerate(points):
        style = f"s{shape % 4 + 1}"
        x, y = frame.at(point.x[0], point.y[0])
        (_, low), (_, high) = frame.at(0, point.y[1]), frame.at(0, min(point.y[2], y_ticks[-1]))
        drawing.line(x, low, x, high, f"whisker {style}-line")
        (start, _), (end, _) = frame.at(point.x[1], 0), frame.at(point.x[2], 0)
        drawing.line(start, y, end, y, f"whisker {style}-line")
        marks.append(Mark(point.name, x, y, style))
    name_overlapping(drawing, frame, marks)
    for shape, (point, mark) in enumerate(
        zip(points, marks, strict=True)
    ):  # drawn last, so that no interval covers a marker
        look = mark.style if point.passed else f"{mark.style} hollow"
        hint = f"{point.name}: {percent(point.y[0])} at {point.x[0]:.4g}"
        drawing.marker(mark.x, mark.y, shape, look, hint=hint)
        column, row = shape % 2, shape // 2
        x, y = 12 + column * WIDTH / 2, drawing.height + 14 + 20 * row
        drawing.marker(x, y, shape, look)
        words = point.name if point.passed else f"{point.name} (failed)"
        drawing.text(x + 12, y + 4, words, f"name {mark.style}-text")
    drawing.height += legend + 4
    return drawing.markup()


def stacked(title: str, rows: Sequence[str], parts: Mapping[str, Sequence[int]]) -> Markup:
    """Draw one bar per class, with a segment for each split, and the class's total number of samples next to the bar.

    Args:
        title: Text for screen readers.
        rows: Names of the classes.
        parts: Number of samples of each class, by split.
    """
    band, top = 24.0, 24.0
    drawing = Drawing(title, top + band * len(rows) + 2)
    legend = 0.0
    for i, name in enumerate(parts):
        drawing.rect(legend, 2, 10, 10, f"s{i + 1}")
        drawing.text(legend + 15, 11, name, "label")
        legend += 30 + LETTER * len(name)
    start = 12 + LETTER * min(max(map(len, rows)), 14)
    totals = [sum(values[i] for values in parts.values()) for i in range(len(rows))]
    scale = (WIDTH - start - 12 - DIGIT * len(f"{max(totals):,}")) / max(*totals, 1)
    for i, row in enumerate(rows):
        y, x = top + band * i, start
        drawing.text(start - 8, y + 14, shorten(row, 14), "tick", "end")
        for j, (split, values) in enumerate(parts.items()):
            if not values[i]:
                continue
            width = values[i] * scale
            # A gap separates the segments, so that they can be distinguished without colour.
            drawing.rect(x, y + 3, width - 1.5, band - 8, f"s{j + 1}", hint=f"{row}: {values[i]:,} in {split}")
            x += width
        drawing.text(x + 5, y + 14, f"{totals[i]:,}", "tick")
    return drawing.markup()


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: its name, its value, the text at its right end, and an optional threshold for the value."""

    name: str
    value: float
    words: str
    threshold: float | None = None


def bars(title: str, rows: Sequence[Bar], largest: float, style: str = "s1") -> Markup:
    """Draw horizontal bars, and mark the threshold of each bar that has one.

    Args:
        title: Text for screen readers.
        rows: The bars.
        largest: The value for which a bar has the full length.
        style: CSS classes of the bars.
    """
    band = 40.0
    drawing = Drawing(title, band * len(rows))
    for i, row in enumerate(rows):
        y = band * i
        drawing.text(0, y + 13, shorten(row.name, 30), "tick strong")
        drawing.text(WIDTH, y + 13, row.words, "tick", "end")
        drawing.rect(0, y + 20, WIDTH, 9, "track", 'rx="2"')
        drawing.rect(
            0, y + 20, WIDTH * min(row.value / largest, 1), 9, style, 'rx="2"', hint=f"{row.name}: {row.words}"
        )
        if row.threshold is not None:
            x = min(max(WIDTH * row.threshold / largest, 1), WIDTH - 1)
            drawing.line(x, y + 16, x, y + 33, "threshold")
    return drawing.markup()


def confusion(title: str, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """Draw a confusion matrix. Cells that have a larger fraction of their row's samples have a stronger colour.

    The row of a class without a sample is marked with "no sample".

    Args:
        title: Text for screen readers.
        matrix: Numbers of samples; rows are actual classes, and columns are predicted classes.
        classes: Names of the classes.
    """
    longest = min(max(map(len, classes)), 12)
    x0, y0 = 26 + LETTER * longest, 26 + (LETTER * longest if longest > 3 else 12)
    cell = min((WIDTH - x0) / len(classes), 64)
    drawing = Drawing(title, y0 + cell * len(classes) + 4)
    drawing.text(x0, 11, "predicted", "label")
    drawing.text(11, y0 + cell * len(classes) / 2, "actual", "label", "middle", -90)
    for i, name in enumerate(classes):
        short = shorten(name, 12)
        drawing.text(x0 - 7, y0 + cell * (i + 0.5) + 4, short, "tick", "end")
        x = x0 + cell * (i + 0.5)
        if longest > 3:
            drawing.text(x + 4, y0 - 6, short, "tick", "start", -90)
        else:
            drawing.text(x, y0 - 7, short, "tick", "middle")
    for i, row in enumerate(matrix):
        total = sum(row)
        if not total:
            drawing.text(x0 + 4, y0 + cell * (i + 0.5) + 4, "no sample", "note")
        for j, count in enumerate(row):
            share = count / total if total else 0.0
            x, y = x0 + cell * j, y0 + cell * i
            shade = f'fill-opacity="{0.12 + 0.88 * share:.3f}"' if count else ""
            hint = f"{classes[i]} predicted as {classes[j]}: {count} of {total}"
            style = "none" if not count else "right" if i == j else "wrong"
            drawing.rect(x + 1, y + 1, cell - 2, cell - 2, f"cell {style}", f'rx="2" {shade}', hint)
            if count and cell >= max(15, DIGIT * len(str(count))):
                drawing.text(
                    x + cell / 2, y + cell / 2 + 4, str(count), "count dark" if share > 0.5 else "count", "middle"
                )
    return drawing.markup()


def shorten(words: str, length: int) -> str:
    """Shorten a text to at most `length` characters. A shortened text ends with an ellipsis."""
    return words if len(words) <= length else words[: length - 1] + "…"
