"""What operating a fleet refuses or cannot do: one message that a person can act on, and an exit code.

Exit codes of `python -m fleet` (2 is argparse's own: the command line is wrong):

     0  done, or nothing to do
     1  a defect: the only case with a traceback
     9  the disk, or a program that is needed, failed
    12  the inventory or the configuration is wrong
"""

from __future__ import annotations


class FleetError(Exception):
    """Says where, what was found, what was expected, what to do."""

    exit_code = 1

    def __init__(self, where: str, found: str, expected: str = "", remedy: str = "") -> None:
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        lines = [f"{where}: {found}"]
        if expected:
            lines.append(f"  expected: {expected}")
        if remedy:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))

    def as_json(self) -> dict[str, str | int]:
        """For `--json`: the same for machines."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }


class InventoryError(FleetError):
    """What is declared is not a fleet that can be worked with."""

    exit_code = 12


class WheelhouseError(FleetError):
    """What devices install from could not be made."""

    exit_code = 9
