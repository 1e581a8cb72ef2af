"""What is kept of a message for one of its recipients, and the Protocol of whatever keeps it.

All calls block: they are made in threads. Times are seconds since the epoch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.queue.store import Filter, NewMessage, QueuedMessage

BY_RECIPIENT = "recipient"  # who asks for a release by a link


@dataclass(frozen=True, slots=True)
class Kept:
    """row: of the recipient; info: who brought it, and which rule kept it."""

    row: int
    recipient: str
    info: Mapping[str, str]
    message: QueuedMessage

    @property
    def rule(self) -> str:
        return self.info.get("kept_by", "")

    @property
    def is_self_released(self) -> bool:
        """May its recipient release it?"""
        return self.info.get("self_release") == "yes"


@dataclass(frozen=True, slots=True)
class Untold:
    """A recipient's row, and whose: a row's number may be another's once it is gone. original: the address that the
    message was sent to, where the sender or an alias has told it.
    """

    row: int
    queue_id: str
    recipient: str
    original: str


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody wants recipients of one message to have it. recipients: addresses by row; by: who asks; is_despite: a
    virus that is found in it; message None: its octets cannot be read, and trouble says why.
    """

    recipients: Mapping[int, str]
    by: str
    is_despite: bool
    queue_id: str
    info: Mapping[str, str]
    message: QueuedMessage | None
    trouble: str = ""


class QuarantineStore(Protocol):
    def find(self, row: int, queue_id: str) -> Kept | None:
        """What is quarantined still; None too where its octets cannot be read."""

    def ask(self, wanted: Filter, by: str, *, is_despite: bool) -> Sequence[int]:
        """Have released what rules keep, in quarantine or held: the rows of which that is wanted now."""

    def ask_by_link(self, row: int, queue_id: str, by: str, link: bytes, expires: float) -> bool:
        """The same of one recipient, once for each link. False: the link was used, or it is not quarantined."""

    def is_used(self, link: bytes) -> bool: ...

    def use_link(self, link: bytes, expires: float) -> None:
        """It is remembered until it expires."""

    def requests(self, limit: int) -> Sequence[Request]:
        """Those that are due."""

    def postpone(self, request: Request, reason: str, due: float) -> None:
        """It cannot be said yet whether they may be released."""

    def refuse(self, request: Request, reason: str) -> None:
        """They stay where they are, and the reason with them, unless somebody has asked for more meanwhile."""

    def waiting(self, rows: Sequence[int]) -> Sequence[int]:
        """Those of them whose release is asked for and not settled yet."""

    def kept_still(self, rows: Sequence[int]) -> Sequence[tuple[str, str, str]]:
        """Of those of them that are kept: queue id, recipient, and what was last said of them."""

    def untold(self, but_for: str, limit: int) -> Sequence[Untold]:
        """What is quarantined and in no digest yet, newest first, but for what is kept only because others got it.
        but_for: a rule whose mail is in none.
        """

    def kept(self, rows: Sequence[Untold]) -> Sequence[Kept]:
        """In their order; what is not quarantined any more, or cannot be read, is left out."""

    def tell(self, rows: Sequence[Untold], digest: NewMessage | None) -> bool:
        """They are told, and the digest queued, in one transaction. False, and nothing is done: others have told all of
        them.
        """

    def octets(self, recipient: str) -> int:
        """How much is kept for a recipient."""

    def is_done(self, what: str, day: str) -> bool: ...

    def finish_day(self, what: str, day: str) -> None:
        """It is done for that day."""

    def prune(self) -> None:
        """Forget links that have expired."""
