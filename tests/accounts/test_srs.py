"""SRS addresses: made, read back, and made by nobody else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.srs import MAX_AGE_DAYS, SenderRewriting
from gateway.core.address import Domain, Mailbox, parse_mailbox

NOW = 1_795_000_000.0
OURS = Domain("example.org")
DAY = 86400.0


def srs(secret: bytes = b"secret", at: float = NOW) -> SenderRewriting:
    return SenderRewriting(secret, lambda: at)


ANNA = parse_mailbox("Anna.Berg@sender.example")


def test_a_sender_is_held_and_found_again() -> None:
    held = srs().forward(ANNA, OURS)
    assert str(held).startswith("SRS0=")
    assert str(held).endswith("=sender.example=Anna.Berg@example.org")
    assert srs().reverse(held) == ANNA


def test_a_host_on_the_way_may_change_the_case() -> None:
    held = srs().forward(ANNA, OURS)
    assert srs().reverse(Mailbox(held.local_part.lower(), OURS)) == parse_mailbox("anna.berg@sender.example")
    assert srs().reverse(Mailbox(held.local_part.upper(), OURS)) == parse_mailbox("ANNA.BERG@sender.example")


@pytest.mark.parametrize(
    ("days", "is_good"), [(0, True), (MAX_AGE_DAYS, True), (MAX_AGE_DAYS + 1, False), (500, False)]
)
def test_it_is_good_for_three_weeks(days: int, is_good: bool) -> None:
    held = srs().forward(ANNA, OURS)
    assert (srs(at=NOW + days * DAY).reverse(held) == ANNA) is is_good


def test_it_may_hold_longer() -> None:
    """What is kept in quarantine goes out later."""
    held = srs().forward(ANNA, OURS)
    later = SenderRewriting(b"secret", lambda: NOW + 50 * DAY, 56)
    assert later.reverse(held) == ANNA


def test_the_days_go_round() -> None:
    at = 1024 * DAY * 20 - DAY
    held = srs(at=at).forward(ANNA, OURS)
    assert srs(at=at + 3 * DAY).reverse(held) == ANNA


def test_one_from_tomorrow_is_none() -> None:
    assert srs(at=NOW - DAY).reverse(srs().forward(ANNA, OURS)) is None


def test_nobody_else_makes_one() -> None:
    assert srs().reverse(srs(b"guess").forward(ANNA, OURS)) is None
    held = srs().forward(ANNA, OURS).local_part
    for changed in (held.replace("Anna.Berg", "Anna.Burg"), held.replace("sender.example", "victim.example")):
        assert srs().reverse(Mailbox(changed, OURS)) is None


@pytest.mark.parametrize(
    "local",
    ["alice", "srs0", "srs0=", "srs0=aaaaaaaa=aa==x", "srs0=aaaaaaaa=aa=x", "srs1=aaaaaaaa=x=y", "srs1==", "srs2=a=b=c",
     "srs0=11111111=aa=x.example=y", "SRS0=aaaaaaaa=10=x.example=y", "srs1=aaaaaaaa=x.example=\n=",
     "srs0=aaaaaaaa=aa=[=x", "srs0=aaaaaaaa=\u212aa=x.example=y", "srs0=\u212aaaaaaaa=aa=x.example=y"],
)  # fmt: skip
def test_what_is_no_such_address(local: str) -> None:
    assert srs().reverse(Mailbox(local, OURS)) is None


# --- rows of forwarders -----------------------------------------------------------------------------------------------


def test_of_a_row_of_forwarders_the_first_is_kept() -> None:
    """RFC-less, but of the scheme's paper: a bounce goes from the last to the first, and from there to the sender."""
    first, second, third = srs(b"1"), srs(b"2"), srs(b"3")
    a = first.forward(ANNA, Domain("one.example"))
    b = second.forward(a, Domain("two.example"))
    c = third.forward(b, Domain("three.example"))
    assert b.local_part.startswith("SRS1=")
    assert c.local_part.startswith("SRS1=")
    assert "two.example" not in str(c)
    back = third.reverse(c)
    assert back is not None
    assert back.domain == Domain("one.example")
    assert first.reverse(back) == ANNA
    assert third.reverse(Mailbox(c.local_part.replace("one.example", "two.example"), c.domain)) is None


def test_what_only_looks_like_another_s_is_a_sender() -> None:
    strange = parse_mailbox("SRS1=AAA=c.test=BB=CC=c.test=d@x.test")
    assert srs().reverse(srs().forward(strange, OURS)) == strange


@pytest.mark.parametrize("separator", "=+-")
def test_the_separators_of_others_come_back(separator: str) -> None:
    theirs = Mailbox(f"SRS0{separator}HHHH=TT=sender.example=anna", Domain("one.example"))
    assert srs().reverse(srs().forward(theirs, OURS)) == theirs


# --- any sender -------------------------------------------------------------------------------------------------------


def test_what_would_be_too_long_stays_as_it_is() -> None:
    long = Mailbox("a" * 60, Domain(".".join(["b" * 60] * 3)))
    assert srs().forward(long, Domain("c" * 30 + ".example")) == long


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40))
def test_any_local_part_comes_back(local: str) -> None:
    sender = Mailbox(local, Domain("sender.example"))
    held = srs().forward(sender, OURS)
    found = srs().reverse(held)
    if not local.lower().startswith(("srs0", "srs1")):
        assert found == sender
    # It is an address that can be written down and read again.
    assert parse_mailbox(str(held)) == held
