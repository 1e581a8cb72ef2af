"""The resolver against a real name server on loopback: values, cache, single flight, faults, TTL bounds."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest
from dns.nameserver import Do53Nameserver

from gateway.core.ports import Answer, DnsFailure, NoData, NoDomain, Records
from gateway.demo.nameserver import NameServer
from gateway.dns.budget import OVER_BUDGET, lookup_budget
from gateway.dns.resolver import DnsResolver, ResolverSettings

T = TypeVar("T")
RECORDS = (
    "x.test MX 20 B.x.test.",
    "x.test MX 10 a.x.test.",
    "a.x.test A 192.0.2.1",
    "a.x.test AAAA 2001:db8::1",
    "null.test MX 0 .",
    'x.test TXT "one" "two"',
    "www.x.test CNAME a.x.test.",
    "1.2.0.192.in-addr.arpa PTR A.x.test.",
    "loop.test CNAME loop.test.",
    "short.test 1 A 192.0.2.2",
    "long.test 999999 A 192.0.2.3",
    "outer.test 30 CNAME long.test.",
    "quiet.test 600 SOA ns. h. 1 2 3 4 120",
)


@pytest.fixture(scope="module")
def running() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


@pytest.fixture
def server(running: NameServer) -> NameServer:
    running.clear()
    running.add(*RECORDS)
    return running


class Asked:
    """A resolver of the server, and what went out."""

    def __init__(self, server: NameServer, lifetime_s: float = 4.0) -> None:
        self.out: list[tuple[str, str]] = []
        settings = ResolverSettings((server.address,), lifetime_s, lifetime_s / 2)
        self.resolver = DnsResolver(settings, lambda rdtype, result, _: self.out.append((rdtype, result)))

    def ttl(self, name: str, rdtype: str) -> float:
        return self.resolver._cache[name, rdtype][0] - time.monotonic()


def run(server: NameServer, story: Callable[[Asked], Awaitable[T]], lifetime_s: float = 4.0) -> T:
    async def begin() -> T:
        return await story(Asked(server, lifetime_s))

    return asyncio.run(begin())


@pytest.mark.parametrize(
    ("name", "rdtype", "answer"),
    [
        ("x.test", "MX", {(10, "a.x.test"), (20, "b.x.test")}),
        ("A.X.test", "A", {"192.0.2.1"}),
        ("a.x.test", "AAAA", {"2001:db8::1"}),
        ("null.test", "MX", {(0, "")}),
        ("x.test", "TXT", {b"onetwo"}),
        ("www.x.test", "A", {"192.0.2.1"}),
        ("www.x.test", "CNAME", {"a.x.test"}),
        ("1.2.0.192.in-addr.arpa", "PTR", {"a.x.test"}),
        ("x.test", "A", NoData()),
        ("www.x.test", "MX", NoData()),
        ("nobody.test", "MX", NoDomain()),
        ("a..b", "A", NoDomain()),  # there can be no such names
        ("x" * 64 + ".test", "A", NoDomain()),
        (".".join(["x" * 60] * 5), "A", NoDomain()),
    ],
)
def test_answers_are_values(server: NameServer, name: str, rdtype: str, answer: object) -> None:
    found = run(server, lambda asked: asked.resolver.lookup(name, rdtype))
    if isinstance(found, Records):
        assert set(found.values) == answer
    else:
        assert found == answer or (isinstance(answer, type) and isinstance(found, answer))


@pytest.mark.parametrize(("name", "is_authenticated"), [("x.test", True), ("short.test", False)])
def test_the_word_of_a_validating_resolver_on_loopback_is_believed(
    server: NameServer, name: str, is_authenticated: bool
) -> None:
    server.fault("x.test", "authentic")
    answer = run(server, lambda asked: asked.resolver.lookup(name, "MX" if is_authenticated else "A"))
    assert isinstance(answer, Records)
    assert answer.is_authenticated is is_authenticated


@pytest.mark.parametrize("is_validating", [True, False])
def test_of_others_only_if_they_are_said_to_be(server: NameServer, is_validating: bool) -> None:
    """AD from a server across a network may be anybody's."""
    server.fault("x.test", "authentic")

    async def ask() -> Answer:
        resolver = DnsResolver(ResolverSettings(("203.0.113.1:53",), validating=is_validating), lambda *_: None)
        host, _, port = server.address.rpartition(":")
        resolver._resolver.nameservers = [Do53Nameserver(host, int(port))]
        return await resolver.lookup("x.test", "MX")

    answer = asyncio.run(ask())
    assert isinstance(answer, Records)
    assert answer.is_authenticated is is_validating


