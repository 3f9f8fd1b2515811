"""Errors of the fleet's tools: each has a message in four parts and an exit code for its cause.

Exit codes of `fleet`:

     0  done, or nothing to do
     1  a defect of the fleet's tools: the only case with a traceback
     2  the command line is invalid (argparse)
     3  not trusted: a signature or a digest is wrong, or metadata has expired or lists development keys
     4  the bundle is incomplete or corrupted
     5  the version is invalid, or is already used by a different bundle or commit
     6  no such release, rollout, device history or log
     7  another process holds the lock
     8  a store, a host or a server cannot be reached
     9  no disk space, or a file system error
    10  the rollout failed and its devices were rolled back; or a release failed in its last rollout and is not tried
        again; or a device could not be rolled back
    11  the rollout is paused: the verdict is inconclusive, or an operator has to decide
    12  a configuration, an inventory or a repository of releases is invalid
    13  a private key is missing, or its passphrase is wrong
    14  Ansible ended before the playbook reported a result: see Ansible's log
   130  interrupted
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.core.errors import EXIT_INTERRUPTED as EXIT_INTERRUPTED
from edge_agent.core.errors import AgentError


class FleetError(AgentError):
    """The base class of the errors of the fleet's tools.

    Each error has the parts where, found, expected and remedy, like the agent's errors.
    """


class TrustError(FleetError):
    """A signature or a digest is wrong, or the metadata is not signed by a trusted key or has expired."""

    exit_code = 3


class BundleError(FleetError):
    """The bundle is incomplete or corrupted."""

    exit_code = 4


class VersionError(FleetError):
    """The version is invalid, or is already used by a different bundle or commit."""

    exit_code = 5


class NoReleaseError(FleetError):
    """The release, rollout, device history or log does not exist."""

    exit_code = 6


class BusyError(FleetError):
    """Another process holds the lock."""

    exit_code = 7


class SourceError(FleetError):
    """An object store, a host or a server cannot be reached, or closed the connection."""

    exit_code = 8


class StorageError(FleetError):
    """There is no disk space, or the file system reports an error."""

    exit_code = 9


class RolloutError(FleetError):
    """The rollout failed and its devices were rolled back, or a device could not be rolled back."""

    exit_code = 10


class PausedError(FleetError):
    """The rollout is paused because a verdict is inconclusive or because an operator must decide."""

    exit_code = 11


class ConfigurationError(FleetError):
    """A configuration, an inventory or a repository of releases is invalid."""

    exit_code = 12


class KeysError(FleetError):
    """A private key is missing, or cannot be read."""

    exit_code = 13


class PlaybookError(FleetError):
    """Ansible ended before the playbook reported a result."""

    exit_code = 14


class InventoryError(ConfigurationError):
    """The inventory does not declare a valid fleet."""


class WheelhouseError(StorageError):
    """The wheelhouse, from which devices install the agent, could not be built."""


def from_json(fields: Mapping[str, Any], rows: Sequence[str] = ()) -> FleetError:
    """Recreate an error from the JSON object that another process printed with `as_json`.

    `rows` are additional lines, which are appended to the part `found`.
    """
    named = globals().get(fields["error"])
    kind = named if isinstance(named, type) and issubclass(named, FleetError) else FleetError
    error = kind(fields["where"], "; ".join([fields["found"], *rows]), fields["expected"], fields["remedy"])
    error.exit_code = int(fields["exit_code"])
    return error
