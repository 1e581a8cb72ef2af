"""The records that a domain of ours should have, as a zone file and as text for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from gateway.dns.zone import quoted
from gateway.senderauth.signing import SigningKey

_UNKNOWN = {"A": "<this host's IPv4 address>", "AAAA": "<this host's IPv6 address>"}


@dataclass(frozen=True, slots=True)
class Host:
    """This gateway as others see it. addresses: those that it is reached at and sends from, as far as they are known;
    route: the host that outbound mail goes through, or "".
    """

    hostname: str
    addresses: tuple[str, ...] = ()
    route: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """name: without the last dot; value: as a zone file has it; why: for people. is_complete: False, it holds something
    that only they can know.
    """

    name: str
    rdtype: str
    value: str
    why: str
    is_complete: bool = True

    @property
    def zone_line(self) -> str:
        """A comment where it is not complete."""
        line = f"{self.name}. IN {self.rdtype} {self.value}"
        return line if self.is_complete else f"; {line}"


def wanted_records(domain: str, host: Host, keys: Sequence[SigningKey]) -> list[Record]:
    """keys: all that sign for the domain, or will."""
    found = _of_host(host)
    found.append(Record(domain, "MX", f"10 {host.hostname}.", "where mail for it is brought"))
    found.append(Record(domain, "TXT", quoted(spf_record(domain, host)), f"who sends as it (SPF){_through(host)}"))
    if host.hostname != domain:
        text = quoted(spf_record(host.hostname, host))
        found.append(Record(host.hostname, "TXT", text, "who sends bounces as this host (SPF)"))
    found += map(key_record, keys)
    text = f"v=DMARC1; p=none; rua=mailto:postmaster@{domain}"
    why = "what others do with mail that fails both (DMARC); once reports show no mail of yours: quarantine or reject"
    return [*found, Record(f"_dmarc.{domain}", "TXT", quoted(text), why)]


def key_record(key: SigningKey) -> Record:
    return Record(key.name, "TXT", f"( {quoted(key.record)} )", f"key of its signatures (DKIM, {key.algorithm})")


def spf_record(name: str, host: Host) -> str:
    """Of a domain or of the host itself, which may be one and the same: a name has one such record."""
    ours = [f"ip{ip_address(address).version}:{address}" for address in host.addresses]
    return " ".join(["v=spf1", "a" if name == host.hostname else "mx", *ours, "-all"])


def _through(host: Host) -> str:
    return f"; outbound mail goes through {host.route}: put its include: in" if host.route else ""


def _of_host(host: Host) -> list[Record]:
    why = "this host; its reverse record (PTR), which your provider sets, must name it too"
    if not host.addresses:
        return [Record(host.hostname, kind, text, why, is_complete=False) for kind, text in _UNKNOWN.items()]
    found = []
    for address in host.addresses:
        parsed = ip_address(address)
        found.append(Record(host.hostname, "A" if parsed.version == 4 else "AAAA", address, why))
        found.append(
            Record(parsed.reverse_pointer, "PTR", f"{host.hostname}.", "its provider's zone", is_complete=False)
        )
    return found
