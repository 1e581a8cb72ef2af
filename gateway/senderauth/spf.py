"""SPF (RFC 7208) by pyspf, on our resolver: no look-up blocks, and each check has a bound on its look-ups.

pyspf asks for DNS data in mid-evaluation and cannot wait. What it asks for and is not known yet ends the run; it is
looked up, and the evaluation begins again with what is known by then. Pinned to pyspf 2.0.14: `dns` is overridden, and
what reads a record's text, to bound its work.
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
MAX_RECORD = 8192  # octets
MAX_TERM = 512  # octets
MAX_WORK, TERM_COST = 10_000_000, 300  # a term costs the square of its octets and so much: 0.2 s in all
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


class _Work:
    """Of one check over all its restarts: some of pyspf's patterns take the square of a term's length."""

    def __init__(self) -> None:
        self._left = MAX_WORK

    def spend(self, text: str) -> None:
        """Raises PermError."""
        self._left -= len(text) ** 2 + TERM_COST
        if len(text) > MAX_TERM or self._left < 0:
            raise spf.PermError("The record is too long, or too much work")


class _Query(spf.query):
    """answers: what is known so far, by name and type; missing: what else the result hangs on."""

    def __init__(self, ip: str, sender: str, helo: str, answers: Mapping[tuple[str, str], Answer], work: _Work) -> None:
        super().__init__(i=ip, s=sender, h=helo, receiver="unknown", querytime=20)
        if sender:  # pyspf takes the first @ for the one that counts
            local, _, self.o = sender.rpartition("@")
            self.l, self.d = local or "postmaster", self.o
        self.set_default_explanation("")
        self.answers = answers
        self.work = work
        self.missing: tuple[str, str] | None = None

    def check0(self, record: str, recursion: int) -> object:
        if record and len(record) > MAX_RECORD:
            raise spf.PermError("The record is too long")
        return super().check0(record, recursion)

    def validate_mechanism(self, mech: str) -> object:
        self.work.spend(mech)
        return super().validate_mechanism(mech)

    def expand_domain(self, arg: str) -> object:
        self.work.spend(arg)
        return super().expand_domain(arg)

    def expand(self, s: str, stripdot: bool = True) -> object:
        self.work.spend(s)
        return super().expand(s, stripdot)

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
    work = _Work()
    for _ in range(MAX_LOOKUPS):
        query = _Query(ip, whole, name, answers, work)
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
