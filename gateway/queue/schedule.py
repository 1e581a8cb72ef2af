"""The retry plan: when to try again, when to warn, when to give up. Pure."""

from dataclasses import dataclass

_SPREAD = 0.1  # retries of one burst come apart by up to a tenth


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """retry: seconds to wait after attempt 1, 2, …, the last for all that follow."""

    retry: tuple[float, ...]
    expire_s: float
    warn_after_s: float

    def delay(self, attempts: int, spread: float) -> float:
        """Seconds after the `attempts`-th failure; spread: 0..1, from the caller's dice."""
        base = self.retry[min(attempts, len(self.retry)) - 1]
        return base * (1 + _SPREAD * spread)
