"""The argument of XCLIENT (Postfix's XCLIENT_README): who the client in front of a proxy of ours is.

LOGIN and the DEST attributes are not offered: a sign-in is never taken on somebody else's word.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.core.address import unmapped

_HEX = re.compile(r"\+([0-9A-Fa-f]{2})")
_UNKNOWN = ("[UNAVAILABLE]", "[TEMPUNAVAIL]")
_IGNORED = ("PROTO", "HELO")  # PROTO is told by the next EHLO, and so is HELO


class XclientError(ValueError):
    """The text is safe to show to the peer."""


@dataclass(frozen=True, slots=True)
class Client:
    """None where the proxy did not say."""

    ip: str | None = None
    port: int | None = None
    name: str | None = None


def parse_xclient(argument: str) -> Client:
    """`NAME=value ADDR=value …`, values in xtext. Raises XclientError."""
    found: dict[str, str | None] = {}
    for word in argument.split():
        key, equals, value = word.partition("=")
        key = key.upper()
        if not equals or key in found or key not in ("ADDR", "PORT", "NAME", *_IGNORED):
            raise XclientError("Syntax: XCLIENT with some of NAME, ADDR, PORT, PROTO, HELO, once each")
        text = _HEX.sub(lambda match: chr(int(match[1], 16)), value)
        if not text.isprintable() or not text.isascii():
            raise XclientError("XCLIENT value holds a control character")
        found[key] = None if text.upper() in _UNKNOWN else text
    if not found:
        raise XclientError("XCLIENT needs an attribute")
    return Client(_address(found.get("ADDR")), _port(found.get("PORT")), found.get("NAME"))


def _address(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        address = ip_address(text[5:] if text[:5].upper() == "IPV6:" else text)
    except ValueError:
        raise XclientError("ADDR is no IP address") from None
    if "%" in str(address):
        raise XclientError("ADDR has a zone")
    return str(unmapped(address))


def _port(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or len(text) > 5 or not 0 < int(text) < 65536:
        raise XclientError("PORT is no port")
    return int(text)
