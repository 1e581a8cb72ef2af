"""`dkim`: a key's way from new to forgotten, with what DNS shows at each step."""

import json
import re
import time
from collections.abc import Iterator

import pytest

from gateway.demo.nameserver import NameServer
from gateway.storage.sqlite_dkim import SqliteDkimKeys
from tests.support.cli import Cli

MONTH = time.strftime("%Y%m")


@pytest.fixture
def dns(cli: Cli) -> Iterator[NameServer]:
    with NameServer() as server:
        config = cli.folder / "smarthost.toml"
        config.write_text(config.read_text() + f'\n[dns]\nservers = ["{server.address}"]\n')
        yield server


def keys(cli: Cli, *argv: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(cli("dkim", "list", "--json", *argv).expect(0).stdout)
    return found


def states(cli: Cli) -> list[tuple[str, str, str]]:
    return [(row["domain"], row["selector"], row["state"]) for row in keys(cli) if row["domain"] != "example.org"]


def published(text: str) -> str:
    """The only record that a command's output wants published."""
    (found,) = re.findall(r"^  (\S+\. IN TXT \( .* \))$", text, re.MULTILINE)
    return str(found).replace("( ", "").replace(" )", "")


def test_a_key_s_way(cli: Cli, dns: NameServer) -> None:
    first = published(cli("dkim", "rotate", "Sender.example").expect(0).stdout)
    assert first.startswith(f'{MONTH}a._domainkey.sender.example. IN TXT "v=DKIM1; k=rsa; p=MIIB')
    assert states(cli) == [("sender.example", f"{MONTH}a", "waiting")]
    # Not published: it goes on waiting, and the record is shown again.
    waits = cli("dkim", "rotate", "sender.example").expect(1)
    assert waits.stdout.startswith(f"{MONTH}a._domainkey.sender.example: no such record yet\n")
    assert published(waits.stdout) == first
    dns.add(f'{MONTH}a._domainkey.sender.example. IN TXT "v=DKIM1; p="')
    assert "key revoked" in cli("dkim", "rotate", "sender.example").expect(1).stdout
    assert states(cli) == [("sender.example", f"{MONTH}a", "waiting")]
    dns.remove(f"{MONTH}a._domainkey.sender.example.")
    dns.add(first)
    signs = cli("dkim", "rotate", "sender.example").expect(0)
    assert signs.stdout == f"{MONTH}a signs for sender.example from now on.\n"
    # The next: the first one signs until the second is seen.
    second = published(cli("dkim", "rotate", "sender.example").expect(0).stdout)
    assert [state for _, _, state in states(cli)] == ["active", "waiting"]
    dns.add(first.replace(f"{MONTH}a.", f"{MONTH}b."))
    assert "another key is there" in cli("dkim", "rotate", "sender.example").expect(1).stdout
    dns.remove(f"{MONTH}b._domainkey.sender.example.")
    dns.add(second)
    changed = cli("dkim", "rotate", "sender.example").expect(0).stdout
    assert changed.splitlines()[0] == f"{MONTH}b signs for sender.example from now on."
    assert f"smarthost dkim retire sender.example {MONTH}a" in changed
    assert [state for _, _, state in states(cli)] == ["retired", "active"]
    # What has just retired is not forgotten by accident; what signs stops first.
    assert "leave its record for a week" in cli("dkim", "retire", "sender.example", f"{MONTH}a").expect(1).stderr
    gone = cli("dkim", "retire", "sender.example", f"{MONTH}a", "--now").expect(0).stdout
    assert f"Take {MONTH}a._domainkey.sender.example out of DNS." in gone
    stopped = cli("dkim", "retire", "sender.example", f"{MONTH}b").expect(0).stdout
    assert "Nothing signs for sender.example now." in stopped
    assert states(cli) == [("sender.example", f"{MONTH}b", "retired")]


def test_two_kinds_of_keys_change_together(cli: Cli, dns: NameServer) -> None:
    for algorithm in ("rsa", "ed25519"):
        dns.add(published(cli("dkim", "new", "sender.example", "--algorithm", algorithm).expect(0).stdout))
    cli("dkim", "rotate", "sender.example").expect(0)
    out = cli("dkim", "rotate", "sender.example").expect(0).stdout
    records = re.findall(r"k=(\w+); p=", out)
    assert records == ["rsa", "ed25519"]
    kept = SqliteDkimKeys(cli.folder / "data" / "accounts.db")
    assert [key.algorithm for key in kept.active("sender.example")] == ["rsa", "ed25519"]
    assert kept.active("example.net") == ()
    kept.close()


def test_dns_that_fails_changes_nothing(cli: Cli, dns: NameServer) -> None:
    cli("dkim", "new", "sender.example", "--selector", "s").expect(0)
    dns.fault("s._domainkey.sender.example", "servfail")
    assert "s._domainkey.sender.example: DNS" in cli("dkim", "rotate", "sender.example").expect(1).stdout
    assert states(cli) == [("sender.example", "s", "waiting")]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("new", "sender.example", "--selector", "S_1"), 2, "a selector has letters"),
        (("new", "sender.example", "--selector", "-a"), 2, "a selector has letters"),
        (("new", "sender.example", "--algorithm", "dsa"), 2, "dsa"),
        (("new", "no domain"), 2, "no domain: "),
        (("new", "[192.0.2.1]"), 2, "a domain is wanted"),
        (("rotate", ".."), 2, "..: "),
        (("retire", "sender.example", "nobody"), 1, "sender.example: no key with the selector nobody"),
    ],
)  # fmt: skip
def test_the_wrong_input(cli: Cli, argv: tuple[str, ...], code: int, message: str) -> None:
    done = cli("dkim", *argv).expect(code)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_selector_is_taken_once(cli: Cli) -> None:
    cli("dkim", "new", "sender.example", "--selector", "s").expect(0)
    assert "already" in cli("dkim", "new", "sender.example", "--selector", "s").expect(1).stderr
    assert len(keys(cli, "sender.example")) == 1
