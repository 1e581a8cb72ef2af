"""uribl(…): which domains of a message are asked for, whose answers count, and when a list is not believed."""

import asyncio

import pytest

from gateway.checks import zones
from gateway.checks.dnsbl import DOMAIN_POINTS, MAX_DOMAINS, UriLists
from gateway.checks.links import Links
from gateway.checks.zones import SICK_FOR_S
from gateway.core.ports import Resolver
from gateway.demo.nameserver import NameServer
from gateway.message.blob import INLINE_LIMIT
from gateway.policy.catalogue import FACTS
from gateway.policy.context import Context
from gateway.policy.listanswers import check_list
from gateway.policy.values import PENDING, UNKNOWN, Found
from tests.checks.asking import Logged, fetch, moved_by_hand, need_of, resolver_of
from tests.support.fakes import FakeClock, FakeResolver
from tests.support.policies import context

ASK = 'uribl("uri.test")'
HEALTHY = "test.uri.test A 127.0.0.2"
POINTS = {f"{name}.uri.test" for name in (*DOMAIN_POINTS.listed, *DOMAIN_POINTS.free)}
LISTED = "evil.example.uri.test A 127.0.1.2"


def mail(*urls: str, more: bytes = b"") -> Context:
    return context(message=b"Subject: x\r\n\r\n" + "\r\n".join(urls).encode() + b"\r\n" + more)


EVIL, GOOD = mail("http://evil.example/"), mail("http://good.example/")


class Lists:
    """The check, with what it told of its health."""

    def __init__(self, resolver: Resolver) -> None:
        self.told: list[tuple[str, bool]] = []
        self.check = UriLists(resolver, Links(), lambda zone, is_up: self.told.append((zone, is_up)))

    def ask(self, who: Context, text: str = ASK) -> Found:
        return fetch(self.check, text, who)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Logged:
    """The room's log, with its clock moved by hand."""
    found = Logged()
    monkeypatch.setattr(zones, "_log", found)
    monkeypatch.setattr(zones, "time", moved_by_hand(clock))
    return found


def asked_names(resolver: FakeResolver) -> list[str]:
    """The names below the zone that were looked up, without the test points."""
    return [name for name, _ in resolver.asked if name not in POINTS]


# --- domains and answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("urls", "domains"),
    [
        ([], []),
        (["http://evil.example/x"], ["evil.example"]),
        (["http://a.b.evil.example/x", "http://evil.example", "www.EVIL.example."], ["evil.example"]),
        (["http://a.evil.co.uk/", "http://b.evil.co.uk"], ["evil.co.uk"]),
        (["http://co.uk/"], ["co.uk"]),
        (["http://alice.github.io/", "http://bob.github.io/"], ["alice.github.io", "bob.github.io"]),
        (["http://a.b.unheard-of/"], ["b.unheard-of"]),
        (["http://good.example@evil.example/"], ["evil.example"]),
        (["http://a.bücher.example/"], ["xn--bcher-kva.example"]),
        (["http://192.0.2.1/", "http://[2001:db8::1]/", "http://localhost/"], []),
        (["http://b.example", "http://a.example", "http://b.example"], ["b.example", "a.example"]),
    ],
)
def test_each_registered_domain_is_asked_for_once(urls: list[str], domains: list[str]) -> None:
    resolver = FakeResolver(HEALTHY)
    assert Lists(resolver).ask(mail(*urls)) == ()
    assert asked_names(resolver) == [f"{domain}.uri.test" for domain in domains]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ASK, ("127.0.1.2", "127.0.1.4", "127.0.1.5")),
        ('uribl("URI.Test")', ("127.0.1.2", "127.0.1.4", "127.0.1.5")),
        ('uribl("uri.test", "127.0.1.4-5")', ("127.0.1.4", "127.0.1.5")),
        ('uribl("uri.test", "127.0.1.2,127.0.1.9")', ("127.0.1.2",)),
        ('uribl("uri.test", "127.0.0.2")', ()),
    ],
)
def test_the_answers_for_all_domains_are_one_list(text: str, found: Found) -> None:
    records = (LISTED, "evil.example.uri.test A 127.0.1.4", "worse.example.uri.test A 127.0.1.5")
    resolver = FakeResolver(HEALTHY, *records, "worse.example.uri.test A 127.0.1.2")
    message = mail("http://evil.example/", "http://good.example/", "http://worse.example/")
    assert Lists(resolver).ask(message, text) == found


def test_no_more_than_so_many_domains_are_asked_for() -> None:
    resolver = FakeResolver(HEALTHY, "h19.example.uri.test A 127.0.1.2", "h20.example.uri.test A 127.0.1.9")
    message = mail(*(f"http://h{number}.example/" for number in range(MAX_DOMAINS + 9)))
    assert Lists(resolver).ask(message) == ("127.0.1.2",)
    assert len(asked_names(resolver)) == MAX_DOMAINS


