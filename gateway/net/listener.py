"""Listening sockets and the accept loop.

The supervisor binds; workers inherit every socket and all accept from the same one, so a connection never waits
behind a worker that is down or busy while another is free (docs/decisions/0003-shared-listening-socket.md).
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address

from gateway.core.errors import ConfigError

BACKLOG = 512
ACCEPT_PAUSE_S = 0.1  # after running out of descriptors


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:25` or `[::1]:25`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port[:6]) > 65535:
        raise ValueError(f"{text!r} is no address:port")
    if host.startswith("["):
        host = host[1:-1] if host.endswith("]") else ""
        if ":" not in host or not _is_address(host):
            raise ValueError(f"{text!r}: brackets are for an IPv6 address")
    elif ":" in host:
        raise ValueError(f"{text!r}: an IPv6 address needs brackets")
    return host or "0.0.0.0", int(port)  # noqa: S104  # ":25" is all interfaces, as everywhere


def parse_listen_address(text: str) -> tuple[str, int]:
    """As `parse_address`, the host an IP address. Raises ValueError."""
    host, port = parse_address(text)
    if not _is_address(host):
        raise ValueError(f"{text!r}: an IP address is wanted, not a name")
    return host, port


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def bind(text: str) -> socket.socket:
    """A listening socket. proto is given since asyncio sets TCP_NODELAY only then. Raises ConfigError."""
    host, port = parse_listen_address(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ConfigError(f"cannot listen on {text}: {error.strerror}") from error
    return listening


class Acceptor:
    """Calls `on_connection(socket, peer)` for each connection, one an event-loop turn, so idle workers get theirs."""

    def __init__(
        self, listening: socket.socket, on_connection: Callable[[socket.socket, tuple[str, int]], None]
    ) -> None:
        self._listening = listening
        self._on_connection = on_connection
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._loop.add_reader(listening.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, peer = self._listening.accept()
        except OSError as error:
            # accept(2): on Linux it also reports what went wrong with a connection that is gone already.
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._loop.remove_reader(self._listening.fileno())
                self._loop.call_later(ACCEPT_PAUSE_S, self._resume)
            return
        connection.setblocking(False)
        self._on_connection(connection, (peer[0], peer[1]))

    def _resume(self) -> None:
        if not self._stopped:
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def stop(self) -> None:
        self._stopped = True
        self._loop.remove_reader(self._listening.fileno())
