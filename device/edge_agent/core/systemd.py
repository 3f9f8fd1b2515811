"""Tell systemd the state of the service by sd_notify(3) datagrams. If $NOTIFY_SOCKET is not set, send nothing.

READY=1          a verified model is loaded, or no release is installed; requests are answered
STATUS=...       one line for `systemctl status`
WATCHDOG=1       an inference succeeded; if these pings stop, systemd kills the process and starts it again
STOPPING=1       no new requests are accepted
"""

from __future__ import annotations

import os
import socket

READY_S = 5.0


def send(*lines: str, wait_s: float = 0.0) -> bool:
    """Send `lines` to systemd in one datagram, and return whether the datagram was sent.

    If the socket's buffer is full, this function waits for at most `wait_s` seconds. This limit is needed because the
    function blocks the event loop, which answers requests.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # an address in Linux's abstract namespace, which systemd uses in containers
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(wait_s)
            channel.sendto("\n".join(lines).encode(), address)
    except OSError:  # the service keeps answering requests even if the supervisor has disappeared
        return False
    return True


def ready(status: str) -> bool:
    """Tell systemd that the service answers requests, and set the status line that `systemctl status` shows."""
    # Wait for the receiver, because systemd would kill a working service if this datagram were lost.
    return send("READY=1", f"STATUS={status}", wait_s=READY_S)


def status(text: str) -> bool:
    """Set the status line that `systemctl status` shows."""
    return send(f"STATUS={text}")


def alive() -> bool:
    """Send a ping to systemd's watchdog."""
    return send("WATCHDOG=1")


def stopping() -> bool:
    """Tell systemd that the service is shutting down."""
    return send("STOPPING=1")


def watchdog_s() -> float | None:
    """Return the time in seconds within which systemd's watchdog expects a ping from this process.

    Return None if systemd expects no pings from this process.
    """
    interval_us, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not interval_us.isdigit() or int(interval_us) == 0 or (process and process != str(os.getpid())):
        return None
    return int(interval_us) / 1e6
