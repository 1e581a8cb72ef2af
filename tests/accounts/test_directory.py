"""Who exists here: accounts, aliases, plus-addresses, roles; expansion ends, and agrees with what RCPT promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.directory import MAX_EXPANSION, AccountDirectory, AliasLoop, find_loop
from gateway.core.address import parse_domain, parse_mailbox
from tests.support.fakes import FakeAccounts

ACCOUNTS = ("first@example.org", "alice@example.org", "bob@other.example")
ALIASES = {
    "sales@example.org": ("alice@example.org", "x@elsewhere.example"),
    "team@example.org": ("sales@example.org", "bob@other.example", "alice@example.org"),
    "alice@other.example": ("alice@example.org",),
    "bob@other.example": ("bob@other.example", "copy@elsewhere.example"),
    "a@example.org": ("b@example.org", "alice@example.org"),
    "b@example.org": ("a@example.org",),
    "self@example.org": ("self@example.org",),
}


def directory(accounts: tuple[str, ...] = ACCOUNTS, aliases: dict[str, tuple[str, ...]] = ALIASES) -> AccountDirectory:
    return AccountDirectory(FakeAccounts(accounts, aliases), ["example.org", "other.example"], ["partner.example"])


def test_domains() -> None:
    who = directory()
    assert who.is_local(parse_domain("Example.org"))
    assert not who.is_local(parse_domain("sub.example.org"))
    assert who.is_relayed(parse_domain("partner.example"))
    assert not who.is_relayed(parse_domain("example.org"))
    assert who.local_domains == {"example.org", "other.example"}


@pytest.mark.parametrize(
    ("address", "routed"),
    [
        ("user%remote.test@example.org", "user@remote.test"),
        ("user%two.test%one.test@example.org", "user%two.test@one.test"),
        ("user%remote.test%example.org@example.org", "user@remote.test"),
        ("alice%example.org@example.org", "alice@example.org"),
        ("remote.test!user@example.org", "user@remote.test"),
        ("one.test!two.test!user@example.org", "two.test!user@one.test"),
        ("one.test!user%two.test@example.org", "user%two.test@one.test"),
        ('"user%remote.test"@example.org', "user@remote.test"),
        ('"two words%remote.test"@example.org', '"two words"@remote.test'),
        # No route, or none that can be followed.
        ("alice@example.org", "alice@example.org"),
        ("%remote.test@example.org", "%remote.test@example.org"),
        ("user%@example.org", "user%@example.org"),
        ("remote.test!@example.org", "remote.test!@example.org"),
        ("50%!off@example.org", "50%!off@example.org"),
        ("user%192.0.2.1@example.org", "user%192.0.2.1@example.org"),
        # Local, relayed and remote domains that look for none.
        ("user%remote.test@other.example", "user%remote.test@other.example"),
        ("user%remote.test@partner.example", "user%remote.test@partner.example"),
        ("user%remote.test@elsewhere.example", "user%remote.test@elsewhere.example"),
    ],
)
def test_where_a_route_in_the_local_part_leads(address: str, routed: str) -> None:
    who = AccountDirectory(
        FakeAccounts(ACCOUNTS, ALIASES), ["example.org", "other.example"], ["partner.example"], routing=["example.org"]
    )
    assert str(who.where_routed(parse_mailbox(address))) == routed
    assert directory().where_routed(parse_mailbox(address)) == parse_mailbox(address)


@pytest.mark.parametrize(
    ("address", "targets"),
    [
        ("alice@example.org", ["alice@example.org"]),
        ("ALICE@example.org", ["ALICE@example.org"]),
        ("alice+tag@example.org", ["alice+tag@example.org"]),
        ("nobody@example.org", []),
        ("nobody+x@example.org", []),
        ("+x@example.org", []),
        ("sales@example.org", ["alice@example.org", "x@elsewhere.example"]),
        ("Sales+x@example.org", ["alice@example.org", "x@elsewhere.example"]),
        (
            "team@example.org",
            ["alice@example.org", "x@elsewhere.example", "bob@other.example", "copy@elsewhere.example"],
        ),
        ("bob@other.example", ["bob@other.example", "copy@elsewhere.example"]),
        ("a@example.org", ["alice@example.org"]),
        ("b@example.org", ["alice@example.org"]),
        ("self@example.org", []),
        ("postmaster@example.org", ["first@example.org"]),
        ("Abuse@other.example", ["bob@other.example"]),
        ("x@elsewhere.example", ["x@elsewhere.example"]),
    ],
)
def test_expansion(address: str, targets: list[str]) -> None:
    found = directory().expand(parse_mailbox(address))
    if address == "Abuse@other.example":
        assert found[0] in ("bob@other.example", "copy@elsewhere.example")
        return
    assert list(found) == targets


def test_account_of_finds_the_owner_without_the_tag() -> None:
    who = directory()
    assert who.account_of(parse_mailbox("Alice+x+y@Example.org")) == "alice@example.org"
    assert who.account_of(parse_mailbox("sales@example.org")) is None


def test_postmaster_goes_to_its_own_account_or_alias_where_there_is_one() -> None:
    assert directory(("postmaster@example.org", *ACCOUNTS)).expand(parse_mailbox("postmaster@example.org")) == (
        "postmaster@example.org",
    )
    aliased = directory(aliases={"postmaster@example.org": ("alice@example.org",)})
    assert aliased.expand(parse_mailbox("Postmaster@example.org")) == ("alice@example.org",)
    assert directory((), {}).expand(parse_mailbox("postmaster@example.org")) == ()


def test_a_disabled_account_still_takes_mail() -> None:
    store = FakeAccounts(ACCOUNTS)
    store.disable("alice@example.org")
    assert AccountDirectory(store, ["example.org"], []).exists(parse_mailbox("alice@example.org"))


def test_expansion_is_bounded() -> None:
    aliases = {"all@example.org": tuple(f"u{n}@elsewhere.example" for n in range(MAX_EXPANSION + 50))}
    assert len(directory((), aliases).expand(parse_mailbox("all@example.org"))) == MAX_EXPANSION
    chain = {f"c{n}@example.org": (f"c{n + 1}@example.org",) for n in range(50)}
    assert directory((), chain).expand(parse_mailbox("c0@example.org")) == ()


names = st.sampled_from([f"{name}@example.org" for name in "abcd"] + ["x@elsewhere.example"])
local = names.filter(lambda name: name.endswith("example.org"))


@given(st.dictionaries(local, st.lists(names, min_size=1, max_size=3, unique=True).map(tuple)), st.sets(local))
def test_expansion_ends_at_accounts_and_strangers_once_each(
    aliases: dict[str, tuple[str, ...]], accounts: set[str]
) -> None:
    who = directory(tuple(sorted(accounts)), aliases)
    for name in "abcd":
        found = who.expand(parse_mailbox(f"{name}@example.org"))
        assert len(found) == len(set(found))
        assert set(found) <= accounts | {"x@elsewhere.example"}


def test_whoever_exists_has_somebody_who_gets_the_mail() -> None:
    """What RCPT accepts must not bounce: an alias whose targets are gone, or only itself, is nobody."""
    aliases = {"gone@example.org": ("deleted@example.org",), "self@example.org": ("self@example.org",)}
    who = directory(aliases=aliases)
    for address in (*aliases, "alice@example.org", "nobody@example.org"):
        mailbox = parse_mailbox(address)
        assert who.exists(mailbox) is bool(who.expand(mailbox))


@pytest.mark.parametrize(
    ("address", "targets", "loop"),
    [
        ("new@example.org", ["new@example.org"], "new@example.org → new@example.org"),
        ("new@example.org", ["old@example.org"], "new@example.org → old@example.org → new@example.org"),
        (
            "new@example.org",
            ["mid@example.org"],
            "new@example.org → mid@example.org → old@example.org → new@example.org",
        ),
        ("new@example.org", ["alice@example.org", "NEW@example.org"], "new@example.org → new@example.org"),
    ],
)
def test_a_loop_is_told_with_its_members(address: str, targets: list[str], loop: str) -> None:
    store = FakeAccounts(ACCOUNTS, {"old@example.org": ("new@example.org",), "mid@example.org": ("old@example.org",)})
    with pytest.raises(AliasLoop) as caught:
        find_loop(store, address, targets)
    assert str(caught.value) == loop


def test_a_loop_over_a_plus_address_is_a_loop_too() -> None:
    store = FakeAccounts((), {"old@example.org": ("new+x@example.org",)})
    with pytest.raises(AliasLoop):
        find_loop(store, "new@example.org", ["old@example.org"])


def test_no_loop() -> None:
    store = FakeAccounts(
        ACCOUNTS,
        {"sales@example.org": ("alice@example.org",), "team@example.org": ("sales@example.org", "alice@example.org")},
    )
    find_loop(store, "alice@example.org", ["alice@example.org", "copy@elsewhere.example"])
    find_loop(store, "all@example.org", ["team@example.org", "sales@example.org"])
    assert store.alias("sales@example.org") == ("alice@example.org",)


OWNED = {
    "sales@example.org": ("alice@example.org", "x@elsewhere.example"),
    "team@example.org": ("sales@example.org", "bob@other.example"),
    "tagged@example.org": ("alice+lists@example.org",),
    "upper@example.org": ("Alice@Example.org",),
    "deep0@example.org": ("deep1@example.org",),
    "deep1@example.org": ("deep2@example.org",),
    "deep2@example.org": ("alice@example.org",),
    "away@example.org": ("x@elsewhere.example",),
    "alice@other.example": ("bob@other.example",),
    "loop@example.org": ("loop@example.org",),
}


@pytest.mark.parametrize(
    ("address", "is_owned"),
    [
        ("alice@example.org", True),
        ("ALICE@EXAMPLE.ORG", True),
        ("alice+shop@example.org", True),
        ("Alice+a+b@example.org", True),
        ("+alice@example.org", False),
        ("alice@other.example", False),
        ("alice@sub.example.org", False),
        ("alice@elsewhere.example", False),
        ("alice@partner.example", False),
        ("alice@[192.0.2.1]", False),
        ('"alice"@example.org', True),
        ('"alice "@example.org', False),
        ('"alice@example.org"@elsewhere.example', False),
        ("bob@other.example", False),
        ("first@example.org", False),
        ("nobody@example.org", False),
        ("sales@example.org", True),
        ("Sales+x@example.org", True),
        ("team@example.org", True),
        ("deep0@example.org", True),
        ("away@example.org", False),
        ("x@elsewhere.example", False),
        ("loop@example.org", False),
        ("postmaster@example.org", False),
    ],
)
def test_a_user_owns_their_address_and_the_aliases_that_lead_to_it(address: str, is_owned: bool) -> None:
    assert directory(aliases=OWNED).owns("alice@example.org", parse_mailbox(address)) is is_owned


@pytest.mark.parametrize("alias", ["tagged@example.org", "upper@example.org"])
def test_an_alias_leads_to_a_user_however_its_target_is_written(alias: str) -> None:
    who = directory(aliases=OWNED)
    assert who.owns("alice@example.org", parse_mailbox(alias))
    assert not who.owns("bob@other.example", parse_mailbox(alias))


def test_a_role_is_owned_by_whom_its_mail_goes_to() -> None:
    assert directory(aliases=OWNED).owns("first@example.org", parse_mailbox("Postmaster@example.org"))


def test_two_users_of_one_alias_both_own_it() -> None:
    who = directory(aliases=OWNED)
    assert who.owns("bob@other.example", parse_mailbox("team@example.org"))
    assert not who.owns("bob@other.example", parse_mailbox("sales@example.org"))


def test_an_alias_in_front_of_an_account_belongs_to_both() -> None:
    """Mail for carol goes to alice, and carol still signs in as herself."""
    who = directory((*ACCOUNTS, "carol@example.org"), {"carol@example.org": ("alice@example.org",)})
    for user in ("carol@example.org", "alice@example.org"):
        assert who.owns(user, parse_mailbox("carol@example.org"))
    assert not who.owns("carol@example.org", parse_mailbox("alice@example.org"))


@given(st.sampled_from([*OWNED, *ACCOUNTS]), st.sampled_from(ACCOUNTS))
def test_whoever_owns_an_address_of_a_local_domain_gets_its_mail_or_has_its_name(address: str, user: str) -> None:
    who, mailbox = directory(aliases=OWNED), parse_mailbox(address)
    reached = {target.lower().replace("+lists", "") for target in who.expand(mailbox)}
    assert who.owns(user, mailbox) is (user in reached or who.account_of(mailbox) == user)


@pytest.mark.parametrize(
    ("address", "delimiter", "untagged"),
    [
        ("Alice+Lists@example.org", "+", "alice@example.org"),
        ("alice@example.org", "+", "alice@example.org"),
        ("+x@example.org", "+", "+x@example.org"),
        ("alice-x@example.org", "-", "alice@example.org"),
        ("alice+x@example.org", "", "alice+x@example.org"),
        ("alice+x@else.test", "+", "alice+x@else.test"),
    ],
)
def test_an_address_without_its_tag(address: str, delimiter: str, untagged: str) -> None:
    directory = AccountDirectory(FakeAccounts([]), ["example.org"], [], delimiter=delimiter)
    assert directory.without_tag(parse_mailbox(address)) == untagged


@pytest.mark.parametrize(
    ("domain", "is_relayed"),
    [("partner.test", True), ("a.partner.test", True), ("xpartner.test", False), ("exact.test", True),
     ("a.exact.test", False), ("mine.partner.test", False)],
)  # fmt: skip
def test_subdomains_of_relay_domains(domain: str, is_relayed: bool) -> None:
    directory = AccountDirectory(FakeAccounts([]), ["mine.partner.test"], [".partner.test", "exact.test"])
    assert directory.is_relayed(parse_domain(domain)) is is_relayed
