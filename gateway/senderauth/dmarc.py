"""DMARC (RFC 9989): whose word a message claims to be, what that domain wants done, and whether SPF or DKIM vouch.

The organizational domain is found by walking the DNS tree, eight queries at most a domain; no public suffix list. What
to do with a message is the policy files' to say: here it only gets a result.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from gateway.core.address import parse_domain
from gateway.core.ports import DnsFailure, NoDomain, Records, Resolver
from gateway.message.header import Header, mailboxes
from gateway.senderauth.dkim import DkimResult
from gateway.senderauth.spf import SpfResult

RESULTS = ("none", "pass", "fail", "temperror", "permerror")
POLICIES = ("none", "quarantine", "reject")
_SHORTENED = 7  # labels that a longer name is cut to after the first query
_LOWERED = {"reject": "quarantine", "quarantine": "none"}  # by t=y
_AFTER_AT = re.compile(r"@([^@<>,;:\"()\[\]\\]+)")
_WORD_AFTER_AT = re.compile(r"@ ?([^ @<>,;:\"()\[\]\\]+)")
_ABOUT_DOTS = re.compile(r" ?([.@]) ?")
_URI = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:[^\s,!]+(?:![0-9]+[kmgt]?)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A domain's policy. sp, np: "" where it has none; psd: "y", "n" or "u"; rua: URIs as written, for reports."""

    p: str = "none"
    sp: str = ""
    np: str = ""
    adkim: str = "r"
    aspf: str = "r"
    psd: str = "u"
    is_testing: bool = False
    rua: tuple[str, ...] = ()
    is_usable: bool = True  # False: its policy cannot be read, and nobody gets reports

    def for_subdomain(self, *, exists: bool) -> str:
        return (self.sp if exists else self.np or self.sp) or self.p


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """result: one of RESULTS; domain: of the author, in A-labels, or ""; policy: what is wanted to be done with what
    fails, one of POLICIES, or "" where nobody says; policy_domain: who says it.
    """

    result: str
    domain: str = ""
    policy: str = ""
    policy_domain: str = ""
    record: DmarcRecord | None = None
    spf_aligned: bool = False
    dkim_aligned: bool = False
    reason: str = ""


class _NoAnswer(Exception):
    """DNS failed; the text says how."""


@dataclass(frozen=True, slots=True)
class _Walk:
    """What the tree above `start` holds: domains with a record, the longest first."""

    start: str
    found: tuple[tuple[str, DmarcRecord], ...]

    @property
    def organization(self) -> str:
        """RFC 9989 4.10.2."""
        for domain, record in self.found:
            if record.psd == "n":
                return domain
            if record.psd == "y" and domain != self.start:
                return ".".join(self.start.split(".")[-domain.count(".") - 2 :])
        return self.found[-1][0] if self.found else self.start

    @property
    def policy(self) -> tuple[str, DmarcRecord] | None:
        """RFC 9989 4.10.1: the author's own, the organization's, the public suffix's."""
        published = dict(self.found)
        for domain in (self.start, self.organization):
            if domain in published:
                return domain, published[domain]
        return next(((domain, record) for domain, record in self.found if record.psd == "y"), None)


async def evaluate_dmarc(
    header: Header, spf: SpfResult | None, signatures: Sequence[DkimResult], resolver: Resolver
) -> DmarcResult:
    """spf: of the reverse-path, or of HELO where that is null. The caller has the deadline."""
    domain, reason = author_domain(header)
    if not domain:
        return DmarcResult("permerror", reason=reason)
    told = DmarcResult("none", domain)
    try:
        walk = await _walk(domain, resolver)
        policy = walk.policy
        if policy is None:
            return replace(told, reason="no policy")
        policy_domain, record = policy
        if not record.is_usable:
            return replace(told, reason="policy cannot be read")
        wanted = await _wanted(domain, policy_domain, record, resolver)
        told = replace(told, policy=wanted, policy_domain=policy_domain, record=record)
        vouched = [spf.domain] if spf is not None and spf.result == "pass" else []
        signers = dict.fromkeys(each.domain for each in signatures if each.result == "pass")
        spf_aligned = await _any_aligned(walk, vouched, record.aspf, resolver)
        dkim_aligned = await _any_aligned(walk, signers, record.adkim, resolver)
    except _NoAnswer as error:
        return replace(told, result="temperror", reason=str(error))
    if spf_aligned or dkim_aligned:
        return replace(told, result="pass", spf_aligned=spf_aligned, dkim_aligned=dkim_aligned)
    unlearnt = [(each.domain, record.adkim) for each in signatures if each.result == "temperror"]
    if spf is not None and spf.result == "temperror":
        unlearnt.append((spf.domain, record.aspf))
    # RFC 9989 5.3.5: it might have been a pass. What could never vouch changes nothing, or strangers would choose this.
    if any(_could_align(walk, other, mode) for other, mode in unlearnt):
        return replace(told, result="temperror", reason="SPF or DKIM could not be learnt")
    return replace(told, result="fail")


