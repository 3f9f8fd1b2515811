"""Copy the Markdown pages into a folder for Sphinx, and adapt their links and navigation to the website.

On GitHub, a page is plain Markdown with relative links into the whole repository. On the website, a link to a module
leads to its API page, a link to another file downloads that file, and the sections of docs/README.md are the
navigation.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from docs.generator.markdown import LINK, prose
from tests.support.paths import REPOSITORY

INDEX = "docs/README.md"
# Pages outside docs/ that the website shows in a separate section.
PROJECT = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "tests/README.md": "project/tests.md",
    "device/README.md": "project/edge-agent-package.md",
    "README.md": "project/readme.md",
}
PACKAGES = {"stages": "stages", "fleet": "fleet", "device/edge_agent": "edge_agent"}
API = """Every module of the three packages, with its functions and classes.

- [stages](api/stages/index.rst): the pipeline, from raw data to a bundle
- [edge_agent](api/edge_agent/index.rst): the agent on a device
- [fleet](api/fleet/index.rst): publishing and rollouts

The command lines, file formats and JSON schemas are the public interface. The functions may change between versions."""


class Section(NamedTuple):
    """A `##` section of the index: its heading, its file on the website, its lines, and the pages that they link to."""

    title: str
    name: str
    lines: list[str]
    pages: list[str]


LEXERS = {"csv": "text"}  # languages of code blocks that Pygments has no lexer for


def stage(target: Path) -> None:
    """Empty the folder `target`, and write everything that Sphinx reads into it."""
    if target.exists():
        shutil.rmtree(target)
    pages = site_pages()
    for source, page in pages.items():
        if source != INDEX:
            _write(target / page, rewrite((REPOSITORY / source).read_text(encoding="utf-8"), source, target))
    shutil.copytree(REPOSITORY / "docs/images", target / "images")
    _write_index(target)


def site_pages() -> dict[str, str]:
    """Map the Markdown pages that the website shows to their files on the website."""
    own = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").rglob("*.md")}
    return {name: name.removeprefix("docs/") for name in sorted(own) if name != INDEX} | {INDEX: "index.md"} | PROJECT


def sections() -> list[Section]:
    """Return the sections of the index, in order."""
    result: list[Section] = []
    for _, line in prose((REPOSITORY / INDEX).read_text(encoding="utf-8")):
        if match := re.match(r"## +(.+)", line):
            result.append(Section(match[1], f"{re.sub('[^a-z]+', '-', match[1].lower())}.md", [], []))
        elif result:
            result[-1].lines.append(line)
            targets = (os.path.normpath(f"docs/{target.partition('#')[0]}") for target in LINK.findall(line))
            result[-1].pages.extend(target for target in targets if target in site_pages() and target != INDEX)
    return result


def rewrite(text: str, source: str, target: Path) -> str:
    """Change the links in a page's text to links that work on the website.

    Args:
        text: the page.
        source: its path in the repository.
        target: the folder that Sphinx reads; files that the page links to are copied there.

    Returns:
        The changed text. A link to a folder without a page is replaced by the text of the link.
    """
    numbers = {number for number, _ in prose(text)}
    for language, lexer in LEXERS.items():
        text = text.replace(f"```{language}\n", f"```{lexer}\n")
    lines = text.splitlines()
    return "\n".join(
        LINK.sub(lambda link: _link(link, source, target), line) if number in numbers else line
        for number, line in enumerate(lines, start=1)
    )


def _link(link: re.Match[str], source: str, target: Path) -> str:
    url = link[1]
    if re.match(r"[a-z]+:|#|/", url):
        return link[0]
    path, _, fragment = url.partition("#")
    linked = os.path.normpath(Path(source).parent / path)
    here = Path(site_pages()[source]).parent
    if linked in site_pages():
        replacement = os.path.relpath(site_pages()[linked], here)
    elif linked.startswith("docs/images/"):
        replacement = os.path.relpath(linked.removeprefix("docs/"), here)
    elif (module := _module(linked)) is not None:
        replacement = os.path.relpath(f"api/{module}/index.rst", here)
        fragment = ""
    elif (REPOSITORY / linked).is_file():
        copy = target / "files" / linked
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / linked, copy)
        replacement = os.path.relpath(f"files/{linked}", here)
        fragment = ""
    else:
        return link[0][1 : link[0].index("](")]
    return link[0].replace(f"({url}", f"({replacement}{f'#{fragment}' if fragment else ''}")


def _module(path: str) -> str | None:
    """Return the folder of the API page of one of the project's modules or packages; None for any other path."""
    for folder, package in PACKAGES.items():
        if path == folder or path.startswith(f"{folder}/"):
            inside = package + path.removeprefix(folder)
            if (REPOSITORY / path).is_dir() and (REPOSITORY / path / "__init__.py").is_file():
                return inside
            if path.endswith(".py"):
                return inside.removesuffix(".py").removesuffix("/__init__")
    return None


def _write_index(target: Path) -> None:
    """Write the index, and one page with a table of contents for each of its sections."""
    index = rewrite((REPOSITORY / INDEX).read_text(encoding="utf-8"), INDEX, target)
    names = []
    for section in sections():
        listed = list(dict.fromkeys(section.pages))
        if len(listed) == 1 and site_pages()[listed[0]].count("/") == 0:
            names.append(site_pages()[listed[0]])
            continue
        text = rewrite("\n".join(section.lines), INDEX, target)
        _write(
            target / section.name, f"# {section.title}\n{text}\n\n{_toctree([site_pages()[each] for each in listed])}"
        )
        names.append(section.name)
    packages = [f"api/{name}/index" for name in PACKAGES.values()]
    _write(target / "api.md", f"# API\n\n{API}\n\n{_toctree(packages)}")
    _write(target / "index.md", f"{index}\n\n{_toctree([*names, 'api.md'])}")


def _toctree(names: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", "", *names, "```", ""])


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
