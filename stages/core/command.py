"""How a stage's program starts: what --help says, and how the threads of its numerics wait."""

from __future__ import annotations

import argparse
import os


def parser(stage: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of `python -m stages.<stage>`; --help shows the module's docstring as it is, and the exit codes."""
    return argparse.ArgumentParser(
        prog=f"python -m stages.{stage}",
        description=description,
        epilog="Exit codes: 0 done; 1 refused, with a message that says what to do; 130 interrupted.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def make_idle_threads_sleep() -> None:
    """Threads that wait shall sleep, not spin, or on a busy machine two are slower than one.

    OpenMP reads this once: call it before torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
