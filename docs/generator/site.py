"""`make docs`: build the site in .work/docs/html. Every warning is an error, such as a dead link."""

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
    """Return Sphinx's exit code: 0 when the site was built without a warning."""
    parser = argparse.ArgumentParser(prog="python -m docs.generator.site", description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="folder for source, html and cache (%(default)s)")
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
