"""`make docs-images`: write the README's pictures of a real report page and of a real `make demo` in a terminal."""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.support.paths import REPOSITORY

IMAGES = REPOSITORY / "docs/images"
REPORT = REPOSITORY / "reports/index.html"
CHROMIUM = "/usr/bin/chromium"
COLUMNS = 110
PAGE = {"width": 1200, "height": 900}  # visible part of the report, in pixels
WEB_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a picture must not load them from the network


def main(arguments: list[str] | None = None) -> int:
    """Write the requested pictures. Return the exit code, which is 0 if all of them were written."""
    parser = argparse.ArgumentParser(prog="python -m docs.generator.pictures", description=__doc__)
    parser.add_argument(
        "pictures", nargs="*", choices=["report", "rollout", []], help="pictures to write (default: both)"
    )
    options = parser.parse_args(arguments)
    chosen = options.pictures or ["report", "rollout"]
    if "report" in chosen:
        if not REPORT.is_file():
            print(
                "reports/index.html: found no report; expected: the report of a build; remedy: run make repro",
                file=sys.stderr,
            )
            return 1
        take_report(REPORT, IMAGES / "report.png")
    if "rollout" in chosen:
        status, output = run_in_terminal([sys.executable, "-m", "examples.demo"])
        if status:
            print(f"{output}\nexamples.demo: found exit code {status}; expected: 0", file=sys.stderr)
            return 1
        draw_terminal("make demo", output, IMAGES / "rollout.svg")
    return 0


def take_report(page: Path, picture: Path) -> None:
    """Write the top of the report page to a PNG file, as a desktop browser shows it with light colours."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": PAGE["width"], "height": PAGE["height"]}, color_scheme="light")
        view.goto(page.as_uri())
        view.screenshot(path=picture)
        browser.close()
    print(f"wrote {picture.relative_to(REPOSITORY)}")


def run_in_terminal(command: list[str]) -> tuple[int, str]:
    """Run a command in a pseudo-terminal; return its exit code and everything that it printed."""
    controller, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    chunks = []
    while chunk := _read(controller):
        chunks.append(chunk)
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    os.close(controller)
    return process.wait(), b"".join(chunks).decode(errors="replace")


def _read(controller: int) -> bytes:
    try:
        return os.read(controller, 65536)
    except OSError:  # Linux reports an error after the last program has closed the terminal
        return b""


def settled(output: str) -> list[str]:
    """Return the lines that remain on the screen; for an overwritten line, this is the text that was written last."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-KST]", "", output)  # removes cursor movements and line erasures, but keeps colours
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]


def only_rollouts(lines: list[str]) -> list[str]:
    """Return the demo's lines, with every section that is not a rollout reduced to its heading and `...`."""
    shown, inside = [], True
    for line in lines:
        if line.startswith("== "):
            inside = line.startswith("== rollout")
            shown += [line] if inside else [line, "..."]
        elif inside:
            shown.append(line)
    return shown


def draw_terminal(title: str, output: str, picture: Path) -> None:
    """Draw a command's output as a terminal window in an SVG file.

    Args:
        title: the command, shown as the window's title and after the prompt.
        output: everything that the demo printed, with colours as ANSI escapes.
        picture: the SVG file to write.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {title}", style="bold"))
    for line in only_rollouts(settled(output)):
        console.print(Text.from_ansi(line))
    svg = console.export_svg(title=title, theme=MONOKAI)
    picture.write_text(WEB_FONTS.sub("", svg), encoding="utf-8")
    print(f"wrote {picture.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    sys.exit(main())
