"""Which senders a recipient allows and blocks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.accounts.choices import MAX_CHOICES, Choices, parse_sender
from gateway.accounts.directory import AccountDirectory
from gateway.core.address import parse_mailbox
from gateway.storage.sqlite_accounts import SqliteAccounts

ALICE = parse_mailbox("alice@example.org")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteAccounts]:
    accounts = SqliteAccounts(tmp_path / "accounts.db")
    accounts.add("alice@example.org", "hash")
    accounts.add("bob@example.org", "hash")
    accounts.set_alias("info@example.org", ("alice@example.org",))
    accounts.set_alias("all@example.org", ("alice@example.org", "bob@example.org"))
    yield accounts
    accounts.close()


@pytest.fixture
def directory(store: SqliteAccounts) -> AccountDirectory:
    return AccountDirectory(store, ["example.org"], ["partner.example"])


def test_an_address_goes_before_its_domain(store: SqliteAccounts, directory: AccountDirectory) -> None:
    choices = Choices(directory, store)
    assert directory.choice(ALICE, "a@x.example") is None
    choices.block(ALICE, "@X.example")
    choices.welcome(ALICE, "A@x.example")
    assert directory.choice(ALICE, "a@X.EXAMPLE") is True
    assert directory.choice(ALICE, "b@x.example") is False
    assert directory.choice(ALICE, "b@sub.x.example") is None
    assert directory.choice(parse_mailbox("bob@example.org"), "b@x.example") is None
    assert dict(choices.of(ALICE)) == {"@x.example": False, "a@x.example": True}


def test_tags_and_aliases_lead_to_the_accounts_own(store: SqliteAccounts, directory: AccountDirectory) -> None:
    Choices(directory, store).block(parse_mailbox("Alice+tag@example.org"), "a@x.example")
    for address in ("alice@example.org", "alice+other@example.org", "info@example.org"):
        assert directory.choice(parse_mailbox(address), "a@x.example") is False
    # What one of several readers blocks is not blocked for the others.
    assert directory.choice(parse_mailbox("all@example.org"), "a@x.example") is None
    Choices(directory, store).block(parse_mailbox("bob@example.org"), "a@x.example")
    assert directory.choice(parse_mailbox("all@example.org"), "a@x.example") is False


def test_mailboxes_behind_us_have_a_choice_too(store: SqliteAccounts, directory: AccountDirectory) -> None:
    partner = parse_mailbox("Zoe@partner.example")
    Choices(directory, store).block(partner, "a@x.example")
    assert directory.choice(parse_mailbox("zoe@partner.example"), "a@x.example") is False


def test_the_newest_word_counts_and_can_be_taken_back(store: SqliteAccounts, directory: AccountDirectory) -> None:
    choices = Choices(directory, store)
    choices.block(ALICE, "a@x.example")
    choices.welcome(ALICE, "a@x.example")
    assert directory.choice(ALICE, "a@x.example") is True
    assert choices.forget(ALICE, "a@x.example")
    assert not choices.forget(ALICE, "a@x.example")
    assert directory.choice(ALICE, "a@x.example") is None


def test_the_oldest_go_where_there_are_too_many(store: SqliteAccounts) -> None:
    for number in range(4):
        store.choose("alice@example.org", f"{number}@x.example", is_welcome=False, limit=3)
    assert sorted(store.choices("alice@example.org")) == [f"{number}@x.example" for number in (1, 2, 3)]
    assert MAX_CHOICES >= 100


def test_who_comes_after_a_deleted_user_inherits_nothing(store: SqliteAccounts, directory: AccountDirectory) -> None:
    Choices(directory, store).block(ALICE, "a@x.example")
    store.delete("alice@example.org")
    store.add("alice@example.org", "hash")
    assert directory.choice(ALICE, "a@x.example") is None


@pytest.mark.parametrize("text", ["", "a", "@", "@x y", "a@", "a b@x.example", "@x.example.."])
def test_what_is_no_sender_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_sender(text)


@pytest.mark.parametrize("seen", ["X@b\u00fccher.example", "x@xn--bcher-kva.example", '"x"@b\u00fccher.example'])
def test_an_address_is_the_same_however_it_is_written(
    store: SqliteAccounts, directory: AccountDirectory, seen: str
) -> None:
    Choices(directory, store).block(ALICE, "x@B\u00dcCHER.example")
    assert directory.choice(ALICE, seen) is False


def test_what_is_no_address_is_nobody_s(store: SqliteAccounts, directory: AccountDirectory) -> None:
    Choices(directory, store).block(ALICE, "@x.example")
    assert directory.choice(ALICE, "a b@x.example") is None
