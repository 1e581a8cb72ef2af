"""The runner with fakes: what each outcome leaves in the queue, lanes, faults, the end."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Domain, parse_mailbox
from gateway.core.outcome import Deferred, Delivered, Failed, Outcome
from gateway.core.reply import reply
from gateway.delivery.connection import LeaseLost
from gateway.delivery.relay import Delivery
from gateway.delivery.routes import FixedHost, Routes
from gateway.queue.runner import INITIAL_SLOTS, Runner, RunnerSettings
from gateway.queue.schedule import RetryPlan
from gateway.queue.store import Claim, ClaimedRecipient, Filter, NewMessage, NewRecipient
from gateway.storage.queue_desk import QueueDesk
from gateway.storage.spool import Spool
from gateway.storage.sqlite_queue import SqliteQueue
from tests.queue.queue_contract import new
from tests.support.fakes import FakeAccounts, FakeClock, FakeKeys

DELIVERED = Delivered(reply(250, "2.0.0", "ok"), "mx.x.example")
LATER = Deferred(reply(451, "4.3.0", "later"), "mx.x.example")
DOWN = Deferred(reply(451, "4.4.1", "no answer"), host_down=True)
REFUSED = Failed(reply(550, "5.1.1", "no such user"), "mx.x.example")
PLAN = RetryPlan((300.0, 900.0), 5000.0, 1000.0)


class FakeRelay:
    """Answers by local part; `gate` holds all deliveries. Also the local store's fake."""

    def __init__(self) -> None:
        self.answers: dict[str, Outcome | BaseException] = {}
        self.seen: list[tuple[str, list[str]]] = []
        self.gate: asyncio.Event | None = None
        self.now = self.most = 0

    def _answer(self, delivery: Delivery) -> list[Outcome]:
        found = [self.answers.get(to.local_part, DELIVERED) for to, _, _ in delivery.recipients]
        for one in found:
            if isinstance(one, BaseException):
                raise one
        return [one for one in found if not isinstance(one, BaseException)]

    async def deliver(self, delivery: Delivery, where: object, *_: object) -> list[Outcome]:
        self.seen.append((str(where), [to.local_part for to, _, _ in delivery.recipients]))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if self.gate is not None:
                await self.gate.wait()
            return self._answer(delivery)
        finally:
            self.now -= 1


class FakeObserver:
    def __init__(self) -> None:
        self.results: list[tuple[str, str, str]] = []
        self.notices: list[str] = []
        self.failures: list[tuple[str, str]] = []

    def attempted(
        self, claim: Claim, transport: str, outcomes: list[tuple[ClaimedRecipient, Outcome]], seconds: float
    ) -> None:
        assert seconds >= 0
        self.results += [(transport, str(to.forward_path), type(outcome).__name__) for to, outcome in outcomes]

    def noticed(self, claim: Claim, action: str, notice_id: str) -> None:
        self.notices.append(action)

    def failed(self, what: str, error: BaseException) -> None:
        self.failures.append((what, type(error).__name__))


class World:
    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder / "spool", threads=1)
        self.spool.prepare()
        self.store = SqliteQueue(folder / "queue.db", self.spool, owner="queue-0")
        self.desk = QueueDesk(folder / "queue.db", self.spool)
        self.relay, self.local, self.observer = FakeRelay(), FakeRelay(), FakeObserver()
        self.clock = FakeClock(time.time())
        self.runner = self.new_runner()

    def new_runner(self) -> Runner:
        directory = AccountDirectory(FakeAccounts(["alice@example.org"]), ["example.org"], [])
        routes = Routes(frozenset({"example.org"}), {"fixed.example": FixedHost("smtp", "10.0.0.7", 25)}, {})
        settings = RunnerSettings("mail.example.org", PLAN, concurrency=4)
        relay: Any = self.relay
        local: Any = self.local
        return Runner(self.store, routes, relay, local, directory, settings, self.observer, self.clock, FakeKeys())

    def run(self, *messages: NewMessage, until: Callable[[], bool] | None = None) -> None:
        """Enqueue, let the runner work until the condition holds (else: all have been seen), stop it."""
        wanted = sum(len({to.forward_path.domain for to in message.recipients}) for message in messages)

        self.runner = self.new_runner()

        async def story() -> None:
            for message in messages:
                await self.store.enqueue(message)
            task = asyncio.create_task(self.runner.run())
            done = until or (lambda: len(self.relay.seen) + len(self.local.seen) >= wanted)
            async with asyncio.timeout(10):
                while not done():
                    await asyncio.sleep(0.002)
                self.runner.stop()
                await task

        asyncio.run(story())

    def queue(self) -> dict[str, tuple[float, int, str]]:
        """Recipient → (seconds until due, attempts, last reply)."""
        now = self.clock.now()
        return {e.forward_path: (round(e.due - now), e.attempts, e.last_reply) for e in self.desk.entries(Filter())}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()
    made.desk.close()
    made.spool.pool.shutdown()


