"""Find headings, link fragments, links and table cells in Markdown, as GitHub renders it."""

from __future__ import annotations

import re
from collections.abc import Iterator

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r"^ {0,3}#{1,6} +(.*?)(?: +#+)? *$")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]: +<?(\S+?)>?(?: +\"[^\"]*\")? *$")
HTML_LINK = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]+)\"")
CODE = re.compile(r"(`+)(?:(?!\1).)+?\1")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines outside code blocks, each with its number from 1."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        match = FENCE.match(line)
        if match and not fence:
            fence = match[1]
        elif match and match[1].startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        elif not fence:
            yield number, line


def anchor(heading: str) -> str:
    """Return the link fragment that GitHub gives a heading: lowercase, hyphens for spaces, no punctuation."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """Return the link fragments of a page's headings and HTML anchors; equal headings get numbered fragments."""
    counts: dict[str, int] = {}
    fragments: set[str] = set()
    for _, line in prose(text):
        fragments |= set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", line))
        if match := HEADING.match(line):
            name = anchor(match[1])
            fragments.add(f"{name}-{counts[name]}" if name in counts else name)
            counts[name] = counts.get(name, 0) + 1
    return fragments


def links(text: str) -> Iterator[tuple[int, str]]:
    """Yield the targets of links and images outside code, each with its line number from 1."""
    for number, line in prose(text):
        plain = CODE.sub(lambda code: "x" * len(code[0]), line)
        for pattern in (LINK, REFERENCE, HTML_LINK):
            yield from ((number, target) for target in pattern.findall(plain))


def cells(text: str) -> Iterator[tuple[int, str]]:
    """Yield the cells of tables, each with its line number from 1."""
    for number, line in prose(text):
        row = line.strip()
        if row.startswith("|") and not re.fullmatch(r"[|\s:-]+", row):
            yield from ((number, each.strip()) for each in re.split(r"(?<!\\)\|", row.strip("|")))


def word_count(text: str) -> int:
    """Count the words that a reader sees: the text of a link without its URL, and the words in code."""
    shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return len([word for word in shown.split() if re.search(r"\w", word)])


def first_sentence(text: str) -> str:
    """Return the text up to the end of its first sentence."""
    return re.split(r"(?<=[.!?]) +(?=\S)", text.strip(), maxsplit=1)[0]


def cell(text: str) -> str:
    """Return a text for a table cell: on one line, and with escaped pipes, which would otherwise end the cell."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))
