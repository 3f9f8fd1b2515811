"""The report page of a workspace: its HTML, and its words."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

BUNDLE = "../models/bundle/digits.tar.zst"  # the only link to a file of the build that is not a report


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
