"""greylist.state: who is new, who waits, who has passed, and who is taken for whom."""

import asyncio
from dataclasses import replace

import pytest

from gateway.checks import greylist
from gateway.checks.greylist import RETRY_S, Greylist, GreylistSettings, Seen
from gateway.checks.senderauth import Spf
from gateway.core.address import parse_mailbox
from gateway.policy.context import Context
from tests.checks.asking import fetch, moved_by_hand
from tests.support.fakes import FakeClock, FakeResolver
from tests.support.policies import STRANGER, context

DELAY_S, KEEP_S = 300.0, 36 * 86400.0
HOUR, DAY = 3600.0, 86400.0


class FakeStore:
    """`GreylistStore` in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, Seen] = {}

    async def find(self, key: str) -> Seen | None:
        return self.rows.get(key)

    async def put(self, key: str, seen: Seen) -> None:
        self.rows[key] = seen


class Gate:
    """The greylist, with a clock moved by hand."""

    def __init__(self, clock: FakeClock) -> None:
        self.store = FakeStore()
        self.clock = clock
        self.list = Greylist(self.store, Spf(FakeResolver()), GreylistSettings(DELAY_S, KEEP_S))

    def state(self, where: Context) -> object:
        return fetch(self.list, "greylist.state", where)

    def comes(self, where: Context, after_s: float = 0.0) -> object:
        """What the rules saw when it came, so long after the last time."""
        self.clock.advance(after_s)
        state = self.state(where)
        asyncio.run(self.list.happened(where))
        return state


@pytest.fixture
def gate(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setattr(greylist, "time", moved_by_hand(clock))
    return Gate(clock)


def coming(ip: str = "203.0.113.7", sender: str = "bob@x.test") -> Context:
    return context(replace(STRANGER, client_ip=ip), sender=sender, recipient="alice@example.org")


@pytest.mark.parametrize(
    "visits",
    [
        [(0, "new"), (0, "waiting"), (DELAY_S - 1, "waiting"), (1, "passed"), (0, "passed")],
        [(0, "new"), (DELAY_S, "passed")],
        [(0, "new"), (100, "waiting"), (100, "waiting"), (100, "passed")],  # the delay counts from the first visit
        [(0, "new"), (RETRY_S - 1, "passed"), (HOUR, "passed")],
        [(0, "new"), (RETRY_S, "new"), (1, "waiting"), (DELAY_S, "passed")],
        [(0, "new"), (DAY, "passed"), (KEEP_S, "passed"), (KEEP_S, "passed"), (KEEP_S - 1, "passed")],
        [(0, "new"), (DAY, "passed"), (KEEP_S + 1, "new"), (1, "waiting"), (DELAY_S, "passed")],
        [(0, "new"), (1, "waiting"), (KEEP_S + 1, "new")],
    ],
    ids=["waits", "passes", "impatient", "patient", "too late", "regular", "forgotten", "never came back"],
)
def test_who_comes_again_after_the_delay_has_passed(gate: Gate, visits: list[tuple[float, str]]) -> None:
    assert [gate.comes(coming(), seconds) for seconds, _ in visits] == [state for _, state in visits]


def test_a_look_changes_nothing(gate: Gate) -> None:
    assert [gate.state(coming()), gate.state(coming())] == ["new", "new"]
    assert gate.store.rows == {}
    gate.comes(coming())
    before = dict(gate.store.rows)
    gate.clock.advance(DELAY_S)
    assert [gate.state(coming()), gate.state(coming())] == ["passed", "passed"]
    assert gate.store.rows == before


@pytest.mark.parametrize(
    ("ip", "sender", "is_same"),
    [
        ("203.0.113.7", "bob@x.test", True),
        ("203.0.113.255", "bob@x.test", True),
        ("203.0.113.0", "ann@X.Test", True),
        ("203.0.112.7", "bob@x.test", False),
        ("203.0.114.7", "bob@x.test", False),
        ("203.0.113.7", "bob@y.test", False),
        ("203.0.113.7", "bob@a.x.test", False),
        ("203.0.113.7", "", False),
    ],
)
def test_ipv4_is_known_by_its_24_and_the_sender_domain(gate: Gate, ip: str, sender: str, is_same: bool) -> None:
    gate.comes(coming())
    assert gate.state(coming(ip, sender)) == ("waiting" if is_same else "new")


@pytest.mark.parametrize(
    ("ip", "is_same"),
    [
        ("2001:db8:0:1::7", True),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:0DB8::1:0:0:0:8", True),
        ("2001:db8:0:2::7", False),
        ("2001:db8::7", False),
    ],
)
def test_ipv6_is_known_by_its_64(gate: Gate, ip: str, is_same: bool) -> None:
    gate.comes(coming("2001:db8:0:1::1"))
    assert gate.state(coming(ip)) == ("waiting" if is_same else "new")


def test_the_null_sender_is_one_sender(gate: Gate) -> None:
    assert [gate.comes(coming(sender="")), gate.comes(coming(sender=""))] == ["new", "waiting"]
    assert gate.state(coming("203.0.114.7", sender="")) == "new"


def test_many_recipients_are_one_visit(gate: Gate) -> None:
    another = replace(coming(), recipient=parse_mailbox("bob@example.org"))
    assert [gate.comes(coming()), gate.comes(another)] == ["new", "waiting"]
    assert len(gate.store.rows) == 1


def test_without_a_delay_the_second_visit_passes(gate: Gate) -> None:
    gate.list = Greylist(gate.store, Spf(FakeResolver()), GreylistSettings(0.0, KEEP_S))
    assert [gate.comes(coming()), gate.comes(coming())] == ["new", "passed"]


POOL = ("203.0.113.7", "198.51.100.9", "192.0.2.200", "2001:db8::7")


def test_a_pool_that_spf_lets_send_waits_once(gate: Gate) -> None:
    record = "x.test TXT v=spf1 ip4:203.0.113.0/24 ip4:198.51.100.0/24 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"
    gate.list = Greylist(gate.store, Spf(FakeResolver(record)), GreylistSettings(DELAY_S, KEEP_S))
    assert gate.comes(coming(POOL[0])) == "new"
    assert [gate.comes(coming(ip), 60.0) for ip in POOL[1:]] == ["waiting"] * 3
    assert gate.comes(coming(POOL[2], "other@x.test"), DELAY_S) == "passed"
    assert [gate.comes(coming(ip)) for ip in POOL] == ["passed"] * 4
    assert "spf|x.test" in gate.store.rows


def test_what_no_rule_asked_for_costs_no_look_up(gate: Gate) -> None:
    resolver = FakeResolver("x.test TXT v=spf1 +all")
    gate.list = Greylist(gate.store, Spf(resolver), GreylistSettings(DELAY_S, KEEP_S))
    asyncio.run(gate.list.happened(coming()))
    assert resolver.asked == []
    assert list(gate.store.rows) == ["203.0.113.0|x.test"]


@pytest.mark.parametrize("record", ["x.test TXT v=spf1 -all", "x.test TXT v=spf1 ?all", "x.test FAILS TXT", ""])
def test_whom_spf_does_not_vouch_for_is_known_by_the_network(gate: Gate, record: str) -> None:
    gate.list = Greylist(gate.store, Spf(FakeResolver(*filter(None, [record]))), GreylistSettings(DELAY_S, KEEP_S))
    gate.comes(coming())
    assert list(gate.store.rows) == ["203.0.113.0|x.test"]


def test_a_bounce_is_known_by_the_network_whatever_its_helo_says(gate: Gate) -> None:
    record = "mx.sender.example TXT v=spf1 +all"
    gate.list = Greylist(gate.store, Spf(FakeResolver(record)), GreylistSettings(DELAY_S, KEEP_S))
    gate.comes(coming(sender=""))
    assert list(gate.store.rows) == ["203.0.113.0|"]
