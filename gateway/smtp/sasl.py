"""SASL mechanisms as generators (RFC 4616 PLAIN; LOGIN as clients do it), without sockets and without base64.

A mechanism yields challenges, is sent responses, and returns Credentials; a malformed response raises SaslError.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

MAX_CREDENTIAL = 1024  # octets; argon2 is never fed more


class SaslError(ValueError):
    """The response breaks the mechanism's form."""


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"


Exchange = Generator[bytes, bytes, Credentials]


def plain() -> Exchange:
    response = yield b""
    parts = response.split(b"\0")
    if len(parts) != 3:
        raise SaslError("PLAIN wants authzid NUL authcid NUL password")
    authzid, authcid, password = map(_text, parts)
    if authzid and authzid.lower() != authcid.lower():
        raise SaslError("acting for another user is not offered")
    return _credentials(authcid, password)


def login() -> Exchange:
    user = _text((yield b"Username:"))
    password = _text((yield b"Password:"))
    return _credentials(user, password)


MECHANISMS: dict[str, Callable[[], Exchange]] = {"PLAIN": plain, "LOGIN": login}


def _text(octets: bytes) -> str:
    if len(octets) > MAX_CREDENTIAL or b"\0" in octets:
        raise SaslError("response too long or with NUL")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("response is not UTF-8") from None


def _credentials(user: str, password: str) -> Credentials:
    if not user or not password:
        raise SaslError("user and password must not be empty")
    return Credentials(user, password)
