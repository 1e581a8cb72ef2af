"""Three hundred generated messages, judged by us, by opendkim and by rspamd under the same DNS: the same verdicts, or a
reason that stands here.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.demo.nameserver import NameServer
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.senderauth.dkim import DkimResult, verify_dkim
from gateway.senderauth.dmarc import DmarcResult, evaluate_dmarc
from gateway.senderauth.signing import SigningKey, new_private_key
from gateway.senderauth.spf import SpfResult, check_spf
from tests.senderauth.opinions import Opinion, opendkim_results, opinions_missing, rspamd
from tests.senderauth.signing import rsa_key, signed
from tests.senderauth.test_signing import sealed

COUNT = 300
GOOD_IP, BAD_IP = "203.0.113.7", "198.51.100.9"
POLICIES = {
    "reject.example": "v=DMARC1; p=reject",
    "quarantine.example": "v=DMARC1; p=quarantine; sp=none",
    "none.example": "v=DMARC1; p=none",
    "strict.example": "v=DMARC1; p=reject; adkim=s; aspf=s",
    "subs.example": "v=DMARC1; p=none; sp=reject",
    "nothing.example": "",
    "bad.example": "v=DMARC1; p=rejct",
}
OTHER = "other.example"
SELECTORS = ("big", "big", "big", "small", "ed", "revoked", "testing", "strict", "absent")
FLAWS = ("", "", "", "", "body", "subject", "author", "expired", "future", "length")
ED25519 = new_private_key("ed25519")

# What the others call a pass and we do not, by our reason, and why.
NO_PASS = {
    "l= leaves a part of the body unsigned": "what follows is anybody's (RFC 6376 8.2); both let it pass",
    "i= is of a subdomain, and the key wants none": "t=s (RFC 6376 3.6.1): opendkim heeds it too, rspamd does not",
}
SEVERAL = "several From fields"  # a permerror here; rspamd takes such a message for one without DMARC


def text(name: str, value: str) -> str:
    parts = " ".join(f'"{value[at : at + 200]}"' for at in range(0, len(value), 200))
    return f"{name}. TXT {parts}"


def records() -> Iterator[str]:
    ed25519 = SigningKey("", "", ED25519).record
    for org in (*POLICIES, OTHER):
        for domain in (org, f"mail.{org}"):
            yield f"{domain}. A {GOOD_IP}"
            yield text(domain, f"v=spf1 ip4:{GOOD_IP} -all")
            rsa = f"p={rsa_key()[1]}"
            for selector, value in {
                "big": f"v=DKIM1; k=rsa; {rsa}", "small": f"v=DKIM1; p={rsa_key(1024)[1]}", "ed": ed25519,
                "revoked": "v=DKIM1; p=", "testing": f"v=DKIM1; t=y; {rsa}", "strict": f"v=DKIM1; t=s; {rsa}",
            }.items():  # fmt: skip
                yield text(f"{selector}._domainkey.{domain}", value)
        if POLICIES.get(org):
            yield text(f"_dmarc.{org}", POLICIES[org])


@dataclass(frozen=True, slots=True)
class Case:
    """flaw: what was done to the message after it was signed, or what its signature says."""

    octets: bytes
    ip: str
    sender: str
    author: str
    flaw: str

    def __str__(self) -> str:
        head = self.octets.partition(b"\r\n\r\n")[0].decode("utf-8", "replace")
        return f"--- {self.flaw or 'no flaw'}; {self.ip} <{self.sender}>\n{head}\n"


def cases() -> list[Case]:
    draw = random.Random(20261124)
    return [_case(draw, number) for number in range(COUNT)]


def _case(draw: random.Random, number: int) -> Case:
    org = draw.choice(list(POLICIES))
    domains = (org, org, f"mail.{org}", OTHER)
    author = draw.choice((org, org, f"mail.{org}"))
    flaw = draw.choice(FLAWS)
    body = b"".join(draw.choice((b"some \t text \r\n", b"\r\n", b"more\r\n")) for _ in range(draw.randint(1, 8)))
    message = (
        f"From: Anna <anna@{author}>\r\nTo: alice@example.org\r\nSubject: Number {number}\r\n\tfolded\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{number}@{author}>\r\n\r\n"
    ).encode() + body + b"End.\r\n"  # fmt: skip
    for _ in range(draw.choice((0, 1, 1, 1, 2))):
        message = _signed(draw, message, draw.choice(domains), flaw)
    match flaw:
        case "body":
            message = message.replace(b"End.", b"end.")
        case "subject":
            message = message.replace(b"Subject: Number", b"Subject: number")
        case "length":
            message += b"Buy this.\r\n"
        case "author":
            message = b"From: boss@elsewhere.example\r\n" + message
    return Case(message, draw.choice((GOOD_IP, BAD_IP)), f"bounce@{draw.choice(domains)}", author, flaw)


def _signed(draw: random.Random, message: bytes, domain: str, flaw: str) -> bytes:
    selector = draw.choice(SELECTORS)
    if selector == "ed":
        return sealed(message, SigningKey(domain, "ed", ED25519))
    now = int(time.time())
    more = {"expired": b"t=%d; x=%d" % (now - 9000, now - 5000), "future": b"t=%d" % (now + 90_000)}.get(flaw, b"")
    forms = (draw.choice((b"simple", b"relaxed")), draw.choice((b"simple", b"relaxed")))
    return signed(
        message, forms=forms, selector=selector.encode(), domain=domain.encode(), length=flaw == "length",
        bits=1024 if selector == "small" else 2048, more=more,
        identity=f"anna@sub.{domain}".encode() if draw.random() < 0.2 else None,
    )  # fmt: skip


# --- judging ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    case: Case
    spf: SpfResult
    dkim: tuple[DkimResult, ...]
    dmarc: DmarcResult
    opendkim: dict[str, str]
    rspamd: Opinion


async def _ours(each: Case, resolver: DnsResolver) -> tuple[SpfResult, tuple[DkimResult, ...], DmarcResult]:
    header = parse_header(each.octets)
    spf = await check_spf(each.ip, "mx.test", each.sender, resolver)
    signatures = await verify_dkim(header, MemoryBlob(each.octets), resolver)
    return spf, signatures, await evaluate_dmarc(header, spf, signatures, resolver)


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    made = cases()
    with NameServer(records()) as dns, rspamd(dns.address) as second:

        async def ours() -> list[tuple[SpfResult, tuple[DkimResult, ...], DmarcResult]]:
            resolver = DnsResolver(ResolverSettings([dns.address]), lambda rdtype, result, seconds: None)
            return [await _ours(each, resolver) for each in made]

        found = asyncio.run(ours())
        first = opendkim_results([each.octets for each in made], dns.address)
        opinions = [second.ask(each.octets, each.ip, "mx.test", each.sender) for each in made]
    return [
        Judged(each, *mine, theirs, opinion)
        for each, mine, theirs, opinion in zip(made, found, first, opinions, strict=True)
    ]


MISSING = opinions_missing()
pytestmark = [pytest.mark.peers, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


def test_the_messages_are_of_every_kind(judged: list[Judged]) -> None:
    assert Counter(each.dmarc.result for each in judged).keys() >= {"pass", "fail", "none"}
    words = Counter(signature.result for each in judged for signature in each.dkim)
    assert words.keys() >= {"pass", "fail", "policy", "permerror", "neutral"}
    assert all(words[word] >= 5 for word in ("pass", "fail", "policy", "permerror"))


def differing(judged: list[Judged], whose: str) -> list[tuple[DkimResult, str, Judged]]:
    """Signatures that pass here and not there, or the other way round, without a reason of NO_PASS."""
    found = []
    used: Counter[str] = Counter()
    for each in judged:
        for signature in each.dkim:
            key = f"{signature.domain}:{signature.selector}"
            theirs = each.opendkim.get(signature.signature) if whose == "opendkim" else each.rspamd.dkim.get(key)
            assert theirs is not None or signature.result != "pass"
            if theirs == "pass" and signature.reason in NO_PASS:
                used[signature.reason] += 1
            elif (signature.result == "pass") is not (theirs == "pass"):
                found.append((signature, theirs or "", each))
    assert used.keys() == (NO_PASS.keys() if whose == "rspamd" else set(list(NO_PASS)[:1])), "a reason explains nothing"
    return found


@pytest.mark.parametrize("whose", ["opendkim", "rspamd"])
def test_signatures_pass_here_where_they_pass_there(judged: list[Judged], whose: str) -> None:
    found = differing(judged, whose)
    shown = "".join(f"{signature} {whose}={theirs}\n{each.case}" for signature, theirs, each in found)
    assert not found, f"{len(found)} differ\n{shown}"


def test_spf_is_that_of_rspamd(judged: list[Judged]) -> None:
    assert {(each.spf.result, each.rspamd.spf) for each in judged} == {("pass", "allow"), ("fail", "fail")}


def test_dmarc_is_that_of_rspamd(judged: list[Judged]) -> None:
    found = []
    reasons: Counter[str] = Counter()
    for each in judged:
        mine = each.dmarc.result, each.dmarc.policy if each.dmarc.result == "fail" else ""
        if mine == each.rspamd.dmarc:
            continue
        own = {signature.reason for signature in each.dkim} & NO_PASS.keys()
        if each.dmarc.reason == SEVERAL and each.rspamd.dmarc == ("none", ""):
            reasons[SEVERAL] += 1
        elif mine[0] == "fail" and each.rspamd.dmarc == ("pass", "") and own:
            reasons[own.pop()] += 1
        else:
            found.append((mine, each))
    shown = "".join(f"{mine} rspamd={each.rspamd}\n{each.dkim} {each.dmarc}\n{each.case}" for mine, each in found)
    assert not found, f"{len(found)} differ\n{shown}"
    assert reasons[SEVERAL] == sum(each.case.flaw == "author" for each in judged)
    assert 0 < reasons.total() - reasons[SEVERAL] < 10
