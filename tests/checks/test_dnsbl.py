"""DNS lists (RFC 5782): whose answers count, and when a list is not believed."""

import asyncio
from dataclasses import replace

import pytest

from gateway.checks import zones
from gateway.checks.dnsbl import DnsLists
from gateway.checks.zones import HEALTHY_FOR_S, MAX_ANSWERS, SICK_FOR_S
from gateway.core.ports import Answer, NoDomain, Resolver
from gateway.demo.nameserver import NameServer
from gateway.policy.context import Context
from gateway.policy.values import UNKNOWN, Found
from tests.checks.asking import BORNE, NOT_BORNE, Logged, fetch, moved_by_hand, need_of, resolver_of
from tests.support.fakes import FakeClock, FakeResolver
from tests.support.policies import STRANGER, context

POINT, OFF_POINT = "2.0.0.127.bl.test", "1.0.0.127.bl.test"
CLIENT, CLIENT_NAME = context(STRANGER), "7.113.0.203.bl.test"
OTHER, OTHER_NAME = context(replace(STRANGER, client_ip="203.0.113.8")), "8.113.0.203.bl.test"
CLIENT6, CLIENT6_NAME = (
    context(replace(STRANGER, client_ip="2001:db8::7")),
    "7." + "0." * 23 + "8.b.d.0.1.0.0.2.bl.test",
)
ASK = 'dnsbl("bl.test")'
HEALTHY = f"{POINT} A 127.0.0.2"


class Lists:
    """The check, with what it told of its health and its log."""

    def __init__(self, resolver: Resolver, logged: Logged) -> None:
        self.told: list[tuple[str, bool]] = []
        self.check = DnsLists(resolver, lambda zone, is_up: self.told.append((zone, is_up)))
        self.logged = logged

    def ask(self, who: Context = CLIENT, text: str = ASK) -> Found:
        return fetch(self.check, text, who)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> Logged:
    """The room's log, with its clock moved by hand."""
    found = Logged()
    monkeypatch.setattr(zones, "_log", found)
    monkeypatch.setattr(zones, "time", moved_by_hand(clock))
    return found


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "who", "lines", "found"),
    [
        (ASK, CLIENT, [], ()),
        (ASK, CLIENT, [f"{CLIENT_NAME} EXISTS"], ()),
        (ASK, CLIENT, [f"{CLIENT_NAME} A 127.0.0.4"], ("127.0.0.4",)),
        (ASK, CLIENT, [f"{CLIENT_NAME} A 127.0.0.4", f"{CLIENT_NAME} A 127.0.0.2"], ("127.0.0.2", "127.0.0.4")),
        (ASK, OTHER, [f"{CLIENT_NAME} A 127.0.0.4"], ()),
        (ASK, CLIENT6, [f"{CLIENT6_NAME} A 127.0.0.3"], ("127.0.0.3",)),
        (ASK, CLIENT, [f"{CLIENT_NAME} A 127.1.2.3"], ("127.1.2.3",)),
        (ASK, CLIENT, [f"{CLIENT_NAME} A 127.255.254.255"], ("127.255.254.255",)),
        ('dnsbl("BL.Test")', CLIENT, [f"{CLIENT_NAME} A 127.0.0.4"], ("127.0.0.4",)),
        ('dnswl("bl.test")', CLIENT, [f"{CLIENT_NAME} A 127.0.10.3"], ("127.0.10.3",)),
    ],
)
def test_a_list_gives_its_answers_for_the_client(text: str, who: Context, lines: list[str], found: Found) -> None:
    assert fetch(DnsLists(FakeResolver(HEALTHY, *lines), lambda zone, is_up: None), text, who) == found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("127.0.0.2", ("127.0.0.2",)),
        ("127.0.0.3", ()),
        ("127.0.0.2-11", ("127.0.0.11", "127.0.0.2", "127.0.0.4")),
        ("127.0.0.3-4", ("127.0.0.4",)),
        ("127.0.0.5-10", ()),
        ("127.0.0.2,127.0.1.12", ("127.0.0.2", "127.0.1.12")),
        (" 127.0.0.9 , 127.0.1.0-255 ", ("127.0.1.12",)),
    ],
)
def test_only_wanted_answers_count(wanted: str, found: Found) -> None:
    answers = ("127.0.0.2", "127.0.0.4", "127.0.0.11", "127.0.1.12")
    resolver = FakeResolver(HEALTHY, *(f"{CLIENT_NAME} A {answer}" for answer in answers))
    check = DnsLists(resolver, lambda zone, is_up: None)
    assert fetch(check, f'dnsbl("bl.test", "{wanted}")', CLIENT) == found