def author_domain(header: Header) -> tuple[str, str]:
    """The only domain of the From field; or "" and why there is none."""
    fields = [field for field in header.fields if field.name.lower() == "from"]
    if len(fields) != 1:
        return "", "no From field" if not fields else "several From fields"
    addresses = mailboxes(fields[0].value)
    if addresses is None:
        # Not as RFC 5322 has it, so readers may take any part of it for the author.
        text = " ".join(fields[0].value.decode("utf-8", "replace").split())
        names = _AFTER_AT.findall(text.replace(" ", ""))
        for each in (text, _ABOUT_DOTS.sub(r"\1", text)):  # to some a name ends at a blank
            names += (word for word in _WORD_AFTER_AT.findall(each) if "." in word.strip("."))
    else:
        names = [address.rpartition("@")[2] for address in addresses]
    try:
        domains = {parse_domain(name.rstrip(".")) for name in names}
    except ValueError:
        return "", "From names no domain"
    if len(domains) > 1:
        return "", "From names several domains"  # RFC 9989 5.3.1 exempts them
    if not domains or (domain := domains.pop()).is_literal:
        return "", "From names no domain"
    return domain.ascii, ""


# --- records ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def parse_dmarc(octets: bytes) -> DmarcRecord | None:
    """None: no DMARC record. What cannot be read in one counts as not written, but for its policies."""
    first, *rest = octets[:4096].decode("utf-8", "replace").split(";")
    name, _, version = first.partition("=")
    if name.strip().lower() != "v" or version.strip() != "DMARC1":
        return None
    tags: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if equals:
            tags.setdefault(key.strip().lower(), value.strip())

    def one_of(key: str, words: str, default: str) -> str:
        value = tags.get(key, default).lower()
        return value if value in words.split() else default

    rua = tuple(uri.strip() for uri in tags.get("rua", "").split(",") if _URI.fullmatch(uri))
    written = {key: tags[key].lower() for key in ("p", "sp", "np") if key in tags}
    is_read = all(value in POLICIES for value in written.values())
    return DmarcRecord(
        p=written.get("p", "none") if is_read else "none",
        sp=written.get("sp", "") if is_read else "",
        np=written.get("np", "") if is_read else "",
        adkim=one_of("adkim", "r s", "r"),
        aspf=one_of("aspf", "r s", "r"),
        psd=one_of("psd", "y n u", "u"),
        is_testing=one_of("t", "y n", "n") == "y",
        rua=rua,
        is_usable=is_read or bool(rua),
    )


async def _record(domain: str, resolver: Resolver) -> DmarcRecord | None:
    """The only one that the domain publishes: of several none counts."""
    answer = await resolver.lookup(f"_dmarc.{domain}", "TXT")
    if isinstance(answer, DnsFailure):
        raise _NoAnswer(f"_dmarc.{domain}: DNS {answer.reason}")
    if not isinstance(answer, Records):
        return None
    found = [record for value in answer.values if isinstance(value, bytes) and (record := parse_dmarc(value))]
    return found[0] if len(found) == 1 else None


async def _walk(start: str, resolver: Resolver) -> _Walk:
    """RFC 9989 4.10: the name itself, then from seven labels up to one, until a record draws the boundary."""
    labels = start.split(".")
    above = labels[1:] if len(labels) <= _SHORTENED else labels[-_SHORTENED:]
    names = [start, *(".".join(above[number:]) for number in range(len(above)))]
    found: list[tuple[str, DmarcRecord]] = []
    for name in names:
        record = await _record(name, resolver)
        if record is not None:
            found.append((name, record))
            if record.psd != "u":
                break
    return _Walk(start, tuple(found))


# --- policy and alignment ---------------------------------------------------------------------------------------------


async def _wanted(domain: str, policy_domain: str, record: DmarcRecord, resolver: Resolver) -> str:
    if domain == policy_domain:
        wanted = record.p
    else:
        tells_apart = record.np and record.np != record.for_subdomain(exists=True)
        wanted = record.for_subdomain(exists=not tells_apart or await _exists(domain, resolver))
    return _LOWERED.get(wanted, wanted) if record.is_testing else wanted


async def _exists(domain: str, resolver: Resolver) -> bool:
    """RFC 9989 3.2.14: it has an A, AAAA or MX record."""
    for rdtype in ("A", "AAAA", "MX"):
        answer = await resolver.lookup(domain, rdtype)
        if isinstance(answer, DnsFailure):
            raise _NoAnswer(f"{domain}: DNS {answer.reason}")
        if isinstance(answer, Records):
            return True
        if isinstance(answer, NoDomain):
            return False
    return False


def _could_align(author: _Walk, domain: str, mode: str) -> bool:
    """As far as can be told without a query."""
    return domain == author.start or (mode != "s" and f".{domain}".endswith(f".{author.organization}"))


async def _any_aligned(author: _Walk, domains: Iterable[str], mode: str, resolver: Resolver) -> bool:
    """RFC 9989 4.4: equal, or where relaxed of one organization."""
    possible = [domain for domain in domains if _could_align(author, domain, mode)]
    ordered = sorted(possible, key=lambda domain: domain != author.start)  # what needs no query first
    for domain in ordered:
        if domain == author.start:
            return True
        if (await _walk(domain, resolver)).organization == author.organization:
            return True
    return False
