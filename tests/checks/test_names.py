"""Facts of names in DNS: reverse names confirmed forward (RFC 8601 2.7.3), HELO's name, the sender's domain."""

import asyncio
import time
from dataclasses import replace

import pytest

from gateway.checks.names import MAX_NAMES, Names, ReverseDns
from gateway.demo.nameserver import NameServer
from gateway.policy.values import UNKNOWN, Found
from tests.checks.asking import BORNE, NOT_BORNE, fetch, need_of, resolver_of
from tests.support.fakes import FakeResolver
from tests.support.policies import STRANGER, context

IP, IP6 = "203.0.113.7", "2001:db8::7"
PTR = "7.113.0.203.in-addr.arpa"
PTR6 = "7." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
REVERSE = ("client.ptr", "client.name", "client.reverse_dns")
CLIENT6 = context(replace(STRANGER, client_ip=IP6))


def reverse_facts(resolver: FakeResolver, ip: str = IP, told: str | None = None) -> tuple[Found, ...]:
    where = context(replace(STRANGER, client_ip=ip, client_name=told))
    return tuple(fetch(ReverseDns(resolver), fact, where) for fact in REVERSE)


# --- the client's reverse name ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([f"{PTR} PTR a.test.", f"a.test A {IP}"], ("a.test", "a.test", "pass")),
        ([f"{PTR} PTR A.Test.", f"a.test A {IP}"], ("a.test", "a.test", "pass")),
        ([f"{PTR} PTR a.test.", "a.test A 192.0.2.1", f"a.test A {IP}"], ("a.test", "a.test", "pass")),
        ([f"{PTR} PTR a.test.", "a.test A 192.0.2.1"], ("a.test", None, "fail")),
        ([f"{PTR} PTR a.test.", f"a.test AAAA ::ffff:{IP}"], ("a.test", None, "fail")),
        ([f"{PTR} PTR a.test."], ("a.test", None, "fail")),
        ([], (None, None, "none")),
        ([f"{PTR} EXISTS"], (None, None, "none")),
        ([f"{PTR} FAILS PTR"], (UNKNOWN, UNKNOWN, UNKNOWN)),
        ([f"{PTR} PTR a.test.", "a.test FAILS A"], ("a.test", UNKNOWN, UNKNOWN)),
    ],
    ids=[
        "pass", "any case", "one of many addresses", "elsewhere", "IPv6 only", "no such name", "none", "no data",
        "failure", "forward failure",
    ],
)  # fmt: skip
def test_a_reverse_name_counts_when_it_leads_back(lines: list[str], found: tuple[Found, ...]) -> None:
    assert reverse_facts(FakeResolver(*lines)) == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["a.test A 192.0.2.1", f"b.test A {IP}"], ("a.test", "b.test", "pass")),
        (["a.test FAILS A", f"b.test A {IP}"], ("a.test", "b.test", "pass")),
        (["a.test FAILS A", "b.test A 192.0.2.1"], ("a.test", UNKNOWN, UNKNOWN)),
        (["a.test A 192.0.2.1", "b.test FAILS A"], ("a.test", UNKNOWN, UNKNOWN)),
        (["a.test A 192.0.2.1"], ("a.test", None, "fail")),
        ([f"a.test A {IP}", f"b.test A {IP}"], ("a.test", "a.test", "pass")),
    ],
    ids=["second", "second behind a failure", "failure and no", "no and failure", "none of them", "both"],
)
def test_the_first_of_several_names_that_leads_back_counts(lines: list[str], found: tuple[Found, ...]) -> None:
    assert reverse_facts(FakeResolver(f"{PTR} PTR a.test.", f"{PTR} PTR b.test.", *lines)) == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([f"{PTR6} PTR a.test.", "a.test AAAA 2001:0DB8:0::0007"], ("a.test", "a.test", "pass")),
        ([f"{PTR6} PTR a.test.", "a.test AAAA 2001:db8::8"], ("a.test", None, "fail")),
        ([f"{PTR6} PTR a.test.", f"a.test A {IP}"], ("a.test", None, "fail")),
        ([f"{PTR6} PTR a.test.", "a.test FAILS AAAA"], ("a.test", UNKNOWN, UNKNOWN)),
        ([f"{PTR6} PTR a.test.", "a.test FAILS A"], ("a.test", None, "fail")),
        ([], (None, None, "none")),
    ],
)
def test_an_ipv6_client_has_a_reverse_name_by_nibbles(lines: list[str], found: tuple[Found, ...]) -> None:
    assert reverse_facts(FakeResolver(*lines), IP6) == found


