"""The one door: here a message becomes a queued one, whether it came by SMTP or is a bounce of ours.

`accept` returns when blob and rows are on disk; only then may anybody say 250.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import parse_mailbox
from gateway.core.ident import new_id
from gateway.core.ports import Clock
from gateway.core.transaction import Envelope, Recipient, Session
from gateway.message import trace
from gateway.message.blob import Blob
from gateway.message.header import Header
from gateway.queue.store import NewMessage, NewRecipient, QueueStore


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    hostname: str
    expire_s: float


class Intake:
    def __init__(self, store: QueueStore, directory: AccountDirectory, settings: IntakeSettings, clock: Clock) -> None:
        self._store = store
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
        on_ready: Callable[[], None],
    ) -> str:
        """The queue id; on_ready wakes the runner. Raises what the store does.

        Aliases are expanded here, so each row is somebody who will get it.
        """
        now = self._clock.now()
        queue_id = new_id()
        recipients = self._expand(envelope.recipients)
        only = str(envelope.recipients[0].forward_path) if len(envelope.recipients) == 1 else ""
        hostname = self._settings.hostname
        prefix = trace.received(session, hostname, queue_id, only, now, smtputf8=envelope.smtputf8)
        if session.is_submission:
            prefix += self._missing_fields(header, queue_id, now)
        message = NewMessage(
            queue_id=queue_id,
            created=now,
            expires=now + self._settings.expire_s,
            reverse_path=envelope.reverse_path,
            recipients=recipients,
            header=prefix,
            blob=blob,
            body=envelope.body,
            smtputf8=envelope.smtputf8,
            ret=envelope.ret,
            envid=envelope.envid,
            info=info,
        )
        await self._store.enqueue(message)
        on_ready()
        return queue_id

    def _missing_fields(self, header: Header, queue_id: str, now: float) -> bytes:
        # RFC 6409 8.1, 8.2: a submission server adds what a mail program forgot; a relay never does.
        date = b"" if header.first("Date") else trace.date_field(now)
        message_id = b"" if header.first("Message-ID") else trace.message_id_field(queue_id, self._settings.hostname)
        return date + message_id

    def _expand(self, recipients: tuple[Recipient, ...]) -> tuple[NewRecipient, ...]:
        found: dict[str, NewRecipient] = {}
        for recipient in recipients:
            path = recipient.forward_path
            targets = self._directory.expand(path) if self._directory.is_local(path.domain) else ()
            for target in targets or (str(path),):
                # RFC 3461 5.2.7.1: an alias keeps the original recipient and what the sender wants to hear.
                orcpt = recipient.orcpt or ("" if target == str(path) else f"rfc822;{path}")
                key = target.lower() if self._directory.is_local(path.domain) else target
                found.setdefault(key, NewRecipient(parse_mailbox(target), orcpt, recipient.notify))
        return tuple(found.values())
