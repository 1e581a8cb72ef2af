"""recipient.exists of relay domains: what is kept of a next hop's answers, and how often it is asked."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.checks import recipients
from gateway.checks.recipients import MAX_AT_ONCE, KeepSettings, RelayRecipients
from gateway.core.address import Mailbox
from gateway.core.errors import StorageBroken
from gateway.core.reply import Reply
from gateway.delivery.probe import _meaning
from gateway.policy.catalogue import FACTS
from gateway.policy.context import Context
from gateway.policy.values import PENDING, UNKNOWN, Found
from gateway.smtp.client import ReplyReader
from tests.checks.asking import fetch, moved_by_hand, need_of
from tests.support.fakes import FakeClock
from tests.support.policies import context

KEEP = KeepSettings(exists_s=86400.0, missing_s=3600.0)
NEED = need_of("recipient.exists")


def to(address: str) -> Context:
    return context(sender="bob@x.test", recipient=address)


ANN, BEN = to("ann@probed.example"), to("ben@probed.example")


class FakeStore:
    """`ProbeStore` in memory."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.rows: dict[str, tuple[bool, float]] = {}
        self.error: Exception | None = None
        self.write_error: Exception | None = None

    async def probed(self, address: str) -> tuple[bool, float] | None:
        if self.error is not None:
            raise self.error
        return self.rows.get(address)

    async def put_probed(self, address: str, exists: bool) -> None:
        if self.write_error is not None:
            raise self.write_error
        self.rows[address] = (exists, self.clock.now())


class Hop:
    """A next hop: answers by address, a gate that holds them back, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, bool | Exception | None] = {"ann@probed.example": True, "ben@probed.example": False}
        self.asked: list[str] = []
        self.at_once = self.most = 0
        self.gate: asyncio.Event | None = None

    async def probe(self, mailbox: Mailbox) -> bool | None:
        self.asked.append(str(mailbox))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.at_once -= 1
        answer = self.answers.get(str(mailbox))
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.hop, self.store = clock, Hop(), FakeStore(clock)
        self.check = self.another_process()

    def another_process(self) -> RelayRecipients:
        return RelayRecipients(self.hop.probe, self.store, KEEP)

    def ask(self, who: Context, check: RelayRecipients | None = None) -> Found:
        return fetch(check or self.check, "recipient.exists", who)


@pytest.fixture
def world(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(recipients, "time", moved_by_hand(clock))
    return World(clock)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_an_answer_is_kept_for_all_processes(world: World) -> None:
    other = world.another_process()
    assert [world.ask(ANN), world.ask(BEN)] == [True, False]
    assert [world.ask(who, check) for who in (ANN, BEN) for check in (world.check, other)] == [True, True, False, False]
    assert world.hop.asked == ["ann@probed.example", "ben@probed.example"]


@pytest.mark.parametrize(("who", "keep_s"), [(ANN, KEEP.exists_s), (BEN, KEEP.missing_s)], ids=["exists", "missing"])
def test_an_answer_is_believed_for_its_time(world: World, who: Context, keep_s: float) -> None:
    first = world.ask(who)
    world.clock.advance(keep_s - 1)
    assert world.ask(who) is first
    assert len(world.hop.asked) == 1
    world.clock.advance(1)
    world.hop.answers = {"ann@probed.example": False, "ben@probed.example": True}
    assert world.ask(who) is (not first)
    assert len(world.hop.asked) == 2


def test_what_the_hop_does_not_say_is_unknown_and_not_kept(world: World) -> None:
    world.hop.answers["ann@probed.example"] = None
    assert [world.ask(ANN), world.ask(ANN)] == [UNKNOWN, UNKNOWN]
    assert world.store.rows == {}
    world.hop.answers["ann@probed.example"] = True
    assert world.ask(ANN) is True


def test_an_old_answer_is_not_believed_where_the_hop_is_silent(world: World) -> None:
    assert world.ask(BEN) is False
    world.clock.advance(KEEP.missing_s)
    world.hop.answers["ben@probed.example"] = None
    assert world.ask(BEN) is UNKNOWN


def test_mailboxes_are_asked_for_as_they_are_written(world: World) -> None:
    """Whether case matters is the next hop's affair (RFC 5321 2.4)."""
    world.hop.answers["Ann@probed.example"] = False
    assert [world.ask(ANN), world.ask(to("Ann@probed.example"))] == [True, False]


def test_without_a_recipient_nobody_is_asked(world: World) -> None:
    assert world.ask(context()) is True
    assert world.hop.asked == []


# --- a store that is broken -------------------------------------------------------------------------------------------


def test_an_answer_that_cannot_be_kept_is_an_answer(world: World) -> None:
    """What cannot be remembered must not cost the mail."""
    world.store.write_error = StorageBroken("disk")
    assert [world.ask(ANN), world.ask(BEN)] == [True, False]


def test_where_the_store_cannot_be_read_the_hop_is_asked(world: World) -> None:
    world.store.error = StorageBroken("disk")
    assert [world.ask(ANN), world.ask(BEN)] == [True, False]


# --- many at once -----------------------------------------------------------------------------------------------------


def together(*asks: Awaitable[Found]) -> list[Found]:
    async def gather() -> list[Found]:
        return list(await asyncio.gather(*asks))

    return asyncio.run(gather())


