"""Who is told what: DSNs as messages for the queue (RFC 3461 5.2, 6.1). Never one for a DSN."""

from collections.abc import Sequence

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import NULL_REVERSE_PATH, parse_mailbox
from gateway.core.ident import new_id
from gateway.message.blob import MemoryBlob
from gateway.message.dsn import Original, Report, compose
from gateway.queue.seals import signatures_of
from gateway.queue.store import NewMessage, NewRecipient, QueuedMessage
from gateway.senderauth.signing import SigningKey

_WANTED_BY_DEFAULT = frozenset({"FAILURE", "DELAY"})
_WORDS = {"failed": "FAILURE", "delayed": "DELAY", "delivered": "SUCCESS", "relayed": "SUCCESS"}


def is_wanted(action: str, notify: frozenset[str]) -> bool:
    """Does the sender want to hear of this? NOTIFY=NEVER has no other word beside it."""
    return _WORDS[action] in (notify or _WANTED_BY_DEFAULT)


def notices(
    message: QueuedMessage,
    reports: Sequence[Report],
    directory: AccountDirectory,
    hostname: str,
    expire_s: float,
    now: float,
    keys: tuple[SigningKey, ...] = (),
) -> tuple[NewMessage, ...]:
    """One DSN for each action among the reports; none for a message with the null reverse-path. keys: that sign it."""
    to = message.reverse_path.mailbox
    if to is None or not reports:
        return ()
    original = Original(
        message.queue_id, message.created, message.envid, message.ret, message.header, message.blob, message.offset
    )
    # The sender's own alias or plus-address is expanded as any recipient is.
    targets = directory.expand(to) if directory.is_local(to.domain) else ()
    recipients = tuple(NewRecipient(parse_mailbox(target)) for target in targets or (str(to),))
    found: list[NewMessage] = []
    for action in dict.fromkeys(report.action for report in reports):
        notice_id = new_id()
        notice = compose(original, [r for r in reports if r.action == action], to, hostname, notice_id, now)
        found.append(
            NewMessage(
                queue_id=notice_id,
                created=now,
                expires=now + expire_s,
                reverse_path=NULL_REVERSE_PATH,
                recipients=recipients,
                header=signatures_of(notice.octets, keys, int(now)) if keys else b"",
                blob=MemoryBlob(notice.octets),
                body="8BITMIME" if notice.has_8bit else "",
                smtputf8=notice.smtputf8,
                info={"of": message.queue_id, "kind": f"dsn {action}"},
            )
        )
    return tuple(found)
