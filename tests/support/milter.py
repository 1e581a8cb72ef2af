"""The MTA's side of the milter protocol (version 6), as far as one message needs it: what does this milter say of it?

As Sendmail's libmilter has it (mfdef.h). Milters that want to be given less, or to answer less, get their way.
"""

import re
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_VERSION = 6
_ACTIONS = 0x1FF
_STEPS = 0xFFFFF  # all but to get the blank after a field's colon
_BODY_CHUNK = 65_535
_ANSWERS = {b"c": "continue", b"a": "accept", b"r": "reject", b"t": "tempfail", b"d": "discard", b"y": "reply"}
# By command: the flag of a milter that does not want it, and that of one that does not answer it.
_UNWANTED = {
    b"C": (0x1, 0x1000), b"H": (0x2, 0x2000), b"M": (0x4, 0x4000), b"R": (0x8, 0x8000), b"T": (0x200, 0x10000),
    b"L": (0x20, 0x80), b"N": (0x40, 0x40000), b"B": (0x10, 0x80000), b"E": (0, 0),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """action: a word of _ANSWERS; reply: the SMTP reply of "reply"; added: names and values as they came;
    quarantined: why, or "".
    """

    action: str
    reply: str = ""
    added: tuple[tuple[str, str], ...] = ()
    quarantined: str = ""


class Milter:
    """One connection, for one message, to a Unix socket: over TCP a milter's small packets wait for each other.

    Whatever is not answered in time raises TimeoutError.
    """

    def __init__(self, path: Path, timeout: float = 20.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rb")
        self._added: list[tuple[str, str]] = []
        self._quarantined = ""
        self._socket.sendall(_packet(b"O", struct.pack("!III", _VERSION, _ACTIONS, _STEPS)))
        kind, data = self._read()
        assert kind == b"O", kind
        _, _, self._steps = struct.unpack_from("!III", data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def judge(
        self,
        message: bytes,
        *,
        ip: str,
        helo: str,
        reverse_path: str,
        recipients: Sequence[str] = ("alice@example.org",),
        macros: Mapping[str, str] | None = None,
    ) -> Verdict:
        """message: with CRLF. macros: more than those of every message; one of the same name is put in its place."""
        told = {"j": "mx.test", "{daemon_name}": "mx", "i": "4Q1", "{client_addr}": ip, **(macros or {})}
        family = b"6" if ":" in ip else b"4"
        head, _, body = message.partition(b"\r\n\r\n")
        commands = [
            (b"C", b"client.test\0" + family + struct.pack("!H", 25_000) + _z(ip)),
            (b"H", _z(helo)),
            (b"M", _z(f"<{reverse_path}>")),
            *((b"R", _z(f"<{recipient}>")) for recipient in recipients),
            (b"T", b""),
            *((b"L", _field(raw)) for raw in re.split(rb"\r\n(?![ \t])", head)),
            (b"N", b""),
            *((b"B", body[at : at + _BODY_CHUNK]) for at in range(0, len(body), _BODY_CHUNK)),
            (b"E", b""),
        ]
        for command, data in commands:
            unwanted, unanswered = _UNWANTED[command]
            if self._steps & unwanted:
                continue
            if command in b"CHMRTE":
                self._socket.sendall(_packet(b"D", command + b"".join(map(_z, sum(told.items(), ())))))
            self._socket.sendall(_packet(command, data))
            if not self._steps & unanswered:
                action, reply = self._answer()
                if action != "continue":
                    break
        self._socket.sendall(_packet(b"Q", b""))
        return Verdict(action, reply, tuple(self._added), self._quarantined)

    def _answer(self) -> tuple[str, str]:
        """The answer to the last command, past all that the milter wants changed before."""
        while True:
            kind, data = self._read()
            match kind:
                case b"h":
                    self._added.append(_named(data))
                case b"i":
                    self._added.append(_named(data[4:]))
                case b"q":
                    self._quarantined = data.rstrip(b"\0").decode()
                case b"p":
                    pass  # it needs more time
                case _:
                    return _ANSWERS[kind], data.rstrip(b"\0").decode()

    def _read(self) -> tuple[bytes, bytes]:
        (size,) = struct.unpack("!I", self._exactly(4))
        packet = self._exactly(size)
        return packet[:1], packet[1:]

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionError("the milter hung up")
        return data


def _packet(command: bytes, data: bytes) -> bytes:
    return struct.pack("!I", 1 + len(data)) + command + data


def _z(text: str) -> bytes:
    return text.encode() + b"\0"


def _field(raw: bytes) -> bytes:
    """Within a value lines end with LF, and one blank after the colon is not sent."""
    name, _, value = raw.partition(b":")
    return name + b"\0" + value.removeprefix(b" ").replace(b"\r\n", b"\n") + b"\0"


def _named(data: bytes) -> tuple[str, str]:
    name, value, _ = data.split(b"\0")
    return name.decode(), value.decode()
