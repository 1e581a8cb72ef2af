"""Who brought a message to another host, as that host's Received field has it (RFC 5321 4.4).

Each MTA writes it in its own way. The client's own words (HELO) stand there too and may look like an address, so only
the place counts where each of them puts what it saw itself.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise

from gateway.core.address import unmapped

MAX_VALUE = 16384  # letters that are looked at: some take a HELO as long as a line
MAX_HELO = 255
_ADDRESS = r"\[(?:IPv6:)?(?P<ip>[0-9A-Fa-f.:]{2,45})\]"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # Exim: from [192.0.2.1] (port=9 helo=client.example); from [192.0.2.1]
        rf"from {_ADDRESS}(?: \((?:[^()]* )?helo=(?P<helo>[^ ()]+)(?: [^()\[\]]*)?\)| by )",
        # Exim: from name ([192.0.2.1]:9 helo=client.example)
        rf"from (?P<name>\S+) \({_ADDRESS}(?::\d+)?(?: [^()]*?helo=(?P<helo>[^ ()]+)[^()]*| [^()]*)?\)",
        # Postfix, Sendmail, ours: from client.example (name [192.0.2.1]), (name [192.0.2.1] (may be forged)), (port 9)
        rf"from (?P<helo>\S+) \((?!HELO |EHLO )(?:[^ ()\[\]]+ )?{_ADDRESS}(?: \(may be forged\)|:\d+)?\)",
        # qmail: from unknown (HELO client.example) (192.0.2.1)
        r"from \S+ \((?:HELO|EHLO) (?P<helo>\S+)\) \((?:[^ ()]*@)?(?P<ip>[0-9A-Fa-f.:]{2,45})\)",
        # Exchange: from client.example (192.0.2.1) by
        r"from (?P<helo>\S+) \((?P<ip>[0-9A-Fa-f.:]{2,45})\)",
    )
)


@dataclass(frozen=True, slots=True)
class Brought:
    """ip: of the client; helo: what it called itself, or ""."""

    ip: str
    helo: str


def names_client(value: bytes) -> bool:
    """Does the field say that somebody brought the message from elsewhere? What a host made itself, or handed from one
    of its programs to another, has no `from`, or another protocol than SMTP.
    """
    words = value[:MAX_VALUE].lower().split()
    protocols = [after for word, after in pairwise(words) if word == b"with" and after != b"cipher"]
    is_smtp = any(b"smtp" in each or each == b"microsoft" for each in protocols)
    return words[:1] == [b"from"] and (is_smtp or not protocols)


def brought_by(value: bytes) -> Brought | None:
    """value: of a Received field. None: it does not say, or not in a way that is known."""
    text = " ".join(value[:MAX_VALUE].decode("ascii", "replace").split())
    for pattern in _PATTERNS:
        match = pattern.match(text)
        if match is None:
            continue
        found = match.groupdict()
        try:
            ip = str(unmapped(ip_address(found["ip"])))
        except ValueError:
            return None
        return Brought(ip, (found.get("helo") or found.get("name") or "")[:MAX_HELO])
    return None
