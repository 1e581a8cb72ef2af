"""What is wrong with the records that a domain publishes, by our own resolver: MX, this host's names, SPF as others
will find it for us, DKIM keys. SPF and DMARC as texts are read in `published.texts`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.core.ports import DnsFailure, Records, Resolver
from gateway.published.records import Host, spf_record
from gateway.senderauth.keys import KeyRefused, parse_key
from gateway.senderauth.signing import SigningKey
from gateway.senderauth.spf import check_spf

ERROR, WARNING = "error", "warning"
_STRANGERS = ("203.0.113.1", "2001:db8::1")  # of documents: nobody's


@dataclass(frozen=True, slots=True)
class Finding:
    """about: "MX", "host", "SPF", "DKIM", "DMARC"; mend: what to do, or ""."""

    level: str
    about: str
    text: str
    mend: str = ""


async def inspect(domain: str, host: Host, keys: Sequence[SigningKey], resolver: Resolver) -> list[Finding]:
    """keys: those that sign for the domain."""
    addresses = await addresses_of(host.hostname, resolver)
    ours = tuple(dict.fromkeys([*host.addresses, *addresses]))
    parts = await asyncio.gather(
        _mx(domain, host, resolver),
        _names(host, addresses, ours, resolver),
        _spf(domain, host, ours, resolver),
        _keys(domain, keys, resolver),
    )
    return [finding for part in parts for finding in part]


async def _mx(domain: str, host: Host, resolver: Resolver) -> list[Finding]:
    answer = await resolver.lookup(domain, "MX")
    mend = f"{domain}. IN MX 10 {host.hostname}."
    if isinstance(answer, DnsFailure):
        return [_unasked("MX", domain, answer)]
    if not isinstance(answer, Records):
        return [Finding(ERROR, "MX", f"{domain} has no MX record", mend)]
    hosts = [name for _, name in sorted(each for each in answer.values if isinstance(each, tuple))]
    if hosts == [""]:
        return [Finding(ERROR, "MX", f"{domain} says that it takes no mail (a null MX)", mend)]
    found = [finding for name in hosts for finding in await _mail_host(name, resolver)]
    if host.hostname not in hosts:
        found.append(Finding(ERROR, "MX", f"{domain}: none of its mail hosts is {host.hostname}", mend))
    return found


async def _mail_host(name: str, resolver: Resolver) -> list[Finding]:
    try:
        ip_address(name)
        return [Finding(ERROR, "MX", f"{name} is an address, where a name is wanted")]
    except ValueError:
        pass
    alias = await resolver.lookup(name, "CNAME")
    if isinstance(alias, Records):
        text = f"{name} is an alias (CNAME), which no mail host may be (RFC 2181 10.3)"
        return [Finding(ERROR, "MX", text, f"name {alias.values[0]} in the MX record itself")]
    if not await addresses_of(name, resolver):
        return [Finding(ERROR, "MX", f"{name} has no address", f"{name}. IN A <its address>")]
    return []


async def _names(host: Host, addresses: Sequence[str], ours: Sequence[str], resolver: Resolver) -> list[Finding]:
    """This host's name and address have to lead to each other: many refuse mail from others."""
    if not addresses:
        return [Finding(ERROR, "host", f"{host.hostname} has no address", f"{host.hostname}. IN A <its address>")]
    found = [
        Finding(ERROR, "host", f"{address}, which mail is sent from, is no address of {host.hostname}")
        for address in ours
        if address not in addresses
    ]
    for address in ours:
        mend = f"have the provider of {address} set its reverse record to {host.hostname}"
        answer = await resolver.lookup(ip_address(address).reverse_pointer, "PTR")
        if isinstance(answer, DnsFailure):
            found.append(_unasked("host", f"the reverse record of {address}", answer))
        elif not isinstance(answer, Records):
            found.append(Finding(ERROR, "host", f"{address} has no reverse record (PTR)", mend))
        elif host.hostname not in (names := [str(each) for each in answer.values]):
            found.append(Finding(ERROR, "host", f"{address} is called {', '.join(names)} by its reverse record", mend))
    return found


async def _spf(domain: str, host: Host, ours: Sequence[str], resolver: Resolver) -> list[Finding]:
    """Does our own mail pass? A record that cannot be read is told of elsewhere."""
    found = []
    strangers = [await check_spf(each, "stranger.invalid", f"postmaster@{domain}", resolver) for each in _STRANGERS]
    if any(each.result == "pass" for each in strangers):
        mend = f'end it in "-all": {domain}. IN TXT "{spf_record(domain, host)}"'
        found.append(Finding(ERROR, "SPF", f"anybody may send as {domain}", mend))
    elif any(each.result == "neutral" for each in strangers):
        found.append(Finding(WARNING, "SPF", f"the record of {domain} says nothing of strangers", 'end it in "-all"'))
    for address in ours:
        result = await check_spf(address, host.hostname, f"postmaster@{domain}", resolver)
        if result.result in ("fail", "softfail", "neutral"):
            text = f"mail of {domain} from this host ({address}) gets {result.result}"
            found.append(Finding(ERROR, "SPF", text, f'{domain}. IN TXT "{spf_record(domain, host)}"'))
        bounce = await check_spf(address, host.hostname, "", resolver)
        if bounce.result != "pass":
            text = f"bounces from this host ({address}) get {bounce.result} for its own name"
            found.append(Finding(WARNING, "SPF", text, f'{host.hostname}. IN TXT "{spf_record(host.hostname, host)}"'))
    return found


async def _keys(domain: str, keys: Sequence[SigningKey], resolver: Resolver) -> list[Finding]:
    if not keys:
        return [Finding(WARNING, "DKIM", f"no key signs for {domain}", f"smarthost dkim rotate {domain}")]
    found = []
    for key in keys:
        trouble = await key_trouble(key, resolver)
        if trouble:
            found.append(Finding(ERROR, "DKIM", f"{key.name}: {trouble}", f'{key.name}. IN TXT "{key.record}"'))
    return found


async def key_trouble(key: SigningKey, resolver: Resolver) -> str:
    """What is wrong with a key's record in DNS, or "" where it is the key's."""
    answer = await resolver.lookup(key.name, "TXT")
    if isinstance(answer, DnsFailure):
        return f"DNS {answer.reason}"
    if not isinstance(answer, Records):
        return "no such record yet"
    wanted, flaw = parse_key(key.record.encode()).key, "another key is there"
    for record in answer.values:
        try:
            if isinstance(record, bytes) and (published := parse_key(record)).key == wanted:
                return "it says that it is a test (t=y): nobody counts its signatures" if published.is_testing else ""
        except KeyRefused as error:
            flaw = f"{error}"
    return flaw


async def addresses_of(name: str, resolver: Resolver) -> list[str]:
    answers = [await resolver.lookup(name, rdtype) for rdtype in ("A", "AAAA")]
    return [str(value) for answer in answers if isinstance(answer, Records) for value in answer.values]


def _unasked(about: str, what: str, failure: DnsFailure) -> Finding:
    return Finding(WARNING, about, f"{what} could not be asked for: DNS {failure.reason}")
