"""`edge-agent serve`: load the current release, serve it, load new releases, judge trials, and ping the watchdog.

`run` creates and connects the parts of the service; no other function of this package uses all parts.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

from edge_agent.core import logs, malloc
from edge_agent.core.config import Config
from edge_agent.service import control_server, endpoints
from edge_agent.service.supervisor import Supervisor


def serve(config: Config, systemd: bool = True) -> None:
    """Run the service until it receives SIGTERM or SIGINT.

    If `systemd` is False, the service writes no journal fields to the log and sends no notifications to systemd.

    Raises AgentError if the service cannot start, or if the model hangs and systemd's watchdog is not used.
    """
    malloc.return_freed_memory()
    logs.setup(logs.JOURNAL if systemd else None)
    if not systemd:
        os.environ.pop("NOTIFY_SOCKET", None)
    asyncio.run(run(config, systemd))


async def run(config: Config, systemd: bool) -> None:
    """Start the service, answer requests until a signal arrives, and shut down.

    Resources are closed in the reverse order of opening.
    """
    async with AsyncExitStack() as stack:
        supervisor = await Supervisor.boot(
            config, systemd, stack
        )  # the model is loaded before the sockets open, so that every accepted request can be answered
        if supervisor.ending.is_set():
            return
        addresses = await endpoints.start(supervisor, stack)
        await control_server.start(supervisor, stack)
        await supervisor.run_until_signal(addresses)
