"""The trace: found by any key with all that belongs to it, forgotten, kept within age and size."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.storage.sqlite_trace import SqliteTrace
from gateway.telemetry.recorder import Event


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[SqliteTrace]:
    opened = SqliteTrace(tmp_path / "trace.db")
    yield opened
    opened.close()


def event(at: float, keys: tuple[str, ...], kind: str = "x", **data: object) -> Event:
    return Event(at, kind, keys, data)


def test_an_event_is_found_by_each_key_in_any_case_and_in_order_of_time(trace: SqliteTrace) -> None:
    trace.append([event(2.0, ("QID", "bob@x.example", ""), n=2), event(1.0, ("QID", "<m@x.example>"), n=1)])
    trace.append([event(3.0, ("OTHER",), n=3)])
    for wanted in ("QID", "qid", "Bob@X.example"):
        assert 2 in [found.data["n"] for found in trace.find(wanted)]
    assert [found.data["n"] for found in trace.find("QID")] == [1, 2]
    assert [found.data["n"] for found in trace.find("m@x.example")] == [1]
    assert trace.find("nobody") == trace.find("") == []


def test_what_belongs_to_a_found_event_is_shown_too(trace: SqliteTrace) -> None:
    trace.append(
        [
            event(1.0, ("S1", "Q1"), "transaction", session="S1", queue_id="Q1"),
            event(2.0, ("Q1", "bob@x.example"), "delivery", queue_id="Q1"),
            event(3.0, ("Q1", "N1"), "notice", queue_id="Q1", notice_id="N1"),
            event(4.0, ("N1",), "delivery", queue_id="N1"),
            event(5.0, ("Q2",), "delivery", queue_id="Q2"),
        ]
    )
    assert [found.kind for found in trace.find("S1")] == ["transaction", "delivery", "notice", "delivery"]
    assert [found.at for found in trace.find("bob@x.example")] == [1.0, 2.0, 3.0, 4.0]


def test_an_address_can_be_forgotten(trace: SqliteTrace) -> None:
    trace.append([event(1.0, ("Q1", "bob@x.example")), event(2.0, ("Q1", "alice@x.example"))])
    assert trace.forget("Bob@x.example") == 1
    assert trace.forget("Bob@x.example") == 0
    assert [found.at for found in trace.find("Q1")] == [2.0]


def test_a_failed_append_keeps_nothing_of_its_batch(trace: SqliteTrace) -> None:
    cyclic: dict[str, object] = {}
    cyclic["me"] = cyclic
    with pytest.raises(ValueError):
        trace.append([event(1.0, ("Q1",)), event(2.0, ("Q1",), more=cyclic)])
    trace.append([event(3.0, ("Q1",))])
    assert [found.at for found in trace.find("Q1")] == [3.0]


def test_old_events_go_first_by_age_then_by_size(trace: SqliteTrace) -> None:
    now = time.time()
    trace.append([event(now - age, ("Q",), n=age) for age in (1000, 500, 10)])
    assert trace.prune(700, 10**9) == 1
    assert [found.data["n"] for found in trace.find("Q")] == [500, 10]
    trace.append([event(now - 100 + n / 1000, ("B",), text="x" * 200) for n in range(12_000)])
    removed = trace.prune(700, 2_000_000)
    assert 2 <= removed < 12_002
    assert trace.find("Q") != []
    assert all(found.data["n"] == 10 for found in trace.find("Q"))
    assert trace.prune(700, 2_000_000) == 0
