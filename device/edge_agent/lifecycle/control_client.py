"""How the command line speaks to the running service: HTTP over the unix socket `control.sock`.

Who may use it is who may open the socket: its owner and its group. The standard library only, so that
`edge-agent status` starts fast.

    GET  /status       what is loaded, the trial, the last events
    GET  /report       what was counted since the switch
    POST /reconcile    load now what state.json names; answers when it answers requests, or why it cannot
    POST /shadow       feed a candidate live inputs until it ends or the caller goes; lines of JSON
    GET  /shadow       the last summary
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

from edge_agent.core.errors import ServiceError
from edge_agent.core.layout import Layout

# The service answers once the model is loaded and requests go to it; a large model takes its time.
RECONCILE_S = 120.0
REMEDY = "see how it does: journalctl -u edge-agent -n 50"


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("edge-agent", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _open(
    layout: Layout, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
) -> tuple[_Connection, http.client.HTTPResponse] | None:
    connection = _Connection(str(layout.control_socket), timeout_s)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None)
        return connection, connection.getresponse()
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None  # no service runs: a socket that it left behind refuses
    except PermissionError as error:
        connection.close()
        raise ServiceError(
            str(layout.control_socket),
            error.strerror or str(error),
            "a member of the socket's group",
            "call as root, or as a member of the group edge-agent",
        ) from None
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise ServiceError(
            str(layout.control_socket), f"no answer to {path} ({_why(error)})", f"within {timeout_s:g} s", REMEDY
        ) from None


def call(
    layout: Layout, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 10.0
) -> dict[str, Any] | None:
    """The service's answer, or None where no service runs.

    Raises ServiceError where it runs but does not answer, or refuses.
    """
    opened = _open(layout, method, path, body, timeout_s)
    if opened is None:
        return None
    connection, response = opened
    try:
        answer: dict[str, Any] = json.loads(response.read())
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServiceError(
            str(layout.control_socket), f"{path} broke off ({_why(error)})", "an answer in JSON", REMEDY
        ) from None
    finally:
        connection.close()
    if response.status >= 400 and "found" not in answer:
        raise ServiceError(str(layout.control_socket), f"{path}: {answer}", "an agent of this version", REMEDY)
    return answer


def reconcile(layout: Layout) -> dict[str, Any]:
    """Let the service follow state.json; what it loaded then: {running, loaded, error}. Raises ServiceError."""
    answer = call(layout, "POST", "/reconcile", timeout_s=RECONCILE_S)
    if answer is None:
        return {"running": False, "loaded": None, "error": None}
    return {"running": True, "loaded": answer["loaded"], "error": answer["error"]}


def stream(layout: Layout, path: str, body: dict[str, Any], timeout_s: float = 30.0) -> Iterator[dict[str, Any]]:
    """Line after line of the service's answer; `timeout_s` is silence. Closing the iterator hangs up.

    Raises ServiceError, also where no service runs.
    """
    opened = _open(layout, "POST", path, body, timeout_s)
    if opened is None:
        raise ServiceError(
            str(layout.control_socket), "no service runs", "a running agent", "start it: systemctl start edge-agent"
        )
    connection, response = opened
    try:
        while line := response.readline():
            yield json.loads(line)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServiceError(
            str(layout.control_socket), f"{path} broke off ({_why(error)})", "lines of JSON", REMEDY
        ) from None
    finally:
        connection.close()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "silence"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
