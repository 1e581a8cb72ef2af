"""How facts are read from what a stage looks at: each a function of the context alone."""

from gateway.core.address import Mailbox, parse_domain, parse_mailbox
from gateway.message.blob import INLINE_LIMIT
from gateway.message.header import address_of, mailboxes
from gateway.message.urls import MAX_SCANNED, urls_of
from gateway.policy.context import Context
from gateway.policy.values import PENDING, Found


def mailbox_of(context: Context) -> Mailbox | None:
    return context.reverse_path.mailbox if context.reverse_path is not None else None


def is_literal(context: Context) -> bool:
    return context.session.helo.startswith("[")


def is_valid(context: Context) -> bool:
    try:
        domain = parse_domain(context.session.helo)
    except ValueError:
        return False
    return domain.is_literal or "." in domain.ascii


def claims_us(context: Context) -> bool:
    """HELO with our own name, or with a domain whose mail we store."""
    name = context.session.helo.lower().rstrip(".")
    if name == context.hostname.lower():
        return True
    try:
        return context.directory.is_local(parse_domain(name))
    except ValueError:
        return False


def tls_version(context: Context) -> str | None:
    return None if context.session.tls is None else context.session.tls.version


def tls_cipher(context: Context) -> str | None:
    return None if context.session.tls is None else context.session.tls.cipher


def sender_is_local(context: Context) -> bool:
    mailbox = mailbox_of(context)
    return mailbox is not None and context.directory.is_local(mailbox.domain)


def recipient_domain(context: Context) -> str:
    return "" if context.recipient is None else context.recipient.domain.ascii


def untagged(context: Context) -> str:
    return "" if context.recipient is None else context.directory.without_tag(context.recipient)


def from_is_local(context: Context) -> bool:
    domain = from_domain(context)
    try:
        return domain is not None and context.directory.is_local(parse_domain(domain))
    except ValueError:
        return False


def recipient_is_local(context: Context) -> bool:
    return context.recipient is not None and context.directory.is_local(context.recipient.domain)


def recipient_is_relayed(context: Context) -> bool:
    return context.recipient is not None and context.directory.is_relayed(context.recipient.domain)


def recipient_allows_sender(context: Context) -> bool:
    """The author, once there is one; before that the reverse-path. Both can be forged: rules ask who vouches."""
    address = str(context.reverse_path or "") if context.message is None else from_address(context)
    recipient = context.recipient
    return recipient is not None and bool(address) and context.directory.choice(recipient, str(address)) is True


def recipient_blocks_sender(context: Context) -> bool:
    """The reverse-path, or the author once there is one."""
    found = (str(context.reverse_path or ""), from_address(context) if context.message is not None else None)
    recipient = context.recipient
    return recipient is not None and any(context.directory.choice(recipient, each) is False for each in found if each)


def recipient_exists(context: Context) -> Found:
    """Nothing is known of others' mailboxes, so they count as existing, unless their next hop is asked."""
    if context.recipient is None:
        return True
    if context.directory.is_local(context.recipient.domain):
        return context.directory.exists(context.recipient)
    return PENDING if context.directory.is_probed(context.recipient.domain) else True


def sender_exists(context: Context) -> bool:
    """Nothing is known of others' mailboxes, so they count as existing."""
    mailbox = mailbox_of(context)
    return mailbox is None or not context.directory.is_local(mailbox.domain) or context.directory.exists(mailbox)


def owns_sender(context: Context) -> bool:
    """Whoever signed in may send DSNs and the like with the null reverse-path."""
    mailbox, user = mailbox_of(context), context.session.user
    return user is not None and (mailbox is None or context.directory.owns(user, mailbox))


def owns_author(context: Context) -> bool:
    """Nothing that one mail program may read otherwise than we do counts as the user's."""
    user, header = context.session.user, context.header
    field = header.first("From")
    if user is None or field is None or header.count("From") > 1 or header.is_malformed:
        return False
    found = mailboxes(field.value)
    return bool(found) and all(_is_owned(user, address, context) for address in found or ())


def _is_owned(user: str, address: str, context: Context) -> bool:
    try:
        return context.directory.owns(user, parse_mailbox(address))
    except ValueError:
        return False


def urls(context: Context) -> Found:
    """A small message is looked through at once."""
    message = context.message
    if message is None:
        return ()
    if message.urls is None:
        if message.size > INLINE_LIMIT:
            return PENDING
        message.urls = urls_of(message.blob.head(MAX_SCANNED))
    return message.urls


def has_8bit(context: Context) -> bool:
    return context.message is not None and context.message.has_8bit


def direction(context: Context) -> str:
    """inbound: from outside; internal: ours to ours; outbound: ours to others (of the recipients so far)."""
    if not context.session.may_relay:
        return "inbound"
    if context.recipient is not None and context.directory.is_local(context.recipient.domain):
        return "internal"
    return "outbound"


def from_address(context: Context) -> str | None:
    found = context.header.first("From")
    return None if found is None else address_of(found.value)


def from_domain(context: Context) -> str | None:
    address = from_address(context)
    if address is None:
        return None
    domain = address.rpartition("@")[2]
    try:
        return parse_domain(domain).ascii
    except ValueError:
        return domain


def is_bulk(context: Context) -> bool:
    header = context.header
    precedence = (header.text("Precedence") or "").lower()
    return precedence in ("bulk", "list", "junk") or header.first("List-Id") is not None


def is_auto_submitted(context: Context) -> bool:
    value = context.header.text("Auto-Submitted")
    return value is not None and value.partition(";")[0].strip().lower() != "no"  # RFC 3834 5
