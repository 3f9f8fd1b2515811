"""Many jobs at once, of which every failure is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from stages.core.errors import CombinedError, StageError

T = TypeVar("T")


async def gather_all(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """The jobs' results in their order, once every job has ended.

    Raises CombinedError with every StageError of theirs; a failure of another kind is our defect, and goes first.
    """
    ended = await asyncio.gather(*jobs, return_exceptions=True)
    failures = [result for result in ended if isinstance(result, BaseException)]
    refused = [failure for failure in failures if isinstance(failure, StageError)]
    if len(refused) < len(failures):
        raise next(failure for failure in failures if not isinstance(failure, StageError))
    if refused:
        raise CombinedError(refused)
    return [result for result in ended if not isinstance(result, BaseException)]
