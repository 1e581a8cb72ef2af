"""Sends the digests: once a day, to each recipient here who had something kept since the last.

What a digest lists is told in the same transaction that queues it, so nothing is told twice, or never.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import NULL_REVERSE_PATH, Mailbox, parse_mailbox
from gateway.core.ident import new_id
from gateway.core.ports import Clock
from gateway.message.blob import MemoryBlob
from gateway.quarantine.digest import Digest, Entry, compose
from gateway.quarantine.links import Link, LinkAction, Links
from gateway.quarantine.rendering import show_fields
from gateway.quarantine.store import Kept, QuarantineStore
from gateway.queue.intake import KEPT_WHOLE
from gateway.queue.seals import signatures_of
from gateway.queue.store import NewMessage, NewRecipient
from gateway.senderauth.signing import SigningKeys, nearest_keys

MAX_LISTED = 300  # messages in one digest; the others are counted
MAX_ROWS = 20_000  # told in one go; what is beyond comes with the next
WHAT = "digest"


@dataclass(frozen=True, slots=True)
class DigestSettings:
    """url: how users reach the pages, without a last slash, "" for digests without links; at: minutes after midnight,
    local time, None for none; link_s: how long a link lives.
    """

    hostname: str
    url: str
    at: int | None
    link_s: float
    expire_s: float


class DigestSender:
    """All calls block: they are made in a thread."""

    def __init__(
        self,
        store: QuarantineStore,
        links: Links,
        directory: AccountDirectory,
        keys: SigningKeys,
        settings: DigestSettings,
        clock: Clock,
    ) -> None:
        self._store = store
        self._links = links
        self._directory = directory
        self._keys = keys
        self._settings = settings
        self._clock = clock

    def send_if_due(self) -> int:
        """How many digests were queued."""
        at, now = self._settings.at, datetime.fromtimestamp(self._clock.now()).astimezone()
        if at is None or now.hour * 60 + now.minute < at:
            return 0
        return self.send() if self._store.begin_day(WHAT, now.date().isoformat()) else 0

    def send(self, wanted: str = "") -> int:
        """Now, to those who have something to hear. wanted: the only recipient, or "" for all."""
        untold = self._store.untold(KEPT_WHOLE.rule, MAX_ROWS)
        return sum(self._send_to(to, rows) for to, rows in untold.items() if wanted.lower() in ("", to))

    def _send_to(self, recipient: str, rows: Sequence[int]) -> int:
        """None to addresses elsewhere, whose mail this gateway only sends."""
        domain, directory = parse_mailbox(recipient).domain, self._directory
        digests = []
        if directory.is_local(domain) or directory.is_relayed(domain):
            entries = [self._entry(each) for each in self._store.kept(rows[:MAX_LISTED])]
            more = max(0, len(rows) - MAX_LISTED)
            digests = [self._digest(parse_mailbox(entries[0].kept.recipient), entries, more)] if entries else []
        self._store.tell(rows, digests)
        return len(digests)

    def _digest(self, recipient: Mailbox, entries: Sequence[Entry], more: int) -> NewMessage:
        now, queue_id, domain = self._clock.now(), new_id(), recipient.domain.ascii
        digest = Digest(str(recipient), domain, entries, more, bool(self._settings.url))
        octets = compose(digest, queue_id, self._settings.hostname, now)
        keys = nearest_keys(domain, self._keys) if self._keys.are_there else ()
        return NewMessage(
            queue_id=queue_id,
            created=now,
            expires=now + self._settings.expire_s,
            reverse_path=NULL_REVERSE_PATH,
            recipients=(NewRecipient(recipient),),
            header=signatures_of(octets, keys, int(now)) if keys else b"",
            blob=MemoryBlob(octets),
            smtputf8=not octets.isascii(),
            body="" if octets.isascii() else "8BITMIME",
            info={"kind": "digest", "of": str(recipient)},
        )

    def _entry(self, kept: Kept) -> Entry:
        shown = show_fields(kept.message)
        if not self._settings.url:
            return Entry(kept, shown)
        release = self._page(LinkAction.RELEASE, kept) if kept.is_self_released else ""
        return Entry(kept, shown, release, self._page(LinkAction.BLOCK, kept) if shown.author_address else "")

    def _page(self, action: LinkAction, kept: Kept) -> str:
        expires = self._clock.now() + self._settings.link_s
        token = self._links.token(Link(action, kept.row, kept.message.queue_id, expires))
        return f"{self._settings.url}/quarantine/{token}"
