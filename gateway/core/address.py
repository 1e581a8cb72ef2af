"""Addresses as values: Domain, Mailbox, ReversePath (RFC 5321 4.1.2, 5.1; RFC 6531 for UTF-8).

Parsing of command arguments is in `smtp.grammar`; here are the values and the parsing of a bare `local@domain`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

MAX_DOMAIN = 255  # octets, RFC 5321 4.5.3.1.2
MAX_WRITTEN_DOMAIN = 1000  # letters, before they are made A-labels
# Octets of local@domain, RFC 3696 erratum 1690. The 64 of a local part are the least that a host must take (RFC 5321
# 4.5.3.1): reverse-paths of lists and forwarders are longer.
MAX_PATH = 254

# sub-domain = Let-dig [Ldh-str]; "_" is let through since real hosts send from such names.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\ud7ff\ue000-\U0010ffff-]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4-mapped address as IPv4: a host is one and the same however its address is written."""
    return (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address


def covering(name: str) -> Iterator[str]:
    """The entries that take a domain: itself; with a leading dot, itself and each domain above it."""
    yield name
    yield f".{name}"
    while "." in name:
        name = name.partition(".")[2]
        yield f".{name}"


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain in A-labels, lower case, no trailing dot; or an address literal in brackets."""

    ascii: str

    @property
    def is_literal(self) -> bool:
        return self.ascii.startswith("[")

    def __str__(self) -> str:
        return self.ascii


@dataclass(frozen=True, slots=True)
class Mailbox:
    """local_part is unquoted text (case kept); `str()` gives the form of RFC 5321, quoted where it must be."""

    local_part: str
    domain: Domain

    def __str__(self) -> str:
        return f"{quote_local_part(self.local_part)}@{self.domain.ascii}"

    @property
    def is_ascii(self) -> bool:
        return self.local_part.isascii()


@dataclass(frozen=True, slots=True)
class ReversePath:
    """`mailbox` is None for the null reverse-path `<>`."""

    mailbox: Mailbox | None

    @property
    def is_null(self) -> bool:
        return self.mailbox is None

    def __str__(self) -> str:
        return "" if self.mailbox is None else str(self.mailbox)


NULL_REVERSE_PATH = ReversePath(None)


def quote_local_part(local_part: str) -> str:
    """A dot-string as it stands, anything else as a quoted string (RFC 5321 4.1.2)."""
    if _DOT_STRING.fullmatch(local_part):
        return local_part
    return '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(maxsize=4096)
def parse_domain(text: str) -> Domain:
    """`text`: a domain in A-labels or U-labels, or an address literal `[192.0.2.1]` / `[IPv6:2001:db8::1]`.

    Raises ValueError with a reason that may be shown to a peer.
    """
    if text.startswith("["):
        return _parse_literal(text)
    name = text.lower()
    if len(name) > MAX_WRITTEN_DOMAIN:  # before the work for other letters, which grows faster than they
        raise ValueError(f"domain of {len(name)} letters, allowed are {MAX_WRITTEN_DOMAIN}")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True).decode("ascii")
        except idna.IDNAError as error:
            raise ValueError("domain is no valid internationalised name") from error
    if not name or len(name) > MAX_DOMAIN:
        raise ValueError(f"domain of {len(name)} octets, allowed are 1 to {MAX_DOMAIN}")
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("domain has a label that is no host name")
    if labels[-1].isdigit():
        raise ValueError("domain ends in a number; an address needs brackets")
    return Domain(name)


def _parse_literal(text: str) -> Domain:
    if not text.endswith("]"):
        raise ValueError("address literal lacks its closing bracket")
    inner = text[1:-1]
    if "%" in inner:
        raise ValueError("address literal has a zone")
    try:
        if inner[:5].lower() == "ipv6:":
            address = ip_address(inner[5:])
            if address.version != 6:
                raise ValueError
            return Domain(f"[IPv6:{address}]")
        address = ip_address(inner)
        if address.version != 4:
            raise ValueError
    except ValueError:
        raise ValueError("address literal is no IP address") from None
    return Domain(f"[{address}]")


@lru_cache(maxsize=16384)
def parse_mailbox(text: str) -> Mailbox:
    """`local@domain`, the local part a dot-string or a quoted string. Raises ValueError with a peer-safe reason."""
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("address is not valid UTF-8")
    local, at, domain = text.rpartition("@")
    if not at:
        raise ValueError("address has no domain")
    if local.startswith('"'):
        local = unquote_local_part(local)
    elif not _DOT_STRING.fullmatch(local):
        raise ValueError("local part is neither dot-string nor quoted string")
    mailbox = Mailbox(local, parse_domain(domain))
    if len(str(mailbox).encode()) > MAX_PATH:
        raise ValueError(f"address longer than {MAX_PATH} octets")
    return mailbox


def unquote_local_part(text: str) -> str:
    """The content of a quoted string; printable ASCII, blanks and UTF-8 only (RFC 5321 qtextSMTP, RFC 6531)."""
    if len(text) < 2 or not text.endswith('"'):
        raise ValueError("quoted local part is not closed")
    out: list[str] = []
    chars = iter(text[1:-1])
    for char in chars:
        if char == '"':
            raise ValueError("quoted local part has a bare quote inside")
        if char == "\\":
            char = next(chars, "")
        if not char or ord(char) < 32 or ord(char) == 127:
            raise ValueError("quoted local part has a control character")
        out.append(char)
    return "".join(out)


def path_or_null(text: str) -> ReversePath:
    """The inverse of `str(ReversePath)`: empty text is the null reverse-path."""
    return NULL_REVERSE_PATH if not text else ReversePath(parse_mailbox(text))
