"""auth.owns_sender and auth.owns_author: only what is wholly the user's own counts, however it is written."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import path_or_null
from gateway.core.transaction import Session
from gateway.message.header import MAX_DECODED, MAX_HEADER
from gateway.policy.catalogue import FACTS
from gateway.policy.context import Context
from tests.support.fakes import FakeAccounts
from tests.support.policies import OWN, STRANGER, USER, context

ALIASES = {"sales@example.org": ("alice@example.org",), "team@example.org": ("sales@example.org", "bob@example.org")}
DIRECTORY = AccountDirectory(
    FakeAccounts(["alice@example.org", "bob@example.org"], ALIASES), ["example.org"], ["partner.example"]
)


def where(session: Session = USER, **more: object) -> Context:
    found = context(session, **more)  # type: ignore[arg-type]
    found.directory = DIRECTORY
    return found


def read(name: str, found: Context) -> bool:
    reader = FACTS[name].read
    assert reader is not None
    value = reader(found)
    assert isinstance(value, bool)
    return value


def owns_author(header: str | bytes, session: Session = USER) -> bool:
    octets = header.encode() if isinstance(header, str) else header
    return read("auth.owns_author", where(session, message=octets + b"\r\nTo: x@elsewhere.example\r\n\r\nbody\r\n"))


# --- the reverse-path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "is_owned"),
    [
        ("alice@example.org", True),
        ("ALICE@Example.ORG", True),
        ("alice+shop@example.org", True),
        ('"alice"@example.org', True),
        ("sales@example.org", True),
        ("team@example.org", True),
        ("", True),
        ("bob@example.org", False),
        ("nobody@example.org", False),
        ("alice@partner.example", False),
        ("alice@elsewhere.example", False),
        ("alice@mail.example.org", False),
        ("alice=example.org@elsewhere.example", False),
        ('"alice@example.org"@elsewhere.example', False),
        ("аlice@example.org", False),  # noqa: RUF001  # a Cyrillic letter
    ],
)
def test_the_reverse_path_of_a_signed_in_user(sender: str, is_owned: bool) -> None:
    assert read("auth.owns_sender", where(sender=sender)) is is_owned


@pytest.mark.parametrize("session", [STRANGER, OWN])
@pytest.mark.parametrize("sender", ["", "alice@example.org"])
def test_nobody_who_did_not_sign_in_owns_anything(session: Session, sender: str) -> None:
    assert not read("auth.owns_sender", where(session, sender=sender))
    assert not owns_author("From: alice@example.org", session)


def test_another_user_owns_what_is_theirs() -> None:
    bob = replace(USER, user="bob@example.org")
    owned = [
        address
        for address in ("alice@example.org", "bob@example.org", "sales@example.org", "team@example.org")
        if read("auth.owns_sender", where(bob, sender=address))
    ]
    assert owned == ["bob@example.org", "team@example.org"]


# --- the author -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "From: alice@example.org",
        "From: <alice@example.org>",
        "From: Alice <alice@example.org>",
        'From: "Alice, of Sales" <alice@example.org>',
        "From: ALICE@EXAMPLE.ORG",
        "from:alice@example.org",
        "From : alice@example.org",
        "From: alice@example.org (Alice)",
        "From: alice (\\) a <b@c.d>) <alice@example.org>",
        "From: Alice\r\n <alice@example.org>",
        "From: =?utf-8?q?=C3=84?= <alice+x@example.org>",
        "From: sales@example.org",
        "From: team@example.org, Alice <alice@example.org>",
        "From: =?utf-8?q?ceo=40bank.test?= <alice@example.org>",
        'From: "ceo@bank.test" <alice@example.org>',
        "Sender: ceo@bank.test\r\nFrom: alice@example.org",
        "Resent-From: ceo@bank.test\r\nFrom: alice@example.org",
    ],
)
def test_an_author_who_is_the_user(header: str) -> None:
    assert owns_author(header)


@pytest.mark.parametrize(
    "header",
    [
        "Subject: nobody's",
        "From:",
        "From: ,",
        "From: Alice",
        "From: undisclosed:;",
        "From: bob@example.org",
        "From: alice@elsewhere.example",
        "From: alice@example.org, ceo@bank.test",
        "From: ceo@bank.test, alice@example.org",
        "From: alice@example.org,\r\n\tceo@bank.test",
        "From: us: alice@example.org, ceo@bank.test;",
        "From: us: alice@example.org, sales@example.org;",
        "From: alice@example.org; ceo@bank.test",
        "From: alice@example.org\r\nFrom: ceo@bank.test",
        "From: ceo@bank.test\r\nfrom: alice@example.org",
        "From: alice@example.org\r\nFrom: alice@example.org",
        'From: "alice@example.org" <mallory@elsewhere.example>',
        "From: alice@example.org <mallory@elsewhere.example>",
        "From: <alice@example.org <mallory@elsewhere.example>",
        "From: (alice@example.org) mallory@elsewhere.example",
        "From: mallory@elsewhere.example (alice@example.org)",
        'From: "<alice@example.org>" mallory@elsewhere.example',
        'From: "x\\" <alice@example.org>," <mallory@elsewhere.example>',
        'From: "alice@example.org"@elsewhere.example',
        "From: =?utf-8?q?alice=40example.org?= <mallory@elsewhere.example>",
        "From: =?utf-8?q?alice=40example.org?=",
        "From: alice@example.org@elsewhere.example",
        "From: ceo@bank.test;, alice@example.org",
        "From: (alice@example.org",
        'From: "alice@example.org',
        "From: аlice@example.org",  # noqa: RUF001  # a Cyrillic letter
    ],
)
def test_an_author_who_is_not_the_user_or_not_only(header: str) -> None:
    assert not owns_author(header)


@pytest.mark.parametrize(
    "field",
    [
        "<alice@example.org> <ceo@bank.test>",
        "<alice@example.org> ceo@bank.test",
        "<alice@example.org>, <ceo@bank .test>",
        "ceo@bank .test, alice@example.org",
        "ceo@bank.test Boss, alice@example.org",
        "<>ceo@bank.test, alice@example.org",
        "ceo\\@bank.test, alice@example.org",
        "ceo@bank.test <alice@example.org>",
        "ceo@bank.test: alice@example.org;",
        "ceo@bank.test, <alice@example.org",
        "@bank.test, alice@example.org",
        '"al,ice"@example.org',
        '"al@ice"@example.org',
    ],
)
def test_an_author_that_mail_programs_may_read_otherwise_is_nobodys(field: str) -> None:
    """RFC 5322 has no such mailbox-list: what some programs show as another's address must not count as the user's."""
    assert not owns_author(f"From: {field}")


@pytest.mark.parametrize("filling", [" ", ",", "(x)", "\r\n ", "alice@example.org, "])
def test_an_author_behind_the_bound_of_what_is_read_counts_too(filling: str) -> None:
    many = MAX_DECODED // len(filling) + 9
    assert not owns_author(f"From: alice@example.org,{filling * many} ceo@bank.test")


def test_a_second_author_behind_the_bound_of_the_header_counts_too() -> None:
    lines = b"X: " + b"y" * 996 + b"\r\n"
    assert not owns_author(b"From: alice@example.org\r\n" + lines * (MAX_HEADER // 1000) + b"From: ceo@bank.test")


ATOMS = st.sampled_from(
    ["alice@example.org", "ceo@bank.test", "<", ">", ",", ";", ":", '"', "(", ")", "\\", " ", "@", "Alice", "\r\n "]
)


@given(st.lists(ATOMS, max_size=14).map("".join))
def test_no_from_field_raises(field: str) -> None:
    owns_author(f"From: {field}")


@given(
    st.lists(st.sampled_from(["Alice", "<", ">", ",", '"', "(", ")", " ", "ceo@bank.test"]), max_size=12).map("".join)
)
def test_a_field_without_the_users_address_is_never_theirs(field: str) -> None:
    assert not owns_author(f"From: {field}")


def test_the_sender_of_a_dsn_is_anybody_who_signed_in() -> None:
    found = where(sender="")
    assert found.reverse_path == path_or_null("")
    assert read("auth.owns_sender", found)