@pytest.mark.parametrize(("right", "found"), [(MAX_NAMES, "pass"), (MAX_NAMES + 1, "fail")])
def test_no_more_than_so_many_names_are_looked_at(right: int, found: str) -> None:
    lines = [f"{PTR} PTR n{number}.test." for number in range(1, MAX_NAMES + 6)]
    resolver = FakeResolver(*lines, f"n{right}.test A {IP}")
    assert fetch(ReverseDns(resolver), "client.reverse_dns", context(STRANGER)) == found
    assert [name for name, rdtype in resolver.asked if rdtype == "A"] == [f"n{n}.test" for n in range(1, MAX_NAMES + 1)]


def test_a_name_told_by_a_proxy_is_not_looked_up() -> None:
    resolver = FakeResolver(f"{PTR} PTR a.test.")
    assert reverse_facts(resolver, told="told.test") == ("told.test", "told.test", "pass")
    assert resolver.asked == []


# --- HELO's name ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("helo", "lines", "found"),
    [
        ("mx.a.test", ["mx.a.test A 192.0.2.1"], True),
        ("MX.A.test", ["mx.a.test A 192.0.2.1"], True),
        ("mx.a.test", ["mx.a.test AAAA 2001:db8::1"], True),
        ("mx.a.test", [], False),
        ("mx.a.test", ["mx.a.test MX 10 b.test"], True),
        ("mx.a.test", ["mx.a.test FAILS A"], UNKNOWN),
        ("mx.a.test", ["mx.a.test FAILS AAAA"], UNKNOWN),
        ("mx.a.test", ["mx.a.test FAILS A", "mx.a.test AAAA 2001:db8::1"], True),
        ("mx.a.test", ["mx.a.test FAILS AAAA", "mx.a.test A 192.0.2.1"], True),
        ("bücher.test", ["xn--bcher-kva.test A 192.0.2.1"], True),
    ],
)
def test_helo_resolves_when_its_name_has_an_address(helo: str, lines: list[str], found: Found) -> None:
    assert fetch(Names(FakeResolver(*lines)), "helo.resolves", context(replace(STRANGER, helo=helo))) == found


@pytest.mark.parametrize(
    ("helo", "found"), [("[192.0.2.1]", True), ("[IPv6:2001:db8::1]", True), ("[192.0.2.999]", False), ("a..b", False)]
)
def test_a_literal_or_broken_helo_is_not_looked_up(helo: str, found: bool) -> None:
    resolver = FakeResolver()
    assert fetch(Names(resolver), "helo.resolves", context(replace(STRANGER, helo=helo))) is found
    assert resolver.asked == []


# --- the sender's domain ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["a.test MX 10 mx.a.test"], True),
        (["a.test MX 0 ."], False),
        (["a.test MX 0 .", "a.test A 192.0.2.1"], False),
        (["a.test MX 0 .", "a.test MX 10 mx.a.test"], True),
        (["a.test A 192.0.2.1"], True),
        (["a.test AAAA 2001:db8::1"], True),
        ([], False),
        (["a.test TXT nothing"], False),
        (["a.test FAILS MX"], UNKNOWN),
        (["a.test FAILS MX", "a.test A 192.0.2.1"], UNKNOWN),
        (["a.test FAILS A"], UNKNOWN),
        (["a.test FAILS AAAA"], UNKNOWN),
        (["a.test FAILS A", "a.test AAAA 2001:db8::1"], True),
        (["a.test FAILS A", "a.test MX 10 mx.a.test"], True),
        (["a.test FAILS"], UNKNOWN),
    ],
    ids=lambda value: ", ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_a_sender_domain_exists_when_it_takes_mail(lines: list[str], found: Found) -> None:
    where = context(STRANGER, sender="bob@A.test")
    assert fetch(Names(FakeResolver(*lines)), "sender.domain_exists", where) == found


@pytest.mark.parametrize("sender", ["", "bob@[192.0.2.1]", "bob@[IPv6:2001:db8::1]"])
def test_a_sender_without_a_domain_of_names_is_not_looked_up(sender: str) -> None:
    resolver = FakeResolver()
    assert fetch(Names(resolver), "sender.domain_exists", context(STRANGER, sender=sender)) is True
    assert resolver.asked == []


