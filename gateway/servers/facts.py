"""Where the SMTP role's policies get facts that have to be fetched."""

from typing import Protocol

from gateway.policy.context import Context, Need
from gateway.policy.values import Found


class FactSource(Protocol):
    async def fetch(self, need: Need, context: Context) -> Found:
        """Has its own deadline; UNKNOWN when the fact could not be learnt. Never raises."""
