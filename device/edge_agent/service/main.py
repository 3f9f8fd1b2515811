"""`edge-agent serve`: boots to a verified release, serves it, follows state.json, judges trials, pings the watchdog.

`run` puts the service together: nothing else in this package knows all of its parts.
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
    """Serve until SIGTERM or SIGINT. Raises AgentError where it cannot boot, or hangs without systemd to see it."""
    logs.setup(logs.JOURNAL if systemd else None)
    if not systemd:
        os.environ.pop("NOTIFY_SOCKET", None)
    asyncio.run(run(config, systemd))


async def run(config: Config, systemd: bool) -> None:
    """Boot, serve, end. What was opened is closed in reverse order."""
    async with AsyncExitStack() as stack:
        supervisor = await Supervisor.boot(config, systemd, stack)  # first: who is let in is answered
        if supervisor.ending.is_set():
            return
        where = await endpoints.start(supervisor, stack)
        await control_server.start(supervisor, stack)
        await supervisor.run_until_signal(where)
