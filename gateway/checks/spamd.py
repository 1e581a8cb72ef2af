"""SpamAssassin's spamd over its protocol (SPAMC/1.5): SYMBOLS to judge, TELL to teach.

One connection a request: it closes each.
"""

import asyncio
import re

from gateway.checks.engines import EngineError, Envelope, Thresholds, as_verdict
from gateway.spam.filter import SpamVerdict

MAX_SENT = 1024 * 1024  # octets: larger messages are not SpamAssassin's (spamc -s says 500 KB)
MAX_ANSWER = 256 * 1024
_STATUS = re.compile(rb"SPAMD/[\d.]+ (\d+) (\S+)")
_SPAM = re.compile(rb"^Spam: *(?:True|False|Yes|No) *; *(-?[\d.]+) */ *(-?[\d.]+)", re.MULTILINE | re.IGNORECASE)
_SURE = 2.0  # times the required score


class Spamd:
    name = "spamd"

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self._host, self._port = host, port
        self._timeout_s = timeout_s

    async def judge(self, octets: bytes, envelope: Envelope) -> SpamVerdict:
        """Raises EngineError."""
        if len(octets) > MAX_SENT:
            raise EngineError(f"message of {len(octets)} octets, at most {MAX_SENT} are sent")
        answer = await self._ask("SYMBOLS", {}, octets)
        head, _, body = answer.partition(b"\r\n\r\n")
        found = _SPAM.search(head)
        if found is None:
            raise EngineError(f"no verdict: {head[:200]!r}")
        score, required = float(found[1]), float(found[2])
        symbols = tuple(name for name in body.decode("ascii", "replace").strip().split(",") if name)
        return as_verdict(score, Thresholds(required, required * _SURE), symbols)

    async def learn(self, octets: bytes, *, is_spam: bool) -> None:
        """Raises EngineError, where spamd was not started with --allow-tell too."""
        await self._ask("TELL", {"Message-class": "spam" if is_spam else "ham", "Set": "local"}, octets)

    async def _ask(self, verb: str, fields: dict[str, str], octets: bytes) -> bytes:
        lines = [f"{verb} SPAMC/1.5", f"Content-length: {len(octets)}", *(f"{k}: {v}" for k, v in fields.items())]
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    writer.write("\r\n".join([*lines, "", ""]).encode() + octets)
                    await writer.drain()
                    writer.write_eof()
                    answer = await reader.read(MAX_ANSWER)
                    while piece := await reader.read(MAX_ANSWER):
                        answer += piece
                        if len(answer) > MAX_ANSWER:
                            raise EngineError("an answer without end")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
        status = _STATUS.match(answer)
        if status is None or status[1] != b"0":
            raise EngineError(f"answered {answer[:100]!r}")
        return answer

    async def close(self) -> None:
        """Nothing is kept."""
