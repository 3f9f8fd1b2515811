"""What the fleet's tools say when they refuse or cannot go on: one message that a person can act on, and an exit code.

Exit codes of `fleet` (2 is argparse's own: the command line is wrong):

     0  done, or nothing to do
     1  a defect of the fleet's tools: the only case with a traceback
     3  not trusted: a signature, a digest, expired or development metadata
     4  not a whole bundle
     5  the version is taken by other bytes, or is none
     6  there is no such release, rollout, device's history or log
     7  another operation holds the lock
     8  a store, a host or a server cannot be reached
     9  no space, or the disk failed
    10  the rollout failed, and what it touched went back; or it failed before and is not tried again; or a device could
        not be called back
    11  the rollout is paused: the verdict is inconclusive, or a person has to decide
    12  a configuration, an inventory or a repository is wrong
    13  a private key is missing, or its passphrase is wrong
    14  Ansible ended before it had said how it ended: its log tells why
   130  interrupted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.core.errors import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from edge_agent.core.errors import AgentError


class FleetError(AgentError):
    """The operation cannot be done. Says where, what was found, what was expected, what to do, as the agent's do."""


class TrustError(FleetError):
    """A signature, a digest or the metadata is not what the pinned trust says."""

    exit_code = 3


class BundleError(FleetError):
    """The archive is not a whole bundle."""

    exit_code = 4


class VersionError(FleetError):
    """The version is not one, or belongs to other bytes or another commit."""

    exit_code = 5


class NoReleaseError(FleetError):
    """There is no such release."""

    exit_code = 6


class BusyError(FleetError):
    """Another operation holds the lock."""

    exit_code = 7


class SourceError(FleetError):
    """A store, a host or a server cannot be reached, or breaks off."""

    exit_code = 8


class StorageError(FleetError):
    """No space, or the file system refuses."""

    exit_code = 9


class RolloutError(FleetError):
    """The rollout failed; what it touched went back."""

    exit_code = 10


class PausedError(FleetError):
    """The rollout waits: the verdict is inconclusive, or a person has to decide."""

    exit_code = 11


class ConfigurationError(FleetError):
    """A configuration, an inventory or a repository of releases is not what it has to be."""

    exit_code = 12


class KeysError(FleetError):
    """A private key is missing, or cannot be read."""

    exit_code = 13


class PlaybookError(FleetError):
    """Ansible ended before the playbook had come to a decision of its own."""

    exit_code = 14


class InventoryError(ConfigurationError):
    """What is declared is not a fleet that can be worked with."""


class WheelhouseError(StorageError):
    """What devices install from could not be made."""


def from_json(said: Mapping[str, Any], rows: Sequence[str] = ()) -> FleetError:
    """The error whose `as_json` another process printed, of its own class. `rows`: said besides."""
    named = globals().get(said["error"])
    kind = named if isinstance(named, type) and issubclass(named, FleetError) else FleetError
    error = kind(said["where"], "; ".join([said["found"], *rows]), said["expected"], said["remedy"])
    error.exit_code = int(said["exit_code"])
    return error
