"""Asks the check that provides a fact, within its deadline. What fails is UNKNOWN, counted, and logged now and then."""

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from gateway.policy.context import Context, Need
from gateway.policy.values import UNKNOWN, Found
from gateway.telemetry import log
from gateway.telemetry.metrics import Metrics

DEADLINE_S = 10.0
_LOG_EVERY_S = 60.0  # a failing check is logged so often at most

_log = log.get("checks")


class Check(Protocol):
    async def fetch(self, need: Need, context: Context) -> Found:
        """UNKNOWN when it cannot be learnt. What it raises counts as UNKNOWN too."""


class Checks:
    """`servers.smtp_judge.FactSource` over checks by name; deadlines: seconds, by name."""

    def __init__(self, checks: Mapping[str, Check], deadlines: Mapping[str, float], metrics: Metrics) -> None:
        self._checks = checks
        self._deadlines = deadlines
        self._metrics = metrics
        self._logged: dict[str, float] = {}

    async def fetch(self, need: Need, context: Context) -> Found:
        check = self._checks.get(need.provider)
        if check is None:
            return UNKNOWN
        started = time.perf_counter()
        value: Found = UNKNOWN
        try:
            async with asyncio.timeout(self._deadlines.get(need.provider, DEADLINE_S)):
                value = await check.fetch(need, context)
        except TimeoutError:
            self._complain(need, "timeout")
        except Exception as error:
            self._complain(need, f"{type(error).__name__}: {error}")
        self._metrics.check_seconds.labels(need.provider).observe(time.perf_counter() - started)
        self._metrics.check_results.labels(need.provider, "unknown" if value is UNKNOWN else "known").inc()
        return value

    def _complain(self, need: Need, reason: str) -> None:
        now = time.monotonic()
        if now - self._logged.get(need.provider, -_LOG_EVERY_S) >= _LOG_EVERY_S:
            self._logged[need.provider] = now
            _log.warning("check failed", check=need.provider, fact=need.key, reason=reason)
