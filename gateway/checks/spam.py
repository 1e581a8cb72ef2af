"""spam.*: what the filter says of a message. The embedded one answers with what is in the message."""

from gateway.checks.content import ContentClient
from gateway.policy.context import Context, Need
from gateway.policy.values import UNKNOWN, Found

EMBEDDED = "bayes"


class Spam:
    def __init__(self, content: ContentClient) -> None:
        self._content = content

    async def fetch(self, need: Need, context: Context) -> Found:
        if context.message is None:
            return UNKNOWN
        found = (await self._content.look(context.message)).spam
        if found is None:
            return UNKNOWN
        match need.name:
            case "spam.probability":
                return found.probability
            case "spam.score":
                return found.score
            case "spam.symbols":
                return found.symbols
            case _:
                return EMBEDDED
