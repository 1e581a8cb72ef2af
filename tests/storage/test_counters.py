"""Counters over real processes: gauges by slot, windows, eviction, the share of the dead."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from gateway.storage.counters import MAX_SLOTS, SharedCounters


def in_child(body: Callable[[], object]) -> int:
    """Run in a forked process; its pid, not yet waited for."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return child


def finish(*children: int) -> None:
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


def test_a_gauge_holds_over_processes() -> None:
    counters = SharedCounters()

    def work(slot: int) -> None:
        counters.attach(slot)
        for _ in range(300):
            assert counters.acquire(("open", 10_000)) is None
            counters.hit("events", 1000.0)
        for _ in range(100):
            counters.release("open")

    finish(*[in_child(lambda slot=slot: work(slot)) for slot in range(4)])  # type: ignore[misc]
    assert counters.level("open") == 800
    assert counters.count("events") == 1200
    counters.drop_slot(2)
    assert counters.level("open") == 600


def test_the_limit_is_never_passed_by_many_processes() -> None:
    counters = SharedCounters()
    results = [os.pipe() for _ in range(4)]

    def work(slot: int) -> None:
        counters.attach(slot)
        got = sum(counters.acquire(("open", 50)) is None for _ in range(40))
        os.write(results[slot][1], bytes([got]))

    finish(*[in_child(lambda slot=slot: work(slot)) for slot in range(4)])  # type: ignore[misc]
    assert sum(os.read(read, 1)[0] for read, _ in results) == counters.level("open") == 50
    for pair in results:
        os.close(pair[0])
        os.close(pair[1])


def test_a_killed_process_frees_the_lock_and_its_share_can_be_dropped() -> None:
    counters = SharedCounters()

    def work() -> None:
        counters.attach(3)
        counters.acquire(("open", 10))
        with counters._locked():
            os._exit(0)

    finish(in_child(work))
    assert counters.acquire(("open", 10)) is None
    assert counters.level("open") == 2
    counters.drop_slot(3)
    assert counters.level("open") == 1
    counters.drop_slot(3)
    counters.release("open")
    assert counters.level("open") == 0


def test_release_never_goes_below_zero_nor_into_another_s_share() -> None:
    counters = SharedCounters()
    counters.attach(1)
    counters.acquire(("a", 1))
    counters.attach(2)
    counters.release("a")
    counters.release("nobody")
    assert counters.level("a") == 1
    assert counters.acquire(("a", 1)) == "a"
    assert counters.acquire(("b", 0)) == "b"


def test_of_several_gauges_all_are_taken_or_none() -> None:
    counters = SharedCounters(buckets=1)  # they share a bucket, and one is new where the other has just been found
    assert counters.acquire(("all", 2), ("address", 1)) is None
    assert counters.acquire(("all", 2), ("address", 1)) == "address"
    assert (counters.level("all"), counters.level("address")) == (1, 1)
    assert counters.acquire(("all", 1), ("other", 1)) == "all"
    assert counters.acquire(("other", 1), ("all", 1)) == "all"
    assert (counters.level("all"), counters.level("other")) == (1, 0)
    counters.release("all", "address")
    assert (counters.level("all"), counters.level("address")) == (0, 0)


def test_a_column_that_is_full_takes_no_more() -> None:
    counters = SharedCounters(buckets=1)
    assert counters.acquire(("open", 1_000_000)) is None
    offset = counters._find("open")
    counters._columns[counters._column(offset)] = 0xFFFF
    assert counters.acquire(("other", 5), ("open", 1_000_000)) == "open"
    assert (counters.level("open"), counters.level("other")) == (0xFFFF, 0)


def test_nobody_can_tell_which_keys_share_a_bucket() -> None:
    """Names of a stranger's choice would push another's window out, or fill the bucket of another's address."""
    script = "from gateway.storage.counters import _number_of; print(_number_of('login:bob'))"
    numbers = {subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(numbers) == 2


def test_giving_back_disturbs_no_window_and_no_other_process() -> None:
    """Four processes on one entry: they take, count and give back at once, and nothing of it is lost."""
    counters = SharedCounters(buckets=1)

    def work(slot: int) -> None:
        counters.attach(slot)
        for _ in range(5000):
            assert counters.acquire(("open", 10_000)) is None
            counters.hit("open", 1000.0)
            counters.release("open")
        assert counters.acquire(("open", 10_000)) is None

    finish(*[in_child(lambda slot=slot: work(slot)) for slot in range(4)])  # type: ignore[misc]
    assert (counters.level("open"), counters.count("open")) == (4, 20_000)


def test_a_window_counts_from_its_first_event_and_can_be_ended() -> None:
    counters = SharedCounters()
    assert [counters.hit("k", 1000.0) for _ in range(3)] == [1, 2, 3]
    assert counters.hit("k", 1000.0, 2.5) == 5.5
    assert counters.count("k") == 5.5
    assert counters.count("other") == 0
    counters.forget("k")
    counters.forget("other")
    assert counters.count("k") == 0
    assert counters.hit("k", 1000.0) == 1


def test_a_window_that_has_ended_counts_no_more() -> None:
    counters = SharedCounters()
    counters.hit("k", 0.0)
    assert counters.count("k") == 0
    assert counters.hit("k", 1000.0) == 1


def test_a_full_bucket_gives_up_the_window_that_ends_first_and_never_a_gauge_in_use() -> None:
    counters = SharedCounters(buckets=1)
    for number in range(7):
        counters.hit(f"w{number}", 1000.0 + number)
    assert counters.acquire(("gauge", 5)) is None
    counters.hit("new", 5000.0)
    assert [counters.count(f"w{number}") for number in range(7)] == [0, 1, 1, 1, 1, 1, 1]
    assert (counters.count("new"), counters.level("gauge")) == (1, 1)
    for number in range(7):
        assert counters.acquire((f"g{number}", 5)) is None
    assert counters.acquire(("one more", 5)) == "one more"
    assert counters.hit("uncounted", 10.0) == 1
    assert counters.count("uncounted") == 0
    assert counters.level("gauge") == 1
    counters.release("g0")
    assert counters.acquire(("one more", 5)) is None
    assert counters.level("one more") == 1


@pytest.mark.parametrize("slot", [-1, MAX_SLOTS])
def test_a_slot_out_of_range_is_refused(slot: int) -> None:
    with pytest.raises(ValueError, match="slot"):
        SharedCounters().attach(slot)
