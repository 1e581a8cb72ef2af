"""Decayed counts: after a half-life one counts as half, in whatever steps time passes."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.checks.reputation import Reputation
from gateway.storage.sqlite_state import SqliteState

DAY = 86400.0


def test_a_count_halves_in_a_half_life() -> None:
    assert Reputation(8, 4, 0).at_time(30 * DAY, 30 * DAY) == Reputation(4, 2, 30 * DAY)


@given(st.floats(0, 1e6), st.floats(0, 1e8), st.floats(0, 1e8))
def test_the_steps_in_which_time_passes_do_not_matter(count: float, first: float, second: float) -> None:
    start = Reputation(count, 0, 0)
    once = start.at_time(first + second, DAY * 30)
    twice = start.at_time(first, DAY * 30).at_time(first + second, DAY * 30)
    assert once.good == pytest.approx(twice.good, abs=1e-6)


def test_a_clock_that_goes_back_adds_nothing() -> None:
    assert Reputation(8, 4, 100).at_time(50, DAY) == Reputation(8, 4, 50)


def test_what_is_added_is_found_again_and_pruned(tmp_path: Path) -> None:
    async def story(state: SqliteState) -> None:
        await asyncio.gather(*(state.add_reputation("k", DAY, is_good=number % 3 > 0) for number in range(9)))
        found = await state.reputation("k")
        assert (round(found.good, 3), round(found.bad, 3)) == (6, 3)
        assert await state.reputation("other") == Reputation()

    state = SqliteState(tmp_path / "state.db")
    try:
        asyncio.run(story(state))
    finally:
        state.close()
