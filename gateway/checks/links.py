"""message.urls, and the domains that a message links to."""

import asyncio

from publicsuffixlist import PublicSuffixList

from gateway.message.blob import INLINE_LIMIT
from gateway.message.urls import MAX_SCANNED, host_of, urls_of
from gateway.policy.context import Context, MessageFacts, Need
from gateway.policy.values import Found

# Read now: after the drop of privileges its file may be out of reach.
_SUFFIXES = PublicSuffixList()


class Links:
    async def fetch(self, need: Need, context: Context) -> Found:
        return await self._urls(context)

    async def domains(self, context: Context) -> tuple[str, ...]:
        """Registered domains (one label below a public suffix), in order, each once."""
        hosts = filter(None, map(host_of, await self._urls(context)))
        return tuple(dict.fromkeys(_SUFFIXES.privatesuffix(host) or host for host in hosts))

    async def _urls(self, context: Context) -> tuple[str, ...]:
        message = context.message
        if message is None:
            return ()
        if message.urls is None:
            message.urls = await _find(message)
        return message.urls


async def _find(message: MessageFacts) -> tuple[str, ...]:
    if message.size <= INLINE_LIMIT:
        return urls_of(message.blob.head(MAX_SCANNED))
    return await asyncio.to_thread(lambda: urls_of(message.blob.head(MAX_SCANNED)))