def test_a_message_has_so_many_look_ups(server: NameServer) -> None:
    """Over all tasks that work for it; what the cache has costs nothing, and another message has its own."""

    async def story(asked: Asked) -> None:
        names = [f"n{number}.test" for number in range(8)]
        with lookup_budget(5):
            found = await asyncio.gather(*(asked.resolver.lookup(name, "A") for name in names))
            assert found.count(NoDomain()) == 5
            assert found.count(OVER_BUDGET) == 3
            assert await asked.resolver.lookup(names[found.index(NoDomain())], "A") == NoDomain()
        with lookup_budget(3):
            assert NoDomain() in [await asked.resolver.lookup(name, "A") for name in names]
        assert [await asked.resolver.lookup(name, "A") for name in names] == [NoDomain()] * 8
        assert len(asked.out) == 8

    run(server, story)


def test_an_answer_is_asked_once_whatever_the_case(server: NameServer) -> None:
    async def story(asked: Asked) -> None:
        answers = [await asked.resolver.lookup(name, "A") for name in ("a.x.test", "A.x.test", "a.x.test")]
        assert answers == [Records(("192.0.2.1",))] * 3
        assert (
            await asked.resolver.lookup("nobody.test", "A")
            == await asked.resolver.lookup("nobody.test", "A")
            == NoDomain()
        )
        assert asked.out == [("A", "found"), ("A", "nxdomain")]

    run(server, story)
    assert server.count("a.x.test", "A") == server.count("nobody.test", "A") == 1


def test_many_who_ask_at_once_share_one_query(server: NameServer) -> None:
    server.fault("a.x.test", "delay:0.1")

    async def story(asked: Asked) -> list[Answer]:
        return await asyncio.gather(*(asked.resolver.lookup("a.x.test", "A") for _ in range(50)))

    assert run(server, story) == [Records(("192.0.2.1",))] * 50
    assert server.count("a.x.test", "A") == 1


def test_one_who_gives_up_does_not_take_the_answer_from_the_others(server: NameServer) -> None:
    server.fault("a.x.test", "delay:0.1")

    async def story(asked: Asked) -> Answer:
        first, second = (asyncio.create_task(asked.resolver.lookup("a.x.test", "A")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert run(server, story) == Records(("192.0.2.1",))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("drop", "timeout"),
        ("servfail", "no usable answer"),
        ("refused", "no usable answer"),
        ("garbage", None),
        ("lie", None),
        ("tcp_close", None),
    ],
)
def test_a_fault_is_a_failure_within_the_deadline_and_remembered_briefly(
    server: NameServer, fault: str, reason: str | None
) -> None:
    server.fault("a.x.test", fault)

    async def story(asked: Asked) -> None:
        started = time.monotonic()
        answer = await asked.resolver.lookup("a.x.test", "A")
        assert isinstance(answer, DnsFailure)
        assert reason is None or answer.reason == reason
        assert time.monotonic() - started < 2.0
        server.fault("a.x.test", None)
        assert await asked.resolver.lookup("a.x.test", "A") == answer
        assert 4 < asked.ttl("a.x.test", "A") <= 5
        assert asked.out == [("A", "failure")]

    run(server, story, 0.4)


def test_a_truncated_answer_is_asked_again_over_tcp(server: NameServer) -> None:
    server.fault("a.x.test", "truncate")
    assert run(server, lambda asked: asked.resolver.lookup("a.x.test", "A")) == Records(("192.0.2.1",))
    assert [via for name, _, via in server.queries if name == "a.x.test"] == ["udp", "tcp"]


def test_a_chain_that_never_ends_is_a_failure(server: NameServer) -> None:
    assert isinstance(run(server, lambda asked: asked.resolver.lookup("loop.test", "A")), DnsFailure)


@pytest.mark.parametrize(
    ("name", "rdtype", "least", "most"),
    [
        ("short.test", "A", 4, 5),
        ("a.x.test", "A", 55, 60),
        ("long.test", "A", 3595, 3600),
        ("nobody.test", "A", 4, 5),
        ("below.quiet.test", "A", 115, 120),
        ("quiet.test", "A", 115, 120),
        ("outer.test", "A", 25, 30),
    ],
)
def test_a_ttl_is_kept_within_its_bounds(server: NameServer, name: str, rdtype: str, least: float, most: float) -> None:
    async def story(asked: Asked) -> float:
        await asked.resolver.lookup(name, rdtype)
        return asked.ttl(name, rdtype)

    assert least < run(server, story) <= most
