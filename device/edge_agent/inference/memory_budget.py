"""Limit the memory of all requests in progress. Bytes are counted from their arrival until nothing refers to them.

All methods must be called in the event loop's thread.
"""

from __future__ import annotations


class OverBudgetError(Exception):
    """The requests in progress would use more memory than the budget allows. The message is text for people."""


class MemoryBudget:
    """The bytes that all requests in progress use, and their limit.

    A request that is alone is accepted even if it is larger than the limit.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def hold(self) -> HeldBytes:
        """Return the record of the bytes that a new request holds, which has one user."""
        return HeldBytes(self)


class HeldBytes:
    """The bytes of one request. They are returned to the budget when the last user has called `release`.

    A context releases the first user at its end.
    """

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget, self._size, self._users = budget, 0, 1

    def __enter__(self) -> HeldBytes:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.release()

    def resize(self, size: int) -> None:
        """Set the number of bytes that the request holds. Raises OverBudgetError, which leaves the number unchanged."""
        others = self._budget.used - self._size
        if size > self._size and others and others + size > self._budget.limit:
            raise OverBudgetError(
                f"requests in progress hold {others / 1e6:.1f} MB; this request would exceed the limit of "
                f"{self._budget.limit / 1e6:.1f} MB"
            )
        self._budget.used += size - self._size
        self._size = size

    def share(self) -> HeldBytes:
        """Add a user, and return this record."""
        self._users += 1
        return self

    def release(self) -> None:
        """Remove a user. The last one returns the bytes to the budget."""
        self._users -= 1
        if not self._users:
            self._budget.used -= self._size
            self._size = 0
