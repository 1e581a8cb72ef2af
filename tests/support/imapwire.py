"""IMAP by hand: octets out, lines in."""

import socket
import ssl

from tests.support.gateway import PASSWORD, Gateway


class Wire:
    """Octets out, lines in."""

    def __init__(self, gateway: Gateway, listener: str = "imaps", user: str = "") -> None:
        self._socket: socket.socket = socket.create_connection(("127.0.0.1", gateway.ports[listener]), timeout=15)
        if listener == "imaps":
            self._socket = client_context().wrap_socket(self._socket)
        self._file = self._socket.makefile("rb")
        self.greeting = self._file.readline()
        if user:
            assert b"t OK" in self.ask(f'LOGIN {user} "{PASSWORD}"')

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def line(self) -> bytes:
        return self._file.readline()

    def until(self, tag: bytes = b"t") -> bytes:
        """All to the tagged response; b"" at the end of the connection."""
        out = []
        while line := self.line():
            out.append(line)
            if line.startswith(tag + b" "):
                break
        return b"".join(out)

    def ask(self, command: str | bytes) -> bytes:
        self.send(b"t " + (command.encode() if isinstance(command, str) else command) + b"\r\n")
        return self.until()

    def start_tls(self) -> None:
        self._file.close()
        self._socket = client_context().wrap_socket(self._socket)
        self._file = self._socket.makefile("rb")


def client_context() -> ssl.SSLContext:
    return ssl._create_unverified_context()
