"""How much one message may have looked up: its text chooses names, and each is work for us and for others.

A budget holds for the task that opens it and those that it starts. What the cache has costs nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from gateway.core.ports import DnsFailure

OVER_BUDGET = DnsFailure("too many look-ups for one message")
_left: ContextVar[list[int] | None] = ContextVar("lookups_left", default=None)  # one number, shared by all tasks


@contextmanager
def lookup_budget(count: int) -> Iterator[None]:
    token = _left.set([count])
    try:
        yield
    finally:
        _left.reset(token)


def spend_lookup() -> bool:
    """False: nothing is left. Outside of any budget there is no bound."""
    left = _left.get()
    if left is None:
        return True
    left[0] -= 1
    return left[0] >= 0
