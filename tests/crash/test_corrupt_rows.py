"""Damaged rows and files: they are set aside and told of, and everybody else's mail goes on."""

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

import pytest

from gateway.mailbox.schema import SCHEMA_VERSION
from tests.crash.load import LARGE, RawClient, id_of, make_message, queued, stored
from tests.support.gateway import REPOSITORY, Gateway
from tests.support.process import run, wait_until

USER = "alice@example.org"
SOUND = ("sound-0", "sound-1", "sound-2")

# The damage to the message whose id is the key, as SQL; :message, :blob are its rows. "large" ids have a file.
DAMAGE = {
    "reverse path that is no address": "UPDATE message SET reverse_path = 'no address' WHERE id = :message",
    "forward path that is no address": "UPDATE recipient SET forward_path = '@@' WHERE message = :message",
    "header that is text": "UPDATE message SET header = 'From: x' WHERE id = :message",
    "body that is gone": "UPDATE blob SET octets = NULL WHERE id = :blob",
    "body cut short": "UPDATE blob SET octets = substr(octets, 1, 10) WHERE id = :blob",
    "time of expiry that is text": "UPDATE message SET expires = 'never' WHERE id = :message",
    "large without its file": "",
    "large with a file cut short": "",
}
ODD_DAMAGE = {
    "header that is a number": "UPDATE message SET header = 7 WHERE id = :message",
    "body that is a number": "UPDATE blob SET octets = size WHERE id = :blob",
    "time of arrival that is text": "UPDATE message SET created = 'yesterday' WHERE id = :message",
    "offset before the start": "UPDATE message SET offset = -1 WHERE id = :message",
    "offset behind the end": "UPDATE message SET offset = 1000000 WHERE id = :message",
    "blob row that is gone": "DELETE FROM blob WHERE id = :blob",
}

# What a recipient's or message's row of an otherwise sound database might hold: table, column, value.
ODD_VALUES = (
    ("recipient", "state", 9),
    ("recipient", "due", "soon"),
    ("recipient", "due", 1e20),
    ("recipient", "attempts", "many"),
    ("recipient", "last_reply", 7),
    ("message", "created", "yesterday"),
    ("message", "info", "[1, 2]"),
)


def _fill(make_gateway: Callable[..., Gateway], idents: list[str]) -> tuple[Gateway, dict[str, str]]:
    """A stopped gateway with a message of each id in its queue; id to queue id."""
    gateway = make_gateway(roles="smtp,admin")
    found: dict[str, str] = {}
    with gateway, RawClient(gateway.ports["smtp"]) as client:
        for ident in idents:
            client.begin(USER)
            client.send(make_message(ident.replace(" ", "_"), LARGE if ident.startswith("large") else 0) + b".\r\n")
            answer = client.reply()
            assert answer.startswith("250 2.0.0 Queued as "), answer
            found[ident] = answer.split()[-1]
    assert queued(gateway) == len(idents)
    return gateway, found


