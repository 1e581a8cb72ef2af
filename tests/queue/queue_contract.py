"""What every keeper of the queue must do, whatever it is built on: a backend's test file subclasses `QueueContract`.

A backend gives the fixture `opener`: `opener(owner)` opens the same queue once more, as the process slot `owner`.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from gateway.core.address import parse_mailbox, path_or_null
from gateway.core.errors import StoreError
from gateway.message.blob import FileBlob, MemoryBlob
from gateway.quarantine.store import QuarantineStore
from gateway.queue.store import (
    Claim,
    Filter,
    NewMessage,
    NewRecipient,
    QueuedMessage,
    QueueEntry,
    QueueStore,
    Retry,
    Settlement,
    State,
)

T = TypeVar("T")
BODY = b"A: b\r\n\r\nx\r\n"
BY_RULE = {"kept_by": "a rule"}


class Desk(Protocol):
    """What people and upkeep ask."""

    def entries(self, wanted: Filter, limit: int = 10_000) -> list[QueueEntry]: ...

    def message(self, queue_id: str) -> QueuedMessage | None: ...

    def set_state(self, wanted: Filter, action: str) -> int: ...

    def delete(self, wanted: Filter) -> int: ...

    def counts(self) -> tuple[dict[State, int], float]: ...


class FullStore(QueueStore, Protocol):
    """The runner's view, the one of the command line, and quarantine's."""

    desk: Desk
    quarantine: QuarantineStore


Opener = Callable[[str], FullStore]


def run(story: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(story)


def new(
    queue_id: str, *recipients: str, age: float = 10.0, expires_in: float = 1000.0, sender: str = "from@b.example"
) -> NewMessage:
    now = time.time()
    return NewMessage(
        queue_id,
        now - age,
        now + expires_in,
        path_or_null(sender),
        tuple(NewRecipient(parse_mailbox(to)) for to in recipients or ("to@x.example",)),
        b"Received: y\r\n",
        MemoryBlob(BODY),
    )


async def claim(
    store: QueueStore, limit: int = 100, take: Callable[[str], bool] = lambda destination: True
) -> list[Claim]:
    return (await store.claim(limit, take))[0]


def settle(claimed: Claim, *, notices: tuple[NewMessage, ...] = (), down_until: float | None = None) -> Settlement:
    """All its recipients are done."""
    return Settlement(claimed, tuple(to.row for to in claimed.recipients), {}, notices, down_until)


def retry(claimed: Claim, due: float, *, down_until: float | None = None) -> Settlement:
    retries = {to.row: Retry(due, "451 4.4.1 later", to.attempts + 1, True) for to in claimed.recipients}
    return Settlement(claimed, (), retries, (), down_until)


def ids(store: FullStore, wanted: Filter = Filter()) -> list[str]:  # noqa: B008  # frozen
    return [entry.queue_id for entry in store.desk.entries(wanted)]


class QueueContract:
    @pytest.fixture
    def store(self, opener: Opener) -> FullStore:
        return opener("queue-0")

    def test_what_is_enqueued_is_claimed_as_it_was(self, store: FullStore) -> None:
        message = replace(
            new("Q1"),
            recipients=(
                NewRecipient(parse_mailbox('"a b"@x.example'), "rfc822;z@y.example", frozenset({"DELAY", "FAILURE"})),
            ),
            body="8BITMIME",
            smtputf8=True,
            ret="HDRS",
            envid="E",
            offset=2,
            info={"client": "192.0.2.1"},
        )
        run(store.enqueue(message))
        (found,) = run(claim(store))
        assert found.destination == "x.example"
        assert found.is_valid()
        (to,) = found.recipients
        assert (str(to.forward_path), to.orcpt, to.notify) == (
            '"a b"@x.example',
            "rfc822;z@y.example",
            {"DELAY", "FAILURE"},
        )
        assert (to.attempts, to.warned) == (0, False)
        got = found.message
        assert (got.queue_id, got.created, got.expires, got.reverse_path) == (
            "Q1",
            message.created,
            message.expires,
            message.reverse_path,
        )
        assert (got.header, got.blob.head(100), got.offset, got.size) == (
            b"Received: y\r\n",
            BODY,
            2,
            13 + len(BODY) - 2,
        )
        assert (got.body, got.smtputf8, got.ret, got.envid) == ("8BITMIME", True, "HDRS", "E")
        assert dict(store.desk.entries(Filter())[0].info) == {"client": "192.0.2.1"}

    def test_a_claim_is_the_recipients_of_one_message_at_one_destination(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1", "a@x.example", "b@y.example", "c@x.example")))
        found = {one.destination: [to.forward_path.local_part for to in one.recipients] for one in run(claim(store))}
        assert found == {"x.example": ["a", "c"], "y.example": ["b"]}
        assert run(claim(store)) == []

    def test_what_is_not_due_is_not_claimed_and_its_time_is_told(self, store: FullStore) -> None:
        assert run(store.claim(10, lambda destination: True)) == ([], None)
        run(store.enqueue(new("Q1", age=-500.0)))
        claims, due = run(store.claim(10, lambda destination: True))
        assert claims == []
        assert due == store.desk.entries(Filter())[0].due
        assert 490 < due - time.time() <= 500

    def test_a_settled_message_is_gone(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1")))
        (found,) = run(claim(store))
        assert run(store.settle(settle(found)))
        assert ids(store) == []
        assert store.desk.message("Q1") is None
        assert sum(store.desk.counts()[0].values()) == 0

    def test_settling_twice_is_settling_once(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1", "a@x.example", "b@y.example")))
        first, second = run(claim(store))
        notice = new("N1", "from@b.example", sender="")
        assert run(store.settle(settle(first, notices=(notice,))))
        assert not run(store.settle(settle(first, notices=(replace(notice, queue_id="N2"),))))
        assert not run(store.settle(retry(first, 0.0)))
        assert sorted(ids(store)) == ["N1", "Q1"]
        assert run(store.settle(settle(second)))
        assert ids(store) == ["N1"]

    def test_some_are_done_and_some_are_tried_again(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1", "a@x.example", "b@x.example")))
        (found,) = run(claim(store))
        one, two = found.recipients
        due = time.time() + 300
        assert run(store.settle(Settlement(found, (one.row,), {two.row: Retry(due, "451 later", 1, True)})))
        (entry,) = store.desk.entries(Filter())
        assert (entry.forward_path, entry.state, entry.due, entry.attempts, entry.last_reply) == (
            "b@x.example",
            State.READY,
            due,
            1,
            "451 later",
        )
        assert run(claim(store)) == []
        assert store.desk.set_state(Filter(queue_id="q1"), "retry") == 1
        (again,) = run(claim(store))
        assert (again.recipients[0].attempts, again.recipients[0].warned) == (1, True)

    def test_a_dsn_comes_with_the_settlement_and_can_be_claimed(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1")))
        (found,) = run(claim(store))
        run(store.settle(settle(found, notices=(new("N1", "from@b.example", sender=""),))))
        (notice,) = run(claim(store))
        assert (notice.message.queue_id, notice.message.reverse_path.is_null) == ("N1", True)

    def test_a_released_claim_comes_back_unattempted(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1")))
        (found,) = run(claim(store))
        run(store.release(found, time.time() + 100))
        assert run(claim(store)) == []
        assert store.desk.entries(Filter())[0].attempts == 0
        store.desk.set_state(Filter(), "retry")
        (again,) = run(claim(store))
        run(store.release(found, 0.0))  # the old lease gives nothing back
        assert run(claim(store)) == []
        assert run(store.settle(settle(again)))

    def test_a_lost_lease_changes_nothing(self, store: FullStore, opener: Opener) -> None:
        run(store.enqueue(new("Q1")))
        (old,) = run(claim(store))
        successor = opener("queue-0")
        assert run(successor.recover()) == 1
        (taken,) = run(claim(successor))
        assert taken.token != old.token
        assert not run(store.settle(settle(old, notices=(new("N1"),))))
        assert not run(store.settle(retry(old, 0.0)))
        run(store.release(old, 0.0))
        before = old.deadline
        run(store.renew([old, taken]))
        assert old.deadline == before
        assert ids(store) == ["Q1"]
        assert run(successor.settle(settle(taken)))

    def test_recovery_leaves_the_leases_of_others(self, store: FullStore, opener: Opener) -> None:
        run(store.enqueue(new("Q1")))
        (found,) = run(claim(store))
        assert run(opener("queue-1").recover()) == 0
        assert run(store.reap()) == 0
        assert run(store.settle(settle(found)))

    def test_no_row_is_claimed_by_two(self, store: FullStore, opener: Opener) -> None:
        other = opener("queue-1")

        async def story() -> list[Claim]:
            await asyncio.gather(
                *(store.enqueue(new(f"Q{number}", f"a@d{number % 7}.example")) for number in range(60))
            )
            found = await asyncio.gather(*(claim((store, other)[number % 2], 7) for number in range(20)))
            return [one for claims in found for one in claims]

        claims = run(story())
        rows = [to.row for one in claims for to in one.recipients]
        assert len(rows) == len(set(rows)) == 60

    def test_no_destination_takes_the_slots_of_others(self, store: FullStore) -> None:
        async def fill() -> None:
            await asyncio.gather(
                *(store.enqueue(new(f"B{number}", "a@busy.example", age=100)) for number in range(700))
            )
            await store.enqueue(new("Q1", "a@quiet.example", age=1))

        run(fill())
        slots = {"busy.example": 2, "quiet.example": 2}

        def take(destination: str) -> bool:
            slots[destination] -= 1
            return slots[destination] >= 0

        assert sorted(one.destination for one in run(claim(store, 50, take))) == [
            "busy.example",
            "busy.example",
            "quiet.example",
        ]

    def test_a_claim_is_not_larger_than_asked(self, store: FullStore) -> None:
        for number in range(5):
            run(store.enqueue(new(f"Q{number}", age=100.0 - number)))
        assert [one.message.queue_id for one in run(claim(store, 3))] == ["Q0", "Q1", "Q2"]
        assert run(claim(store, 10, lambda destination: False)) == []
        assert len(run(claim(store, 10))) == 2

    def test_a_host_that_is_down_makes_its_ready_mail_wait_and_no_other(self, store: FullStore) -> None:
        for number, to in enumerate(("a@x.example", "b@x.example", "c@y.example")):
            run(store.enqueue(new(f"Q{number}", to, age=100.0 - number)))
        (first,) = run(claim(store, 1))
        until = time.time() + 300
        run(store.settle(retry(first, until + 600, down_until=until)))
        assert [one.message.queue_id for one in run(claim(store))] == ["Q2"]
        dues = {entry.queue_id: entry.due for entry in store.desk.entries(Filter(domain="x.example"))}
        assert dues == {"Q0": until + 600, "Q1": until}

    def test_what_expired_or_waits_unwarned_is_overdue(self, store: FullStore) -> None:
        later = {"age": -900.0, "expires_in": 5000.0}
        run(store.enqueue(replace(new("OLD", expires_in=-1.0), created=time.time() + 900)))
        run(store.enqueue(new("FRESH", **later)))
        run(store.enqueue(new("WAITS", age=500.0)))
        (waits,) = run(claim(store))
        run(store.release(waits, time.time() + 1000))
        assert [one.message.queue_id for one in run(store.overdue(time.time() - 1000, 10))] == ["OLD"]
        (found,) = run(store.overdue(time.time() - 100, 10))
        assert (found.message.queue_id, round(found.recipients[0].due - time.time())) == ("WAITS", 1000)
        assert run(store.overdue(time.time() - 100, 10)) == []

    def test_held_mail_waits_until_released(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1", "a@x.example", "b@y.example")))
        assert store.desk.set_state(Filter(recipient="A@x.example"), "hold") == 1
        assert [one.destination for one in run(claim(store))] == ["y.example"]
        assert store.desk.set_state(Filter(), "retry") == 0
        assert store.desk.set_state(Filter(), "hold") == 0  # what is being delivered is left to its runner
        assert store.desk.counts()[0] == {
            State.READY: 0,
            State.ACTIVE: 1,
            State.HELD: 1,
            State.CORRUPT: 0,
            State.QUARANTINED: 0,
        }
        assert store.desk.set_state(Filter(state=State.HELD), "release") == 1
        assert [one.destination for one in run(claim(store))] == ["x.example"]

    def test_what_is_kept_goes_on_as_another_message_over_the_same_body(self, store: FullStore) -> None:
        kept = replace(
            new("Q1", "a@x.example", "b@y.example"), state=State.QUARANTINED, ret="HDRS", smtputf8=True, info=BY_RULE
        )
        run(store.enqueue(kept, replace(new("Q2"), state=State.READY)))
        rows = store.quarantine.ask(Filter(state=State.QUARANTINED), "postmaster", is_despite=False)
        (request,) = store.quarantine.requests(10)
        assert (list(request.recipients.values()), request.by) == (["a@x.example", "b@y.example"], "postmaster")
        assert run(store.claim(10, lambda destination: True))[0][0].message.queue_id == "Q2"
        again = replace(kept, queue_id="Q3", header=b"Mark: m\r\n" + kept.header, info={"released_from": "Q1"})
        assert not run(store.readmit("Q2", rows[:1], again))
        assert run(store.readmit("Q1", rows[:1], again))
        (claimed,) = run(claim(store))
        assert (claimed.message.queue_id, claimed.message.ret, claimed.message.smtputf8) == ("Q3", "HDRS", True)
        assert claimed.message.header == b"Mark: m\r\n" + kept.header
        assert claimed.message.blob.head(100) == BODY
        assert [str(to.forward_path) for to in claimed.recipients] == ["a@x.example"]
        assert run(store.settle(Settlement(claimed, tuple(to.row for to in claimed.recipients), {})))
        left = store.desk.entries(Filter(state=State.QUARANTINED))
        assert [(each.queue_id, each.forward_path) for each in left] == [("Q1", "b@y.example")]
        assert store.desk.message("Q1") is not None

    def test_what_is_not_kept_is_not_let_go_again(self, store: FullStore) -> None:
        run(store.enqueue(replace(new("Q1"), state=State.HELD, info=BY_RULE)))
        rows = store.quarantine.ask(Filter(queue_id="Q1"), "postmaster", is_despite=False)
        assert run(store.readmit("Q1", rows, new("Q2")))
        assert not run(store.readmit("Q1", rows, new("Q3")))
        assert not run(store.readmit("Q1", [999], new("Q4")))
        assert [one.message.queue_id for one in run(claim(store))] == ["Q2"]
        assert store.desk.message("Q1") is None

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (Filter(), ["Q1", "Q1", "Q2"]),
            (Filter(queue_id="q2"), ["Q2"]),
            (Filter(domain="X.example"), ["Q1", "Q2"]),
            (Filter(domain="example"), []),
            (Filter(sender="From@b.example"), ["Q1", "Q1"]),
            (Filter(sender="<>"), ["Q2"]),
            (Filter(recipient="B@y.example"), ["Q1"]),
            (Filter(older_than=50.0), ["Q1", "Q1"]),
            (Filter(older_than=0.0), ["Q1", "Q1", "Q2"]),
            (Filter(state=State.HELD), []),
            (Filter(queue_id="Q1", domain="y.example"), ["Q1"]),
            (Filter(queue_id="Q%"), []),
        ],
    )
    def test_filters(self, store: FullStore, wanted: Filter, found: Sequence[str]) -> None:
        run(store.enqueue(new("Q1", "a@x.example", "b@y.example", age=100.0)))
        run(store.enqueue(new("Q2", "c@x.example", age=1.0, sender="")))
        assert ids(store, wanted) == found

    def test_deleting_leaves_what_is_being_delivered(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1", "a@x.example", "b@y.example")))
        (active,) = run(claim(store, 1))
        assert store.desk.delete(Filter(queue_id="Q1")) == 1
        assert store.desk.delete(Filter()) == 0
        assert run(store.settle(settle(active)))
        assert ids(store) == []
        assert store.desk.message("Q1") is None

    def test_counts_and_age(self, store: FullStore) -> None:
        assert store.desk.counts()[1] == 0.0
        run(store.enqueue(new("Q1", "a@x.example", "b@y.example", age=100.0)))
        states, oldest = store.desk.counts()
        assert states == {State.READY: 2, State.ACTIVE: 0, State.HELD: 0, State.CORRUPT: 0, State.QUARANTINED: 0}
        assert 100 <= oldest < 160

    def test_one_id_is_one_message(self, store: FullStore) -> None:
        run(store.enqueue(new("Q1")))
        with pytest.raises(StoreError):
            run(store.enqueue(new("Q1", "other@z.example")))
        assert [entry.forward_path for entry in store.desk.entries(Filter())] == ["to@x.example"]

    def test_a_large_body_is_kept_until_its_last_recipient_is_done(self, store: FullStore, tmp_path: Path) -> None:
        path = tmp_path / "incoming"
        path.write_bytes(BODY * 10_000)
        run(store.enqueue(replace(new("Q1", "a@x.example", "b@y.example"), blob=FileBlob(path, len(BODY) * 10_000))))
        first, second = run(claim(store))
        run(store.settle(settle(first)))
        with second.message.blob.open() as file:
            assert file.read() == BODY * 10_000
        assert second.message.blob.head(4) == b"A: b"
        run(store.settle(settle(second)))
        with pytest.raises(FileNotFoundError):
            second.message.blob.open()
