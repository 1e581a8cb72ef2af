"""SPF and DMARC records read by checkdmarc: syntax, look-ups, places of reports. It asks DNS by itself, and blocks.

Imported only by the commands that need it: checkdmarc takes half a second and 50 MB.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import dns.resolver
from checkdmarc.dmarc import check_dmarc
from checkdmarc.spf import check_spf

from gateway.dns.resolver import name_servers
from gateway.published.inspection import ERROR, WARNING, Finding

LOOKUP_S = 3.0


def inspect_texts(domain: str, servers: Sequence[str]) -> list[Finding]:
    """servers: `ip:port`; none: the system's."""
    logging.getLogger("checkdmarc").setLevel(logging.CRITICAL)  # what it finds it returns
    resolver = _resolver(servers)
    return [*_told("SPF", check_spf, domain, resolver), *_told("DMARC", check_dmarc, domain, resolver)]


def _told(about: str, check: Callable[..., Any], domain: str, resolver: dns.resolver.Resolver) -> list[Finding]:
    try:
        answer = check(domain, resolver=resolver, timeout=LOOKUP_S)
    except Exception as error:  # of records that it did not think of
        return [Finding(ERROR, about, f"the record cannot be read: {error}")]
    found = [] if answer["valid"] else [Finding(ERROR, about, str(answer["error"]))]
    return found + [Finding(WARNING, about, str(each)) for each in answer["warnings"]]


def _resolver(servers: Sequence[str]) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=not servers)
    if servers:
        resolver.nameservers = name_servers(servers)
    resolver.timeout = resolver.lifetime = LOOKUP_S
    return resolver
