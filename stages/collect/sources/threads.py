"""Calls of libraries that block, beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_detached(call: Callable[[], Result]) -> Result:
    """The answer of `call`, made in a thread that nobody waits for once the run has ended.

    `asyncio.to_thread` is for work that goes on: at Ctrl-C it is waited for, and a silent server would hold it up.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(how: Callable[[Any], None], value: Any) -> None:
        if not done.done():
            how(value)

    def work() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            try:
                answer = call()
            except Exception as error:
                loop.call_soon_threadsafe(settle, done.set_exception, error)
            else:
                loop.call_soon_threadsafe(settle, done.set_result, answer)

    threading.Thread(target=work, daemon=True).start()
    return await done
