"""spam.*: what a filter says of a message. Engines are asked in the order that is set; the first answer is believed.

The embedded filter answers with what is in the message, and is what remains when no other does.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from gateway.checks.content import ContentClient
from gateway.checks.engines import EMBEDDED, Engine, EngineError, Envelope
from gateway.policy.context import Context, MessageFacts, Need
from gateway.policy.values import UNKNOWN, Found
from gateway.spam.filter import SpamVerdict
from gateway.telemetry import log

REST_S = 10.0  # that an engine which failed is not asked

_log = log.get("checks")


@dataclass(frozen=True, slots=True)
class Judged:
    verdict: SpamVerdict
    source: str


class Spam:
    """engines: those before the embedded one; on_result(engine, result): told ok or failed."""

    def __init__(
        self, content: ContentClient, engines: tuple[Engine, ...], on_result: Callable[[str, str], None]
    ) -> None:
        self._content = content
        self._engines = engines
        self._on_result = on_result
        self._failed: dict[Engine, float] = {}
        self._found: WeakKeyDictionary[MessageFacts, asyncio.Task[Judged | None]] = WeakKeyDictionary()

    async def fetch(self, need: Need, context: Context) -> Found:
        message = context.message
        if message is None:
            return UNKNOWN
        task = self._found.get(message)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._found[message] = asyncio.create_task(self._judge(message, _envelope(context)))
        found = await asyncio.shield(task)
        if found is None:
            return UNKNOWN
        match need.name:
            case "spam.probability":
                return found.verdict.probability
            case "spam.score":
                return found.verdict.score
            case "spam.symbols":
                return found.verdict.symbols
            case _:
                return found.source

    async def _judge(self, message: MessageFacts, envelope: Envelope) -> Judged | None:
        for engine in self._engines:
            if time.monotonic() - self._failed.get(engine, -REST_S) < REST_S:
                continue
            try:
                octets = await asyncio.to_thread(message.blob.head, message.size)
                verdict = await engine.judge(octets, envelope)
            except EngineError as error:
                self._failed[engine] = time.monotonic()
                self._on_result(engine.name, "failed")
                _log.warning("spam engine failed", engine=engine.name, reason=str(error))
            else:
                self._on_result(engine.name, "ok")
                return Judged(verdict, engine.name)
        spam = (await self._content.look(message)).spam
        return None if spam is None else Judged(spam, EMBEDDED)

    async def close(self) -> None:
        for engine in self._engines:
            await engine.close()


def _envelope(context: Context) -> Envelope:
    session = context.session
    recipients = () if context.recipient is None else (str(context.recipient),)
    return Envelope(
        session.client_ip, session.client_name or "", session.helo, session.user or "",
        str(context.reverse_path or ""), recipients,
    )  # fmt: skip
