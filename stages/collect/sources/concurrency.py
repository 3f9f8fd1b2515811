"""Run jobs concurrently and report every failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from stages.core.errors import CombinedError, StageError

T = TypeVar("T")


async def gather_all(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """Run all jobs concurrently, and return their results in the order of the jobs.

    Raises CombinedError with the StageErrors of all failed jobs. If a job raises any other exception, which is a
    defect in the code, that exception is raised and not CombinedError.
    """
    results = await asyncio.gather(*jobs, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    errors = [failure for failure in failures if isinstance(failure, StageError)]
    if len(errors) < len(failures):
        raise next(failure for failure in failures if not isinstance(failure, StageError))
    if errors:
        raise CombinedError(errors)
    return [result for result in results if not isinstance(result, BaseException)]
