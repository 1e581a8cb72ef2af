"""The server of pages: connections have a lifetime and a number, and what is being answered may finish."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.defaults import write_certificate
from gateway.net.listener import bind
from gateway.servers import web
from gateway.servers.web import WebListener


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    await asyncio.sleep(float(scope["path"][1:] or 0))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def contexts(folder: Path) -> Callable[[], ssl.SSLContext]:
    write_certificate(folder, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return lambda: context


class Served:
    def __init__(self, tls: Callable[[], ssl.SSLContext] | None = None) -> None:
        self.listening = bind("127.0.0.1:0")
        self.port = self.listening.getsockname()[1]
        self.server = WebListener(app, tls, [self.listening])
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, tls: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        self._writers.append(writer)
        return reader, writer

    async def ask(self, path: str = "/0") -> bytes:
        reader, writer = await self.connect()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return await answer(reader)

    async def close(self) -> None:
        await self.server.drain()
        self.listening.close()
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        try:
            return await reader.readuntil(b"ok")
        except asyncio.IncompleteReadError as error:
            return error.partial


def test_a_request_is_answered_and_the_connection_kept() -> None:
    async def story() -> list[bytes]:
        served = Served()
        reader, writer = await served.connect()
        found = []
        for _ in range(2):
            writer.write(b"GET /0 HTTP/1.1\r\nHost: x\r\n\r\n")
            found.append(await answer(reader))
        await served.close()
        return found

    for each in asyncio.run(story()):
        assert each.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"server:" not in each.lower()


def test_who_asks_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD_S", 0.2)

    async def story() -> tuple[bytes, bytes]:
        served = Served()
        silent, _ = await served.connect()
        slow, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        found = await answer(silent), await answer(slow)
        await served.close()
        return found

    assert asyncio.run(story()) == (b"", b"")


def test_what_is_being_answered_at_the_end_of_its_life_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HEAD_S", 0.1)
    monkeypatch.setattr(web, "LIFETIME_S", 0.2)

    async def story() -> tuple[bytes, bytes]:
        served = Served()
        reader, writer = await served.connect()
        writer.write(b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        found = await answer(reader)
        rest = await answer(reader)
        await served.close()
        return found, rest

    found, rest = asyncio.run(story())
    assert found.endswith(b"ok")
    assert rest == b""


def test_one_client_has_so_many_connections_and_a_proxy_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_BY_ADDRESS", 3)

    async def opened(served: Served) -> int:
        found = [await served.connect() for _ in range(5)]
        await asyncio.sleep(0.2)
        count = sum(not reader.at_eof() for reader, _ in found)
        await served.close()
        return count

    async def story() -> tuple[int, int]:
        return await opened(Served(contexts(tmp_path))), await opened(Served())

    assert asyncio.run(story()) == (3, 5)


def test_in_tls_the_newest_certificate_is_asked_for(tmp_path: Path) -> None:
    asked: list[ssl.SSLContext] = []
    make = contexts(tmp_path)

    def newest() -> ssl.SSLContext:
        asked.append(make())
        return asked[-1]

    async def story() -> bytes:
        served = Served(newest)
        reader, writer = await served.connect(ssl._create_unverified_context())
        writer.write(b"GET /0 HTTP/1.1\r\nHost: x\r\n\r\n")
        found = await answer(reader)
        plain, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"200" not in await answer(plain)
        await served.close()
        return found

    assert asyncio.run(story()).startswith(b"HTTP/1.1 200")
    assert len(asked) == 2


def test_a_drain_lets_what_is_being_answered_finish() -> None:
    async def story() -> bytes:
        served = Served()
        task = asyncio.create_task(served.ask("/0.5"))
        await asyncio.sleep(0.2)
        await served.close()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", served.port), timeout=1).close()
        return await task

    assert asyncio.run(story()).endswith(b"ok")