def test_no_more_than_so_many_answers_are_taken() -> None:
    resolver = FakeResolver(HEALTHY, *(f"{CLIENT_NAME} A 127.0.1.{number}" for number in range(MAX_ANSWERS + 9)))
    found = fetch(DnsLists(resolver, lambda zone, is_up: None), ASK, CLIENT)
    assert isinstance(found, tuple)
    assert len(found) == MAX_ANSWERS


# --- health -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "does not list"),
        ([f"{POINT} EXISTS"], "does not list"),
        ([HEALTHY, f"{OFF_POINT} A 127.0.0.2"], "lists 1.0.0.127"),
        ([f"{POINT} A 127.255.255.254"], "refuses us"),
        ([f"{POINT} A 127.0.0.2", f"{POINT} A 127.255.255.252"], "refuses us"),
        ([HEALTHY, f"{OFF_POINT} A 127.255.255.255"], "refuses us"),
        ([f"{POINT} A 192.0.2.1"], "none of a list"),
        ([HEALTHY, f"{OFF_POINT} A 128.0.0.1"], "none of a list"),
        ([f"{POINT} FAILS"], "cannot be looked up"),
        ([HEALTHY, f"{OFF_POINT} FAILS"], "cannot be looked up"),
    ],
    ids=lambda value: ", ".join(value) or "nothing" if isinstance(value, list) else None,
)
def test_a_list_whose_test_points_are_wrong_is_not_asked_for_clients(
    logged: Logged, lines: list[str], reason: str
) -> None:
    resolver = FakeResolver(*lines, f"{CLIENT_NAME} A 127.0.0.2")
    lists = Lists(resolver, logged)
    assert [lists.ask(), lists.ask(), lists.ask(OTHER), lists.ask(CLIENT6)] == [UNKNOWN] * 4
    assert {name for name, _ in resolver.asked} <= {POINT, OFF_POINT}
    assert lists.told == [("bl.test", False)]
    (warning,) = logged.warnings
    assert warning["zone"] == "bl.test"
    assert reason in str(warning["reason"])


@pytest.mark.parametrize(
    "answers",
    [["127.255.255.254"], ["127.255.255.0"], ["127.255.255.255"], ["10.0.0.1"], ["203.0.113.1"],
     ["127.0.0.2", "127.255.255.252"], ["127.0.0.2", "192.0.2.1"]],
    ids=" ".join,
)  # fmt: skip
def test_a_list_that_begins_to_refuse_is_off_at_once(logged: Logged, answers: list[str]) -> None:
    resolver = FakeResolver(HEALTHY, f"{CLIENT_NAME} A 127.0.0.2")
    lists = Lists(resolver, logged)
    assert lists.ask() == ("127.0.0.2",)
    assert (lists.told, logged.lines) == ([("bl.test", True)], [])
    for answer in answers:
        resolver.add(f"{OTHER_NAME} A {answer}")
    assert lists.ask(OTHER) is UNKNOWN
    assert lists.ask() is UNKNOWN  # on whose word it had refused before
    assert lists.told == [("bl.test", True), ("bl.test", False)]
    assert len(logged.warnings) == 1


def test_a_refusal_is_none_of_the_wanted_answers_and_yet_is_seen(logged: Logged) -> None:
    lists = Lists(FakeResolver(HEALTHY, f"{CLIENT_NAME} A 127.255.255.254"), logged)
    assert lists.ask(text='dnsbl("bl.test", "127.0.0.2-11")') is UNKNOWN
    assert lists.told[-1] == ("bl.test", False)


