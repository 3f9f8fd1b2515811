"""Write the names of overlapping markers into a scatter plot, because one marker can hide another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from stages.report.page.svg import LETTER, Drawing, Frame

NEAR = 12.0  # markers overlap if their centres are closer than this
LINE = 15.0  # distance from one name to the next
ASIDE = 14.0  # distance from a marker to its name
RADIUS = 7.0  # radius of a marker, including the free space around the marker


@dataclass(frozen=True)
class Mark:
    """A marker in a plot: the name of the target that it stands for, its centre and its CSS class."""

    name: str
    x: float
    y: float
    style: str


@dataclass(frozen=True)
class Box:
    """A rectangle in a drawing, from (x1, y1) at the top left to (x2, y2) at the bottom right."""

    x1: float
    y1: float
    x2: float
    y2: float

    def meets(self, other: Box) -> bool:
        """Return whether the two rectangles overlap."""
        return self.x1 < other.x2 and other.x1 < self.x2 and self.y1 < other.y2 and other.y1 < self.y2


def name_overlapping(drawing: Drawing, frame: Frame, marks: Sequence[Mark]) -> None:
    """Write the names of overlapping markers next to the markers, and draw a line from each name to its marker.

    Args:
        drawing: The drawing to which names and lines are added.
        frame: The plot. If there is enough space, names are written inside the plot.
        marks: All markers of the plot. If there is enough space, names do not cover markers.
    """
    used = [Box(mark.x - RADIUS, mark.y - RADIUS, mark.x + RADIUS, mark.y + RADIUS) for mark in marks]
    for cluster in _clusters(marks):
        intervals = [Box(m.x - 2, frame.top, m.x + 2, frame.bottom) for m in marks if m not in cluster]
        places = _places(frame, cluster)
        free = [place for place in places if not any(place[1].meets(other) for other in used)]
        clear = [place for place in free if not any(place[1].meets(other) for other in intervals)]
        right, box = (clear or free or places)[0]
        used.append(box)
        for i, mark in enumerate(sorted(cluster, key=lambda mark: (mark.y, mark.x))):
            x, y = box.x1 if right else box.x2, box.y1 + LINE * (i + 1) - 4
            drawing.line(mark.x, mark.y, x - 3 if right else x + 3, y - 4, "leader")
            drawing.text(x, y, mark.name, f"name {mark.style}-text", "start" if right else "end")


def _clusters(marks: Sequence[Mark]) -> list[list[Mark]]:
    """Return the groups of overlapping markers. In a group, each marker overlaps at least one other marker."""
    clusters: list[list[Mark]] = []
    for mark in marks:
        near = [own for own in clusters if any(math.hypot(mark.x - o.x, mark.y - o.y) < NEAR for o in own)]
        clusters = [own for own in clusters if own not in near]
        clusters.append([mark, *(other for own in near for other in own)])
    return sorted((own for own in clusters if len(own) > 1), key=lambda own: own[0].x)


def _places(frame: Frame, cluster: Sequence[Mark]) -> list[tuple[bool, Box]]:
    """Return the places where the names of a group of markers can be written, starting with the best place.

    A place is a flag and a box. The flag is True if the box is to the right of the markers, and False if the box is to
    the left of them. Only boxes inside the plot are returned. If no box fits inside the plot, return only the box below
    and to the right of the markers, with its flag.
    """
    width, height = LETTER * max(len(mark.name) for mark in cluster), LINE * len(cluster)
    low, high = max(mark.y for mark in cluster), min(mark.y for mark in cluster)
    downward = [low + RADIUS + step * LINE for step in range(8)]
    upward = [high - RADIUS - height - step * LINE for step in range(8)]
    places = []
    for top, right in product([*downward, *upward], (True, False)):
        x = max(m.x for m in cluster) + ASIDE if right else min(m.x for m in cluster) - ASIDE
        box = Box(x, top, x + width, top + height) if right else Box(x - width, top, x, top + height)
        places.append((right, box))
    return [(right, box) for right, box in places if _is_inside(frame, box)] or places[:1]


def _is_inside(frame: Frame, box: Box) -> bool:
    return (
        frame.left <= box.x1
        and box.x2 <= frame.right + 12  # the margin to the right of the plot
        and frame.top <= box.y1
        and box.y2 <= frame.bottom
    )
