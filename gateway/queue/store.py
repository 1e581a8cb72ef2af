"""What the queue keeps, and the Protocol of whatever keeps it (ARCHITECTURE: SQLite here, PostgreSQL later).

Delivery is at least once: a recipient is claimed by a lease, and leaves the queue only by `settle` under that lease.
Times are seconds since the epoch, lease deadlines are CLOCK_BOOTTIME seconds of this boot.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from gateway.core.address import Mailbox, ReversePath
from gateway.core.verdict import Protection
from gateway.message.blob import Blob

LEASE_S = 120.0
TOKENS = 2**62  # lease tokens are random numbers below this


class State(StrEnum):
    """Of a recipient's row. The words are those of `queue list` and of smarthost_queue_messages{state}."""

    READY = "ready"
    ACTIVE = "active"
    HELD = "held"
    CORRUPT = "corrupt"
    QUARANTINED = "quarantined"  # kept until somebody releases it or its time is over; no part of the queue's counts


@dataclass(frozen=True, slots=True)
class NewRecipient:
    forward_path: Mailbox
    orcpt: str = ""
    notify: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NewMessage:
    """header: the fields to send before blob[offset:]; expires: when retries end, or quarantine does; info: who
    brought it, for people.
    """

    queue_id: str
    created: float
    expires: float
    reverse_path: ReversePath
    recipients: tuple[NewRecipient, ...]
    header: bytes
    blob: Blob
    offset: int = 0
    body: str = ""
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    info: Mapping[str, str] = field(default_factory=dict)
    state: State = State.READY  # of its recipients: ready, held or quarantined
    route: str = ""  # the name of a route for all recipients, or none: each by its domain
    protection: Protection = Protection.ANY


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    queue_id: str
    created: float
    expires: float
    reverse_path: ReversePath
    header: bytes
    blob: Blob
    offset: int
    body: str
    smtputf8: bool
    ret: str
    envid: str
    protection: Protection

    @property
    def size(self) -> int:
        return len(self.header) + self.blob.size - self.offset


@dataclass(frozen=True, slots=True)
class ClaimedRecipient:
    row: int
    forward_path: Mailbox
    orcpt: str
    notify: frozenset[str]
    attempts: int
    warned: bool
    due: float  # when this attempt was


@dataclass(slots=True)
class Claim:
    """Recipients of one message at one destination, leased. `deadline` moves with each renewal."""

    token: int
    destination: str
    message: QueuedMessage
    recipients: tuple[ClaimedRecipient, ...]
    deadline: float

    def is_valid(self) -> bool:
        """Asked right before the final dot: past the deadline another runner may have the lease."""
        return boot_time() < self.deadline


@dataclass(frozen=True, slots=True)
class Retry:
    """attempts: the new count; warned: a delay DSN is being sent."""

    due: float
    reply: str
    attempts: int
    warned: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """What becomes of a claim, in one transaction with the DSNs that it causes. done: rows that leave the queue."""

    claim: Claim
    done: tuple[int, ...]
    retries: Mapping[int, Retry]
    notices: tuple[NewMessage, ...] = ()
    host_down_until: float | None = None  # all ready mail for the destination waits until then


@dataclass(frozen=True, slots=True)
class QueueEntry:
    """One recipient's row, for `queue list`."""

    queue_id: str
    state: State
    created: float
    due: float
    size: int
    reverse_path: str
    forward_path: str
    destination: str
    attempts: int
    last_reply: str
    info: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Filter:
    """All given conditions must hold. older_than: seconds since the message came."""

    queue_id: str = ""
    domain: str = ""
    sender: str = ""
    recipient: str = ""
    older_than: float | None = None
    state: State | None = None
    user: str = ""  # who signed in to send it


class QueueStore(Protocol):
    async def enqueue(self, *messages: NewMessage) -> None:
        """Returns when blob and rows are on disk. Raises StorageFull, StorageBroken, StoreError: then nothing is.

        All or none; a blob that several of them have is kept once.
        """

    async def readmit(self, kept_id: str, rows: Sequence[int], message: NewMessage) -> bool:
        """Kept recipients of the message kept_id, held or quarantined, go on their way as `message`: its id, times,
        header and info over the blob that they have already, in one transaction. False when none of the rows is that
        message's, and kept, any more (a row's number may be another's since): then nothing is changed.
        """

    async def claim(self, limit: int, take: Callable[[str], bool]) -> tuple[list[Claim], float | None]:
        """Up to `limit` claims of due recipients, and when the next is due if nothing is now.

        take(destination): asked for each claim; False: the destination's slots are used up. Called in another thread.
        """

    async def renew(self, claims: Sequence[Claim]) -> None: ...

    async def settle(self, settlement: Settlement) -> bool:
        """False when the lease was lost meanwhile: then nothing was changed."""

    async def release(self, claim: Claim, due: float) -> None:
        """Give a claim back unattempted."""

    async def overdue(self, warn_before: float, limit: int) -> list[Claim]:
        """Claims of what has expired, or waits since `warn_before` unwarned, though nothing was attempted lately."""

    async def recover(self) -> int:
        """Void leases of this slot's dead predecessor and those past their deadline; returns how many."""

    async def reap(self) -> int:
        """Void leases past their deadline, whoever held them."""


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
