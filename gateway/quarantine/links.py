"""Links in digests: what somebody may do with one kept message, without signing in.

A link says what it is for (release, or block the author), which recipient's message, and until when, and is signed with
a secret of this gateway (HMAC-SHA-256, 128 bits of it): nobody can make one, or turn one into another. To look at its
page does nothing; only the button on it acts, once, so that programs which follow links in mail release nothing.
"""

import hmac
import math
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256

from gateway.accounts.choices import Choices
from gateway.core.address import parse_mailbox
from gateway.core.ports import Clock
from gateway.quarantine.rendering import Shown, show
from gateway.quarantine.store import BY_RECIPIENT, Kept, QuarantineStore

VERSION = 1
_HEAD = struct.Struct(">BBIQ")  # version, action, hour of its end, row
MAC_OCTETS = 16
MAX_TOKEN = 120  # characters


class LinkAction(Enum):
    RELEASE = 1
    BLOCK = 2


class Stale(Enum):
    """Why a link does nothing; the value is what its page says."""

    UNKNOWN = "This link is not one of ours, or it is not complete. Copy all of it from the message."
    EXPIRED = "This link has expired. Ask your postmaster for the message."
    GONE = "This message is not kept any more: it was released or deleted, or its time is over."
    USED = "This link was used before."


@dataclass(frozen=True, slots=True)
class Link:
    """row, queue_id: of the recipient's message; expires: in seconds since the epoch, at a full hour."""

    action: LinkAction
    row: int
    queue_id: str
    expires: float


@dataclass(frozen=True, slots=True)
class Opened:
    """What a link's page shows."""

    link: Link
    kept: Kept
    shown: Shown


class Links:
    """secret: of this gateway."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def token(self, link: Link) -> str:
        hour = min(math.ceil(link.expires / 3600), 2**32 - 1)
        octets = _HEAD.pack(VERSION, link.action.value, hour, link.row) + link.queue_id.encode("ascii")
        return urlsafe_b64encode(octets + self._mac(octets)).decode("ascii").rstrip("=")

    def read(self, token: str) -> Link | None:
        """None: it was not made here."""
        try:
            if len(token) > MAX_TOKEN:
                return None
            octets = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
            body, mac = octets[:-MAC_OCTETS], octets[-MAC_OCTETS:]
            if not hmac.compare_digest(mac, self._mac(body)):
                return None
            version, action, hour, row = _HEAD.unpack_from(body)
            if version != VERSION:
                return None
            return Link(LinkAction(action), row, body[_HEAD.size :].decode("ascii"), hour * 3600.0)
        except (ValueError, struct.error):
            return None

    def _mac(self, octets: bytes) -> bytes:
        return hmac.digest(self._secret, octets, sha256)[:MAC_OCTETS]


class LinkDesk:
    """What the page of a link shows and does. All calls block."""

    def __init__(self, links: Links, store: QuarantineStore, choices: Choices, clock: Clock) -> None:
        self._links = links
        self._store = store
        self._choices = choices
        self._clock = clock

    def look(self, token: str) -> Opened | Stale:
        """Changes nothing."""
        link = self._links.read(token)
        if link is None:
            return Stale.UNKNOWN
        if link.expires < self._clock.now():
            return Stale.EXPIRED
        kept = self._store.find(link.row, link.queue_id)
        if kept is None or (link.action is LinkAction.RELEASE and not kept.is_self_released):
            return Stale.GONE
        return Opened(link, kept, show(kept.message))

    def act(self, token: str) -> Opened | Stale:
        """Once for each link."""
        found = self.look(token)
        if isinstance(found, Stale):
            return found
        link = found.link
        mark = _mark(link)
        if link.action is LinkAction.RELEASE:
            is_new = self._store.ask_by_link(link.row, link.queue_id, BY_RECIPIENT, mark, link.expires)
            return found if is_new else Stale.USED
        if self._store.is_used(mark):
            return Stale.USED
        self._choices.block(parse_mailbox(found.kept.recipient), found.shown.author_address)
        self._store.use_link(mark, link.expires)  # behind what it did: a link that failed can be tried again
        return found

    def is_settled(self, link: Link) -> bool:
        """Of a release that was asked for: has anything come of it?"""
        return not self._store.waiting([link.row])

    def refusal(self, link: Link) -> str | None:
        """Why it is kept still; None: it is not."""
        kept = self._store.kept_still([link.row])
        return next((said for queue_id, _, said in kept if queue_id == link.queue_id), None)


def _mark(link: Link) -> bytes:
    """What a used link is known by: not its text, for base64 has several for the same octets."""
    return sha256(f"{link.action.value} {link.row} {link.queue_id} {link.expires:.0f}".encode()).digest()
