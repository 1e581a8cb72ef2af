"""The catalogue of facts: what rules may ask, from which stage on, and how it is read from the context.

From it come the type checker, the error messages and (docs/policy.md) the reference. A fact appears here when it works.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from gateway.content.attachment import TRAITS
from gateway.content.types import TYPES
from gateway.core.verdict import Stage
from gateway.message.mime import FAULTS
from gateway.policy.comparison import RecordField
from gateway.policy.context import ORDER, STAGES, Context
from gateway.policy.listanswers import RHSBL_HOMES, check_list, check_rhsbl
from gateway.policy.rates import HOMES, check_rate
from gateway.policy.readers import (
    claims_us,
    direction,
    from_address,
    from_domain,
    from_is_local,
    has_8bit,
    is_auto_submitted,
    is_bulk,
    is_literal,
    is_valid,
    mailbox_of,
    owns_author,
    owns_sender,
    recipient_allows_sender,
    recipient_blocks_sender,
    recipient_domain,
    recipient_exists,
    recipient_is_local,
    recipient_is_relayed,
    sender_exists,
    sender_is_local,
    tls_cipher,
    tls_version,
    untagged,
    urls,
)
from gateway.policy.values import PENDING, Found, Kind, Value

# What a fact costs: nothing, a look at our own state, a look-up, asking the next hop, waiting for the client, a scan.
FREE, STATE, DNS, PROBE, WAIT, SCAN = range(6)
COSTS = ("free", "state", "dns", "probe", "wait", "scan")


@dataclass(frozen=True, slots=True)
class Fact:
    """read None, or a PENDING from it: the check named `provider` fetches it; neutral: its value in a policy's tests
    unless they give one.
    """

    name: str
    kind: Kind
    stage: Stage  # from which on it is known, and whose layer keeps it
    read: Callable[[Context], Found] | None
    description: str
    cost: int = FREE
    provider: str = ""
    neutral: Value = None
    is_live: bool = False  # rules change it on the way
    words: tuple[str, ...] = ()  # all texts that it, or an element of it, can be, where they are few
    fields: Mapping[str, RecordField] = field(default_factory=dict)  # of the records of a RECORDS


@dataclass(frozen=True, slots=True)
class Function:
    """A fact with literal texts as arguments: `header("X")`. arguments: how many, at least and at most.

    check: called with the arguments at load, raises ValueError for ones that make no sense; homes: the stage from
    which it is known with a certain first argument, where that is later; is_momentary: another stage asks again.
    """

    name: str
    kind: Kind
    stage: Stage
    call: Callable[..., Value] | None
    description: str
    arguments: tuple[int, int] = (1, 1)
    check: Callable[..., None] = lambda *arguments: None
    cost: int = FREE
    provider: str = ""
    neutral: Value = None
    homes: Mapping[str, Stage] = field(default_factory=dict)
    is_momentary: bool = False

    def home(self, arguments: tuple[str, ...]) -> Stage:
        return self.homes.get(arguments[0], self.stage) if arguments else self.stage


def _facts() -> dict[str, Fact]:
    connect, helo, sender, recipient, message = STAGES
    boolean, number, text, ip = Kind.BOOL, Kind.NUMBER, Kind.TEXT, Kind.IP
    table: list[tuple[str, Kind, Stage, Callable[[Context], Value], str]] = [
        ("client.ip", ip, connect, lambda c: c.session.client_ip, "address of the client"),
        ("client.port", number, connect, lambda c: c.session.client_port, "port of the client"),
        ("client.trusted", boolean, connect, lambda c: c.session.is_trusted, "in [networks] trusted: may relay"),
        ("session.listener", text, connect, lambda c: c.session.listener, "smtp, submission or submissions"),
        ("session.direction", text, recipient, direction, "inbound, outbound or internal"),
        ("session.errors", number, connect, lambda c: c.errors, "commands refused so far in this session"),
        ("session.transactions", number, connect, lambda c: c.transactions, "transactions begun in this session"),
        ("session.tls.active", boolean, connect, lambda c: c.session.tls is not None, "is the connection encrypted?"),
        ("session.tls.version", text, connect, tls_version, "TLSv1.3, or none"),
        ("session.tls.cipher", text, connect, tls_cipher, "cipher suite, or none"),
        ("auth.user", text, connect, lambda c: c.session.user, "who signed in, or none"),
        ("auth.method", text, connect, lambda c: c.session.auth_method or None, "PLAIN, LOGIN, or none"),
        ("auth.owns_sender", boolean, sender, owns_sender, "signed in, and the reverse-path is theirs or null"),
        ("auth.owns_author", boolean, message, owns_author, "signed in, and all addresses of From are theirs"),
        ("helo.name", text, helo, lambda c: c.session.helo, "name given by HELO or EHLO"),
        ("helo.is_literal", boolean, helo, is_literal, "an address literal instead of a name?"),
        ("helo.is_valid", boolean, helo, is_valid, "a well-formed host name with a dot, or a valid literal"),
        ("helo.claims_us", boolean, helo, claims_us, "our own host name or a local domain"),
        ("helo.esmtp", boolean, helo, lambda c: c.session.is_esmtp, "EHLO rather than HELO"),
        ("sender.address", text, sender, lambda c: str(c.reverse_path or ""), "reverse-path, empty for the null one"),
        ("sender.local", text, sender, lambda c: m.local_part if (m := mailbox_of(c)) else "", "its local part"),
        ("sender.domain", text, sender, lambda c: m.domain.ascii if (m := mailbox_of(c)) else "", "its domain"),
        ("sender.is_null", boolean, sender, lambda c: mailbox_of(c) is None, "the null reverse-path of DSNs"),
        ("sender.is_local", boolean, sender, sender_is_local, "of a local domain"),
        ("sender.exists", boolean, sender, sender_exists, "false: of a local domain, without account or alias"),
        ("recipient.address", text, recipient, lambda c: str(c.recipient or ""), "forward-path"),
        ("recipient.untagged", text, recipient, untagged, "the same in lower case, without a local user's tag"),
        ("recipient.local", text, recipient, lambda c: c.recipient.local_part if c.recipient else "", "its local part"),
        ("recipient.domain", text, recipient, recipient_domain, "its domain"),
        ("recipient.is_local", boolean, recipient, recipient_is_local, "stored here"),
        ("recipient.is_relayed", boolean, recipient, recipient_is_relayed, "of [relay_domains]"),
        (
            "recipient.allows_sender", boolean, recipient, recipient_allows_sender,
            "has welcomed the author's address (before the message: the reverse-path), which anybody can write",
        ),
        ("recipient.blocks_sender", boolean, recipient, recipient_blocks_sender, "has blocked reverse-path or author"),
        ("recipients.count", number, recipient, lambda c: c.recipient_count, "recipients accepted so far"),
        ("message.size", number, message, lambda c: c.message.size if c.message else 0, "octets"),
        ("message.has_8bit", boolean, message, has_8bit, "octets over 127"),
        ("message.subject", text, message, lambda c: c.header.text("Subject"), "decoded, or none"),
        ("message.from_address", text, message, from_address, "author's address, or none"),
        ("message.from_domain", text, message, from_domain, "author's domain, or none"),
        ("message.from_is_local", boolean, message, from_is_local, "author's domain is local"),
        ("message.header_count", number, message, lambda c: len(c.header.fields), "fields in the header"),
        ("message.hops", number, message, lambda c: c.header.count("Received"), "Received fields"),
        ("message.is_bulk", boolean, message, is_bulk, "Precedence bulk or list, or a List-Id"),
        ("message.is_auto_submitted", boolean, message, is_auto_submitted, "RFC 3834, not by a person"),
    ]  # fmt: skip
    found = {name: Fact(name, kind, stage, read, description) for name, kind, stage, read, description in table}
    for fact in (
        Fact("client.name", text, connect, None, "verified reverse name, or none", DNS, "reverse_dns"),
        Fact("client.ptr", text, connect, None, "reverse name, verified or not, or none", DNS, "reverse_dns"),
        Fact(
            "client.reverse_dns", text, connect, None, "pass: leads back to the address; fail; none: no reverse name",
            DNS, "reverse_dns", "pass",
        ),
        Fact("helo.resolves", boolean, helo, None, "its name has an address or an MX", DNS, "names", neutral=True),
        Fact(
            "sender.domain_exists", boolean, sender, None, "its domain takes mail: an MX not null, or an address",
            DNS, "names", neutral=True,
        ),
        Fact(
            "sender.null_mx", boolean, sender, None, "its domain says that it takes no mail (RFC 7505)",
            DNS, "names", neutral=False,
        ),
        Fact(
            "recipient.domain_exists", boolean, recipient, None,
            "its domain takes mail: an MX not null, or an address", DNS, "names", neutral=True,
        ),
        Fact(
            "client.early_talker", boolean, connect, None, "spoke before it was greeted, within the check's delay",
            WAIT, "early_talker", neutral=False,
        ),
        Fact(
            "spf.result", text, sender, None, "none neutral pass fail softfail temperror permerror (RFC 7208)",
            DNS, "spf", "none",
        ),
        Fact("spf.domain", text, sender, None, "whose record was asked: the sender's domain, or HELO", DNS, "spf"),
        Fact("spf.explanation", text, sender, None, "what the domain says of a fail, or none", DNS, "spf"),
        Fact(
            "dkim.result", text, message, None, "of the best signature: pass, fail, policy… or none (RFC 8601 2.7.1)",
            DNS, "dkim", "none",
        ),
        Fact("dkim.domains", Kind.LIST, message, None, "whose signatures pass", DNS, "dkim", ()),
        Fact("arc.result", text, message, None, "none pass fail temperror (RFC 8617)", DNS, "arc", "none"),
        Fact("arc.sealers", Kind.LIST, message, None, "who sealed a chain that passes, newest first", DNS, "arc", ()),
        Fact(
            "dmarc.result", text, message, None, "none pass fail temperror permerror (RFC 9989)", DNS, "dmarc", "none",
        ),
        Fact("dmarc.policy", text, message, None, "what the author's domain wants done on a fail", DNS, "dmarc"),
        Fact("dmarc.domain", text, message, None, "the author's domain, where From names just one", DNS, "dmarc"),
        Fact(
            "seen.sender_before", boolean, sender, None, "mail from this reverse-path was delivered before",
            STATE, "seen", neutral=False,
        ),
        Fact(
            "seen.domain_good", number, sender, None, "messages of this domain, by SPF, that somebody got; decayed",
            DNS, "reputation", neutral=0,
        ),
        Fact("seen.domain_bad", number, sender, None, "that were refused or kept aside", DNS, "reputation", neutral=0),
        Fact(
            "seen.network_good", number, connect, None, "messages from the client's network that somebody got, decayed",
            STATE, "reputation", neutral=0,
        ),
        Fact(
            "seen.network_bad", number, connect, None, "that were refused or kept aside",
            STATE, "reputation", neutral=0,
        ),
        Fact(
            "auth.usual", number, sender, None, "recipients an hour that are nothing unusual for who signed in",
            STATE, "usage", neutral=100,
        ),
        Fact(
            "recipient.exists", boolean, recipient, recipient_exists,
            "false: a local address without account or alias, or one that its next hop does not know",
            PROBE, "recipients", neutral=True,
        ),
        Fact(
            "recipient.over_quota", boolean, recipient, None, "its mailbox here is full",
            STATE, "fullness", neutral=False,
        ),
        Fact(
            "message.urls", Kind.LIST, message, urls, "links in its texts, the first 200",
            SCAN, "urls", neutral=(),
        ),
        Fact(
            "message.malformed", boolean, message, lambda c: True if c.header.is_malformed else PENDING,
            "header lines that are no fields, or parts that mail programs read differently",
            SCAN, "content", neutral=False,
        ),
        Fact(
            "message.faults", Kind.LIST, message, None, "what is odd about its structure, in words",
            SCAN, "content", neutral=(), words=FAULTS,
        ),
        Fact(
            "attachments", Kind.RECORDS, message, None, "files in it, for `any(a.is_encrypted for a in attachments)`",
            SCAN, "content", neutral=(), fields=ATTACHMENT,
        ),
        Fact(
            "virus.found", boolean, message, None, "an engine knows something in it", SCAN, "antivirus", neutral=False,
        ),
        Fact("virus.name", text, message, None, "what the engine calls it, or none", SCAN, "antivirus"),
        Fact("virus.scanner", text, message, None, "which engine found it: clamd or yara, or none", SCAN, "antivirus"),
        Fact(
            "virus.partial", boolean, message, None, "an engine's limits kept it from looking at all of it",
            SCAN, "antivirus", neutral=False,
        ),
        Fact(
            "spam.probability", number, message, None, "0 to 1, at even odds of ham and spam", SCAN, "spam", neutral=0,
        ),
        Fact("spam.score", number, message, None, "its log odds: 0 at even odds, 10 at 0.99", SCAN, "spam", neutral=0),
        Fact(
            "spam.symbols", Kind.LIST, message, None, "what it found, in the filter's words", SCAN, "spam", neutral=(),
        ),
        Fact("spam.source", text, message, None, "which filter says so", SCAN, "spam", neutral="bayes"),
        Fact(
            "greylist.state", text, recipient, None, "new, waiting or passed, by network and sender domain",
            STATE, "greylist", "passed",
        ),
        Fact("score", number, connect, lambda c: c.score, "what rules have given so far", is_live=True),
        Fact("marks", Kind.LIST, connect, lambda c: c.marks, "names that rules have given so far", is_live=True),
    ):  # fmt: skip
        found[fact.name] = fact
    return {name: replace(fact, words=_WORDS.get(name, fact.words)) for name, fact in found.items()}


_WORDS = {
    "session.listener": ("smtp", "submission", "submissions"),
    "session.direction": ("inbound", "outbound", "internal"),
    "client.reverse_dns": ("pass", "fail", "none"),
    "spf.result": ("none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"),
    "dkim.result": ("none", "pass", "fail", "policy", "neutral", "temperror", "permerror"),
    "arc.result": ("none", "pass", "fail", "temperror"),
    "dmarc.result": ("none", "pass", "fail", "temperror", "permerror"),
    "greylist.state": ("new", "waiting", "passed"),
    "spam.source": ("bayes", "rspamd", "spamd"),
}

ATTACHMENT = {
    "name": RecordField(Kind.TEXT, (), "as shown, or empty"),
    "extension": RecordField(Kind.TEXT, (), "in lower case, without a dot; of several names the one that can be run"),
    "media_type": RecordField(Kind.TEXT, (), "declared"),
    "true_type": RecordField(Kind.TEXT, TYPES, "by its content"),
    "size": RecordField(Kind.NUMBER, (), "octets, decoded"),
    "is_encrypted": RecordField(Kind.BOOL, (), "it, or something in it, is under a password"),
    "has_macros": RecordField(Kind.BOOL, (), "it, or something in it, has Office macros"),
    "depth": RecordField(Kind.NUMBER, (), "how many multiparts and messages it is in"),
    "members": RecordField(Kind.LIST, (), "names of the files in it, however deep"),
    "extensions": RecordField(Kind.LIST, (), "of all its names and of all that is in it"),
    "types": RecordField(Kind.LIST, TYPES, "its true type, and those of all that is in it"),
    "traits": RecordField(Kind.LIST, TRAITS, "what it shows, in words"),
}

FACTS = _facts()
FUNCTIONS = {
    "header": Function(
        "header", Kind.TEXT, Stage.MESSAGE, lambda c, name: c.header.text(name), "first such field, decoded, or none"
    ),
}
for _name, _words in (("dnsbl", "blocks"), ("dnswl", "welcomes")):
    FUNCTIONS[_name] = Function(
        _name, Kind.LIST, Stage.CONNECT, None, f'answers of a DNS list that {_words}: `{_name}("zone"[, "answers"])`',
        (1, 2), check_list, DNS, _name, (),
    )  # fmt: skip
FUNCTIONS["uribl"] = Function(
    "uribl", Kind.LIST, Stage.MESSAGE, None, 'what a DNS list says of linked domains: `uribl("zone"[, "answers"])`',
    (1, 2), check_list, DNS, "uribl", (),
)  # fmt: skip
FUNCTIONS["rhsbl"] = Function(
    "rhsbl", Kind.LIST, Stage.CONNECT, None,
    'what a DNS list of domains says of the sender\'s, HELO\'s or client\'s: `rhsbl("sender", "zone"[, "answers"])`',
    (2, 3), check_rhsbl, DNS, "rhsbl", (), RHSBL_HOMES,
)  # fmt: skip
FUNCTIONS["rate"] = Function(
    "rate", Kind.NUMBER, Stage.CONNECT, None, 'how many came before: `rate("client", "1h", "messages")`',
    (3, 3), check_rate, STATE, "rates", 0, HOMES, is_momentary=True,
)  # fmt: skip
# What session and envelope alone say: a record that has these need not have the facts.
DERIVED = frozenset(
    {
        "client.ip", "client.port", "session.listener", "session.tls.active", "session.tls.version",
        "session.tls.cipher", "auth.user", "auth.method", "helo.name", "helo.is_literal", "helo.is_valid", "helo.esmtp",
        "sender.address", "sender.local", "sender.domain", "sender.is_null",
        "recipient.address", "recipient.local", "recipient.domain",
    }
)  # fmt: skip
CONSTANTS: dict[str, int] = {"KB": 1024, "MB": 1024**2, "GB": 1024**3, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}


def declared(key: str) -> Fact | Function | None:
    """What stands behind a key: `client.ip`, `dnsbl("zone")`."""
    return FACTS.get(key) or FUNCTIONS.get(key.partition("(")[0])


def stages_of(keys: Iterable[str]) -> list[Stage]:
    """From which on each is known."""
    return [found.stage for key in keys if (found := declared(key)) is not None]


def is_known_at(fact: Fact | Function, stage: Stage) -> bool:
    return ORDER[stage] >= ORDER[fact.stage]


_VARYING = frozenset(
    {
        "recipients.count", "session.errors", "session.transactions", "session.direction", "session.tls.active",
        "session.tls.version", "session.tls.cipher", "score", "marks",
    }
)  # fmt: skip


@lru_cache(maxsize=4096)  # keys are those of policies and of the catalogue
def is_varying(key: str) -> bool:
    """Another value at another stage, or for another recipient?"""
    return key in _VARYING or key.startswith("rate(") or of_recipient(key)


def of_recipient(key: str) -> bool:
    """Does the fact of this key differ from recipient to recipient? A message rule over it is judged for each."""
    return key.startswith(("recipient.", 'rate("recipient"')) or key == "session.direction"
