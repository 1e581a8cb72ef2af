"""Addresses to listen on, and the accept loop."""

import asyncio
import socket
from collections.abc import Callable, Coroutine

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.net.listener import Acceptor, bind, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("[::1]:25", ("::1", 25)),
        (":25", ("0.0.0.0", 25)),
        ("mail.example.org:65535", ("mail.example.org", 65535)),
        ("[::]:0", ("::", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "25",
        "127.0.0.1",
        "::1:25",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "x:\u00b2",
        "x: 25",
        "[]:25",
        "[127.0.0.1]:25",
        "[x]:25",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        host, port = parse_address(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65535


def test_an_address_in_use_is_a_config_error() -> None:
    with bind("127.0.0.1:0") as first:
        port = first.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: "):
            bind(f"127.0.0.1:{port}")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_small_replies_are_sent_at_once(run: Callable[[Coroutine[None, None, None]], None]) -> None:
    """The loop sets TCP_NODELAY on what it is handed, as it knows that it is TCP."""

    async def story() -> None:
        got: asyncio.Queue[socket.socket] = asyncio.Queue()
        with bind("127.0.0.1:0") as listening:
            acceptor = Acceptor(listening, lambda connection, peer: got.put_nowait(connection))
            with socket.create_connection(listening.getsockname(), timeout=5):
                connection = await asyncio.wait_for(got.get(), 5)
                transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, connection)
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                transport.close()
                await asyncio.sleep(0)
            acceptor.stop()

    run(story())


def test_connections_are_handed_over_with_their_peer() -> None:
    async def story() -> None:
        got: asyncio.Queue[tuple[socket.socket, tuple[str, int]]] = asyncio.Queue()
        with bind("127.0.0.1:0") as listening:
            acceptor = Acceptor(listening, lambda connection, peer: got.put_nowait((connection, peer)))
            with socket.create_connection(listening.getsockname(), timeout=5) as client:
                connection, peer = await asyncio.wait_for(got.get(), 5)
                with connection:
                    assert peer == client.getsockname()
                    assert not connection.getblocking()
            acceptor.stop()
            assert got.empty()

    asyncio.run(story())
