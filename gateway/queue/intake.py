"""The one door: here a message becomes a queued one, whether it came by SMTP or is a bounce of ours.

`accept` returns when blob and rows are on disk; only then may anybody say 250.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Mailbox, ReversePath
from gateway.core.ident import new_id
from gateway.core.ports import Clock
from gateway.core.transaction import Envelope, Session
from gateway.core.verdict import Action, AddHeader, TagSubject
from gateway.message import trace
from gateway.message.blob import Blob
from gateway.message.edit import missing_tags, tag_subject, without
from gateway.message.header import MAX_HEADER, Header, parse_header
from gateway.message.removal import without_parts
from gateway.queue.handling import Handling, Part
from gateway.queue.recipients import Expansion, Way
from gateway.queue.seals import Seal, sealed, sealing_key
from gateway.queue.store import NewMessage, QueuedMessage, QueueStore, State
from gateway.senderauth.results import Authentication, claimed_fields, results_field
from gateway.senderauth.signing import SigningKey, SigningKeys, keys_for

_STATES = {Action.HOLD: State.HELD, Action.QUARANTINE: State.QUARANTINED}
MAX_AT_ONCE = 10  # signatures made without leaving the event loop: an RSA one takes 0.7 ms
ARC_SIGNATURES = 2  # of a set
_OF_KEEPING = ("kept_by", "self_release", "refused")  # what says so in a message's info


KEPT_WHOLE = Handling((), Action.QUARANTINE, "attachments were removed from it")
NOTICE = (
    'The file "{name}" was removed from this message on its way in, by {host}.\n\n'
    "The whole message is kept there under the number {id}. If you need it, ask postmaster@{domain} for it.\n"
)


class Room(Protocol):
    async def check(self, messages: Sequence[NewMessage]) -> None:
        """Raises StorageFull where quarantine has no room for those of them that go there."""


class Content(Protocol):
    """Where a message that is made here is written before it is queued (`storage.spool.SpoolContent`)."""

    async def write(self, octets: bytes) -> None: ...

    def blob(self) -> Blob: ...

    def discard(self) -> None: ...


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """srs, arc: of what is handed on elsewhere, is the reverse-path rewritten, is it sealed?"""

    hostname: str
    expire_s: float
    srs: bool = True
    arc: bool = True


@dataclass(frozen=True, slots=True)
class _Arrival:
    """What all parts of a message share. only: the only recipient, or ""; now: in seconds since the epoch; claimed: raw
    fields that go.
    """

    session: Session
    envelope: Envelope
    blob: Blob
    header: Header
    info: Mapping[str, str]
    authentication: Authentication | None
    seal: Seal | None
    only: str
    now: float
    claimed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A queued message to be. arc: the key that seals it; removed: the files that it goes without, by their part;
    original: the queue id of the whole message, which is kept.
    """

    queue_id: str
    way: Way
    arc: SigningKey | None
    removed: tuple[tuple[str, str], ...] = ()
    original: str = ""

    @property
    def is_kept(self) -> bool:
        return self.way.part.handling.disposition is not Action.DISCARD


