"""What is remembered of what happened: written after decisions, whichever rules ran, so that a look changes nothing."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from gateway.checks.greylist import Greylist
from gateway.checks.rates import Rates
from gateway.core.transaction import Recipient
from gateway.policy.context import Context
from gateway.policy.rules import Policy
from gateway.telemetry import log

WRITE_S = 5.0

_log = log.get("checks")


class Memory:
    """Only what the policy asks for is kept."""

    def __init__(self, rates: Rates, greylist: Greylist) -> None:
        self._rates = rates
        self._greylist = greylist

    def connected(self, policy: Policy, context: Context) -> None:
        self._rates.happened(policy, "connections", context)

    def sign_in_failed(self, policy: Policy, context: Context) -> None:
        self._rates.happened(policy, "auth_failures", context)

    async def tried_recipient(self, policy: Policy, context: Context, *, is_accepted: bool) -> None:
        if "greylist.state" in policy.facts and not context.session.may_relay:
            try:
                async with asyncio.timeout(WRITE_S):
                    await self._greylist.happened(context)
            except Exception as error:  # what cannot be remembered must not cost the mail
                _log.warning("greylist not written", session=context.session.id, reason=repr(error))
        if is_accepted:
            self._rates.happened(policy, "recipients", context)

    def accepted_message(self, policy: Policy, context: Context, recipients: Iterable[Recipient]) -> None:
        self._rates.happened(policy, "messages", context, by=("client", "network", "sender", "user"))
        for recipient in recipients:
            own = replace(context, recipient=recipient.forward_path)
            self._rates.happened(policy, "messages", own, by=("recipient",))
