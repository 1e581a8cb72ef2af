"""The one door: here a message becomes a queued one, whether it came by SMTP or is a bounce of ours.

`accept` returns when blob and rows are on disk; only then may anybody say 250.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import parse_mailbox
from gateway.core.ident import new_id
from gateway.core.ports import Clock
from gateway.core.transaction import Envelope, Recipient, Session
from gateway.core.verdict import Action, AddHeader, Bcc, ByRoute, Effect, Protection, Redirect, RequireTls, TagSubject
from gateway.message import trace
from gateway.message.blob import Blob
from gateway.message.edit import missing_tags, tag_subject, without
from gateway.message.header import Header, parse_header
from gateway.queue.store import NewMessage, NewRecipient, QueueStore, State
from gateway.senderauth.bodyhash import BodyHashes, hash_body
from gateway.senderauth.results import Authentication, claimed_fields, results_field
from gateway.senderauth.signing import SigningKey, SigningKeys, keys_for, signature_field

_STATES = {Action.HOLD: State.HELD, Action.QUARANTINE: State.QUARANTINED}
MAX_AT_ONCE = 10  # signatures made without leaving the event loop: an RSA one takes 0.7 ms
MAX_SIGNED = 1000  # fields of a message that is signed: its h= may name each
_RELAXED = "relaxed"
_NEVER = frozenset({"NEVER"})


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    hostname: str
    expire_s: float


@dataclass(frozen=True, slots=True)
class Handling:
    """What policies want done with a message for some of its recipients. disposition: discard, quarantine or hold, by
    the word of `rule`; None: deliver.
    """

    effects: tuple[Effect, ...] = ()
    disposition: Action | None = None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Recipients that are handled alike."""

    recipients: tuple[Recipient, ...]
    handling: Handling


@dataclass(frozen=True, slots=True)
class _Seal:
    """What signs a message: the same body under each part's own header."""

    keys: tuple[SigningKey, ...]
    body_hash: bytes

    def over(self, block: bytes, now: int) -> bytes:
        """The signatures for a header block as it will go out, however it was edited."""
        fields = parse_header(block, len(block)).fields
        return b"".join(signature_field(key, fields, self.body_hash, now) for key in self.keys)


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
    seal: _Seal | None
    only: str
    now: float
    claimed: tuple[bytes, ...]


