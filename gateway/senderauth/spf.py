"""SPF (RFC 7208) by pyspf, on our resolver: no look-up blocks, and each check has a bound on its look-ups.

pyspf asks for DNS data in mid-evaluation and cannot wait. What it asks for and is not known yet ends the run; it is
looked up, and the evaluation begins again with what is known by then. Pinned to pyspf 2.0.14: `dns` is overridden.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import spf

from gateway.core.address import parse_domain
from gateway.core.ports import Answer, DnsFailure, Records, Resolver

MAX_LOOKUPS = 120  # 10 terms, of which each may be an `mx` of 10 names, and the record itself (RFC 7208 4.6.4)
MAX_EXPLANATION = 250
RESULTS = ("none", "neutral", "pass", "fail", "softfail", "temperror", "permerror")
_NAME = re.compile(r"[ -\[\]-~]{1,253}")  # printable, no backslash: what can stand in a query as it is
_WORDS = {"unknown": "permerror", "error": "temperror"}


@dataclass(frozen=True, slots=True)
class SpfResult:
    """result: one of RESULTS; domain: whose record it is, in A-labels; identity: "mailfrom" or "helo"; explanation: the
    domain's own words on a fail, printable ASCII, or "".
    """

    result: str
    domain: str
    identity: str
    explanation: str = ""


class _Missing(Exception):
    """A look-up whose answer is not known yet; the query names it in `missing`, for pyspf catches all in places."""


class _Query(spf.query):
    """answers: what is known so far, by name and type; missing: what else the result hangs on."""

    def __init__(self, ip: str, sender: str, helo: str, answers: Mapping[tuple[str, str], Answer]) -> None:
        super().__init__(i=ip, s=sender, h=helo, receiver="unknown", querytime=20)
        self.set_default_explanation("")
        self.answers = answers
        self.missing: tuple[str, str] | None = None

    def dns(
        self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False
    ) -> list[object]:  # as pyspf has it
        name = str(name).rstrip(".").lower()
        if not name or not all(0 < len(label) < 64 for label in name.split(".")):
            return []
        found = self._values(name, qtype)
        if not found and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return found

    def _values(self, name: str, qtype: str) -> list[object]:
        if not _NAME.fullmatch(name):
            return []
        answer = self.answers.get((name, qtype))
        if answer is None:
            self.missing = self.missing or (name, qtype)
            raise _Missing
        if isinstance(answer, DnsFailure):
            raise spf.TempError(f"DNS {answer.reason}")
        if not isinstance(answer, Records):
            return []
        return [(value,) if qtype == "TXT" else value for value in answer.values]


@dataclass(frozen=True)
class _Identity:
    """Whose word is asked for (RFC 7208 2.3, 2.4): the reverse-path, or HELO where that is null."""

    sender: str
    helo: str

    @cached_property
    def domain(self) -> str | None:
        """None: there is no name to ask."""
        name = self.sender.rpartition("@")[2] if self.sender else self.helo
        try:
            domain = parse_domain(name)
        except ValueError:
            return None
        return None if domain.is_literal or "." not in domain.ascii else domain.ascii

    @property
    def kind(self) -> str:
        return "mailfrom" if self.sender else "helo"


async def check_spf(ip: str, helo: str, sender: str, resolver: Resolver) -> SpfResult:
    """ip: of the client; sender: the reverse-path, "" for the null one. The caller has the deadline."""
    identity = _Identity(sender, helo)
    if identity.domain is None:
        return SpfResult("none", "", identity.kind)
    local = sender.rpartition("@")[0] if sender else ""
    whole = f"{local}@{identity.domain}" if sender else ""
    name = helo if sender else identity.domain
    answers: dict[tuple[str, str], Answer] = {}
    for _ in range(MAX_LOOKUPS):
        query = _Query(ip, whole, name, answers)
        word = said = ""
        with suppress(_Missing):
            word, _code, said = query.check()
        if query.missing is not None:
            answers[query.missing] = await resolver.lookup(*query.missing)
            continue
        result = _WORDS.get(word, word)
        return SpfResult(result, identity.domain, identity.kind, _plain(said) if result == "fail" else "")
    return SpfResult("permerror", identity.domain, identity.kind)


def _plain(text: object) -> str:
    """Foreign words for a reply."""
    return "".join(char if " " <= char <= "~" else "?" for char in str(text))[:MAX_EXPLANATION]
