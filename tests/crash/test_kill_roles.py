"""Under load every role is killed again and again: what got its 250 arrives."""

import os
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from gateway.demo.nameserver import NameServer
from tests.crash.load import Load, id_of, make_message, queued, spool_files, stored
from tests.support.gateway import Gateway
from tests.support.peers import SmtpSink, sink_missing
from tests.support.process import wait_until

ROLES = ("smtp-0", "smtp-1", "content-0", "content-1", "queue-0", "store-0", "lessons-0", "admin-0")
SUPERVISOR = "supervisor"
ROUNDS = 20
USERS = ("alice@example.org", "bob@example.org")


def _order() -> list[str]:
    """Every victim at least three times, the supervisor too, in an order that differs from run to run."""
    victims = [*ROLES, SUPERVISOR]
    found = [victims[number % len(victims)] for number in range(ROUNDS)]
    random.shuffle(found)
    return found


def _all_up(gateway: Gateway) -> bool:
    return set(gateway.role_pids()) == set(ROLES)


def _kill_role(gateway: Gateway, role: str) -> None:
    pid = wait_until(lambda: gateway.role_pids().get(role), 15, f"{role} before it is killed")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gateway.role_pids().get(role, pid) != pid, 15, f"a new {role}")


def _wait_more(load: Load, count: int) -> None:
    reached = len(load.accepted) + count
    wait_until(lambda: len(load.accepted) >= reached, 20, f"{count} more messages to be accepted")


def _kill_supervisor(gateway: Gateway) -> None:
    os.kill(gateway.pid, signal.SIGKILL)
    assert gateway.stop() in (-signal.SIGKILL, None)
    gateway.start()
    wait_until(lambda: _all_up(gateway), 20, "all roles after the restart")


@pytest.mark.peers
@pytest.mark.skipif(sink_missing() is not None, reason=str(sink_missing()))
def test_nothing_that_got_250_is_lost_whoever_is_killed(
    make_gateway: Callable[..., Gateway], tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with (
        SmtpSink(tmp_path) as sink,
        NameServer(["remote.test MX 10 mx.remote.test.", "mx.remote.test A 127.0.0.1"]) as dns,
    ):
        settings = {
            "dns": {"servers": [dns.address]},
            "delivery": {"port": sink.port},
            "queue": {"retry": ["1s"]},
        }
        gateway = make_gateway(settings=settings).start()
        wait_until(lambda: _all_up(gateway), 20, "all roles")
        with Load(gateway.ports["smtp"], [*USERS, "someone@remote.test"]) as load:
            for victim in _order():
                _wait_more(load, random.randint(3, 40))
                if victim == SUPERVISOR:
                    _kill_supervisor(gateway)
                else:
                    _kill_role(gateway, victim)
            _wait_more(load, 20)
        assert load.faults == []
        wait_until(lambda: queued(gateway) == 0, 30, "an empty queue", interval=0.2)

        assert gateway.stop() == 0
        gateway.start()
        assert gateway.queue() == []
        assert spool_files(gateway) == []
        with closing(sqlite3.connect(gateway.data / "queue.db")) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            for table in ("message", "blob", "recipient"):
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table

        arrived: dict[str, Counter[str]] = {user: Counter() for user in USERS}
        for user in USERS:
            for octets in stored(gateway, user):
                ident = id_of(octets)
                assert octets.endswith(make_message(ident, load.sizes[ident])), f"{ident} was changed"
                arrived[user][ident] += 1
        remote: Counter[str] = Counter()
        for message in sink.messages():
            ident = id_of(message.data)
            assert message.data.endswith(make_message(ident, load.sizes[ident])), f"{ident} was changed"
            remote[ident] += 1
        arrived["someone@remote.test"] = remote

        lost = sorted(ident for ident, recipient in load.accepted.items() if not arrived[recipient][ident])
        assert lost == []
        # A mailbox knows a delivery by its id: more copies than sendings would be the gateway's own doing.
        copied = {ident for user in USERS for ident, count in arrived[user].items() if count > load.attempts[ident]}
        assert copied == set()
        duplicates = sum(count - 1 for counts in arrived.values() for count in counts.values())
        record_property("accepted", len(load.accepted))
        record_property("duplicates", duplicates)