# --- a real name server, in order and in trouble ----------------------------------------------------------------------

RECORDS = (
    f"{PTR} PTR mx.a.test.", f"mx.a.test A {IP}",
    f"{PTR6} PTR mx6.a.test.", f"mx6.a.test AAAA {IP6}",
    "mail.test MX 10 mx.a.test.", "plain.test A 192.0.2.1", "null.test MX 0 .",
)  # fmt: skip
GREETS = context(replace(STRANGER, helo="plain.test"))
# Each fact, where it is asked, its value, and each look-up that it hangs on.
HANGS_ON = [
    ("client.ptr", context(STRANGER), "mx.a.test", (PTR, "PTR")),
    ("client.name", context(STRANGER), "mx.a.test", (PTR, "PTR")),
    ("client.name", context(STRANGER), "mx.a.test", ("mx.a.test", "A")),
    ("client.reverse_dns", context(STRANGER), "pass", (PTR, "PTR")),
    ("client.reverse_dns", context(STRANGER), "pass", ("mx.a.test", "A")),
    ("client.name", CLIENT6, "mx6.a.test", (PTR6, "PTR")),
    ("client.reverse_dns", CLIENT6, "pass", ("mx6.a.test", "AAAA")),
    ("helo.resolves", GREETS, True, ("plain.test", "A")),
    ("sender.domain_exists", context(STRANGER, sender="x@mail.test"), True, ("mail.test", "MX")),
    ("sender.domain_exists", context(STRANGER, sender="x@plain.test"), True, ("plain.test", "MX")),
    ("sender.domain_exists", context(STRANGER, sender="x@plain.test"), True, ("plain.test", "A")),
    ("sender.domain_exists", context(STRANGER, sender="x@null.test"), False, ("null.test", "MX")),
]  # fmt: skip


async def all_facts(server: NameServer, fault: str, hanging: list[tuple[object, ...]]) -> list[Found]:
    """Asked side by side, since many look-ups end by their deadline only."""
    resolver = resolver_of(server, fault)
    checks = {"reverse_dns": ReverseDns(resolver), "names": Names(resolver)}
    needs = [(need_of(str(fact)), where) for fact, where, _, _ in hanging]
    return list(await asyncio.gather(*(checks[need.provider].fetch(need, where) for need, where in needs)))  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["", *BORNE])
def test_each_fact_is_right_whatever_delays_its_look_ups(server: NameServer, fault: str) -> None:
    server.add(*RECORDS)
    for _, _, _, (name, rdtype) in HANGS_ON:
        server.fault(name, fault or None, rdtype=rdtype)
    assert asyncio.run(all_facts(server, fault, list(HANGS_ON))) == [right for _, _, right, _ in HANGS_ON]
    assert {via for _, _, via in server.queries} == ({"udp", "tcp"} if fault == "truncate" else {"udp"})


@pytest.mark.parametrize("fault", NOT_BORNE)
def test_each_fact_is_unknown_when_a_look_up_that_it_hangs_on_fails(server: NameServer, fault: str) -> None:
    server.add(*RECORDS)
    # One look-up fails at a time: those of like names go into rounds of their own.
    for place in sorted({place for _, _, _, place in HANGS_ON}):
        server.fault(place[0], fault, rdtype=place[1])
        hanging = [case for case in HANGS_ON if case[3] == place]
        started = time.monotonic()
        assert asyncio.run(all_facts(server, fault, list(hanging))) == [UNKNOWN] * len(hanging), place
        assert time.monotonic() - started < 2.0
        server.fault(place[0], None, rdtype=place[1])


def test_one_address_family_in_trouble_does_not_hide_the_other(server: NameServer) -> None:
    server.add(*RECORDS, "six.test AAAA 2001:db8::1")
    cases = [("plain.test", "AAAA"), ("six.test", "A")]
    for name, rdtype in cases:
        server.fault(name, "servfail", rdtype=rdtype)
    hanging = [("sender.domain_exists", context(STRANGER, sender=f"x@{name}"), True, ("", "")) for name, _ in cases]
    assert asyncio.run(all_facts(server, "", list(hanging))) == [True, True]
    assert all(server.count(name, rdtype) for name, rdtype in cases)
