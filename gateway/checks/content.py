"""What is in a message, as facts: attachments, and what is odd about its structure. Asked of the role `content`.

One request a message, whoever asks first; it goes on when who asked stops waiting, for others wait for it too.
"""

import asyncio
import os
import socket
from contextlib import ExitStack
from weakref import WeakKeyDictionary

from gateway.checks.findings import LookedAt, from_json
from gateway.content.inspection import Findings
from gateway.message.blob import FileBlob
from gateway.policy.context import Context, MessageFacts, Need
from gateway.policy.values import UNKNOWN, Found

MAX_AT_ONCE = 64  # requests of one process: those beyond wait here rather than in the kernel's queue
MAX_ANSWER = 256 * 1024
WAIT_S = 40.0  # for one answer: in the queue, and while it is looked at
_BUSY_S = 0.02  # until a full queue is tried again


class ContentError(Exception):
    """It could not be looked at."""


class ContentClient:
    """address: of the listening socket."""

    def __init__(self, address: bytes | str) -> None:
        self._address = address
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._found: WeakKeyDictionary[MessageFacts, asyncio.Task[LookedAt]] = WeakKeyDictionary()

    async def findings(self, message: MessageFacts) -> Findings:
        """Raises ContentError."""
        return (await self.look(message)).findings

    async def look(self, message: MessageFacts) -> LookedAt:
        """Raises ContentError."""
        task = self._found.get(message)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._found[message] = asyncio.create_task(self._ask(message))
        return await asyncio.shield(task)

    async def _ask(self, message: MessageFacts) -> LookedAt:
        try:
            async with asyncio.timeout(WAIT_S), self._slots:
                packet = await self._exchange(message)
        except TimeoutError:
            raise ContentError(f"no answer in {WAIT_S:g} s") from None
        except OSError as error:
            raise ContentError(str(error)) from error
        if not packet:
            raise ContentError("the answer was cut off")
        return from_json(packet)

    async def _exchange(self, message: MessageFacts) -> bytes:
        with ExitStack() as stack:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            peer.setblocking(False)
            await self._connect(peer)
            blob = message.blob
            if isinstance(blob, FileBlob):
                descriptor = os.open(blob.path, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                socket.send_fds(peer, [b"F"], [descriptor])
            else:
                peer.send(b"I" + blob.head(blob.size))
            return await asyncio.get_running_loop().sock_recv(peer, MAX_ANSWER)

    async def _connect(self, peer: socket.socket) -> None:
        while True:
            try:
                peer.connect(self._address)
            except BlockingIOError:  # the queue is full
                await asyncio.sleep(_BUSY_S)
            else:
                return


class Content:
    """attachments, message.faults, message.malformed."""

    def __init__(self, client: ContentClient) -> None:
        self._client = client

    async def fetch(self, need: Need, context: Context) -> Found:
        if context.message is None:
            return UNKNOWN
        findings = await self._client.findings(context.message)
        match need.name:
            case "attachments":
                return findings.attachments
            case "message.malformed":
                return findings.is_ambiguous
            case _:
                return findings.faults
