"""The three hundred generated messages and some by hand, judged by us and by opendmarc under the same DNS.

opendmarc has DMARC by RFC 7489, with a list of public suffixes, we have it by RFC 9989. It is told our results of SPF
and DKIM in the field that we write. Besides, it has libspf2, which judges SPF of what test_policyd_spf asks.
"""

import asyncio
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.senderauth.arc import ArcResult
from gateway.senderauth.dkim import DkimResult, verify_dkim
from gateway.senderauth.dmarc import POLICIES, DmarcResult, evaluate_dmarc
from gateway.senderauth.results import Authentication, results_field
from gateway.senderauth.spf import SpfResult, check_spf
from tests.senderauth import test_policyd_spf as spf_test
from tests.senderauth import test_second_opinions as messages
from tests.support.milter import Milter, Verdict
from tests.support.process import Daemon, find_command, missing
from tests.support.resolving import asking, name_server, resolving_missing

OURS, THEIRS = "us.test", "theirs.test"
# Why opendmarc says something else of a generated message.
SEVERAL = "several From fields: a permerror here; it takes the first one"
UNREADABLE = "a policy that cannot be read: no DMARC (RFC 9989 4.10.1); it says permerror (RFC 7489 11.2)"
STRICT = "a subdomain vouches for a domain that wants strict alignment: its bug (OpenDMARC #268 is like it)"


@contextmanager
def opendmarc(dns: NameServer, *settings: str) -> Iterator[Path]:
    """Its socket."""
    folder = Path(tempfile.mkdtemp(prefix="smarthost-opendmarc-", dir="/tmp"))
    try:
        (folder / "suffixes").write_text("example\n")
        (folder / "ignored").write_text("")  # without such a file it looks at nothing from 127.0.0.1
        (folder / "opendmarc.conf").write_text(
            f"Socket local:{folder}/socket\nUserID opendmarc\nBackground no\nSyslog no\nAuthservID {THEIRS}\n"
            f"PublicSuffixList {folder}/suffixes\nIgnoreHosts {folder}/ignored\n" + "\n".join((*settings, ""))
        )
        argv = asking(dns, folder, [find_command("opendmarc") or "", "-f", "-c", folder / "opendmarc.conf"])
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, "opendmarc")
        daemon = Daemon(argv, log=folder / "opendmarc.out", ready=(folder / "socket").exists).start()
        try:
            yield folder / "socket"
        finally:
            daemon.kill()  # asked to end it takes five seconds
    finally:
        shutil.rmtree(folder)


def fields(verdict: Verdict) -> str:
    """What it found out, which it puts above the message: a field for each method."""
    assert {name for name, _ in verdict.added} <= {"Authentication-Results"}
    assert all(value.startswith(f"{THEIRS}; ") for _, value in verdict.added)
    return "; ".join(value for _, value in verdict.added)


def dmarc_of(
    socket: Path, message: bytes, ip: str, sender: str, spf: SpfResult, dkim: tuple[DkimResult, ...]
) -> tuple[str, str]:
    """Result, and the policy of a pass or a fail; "" if it says nothing of DMARC."""
    told = results_field(OURS, Authentication(spf, dkim, DmarcResult("none"), ArcResult("none")))
    with Milter(socket) as milter:
        verdict = milter.judge(told + message, ip=ip, helo="mx.test", reverse_path=sender)
    assert verdict.action in ("accept", "continue")  # RejectFailures is off
    found = re.search(r"dmarc=(\w+)(?: \(p=(\w+) )?", fields(verdict))
    return (found[1], (found[2] or "") if found[1] in ("pass", "fail") else "") if found else ("", "")


def resolver_of(dns: NameServer) -> DnsResolver:
    return DnsResolver(ResolverSettings([dns.address]), lambda rdtype, result, seconds: None)


