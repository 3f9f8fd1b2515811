"""Tells systemd how the service does: the datagrams of sd_notify(3). Without $NOTIFY_SOCKET nothing is sent.

READY=1          a verified model is loaded, or there is none to load; requests are answered
STATUS=...       one line for `systemctl status`
WATCHDOG=1       a real inference went through; not sent any more, systemd ends the process and starts it again
STOPPING=1       no new requests are taken
"""

from __future__ import annotations

import os
import socket

READY_S = 5.0


def send(*lines: str, wait_s: float = 0.0) -> bool:
    """Send `lines` in one datagram. Returns whether somebody was there to hear it.

    Whoever does not read what came before is waited for at most `wait_s`: the caller is the loop that answers requests.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # Linux' abstract namespace, which systemd uses in containers
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.settimeout(wait_s)
            channel.sendto("\n".join(lines).encode(), address)
    except OSError:  # a supervisor that went away is no reason to stop answering requests
        return False
    return True


def ready(status: str) -> bool:
    # Lost, systemd would end a service that answers.
    return send("READY=1", f"STATUS={status}", wait_s=READY_S)


def status(text: str) -> bool:
    return send(f"STATUS={text}")


def alive() -> bool:
    return send("WATCHDOG=1")


def stopping() -> bool:
    return send("STOPPING=1")


def watchdog_s() -> float | None:
    """Seconds within which systemd wants a ping from this process, or None."""
    wanted, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdigit() or int(wanted) == 0 or (process and process != str(os.getpid())):
        return None
    return int(wanted) / 1e6