def test_a_sick_list_is_looked_at_again_after_a_while_and_recovers(logged: Logged, clock: FakeClock) -> None:
    resolver = FakeResolver(f"{CLIENT_NAME} A 127.0.0.2")
    lists = Lists(resolver, logged)
    assert lists.ask() is UNKNOWN
    resolver.add(HEALTHY)
    looks = len(resolver.asked)
    clock.advance(SICK_FOR_S - 1)
    assert lists.ask() is UNKNOWN
    assert len(resolver.asked) == looks
    clock.advance(1)
    assert lists.ask() == ("127.0.0.2",)
    assert lists.told == [("bl.test", False), ("bl.test", True)]
    assert [(level, fields["zone"]) for level, _, fields in logged.lines] == [
        ("warning", "bl.test"),
        ("info", "bl.test"),
    ]


def test_a_list_that_stays_sick_is_complained_of_once(logged: Logged, clock: FakeClock) -> None:
    lists = Lists(FakeResolver(), logged)
    for _ in range(5):
        assert lists.ask() is UNKNOWN
        clock.advance(SICK_FOR_S)
    assert lists.told == [("bl.test", False)] * 5
    assert len(logged.warnings) == 1


def test_a_list_that_falls_sick_again_is_complained_of_again(logged: Logged, clock: FakeClock) -> None:
    resolver = FakeResolver(HEALTHY, f"{OTHER_NAME} A 127.255.255.254")
    lists = Lists(resolver, logged)
    for _ in range(3):
        assert lists.ask() == ()
        assert lists.ask(OTHER) is UNKNOWN
        clock.advance(SICK_FOR_S)
    assert [level for level, _, _ in logged.lines] == ["warning", "info", "warning", "info", "warning"]


def test_a_healthy_list_is_looked_at_again_after_a_while(logged: Logged, clock: FakeClock) -> None:
    resolver = FakeResolver(HEALTHY, f"{CLIENT_NAME} A 127.0.0.2")
    lists = Lists(resolver, logged)
    assert lists.ask() == ("127.0.0.2",)
    resolver.add(f"{OFF_POINT} A 127.0.0.2")  # it lists everybody from here on
    clock.advance(HEALTHY_FOR_S - 1)
    assert lists.ask() == ("127.0.0.2",)
    clock.advance(1)
    assert lists.ask() is UNKNOWN
    assert lists.told == [("bl.test", True), ("bl.test", False)]


def test_a_client_that_cannot_be_looked_up_is_unknown_and_the_list_stays_on(logged: Logged) -> None:
    lists = Lists(FakeResolver(HEALTHY, f"{CLIENT_NAME} FAILS", f"{OTHER_NAME} A 127.0.0.9"), logged)
    assert [lists.ask(), lists.ask(OTHER)] == [UNKNOWN, ("127.0.0.9",)]
    assert (lists.told, logged.lines) == ([("bl.test", True)], [])


def test_each_list_has_a_health_of_its_own(logged: Logged) -> None:
    resolver = FakeResolver(HEALTHY, f"{CLIENT_NAME} A 127.0.0.2", "7.113.0.203.dead.test A 127.0.0.2")
    lists = Lists(resolver, logged)
    assert lists.ask(text='dnsbl("dead.test")') is UNKNOWN
    assert lists.ask() == ("127.0.0.2",)
    assert lists.told == [("dead.test", False), ("bl.test", True)]


def test_a_zone_has_one_health_however_it_is_written_and_asked(logged: Logged) -> None:
    lists = Lists(FakeResolver(HEALTHY), logged)
    texts = (ASK, 'dnsbl("BL.test")', 'dnswl("bl.test")', 'dnsbl("bl.test", "127.0.0.4")')
    assert [lists.ask(text=text) for text in texts] == [()] * 4
    assert lists.told == [("bl.test", True)]


# --- a real name server -----------------------------------------------------------------------------------------------

RECORDS = (HEALTHY, f"{CLIENT_NAME} A 127.0.0.4", f"{CLIENT6_NAME} A 127.0.0.5", f"{OTHER_NAME} A 127.0.0.6")


