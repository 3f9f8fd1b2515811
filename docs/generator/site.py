"""`make docs`: build the website in .work/docs/html. Every warning, such as a dead link, is an error."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from docs.generator.staging import stage
from tests.support.paths import REPOSITORY

WORK = REPOSITORY / ".work/docs"


def main(arguments: list[str] | None = None) -> int:
    """Build the website. Return Sphinx's exit code, which is 0 if there was no warning."""
    parser = argparse.ArgumentParser(prog="python -m docs.generator.site", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=WORK, help="folder for Sphinx's source, the website and the cache (%(default)s)"
    )
    options = parser.parse_args(arguments)
    work = options.work.resolve()
    stage(work / "source")
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--keep-going", "--quiet"]
    command += ["--conf-dir", str(Path(__file__).parent), "--doctree-dir", str(work / "doctrees")]
    command += [str(work / "source"), str(work / "html")]
    done = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=False)
    if done.returncode == 0:
        print(f"site  {work / 'html/index.html'}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
