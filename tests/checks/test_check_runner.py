"""How a fact is asked for: within its deadline, whatever its check does, counted, complained of now and then.

(The name of `tests/queue/test_runner.py` is taken: pytest tells test files apart by their names.)
"""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import values

from gateway.checks import runner
from gateway.checks.runner import Check, Checks
from gateway.policy.context import Context, Need
from gateway.policy.values import UNKNOWN, Found
from gateway.telemetry.metrics import Metrics, exposition
from tests.checks.asking import Logged, fetch, moved_by_hand
from tests.support.fakes import FakeClock
from tests.support.policies import STRANGER, context

NAMES, REVERSE = "helo.resolves", "client.reverse_dns"  # of the checks names and reverse_dns
NEVER_S = 30.0


class Learns:
    """A check that calls this, or takes for ever where there is nothing to call."""

    def __init__(self, learn: Callable[[], Found] | None) -> None:
        self._learn = learn

    async def fetch(self, need: Need, context: Context) -> Found:
        if self._learn is None:
            await asyncio.sleep(NEVER_S)
            raise AssertionError("nobody ended it")
        return self._learn()


def raising(error: BaseException) -> Callable[[], Found]:
    def learn() -> Found:
        raise error

    return learn


@pytest.fixture
def metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metrics:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))  # which Metrics sets: put back at the end
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    return Metrics(tmp_path, "test-0")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Logged:
    found = Logged()
    monkeypatch.setattr(runner, "_log", found)
    return found


def counted(folder: Path, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric by its labels' values, those of zero left out."""
    pattern = re.compile(rf"^smarthost_{name}(?:{{(.*)}})? (\S+)$", re.MULTILINE)
    found = {
        tuple(re.findall(r'="(.*?)"', labels)): float(value)
        for labels, value in pattern.findall(exposition(folder).decode())
    }
    return {labels: value for labels, value in found.items() if value}


def ask(check: Check, metrics: Metrics, deadline_s: float = 5.0) -> Found:
    return fetch(Checks({"names": check}, {"names": deadline_s}, metrics), NAMES, context(STRANGER))


@pytest.mark.parametrize("value", [True, False, None, "", 0, ("a", "b"), "text"])
def test_what_a_check_learns_is_the_fact(metrics: Metrics, logged: Logged, tmp_path: Path, value: Found) -> None:
    assert ask(Learns(lambda: value), metrics) is value
    assert counted(tmp_path, "check_results_total") == {("names", "known"): 1}
    assert counted(tmp_path, "check_seconds_count") == {("names",): 1}
    assert logged.lines == []


def test_what_a_check_cannot_learn_is_no_complaint(metrics: Metrics, logged: Logged, tmp_path: Path) -> None:
    assert ask(Learns(lambda: UNKNOWN), metrics) is UNKNOWN
    assert counted(tmp_path, "check_results_total") == {("names", "unknown"): 1}
    assert logged.lines == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no such thing"), "ValueError: no such thing"),
        (OSError(5, "broken"), "OSError: [Errno 5] broken"),
        (RuntimeError(), "RuntimeError: "),
        (TimeoutError("its own"), "timeout"),
    ],
)
def test_what_a_check_raises_is_unknown(
    metrics: Metrics, logged: Logged, tmp_path: Path, error: Exception, reason: str
) -> None:
    assert ask(Learns(raising(error)), metrics) is UNKNOWN
    assert counted(tmp_path, "check_results_total") == {("names", "unknown"): 1}
    assert counted(tmp_path, "check_seconds_count") == {("names",): 1}
    assert logged.lines == [("warning", "check failed", {"check": "names", "fact": NAMES, "reason": reason})]


def test_a_check_that_takes_too_long_is_ended_at_its_deadline(metrics: Metrics, logged: Logged, tmp_path: Path) -> None:
    started = time.monotonic()
    assert ask(Learns(None), metrics, 0.1) is UNKNOWN
    assert 0.09 < time.monotonic() - started < 3.0
    assert counted(tmp_path, "check_results_total") == {("names", "unknown"): 1}
    assert 0.09 < counted(tmp_path, "check_seconds_sum")[("names",)] < 3.0
    assert [warning["reason"] for warning in logged.warnings] == ["timeout"]


def test_each_check_has_a_deadline_of_its_own(
    metrics: Metrics, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of `names` is given and long; that of `reverse_dns` is not given."""
    monkeypatch.setattr(runner, "DEADLINE_S", 0.05)

    class Slow:
        async def fetch(self, need: Need, context: Context) -> Found:
            await asyncio.sleep(0.2)
            return "slow"

    checks = Checks({"names": Slow(), "reverse_dns": Slow()}, {"names": 5.0}, metrics)
    assert [fetch(checks, fact, context(STRANGER)) for fact in (NAMES, REVERSE)] == ["slow", UNKNOWN]


def test_a_fact_whose_check_is_missing_is_unknown(metrics: Metrics, logged: Logged, tmp_path: Path) -> None:
    assert fetch(Checks({"names": Learns(lambda: True)}, {}, metrics), REVERSE, context(STRANGER)) is UNKNOWN
    assert counted(tmp_path, "check_results_total") == {}


def test_the_end_of_a_session_ends_its_check(metrics: Metrics, logged: Logged, tmp_path: Path) -> None:
    """Cancellation is no failure: it passes through, and nothing is counted or logged."""
    checks = Checks({"names": Learns(raising(asyncio.CancelledError()))}, {}, metrics)
    with pytest.raises(asyncio.CancelledError):
        fetch(checks, NAMES, context(STRANGER))
    assert counted(tmp_path, "check_results_total") == {}
    assert logged.lines == []


def test_results_are_counted_by_check(metrics: Metrics, logged: Logged, tmp_path: Path) -> None:
    checks = Checks({"names": Learns(lambda: True), "reverse_dns": Learns(lambda: UNKNOWN)}, {}, metrics)
    for fact in (NAMES, REVERSE, REVERSE, NAMES, NAMES):
        fetch(checks, fact, context(STRANGER))
    assert counted(tmp_path, "check_results_total") == {("names", "known"): 3, ("reverse_dns", "unknown"): 2}


def test_a_failing_check_is_complained_of_once_a_minute(
    metrics: Metrics, logged: Logged, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "time", moved_by_hand(clock))
    fails = Learns(raising(OSError("broken")))
    checks = Checks({"names": fails, "reverse_dns": fails}, {}, metrics)
    seen = []
    for seconds in (0, 0, 59, 1, 0, 60):  # since the one before
        clock.advance(seconds)
        fetch(checks, NAMES, context(STRANGER))
        seen.append(len(logged.warnings))
    assert seen == [1, 1, 1, 2, 2, 3]
    fetch(checks, REVERSE, context(STRANGER))  # another check is another complaint
    assert [warning["check"] for warning in logged.warnings] == ["names"] * 3 + ["reverse_dns"]
