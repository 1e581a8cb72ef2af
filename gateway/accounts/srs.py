"""The Sender Rewriting Scheme: a forwarder's own reverse-path that holds the sender's, so that SPF passes at the next
hop and a bounce finds its way back. Nobody but who has the secret can make one, and it holds for some weeks.

`SRS0=hash=day=domain=local` holds a sender; `SRS1=hash=forwarder=rest` the SRS0 of the first forwarder of a row. The
hash and the day are in base32: hosts on the way may change the case of a local part.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable

from gateway.core.address import MAX_PATH, Domain, Mailbox, parse_domain

MAX_AGE_DAYS = 21  # longer than anybody's queue keeps a message that we have not kept ourselves
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DAYS = 1024  # the day's number goes round
_HASH = 8  # letters: 40 bits
_FLAGS = re.IGNORECASE | re.DOTALL | re.ASCII  # without the last a Kelvin sign is a k
_SRS0 = re.compile(rf"srs0[=+-]([a-z2-7]{{{_HASH}}})=([a-z2-7]{{2}})=([^=]+)=(.*)", _FLAGS)
_SRS1 = re.compile(rf"srs1[=+-]([a-z2-7]{{{_HASH}}})=([^=]+)=(.+)", _FLAGS)
# Of others, whose hashes are their own business.
_FOREIGN_SRS0 = re.compile(r"srs0([=+-].+)", _FLAGS)
_FOREIGN_SRS1 = re.compile(r"srs1[=+-][^=]+=([^=]+)=([=+-].+)", _FLAGS)


class SenderRewriting:
    """now: seconds since the epoch; max_age_days: that an address holds."""

    def __init__(self, secret: bytes, now: Callable[[], float], max_age_days: int = MAX_AGE_DAYS) -> None:
        self._secret = secret
        self._now = now
        self._max_age_days = min(max_age_days, _DAYS // 2)

    def forward(self, sender: Mailbox, domain: Domain) -> Mailbox:
        """The reverse-path of `domain` that holds the sender; one that would be too long stays the sender's own."""
        first, further = _FOREIGN_SRS0.fullmatch(sender.local_part), _FOREIGN_SRS1.fullmatch(sender.local_part)
        if further is not None:
            held = f"{further[1]}={further[2]}"
            local = f"SRS1={self._hash(held)}={held}"
        elif first is not None:
            held = f"{sender.domain.ascii}={first[1]}"
            local = f"SRS1={self._hash(held)}={held}"
        else:
            held = f"{_written(self._today())}={sender.domain.ascii}={sender.local_part}"
            local = f"SRS0={self._hash(held)}={held}"
        rewritten = Mailbox(local, domain)
        return rewritten if len(str(rewritten).encode()) <= MAX_PATH else sender

    def reverse(self, mailbox: Mailbox) -> Mailbox | None:
        """Whom a bounce to the rewritten address is for; None: it is none of ours, or too old."""
        if match := _SRS0.fullmatch(mailbox.local_part):
            digest, day, domain, local = match.groups()
            is_good = self._holds(digest, f"{day}={domain}={local}") and self._is_recent(day)
        elif match := _SRS1.fullmatch(mailbox.local_part):
            digest, domain, rest = match.groups()
            local = f"SRS0{rest}"
            is_good = rest[0] in "=+-" and self._holds(digest, f"{domain}={rest}")
        else:
            return None
        try:
            return Mailbox(local, parse_domain(domain)) if is_good else None
        except ValueError:
            return None

    def _hash(self, held: str) -> str:
        digest = hmac.digest(self._secret, held.lower().encode(), hashlib.sha256)
        return base64.b32encode(digest).decode("ascii")[:_HASH]

    def _holds(self, digest: str, held: str) -> bool:
        return hmac.compare_digest(digest.upper(), self._hash(held))

    def _today(self) -> int:
        return int(self._now() // 86400) % _DAYS

    def _is_recent(self, day: str) -> bool:
        high, low = (_ALPHABET.index(letter) for letter in day.upper())
        return (self._today() - (high * 32 + low)) % _DAYS <= self._max_age_days


def _written(day: int) -> str:
    return _ALPHABET[day // 32] + _ALPHABET[day % 32]
