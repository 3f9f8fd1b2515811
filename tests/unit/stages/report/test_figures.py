"""The page's pictures: ticks, labels, curves and marks."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from stages.report.page import figures, overlaps, svg
from stages.report.page.figures import Line, Point


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.012, 0.031), (0.9167, 0.9833), (5.0, 5.0), (0.0, 350_000.0), (-3.0, 2.0)]
)
def test_ticks_cover_the_values_with_round_steps(low: float, high: float) -> None:
    values = svg.ticks(low, high)

    assert values[0] <= low + 1e-9
    assert values[-1] >= high - 1e-9
    assert 2 <= len(values) <= 9
    steps = {round(b - a, 9) for a, b in pairwise(values)}
    assert len(steps) == 1


def test_labels_keep_apart_and_inside() -> None:
    placed = svg.spread([50, 51, 52, 10], gap=15, low=10, high=60)

    ordered = sorted(placed)
    assert min(b - a for a, b in pairwise(ordered)) >= 15
    assert ordered[-1] <= 60


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_curves_of_any_length_are_drawn(epochs: int) -> None:
    x = [float(epoch) for epoch in range(epochs)]
    drawn = figures.curves("loss", x, [Line("training", [1.0] * epochs, "s1")], "loss", False, 0.0)

    assert "nan" not in drawn
    assert drawn.count("<path") == 1


def test_values_that_leave_an_axis_no_extent_are_drawn_in_its_middle() -> None:
    points = [Point("a", (-3.0, -3.0, -3.0), (7.0, 7.0, 7.0), True), Point("b", (0.0, 0.0, 0.0), (0.9, 0.9, 0.9), True)]

    assert "nan" not in figures.scatter("quality", points, "size", "accuracy")
    assert svg.Frame((1.0, 1.0), (0.0, 2.0), 10, 0, 30, 40).at(1.0, 1.0) == (20, 20)


@pytest.mark.parametrize(("low", "label"), [(0.83, "accuracy, axis from 80%"), (0.02, "accuracy")])
def test_an_axis_of_shares_that_does_not_begin_at_0_is_marked(low: float, label: str) -> None:
    spread = [Point("a", (1.0, 1.0, 1.0), (low, low, low), True), Point("b", (1.0, 1.0, 1.0), (0.97, 0.9, 1.0), True)]
    lines = [Line("validation", [low, 0.97], "s1")]

    drawn = figures.scatter("quality", spread, "size", "accuracy"), figures.curves(
        "accuracy", [0.0, 1.0], lines, "accuracy", True, None
    )  # fmt: skip

    for picture in drawn:
        assert f">{label}</text>" in picture
        assert picture.count('class="axis"') == (3 if "from" in label else 1)


def test_a_target_is_recognised_without_its_colour() -> None:
    one = (0.9, 0.8, 1.0)
    points = [Point(name, (10.0, 10.0, 10.0), one, passed) for name, passed in (("a", True), ("b", True), ("c", False))]

    drawn = figures.scatter("quality", points, "size", "accuracy")

    corners = [len(points.split()) for points in re.findall(r'points="([^"]*)"', drawn)]
    assert drawn.count("<circle") == 2  # in the plot and beside its name
    assert sorted(corners) == [3, 3, 4, 4]
    assert "c (failed)" in drawn


def point(name: str, x: float, y: float) -> Point:
    return Point(name, (x, x, x), (y, y, y), True)


def names_in(picture: str) -> list[str]:
    """Every name of a point that is written in a picture, the legend's included."""
    return re.findall(r'class="name s\d-text">([^<]*)<', picture)


def test_markers_that_overlap_are_named_beside_them() -> None:
    points = [point("a", 10.0, 0.9), point("b", 10.1, 0.9), point("c", 200.0, 0.8)]

    drawn = figures.scatter("quality", points, "size", "accuracy")

    assert sorted(names_in(drawn)) == ["a", "a", "b", "b", "c"]
    assert drawn.count('class="leader"') == 2


def test_names_of_overlapping_markers_keep_apart_and_inside() -> None:
    """Two pairs side by side at the same height, and one pair at the right edge."""
    pairs = [("a1", 300.0), ("a2", 302.0), ("b1", 400.0), ("b2", 402.0), ("c1", 600.0), ("c2", 600.0)]
    drawing = svg.Drawing("quality", 262)
    frame = svg.Frame((0.0, 600.0), (0.9, 1.0), 40, 26, 406, 224)
    marks = [overlaps.Mark(f"{name}-target", *frame.at(x, 0.99), "s1") for name, x in pairs]

    overlaps.name_overlapping(drawing, frame, marks)

    boxes = []
    for text in (part for part in drawing.parts if part.startswith("<text")):
        x, y, anchor = re.findall(r'x="([^"]*)" y="([^"]*)" text-anchor="([^"]*)"', text)[0]
        width = svg.LETTER * len("a1-target")
        x1 = float(x) - (width if anchor == "end" else 0)
        boxes.append(overlaps.Box(x1, float(y) - 11, x1 + width, float(y) + 4))
    assert len(boxes) == 6
    assert not any(a.meets(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert all(box.x1 >= frame.left and box.x2 <= svg.WIDTH and box.y2 <= frame.bottom + 4 for box in boxes)
