"""PROXY headers over socket pairs: exactly the header is taken, whatever the pieces."""

import asyncio
import ipaddress
import socket
import struct

import pytest

from gateway.net.proxy_protocol import ProxiedClient, read_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes, tlvs: bytes = b"") -> bytes:
    return (
        SIGNATURE + bytes([0x20 | command, family]) + struct.pack("!H", len(addresses) + len(tlvs)) + addresses + tlvs
    )


def packed(source: str, target: str, ports: tuple[int, int] = (40000, 25)) -> bytes:
    return ipaddress.ip_address(source).packed + ipaddress.ip_address(target).packed + struct.pack("!HH", *ports)


def read(octets: bytes, *, piece: int = 10_000, close: bool = True) -> tuple[ProxiedClient | None, bytes]:
    """What the header says, and what is left on the socket."""

    async def story() -> tuple[ProxiedClient | None, bytes]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            reading = asyncio.create_task(read_header(ours))
            for at in range(0, len(octets), piece):
                await asyncio.sleep(0)
                theirs.send(octets[at : at + piece])
                await asyncio.sleep(0)
            if close:
                theirs.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(4):
                found = await reading
            try:
                return found, ours.recv(10_000)
            except BlockingIOError:
                return found, b""

    return asyncio.run(story())


V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 25\r\n"
V2 = v2(1, 0x11, packed("192.0.2.1", "198.51.100.1"))


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (V1, ProxiedClient("192.0.2.1", 40000)),
        (b"PROXY TCP6 2001:db8::1 ::1 40000 25\r\n", ProxiedClient("2001:db8::1", 40000)),
        (b"PROXY UNKNOWN\r\n", ProxiedClient(None)),
        (V2, ProxiedClient("192.0.2.1", 40000)),
        (v2(1, 0x21, packed("2001:db8::1", "::1")), ProxiedClient("2001:db8::1", 40000)),
        (v2(0, 0, b""), ProxiedClient(None)),
        (v2(1, 0x11, packed("192.0.2.1", "198.51.100.1"), b"\x04\0\x03abc"), ProxiedClient("192.0.2.1", 40000)),
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
@pytest.mark.parametrize("rest", [b"", b"EHLO x\r\nPROXY TCP4 "])
def test_exactly_the_header_is_taken(header: bytes, client: ProxiedClient, piece: int, rest: bytes) -> None:
    assert read(header + rest, piece=piece) == (client, rest)


def test_the_header_is_read_before_the_peer_says_more() -> None:
    assert read(V1, close=False) == (ProxiedClient("192.0.2.1", 40000), b"")


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"EHLO x\r\n",
        b"PROXY",
        b"PROXY TCP4 192.0.2.1",
        b"PROXY TCP4 192.0.2.999 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 2\r\n",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 " + b"1" * 200 + b"\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 25\n",
        b"proxy TCP4 192.0.2.1 198.51.100.1 40000 25\r\n",
        SIGNATURE,
        V2[:-1],
        SIGNATURE + b"\x21\x11\xff\xff",
        SIGNATURE + b"\x31\x11\0\x0c" + packed("192.0.2.1", "198.51.100.1"),
        v2(1, 0x11, b"\1\2\3"),
        v2(7, 0x11, packed("192.0.2.1", "198.51.100.1")),
        b"\0" * 20,
        b"\r\n\r\n\r\n",
    ],
)
@pytest.mark.parametrize("piece", [1, 10_000])
def test_what_is_no_header_names_nobody(octets: bytes, piece: int) -> None:
    assert read(octets, piece=piece)[0] is None
