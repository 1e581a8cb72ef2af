"""DMARC (RFC 9989): records, the walk up the tree, whose policy counts, alignment, and what cannot be decided."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.message.header import parse_header
from gateway.senderauth.dkim import DkimResult
from gateway.senderauth.dmarc import DmarcRecord, DmarcResult, author_domain, evaluate_dmarc, parse_dmarc
from gateway.senderauth.spf import SpfResult
from tests.support.fakes import FakeResolver

REJECT = "v=DMARC1; p=reject"


def evaluated(
    author: str, *lines: str, spf: str = "", dkim: str = "", spf_result: str = "pass", dkim_result: str = "pass"
) -> tuple[DmarcResult, list[str]]:
    """author: what From holds; spf, dkim: the domain of each. The result, and the names of the records asked for."""
    resolver = FakeResolver(*lines)
    header = parse_header(f"From: {author}\r\n\r\n".encode())
    checked = SpfResult(spf_result, spf, "mailfrom") if spf else None
    signatures = [DkimResult(dkim_result, domain) for domain in dkim.split()]
    found = asyncio.run(evaluate_dmarc(header, checked, signatures, resolver))
    return found, [name for name, rdtype in resolver.asked if rdtype == "TXT"]


# --- records ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("v=DMARC1; p=reject", DmarcRecord("reject")),
        ("v=DMARC1;p=quarantine;sp=none;np=reject;adkim=s;aspf=s;psd=n;t=y;",
         DmarcRecord("quarantine", "none", "reject", "s", "s", "n", True)),
        ("v = DMARC1 ; p = Reject ; adkim = S", DmarcRecord("reject", adkim="s")),
        ("v=DMARC1", DmarcRecord()),
        ("v=DMARC1; rua=mailto:a@x.example", DmarcRecord(rua=("mailto:a@x.example",))),
        # Unknown and removed tags, and values that are none, count as not written.
        ("v=DMARC1; p=none; pct=20; ri=3; x=y; adkim=q; aspf=; psd=z; t=maybe; junk", DmarcRecord()),
        ("v=DMARC1; p=none; p=reject", DmarcRecord("none")),
        # A policy that cannot be read: with an address for reports it is none, else there is no DMARC.
        ("v=DMARC1; p=rejct; rua=mailto:a@x.example", DmarcRecord(rua=("mailto:a@x.example",))),
        ("v=DMARC1; p=reject; sp=maybe; rua=mailto:a@x.example", DmarcRecord(rua=("mailto:a@x.example",))),
        ("v=DMARC1; p=rejct", DmarcRecord(is_usable=False)),
        ("v=DMARC1; p=reject; np=no; rua=nonsense", DmarcRecord(is_usable=False)),
        ("v=DMARC1; p=none; rua=mailto:a@x.example!10m, https://x.example/r ,?",
         DmarcRecord(rua=("mailto:a@x.example!10m", "https://x.example/r"))),
        # None at all.
        ("v=DMARC2; p=reject", None), ("v=dmarc1; p=reject", None), ("p=reject; v=DMARC1", None), ("", None),
        ("v=DMARC1p=reject", None), ("v=spf1 -all", None), (";v=DMARC1", None),
    ],
)  # fmt: skip
def test_records(text: str, record: DmarcRecord | None) -> None:
    assert parse_dmarc(text.encode()) == record


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_octets_of_any_kind_are_a_record_or_none(octets: bytes, begins_well: bool) -> None:
    found = parse_dmarc(b"v=DMARC1;" * begins_well + octets)
    assert (found is not None) or not begins_well


# --- the author -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ("From: a@Sender.EXAMPLE\r\n", ("sender.example", "")),
        ("From: Anna <a@sender.example>\r\n", ("sender.example", "")),
        ("From: a@sender.example, b@sender.example\r\n", ("sender.example", "")),
        ("From: =?utf-8?q?x?= <a@b\u00fccher.example>\r\n", ("xn--bcher-kva.example", "")),
        ("From: \"ceo@bank.example\" <a@evil.example>\r\n", ("evil.example", "")),
        ("From: a@one.example, b@two.example\r\n", ("", "From names several domains")),
        ("From: a@one.example\r\nFrom: a@one.example\r\n", ("", "several From fields")),
        ("Subject: x\r\n", ("", "no From field")),
        ("From: \r\n", ("", "From names no domain")),
        ("From: undisclosed:;\r\n", ("", "From names no domain")),
        ("From: a@[192.0.2.1]\r\n", ("", "From names no domain")),
        ("From: a@-bad-.example\r\n", ("", "From names no domain")),
        # Not as RFC 5322 has it: whatever a reader may take for the author counts.
        ("From: <ceo@bank.example.>\r\n", ("bank.example", "")),
        ("From: <ceo@\r\n bank.example>\r\n", ("bank.example", "")),
        ("From: ceo@bank .example\r\n", ("bank.example", "")),
        ("From: \" <ceo@bank.example>\r\n", ("bank.example", "")),
        ("From:" + "\r\n  " * 2000 + "<ceo@bank.example>\r\n", ("bank.example", "")),
        ("From: x:a@evil.example,ceo@bank.example;\r\n", ("", "From names several domains")),
        ("From: <a@evil.example> <ceo@bank.example>\r\n", ("", "From names several domains")),
        ("From: <ceo@bank.example>, <a@evil.example>\r\n", ("", "From names several domains")),
        ("From: x: <a@evil.example>, ceo@bank.example\r\n", ("", "From names several domains")),
    ],
)  # fmt: skip
def test_the_author(fields: str, found: tuple[str, str]) -> None:
    header = parse_header(f"{fields}\r\n".encode())
    assert author_domain(header) == found
    if not found[0]:
        result = asyncio.run(evaluate_dmarc(header, None, [], FakeResolver()))
        assert (result.result, result.reason) == ("permerror", found[1])


# --- the walk ---------------------------------------------------------------------------------------------------------


def test_a_long_name_takes_eight_queries() -> None:
    """The example of RFC 9989 4.10."""
    found, asked = evaluated("x@a.b.c.d.e.f.g.h.i.j.mail.example.com")
    assert (found.result, found.reason) == ("none", "no policy")
    assert asked == [
        f"_dmarc.{name}"
        for name in (
            "a.b.c.d.e.f.g.h.i.j.mail.example.com", "g.h.i.j.mail.example.com", "h.i.j.mail.example.com",
            "i.j.mail.example.com", "j.mail.example.com", "mail.example.com", "example.com", "com",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("labels", "queries"), [(1, 1), (2, 2), (7, 7), (8, 8), (9, 8), (60, 8)])
def test_queries_by_labels(labels: int, queries: int) -> None:
    name = ".".join(f"l{number}" for number in range(labels))
    assert len(evaluated(f"x@{name}")[1]) == queries


def test_one_of_two_records_is_none() -> None:
    lines = (f"_dmarc.sender.example TXT {REJECT}", "_dmarc.sender.example TXT v=DMARC1; p=none")
    assert evaluated("x@sender.example", *lines)[0].result == "none"
    lines = (f"_dmarc.sender.example TXT {REJECT}", "_dmarc.sender.example TXT v=spf1 -all")
    assert evaluated("x@sender.example", *lines)[0].policy == "reject"


# --- whose policy -----------------------------------------------------------------------------------------------------

ORG = "_dmarc.sender.example TXT v=DMARC1; p=reject; sp=quarantine; np=reject"
EXISTS = "mail.sender.example A 192.0.2.1"
MAIL = "_dmarc.mail.sender.example TXT v=DMARC1; p=none"
BANK = "_dmarc.bank TXT v=DMARC1; p=none; np=reject; psd=y"


@pytest.mark.parametrize(
    ("author", "lines", "policy", "policy_domain"),
    [
        ("sender.example", [ORG], "reject", "sender.example"),
        ("mail.sender.example", [ORG, EXISTS], "quarantine", "sender.example"),
        ("mail.sender.example", [ORG, "mail.sender.example MX 10 mx.sender.example"], "quarantine", "sender.example"),
        ("mail.sender.example", [ORG], "reject", "sender.example"),
        ("mail.sender.example", [f"_dmarc.sender.example TXT {REJECT}"], "reject", "sender.example"),
        ("mail.sender.example", [ORG, MAIL], "none", "mail.sender.example"),
        # Between the author and the organization nobody has a say.
        ("a.mail.sender.example", [ORG, MAIL, "a.mail.sender.example A 1.2.3.4"],
         "quarantine", "sender.example"),
        # psd=n draws the boundary.
        ("a.mail.sender.example", [ORG, f"{MAIL}; psd=n"], "none",
         "mail.sender.example"),
        # A public suffix: it speaks for who below it has none of their own.
        ("sender.bank", [BANK, "sender.bank A 192.0.2.1"], "none", "bank"),
        ("sender.bank", [BANK], "reject", "bank"),
        ("a.sender.bank", ["_dmarc.bank TXT v=DMARC1; p=reject; psd=y", "_dmarc.sender.bank TXT v=DMARC1; p=none"],
         "none", "sender.bank"),
        ("bank", ["_dmarc.bank TXT v=DMARC1; p=reject; psd=y"], "reject", "bank"),
        # Testing: one level less.
        ("sender.example", ["_dmarc.sender.example TXT v=DMARC1; p=reject; t=y"], "quarantine", "sender.example"),
        ("sender.example", ["_dmarc.sender.example TXT v=DMARC1; p=quarantine; t=y"], "none", "sender.example"),
        ("sender.example", ["_dmarc.sender.example TXT v=DMARC1; p=none; t=y"], "none", "sender.example"),
    ],
)  # fmt: skip
def test_whose_policy_counts(author: str, lines: list[str], policy: str, policy_domain: str) -> None:
    found, _ = evaluated(f"x@{author}", *lines)
    assert (found.result, found.policy, found.policy_domain) == ("fail", policy, policy_domain)


def test_existence_is_asked_for_only_where_it_tells() -> None:
    resolver = FakeResolver(f"_dmarc.sender.example TXT {REJECT}")
    asyncio.run(evaluate_dmarc(parse_header(b"From: x@a.sender.example\r\n\r\n"), None, [], resolver))
    assert {rdtype for _, rdtype in resolver.asked} == {"TXT"}


# --- alignment --------------------------------------------------------------------------------------------------------

STRICT = "_dmarc.sender.example TXT v=DMARC1; p=reject; adkim=s; aspf=s"
RELAXED = f"_dmarc.sender.example TXT {REJECT}"
USERS = "_dmarc.users.sender.example TXT v=DMARC1; psd=n"


@pytest.mark.parametrize(
    ("author", "lines", "spf", "dkim", "result"),
    [
        ("sender.example", [RELAXED], "sender.example", "", "pass"),
        ("sender.example", [RELAXED], "", "sender.example", "pass"),
        ("sender.example", [RELAXED], "bounces.sender.example", "", "pass"),
        ("sender.example", [RELAXED], "", "a.b.sender.example", "pass"),
        ("a.sender.example", [RELAXED], "b.sender.example", "", "pass"),
        ("a.sender.example", [RELAXED], "sender.example", "", "pass"),
        ("sender.example", [RELAXED], "esp.example", "other.example", "fail"),
        ("sender.example", [RELAXED], "esp.example", "other.example sender.example", "pass"),
        ("sender.example", [RELAXED], "notsender.example", "", "fail"),
        ("sender.example", [RELAXED], "sender.example.evil.example", "", "fail"),
        ("sender.example", [STRICT], "bounces.sender.example", "a.sender.example", "fail"),
        ("sender.example", [STRICT], "", "a.sender.example sender.example", "pass"),
        # A part that says psd=n is an organization of its own.
        ("sender.example", [RELAXED, USERS], "users.sender.example", "", "fail"),
        ("sender.example", [RELAXED, USERS], "", "a.users.sender.example",
         "fail"),
        # Two below one public suffix.
        ("one.bank", ["_dmarc.bank TXT v=DMARC1; p=reject; psd=y"], "two.bank", "bank", "fail"),
        ("one.bank", ["_dmarc.bank TXT v=DMARC1; p=reject; psd=y"], "mail.one.bank", "", "pass"),
    ],
)  # fmt: skip
def test_alignment(author: str, lines: list[str], spf: str, dkim: str, result: str) -> None:
    found, _ = evaluated(f"x@{author}", *lines, spf=spf, dkim=dkim)
    assert found.result == result
    assert found.policy == "reject"


def test_what_vouched_is_told() -> None:
    found, _ = evaluated("x@sender.example", RELAXED, spf="sender.example", dkim="esp.example")
    assert (found.spf_aligned, found.dkim_aligned) == (True, False)


@pytest.mark.parametrize("spf_result", ["fail", "softfail", "neutral", "none", "permerror"])
@pytest.mark.parametrize("dkim_result", ["fail", "policy", "neutral", "permerror"])
def test_only_a_pass_vouches(spf_result: str, dkim_result: str) -> None:
    found, _ = evaluated(
        "x@sender.example", RELAXED, spf="sender.example", dkim="sender.example", spf_result=spf_result,
        dkim_result=dkim_result,
    )  # fmt: skip
    assert found.result == "fail"


# --- what cannot be decided -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["spf_result", "dkim_result"])
def test_what_could_not_be_learnt_is_no_failure(word: str) -> None:
    other = {"spf_result": "fail", "dkim_result": "fail"} | {word: "temperror"}
    found, _ = evaluated("x@sender.example", RELAXED, spf="sender.example", dkim="sender.example", **other)
    assert (found.result, found.policy) == ("temperror", "reject")


@pytest.mark.parametrize("word", ["spf_result", "dkim_result"])
@pytest.mark.parametrize("record", [RELAXED, STRICT])
def test_what_could_never_vouch_makes_no_temperror(word: str, record: str) -> None:
    """Or a stranger's slow name server would take a forged message out of the policy's reach."""
    other = {"spf_result": "fail", "dkim_result": "fail"} | {word: "temperror"}
    for domain in ("evil.example", "notsender.example", *(["a.sender.example"] if record == STRICT else [])):
        found, _ = evaluated("x@sender.example", record, spf=domain, dkim=domain, **other)
        assert found.result == "fail"


def test_a_pass_needs_no_second_one() -> None:
    found, _ = evaluated(
        "x@sender.example", RELAXED, spf="sender.example", dkim="sender.example", dkim_result="temperror"
    )
    assert found.result == "pass"


@pytest.mark.parametrize(
    "name", ["_dmarc.a.sender.example", "_dmarc.sender.example", "_dmarc.example", "a.sender.example"]
)
def test_dns_that_fails_is_a_temperror(name: str) -> None:
    lines = [line for line in (ORG, EXISTS) if not line.startswith(f"{name} ")]
    found, _ = evaluated("x@a.sender.example", *lines, f"{name} FAILS")
    assert found.result == "temperror"
    assert name in found.reason


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100), st.lists(st.text("ab.-@", max_size=20), max_size=3))
def test_any_header_and_any_domains_give_a_result(value: bytes, domains: list[str]) -> None:
    header = parse_header(b"From:" + value + b"\r\n\r\n")
    signatures = [DkimResult("pass", domain) for domain in domains]
    found = asyncio.run(evaluate_dmarc(header, None, signatures, FakeResolver("_dmarc.a TXT v=DMARC1; p=reject")))
    assert found.result in ("none", "pass", "fail", "permerror")
