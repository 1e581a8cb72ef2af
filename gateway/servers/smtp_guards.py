"""The fixed guards: what is refused whatever the rules say. Each gives its name and the reply, or None."""

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Mailbox
from gateway.core.reply import Reply, reply
from gateway.core.transaction import Envelope, Session
from gateway.core.verdict import Guard
from gateway.message.blob import Blob
from gateway.message.header import MAX_HEADER, Header

MAX_TAKEN_HEADER = MAX_HEADER - 16 * 1024  # with what we add it is still read whole
MAX_NULL_RECIPIENTS = 5  # a DSN goes to one; more than a few from a stranger are no DSN

UNREADABLE_HOP = Guard.HOP, reply(451, "4.3.5", "Nobody can read in the Received field who brought this to our own hop")

Guarded = tuple[Guard, Reply] | None


def relay_guard(session: Session, envelope: Envelope, path: Mailbox, directory: AccountDirectory) -> Guarded:
    """No rule opens the gateway: strangers reach our own and our relayed domains, and nobody through them."""
    if session.may_relay:
        return None
    is_local = directory.is_local(path.domain)
    denied = Guard.RELAY, reply(554, "5.7.1", f"<{path}>: relay access denied")
    if not is_local and not directory.is_relayed(path.domain):
        return denied
    if not is_local and any(char in path.local_part for char in "%!@"):
        return denied  # sender-specified routing: the next hop may trust us and follow it
    if not envelope.reverse_path.is_null and directory.held_sender(path) is not None:
        # A rewritten reverse-path leads to the sender of a forwarded message: for bounces, and for nothing else.
        return denied
    if envelope.reverse_path.is_null and len(envelope.recipients) >= MAX_NULL_RECIPIENTS:
        return Guard.NULL_SENDER, reply(452, "4.5.3", "Too many recipients for the null reverse-path")
    return None


def hop_guard(session: Session, envelope: Envelope, path: Mailbox, directory: AccountDirectory) -> Guarded:
    """All that a hop of ours hears before the message: what it would have to bounce else."""
    guarded = relay_guard(session, envelope, path, directory)
    if guarded is None and directory.is_local(path.domain) and not directory.exists(path):
        guarded = Guard.MAILBOX, reply(550, "5.1.1", f"<{path}>: no such mailbox here")
    return guarded


def header_guard(header: Header, blob: Blob, max_hops: int) -> Guarded:
    hops = header.count("Received")
    if hops > max_hops:
        return Guard.HOPS, reply(554, "5.4.6", f"Mail loop: {hops} Received fields")
    if blob.head(1) in (b" ", b"\t"):
        return Guard.HEADER, reply(550, "5.6.0", "The message begins in the middle of a header field")
    if header.end > MAX_TAKEN_HEADER:
        return Guard.HEADER, reply(552, "5.3.4", f"The header is over {MAX_TAKEN_HEADER} octets")
    return None
