"""client.early_talker: RFC 5321 3.1 has the server speak first; programs that send spam often cannot wait."""

from gateway.policy.context import Context, Need
from gateway.policy.values import Found


class EarlyTalkers:
    """delay_s: how long a client is given to betray itself; it waits so long for its greeting."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def fetch(self, need: Need, context: Context) -> Found:
        return context.early_talk is not None and await context.early_talk(self._delay_s)