MISSING = missing("opendmarc", root=True) or resolving_missing()
pytestmark = [pytest.mark.peers, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


# --- the generated messages -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """theirs: as of `dmarc_of`."""

    case: messages.Case
    spf: SpfResult
    dkim: tuple[DkimResult, ...]
    dmarc: DmarcResult
    theirs: tuple[str, str] = ("", "")

    @property
    def trait(self) -> str:
        """Why they differ, by what the message and the zone are; "": they must not."""
        author, org = self.case.author, self.case.author.removeprefix("mail.")
        if self.case.octets.count(b"From: ") > 1:
            return SEVERAL
        policy = messages.POLICIES[org]
        if policy and re.findall(r"p=(\w+)", policy)[0] not in POLICIES:
            return UNREADABLE
        vouching = {each.domain for each in self.dkim if each.result == "pass"}
        vouching |= {self.spf.domain} if self.spf.result == "pass" else set()
        is_strict = "adkim=s; aspf=s" in policy
        return STRICT if is_strict and author not in vouching and f"mail.{author}" in vouching else ""

    @property
    def expected(self) -> tuple[str, str]:
        """Of opendmarc."""
        mine = self.dmarc.result, self.dmarc.policy
        other = {SEVERAL: ("none", ""), UNREADABLE: ("permerror", ""), STRICT: ("pass", self.dmarc.policy)}
        return other.get(self.trait, mine)

    def __str__(self) -> str:
        return f"{self.dmarc}\n{self.spf} {self.dkim}\nopendmarc={self.theirs}, not {self.expected}\n{self.case}"


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    async def ours(dns: NameServer) -> list[Judged]:
        resolver = resolver_of(dns)
        found = []
        for each in messages.cases():
            header = parse_header(each.octets)
            spf = await check_spf(each.ip, "mx.test", each.sender, resolver)
            dkim = await verify_dkim(header, MemoryBlob(each.octets), resolver)
            found.append(Judged(each, spf, dkim, await evaluate_dmarc(header, spf, dkim, resolver)))
        return found

    with name_server(messages.records()) as dns, opendmarc(dns, f"TrustedAuthservIDs {OURS}") as socket:
        return [
            Judged(
                *(each.case, each.spf, each.dkim, each.dmarc),
                dmarc_of(socket, each.case.octets, each.case.ip, each.case.sender, each.spf, each.dkim),
            )
            for each in asyncio.run(ours(dns))
        ]


def test_dmarc_is_that_of_opendmarc(judged: list[Judged]) -> None:
    found = [each for each in judged if each.theirs != each.expected]
    assert not found, f"{len(found)} differ\n{''.join(map(str, found))}"


def test_every_reason_explains_something(judged: list[Judged]) -> None:
    mine = Counter(each.dmarc.result for each in judged if not each.trait)
    assert mine.keys() == {"pass", "fail", "none"}
    assert min(mine.values()) >= 30
    differing = [each for each in judged if each.theirs != (each.dmarc.result, each.dmarc.policy)]
    assert Counter(each.trait for each in differing) == Counter(each.trait for each in judged if each.trait)
    assert {each.trait for each in differing} == {SEVERAL, UNREADABLE, STRICT}


# --- by hand ----------------------------------------------------------------------------------------------------------

RECORDS = (
    '_dmarc.org.example TXT "v=DMARC1; p=none; sp=reject"', '_dmarc.mail.org.example TXT "v=DMARC1; p=quarantine"',
    '_dmarc.case.example TXT "v=DMARC1; P=Reject; ADKIM=S"', '_dmarc.lower.example TXT "v=dmarc1; p=reject"',
    '_dmarc.split.example TXT "v=DMARC1; p=re" "ject"', "_dmarc.alias.example CNAME _dmarc.case.example.",
    '_dmarc.percent.example TXT "v=DMARC1; p=reject; pct=0"',
    '_dmarc.testing.example TXT "v=DMARC1; p=reject; t=y"',
    '_dmarc.np.example TXT "v=DMARC1; p=none; np=reject"', "here.np.example A 192.0.2.1",
    '_dmarc.suffix.example TXT "v=DMARC1; p=reject; psd=y"',
    '_dmarc.cut.example TXT "v=DMARC1; p=reject"', '_dmarc.off.cut.example TXT "v=DMARC1; p=quarantine; psd=n"',
    '_dmarc.two.example TXT "v=DMARC1; p=reject"', '_dmarc.two.example TXT "v=DMARC1; p=none"',
    '_dmarc.also.example TXT "something else"', '_dmarc.also.example TXT "v=DMARC1; p=reject"',
    '_dmarc.late.example TXT "p=reject; v=DMARC1"',
    '_dmarc.rua.example TXT "v=DMARC1; p=rejct; rua=mailto:a@rua.example"', '_dmarc.nop.example TXT "v=DMARC1"',
    '_dmarc.badsp.example TXT "v=DMARC1; p=reject; sp=x"', '_dmarc.badspf.example TXT "v=DMARC1; p=reject; aspf=x"',
    "_dmarc.servfail.example TXT unseen",
)  # fmt: skip
ALIKE = [
    ("a@sub.org.example", "", "fail", "reject"),
    ("a@mail.org.example", "", "fail", "quarantine"),
    ("a@sub.mail.org.example", "", "fail", "reject"),
    ("a@sub.mail.org.example", "mail.org.example", "pass", "reject"),
    ("a@sub.mail.org.example", "else.org.example", "pass", "reject"),
    ("a@a.b.c.d.e.f.g.h.org.example", "", "fail", "reject"),
    ("a@CASE.example", "case.example", "pass", "reject"),
    ("a@case.example, b@case.example", "", "fail", "reject"),
    ("(b@org.example) a@case.example", "", "fail", "reject"),
    ('"b@org.example" <a@case.example>', "", "fail", "reject"),
    ("Team: a@case.example;", "", "fail", "reject"),
    ("a@lower.example", "", "none", ""),
    ("a@split.example", "", "fail", "reject"),
    ("a@alias.example", "", "fail", "reject"),
    ("a@percent.example", "", "fail", "reject"),
    ("a@here.np.example", "", "fail", "none"),
]
APART = [
    ("a@testing.example", "", ("fail", "quarantine"), ("fail", "reject"), "t= is of RFC 9989"),
    ("a@gone.np.example", "", ("fail", "reject"), ("fail", "none"), "np= is of RFC 9989"),
    ("a@one.suffix.example", "two.suffix.example", ("fail", "reject"), ("pass", "reject"), "psd=y is of RFC 9989"),
    ("a@off.cut.example", "cut.example", ("fail", "quarantine"), ("pass", "quarantine"), "psd=n is of RFC 9989"),
    ("a@sub.off.cut.example", "", ("fail", "quarantine"), ("fail", "reject"), "psd=n is of RFC 9989"),
    (
        "a@sub.org.example",
        "example",
        ("fail", "reject"),
        ("pass", "reject"),
        "a public suffix is nobody's organization",
    ),
    ("a@two.example", "", ("none", ""), ("fail", "reject"), "of several records none counts (RFC 7489 6.6.3 too)"),
    (
        "a@also.example",
        "",
        ("fail", "reject"),
        ("none", ""),
        "other TXT records are none of DMARC (RFC 7489 6.6.3 too)",
    ),
    ("a@late.example", "", ("none", ""), ("fail", "reject"), "v= must come first (RFC 7489 6.3 too)"),
    ("a@rua.example", "", ("fail", "none"), ("permerror", ""), "p=none where there is rua= (RFC 7489 6.6.3 too)"),
    ("a@nop.example", "", ("fail", "none"), ("permerror", ""), "no p= is p=none (RFC 9989 4.7)"),
    ("a@badsp.example", "", ("none", ""), ("permerror", ""), UNREADABLE),
    ("a@badspf.example", "", ("fail", "reject"), ("permerror", ""), "what cannot be read counts as not written"),
    ("a@servfail.example", "", ("temperror", ""), ("none", ""), "it takes SERVFAIL for no record"),
    ("a@case.example, b@org.example", "", ("permerror", ""), ("", ""), "it lets several authors be"),
    ("a", "", ("permerror", ""), ("", ""), "it lets no domain be"),
]


@pytest.fixture(scope="module")
def by_hand() -> Iterator[tuple[NameServer, Path]]:
    with name_server(RECORDS) as dns, opendmarc(dns, f"TrustedAuthservIDs {OURS}") as socket:
        dns.fault("_dmarc.servfail.example", "servfail")
        yield dns, socket


@pytest.mark.parametrize(
    ("author", "vouched", "mine", "theirs"),
    [*((author, vouched, each, each) for author, vouched, *words in ALIKE for each in [tuple(words)]),
     *(each[:4] for each in APART)],
)  # fmt: skip
def test_authors_and_records(
    by_hand: tuple[NameServer, Path], author: str, vouched: str, mine: tuple[str, str], theirs: tuple[str, str]
) -> None:
    """vouched: the domain that SPF passes for."""
    dns, socket = by_hand
    message = f"From: {author}\r\nSubject: x\r\n\r\nHello\r\n".encode()
    spf = SpfResult("pass" if vouched else "none", vouched or "nobody.example", "mailfrom")
    found = asyncio.run(evaluate_dmarc(parse_header(message), spf, (), resolver_of(dns)))
    assert (found.result, found.policy) == mine
    assert dmarc_of(socket, message, messages.GOOD_IP, f"bounce@{spf.domain}", spf, ()) == theirs


# --- SPF by libspf2 ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JudgedSpf:
    ours: spf_test.Ours
    theirs: tuple[str, str]

    def __str__(self) -> str:
        return f"{self.ours} libspf2={self.theirs}\n"


@pytest.fixture(scope="module")
def judged_spf() -> list[JudgedSpf]:
    message = b"From: a@nobody.example\r\n\r\nHello\r\n"
    with spf_test.spf_server() as dns, opendmarc(dns, "SPFIgnoreResults yes", "SPFSelfValidate yes") as socket:
        found = []
        for each in spf_test.ours(dns):
            asked = each.asked
            with Milter(socket) as milter:
                verdict = milter.judge(message, ip=asked.ip, helo=asked.helo, reverse_path=asked.sender)
            match = re.search(r"spf=(\w+) smtp\.(\w+)=", fields(verdict))
            assert match is not None, asked
            found.append(JudgedSpf(each, (_coarse(match[1]), match[2])))
        return found


def _coarse(word: str) -> str:
    """opendmarc calls most of what is no pass a fail."""
    return word if word in ("pass", "none") else "no pass"


def test_spf_passes_where_that_of_libspf2_does(judged_spf: list[JudgedSpf]) -> None:
    found = []
    reasons: Counter[str] = Counter()
    for each in judged_spf:
        mine, without, asked = each.ours.spf, each.ours.without, each.ours.asked
        if asked.name in spf_test.BY_PTR or (_coarse(mine.result), mine.identity) == each.theirs:
            continue
        if mine.result == "temperror" and (_coarse(without.result), without.identity) == each.theirs:
            reasons["no answer"] += 1  # it takes it for an empty one
        elif asked.sender and asked.name in ("local", "helo") and each.theirs == ("no pass", mine.identity):
            reasons["not told"] += 1  # opendmarc gives libspf2 no local part, and HELO only where there is no sender
        else:
            found.append(each)
    assert not found, f"{len(found)} differ\n{''.join(map(str, found))}"
    assert reasons.keys() == {"no answer", "not told"}


def test_what_hangs_on_a_reverse_name_is_that_of_libspf2(judged_spf: list[JudgedSpf]) -> None:
    found = [each for each in judged_spf if each.ours.asked.name in spf_test.BY_PTR]
    assert {each.theirs[0] for each in found} == {"pass", "no pass"}
    assert [(_coarse(each.ours.spf.result), each.ours.spf.identity) for each in found] == [
        each.theirs for each in found
    ]
