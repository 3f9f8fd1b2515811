"""`make docs-reference`: write the reference pages that are generated from the code."""

from __future__ import annotations

import argparse
import sys

from docs.generator.pages import PAGES, folder


def main(arguments: list[str] | None = None) -> int:
    """Write or check the pages. Return the exit code, which is 0 if all are current and all fields are described."""
    parser = argparse.ArgumentParser(prog="python -m docs.generator.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a page on disk is outdated, and write nothing")
    options = parser.parse_args(arguments)
    faults = []
    for build in PAGES:
        page = build()
        path = folder() / page.name
        stale = not path.is_file() or path.read_text(encoding="utf-8") != page.text
        if stale and options.check:
            faults.append(f"docs/reference/{page.name} is stale; run: make docs-reference")
        elif stale:
            path.write_text(page.text, encoding="utf-8")
            print(f"wrote docs/reference/{page.name}")
        faults += [f"no description: {each}" for each in page.missing]
    print("\n".join(faults), file=sys.stderr, end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
