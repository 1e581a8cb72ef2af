"""The retry plan in numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.queue.schedule import RetryPlan

PLAN = RetryPlan((300.0, 900.0, 1800.0), 432000.0, 14400.0)


@pytest.mark.parametrize(("attempts", "seconds"), [(1, 300), (2, 900), (3, 1800), (4, 1800), (1000, 1800)])
def test_the_last_delay_is_for_all_that_follow(attempts: int, seconds: float) -> None:
    assert PLAN.delay(attempts, 0.0) == seconds


@given(st.integers(1, 50), st.floats(0, 1))
def test_the_spread_adds_at_most_a_tenth(attempts: int, spread: float) -> None:
    base = PLAN.delay(attempts, 0.0)
    assert base <= PLAN.delay(attempts, spread) <= base * 1.1 + 1e-6
