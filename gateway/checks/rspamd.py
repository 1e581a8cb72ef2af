"""rspamd over HTTP: what it makes of a message (`/checkv2`), and what it is taught (`/learnspam`, `/learnham`).

The connections are kept and shared. Its own settings decide what it looks at; here it is told the envelope.
"""

import json
from typing import Any

import httpcore

from gateway.checks.engines import EngineError, Envelope, Thresholds, as_verdict
from gateway.spam.filter import SpamVerdict

MAX_CONNECTIONS = 16
KEEP_S = 30.0
MAX_ANSWER = 1024 * 1024
_ADD_HEADER_SHARE = 0.4  # of rspamd's own required score: where its stock settings add a header


class Rspamd:
    """url: `http://127.0.0.1:11333`; password: of its controller, for learning."""

    name = "rspamd"

    def __init__(self, url: str, timeout_s: float, password: str = "") -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._password = password
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def judge(self, octets: bytes, envelope: Envelope) -> SpamVerdict:
        """Raises EngineError."""
        headers = {
            "IP": envelope.client_ip,
            "Helo": envelope.helo,
            "Hostname": envelope.client_name,
            "From": envelope.sender,
            "User": envelope.user,
        }
        pairs = [(name, value) for name, value in headers.items() if value]
        pairs += [("Rcpt", recipient) for recipient in envelope.recipients]
        answer = await self._post("/checkv2", pairs, octets)
        try:
            score, required = float(answer["score"]), float(answer["required_score"])
            symbols = tuple(str(name) for name in answer.get("symbols", {}))
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"no verdict: {str(answer)[:200]}") from error
        return as_verdict(score, Thresholds(required * _ADD_HEADER_SHARE, required), symbols)

    async def learn(self, octets: bytes, *, is_spam: bool) -> None:
        """Raises EngineError."""
        pairs = [("Password", self._password)] if self._password else []
        await self._post("/learnspam" if is_spam else "/learnham", pairs, octets)

    async def _post(self, path: str, pairs: list[tuple[str, str]], octets: bytes) -> dict[str, Any]:
        headers = [(name.encode(), _printable(value)) for name, value in pairs]
        headers += [(b"Host", b"rspamd"), (b"Content-Length", str(len(octets)).encode())]
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_S)
        try:
            answer = await self._pool.request(
                "POST", self._url + path, headers=headers, content=octets, extensions={"timeout": timeouts}
            )
            found = json.loads(answer.content[:MAX_ANSWER])
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise EngineError(f"{type(error).__name__}: {error}") from error
        except ValueError as error:
            raise EngineError(f"answered {answer.status}, and no JSON") from error
        if answer.status != 200 or not isinstance(found, dict):
            raise EngineError(f"answered {answer.status}: {str(found)[:200]}")
        return found

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()


def _printable(value: str) -> bytes:
    """Of a stranger: nothing that could end a field."""
    return "".join(char for char in value if " " <= char != "\x7f").encode("utf-8", "replace")[:500]
