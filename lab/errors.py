"""Errors of a lab, with messages that a person can act on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping


class LabError(Exception):
    """The lab cannot be created or used."""

    def __init__(self, where: str, found: str, expected: str, remedy: str) -> None:
        """Build the message from its four parts.

        Args:
            where: The part that fails, such as a device or a command.
            found: What was found there.
            expected: What was expected.
            remedy: What the user can do, as an imperative.
        """
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        super().__init__(f"{where}: {found}\n  expected: {expected}\n  remedy:   {remedy}")


def missing_packages(programs: Mapping[str, str]) -> str:
    """Return how to install the Debian packages of missing programs; empty if none is missing.

    `programs`: the package of each program, by the program's name.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    packages = sorted({package for name, package in programs.items() if not shutil.which(name, path=path)})
    return (
        f"required programs are not installed; install them with: apt-get install {' '.join(packages)}"
        if packages
        else ""
    )