class Intake:
    def __init__(
        self, store: QueueStore, directory: AccountDirectory, settings: IntakeSettings, clock: Clock, keys: SigningKeys
    ) -> None:
        self._store = store
        self._keys = keys
        self._directory = directory
        self._settings = settings
        self._clock = clock

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
        """The parts by queue id, a discarded one's too, and last the blind copies, a message of their own: once
        for all, now and by the usual way, whatever becomes of the others. on_ready wakes the runner. authentication:
        told in a trace field, and fields that pretend to be that go. is_signed: by the author's domain, if it has keys.

        Aliases are expanded here, so each row is somebody who will get it. Raises what the store does.
        """
        seal = await self._seal(header, blob) if is_signed else None
        only = str(envelope.recipients[0].forward_path) if len(envelope.recipients) == 1 else ""
        claimed = claimed_fields(header, self._settings.hostname) if authentication is not None else ()
        now = self._clock.now()
        arrival = _Arrival(session, envelope, blob, header, info, authentication, seal, only, now, claimed)
        copies = self._copies(parts)
        found = tuple((new_id(), part) for part in (*parts, *([] if copies is None else [copies])))
        kept = [each for each in found if each[1].handling.disposition is not Action.DISCARD]
        if seal is not None and len(kept) * len(seal.keys) > MAX_AT_ONCE:
            messages = await asyncio.to_thread(self._messages, arrival, kept)
        else:
            messages = self._messages(arrival, kept)
        if messages:
            await self._store.enqueue(*messages)
            on_ready()
        return found

    def _messages(self, arrival: _Arrival, parts: list[tuple[str, Part]]) -> list[NewMessage]:
        return [self._message(arrival, part, queue_id) for queue_id, part in parts]

    def _message(self, arrival: _Arrival, part: Part, queue_id: str) -> NewMessage:
        header, is_edited = self._composed(arrival, part, queue_id)
        envelope, handling = arrival.envelope, part.handling
        state = _STATES.get(handling.disposition, State.READY) if handling.disposition else State.READY
        return NewMessage(
            queue_id=queue_id,
            created=arrival.now,
            expires=arrival.now + self._settings.expire_s,
            reverse_path=envelope.reverse_path,
            recipients=self._recipients(part),
            header=header,
            blob=arrival.blob,
            offset=arrival.header.end if is_edited else 0,
            body=envelope.body,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            info={**arrival.info, "kept_by": handling.rule} if handling.rule else arrival.info,
            state=state,
            route=_route(handling.effects),
            protection=_protection(handling.effects),
        )

    def _composed(self, arrival: _Arrival, part: Part, queue_id: str) -> tuple[bytes, bool]:
        """What stands above the message. True: its own header was edited and is in there, whole."""
        session, header, hostname = arrival.session, arrival.header, self._settings.hostname
        smtputf8 = arrival.envelope.smtputf8
        prefix = trace.received(session, hostname, queue_id, arrival.only, arrival.now, smtputf8=smtputf8)
        claimed = arrival.claimed
        if arrival.authentication is not None:
            prefix += results_field(hostname, arrival.authentication)
        if session.is_submission:
            prefix += self._missing_fields(header, queue_id, arrival.now)
        effects = part.handling.effects
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
        if arrival.seal is not None:
            prefix = arrival.seal.over(prefix + own, int(arrival.now)) + prefix
        return (prefix + own, True) if missing or claimed else (prefix, False)

    async def _seal(self, header: Header, blob: Blob) -> _Seal | None:
        """By the keys of the author's domain, if it has any."""
        keys = keys_for(header, self._keys)
        if not keys or len(header.fields) > MAX_SIGNED:
            return None
        hashes = BodyHashes([(_RELAXED, None)])
        await hash_body(hashes, blob, header.end)
        return _Seal(keys, hashes.digest(_RELAXED, None))

    def _missing_fields(self, header: Header, queue_id: str, now: float) -> bytes:
        # RFC 6409 8.1, 8.2: a submission server adds what a mail program forgot; a relay never does.
        date = b"" if header.first("Date") else trace.date_field(now)
        message_id = b"" if header.first("Message-ID") else trace.message_id_field(queue_id, self._settings.hostname)
        return date + message_id

    def _recipients(self, part: Part) -> tuple[NewRecipient, ...]:
        """The last redirect takes the place of all of the part's recipients."""
        found: dict[str, NewRecipient] = {}
        redirects = [effect.address for effect in part.handling.effects if isinstance(effect, Redirect)]
        wanted = part.recipients
        if redirects:
            first = wanted[0]
            orcpt = first.orcpt or f"rfc822;{first.forward_path}"
            wanted = (Recipient(parse_mailbox(redirects[-1]), orcpt, first.notify),)
        self._expand(wanted, found, is_routed=bool(_route(part.handling.effects)))
        return tuple(found.values())

    def _copies(self, parts: tuple[Part, ...]) -> Part | None:
        """Who gets a blind copy, but for those who get the message anyway; a copy's failure bothers nobody."""
        effects = [effect for part in parts for effect in part.handling.effects]
        wanted = dict.fromkeys(effect.address for effect in effects if isinstance(effect, Bcc))
        if not wanted:
            return None
        delivered = (part for part in parts if part.handling.disposition is None)
        reached = {str(to.forward_path).lower() for part in delivered for to in self._recipients(part)}
        found: dict[str, NewRecipient] = {}
        self._expand(tuple(Recipient(parse_mailbox(address), "", _NEVER) for address in wanted), found)
        copies = [to for to in found.values() if str(to.forward_path).lower() not in reached]
        if not copies:
            return None
        kept = tuple(e for e in dict.fromkeys(effects) if isinstance(e, AddHeader | TagSubject | RequireTls))
        return Part(tuple(Recipient(to.forward_path, to.orcpt, to.notify) for to in copies), Handling(kept))

    def _expand(
        self, recipients: tuple[Recipient, ...], found: dict[str, NewRecipient], *, is_routed: bool = False
    ) -> None:
        """is_routed: the host at the route's end knows what the addresses mean."""
        for recipient in recipients:
            path = recipient.forward_path
            is_ours = self._directory.is_local(path.domain) and not is_routed
            targets = self._directory.expand(path) if is_ours else ()
            for target in targets or (str(path),):
                # RFC 3461 5.2.7.1: an alias keeps the original recipient and what the sender wants to hear.
                orcpt = recipient.orcpt or ("" if target == str(path) else f"rfc822;{path}")
                key = target.lower() if self._directory.is_local(path.domain) else target
                found.setdefault(key, NewRecipient(parse_mailbox(target), orcpt, recipient.notify))


def _route(effects: tuple[Effect, ...]) -> str:
    """The last rule's word counts."""
    return next((effect.name for effect in reversed(effects) if isinstance(effect, ByRoute)), "")


def _protection(effects: tuple[Effect, ...]) -> Protection:
    """The strictest that any rule wants."""
    wanted = {effect.protection for effect in effects if isinstance(effect, RequireTls)}
    strict_first = (Protection.VERIFIED, Protection.ENCRYPTED)
    return next((each for each in strict_first if each in wanted), Protection.ANY)
