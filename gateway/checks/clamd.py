"""clamd over pyclamd, made safe: one connection a scan, one deadline for all of it, and no verdict is no verdict.

The library's own `scan_stream` calls a connection that ends without an answer clean, sends with `send`, waits five
deadlines, and keeps its socket on the instance; what is taken from it are its commands and its framing.
"""

import re
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from pyclamd.pyclamd import ClamdNetworkSocket, ClamdUnixSocket

CHUNK = 64 * 1024
MAX_REPLY = 4096
_REPLY = re.compile(r"stream: (?:(?P<clean>OK)|(?P<name>\S.*?)(?:\([0-9a-f]{32}:\d+\))? FOUND|(?P<error>.*) ERROR)\Z")
_LIMIT = re.compile(r"INSTREAM: Size limit reached|INSTREAM size limit exceeded", re.IGNORECASE)
# Alerts that say what clamd did not look at, rather than what it found.
_PARTIAL = ("Heuristics.Limits.Exceeded", "Heuristics.Encrypted")


class ClamdError(Exception):
    """No verdict."""


@dataclass(frozen=True, slots=True)
class ClamdVerdict:
    """name: of what was found, "" for nothing; is_partial: not all of it was looked at."""

    name: str = ""
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class ClamdAddress:
    """path: of a unix socket, else host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"tcp:{self.host}:{self.port}"


def parse_clamd(text: str) -> ClamdAddress:
    """`unix:/run/clamav/clamd.ctl`, `tcp:127.0.0.1:3310`. Raises ValueError."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest.startswith("/"):
        return ClamdAddress(path=rest)
    host, colon, port = rest.rpartition(":")
    if scheme == "tcp" and colon and host and port.isdigit() and 0 < int(port) < 65536:
        return ClamdAddress(host=host.strip("[]"), port=int(port))
    raise ValueError(f"{text!r}: a clamd is unix:/PATH or tcp:HOST:PORT")


class _Safe:
    """Over pyclamd's own four steps of an exchange, so that its commands are safe too. For one call."""

    clamd_socket: socket.socket | None = None
    until = 0.0  # of time.monotonic

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_socket()

    def _armed(self) -> socket.socket:
        if self.clamd_socket is None:
            raise ClamdError("not connected")
        self.clamd_socket.settimeout(_left(self.until))
        return self.clamd_socket

    def _send_command(self, command: str) -> None:
        self._armed().sendall(b"z" + command.encode() + b"\0")

    def _recv_response(self) -> str:
        """Up to the NUL that ends it."""
        found = b""
        while b"\0" not in found:
            octets = self._armed().recv(MAX_REPLY)
            found += octets
            if not octets or len(found) > MAX_REPLY:
                raise ClamdError(f"the connection ended without an answer, after {found[:100]!r}")
        return found.partition(b"\0")[0].decode("utf-8", "replace")

    def _close_socket(self) -> None:
        if self.clamd_socket is not None:
            self.clamd_socket.close()
            self.clamd_socket = None

    def _init_socket(self) -> None:
        raise NotImplementedError

    def stream(self, file: BinaryIO) -> str:
        """What clamd says of a stream."""
        self._init_socket()
        self._send_command("INSTREAM")
        try:
            while chunk := file.read(CHUNK):
                self._armed().sendall(struct.pack(">I", len(chunk)) + chunk)
            self._armed().sendall(struct.pack(">I", 0))
        except (BrokenPipeError, ConnectionResetError):
            pass  # clamd hangs up on a stream over its limit; why, it has said before
        return self._recv_response()


class _Unix(_Safe, ClamdUnixSocket):  # type: ignore[misc]  # pyclamd has no types
    def __init__(self, address: ClamdAddress, until: float) -> None:
        self.address, self.until = address, until  # the library's own __init__ asks for a PONG each time

    def _init_socket(self) -> None:
        self.clamd_socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._armed().connect(self.address.path)


class _Network(_Safe, ClamdNetworkSocket):  # type: ignore[misc]  # pyclamd has no types
    def __init__(self, address: ClamdAddress, until: float) -> None:
        self.address, self.until = address, until

    def _init_socket(self) -> None:
        self.clamd_socket = socket.create_connection((self.address.host, self.address.port), _left(self.until))
        self.clamd_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise ClamdError("the deadline has passed")
    return left


def connection(address: ClamdAddress, until: float) -> Any:
    """pyclamd's commands (ping, version, stats, reload) for one call: `with connection(…) as clamd`. They raise
    ClamdError and OSError, of which pyclamd's own ConnectionError is one.
    """
    return _Unix(address, until) if address.path else _Network(address, until)


def scan(address: ClamdAddress, file: BinaryIO, until: float) -> ClamdVerdict:
    """Blocking. until: of time.monotonic. Raises ClamdError, OSError: there is no verdict then."""
    with connection(address, until) as clamd:
        answer = clamd.stream(file)
    if _LIMIT.search(answer):
        return ClamdVerdict(is_partial=True)
    match = _REPLY.match(answer)
    if match is None or match["error"] is not None:
        raise ClamdError(f"no verdict: {answer[:200]!r}")
    name = (match["name"] or "").removesuffix(".UNOFFICIAL")
    if name.startswith(_PARTIAL):
        return ClamdVerdict(is_partial=True)
    return ClamdVerdict(name)
