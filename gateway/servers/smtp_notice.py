"""The operator is told when a user's mail is held: once an hour for each, with what to do about it."""

import time

from gateway.core.address import NULL_REVERSE_PATH, parse_mailbox
from gateway.core.ident import new_id
from gateway.core.transaction import Session
from gateway.core.verdict import Action
from gateway.message import trace
from gateway.message.blob import MemoryBlob
from gateway.queue.handling import Part
from gateway.queue.store import NewMessage, NewRecipient
from gateway.servers.smtp_service import SmtpService

EVERY_S = 3600.0
_TEXT = """\
Mail of {user} is held: rule "{rule}".

If somebody else has the password, disable the user and drop what was sent:

    smarthost user disable {user}
    smarthost queue delete --user {user} --state held

If it is wanted, let it go:

    smarthost queue release --user {user}

What is held: smarthost queue list --user {user} --state held
You are told of a user once an hour.
"""


async def tell_of_held(service: SmtpService, session: Session, parts: tuple[Part, ...]) -> None:
    """To the postmaster of the user's domain. Raises what the queue does."""
    held = next((part.handling for part in parts if part.handling.disposition is Action.HOLD), None)
    if held is None or session.user is None:
        return
    if service.counters.hit(f"told:{session.user}", EVERY_S) > 1:
        return
    notice = _notice(service, session.user, held.rule)
    if notice is not None:
        await service.intake.enqueue(notice)
        service.wake_runner()


def _notice(service: SmtpService, user: str, rule: str) -> NewMessage | None:
    """None where the domain has nobody who could read it."""
    to = parse_mailbox(f"postmaster@{user.rpartition('@')[2]}")
    recipients = tuple(NewRecipient(parse_mailbox(target)) for target in service.directory.expand(to))
    if not recipients:
        return None
    hostname, queue_id, now = service.settings.hostname, new_id(), time.time()
    head = (
        f"From: Smarthost <postmaster@{hostname}>\r\nTo: {to}\r\nSubject: mail of {user} is held\r\n"
        "Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: 8bit\r\n"
    )
    fields = trace.date_field(now) + trace.message_id_field(queue_id, hostname) + head.encode()
    octets = fields + b"\r\n" + _TEXT.format(user=user, rule=rule).replace("\n", "\r\n").encode()
    return NewMessage(
        queue_id=queue_id,
        created=now,
        expires=now + service.intake.expire_s,
        reverse_path=NULL_REVERSE_PATH,
        recipients=recipients,
        header=b"",
        blob=MemoryBlob(octets),
        body="" if octets.isascii() else "8BITMIME",
        smtputf8=not fields.isascii(),
        info={"kind": "notice", "of": user},
    )