class Intake:
    def __init__(
        self,
        store: QueueStore,
        directory: AccountDirectory,
        settings: IntakeSettings,
        clock: Clock,
        keys: SigningKeys,
        new_content: Callable[[], Content],
        room: Room,
    ) -> None:
        self._store = store
        self._room = room
        self._new_content = new_content
        self._keys = keys
        self._expansion = Expansion(directory, rewrites=settings.srs)
        self._settings = settings
        self._clock = clock

    @property
    def expire_s(self) -> float:
        return self._settings.expire_s

    async def enqueue(self, message: NewMessage) -> None:
        """One of our own making. Raises what the store does."""
        await self._store.enqueue(message)

    async def readmit(self, kept: QueuedMessage, rows: Sequence[int], info: Mapping[str, str], by: str) -> str:
        """What was kept goes on its way, marked as released; its new queue id, or "" where it is not kept any more.

        rows: of its recipients; info: as it was; by: who released it, in ASCII. The mark stands above all that was
        signed. Raises what the store does.
        """
        now, queue_id = self._clock.now(), new_id()
        message = NewMessage(
            queue_id=queue_id,
            created=now,
            expires=now + self._settings.expire_s,
            reverse_path=kept.reverse_path,
            recipients=(),
            header=trace.released(kept.queue_id, by, self._settings.hostname, now) + kept.header,
            blob=kept.blob,
            info={
                **{key: value for key, value in info.items() if key not in _OF_KEEPING},
                "released_from": kept.queue_id,
                "released_by": by,
            },
        )
        return queue_id if await self._store.readmit(kept.queue_id, rows, message) else ""

    async def accept(
        self,
        session: Session,
        envelope: Envelope,
        blob: Blob,
        header: Header,
        info: Mapping[str, str],
        parts: tuple[Part, ...],
        on_ready: Callable[[], None],
        authentication: Authentication | None = None,
        *,
        is_signed: bool = False,
    ) -> tuple[tuple[str, Part], ...]:
        """The parts by queue id, a discarded one's too, those that are handed on from another reverse-path apart, and
        last the blind copies, a message of their own: once for all, now and by the usual way, whatever becomes of the
        others. on_ready wakes the runner. authentication: told in a trace field, and fields that pretend to be that go.
        is_signed: by the author's domain, if it has keys.

        Aliases are expanded here, so each row is somebody who will get it. Raises what the store does.
        """
        outgoing = self._outgoing(envelope.reverse_path, parts, is_sealed=authentication is not None)
        author = keys_for(header, self._keys) if is_signed else ()
        only = str(envelope.recipients[0].forward_path) if len(envelope.recipients) == 1 else ""
        whole = _Arrival(session, envelope, blob, header, info, authentication, None, only, self._clock.now(), ())
        groups: dict[tuple[tuple[str, str], ...], list[_Outgoing]] = {}
        for each in outgoing:
            if each.is_kept:
                groups.setdefault(each.removed, []).append(each)
        messages: list[NewMessage] = []
        copies: list[Content] = []
        try:
            for removed, group in groups.items():
                if removed:
                    copies.append(self._new_content())
                arrival = await self._without(whole, group[0], copies[-1]) if removed else whole
                messages += await self._made(arrival, group, author)
            if messages:
                await self._room.check([each for each in messages if each.state is State.QUARANTINED])
                await self._store.enqueue(*messages)
                on_ready()
        except BaseException:
            for copy in copies:
                copy.discard()
            raise
        return tuple((each.queue_id, each.way.part) for each in outgoing)

    async def _without(self, whole: _Arrival, outgoing: _Outgoing, copy: Content) -> _Arrival:
        """The message without what rules want removed; in its place a text says so and how to get it."""
        domain = whole.envelope.recipients[0].forward_path.domain.ascii
        host, original = self._settings.hostname, outgoing.original
        notices = {
            part: NOTICE.format(name=name or "unnamed", host=host, id=original, domain=domain)
            for part, name in outgoing.removed
        }
        octets = await asyncio.to_thread(lambda: without_parts(whole.blob.head(whole.blob.size), notices))
        await copy.write(octets)
        return replace(whole, blob=copy.blob(), header=parse_header(octets[:MAX_HEADER]))

    async def _made(
        self, arrival: _Arrival, outgoing: list[_Outgoing], author: tuple[SigningKey, ...]
    ) -> list[NewMessage]:
        """Signed and sealed as each of them needs."""
        header, blob = arrival.header, arrival.blob
        is_sealed = bool(author) or any(each.arc for each in outgoing)
        seal = await sealed(header, blob, author) if is_sealed else None
        claimed = claimed_fields(header, self._settings.hostname) if arrival.authentication is not None else ()
        arrival = replace(arrival, seal=seal, claimed=claimed)
        signatures = sum(len(author) + (ARC_SIGNATURES if each.arc else 0) for each in outgoing)
        if signatures > MAX_AT_ONCE:
            return await asyncio.to_thread(self._messages, arrival, outgoing)
        return self._messages(arrival, outgoing)

    def _outgoing(self, reverse_path: ReversePath, parts: tuple[Part, ...], *, is_sealed: bool) -> list[_Outgoing]:
        expansion = self._expansion
        ways = [way for part in parts for way in expansion.ways(part, reverse_path)]
        copies = expansion.copies(parts)
        ours = expansion.first_of_ours(parts)
        ways += [] if copies is None else expansion.ways(copies, reverse_path, ours)
        found: list[_Outgoing] = []
        for way in ways:
            queue_id, arc = new_id(), self._sealing_key(way, ours) if is_sealed else None
            removed = tuple(way.part.handling.removed.items())
            if not removed or way.part.handling.disposition is not None:
                found.append(_Outgoing(queue_id, way, arc))
                continue
            kept = _Outgoing(new_id(), replace(way, part=replace(way.part, handling=KEPT_WHOLE)), None)
            found += [_Outgoing(queue_id, way, arc, removed, kept.queue_id), kept]
        return found

    def _sealing_key(self, way: Way, ours: Mailbox | None) -> SigningKey | None:
        """Of the domain that it was for, else of this host's; none where it stays here."""
        if not self._settings.arc or not self._keys.are_there or not self._expansion.leaves(way):
            return None
        reached = [to.forward_path for to in way.part.recipients] + ([] if ours is None else [ours])
        domains = dict.fromkeys([*(path.domain.ascii for path in reached), self._settings.hostname])
        return sealing_key(domains, self._keys)

    def _messages(self, arrival: _Arrival, outgoing: list[_Outgoing]) -> list[NewMessage]:
        return [self._message(arrival, each) for each in outgoing]

    def _message(self, arrival: _Arrival, outgoing: _Outgoing) -> NewMessage:
        header, is_edited = self._composed(arrival, outgoing)
        envelope, way, handling = arrival.envelope, outgoing.way, outgoing.way.part.handling
        state = _STATES.get(handling.disposition, State.READY) if handling.disposition else State.READY
        return NewMessage(
            queue_id=outgoing.queue_id,
            created=arrival.now,
            expires=arrival.now + self._settings.expire_s,
            reverse_path=way.reverse_path,
            recipients=way.recipients,
            header=header,
            blob=arrival.blob,
            offset=arrival.header.end if is_edited else 0,
            body=envelope.body,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            info=_info(arrival.info, handling),
            state=state,
            route=handling.route,
            protection=handling.protection,
        )

    def _composed(self, arrival: _Arrival, outgoing: _Outgoing) -> tuple[bytes, bool]:
        """What stands above the message. True: its own header was edited and is in there, whole."""
        session, header, hostname = arrival.session, arrival.header, self._settings.hostname
        smtputf8, queue_id = arrival.envelope.smtputf8, outgoing.queue_id
        prefix = trace.received(session, hostname, queue_id, arrival.only, arrival.now, smtputf8=smtputf8)
        claimed = arrival.claimed
        if arrival.authentication is not None:
            prefix += results_field(hostname, arrival.authentication)
        if session.is_submission:
            prefix += self._missing_fields(header, queue_id, arrival.now)
        effects = outgoing.way.part.handling.effects
        prefix += b"".join(
            f"{effect.name}: {effect.value}\r\n".encode("ascii", "replace")
            for effect in effects
            if isinstance(effect, AddHeader)
        )
        missing = missing_tags(header, tuple(effect.tag for effect in effects if isinstance(effect, TagSubject)))
        if not (missing or claimed or arrival.seal):
            return prefix, False
        own = without(arrival.blob.head(header.end), claimed)
        if missing:
            own = tag_subject(own, header, " ".join(missing))
        prefix = self._sealed(arrival, outgoing, prefix, own) + prefix
        return (prefix + own, True) if missing or claimed else (prefix, False)

    def _sealed(self, arrival: _Arrival, outgoing: _Outgoing, prefix: bytes, own: bytes) -> bytes:
        """What goes on top of the message's whole header: the author's signatures, or a link of a chain."""
        seal, now = arrival.seal, int(arrival.now)
        if seal is None:
            return b""
        if outgoing.arc is not None and arrival.authentication is not None:
            return seal.arc_set(outgoing.arc, prefix + own, self._settings.hostname, arrival.authentication, now)
        return seal.signatures(prefix + own, now)

    def _missing_fields(self, header: Header, queue_id: str, now: float) -> bytes:
        # RFC 6409 8.1, 8.2: a submission server adds what a mail program forgot; a relay never does.
        date = b"" if header.first("Date") else trace.date_field(now)
        message_id = b"" if header.first("Message-ID") else trace.message_id_field(queue_id, self._settings.hostname)
        return date + message_id


def _info(info: Mapping[str, str], handling: Handling) -> Mapping[str, str]:
    if not handling.rule:
        return info
    told = {"kept_by": handling.rule}
    if handling.is_self_released and handling.disposition is Action.QUARANTINE:
        told["self_release"] = "yes"
    if handling.is_refused:
        told["refused"] = "yes"
    return {**info, **told}
