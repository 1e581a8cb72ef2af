"""SPF by policyd-spf, as Postfix asks it, and by us, under the same DNS: the same word for every client and sender.

Both have their rules from pyspf. What differs is all around it: policyd-spf asks DNS by another library and waits,
we ask by our resolver, between runs that begin anew. (For other rules under the same DNS see test_opendmarc.)
"""

import asyncio
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from gateway.dns.resolver import DnsResolver, ResolverSettings
from gateway.senderauth.spf import RESULTS, SpfResult, check_spf
from tests.senderauth import test_second_opinions as messages
from tests.support.process import find_command, missing, run
from tests.support.resolving import asking, name_server, resolving_missing

GOOD_IP, BAD_IP = messages.GOOD_IP, messages.BAD_IP
CLIENTS = (GOOD_IP, BAD_IP, "2001:db8::7", "2001:db8:1::9")
HELO = "mx.test"  # publishes nothing

# Names and what their records say after "v=spf1". `@name` is name.spf.example.
SPF = """
ip4 ip4:203.0.113.7 -all
ip6 ip6:2001:db8::/48 -all
net4 ip4:203.0.113.0/24 ~all
neutral GOOD ?all
empty
not -ip4:203.0.113.7 +all
a a -all
a-other a:@hosts -all
a-net a:@hosts/24//48 -all
a-dot a:@hosts. -all
a-none a ?all
a-alias a:@alias-hosts -all
a-loop a:@round1 ?all
mx mx -all
mx-net mx:@mx/24 -all
mx-none mx:@absent -all
mx-eleven mx -all
ptr ptr:@hosts -all
ptr-macro exists:%{p}.@list -all
exists exists:%{ir}.%{v}.@list exists:%{i}.@list -all
local exists:%{l}.%{l1r-}.%{o}.%{d3}.@list -all
helo exists:%{h}.@list -all
include include:@ip4 ~all
include-fails include:@not -all
include-absent include:@absent -all
redirect redirect=@ip4
redirect-unused redirect=@absent ?all
redirect-absent redirect=@absent
loop include:@loop -all
nested include:@include include:@redirect include:@mx -all
ten TEN ?all
eleven TEN include:@ip6 ?all
voids-two a:@absent1 a:@absent2 -all
voids-three a:@absent1 a:@absent2 a:@absent3 -all
voids-alias a:@lost a:@absent1 mx:@lost -all
voids-kinds a:@text mx:@hosts exists:@text ?all
bad-address ip4:203.0.113.777 -all
bad-net ip4:203.0.113.0/99 -all
bad-word GOOD foo:bar -all
modifier x=y GOOD -all
explained GOOD -all exp=@why
long MANY GOOD -all
servfail -all
servfail-below GOOD a:@servfail -all
servfail-include include:@servfail -all
"""
WORDS = {
    "GOOD": "ip4:203.0.113.7 ip6:2001:db8::7",
    "TEN": " ".join(["include:@ip6"] * 10),
    "MANY": " ".join(f"ip4:192.0.2.{number}" for number in range(60)),
}
MORE = """
@capitals TXT "V=SPF1 IP4:203.0.113.7 -ALL"
@version TXT "v=spf10 ip4:203.0.113.7 -all"
@text TXT "something else"
@both TXT "something else"
@both TXT "v=spf1 ip4:203.0.113.7 -all"
@twice TXT "v=spf1 -all"
@twice TXT "v=spf1 +all"
@split TXT "v=spf1 ip4:203.0" ".113.7 -all"
@alias CNAME @ip4.
@loop-alias CNAME @loop-alias.
@lost-alias CNAME @absent.
@a A 203.0.113.7
@a AAAA 2001:db8::7
@hosts A 203.0.113.7
@hosts A 192.0.2.1
@hosts AAAA 2001:db8::1
@alias-hosts CNAME @hosts.
@round1 CNAME @round2.
@round2 CNAME @round1.
@lost CNAME @absent.
@mx MX 10 @hosts.
@mx MX 20 @absent.
@mx-net A 192.0.2.9
@why TXT "%{i} is not of %{d}"
7.113.0.203.in-addr.arpa PTR @hosts.
9.100.51.198.in-addr.arpa PTR @hosts.
7.113.0.203.in-addr.@list A 127.0.0.2
2.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.@list A 127.0.0.2
bounce.bounce.@local.local.spf.example.@list A 127.0.0.2
mx.test.@list A 127.0.0.2
@hosts.@list A 127.0.0.2
"""
# Where DNS gives no answer: SERVFAIL, or a CNAME that leads to itself.
NO_ANSWER = ("servfail", "round1", "round2", "loop-alias")
# What hangs on the name in a PTR record.
BY_PTR = ("ptr", "ptr-macro")
NAMES = (
    *(line.split()[0] for line in SPF.split("\n")[1:-1]),
    *("capitals", "version", "text", "both", "twice", "split", "alias", "loop-alias", "lost-alias", "absent"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    ip: str
    helo: str
    sender: str

    @property
    def name(self) -> str:
        """Of NAMES, or whatever the generated messages have."""
        return (self.sender.rpartition("@")[2] or self.helo).partition(".")[0]


def records() -> Iterator[str]:
    """Of the zone of this file and that of the generated messages."""
    yield from messages.records()
    for number in range(11):
        yield f"mx-eleven.spf.example MX {number} hosts{number}.spf.example."
    yield from _expanded(MORE)
    for line in _expanded(SPF):
        name, _, terms = line.partition(" ")
        yield messages.text(f"{name}.spf.example", f"v=spf1 {terms}".strip())


def _expanded(text: str) -> list[str]:
    for word, meaning in WORDS.items():
        text = text.replace(word, meaning)
    return re.sub(r"@([a-z0-9-]+)", r"\1.spf.example", text).split("\n")[1:-1]


@cache
def questions() -> tuple[Asked, ...]:
    """For every name and client one of mail and one of HELO; then all that the generated messages may have."""
    asked = [Asked(ip, HELO, f"bounce@{name}.spf.example") for name in NAMES for ip in CLIENTS]
    asked += [Asked(ip, f"{name}.spf.example", "") for name in NAMES for ip in CLIENTS]
    domains = [domain for org in (*messages.POLICIES, messages.OTHER) for domain in (org, f"mail.{org}")]
    return (*asked, *(Asked(ip, HELO, f"bounce@{domain}") for ip in CLIENTS[:2] for domain in domains))


@dataclass(frozen=True, slots=True)
class Ours:
    """without: what it would be if the names of NO_ANSWER had no records."""

    asked: Asked
    spf: SpfResult
    without: SpfResult


def ours(dns: NameServer) -> list[Ours]:
    """Of all questions. dns: of `spf_server`."""
    with NameServer(records()) as emptied:
        for name in NO_ANSWER:
            emptied.remove(f"{name}.spf.example")
        pairs = zip(questions(), _ours(dns), _ours(emptied), strict=True)
        return [Ours(*each) for each in pairs]


def _ours(dns: NameServer) -> list[SpfResult]:
    async def answers() -> list[SpfResult]:
        resolver = DnsResolver(ResolverSettings([dns.address]), lambda rdtype, result, seconds: None)
        return [await check_spf(each.ip, each.helo, each.sender, resolver) for each in questions()]

    return asyncio.run(answers())


@contextmanager
def spf_server() -> Iterator[NameServer]:
    with name_server(records()) as dns:
        dns.fault("servfail.spf.example", "servfail")
        yield dns


def policyd_spf(dns: NameServer, folder: Path) -> list[tuple[str, str]]:
    """Word and identity of the Received-SPF field that it wants to have put before each message."""
    (folder / "policyd-spf.conf").write_text("debugLevel = -1\nHELO_reject = False\nMail_From_reject = False\n")
    argv = asking(dns, folder, [find_command("policyd-spf") or "", folder / "policyd-spf.conf"])
    requests = "".join(
        f"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\ninstance=a.{number}\n"
        f"client_address={each.ip}\nclient_name=unknown\nhelo_name={each.helo}\nsender={each.sender}\n"
        "recipient=alice@example.org\n\n"
        for number, each in enumerate(questions())
    )
    finished = run(argv, data=requests.encode(), timeout=60).expect()
    answers = finished.stdout.removesuffix("\n\n").split("\n\n")
    found = [re.match(r"action=prepend Received-SPF: (\w+) .*?identity=(\w+);", answer) for answer in answers]
    assert all(found), answers
    return [(match[1].lower(), match[2]) for match in found if match]


@dataclass(frozen=True, slots=True)
class Judged:
    ours: Ours
    theirs: tuple[str, str]

    def __str__(self) -> str:
        return f"{self.ours} policyd-spf={self.theirs}\n"


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    folder = Path(tempfile.mkdtemp(prefix="smarthost-policyd-spf-", dir="/tmp"))
    try:
        with spf_server() as dns:
            theirs = policyd_spf(dns, folder)
            return [Judged(*each) for each in zip(ours(dns), theirs, strict=True)]
    finally:
        shutil.rmtree(folder)


MISSING = missing("policyd-spf") or resolving_missing()
pytestmark = [pytest.mark.peers, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


def test_the_results_are_of_every_kind(judged: list[Judged]) -> None:
    words = Counter((each.ours.spf.result, each.ours.spf.identity) for each in judged)
    assert words.keys() == {(word, identity) for word in RESULTS for identity in ("mailfrom", "helo")}
    assert min(words.values()) >= 5


def test_spf_is_that_of_policyd_spf(judged: list[Judged]) -> None:
    found = []
    unanswered: Counter[str] = Counter()
    for each in judged:
        mine, without = each.ours.spf, each.ours.without
        if each.ours.asked.name in BY_PTR or (mine.result, mine.identity) == each.theirs:
            continue
        if mine.result == "temperror" and (without.result, without.identity) == each.theirs:
            unanswered[each.ours.asked.name] += 1  # RFC 7208 2.6.6; it takes no answer for an empty one
        else:
            found.append(each)
    assert not found, f"{len(found)} differ\n{''.join(map(str, found))}"
    assert unanswered.keys() == {"servfail", "servfail-below", "servfail-include", "a-loop", "loop-alias"}


def test_what_hangs_on_a_reverse_name_is_that_of_policyd_spf(judged: list[Judged]) -> None:
    found = [each for each in judged if each.ours.asked.name in BY_PTR]
    assert {each.theirs[0] for each in found} == {"pass", "fail"}
    assert [(each.ours.spf.result, each.ours.spf.identity) for each in found] == [each.theirs for each in found]
