"""`edge-agent serve`: boot a verified release, serve it, follow state.json, judge trials, ping the watchdog.

`run` puts the service together; no other function of this package knows all parts.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

from edge_agent.core import logs
from edge_agent.core.config import Config
from edge_agent.service import control_server, endpoints
from edge_agent.service.supervisor import Supervisor


def serve(config: Config, systemd: bool = True) -> None:
    """Serve until SIGTERM or SIGINT. Raises AgentError if booting fails, or if the model hangs without systemd."""
    logs.setup(logs.JOURNAL if systemd else None)
    if not systemd:
        os.environ.pop("NOTIFY_SOCKET", None)
    asyncio.run(run(config, systemd))


async def run(config: Config, systemd: bool) -> None:
    """Boot, serve and shut down. Resources are closed in reverse order of their opening."""
    async with AsyncExitStack() as stack:
        supervisor = await Supervisor.boot(
            config, systemd, stack
        )  # before the sockets open: every accepted request can be answered
        if supervisor.ending.is_set():
            return
        addresses = await endpoints.start(supervisor, stack)
        await control_server.start(supervisor, stack)
        await supervisor.run_until_signal(addresses)
