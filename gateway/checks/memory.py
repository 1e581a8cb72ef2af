"""What is remembered of what happened: written after decisions, whichever rules ran, so that a look changes nothing."""

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import replace

from gateway.checks.greylist import Greylist
from gateway.checks.rates import Rates
from gateway.checks.reputation import FACTS as REPUTATION
from gateway.checks.reputation import Reputations
from gateway.checks.seen import SeenSenders
from gateway.checks.usage import Usage
from gateway.core.transaction import Recipient
from gateway.policy.context import Context
from gateway.policy.rules import Policy
from gateway.telemetry import log

WRITE_S = 5.0

_log = log.get("checks")


class Memory:
    """Only what the policy asks for is kept."""

    def __init__(
        self, rates: Rates, greylist: Greylist, seen: SeenSenders, reputations: Reputations, usage: Usage
    ) -> None:
        self._rates = rates
        self._greylist = greylist
        self._seen = seen
        self._reputations = reputations
        self._usage = usage

    def connected(self, policy: Policy, context: Context) -> None:
        self._rates.happened(policy, "connections", context)

    def sign_in_failed(self, policy: Policy, context: Context) -> None:
        self._rates.happened(policy, "auth_failures", context)

    async def tried_recipient(self, policy: Policy, context: Context, *, is_accepted: bool) -> None:
        if "greylist.state" in policy.facts and not context.session.may_relay:
            await self._written("greylist", self._greylist.happened(context), context)
        if is_accepted:
            self._rates.happened(policy, "recipients", context)

    async def accepted_message(
        self, policy: Policy, context: Context, recipients: Iterable[Recipient], *, is_welcome: bool
    ) -> None:
        """is_welcome: at least one recipient gets it now."""
        await self._judged(policy, context, is_good=is_welcome)
        if is_welcome and "seen.sender_before" in policy.facts:
            await self._written("seen", self._seen.happened(context), context)
        if is_welcome and "auth.usual" in policy.facts:
            await self._written("usage", self._usage.happened(context, context.recipient_count), context)
        self._rates.happened(policy, "messages", context, by=("client", "network", "sender", "user"))
        for recipient in recipients:
            own = replace(context, recipient=recipient.forward_path)
            self._rates.happened(policy, "messages", own, by=("recipient",))

    async def refused_message(self, policy: Policy, context: Context) -> None:
        """By a rule, for good, at its end."""
        await self._judged(policy, context, is_good=False)

    async def _judged(self, policy: Policy, context: Context, *, is_good: bool) -> None:
        if not context.session.may_relay and not policy.facts.isdisjoint(REPUTATION):
            await self._written("reputation", self._reputations.happened(context, is_good=is_good), context)

    async def _written(self, what: str, write: Awaitable[None], context: Context) -> None:
        """What cannot be remembered must not cost the mail."""
        try:
            async with asyncio.timeout(WRITE_S):
                await write
        except Exception as error:
            _log.warning("not remembered", what=what, session=context.session.id, reason=repr(error))
