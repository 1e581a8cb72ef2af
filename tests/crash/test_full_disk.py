"""A full disk: new mail gets 452, nothing is half stored, and mail is taken again once there is room."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.crash.load import RawClient, id_of, make_message, queued, spool_files, stored
from tests.support.gateway import Gateway
from tests.support.process import wait_until

SIZE = 8 * 1024 * 1024
USER = "alice@example.org"
BIG = 1_000_000
SLACK = 64 * 1024
ROLES = {"smtp-0", "smtp-1", "content-0", "content-1", "queue-0", "store-0", "lessons-0", "admin-0"}

PATIENT = {"queue": {"retry": ["1s"]}, "limits": {"errors": 1000}}  # a session may hear 452 often

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@contextmanager
def _on_a_small_disk(make_gateway: Callable[..., Gateway], **options: object) -> Iterator[Gateway]:
    """A running gateway whose data folder is a file system of SIZE octets."""
    gateway = make_gateway(**options)
    kept = gateway.folder / "accounts.kept"
    shutil.copy(gateway.data / "accounts.db", kept)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", str(gateway.data)]
    done = subprocess.run(mounting, capture_output=True, text=True, check=False, timeout=10)
    if done.returncode != 0:
        pytest.skip(f"cannot mount: {done.stderr}")
    try:
        shutil.copy(kept, gateway.data / "accounts.db")
        gateway.start()
        wait_until(lambda: set(gateway.role_pids()) == ROLES, 20, "all roles")
        yield gateway
    finally:
        try:
            gateway.stop()
        finally:
            subprocess.run(["umount", str(gateway.data)], check=True, timeout=10)


class _Filler:
    """A file that takes all room but `leave` octets."""

    def __init__(self, gateway: Gateway) -> None:
        self._path = gateway.data / "filler"

    def fill(self, leave: int = 0) -> None:
        """Others may write meanwhile: with nothing to leave, on until there is no room at all."""
        self.free()
        with self._path.open("wb") as file:
            size = max(0, shutil.disk_usage(self._path.parent).free - leave - SLACK) if leave else 0
            if size:
                os.posix_fallocate(file.fileno(), 0, size)
                return
            for step in (1 << 20, 1 << 16, 1 << 12):
                with suppress(OSError):
                    while size < SIZE:
                        os.posix_fallocate(file.fileno(), size, step)
                        size += step

    def free(self) -> None:
        self._path.unlink(missing_ok=True)


def _send(client: RawClient, ident: str, size: int = 0) -> str:
    """The reply that decides: of MAIL, RCPT or the final dot."""
    for line in ("MAIL FROM:<sender@elsewhere.test>", f"RCPT TO:<{USER}>", "DATA"):
        answer = client.command(line)
        if answer[0] not in "23":
            client.command("RSET", "250")
            return answer
    client.send(make_message(ident, size) + b".\r\n")
    return client.reply()


def _check_stored(gateway: Gateway, accepted: dict[str, int]) -> None:
    """What got 250, whole, and nothing else; no file is left behind."""
    wait_until(lambda: queued(gateway) == 0, 30, "an empty queue", interval=0.1)
    found = {id_of(octets): octets for octets in stored(gateway, USER)}
    assert sorted(found) == sorted(accepted)
    for ident, octets in found.items():
        assert octets.endswith(make_message(ident, accepted[ident])), f"{ident} was changed"
    # The file goes right after its row.
    wait_until(lambda: spool_files(gateway) == [], 5, "an empty spool")
    maildir = gateway.data / "mail" / "example.org" / "alice" / "Maildir"
    assert len(list((maildir / "cur").iterdir())) == len(found)
    assert list((maildir / "tmp").iterdir()) == []


def test_a_full_disk_is_answered_with_452_and_costs_nothing_that_got_250(make_gateway: Callable[..., Gateway]) -> None:
    with _on_a_small_disk(make_gateway, settings=PATIENT) as gateway:
        pids, filler, accepted = gateway.role_pids(), _Filler(gateway), {}
        with RawClient(gateway.ports["smtp"], timeout=30) as client:
            assert _send(client, "before").startswith("250")
            accepted["before"] = 0
            gateway.wait_mails(USER, 1)
            filler.fill()
            # What room the log has already may still be used: that is no fault, and what got 250 must arrive.
            refused = []
            for number in range(400):
                answer = _send(client, f"small-{number}")
                if not answer.startswith("250"):
                    refused.append(answer)
                    break
                accepted[f"small-{number}"] = 0
            for number in range(3):
                refused += [_send(client, f"large-{number}", BIG)]
            refused += [_send(client, "small-again")]
            assert [answer for answer in refused if not answer.startswith("452 4.3.1")] == []
            assert len(refused) == 5
            _check_none_ended(gateway, pids)
            assert gateway.get("/healthz")[0] == 200
            filler.free()
            for ident, size in (("after", 0), ("after-large", BIG)):
                assert _until_accepted(client, ident, size).startswith("250")
                accepted[ident] = size
        gateway.cli("queue", "retry", "--all")
        _check_stored(gateway, accepted)
        _check_none_ended(gateway, pids)


def test_a_disk_that_fills_in_mid_data_is_answered_with_452_at_the_dot(make_gateway: Callable[..., Gateway]) -> None:
    with _on_a_small_disk(make_gateway, settings=PATIENT) as gateway:
        pids, filler = gateway.role_pids(), _Filler(gateway)
        message = make_message("mid", 3 * BIG)
        with RawClient(gateway.ports["smtp"], timeout=30) as client:
            client.begin(USER)
            client.send(message[:BIG])
            wait_until(lambda: any(path.stat().st_size for path in spool_files(gateway)), 10, "octets in the spool")
            filler.fill()
            client.send(message[BIG:] + b".\r\n")
            assert client.reply().startswith("452 4.3.1")
            assert spool_files(gateway) == []
            filler.free()
            assert _until_accepted(client, "mid-again", BIG).startswith("250")
        _check_stored(gateway, {"mid-again": BIG})
        _check_none_ended(gateway, pids)


def test_a_disk_that_fills_in_mid_chunks_is_answered_with_452_and_stays_in_step(
    make_gateway: Callable[..., Gateway],
) -> None:
    with _on_a_small_disk(make_gateway, settings=PATIENT) as gateway:
        filler, message = _Filler(gateway), make_message("chunk", BIG)
        with RawClient(gateway.ports["smtp"], timeout=30) as client:
            client.command("MAIL FROM:<sender@elsewhere.test>", "250")
            client.command(f"RCPT TO:<{USER}>", "250")
            half = len(message) // 2
            client.send(b"BDAT %d\r\n" % half + message[:half])
            assert client.reply().startswith("250")
            filler.fill()
            client.send(b"BDAT %d LAST\r\n" % (len(message) - half) + message[half:])
            assert client.reply().startswith("452 4.3.1")
            client.command("RSET", "250")
            assert spool_files(gateway) == []
            filler.free()
            assert _until_accepted(client, "chunk-again", BIG).startswith("250")
        _check_stored(gateway, {"chunk-again": BIG})


def test_a_worker_that_ends_on_a_full_disk_comes_back_and_the_listener_goes_on(
    make_gateway: Callable[..., Gateway],
) -> None:
    with _on_a_small_disk(make_gateway, settings=PATIENT) as gateway:
        filler, old = _Filler(gateway), gateway.role_pids()
        with RawClient(gateway.ports["smtp"]) as client:
            assert _send(client, "before").startswith("250")
        gateway.wait_mails(USER, 1)
        filler.fill()
        for role in ROLES:
            os.kill(old[role], signal.SIGKILL)
        wait_until(lambda: _all_new(gateway, old), 15, "a new process for each role")
        new = gateway.role_pids()
        with RawClient(gateway.ports["smtp"]) as client:
            answer = _send(client, "large", BIG)
        assert answer.startswith("452 4.3.1"), answer
        assert gateway.get("/healthz")[0] == 200
        filler.free()
        with RawClient(gateway.ports["smtp"]) as client:
            assert _until_accepted(client, "after", BIG).startswith("250")
        _check_stored(gateway, {"before": 0, "after": BIG})
        _check_none_ended(gateway, new)


def test_a_disk_full_from_the_start_ends_no_role(make_gateway: Callable[..., Gateway]) -> None:
    # Nothing was counted yet: each metric's first value needs room that its file does not have.
    with _on_a_small_disk(make_gateway, settings=PATIENT) as gateway:
        filler, pids = _Filler(gateway), gateway.role_pids()
        filler.fill()
        for number in range(8):  # both workers get some
            try:
                with RawClient(gateway.ports["smtp"]) as client:
                    client.command("NONSENSE", "500")
                    client.command("MAIL FROM:<sender@elsewhere.test>")
                    client.command("RCPT TO:<nobody-here@example.org>")
                    client.command("RSET", "250")
                    _send(client, f"large-{number}", BIG if number % 2 else 0)
            except (ConnectionError, AssertionError):
                break  # told of below
        filler.free()
        with RawClient(gateway.ports["smtp"]) as client:
            assert _until_accepted(client, "after", BIG).startswith("250")
        wait_until(lambda: b"X-Id: after" in b"".join(gateway.mails(USER)), 20, "the mail after")
        _check_none_ended(gateway, pids)


def test_mail_in_the_queue_waits_while_the_disk_is_full_and_is_delivered_after(
    make_gateway: Callable[..., Gateway],
) -> None:
    with _on_a_small_disk(make_gateway, settings=PATIENT) as gateway:
        pids, filler, accepted = gateway.role_pids(), _Filler(gateway), {}
        # Room for the log to grow a little, none for many bodies in the mailbox.
        filler.fill(leave=400_000)
        with RawClient(gateway.ports["smtp"], timeout=30) as client:
            for number in range(40):
                answer = _send(client, f"tight-{number}", 30_000)
                assert answer[:3] in ("250", "452"), answer
                if answer.startswith("250"):
                    accepted[f"tight-{number}"] = 30_000
        assert 0 < len(accepted) < 40
        filler.free()
        gateway.cli("queue", "retry", "--all")
        _check_stored(gateway, accepted)
        _check_none_ended(gateway, pids)


def test_below_the_reserve_mail_is_refused_at_once_and_taken_again_above_it(
    make_gateway: Callable[..., Gateway],
) -> None:
    with _on_a_small_disk(make_gateway, settings={"limits": {"free_space": "2MB", "errors": 1000}}) as gateway:
        filler = _Filler(gateway)
        with RawClient(gateway.ports["smtp"]) as client, RawClient(gateway.ports["smtp"]) as busy:
            assert _send(client, "before").startswith("250")
            busy.begin(USER)
            busy.send(b"Subject: begun above the reserve\r\n")
            filler.fill(leave=1024 * 1024)
            # The room is looked at once a second.
            wait_until(lambda: client.command("MAIL FROM:<a@elsewhere.test>")[:3] == "452" or _reset(client), 5, "452")
            assert client.command("MAIL FROM:<a@elsewhere.test>").startswith("452 4.3.1")
            assert gateway.get("/readyz") == (503, "free space is below limits.free_space\n")
            busy.send(b"X-Id: busy\r\n\r\n" + b"x" * 60 + b"\r\n")
            reply = _finish_later(busy)
            assert re.match(r"250 |452 4\.3\.1", reply), reply
            filler.free()
            assert _until_accepted(client, "after", 0).startswith("250")
        expected = {"before", "after", *({"busy"} if reply.startswith("250") else set())}
        wait_until(lambda: queued(gateway) == 0, 20, "an empty queue")
        assert {id_of(octets) for octets in stored(gateway, USER)} == expected
        assert gateway.get("/readyz")[0] == 200


def _check_none_ended(gateway: Gateway, pids: dict[str, int]) -> None:
    told = [line for line in gateway.log().splitlines() if "role ended" in line or "broken" in line]
    assert gateway.role_pids() == pids, told


def _all_new(gateway: Gateway, old: dict[str, int]) -> bool:
    new = gateway.role_pids()
    return set(new) == ROLES and not set(new.values()) & set(old.values())


def _reset(client: RawClient) -> bool:
    """False, after a RSET."""
    client.command("RSET", "250")
    return False


def _finish_later(client: RawClient) -> str:
    client.send(b".\r\n")
    return client.reply()


def _until_accepted(client: RawClient, ident: str, size: int) -> str:
    """The reply once it is no 452 any more: the room is looked at once a second."""
    last: list[str] = []

    def attempt() -> bool:
        last[:] = [_send(client, ident, size)]
        return not last[0].startswith("452")

    wait_until(attempt, 5, "an end of 452")
    return last[0]
