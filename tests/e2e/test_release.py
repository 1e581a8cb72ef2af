"""What is kept is looked at once more when it is released: a virus stays, and mail waits for engines that are away."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.test_antivirus import attached, gateway_with, needs_clamd, offered
from tests.support.clamd import EICAR, Clamd
from tests.support.gateway import Gateway, shipped_content_policy
from tests.support.process import wait_until
from tests.support.raw import temporary_gateway, wait_stored

ALICE = "alice@example.org"
KEEP = """\
stage: message
rules:
  - quarantine: kept
    when: message.subject == "keep" or starts_with(message.subject, "keep ")
  - hold: held
    when: starts_with(message.subject, "hold ")
"""


def keeping() -> dict[str, str]:
    """A policy that keeps before anybody has looked for viruses."""
    return {"45-keep.yaml": KEEP, **{k: v for k, v in shipped_content_policy().items() if k.startswith("yara/")}}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with temporary_gateway(policies=keeping()) as found:
        yield found


def kept(gateway: Gateway) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(gateway.cli("quarantine", "list", "--json").expect().stdout)
    return rows


def id_of(gateway: Gateway, subject: str) -> str:
    return next(row["id"] for row in kept(gateway) if row["subject"] == subject)


def test_a_virus_is_not_released_unless_the_operator_insists(gateway: Gateway) -> None:
    assert offered(gateway, attached(EICAR, "a.txt", "keep virus")).code == 250
    queue_id = id_of(gateway, "keep virus")
    before = gateway.metric("smarthost_quarantine_releases_total", result="refused")
    refused = gateway.cli("quarantine", "release", queue_id).expect(1)
    assert "EICAR_Test_File was found in it" in refused.stderr
    assert "released 0 recipients" in refused.stdout
    (row,) = (row for row in kept(gateway) if row["id"] == queue_id)
    assert row["note"] == "not released: EICAR_Test_File was found in it"
    assert re.search(r"not released: .* asked by postmaster: EICAR", gateway.cli("trace", queue_id).expect().stdout)
    assert gateway.metric("smarthost_quarantine_releases_total", result="refused") == before + 1
    gateway.cli("quarantine", "release", queue_id, "--despite-virus").expect()
    assert EICAR in wait_stored(gateway, "keep virus") or b"a.txt" in wait_stored(gateway, "keep virus")


def test_what_a_rule_holds_is_looked_at_too(gateway: Gateway) -> None:
    assert offered(gateway, attached(EICAR, "a.txt", "hold virus")).code == 250
    assert offered(gateway, attached(b"%PDF-1.4", "a.pdf", "hold clean")).code == 250
    told = gateway.cli("queue", "release", "--all").expect(1)
    assert "released 1 recipients" in told.stdout
    assert "EICAR_Test_File was found in it" in told.stderr
    wait_stored(gateway, "hold clean")
    assert [mail for mail in gateway.mails(ALICE) if b"Subject: hold virus" in mail] == []
    gateway.cli("queue", "delete", "--state", "held", "--all").expect()


def test_each_recipient_is_released_alone_and_the_last_takes_the_body_along(gateway: Gateway) -> None:
    from tests.support.gateway import STRANGER
    from tests.support.raw import RawClient

    message = attached(b"x" * 200_000, "big.bin", "keep for two")
    with RawClient(gateway.ports["smtp"], source=STRANGER) as client:
        client.ehlo()
        client.begin_data(ALICE, "bob@example.org")
        client.send(message + b".\r\n")
        assert client.reply(30).code == 250
    queue_id = id_of(gateway, "keep for two")
    gateway.cli("quarantine", "release", queue_id, "--recipient", ALICE.upper()).expect()
    wait_stored(gateway, "keep for two")
    assert [row["recipient"] for row in kept(gateway) if row["id"] == queue_id] == ["bob@example.org"]
    gateway.cli("quarantine", "release", queue_id).expect()
    assert wait_stored(gateway, "keep for two", "bob@example.org").endswith(message)
    with closing(sqlite3.connect(gateway.data / "queue.db")) as connection:
        wait_until(lambda: connection.execute("SELECT count(*) FROM blob").fetchone()[0] == 0, 10, "the body to go")
        assert connection.execute("SELECT count(*) FROM release").fetchone()[0] == 0


@needs_clamd
@pytest.mark.peers
def test_a_release_waits_for_the_engine_and_happens_when_it_is_back() -> None:
    with Clamd() as clamd:
        options = gateway_with(f"unix:{clamd.socket}")
        options["policies"] = keeping()
        with temporary_gateway(**options) as gateway:
            clamd.daemon.kill()
            clamd.socket.unlink(missing_ok=True)
            assert offered(gateway, attached(b"%PDF-1.4", "a.pdf", "keep clean")).code == 250
            waiting = gateway.cli("quarantine", "release", "--all").expect(1)
            assert "not released yet: cannot be scanned" in waiting.stderr
            assert gateway.mails(ALICE) == []
            assert gateway.metric("smarthost_quarantine_releases_total", result="waiting") >= 1
            clamd.daemon.start()
            with closing(sqlite3.connect(gateway.data / "queue.db")) as connection:
                connection.execute("UPDATE release SET due = 0")
                connection.commit()
            wait_stored(gateway, "keep clean")


def test_a_request_outlives_the_gateway_that_heard_it() -> None:
    with temporary_gateway(policies=keeping()) as gateway:
        assert offered(gateway, attached(b"%PDF-1.4", "a.pdf", "keep a while")).code == 250
        gateway.kill()
        asked = gateway.cli("quarantine", "release", "--all").expect(1)
        assert "no gateway is running: 1 will be released when one does" in asked.stderr
        assert [row["subject"] for row in kept(gateway)] == ["keep a while"]
        gateway.start()
        wait_stored(gateway, "keep a while")


def test_where_quarantine_is_full_nothing_more_is_taken_for_it_and_nothing_lost() -> None:
    settings = {"quarantine": {"max_size": "300KB", "max_size_by_recipient": "100KB"}}
    with temporary_gateway(policies=keeping(), settings=settings) as gateway:
        body = b"x" * 30_000
        codes = [offered(gateway, attached(body, "a.bin", f"keep {number}")).code for number in range(4)]
        assert codes == [250, 250, 452, 452]
        others = [
            offered(gateway, attached(body, "a.bin", f"keep for bob {number}"), to="bob@example.org").code
            for number in range(3)
        ]
        assert others == [250, 250, 452]
        assert offered(gateway, attached(body, "a.bin", "not kept")).code == 250
        wait_stored(gateway, "not kept")
        assert "quarantine of <alice@example.org> is full" in gateway.log()
        gateway.cli("quarantine", "delete", "--recipient", ALICE).expect()
        assert offered(gateway, attached(body, "a.bin", "keep again")).code == 250
        wait_until(lambda: gateway.metric("smarthost_quarantine_bytes") > 0, 10, "the size")


def test_a_damaged_row_is_told_and_the_others_go(gateway: Gateway) -> None:
    assert offered(gateway, attached(b"x" * 200_000, "a.bin", "keep damaged")).code == 250
    assert offered(gateway, attached(b"x", "b.bin", "keep whole")).code == 250
    damaged = id_of(gateway, "keep damaged")
    with closing(sqlite3.connect(gateway.data / "queue.db")) as connection:
        sql = "SELECT name FROM blob JOIN message ON blob = blob.id WHERE queue_id = ?"
        (name,) = connection.execute(sql, [damaged]).fetchone()
    Path(gateway.data / "spool" / "blob" / name[:2] / name).unlink()
    told = gateway.cli("quarantine", "release", "--all").expect(1)
    assert "it cannot be read" in told.stderr
    wait_stored(gateway, "keep whole")
    assert damaged in gateway.cli("quarantine", "list").expect().stdout
    gateway.cli("quarantine", "delete", damaged).expect()
