"""The page: true to the reports, self-contained, readable by people and by Chromium."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stages import gate
from stages.errors import GateError
from stages.report import figures, svg
from stages.report.figures import Line, Point
from tests.built_fixtures import build, change_report, edit, report
from tests.pipeline import call
from tests.requirements import need_program


@pytest.fixture
def built(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    build(workspace)
    monkeypatch.setattr(sys, "argv", ["gate"])
    return workspace


def page(root: Path) -> str:
    return (root / "reports" / "index.html").read_text(encoding="utf-8")


class Text(HTMLParser):
    """The words of a page, without its style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.hidden += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.words += data.split()

    def __str__(self) -> str:
        return " ".join(self.words)


def test_the_numbers_are_those_of_the_reports(built: Path) -> None:
    gate.main()

    text = str(Text(page(built)))
    for name in ("onnx-fp32", "onnx-int8"):
        measured = report(built, name)
        assert figures.percent(measured["accuracy"]["value"]) in text
        assert figures.interval(measured["accuracy"]["low"], measured["accuracy"]["high"]) in text
        assert f"{measured['size_bytes'] / 1000:.1f} kB" in text
    for words in (
        "All gates passed",
        "2 of 2 exported files",
        "Class balance",
        "Quality",
        "Loss",
        "Compression",
        "at least 0.85",
        "values: out of range (2)",
    ):
        assert words in text


def test_the_page_asks_for_nothing_from_elsewhere(built: Path) -> None:
    gate.main()

    html = page(built)
    assert re.findall(r'(?:src|href|action)="(?!data:|#)[^"]*"', html) == []
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html


def test_the_same_reports_give_the_same_page(built: Path) -> None:
    gate.main()
    first = page(built)
    gate.main()

    assert page(built) == first


def test_names_from_the_data_are_escaped(built: Path) -> None:
    measured = report(built, "onnx-fp32")
    evil = "<script>alert(1)</script>"
    per_class = {evil if name == "0" else name: own for name, own in measured["per_class"].items()}
    change_report(built, "onnx-fp32", per_class=per_class)

    gate.main()

    assert "<script" not in page(built)
    assert "&lt;script&gt;" in page(built)


