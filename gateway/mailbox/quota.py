"""How much mail an account may have, and when its user is told that it gets full.

A delivery may go a little beyond, so that a message that was accepted is not put off for its last octets; a user's own
copies may not.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

from gateway.core.errors import StoreError
from gateway.mailbox.index import Index
from gateway.mailbox.indexes import folder_of

GRACE = 1.1
LEVELS = (80, 95)  # per cent at which a user is told
ASK_S = 2.0


class OverQuota(StoreError):
    """The account may not have so much mail."""


class Quotas(Protocol):
    def limit(self, account: str) -> int:
        """Octets; 0: none."""

    def warning(self, account: str, used: int, limit: int) -> bytes:
        """A message that tells the user."""


class NoQuotas:
    """Nobody has a limit."""

    def limit(self, account: str) -> int:
        return 0

    def warning(self, account: str, used: int, limit: int) -> bytes:
        return b""


def make_room(used: int, limit: int, size: int, *, is_delivery: bool) -> None:
    """Raises OverQuota when so many octets more are too many. used: those that there are. Within a change, before they
    are added.
    """
    if limit and used + size > limit * (GRACE if is_delivery else 1.0):
        raise OverQuota("the mailbox is full")


def is_level_reached(index: Index, used: int, warned: int, limit: int) -> bool:
    """Is the user to be told now? Once for each level, until there is less again. used: octets, with those that were
    added; warned: the level that was told. Within a change.
    """
    reached = max((level for level in LEVELS if limit and used * 100 >= limit * level), default=0)
    if reached != warned:
        index.connection.execute("UPDATE quota SET warned = ?", [reached])
    return reached > warned


def used(root: Path, account: str) -> int:
    """Octets, without opening the account's mail. Raises sqlite3.Error."""
    path = folder_of(root, account) / "index.db"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=ASK_S)) as connection:
        (octets,) = connection.execute("SELECT octets FROM quota").fetchone()
    return int(octets)
