"""Facts of names in DNS: the client's reverse name (RFC 8601 2.7.3, iprev), HELO's, the sender domain's."""

import asyncio
from ipaddress import ip_address

from gateway.core.address import parse_domain
from gateway.core.ports import DnsFailure, Records, Resolver
from gateway.policy.context import Context, Need
from gateway.policy.values import UNKNOWN, Found

MAX_NAMES = 10  # reverse names that are looked at; RFC 8601 2.7.3 leaves the bound to us


class ReverseDns:
    """client.ptr, client.name, client.reverse_dns."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def fetch(self, need: Need, context: Context) -> Found:
        told = context.session.client_name
        if told:  # by a proxy, which has looked
            return "pass" if need.name == "client.reverse_dns" else told
        answer = await self._resolver.lookup(ip_address(context.session.client_ip).reverse_pointer, "PTR")
        if isinstance(answer, DnsFailure):
            return UNKNOWN
        values = answer.values if isinstance(answer, Records) else ()
        names = [name for value in values if (name := str(value))]
        if need.name == "client.ptr":
            return names[0] if names else None
        return await self._confirmed(need, context.session.client_ip, names[:MAX_NAMES])

    async def _confirmed(self, need: Need, ip: str, names: list[str]) -> Found:
        """The first name that leads back to the address."""
        rdtype = "AAAA" if ":" in ip else "A"
        is_unknown = False
        for name in names:
            answer = await self._resolver.lookup(name, rdtype)
            if isinstance(answer, Records) and any(_same(str(value), ip) for value in answer.values):
                return "pass" if need.name == "client.reverse_dns" else name
            is_unknown = is_unknown or isinstance(answer, DnsFailure)
        if is_unknown:
            return UNKNOWN
        if need.name == "client.name":
            return None
        return "fail" if names else "none"


class Names:
    """helo.resolves: has it an address, or an MX? sender.domain_exists, recipient.domain_exists: does it take mail?"""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def fetch(self, need: Need, context: Context) -> Found:
        if need.name == "helo.resolves":
            try:
                domain = parse_domain(context.session.helo)
            except ValueError:
                return False
            return domain.is_literal or await self._resolves(domain.ascii)
        if need.name == "recipient.domain_exists":
            mailbox = context.recipient
        else:
            mailbox = context.reverse_path.mailbox if context.reverse_path is not None else None
        if mailbox is None or mailbox.domain.is_literal:
            return need.name != "sender.null_mx"
        if need.name == "sender.null_mx":
            return await self._has_null_mx(mailbox.domain.ascii)
        return await self._takes_mail(mailbox.domain.ascii)

    async def _resolves(self, name: str) -> Found:
        found = await self._has_address(name)
        if found is True:
            return True
        answer = await self._resolver.lookup(name, "MX")
        if isinstance(answer, Records):
            return True
        return UNKNOWN if found is UNKNOWN or isinstance(answer, DnsFailure) else False

    async def _has_null_mx(self, name: str) -> Found:
        answer = await self._resolver.lookup(name, "MX")
        if isinstance(answer, DnsFailure):
            return UNKNOWN
        return isinstance(answer, Records) and all(
            isinstance(value, tuple) and value[1] in ("", ".") for value in answer.values
        )

    async def _takes_mail(self, name: str) -> Found:
        answer = await self._resolver.lookup(name, "MX")
        if isinstance(answer, DnsFailure):
            return UNKNOWN
        if isinstance(answer, Records):
            return any(isinstance(value, tuple) and value[1] not in ("", ".") for value in answer.values)  # RFC 7505
        return await self._has_address(name)  # RFC 5321 5.1: without MX the name itself

    async def _has_address(self, name: str) -> Found:
        answers = await asyncio.gather(self._resolver.lookup(name, "A"), self._resolver.lookup(name, "AAAA"))
        if any(isinstance(answer, Records) for answer in answers):
            return True
        return UNKNOWN if any(isinstance(answer, DnsFailure) for answer in answers) else False


def _same(one: str, other: str) -> bool:
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return False