def test_a_failed_gate_is_shown_with_its_reasons_in_words(built: Path) -> None:
    edit(built, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    with pytest.raises(GateError):
        gate.main()

    text = str(Text(page(built)))
    assert "The gate did not pass" in text
    assert "No bundle is made" in text
    assert "is below 0.999" in text
    assert "onnx-fp32 (failed)" in text


def test_a_target_left_out_is_shown_with_its_reason(built: Path) -> None:
    edit(built, lambda task: task["gate"]["targets"]["onnx-int8"].update(required=False, size_kb=0.1))
    gate.main()

    text = str(Text(page(built)))
    assert "1 of 2 exported files" in text
    assert "onnx-int8 is not required and is left out: size_kb." in text


@pytest.mark.parametrize("name", ["quality.json", "balance.json", "compress.json", "train/history.csv"])
@pytest.mark.parametrize("content", [None, "", "{}", '{"splits": 3}', "[]"])
def test_a_report_that_is_missing_or_odd_leaves_out_its_picture_and_is_named(
    built: Path, name: str, content: str | None
) -> None:
    path = built / "reports" / name
    path.unlink() if content is None else path.write_text(content)

    if name == "train/history.csv":
        gate.main()
    else:  # what the gate judges by must be there
        with pytest.raises(GateError):
            gate.main()

    text = str(Text(page(built)))
    assert ("All gates passed" in text) == (name == "train/history.csv")
    assert "Not on this page, since the report is missing or of another shape" in text


def test_without_any_report_the_page_still_says_so(built: Path) -> None:
    for path in (built / "reports").rglob("*.json"):
        path.unlink()

    with pytest.raises(GateError):
        gate.main()

    assert "not measured" in str(Text(page(built)))


def test_groups_are_drawn_where_there_are_few_and_large_ones(built: Path) -> None:
    gate.main()
    assert "Accuracy by sample_id" not in str(Text(page(built)))

    change_report(built, "onnx-fp32", by_group={"anna": {"accuracy": 0.9, "samples": 50}})
    gate.main()
    assert "Accuracy by sample_id" in str(Text(page(built)))


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


def test_a_target_is_known_without_its_colour() -> None:
    one = (0.9, 0.8, 1.0)
    points = [Point(name, (10.0, 10.0, 10.0), one, passed) for name, passed in (("a", True), ("b", True), ("c", False))]

    drawn = figures.scatter("quality", points, "size", "accuracy")

    corners = [len(points.split()) for points in re.findall(r'points="([^"]*)"', drawn)]
    assert drawn.count("<circle") == 2  # in the plot and beside its name
    assert sorted(corners) == [3, 3, 4, 4]
    assert "c (failed)" in drawn


@pytest.mark.slow
def test_dvc_shows_the_metrics_and_draws_the_plots(built: Path) -> None:
    gate.main()
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        call(built, *command)

    metrics = json.loads(call(built, "dvc", "metrics", "show", "--json").stdout)
    plots = json.loads(call(built, "dvc", "plots", "show", "--json").stdout)["data"]
    call(built, "dvc", "plots", "show")

    (row,) = [own["data"] for own in metrics[""]["data"].values()]
    assert row["onnx-fp32"]["accuracy"] == report(built, "onnx-fp32")["accuracy"]["value"]
    assert set(plots) == {"loss", "validation", "confusion"}
    drawn = {name: own[0]["content"]["data"]["values"] for name, own in plots.items()}
    assert len(drawn["loss"]) == 2 * 12  # two lines of twelve epochs
    assert len(drawn["confusion"]) == 2 * 360  # two targets of 360 test samples
    assert (built / "dvc_plots" / "index.html").stat().st_size > 1000


# --- in a browser -------------------------------------------------------------------------------------------------

# The contrast that WCAG 2.2 asks of text (1.4.3) is 4.5 to 1.
CHECKS = r"""() => {
    const rgb = text => text.match(/[\d.]+/g).slice(0, 3).map(Number);
    const light = colour => {
        const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = rgb(colour).map(v => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = element => {
        for (let e = element; e; e = e.parentElement) {
            const colour = getComputedStyle(e).backgroundColor;
            if (!colour.startsWith('rgba') || !colour.endsWith(' 0)')) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = [];
    const read = 'h1,h2,h3,p,li,td,th,small,figcaption,dt,dd,summary,.verdict,text:not(.count)';
    for (const e of document.querySelectorAll(read)) {
        if (!e.textContent.trim()) continue;
        const style = getComputedStyle(e);
        const [a, b] = [light(e.tagName === 'text' ? style.fill : style.color), light(ground(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) faint.push([e.tagName, e.textContent.trim().slice(0, 30), ratio.toFixed(2)]);
    }
    return {
        width: document.documentElement.scrollWidth,
        window: innerWidth,
        unnamed: [...document.querySelectorAll('svg[role=img]')].filter(e => !e.getAttribute('aria-label')).length,
        pictures: document.querySelectorAll('svg[role=img]').length,
        uncaptioned: [...document.querySelectorAll('figure')].filter(e => !e.querySelector('figcaption')).length,
        headings: document.querySelectorAll('h1').length,
        faint,
    };
}"""

# What is written in a picture, in CSS pixels: the smallest letters, words that lie on others, words beyond the card.
WORDS = r"""() => {
    const found = {smallest: 100, overlapping: [], outside: []};
    for (const svg of document.querySelectorAll('figure svg')) {
        const card = svg.closest('figure').getBoundingClientRect();
        const zoom = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
        const texts = [...svg.querySelectorAll('text')].map(e => ({
            words: e.textContent, box: e.getBoundingClientRect(), turned: e.hasAttribute('transform'),
            size: parseFloat(getComputedStyle(e).fontSize) * zoom,
        }));
        for (const [i, a] of texts.entries()) {
            found.smallest = Math.min(found.smallest, a.size);
            if (a.box.left < card.left || a.box.right > card.right) found.outside.push(a.words);
            for (const b of texts.slice(i + 1)) {
                const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
                const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
                // Letters do not fill their line: a quarter of it may be shared.
                const [along, across, line] = a.turned ? [high, wide, a.box.width] : [wide, high, a.box.height];
                if (along > 1 && across > line / 4) found.overlapping.push([a.words, b.words]);
            }
        }
    }
    return found;
}"""

# Of every wide table, scrolled to its end: can its last column be seen, and is its first one still there?
TABLES = r"""() => [...document.querySelectorAll('.table')].map(frame => {
    frame.scrollLeft = frame.scrollWidth;
    const [first, last] = [':first-child', ':last-child'].map(
        place => frame.querySelector('tbody tr > ' + place).getBoundingClientRect());
    const edge = frame.getBoundingClientRect();
    return {
        wide: frame.scrollWidth > frame.clientWidth,
        named: !!(frame.ariaLabel || frame.getAttribute('aria-labelledby')),
        reachable: frame.tabIndex === 0, last: last.right <= edge.right && last.left >= first.right - 1,
        first: Math.abs(first.left - edge.left) < 2,
    };
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    program = need_program("chromium", "chromium")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        started = playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        started.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("passed", [True, False])
def test_in_chromium_it_is_quiet_whole_and_legible(
    built: Path, browser: Any, scheme: str, width: int, passed: bool
) -> None:
    if not passed:
        edit(built, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    try:
        gate.main()
    except GateError:
        assert not passed
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))

    tab.goto((built / "reports" / "index.html").as_uri())
    for fold in tab.locator("summary").all():
        fold.click()
    found = tab.evaluate(CHECKS)

    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert found["width"] <= found["window"]
    assert found["pictures"] >= 8
    assert (found["unnamed"], found["uncaptioned"], found["headings"]) == (0, 0, 1)
    assert found["faint"] == []
    context.close()


LONG = ["a very long class name", "kettle boiling", "door", "window pane cracked", "dog barking loudly", "rain"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("classes", [[], LONG], ids=["short", "long"])
def test_in_chromium_tables_scroll_in_their_frame_and_words_in_pictures_keep_apart(
    built: Path, browser: Any, classes: list[str], width: int
) -> None:
    names = [*map(str, range(10 - len(classes))), *classes]
    edit(built, lambda task: task["data"].update(classes={str(i): name for i, name in enumerate(names)}))
    for target in ("onnx-fp32", "onnx-int8"):
        per_class = dict(zip(names, report(built, target)["per_class"].values(), strict=True))
        groups = {f"speaker number {i}": {"accuracy": 0.9 - i / 30, "samples": 50 + i} for i in range(4)}
        change_report(built, target, per_class=per_class, by_group=groups)
    balance = built / "reports" / "balance.json"
    written = json.loads(balance.read_text())
    for split in written["splits"].values():
        split["classes"] = dict(zip(names, split["classes"].values(), strict=True))
    balance.write_text(json.dumps(written))
    gate.main()
    tab = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    tab.goto((built / "reports" / "index.html").as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true; })")

    words, tables = tab.evaluate(WORDS), tab.evaluate(TABLES)

    assert words["smallest"] >= 10
    assert (words["overlapping"], words["outside"]) == ([], [])
    assert any(table["wide"] for table in tables) == (width < 600)
    assert [table for table in tables if not all(table[key] for key in ("named", "reachable", "first", "last"))] == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.context.close()
