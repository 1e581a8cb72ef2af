"""rate(…): what is counted by which key, within which window, over all processes."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.checks.rates import Rates
from gateway.policy.context import Context
from gateway.policy.rates import KEYS, OF, parse_rate
from gateway.policy.rules import Policy
from gateway.storage import counters as counters_room
from gateway.storage.counters import SharedCounters
from tests.checks.asking import fetch, moved_by_hand
from tests.support.fakes import FakeClock
from tests.support.policies import STRANGER, USER, context, policy_of


def rate(key: str, window: str = "1h", of: str = "messages") -> str:
    return f'rate("{key}", "{window}", "{of}")'


def asking_for(folder: Path, *rates: str) -> Policy:
    """A policy with these rates in rules."""
    rules = "".join(f"  - note: n{number}\n    when: {text} >= 5\n" for number, text in enumerate(rates))
    return policy_of(folder, {"50-message.yaml": f"stage: message\nrules:\n{rules}"})


def coming(session: object = STRANGER, ip: str = "", sender: str = "bob@x.test", to: str = "alice@e.test") -> Context:
    session = replace(session, client_ip=ip) if ip else session  # type: ignore[type-var]
    return context(session, sender=sender, recipient=to)  # type: ignore[arg-type]


@pytest.fixture
def counters(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> SharedCounters:
    monkeypatch.setattr(counters_room, "time", moved_by_hand(clock))
    return SharedCounters()


@pytest.fixture
def rates(counters: SharedCounters) -> Rates:
    return Rates(counters)


@pytest.mark.parametrize(
    ("key", "counted", "asked", "is_same"),
    [
        ("client", coming(ip="203.0.113.7"), coming(ip="203.0.113.7", sender="x@y.test"), True),
        ("client", coming(ip="203.0.113.7"), coming(ip="203.0.113.8"), False),
        ("client", coming(ip="2001:db8::7"), coming(ip="2001:db8::8"), False),
        ("network", coming(ip="203.0.113.7"), coming(ip="203.0.113.255"), True),
        ("network", coming(ip="203.0.113.7"), coming(ip="203.0.112.7"), False),
        ("network", coming(ip="10.1.2.3"), coming(ip="10.1.2.44"), True),
        ("network", coming(ip="203.0.11.7"), coming(ip="203.0.113.7"), False),
        ("network", coming(ip="2001:db8:0:1::7"), coming(ip="2001:db8:0:1:ffff::8"), True),
        ("network", coming(ip="2001:db8:0:1::7"), coming(ip="2001:db8:0:2::7"), False),
        ("sender", coming(sender="Bob@X.test"), coming(sender="bob@x.test", ip="192.0.2.1"), True),
        ("sender", coming(sender="bob@x.test"), coming(sender="ann@x.test"), False),
        ("user", coming(USER), coming(USER, ip="192.0.2.1", sender="x@y.test"), True),
        ("user", coming(USER), coming(replace(USER, user="bob@example.org")), False),
        ("recipient", coming(to="Alice@E.test"), coming(to="alice@e.test", ip="192.0.2.1"), True),
        ("recipient", coming(to="alice@e.test"), coming(to="bob@e.test"), False),
    ],
)
def test_a_key_tells_who_is_counted(
    rates: Rates, tmp_path: Path, key: str, counted: Context, asked: Context, is_same: bool
) -> None:
    policy = asking_for(tmp_path, rate(key))
    for _ in range(3):
        rates.happened(policy, "messages", counted)
    assert fetch(rates, rate(key), counted) == 3
    assert fetch(rates, rate(key), asked) == (3 if is_same else 0)


@pytest.mark.parametrize(("key", "where"), [("user", coming()), ("sender", coming(sender=""))])
def test_where_there_is_no_such_key_nothing_is_counted(rates: Rates, tmp_path: Path, key: str, where: Context) -> None:
    rates.happened(asking_for(tmp_path, rate(key)), "messages", where)
    assert fetch(rates, rate(key), where) == 0


@pytest.mark.parametrize("of", OF)
def test_only_what_it_is_of_is_counted(rates: Rates, tmp_path: Path, of: str) -> None:
    policy = asking_for(tmp_path, *(rate("client", of=each) for each in OF))
    rates.happened(policy, of, coming())
    assert {each: fetch(rates, rate("client", of=each), coming()) for each in OF} == {each: each == of for each in OF}


def test_only_what_the_policy_asks_for_is_counted(rates: Rates, tmp_path: Path) -> None:
    policy = asking_for(tmp_path, rate("client"))
    rates.happened(policy, "messages", coming())
    assert fetch(rates, rate("client"), coming()) == 1
    for other in (rate("sender"), rate("client", "2h"), rate("client", of="recipients")):
        assert fetch(rates, other, coming()) == 0


def test_only_the_given_keys_are_counted(rates: Rates, tmp_path: Path) -> None:
    policy = asking_for(tmp_path, *map(rate, KEYS))
    rates.happened(policy, "messages", coming(USER), by=("sender", "recipient"))
    found = {key: fetch(rates, rate(key), coming(USER)) for key in KEYS}
    assert found == {"client": 0, "network": 0, "sender": 1, "user": 0, "recipient": 1}


def test_a_look_counts_nothing(rates: Rates) -> None:
    assert [fetch(rates, rate("client"), coming()) for _ in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("window", "seconds"), [("1s", 1), ("30s", 30), ("10m", 600), ("1h", 3600), ("1d", 86400)])
def test_a_window_begins_with_its_first_event_and_ends_whole(
    rates: Rates, clock: FakeClock, tmp_path: Path, window: str, seconds: float
) -> None:
    policy, text = asking_for(tmp_path, rate("client", window)), rate("client", window)
    rates.happened(policy, "messages", coming())
    clock.advance(seconds / 2)
    rates.happened(policy, "messages", coming())
    clock.advance(seconds / 2 - 0.1)
    assert fetch(rates, text, coming()) == 2
    clock.advance(0.2)
    assert fetch(rates, text, coming()) == 0
    rates.happened(policy, "messages", coming())
    assert fetch(rates, text, coming()) == 1


def test_windows_of_one_key_are_counted_apart(rates: Rates, clock: FakeClock, tmp_path: Path) -> None:
    policy = asking_for(tmp_path, rate("client", "10s"), rate("client", "1h"))
    for _ in range(3):
        rates.happened(policy, "messages", coming())
        clock.advance(10)
    assert [fetch(rates, rate("client", window), coming()) for window in ("10s", "1h")] == [0, 3]


def test_what_another_process_counts_is_seen(counters: SharedCounters, tmp_path: Path) -> None:
    policy, rates = asking_for(tmp_path, rate("client")), Rates(counters)
    rates.happened(policy, "messages", coming())
    children = []
    for slot in range(2):
        if not (child := os.fork()):
            try:
                counters.attach(slot)
                for _ in range(100):
                    rates.happened(policy, "messages", coming())
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    assert fetch(rates, rate("client"), coming()) == 201


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("host", "1h", "messages"), "the key is one of"),
        (("client", "1h", "mails"), "what is counted is one of"),
        (("sender", "1h", "connections"), "counted by client or network"),
        (("recipient", "1h", "auth_failures"), "counted by client or network"),
        (("client", "0s", "messages"), "a window is 1s to 1d"),
        (("client", "2d", "messages"), "a window is 1s to 1d"),
        (("client", "1w", "messages"), "is no time"),
        (("client", "", "messages"), "is no time"),
    ],
)
def test_a_rate_that_makes_no_sense_is_no_rate(arguments: tuple[str, str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_rate(*arguments)
