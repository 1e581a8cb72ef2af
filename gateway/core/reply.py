"""An SMTP reply as a value (RFC 5321 4.2, RFC 2034 for the enhanced status)."""

from dataclasses import dataclass, replace

MAX_LINE = 512  # octets with CRLF, RFC 5321 4.5.3.1.5


@dataclass(frozen=True, slots=True)
class Reply:
    """code: 200 to 599; status: enhanced status such as "5.7.1", or "" where none belongs; lines: one or more texts."""

    code: int
    status: str
    lines: tuple[str, ...]

    @property
    def is_positive(self) -> bool:
        return self.code < 400

    @property
    def is_success(self) -> bool:
        """2yz: done. 3yz is positive too, but asks for more."""
        return 200 <= self.code < 300

    @property
    def is_temporary(self) -> bool:
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500

    @property
    def text(self) -> str:
        return " ".join(self.lines)

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.status, self.text) if part)

    def render(self) -> bytes:
        """The octets on the wire. No control character and no line over 512 octets ever leaves here."""
        prefix = f"{self.status} " if self.status else ""
        last = len(self.lines) - 1
        out = []
        for number, line in enumerate(self.lines):
            text = f"{self.code}{' ' if number == last else '-'}{prefix}{line}"
            if not text.isprintable() or not text.isascii() or len(text) > MAX_LINE - 2:
                text = "".join(c if " " <= c <= "~" else "?" for c in text)[: MAX_LINE - 2]
            out.append(text + "\r\n")
        return "".join(out).encode("ascii")

    def with_id(self, decision_id: str) -> "Reply":
        """The same reply, its last line ending in ` [ID]`, which `smarthost trace ID` opens."""
        last = f"{self.lines[-1][: MAX_LINE - 64]} [{decision_id}]"
        return replace(self, lines=(*self.lines[:-1], last))


def reply(code: int, status: str, *lines: str) -> Reply:
    return Reply(code, status, lines)
