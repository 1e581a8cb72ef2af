"""spf.*, dkim.* and dmarc.*, as rules see them."""

import asyncio
import gc
from dataclasses import replace

import pytest

from gateway.checks import senderauth
from gateway.checks.senderauth import Arc, Dkim, Dmarc, Spf
from gateway.core.ports import Answer, NoData
from gateway.message.blob import MemoryBlob
from gateway.message.header import parse_header
from gateway.policy.context import Context, MessageFacts
from gateway.senderauth.spf import SpfResult
from tests.checks.asking import fetch
from tests.senderauth.signing import MESSAGE, record, rsa_key, signed
from tests.support.fakes import FakeResolver
from tests.support.policies import STRANGER, context

IP = STRANGER.client_ip


def coming(sender: str = "bob@x.test", helo: str = "mx.x.test", ip: str = IP) -> Context:
    return context(replace(STRANGER, client_ip=ip, helo=helo), sender=sender, recipient="alice@example.org")


def facts(where: Context, *records: str) -> tuple[object, object, object]:
    check = Spf(FakeResolver(*records))
    found = [fetch(check, f"spf.{name}", where) for name in ("result", "domain", "explanation")]
    return found[0], found[1], found[2]


@pytest.mark.parametrize(
    ("where", "records", "wanted"),
    [
        (coming(), [f"x.test TXT v=spf1 ip4:{IP} -all"], ("pass", "x.test", None)),
        (coming("bob@X.Test"), [f"x.test TXT v=spf1 ip4:{IP} -all"], ("pass", "x.test", None)),
        (coming(), ["x.test TXT v=spf1 -all"], ("fail", "x.test", None)),
        (coming(), ["x.test TXT v=spf1 ~all"], ("softfail", "x.test", None)),
        (coming(), ["x.test TXT v=spf1 ?all"], ("neutral", "x.test", None)),
        (coming(), ["x.test TXT hello"], ("none", "x.test", None)),
        (coming(), [], ("none", "x.test", None)),
        (coming(), ["x.test TXT v=spf1 nonsense -all"], ("permerror", "x.test", None)),
        (coming(), ["x.test TXT v=spf1 -all", "x.test TXT v=spf1 +all"], ("permerror", "x.test", None)),
        (coming(), ["x.test FAILS TXT"], ("temperror", "x.test", None)),
        (coming(""), ["mx.x.test TXT v=spf1 -all"], ("fail", "mx.x.test", None)),
        (coming("", "[203.0.113.7]"), [], ("none", None, None)),
        (coming("", "localhost"), [], ("none", None, None)),
        (coming("bob@[192.0.2.1]"), [], ("none", None, None)),
        (coming(ip="2001:db8::7"), ["x.test TXT v=spf1 ip6:2001:db8::/32 -all"], ("pass", "x.test", None)),
        (coming("bob@münchen.test"), ["xn--mnchen-3ya.test TXT v=spf1 -all"], ("fail", "xn--mnchen-3ya.test", None)),
        (coming('"a b"@x.test'), ["x.test TXT v=spf1 exists:%{l}.x.test -all"], ("fail", "x.test", None)),
        (
            coming(), ["x.test TXT v=spf1 -all exp=why.x.test", "why.x.test TXT %{i} may not send for %{d}"],
            ("fail", "x.test", f"{IP} may not send for x.test"),
        ),
        (
            coming(), ["x.test TXT v=spf1 -all exp=why.x.test", "why.x.test TXT no\r\n250 OK"],
            ("fail", "x.test", "no??250 OK"),
        ),
        (
            coming(), ["x.test TXT v=spf1 -all exp=why.x.test", f"why.x.test TXT {'x' * 400}"],
            ("fail", "x.test", "x" * 250),
        ),
    ],
)  # fmt: skip
def test_what_the_domain_says(where: Context, records: list[str], wanted: tuple[object, ...]) -> None:
    assert facts(where, *records) == wanted


def test_a_check_is_made_once_for_all_three() -> None:
    resolver = FakeResolver("x.test TXT v=spf1 a mx -all", "x.test A 192.0.2.1")
    check = Spf(resolver)
    for name in ("result", "domain", "explanation", "result"):
        fetch(check, f"spf.{name}", coming())
    assert len(resolver.asked) == len(set(resolver.asked)) == 3


@pytest.mark.parametrize(
    "records",
    [
        [f"x.test TXT v=spf1 {' '.join(f'include:i{n}.x.test' for n in range(30))} -all"]
        + [f"i{n}.x.test TXT v=spf1 {' '.join(f'include:i{m}.x.test' for m in range(30))} ?all" for n in range(30)],
        ["x.test TXT v=spf1 redirect=x.test"],
        ["x.test TXT v=spf1 include:x.test -all"],
        ["x.test TXT v=spf1 " + " ".join(f"mx:m{n}.x.test" for n in range(10)) + " -all"]
        + [f"m{n}.x.test MX {k} h{n}x{k}.x.test" for n in range(10) for k in range(40)],
        ["x.test TXT v=spf1 " + " ".join(f"exists:e{n}.x.test" for n in range(200)) + " -all"],
    ],
    ids=["includes", "redirect loop", "include loop", "too many MX", "many void look-ups"],
)
def test_hostile_records_are_a_permerror_after_a_bounded_number_of_lookups(records: list[str]) -> None:
    resolver = FakeResolver(*records)
    assert fetch(Spf(resolver), "spf.result", coming()) == "permerror"
    assert len(resolver.asked) <= 120


