"""A program of Mozilla's driven from outside: Marionette's protocol, as much of it as running scripts needs.

A packet is `LENGTH:JSON`. The program greets; then each command [0, id, name, parameters] is answered by
[1, id, error, result]. Scripts run in the program's own window with all its rights.
"""

import contextlib
import json
import socket
from types import TracebackType
from typing import Self

from tests.support.process import LOOPBACK

SCRIPT_TIMEOUT = 20.0


class ScriptError(AssertionError):
    """The program refused a command, or a script in it threw or was too slow."""


class Marionette:
    """A session with the program that listens on this port (its preference `marionette.port`).

    Start it with `--marionette --remote-allow-system-access`, else scripts have no rights.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=SCRIPT_TIMEOUT + 10)
        self._reader = self._socket.makefile("rb")
        self._last = 0
        try:
            self._receive()  # the greeting
            self.command("WebDriver:NewSession")
            self.command("Marionette:SetContext", value="chrome")
            self.command("WebDriver:SetTimeouts", script=int(SCRIPT_TIMEOUT * 1000))
        except BaseException:
            self.close()
            raise

    def command(self, name: str, **parameters: object) -> object:
        """Send a command and return its result."""
        self._last += 1
        packet = json.dumps([0, self._last, name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(packet), packet))
        answer = self._receive()
        assert isinstance(answer, list), answer
        kind, number, error, result = answer
        assert (kind, number) == (1, self._last), answer
        if error is not None:
            raise ScriptError(f"{name}: {error['error']}: {error['message']}\n{error.get('stacktrace', '')}")
        return result

    def script(self, source: str, *arguments: object) -> object:
        """Run the body of a function, with `arguments` in it, and return its value, or that of its promise."""
        result = self.command(
            "WebDriver:ExecuteScript", script=source, args=list(arguments), sandbox="system", newSandbox=True
        )
        assert isinstance(result, dict), result
        return result["value"]

    def quit(self) -> None:
        """Ask the program to end at once; it may be gone before it answers."""
        with contextlib.suppress(OSError, EOFError):
            self.command("Marionette:Quit", flags=["eForceQuit"])

    def close(self) -> None:
        """Leave it; the program goes on."""
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive(self) -> object:
        """The next packet."""
        length = b""
        while (octet := self._reader.read(1)) != b":":
            if not octet.isdigit() or len(length) > 9:
                raise EOFError(f"no packet of Marionette's: {length + octet!r}")
            length += octet
        text = self._reader.read(int(length))
        if len(text) != int(length):
            raise EOFError("the program has ended in the middle of a packet")
        packet: object = json.loads(text)
        return packet
