"""A client that costs both servers alike: one socket over TLS, octets read up to the tagged answer, not looked at."""

import re
import socket
import ssl
import time

CHUNK = 256 * 1024
TAIL = 4096  # octets of the end of an answer that are kept

_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_CONTEXT.check_hostname, _CONTEXT.verify_mode = False, ssl.CERT_NONE


class Refused(Exception):
    """A command was not answered with OK; the text is the answer."""


class ImapClient:
    """Signed in once it is made. octets: how many the last command's answer had; answer: the end of it."""

    def __init__(self, port: int, user: str, password: str, *, chunk: int = CHUNK, timeout: float = 600.0) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = _CONTEXT.wrap_socket(plain)
        self._buffer = memoryview(bytearray(chunk))
        self._count = 0
        self.octets = 0
        self.answer = b""
        self._read_until(re.compile(rb"\* OK [^\n]*\n"))
        self.run(f'LOGIN "{user}" "{password}"')

    def run(self, command: str, literal: bytes | None = None) -> float:
        """Seconds until the tagged answer. literal: what follows the command, sent at once (LITERAL+)."""
        self._count += 1
        tag = f"x{self._count}"
        octets = f"{tag} {command}".encode()
        if literal is not None:
            octets += b" {%d+}\r\n" % len(literal) + literal
        done = re.compile(rb"(?:\A|\n)" + tag.encode() + rb" [^\n]*\n\Z")
        started = time.perf_counter()
        self._socket.sendall(octets + b"\r\n")
        self._read_until(done)
        seconds = time.perf_counter() - started
        last = self.answer[self.answer.rfind(b"\n", 0, -1) + 1 :]
        if not last.startswith(f"{tag} OK".encode()):
            raise Refused(f"{command[:100]}: {last.decode(errors='replace')}")
        return seconds

    def begin_idle(self) -> None:
        self._socket.sendall(b"idle IDLE\r\n")
        self._read_until(re.compile(rb"(?:\A|\n)\+ [^\n]*\n"))

    def _read_until(self, end: re.Pattern[bytes]) -> None:
        """No more than the end is looked at, so that long answers cost no more than to be read."""
        tail, octets, buffer = b"", 0, self._buffer
        while True:
            size = self._socket.recv_into(buffer)
            if not size:
                raise ConnectionError("the server has closed the connection")
            octets += size
            tail = bytes(buffer[size - TAIL : size]) if size >= TAIL else (tail + bytes(buffer[:size]))[-TAIL:]
            if tail.endswith(b"\n") and end.search(tail):
                self.octets, self.answer = octets, tail
                return

    def close(self) -> None:
        self._socket.close()
