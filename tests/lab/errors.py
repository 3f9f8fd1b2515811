"""What keeps a lab from standing: one message that a person can act on."""

from __future__ import annotations


class LabError(Exception):
    """Says where, what was found, what was expected, what to do."""

    def __init__(self, where: str, found: str, expected: str, remedy: str) -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        super().__init__(f"{where}: {found}\n  expected: {expected}\n  remedy:   {remedy}")
