"""What the agent says when it refuses or cannot go on: one message that a person can act on, and an exit code.

Exit codes of `edge-agent` (2 is argparse's own: the command line is wrong):

     0  done, or nothing to do
     1  a defect of the agent: the only case with a traceback
     3  not trusted: signature, expiry, rollback of metadata, withdrawn, digest
     4  does not fit this device
     5  the self-test failed
     6  there is no such release, or nothing to go back to
     7  another operation holds the lock
     8  the source cannot be reached
     9  no space, or the disk failed
    10  the trial failed, and the agent went back
    11  the service does not answer
    12  the configuration or the state is wrong
   130  interrupted
"""

from __future__ import annotations

EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class AgentError(Exception):
    """The agent cannot do what was asked. Says where, what was found, what was expected, what to do."""

    exit_code = EXIT_DEFECT

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


class TrustError(AgentError):
    """What was offered is not signed, not current, withdrawn, or not what was signed."""

    exit_code = 3


class FitError(AgentError):
    """The release is not for this device."""

    exit_code = 4


class SelfTestError(AgentError):
    """The release does not do on this device what it did when it was built."""

    exit_code = 5


class NoReleaseError(AgentError):
    """The release that was named is not there, or there is none to go back to."""

    exit_code = 6


class BusyError(AgentError):
    """Another operation holds the lock."""

    exit_code = 7


class SourceError(AgentError):
    """The repository of releases cannot be reached, or breaks off."""

    exit_code = 8


class StorageError(AgentError):
    """No space, or the file system refuses."""

    exit_code = 9


class TrialError(AgentError):
    """The release did not prove itself; the agent went back."""

    exit_code = 10


class ServiceError(AgentError):
    """The running agent does not answer, or answers that it cannot."""

    exit_code = 11


class ConfigurationError(AgentError):
    """The configuration file or the state on disk is not what it has to be."""

    exit_code = 12
