"""The PROXY header (haproxy.org/download/2.8/doc/proxy-protocol.txt) of a connection, before TLS and before any
reply.

Only peers in `[listen] proxy_from` are asked for one; whether the client it names may relay is decided elsewhere. The
octets are peeked first, so exactly the header is taken from the socket; aiosmtpd's parser reads it.
"""

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from aiosmtpd.proxy_protocol import get_proxy

_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_V1_LIMIT = 107  # octets with CRLF
_V2_LIMIT = 16 + 2048  # our bound on address and TLVs
HEADER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ProxiedClient:
    """ip is None for LOCAL and UNKNOWN: the proxy speaks for itself."""

    ip: str | None
    port: int = 0


async def read_header(connection: socket.socket) -> ProxiedClient | None:
    """The client a proxy names, or None when there is no valid header within 5 s."""
    try:
        async with asyncio.timeout(HEADER_TIMEOUT_S):
            header = await _take_header(connection)
    except (TimeoutError, OSError):
        return None
    if header is None:
        return None
    reader = asyncio.StreamReader()
    reader.feed_data(header)
    reader.feed_eof()
    data = await get_proxy(reader)
    if not data.valid:
        return None
    if data.version == 2 and data.command == 0:
        return ProxiedClient(None)
    if isinstance(data.src_addr, IPv4Address | IPv6Address):
        return ProxiedClient(str(data.src_addr), int(data.src_port or 0))
    return ProxiedClient(None)


async def _take_header(connection: socket.socket) -> bytes | None:
    loop = asyncio.get_running_loop()
    seen = 0
    while True:
        await _readable(loop, connection, seen)
        peeked = connection.recv(_V2_LIMIT, socket.MSG_PEEK)
        if len(peeked) <= seen:
            return None  # the peer closed
        seen = len(peeked)
        length = _header_length(peeked)
        if length == 0:
            return None
        if length is not None and length <= len(peeked):
            return connection.recv(length)


async def _readable(loop: asyncio.AbstractEventLoop, connection: socket.socket, seen: int) -> None:
    """Wait for octets beyond those already peeked; SO_RCVLOWAT makes the socket readable only then."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


def _header_length(octets: bytes) -> int | None:
    """Octets of the whole header; None: not known yet; 0: this is no PROXY header."""
    if octets.startswith(b"PROXY "):
        end = octets.find(b"\r\n", 0, _V1_LIMIT)
        if end >= 0:
            return end + 2
        return None if len(octets) < _V1_LIMIT else 0
    if octets.startswith(_V2_SIGNATURE):
        if len(octets) < 16:
            return None
        length = 16 + int.from_bytes(octets[14:16], "big")
        return length if length <= _V2_LIMIT else 0
    if _V2_SIGNATURE.startswith(octets) or b"PROXY ".startswith(octets):
        return None
    return 0
