"""Sends the digests: once a day, to each recipient here who had something kept since the last.

What a digest lists is told in the same transaction that queues it, so nothing is told twice, or never.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import NULL_REVERSE_PATH, Mailbox, parse_mailbox
from gateway.core.errors import StorageBroken, StorageFull
from gateway.core.ident import new_id
from gateway.core.ports import Clock
from gateway.message.blob import MemoryBlob
from gateway.quarantine.digest import Digest, Entry, compose
from gateway.quarantine.links import Link, LinkAction, Links
from gateway.quarantine.rendering import show_fields
from gateway.quarantine.store import Kept, QuarantineStore, Untold
from gateway.queue.intake import KEPT_WHOLE
from gateway.queue.seals import signatures_of
from gateway.queue.store import NewMessage, NewRecipient
from gateway.senderauth.signing import SigningKeys, nearest_keys

MAX_LISTED = 300  # messages in one digest; the others are counted
MAX_ROWS = 100_000  # looked at in one go; what is beyond comes with the next
WHAT = "digest"
NEARLY = 0.9  # of a recipient's room: from there on the digest says so

OnError = Callable[[str, BaseException], None]


@dataclass(frozen=True, slots=True)
class DigestSettings:
    """url: how users reach the pages, without a last slash, "" for digests without links; at: minutes after midnight,
    local time, None for none; link_s: how long a link lives; room: octets that are kept for one recipient.
    """

    hostname: str
    url: str
    at: int | None
    link_s: float
    expire_s: float
    room: int


class DigestSender:
    """All calls block: they are made in a thread. on_error: told of one whose digest fails; others get theirs."""

    def __init__(
        self,
        store: QuarantineStore,
        links: Links,
        directory: AccountDirectory,
        keys: SigningKeys,
        settings: DigestSettings,
        clock: Clock,
        on_error: OnError,
    ) -> None:
        self._store = store
        self._links = links
        self._directory = directory
        self._keys = keys
        self._settings = settings
        self._clock = clock
        self._on_error = on_error

    def send_if_due(self) -> int:
        """How many digests were queued. A day is over only once all are: one that was broken off goes on."""
        at, now = self._settings.at, datetime.fromtimestamp(self._clock.now()).astimezone()
        day = now.date().isoformat()
        if at is None or now.hour * 60 + now.minute < at or self._store.is_done(WHAT, day):
            return 0
        count = self.send()
        self._store.finish_day(WHAT, day)
        return count

    def send(self, wanted: str = "") -> int:
        """Now, to those who have something to hear. wanted: the only recipient, or "" for all. Raises what the store
        does when it has no room, or is broken.
        """
        groups: dict[tuple[Mailbox, str], list[Untold]] = {}
        for each in self._store.untold(KEPT_WHOLE.rule, MAX_ROWS):
            reader = self._reader_of(each)
            if reader is not None and wanted.lower() in ("", str(reader).lower()):
                # Where the reader has mail handed on, the digest goes the same way as what it tells of.
                to = str(reader) if self._is_here(each.recipient) else each.recipient
                groups.setdefault((reader, to), []).append(each)
        return sum(self._send_safely(reader, to, rows) for (reader, to), rows in groups.items())

    def _reader_of(self, untold: Untold) -> Mailbox | None:
        """Who is told: the recipient, or who handed the message on elsewhere, as far as they are here. None: nobody is,
        for this gateway only sends to them.
        """
        kind, _, original = untold.original.partition(";")
        for address in (untold.recipient, original if kind.lower() == "rfc822" else ""):
            try:
                found = parse_mailbox(address)
            except ValueError:
                continue
            if self._directory.is_local(found.domain):
                return parse_mailbox(self._directory.without_tag(found))
            if self._directory.is_relayed(found.domain):
                return found
        return None

    def _send_safely(self, reader: Mailbox, to: str, rows: Sequence[Untold]) -> int:
        try:
            return self._send_to(reader, to, rows)
        except (StorageFull, StorageBroken):
            raise
        except Exception as error:
            self._on_error(f"digest of {reader}", error)
            return 0

    def _send_to(self, reader: Mailbox, to: str, rows: Sequence[Untold]) -> int:
        entries = [self._entry(each) for each in self._store.kept(rows[:MAX_LISTED])]
        if not entries:
            return 0
        listed = {entry.kept.row for entry in entries}
        told = [each for at, each in enumerate(rows) if each.row in listed or at >= MAX_LISTED]
        digest = self._digest(reader, to, entries, len(told) - len(entries))
        return int(self._store.tell(told, digest))

    def _digest(self, reader: Mailbox, to: str, entries: Sequence[Entry], more: int) -> NewMessage:
        now, queue_id, domain = self._clock.now(), new_id(), reader.domain.ascii
        is_nearly_full = self._store.octets(entries[0].kept.recipient) > NEARLY * self._settings.room
        digest = Digest(str(reader), domain, entries, more, bool(self._settings.url), is_nearly_full)
        octets = compose(digest, queue_id, self._settings.hostname, now)
        keys = nearest_keys(domain, self._keys) if self._keys.are_there else ()
        return NewMessage(
            queue_id=queue_id,
            created=now,
            expires=now + self._settings.expire_s,
            reverse_path=NULL_REVERSE_PATH,
            recipients=(NewRecipient(parse_mailbox(to)),),
            header=signatures_of(octets, keys, int(now)) if keys else b"",
            blob=MemoryBlob(octets),
            smtputf8=not octets.isascii(),
            body="" if octets.isascii() else "8BITMIME",
            info={"kind": "digest", "of": str(reader)},
        )

    def _is_here(self, address: str) -> bool:
        domain = parse_mailbox(address).domain
        return self._directory.is_local(domain) or self._directory.is_relayed(domain)

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
