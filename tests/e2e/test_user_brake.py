"""The brake on a user who sends far more than usual: held, told once, let go or dropped by one command."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.gateway import Gateway
from tests.support.process import wait_until
from tests.support.raw import RawClient, temporary_gateway

ALICE, BOB = "alice@example.org", "bob@example.org"
RULES = """\
stage: message
rules:
  - hold: more than this user usually sends
    when: auth.user and rate("user", "1h", "recipients") > auth.usual
"""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    options = {"settings": {"checks.usage": {"floor": 3}}, "policies": {"50-message.yaml": RULES}}
    with temporary_gateway(**options) as found:
        yield found


def sends(gateway: Gateway, user: str, marker: str, *, to: str = BOB) -> int:
    with RawClient(gateway.ports["submission"]) as client:
        client.ehlo()
        client.starttls()
        client.ehlo()
        assert client.login(user).code == 235
        client.begin_data(to, sender=user)
        client.send(f"From: {user}\r\nSubject: {marker}\r\n\r\nx\r\n.\r\n".encode())
        return client.reply(20).code


def held(gateway: Gateway, user: str) -> int:
    return len(json.loads(gateway.cli("queue", "list", "--user", user, "--state", "held", "--json").expect().stdout))


def test_what_is_beyond_is_held_told_and_let_go(gateway: Gateway) -> None:
    for number in range(3):
        assert sends(gateway, BOB, f"usual-{number}", to=ALICE) == 250
    gateway.wait_mails(ALICE, 3)
    for number in range(3):
        assert sends(gateway, BOB, f"beyond-{number}", to=ALICE) == 250
    assert held(gateway, BOB) == 3
    assert held(gateway, ALICE) == 0
    # The oldest account of the domain reads postmaster's mail.
    told = wait_until(
        lambda: [mail for mail in gateway.mails(ALICE) if b"Subject: mail of bob@example.org is held" in mail],
        15,
        "word",
    )
    assert len(told) == 1
    assert b"smarthost queue release --user bob@example.org" in told[0]
    assert b'rule "more than this user usually sends"' in told[0]
    assert not [mail for mail in gateway.mails(ALICE) if b"beyond" in mail]
    gateway.cli("queue", "release", "--user", BOB).expect()
    wait_until(lambda: len([mail for mail in gateway.mails(ALICE) if b"beyond" in mail]) == 3, 15, "what was let go")


def test_it_is_dropped_by_one_command_and_others_go_on(gateway: Gateway) -> None:
    for number in range(5):
        assert sends(gateway, BOB, f"m-{number}", to=ALICE) == 250
    assert sends(gateway, ALICE, "of another", to=BOB) == 250
    gateway.wait_mails(BOB, 1)
    assert held(gateway, BOB) == 2
    gateway.cli("queue", "delete", "--user", BOB, "--state", "held").expect()
    assert held(gateway, BOB) == 0


def test_a_user_s_own_past_raises_the_limit_and_held_mail_does_not(gateway: Gateway) -> None:
    hour = int(time.time() // 3600)
    with closing(sqlite3.connect(gateway.data / "state.db", isolation_level=None)) as state:
        state.execute("INSERT INTO usage VALUES(?, ?, 4)", [BOB, hour - 30])
        state.execute("INSERT INTO usage VALUES(?, ?, 900)", [BOB, hour - 24 * 40])
    for number in range(13):
        assert sends(gateway, BOB, f"m-{number}", to=ALICE) == 250
    assert held(gateway, BOB) == 1  # three times the busiest hour of four weeks
    with closing(sqlite3.connect(gateway.data / "state.db")) as state:
        sql = "SELECT sum(recipients) FROM usage WHERE user = ? AND hour >= ?"
        counted = wait_until(lambda: state.execute(sql, [BOB, hour]).fetchone()[0], 5, "what was counted")
    assert counted == 12
