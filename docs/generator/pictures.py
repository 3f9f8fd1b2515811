"""`make docs-images`: take the README's pictures from real runs: the report page, and `make demo` in a terminal."""

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
PAGE = {"width": 1200, "height": 900}  # pixels of the report that are shown
WEB_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a picture loads nothing from the network


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 when the pictures that were asked for are written."""
    parser = argparse.ArgumentParser(prog="python -m docs.generator.pictures", description=__doc__)
    parser.add_argument("pictures", nargs="*", choices=["report", "rollout", []], help="only these (default: both)")
    options = parser.parse_args(arguments)
    chosen = options.pictures or ["report", "rollout"]
    if "report" in chosen:
        if not REPORT.is_file():
            print("reports/index.html: found no report; expected: a build; remedy: make repro", file=sys.stderr)
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
    """Write the top of the report page as a PNG, as a desktop browser shows it in light colours."""
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
    except OSError:  # Linux's answer once the last program has closed the terminal
        return b""


def settled(output: str) -> list[str]:
    """Return the lines that stay on the screen: of a line that was written over, the last text."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-KST]", "", output)  # moves of the cursor and erased lines; colours stay
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]


def only_rollouts(lines: list[str]) -> list[str]:
    """Return the demo's lines without its sections on publishing and setting up, each cut to one line."""
    shown, inside = [], True
    for line in lines:
        if line.startswith("== "):
            inside = line.startswith("== rollout")
            shown += [line] if inside else [line, "..."]
        elif inside:
            shown.append(line)
    return shown


def draw_terminal(title: str, output: str, picture: Path) -> None:
    """Write a command's output as an SVG of a terminal.

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
