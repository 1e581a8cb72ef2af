"""What is remembered of what happened: written after decisions, whichever rules ran, so that a look changes nothing."""

from collections.abc import Iterable
from dataclasses import replace

from gateway.checks.greylist import Greylist
from gateway.checks.rates import Rates
from gateway.core.transaction import Recipient
from gateway.policy.context import Context
from gateway.policy.rules import Policy


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
            await self._greylist.happened(context)
        if is_accepted:
            self._rates.happened(policy, "recipients", context)

    def accepted_message(self, policy: Policy, context: Context, recipients: Iterable[Recipient]) -> None:
        self._rates.happened(policy, "messages", context, by=("client", "network", "sender", "user"))
        for recipient in recipients:
            own = replace(context, recipient=recipient.forward_path)
            self._rates.happened(policy, "messages", own, by=("recipient",))