def test_a_message_without_links_asks_nobody_and_an_empty_context_neither() -> None:
    resolver = FakeResolver(HEALTHY)
    lists = Lists(resolver)
    assert [lists.ask(mail()), lists.ask(context())] == [(), ()]
    assert asked_names(resolver) == []


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([LISTED, "good.example.uri.test FAILS"], ("127.0.1.2",)),
        (["evil.example.uri.test FAILS", "good.example.uri.test FAILS"], UNKNOWN),
        (["good.example.uri.test FAILS"], UNKNOWN),
        ([LISTED, "good.example.uri.test A 192.0.2.1"], ("127.0.1.2",)),
    ],
)
def test_one_answer_is_enough_and_none_is_unknown_where_a_look_up_fails(lines: list[str], found: Found) -> None:
    message = mail("http://evil.example/", "http://good.example/")
    assert Lists(FakeResolver(HEALTHY, *lines)).ask(message) == found


@pytest.mark.parametrize(("zone", "answers"), [("uri", None), ("[192.0.2.1]", None), ("uri.test", "127.0.0")])
def test_what_is_no_list_is_refused_at_load(zone: str, answers: str | None) -> None:
    with pytest.raises(ValueError):
        check_list(zone, answers)


# --- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "is_up"),
    [
        (["test.uri.test A 127.0.0.2"], True),
        (["2.0.0.127.uri.test A 127.0.0.2"], True),
        (["test.uri.test A 127.0.0.2", "2.0.0.127.uri.test A 127.0.0.2"], True),
        (["test.uri.test A 127.0.0.2", "2.0.0.127.uri.test FAILS"], True),
        ([], False),
        (["test.uri.test FAILS", "2.0.0.127.uri.test FAILS"], False),
        ([HEALTHY, "invalid.uri.test A 127.0.0.2"], False),
        ([HEALTHY, "1.0.0.127.uri.test A 127.0.0.2"], False),
        ([HEALTHY, "invalid.uri.test FAILS"], False),
        ([HEALTHY, "1.0.0.127.uri.test FAILS"], False),
        (["test.uri.test A 127.255.255.254"], False),
        ([HEALTHY, "2.0.0.127.uri.test A 127.255.255.254"], False),
        (["test.uri.test A 192.0.2.1"], False),
    ],
    ids=lambda value: ", ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_a_list_is_believed_when_its_test_points_are_right(logged: Logged, lines: list[str], is_up: bool) -> None:
    """RFC 5782 5: TEST is listed and INVALID is not; older lists have the addresses' points."""
    lists = Lists(FakeResolver(*lines, LISTED))
    assert [lists.ask(EVIL), lists.ask(GOOD)] == ([("127.0.1.2",), ()] if is_up else [UNKNOWN, UNKNOWN])
    assert lists.told == [("uri.test", is_up)]
    assert len(logged.warnings) == (not is_up)


def test_a_list_that_begins_to_refuse_is_off_and_comes_back(logged: Logged, clock: FakeClock) -> None:
    resolver = FakeResolver(HEALTHY, LISTED, "good.example.uri.test A 127.255.255.255")
    lists = Lists(resolver)
    assert lists.ask(EVIL) == ("127.0.1.2",)
    assert [lists.ask(GOOD), lists.ask(EVIL)] == [UNKNOWN, UNKNOWN]
    clock.advance(SICK_FOR_S)
    assert lists.ask(EVIL) == ("127.0.1.2",)
    assert [is_up for _, is_up in lists.told] == [True, False, True]


def test_a_message_of_twenty_domains_looks_at_the_test_points_once(server: NameServer) -> None:
    server.add(HEALTHY, "h7.example.uri.test A 127.0.1.2")
    message = mail(*(f"http://h{number}.example/" for number in range(20)))

    async def ask() -> list[Found]:
        lists = Lists(resolver_of(server))
        return list(await asyncio.gather(*(lists.check.fetch(need_of(ASK), message) for _ in range(3))))

    assert asyncio.run(ask()) == [("127.0.1.2",)] * 3
    assert {server.count(point) for point in POINTS} == {1}
    assert server.count("h7.example.uri.test") == 1


@pytest.mark.parametrize("fault", ["drop", "servfail", "tcp_close"])
def test_a_domain_that_cannot_be_looked_up_leaves_the_list_on(server: NameServer, logged: Logged, fault: str) -> None:
    server.add(HEALTHY, LISTED)
    server.fault("good.example.uri.test", fault)

    async def ask() -> tuple[list[Found], list[tuple[str, bool]]]:
        lists = Lists(resolver_of(server, "drop"))
        both = mail("http://good.example/", "http://evil.example/")
        return [await lists.check.fetch(need_of(ASK), one) for one in (GOOD, both, EVIL)], lists.told

    found, told = asyncio.run(ask())
    assert found == [UNKNOWN, ("127.0.1.2",), ("127.0.1.2",)]
    assert told == [("uri.test", True)]
    assert logged.warnings == []


# --- message.urls -----------------------------------------------------------------------------------------------------


def test_a_large_message_is_looked_through_away_from_the_loop_and_once() -> None:
    read = FACTS["message.urls"].read
    assert read is not None
    large = mail("http://evil.example/", more=b"x" * 70 * 14 * 70)
    assert large.message is not None
    assert large.message.size > INLINE_LIMIT
    assert read(large) is PENDING
    assert fetch(Links(), "message.urls", large) == ("http://evil.example/",)
    assert read(large) == ("http://evil.example/",)
    assert large.message.urls is fetch(Links(), "message.urls", large)


def test_a_small_message_is_looked_through_at_once() -> None:
    read = FACTS["message.urls"].read
    assert read is not None
    assert read(EVIL) == ("http://evil.example/",)
    assert read(context()) == ()