# --- dkim.*, dmarc.* --------------------------------------------------------------------------------------------------


def received(octets: bytes, sender: str = "bob@x.test") -> Context:
    where = coming(sender)
    where.message = MessageFacts(MemoryBlob(octets), False, parse_header(octets))
    return where


KEY = record(rsa_key()[1])
POLICY = "_dmarc.sender.example TXT v=DMARC1; p=quarantine"


@pytest.mark.parametrize(
    ("octets", "lines", "wanted"),
    [
        (signed(), [KEY, POLICY], ("pass", ("sender.example",), "pass", "quarantine", "sender.example")),
        (signed().replace(b"Bye", b"bye"), [KEY, POLICY], ("fail", (), "fail", "quarantine", "sender.example")),
        (signed(), [KEY], ("pass", ("sender.example",), "none", None, "sender.example")),
        (signed(), [POLICY, "s._domainkey.sender.example FAILS"],
         ("temperror", (), "temperror", "quarantine", "sender.example")),
        (signed(), [KEY, "_dmarc.sender.example FAILS"],
         ("pass", ("sender.example",), "temperror", None, "sender.example")),
        (signed(signed(), domain=b"list.example"), [KEY, POLICY, record(rsa_key()[1], domain="list.example")],
         ("pass", ("list.example", "sender.example"), "pass", "quarantine", "sender.example")),
        (MESSAGE, [POLICY], ("none", (), "fail", "quarantine", "sender.example")),
        (b"Subject: x\r\n\r\n", [POLICY], ("none", (), "permerror", None, None)),
    ],
)  # fmt: skip
def test_what_signatures_and_the_author_s_domain_say(
    octets: bytes, lines: list[str], wanted: tuple[object, ...]
) -> None:
    resolver = FakeResolver(*lines)
    dkim = Dkim(resolver)
    dmarc = Dmarc(resolver, Spf(resolver), dkim, Arc(resolver), 20.0)
    where = received(octets)
    found = [fetch(dkim, f"dkim.{name}", where) for name in ("result", "domains")]
    found += [fetch(dmarc, f"dmarc.{name}", where) for name in ("result", "policy", "domain")]
    assert tuple(found) == wanted


def test_spf_vouches_for_the_author_too() -> None:
    resolver = FakeResolver(POLICY, f"sender.example TXT v=spf1 ip4:{IP} -all")
    dmarc = Dmarc(resolver, Spf(resolver), Dkim(resolver), Arc(resolver), 20.0)
    assert fetch(dmarc, "dmarc.result", received(MESSAGE, "bounce@sender.example")) == "pass"
    assert fetch(dmarc, "dmarc.result", received(MESSAGE, "bounce@elsewhere.example")) == "fail"


def test_a_message_is_looked_at_once() -> None:
    resolver = FakeResolver(KEY, POLICY)
    dkim = Dkim(resolver)
    dmarc = Dmarc(resolver, Spf(resolver), dkim, Arc(resolver), 20.0)
    where = received(signed())
    for _ in range(2):
        fetch(dkim, "dkim.result", where)
        fetch(dmarc, "dmarc.result", where)
    asked = [name for name, _ in resolver.asked]
    assert asked.count("s._domainkey.sender.example") == 1
    assert asked.count("_dmarc.sender.example") == 1
    del where
    gc.collect()
    assert (len(dkim._found), len(dmarc._found)) == (0, 0)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.1])
def test_what_takes_too_long_for_the_trace_field_is_a_temperror(seconds: float) -> None:
    class Silent:
        async def lookup(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(60)
            return NoData()

    dmarc = Dmarc(Silent(), Spf(Silent()), Dkim(Silent()), Arc(Silent()), 20.0)
    where = received(signed())
    assert where.message is not None
    found = asyncio.run(dmarc.all(where, where.message, seconds))
    assert (found.spf.result, found.dmarc.result) == ("temperror", "temperror")
    assert [each.result for each in found.dkim] == ["temperror"]


def test_a_slow_record_of_the_sender_s_keeps_nothing_of_the_author_s_back(monkeypatch: pytest.MonkeyPatch) -> None:
    class SlowForOne(FakeResolver):
        async def lookup(self, name: str, rdtype: str) -> Answer:
            await asyncio.sleep(60 if name == "evil.test" else 0)
            return await super().lookup(name, rdtype)

    monkeypatch.setattr(senderauth, "SPF_S", 0.05)
    resolver = SlowForOne(POLICY)
    dmarc = Dmarc(resolver, Spf(resolver), Dkim(resolver), Arc(resolver), 20.0)
    assert fetch(dmarc, "dmarc.result", received(MESSAGE, "x@evil.test")) == "fail"
    where = received(MESSAGE, "x@evil.test")
    assert where.message is not None
    told = asyncio.run(dmarc.all(where, where.message, 5.0))
    assert (told.spf, told.dmarc.result) == (SpfResult("temperror", "evil.test", "mailfrom"), "fail")
