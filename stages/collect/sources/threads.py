"""Run blocking library calls in a thread, so that they do not block the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


async def run_detached(call: Callable[[], Result]) -> Result:
    """Run `call` in a thread that does not delay the end of the program, and return the result of `call`.

    `asyncio.to_thread` is not suitable: after Ctrl-C, Python waits until the threads of `asyncio.to_thread` have ended.
    If a server does not respond, Python could therefore wait forever.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not done.done():
            setter(value)

    def work() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed because the run has ended
            try:
                result = call()
            except Exception as error:
                loop.call_soon_threadsafe(settle, done.set_exception, error)
            else:
                loop.call_soon_threadsafe(settle, done.set_result, result)

    threading.Thread(target=work, daemon=True).start()
    return await done
