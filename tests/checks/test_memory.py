"""What is remembered of what happened, and of whom."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.checks import memory
from gateway.checks.greylist import Greylist, GreylistSettings, Seen
from gateway.checks.memory import Memory
from gateway.checks.rates import Rates
from gateway.checks.reputation import Reputation, Reputations
from gateway.checks.seen import SeenSenders
from gateway.checks.senderauth import Spf
from gateway.checks.usage import Usage, UsageSettings
from gateway.core.address import parse_mailbox
from gateway.core.errors import StorageBroken
from gateway.core.transaction import Recipient, Session
from gateway.policy.context import Context
from gateway.policy.rules import Policy
from gateway.storage.counters import SharedCounters
from tests.checks.asking import Logged, fetch
from tests.support.fakes import FakeResolver
from tests.support.policies import OWN, STRANGER, USER, context, policy_of

ALL = ("connections", "auth_failures", "recipients", "messages")


class Kept:
    """The memory, what the greylist's store was told, and the counters."""

    def __init__(self) -> None:
        self.greylisted: list[str] = []
        self.senders: list[str] = []
        self.judged: list[tuple[str, bool]] = []
        self.rates = Rates(SharedCounters())
        spf = Spf(FakeResolver())
        usage = Usage(self, UsageSettings())
        greylist = Greylist(self, spf, GreylistSettings())
        self.memory = Memory(self.rates, greylist, SeenSenders(self), Reputations(self, spf, 86400.0), usage)

    async def find(self, key: str) -> Seen | None:
        return None

    async def put(self, key: str, seen: Seen) -> None:
        self.greylisted.append(key)

    async def has_seen(self, sender: str) -> bool:
        return sender in self.senders

    async def reputation(self, key: str) -> Reputation:
        return Reputation()

    async def add_reputation(self, key: str, half_life_s: float, *, is_good: bool) -> None:
        self.judged.append((key, is_good))

    async def busiest_hour(self, user: str, since: int, before: int) -> int:
        return 0

    async def add_usage(self, user: str, hour: int, recipients: int) -> None: ...

    async def see(self, sender: str) -> None:
        self.senders.append(sender)

    def counted(self, key: str, where: Context, *of: str) -> list[object]:
        return [fetch(self.rates, f'rate("{key}", "1h", "{each}")', where) for each in of or ("messages",)]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def asking(folder: Path, *conditions: str) -> Policy:
    rules = "".join(f"  - note: n{number}\n    when: {text}\n" for number, text in enumerate(conditions))
    return policy_of(folder, {"40-recipient.yaml": f"stage: recipient\nrules:\n{rules}"})


def all_rates(folder: Path) -> Policy:
    by_all = [f'rate("client", "1h", "{of}") > 3' for of in ALL]
    by_key = [f'rate("{key}", "1h", "messages") > 3' for key in ("network", "sender", "user", "recipient")]
    return asking(folder, *by_all, *by_key, 'greylist.state == "new"')


def coming(session: Session = STRANGER) -> Context:
    return context(session, sender="bob@x.test", recipient="alice@example.org")


def tried(kept: Kept, policy: Policy, where: Context, *, is_accepted: bool) -> None:
    asyncio.run(kept.memory.tried_recipient(policy, where, is_accepted=is_accepted))


def accepted(
    kept: Kept, policy: Policy, where: Context, recipients: Sequence[Recipient] = (), *, is_welcome: bool = True
) -> None:
    asyncio.run(kept.memory.accepted_message(policy, where, recipients, is_welcome=is_welcome))


def test_each_event_is_counted_as_what_it_is(kept: Kept, tmp_path: Path) -> None:
    policy, where = all_rates(tmp_path), coming()
    kept.memory.connected(policy, where)
    for _ in range(2):
        kept.memory.sign_in_failed(policy, where)
    for _ in range(3):
        tried(kept, policy, where, is_accepted=True)
    for _ in range(4):
        accepted(kept, policy, where)
    assert kept.counted("client", where, *ALL) == [1, 2, 3, 4]


def test_a_refused_recipient_counts_for_the_greylist_only(kept: Kept, tmp_path: Path) -> None:
    tried(kept, all_rates(tmp_path), coming(), is_accepted=False)
    assert kept.counted("client", coming(), *ALL) == [0, 0, 0, 0]
    assert kept.greylisted == ["203.0.113.0|x.test"]


def test_a_message_counts_once_for_its_sender_and_once_for_each_recipient(kept: Kept, tmp_path: Path) -> None:
    policy, where = all_rates(tmp_path), coming(USER)
    recipients = [Recipient(parse_mailbox(to)) for to in ("a@example.org", "b@example.org", "A@example.org")]
    accepted(kept, policy, replace(where, recipient=None), recipients)
    assert [kept.counted(key, where)[0] for key in ("client", "network", "sender", "user")] == [1, 1, 1, 1]
    of = {to: replace(where, recipient=parse_mailbox(f"{to}@example.org")) for to in "abc"}
    assert {to: kept.counted("recipient", own)[0] for to, own in of.items()} == {"a": 2, "b": 1, "c": 0}


@pytest.mark.parametrize(("session", "is_kept"), [(STRANGER, True), (OWN, False), (USER, False)])
def test_only_strangers_are_greylisted(kept: Kept, tmp_path: Path, session: Session, is_kept: bool) -> None:
    tried(kept, all_rates(tmp_path), coming(session), is_accepted=True)
    assert bool(kept.greylisted) is is_kept


@pytest.mark.parametrize("trouble", ["raises", "hangs"])
def test_what_the_greylist_cannot_write_costs_no_mail(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    logged = Logged()
    monkeypatch.setattr(memory, "_log", logged)
    monkeypatch.setattr(memory, "WRITE_S", 0.05)

    async def put(key: str, seen: Seen) -> None:
        if trouble == "raises":
            raise StorageBroken("state.db: no")
        await asyncio.sleep(30)
        raise AssertionError("nobody ended it")

    monkeypatch.setattr(kept, "put", put)
    tried(kept, all_rates(tmp_path), coming(), is_accepted=True)
    assert kept.counted("client", coming(), "recipients") == [1]
    (warning,) = logged.warnings
    assert ("StorageBroken" if trouble == "raises" else "TimeoutError") in str(warning["reason"])


def test_the_greylist_is_kept_only_where_the_policy_asks_for_it(kept: Kept, tmp_path: Path) -> None:
    tried(kept, asking(tmp_path, 'rate("client", "1h", "messages") > 3'), coming(), is_accepted=True)
    assert kept.greylisted == []


@pytest.mark.parametrize(
    ("sender", "is_welcome", "kept_as"),
    [
        ("bob@x.test", True, ["bob@x.test"]),
        ("Bob@X.test", True, ["bob@x.test"]),
        ("bob@x.test", False, []),
        ("", True, []),
    ],
    ids=["delivered", "case is no difference", "kept back", "null reverse-path"],
)
def test_a_sender_is_seen_once_mail_of_theirs_was_delivered(
    kept: Kept, tmp_path: Path, sender: str, is_welcome: bool, kept_as: list[str]
) -> None:
    where = context(sender=sender, recipient="alice@example.org")
    accepted(kept, asking(tmp_path, "seen.sender_before"), where, is_welcome=is_welcome)
    assert kept.senders == kept_as


def test_senders_are_kept_only_where_the_policy_asks_for_them(kept: Kept, tmp_path: Path) -> None:
    accepted(kept, asking(tmp_path, 'greylist.state == "new"'), coming())
    assert kept.senders == []