def _damage(gateway: Gateway, queue_ids: Mapping[str, str], damage: Mapping[str, str]) -> None:
    with closing(sqlite3.connect(gateway.data / "queue.db", isolation_level=None)) as connection:
        for ident, sql in damage.items():
            message, blob, name = connection.execute(
                "SELECT message.id, blob, name FROM message JOIN blob ON blob.id = blob WHERE queue_id = ?",
                [queue_ids[ident]],
            ).fetchone()
            if sql:
                changed = connection.execute(sql, {"message": message, "blob": blob}).rowcount
                assert changed == 1, ident
                continue
            path = gateway.data / "spool" / "blob" / name[:2] / name
            if "cut short" in ident:
                with path.open("r+b") as file:
                    file.truncate(LARGE // 2)
            else:
                path.unlink()


@contextmanager
def _run_again(stopped: Gateway) -> Iterator[Gateway]:
    """The same folder with all roles."""
    with Gateway(stopped.folder, users=()) as gateway:
        yield gateway


def _unsettled(gateway: Gateway) -> int:
    with closing(sqlite3.connect(f"file:{gateway.data / 'queue.db'}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM recipient WHERE state <> 3").fetchone()[0])


def _check(gateway: Gateway, queue_ids: Mapping[str, str], damage: Mapping[str, str]) -> None:
    """Every sound message arrives, no damaged one does, and each of those is listed as corrupt."""
    sound = sorted(ident for ident in queue_ids if ident not in damage)
    gateway.wait_mails(USER, len(sound))
    wait_until(lambda: _unsettled(gateway) == 0, 8, "nothing ready or under way")
    arrived = sorted(
        id_of(octets) if b"X-Id: " in octets else "(a message without id)" for octets in stored(gateway, USER)
    )
    assert arrived == sound
    states = {str(row["id"]): row["state"] for row in gateway.queue()}
    assert {ident: states.get(queue_ids[ident]) for ident in damage} == dict.fromkeys(damage, "corrupt")
    assert gateway.metric("smarthost_queue_messages", state="corrupt") == len(damage)


def test_damaged_messages_are_set_aside_and_all_others_delivered(make_gateway: Callable[..., Gateway]) -> None:
    # Sound ones first, between and last.
    damaged = list(DAMAGE)
    stopped, queue_ids = _fill(make_gateway, [SOUND[0], *damaged[:4], SOUND[1], *damaged[4:], SOUND[2]])
    _damage(stopped, queue_ids, DAMAGE)
    with _run_again(stopped) as gateway:
        _check(gateway, queue_ids, DAMAGE)
        assert gateway.send(USER, make_message("sound-later")) == {}
        gateway.wait_mails(USER, len(SOUND) + 1)


@pytest.mark.parametrize("kind", ODD_DAMAGE)
def test_oddly_damaged_messages_are_set_aside_and_all_others_delivered(
    make_gateway: Callable[..., Gateway], kind: str
) -> None:
    damage = {kind: ODD_DAMAGE[kind]}
    stopped, queue_ids = _fill(make_gateway, [SOUND[0], kind, SOUND[1]])
    _damage(stopped, queue_ids, damage)
    with _run_again(stopped) as gateway:
        _check(gateway, queue_ids, damage)


def test_info_that_is_no_json_keeps_nothing_back(make_gateway: Callable[..., Gateway]) -> None:
    stopped, queue_ids = _fill(make_gateway, ["sound-0", "sound-1"])
    with closing(sqlite3.connect(stopped.data / "queue.db", isolation_level=None)) as connection:
        connection.execute("UPDATE message SET info = '{broken' WHERE queue_id = ?", [queue_ids["sound-1"]])
    assert {str(row["id"]) for row in stopped.queue()} == set(queue_ids.values())
    with _run_again(stopped) as gateway:
        gateway.wait_mails(USER, 2)  # files; the index follows
        found = wait_until(lambda: len(here := stored(gateway, USER)) >= 2 and here, 8, "both in the index")
        assert sorted(id_of(octets) for octets in found) == ["sound-0", "sound-1"]


def test_the_queue_can_be_listed_whatever_a_row_holds(make_gateway: Callable[..., Gateway]) -> None:
    stopped, queue_ids = _fill(make_gateway, ["odd", "sound"])
    unlisted = []
    with closing(sqlite3.connect(stopped.data / "queue.db", isolation_level=None)) as connection:
        (message,) = connection.execute("SELECT id FROM message WHERE queue_id = ?", [queue_ids["odd"]]).fetchone()
        for table, column, odd in ODD_VALUES:
            key = "id" if table == "message" else "message"
            (old,) = connection.execute(f"SELECT {column} FROM {table} WHERE {key} = ?", [message]).fetchone()
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [odd, message])
            listed = stopped.cli("queue", "list", "--json")
            if listed.code != 0 or {row["id"] for row in json.loads(listed.stdout)} != set(queue_ids.values()):
                unlisted.append(f"{table}.{column} = {odd!r}: {listed.stderr.strip().splitlines()[-1:]}")
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", [old, message])
    assert unlisted == []


@pytest.mark.parametrize("name", ["queue.db", "accounts.db", "trace.db"])
def test_a_database_of_a_newer_version_is_refused_and_left_alone(
    make_gateway: Callable[..., Gateway], name: str
) -> None:
    gateway = make_gateway()
    gateway.start()
    assert gateway.stop() == 0
    with closing(sqlite3.connect(gateway.data / name)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = (gateway.data / name).read_bytes()
    argv = [sys.executable, "-m", "gateway", "run", "-c", str(gateway.config)]
    result = run(argv, timeout=20, cwd=REPOSITORY).expect(1)
    assert f"{name} has schema version 99" in result.stderr
    assert "newer" in result.stderr
    assert "Traceback" not in result.stderr
    assert (gateway.data / name).read_bytes() == before


def test_a_mailbox_index_of_a_newer_version_keeps_its_mail_in_the_queue_and_nobody_elses(
    make_gateway: Callable[..., Gateway],
) -> None:
    with make_gateway() as gateway:
        gateway.send(USER, make_message("before"))
        gateway.wait_mails(USER, 1)
    index = gateway.data / "mail" / "example.org" / "alice" / "index.db"
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with gateway:
        gateway.send([USER, "bob@example.org"], make_message("both"))
        gateway.send("bob@example.org", make_message("bob"))
        wait_until(lambda: len(gateway.mails("bob@example.org")) == 2, 10, "both messages for bob")
        assert [row["recipient"] for row in gateway.queue()] == [USER]
        with closing(sqlite3.connect(index)) as connection:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        gateway.cli("queue", "retry", "--all").expect()
        assert id_of(gateway.wait_mails(USER, 2)[1]) == "both"
