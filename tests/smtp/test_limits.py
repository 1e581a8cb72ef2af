"""[limits] of a running gateway: each holds over both workers, is traced, and is given back when connections end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.gateway import PASSWORD, Gateway
from tests.support.process import wait_until
from tests.support.raw import (
    WORKERS,
    RawClient,
    RawReply,
    message,
    only_worker,
    plain,
    send_whole,
    spool_files,
    stored,
    temporary_gateway,
    trace_command,
    traced,
)

IN_ALL, BY_ADDRESS = 16, 10
IDLE_S, DATA_S = 0.9, 1.5
LIMITS = {
    "connections": IN_ALL,
    "connections_by_address": BY_ADDRESS,
    "recipients": 3,
    "commands": 12,
    "errors": 4,
    "messages": 2,
    "login_failures_by_address": 3,
    "login_failures_by_account": 2,
    "login_window": "10m",
}


@pytest.fixture(scope="module")
def counted() -> Iterator[Gateway]:
    """Low counts."""
    users = [f"{name}@example.org" for name in ("alice", "bob", "dora", "emil", "fred", "gina")]
    with temporary_gateway(settings={"limits": LIMITS}, users=users) as running:
        yield running


@pytest.fixture(scope="module")
def hurried() -> Iterator[Gateway]:
    """Short times."""
    limits = {"idle": f"{int(IDLE_S * 1000)}ms", "data": f"{int(DATA_S * 1000)}ms", "commands": 10_000}
    with temporary_gateway(settings={"limits": limits}) as running:
        yield running


@contextmanager
def all_ten(gateway: Gateway, source: str) -> Iterator[None]:
    """As many connections as an address may have, wherever they fall."""
    with ExitStack() as stack:
        for _ in range(BY_ADDRESS):
            stack.enter_context(admitted(gateway, source))
        yield


@contextmanager
def held(gateway: Gateway, source: str, shares: dict[str, int]) -> Iterator[list[RawClient]]:
    """So many admitted connections of one address on each worker, closed at the end, and counted no more: a worker that
    the next test stops could not give them back.
    """
    before = gateway.metric("smarthost_sessions_open", listener="smtp")
    with ExitStack() as stack:
        clients = []
        for worker, share in shares.items():
            with only_worker(gateway, worker):
                for _ in range(share):
                    clients.append(stack.enter_context(admitted(gateway, source)))
        yield clients
    wait_until(
        lambda: gateway.metric("smarthost_sessions_open", listener="smtp") <= before, 10.0, "the connections to end"
    )


def admitted(gateway: Gateway, source: str) -> RawClient:
    """A connection that was let in, tried again while connections closed a moment ago still count."""

    def attempt() -> RawClient | None:
        client = RawClient(gateway.ports["smtp"], source=source)
        if client.greeting.code == 220:
            return client
        client.close()
        return None

    return wait_until(attempt, 10.0, f"a connection from {source} to be let in")  # type: ignore[return-value]


def turned_away(gateway: Gateway, source: str) -> RawReply:
    with RawClient(gateway.ports["smtp"], source=source) as client:
        assert client.greeting.code == 421
        assert client.rest() == b""
        return client.greeting


def on_worker(gateway: Gateway, worker: str, source: str) -> RawClient:
    with only_worker(gateway, worker):
        client = admitted(gateway, source)
    client.ehlo()
    return client


def login_code(gateway: Gateway, worker: str, source: str, user: str, password: str) -> RawReply:
    with only_worker(gateway, worker), RawClient(gateway.ports["smtp"], source=source) as client:
        client.ehlo()
        client.starttls()
        client.ehlo()
        return client.login(user, password)


def test_two_workers_run(counted: Gateway) -> None:
    assert set(WORKERS) <= set(counted.role_pids())


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "shares"),
    [
        ("127.0.0.50", {"smtp-0": 5, "smtp-1": 5}),
        ("127.0.0.48", {"smtp-0": 10}),
        ("127.0.0.49", {"smtp-0": 1, "smtp-1": 9}),
    ],
)
def test_an_address_has_its_ten_connections_however_they_fall(
    counted: Gateway, source: str, shares: dict[str, int]
) -> None:
    with held(counted, source, shares) as clients:
        assert len(clients) == BY_ADDRESS
        for worker in WORKERS:
            with only_worker(counted, worker):
                assert turned_away(counted, source).lines[0].startswith("4.7.0")
        with admitted(counted, "127.0.0.51") as other:
            assert other.line("NOOP").code == 250
        clients[0].close()
        with admitted(counted, source):
            turned_away(counted, source)


def test_a_turned_away_connection_is_traced(counted: Gateway) -> None:
    with held(counted, "127.0.0.52", {"smtp-0": BY_ADDRESS}):
        answer = turned_away(counted, "127.0.0.52")
        assert "127.0.0.52" in trace_command(counted, answer)


def test_all_connections_together_are_limited_over_both_workers(counted: Gateway) -> None:
    with (
        held(counted, "127.0.0.53", {"smtp-0": 4, "smtp-1": 4}),
        held(counted, "127.0.0.54", {"smtp-0": 4, "smtp-1": 4}) as others,
    ):
        for worker in WORKERS:
            with only_worker(counted, worker):
                assert turned_away(counted, "127.0.0.55").lines[0].startswith("4.7.0")
        others[0].close()
        with admitted(counted, "127.0.0.55") as client:
            assert client.line("NOOP").code == 250


@pytest.mark.parametrize("how", ["close", "quit", "half-close", "starttls"])
def test_a_connection_is_given_back_however_it_ends(counted: Gateway, how: str) -> None:
    source = {"close": "127.0.0.44", "quit": "127.0.0.45", "half-close": "127.0.0.46", "starttls": "127.0.0.47"}[how]
    with held(counted, source, {"smtp-0": 5, "smtp-1": 5}) as clients:
        for client in clients:
            if how == "starttls":
                client.ehlo()
                client.starttls()
            if how == "quit":
                assert client.line("QUIT").code == 221
            elif how == "half-close":
                client.half_close()
                assert client.rest() == b""
            else:
                client.close()
        with all_ten(counted, source):
            turned_away(counted, source)


def test_connections_that_never_shake_hands_are_given_back(counted: Gateway) -> None:
    source = "127.0.0.57"
    with ExitStack() as stack:
        for _ in range(BY_ADDRESS):
            stack.enter_context(RawClient(counted.ports["submissions"], source=source, greet=False))
        wait_until(
            lambda: counted.metric("smarthost_sessions_open", listener="submissions") >= BY_ADDRESS,
            5.0,
            "all ten to be in",
        )
        turned_away(counted, source)
    with all_ten(counted, source):
        turned_away(counted, source)


def test_connections_of_a_killed_worker_are_given_back_and_those_of_the_other_are_not(counted: Gateway) -> None:
    source = "127.0.0.58"
    with held(counted, source, {"smtp-0": 6, "smtp-1": 4}) as clients:
        turned_away(counted, source)
        killed = counted.role_pids()["smtp-0"]
        os.kill(killed, signal.SIGKILL)
        for client in clients[:6]:
            assert client.rest() == b""
        wait_until(lambda: counted.role_pids().get("smtp-0", killed) != killed, 10.0, "smtp-0 to be started again")
        with held(counted, source, {"smtp-0": 3, "smtp-1": 3}):
            turned_away(counted, source)
        for client in clients[6:]:
            assert client.line("NOOP").code == 250


# --- one session ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", WORKERS)
def test_recipients_over_the_limit_are_for_another_message(counted: Gateway, worker: str) -> None:
    marker = f"three-recipients-{worker}"
    with on_worker(counted, worker, "127.0.0.60") as client:
        client.envelope("alice@example.org", "bob@example.org", "dora@example.org")
        answer = client.line("RCPT TO:<emil@example.org>")
        assert answer.code == 452
        assert answer.lines[0].startswith("4.5.3")
        assert client.line("DATA").code == 354
        client.send(message(marker) + b".\r\n")
        assert client.reply().code == 250
    for user in ("alice", "bob", "dora"):
        counted.wait_mails(f"{user}@example.org", 1)
    assert stored(counted, marker, "emil@example.org") == []
    assert traced(counted, answer)


@pytest.mark.parametrize("worker", WORKERS)
def test_commands_over_the_limit_end_the_session(counted: Gateway, worker: str) -> None:
    with on_worker(counted, worker, "127.0.0.61") as client:
        client.send(b"NOOP\r\n" * 20)
        assert client.codes(11) == [250] * 11
        answer = client.reply()
        assert answer.code == 421
        assert client.rest() == b""
    assert traced(counted, answer)


@pytest.mark.parametrize("worker", WORKERS)
def test_errors_over_the_limit_end_the_session_behind_their_own_reply(counted: Gateway, worker: str) -> None:
    with on_worker(counted, worker, "127.0.0.62") as client:
        assert client.line("FOO").code == 500
        assert client.line("MAIL FROM:<a").code == 501
        assert client.line("MAIL FROM:<a@elsewhere.test>").code == 250
        assert client.line("RCPT TO:<x@remote.test>").code == 554
        client.send(b"FOO\r\nNOOP\r\n")
        answers = client.replies(2)
        assert [answer.code for answer in answers] == [500, 421]
        assert client.rest() == b""
    assert traced(counted, answers[1])


@pytest.mark.parametrize("worker", WORKERS)
def test_messages_over_the_limit_need_another_connection(counted: Gateway, worker: str) -> None:
    with on_worker(counted, worker, "127.0.0.63") as client:
        for number in range(2):
            client.begin_data()
            client.send(message(f"message-{number}-{worker}") + b".\r\n")
            assert client.reply().code == 250
        answer = client.line("MAIL FROM:<a@elsewhere.test>")
        assert answer.code == 421
        assert client.rest() == b""
    assert traced(counted, answer)
    send_whole(counted, f"on-another-connection-{worker}", source="127.0.0.63")


def test_one_address_sends_many_messages_over_many_connections(counted: Gateway) -> None:
    for number in range(4):
        send_whole(counted, f"many-{number}", source="127.0.0.64")


# --- sign-in ----------------------------------------------------------------------------------------------------------


def test_wrong_passwords_of_one_address_are_counted_over_both_workers(counted: Gateway) -> None:
    source = "127.0.0.70"
    for number, worker in enumerate(("smtp-0", "smtp-1", "smtp-0")):
        assert login_code(counted, worker, source, f"no{number}@example.org", "wrong").code == 535
    for worker in WORKERS:
        answer = login_code(counted, worker, source, "bob@example.org", PASSWORD)
        assert answer.code == 454
        assert answer.lines[0].startswith("4.7.0")
    assert login_code(counted, "smtp-0", "127.0.0.71", "bob@example.org", PASSWORD).code == 235
    assert traced(counted, answer)


def test_wrong_passwords_of_one_account_are_counted_over_both_workers(counted: Gateway) -> None:
    assert login_code(counted, "smtp-0", "127.0.0.72", "dora@example.org", PASSWORD).code == 235
    for number, worker in enumerate(WORKERS):
        assert login_code(counted, worker, f"127.0.0.{73 + number}", "dora@example.org", "wrong").code == 535
    for number, worker in enumerate(WORKERS):
        answer = login_code(counted, worker, f"127.0.0.{75 + number}", "DORA@example.org", PASSWORD)
        assert answer.code == 454
    assert traced(counted, answer)
    assert login_code(counted, "smtp-1", "127.0.0.72", "dora@example.org", PASSWORD).code == 235
    assert login_code(counted, "smtp-1", "127.0.0.75", "emil@example.org", PASSWORD).code == 235


def test_right_passwords_are_not_counted(counted: Gateway) -> None:
    for number in range(5):
        assert login_code(counted, WORKERS[number % 2], "127.0.0.80", "gina@example.org", PASSWORD).code == 235


def test_guesses_at_the_same_time_are_no_more_than_guesses_in_turn(counted: Gateway) -> None:
    """Eight sessions on two workers guess at once: three passwords are looked at, and no more."""
    with held(counted, "127.0.0.81", {"smtp-0": 4, "smtp-1": 4}) as clients:
        for client in clients:
            client.ehlo()
            client.starttls()
            client.ehlo()
        for number, client in enumerate(clients):
            client.send(b"AUTH PLAIN " + plain(f"guess{number}@example.org", "wrong") + b"\r\n")
        codes = [client.reply().code for client in clients]
    assert sorted(codes) == [454] * 5 + [535] * 3


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", WORKERS)
def test_an_idle_client_gets_421_and_is_closed(hurried: Gateway, worker: str) -> None:
    with on_worker(hurried, worker, "127.0.0.50") as client:
        client.envelope()
        started = time.monotonic()
        answer = client.reply(IDLE_S + 3.0)
        assert answer.code == 421
        assert answer.lines[0].startswith("4.4.2")
        assert time.monotonic() - started > IDLE_S - 0.2
        assert client.rest() == b""
    assert traced(hurried, answer)["sender"] == "sender@elsewhere.test"


def test_clients_that_are_idle_in_every_phase_get_421(hurried: Gateway) -> None:
    """Before EHLO, in half a command, in TLS, in a challenge, in DATA and in a chunk: all wait at the same time."""
    port = hurried.ports["smtp"]
    with ExitStack() as stack:
        clients = {}
        for name in ("greeted", "half-command", "in-tls", "challenged", "in-data", "in-chunk", "between-chunks"):
            clients[name] = stack.enter_context(RawClient(port, source="127.0.0.51"))
        clients["half-command"].send(b"EHLO clie")
        for name in ("in-tls", "challenged"):
            clients[name].ehlo()
            clients[name].starttls()
            clients[name].ehlo()
        assert clients["challenged"].line("AUTH PLAIN").code == 334
        for name in ("in-data", "in-chunk", "between-chunks"):
            clients[name].ehlo()
            clients[name].envelope()
        assert clients["in-data"].line("DATA").code == 354
        clients["in-data"].send(message("idle-in-data", b"x\r\n" * 40_000))
        clients["in-chunk"].send(b"BDAT 500\r\nabc")
        assert clients["between-chunks"].line("BDAT 0").code == 250
        for name, client in clients.items():
            answer = client.reply(IDLE_S + 4.0)
            assert answer.code == 421, name
            assert answer.id
            assert client.rest() == b"", name
    wait_until(lambda: spool_files(hurried) == [], 5.0, "data/spool/tmp to be empty")
    send_whole(hurried, "sentinel-behind-idle")
    assert stored(hurried, "idle-in-data") == []


def test_a_client_that_reads_no_reply_is_cut_off(hurried: Gateway) -> None:
    with RawClient(hurried.ports["smtp"], source="127.0.0.52") as client:
        before = hurried.metric("smarthost_sessions_open", listener="smtp")
        assert before >= 1
        client.ehlo()
        client.socket.settimeout(0.5)
        try:
            for _ in range(200):
                client.socket.sendall(b"HELP\r\n" * 40)
        except (TimeoutError, ConnectionError):
            pass
        wait_until(
            lambda: hurried.metric("smarthost_sessions_open", listener="smtp") < before,
            IDLE_S + 8.0,
            "the session to be cut off",
            interval=0.2,
        )


def test_messages_that_drip_in_are_cut_off_at_the_deadline_of_data(hurried: Gateway) -> None:
    """One by DATA and one by BDAT, neither ever idle for long."""
    with (
        RawClient(hurried.ports["smtp"], source="127.0.0.53") as by_data,
        RawClient(hurried.ports["smtp"], source="127.0.0.54") as by_bdat,
    ):
        for client in (by_data, by_bdat):
            client.ehlo()
        by_data.begin_data()
        by_bdat.envelope()
        started = time.monotonic()
        by_data.send(message("dripped-data"))
        by_bdat.send(b"BDAT 100000 LAST\r\n" + message("dripped-bdat"))
        while by_data.is_silent(IDLE_S / 6) and by_bdat.is_silent(IDLE_S / 6):
            assert time.monotonic() - started < DATA_S + 3.0, "the server let them drip on"
            by_data.try_send(b"x\r\n")
            by_bdat.try_send(b"x\r\n")
        assert time.monotonic() - started > DATA_S - 0.2
        for client in (by_data, by_bdat):
            answer = client.reply()
            assert answer.code == 421
            assert answer.lines[0].startswith("4.4.2")
            assert traced(hurried, answer)["sender"] == "sender@elsewhere.test"
    send_whole(hurried, "sentinel-behind-the-drips")
    assert stored(hurried, "dripped-") == []


def test_the_deadline_of_data_ends_with_the_chunks_it_was_for(hurried: Gateway) -> None:
    """Sessions that dropped their chunks and go on talking, never idle for long, are not cut off."""
    with ExitStack() as stack:
        clients = []
        for command in ("RSET", "EHLO again.test", "BDAT 0 LAST"):
            client = stack.enter_context(RawClient(hurried.ports["smtp"], source="127.0.0.55"))
            client.ehlo()
            client.envelope()
            client.send(b"BDAT 3\r\nabc")
            assert client.reply().code == 250
            assert client.line(command).code in (250, 550)
            clients.append(client)
        ending = time.monotonic() + DATA_S + IDLE_S
        while time.monotonic() < ending:
            for client in clients:
                assert client.line("NOOP").code == 250
                assert client.is_silent(0.05), "the session was ended although no message is under way"


def test_what_is_idle_is_told_of_the_shutdown_at_once(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(roles="smtp,admin").start()
    clients = [on_worker(gateway, worker, "127.0.0.57") for worker in WORKERS]
    try:
        os.kill(gateway.pid, signal.SIGTERM)
        for client in clients:
            answer = client.reply()
            assert answer.code == 421
            assert answer.lines[0].startswith("4.3.2")
            assert client.rest() == b""
    finally:
        for client in clients:
            client.close()
    assert traced(gateway, answer)
