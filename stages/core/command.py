"""Code that a stage runs when it starts: the parser of its command line, and a setting for idle threads."""

from __future__ import annotations

import argparse
import os

from stages.core.errors import EXIT_CODES


def parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    """Return the argument parser of `python -m stages.<stage>`; --help shows `description` and the exit codes."""
    codes = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    return argparse.ArgumentParser(
        prog=f"python -m stages.{stage}",
        description=description,
        epilog=f"Exit codes: {codes}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def make_idle_threads_sleep() -> None:
    """Make idle OpenMP threads sleep.

    If they spin (busy-wait) instead, two threads are slower than one on a busy machine. Call this function
    before torch is imported, because OpenMP reads the setting only once.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
