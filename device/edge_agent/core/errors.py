"""The errors of the agent: one class for each exit code, and error messages that have four parts.

Exit codes of `edge-agent` (2 comes from argparse: the command line is invalid):

     0  success, or nothing to do
     1  a defect of the agent; only this code comes with a traceback
     3  the release is not trusted: a wrong signature or digest, expired or older metadata, or a withdrawn release
     4  the release does not fit this device
     5  the self-test failed
     6  no such release, or no release to roll back to
     7  another operation holds the lock
     8  the repository of releases cannot be reached
     9  no space, no permission, or a disk failure
    10  the trial failed and the agent rolled back, or the release is marked as bad
    11  the service does not respond, or refuses the request
    12  the configuration or the state is invalid
   130  interrupted
"""

from __future__ import annotations

EXIT_DEFECT = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class AgentError(Exception):
    """Base class of the agent's errors, which are raised if the agent cannot do what was requested."""

    exit_code = EXIT_DEFECT

    def __init__(self, where: str, found: str, expected: str = "", remedy: str = "") -> None:
        """Build the error message from its four parts, of which empty ones are omitted.

        Args:
            where: The file, field, release or address that the error is about.
            found: What is wrong there.
            expected: What the agent expected instead.
            remedy: What the operator can do, as an imperative sentence.
        """
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy
        lines = [f"{where}: {found}"]
        if expected:
            lines.append(f"  expected: {expected}")
        if remedy:
            lines.append(f"  remedy:   {remedy}")
        super().__init__("\n".join(lines))

    def as_json(self) -> dict[str, str | int]:
        """Return the error as the JSON object that the option `--json` prints."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }


class TrustError(AgentError):
    """The release or the metadata is not signed, has expired, was withdrawn, or differs from what was signed."""

    exit_code = 3


class FitError(AgentError):
    """The release is not built for this device, or needs more memory or disk space than the device has."""

    exit_code = 4


class SelfTestError(AgentError):
    """The model does not load, or its outputs, latency or memory on this device exceed the limits of the release."""

    exit_code = 5


class NoReleaseError(AgentError):
    """The named release is not installed or is not the current one, or there is no release to roll back to."""

    exit_code = 6


class BusyError(AgentError):
    """Another operation holds the agent's lock, or changed the current release during the command."""

    exit_code = 7


class SourceError(AgentError):
    """The repository of releases cannot be reached, or a download from it was interrupted."""

    exit_code = 8


class StorageError(AgentError):
    """The disk is full or fails, or the user has no permission for the file."""

    exit_code = 9


class TrialError(AgentError):
    """The release failed its trial and was rolled back, is marked as bad, or is not healthy enough for the command."""

    exit_code = 10


class ServiceError(AgentError):
    """The running service does not respond, or refuses the request."""

    exit_code = 11


class ConfigurationError(AgentError):
    """The configuration file or the state on disk is missing, unreadable or invalid."""

    exit_code = 12
