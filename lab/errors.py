"""What keeps a lab from standing: one message that a person can act on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping


class LabError(Exception):
    """Says where, what was found, what was expected, what to do."""

    def __init__(self, where: str, found: str, expected: str, remedy: str) -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        super().__init__(f"{where}: {found}\n  expected: {expected}\n  remedy:   {remedy}")


def lacking(programs: Mapping[str, str]) -> str:
    """Which of these programs are not here, and the Debian packages that bring them; empty where all are."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = sorted({package for name, package in programs.items() if not shutil.which(name, path=path)})
    return f"not installed; get it with: apt-get install {' '.join(packages)}" if packages else ""