def test_delivered_mail_leaves_the_queue_by_its_transport(world: World) -> None:
    world.run(new("Q1", "alice@example.org", "bob@x.example", "eve@x.example", "carl@fixed.example"))
    assert world.queue() == {}
    assert sorted(world.observer.results) == [
        ("local", "alice@example.org", "Delivered"),
        ("smtp", "bob@x.example", "Delivered"),
        ("smtp", "carl@fixed.example", "Delivered"),
        ("smtp", "eve@x.example", "Delivered"),
    ]
    assert sorted(world.relay.seen) == [("fixed.example", ["carl"]), ("x.example", ["bob", "eve"])]
    assert world.observer.notices == world.observer.failures == []


def test_a_refusal_is_returned_to_the_sender(world: World) -> None:
    world.relay.answers = {"bad": REFUSED}
    world.relay.answers["from"] = LATER  # the DSN itself waits, so that it can be seen
    world.run(new("Q1", "bad@x.example", "good@x.example"), until=lambda: len(world.observer.results) >= 3)
    assert world.observer.notices == ["dsn failed"]
    assert list(world.queue()) == ["from@b.example"]
    (entry,) = world.desk.entries(Filter())
    assert (entry.reverse_path, entry.info["of"]) == ("", "Q1")


def test_no_dsn_for_a_dsn_nor_for_notify_never(world: World) -> None:
    world.relay.answers = {"bad": REFUSED}
    never = replace(new("Q2"), recipients=(NewRecipient(parse_mailbox("bad@y.example"), "", frozenset({"NEVER"})),))
    world.run(new("Q1", "bad@x.example", sender=""), never, until=lambda: len(world.observer.results) >= 2)
    assert world.observer.notices == []
    assert world.queue() == {}


def test_success_is_reported_when_asked_for_and_not_promised_by_the_next_hop(world: World) -> None:
    world.relay.answers = {"hop": replace(DELIVERED, relayed_dsn=True), "from": LATER}
    success = frozenset({"SUCCESS"})
    recipients = tuple(NewRecipient(parse_mailbox(f"{name}@x.example"), "", success) for name in ("plain", "hop"))
    world.run(replace(new("Q1"), recipients=recipients), until=lambda: len(world.observer.results) >= 3)
    assert world.observer.notices == ["dsn relayed"]


def test_a_deferral_waits_by_the_plan(world: World) -> None:
    world.relay.answers = {"to": LATER}
    world.run(new("Q1", "to@x.example"))
    due, attempts, last = world.queue()["to@x.example"]
    assert 300 <= due <= 331
    assert (attempts, last) == (1, "451 4.3.0 later")
    assert world.observer.notices == []


def test_a_second_deferral_waits_longer_but_not_beyond_the_end(world: World) -> None:
    world.relay.answers = {"to": LATER, "soon": LATER}
    world.run(new("Q1", "to@x.example"), new("Q2", "soon@y.example", expires_in=600.0))
    for number in (2, 3):
        world.desk.set_state(Filter(), "retry")
        world.relay.seen.clear()
        world.run(until=lambda: len(world.relay.seen) >= 2)
        assert world.queue()["to@x.example"][1] == number
    assert 900 <= world.queue()["to@x.example"][0] <= 991
    assert 500 <= world.queue()["soon@y.example"][0] <= 601


