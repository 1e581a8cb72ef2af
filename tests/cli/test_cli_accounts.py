"""`user` and `alias`."""

import json
from datetime import datetime

import pytest

from gateway.accounts.credentials import verify_password
from gateway.storage.sqlite_accounts import SqliteAccounts
from tests.support.cli import Cli
from tests.support.process import Finished


def add(cli: Cli, address: str, password: str = "long enough") -> Finished:
    return cli("user", "add", address, "--password-stdin", stdin=password + "\n")


def stored(cli: Cli, address: str) -> str | None:
    accounts = SqliteAccounts(cli.folder / "data" / "accounts.db")
    try:
        found = accounts.account(address)
        return None if found is None else found.password_hash
    finally:
        accounts.close()


def test_an_account_is_added_listed_disabled_enabled_and_deleted(cli: Cli) -> None:
    assert add(cli, "Alice@Example.org").expect(0).stdout == "added alice@example.org\n"
    assert verify_password(stored(cli, "alice@example.org"), "long enough")
    rows = json.loads(cli("user", "list", "--json").expect(0).stdout)
    assert [(row["address"], row["state"]) for row in rows] == [
        ("alice@example.org", "enabled"),
        ("postmaster@example.org", "enabled"),
    ]
    assert all(datetime.fromisoformat(row["created"]).tzinfo is not None for row in rows)
    cli("user", "disable", "alice@example.org").expect(0)
    assert stored(cli, "alice@example.org") is None
    table = cli("user", "list").expect(0).stdout.splitlines()
    assert table[0].split() == ["ADDRESS", "STATE", "CREATED"]
    assert table[1].split()[:2] == ["alice@example.org", "disabled"]
    cli("user", "enable", "Alice@example.org").expect(0)
    cli("user", "passwd", "alice@example.org", "--password-stdin", stdin="another one\n").expect(0)
    assert verify_password(stored(cli, "alice@example.org"), "another one")
    cli("user", "delete", "alice@example.org").expect(0)
    assert "alice" not in cli("user", "list").stdout


@pytest.mark.parametrize(
    ("address", "password", "code", "message"),
    [
        ("postmaster@example.org", "long enough", 1, "exists already"),
        ("alice", "long enough", 2, "address has no domain"),
        ("a@elsewhere.example", "long enough", 2, "is none of [domains]"),
        ("a/b@example.org", "long enough", 2, "an account's name has none of"),
        ("a+b@example.org", "long enough", 2, "an account's name"),
        ('".hid"@example.org', "long enough", 2, "an account's name"),
        ("alice@example.org", "short", 2, "at least 8 characters"),
        ("alice@example.org", "", 2, "at least 8 characters"),
        ("a\u2028b@example.org", "long enough", 2, "an account's name"),
    ],
)
def test_what_user_add_refuses(cli: Cli, address: str, password: str, code: int, message: str) -> None:
    done = add(cli, address, password).expect(code)
    assert message in done.stderr
    assert len(json.loads(cli("user", "list", "--json").stdout)) == 1


def test_a_password_is_not_asked_where_nobody_can_answer(cli: Cli) -> None:
    assert "--password-stdin" in cli("user", "add", "alice@example.org").expect(2).stderr


@pytest.mark.parametrize("command", ["passwd", "disable", "enable", "delete"])
def test_an_account_that_is_none(cli: Cli, command: str) -> None:
    arguments = ("--password-stdin",) if command == "passwd" else ()
    assert (
        "no account nobody@example.org"
        in cli("user", command, "nobody@example.org", *arguments, stdin="long enough\n").expect(1).stderr
    )


def test_a_deleted_account_s_mail_is_out_of_reach_of_its_successor(cli: Cli) -> None:
    add(cli, "alice@example.org").expect(0)
    folder = cli.folder / "data" / "mail" / "example.org" / "alice"
    folder.mkdir(parents=True)
    (folder / "index.db").write_text("x")
    for parent in (folder, folder.parent, folder.parent.parent):
        parent.chmod(0o777)
    assert "mail kept in" in cli("user", "delete", "alice@example.org").expect(0).stdout
    assert not folder.exists()
    (kept,) = folder.parent.glob(".deleted-alice-*")
    assert (kept / "index.db").exists()


def test_aliases(cli: Cli) -> None:
    add(cli, "alice@example.org").expect(0)
    done = cli(
        "alias", "add", "Sales@example.org", "alice@example.org", "X@elsewhere.example", "alice@example.org"
    ).expect(0)
    assert "sales@example.org" in done.stdout
    assert (
        "gone@example.org does not exist yet"
        in cli("alias", "add", "team@example.org", "gone@example.org").expect(0).stderr
    )
    rows = json.loads(cli("alias", "list", "--json").expect(0).stdout)
    assert [row["alias"] for row in rows] == ["sales@example.org", "team@example.org"]
    assert "x@elsewhere.example" in str(rows[0]["targets"]).lower()
    assert str(rows[0]["targets"]).count("alice@example.org") == 1
    cli("alias", "add", "sales@example.org", "postmaster@example.org").expect(0)
    assert "alice" not in cli("alias", "list").stdout
    cli("alias", "delete", "SALES@example.org").expect(0)
    assert "no alias sales@example.org" in cli("alias", "delete", "sales@example.org").expect(1).stderr


def test_json_lists_the_targets_of_an_alias_as_a_list(cli: Cli) -> None:
    cli("alias", "add", "sales@example.org", "a@elsewhere.example", "b@elsewhere.example").expect(0)
    (row,) = json.loads(cli("alias", "list", "--json").expect(0).stdout)
    assert row["targets"] == ["a@elsewhere.example", "b@elsewhere.example"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("b@example.org", "a@example.org"), 1, "this alias would loop: b@example.org → a@example.org → b@example.org"),
        (("self@example.org", "self@example.org"), 1, "would loop"),
        (("c@elsewhere.example", "a@example.org"), 2, "is none of [domains]"),
        (("c@example.org", "nonsense"), 2, "nonsense: address has no domain"),
        (("c@example.org",), 2, "TARGETS"),
    ],
)
def test_what_alias_add_refuses(cli: Cli, argv: tuple[str, ...], code: int, message: str) -> None:
    cli("alias", "add", "a@example.org", "b@example.org").expect(0)
    assert message in cli("alias", "add", *argv).expect(code).stderr


def test_an_account_may_keep_a_copy_of_what_its_alias_sends_on(cli: Cli) -> None:
    cli("alias", "add", "postmaster@example.org", "postmaster@example.org", "x@elsewhere.example").expect(0)
