"""Turn the project's docstrings into reStructuredText for the API pages: plain text with `code` and Google sections."""

from __future__ import annotations

import re

SECTIONS = re.compile(r"(Args|Attributes|Returns|Raises|Yields|Example|Examples|Note|Notes):$")
LIST_ITEM = re.compile(r"\s*(?:[-*]|\d+\.) ")
CODE = re.compile(r"(`[^`]+`)")


def to_rst(lines: list[str]) -> list[str]:
    """Return a docstring's lines as reStructuredText.

    A paragraph with differently indented lines is a drawing or a table, and becomes a literal block. In all other
    paragraphs, characters that reStructuredText would treat as markup are escaped.
    """
    result: list[str] = []
    for paragraph in _paragraphs(lines):
        if _is_drawing(paragraph):
            result += ["::", "", *(f"    {line}" for line in paragraph), ""]
        else:
            result += [*(_escape(line) for line in paragraph), ""]
    return result


def _paragraphs(lines: list[str]) -> list[list[str]]:
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line.rstrip())
        elif paragraphs[-1]:
            paragraphs.append([])
    return [each for each in paragraphs if each]


def _is_drawing(paragraph: list[str]) -> bool:
    """Return whether a paragraph has differently indented lines and is neither a Google section nor a list."""
    if SECTIONS.match(paragraph[0].strip()) or LIST_ITEM.match(paragraph[0]) or paragraph[0].startswith("  ."):
        return False
    return any(line.startswith("   ") for line in paragraph)


def _escape(line: str) -> str:
    parts = CODE.split(line)
    parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?=\W|$))", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)