async def asked_of(server: NameServer, logged: Logged, fault: str, *who: Context) -> tuple[list[Found], Lists]:
    lists = Lists(resolver_of(server, fault), logged)
    found = await asyncio.gather(*(lists.check.fetch(need_of(ASK), each) for each in who))
    return list(found), lists


@pytest.mark.parametrize("fault", ["", *BORNE])
@pytest.mark.parametrize("name", ["*", POINT, CLIENT_NAME])
def test_answers_are_right_whatever_delays_them(server: NameServer, logged: Logged, name: str, fault: str) -> None:
    server.add(*RECORDS)
    server.fault(name, fault or None)
    found, lists = asyncio.run(asked_of(server, logged, fault, CLIENT, CLIENT6, OTHER))
    assert found == [("127.0.0.4",), ("127.0.0.5",), ("127.0.0.6",)]
    assert set(lists.told) == {("bl.test", True)}


@pytest.mark.parametrize("fault", NOT_BORNE)
def test_only_what_cannot_be_looked_up_is_unknown(server: NameServer, logged: Logged, fault: str) -> None:
    server.add(*RECORDS)
    server.fault(CLIENT_NAME, fault)
    found, lists = asyncio.run(asked_of(server, logged, fault, CLIENT, CLIENT6, OTHER))
    assert found == [UNKNOWN, ("127.0.0.5",), ("127.0.0.6",)]
    assert set(lists.told) == {("bl.test", True)}


@pytest.mark.parametrize("fault", NOT_BORNE)
@pytest.mark.parametrize("name", [POINT, OFF_POINT])
def test_a_list_whose_test_points_cannot_be_looked_up_is_off(
    server: NameServer, logged: Logged, name: str, fault: str
) -> None:
    server.add(*RECORDS)
    server.fault(name, fault)
    found, lists = asyncio.run(asked_of(server, logged, fault, CLIENT, CLIENT6, OTHER))
    assert found == [UNKNOWN] * 3
    assert set(lists.told) == {("bl.test", False)}
    assert [warning["reason"] for warning in logged.warnings] == ["its test points cannot be looked up"]


@pytest.mark.parametrize("is_refusing", [False, True])
def test_many_at_once_look_at_the_test_points_once(server: NameServer, logged: Logged, is_refusing: bool) -> None:
    server.add(*(["*.bl.test A 127.255.255.254"] if is_refusing else RECORDS))
    server.fault("*", "delay:0.05")
    clients = [context(replace(STRANGER, client_ip=f"198.51.100.{number}")) for number in range(49)]
    found, lists = asyncio.run(asked_of(server, logged, "", CLIENT, *clients))
    assert found == ([UNKNOWN] * 50 if is_refusing else [("127.0.0.4",), *[()] * 49])
    assert server.count(POINT) == 1
    assert server.count(OFF_POINT) == 1
    assert set(lists.told) == {("bl.test", not is_refusing)}
    assert len(logged.warnings) == is_refusing


def test_many_at_once_who_meet_the_first_refusal_are_all_unknown_and_it_is_told_once(
    server: NameServer, logged: Logged
) -> None:
    """The test points are right for once, the clients' names are not."""
    server.add(HEALTHY, *(f"{number}.100.51.198.bl.test A 127.255.255.254" for number in range(50)))
    clients = [context(replace(STRANGER, client_ip=f"198.51.100.{number}")) for number in range(50)]
    found, lists = asyncio.run(asked_of(server, logged, "", *clients))
    assert found == [UNKNOWN] * 50
    assert lists.told[-1] == ("bl.test", False)
    assert len(logged.warnings) == 1


def test_a_list_that_never_answers_goes_off(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        async def lookup(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(60)
            return NoDomain()

    monkeypatch.setattr(zones, "LOOK_S", 0.05)
    told: list[tuple[str, bool]] = []
    lists = DnsLists(Silent(), lambda zone, is_up: told.append((zone, is_up)))
    assert [asyncio.run(lists.fetch(need_of(ASK), context())) for _ in range(2)] == [UNKNOWN, UNKNOWN]
    assert told == [("bl.test", False)]
