"""The client of the running service: HTTP over the unix socket `control.sock`.

The file permissions of the socket control access: the socket's owner and group may connect. This module imports only
the standard library, so that `edge-agent status` starts fast.

    GET  /status       the loaded model, the progress of the trial, and the last events
    GET  /report       statistics since the agent switched to the loaded release
    POST /reconcile    load the release that state.json names; the service responds when the model answers requests
                       or has failed to load
    POST /shadow       compare a candidate release with the loaded release on live inputs until a limit is reached or
                       the client disconnects; the response is JSON lines, one summary each second
    GET  /shadow       the latest summary of the running or last comparison
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from edge_agent.core.errors import ServiceError
from edge_agent.core.layout import Layout
from edge_agent.lifecycle.control_messages import LoadedModel, ServiceModel, ServiceStatus, ShadowSummary

# The service responds only when the new model answers requests. Loading a large model takes a long time.
RECONCILE_S = 120.0
SHADOW_S = 30.0  # maximum wait for the next line of /shadow; the service sends one line each second
REMEDY = "see the log of the service: journalctl -u edge-agent -n 50"

Message = TypeVar("Message")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("edge-agent", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def status(layout: Layout, timeout_s: float = 10.0) -> ServiceStatus | None:
    """Return the status of the service, or None if no service is running. Raises ServiceError."""
    response = _call(layout, "GET", "/status", timeout_s)
    return None if response is None else _parsed(layout, "/status", ServiceStatus.from_json, response)


def report(layout: Layout, timeout_s: float = 10.0) -> dict[str, Any] | None:
    """Return the service's statistics of the loaded release, as JSON, or None if no service is running.

    The statistics begin when the agent switched to this release. The command line prints this JSON unchanged.
    docs/reference/http-and-mqtt.md describes its fields. Raises ServiceError.
    """
    return _call(layout, "GET", "/report", timeout_s)


def reconcile(layout: Layout) -> ServiceModel:
    """Make the service load the release that state.json names, and return the model that is then loaded.

    If the release cannot be loaded, the result contains the reason. Raises ServiceError.
    """
    response = _call(layout, "POST", "/reconcile", RECONCILE_S)
    if response is None:
        return ServiceModel(False, None, None)

    def parse(value: dict[str, Any]) -> ServiceModel:
        return ServiceModel(True, LoadedModel.from_json(value["loaded"]), value["error"])

    return _parsed(layout, "/reconcile", parse, response)


def shadow(layout: Layout, release: str, samples: int, seconds: float) -> Iterator[ShadowSummary]:
    """Compare a candidate release with the loaded release on live inputs, and yield a summary each second.

    Closing the iterator ends the comparison.

    Args:
        layout: The folders of the agent.
        release: The candidate: the name of an installed release, as NAME@VERSION.
        samples: Number of inputs after which the comparison ends.
        seconds: Maximum duration of the comparison in seconds.

    Raises:
        ServiceError: No service is running, or the service refuses the candidate or stops responding.
    """
    opened = _open(
        layout, "POST", "/shadow", {"release": release, "samples": samples, "seconds": seconds}, timeout_s=SHADOW_S
    )
    if opened is None:
        raise ServiceError(
            str(layout.control_socket),
            "no service is running",
            "a running service",
            "start it: systemctl start edge-agent",
        )
    connection, response = opened
    try:
        while line := response.readline():
            value = json.loads(line)
            if "found" in value:
                raise ServiceError(value["where"], value["found"], value["expected"], value["remedy"])
            yield _parsed(layout, "/shadow", ShadowSummary.from_json, value)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServiceError(
            str(layout.control_socket),
            f"the response to /shadow is incomplete or invalid ({_reason(error)})",
            "complete JSON lines",
            REMEDY,
        ) from None
    finally:
        connection.close()


def _call(layout: Layout, method: str, path: str, timeout_s: float) -> dict[str, Any] | None:
    """Send a request to the service, and return the JSON of its response, or None if no service is running.

    Raises ServiceError if the service does not respond in time or responds with an HTTP error.
    """
    opened = _open(layout, method, path, None, timeout_s)
    if opened is None:
        return None
    connection, response = opened
    try:
        value: dict[str, Any] = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServiceError(
            str(layout.control_socket),
            f"the response to {path} is incomplete or invalid ({_reason(error)})",
            "a complete JSON response",
            REMEDY,
        ) from None
    finally:
        connection.close()
    if response.status >= 400:
        raise _unexpected(layout, path, value)
    return value


def _open(
    layout: Layout, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
) -> tuple[_Connection, http.client.HTTPResponse] | None:
    """Send a request to the service. Return the connection and the response, or None if no service is running.

    Raises ServiceError.
    """
    connection = _Connection(str(layout.control_socket), timeout_s)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        return connection, connection.getresponse()
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None  # no service is running: the stale socket of a killed service refuses connections
    except PermissionError as error:
        connection.close()
        raise ServiceError(
            str(layout.control_socket),
            error.strerror or str(error),
            "a user who may open the socket",
            "run the command as root, or as a member of the group edge-agent",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise ServiceError(
            str(layout.control_socket),
            f"no response to {path} ({_reason(error)})",
            f"a response within {timeout_s:g} s",
            REMEDY,
        ) from None


def _parsed(layout: Layout, path: str, parse: Callable[[dict[str, Any]], Message], value: dict[str, Any]) -> Message:
    """Return `parse(value)`. Raises ServiceError if a field is missing, because the service has another version."""
    try:
        return parse(value)
    except (KeyError, TypeError, AttributeError):
        raise _unexpected(layout, path, value) from None


def _unexpected(layout: Layout, path: str, value: object) -> ServiceError:
    return ServiceError(
        str(layout.control_socket),
        f"the response to {path} is {value}",
        "a response that this version of edge-agent can read",
        REMEDY,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