def test_many_who_ask_for_one_mailbox_ask_once(world: World) -> None:
    assert together(*(world.check.fetch(NEED, ANN) for _ in range(50))) == [True] * 50
    assert world.hop.asked == ["ann@probed.example"]


def test_no_more_than_so_many_questions_at_once(world: World) -> None:
    boxes = [to(f"u{number}@probed.example") for number in range(3 * MAX_AT_ONCE)]
    assert together(*(world.check.fetch(NEED, box) for box in boxes)) == [UNKNOWN] * len(boxes)
    assert world.hop.most == MAX_AT_ONCE


def story(world: World, tell: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    async def run() -> None:
        world.hop.gate = asyncio.Event()
        await tell(world.hop.gate)

    asyncio.run(run())


def test_who_gives_up_leaves_the_answer_to_the_others(world: World) -> None:
    async def tell(gate: asyncio.Event) -> None:
        first, second = (asyncio.create_task(world.check.fetch(NEED, ANN)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        gate.set()
        assert await second is True
        assert world.hop.asked == ["ann@probed.example"]

    story(world, tell)


def test_an_answer_that_nobody_waits_for_any_more_is_kept(world: World) -> None:
    async def tell(gate: asyncio.Event) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await world.check.fetch(NEED, ANN)
        gate.set()
        await asyncio.sleep(0.01)
        assert await world.check.fetch(NEED, ANN) is True
        assert world.hop.asked == ["ann@probed.example"]

    story(world, tell)


def test_a_question_that_fails_is_asked_anew(world: World) -> None:
    world.hop.answers["ann@probed.example"] = RuntimeError("broken")
    for _ in range(2):
        assert world.ask(ANN) is UNKNOWN
    world.hop.answers["ann@probed.example"] = True
    assert world.ask(ANN) is True


def test_a_failure_that_nobody_waits_for_is_quiet(world: World) -> None:
    complaints: list[object] = []

    async def tell(gate: asyncio.Event) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, about: complaints.append(about))
        world.hop.answers["ann@probed.example"] = RuntimeError("broken")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await world.check.fetch(NEED, ANN)
        gate.set()
        await asyncio.sleep(0.01)

    story(world, tell)
    assert complaints == []


def test_one_silent_domain_does_not_keep_others_from_being_asked(world: World) -> None:
    """Whoever writes to many made-up mailboxes of a slow domain must not put off the mail of all domains."""

    async def tell(gate: asyncio.Event) -> None:
        boxes = [to(f"u{number}@probed.slow.example") for number in range(MAX_AT_ONCE)]
        slow = [asyncio.create_task(world.check.fetch(NEED, box)) for box in boxes]
        await asyncio.sleep(0.01)
        world.hop.gate = None
        try:
            async with asyncio.timeout(0.5):
                assert await world.check.fetch(NEED, ANN) is True
        finally:
            gate.set()
            await asyncio.gather(*slow)

    story(world, tell)


# --- the meaning of a reply -------------------------------------------------------------------------------------------


def parsed(line: str) -> Reply:
    (found,) = ReplyReader().feed(line.encode() + b"\r\n")
    return found


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("250 2.1.5 OK", True),
        ("250 OK", True),
        ("251 2.1.5 forwarded", True),
        ("252 2.5.2 cannot verify, will try", True),
        ("550 5.1.1 no such user", False),
        ("550 no such user", False),
        ("550 5.1.10 null MX", False),
        ("550 5.0.0 no", False),
        ("551 5.1.6 moved", False),
        ("553 5.1.3 no address", False),
        ("550 5.2.1 disabled", False),
        ("550 5.7.1 denied", None),
        ("554 5.7.1 blocked by a list", None),
        ("550 5.4.6 loop", None),
        ("550 5.3.4 too big", None),
        ("550 5.5.0 odd", None),
        ("553 5.6.7 no UTF-8 here", None),
        ("450 4.2.0 greylisted", None),
        ("451 4.1.1 try later", None),
        ("450 5.1.1 mixed up", None),
        ("421 closing", None),
        ("354 what", None),
    ],
)
def test_what_a_reply_to_rcpt_says_of_the_mailbox(line: str, meaning: bool | None) -> None:
    assert _meaning(parsed(line)) is meaning


@pytest.mark.parametrize(
    "line",
    [
        "552 5.2.2 mailbox full", "550 5.2.2 over quota", "550 5.1.8 bad sender", "550 5.1.7 bad sender syntax",
        "530 Must issue a STARTTLS command first", "530 Authentication required", "503 MAIL first", "500 what?",
        "501 syntax", "502 not here", "554 Your address 192.0.2.1 is on our blocklist", "552 too many recipients",
    ],
)  # fmt: skip
def test_a_refusal_that_does_not_speak_of_the_mailbox_is_no_missing_one(line: str) -> None:
    """Of codes without an enhanced status only 550, 551 and 553 speak of a mailbox (RFC 5321 4.2.3)."""
    assert _meaning(parsed(line)) is not False


def test_only_mailboxes_of_probed_domains_are_asked_for() -> None:
    read = FACTS["recipient.exists"].read
    assert read is not None
    assert read(ANN) is PENDING
    found = [
        read(to(box)) for box in ("ann@partner.example", "x@elsewhere.example", "alice@example.org", "q@example.org")
    ]
    assert found == [True, True, True, False]
