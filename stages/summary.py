"""What came out: a table of the targets, and where the bundle and the report are."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from stages.errors import StageError, run
from stages.files import read_json, sha256

GATE = Path("reports/gate.json")
METRICS = Path("reports/metrics.json")
PAGE = Path("reports/index.html")
BUNDLES = Path("models/bundle")


def summarise() -> dict[str, Any]:
    """Name, verdict, targets, bundle and page as one JSON-ready value. Raises StageError when nothing was built."""
    gate, metrics = _read(GATE), _read(METRICS)
    targets = [{"target": target, **metrics.get(target, {}), **own} for target, own in gate["targets"].items()]
    archive = BUNDLES / f"{gate['name']}.tar.zst"
    bundle = None
    if archive.is_file():
        bundle = {"path": str(archive), "size_bytes": archive.stat().st_size, "sha256": sha256(archive)}
    return {
        "name": gate["name"],
        "passed": gate["passed"],
        "targets": targets,
        "bundle": bundle,
        "report": str(PAGE) if PAGE.is_file() else None,
    }


def _read(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise StageError(str(path), "there is no such file", "the gate's report", "run: make repro") from None
    except ValueError as error:
        raise StageError(str(path), f"not readable as JSON: {error}", "the gate's report", "run: make repro") from None


def describe_bundle(summary: dict[str, Any]) -> str:
    """Where the bundle is. One that lies there although the gate failed is of an earlier run, and it is said so."""
    bundle = summary["bundle"]
    if bundle is None:
        return "none: the gate did not pass" if not summary["passed"] else "none yet: run make repro"
    place = f"{bundle['path']} ({bundle['size_bytes'] / 1000:.1f} kB, sha256 {bundle['sha256']})"
    return place if summary["passed"] else f"{place}; of an earlier run, since the gate did not pass now"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.summary", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the same for machines")
    arguments = parser.parse_args()
    summary = summarise()
    if arguments.json:
        print(json.dumps(summary, indent=2, sort_keys=True))
        return
    from stages.report.terminal import print_summary

    places = [("bundle", describe_bundle(summary)), ("report", summary["report"] or "none")]
    print_summary(summary["name"], summary["targets"], places)


if __name__ == "__main__":
    run(main)