def test_old_mail_is_warned_about_once(world: World) -> None:
    world.relay.answers = {"to": LATER, "from": LATER}
    world.run(new("Q1", "to@x.example", age=2000.0), until=lambda: len(world.observer.results) >= 2)
    assert world.observer.notices == ["dsn delayed"]
    world.desk.set_state(Filter(recipient="to@x.example"), "retry")
    world.run(until=lambda: len(world.observer.results) >= 3)
    assert world.observer.notices == ["dsn delayed"]


def test_a_deferral_past_the_end_is_a_failure(world: World) -> None:
    world.relay.answers = {"to": LATER, "from": LATER}
    world.run(new("Q1", "to@x.example", expires_in=-1.0), until=lambda: len(world.observer.results) >= 2)
    assert world.observer.notices == ["dsn failed"]
    assert "to@x.example" not in world.queue()


def test_a_host_that_is_down_makes_all_its_mail_wait_after_one_attempt(world: World) -> None:
    world.relay.answers = {"to": DOWN}
    messages = [new(f"Q{number}", "to@x.example", age=100.0 - number) for number in range(20)]
    world.run(
        *messages,
        new("Q99", "alice@example.org"),
        until=lambda: len(world.local.seen) == 1 and world.relay.now == 0 and len(world.relay.seen) > 0,
    )
    assert len(world.relay.seen) <= INITIAL_SLOTS
    assert all(due >= 299 for due, _, _ in world.queue().values())
    assert len(world.desk.entries(Filter())) == 20


def test_a_destination_starts_with_two_slots_and_earns_more_to_its_limit(world: World) -> None:
    async def story() -> None:
        world.relay.gate = asyncio.Event()
        for number in range(40):
            await world.store.enqueue(new(f"Q{number}", "to@x.example"))
        task = asyncio.create_task(world.runner.run())
        async with asyncio.timeout(10):
            while world.relay.now < INITIAL_SLOTS:
                await asyncio.sleep(0.002)
            world.runner.wake()
            await asyncio.sleep(0.05)  # a wrong runner would start more now
            assert world.relay.now == INITIAL_SLOTS
            world.relay.gate.set()
            while len(world.observer.results) < 40:
                await asyncio.sleep(0.002)
            world.runner.stop()
            await task

    asyncio.run(story())
    assert INITIAL_SLOTS <= world.relay.most <= 4
    assert world.queue() == {}


def test_a_fault_of_ours_gives_the_claim_back_and_tells(world: World) -> None:
    world.relay.answers = {"to": RuntimeError("bug")}
    world.run(new("Q1", "to@x.example"), until=lambda: bool(world.observer.failures))
    assert world.observer.failures == [("delivery", "RuntimeError")]
    due, attempts, _ = world.queue()["to@x.example"]
    assert (50 <= due <= 70, attempts) == (True, 0)


def test_a_lost_lease_is_told_and_nothing_is_given_back(world: World) -> None:
    world.relay.answers = {"to": LeaseLost()}
    world.run(new("Q1", "to@x.example"), until=lambda: bool(world.observer.failures))
    assert world.observer.failures == [("lease lost", "LeaseLost")]
    assert [entry.state.value for entry in world.desk.entries(Filter())] == ["active"]


def test_a_stop_lets_what_is_under_way_finish(world: World) -> None:
    async def story() -> None:
        world.relay.gate = asyncio.Event()
        await world.store.enqueue(new("Q1", "to@x.example"))
        task = asyncio.create_task(world.runner.run())
        async with asyncio.timeout(10):
            while not world.relay.now:
                await asyncio.sleep(0.002)
            world.runner.stop()
            await asyncio.sleep(0.02)
            assert not task.done()
            world.relay.gate.set()
            await task

    asyncio.run(story())
    assert world.queue() == {}


def test_leases_of_the_slot_s_dead_predecessor_are_taken_over_at_the_start(world: World) -> None:
    asyncio.run(world.store.enqueue(new("Q1", "to@x.example")))
    (lost,) = asyncio.run(world.store.claim(10, lambda destination: True))[0]
    world.run(until=lambda: len(world.observer.results) == 1)
    assert world.queue() == {}
    assert Domain(lost.destination) == Domain("x.example")
