"""The report in Chromium: complete and legible in both colour schemes, at phone and desktop widths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.gate import stage as gate
from tests.support.requirements import need_program
from tests.support.stages.built import edit, regroup, rename_classes

pytestmark = pytest.mark.slow

# WCAG 2.2 (1.4.3) requires a contrast of 4.5 to 1 for text.
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
# The text in pictures: the smallest font size in CSS pixels, overlapping words, and words outside the card.
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
                // Letters do not fill the height of their line: boxes may overlap by a quarter of it.
                const [along, across, line] = a.turned ? [high, wide, a.box.width] : [wide, high, a.box.height];
                if (along > 1 && across > line / 4) found.overlapping.push([a.words, b.words]);
            }
        }
    }
    return found;
}"""
# For every target in the first table, without scrolling: the names of its numbers, and how many are visible.
CARDS = r"""() => [...document.querySelectorAll('.cards tbody tr')].map(row => {
    const frame = row.closest('.table').getBoundingClientRect();
    const cells = [...row.querySelectorAll('td.number')];
    return {
        names: cells.map(cell => getComputedStyle(cell, '::before').content.replaceAll('"', '')),
        visible: cells.filter(cell => {
            const box = cell.getBoundingClientRect();
            return box.left >= frame.left && box.right <= frame.right && cell.scrollWidth <= cell.clientWidth + 1;
        }).length,
    };
})"""
# For every wide table, scrolled to its end: whether its last and its first column are visible.
TABLES = r"""() => [...document.querySelectorAll(innerWidth > 600 ? '.table' : '.table:not(.cards)')].map(frame => {
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("passed", [True, False])
def test_the_report_is_complete_and_legible_without_console_messages(
    built: Path, browser: Any, scheme: str, width: int, passed: bool
) -> None:
    if not passed:
        edit(built, lambda task: task["gate"]["metrics"].update(accuracy=0.999))
    gate.main()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    messages: list[str] = []
    requested_urls: list[str] = []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requested_urls.append(request.url))

    tab.goto((built / "reports" / "index.html").as_uri())
    for fold in tab.locator("summary").all():
        fold.click()
    layout = tab.evaluate(CHECKS)

    assert messages == []
    assert [url for url in requested_urls if not url.startswith(("file:", "data:"))] == []
    assert layout["width"] <= layout["window"]
    assert layout["pictures"] >= 8
    assert (layout["unnamed"], layout["uncaptioned"], layout["headings"]) == (0, 0, 1)
    assert layout["faint"] == []
    context.close()


LONG = ["a very long class name", "kettle boiling", "door", "window pane cracked", "dog barking loudly", "rain"]


@pytest.mark.parametrize("width", [360, 390, 1280])
@pytest.mark.parametrize("classes", [[], LONG], ids=["short", "long"])
def test_tables_scroll_in_their_frame_and_words_in_pictures_do_not_overlap(
    built: Path, browser: Any, classes: list[str], width: int
) -> None:
    names = [*map(str, range(10 - len(classes))), *classes]
    rename_classes(built, names)
    regroup(built, [f"speaker number {i % 4}" for i in range(360)])
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


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_every_number_of_a_target_is_visible_without_scrolling(built: Path, browser: Any, width: int) -> None:
    gate.main()
    tab = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    tab.goto((built / "reports" / "index.html").as_uri())

    rows = tab.evaluate(CARDS)

    names = ["Accuracy", "F1, macro", "Size", "Latency p95", "Peak memory", "Agreement", "Retention"]
    assert [row["visible"] for row in rows] == [7, 7]
    assert [row["names"] for row in rows] == [names if width < 600 else ["none"] * 7] * 2
    tab.context.close()
